"""The caller's audio on a 20-ms clock: order restored, gaps filled with silence, never far behind real time.

What comes out feeds a model, not an ear, so a packet is held back only where it has to be (`CLOSE`),
and when one has once come too late for its turn; one that is missing is waited for only until its own
time has come. Then its place is silence, as is every turn in which nothing has arrived (a muted phone,
silence suppression, RFC 3551 4.1); turn detection needs that silence. Lateness makes a backlog, which
is worked off by leaving out quiet frames, and cut when it passes `BACKLOG`: in the long run as much is
handed on as time has passed, whatever the phone's clock does.
"""

from __future__ import annotations

from collections import deque

from extenbot.media import g711
from extenbot.media.rtp import RESTART, ahead, later

BACKLOG = 100 * g711.PER_MS
"""Most audio that waits (a packet longer than half of it raises the limit to two packets)."""

COMFORTABLE = 40 * g711.PER_MS
"""A backlog that never fell below this for `WATCH` turns is more than reordering needs."""

WATCH = 50

CLOSE = 0.005
"""Seconds before a turn. Where a stream that begins or comes back after a pause arrives closer to our turns than that,
it waits for one: its next packet may come just after the turn that it was for, and break a word."""

LATE_RUN = 10
"""Consecutive packets from the past that mean the sender has begun again."""


class JitterBuffer:
    """One stream in, 20 ms (160 bytes) out at each turn."""

    def __init__(self, codec: str) -> None:
        self._silence = g711.SILENCE[codec]
        self._quiet = g711.quiet(codec)
        self.nothing = self._silence * g711.FRAME
        """This very object is what a turn gives in which nothing has arrived, or for which it is lost."""
        self._ready: deque[bytes] = deque()
        self._backlog = 0  # bytes in _ready
        self._early: dict[int, tuple[int, bytes]] = {}  # beyond a hole: sequence → timestamp, audio
        self._started = False
        self._sequence = 0  # expected next
        self._timestamp = 0  # expected next
        self._filled = 0  # silence handed on since the last real audio: what a gap has been given already
        self._fresh: float | None = None  # when the audio arrived that begins here, while no turn has had any of it
        self._late_sequence = 0
        self._late_run = 0
        self._least = BACKLOG
        self._watch = WATCH
        self.late = 0
        """Packets that came after their time, or twice."""

    def reset(self) -> None:
        """Another stream begins (new source or SSRC); audio that waits is still handed on."""
        self._started = False
        self._early.clear()

    def clear(self) -> None:
        """Forget the stream and what waits of it."""
        self.reset()
        self._ready.clear()
        self._backlog, self._fresh = 0, None

    def put(self, sequence: int, timestamp: int, audio: bytes, at: float = 0.0) -> None:
        """A packet has arrived `at` (s); one without audio (an event, comfort noise) only holds its place in order."""
        if not self._started:
            self._begin(sequence, timestamp)
        distance = ahead(sequence, self._sequence)
        if distance == 0:
            self._late_run = 0
            self._append(timestamp, audio, at)
            while self._early and (packet := self._early.pop(self._sequence, None)) is not None:
                self._append(*packet)
        elif 0 < distance < RESTART:
            self._early[sequence] = (timestamp, audio)
            if distance * g711.FRAME > BACKLOG:
                self._cross()
        elif -RESTART < distance < 0 and not self._begun_again(sequence):
            self.late += 1
        else:
            self._begin(sequence, timestamp)
            self._append(timestamp, audio, at)

    def take(self, now: float = 0.0) -> bytes:
        """The next 20 ms; `now` is the time of this turn, by the clock of `put`."""
        while self._backlog < g711.FRAME and self._early:
            self._cross()
        if self._backlog < self._least:
            self._least = self._backlog
        self._watch -= 1
        if self._watch < 0:
            self._relax()
        ready = self._ready
        if self._fresh is not None:
            waited, self._fresh = now - self._fresh, None
            if waited < CLOSE:
                return self._silence * g711.FRAME
        if not ready:
            self._filled += g711.FRAME
            return self.nothing
        if len(ready[0]) == g711.FRAME:
            self._backlog -= g711.FRAME
            return ready.popleft()
        return self._cut()

    def _begin(self, sequence: int, timestamp: int) -> None:
        self._started = True
        self._sequence, self._timestamp = sequence, timestamp
        self._filled = BACKLOG + 1
        self._early.clear()
        self._late_run = 0

    def _begun_again(self, sequence: int) -> bool:
        self._late_run = self._late_run + 1 if ahead(sequence, self._late_sequence) == 1 else 1
        self._late_sequence = sequence
        return self._late_run >= LATE_RUN

    def _cross(self) -> None:
        """Give up the packets before the earliest that waits, and go on from there."""
        sequence = min(self._early, key=lambda waiting: ahead(waiting, self._sequence))
        self._sequence = sequence
        while (packet := self._early.pop(self._sequence, None)) is not None:
            self._append(*packet)

    def _append(self, timestamp: int, audio: bytes, at: float = 0.0) -> None:
        """The next packet in order. A gap before it is filled as far as the turns have not done so already."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        if not audio:
            return
        gap = later(timestamp, self._timestamp) - self._filled
        if self._filled > BACKLOG and not self._backlog:
            gap, self._fresh = 0, at  # a silence costs nothing here
        if 0 < gap <= BACKLOG:  # more than that the clock would have noticed: their timestamps have jumped
            whole = gap // g711.FRAME
            for _ in range(whole):
                self._push(self.nothing)
            if gap > whole * g711.FRAME:
                self._push(self._silence * (gap - whole * g711.FRAME))
        self._filled = 0
        self._timestamp = (timestamp + len(audio)) & 0xFFFFFFFF
        self._push(audio)
        if self._backlog > BACKLOG:
            self._shed(max(BACKLOG, 2 * len(audio)))

    def _push(self, audio: bytes) -> None:
        self._ready.append(audio)
        self._backlog += len(audio)

    def _cut(self) -> bytes:
        """20 ms from chunks that are not 20 ms long, with silence where they do not suffice."""
        parts, missing, ready = [], g711.FRAME, self._ready
        while missing and ready:
            part = ready.popleft()
            if len(part) > missing:
                ready.appendleft(part[missing:])
                part = part[:missing]
            parts.append(part)
            missing -= len(part)
        self._backlog -= g711.FRAME - missing
        self._filled += missing
        return b"".join(parts) + self._silence * missing

    def _relax(self) -> None:
        """Work off a steady backlog where it is not heard."""
        if self._least <= COMFORTABLE or self._drop_quiet():
            self._least, self._watch = BACKLOG, WATCH

    def _shed(self, limit: int) -> None:
        """Make room at once: quiet chunks first, then the oldest."""
        while self._backlog > limit:
            if not self._drop_quiet():
                self._backlog -= len(self._ready.popleft())

    def _drop_quiet(self) -> bool:
        for at, chunk in enumerate(self._ready):
            if not chunk.translate(None, self._quiet):
                del self._ready[at]
                self._backlog -= len(chunk)
                return True
        return False
