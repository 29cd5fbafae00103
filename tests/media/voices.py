"""Sounds of a call that need no file: voices that are like speech, noise, and a room that gives sound back."""

from __future__ import annotations

from functools import cache
from math import pi, sin
from random import Random

from extenbot.media import g711

FULL = 32768


@cache
def voice(seed: int, seconds: float, hertz: float, level: float = -20.0) -> tuple[int, ...]:
    """Gliding syllables, sentences and breaths, as samples; `level` is dB of full scale while it speaks."""
    chance = Random(seed)
    samples: list[float] = []
    while len(samples) < seconds * g711.RATE:
        for _ in range(chance.randint(4, 12)):
            count = chance.randint(80, 260) * g711.PER_MS
            pitch, loud = hertz * chance.uniform(0.85, 1.2), chance.uniform(0.35, 1.0)
            formant = chance.uniform(300, 1200)
            weights = [1 / (1 + ((pitch * n - formant) / 400) ** 2) for n in range(1, 9)]
            glide = chance.uniform(-0.1, 0.1)
            for at in range(count):
                part = at / count
                phase = 2 * pi * pitch * (1 + glide * part) * at / g711.RATE
                envelope = min(1.0, part * 6, (1 - part) * 3)
                samples.append(loud * envelope * sum(w * sin(phase * n) for n, w in enumerate(weights, 1)))
            samples += [0.0] * chance.randint(10, 90) * g711.PER_MS
        samples += [0.0] * chance.randint(150, 500) * g711.PER_MS
    speaking = [sample for sample in samples if sample]
    power = (sum(sample * sample for sample in speaking) / len(speaking)) ** 0.5
    factor = FULL * 10 ** (level / 20) / power
    return tuple(max(-32000, min(32000, round(sample * factor))) for sample in samples[: round(seconds * g711.RATE)])


@cache
def noise(seed: int, seconds: float, level: float) -> tuple[int, ...]:
    """White noise, dB of full scale."""
    chance, spread = Random(seed), FULL * 10 ** (level / 20)
    return tuple(round(chance.gauss(0, spread)) for _ in range(round(seconds * g711.RATE)))


def coded(law: str, samples: list[int]) -> bytes:
    """Samples in the law."""
    table = g711.encoding(law)
    return bytes(table[max(-FULL, min(FULL - 1, sample)) & 0xFFFF] for sample in samples)


def loudness(law: str, audio: bytes) -> float:
    """Root mean square, as a share of full scale."""
    table = g711.decoding(law)
    return float((sum(table[code] ** 2 for code in audio) / len(audio)) ** 0.5) / FULL
