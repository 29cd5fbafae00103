"""When the caller speaks: turn detection on the audio's own clock, never on the wall clock.

`Turns` decides from a row of frames, each voiced or not. `Gate` makes such frames from
wire audio by loudness, cheap enough for hundreds of calls: a frame of 20 ms is voiced
when at least an eighth of its samples are louder than 1024 times the session's
`threshold` (16-bit samples; 0.5 gives 512, about -36 dBFS).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extenbot.sandbox.formats import PCM, Format, loud_table

FRAME = 20  # ms
ONSET = 60  # ms of voice that begin a turn
EAGERNESS = {"low": 1000, "medium": 500, "auto": 500, "high": 300}  # ms of silence that end a turn, semantic_vad


def silence_of(detection: Any) -> int:
    """The ms of silence that end a turn."""
    if detection["type"] == "semantic_vad":
        return EAGERNESS[detection["eagerness"]]
    silence: int = detection["silence_duration_ms"]
    return silence


def prefix_of(detection: Any) -> int:
    """The ms of audio before the voice that belong to the turn."""
    prefix: int = detection.get("prefix_padding_ms", 300)
    return prefix


class Turns:
    """Frames of `frame` ms in, turns out: `started(ms)` where the voice began, `stopped(ms)` after the silence."""

    def __init__(self, frame: int, started: Callable[[int], None], stopped: Callable[[int], None]) -> None:
        self._frame = frame
        self._started = started
        self._stopped = stopped
        self.now = 0  # ms of audio seen
        self._voice = 0  # ms of voice in a row, quiet frames take it back
        self._quiet = 0
        self.speaking = False

    def frame(self, voiced: bool, silence: int, onset: int = ONSET) -> None:
        """One frame; `silence` is the ms of quiet that end a turn, `onset` the ms of voice that begin one."""
        self.now += self._frame
        if voiced:
            self._voice += self._frame
            self._quiet = 0
            if not self.speaking and self._voice >= onset:
                self.speaking = True
                self._started(max(self.now - self._voice, 0))
        else:
            self._voice = max(self._voice - self._frame, 0)
            if self.speaking:
                self._quiet += self._frame
                if self._quiet >= silence:
                    self.reset()
                    self._stopped(self.now)

    def reset(self) -> None:
        """Forget the turn that is going on; the clock goes on."""
        self.speaking = False
        self._voice = self._quiet = 0


class Gate:
    """Hears wire audio and tells turns by loudness."""

    def __init__(self, started: Callable[[int], None], stopped: Callable[[int], None]) -> None:
        self._turns = Turns(FRAME, started, stopped)
        self._rest = b""

    def heard(self, audio: bytes, wire: Format, detection: Any) -> None:
        """Any number of bytes; `detection` is the session's turn_detection, None when the client decides."""
        audio = self._rest + audio
        size = FRAME * wire.per_ms
        if detection is None:
            self._turns.now += len(audio) // size * FRAME
            self._rest = audio[len(audio) - len(audio) % size :]
            return
        table = loud_table(wire, int(1024 * detection.get("threshold", 0.5)))
        silence = silence_of(detection)
        end = len(audio) - size + 1
        for start in range(0, end, size):
            frame = audio[start : start + size]
            if wire is PCM:
                frame = frame[1::2]
            self._turns.frame(frame.translate(table).count(1) * 8 >= len(frame), silence)
        self._rest = audio[len(audio) - len(audio) % size :]

    def reset(self) -> None:
        """The buffer was cleared or committed by the client: a turn that is going on is forgotten."""
        self._turns.reset()
