"""RTP packets, read and written (RFC 3550 5.1)."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from extenbot.errors import Malformed

HEADER = Struct("!BBHII")
VERSION = 0x80
MARKER = 0x80
RESTART = 100
"""A jump of the sequence by this many either way is a new beginning of the stream, not loss (RFC 3550 A.1)."""

COMFORT_NOISE = 13
"""Static payload type of comfort noise (RFC 3389)."""


class Packet(NamedTuple):
    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def read(data: bytes) -> Packet:
    """One packet, without padding, CSRC list and header extension; `Malformed` when it is not RTP version 2."""
    size = len(data)
    if size < 12:
        raise Malformed("shorter than an RTP header")
    first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
    if first == VERSION:
        return Packet(second & 0x7F, second > 0x7F, sequence, timestamp, ssrc, data[12:])
    if first & 0xC0 != VERSION:
        raise Malformed("not RTP version 2")
    start = 12 + 4 * (first & 0x0F)
    if first & 0x10:
        if size < start + 4:
            raise Malformed("header extension cut off")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4])
    end = size
    if first & 0x20:
        padding = data[-1]
        if not padding:
            raise Malformed("padding of no length")
        end -= padding
    if start > end:
        raise Malformed("shorter than its own header")
    return Packet(second & 0x7F, second > 0x7F, sequence, timestamp, ssrc, data[start:end])


def write(packet: Packet) -> bytes:
    """The plain form: no padding, no CSRC list, no extension."""
    payload_type, marker, sequence, timestamp, ssrc, payload = packet
    return HEADER.pack(VERSION, payload_type | (MARKER if marker else 0), sequence, timestamp, ssrc) + payload


def is_control(data: bytes) -> bool:
    """Whether a datagram on a shared port is RTCP (RFC 5761 4)."""
    return len(data) > 1 and 192 <= data[1] <= 223


def ahead(sequence: int, of: int) -> int:
    """How far one 16-bit sequence number is ahead of another, -32768 to 32767."""
    return ((sequence - of + 0x8000) & 0xFFFF) - 0x8000


def later(timestamp: int, than: int) -> int:
    """How much later one 32-bit timestamp is than another, in samples, with sign."""
    return ((timestamp - than + 0x80000000) & 0xFFFFFFFF) - 0x80000000
