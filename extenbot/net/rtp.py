"""Pairs of UDP ports for RTP and RTCP, and the pool they come from (RFC 3550 11).

RTP is not read when it arrives but when the line asks, at its tick: the reactor wakes once for
many calls instead of once for each packet, and the kernel says when each packet came. RTCP is
rare and goes the usual way. The hot path uses the sockets themselves: Twisted's `write`
examines the address again for every packet.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
import sys
import time
from collections import deque
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from extenbot.errors import Refused
from extenbot.interfaces import Address, RtpReceiver
from extenbot.net.addresses import ANY, advertised
from extenbot.settings import Rtp

#: packets of one call taken at one tick; more can only be a flood
MOST = 64
#: packets that can wait in a socket
MOST_KEPT = 10_000
#: Linux's SO_TIMESTAMPNS, which the socket module does not name, and what it brings: seconds and nanoseconds
_SO_TIMESTAMPNS = 35 if sys.platform == "linux" else None
_STAMP = struct.Struct("@ll")
_ANCILLARY = socket.CMSG_SPACE(_STAMP.size)
#: what a machine without IPv6 says of its wild card, and what we say then (RFC 3261 20.43)
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_INCOMPATIBLE = (
    488,
    "Not Acceptable Here",
    [("Warning", '301 extenbot "Incompatible network address formats"')],
)
#: seconds a pair rests, so that late packets of the last call never reach the next one
REST = 3.0
#: ports tried before we say that none is free: others on this machine may use some of the range
TRIES = 50


class _Control(DatagramProtocol):
    noisy = False

    def __init__(self, receiver: RtpReceiver) -> None:
        self.datagramReceived = receiver.received_control  # type: ignore[method-assign,assignment]


class PortPair:
    """RTP on the even port, RTCP one above; an `RtpPort`."""

    def __init__(
        self, pool: RtpPool, receiver: RtpReceiver, address: Address, audio: socket.socket, control: Any
    ) -> None:
        self.address = address
        self._pool = pool
        self._receiver = receiver
        self._audio = audio
        self._wide = audio.family == socket.AF_INET6
        self._control_port = control
        self._control = control.getHandle()
        self._open = True

    def send(self, data: bytes, to: Address) -> None:
        """One RTP packet; what the network does not take is lost, as on any network."""
        try:
            self._audio.sendto(data, to)
        except OSError:
            self._pool.unsent += 1

    def poll(self) -> float:
        """Hand over what has arrived, each packet with the time the kernel took it."""
        now = time.time()
        receive, receiver = self._audio.recvmsg, self._receiver
        for _ in range(MOST):
            try:
                data, ancillary, _flags, source = receive(2048, _ANCILLARY)
            except OSError:  # nothing more, or closed
                break
            if ancillary:
                seconds, nanoseconds = _STAMP.unpack(ancillary[0][2])
                at = seconds + nanoseconds * 1e-9
            else:
                at = time.time()
            receiver.received(data, source[:2] if self._wide else source, at)
        return now

    def drain(self) -> None:
        """Drop what has arrived; the kernel keeps a few seconds at most."""
        for _ in range(MOST_KEPT):
            try:
                self._audio.recv(1)
            except OSError:
                return

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
            self._audio.close()
            self._control_port.stopListening()
            self._pool.rest(self.address[1])


class RtpPool:
    """Port pairs from the range in the settings, the one that rested longest first."""

    def __init__(self, reactor: Any, settings: Rtp) -> None:
        self._reactor = reactor
        self._settings = settings
        first = settings.ports.start + settings.ports.start % 2
        pairs = list(range(first, settings.ports.stop - 1, 2))
        # In no order that a stranger could guess, nor that of the process before us, whose callers may still send.
        random.SystemRandom().shuffle(pairs)
        self._free: deque[tuple[float, int]] = deque((0.0, port) for port in pairs)
        self.size = len(self._free)
        self.unsent = 0

    @property
    def used(self) -> int:
        """Pairs that calls hold now, without those that rest."""
        return self.size - len(self._free)

    def open(self, receiver: RtpReceiver, toward: str) -> PortPair:
        """A bound pair whose address suits the peer at `toward`.

        `Refused` 503 when none is free, 488 when this machine or the settings have no address of the peer's IP version.
        """
        interface = self._settings.interface
        if interface in ANY:
            interface = "::" if ":" in toward else "0.0.0.0"
        if (":" in interface) != (":" in toward):
            raise Refused(*_INCOMPATIBLE)
        now = self._reactor.seconds()
        for _ in range(min(TRIES, len(self._free))):
            rested, even = self._free[0]
            if rested and rested > now:
                break
            self._free.popleft()
            try:
                return self._bind(receiver, even, interface, toward)
            except OSError as error:  # somebody else's port: look at it again later
                self._free.append((now + REST, even))
                if interface == "::" and error.errno in _NO_IPV6:
                    raise Refused(*_INCOMPATIBLE) from None
        raise Refused(503, "No RTP port is free", [("Retry-After", "5")])

    def _bind(self, receiver: RtpReceiver, even: int, interface: str, toward: str) -> PortPair:
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        audio, control = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:  # otherwise [::] would take the IPv4 port as well
                for each in (audio, control):
                    each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            audio.bind((interface, even))
            control.bind((interface, even + 1))
            audio.setblocking(False)
            control.setblocking(False)
            if _SO_TIMESTAMPNS is not None:
                audio.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            port = self._reactor.adoptDatagramPort(control.fileno(), family, _Control(receiver), maxPacketSize=2048)
        except OSError:
            audio.close()
            raise
        finally:
            control.close()  # the reactor has a descriptor of its own
        host = advertised(self._settings.advertise, interface, toward)
        return PortPair(self, receiver, (host, even), audio, port)

    def rest(self, even: int) -> None:
        """Take a pair back."""
        self._free.append((self._reactor.seconds() + REST, even))
