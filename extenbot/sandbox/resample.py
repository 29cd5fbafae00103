"""Sample-rate conversion without aliasing: a polyphase windowed-sinc filter. Needs numpy (extra `speech`)."""

from __future__ import annotations

from functools import cache
from math import ceil, gcd
from typing import Any

import numpy as np

HALF = 24  # zero crossings on each side
EDGE = 0.94  # of the lower Nyquist frequency passes
BLOCK = 8000  # output samples worked on at a time, for bounded memory

Samples = Any  # one-dimensional float32 array


@cache
def _bank(up: int, down: int) -> tuple[int, Samples]:
    """Filter length on each side, and one filter per phase."""
    cutoff = EDGE * min(1.0, up / down)
    half = ceil(HALF / cutoff)
    offsets = np.arange(-half + 1, half + 1)[None, :] - (np.arange(up) / up)[:, None]
    window = np.cos(np.clip(offsets / half, -1, 1) * np.pi / 2) ** 2
    bank = cutoff * np.sinc(cutoff * offsets) * window
    return half, (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32)


class Stream:
    """Samples in, in pieces of any size, samples out at the other rate."""

    def __init__(self, source: int, target: int) -> None:
        common = gcd(source, target)
        self._up, self._down = target // common, source // common
        self._half, self._filters = _bank(self._up, self._down)
        self._buffer: Samples = np.zeros(self._half - 1, np.float32)
        self._next = 0  # place of the next output sample, in 1/up of an input sample from the buffer's start

    def put(self, samples: Samples) -> Samples:
        """What can be made by now."""
        if self._up == self._down:
            return samples
        self._buffer = np.concatenate((self._buffer, samples.astype(np.float32)))
        usable = len(self._buffer) - 2 * self._half + 1
        count = max(ceil((usable * self._up - self._next) / self._down), 0)
        windows = np.lib.stride_tricks.sliding_window_view(self._buffer, 2 * self._half) if count else None
        made = []
        for first in range(0, count, BLOCK):
            places = self._next + np.arange(first, min(first + BLOCK, count)) * self._down
            assert windows is not None
            made.append(np.einsum("ij,ij->i", windows[places // self._up], self._filters[places % self._up]))
        self._next += count * self._down
        used = min(self._next // self._up, len(self._buffer))
        self._buffer = self._buffer[used:]
        self._next -= used * self._up
        return np.concatenate(made) if made else np.zeros(0, np.float32)

    def end(self) -> Samples:
        """The rest."""
        return self.put(np.zeros(self._half, np.float32))


def resample(samples: Samples, source: int, target: int) -> Samples:
    """A whole sound at another rate."""
    stream = Stream(source, target)
    return samples if source == target else np.concatenate((stream.put(samples), stream.end()))
