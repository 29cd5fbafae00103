"""One Realtime session as the server sees it: client events in, server events out, no socket.

The session keeps what the wire keeps: the configuration in force, the input buffer on
its own clock (bytes received since the start), the conversation's items, and at most
one response that writes into it (and any number beside it). What to hear and what to
say is the business of a `Mind`: it is asked by `Mind.wanted` and answers by filling a
`Response`, whose audio leaves at `speed` times real time, as the real service's does.
It tells the session of turns by `speech_started` and `speech_stopped`.

The real service's order of events is kept: `response.created`, `output_item.added`,
`conversation.item.added`, `content_part.added`, transcript and audio deltas, their
`done`s, `content_part.done`, `output_item.done`, `conversation.item.done`,
`response.done`. Only truncation knows the item's audio; the sound itself is not kept.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from extenbot.interfaces import Json, Tokens
from extenbot.sandbox import wire
from extenbot.sandbox.g711 import FORMATS, Format
from extenbot.sandbox.turns import prefix_of

MOST_ITEMS = 1000  # the oldest are forgotten
MOST_AUDIO = 120_000  # ms of caller audio kept for one turn
LOOK_BACK = 2000  # ms of audio kept while nobody speaks, besides the prefix
LIFE = 3600.0  # seconds, as the real service's sessions
EXPIRED = "Your session hit the maximum duration of 60 minutes."


class Cause(StrEnum):
    """Why a response is wanted."""

    GREET = "greet"  # the client's first response.create
    SPEECH = "speech"  # the caller's turn is over
    OUTPUT = "output"  # the client has given the result of a function
    TEXT = "text"  # the client has written something
    RESPONSE = "response"  # any other response.create


@dataclass(frozen=True, slots=True)
class Wish:
    """A response somebody wants. `options` is `response` of response.create, `event_id` the client's."""

    cause: Cause
    options: Json = field(default_factory=dict)
    event_id: str | None = None
    item_id: str = ""  # the caller's turn (SPEECH), the text (TEXT) or the last output (OUTPUT)

    @property
    def aside(self) -> bool:
        """Whether the response stays out of the conversation."""
        return self.options.get("conversation") == "none"


class Mind(Protocol):
    """What hears and decides. Everything is called on the reactor thread and must not raise."""

    def opened(self) -> None:
        """The websocket is open: `Session.create` lets the client in."""

    def updated(self, update: Json, event_id: str | None) -> None:
        """A good session.update: `Session.accept` confirms it."""

    def heard(self, audio: bytes) -> None:
        """Caller audio in the session's input format, any length."""

    def cleared(self) -> None:
        """The input buffer was emptied by the client."""

    def committed(self, item_id: str, audio: bytes) -> None:
        """A turn of the caller is a conversation item now; its transcript is due if the session wants one."""

    def wanted(self, wish: Wish) -> None:
        """`Session.respond` begins the response; `Session.error` refuses it."""

    def closed(self) -> None:
        """The connection is gone: cancel everything."""


class Response:
    """One answer being made. What a mind orders is queued and leaves in order, paced; after its end it ignores all."""

    def __init__(self, session: Session, wish: Wish) -> None:
        self.id = session.identify("resp")
        self.wish = wish
        self.active = True
        self.speed = session.speed
        options = wish.options
        self.metadata = options.get("metadata")
        self.text_only = options.get("output_modalities", session.config["output_modalities"]) == ["text"]
        output = session.config["audio"]["output"] | options.get("audio", {}).get("output", {})
        self.wire: Format = FORMATS[output["format"]["type"]]
        self.voice = output["voice"]
        self._session = session
        self._steps: deque[Callable[[], float]] = deque()
        self._timer: Any = None
        self._output: list[dict[str, Any]] = []
        self._item: dict[str, Any] | None = None  # the message being spoken
        self._part: dict[str, Any] = {}
        self._spoken_ms = 0.0
        self._call_chars = 0
        self._on_end: Callable[[], None] | None = None

    @property
    def options(self) -> Json:
        """`response` of the client's response.create."""
        return self.wish.options

    # -- Orders of the mind

    def say(self, words: str, audio: bytes) -> None:
        """Words with their audio, in the response's format; goes on in the message that is open."""
        if self.text_only:
            self._then(lambda: self._words(words))
            return
        if words:
            self._then(lambda: self._words(words))
        size = max(int(self._session.chunk * self.wire.per_ms), self.wire.per_ms)
        for start in range(0, len(audio), size):
            piece = audio[start : start + size]
            self._then(lambda piece=piece: self._sound(piece))  # type: ignore[misc]

    def write(self, words: str) -> None:
        """Words without audio, even in an audio session."""

        def step() -> float:
            self._close_message("completed")
            self._open_message("text")
            return self._words(words)

        self._then(step)

    def call(self, name: str, arguments: str) -> None:
        """Ask for a function; `arguments` is JSON text."""
        self._then(lambda: self._call(name, arguments))

    def next_message(self) -> None:
        """What is said next belongs to a message of its own."""
        self._then(lambda: self._close_message("completed"))

    def pause(self, seconds: float) -> None:
        """Send nothing for a while."""
        self._then(lambda: seconds)

    def send(self, event: Json) -> None:
        """Any event, between the others."""

        def step() -> float:
            self._session.send_event(event)
            return 0.0

        self._then(step)

    def do(self, action: Callable[[], None]) -> None:
        """Run `action` when all before it has left."""

        def step() -> float:
            action()
            return 0.0

        self._then(step)

    def finish(self, status: str = "completed", details: Json | None = None) -> None:
        """The end; `details` is status_details."""

        def step() -> float:
            self._end(status, details)
            return 0.0

        self._then(step)

    def fail(self, code: str, message: str) -> None:
        """End as the real service does when it cannot generate; no error event comes with it."""
        kind = "server_error" if code == "server_error" else "invalid_request_error"
        self.finish("failed", {"type": "failed", "error": {"type": kind, "code": code, "message": message}})

    def on_end(self, action: Callable[[], None]) -> None:
        """Run `action` when the response is over, however; only the last one asked for."""
        self._on_end = action

    # -- Orders of the session

    def cancel(self, reason: str) -> None:
        """Stop at once: `reason` is turn_detected or client_cancelled."""
        late = self._session.late_deltas
        while self._steps and late and self._item is not None:  # as the network would deliver them
            self._steps.popleft()()
            late -= 1
            if not self.active:
                return
        self._end("cancelled", {"type": "cancelled", "reason": reason})

    def drop(self) -> None:
        """Over: nothing more leaves."""
        self.active = False
        self._steps.clear()
        if self._on_end is not None:
            self._on_end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- Steps: each returns the seconds to wait before the next

    def _then(self, step: Callable[[], float]) -> None:
        if self.active:
            self._steps.append(step)
            if self._timer is None:
                self._timer = self._session.clock.callLater(0, self._run)

    def _run(self) -> None:
        self._timer = None
        while self._steps and self.active:
            wait = self._steps.popleft()()
            if wait > 0 and self.active:
                self._timer = self._session.clock.callLater(wait, self._run)
                return

    def _emit(self, kind: str, **fields: Any) -> None:
        self._session.emit(kind, response_id=self.id, **fields)

    def _emit_part(self, kind: str, **fields: Any) -> None:
        item = self._item
        assert item is not None
        self._session.emit(
            kind, response_id=self.id, item_id=item["id"], output_index=len(self._output), content_index=0, **fields
        )

    def _open_message(self, kind: str) -> None:
        self._item = {
            "id": self._session.identify("item"), "object": "realtime.item", "type": "message",
            "status": "in_progress", "role": "assistant", "content": [],
        }  # fmt: skip
        self._part = {"type": "audio", "transcript": ""} if kind == "audio" else {"type": "text", "text": ""}
        self._emit("response.output_item.added", output_index=len(self._output), item=self._item)
        if not self.wish.aside:
            self._session.add_item(self._item)
        self._emit_part("response.content_part.added", part=self._part)

    def _words(self, words: str) -> float:
        if self._item is None:
            self._open_message("text" if self.text_only else "audio")
        spoken = self._part["type"] == "audio"
        key = "transcript" if spoken else "text"
        delta = f" {words}" if self._part[key] else words
        self._part[key] += delta
        self._emit_part(
            "response.output_audio_transcript.delta" if spoken else "response.output_text.delta", delta=delta
        )
        return 0.0

    def _sound(self, piece: bytes) -> float:
        if self._item is None or self._part["type"] != "audio":
            self._close_message("completed")
            self._open_message("audio")
        assert self._item is not None
        length = len(piece) / self.wire.per_ms
        self._spoken_ms += length
        self._session.spoke(self._item["id"], length)
        self._emit_part("response.output_audio.delta", delta=base64.b64encode(piece).decode())
        return length / 1000 / self.speed if self.speed else 0.0

    def _close_message(self, status: str) -> float:
        item = self._item
        if item is None:
            return 0.0
        part = self._part
        if part["type"] == "audio":
            self._emit_part("response.output_audio.done")
            self._emit_part("response.output_audio_transcript.done", transcript=part["transcript"])
            item["content"] = [{"type": "output_audio", "transcript": part["transcript"]}]
        else:
            self._emit_part("response.output_text.done", text=part["text"])
            item["content"] = [{"type": "output_text", "text": part["text"]}]
        item["status"] = status
        self._emit_part("response.content_part.done", part=part)
        self._emit("response.output_item.done", output_index=len(self._output), item=item)
        if not self.wish.aside:
            self._session.finish_item(item)
        self._output.append(item)
        self._item = None
        return 0.0

    def _call(self, name: str, arguments: str) -> float:
        self._close_message("completed")
        index, call_id = len(self._output), self._session.identify("call")
        item = {
            "id": self._session.identify("item"), "object": "realtime.item", "type": "function_call",
            "status": "in_progress", "name": name, "call_id": call_id, "arguments": "",
        }  # fmt: skip
        self._emit("response.output_item.added", output_index=index, item=item)
        if not self.wish.aside:
            self._session.add_item(item)
        where = {"item_id": item["id"], "output_index": index, "call_id": call_id}
        self._emit("response.function_call_arguments.delta", **where, delta=arguments)
        self._emit("response.function_call_arguments.done", **where, name=name, arguments=arguments)
        item |= {"status": "completed", "arguments": arguments}
        self._emit("response.output_item.done", output_index=index, item=item)
        if not self.wish.aside:
            self._session.finish_item(item)
        self._output.append(item)
        self._call_chars += len(name) + len(arguments)
        return 0.0

    def _end(self, status: str, details: Json | None) -> None:
        self._close_message("completed" if status == "completed" else "incomplete")
        self.drop()
        words = sum(
            len(part.get("transcript") or part.get("text") or "")
            for it in self._output
            for part in it.get("content", ())
        )
        audio, text = round(self._spoken_ms / 50), (words + self._call_chars + 3) // 4
        usage = None if status == "failed" else self._session.use(audio, text)
        self._session.emit("response.done", response=self.shown(status, details, usage))
        self._session.ended(self, self._spoken_ms)

    def shown(self, status: str, details: Json | None = None, usage: Json | None = None) -> dict[str, Any]:
        """The response as response.created and response.done carry it."""
        options, config = self.wish.options, self._session.config
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": self._output,
            "conversation_id": None if self.wish.aside else self._session.conversation_id,
            "output_modalities": ["text"] if self.text_only else ["audio"],
            "max_output_tokens": options.get("max_output_tokens", config["max_output_tokens"]),
            "audio": {"output": {"format": _format_of(self.wire), "voice": _voice_of(self.voice)}},
            "usage": usage,
            "metadata": self.metadata,
        }


def _format_of(wire_format: Format) -> Json:
    return {"type": wire_format.name, "rate": 24000} if wire_format.name == "audio/pcm" else {"type": wire_format.name}


def _voice_of(voice: Any) -> str:
    return voice if isinstance(voice, str) else str(voice["id"])


class Session:
    """One connection. `send` takes one text message, `close` a code and a reason; 1006 means drop the TCP line."""

    def __init__(
        self,
        clock: Any,
        tokens: Tokens,
        mind: Callable[[Session], Mind],
        send: Callable[[bytes], None],
        close: Callable[[int, str], None],
        *,
        model: str = "sandbox",
        wall: Callable[[], float] | None = None,
    ) -> None:
        self.clock = clock
        self.model = model
        self.speed: float = 3.0  # audio leaves so many times faster than it plays; 0: all at once
        self.chunk = 250  # ms of audio in one delta
        self.late_deltas = 0  # deltas that still come after a cancel
        self.life = LIFE
        self.alive = True
        self._send = send
        self._close = close
        self._wall = wall or clock.seconds
        self._prefix = tokens.text(16)
        self._count = 0
        self.conversation_id = self.identify("conv")
        self.config = wire.fresh(self.identify("sess"), model, 0)
        self.echo: dict[str, Any] = {}  # what session.updated says instead (a scripted fault)
        self.items: dict[str, dict[str, Any]] = {}
        self._spoken: dict[str, float] = {}  # item -> ms of audio sent
        self._transcripts: set[str] = set()  # caller items whose transcript is not out yet
        self.active: Response | None = None
        self._aside: set[Response] = set()
        self._waiting: Wish | None = None  # a turn that waits for the active response
        self._buffer = bytearray()
        self._dropped = 0  # bytes that were before the buffer
        self._turn: str | None = None  # the item id of the speech going on
        self._turn_start = 0  # ms
        self._spoke = False
        self._asked = False
        self._since: tuple[Cause, str] | None = None  # what the client has added since the last response
        self._context = 0  # tokens of the conversation so far
        self._cached = 0
        self._expiry: Any = None
        self._idle: Any = None
        self._mind = mind(self)
        self._events: dict[str, Callable[[dict[str, Any]], None]] = {
            "session.update": lambda event: self._mind.updated(event["session"], event.get("event_id")),
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._create_item,
            "conversation.item.delete": self._delete_item,
            "conversation.item.retrieve": self._retrieve_item,
            "conversation.item.truncate": self._truncate_item,
            "response.create": self._create_response,
            "response.cancel": self._cancel_response,
        }

    # -- The socket's side

    def opened(self) -> None:
        """The websocket is open."""
        self._mind.opened()

    def received(self, data: bytes) -> None:
        """One text message of the client. Never raises."""
        if not self.alive:
            return
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            self.error("invalid_json", "We could not parse the JSON of your message.")
            return
        if not isinstance(event, dict):
            self.error("invalid_type", "Expected an event object.")
            return
        name = event.get("event_id")
        try:
            wire.check(event)
            self._events[event["type"]](event)
        except wire.Wrong as wrong:
            self.error(wrong.code, wrong.message, param=wrong.param, event_id=name if isinstance(name, str) else None)

    def lost(self) -> None:
        """The connection is gone, whoever closed it."""
        if not self.alive:
            return
        self.alive = False
        for timer in (self._expiry, self._idle):
            if timer is not None and timer.active():
                timer.cancel()
        for response in [*self._aside, *([self.active] if self.active else [])]:
            response.drop()
        self.active = None
        self._aside.clear()
        self._mind.closed()

    # -- The mind's side

    def identify(self, kind: str) -> str:
        """A new identifier such as item_3f…; at most 32 characters."""
        self._count += 1
        return f"{kind}_{self._prefix}{self._count:06x}"

    def emit(self, kind: str, **fields: Any) -> None:
        """Send one server event."""
        self.send_event({"type": kind, "event_id": self.identify("event"), **fields})

    def send_event(self, event: Json) -> None:
        """Send an event as it is."""
        if self.alive:
            self._send(json.dumps(event, separators=(",", ":")).encode())

    def error(
        self,
        code: str | None,
        message: str,
        *,
        param: str | None = None,
        event_id: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        """An error event; the session goes on."""
        self.emit("error", error={"type": kind, "code": code, "message": message, "param": param, "event_id": event_id})

    def close(self, code: int, reason: str) -> None:
        """End the connection; 1006 drops the TCP line without a word."""
        if self.alive:
            self.lost()
            self._close(code, reason)

    def create(self) -> None:
        """Let the client in: session.created."""
        self.config["expires_at"] = int(self._wall() + self.life)
        self._expiry = self.clock.callLater(self.life, self.expire)
        self.emit("session.created", session=self.config)

    def expire(self) -> None:
        """The time limit of a session."""
        self.error("session_expired", EXPIRED)
        self.close(1001, EXPIRED)

    def accept(self, update: Json, event_id: str | None) -> None:
        """Put an update in force and confirm it, or refuse it whole."""
        try:
            self.config = wire.merge(self.config, update, spoke=self._spoke)
        except wire.Wrong as wrong:
            self.error(wrong.code, wrong.message, param=wrong.param, event_id=event_id)
            return
        self.emit("session.updated", session=_patched(self.config, self.echo) if self.echo else self.config)

    @property
    def input(self) -> Format:
        """The format of the caller's audio."""
        return FORMATS[self.config["audio"]["input"]["format"]["type"]]

    @property
    def detection(self) -> dict[str, Any] | None:
        """The turn detection in force; None when the client decides."""
        detection: dict[str, Any] | None = self.config["audio"]["input"]["turn_detection"]
        return detection

    def speech_started(self, at: int) -> None:
        """The caller's voice began at `at` ms of the audio received so far."""
        detection = self.detection
        if self._turn is not None or detection is None:
            return
        self._stop_idle()
        self._turn = self.identify("item")
        first = -(-self._dropped // self.input.per_ms)
        self._turn_start = max(at - prefix_of(detection), first)
        self.emit("input_audio_buffer.speech_started", audio_start_ms=self._turn_start, item_id=self._turn)
        if detection["interrupt_response"] and self.active is not None:
            self.active.cancel("turn_detected")

    def speech_stopped(self, at: int) -> None:
        """The turn is over, seen at `at` ms: it becomes an item, and is answered if the session says so."""
        detection = self.detection
        if self._turn is None or detection is None:
            return
        item_id, self._turn = self._turn, None
        self.emit("input_audio_buffer.speech_stopped", audio_end_ms=at, item_id=item_id)
        self._commit_audio(item_id, at)
        if detection["create_response"]:
            wish = Wish(Cause.SPEECH, item_id=item_id)
            if self.active is None:
                self._want(wish)
            else:
                self._waiting = wish

    def transcribed(self, item_id: str, text: str) -> None:
        """The caller's words of one turn are known; told to the client if the session wants them, once."""
        item = self.items.get(item_id)
        if item is not None and item["content"]:
            item["content"][0]["transcript"] = text
        if item_id in self._transcripts:
            self._transcripts.discard(item_id)
            kind = "conversation.item.input_audio_transcription"
            if text:
                self.emit(f"{kind}.delta", item_id=item_id, content_index=0, delta=text)
            usage = {"type": "duration", "seconds": round(self._spoken.get(item_id, 0) / 1000, 3)}
            self.emit(f"{kind}.completed", item_id=item_id, content_index=0, transcript=text, usage=usage)

    def not_transcribed(self, item_id: str, message: str) -> None:
        """The caller's words of one turn could not be had."""
        if item_id in self._transcripts:
            self._transcripts.discard(item_id)
            error = {"type": "server_error", "code": None, "message": message, "param": None}
            self.emit(
                "conversation.item.input_audio_transcription.failed", item_id=item_id, content_index=0, error=error
            )

    def respond(self, wish: Wish) -> Response:
        """Begin the response that was wanted: response.created."""
        response = Response(self, wish)
        if wish.aside:
            self._aside.add(response)
        else:
            self.active = response
            self._since = None
        self.emit("response.created", response=response.shown("in_progress"))
        limit = {"name": "tokens", "limit": 250000, "remaining": max(250000 - self._context, 0), "reset_seconds": 60.0}
        self.emit("rate_limits.updated", rate_limits=[limit])
        return response

    def start_response(self) -> Response | None:
        """A response nobody asked for; None while one is active."""
        return None if self.active is not None else self.respond(Wish(Cause.RESPONSE))

    # -- The response's side

    def add_item(self, item: dict[str, Any], after: str | None = None) -> None:
        """A new item of the conversation, at its end or behind `after` ("root": first)."""
        previous = next(reversed(self.items), None) if after is None else None if after == "root" else after
        if after is None:
            self.items[item["id"]] = item
        else:
            order = list(self.items.items())
            place = 0 if previous is None else 1 + [name for name, _ in order].index(previous)
            order.insert(place, (item["id"], item))
            self.items = dict(order)
        while len(self.items) > MOST_ITEMS:
            oldest = next(iter(self.items))
            del self.items[oldest]
            self._spoken.pop(oldest, None)
        self.emit("conversation.item.added", previous_item_id=previous, item=item)

    def finish_item(self, item: dict[str, Any]) -> None:
        """The item is complete."""
        names = list(self.items)
        place = names.index(item["id"]) if item["id"] in self.items else 0
        self.emit("conversation.item.done", previous_item_id=names[place - 1] if place else None, item=item)

    def spoke(self, item_id: str, ms: float) -> None:
        """So much audio of an item has been sent."""
        self._spoke = True
        self._spoken[item_id] = self._spoken.get(item_id, 0) + ms

    def use(self, audio: int, text: int) -> Json:
        """Tokens of one response: the whole conversation is read again each time, what was read before is cached."""
        instructions = len(self.config["instructions"]) // 4
        heard = round(
            sum(self._spoken.get(name, 0) for name, item in self.items.items() if item.get("role") == "user") / 100
        )
        written = self._context + instructions
        cached = min(self._cached, written)
        self._cached = written
        self._context += audio + text
        return {
            "total_tokens": written + heard + audio + text,
            "input_tokens": written + heard,
            "output_tokens": audio + text,
            "input_token_details": {
                "text_tokens": written, "audio_tokens": heard, "image_tokens": 0, "cached_tokens": cached,
                "cached_tokens_details": {"text_tokens": cached, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": text, "audio_tokens": audio},
        }  # fmt: skip

    def ended(self, response: Response, spoken_ms: float) -> None:
        """A response is done."""
        self._aside.discard(response)
        if response is not self.active:
            return
        self.active = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._want(waiting)
        elif self._turn is None:
            self._start_idle(spoken_ms)

    # -- Client events, checked already

    def _append(self, event: dict[str, Any]) -> None:
        try:
            audio = binascii.a2b_base64(event["audio"].encode(), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError):
            raise wire.Wrong(
                "invalid_value", "Invalid 'audio': expected base64-encoded audio bytes.", "audio"
            ) from None
        self._buffer += audio
        per_ms = self.input.per_ms
        keep = MOST_AUDIO * per_ms
        if self.detection is not None and self._turn is None:
            keep = (prefix_of(self.detection) + LOOK_BACK) * per_ms
        excess = len(self._buffer) - keep - len(audio)
        if excess > 0:
            del self._buffer[:excess]
            self._dropped += excess
        self._mind.heard(audio)

    def _commit(self, _event: dict[str, Any]) -> None:
        by_turns = self.detection is not None and self._turn is None
        length = 0.0 if by_turns else len(self._buffer) / self.input.per_ms
        if length < 100:
            raise wire.Wrong(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. "
                f"Expected at least 100ms of audio, but buffer only has {length:.2f}ms of audio.",
                None,
            )
        item_id, self._turn = self._turn or self.identify("item"), None
        if self.detection is None:
            self._turn_start = self._dropped // self.input.per_ms
        self._commit_audio(item_id, (self._dropped + len(self._buffer)) // self.input.per_ms)
        self._since = (Cause.SPEECH, item_id)
        self._mind.cleared()

    def _commit_audio(self, item_id: str, end: int) -> None:
        per_ms = self.input.per_ms
        audio = bytes(self._buffer[max(self._turn_start * per_ms - self._dropped, 0) : end * per_ms - self._dropped])
        done = min(end * per_ms - self._dropped, len(self._buffer))
        del self._buffer[:done]
        self._dropped += done
        self._spoken[item_id] = len(audio) / per_ms
        self.emit("input_audio_buffer.committed", item_id=item_id, previous_item_id=next(reversed(self.items), None))
        item = {
            "id": item_id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }  # fmt: skip
        if self.config["audio"]["input"]["transcription"] is not None:
            self._transcripts.add(item_id)
        self.add_item(item)
        self.finish_item(item)
        self._mind.committed(item_id, audio)

    def _clear(self, _event: dict[str, Any]) -> None:
        self._dropped += len(self._buffer)
        self._buffer.clear()
        self._turn = None
        self._mind.cleared()
        self.emit("input_audio_buffer.cleared")

    def _create_item(self, event: dict[str, Any]) -> None:
        item, after = event["item"], event.get("previous_item_id")
        if after not in (None, "root") and after not in self.items:
            raise wire.Wrong(
                "item_create_invalid_previous_item_id",
                f"Error adding item: the previous item with id '{after}' does not exist.",
                "previous_item_id",
            )
        if item.get("id") in self.items:
            raise wire.Wrong(
                "item_create_duplicate_item_id", f"Error adding item: id '{item['id']}' exists already.", "item.id"
            )
        if len(item.get("id", "")) > 32:
            raise wire.Wrong("string_above_max_length", "Invalid 'item.id': string too long, at most 32.", "item.id")
        if item["type"] == "function_call_output" and not any(
            known.get("call_id") == item["call_id"] and known["type"] == "function_call"
            for known in self.items.values()
        ):
            raise wire.Wrong(
                "invalid_tool_call_id", f"Tool call ID '{item['call_id']}' not found in conversation.", "item.call_id"
            )
        item = {"object": "realtime.item", **item, "id": item.get("id") or self.identify("item"), "status": "completed"}
        self._context += len(json.dumps(item)) // 4
        if item["type"] == "function_call_output":
            self._since = (Cause.OUTPUT, item["id"])
        elif item.get("role") == "user":
            self._since = (Cause.TEXT, item["id"])
        if item["type"] == "mcp_approval_response":
            del item["status"]
        self.add_item(item, after)
        self.finish_item(item)

    def _known(self, event: dict[str, Any], verb: str) -> dict[str, Any]:
        item = self.items.get(event["item_id"])
        if item is None:
            raise wire.Wrong(
                f"item_{verb}_invalid_item_id",
                f"Error with {verb} of item: the item with id '{event['item_id']}' does not exist.",
                "item_id",
            )
        return item

    def _delete_item(self, event: dict[str, Any]) -> None:
        self._known(event, "delete")
        del self.items[event["item_id"]]
        self._spoken.pop(event["item_id"], None)
        self.emit("conversation.item.deleted", item_id=event["item_id"])

    def _retrieve_item(self, event: dict[str, Any]) -> None:
        self.emit("conversation.item.retrieved", item=self._known(event, "retrieve"))

    def _truncate_item(self, event: dict[str, Any]) -> None:
        item = self._known(event, "truncate")
        if item.get("role") != "assistant":
            raise wire.Wrong("invalid_value", "Only model output audio messages can be truncated.", "item_id")
        if event["content_index"] != 0:
            raise wire.Wrong("invalid_value", "Invalid 'content_index': no such content part.", "content_index")
        length, end = int(self._spoken.get(item["id"], 0)), event["audio_end_ms"]
        if end > length:
            raise wire.Wrong(
                "invalid_value", f"Audio content of {length}ms is already shorter than {end}ms", "audio_end_ms"
            )
        self._spoken[item["id"]] = end
        for part in item["content"]:
            part.pop("transcript", None)
        self.emit("conversation.item.truncated", item_id=item["id"], content_index=0, audio_end_ms=end)

    def _create_response(self, event: dict[str, Any]) -> None:
        options, name = event.get("response") or {}, event.get("event_id")
        for entry in options.get("input", ()):
            if entry["type"] == "item_reference" and entry["id"] not in self.items:
                raise wire.Wrong("invalid_value", f"Item '{entry['id']}' does not exist.", "response.input")
        if options.get("conversation") == "none":
            self._mind.wanted(Wish(Cause.RESPONSE, options, name))
            return
        if self.active is not None:
            raise wire.Wrong(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self.active.id}. "
                "Wait until the response is finished before creating a new one.",
                None,
            )
        cause, item_id = self._since or (Cause.RESPONSE if self._asked else Cause.GREET, "")
        self._asked = True
        self._want(Wish(cause, options, name, item_id))

    def _want(self, wish: Wish) -> None:
        self._stop_idle()
        self._mind.wanted(wish)

    def _cancel_response(self, event: dict[str, Any]) -> None:
        name = event.get("response_id")
        for response in (*self._aside, self.active):
            if response is not None and (response.id == name or (name is None and response is self.active)):
                response.cancel("client_cancelled")
                return
        raise wire.Wrong("response_cancel_not_active", "Cancellation failed: no active response found", None)

    # -- The silent caller (idle_timeout_ms)

    def _start_idle(self, spoken_ms: float) -> None:
        self._stop_idle()
        limit = (self.detection or {}).get("idle_timeout_ms")
        if limit is not None:
            self._idle = self.clock.callLater((spoken_ms + limit) / 1000, self._idled, limit)

    def _stop_idle(self) -> None:
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self._idle = None

    def _idled(self, limit: int) -> None:
        if self._turn is not None or self.active is not None:
            return
        now = (self._dropped + len(self._buffer)) // self.input.per_ms
        item_id = self.identify("item")
        self._turn_start = max(now - limit, 0)
        self.emit(
            "input_audio_buffer.timeout_triggered", audio_start_ms=self._turn_start, audio_end_ms=now, item_id=item_id
        )
        self._commit_audio(item_id, now)
        self._want(Wish(Cause.SPEECH, item_id=item_id))


def _patched(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` laid over it, objects merged except formats, which are replaced."""
    merged = dict(base)
    for key, value in patch.items():
        inner = merged.get(key)
        merged[key] = (
            _patched(inner, value) if key != "format" and isinstance(value, dict) and isinstance(inner, dict) else value
        )
    return merged
