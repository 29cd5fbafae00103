"""Sounds that cost nothing: tones and WAV files, as 16-bit samples and in the formats of the wire."""

from __future__ import annotations

import math
import wave
from array import array
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from extenbot.errors import Malformed
from extenbot.sandbox.formats import Format, encode

LEVEL = 8000  # amplitude of tones, 16-bit samples
LONGEST = 600.0  # seconds of one sound


class Sound(NamedTuple):
    """A tone of `hz` (0: silence), or `samples` at `rate`."""

    hz: float = 0.0
    seconds: float = 0.0
    samples: tuple[int, ...] = ()
    rate: int = 8000


@lru_cache(maxsize=64)
def render(sound: Sound, wire: Format) -> bytes:
    """The sound in the format of the wire."""
    if sound.samples:
        return encode(_at_rate(sound, wire.rate), wire)
    count = round(sound.seconds * wire.rate)
    if not sound.hz:
        return wire.silence * count
    step = 2 * math.pi * sound.hz / wire.rate
    return encode((round(LEVEL * math.sin(step * index)) for index in range(count)), wire)


def _at_rate(sound: Sound, rate: int) -> list[int]:
    """Linear interpolation: good enough for test sounds."""
    if rate == sound.rate:
        return list(sound.samples)
    found, ratio = sound.samples, sound.rate / rate
    padded = (*found, found[-1])
    out = []
    for index in range(int(len(found) / ratio)):
        place, part = divmod(index * ratio, 1)
        low, high = padded[int(place)], padded[int(place) + 1]
        out.append(round(low + (high - low) * part))
    return out


def speech_like(words: str) -> Sound:
    """A 440 Hz tone as long as a person would need for `words` (15 characters a second)."""
    return Sound(hz=440, seconds=max(len(words) / 15, 0.3))


def read_wav(path: Path) -> Sound:
    """A WAV file of 16-bit samples; of several channels the first is taken. `Malformed` when it is not one."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise Malformed(f"{path.name} must have 16-bit samples")
            channels, rate = file.getnchannels(), file.getframerate()
            samples = array("h", file.readframes(min(file.getnframes(), int(LONGEST * rate))))
    except (OSError, EOFError, wave.Error) as error:
        raise Malformed(f"{path.name} cannot be read as a WAV file: {error}") from None
    if not samples:
        raise Malformed(f"{path.name} holds no sound")
    return Sound(samples=tuple(samples[::channels]), rate=rate)
