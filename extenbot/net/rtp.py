"""Pairs of UDP ports for RTP and RTCP, and the pool they come from (RFC 3550 11).

The hot path writes to the socket itself: Twisted's `write` examines the address again
for every packet.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol

from extenbot.errors import Refused
from extenbot.interfaces import Address, RtpReceiver
from extenbot.net.addresses import ANY, local_toward
from extenbot.settings import Rtp

#: seconds a pair rests, so that late packets of the last call never reach the next one
REST = 3.0
#: ports tried before we say that none is free: others on this machine may use some of the range
TRIES = 50


class _Audio(DatagramProtocol):
    noisy = False

    def __init__(self, receiver: RtpReceiver) -> None:
        self.datagramReceived = receiver.received  # type: ignore[method-assign,assignment]


class _Control(DatagramProtocol):
    noisy = False

    def __init__(self, receiver: RtpReceiver) -> None:
        self.datagramReceived = receiver.received_control  # type: ignore[method-assign,assignment]


class PortPair:
    """RTP on the even port, RTCP one above; an `RtpPort`."""

    def __init__(self, pool: RtpPool, even: int, address: Address, ports: tuple[Any, Any]) -> None:
        self.address = address
        self._pool = pool
        self._even = even
        self._ports = ports
        self._audio = ports[0].getHandle()
        self._control = ports[1].getHandle()
        self._open = True

    def send(self, data: bytes, to: Address) -> None:
        """One RTP packet; what the network does not take is lost, as on any network."""
        try:
            self._audio.sendto(data, to)
        except OSError:
            self._pool.unsent += 1

    def send_control(self, data: bytes, to: Address) -> None:
        """One RTCP packet."""
        try:
            self._control.sendto(data, to)
        except OSError:
            self._pool.unsent += 1

    def close(self) -> None:
        """Close both sockets; the pair rests, then it is free again. Closing twice is once."""
        if self._open:
            self._open = False
            for port in self._ports:
                port.stopListening()
            self._pool.rest(self._even)


class RtpPool:
    """Port pairs from the range in the settings, the one that rested longest first."""

    def __init__(self, reactor: Any, settings: Rtp) -> None:
        self._reactor = reactor
        self._settings = settings
        first = settings.ports.start + settings.ports.start % 2
        self._free: deque[tuple[float, int]] = deque((0.0, port) for port in range(first, settings.ports.stop - 1, 2))
        self.size = len(self._free)
        self.unsent = 0

    @property
    def used(self) -> int:
        """Pairs that calls hold now, without those that rest."""
        return self.size - len(self._free)

    def open(self, receiver: RtpReceiver, toward: str) -> PortPair:
        """A bound pair whose address suits the peer at `toward`; `Refused` 503 when none is free."""
        now = self._reactor.seconds()
        for _ in range(min(TRIES, len(self._free))):
            rested, even = self._free[0]
            if rested and rested > now:
                break
            self._free.popleft()
            try:
                return self._bind(receiver, even, toward)
            except CannotListenError:  # somebody else's port: look at it again later
                self._free.append((now + REST, even))
        raise Refused(503, "No RTP port is free", [("Retry-After", "5")])

    def _bind(self, receiver: RtpReceiver, even: int, toward: str) -> PortPair:
        interface = self._settings.interface
        audio = self._reactor.listenUDP(even, _Audio(receiver), interface, maxPacketSize=2048)
        try:
            control = self._reactor.listenUDP(even + 1, _Control(receiver), interface, maxPacketSize=2048)
        except CannotListenError:
            audio.stopListening()
            raise
        host = self._settings.advertise or (local_toward(toward) if interface in ANY else interface)
        return PortPair(self, even, (host, even), (audio, control))

    def rest(self, even: int) -> None:
        """Take a pair back."""
        self._free.append((self._reactor.seconds() + REST, even))
