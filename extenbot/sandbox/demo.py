"""The demo mind: hears with Whisper, answers by `reply`, speaks with Piper; without them it answers with tones."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from extenbot.interfaces import Json
from extenbot.sandbox import reply
from extenbot.sandbox.response import Cause, Response, Wish
from extenbot.sandbox.scripted import exact_words
from extenbot.sandbox.session import Session
from extenbot.sandbox.sounds import render, speech_like
from extenbot.sandbox.turns import Gate
from extenbot.sandbox.voice import SpeechProcess

SPEED = 4.0  # audio leaves so many times faster than it plays
ASK = "Shall I really do that? Please say yes or no."
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+")


class Demo:
    """The mind of one session."""

    log = Logger()

    def __init__(self, session: Session, speech: SpeechProcess) -> None:
        self._session = session
        self._speech = speech
        self._able = speech.usable
        self._ear: Any = (speech.ear if self._able else Gate)(session.speech_started, session.speech_stopped)
        self._words: dict[str, Deferred[str]] = {}  # turn -> what was heard, once it is known
        self._heard: dict[str, str] = {}
        self._running: set[Deferred[Any]] = set()
        self._pending = ""
        self._request = ""  # something that waits for the caller's yes
        session.speed = SPEED

    def opened(self) -> None:
        self._session.create()

    def updated(self, update: Json, event_id: str | None) -> None:
        self._session.accept(update, event_id)

    def heard(self, audio: bytes) -> None:
        self._ear.heard(audio, self._session.input, self._session.detection)

    def cleared(self) -> None:
        self._ear.reset()

    def closed(self) -> None:
        if isinstance(self._ear, Gate):
            self._ear.reset()
        else:
            self._ear.close()
        for deferred in list(self._running):
            deferred.cancel()

    def committed(self, item_id: str, audio: bytes) -> None:
        if not self._able:
            self._known("", item_id)
            return
        asked = self._session.config["audio"]["input"]["transcription"] or {}
        hearing = self._speech.hear(audio, self._session.input, str(asked.get("language") or ""))
        self._run(hearing)
        self._words[item_id] = Deferred()
        hearing.addCallbacks(self._known, self._deaf, callbackArgs=(item_id,), errbackArgs=(item_id,))

    def _known(self, text: str, item_id: str) -> None:
        self._heard[item_id] = text
        self._session.transcribed(item_id, text)
        waiting = self._words.pop(item_id, None)
        if waiting is not None:
            waiting.callback(text)

    def _deaf(self, failure: Failure, item_id: str) -> None:
        if failure.check(CancelledError):
            return
        self._session.not_transcribed(item_id, failure.getErrorMessage())
        waiting = self._words.pop(item_id, None)
        if waiting is not None:
            waiting.callback("")

    def wanted(self, wish: Wish) -> None:
        response = self._session.respond(wish)
        waiting = self._words.get(wish.item_id)
        if wish.cause is Cause.SPEECH and waiting is not None:
            waiting.addCallback(lambda text: self._answer(response, text))
        elif wish.cause is Cause.SPEECH:
            self._answer(response, self._heard.get(wish.item_id, ""))
        elif wish.cause is Cause.OUTPUT:
            self._tell(response, str(self._session.items.get(wish.item_id, {}).get("output", "")))
        elif wish.cause is Cause.TEXT:
            content: list[Json] = self._session.items.get(wish.item_id, {}).get("content") or [{}]
            self._answer(response, str(content[-1].get("text") or ""))
        else:
            exact = exact_words(wish.options.get("instructions"))
            if wish.cause is Cause.GREET:
                exact = exact or exact_words(self._session.config["instructions"]) or "Hello."
            waits = wish.options.get("metadata", {}).get("purpose") == "meanwhile"
            self._say(response, exact or ("One moment, please." if waits else "I am here."))

    def _tell(self, response: Response, output: str) -> None:
        """The result of a function, or that the caller has to agree to it first."""
        self._request = reply.consent(output)
        self._say(response, ASK if self._request else reply.told(output))

    def _answer(self, response: Response, heard: str) -> None:
        if not response.active:
            return
        if not self._able:
            self._say(response, "I cannot hear words.")
            return
        if self._request:
            decision = reply.decided(heard, self._request)
            self._request = "" if decision else self._request
            self._say(response, decision.words if decision else ASK, decision.call if decision else None)
            return
        none = response.options.get("tool_choice", self._session.config["tool_choice"]) == "none"
        tools = () if none else response.options.get("tools", self._session.config["tools"])
        answer = reply.answer(heard, tools, self._pending)
        self._pending = answer.pending
        self._say(response, answer.words, answer.call)

    def _say(self, response: Response, words: str, call: reply.Call | None = None) -> None:
        """Speak sentence by sentence, then call."""
        sentences = [sentence for sentence in _SENTENCE.split(words) if sentence]
        self._next(response, sentences, call)

    def _next(self, response: Response, sentences: list[str], call: reply.Call | None) -> None:
        if not response.active:
            return
        if not sentences:
            if call is not None:
                response.call(call.name, json.dumps(dict(call.arguments)))
            response.finish()
            return
        sentence, rest = sentences[0], sentences[1:]
        if not self._able or response.text_only:
            response.say(sentence, b"" if response.text_only else render(speech_like(sentence), response.wire))
            self._next(response, rest, call)
            return
        first = True

        def piece(audio: bytes) -> None:
            nonlocal first
            response.say(sentence if first else "", audio)
            first = False

        speaking = self._speech.say(sentence, response.wire, piece, response.tempo)
        response.on_end(speaking.cancel)
        self._run(speaking)
        speaking.addCallback(lambda _end: self._next(response, rest, call))
        speaking.addErrback(self._mute, response, sentence, rest, call)

    def _mute(
        self, failure: Failure, response: Response, sentence: str, rest: list[str], call: reply.Call | None
    ) -> None:
        """The speech process is gone: a tone instead of this sentence."""
        if failure.check(CancelledError):
            return
        self.log.warn("A sentence could not be spoken: {why}", why=failure.getErrorMessage())
        response.say(sentence, render(speech_like(sentence), response.wire))
        self._next(response, rest, call)

    def _run(self, deferred: Deferred[Any]) -> None:
        """Remember what has to be cancelled when the session ends."""
        self._running.add(deferred)

        def done(result: Any) -> Any:
            self._running.discard(deferred)
            return result

        deferred.addBoth(done)
