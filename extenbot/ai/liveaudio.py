"""The audio of a GPT-Live conversation, both ways, and the words beside it.

Caller audio goes out at the pace at which it comes, silence included, for the model's clock only runs on what it hears;
who must not be heard is silence, too. The bot's audio comes at the pace of speech, silence between two utterances
included or not: what is audible opens an utterance, and `PAUSE` without a sound ends it. Its first `CUSHION` is
gathered before it plays, against the network's jitter.

Words come in pieces without an end, a little before their sound or after it. The bot's belong to the utterance that is
going on; pieces of the caller's with less than `GAP` between them are one line.
"""

from __future__ import annotations

from collections.abc import Callable

from extenbot.ai.timers import Timers
from extenbot.ai.transcript import Transcript
from extenbot.ai.utterances import Utterance, Utterances
from extenbot.interfaces import CallLog
from extenbot.media import g711

FRAME = 320
"""Bytes of caller audio in one message: 40 ms, for the websocket costs by the message."""

CUSHION = 640
"""Bytes (80 ms) of an utterance that are gathered before it begins to play."""

PAUSE = 0.6
"""Seconds of silence that end an utterance."""

LATE = 1.0
"""Seconds after an utterance in which words still belong to it, where the service does not say their time."""

GAP = 1000
"""Milliseconds between two pieces of the caller's words that make them two lines."""


class LiveHearing:
    """The caller's audio. `send` takes 40 ms of it, and says whether the network did."""

    def __init__(self, silence: bytes, send: Callable[[bytes], bool], muted: Callable[[], bool]) -> None:
        """`silence`: one sample; `muted`: whether the bot must not be interrupted just now."""
        self.deaf = False
        """The model must not hear the caller."""
        self.sent = 0
        """Bytes since the session began: its clock."""
        self.dropped = 0
        """Bytes that were thrown away because the network did not take them."""
        self._silence = silence * FRAME
        self._send = send
        self._muted = muted
        self._half = b""

    def heard(self, audio: bytes) -> None:
        """20 ms of the caller. On the hot path."""
        audio = self._half + audio
        if len(audio) < FRAME:
            self._half = audio
            return
        self._half = b""
        self._pass_on(self._silence[: len(audio)] if self.deaf or self._muted() else audio)

    def nothing(self) -> None:
        """40 ms in which nobody is there yet."""
        self._pass_on(self._silence)

    def _pass_on(self, audio: bytes) -> None:
        self.sent += len(audio)
        if not self._send(audio):
            self.dropped += len(audio)


class LiveSpeech:
    """What the bot says. `on_end` is called when an utterance is over, which may be before it has been heard."""

    def __init__(
        self,
        utterances: Utterances,
        words: Transcript,
        log: CallLog,
        timers: Timers,
        now: Callable[[], float],
        law: str,
    ) -> None:
        self.on_end: Callable[[], object] = _nobody
        self.spoke_at: float = now()
        """When the model was last heard to speak."""
        self._utterances = utterances
        self._words = words
        self._log = log
        self._timers = timers
        self._now = now
        self._quiet = g711.quiet(law)
        self._count = 0
        self._current: Utterance | None = None
        self._last: Utterance | None = None
        self._cushion: list[bytes] | None = None  # the first audio of an utterance, which does not play yet
        self._early = ""  # words whose audio is still to come
        self._said_until = 0  # ms of the session, where it says them

    @property
    def going_on(self) -> bool:
        """Whether an utterance has begun and not ended."""
        return self._current is not None

    def audio(self, audio: bytes, end: int) -> bool:
        """A piece from the model, up to `end` ms and no longer than some tens of ms; whether there is a sound in it."""
        audible = bool(audio.translate(None, self._quiet))
        if audible:
            self.spoke_at = self._now()
            self._said_until = end
        current = self._current
        if current is None:
            if not audible:
                return False  # the line makes its own silence
            current = self._begin()
        if self._cushion is None:
            self._utterances.add(current, audio)
        else:
            if not self._cushion:
                self._timers.set("cushion", CUSHION / g711.RATE, self._let_out)
            self._cushion.append(audio)
            if sum(map(len, self._cushion)) >= CUSHION:
                self._let_out()
        return audible

    def words(self, words: str, start: int) -> None:
        """A piece of what it says, from `start` ms on."""
        here = self._current
        if here is None and self._is_late(start):
            here = self._last
        if here is None:
            self._early += words
        else:
            self._words.more(here.name, 0, words)

    def _is_late(self, start: int) -> bool:
        """Whether words belong to the utterance that is over, and not to one whose sound is still to come."""
        return start <= self._said_until if self._said_until else self._now() - self.spoke_at < LATE

    def begin_anew(self) -> None:
        """Another session: its time begins at nought."""
        self._said_until = 0

    def drained(self) -> None:
        """All that there was has left: in the middle of an utterance gather a little again."""
        if self._current is not None and self._cushion is None:
            self._cushion = []

    def end(self) -> None:
        """The utterance is over."""
        current = self._current
        if current is not None:
            self._let_out()
            self._current = None
            self._timers.clear("pause")
            self._utterances.finish(current)
            self.on_end()

    def stop(self) -> None:
        """Nothing more will come."""
        self._timers.clear_all()

    def _begin(self) -> Utterance:
        self._count += 1
        begun = self._utterances.new(0, "", f"live{self._count}", 0, self._log.elapsed())
        self._current = self._last = begun
        early, self._early = self._early, ""
        if early:
            self._words.more(begun.name, 0, early)
        self._cushion = []
        self._timers.set("pause", PAUSE, self._pause)
        return begun

    def _let_out(self) -> None:
        gathered, self._cushion = self._cushion, None
        self._timers.clear("cushion")
        if gathered and self._current is not None:
            self._utterances.add(self._current, b"".join(gathered))

    def _pause(self) -> None:
        left = self.spoke_at + PAUSE - self._now()
        if left > 0.001:
            self._timers.set("pause", left, self._pause)
        else:
            self.end()


class CallerWords:
    """What the caller says, in lines. Times are ms of the session."""

    def __init__(self, words: Transcript, log: CallLog) -> None:
        self.lines = 0
        """How many there are."""
        self._words = words
        self._log = log
        self._line = ""
        self._session: object = None  # whose ms
        self._end = 0

    def more(self, session: object, words: str, start: int, end: int, sent: int) -> None:
        """A further piece; `sent` ms have been sent by now: words come late, and belong where they were spoken."""
        if session is not self._session or not self._line or start - self._end > GAP:
            self.lines += 1
            self._session = session
            self._line = f"caller{self.lines}"
            late = max(sent - start, 0) / 1000
            self._words.began(self._line, "caller", max(self._log.elapsed() - late, 0.0))
            self._log.happened("speech.started")
        self._end = end
        self._words.more(self._line, 0, words)

    def close(self) -> None:
        """What comes next is another line."""
        self._line = ""


def _nobody() -> None:
    """Nobody waits for the end yet."""
