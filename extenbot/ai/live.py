"""A conversation with GPT-Live: audio runs both ways all the time, and the model itself decides when to speak.

So there is no turn detection here, no gate, no truncation. What is left: caller audio goes out at the pace at which it
comes, silence included, for the model's clock only runs on what it hears. Its audio comes at the pace of speech and is
cushioned by `CUSHION` against the network's jitter. Words come beside the audio in pieces without an end; what is said
within one stretch of sound is one line of the transcript.

Functions are called by a second model behind the first (`delegation`), which gets our functions and is given their
results. It is told by `session.commentary.append` what to say, and by `instructions` and `thinking` what to know.

Sessions last two hours at most: before the end, and after a loss that may pass, another one is begun with what has
been said so far, and the audio goes there when nobody speaks. Results of functions that the old one asked for are told
to the new one in words.

That the caller has become loud (`loud`) stops nothing here: the model hears it too, at the same time, and falls silent
by itself. It only counts as somebody speaking. A bot that must not be interrupted hears silence while it speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import ClassVar

from extenbot.ai import events, extra
from extenbot.ai.codec import LAWS
from extenbot.ai.events import number, section, word
from extenbot.ai.livelink import LiveSession, Stage
from extenbot.ai.livestart import BACKEND, MODEL, address, headers, settings
from extenbot.ai.timers import Timers
from extenbot.ai.transcript import Transcript
from extenbot.errors import BackendLost, Invalid, Malformed
from extenbot.interfaces import Json, Line, Played, ToolCall, VoiceOrder, VoiceSurroundings
from extenbot.media import g711

FRAME = 320
"""Bytes of caller audio in one message: 40 ms, for the websocket costs by the message."""

CONGESTED = 200_000
"""Bytes that the network has not taken; caller audio is thrown away above that, it would come seconds late."""

CUSHION = 640
"""Bytes (80 ms) of an utterance that are gathered before it begins to play."""

AHEAD = 3200
"""Bytes (400 ms) of the greeting that are gathered while the phone still rings."""

PAUSE = 0.6
"""Seconds of silence that end an utterance."""

LAST_WORDS = 1.0
"""Seconds of silence after which a terminal function no longer waits for more of a goodbye."""

GAP = 1000
"""Milliseconds between two pieces of the caller's words that make them two lines."""

EARLY = 300.0
"""Seconds before its end that a session is followed by another."""

STILL = 5.0
"""Seconds without any progress after which a terminal function no longer waits for the goodbye."""

SWAP_BY = 15.0
"""Seconds before its end that the audio moves over, whoever speaks."""

TRIES = (0.0, 0.5, 2.0)
"""Seconds before each try for another session after a loss."""

LONGEST = 1500
"""Characters of one message to the model (the service takes 500 tokens)."""

_RESUMED = "The line was interrupted for a moment. Say so, and ask the caller to repeat what they said last."
_ALONE = "There is nothing to do that with. Answer from what you know, or say that you cannot."


class _Phase(Enum):
    OPENING = auto()
    READY = auto()  # the greeting is owed
    TALKING = auto()
    FINISHING = auto()
    CLOSED = auto()


class _Work:
    """One response of the backend, while its functions run."""

    __slots__ = ("calls", "done")

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.done = False


class _Call:
    """One function call."""

    __slots__ = ("answered", "name", "session", "speak", "terminal", "work")

    def __init__(self, session: LiveSession, work: _Work, name: str, terminal: bool) -> None:
        self.session = session
        self.work = work
        self.name = name
        self.terminal = terminal
        self.answered = False
        self.speak = True


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
        self._order = order
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._playout = surroundings.playout
        self._listener = surroundings.listener
        self._log = surroundings.log
        self._timers = Timers(surroundings.clock)
        self._phase = _Phase.OPENING
        self._url = ""
        self._session: LiveSession | None = None  # where the audio goes
        self._next: LiveSession | None = None  # its follower, as long as there are two
        self._sessions: list[LiveSession] = []
        self._tries = 0
        self._mending = False
        self._owed: list[tuple[str, str]] = []  # what the next session is to be told
        self._began = self._clock.seconds()
        # Audio
        law = LAWS[order.format]
        self._quiet = g711.quiet(law)
        self._silence = g711.SILENCE[law]
        self._half = b""
        self._dropped = 0
        self._item = ""  # the utterance that is going on
        self._cushion: list[bytes] | None = None  # its first audio, which does not play yet
        self._last = ""
        self._items = 0
        self._received = 0
        self._spoke_at = 0.0
        self._greeted = False  # the greeting has been heard to its end
        self._asked_greeting = False
        self._prepared = False
        # Words
        self._words = Transcript()
        self._caller = ""
        self._caller_end = 0
        self._heard_at = 0.0
        self._loud = False
        self._turns = 0  # of the caller
        # Functions
        self._works: dict[str, _Work] = {}
        self._calls: dict[str, _Call] = {}
        self._leaving: tuple[ToolCall, float] | None = None
        self._moved: tuple[object, float] = (None, 0.0)
        self._backend: dict[str, int] = {"input_tokens": 0, "output_tokens": 0}
        self._backend_cost = 0.0
        self._ended = False

    def open(self, url: str) -> None:
        """Dial the first session."""
        self._url = url
        self._session = self._dial(())

    def refuse(self, why: BackendLost) -> None:
        """There is nothing to dial; the listener hears so in a moment."""
        self._timers.set("refuse", 0, self._lose, why)

    def _dial(self, history: tuple[Line, ...]) -> LiveSession:
        around, token = self._surroundings, self._order.bot.token
        wanted = settings(self._order, history)
        session = LiveSession(self, self._clock, self._log, wanted, token, around.open_timeout)
        self._sessions.append(session)
        session.open(around.connect, self._url, headers(self._order, self._url))
        return session

    # -- Voice: the greeting

    def prepare(self) -> None:
        """Have the greeting made while the phone still rings; the model's clock is fed with silence until then."""
        if self._phase is not _Phase.READY or self._asked_greeting:
            return
        self._playout.held = True
        self._ask_greeting()
        if self._order.greeting:
            self._timers.set("prepared", 0, self._listener.prepared)
        else:
            self._feed()

    def _feed(self) -> None:
        if self._session is not None and self._received < AHEAD:
            self._session.append(self._silence * FRAME, CONGESTED)
            self._timers.set("feed", FRAME / g711.RATE, self._feed)

    def greet(self) -> None:
        """The caller hears us."""
        if self._phase is not _Phase.READY:
            return
        self._phase = _Phase.TALKING
        self._timers.clear("feed")
        self._spoke_at = self._heard_at = self._clock.seconds()
        if not self._asked_greeting:
            self._ask_greeting()
        self._playout.held = False
        self._timers.set("greeting", self._order.bot.manner.response_timeout, self._greet_again)

    def _ask_greeting(self) -> None:
        self._asked_greeting = True
        order = self._order
        if not order.greeting:
            self._commentary(f'Say exactly: "{order.welcome}"' if order.welcome else "Greet the caller briefly.")
            return
        self._prepared = True
        self._words.all(self._begin(), 0, order.welcome)
        self._let_out()
        self._play(order.greeting)
        self._end_utterance()
        self._instruct(f'The caller has been greeted with these words already: "{order.welcome}" Do not greet again.')

    def _greet_again(self) -> None:
        """Nothing has been heard of the model: ask once more, and let the caller be heard in any case."""
        if not self._received and not self._order.greeting:
            self._greeted = True
            self._log.happened("greeting.repeated")
            self._commentary(f'Say exactly: "{self._order.welcome}"' if self._order.welcome else "Greet the caller.")

    # -- Voice: audio in

    def heard(self, audio: bytes) -> None:
        """20 ms of the caller."""
        if self._phase is not _Phase.TALKING:
            return
        audio = self._half + audio
        if len(audio) < FRAME:
            self._half = audio
            return
        self._half = b""
        session = self._session
        if session is None:
            return
        if self._deaf():
            audio = self._silence * len(audio)
        if not session.append(audio, CONGESTED):
            self._dropped += len(audio)

    def _deaf(self) -> bool:
        """Whether the model must not hear the caller, because it would fall silent."""
        manner = self._order.bot.manner
        if not self._greeted and not manner.greeting_interruptible:
            return True
        return manner.barge_in == "off" and (bool(self._item) or not self._playout.empty)

    def loud(self, on: bool) -> None:
        """Somebody speaks, so nobody is asked whether they are still there."""
        self._loud = on
        self._heard_at = self._clock.seconds()

    # -- Voice: words to the model

    def told(self, text: str, *, by_caller: bool = False, speak: bool = True) -> None:
        """What the caller did is an instruction to react to, what we want said a commentary, the rest a thought."""
        if self._phase not in (_Phase.READY, _Phase.TALKING):
            return
        if by_caller:
            self._turns += 1
            self._words.noted(f"told {self._turns}", "caller", text, self._log.elapsed())
            self._instruct(f"{text} Respond to it now." if speak else text)
        elif speak:
            self._commentary(text)
        else:
            self._append("thinking", text)

    def _commentary(self, words: str) -> None:
        self._append("commentary", words)

    def _instruct(self, words: str) -> None:
        self._append("instructions", words)

    def _append(self, kind: str, words: str, delegation: str | None = None) -> None:
        if self._session is None:
            self._owed.append((kind, words))
        else:
            fields = {"content": words[:LONGEST], "delegation_id": delegation}
            self._session.send(f"session.{kind}.append", fields)

    # -- Voice: the rest

    def answered(self, call_id: str, output: str, *, speak: bool = True) -> None:
        """The result of a function; in words if the session that asked for it is gone."""
        call = self._calls.get(call_id)
        if call is None or call.answered or self._phase not in (_Phase.READY, _Phase.TALKING):
            return
        call.answered, call.speak = True, speak
        if self._leaving is not None and self._leaving[0].call_id == call_id:
            self._leaving = None
            self._timers.clear("leave")
        self._log.happened("tool.answered", name=call.name, call=call_id, output=output[:2000])
        if call.session is not self._session:
            self.told(f"The result of {call.name}: {output}", speak=speak)
            return
        item = {"type": "function_call_output", "call_id": call_id, "output": output}
        call.session.send("response.item.create", {"item": item})
        self._complete(call.work)

    def finish(self) -> None:
        """The call is over: close, and take what the service still says of it."""
        match self._phase:
            case _Phase.READY | _Phase.TALKING if self._session is not None:
                self._phase = _Phase.FINISHING
                self._stop()
                self._playout.cut()
                if self._next is not None:
                    self._next.close()
                self._session.close()
            case _Phase.OPENING | _Phase.READY | _Phase.TALKING:
                self._phase = _Phase.FINISHING
                self._stop()
                for session in (self._next, self._session):
                    if session is not None:
                        session.close()
                self._finished()

    @property
    def transcript(self) -> tuple[Line, ...]:
        """Both sides in the order in which they were heard."""
        return tuple(sorted(self._words.lines(self._heard_of), key=lambda line: line.at))

    def _heard_of(self, item: str) -> tuple[Played, bool]:
        played = self._playout.played(item)
        if not played.received:  # words without audio of their own
            return Played(item, 1, 1), False
        return played, self._ended and played.sent < played.received

    @property
    def usage(self) -> Json:
        """Seconds of the sessions, and the tokens of the model behind them."""
        return {"seconds": round(sum(session.seconds for session in self._sessions), 1), **self._backend}

    @property
    def cost(self) -> float:
        """By the minute, and by the token for the model behind."""
        minute = self._surroundings.prices.minute(self._order.bot.model or MODEL) or 0.0
        return minute * sum(session.seconds for session in self._sessions) / 60 + self._backend_cost

    @property
    def turns(self) -> int:
        """How often the caller has spoken or pressed keys."""
        return self._turns

    @property
    def idle_since(self) -> float | None:
        """Since when nobody speaks and nothing is due."""
        if self._phase is not _Phase.TALKING or self._loud or self._item or self._leaving or not self._playout.empty:
            return None
        if any(not call.answered for call in self._calls.values()):
            return None
        return max(self._spoke_at, self._heard_at)

    # -- Owner: sessions come and go

    def started(self, session: LiveSession) -> None:
        """A session is open: the first one, or one that follows."""
        ms = round((self._clock.seconds() - self._began) * 1000)
        self._log.happened("session.opened", ms=ms, sessions=len(self._sessions))
        if session.expires_at:
            left = session.expires_at - self._surroundings.now()
            self._timers.set("renew", max(left - EARLY, 1.0), self._renew)
            self._timers.set("swap", max(left - SWAP_BY, 2.0), self._swap)
        if self._phase is _Phase.OPENING:
            self._phase = _Phase.READY
            self._playout.on_drained = self._drained
            self._listener.opened()
        elif self._session is None:
            self._swap()
        else:
            self._swap_if_quiet()

    def _renew(self) -> None:
        """The session will end: have another one ready."""
        if self._next is None and self._session is not None:
            self._next = self._dial(self.transcript)

    def _swap_if_quiet(self) -> None:
        if self._next is None or self._next.stage is not Stage.OPEN:
            return
        if self.idle_since is None:
            self._timers.set("quiet", 0.5, self._swap_if_quiet)
        else:
            self._swap()

    def _swap(self) -> None:
        """The audio goes to the next session, if there is one."""
        follower = self._next
        if follower is None or follower.stage is not Stage.OPEN:
            return
        old, self._session, self._next = self._session, follower, None
        self._works.clear()
        self._caller = ""
        self._log.happened("session.moved", sessions=len(self._sessions))
        if old is not None:
            old.close()
        if self._mending:
            self._mending = False
            self._commentary(_RESUMED)
        owed, self._owed = self._owed, []
        for kind, words in owed:
            self._append(kind, words)

    def ended(self, session: LiveSession, why: BackendLost | None, again: bool) -> None:
        """A session is over."""
        if self._phase is _Phase.CLOSED:
            return
        if self._phase is _Phase.FINISHING:
            if session is self._session:
                self._finished()
        elif session is self._next:
            self._next = None
            if self._session is None and why is not None:
                self._mend(why, again)
            elif why is not None:  # the one that runs is still good for a while
                self._timers.set("renew", 30.0, self._renew)
        elif session is self._session and why is not None:
            self._end_utterance()
            if self._phase is not _Phase.TALKING:
                self._lose(why)
                return
            self._session = None
            self._log.happened("session.interrupted", cause=why.cause, words=str(why))
            self._mending = why.cause != "expired"
            if self._next is not None:
                self._swap()
            else:
                self._mend(why, again)

    def _mend(self, why: BackendLost, again: bool) -> None:
        """Try for another session, a few times until one has spoken."""
        if not again or self._tries >= len(TRIES):
            self._lose(why)
            return
        pause = TRIES[self._tries]
        self._tries += 1
        self._timers.set("mend", pause, self._redial)

    def _redial(self) -> None:
        self._next = self._dial(self.transcript)

    def _lose(self, why: BackendLost) -> None:
        if self._phase is _Phase.CLOSED:
            return
        self._phase = _Phase.CLOSED
        self._stop()
        if self._next is not None:
            self._next.close()
        self._log.happened("session.lost", cause=why.cause, words=str(why))
        self._listener.lost(why)

    def _finished(self) -> None:
        if self._phase is _Phase.CLOSED:
            return
        self._phase = _Phase.CLOSED
        self._log.happened("session.finished", dropped_ms=self._dropped // 8, sessions=len(self._sessions))
        self._listener.finished()

    def _stop(self) -> None:
        self._timers.clear_all()
        self._ended = True
        self._playout.on_drained = None

    # -- Owner: what the service says

    def happened(self, session: LiveSession, event: Json) -> None:
        """One event of a session that is open."""
        read = self._READERS.get(event["type"])
        if read is not None and (session is self._session or self._phase is _Phase.FINISHING):
            read(self, event)

    def _audio(self, event: Json) -> None:
        if self._phase is _Phase.FINISHING:
            return
        audio = events.audio(event)
        spoken = bool(audio.translate(None, self._quiet))
        if not self._item:
            if not spoken:
                return  # silence between two utterances: the line makes its own
            self._begin()
        if spoken:
            self._spoke_at = self._clock.seconds()
        self._tries = 0
        self._received += len(audio)
        if not self._prepared:
            self._prepared = True
            if self._phase is _Phase.READY:
                self._timers.set("prepared", 0, self._listener.prepared)
        if self._cushion is None:
            self._play(audio)
            return
        self._cushion.append(audio)
        if sum(map(len, self._cushion)) >= CUSHION:
            self._let_out()

    def _play(self, audio: bytes) -> None:
        self._playout.add(self._item, audio)

    def _begin(self) -> str:
        """An utterance begins; its name."""
        self._items += 1
        self._item = self._last = f"live{self._items}"
        self._words.began(self._item, "bot", self._log.elapsed())
        self._soften()
        self._spoke_at = self._clock.seconds()
        self._timers.set("pause", PAUSE, self._pause)
        return self._item

    def _soften(self) -> None:
        """What comes next waits a moment, so that a late packet is not heard."""
        self._cushion = []
        self._timers.set("cushion", CUSHION / g711.RATE, self._let_out)

    def _let_out(self) -> None:
        gathered, self._cushion = self._cushion, None
        self._timers.clear("cushion")
        if gathered:
            self._play(b"".join(gathered))

    def _pause(self) -> None:
        still = self._spoke_at + PAUSE - self._clock.seconds()
        if still > 0.001:
            self._timers.set("pause", still, self._pause)
        else:
            self._end_utterance()

    def _end_utterance(self) -> None:
        if self._item:
            self._let_out()
            item, self._item = self._item, ""
            self._timers.clear("pause")
            self._playout.finish(item)
            if self._playout.empty:
                self._drained()

    def _drained(self) -> None:
        """All of the bot's audio has been sent."""
        if self._item:
            if self._cushion is None:
                self._soften()  # in the middle of an utterance: gather a little again
            return
        self._spoke_at = self._clock.seconds()
        self._greeted = self._greeted or self._phase is _Phase.TALKING
        self._leave_if_quiet()

    def _bot_words(self, event: Json) -> None:
        words = events.text(event, "delta")
        item = self._item
        if not item:
            recent = self._last and self._clock.seconds() - self._spoke_at < LAST_WORDS
            item = self._last if recent else self._begin()
        self._words.more(item, 0, words)

    def _caller_words(self, event: Json) -> None:
        words, start = events.text(event, "delta"), number(event, "start_ms")
        self._heard_at = self._clock.seconds()
        if not self._caller or start - self._caller_end > GAP:
            self._items += 1
            self._caller = f"caller{self._items}"
            # Words come when the bot answers already; where they belong is said in ms of the audio that was sent.
            late = max(self._session.sent // 8 - start, 0) / 1000 if self._session is not None else 0.0
            self._words.began(self._caller, "caller", max(self._log.elapsed() - late, 0.0))
            self._turns += 1
            self._log.happened("speech.started")
        self._caller_end = number(event, "end_ms")
        self._words.more(self._caller, 0, words)

    # -- Functions

    def _delegated(self, event: Json) -> None:
        work = section(event, "delegation")
        self._log.happened("delegated", target=word(work, "target"))
        if word(work, "target") == "client":
            self._append("thinking", _ALONE, events.text(work, "id"))

    def _responded(self, event: Json) -> None:
        inner, name = section(event, "event"), word(event, "delegation_id")
        match word(inner, "type"):
            case "response.output_item.done":
                self._item_done(section(inner, "item"), self._works.setdefault(name, _Work()))
            case "response.completed" | "response.incomplete" | "response.failed":
                response = section(inner, "response")
                self._count(response)
                error = section(response, "error")
                if error:
                    self._log.happened("error", code=word(error, "code"), message=word(error, "message")[:300])
                work = self._works.pop(name, None)
                if work is not None:
                    work.done = True
                    self._complete(work)

    def _item_done(self, item: Json, work: _Work) -> None:
        if word(item, "type") != "function_call" or word(item, "status") not in ("completed", ""):
            return
        call_id, name = events.text(item, "call_id"), events.text(item, "name")
        if call_id in self._calls or self._session is None or self._phase not in (_Phase.READY, _Phase.TALKING):
            return
        call = _Call(self._session, work, name, name in self._order.terminal)
        self._calls[call_id] = call
        work.calls.append(call)
        try:
            tool = ToolCall(call_id, name, events.read_object(word(item, "arguments") or "{}"))
        except Malformed:
            self.answered(call_id, "The arguments were not a JSON object. Call the function again with correct ones.")
            return
        self._log.happened("tool.asked", name=name, call=call_id, arguments=tool.arguments)
        if not call.terminal:
            self._listener.asked(tool)
        elif self._leaving is not None:
            self.answered(call_id, f"Not done: {self._leaving[0].name} is under way already.", speak=False)
        else:
            self._leaving = (tool, self._clock.seconds())
            self._moved = (None, self._clock.seconds())
            self._watch()

    def _complete(self, work: _Work) -> None:
        """All results are in: the backend goes on."""
        calls = work.calls
        ready = work.done and calls and all(call.answered for call in calls) and any(call.speak for call in calls)
        if ready and self._session is not None:
            self._session.send("response.create", {})

    def _count(self, response: Json) -> None:
        used = section(response, "usage")
        into, out = number(used, "input_tokens"), number(used, "output_tokens")
        self._backend["input_tokens"] += into
        self._backend["output_tokens"] += out
        cached = number(section(used, "input_tokens_details"), "cached_tokens")
        counts = {"input_text": into, "output_text": out, "cached_text": cached}
        self._backend_cost += self._surroundings.prices.response(word(response, "model") or BACKEND, counts) or 0.0
        self._log.happened("response.done", response=word(response, "id"), usage=dict(self._backend))

    # -- Leaving

    def _watch(self) -> None:
        """The model speaks when it likes: look every quarter of a second whether the goodbye is over."""
        self._timers.set("leave", 0.25, self._leave_if_quiet)

    def _leave_if_quiet(self) -> None:
        if self._leaving is None:
            return
        if self._phase is _Phase.READY:  # nobody hears it yet
            self._watch()
            return
        now = self._clock.seconds()
        sent = self._playout.played(self._last).sent
        if self._moved[0] != (self._received, sent):
            self._moved = ((self._received, sent), now)
        quiet_since = max(self._spoke_at, self._leaving[1])
        over = not self._item and self._playout.empty and now - quiet_since >= LAST_WORDS
        if over or now - self._moved[1] >= STILL:
            tool, self._leaving = self._leaving[0], None
            self._timers.clear("leave")
            self._log.happened("tool.leaving", name=tool.name, call=tool.call_id)
            self._listener.leaving(tool)
        else:
            self._watch()

    _READERS: ClassVar[Mapping[str, Callable[[LiveConversation, Json], None]]] = {
        "response.event": _responded,
        "session.delegation.created": _delegated,
        "session.input_transcript.delta": _caller_words,
        "session.output_audio.delta": _audio,
        "session.output_transcript.delta": _bot_words,
    }
