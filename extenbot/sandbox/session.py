"""One Realtime session as the server sees it: client events in, server events out, no socket.

The session keeps what the wire keeps: the configuration in force, the input buffer on
its own clock (bytes received since the start), the conversation's items, and at most
one response that writes into it (and any number beside it). What to hear and what to
say is the business of a `Mind`: it is asked by `Mind.wanted` and answers by filling a
`Response`, whose audio leaves at `speed` times real time, as the real service's does.
It tells the session of turns by `speech_started` and `speech_stopped`.
Sound is not kept: of an item's audio only the length is known, for truncation.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from extenbot.interfaces import Json, Tokens
from extenbot.sandbox import wire
from extenbot.sandbox.formats import FORMATS, Format
from extenbot.sandbox.response import Cause, Response, Wish
from extenbot.sandbox.turns import prefix_of

MOST_ITEMS = 1000  # the oldest are forgotten
MOST_AUDIO = 120_000  # ms of caller audio kept for one turn
LOOK_BACK = 2000  # ms of audio kept while nobody speaks, besides the prefix
LIFE = 3600.0  # seconds, as the real service's sessions
EXPIRED = "Your session hit the maximum duration of 60 minutes."


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
