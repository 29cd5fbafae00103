"""G.711, both laws (ITU-T G.711): what silence is, and the way to and from linear samples.

Between the two laws one byte becomes one byte (`translation`); the tables to and from linear samples serve
the local voice, recordings and tests. Linear audio is 16-bit little-endian, mono, 8 kHz.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from functools import cache
from math import pi, sin

RATE = 8000
"""Samples, and in G.711 bytes, a second."""

PER_MS = RATE // 1000

FRAME = 20 * PER_MS
"""Bytes in 20 ms, the turn of everything that hears or speaks."""

SILENCE = {"PCMU": b"\xff", "PCMA": b"\xd5"}
"""One byte of silence, by codec name."""

_BIAS = 0x84
_CLIP = 32635


def _from_mu(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS) << (code >> 4 & 7)
    return _BIAS - magnitude if code & 0x80 else magnitude - _BIAS


def _from_a(code: int) -> int:
    code ^= 0x55
    exponent = code >> 4 & 7
    magnitude = ((code & 0x0F) << 4) + 8
    if exponent:
        magnitude = (magnitude + 0x100) << (exponent - 1)
    return magnitude if code & 0x80 else -magnitude


def _to_mu(sample: int) -> int:
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), _CLIP) + _BIAS
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | magnitude >> (exponent + 3) & 0x0F) & 0xFF


def _to_a(sample: int) -> int:
    sign = 0 if sample < 0 else 0x80
    magnitude = min(~sample if sample < 0 else sample, 0x7FFF)
    exponent = max(magnitude.bit_length() - 8, 0)
    return (sign | exponent << 4 | magnitude >> (exponent + 3 if exponent else 4) & 0x0F) ^ 0x55


_LAWS: dict[str, tuple[Callable[[int], int], Callable[[int], int]]] = {
    "PCMU": (_from_mu, _to_mu),
    "PCMA": (_from_a, _to_a),
}


@cache
def decoding(codec: str) -> tuple[int, ...]:
    """The linear sample of each of the 256 codes."""
    read, _ = _LAWS[codec]
    return tuple(read(code) for code in range(256))


@cache
def encoding(codec: str) -> bytes:
    """The code of each 16-bit sample, by the sample's low 16 bits."""
    _, write = _LAWS[codec]
    return bytes(write(sample - 0x10000 if sample & 0x8000 else sample) for sample in range(0x10000))


@cache
def translation(of: str, to: str) -> bytes | None:
    """The 256 bytes by which `bytes.translate` turns one law into the other; None when they are the same."""
    return None if of == to else bytes(encoding(to)[sample & 0xFFFF] for sample in decoding(of))


@cache
def quiet(codec: str) -> bytes:
    """The codes too soft to be speech (below about -42 dB of full scale)."""
    return bytes(code for code, sample in enumerate(decoding(codec)) if abs(sample) <= 256)


def to_linear(codec: str, audio: bytes) -> bytes:
    """Two bytes of linear audio for each byte of G.711."""
    samples = array("h", map(decoding(codec).__getitem__, audio))
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def from_linear(codec: str, linear: bytes) -> bytes:
    """One byte of G.711 for each two of linear audio."""
    samples = array("H", linear)
    if sys.byteorder == "big":
        samples.byteswap()
    return bytes(map(encoding(codec).__getitem__, samples))


@cache
def ringing(codec: str) -> bytes:
    """A ringing tone, 425 Hz, to be repeated: one second of it, four of silence (ETSI TR 101 041-2)."""
    return tone(codec, 425, 1000) + SILENCE[codec] * (4000 * PER_MS)


def tone(codec: str, hertz: float, ms: int, level: float = 0.25) -> bytes:
    """A sine of `level` times full scale."""
    table, step, peak = encoding(codec), 2 * pi * hertz / RATE, 32767 * level
    return bytes(table[round(peak * sin(step * n)) & 0xFFFF] for n in range(ms * PER_MS))
