"""Keys pressed on the phone: from RTP telephone events (RFC 4733 2.3, 2.5), and as a last resort from their sound."""

from __future__ import annotations

from math import cos, pi, sin
from operator import mul

from extenbot.media import g711
from extenbot.media.rtp import later

KEYS = "0123456789*#ABCD"
"""By event code (RFC 4733 3.2)."""

ROWS = (697, 770, 852, 941)
COLUMNS = (1209, 1336, 1477, 1633)
PAD = "123A456B789C*0#D"
"""Hz of the two tones of a key, and the keys, row by row (ITU-T Q.23)."""

LONGEST = 0xFFFF
"""Longest duration that one event can carry; a key held longer goes on as a new segment (RFC 4733 2.5.1.3)."""

OVERTAKEN = 2 * g711.RATE
"""Samples by which a packet can be late."""

PURE = 0.75
"""The two tones' share of the energy."""

LEAST = 0.07
"""Of one of them."""

TWIST = 10.0
"""One tone may be so much stronger, 10 dB (ITU-T Q.24 asks for 8 and 4)."""

DISTINCT = 3.0
"""Each is 5 dB above the others of its group."""

DROPOUT = 3
"""Windows without the tone that do not end a key: a lost packet of 20 ms."""

_FAINTEST = g711.FRAME * (32768 * 10 ** (-36 / 20)) ** 2


def is_event(payload: bytes) -> bool:
    """Whether a payload has the form of one telephone event that is a key."""
    return len(payload) == 4 and payload[0] < len(KEYS) and not payload[1] & 0x40


class Keys:
    """Reads the events of one RTP stream; each key counts once, at its first packet that arrives.

    An event is known by its timestamp, so repetitions, lost beginnings and lost ends make no difference.
    """

    def __init__(self) -> None:
        self._timestamp: int | None = None
        self._event = -1
        self._ended = False

    def put(self, timestamp: int, payload: bytes) -> str:
        """The keys whose first packet this is: mostly none, at most one unless several stand in one packet.

        Several events in one packet follow each other without a gap (RFC 4733 2.5.1.5).
        """
        keys = ""
        for at in range(0, len(payload) - 3, 4):
            event, flags, duration = payload[at], payload[at + 1], int.from_bytes(payload[at + 2 : at + 4])
            if event < len(KEYS) and self._begins(timestamp, event, ended=flags & 0x80 != 0):
                keys += KEYS[event]
            timestamp = (timestamp + duration) & 0xFFFFFFFF
        return keys

    def _begins(self, timestamp: int, event: int, *, ended: bool) -> bool:
        known, before, held = self._timestamp, self._event, not self._ended
        passed = 0 if known is None else later(timestamp, known)
        if -OVERTAKEN < passed < 0:
            return False  # a repetition; further back the stream has begun again
        self._timestamp, self._event = timestamp, event
        if known is None or passed or event != before:
            self._ended = ended
            return not (held and event == before and passed == LONGEST)
        self._ended = self._ended or ended
        return False


class Tones:
    """Hears keys as tones in the caller's audio, for phones that do not signal them otherwise (ITU-T Q.23, Q.24).

    Goertzel's question is asked in windows of 20 ms every 10 ms: is it one row and one column, and little else?
    Two windows in a row are a key, so 40 ms of it are always enough. What is heard comes out 20 ms late, so that
    no sound of a key gets by. Speech costs some 50 us a frame here; that is why nobody listens unless asked to.
    """

    def __init__(self, law: str) -> None:
        self._decoding = g711.decoding(law)
        self._quiet = g711.quiet(law)
        self._silence = g711.SILENCE[law] * g711.FRAME
        self._kept = self._silence
        self._half = [0] * (g711.FRAME // 2)
        self._candidate = self._pressed = ""
        self._misses = 0

    def put(self, audio: bytes) -> tuple[bytes, str]:
        """The 20 ms before these, silent where a key sounds, and the key that these make certain, or nothing."""
        kept, self._kept = self._kept, audio
        samples = [self._decoding[code] for code in audio] if audio.translate(None, self._quiet) else []
        half, self._half = self._half, samples[g711.FRAME // 2 :]
        key, sounds = "", False
        for window in (half + samples[: g711.FRAME // 2], samples):
            found = _key(window) if len(window) == g711.FRAME else ""
            if found:
                sounds = True
                if found == self._candidate and found != self._pressed:
                    self._pressed = key = found
                if found == self._pressed:
                    self._misses = 0
            elif self._pressed:
                self._misses += 1
                if self._misses > DROPOUT:
                    self._pressed = ""
            self._candidate = found
        if sounds or self._pressed:
            self._kept = self._silence
        return (self._silence if sounds else kept), key


_Wave = tuple[list[float], list[float]]


def _wave(hertz: float) -> _Wave:
    """The two parts of Goertzel's question for one frequency."""
    steps = [2 * pi * hertz * n / g711.RATE for n in range(g711.FRAME)]
    return [cos(step) for step in steps], [sin(step) for step in steps]


_ROWS, _COLUMNS = ([_wave(hertz) for hertz in group] for group in (ROWS, COLUMNS))
#: the same for phones that are off by as much as they may be, 1.5 %; in 20 ms that is a third of a tone's energy
_OFF = {hertz: (_wave(hertz * 0.985), _wave(hertz * 1.015)) for hertz in ROWS + COLUMNS}


def _key(samples: list[int]) -> str:
    """The key whose two tones are nearly all of these 20 ms, if any."""
    energy = sum(map(mul, samples, samples))
    if energy < _FAINTEST:
        return ""
    whole: float = energy * g711.FRAME / 2

    def share(wave: _Wave) -> float:
        real, imaginary = (float(sum(map(mul, samples, part))) for part in wave)
        power: float = real * real + imaginary * imaginary
        return power / whole

    rows = [share(wave) for wave in _ROWS]
    row = max(rows)
    if row < LEAST:
        return ""
    columns = [share(wave) for wave in _COLUMNS]
    column = max(columns)
    if column < LEAST or sorted(rows)[-2] * DISTINCT > row or sorted(columns)[-2] * DISTINCT > column:
        return ""
    at, beside = rows.index(row), columns.index(column)
    row = max(row, *map(share, _OFF[ROWS[at]]))
    column = max(column, *map(share, _OFF[COLUMNS[beside]]))
    if row + column < PURE or not 1 / TWIST <= column / row <= TWIST:
        return ""
    return PAD[4 * at + beside]
