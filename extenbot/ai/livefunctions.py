"""The functions of a GPT-Live conversation: a second model, the backend, calls them when the first one delegates to it.

Its responses come as events within `response.event`, each under the name of its delegation. When all functions of one
have their results it is asked to go on, and the first model says what comes of it.

That model speaks when it likes, before, while or after the backend works; so a terminal function waits until nobody has
said anything for `LAST_WORDS`.
"""

from __future__ import annotations

from collections.abc import Callable

from extenbot.ai import events
from extenbot.ai.events import number, section, word
from extenbot.ai.functions import Functions, Turn
from extenbot.ai.livelink import LiveSession
from extenbot.ai.livestart import BACKEND
from extenbot.ai.timers import Timers
from extenbot.ai.utterances import Utterances
from extenbot.interfaces import Json, Line, VoiceOrder, VoiceSurroundings

LAST_WORDS = 1.0
"""Seconds of silence after which nothing more of a goodbye is waited for."""

LOOK = 0.25
"""Seconds between two looks whether the goodbye is over."""

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class LiveFunctions:
    """All of one conversation. `quiet_since` says since when nobody has spoken, None while somebody does."""

    def __init__(
        self,
        order: VoiceOrder,
        surroundings: VoiceSurroundings,
        utterances: Utterances,
        quiet_since: Callable[[], float | None],
        went_on: Callable[[], object],
    ) -> None:
        """`went_on`: the backend has been asked to go on, so the model will have something to say."""
        self.tokens = {"input_tokens": 0, "output_tokens": 0}
        """What the backend has used."""
        self.cost = 0.0
        """USD."""
        clock = surroundings.clock
        self._log = surroundings.log
        self._prices = surroundings.prices
        self._timers = Timers(clock)
        self._now: Callable[[], float] = clock.seconds
        self._quiet_since = quiet_since
        self._went_on = went_on
        self._functions = Functions(order.terminal, surroundings.listener, surroundings.log, utterances, Timers(clock))
        self._turns: dict[str, Turn] = {}  # responses of the backend, by delegation
        self._asked_at = 0.0  # when a terminal function was asked for

    def go_to(self, session: LiveSession) -> None:
        """That is the backend now. It is told what is open of the session before."""

        def go_on() -> None:
            session.send("response.create", {})
            self._went_on()

        self.pause()
        self._functions.tell = lambda item: session.send("response.item.create", {"item": item})
        self._functions.go_on = go_on
        self._functions.resume()

    def pause(self) -> None:
        """There is no session for a while: results wait."""
        self._turns.clear()
        self._functions.pause()

    def answered(self, call_id: str, output: str, *, speak: bool) -> None:
        """The result of a function."""
        self._functions.answered(call_id, output, speak=speak)

    @property
    def running(self) -> bool:
        """Whether something is under way."""
        return self._functions.running

    def past(self) -> tuple[Line, ...]:
        """What functions said of which the model has spoken."""
        return self._functions.past()

    def stop(self) -> None:
        """Nothing is left for any more."""
        self._timers.clear_all()
        self._functions.stop()

    # -- What the backend says

    def responded(self, event: Json) -> None:
        """A `response.event`."""
        inner, name = section(event, "event"), word(event, "delegation_id")
        kind = word(inner, "type")
        if kind == "response.output_item.done":
            self._item_done(section(inner, "item"), number(inner, "output_index"), name)
        elif kind in _ENDS:
            response = section(inner, "response")
            self._count(response)
            if error := section(response, "error"):
                self._log.happened("error", code=word(error, "code"), message=word(error, "message")[:300])
            turn = self._turns.pop(name, None) or Turn({})
            turn.done = True
            self._functions.knew(turn)
            self._functions.complete(turn)

    def responded_last(self, event: Json) -> None:
        """One after the end of the call: what was used is still to be paid."""
        inner = section(event, "event")
        if word(inner, "type") in _ENDS:
            self._count(section(inner, "response"))

    def _item_done(self, item: Json, place: int, name: str) -> None:
        if word(item, "type") != "function_call" or word(item, "status") not in ("completed", ""):
            return
        turn = self._turns.setdefault(name, Turn({}))
        leaving = self._functions.leaving
        call_id, function = events.text(item, "call_id"), events.text(item, "name")
        self._functions.asked(turn, place, call_id, function, word(item, "arguments"))
        if self._functions.leaving and not leaving:
            self._asked_at = self._now()
            self._watch()

    def _count(self, response: Json) -> None:
        used = section(response, "usage")
        into, out = number(used, "input_tokens"), number(used, "output_tokens")
        self.tokens["input_tokens"] += into
        self.tokens["output_tokens"] += out
        cached = number(section(used, "input_tokens_details"), "cached_tokens")
        counts = {"input_text": into, "output_text": out, "cached_text": cached}
        self.cost += self._prices.response(word(response, "model") or BACKEND, counts) or 0.0

    # -- Leaving

    def _watch(self) -> None:
        """Look now and then whether the goodbye is over."""
        if self._functions.leaving:
            quiet_since = self._quiet_since()
            if quiet_since is not None and self._now() - max(quiet_since, self._asked_at) >= LAST_WORDS:
                self._functions.leave_if_quiet()
            self._timers.set("leave", LOOK, self._watch)
