"""One answer of the voice, from response.created to response.done.

A mind fills it; the events leave in the real service's order: `output_item.added`,
`conversation.item.added`, `content_part.added`, transcript and audio deltas, their
`done`s, `content_part.done`, `output_item.done`, `conversation.item.done`,
`response.done`; audio leaves at `speed` times real time.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from extenbot.interfaces import Json
from extenbot.sandbox.formats import FORMATS, Format

if TYPE_CHECKING:
    from extenbot.sandbox.session import Session


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
        self.tempo: float = output.get("speed") or 1.0  # how fast the voice speaks, not how fast its audio leaves
        self._session = session
        self._steps: deque[Callable[[], float]] = deque()
        self._timer: Any = None
        self._due = 0.0  # when the next step is, on the clock
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
                now = self._session.clock.seconds()
                self._due = max(self._due, now)
                self._timer = self._session.clock.callLater(self._due - now, self._run)

    def _run(self) -> None:
        self._timer = None
        while self._steps and self.active:
            self._due += self._steps.popleft()()  # from when it was due: a late clock does not slow the audio
            wait = self._due - self._session.clock.seconds()
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
