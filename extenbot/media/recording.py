"""A call as one sound: the caller left, the bot right, as it was really heard and sent.

At each turn a line only appends bytes here. About once a second both sides become linear samples, side by side,
and leave as whole frames: 16-bit little-endian, stereo, 8 kHz (4 bytes a frame). What a WAV file begins
with is known here too; the file itself is the store's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from struct import Struct

from extenbot.media import g711

FRAME = 4
"""Bytes of one stereo frame."""

_HEADER = Struct("<4sI4s4sIHHIIHH4sI")
HEADER = _HEADER.size
_MOST = 0xFFFFFFFF - HEADER


def header(frames: int) -> bytes:
    """The first 44 bytes of a WAV file that holds so many stereo frames; of one beyond 4 GiB as many as it can say."""
    size = min(frames * FRAME, _MOST - _MOST % FRAME)
    return _HEADER.pack(
        b"RIFF", size + HEADER - 8, b"WAVE", b"fmt ", 16, 1, 2, g711.RATE, g711.RATE * FRAME, FRAME, 16, b"data", size
    )


def frames_in(size: int) -> int:
    """The whole stereo frames in a file of `size` bytes, header included, whatever the header says."""
    return max(0, size - HEADER) // FRAME


@cache
def _halves(law: str) -> tuple[bytes, bytes]:
    """The low and the high byte of each code's linear sample."""
    samples = [sample.to_bytes(2, "little", signed=True) for sample in g711.decoding(law)]
    return bytes(sample[0] for sample in samples), bytes(sample[1] for sample in samples)


class Recorder:
    """Joins both sides of one call and gives them to `write`, about a second at a time.

    `law` is what the voice of the line speaks, "PCMU" or "PCMA": all audio comes in it, whatever is on the wire.
    Both sides get the same number of milliseconds, silence where nothing was heard or sent.
    """

    def __init__(self, write: Callable[[bytes], None], law: str) -> None:
        self._write = write
        self._low, self._high = _halves(law)
        self._silence = g711.SILENCE[law]
        self._caller = bytearray()
        self._bot = bytearray()
        self._closed = False

    def heard(self, audio: bytes) -> None:
        """The caller's next 20 ms. On the hot path."""
        self._caller += audio

    def sent(self, audio: bytes) -> None:
        """What went to the caller in the packet time before that. On the hot path."""
        self._bot += audio
        if len(self._bot) >= g711.RATE:
            self._join(min(len(self._bot), len(self._caller)))

    def close(self) -> None:
        """The rest goes to `write`; nothing more will, and what still comes is dropped."""
        if not self._closed:
            most = max(len(self._bot), len(self._caller))
            for side in (self._bot, self._caller):
                side.extend(self._silence * (most - len(side)))
            self._join(most)
            self._closed = True

    def _join(self, size: int) -> None:
        frames = bytearray(size * FRAME)
        for side, at in ((self._caller, 0), (self._bot, 2)):
            part = side[:size]
            frames[at::FRAME] = part.translate(self._low)
            frames[at + 1 :: FRAME] = part.translate(self._high)
            del side[:size]
        if size and not self._closed:
            self._write(bytes(frames))
