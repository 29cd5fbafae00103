"""The GPT-Live protocol spoken by the local voice, for calls without a key and for tests.

Inside is the same session, with the same scripts and the same demo mind, that speaks the Realtime protocol; here its
events are put into the other protocol's form. What is different there is done here: the client begins, audio runs at
the pace of speech, the model falls silent when the caller speaks, functions are called by a second model behind the
first, and time is what is paid for. Messages are checked as strictly as the service does; a mistake is an `error` that
names the message, and before the session has started it is also the end.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from extenbot.interfaces import Json, Tokens
from extenbot.sandbox import session as inside
from extenbot.sandbox.session import Mind, Session

FRAME = 0.02
"""Seconds of audio in one delta."""

MOST_LATE = 0.2
"""Seconds of speech that are made up for at most, when we were busy."""

LIFE = 7200.0
BILL = 10.0
"""Seconds between two words on what has been used."""

FORMATS = {"audio/pcmu": b"\xff", "audio/pcma": b"\xd5"}
_OPTIONAL: Mapping[str, frozenset[str]] = {
    "session.start": frozenset({"session"}),
    "session.close": frozenset(),
    "session.input_audio.append": frozenset({"audio"}),
    "session.input_audio.mute": frozenset(),
    "session.input_audio.unmute": frozenset(),
    "session.commentary.append": frozenset({"content", "delegation_id"}),
    "session.thinking.append": frozenset({"content", "delegation_id"}),
    "session.instructions.append": frozenset({"content", "delegation_id"}),
    "response.item.create": frozenset({"item"}),
    "response.create": frozenset(),
}
_SESSION = frozenset(
    {"model", "audio", "client", "delegation", "input", "instructions", "safety_identifier", "store", "triggers"}
)
MOST_CONTENT = 2000  # characters, some 500 tokens


class Wrong(Exception):
    """A message that the service would refuse: code and words."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class LiveSession:
    """One session, to the server as a `Session` is: `opened`, `received`, `lost`."""

    def __init__(
        self,
        clock: Any,
        tokens: Tokens,
        mind: Callable[[str], Callable[[Session], Mind] | None],
        send: Callable[[bytes], None],
        close: Callable[[int, str], None],
        *,
        wall: Callable[[], float] | None = None,
    ) -> None:
        """`mind` finds what answers for a model, or None when there is no such model."""
        self.life = LIFE
        self.alive = True
        self._clock = clock
        self._tokens = tokens
        self._mind = mind
        self._send = send
        self._close = close
        self._wall = wall or clock.seconds
        self._inner: Session | None = None
        self._config: dict[str, Any] = {}
        self._start_id = ""
        self._started_at: float | None = None
        self._asked_to_close = ""
        self._heard = self._spoken = 0  # ms on either side
        self._queue: deque[bytes] = deque()  # frames of the bot that wait for their time
        self._half = b""
        self._due = 0.0  # when the next one leaves
        self._words: deque[tuple[int, str]] = deque()  # of the bot: frames before they are due, and what is said then
        self._work = ""  # the delegation under way
        self._update: dict[str, Any] = {}  # the settings of the session inside
        self._active = False  # the voice is making an utterance
        self._wishes: deque[dict[str, str]] = deque()  # the next ones
        self._timers: dict[str, Any] = {}
        self._count = 0

    # -- The socket's side

    def opened(self) -> None:
        """The client speaks first."""

    def received(self, data: bytes) -> None:
        """One message of the client. Never raises."""
        if not self.alive:
            return
        name = None
        try:
            event = json.loads(data)
            if not isinstance(event, dict):
                raise Wrong("invalid_type", "Expected an event object.")
            name = event.get("event_id") if isinstance(event.get("event_id"), str) else None
            self._check(event)
            self._take(event, name)
        except Wrong as wrong:
            self._refuse(wrong, name)
        except (ValueError, RecursionError):
            self._refuse(Wrong("invalid_json", "We could not parse the JSON of your message."), name)

    def lost(self) -> None:
        """The connection is gone, whoever closed it."""
        self.alive = False
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._timers.clear()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.lost()

    # -- What the client says

    def _check(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if not isinstance(kind, str) or kind not in _OPTIONAL:
            raise Wrong("invalid_value", f"Invalid value: '{kind}'.")
        known = _OPTIONAL[kind]
        for key in event.keys() - known - {"type", "event_id"}:
            raise Wrong("unknown_parameter", f"Unknown parameter: '{key}'.")
        for key in known - event.keys() - {"delegation_id"}:
            raise Wrong("missing_required_parameter", f"Missing required parameter: '{key}'.")
        if (kind == "session.start") == (self._inner is not None):
            raise Wrong("invalid_event", "A session starts once, and with session.start.")
        for key in ("content", "audio"):
            if key in event and not isinstance(event[key], str):
                raise Wrong("invalid_type", f"Invalid type for '{key}': expected a string.")
        if len(event.get("content", "")) > MOST_CONTENT:
            raise Wrong("string_above_max_length", "Invalid 'content': string too long.")

    def _refuse(self, wrong: Wrong, name: str | None) -> None:
        error = {"type": "invalid_request_error", "code": wrong.code, "message": str(wrong), "param": None}
        self._emit("error", error=error, client_event_id=name)
        if self._started_at is None:
            self._end("close_requested", 4000)

    def _take(self, event: dict[str, Any], name: str | None) -> None:
        match event["type"]:
            case "session.start":
                self._start(event["session"], name)
            case "session.close":
                self._asked_to_close = name or ""
                self._end("close_requested", 1000)
            case "session.input_audio.append":
                self._append(event["audio"])
            case "session.commentary.append":
                self._appended("commentary", name)
                self._respond(instructions=event["content"])
            case "session.instructions.append":
                self._appended("instructions", name)
                self._tell({"type": "conversation.item.create", "item": _message("user", event["content"])})
                if "respond" in event["content"].lower():
                    self._respond()
            case "session.thinking.append":
                self._appended("thinking", name)
                self._tell({"type": "conversation.item.create", "item": _message("system", event["content"])})
            case "response.item.create":
                self._tell({"type": "conversation.item.create", "item": event["item"]})
            case "response.create":
                self._respond()

    def _start(self, session: Any, name: str | None) -> None:
        if not isinstance(session, dict) or not isinstance(session.get("model"), str):
            raise Wrong("missing_required_parameter", "Missing required parameter: 'session.model'.")
        for key in session.keys() - _SESSION:
            raise Wrong("unknown_parameter", f"Unknown parameter: 'session.{key}'.")
        audio = session.get("audio") or {}
        form = audio.get("format") if isinstance(audio, dict) else None
        if not isinstance(form, dict) or form.get("type") not in FORMATS or form.get("rate") != 8000:
            raise Wrong("invalid_value", "Invalid 'session.audio.format'.")
        mind = self._mind(session["model"])
        if mind is None:
            raise Wrong("model_not_found", f"The model '{session['model']}' does not exist.")
        delegation = session.get("delegation") or {}
        backend = delegation.get("responses") or {} if isinstance(delegation, dict) else {}
        self._config, self._start_id = session, name or ""
        self._silence = FORMATS[form["type"]]
        self._inner = Session(
            self._clock, self._tokens, mind, self._say, self._inner_closed, model=session["model"], wall=self._wall
        )
        if self._inner.life < inside.LIFE:  # a script wants it so
            self.life = self._inner.life
        self._inner.life = self.life + BILL  # it is ours that ends
        update: dict[str, Any] = {
            "type": "realtime",
            "audio": {
                "input": {"format": {"type": form["type"]}, "transcription": {"model": "gpt-transcribe"}},
                "output": {"format": {"type": form["type"]}},
            },
        }
        if isinstance(session.get("instructions"), str):
            update["instructions"] = session["instructions"]
        if backend.get("tools"):
            update["tools"] = backend["tools"]
        self._update = update
        self._inner.opened()

    def _respond(self, **options: str) -> None:
        """Let the voice speak, after what it says now."""
        if self._active:
            self._wishes.append(options)
        else:
            self._active = True
            self._tell({"type": "response.create", "response": options})

    def _append(self, audio: str) -> None:
        self._heard += len(audio) * 3 // 4 // 8
        self._tell({"type": "input_audio_buffer.append", "audio": audio})

    def _tell(self, event: Json) -> None:
        if self._inner is not None:
            self._inner.received(json.dumps(event).encode())

    # -- What the voice says, in the Realtime protocol

    def _say(self, data: bytes) -> None:
        event = json.loads(data)
        match event["type"]:
            case "session.created":
                self._tell({"type": "session.update", "session": self._update})
            case "session.updated" if self._started_at is None:
                self._begin()
            case "response.created":
                self._active = True
            case "error":
                self._inner_erred(event["error"])
            case "input_audio_buffer.speech_started":
                self._queue.clear()
                self._words.clear()
                self._half = b""
            case "conversation.item.input_audio_transcription.completed" if event["transcript"]:
                words = {"delta": event["transcript"], "start_ms": max(self._heard - 1000, 0), "end_ms": self._heard}
                self._emit("session.input_transcript.delta", **words)
            case "response.output_audio_transcript.delta":
                self._words.append((len(self._queue), event["delta"]))
            case "response.output_audio.delta":
                self._hear(b64decode(event["delta"]))
            case "response.output_item.done" if event["item"]["type"] == "function_call":
                self._call(event["item"])
            case "response.done":
                self._active = False
                self._flush()
                self._answered(event["response"])
                if self._wishes:
                    self._respond(**self._wishes.popleft())

    def _begin(self) -> None:
        self._started_at = self._clock.seconds()
        for item in self._config.get("input") or ():
            self._tell({"type": "conversation.item.create", "item": item})
        self._emit("session.started", session=self._shown(), client_event_id=self._start_id or None)
        self._due = self._started_at + FRAME
        self._set("pace", FRAME, self._pace)
        self._set("bill", BILL, self._bill)
        self._set("life", self.life, self._expire)

    def _shown(self) -> dict[str, Any]:
        ends = int(self._wall() + self.life - self._seconds())
        return {**self._config, "id": f"live_{self._tokens.text(12)}", "expires_at": ends, "status": "active"}

    def _hear(self, audio: bytes) -> None:
        """Audio of the voice, as fast as it makes it."""
        audio = self._half + audio
        size = 160
        whole = len(audio) - len(audio) % size
        self._queue.extend(audio[at : at + size] for at in range(0, whole, size))
        self._half = audio[whole:]

    def _flush(self) -> None:
        if self._half:
            self._queue.append(self._half.ljust(160, self._silence))
            self._half = b""

    def _pace(self) -> None:
        """20 ms of speech, or of nothing. A late one is made up for, so that all of it keeps the pace."""
        now = self._clock.seconds()
        self._due = max(self._due + FRAME, now - MOST_LATE)
        self._set("pace", max(self._due - now, 0.0), self._pace)
        while self._words and not self._words[0][0]:
            words = self._words.popleft()[1]
            self._emit("session.output_transcript.delta", delta=words, start_ms=self._spoken, end_ms=self._spoken + 20)
        if self._queue:
            frame = b64encode(self._queue.popleft()).decode()
            times = {"start_ms": self._spoken, "end_ms": self._spoken + 20}
            self._send_event({"type": "session.output_audio.delta", "delta": frame, **times})
            self._words = deque((max(left - 1, 0), words) for left, words in self._words)
        self._spoken += 20

    def _call(self, item: dict[str, Any]) -> None:
        """The second model calls a function."""
        if not self._work:
            self._work = f"deleg_{self._tokens.text(12)}"
            work = {"id": self._work, "type": "delegation", "target": "responses"}
            self._emit("session.delegation.created", delegation=work, offset_ms=self._spoken)
        inner = {"type": "response.output_item.done", "output_index": 0, "item": item}
        self._emit("response.event", event=inner, delegation_id=self._work)

    def _answered(self, response: dict[str, Any]) -> None:
        if self._work:
            usage = response.get("usage") or {}
            counts = {key: usage.get(key, 0) for key in ("input_tokens", "output_tokens", "total_tokens")}
            inner = {"id": response["id"], "status": "completed", "usage": counts, "model": "gpt-5.6-luna"}
            done = {"type": "response.completed", "response": inner}
            self._emit("response.event", event=done, delegation_id=self._work)
            self._work = ""

    def _inner_erred(self, error: dict[str, Any]) -> None:
        if self._started_at is None:
            wrong = Wrong(error.get("code") or "invalid_value", error.get("message") or "Refused.")
            self._refuse(wrong, self._start_id or None)
        else:
            self._emit("error", error={**error, "code": error.get("code") or "server_error"})

    def _inner_closed(self, code: int, reason: str) -> None:
        self._inner = None
        if code == 1006:
            self.lost()
            self._close(1006, reason)
        else:
            self._end("connection_lost", code)

    # -- Time, and the end

    def _seconds(self) -> float:
        return 0.0 if self._started_at is None else round(float(self._clock.seconds() - self._started_at), 3)

    def _bill(self) -> None:
        self._set("bill", BILL, self._bill)
        self._emit("session.usage.updated", usage={"seconds": self._seconds()})

    def _expire(self) -> None:
        self._end("expired", 1001)

    def _end(self, reason: str, code: int) -> None:
        if not self.alive:
            return
        if self._started_at is not None:
            usage = {"seconds": self._seconds()}
            ours = self._asked_to_close or None
            self._emit("session.closed", reason=reason, session=self._shown(), usage=usage, client_event_id=ours)
        self.lost()
        self._close(code, reason)

    def _appended(self, kind: str, name: str | None) -> None:
        times = {"start_ms": self._spoken, "end_ms": self._spoken}
        self._emit(f"session.{kind}.appended", client_event_id=name, **times)

    def _set(self, name: str, seconds: float, do: Callable[[], None]) -> None:
        self._timers[name] = self._clock.callLater(seconds, do)

    def _emit(self, kind: str, **fields: Any) -> None:
        self._count += 1
        told = {key: value for key, value in fields.items() if value is not None}
        self._send_event({"type": kind, "event_id": f"event_{self._count}", **told})

    def _send_event(self, event: Json) -> None:
        if self.alive:
            self._send(json.dumps(event, separators=(",", ":")).encode())


def _message(role: str, text: str) -> Json:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}
