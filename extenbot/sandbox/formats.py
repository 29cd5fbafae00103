"""The wire formats of a session: lengths, silence, and the way to and from 16-bit samples (G.711 itself is media's)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from extenbot.media import g711


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


CODECS = {PCMU: "PCMU", PCMA: "PCMA"}


@cache
def linear_table(wire: Format) -> array[int]:
    """The 16-bit sample of each of the 256 codes."""
    return array("h", g711.decoding(CODECS[wire]))


def code_table(wire: Format) -> bytes:
    """The code of each 16-bit sample, indexed by the sample taken as unsigned."""
    return g711.encoding(CODECS[wire])


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
