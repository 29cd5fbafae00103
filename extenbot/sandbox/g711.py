"""G.711 and the other wire formats of a session: lengths, silence and conversion to 16-bit samples (ITU-T G.711)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple


class Format(NamedTuple):
    """How audio is written on the wire; sizes are bytes."""

    name: str
    per_ms: int
    rate: int
    silence: bytes  # one sample


PCMU = Format("audio/pcmu", 8, 8000, b"\xff")
PCMA = Format("audio/pcma", 8, 8000, b"\xd5")
PCM = Format("audio/pcm", 48, 24000, b"\0\0")
FORMATS = {wire.name: wire for wire in (PCMU, PCMA, PCM)}


def _from_ulaw(code: int) -> int:
    code ^= 0xFF
    size = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return -size if code & 0x80 else size


def _from_alaw(code: int) -> int:
    code ^= 0x55
    segment = code >> 4 & 7
    size = ((code & 0x0F) << 4) + (8 if segment == 0 else 0x108) << max(segment - 1, 0)
    return size if code & 0x80 else -size


def _to_ulaw(sample: int) -> int:
    size = min(abs(sample), 32635) + 0x84
    segment = size.bit_length() - 8
    return ~((0x80 if sample < 0 else 0) | segment << 4 | size >> segment + 3 & 0x0F) & 0xFF


def _to_alaw(sample: int) -> int:
    size, mask = (sample >> 3, 0xD5) if sample >= 0 else (-(sample >> 3) - 1, 0x55)
    segment = max(size.bit_length() - 5, 0)
    return (segment << 4 | size >> max(segment, 1) & 0x0F) ^ mask


@cache
def linear_table(wire: Format) -> array[int]:
    """The 16-bit sample of each of the 256 codes."""
    read = _from_ulaw if wire is PCMU else _from_alaw
    return array("h", (read(code) for code in range(256)))


@cache
def code_table(wire: Format) -> bytes:
    """The code of each 16-bit sample, indexed by the sample taken as unsigned."""
    write = _to_ulaw if wire is PCMU else _to_alaw
    return bytes(write(sample - 65536 if sample > 32767 else sample) for sample in range(65536))


def encode(samples: Iterable[int], wire: Format) -> bytes:
    """16-bit samples at the rate of `wire`, as they go on the wire."""
    if wire is PCM:
        return array("h", samples).tobytes()
    table = code_table(wire)
    return bytes([table[sample & 0xFFFF] for sample in samples])


def decode(audio: bytes, wire: Format) -> array[int]:
    """16-bit samples at the rate of `wire`; a half sample at the end is dropped."""
    if wire is PCM:
        return array("h", audio[: len(audio) & ~1])
    table = linear_table(wire)
    return array("h", [table[code] for code in audio])


@cache
def loud_table(wire: Format, level: int) -> bytes:
    """For `bytes.translate`: 1 for each code (of PCM: each high byte) that is louder than `level` (0 to 32767)."""
    if wire is PCM:
        return bytes(abs((code ^ 0x80) - 0x80) * 256 > level for code in range(256))
    return bytes(abs(sample) > level for sample in linear_table(wire))
