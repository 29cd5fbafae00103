"""A conversation with GPT-Live: audio runs both ways all the time, and the model itself decides when to speak.

So there is no turn detection here, no gate, no truncation: the model hears the caller while it speaks, and falls silent
by itself. That the line has become loud (`loud`) stops nothing; it only counts as somebody speaking. A bot that must
not be interrupted hears silence while it speaks.

    opening --session open--> ready --greet--> talking --finish--> finishing --sessions closed--> closed
    opening, ready: the session is lost --> closed, and the call hears `lost`
    talking: the session is lost --> another one is tried for, a few times, then closed and `lost`

Functions are called by a second model behind the first (`delegation`), which gets our functions and is given their
results. The first one is told by `commentary` what to say, by `instructions` and `thinking` what to know.

Sessions last two hours at most: `livesessions` knows where the audio goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import ClassVar

from extenbot.ai import events, extra
from extenbot.ai.codec import LAWS
from extenbot.ai.events import number, section, word
from extenbot.ai.greeting import Greeting
from extenbot.ai.liveaudio import CallerWords, LiveHearing, LiveSpeech
from extenbot.ai.livefunctions import LiveFunctions
from extenbot.ai.livelink import LiveSession
from extenbot.ai.livesessions import LiveSessions
from extenbot.ai.livestart import MODEL, address, pieces, settings
from extenbot.ai.timers import Timers
from extenbot.ai.transcript import Transcript
from extenbot.ai.utterances import Utterance, Utterances
from extenbot.errors import BackendLost, Invalid
from extenbot.interfaces import Json, Line, VoiceOrder, VoiceSurroundings
from extenbot.media import g711

CONGESTED = 200_000
"""Bytes that the network has not taken; caller audio is thrown away above that, it would come seconds late."""

AHEAD = 3200
"""Bytes (400 ms) of the greeting that are gathered while the phone still rings."""

_GREET = "Greet the caller in one short sentence, then wait."
_GO_ON = "Say what you have to say now."
_ANSWER = "The caller has finished speaking and waits. Answer now."
_RESUMED = "The line was interrupted for a moment. Say so, and ask the caller to repeat what they said last."
_ALONE = "There is nothing to do that with. Answer from what you know, or say that you cannot."
_MEANWHILE = "Said in the meantime, and known to the caller:"


class _Phase(Enum):
    OPENING = auto()
    READY = auto()  # the greeting is owed
    TALKING = auto()
    FINISHING = auto()
    CLOSED = auto()


def open_live(order: VoiceOrder, surroundings: VoiceSurroundings, url: str) -> LiveConversation:
    """Start to open a session on the server of `url`; the listener hears `opened` or `lost`, later."""
    conversation = LiveConversation(order, surroundings)
    try:
        where = address(url)
        settings(order)
    except BackendLost as why:
        conversation.refuse(why)
    except Invalid as problem:
        conversation.refuse(extra.refused(problem))
    else:
        conversation.open(where)
    return conversation


class LiveConversation:
    """A `Voice` to the call and the `Owner` of its sessions."""

    def __init__(self, order: VoiceOrder, surroundings: VoiceSurroundings) -> None:
        clock, log = surroundings.clock, surroundings.log
        self._order = order
        self._surroundings = surroundings
        self._now: Callable[[], float] = clock.seconds
        self._listener = surroundings.listener
        self._log = log
        self._timers = Timers(clock)
        self._phase = _Phase.OPENING
        self._sessions = LiveSessions(order, surroundings, self)
        self._owed: list[tuple[str, str]] = []  # what the next session is to be told
        # Audio and words
        law = LAWS[order.format]
        self._words = Transcript()
        self._utterances = Utterances(surroundings.playout, self._words)
        self._hearing = LiveHearing(g711.SILENCE[law], self._heard, self._muted)
        self._speech = LiveSpeech(self._utterances, self._words, log, Timers(clock), clock.seconds, law)
        self._caller = CallerWords(self._words, log)
        self._greeting = Greeting(order, self._hearing, self._utterances, log, clock.seconds, self._prepared)
        self._keys = 0  # how often the caller has pressed some
        self._loud = False
        self._last: float = self._now()  # when anybody did anything
        self._wait: float | None = None  # since when the caller waits for an answer
        self._first_audio = 0  # ms of that
        # What is due of the model
        self._due = ""  # how it is asked for once more
        self._moved_at = 0.0
        self._late = False
        self._functions = LiveFunctions(order, surroundings, self._utterances, self._quiet_since, self._went_on)

    def open(self, url: str) -> None:
        """Dial the first session."""
        self._sessions.open(url)

    def refuse(self, why: BackendLost) -> None:
        """There is nothing to dial; the listener hears so in a moment."""
        self._timers.set("refuse", 0, self.lost, why)

    # -- Voice: the greeting

    def prepare(self) -> None:
        """Have the greeting made while the phone still rings; the model's clock is fed with silence until then."""
        if self._phase is _Phase.READY and not self._greeting.asked:
            self._greeting.prepare()
            if not self._order.greeting:
                self._feed()

    def _feed(self) -> None:
        if self._sessions.current is not None and self._utterances.received < AHEAD:
            self._hearing.nothing()
            self._timers.set("feed", 0.04, self._feed)

    def greet(self) -> None:
        """The caller hears us."""
        if self._phase is _Phase.READY:
            self._phase = _Phase.TALKING
            self._timers.clear("feed")
            self._last = self._now()
            self._greeting.greet()
            if self._due:
                self._expect(self._due)  # nobody waited for it before

    def heard(self, audio: bytes) -> None:
        """20 ms of the caller; who does not hear us yet, or any more, is not heard. On the hot path."""
        if self._phase is _Phase.TALKING:
            self._hearing.heard(audio)

    def _want_greeting(self, _options: Json) -> None:
        welcome = self._order.welcome
        self._say(f'Say exactly: "{welcome}"' if welcome else _GREET)

    def _prepared(self) -> None:
        self._timers.set("prepared", 0, self._listener.prepared)

    # -- Voice: the caller

    def _heard(self, audio: bytes) -> bool:
        session = self._sessions.current
        return session is not None and session.append(audio, CONGESTED)

    def _muted(self) -> bool:
        speaking = self._speech.going_on or not self._utterances.empty
        return speaking and self._order.bot.manner.barge_in == "off"

    def loud(self, on: bool) -> None:
        """Somebody speaks, so nobody is asked whether they are still there."""
        self._loud = on
        self._last = self._now()

    # -- Voice: words to the model

    def told(self, text: str, *, by_caller: bool = False, speak: bool = True) -> None:
        """What the caller did is an instruction to react to, what we want said a commentary, the rest a thought."""
        if self._phase not in (_Phase.READY, _Phase.TALKING):
            return
        self._last = self._now()
        if by_caller:
            self._keys += 1
            self._caller.close()
            self._words.noted(f"told {self._keys}", "caller", text, self._log.elapsed())
            self._append("instructions", f"{text} Respond to it now." if speak else text)
            if speak:
                self._expect(_GO_ON)
        elif speak:
            self._say(text)
        else:
            self._append("thinking", text)

    def _say(self, words: str) -> None:
        self._append("commentary", words)
        self._expect(words)

    def _append(self, kind: str, words: str, delegation: str | None = None) -> None:
        session = self._sessions.current
        if session is None:
            self._owed.append((kind, words))
            return
        for piece in pieces(words):
            session.send(f"session.{kind}.append", {"content": piece, "delegation_id": delegation})

    def say(self, text: str) -> None:
        """A sentence that is worth saying only now; this model says by itself that something takes a moment."""
        if text and self._phase is _Phase.TALKING and self._quiet_since() is not None:
            self._append("commentary", text)

    def offer(self, tools: tuple[Json, ...]) -> None:
        """The tools from now on."""
        if self._phase not in (_Phase.FINISHING, _Phase.CLOSED):
            self._sessions.offer(tools)

    def approved(self, call_id: str, yes: bool) -> None:
        """Nobody has asked: this service uses no MCP servers of its own."""

    # -- What is due of the model

    def _expect(self, again: str) -> None:
        """It is to speak now; if it does not it is told `again`, once."""
        self._due = again
        self._moved_at = self._now()
        if self._phase is _Phase.TALKING and "overdue" not in self._timers:
            self._timers.set("overdue", self._order.bot.manner.response_timeout, self._look)

    def _look(self) -> None:
        """Has anything come of what is due?"""
        timeout = self._order.bot.manner.response_timeout
        left = self._moved_at + timeout - self._now()
        if not self._due or self._sessions.current is None:
            return
        if left > 0.001:
            self._timers.set("overdue", left, self._look)
        elif self._late:
            words = f"The model was silent for {timeout:g} seconds, and again when it was asked once more."
            self.lost(BackendLost("silent", words))
        else:
            self._late = True
            self._log.happened("response.late", seconds=timeout)
            self._greeting.end()  # the caller is heard in any case
            self._say(self._due)

    def _unanswered(self) -> None:
        """The model says when it likes whether it likes; a caller who has waited so long thinks that it is dead."""
        if self._due or self._sessions.current is None:
            return
        if self._functions.running or self._loud:
            self._timers.set("unanswered", self._order.bot.manner.response_timeout, self._unanswered)
            return
        self._late = True
        self._log.happened("response.late", seconds=self._order.bot.manner.response_timeout)
        self._append("instructions", _ANSWER)
        self._expect(_GO_ON)

    def _spoke(self) -> None:
        """The model works."""
        self._due, self._late = "", False
        self._timers.clear("unanswered")
        self._sessions.spoke()

    # -- Voice: the rest

    def answered(self, call_id: str, output: str, *, speak: bool = True) -> None:
        """The result of a function; unknown, repeated or late ids are ignored."""
        if self._phase in (_Phase.READY, _Phase.TALKING):
            self._functions.answered(call_id, output, speak=speak)

    def finish(self) -> None:
        """The call is over: close, and take what the service still says of it."""
        if self._phase in (_Phase.FINISHING, _Phase.CLOSED):
            return
        self._phase = _Phase.FINISHING
        self._stop()
        self._utterances.cut()
        self._sessions.finish()

    @property
    def transcript(self) -> tuple[Line, ...]:
        """Both sides in the order in which they were heard."""
        return tuple(sorted(self._utterances.lines(), key=lambda line: line.at))

    @property
    def usage(self) -> Json:
        """Seconds of the sessions, and the tokens of the model behind them."""
        return {"seconds": round(self._sessions.seconds, 1), **self._functions.tokens}

    @property
    def cost(self) -> float:
        """By the minute, and by the token for the model behind."""
        minute = self._surroundings.prices.minute(self._order.bot.model or MODEL) or 0.0
        return minute * self._sessions.seconds / 60 + self._functions.cost

    @property
    def turns(self) -> int:
        """How often the caller has spoken or pressed keys."""
        return self._caller.lines + self._keys

    @property
    def idle_since(self) -> float | None:
        """Since when nobody speaks and nothing is due."""
        busy = (
            self._phase is not _Phase.TALKING or self._sessions.current is None or self._due or self._functions.running
        )
        return None if busy or self._loud else self._quiet_since()

    def _quiet_since(self) -> float | None:
        """Since when nobody has said anything, None while the bot speaks."""
        if self._speech.going_on or not self._utterances.empty:
            return None
        return max(self._last, self._speech.spoke_at)

    # -- Sessions

    @property
    def may_move(self) -> bool:
        """Whether nobody speaks and nothing is due."""
        return self.idle_since is not None or self._phase is not _Phase.TALKING

    def said(self) -> tuple[Line, ...]:
        """All of the conversation so far."""
        lines = (*self._utterances.lines(whole=True), *self._functions.past())
        return tuple(sorted(lines, key=lambda line: line.at))

    def opened(self, session: LiveSession) -> None:
        """The first session is open: the call may be answered."""
        self._phase = _Phase.READY
        self._utterances.begin()
        self._utterances.on_began, self._utterances.on_drained = self._began, self._drained
        self._speech.on_end = self._drained_at_end
        self._greeting.want = self._want_greeting
        self._greeting.tell = lambda words: self._append("instructions", words)
        self._functions.go_to(session)
        model = self._order.bot.model or MODEL
        if self._surroundings.prices.minute(model) is None:
            self._log.happened("price.unknown", model=model)
        self._listener.opened()

    def interrupted(self) -> bool:
        """A call that is not answered yet is better taken by somebody else."""
        return self._phase is _Phase.TALKING

    def left(self) -> None:
        """What the session was saying is over."""
        self._speech.end()
        self._functions.pause()

    def moved(self, session: LiveSession, told: tuple[Line, ...], *, mending: bool) -> None:
        """The audio goes to this session now, which may have been begun some time ago."""
        self._hearing.sent = 0
        self._speech.begin_anew()
        new = [f"{line.speaker}: {line.text}" for line in self.said() if line not in told]
        if new:
            self._append("thinking", "\n".join((_MEANWHILE, *new)))
        self._functions.go_to(session)
        if mending:
            self._say(_RESUMED)
        elif self._due:
            self._say(self._due)
        owed, self._owed = self._owed, []
        for kind, words in owed:
            self._append(kind, words)

    def lost(self, why: BackendLost) -> None:
        """There is no voice any more. What waits to be played is left to the call."""
        if self._phase in (_Phase.FINISHING, _Phase.CLOSED):
            return
        self._phase = _Phase.CLOSED
        self._stop()
        self._sessions.stop()
        self._log.happened("session.lost", cause=why.cause, words=str(why))
        self._listener.lost(why)

    def closed(self) -> None:
        """All is said."""
        self._phase = _Phase.CLOSED
        malformed = sum(session.unread for session in self._sessions.all)
        dropped = self._hearing.dropped // g711.PER_MS
        count = len(self._sessions.all)
        self._log.happened("session.finished", sessions=count, malformed=malformed, dropped_ms=dropped)
        self._listener.finished()

    def _stop(self) -> None:
        self._timers.clear_all()
        self._functions.stop()
        self._speech.on_end = self._nothing
        self._speech.end()
        self._speech.stop()
        self._utterances.end()

    def _nothing(self) -> None:
        """Nobody waits for the end of an utterance any more."""

    # -- What the service says

    def happened(self, session: LiveSession, event: Json) -> None:
        """One event of a session that is open, or closes."""
        readers = self._LAST if self._phase is _Phase.FINISHING else self._READERS
        read = readers.get(event["type"])
        if read is not None and session is self._sessions.current:
            read(self, event)
        elif event["type"] == "session.input_transcript.delta":  # the last words to the session before
            start, end = number(event, "start_ms"), number(event, "end_ms")
            self._caller.more(session, events.text(event, "delta"), start, end, end)

    def _audio(self, event: Json) -> None:
        if not self._speech.audio(events.audio(event), number(event, "end_ms")):
            return
        self._moved_at = self._now()
        self._spoke()
        if self._wait is not None and not self._first_audio:
            self._first_audio = max(round((self._now() - self._wait) * 1000), 1)
        self._greeting.made()

    def _began(self, _utterance: Utterance) -> None:
        """The first frame of an utterance is on the wire."""
        wait, self._wait = self._wait, None
        if not self._greeting.began() and wait is not None and self._first_audio:
            wire = round((self._now() - wait) * 1000)
            self._log.happened("turn", after="speech", first_audio=self._first_audio, wire=wire)
        self._first_audio = 0

    def _drained(self) -> None:
        """All that there was has left."""
        self._last = self._now()
        if self._speech.going_on:
            self._speech.drained()
        else:
            self._greeting.end()

    def _drained_at_end(self) -> None:
        """An utterance is over, and perhaps has been heard already."""
        if self._utterances.empty:
            self._greeting.end()

    def _bot_words(self, event: Json) -> None:
        self._speech.words(events.text(event, "delta"), number(event, "start_ms"))

    def _caller_words(self, event: Json) -> None:
        start, end = number(event, "start_ms"), number(event, "end_ms")
        sent = self._hearing.sent // g711.PER_MS
        self._caller.more(self._sessions.current, events.text(event, "delta"), start, end, sent)
        self._last = self._now()
        ago = sent - end
        self._wait = self._last - (ago / 1000 if 0 <= ago < 5000 else 0.0)
        self._first_audio = 0
        if self._phase is _Phase.TALKING and self._speech.spoke_at < self._wait:
            self._timers.set("unanswered", self._order.bot.manner.response_timeout, self._unanswered)

    # -- The backend

    def _delegated(self, event: Json) -> None:
        work = section(event, "delegation")
        self._moved_at = self._now()
        self._log.happened("delegated", target=word(work, "target"))
        if word(work, "target") == "client":
            self._append("thinking", _ALONE, events.text(work, "id"))

    def _responded(self, event: Json) -> None:
        self._moved_at = self._now()
        self._functions.responded(event)

    def _responded_last(self, event: Json) -> None:
        self._functions.responded_last(event)

    def _went_on(self) -> None:
        self._expect(_GO_ON)

    _READERS: ClassVar[Mapping[str, Callable[[LiveConversation, Json], None]]] = {
        "response.event": _responded,
        "session.delegation.created": _delegated,
        "session.input_transcript.delta": _caller_words,
        "session.output_audio.delta": _audio,
        "session.output_transcript.delta": _bot_words,
    }
    _LAST: ClassVar[Mapping[str, Callable[[LiveConversation, Json], None]]] = {
        "response.event": _responded_last,
        "session.input_transcript.delta": _caller_words,
        "session.output_transcript.delta": _bot_words,
    }
