"""Where the audio of one call goes, and whose audio is heard (symmetric RTP, RFC 4961).

A source of RTP must have earned it, by one of these:

* **named**: its host is the one in their SDP, with whatever port;
* **signalling**: its host is the one that the signalling comes from (a PBX or a phone behind NAT);
* **authentic**: the stream is SRTP, and the packet could only be made by who has the key from the signalling;
* **persistent**: only while their SDP names a host that cannot be seen from here (a private address, and the
  signalling comes from a public one): `PERSISTENT` packets of one stream in a row, and nothing from one of the others
  since the media last moved. That is a phone behind another NAT than its PBX (direct media);
* **beside**: in the same network (IPv4 /24, IPv6 /64) as the SDP's or the signalling's host, with `PERSISTENT` packets
  in a row as above. That is a PBX whose packets leave by another of its addresses, or its media servers. It is heard,
  but what we send goes on to the address in the SDP.

Everybody else is a stranger: not heard, not sent to, counted. By these rules a source becomes the latched one:

* nothing latched, and the media has not moved: at the first valid packet (persistent ones: when they have earned it);
* later: with `TAKE_OVER` packets in a row, once the latched one has been quiet for `QUIET` seconds; at once when it is
  the very address of the SDP, or the latched one is only persistent;
* after a move in the signalling no source is latched. What the old one still had on the way is heard and does not bring
  our audio back to it; when it goes on for longer than `QUIET` seconds it may be latched again like others.

We send to the latched source, without one to the address in the SDP, at once; to its port at the host of the
signalling when the SDP's host cannot be seen from here. A host that is neither the signalling's nor has ever sent us
anything valid may be anybody's: all such hosts together get `UNPROVEN_MS` of audio in one call, then nothing but an
RTCP report in five seconds until a valid packet comes from there. A phone that is silent (VAD) is not concerned once
it has sent a report, comfort noise or a word.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from extenbot.interfaces import Address
from extenbot.media.rtp import later

QUIET = 0.5
TAKE_OVER = 3
PERSISTENT = 10
UNPROVEN_MS = 15_000
MOST_PROVEN = 32
"""Hosts remembered in one call; then they are forgotten and must prove themselves anew."""

# RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291; `is_private` would take networks for examples as well.
_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"],
    )
)


def _reach(host: str) -> int:
    """How far the address of a host is valid: 0 on its own machine (or no address), 1 in its network, 2 everywhere."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return 0
    if address.is_loopback:
        return 0
    return 1 if any(address in network for network in _PRIVATE) else 2


@lru_cache(1024)
def _network(host: str) -> tuple[int, bytes]:
    """What the addresses of one site have in common, mostly; of no address the text itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return 0, host.encode()
    return address.version, address.packed[: 3 if address.version == 4 else 8]


class _Run:
    """Packets in a row of one stream from one source."""

    __slots__ = ("_length", "_sequence", "_source", "_ssrc", "_timestamp")

    def __init__(self) -> None:
        self._source: Address | None = None
        self._ssrc = self._sequence = self._timestamp = self._length = 0

    def add(self, source: Address, ssrc: int, sequence: int, timestamp: int) -> int:
        """How many there are with this one."""
        follows = (
            source == self._source
            and ssrc == self._ssrc
            and sequence == self._sequence
            and later(timestamp, self._timestamp) > 0
        )
        self._length = self._length + 1 if follows else 1
        self._source, self._ssrc = source, ssrc
        self._sequence, self._timestamp = (sequence + 1) & 0xFFFF, timestamp
        return self._length


class Latch:
    """The two addresses of one call. `signalled_from` is the host its signalling comes from."""

    def __init__(self, signalled_from: str, remote: Address | None) -> None:
        self.source: Address | None = None
        """The latched one. Its packets need not be asked about."""
        self.heard_at = 0.0
        """When the last packet that counts has come; the line keeps it."""
        self.target: Address | None = None
        """Where to send."""
        self.unproven = False
        """Whether `spend` must be asked before sending there."""
        self._signaller = signalled_from
        self._proven = {signalled_from}
        self._left_to_spend = UNPROVEN_MS
        self._signalled: Address | None = None
        self._hidden = False
        self._persistent = False  # what `source` is
        self._left: Address | None = None  # latched before the media moved
        self._left_persistent = False
        self._moved_at = 0.0
        self._runs = _Run(), _Run()  # of those who have earned it, and of others: nobody can break a row of the former
        self._aim(remote)

    def signalled(self, host: str) -> None:
        """The signalling is with this host now: who was called answers from there."""
        self._signaller = host
        self._proven.add(host)
        if self.source is None:
            self._aim(self._signalled)

    def move(self, remote: Address | None, now: float) -> bool:
        """The signalling names an address, perhaps another one than before; whether it does."""
        if remote is None or remote == self._signalled:
            return False
        if self.source is not None:
            self._left, self._left_persistent = self.source, self._persistent
        self.source = None
        self._moved_at = now
        self._runs = _Run(), _Run()
        self._aim(remote)
        return True

    def reported(self, host: str) -> None:
        """Valid RTCP has come from a host that audio goes to."""
        self._prove(host)

    def admits(
        self, source: Address, ssrc: int, sequence: int, timestamp: int, now: float, *, authentic: bool = False
    ) -> bool:
        """Whether a valid packet of a source that is not the latched one counts; it may take over."""
        left = source == self._left
        if left and now < self._moved_at + QUIET:
            return True
        earned = authentic or self._earned(source)
        if earned and self.source is None and self._left is None:
            self._latch(source, persistent=False)
            return True
        if not earned and not ((self.source is None or self._persistent) and (self._hidden or self._beside(source[0]))):
            return False
        length = self._runs[0 if earned else 1].add(source, ssrc, sequence, timestamp)
        free = self.source is None or now >= self.heard_at + QUIET
        if earned:
            free = free or self._persistent or source == self._signalled
        if not free or length < (TAKE_OVER if earned else PERSISTENT):
            return left and earned
        self._latch(source, persistent=not earned)
        return True

    def spend(self, ms: int) -> bool:
        """Whether `ms` of audio may go to a target that is unproven."""
        if self._left_to_spend < ms:
            return False
        self._left_to_spend -= ms
        return True

    def _earned(self, source: Address) -> bool:
        host = source[0]
        if host == self._signaller or (self._signalled is not None and host == self._signalled[0]):
            return True
        return source == self._left and not self._left_persistent

    def _latch(self, source: Address, *, persistent: bool) -> None:
        self.source = source
        self._persistent = persistent
        self._left = None
        self._runs = _Run(), _Run()
        if not persistent or self._hidden:
            self.target = source
            self._prove(source[0])
        elif self._signalled is not None and _network(source[0]) == _network(self._signalled[0]):
            self._prove(self._signalled[0])

    def _beside(self, host: str) -> bool:
        network = _network(host)
        named = self._signalled is not None and _network(self._signalled[0]) == network
        return named or _network(self._signaller) == network

    def _aim(self, remote: Address | None) -> None:
        self._signalled = self.target = remote
        self._persistent = False
        self._hidden = remote is not None and _reach(remote[0]) < _reach(self._signaller)
        if remote is not None and self._hidden and (":" in remote[0]) == (":" in self._signaller):
            self.target = self._signaller, remote[1]
        self._judge()

    def _prove(self, host: str) -> None:
        if len(self._proven) >= MOST_PROVEN:
            self._proven = {self._signaller}
        self._proven.add(host)
        self._judge()

    def _judge(self) -> None:
        self.unproven = self.target is not None and self.target[0] not in self._proven
