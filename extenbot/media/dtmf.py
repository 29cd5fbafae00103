"""Keys pressed on the phone: from RTP telephone events (RFC 4733 2.3, 2.5), and as a last resort from their sound."""

from __future__ import annotations

from functools import cache
from typing import Any

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

STEP = 50 * g711.PER_MS
"""Some gateways (Sonus) count the timestamp on within a key; no key comes so soon after the one before has begun."""

MOST = 8
"""Keys in one packet: what is longer is something else."""

OVERTAKEN = 2 * g711.RATE
"""Samples by which a packet can be late."""

PURE = 0.9
"""The two tones' share of the energy: with noise 12 dB below them it is as much, in a shrill vowel hardly ever."""

LEAST = 0.07
"""Of one of them, at its true frequency."""

OFF = 0.0175
"""Share by which a tone is sought beside its frequency."""

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
        if known is None or passed > STEP or passed < 0 or event != before:
            self._ended = ended
            return not (held and event == before and passed == LONGEST)
        self._ended = self._ended or ended
        return False


class Tones:
    """Hears keys as tones in the caller's audio, for phones that do not signal them otherwise (ITU-T Q.23, Q.24).

    Goertzel's question is asked in windows of 20 ms every 10 ms: is it one row and one column, and little else?
    Two windows in a row are a key, so 40 ms of it are always enough. What is heard comes out 20 ms late, so that
    no sound of a key gets by. A frame costs 6 us.
    """

    def __init__(self, law: str) -> None:
        np = _library()
        self._decoding = np.array(g711.decoding(law), np.float32)
        self._codes, self._code = np.frombuffer, np.uint8
        self._waves, self._near = _waves()
        self._silence = g711.SILENCE[law] * g711.FRAME
        self._kept = self._silence
        self._recent = np.zeros(g711.FRAME * 3 // 2, np.float32)  # half of the frame before, and the last one
        self._windows = self._recent[: g711.FRAME], self._recent[g711.FRAME // 2 :]
        self.pressed = ""
        """The key that sounds now."""
        self._candidate = ""
        self._misses = 0

    def put(self, audio: bytes) -> tuple[bytes, str]:
        """The 20 ms before these, silent where a key sounds, and the key that these make certain, or nothing."""
        kept, self._kept = self._kept, audio
        recent = self._recent
        recent[: g711.FRAME // 2] = recent[g711.FRAME :]
        recent[g711.FRAME // 2 :] = self._decoding[self._codes(audio, self._code)]
        key, sounds = "", False
        for window in self._windows:
            found = self._key(window)
            if found:
                sounds = True
                if found == self._candidate and found != self.pressed:
                    self.pressed = key = found
                if found == self.pressed:
                    self._misses = 0
            elif self.pressed:
                self._misses += 1
                if self._misses > DROPOUT:
                    self.pressed = ""
            self._candidate = found
        if sounds or self.pressed:
            self._kept = self._silence
        return (self._silence if sounds else kept), key

    def _key(self, window: Any) -> str:
        """The key whose two tones are nearly all of these 20 ms, if any."""
        energy = float(window.dot(window))
        if energy < _FAINTEST:
            return ""
        powers = _powers(window, self._waves)
        rows, columns = powers[:4], powers[4:]
        row, column = max(rows), max(columns)
        whole = energy * g711.FRAME / 2
        if (
            min(row, column) < LEAST * whole
            or sorted(rows)[-2] * DISTINCT > row
            or sorted(columns)[-2] * DISTINCT > column
        ):
            return ""
        at, beside = rows.index(row), columns.index(column)
        row, column = max(_powers(window, self._near[at])), max(_powers(window, self._near[4 + beside]))
        if row + column < PURE * whole or not 1 / TWIST <= column / row <= TWIST:
            return ""
        return PAD[4 * at + beside]


def _powers(window: Any, waves: Any) -> list[float]:
    """How strong each of these frequencies is."""
    parts = window.dot(waves).tolist()
    half = len(parts) // 2
    return [a * a + b * b for a, b in zip(parts[:half], parts[half:], strict=True)]


@cache
def _library() -> Any:
    """Imported by the first line that listens: nobody else pays for numpy."""
    import numpy

    return numpy


@cache
def _waves() -> tuple[Any, list[Any]]:
    """What Goertzel's question multiplies with: for the eight frequencies, and for those near each of them.

    Phones may be off by 1.5 %, which in 20 ms is half of a tone's energy.
    """
    np = _library()

    def waves(hertz: Any) -> Any:
        steps = np.outer(2 * np.pi / g711.RATE * np.arange(g711.FRAME), hertz)
        return np.hstack((np.cos(steps), np.sin(steps))).astype(np.float32)

    near = 1 + np.arange(-OFF, OFF + 0.001, 0.005)
    return waves(ROWS + COLUMNS), [waves(hertz * near) for hertz in ROWS + COLUMNS]
