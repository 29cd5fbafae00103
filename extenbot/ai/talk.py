"""The turn taking in one open session: who speaks, who interrupts, which response may be asked for, and when.

What outlives a session (what was said, the functions, the audio both ways) is `Shared`. Responses that were interrupted
are *dead*: whatever still comes of them is dropped. How a caller interrupts is a setting of the bot:

    immediate   by any sound: when it is loud at the line the bot pauses, when the server says so it stops
    confirmed   by 300 ms of speech, or by a word; a cough gets no answer, unless nobody was speaking
    off         not at all: the bot speaks on, and answers then

Where something is due of the model and nothing comes of it for the bot's `response_timeout`, it is asked for once more,
then the voice is given up: a caller must not hear silence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from extenbot.ai import events, refusals
from extenbot.ai.codec import Codec
from extenbot.ai.dialects import Dialect
from extenbot.ai.events import number, section, text, word
from extenbot.ai.functions import Functions, Turn
from extenbot.ai.gate import GO_ON, OVERTAKEN, TAG, Gate
from extenbot.ai.greeting import Greeting
from extenbot.ai.hearing import Hearing
from extenbot.ai.provided import Provided
from extenbot.ai.session import Session
from extenbot.ai.timers import Timers
from extenbot.ai.transcript import SHORTEST, Transcript
from extenbot.ai.usage import Usage, of_response
from extenbot.ai.utterances import Utterance, Utterances, name_of
from extenbot.errors import BackendLost, Malformed
from extenbot.interfaces import CallLog, Json, Played, VoiceListener, VoiceOrder

TURN_END = 0.5
"""Seconds after the caller's last word in which the server is expected to begin its answer."""

LONGEST_TURN = 5.0
"""Seconds that an answer of ours waits for a caller who goes on speaking."""

PAUSE = 0.6
"""Seconds that the bot is still because the line is loud; servers need less to tell whether that is speech."""

CONFIRMED = 0.3
"""Seconds of speech that interrupt the bot where interruptions are to be confirmed."""

IMMEDIATE, CONFIRM, OFF = "immediate", "confirmed", "off"

SLOW_DOWN = frozenset({"rate_limit_exceeded", "inference_rate_limit_exceeded"})
_AGAIN_IN = re.compile(r"again in (\d{1,6}(?:\.\d{1,6})?)(ms|s)")
REFUSED = 1.0
"""Seconds until a request for a response that was refused is sent again."""

MEANWHILE: Json = {"purpose": "meanwhile"}
PROVIDED = 0.3
"""Seconds after a tool of the service's own in which it is expected to speak of the result by itself."""

_MOMENT = (
    "What you asked for takes a while. Tell the caller so in a few words, in the language of the conversation, and"
    " nothing about the result, which you do not know yet."
)
_CUT_OFF = "[The line was interrupted and your last sentence was cut off. Finish it, without a greeting.]"

_AGREED = "[The caller agrees, but the tool has not been used: ask for it again.]"
_NOT_AGREED = "[The caller does not agree, so the tool is not used.]"

_Reader = Callable[["Talk", Json], None]

#: events that the protocol has and a phone bot has no use for
_UNUSED = (
    "conversation.item.deleted",
    "conversation.item.retrieved",
    "conversation.item.truncated",
    "input_audio_buffer.cleared",
    "input_audio_buffer.timeout_triggered",
    "mcp_list_tools.completed",
    "mcp_list_tools.in_progress",
    "rate_limits.updated",
    "response.content_part.added",
    "response.content_part.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.mcp_call.completed",
    "response.mcp_call.failed",
    "response.mcp_call.in_progress",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
    "response.output_item.added",
    "response.output_text.delta",
    "response.output_text.done",
)


@dataclass(eq=False, slots=True)
class Shared:
    """What all sessions of one conversation have in common."""

    order: VoiceOrder
    dialect: Dialect
    now: Callable[[], float]  # the clock's seconds
    log: CallLog
    words: Transcript
    usage: Usage
    hearing: Hearing
    utterances: Utterances
    functions: Functions
    greeting: Greeting
    listener: VoiceListener
    failed: Callable[[BackendLost], None]  # this cannot go on
    completed: Callable[[], None]  # a response came to its end: the service works
    turns: int = 0  # of the caller
    told: int = 0  # messages of ours
    approvals: set[str] = field(default_factory=set)  # tools of the service's own that wait for the caller's yes
    counts: Counter[str] = field(default_factory=Counter)  # what was thrown away


class _Wait:
    """From the end of what the caller said, or our request, to the first sound of the answer."""

    __slots__ = ("after", "first_audio", "since")

    def __init__(self, since: float, after: str) -> None:
        self.since = since
        self.after = after
        self.first_audio = 0


class Talk:
    """One session. Between `begin` and `end` it may do anything; after that it only notes what was said."""

    def __init__(self, session: Session, shared: Shared, codec: Codec, timers: Timers) -> None:
        self.session = session
        self.awaiting: set[str] = set()
        """Items of the caller whose words are still to come."""
        self._unpaid: set[str] = set()  # responses that have begun and not said what they cost
        self._shared = shared
        self._order = shared.order
        self._log = shared.log
        self._words = shared.words
        self._utterances = shared.utterances
        self._functions = shared.functions
        self._codec = codec
        self._timers = timers
        self._gate = Gate(self._create)
        self._provided = Provided(shared.listener, shared.log, self._item, shared.approvals)
        self._turns: dict[str, Turn] = {}
        self._dead: set[str] = set()
        mode = self._order.bot.manner.barge_in
        self._barge_in = mode if shared.dialect.obeys or mode == OFF else IMMEDIATE
        self._half_duplex = mode == OFF and not shared.dialect.obeys
        self._speaking = False  # the caller
        self._spoke_from: dict[str, int] = {}  # ms of the session's audio, by item
        self._confirmed = True  # what the caller says now is meant for the bot
        self._doubtful: set[str] = set()  # items of the caller that were too short to tell
        self._expected = False  # the server is to answer by itself
        self._owed = False  # the caller has said something that has not been answered
        self._ended = False
        self._only_heard = False  # and at the end it was nowhere but in the audio
        self._retried = False
        self._empty = 0  # answers in a row that were none
        self._late = False  # something due has been asked for again
        self._moved_at = self._last = shared.now()  # when something came of what is due; when anybody did anything
        self._wait: _Wait | None = None
        self._waits: dict[str, _Wait] = {}  # by utterance that has not been heard yet

    # -- The stages

    def begin(self) -> None:
        """The session is open: audio may flow."""
        shared = self._shared
        shared.utterances.on_began, shared.utterances.on_drained = self._began, self._drained
        shared.functions.tell, shared.functions.go_on = self._item, self._go_on
        shared.greeting.tell, shared.greeting.want = self._note, self._gate.want
        shared.functions.resume()
        shared.hearing.go_to(self.session.link, self._codec)

    def end(self) -> None:
        """Nothing more is asked for. Only the first time counts."""
        if self._ended:
            return
        self._ended = True
        if "pause" in self._timers:
            self._resume()  # this session will not tell whether somebody speaks
        self._timers.clear_all()
        self._only_heard = self._shared.hearing.marked
        self._utterances.on_began = self._utterances.on_drained = None

    def hush(self) -> None:
        """Nobody will hear what is being made: it shall cost no more."""
        active = self._gate.active
        if active and active not in self._dead and self._shared.dialect.cancels:
            self._dead.add(active)
            self._send("response.cancel", {"response_id": active})

    @property
    def outstanding(self) -> bool:
        """Whether words of the caller are still to come, or what a response costs."""
        return bool(self.awaiting or self._unpaid)

    def take_over(self, before: Talk, history: str) -> None:
        """Go on where another session has ended: tell this one of it, and see to what was under way."""
        if history:
            self._note(history)
        self.begin()
        self._last = before._last
        if before._turns_under_way():
            self._note(_CUT_OFF)
            self._gate.want()
        elif before._only_heard and before._owed:
            self._expect()  # the server hears the caller once more, and answers by itself
        elif before._gate.wish is not None:
            self._gate.want(before._gate.wish)
        elif before._owed or before._expected:
            self._gate.want()
        if self._utterances.empty:  # perhaps since there was no session
            self._heard_out()

    def _turns_under_way(self) -> bool:
        """Whether the bot was in the middle of a sentence."""
        return any(turn.items and name not in self._dead for name, turn in self._turns.items())

    # -- What the call does

    def prepare(self) -> None:
        """Ask for the greeting."""
        self._shared.greeting.prepare()

    def greet(self) -> None:
        """The caller hears us."""
        self._shared.greeting.greet()
        self._functions.leave_if_quiet()

    def told(self, words: str, *, by_caller: bool, speak: bool) -> None:
        """A message that is not speech."""
        shared = self._shared
        if by_caller:
            shared.turns += 1
            shared.told += 1
            self._words.noted(f"told {shared.told}", "caller", words, self._log.elapsed())
        self._item(_message(words, "user" if by_caller else "system"))
        self._last = shared.now()
        if not speak:
            return
        if by_caller and self._barge_in != OFF and not shared.hearing.deaf:
            self._interrupt(cancel=True)
        self._owed = self._owed or by_caller
        self._wait = _Wait(shared.now(), "message")
        self._gate.want()

    def say(self, words: str) -> None:
        """A sentence that is worth saying only now, as while a function runs."""
        turn = self._turns.get(self._gate.active)
        if self._speaking or self._expected or not self._utterances.empty or (turn is not None and turn.items):
            return
        say = f'Say exactly: "{words}" and nothing else.' if words else _MOMENT
        instructions = "\n\n".join(part for part in (self._order.bot.instruction, say) if part)
        self._gate.aside({"instructions": instructions, "tool_choice": "none", "metadata": MEANWHILE})

    def approved(self, call_id: str, *, yes: bool) -> None:
        """The caller has allowed a tool of the service's own, or has not."""
        if call_id not in self._shared.approvals:
            return
        self._shared.approvals.discard(call_id)
        if not self._provided.approved(call_id, yes):  # the session that has asked is gone
            self._note(_AGREED if yes else _NOT_AGREED)
        self._go_on()

    def loud(self, *, on: bool) -> None:
        """The line is loud: be still until the server has told whether somebody speaks."""
        if not on or self._barge_in != IMMEDIATE or self._speaking or self._shared.hearing.deaf:
            return
        if not self._utterances.empty:
            self._utterances.pause(on=True)
            self._timers.set("pause", PAUSE, self._resume)

    def _resume(self) -> None:
        self._utterances.pause(on=False)

    @property
    def quiet_since(self) -> float | None:
        """Since when nobody speaks and nothing is due; None while that is not so."""
        busy = self._speaking or self._expected or self._gate.busy or "again" in self._timers
        if busy or self._functions.running or not self._utterances.empty:
            return None
        return self._last

    # -- What the server says

    def happened(self, event: Json) -> None:
        """One event of the server."""
        self._read(self._READERS, event)

    def happened_last(self, event: Json) -> None:
        """One event while only outstanding words and counts matter."""
        if event["type"] in self._LAST:
            self._read(self._LAST, event)

    def erred(self, error: Json) -> None:
        """An error that does not end the session; it may have refused our request for a response.

        Nothing else comes of a request that was refused: the caller would hear silence.
        """
        options = self._gate.refused(error)
        if options is None:
            return
        if word(error, "code") == OVERTAKEN:
            # The response that overtook ours pushes when it is done; should there be none, the timer does.
            self._timers.set("again", REFUSED, self._gate.push)
        elif options.get("metadata") != MEANWHILE:  # which is worth having only now
            self._retry(Turn(options), _pause(error) or REFUSED, error)

    def _read(self, readers: Mapping[str, _Reader | None], event: Json) -> None:
        kind = event["type"]
        try:
            read = readers[kind]
        except KeyError:
            self._shared.counts["unknown"] += 1
            return
        if kind.startswith("response."):
            self._moved_at = self._shared.now()
        if read is not None:
            try:
                read(self, event)
            except Malformed:
                self._shared.counts["malformed"] += 1

    def _audio(self, event: Json) -> None:
        response, item = word(event, "response_id"), text(event, "item_id")
        utterance = self._utterances.of(self.session.number, item)
        if response in self._dead or (utterance is not None and utterance.cut is not None):
            self._shared.counts["late"] += 1
            if utterance is None:  # the caller was quicker than its first byte
                utterance = self._new(response, item, 0)
                utterance.cut = Played(utterance.name, 0, 0)
                self._delete(item)
            return
        audio = self._codec.decode(events.audio(event))
        if not audio:
            return
        if utterance is None:
            utterance = self._new(response, item, number(event, "content_index"))
            self._turn(response).items.append(item)
            self._first_audio(utterance)
        self._utterances.add(utterance, audio)

    def _new(self, response: str, item: str, content: int) -> Utterance:
        return self._utterances.new(self.session.number, response, item, content, self._log.elapsed())

    def _first_audio(self, utterance: Utterance) -> None:
        self._owed = self._speaking
        if not self._speaking:
            self._shared.hearing.forget()
        self._shared.greeting.made()
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.first_audio = self._ms(wait)
            self._waits[utterance.name] = wait

    def _audio_done(self, event: Json) -> None:
        self._finish(text(event, "item_id"))

    def _finish(self, item: str) -> None:
        utterance = self._utterances.of(self.session.number, item)
        if utterance is not None and not utterance.finished:
            rest = self._codec.finish()
            if rest and utterance.cut is None:
                self._utterances.add(utterance, rest)
            self._utterances.finish(utterance)

    def _began(self, utterance: Utterance) -> None:
        """The first frame of an utterance is on the wire."""
        if self._half_duplex:
            self._shared.hearing.deaf = True
        wait = self._waits.pop(utterance.name, None)
        if not self._shared.greeting.began() and wait is not None:
            self._log.happened("turn", after=wait.after, first_audio=wait.first_audio, wire=self._ms(wait))

    def _drained(self) -> None:
        """All that there was has been heard."""
        self._last = self._shared.now()
        self._heard_out()
        self._functions.leave_if_quiet()

    def _heard_out(self) -> None:
        """The bot is silent: from now on the caller is heard."""
        if self._half_duplex:
            self._shared.hearing.deaf = False
        self._greeting_over()

    def _greeting_over(self) -> None:
        if not self._gate.busy and "again" not in self._timers:
            self._shared.greeting.made()
            if self._utterances.empty:
                self._shared.greeting.end()

    def _ms(self, wait: _Wait) -> int:
        return round((self._shared.now() - wait.since) * 1000)

    # -- The caller speaks

    def _speech_started(self, event: Json) -> None:
        shared = self._shared
        self._log.happened("speech.started")
        item = word(event, "item_id")
        if item:
            self._spoke_from[item] = number(event, "audio_start_ms")
            self._words.began(self._name(item), "caller", self._log.elapsed())
        self._speaking, self._expected = True, False
        shared.hearing.mark()
        self._hold()
        if self._barge_in == IMMEDIATE:
            self._mean_it(cancel=False)
        elif self._barge_in == CONFIRM and (self._gate.active or not self._utterances.empty):
            self._confirmed = False
            self._timers.set("confirm", CONFIRMED, self._mean_it)
        else:
            self._mean_it(cancel=False, interrupt=False)

    def _mean_it(self, *, cancel: bool = True, interrupt: bool = True) -> None:
        """The caller speaks to the bot, and is no noise."""
        self._confirmed = self._owed = True
        self._shared.turns += 1
        if interrupt:
            self._interrupt(cancel=cancel)

    def _interrupt(self, *, cancel: bool) -> None:
        """Stop at once, and tell the model what was heard; `cancel` where the server has not stopped by itself."""
        self._timers.clear("pause")
        active = self._gate.active
        if active:
            if cancel and active not in self._dead and self._shared.dialect.cancels:
                self._send("response.cancel", {"response_id": active})
            self._dead.add(active)
        for utterance, played in self._utterances.cut():
            heard = min(played.sent, played.received) // 8
            self._waits.pop(utterance.name, None)
            self._log.happened("barge_in", item=utterance.item, ms=heard)
            if utterance.session == self.session.number:
                self._dead.add(utterance.response)
                self._shorten(utterance, heard, played.received // 8, active)
        self._functions.leave_if_quiet()

    def _shorten(self, utterance: Utterance, heard: int, received: int, active: str) -> None:
        if not heard:
            self._delete(utterance.item)
        elif (heard < received or utterance.response == active) and self._shared.dialect.truncates:
            where = {"item_id": utterance.item, "content_index": utterance.content, "audio_end_ms": heard}
            self._send("conversation.item.truncate", where)

    def _delete(self, item: str) -> None:
        if self._shared.dialect.deletes:
            self._send("conversation.item.delete", {"item_id": item})

    def _speech_stopped(self, event: Json) -> None:
        shared, item = self._shared, word(event, "item_id")
        self._log.happened("speech.stopped")
        self._speaking = False
        self._last = shared.now()
        self._timers.clear("confirm")
        self._wait = _Wait(shared.now() - self._heard_late(number(event, "audio_end_ms")), "speech")
        if self._confirmed:
            if self._barge_in == CONFIRM:
                self._gate.release()
                self._gate.want()
                return
            self._expect()
        elif item:
            self._doubtful.add(item)
        if self._barge_in == OFF and self._gate.active:
            self._gate.wait(GO_ON)  # servers do not answer a turn that ended in a response
        self._timers.set("hold", TURN_END, self._gate.release)

    def _heard_late(self, end_ms: int) -> float:
        """Seconds ago that the caller's last word was spoken, as far as we can tell.

        A turn is over when nothing was heard for a while; the server has taken `end_ms` of our audio by then.
        """
        manner = self._order.bot.manner
        ago = self._shared.hearing.sent // 8 - end_ms if end_ms else 0
        waited = manner.vad_silence if manner.turn_detection == "server_vad" else 0
        return (ago + waited) / 1000 if 0 <= ago < 5000 else waited / 1000

    def _committed(self, event: Json) -> None:
        item = text(event, "item_id")
        name = self._name(item)
        self._words.began(name, "caller", self._log.elapsed())
        self._words.placed(name, self._previous(event))
        if not self._words.is_final(name):
            self.awaiting.add(item)

    def _confirm_by_words(self, item: str, words: str) -> None:
        """Something too short to tell has become words, or has not."""
        if item in self._doubtful and len(words.strip()) >= SHORTEST:
            self._doubtful.discard(item)
            self._mean_it()
            self._gate.release()
            self._gate.want()
        elif self._speaking and not self._confirmed and len(words.strip()) >= SHORTEST:
            self._timers.clear("confirm")
            self._mean_it()

    # -- Words

    def _name(self, item: str) -> str:
        return name_of(self.session.number, item)

    def _previous(self, event: Json) -> str:
        previous = word(event, "previous_item_id")
        return self._name(previous) if previous else ""

    def _item_placed(self, event: Json) -> None:
        self._words.placed(self._name(text(section(event, "item"), "id")), self._previous(event))
        self._provided.began(section(event, "item"))

    def _item_settled(self, event: Json) -> None:
        self._item_placed(event)
        self._service_did(section(event, "item"))

    def _caller_words(self, event: Json) -> None:
        item, words = text(event, "item_id"), word(event, "delta")
        name = self._name(item)
        self._words.began(name, "caller", self._log.elapsed())
        self._words.more(name, number(event, "content_index"), words)
        self._confirm_by_words(item, words)

    def _caller_said(self, event: Json) -> None:
        item, words = text(event, "item_id"), text(event, "transcript")
        name = self._name(item)
        self._words.began(name, "caller", self._log.elapsed())
        self._words.all(name, number(event, "content_index"), words)
        self._shared.usage.add_transcription(section(event, "usage"), self._lasted(item))
        self._confirm_by_words(item, words)
        self._transcribed(item)

    def _caller_unclear(self, event: Json) -> None:
        item = text(event, "item_id")
        self._words.failed(self._name(item))
        self._log.happened("transcript.failed", code=word(section(event, "error"), "code"))
        self._transcribed(item)

    def _transcribed(self, item: str) -> None:
        """All words of an item are there that will ever be."""
        self.awaiting.discard(item)
        if not self._speaking:
            self._shared.hearing.forget()
        if item in self._doubtful:  # a sound and no words: it shall not be answered later
            self._doubtful.discard(item)
            self._delete(item)

    def _lasted(self, item: str) -> float:
        """Seconds of an utterance of the caller, so far as we know when it began and ended."""
        started, ended = self._spoke_from.pop(item, 0), self._shared.hearing.sent // 8
        return max(0, min(ended - started, 600_000)) / 1000

    def _bot_words(self, event: Json) -> None:
        name, words = self._name(text(event, "item_id")), text(event, "delta")
        self._words.began(name, "bot", self._log.elapsed())
        self._words.more(name, number(event, "content_index"), words)

    def _bot_said(self, event: Json) -> None:
        name, words = self._name(text(event, "item_id")), text(event, "transcript")
        self._words.began(name, "bot", self._log.elapsed())
        self._words.all(name, number(event, "content_index"), words)

    # -- Responses

    def _turn(self, response: str) -> Turn:
        return self._turns.setdefault(response, Turn(GO_ON))

    def _go_on(self) -> None:
        self._wait = _Wait(self._shared.now(), "function")
        self._gate.want()

    def _create(self, options: Json) -> str:
        tag = self.session.next_id()
        metadata = {**section(options, "metadata"), TAG: tag}
        body = self._shared.dialect.response({**options, "metadata": metadata})
        self.session.link.send(events.write("response.create", tag, {"response": body}))
        self._watch()
        return tag

    def _created(self, event: Json) -> None:
        response = section(event, "response")
        name = text(response, "id")
        turn = self._turn(name)
        self._unpaid.add(name)
        asked, held = self._gate.asked, self._speaking and "hold" in self._timers
        turn.options = self._gate.created(response)
        self._expected = False
        self._timers.clear("hold")
        self._log.happened("response.created", response=response["id"])
        self._watch()
        ours = asked and not self._gate.asked
        if ours and held and self._confirmed and self._barge_in != OFF and turn.options == GO_ON:
            self._take_back()

    def _take_back(self) -> None:
        """We had asked for a response when the caller began to speak again: it would be said into their words."""
        self._interrupt(cancel=True)
        self._gate.wait(GO_ON)
        self._hold()

    def _hold(self) -> None:
        self._gate.hold()
        self._timers.set("hold", LONGEST_TURN, self._gate.release)

    def _done(self, event: Json) -> None:
        response = section(event, "response")
        name, status, error = text(response, "id"), word(response, "status"), refusals.error_of(response)
        self._count(response, error)
        turn = self._turns.pop(name, None) or Turn(GO_ON)
        turn.done = True
        for item in turn.items:
            self._finish(item)
        why = refusals.fatal(error) if status == "failed" else None
        if why is not None:
            self._shared.failed(why)
            return
        self._last = self._shared.now()
        self._functions.complete(turn)  # first: a result is worth more than a word that it takes a moment
        self._gate.done(response)
        if name not in self._dead:  # whoever was interrupted is not asked again
            self._judge(turn, status, error, response)
        if not self._due:
            self._timers.clear("overdue")
        self._greeting_over()
        self._functions.leave_if_quiet()

    def _judge(self, turn: Turn, status: str, error: Json, response: Json) -> None:
        """Whether the caller has got what was due."""
        if status == "failed":
            if not turn.calls:  # their results go on, or lead out of the conversation
                self._retry(turn, _pause(error), error or {"message": "it did not say why"})
            return
        others = any(word(item, "type") != "message" for item in _objects(response, "output"))
        if turn.items or turn.calls or others:
            self._retried = self._late = False
            self._empty = 0
            self._owed = self._owed and not (turn.items or turn.calls)
            self._functions.knew(turn)
            self._shared.completed()
        elif status in ("completed", "incomplete"):  # a silent bot: models do that when history makes them write
            self._retry(turn, 0, error)

    def _done_last(self, event: Json) -> None:
        response = section(event, "response")
        self._count(response, refusals.error_of(response))

    def _count(self, response: Json, error: Json) -> None:
        self._unpaid.discard(word(response, "id"))
        counts = of_response(section(response, "usage"))
        self._shared.usage.add_response(counts)
        self._log.happened(
            "response.done",
            response=word(response, "id"),
            status=word(response, "status"),
            reason=word(section(response, "status_details"), "reason") or word(error, "code"),
            usage=counts,
        )

    def _retry(self, turn: Turn, pause: float, error: Json) -> None:
        """Ask for the same once more, unless the last try was one already."""
        if not self._retried:
            self._retried = True
            self._gate.wait(turn.options)
            if pause:
                self._timers.set("again", pause, self._gate.push)
            else:
                self._gate.push()
            return
        self._retried = False
        self._log.happened("response.given_up")
        if error:
            words = f"The voice service failed to answer twice: {word(error, 'message') or word(error, 'code')}"
            self._shared.failed(BackendLost("busy", words[:300]))
            return
        self._empty += 1
        if self._empty > 1:
            self._shared.failed(BackendLost("silent", "The model answers without a word again and again."))

    # -- What is due

    def _expect(self) -> None:
        """The server answers by itself now."""
        self._expected = True
        self._watch()

    @property
    def _due(self) -> bool:
        return self._expected or self._gate.busy

    def _watch(self) -> None:
        self._moved_at = self._shared.now()
        if "overdue" not in self._timers:
            self._timers.set("overdue", self._order.bot.manner.response_timeout, self._look)

    def _look(self) -> None:
        """Has anything come of what is due?"""
        timeout = self._order.bot.manner.response_timeout
        if not self._due:
            return
        left = self._moved_at + timeout - self._shared.now()
        if self._speaking or self._functions.leaving or not self._utterances.empty:
            left = timeout  # nobody hears silence
        if left > 0.001:
            self._timers.set("overdue", left, self._look)
        elif self._late:
            words = f"The model was silent for {timeout:g} seconds, and again when it was asked once more."
            self._shared.failed(BackendLost("silent", words))
        else:
            self._late = True
            self._log.happened("response.late", seconds=timeout)
            self._ask_again()

    def _ask_again(self) -> None:
        self._expected = False
        active = self._gate.active
        if active:
            self._dead.add(active)
            if self._shared.dialect.cancels:
                self._send("response.cancel", {"response_id": active})
        turn = self._turns.get(active)
        wish = self._gate.give_up()
        self._gate.release()
        self._gate.want(turn.options if turn is not None and turn.options else wish)

    # -- Functions

    def _item_done(self, event: Json) -> None:
        item = section(event, "item")
        self._service_did(item)
        if word(item, "type") != "function_call" or word(item, "status") != "completed":
            return  # arguments of a call that was cut off are cut off too
        call_id, name, response = text(item, "call_id"), text(item, "name"), text(event, "response_id")
        self._owed = False
        turn, place = self._turn(response), number(event, "output_index")
        self._functions.asked(turn, place, call_id, name, word(item, "arguments"))

    def _service_did(self, item: Json) -> None:
        """An item is complete that may be of a tool of the service's own."""
        if word(item, "type").startswith("mcp_") and self._provided.came(item):
            self._owed = False
            self._timers.set("provided", PROVIDED, self._speak_of_it)

    def _not_listed(self, event: Json) -> None:
        self._provided.not_listed(word(event, "item_id"))

    def _speak_of_it(self) -> None:
        """The service has called a tool by itself; models often wait to be asked before they speak of the result."""
        turn = self._turns.get(self._gate.active)
        if self._gate.active and turn is not None and not turn.items:
            self._timers.set("provided", PROVIDED, self._speak_of_it)
        elif not (self._gate.busy or self._speaking or self._expected) and self._utterances.empty:
            self._go_on()

    # -- Sending

    def _note(self, words: str) -> None:
        self._item(_message(words))

    def _item(self, item: Json) -> None:
        self._send("conversation.item.create", {"item": self._shared.dialect.item(item)})

    def _send(self, kind: str, fields: Json) -> None:
        self.session.send(kind, fields)

    _LAST: ClassVar[dict[str, _Reader | None]] = {
        "conversation.item.added": _item_placed,
        "conversation.item.done": _item_placed,
        "conversation.item.input_audio_transcription.completed": _caller_said,
        "conversation.item.input_audio_transcription.delta": _caller_words,
        "conversation.item.input_audio_transcription.failed": _caller_unclear,
        "input_audio_buffer.committed": _committed,
        "response.done": _done_last,
        "response.output_audio_transcript.delta": _bot_words,
        "response.output_audio_transcript.done": _bot_said,
    }

    _READERS: ClassVar[dict[str, _Reader | None]] = {
        **_LAST,
        "conversation.item.done": _item_settled,
        "mcp_list_tools.failed": _not_listed,
        "input_audio_buffer.speech_started": _speech_started,
        "input_audio_buffer.speech_stopped": _speech_stopped,
        "response.created": _created,
        "response.done": _done,
        "response.output_audio.delta": _audio,
        "response.output_audio.done": _audio_done,
        "response.output_item.done": _item_done,
        **dict.fromkeys(_UNUSED),
    }


def _message(words: str, role: str = "system") -> Json:
    """A message that is not speech, as an item of the conversation."""
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": words}]}


def _objects(event: Json, key: str) -> list[Json]:
    """The objects in the list at `key`."""
    value = event.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _pause(error: Json) -> float:
    """Seconds to wait before asking again: of a rate limit what its words say, 2 when they do not, of others none."""
    if word(error, "code") not in SLOW_DOWN:
        return 0.0
    found = _AGAIN_IN.search(word(error, "message"))
    if found is None:
        return 2.0
    return min(max(float(found[1]) / (1000 if found[2] == "ms" else 1), 0.25), 20.0)
