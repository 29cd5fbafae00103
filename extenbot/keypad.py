"""The keys of a telephone, both ways: what the caller presses, and what the bot presses.

The caller's keys are gathered and reach the model as one message, after `#` or when none follows. While the model
collects (`collect_digits`), from the first key on that had not been told yet, they are the tool's instead:

    gathering  --#, or PAUSE without a key-->  a message
    collecting --as many as asked for, the closing key, or none for so long-->  the tool's answer

Nobody types into a question: the patience of a collection begins when the bot has finished speaking.

Keys of the bot (`send_digits`) wait for that, too, and for the keys before them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from extenbot.ai import built_in
from extenbot.errors import ToolFailed
from extenbot.interfaces import CallLog, Playout, ToolCall, Voice

PAUSE = 2.0
"""Seconds without a further key after which what was pressed is complete."""

LOOK = 0.1
"""Seconds between two looks at whether the bot still speaks."""

WAIT = 30.0
"""Seconds that keys of ours wait for the bot to finish speaking; on hold it never does."""

SENT = "The keys have been sent."
HELD = "The keys were not sent: the other side has put the call on hold."
COLLECTING = "Keys are being collected already: wait for that."


class KeyLine(Protocol):
    """Where keys of ours go out."""

    @property
    def playout(self) -> Playout: ...

    def dial(self, digits: str, done: Callable[[], None]) -> None:
        """`done` is called when they are out; `ValueError` for what is no key."""


class Keypad:
    """The keys of one call. What it begins ends with `stop`."""

    def __init__(
        self, clock: IReactorTime, voice: Voice, line: KeyLine, log: CallLog, listening: Callable[[], bool]
    ) -> None:
        """`listening`: whether the other side is with the bot, not on hold nor being transferred."""
        self._clock = clock
        self._voice = voice
        self._line = line
        self._log = log
        self._listening = listening
        self._keys = ""  # pressed and not told yet
        self._collecting: tuple[ToolCall, built_in.Collection] | None = None
        self._since = 0.0  # the last key of a collection, or the bot's last word
        self._sending: deque[tuple[ToolCall, str]] = deque()
        self._waited_since = 0.0
        self._complete: IDelayedCall | None = None
        self._look: IDelayedCall | None = None  # at the caller's
        self._next: IDelayedCall | None = None  # at ours

    def stop(self) -> None:
        """The call is over: nothing more is told, nor pressed."""
        for timer in (self._complete, self._look, self._next):
            _cancel(timer)
        self._complete = self._look = self._next = self._collecting = None
        self._sending.clear()

    # -- The caller's --

    def pressed(self, key: str) -> None:
        """The caller has pressed a key."""
        self._log.happened("dtmf", digit=key)
        if self._collecting is not None:
            self._collect(key)
            return
        self._keys += key
        _cancel(self._complete)
        self._complete = None
        if key == "#" or len(self._keys) >= built_in.MOST_KEYS:
            self._tell()
        else:
            self._complete = self._clock.callLater(PAUSE, self._tell)

    def _tell(self) -> None:
        _cancel(self._complete)
        self._complete = None
        keys, self._keys = self._keys, ""
        self._voice.told(f"[The caller pressed {keys}]", by_caller=True, speak=self._listening())

    def collect(self, tool: ToolCall) -> None:
        """The model asks for keys: what has just been pressed is the beginning."""
        if self._collecting is not None:
            self._voice.answered(tool.call_id, COLLECTING, speak=False)
            return
        try:
            wish = built_in.collection(tool.arguments)
        except ToolFailed as error:
            self._voice.answered(tool.call_id, str(error))
            return
        _cancel(self._complete)
        self._complete = None
        early, self._keys = self._keys, ""
        self._collecting = tool, wish
        self._since = self._clock.seconds()
        for key in early:
            self._collect(key)
        self._watch()

    def _collect(self, key: str) -> None:
        if self._collecting is None:  # it was complete before
            return
        _, wish = self._collecting
        self._since = self._clock.seconds()
        if key == wish.terminator:
            self._collected(f"The caller pressed {self._keys or 'nothing'} and then {key}.")
            return
        self._keys += key
        if len(self._keys) == wish.length:
            self._collected(f"The caller pressed {self._keys}.")

    def _watch(self) -> None:
        """Look whether it has been quiet for too long."""
        self._look = None
        if self._collecting is None:
            return
        _, wish = self._collecting
        now = self._clock.seconds()
        if not self._quiet():
            self._since = now
        if now - self._since < wish.patience:
            self._look = self._clock.callLater(LOOK, self._watch)
        elif self._keys:
            self._collected(f"The caller pressed {self._keys}, and no further key for {wish.patience:g} seconds.")
        else:
            self._collected(f"The caller pressed no key within {wish.patience:g} seconds.")

    def _collected(self, words: str) -> None:
        assert self._collecting is not None
        tool, _ = self._collecting
        self._collecting, self._keys = None, ""
        _cancel(self._look)
        self._look = None
        self._voice.answered(tool.call_id, words)

    # -- Ours --

    def send(self, tool: ToolCall) -> None:
        """The model presses keys."""
        try:
            digits = built_in.digits(tool.arguments)
        except ToolFailed as error:
            self._voice.answered(tool.call_id, str(error))
            return
        self._sending.append((tool, digits))
        if len(self._sending) == 1:
            self._waited_since = self._clock.seconds()
            self._send()

    def _send(self) -> None:
        """The first of those that wait, when the bot has finished speaking."""
        self._next = None
        if not self._quiet():
            if self._clock.seconds() - self._waited_since < WAIT:
                self._next = self._clock.callLater(LOOK, self._send)
            else:
                self._sent(HELD)
            return
        _, digits = self._sending[0]
        try:
            self._line.dial(digits, self._out)
        except ValueError as error:
            self._sent(f"The keys were not sent: {error}.")
            return
        self._log.happened("dialled", digits=digits)

    def _out(self) -> None:
        self._sent(SENT)

    def _quiet(self) -> bool:
        """The bot has finished speaking, and somebody is there to hear keys or to press them."""
        return self._line.playout.empty and self._listening()

    def _sent(self, words: str) -> None:
        if not self._sending:  # it was stopped
            return
        tool, _ = self._sending.popleft()
        if self._sending:
            self._waited_since = self._clock.seconds()
            self._next = self._clock.callLater(0, self._send)
        self._voice.answered(tool.call_id, words)


def _cancel(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
