"""RTCP: reports read and written, reception counted (RFC 3550 6.4, 6.6, A.1, A.3, A.8)."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from extenbot.errors import Malformed
from extenbot.media import g711
from extenbot.media.rtp import RESTART, ahead

SENDER_REPORT, RECEIVER_REPORT, DESCRIPTION, GOODBYE = 200, 201, 202, 203
_HEAD = Struct("!BBH")
_SENDER = Struct("!IQIII")
_BLOCK = Struct("!IIIIII")
_WORD = Struct("!I")


class Block(NamedTuple):
    """What one receiver says of one stream it gets."""

    ssrc: int
    fraction: int  # lost since the last report, of 256
    lost: int  # since the beginning, negative with duplicates
    highest: int  # extended sequence number
    jitter: int  # timestamp units
    last_report: int  # middle 32 bits of the NTP time of our last report, 0 for none
    delay: int  # since that report came in, in 1/65536 s


class Sent(NamedTuple):
    """What a sender says of its own stream. `ntp` is 64 bits of seconds in 1/2**32, on any clock."""

    ntp: int
    timestamp: int
    packets: int
    octets: int


class Report(NamedTuple):
    ssrc: int
    sent: Sent | None  # None in a receiver report
    blocks: tuple[Block, ...]


class Goodbye(NamedTuple):
    sources: tuple[int, ...]


def read(data: bytes) -> list[Report | Goodbye]:
    """The reports and goodbyes of a compound packet; other kinds are passed over. `Malformed` when it is not RTCP."""
    found: list[Report | Goodbye] = []
    start = 0
    if len(data) < 8:
        raise Malformed("shorter than an RTCP packet")
    while start < len(data):
        if len(data) - start < 4:
            raise Malformed("RTCP header cut off")
        first, kind, words = _HEAD.unpack_from(data, start)
        end = start + 4 + 4 * words
        if first & 0xC0 != 0x80 or not 192 <= kind <= 223:
            raise Malformed("not RTCP version 2")
        if end > len(data):
            raise Malformed("RTCP packet cut off")
        body, count = data[start + 4 : end], first & 0x1F
        if kind in (SENDER_REPORT, RECEIVER_REPORT):
            found.append(_report(body, count, kind == SENDER_REPORT))
        elif kind == GOODBYE:
            if len(body) < 4 * count:
                raise Malformed("goodbye cut off")
            found.append(Goodbye(tuple(_WORD.unpack_from(body, 4 * n)[0] for n in range(count))))
        start = end
    return found


def _report(body: bytes, count: int, sender: bool) -> Report:
    start = 24 if sender else 4
    if len(body) < start + 24 * count:
        raise Malformed("report cut off")
    sent = Sent(*_SENDER.unpack_from(body)[1:]) if sender else None
    return Report(_WORD.unpack_from(body)[0], sent, tuple(_block(body, start + 24 * n) for n in range(count)))


def _block(body: bytes, start: int) -> Block:
    ssrc, loss, highest, jitter, last_report, delay = _BLOCK.unpack_from(body, start)
    lost = loss & 0xFFFFFF
    return Block(ssrc, loss >> 24, lost - 0x1000000 if lost & 0x800000 else lost, highest, jitter, last_report, delay)


def write(report: Report, name: str, *, goodbye: bool = False) -> bytes:
    """A compound packet: the report, our canonical name (RFC 3550 6.5.1), and a goodbye when it is the last."""
    ssrc, sent, blocks = report
    body = _SENDER.pack(ssrc, *sent) if sent else _WORD.pack(ssrc)
    for block in blocks:
        lost = max(-0x800000, min(block.lost, 0x7FFFFF)) & 0xFFFFFF
        body += _BLOCK.pack(block.ssrc, block.fraction << 24 | lost, *block[3:])
    text = name.encode()
    item = b"\x01" + bytes([len(text)]) + text
    item += bytes(4 - len(item) % 4)  # at least one null byte ends the list
    compound = _packet(SENDER_REPORT if sent else RECEIVER_REPORT, len(blocks), body)
    compound += _packet(DESCRIPTION, 1, _WORD.pack(ssrc) + item)
    return compound + _packet(GOODBYE, 1, _WORD.pack(ssrc)) if goodbye else compound


def _packet(kind: int, count: int, body: bytes) -> bytes:
    return _HEAD.pack(0x80 | count, kind, len(body) // 4) + body


def ntp(seconds: float) -> int:
    """A clock's seconds as 64-bit NTP time."""
    return int(seconds * 0x100000000) & 0xFFFFFFFFFFFFFFFF


def middle(time: int) -> int:
    """The 32 bits of an NTP time by which a report is referred to."""
    return time >> 16 & 0xFFFFFFFF


class Reception:
    """The packets of one stream that came in: how many should have, and how unevenly they came."""

    __slots__ = ("_base", "_expected_before", "_received_before", "_transit", "highest", "jitter", "received", "ssrc")

    def __init__(self, ssrc: int, sequence: int) -> None:
        self.ssrc = ssrc
        self.highest = self._base = sequence  # extended by the cycles
        self.received = 0
        self.jitter = 0.0
        """In timestamp units, one sixteenth of each difference in transit (RFC 3550 A.8)."""
        self._transit: float | None = None
        self._expected_before = self._received_before = 0

    def count(self, sequence: int) -> None:
        """A packet has come."""
        distance = ahead(sequence, self.highest & 0xFFFF)
        if not -RESTART < distance < RESTART:
            self._begin_again(self.highest + distance)
        elif distance > 0:
            self.highest += distance
        self.received += 1

    def time(self, timestamp: int, arrival: float) -> None:
        """When an audio packet came, `arrival` in seconds."""
        transit = arrival * g711.RATE - timestamp
        if self._transit is not None:
            difference = abs(transit - self._transit)
            if difference < g711.RATE:  # more is a jump of their timestamps, or their wrap
                self.jitter += (difference - self.jitter) / 16
        self._transit = transit

    @property
    def expected(self) -> int:
        return self.highest - self._base + 1

    @property
    def lost(self) -> int:
        """Expected less received: duplicates make it smaller, even negative."""
        return self.expected - self.received

    def block(self, last_report: int, delay: float) -> Block:
        """The reception block since the last one; `delay` in seconds since `last_report` came in."""
        expected, received = self.expected - self._expected_before, self.received - self._received_before
        self._expected_before, self._received_before = self.expected, self.received
        lost = expected - received
        fraction = min(255, (lost << 8) // expected) if expected > 0 and lost > 0 else 0
        since = min(int(delay * 65536), 0xFFFFFFFF) if last_report else 0
        highest, jitter = self.highest & 0xFFFFFFFF, min(int(self.jitter), 0xFFFFFFFF)
        return Block(self.ssrc, fraction, self.lost, highest, jitter, last_report, since)

    def _begin_again(self, sequence: int) -> None:
        """The sender has jumped: what was lost before stays lost, the jump is no loss."""
        self._base += sequence - self.highest - 1
        self.highest = sequence
