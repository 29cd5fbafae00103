"""The turn taking inside an open session: audio both ways, barge-in, greeting, functions, transcripts.

What is kept, and why. For each *item* (one utterance of the bot): which response it belongs
to and whether it was cut; how much of it was received and sent is the playout's knowledge,
because the server sends far faster than the caller hears. For each *response* that runs: its
items and its function calls. An interruption is defined by what waits in our own queue, not by
what the server is doing: it is mostly done with a response long before the caller has heard
it. Responses that were interrupted are *dead*, and whatever still comes of them is dropped.

A *terminal* function (hang up, transfer) is handed on as `leaving` when its response is done
and the last byte has been played. Nobody waits for ever: when for 5 s nothing has been
received or played, it is handed on as things are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import ClassVar

from extenbot.ai import events, refusals
from extenbot.ai.dialects import Dialect
from extenbot.ai.events import number, section, text, word
from extenbot.ai.gate import GO_ON, TAG, Gate
from extenbot.ai.timers import Timers
from extenbot.ai.transcript import Transcript
from extenbot.ai.usage import Usage, of_response
from extenbot.errors import BackendLost, Malformed
from extenbot.interfaces import Json, Line, Link, Played, ToolCall, VoiceOrder, VoiceSurroundings

FRAME = 320
"""Bytes of caller audio in one message: 40 ms, for the websocket costs by the message."""

CONGESTED = 200_000
"""Bytes that the network has not taken; caller audio is thrown away above that, it would come seconds late."""

STILL = 5.0
"""Seconds without any progress after which a terminal function no longer waits for the goodbye."""

TURN_END = 0.5
"""Seconds after the caller's last word in which the server is expected to begin its answer."""

LONGEST_TURN = 5.0
"""Seconds that an answer of ours waits for a caller who goes on speaking."""

SLOW_DOWN = frozenset({"rate_limit_exceeded", "inference_rate_limit_exceeded"})
_AGAIN_IN = re.compile(r"again in (\d{1,6}(?:\.\d{1,6})?)(ms|s)")

_Reader = Callable[["Talk", Json], BackendLost | None]

#: events that the protocol has and a phone bot has no use for
_UNUSED = (
    "conversation.item.deleted",
    "conversation.item.retrieved",
    "conversation.item.truncated",
    "input_audio_buffer.cleared",
    "input_audio_buffer.timeout_triggered",
    "rate_limits.updated",
    "response.content_part.added",
    "response.content_part.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.added",
    "response.output_text.delta",
    "response.output_text.done",
)


class Nowhere:
    """The link before there is one."""

    def send(self, text: bytes) -> None:
        """Lost: nothing is sent before the websocket is open."""

    def waiting(self) -> int:
        """Nothing waits."""
        return 0

    def close(self) -> None:
        """Nothing to close."""


class _Spoken:
    """One utterance of the bot."""

    __slots__ = ("content", "cut", "finished", "response")

    def __init__(self, response: str, content: int) -> None:
        self.response = response
        self.content = content
        self.finished = False
        self.cut: Played | None = None


class _Call:
    """One function call."""

    __slots__ = ("id", "name", "output", "place", "sent", "speak", "terminal", "turn")

    def __init__(self, turn: _Turn, place: int, call_id: str, name: str, terminal: bool) -> None:
        self.turn = turn
        self.place = place
        self.id = call_id
        self.name = name
        self.terminal = terminal
        self.output: str | None = None
        self.speak = True
        self.sent = False


class _Turn:
    """One response while it runs, and until its function calls are answered."""

    __slots__ = ("calls", "done", "items", "options")

    def __init__(self) -> None:
        self.options: Json = GO_ON
        self.items: list[str] = []
        self.calls: list[_Call] = []
        self.done = False


class Talk:
    """The conversation of one session. It must be told to begin and to end; between them it may do anything."""

    def __init__(self, order: VoiceOrder, surroundings: VoiceSurroundings, timers: Timers, dialect: Dialect) -> None:
        self.link: Link = Nowhere()
        self.malformed = 0
        self._order = order
        self._dialect = dialect
        self._codec = dialect.codec(order)
        self._clock = surroundings.clock
        self._playout = surroundings.playout
        self._listener = surroundings.listener
        self._log = surroundings.log
        self._timers = timers
        self._event_count = 0
        self._unknown = 0
        self._late = 0
        self._dropped = 0
        self._listening = False
        self._half = b""
        self._received = 0
        self._gate = Gate(self._create)
        self._spoken: dict[str, _Spoken] = {}
        self._turns: dict[str, _Turn] = {}
        self._calls: dict[str, _Call] = {}
        self._dead: set[str] = set()
        self._leaving: tuple[ToolCall, _Turn] | None = None
        self._retried = False
        self._waited_since: float | None = None
        self._words = Transcript()
        self._usage = Usage()
        self._ended = False
        self.awaiting: set[str] = set()

    # -- The stages

    def begin(self) -> None:
        """The session is open: caller audio may flow."""
        self._listening = True
        self._playout.on_drained = self._leave_if_quiet

    def greet(self) -> None:
        """Say the welcome message, or something short of the model's own."""
        welcome = self._order.welcome
        say = (
            f'Say exactly: "{welcome}" and then wait.'
            if welcome
            else "Greet the caller in one short sentence, then wait."
        )
        # Instructions of a response replace those of the session, so they are said again.
        instructions = "\n\n".join(part for part in (self._order.bot.instruction, say) if part)
        self._gate.want({"instructions": instructions, "tool_choice": "none", "metadata": {"purpose": "greeting"}})

    def end(self) -> None:
        """Nothing more is said or heard; what waits to be played is left to the call."""
        if self._listening:
            self._listening = False
            self._ended = True
            self._playout.on_drained = None

    def stop(self) -> None:
        """The call is over: end, and drop what the caller has not heard."""
        self.end()
        self._cut()

    # -- Audio

    def heard(self, audio: bytes) -> None:
        """20 ms of the caller."""
        if not self._listening:
            return
        audio = self._half + audio
        if len(audio) < FRAME:
            self._half = audio
            return
        self._half = b""
        if self.link.waiting() > CONGESTED:
            self._dropped += len(audio)
        else:
            self.link.send(events.append(self._codec.encode(audio)))

    # -- What the server says

    def happened(self, event: Json) -> BackendLost | None:
        """One event of the server; the reason when it means the end."""
        try:
            return self._read(self._READERS, event)
        except Malformed:
            self.malformed += 1
            return None

    def happened_last(self, event: Json) -> None:
        """One event while only outstanding words and counts matter."""
        if event["type"] in self._LAST:
            try:
                self._read(self._LAST, event)
            except Malformed:
                self.malformed += 1

    def erred(self, error: Json) -> None:
        """An error that does not end the session; it may have refused our request for a response."""
        if self._gate.refused(error):
            # The response that overtook ours pushes when it is done; should there be none, the timer does.
            self._timers.set("again", 1.0, self._gate.push)

    def _read(self, readers: Mapping[str, _Reader | None], event: Json) -> BackendLost | None:
        try:
            read = readers[event["type"]]
        except KeyError:
            self._unknown += 1
            return None
        return read(self, event) if read is not None else None

    def _audio(self, event: Json) -> None:
        response, item = word(event, "response_id"), text(event, "item_id")
        spoken = self._spoken.get(item)
        if response in self._dead or (spoken is not None and spoken.cut is not None):
            self._late += 1
            if spoken is None:  # the caller was quicker than its first byte
                spoken = self._spoken[item] = _Spoken(response, 0)
                spoken.cut = Played(item, 0, 0)
                self.send("conversation.item.delete", {"item_id": item})
            return
        audio = self._codec.decode(events.audio(event))
        if not audio:
            return
        if spoken is None:
            self._spoken[item] = _Spoken(response, number(event, "content_index"))
            self._turn(response).items.append(item)
            self._words.began(item, "bot", self._log.elapsed())
            self._log_latency()
        self._received += len(audio)
        self._playout.add(item, audio)

    def _audio_done(self, event: Json) -> None:
        self._finish(text(event, "item_id"))

    def _finish(self, item: str) -> None:
        spoken = self._spoken.get(item)
        if spoken is not None and spoken.cut is None and not spoken.finished:
            spoken.finished = True
            self._playout.finish(item)

    def _log_latency(self) -> None:
        if self._waited_since is not None:
            waited = self._clock.seconds() - self._waited_since
            self._waited_since = None
            self._log.happened("first_audio", ms=round(waited * 1000))

    # -- The caller speaks

    def _speech_started(self, event: Json) -> None:
        now = self._log.elapsed()
        self._log.happened("speech.started")
        if item := word(event, "item_id"):
            self._words.began(item, "caller", now)
        self._gate.hold()
        self._timers.set("hold", LONGEST_TURN, self._gate.release)
        active = self._gate.active
        if active:
            self._dead.add(active)
        for spoken, played in self._cut():
            heard = min(played.sent, played.received) // 8
            self._log.happened("barge_in", item=played.item, ms=heard)
            if not heard:
                self.send("conversation.item.delete", {"item_id": played.item})
            elif heard < played.received // 8 or spoken.response == active:
                where = {"item_id": played.item, "content_index": spoken.content, "audio_end_ms": heard}
                self.send("conversation.item.truncate", where)
        self._leave_if_quiet()

    def _cut(self) -> list[tuple[_Spoken, Played]]:
        """Drop what waits; what was not heard to its end, with what was heard of it."""
        found = []
        for played in self._playout.cut():
            spoken = self._spoken.get(played.item)
            if spoken is not None and spoken.cut is None:
                spoken.cut = played
                self._dead.add(spoken.response)
                self._words.cut(played.item)
                found.append((spoken, played))
        return found

    def _speech_stopped(self, event: Json) -> None:  # noqa: ARG002
        self._log.happened("speech.stopped")
        self._waited_since = self._clock.seconds()
        self._timers.set("hold", TURN_END, self._gate.release)

    def _committed(self, event: Json) -> None:
        item = text(event, "item_id")
        self._words.began(item, "caller", self._log.elapsed())
        self._words.placed(item, word(event, "previous_item_id"))
        if not self._words.is_final(item):
            self.awaiting.add(item)

    # -- Words

    def _item_placed(self, event: Json) -> None:
        self._words.placed(text(section(event, "item"), "id"), word(event, "previous_item_id"))

    def _caller_words(self, event: Json) -> None:
        item, words = text(event, "item_id"), word(event, "delta")
        self._words.began(item, "caller", self._log.elapsed())
        self._words.more(item, number(event, "content_index"), words)

    def _caller_said(self, event: Json) -> None:
        item, words = text(event, "item_id"), text(event, "transcript")
        self.awaiting.discard(item)
        self._words.began(item, "caller", self._log.elapsed())
        self._words.all(item, number(event, "content_index"), words)
        self._usage.add_transcription(section(event, "usage"))

    def _caller_unclear(self, event: Json) -> None:
        item = text(event, "item_id")
        self.awaiting.discard(item)
        self._words.failed(item)
        self._log.happened("transcript.failed", code=word(section(event, "error"), "code"))

    def _bot_words(self, event: Json) -> None:
        item, words = text(event, "item_id"), text(event, "delta")
        self._words.began(item, "bot", self._log.elapsed())
        self._words.more(item, number(event, "content_index"), words)

    def _bot_said(self, event: Json) -> None:
        item, words = text(event, "item_id"), text(event, "transcript")
        self._words.began(item, "bot", self._log.elapsed())
        self._words.all(item, number(event, "content_index"), words)

    @property
    def transcript(self) -> tuple[Line, ...]:
        """All that was said and heard so far."""
        return self._words.lines(self._heard_of)

    def _heard_of(self, item: str) -> tuple[Played, bool]:
        spoken = self._spoken.get(item)
        if spoken is None:
            return Played(item, 0, 0), False
        if spoken.cut is not None:
            return spoken.cut, True
        played = self._playout.played(item)
        return played, self._ended and played.sent < played.received

    # -- Responses

    def _turn(self, response: str) -> _Turn:
        return self._turns.setdefault(response, _Turn())

    def _create(self, options: Json) -> str:
        tag = self._next_id()
        if self._waited_since is None:
            self._waited_since = self._clock.seconds()
        metadata = {**section(options, "metadata"), TAG: tag}
        body = self._dialect.response({**options, "metadata": metadata})
        self.link.send(events.write("response.create", tag, {"response": body}))
        return tag

    def _created(self, event: Json) -> None:
        response = section(event, "response")
        turn = self._turn(text(response, "id"))
        turn.options = self._gate.created(response)
        self._timers.clear("hold")
        self._log.happened("response.created", response=response["id"])

    def _done(self, event: Json) -> BackendLost | None:
        response = section(event, "response")
        name, status, error = text(response, "id"), word(response, "status"), refusals.error_of(response)
        self._count(response, error)
        turn = self._turns.pop(name, None) or _Turn()
        turn.done = True
        for item in turn.items:
            self._finish(item)
        why = refusals.fatal(error) if status == "failed" else None
        if why is not None:
            return why
        self._gate.done(response)
        self._complete(turn)
        if name in self._dead:
            pass  # whoever was interrupted is not asked again
        elif status == "failed":
            if word(error, "code") in SLOW_DOWN:
                self._retry(turn, _pause(word(error, "message")))
            elif refusals.transient(error):
                self._retry(turn, 0)
        elif status == "completed":
            others = any(word(item, "type") != "message" for item in _objects(response, "output"))
            if turn.items or turn.calls or others:
                self._retried = False
            else:  # a silent bot: models do that when history makes them answer in text
                self._retry(turn, 0)
        self._leave_if_quiet()
        return None

    def _done_last(self, event: Json) -> None:
        response = section(event, "response")
        self._count(response, refusals.error_of(response))

    def _count(self, response: Json, error: Json) -> None:
        counts = of_response(section(response, "usage"))
        self._usage.add_response(counts)
        self._log.happened(
            "response.done",
            response=word(response, "id"),
            status=word(response, "status"),
            reason=word(section(response, "status_details"), "reason") or word(error, "code"),
            usage=counts,
        )

    def _retry(self, turn: _Turn, pause: float) -> None:
        """Ask for the same once more, unless the last try was one already."""
        if self._retried:
            self._log.happened("response.given_up")
            return
        self._retried = True
        self._gate.wait(turn.options)
        if pause:
            self._timers.set("again", pause, self._gate.push)
        else:
            self._gate.push()

    # -- Functions

    def _item_done(self, event: Json) -> None:
        item = section(event, "item")
        if word(item, "type") != "function_call" or word(item, "status") != "completed":
            return  # arguments of a call that was cut off are cut off too
        call_id, name, response = text(item, "call_id"), text(item, "name"), text(event, "response_id")
        if call_id in self._calls:
            return
        turn = self._turn(response)
        call = _Call(turn, number(event, "output_index"), call_id, name, name in self._order.terminal)
        self._calls[call_id] = call
        turn.calls.append(call)
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
            self._leaving = (tool, turn)
            self._watch()

    def answered(self, call_id: str, output: str, *, speak: bool = True) -> None:
        """The result of a function call goes to the model, which speaks when it has all of them."""
        call = self._calls.get(call_id)
        if call is None or call.output is not None:
            return
        if self._leaving is not None and self._leaving[0].call_id == call_id:
            self._leaving = None
            self._timers.clear("leave")
        call.output, call.speak = output, speak
        self._log.happened("tool.answered", name=call.name, call=call_id, output=output[:2000])
        self._complete(call.turn)

    def _complete(self, turn: _Turn) -> None:
        """Send the outputs that can be sent, in the order of the calls; the last one lets the model speak."""
        for call in sorted(turn.calls, key=lambda call: call.place):
            if call.output is None:
                if call.terminal:
                    continue
                break
            if not call.sent:
                call.sent = True
                item = {"type": "function_call_output", "call_id": call.id, "output": call.output}
                self.send("conversation.item.create", {"item": item})
        calls = turn.calls
        if turn.done and all(call.sent for call in calls) and any(call.speak for call in calls):
            self._gate.want()

    def _leave_if_quiet(self) -> None:
        if self._leaving is not None and self._leaving[1].done and self._playout.empty:
            self._leave()

    def _watch(self) -> None:
        """Look again in a while whether anything still moves toward the end of the goodbye."""
        self._timers.set("leave", STILL, self._leave_if_still, self._progress())

    def _leave_if_still(self, before: object) -> None:
        if self._progress() == before:
            self._leave()
        else:
            self._watch()

    def _progress(self) -> object:
        sent = sum(self._playout.played(item).sent for item, spoken in self._spoken.items() if spoken.cut is None)
        return self._received, sent, self._leaving is not None and self._leaving[1].done

    def _leave(self) -> None:
        if self._leaving is not None:
            tool, self._leaving = self._leaving[0], None
            self._timers.clear("leave")
            self._log.happened("tool.leaving", name=tool.name, call=tool.call_id)
            self._listener.leaving(tool)

    # -- Sums and sending

    @property
    def usage(self) -> Json:
        """Token sums so far."""
        return self._usage.sums

    @property
    def counts(self) -> dict[str, int]:
        """What was thrown away, for the timeline."""
        return {
            "unknown": self._unknown,
            "malformed": self.malformed,
            "late": self._late,
            "dropped_ms": self._dropped // 8,
        }

    def send(self, kind: str, fields: Json) -> str:
        """Send a client event; its event id, by which an error would name it."""
        name = self._next_id()
        self.link.send(events.write(kind, name, fields))
        return name

    def _next_id(self) -> str:
        self._event_count += 1
        return f"c{self._event_count}"

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
        "input_audio_buffer.speech_started": _speech_started,
        "input_audio_buffer.speech_stopped": _speech_stopped,
        "response.created": _created,
        "response.done": _done,
        "response.output_audio.delta": _audio,
        "response.output_audio.done": _audio_done,
        "response.output_item.done": _item_done,
        **dict.fromkeys(_UNUSED),
    }


def _objects(event: Json, key: str) -> list[Json]:
    """The objects in the list at `key`."""
    value = event.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _pause(message: str) -> float:
    """Seconds to wait, from the words of a rate limit error; 2 when they do not say."""
    found = _AGAIN_IN.search(message)
    if found is None:
        return 2.0
    return min(max(float(found[1]) / (1000 if found[2] == "ms" else 1), 0.25), 20.0)
