"""SIP over UDP: the sockets and nothing else (RFC 3261 18; RFC 3581 is the transaction layer's work)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from extenbot.interfaces import Address, Flow
from extenbot.net.addresses import bound, nearest
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
        self.handle = port.getHandle()
        self.local = self.handle.getsockname()[:2]
        self.handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received(datagram, Flow("UDP", self.local, (addr[0], addr[1])))


class Datagrams:
    """All UDP sockets that SIP listens on."""

    def __init__(self, reactor: Any, received: Callable[[bytes, Flow], None]) -> None:
        self.unsent = 0
        self._reactor = reactor
        self._received = received
        self._sockets: dict[Address, _Socket] = {}
        self._ports: list[Any] = []

    def listen(self, endpoint: Endpoint) -> Address:
        """Listen; `CannotStart` when that is not possible."""
        protocol = _Socket(self._received)
        with bound(endpoint, socket.SOCK_DGRAM) as handle:
            # The default size of 8192 bytes would cut longer messages.
            port = self._reactor.adoptDatagramPort(handle.fileno(), handle.family, protocol, maxPacketSize=65535)
        self._ports.append(port)
        self._sockets[protocol.local] = protocol
        return protocol.local

    def send(self, data: bytes, flow: Flow) -> None:
        """Send one message from the socket that `flow` names, or else from the one nearest to the peer."""
        protocol = self._sockets.get(flow.local)
        if protocol is None:
            place = nearest(self._sockets, flow.remote[0])
            if place is None:
                self.unsent += 1
                return
            protocol = self._sockets[place]
        try:
            protocol.handle.sendto(data, flow.remote)
        except OSError:  # unreachable, too long, buffer full: for UDP all of it is loss
            self.unsent += 1

    def close(self) -> list[Any]:
        """Stop listening; the Deferreds of the sockets being closed."""
        ports, self._ports = self._ports, []
        self._sockets.clear()
        return [port.stopListening() for port in ports]
