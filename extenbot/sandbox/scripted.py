"""The scripted mind: does what a `Script` says, when it says so. Costs next to nothing per call."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from extenbot.interfaces import Json, Tokens
from extenbot.sandbox.response import Cause, Response, Wish
from extenbot.sandbox.script import LINK_ONLY, Action, Rule, Script
from extenbot.sandbox.session import Session
from extenbot.sandbox.sounds import Sound, render, speech_like
from extenbot.sandbox.turns import Gate

_EXACT = re.compile(r'say exactly:\s*"(.*)"', re.IGNORECASE | re.DOTALL)
_DEFAULTS = {
    Cause.SPEECH: ("You spoke.", 523.25),
    Cause.OUTPUT: ("It is done.", 587.33),
    Cause.TEXT: ("You wrote.", 659.25),
    Cause.RESPONSE: ("I am here.", 440.0),
}


def exact_words(*instructions: object) -> str:
    """What the first of `instructions` that says so wants said word by word: `Say exactly: "…"`; else nothing."""
    for text in instructions:
        if isinstance(text, str) and (match := _EXACT.search(text)):
            return match[1].strip()
    return ""


class Scripted:
    """The mind of one session."""

    def __init__(self, session: Session, script: Script) -> None:
        self._session = session
        self._script = script
        session.speed, session.chunk = script.speed, script.chunk
        session.late_deltas, session.life = script.late, script.life
        self._gate = Gate(session.speech_started, session.speech_stopped)
        self._counts: dict[str, int] = {}
        self._timers: set[Any] = set()

    # -- What the session tells

    def opened(self) -> None:
        for rule in self._script.timed():
            self._later(rule.seconds, partial(self._timed, rule))
        opening = self._next("open")
        self._order(opening.actions if opening else (), self._session.create)

    def updated(self, update: Json, event_id: str | None) -> None:
        rule = self._next("update")
        self._order(rule.actions if rule else (), lambda: self._session.accept(update, event_id), event_id)

    def heard(self, audio: bytes) -> None:
        self._gate.heard(audio, self._session.input, self._session.detection)

    def cleared(self) -> None:
        self._gate.reset()

    def committed(self, item_id: str, audio: bytes) -> None:
        rule = self._next("speech")
        heard = next((action for action in rule.actions if action.verb == "heard"), None) if rule else None
        if heard is None:
            words = f"({len(audio) // self._session.input.per_ms} ms of sound)"
            self._later(0.25, lambda: self._session.transcribed(item_id, words))
        elif heard.code == "failed":
            self._later(heard.seconds, lambda: self._session.not_transcribed(item_id, "The audio is not clear."))
        elif not heard.code:
            self._later(heard.seconds, lambda: self._session.transcribed(item_id, heard.words))

    def wanted(self, wish: Wish) -> None:
        rule = self._rule_for(wish)
        if rule is None:
            self._plain(self._session.respond(wish))
            return
        for action in rule.actions:
            if action.verb == "refuse":
                self._refuse(action, wish.event_id)
                return
            if action.verb == "ignore":
                return
        self._speak(self._session.respond(wish), rule.actions)

    def closed(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # -- Choosing

    def _next(self, when: str, name: str = "") -> Rule | None:
        self._counts[when] = count = self._counts.get(when, 0) + 1
        return self._script.rule(when, count, name)

    def _rule_for(self, wish: Wish) -> Rule | None:
        if wish.cause is Cause.SPEECH:  # counted when the turn was committed
            return self._script.rule("speech", self._counts.get("speech", 0))
        name = self._function_of(wish.item_id) if wish.cause is Cause.OUTPUT else ""
        found = self._next(wish.cause.value, name)
        return found or (self._next("response") if wish.cause is not Cause.RESPONSE else None)

    def _function_of(self, item_id: str) -> str:
        """The function whose output the item is."""
        call_id = self._session.items.get(item_id, {}).get("call_id")
        calls = (item for item in self._session.items.values() if item["type"] == "function_call")
        return next((str(call["name"]) for call in calls if call["call_id"] == call_id), "")

    # -- Doing

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = self._session.clock.callLater(seconds, run)
        self._timers.add(timer)

    def _timed(self, rule: Rule) -> None:
        if rule.when == "every":
            self._later(rule.seconds, lambda: self._timed(rule))
        if all(action.verb in LINK_ONLY for action in rule.actions):
            self._order(rule.actions, lambda: None)
            return
        response = self._session.start_response()
        if response is not None:
            self._speak(response, rule.actions)
        elif rule.when == "after":  # its turn comes when the response that goes on is done
            self._later(0.1, lambda: self._timed(rule))

    def _order(self, actions: tuple[Action, ...], then: Callable[[], None], event_id: str | None = None) -> None:
        """Do actions that need no response, one after the other, `then` last unless one of them ends the matter."""
        for place, action in enumerate(actions):
            if action.verb == "wait":
                self._later(action.seconds, partial(self._order, actions[place + 1 :], then, event_id))
                return
            if action.verb == "hang":
                return
            if action.verb == "refuse":
                self._refuse(action, event_id)
                return
            if action.verb == "effective":
                self._session.echo = action.data
            else:
                self._link(action)
            if not self._session.alive:
                return
        then()

    def _refuse(self, action: Action, event_id: str | None) -> None:
        self._session.error(action.code, action.words, param=action.param or None, event_id=event_id)

    def _link(self, action: Action) -> None:
        session = self._session
        match action.verb:
            case "error":
                kind = "server_error" if action.code == "server_error" else "invalid_request_error"
                session.error(None if action.code == "server_error" else action.code, action.words, kind=kind)
            case "close":
                session.close(int(action.code), action.words)
            case "drop":
                session.close(1006, "")
            case "expire":
                session.expire()
            case "send":
                session.send_event({"event_id": session.identify("event"), **action.data})

    def _speak(self, response: Response, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action.verb:
                case "sound":
                    assert action.sound is not None
                    response.say(action.words, render(action.sound, response.wire))
                case "text":
                    response.write(action.words)
                case "call":
                    response.call(action.code, action.words)
                case "next message":
                    response.next_message()
                case "wait":
                    response.pause(action.seconds)
                case "speed":
                    response.speed = action.number
                case "fail":
                    response.fail(action.code, action.words)
                    return
                case "incomplete":
                    response.finish("incomplete", {"type": "incomplete", "reason": action.code})
                    return
                case "hang":
                    return
                case verb if verb in LINK_ONLY:
                    response.do(partial(self._link, action))
        response.finish()

    def _plain(self, response: Response) -> None:
        """What is said when the script has no rule."""
        wish = response.wish
        if wish.cause is Cause.GREET:
            words = exact_words(wish.options.get("instructions"), self._session.config["instructions"]) or "Hello."
            response.say(words, render(speech_like(words), response.wire))
        else:
            words, hz = _DEFAULTS[wish.cause]
            response.say(words, render(Sound(hz=hz, seconds=1.0), response.wire))
        response.finish()


class ScriptSession(Session):
    """A session with the scripted mind: connect it to a client by `send`, `close`, `opened`, `received`, `lost`."""

    def __init__(
        self,
        clock: Any,
        tokens: Tokens,
        script: Script,
        send: Callable[[bytes], None],
        close: Callable[[int, str], None],
        *,
        model: str = "sandbox-script",
        wall: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(clock, tokens, lambda session: Scripted(session, script), send, close, model=model, wall=wall)
