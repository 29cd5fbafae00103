"""The functions that the model has asked for, until it has heard what became of them.

Several may be in one response: they run side by side, their outputs go back in the order of the calls, and the last one
lets the model speak. What is under way when a session ends is told to the next one again.

A *terminal* function (hang up, transfer) is handed on as `leaving` when its response is done and the last byte has been
heard. Nobody waits for ever: when for 5 s nothing has been received or played, it is handed on as things are.
"""

from __future__ import annotations

from collections.abc import Callable

from extenbot.ai import events
from extenbot.ai.timers import Timers
from extenbot.ai.utterances import Utterances
from extenbot.errors import Malformed
from extenbot.interfaces import CallLog, Json, Line, ToolCall, VoiceListener

STILL = 5.0
"""Seconds without any progress after which a terminal function no longer waits for the goodbye."""

TAIL = 0.25
"""Seconds after the last byte: phones play it that much later, and drop what they have not played when a call ends."""

SHOWN = 2000
"""Characters of an output in the timeline."""

REMEMBERED = 500
"""Characters of an output that later sessions are told."""


class Turn:
    """One response of the model while it runs, and until its function calls are answered."""

    __slots__ = ("calls", "done", "items", "options")

    def __init__(self, options: Json) -> None:
        self.options = options  # of the request for it
        self.items: list[str] = []
        self.calls: list[_Call] = []
        self.done = False


class _Call:
    """One function call."""

    __slots__ = ("arguments", "at", "id", "known", "name", "output", "place", "sent", "speak", "terminal", "turn")

    def __init__(self, turn: Turn, place: int, call_id: str, name: str, arguments: str, terminal: bool) -> None:
        self.turn = turn
        self.place = place
        self.id = call_id
        self.name = name
        self.arguments = arguments
        self.terminal = terminal
        self.at = 0.0  # seconds into the call, of the output
        self.output: str | None = None
        self.speak = True
        self.sent = False
        self.known = False  # a response has been made that knew the output


class Functions:
    """All of one conversation. Between `pause` and `resume` there is no session."""

    def __init__(
        self,
        terminal: frozenset[str],
        listener: VoiceListener,
        log: CallLog,
        utterances: Utterances,
        timers: Timers,
    ) -> None:
        self.tell: Callable[[Json], object] = _nobody
        """Makes an item of the conversation."""
        self.go_on: Callable[[], object] = _nothing
        """Asks the model to speak."""
        self._terminal = terminal
        self._listener = listener
        self._log = log
        self._utterances = utterances
        self._timers = timers
        self._calls: dict[str, _Call] = {}
        self._leaving: tuple[ToolCall, Turn] | None = None
        self._paused = False

    def asked(self, turn: Turn, place: int, call_id: str, name: str, arguments: str) -> None:
        """The model asks for a function; `arguments` is JSON, or should be."""
        if call_id in self._calls:
            return
        call = _Call(turn, place, call_id, name, arguments, name in self._terminal)
        self._calls[call_id] = call
        turn.calls.append(call)
        try:
            tool = ToolCall(call_id, name, events.read_object(arguments or "{}"))
        except Malformed:
            call.arguments = "{}"
            self.answered(call_id, "The arguments were not a JSON object. Call the function again with correct ones.")
            return
        self._log.happened("tool.asked", name=name, call=call_id, arguments=tool.arguments)
        if not call.terminal:
            self._listener.asked(tool)
        elif self._leaving is not None:
            self.answered(call_id, f"Not done: {self._leaving[0].name} is under way already.", speak=False)
        else:
            self._leaving = (tool, turn)
            self._watch()

    def answered(self, call_id: str, output: str, *, speak: bool = True) -> None:
        """The result of a function; unknown, repeated and late ones are ignored."""
        call = self._calls.get(call_id)
        if call is None or call.output is not None:
            return
        if self._leaving is not None and self._leaving[0].call_id == call_id:
            self._leaving = None
            self._timers.clear_all()
        call.output, call.speak, call.at = output, speak, self._log.elapsed()
        self._log.happened("tool.answered", name=call.name, call=call_id, output=output[:SHOWN])
        self.complete(call.turn)

    def complete(self, turn: Turn) -> None:
        """Send the outputs that can be sent, in the order of the calls; the last one lets the model speak."""
        if self._paused:
            return
        for call in sorted(turn.calls, key=lambda call: call.place):
            if call.output is None:
                if call.terminal:
                    continue
                break
            if not call.sent:
                call.sent = True
                self.tell({"type": "function_call_output", "call_id": call.id, "output": call.output})
        calls = turn.calls
        if turn.done and all(call.sent for call in calls) and any(call.speak and not call.known for call in calls):
            self.go_on()

    def knew(self, turn: Turn) -> None:
        """The model has made this response, and knew all outputs that had been sent."""
        for call in self._calls.values():
            if call.sent and call.turn is not turn:
                call.known = True

    @property
    def running(self) -> bool:
        """Whether something is under way."""
        return self._leaving is not None or any(
            call.output is None and not call.terminal for call in self._calls.values()
        )

    @property
    def leaving(self) -> bool:
        """Whether the conversation will be left when the goodbye has been heard."""
        return self._leaving is not None

    # -- From session to session

    def pause(self) -> None:
        """The session is gone: no more comes of its responses, and outputs wait for the next one."""
        self._paused = True
        for call in self._calls.values():
            call.turn.done = True
            call.sent = call.sent and call.known

    def resume(self) -> None:
        """A new session: tell it what was asked for, and what has come of that."""
        self._paused = False
        open_ = [call for call in self._calls.values() if not call.known]
        for call in open_:
            item = {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments or "{}"}
            self.tell(item)
        for turn in {id(call.turn): call.turn for call in open_}.values():
            self.complete(turn)
        self.leave_if_quiet()

    def past(self) -> tuple[Line, ...]:
        """What functions said of which the model has spoken, as lines for the sessions to come."""
        return tuple(
            Line("function", f"{call.name}({_short(call.arguments)}): {_short(call.output or '')}", call.at)
            for call in self._calls.values()
            if call.known and not call.terminal
        )

    # -- Leaving

    def leave_if_quiet(self) -> None:
        """Leave, if that is wanted and everything has been said."""
        over = self._utterances.empty and not self._utterances.waiting
        if self._leaving is not None and self._leaving[1].done and over and "tail" not in self._timers:
            self._timers.set("tail", TAIL, self._leave)

    def stop(self) -> None:
        """Nothing is left for any more."""
        self._leaving = None
        self._timers.clear_all()

    def _watch(self) -> None:
        """Look again in a while whether anything still moves toward the end of the goodbye."""
        self._timers.set("leave", STILL, self._leave_if_still, self._progress())

    def _leave_if_still(self, before: object) -> None:
        if self._progress() == before and not self._utterances.waiting:
            self._leave()
        else:
            self._watch()

    def _progress(self) -> object:
        done = self._leaving is not None and self._leaving[1].done
        return self._utterances.received, self._utterances.sent, done

    def _leave(self) -> None:
        if self._leaving is not None:
            tool, self._leaving = self._leaving[0], None
            self._timers.clear_all()
            self._log.happened("tool.leaving", name=tool.name, call=tool.call_id)
            self._listener.leaving(tool)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= REMEMBERED else f"{text[:REMEMBERED]}…"


def _nobody(_item: Json) -> None:
    """There is no session yet."""


def _nothing() -> None:
    """There is nobody to speak."""
