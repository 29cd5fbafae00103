"""Keys that we press: RTP telephone events, or tones where the other side takes none (RFC 4733 2.5, ITU-T Q.23).

Whoever sends asks for a piece at each packet time while keys go out, and sends it in place of other audio.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from math import pi, sin
from typing import NamedTuple

from extenbot.media import g711
from extenbot.media.dtmf import COLUMNS, KEYS, PAD, ROWS

PRESSED = 100 * g711.PER_MS
"""Samples for which a key sounds, and for which it is quiet after it."""

PAUSES = {",": 1000 * g711.PER_MS, "W": 500 * g711.PER_MS}
"""What is no key but a wait, in samples."""

REPEATS = 2
"""The end of an event is sent so many times more (RFC 4733 2.5.1.4)."""

VOLUME = 10
"""Of an event, -dBm0 (RFC 4733 2.3.4)."""

_FULL = 3.17  # dBm0 of a sine of full scale (ITU-T G.711, mu-law)
_ROW, _COLUMN = -10.0, -8.0  # dBm0: the upper tone is 2 dB above the lower (ETSI ES 201 235-2)


class Piece(NamedTuple):
    """What goes out in one packet time: an event that began `since` samples before, or audio."""

    event: bool
    payload: bytes
    since: int = 0
    first: bool = False


def check(digits: str) -> str:
    """The same in upper case; `ValueError` unless each is a key (0-9 * # A-D), `,` (1 s) or `w` (0.5 s)."""
    digits = digits.upper()
    if not digits:
        raise ValueError("there are no keys to send")
    for digit in digits:
        if digit not in KEYS and digit not in PAUSES:
            raise ValueError(f"{digit!r} is no key: there are 0-9, *, #, A-D, and the pauses , and w")
    return digits


@cache
def tone(key: str, law: str) -> bytes:
    """One key for as long as it is pressed."""
    encoding = g711.encoding(law)
    row, column = divmod(PAD.index(key), 4)
    waves = [
        (32767 * 10 ** ((level - _FULL) / 20), 2 * pi * hertz / g711.RATE)
        for level, hertz in ((_ROW, ROWS[row]), (_COLUMN, COLUMNS[column]))
    ]
    return bytes(encoding[round(sum(peak * sin(step * n) for peak, step in waves)) & 0xFFFF] for n in range(PRESSED))


class Dialling:
    """One string of keys on its way out. `done` is for whoever sends, to be called when it is `over`."""

    def __init__(self, digits: str, done: Callable[[], None]) -> None:
        """`ValueError` as `check` says."""
        self.done = done
        self._digits = deque(check(digits))
        self._key = ""  # sounds now
        self._events = False  # as an event
        self._since = 0  # samples that it has sounded
        self._rest = 0  # samples of quiet that are left
        self._end = b""  # of the last event, to be repeated
        self._repeats = 0

    @property
    def over(self) -> bool:
        """All of it has had its time on the wire."""
        return not self._key and self._rest <= 0 and not self._digits

    def next(self, size: int, law: str, *, events: bool) -> Piece | None:
        """What to send for the next `size` samples; None is silence.

        `events`: the other side takes telephone events; asked at the beginning of each key. Tones are in `law`.
        """
        if not self._key and self._rest <= 0:
            digit = self._digits.popleft()
            self._since = 0
            if digit in PAUSES:
                self._rest = PAUSES[digit]
            else:
                self._key, self._events = digit, events
        if self._key:
            return self._sound(size, law)
        self._rest -= size
        self._since += size
        if self._repeats:
            self._repeats -= 1
            return Piece(True, self._end, self._since - size)
        return None

    def _sound(self, size: int, law: str) -> Piece:
        key, before = self._key, self._since
        since = self._since = before + size
        if since >= PRESSED:
            self._key = ""
            # Long packets leave room for the repetitions all the same.
            self._rest = max(PRESSED, REPEATS * size) if self._events else PRESSED
        if not self._events:
            sound = tone(key, law)[before:since]
            return Piece(False, sound + g711.SILENCE[law] * (size - len(sound)))
        payload = bytes((KEYS.index(key), VOLUME | (0 if self._key else 0x80))) + since.to_bytes(2)
        if not self._key:
            self._end, self._repeats = payload, REPEATS
        return Piece(True, payload, before, first=not before)
