"""SIP over UDP: the sockets and nothing else (RFC 3261 18; RFC 3581 is the transaction layer's work)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol

from extenbot.interfaces import Address, Flow
from extenbot.net.addresses import ANY, listening_error, local_toward
from extenbot.settings import Endpoint

#: room for a burst of REGISTERs while a call is being set up
RECEIVE_BUFFER = 4 << 20


class _Socket(DatagramProtocol):
    noisy = False

    def __init__(self, received: Callable[[bytes, Flow], None]) -> None:
        self.received = received
        self.local: Address = ("", 0)
        self.handle: socket.socket

    def startProtocol(self) -> None:
        port: Any = self.transport
        self.local = (port.getHost().host, port.getHost().port)
        self.handle = port.getHandle()
        self.handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received(datagram, Flow("UDP", self.local, (addr[0], addr[1])))


class SipSockets:
    """All UDP sockets SIP listens on; the `SipTransport` of the transaction layer."""

    def __init__(self, reactor: Any, advertise: str = "") -> None:
        self._reactor = reactor
        self._advertise = advertise
        self._sockets: dict[Address, _Socket] = {}
        self._ports: list[Any] = []
        self.unsent = 0

    def listen(self, endpoint: Endpoint, received: Callable[[bytes, Flow], None]) -> Address:
        """Listen, and give each datagram to `received`; `CannotStart` when that is not possible."""
        protocol = _Socket(received)
        try:
            # The default size of 8192 bytes would cut longer messages.
            port = self._reactor.listenUDP(endpoint.port, protocol, endpoint.interface, maxPacketSize=65535)
        except CannotListenError as error:
            raise listening_error(endpoint, error.socketError) from None
        self._ports.append(port)
        self._sockets[protocol.local] = protocol
        return protocol.local

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where we listen, wild cards included."""
        return tuple(self._sockets)

    def send(self, data: bytes, flow: Flow) -> None:
        """Send one message from the socket that `flow` names, or from the first if that one is gone."""
        protocol = self._sockets.get(flow.local) or next(iter(self._sockets.values()), None)
        if protocol is None:
            self.unsent += 1
            return
        try:
            protocol.handle.sendto(data, flow.remote)
        except OSError:  # unreachable, too long, buffer full: for UDP all of it is loss
            self.unsent += 1

    def advertised(self, flow: Flow) -> Address:
        """Our host and port as the other end of `flow` should write them."""
        host, port = flow.local
        if flow.local not in self._sockets and self._sockets:  # as in `send`
            host, port = next(iter(self._sockets))
        if self._advertise:
            return self._advertise, port
        return (local_toward(flow.remote[0]) if host in ANY else host), port

    def close(self) -> list[Any]:
        """Stop listening; the Deferreds of the sockets being closed."""
        ports, self._ports = self._ports, []
        self._sockets.clear()
        return [port.stopListening() for port in ports]
