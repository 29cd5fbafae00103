"""One conversation with everything around it made up: link, playout, listener, log and clock.

Whatever the conversation sends passes the official types before a test sees it.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from openai.types.realtime import RealtimeClientEvent
from pydantic import BaseModel

from extenbot.ai.realtime import open_voice
from extenbot.errors import BackendLost
from extenbot.interfaces import Bot, Json, LinkListener, Played, Prices, ToolCall, VoiceOrder, VoiceSurroundings
from tests.clock import Clock
from tests.fakes import CountingTokens

_CLIENT: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(RealtimeClientEvent)[0])
}


def check(event: dict[str, Any]) -> None:
    """Raise when the official types would not accept `event` as it stands, down to unknown keys."""
    kind = _CLIENT.get(event.get("type", ""))
    if kind is None:
        raise ValueError(f"unknown event type {event.get('type')!r}")
    if found := list(extras(kind.model_validate(event, strict=True), "")):
        raise ValueError(f"unknown keys {found}")


def extras(value: object, path: str) -> Iterator[str]:
    """The keys that the official types do not know."""
    if isinstance(value, BaseModel):
        yield from (f"{path}.{key}" for key in value.model_extra or {})
        for key in type(value).model_fields:
            yield from extras(getattr(value, key), f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from extras(each, f"{path}[{index}]")


class FakeLink:
    """Keeps what is sent. `official`: it must be of the official form."""

    def __init__(self, *, official: bool = True) -> None:
        self.official = official
        self.sent: list[dict[str, Any]] = []
        self.behind = 0
        self.closed = 0

    def send(self, text: bytes) -> None:
        assert not self.closed, "sent after close"
        event = json.loads(text)
        if self.official:
            check(event)
        self.sent.append(event)

    def waiting(self) -> int:
        return self.behind

    def close(self) -> None:
        self.closed += 1


class FakePlayout:
    """Plays when a test says so, in bytes."""

    def __init__(self) -> None:
        self.on_drained: Callable[[], None] | None = None
        self.on_began: Callable[[str], None] | None = None
        self.held = False
        self.received: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self.live: list[str] = []  # not ended, in order
        self.finished: set[str] = set()

    @property
    def empty(self) -> bool:
        return all(self.sent[item] == self.received[item] for item in self.live)

    @property
    def waiting(self) -> int:
        return sum(self.received[item] - self.sent[item] for item in self.live)

    def add(self, item: str, audio: bytes) -> None:
        if item not in self.received:
            self.received[item] = self.sent[item] = 0
        if item not in self.live:
            self.live.append(item)
        self.received[item] += len(audio)

    def finish(self, item: str) -> None:
        self.finished.add(item)
        self._prune()

    def played(self, item: str) -> Played:
        return Played(item, self.received.get(item, 0), self.sent.get(item, 0))

    def cut(self) -> tuple[Played, ...]:
        victims = tuple(self.played(item) for item in self.live)
        self.live.clear()
        return victims

    def play(self, size: int = 1 << 30) -> None:
        """Put so many bytes on the wire."""
        if self.empty or self.held:
            return
        for item in self.live:
            part = min(size, self.received[item] - self.sent[item])
            if part and not self.sent[item] and self.on_began is not None:
                self.on_began(item)
            self.sent[item] += part
            size -= part
        self._prune()
        if self.empty and self.on_drained is not None:
            self.on_drained()

    def _prune(self) -> None:
        self.live = [item for item in self.live if item not in self.finished or self.sent[item] < self.received[item]]


class Priceless:
    """No model has a price."""

    def response(self, model: str, counts: Json) -> float | None:
        return None

    def transcription(self, model: str, usage: Json, seconds: float) -> float | None:
        return None

    def minute(self, model: str) -> float | None:
        return None


class FakeListener:
    """Writes down what the call is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def opened(self) -> None:
        self.told.append(("opened", None))

    def prepared(self) -> None:
        self.told.append(("prepared", None))

    def asked(self, tool: ToolCall) -> None:
        self.told.append(("asked", tool))

    def approval(self, tool: ToolCall) -> None:
        self.told.append(("approval", tool))

    def leaving(self, tool: ToolCall) -> None:
        self.told.append(("leaving", tool))

    def lost(self, why: BackendLost) -> None:
        self.told.append(("lost", why.cause))

    def finished(self) -> None:
        self.told.append(("finished", None))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


class FakeLog:
    """The timeline."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lines: list[tuple[str, dict[str, object]]] = []

    def happened(self, what: str, /, **fields: object) -> None:
        self.lines.append((what, fields))

    def elapsed(self) -> float:
        return self._clock.seconds()

    def of(self, what: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.lines if name == what]


END_CALL: Json = {"type": "function", "name": "end_call", "description": "Hang up.", "parameters": {"type": "object"}}
LOOK_UP: Json = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}


def bot(**changes: Any) -> Bot:
    """A bot with a key, an instruction and a welcome message."""
    given = {"instruction": "You are Eva.", "welcome": "Hello!", "token": "sk-secret", "model": "gpt-realtime-2.1"}
    fields = {"id": "b1", "account_id": "a1", "name": "Eva", "kind": "registrar", "username": "u", "password": "p"}
    return Bot(**(fields | given | changes))


def order(format: str = "audio/pcmu", **changes: Any) -> VoiceOrder:  # noqa: A002
    """A call from 100, with one ordinary function and one that ends the call."""
    return VoiceOrder(
        bot=bot(**changes),
        call_id="call1",
        format=format,
        caller="100",
        welcome=bot(**changes).welcome,
        tools=(LOOK_UP, END_CALL),
        terminal=frozenset({"end_call", "transfer_call"}),
    )


class World:
    """A conversation and its surroundings. It has dialled when this is made."""

    def __init__(
        self,
        wanted: VoiceOrder | None = None,
        url: str = "wss://voice.example/v1/realtime",
        prices: Prices | None = None,
    ) -> None:
        self.order = wanted or order()
        self.clock = Clock()
        self.links: list[FakeLink] = []
        self.sessions: list[LinkListener] = []
        self.playout = FakePlayout()
        self.listener = FakeListener()
        self.log = FakeLog(self.clock)
        self.dialled: list[tuple[str, dict[str, str], float]] = []
        self.surroundings = VoiceSurroundings(
            clock=self.clock,
            tokens=CountingTokens(),
            connect=self._connect,
            playout=self.playout,
            listener=self.listener,
            log=self.log,
            url=url,
            sandbox_url="ws://127.0.0.1:1/v1/realtime",
            open_timeout=10.0,
            prices=prices or Priceless(),
            now=lambda: 1_700_000_000.0 + self.clock.seconds(),
        )
        self._taken = 0
        self.voice = open_voice(self.order, self.surroundings, url, self.order.bot.model)

    def _connect(self, url: str, headers: Mapping[str, str], listener: LinkListener, timeout: float) -> FakeLink:
        self.dialled.append((url, dict(headers), timeout))
        self.links.append(FakeLink(official=self.order.bot.manner.dialect != "xai"))
        self.sessions.append(listener)
        self._taken = 0
        return self.link

    @property
    def link(self) -> FakeLink:
        """The latest one; an idle one when nothing was dialled."""
        return self.links[-1] if self.links else FakeLink()

    def connected(self) -> None:
        """The websocket is open."""
        self.sessions[-1].connected()

    def received(self, text: bytes) -> None:
        """The server says this, as it stands."""
        if self.sessions:
            self.sessions[-1].received(text)

    def drop(self, clean: bool, code: int | None, reason: str) -> None:
        """The websocket closes."""
        if self.sessions:
            self.sessions[-1].lost(clean, code, reason)

    @property
    def timers(self) -> list[float]:
        """In how many seconds something happens by itself, but for the end of the session far ahead."""
        now = self.clock.seconds()
        waits = [call.getTime() - now for call in self.clock.getDelayedCalls()]
        return [wait for wait in waits if wait < 3000]

    def server(self, kind: str, **fields: object) -> None:
        """The server says this."""
        self.received(json.dumps({"type": kind, "event_id": "e", **fields}).encode())

    def sent(self) -> list[dict[str, Any]]:
        """What the client has sent since the last time this was asked."""
        new, self._taken = self.link.sent[self._taken :], len(self.link.sent)
        return new

    def kinds(self) -> list[str]:
        """The types of what the client has sent since the last time."""
        return [event["type"] for event in self.sent()]

    # -- Ready-made stretches of a session

    def configure(self) -> None:
        """To just before the server confirms."""
        self.connected()
        self.server("session.created", session={"type": "realtime", "expires_at": 1})

    def updated(self, heard: str = "audio/pcmu", spoken: str = "audio/pcmu") -> None:
        """The server confirms these formats."""
        audio = {"input": {"format": {"type": heard}}, "output": {"format": {"type": spoken}}}
        self.server("session.updated", session={"type": "realtime", "audio": audio})

    def open(self) -> World:
        """An open session, its opening messages taken."""
        self.configure()
        self.updated(self.order.format, self.order.format)
        self.sent()
        return self

    def talk(self) -> World:
        """An open session whose greeting has been said and heard."""
        self.open()
        self.voice.greet()
        (create,) = self.sent()
        self.created("greeting", metadata=create["response"].get("metadata"))
        self.say("greeting", "hello", 800, "Hello!")
        self.said("greeting", "hello")
        self.done("greeting")
        self.playout.play()
        assert self.sent() == []
        return self

    def created(self, response: str, **fields: object) -> None:
        self.server("response.created", response={"id": response, "status": "in_progress", **fields})

    def say(self, response: str, item: str, size: int, words: str = "", content: int = 0) -> None:
        """Audio (and words) of the bot."""
        where = {"response_id": response, "item_id": item, "output_index": 0, "content_index": content}
        if words:
            self.server("response.output_audio_transcript.delta", **where, delta=words)
        self.server("response.output_audio.delta", **where, delta=b64encode(b"\x55" * size).decode())

    def said(self, response: str, item: str) -> None:
        self.server("response.output_audio.done", response_id=response, item_id=item)

    def done(self, response: str, status: str = "completed", **fields: object) -> None:
        self.server("response.done", response={"id": response, "status": status, "output": [], **fields})

    def failed(self, response: str, code: str | None, message: str = "", kind: str = "invalid_request_error") -> None:
        error = {"type": kind, "code": code, "message": message}
        self.done(response, "failed", status_details={"type": "failed", "error": error})

    def calls(self, response: str, call: str, name: str = "look_up", arguments: str = "{}", place: int = 0) -> None:
        """The model asks for a function."""
        item = {"type": "function_call", "status": "completed", "call_id": call, "name": name, "arguments": arguments}
        self.server("response.output_item.done", response_id=response, output_index=place, item=item)

    def error(self, code: str | None, message: str = "", event_id: str | None = None, kind: str = "x") -> None:
        self.server("error", error={"type": kind, "code": code, "message": message, "event_id": event_id})

    def speaks(self, item: str, previous: str = "") -> None:
        """The caller speaks; `item` is committed behind `previous`."""
        self.server("input_audio_buffer.speech_started", audio_start_ms=0, item_id=item)
        self.server("input_audio_buffer.speech_stopped", audio_end_ms=0, item_id=item)
        self.server("input_audio_buffer.committed", item_id=item, previous_item_id=previous or None)

    def transcribed(self, item: str, words: str) -> None:
        self.server(
            "conversation.item.input_audio_transcription.completed",
            item_id=item,
            content_index=0,
            transcript=words,
            usage={"type": "tokens", "total_tokens": 7, "input_tokens": 5, "output_tokens": 2},
        )
