"""One GPT-Live conversation with everything around it made up.

Whatever the client sends passes the official types, down to unknown keys, and the order of the protocol: session.start
first and once, nothing else before session.started, nothing after session.close.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from openai.types.live import ClientEvent, ServerEvent
from pydantic import BaseModel

from extenbot.ai.live import open_live
from extenbot.ai.pricing import PriceTable
from extenbot.interfaces import Json, LinkListener, Manner, Price, VoiceOrder, VoiceSurroundings
from tests.ai.world import FakeListener, FakeLog, FakePlayout, extras, order
from tests.clock import Clock
from tests.fakes import CountingTokens

NOW = 1_700_000_000
LIFE = 7200
TONE, SILENCE = b"\x55", b"\xff"


def _by_type(union: Any) -> dict[str, type[BaseModel]]:
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(union)[0])}


CLIENT, SERVER = _by_type(ClientEvent), _by_type(ServerEvent)


def check(event: dict[str, Any]) -> None:
    """Raise when the official types would not accept `event` as it stands, down to unknown keys."""
    kind = CLIENT.get(event.get("type", ""))
    if kind is None:
        raise ValueError(f"unknown event type {event.get('type')!r}")
    if found := list(extras(kind.model_validate(event, strict=True), "")):
        raise ValueError(f"unknown keys {found}")
    if event["type"].endswith((".commentary.append", ".thinking.append", ".instructions.append")):
        if "delegation_id" not in event:
            raise ValueError("delegation_id must be there, if only as null")
        if len(event["content"]) > 1200:
            raise ValueError("too long for one message")


class LiveLink:
    """Keeps what is sent, and is strict about it."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.started = False
        self.ending = False
        self.behind = 0
        self.closed = 0

    def send(self, text: bytes) -> None:
        event = json.loads(text)
        check(event)
        assert not self.closed, "sent after the end"
        assert not self.ending, "sent after session.close"
        first = not self.sent
        assert (event["type"] == "session.start") == first, f"{event['type']} as message {len(self.sent) + 1}"
        assert first or self.started, f"{event['type']} before session.started"
        self.ending = event["type"] == "session.close"
        self.sent.append(event)

    def waiting(self) -> int:
        return self.behind

    def close(self) -> None:
        self.closed += 1


def live_order(*, manner: Mapping[str, Any] | None = None, **changes: Any) -> VoiceOrder:
    """A call of a bot on GPT-Live."""
    fields: dict[str, Any] = {"model": "gpt-live-1.1", "manner": replace(Manner(), **(manner or {}))}
    return order(**(fields | changes))


class LiveWorld:
    """A conversation and its surroundings. It has dialled when this is made."""

    def __init__(self, wanted: VoiceOrder | None = None, url: str = "wss://voice.example/v1/realtime") -> None:
        self.order = wanted or live_order()
        self.clock = Clock()
        self.links: list[LiveLink] = []
        self.listeners: list[LinkListener] = []
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
            prices=PriceTable({"gpt-6-luna": Price(text=(1.0, 0.1, 8.0))}),
            now=lambda: NOW + self.clock.seconds(),
        )
        self._taken: dict[int, int] = {}
        self.voice = open_live(self.order, self.surroundings, url)

    def _connect(self, url: str, headers: Mapping[str, str], listener: LinkListener, timeout: float) -> LiveLink:
        self.dialled.append((url, dict(headers), timeout))
        self.links.append(LiveLink())
        self.listeners.append(listener)
        return self.links[-1]

    # -- The wire; `at` is the number of a session, the latest by default

    def server(self, kind: str, *, at: int = -1, **fields: object) -> None:
        """The service says this, in a form that the official types know."""
        event = {"type": kind, "event_id": "e", **fields}
        SERVER[kind].model_validate(event)
        self.listeners[at].received(json.dumps(event).encode())

    def sent(self, at: int = -1) -> list[dict[str, Any]]:
        """What the client has sent there since the last time, without the caller's audio."""
        return [event for event in self.all_sent(at) if event["type"] != "session.input_audio.append"]

    def all_sent(self, at: int = -1) -> list[dict[str, Any]]:
        """The same with it."""
        place = at % len(self.links)
        link = self.links[place]
        new, self._taken[place] = link.sent[self._taken.get(place, 0) :], len(link.sent)
        return new

    def drop(self, code: int | None = 1006, reason: str = "", *, at: int = -1) -> None:
        """The websocket closes."""
        self.listeners[at].lost(code == 1000, code, reason)

    @property
    def timers(self) -> list[float]:
        """In how many seconds something happens by itself, but for the end of the session far ahead."""
        waits = [call.getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()]
        return [wait for wait in waits if wait < 3000]

    def wait(self, seconds: float) -> None:
        """Time passes, in steps."""
        for _ in range(round(seconds * 8)):
            self.clock.advance(0.125)

    # -- Ready-made stretches of a session

    def resource(self, *, law: str = "", life: float = LIFE) -> Json:
        """What the service says of a session."""
        audio = {"format": {"type": law or self.order.format, "rate": 8000}, "output": {"voice": "marin"}}
        ends = int(NOW + self.clock.seconds() + life)
        return {"id": "live_1", "expires_at": ends, "model": "gpt-live-1.1", "status": "active", "audio": audio}

    def start(self, *, at: int = -1, law: str = "", life: float = LIFE) -> list[dict[str, Any]]:
        """The websocket opens, and the session; what it was started with."""
        self.listeners[at].connected()
        sent = self.sent(at)
        self.links[at].started = True
        self.server("session.started", at=at, session=self.resource(law=law, life=life))
        return sent

    def up(self, **start: Any) -> LiveWorld:
        """The caller has been greeted, and heard it."""
        self.start(**start)
        self.voice.greet()
        self.sent()
        self.says("Hello!")
        self.playout.play()
        self.wait(1)
        assert self.sent() == []
        return self

    def sound(self, ms: int, *, at: int = -1, what: bytes = TONE, until: int = 0) -> None:
        """Audio of the bot; `until` by the session's own time, if the service says it."""
        times = {"start_ms": until - ms, "end_ms": until} if until else {}
        self.server("session.output_audio.delta", at=at, delta=b64encode(what * 8 * ms).decode(), **times)

    def says(self, words: str, ms: int = 200, *, at: int = -1) -> None:
        """The bot says this."""
        self.server("session.output_transcript.delta", at=at, delta=words, start_ms=0, end_ms=ms)
        self.sound(ms, at=at)

    def caller(self, words: str, start: int, end: int, *, at: int = -1) -> None:
        """The caller says this, by the session's own time."""
        self.server("session.input_transcript.delta", at=at, delta=words, start_ms=start, end_ms=end)

    def hear(self, seconds: float, code: bytes = b"\x2a") -> None:
        """The phone sends, in real time."""
        for _ in range(round(seconds * 50)):
            self.voice.heard(code * 160)
            self.clock.advance(0.02)

    def backend(self, kind: str, *, at: int = -1, delegation: str = "d1", **fields: object) -> None:
        """An event of the second model."""
        self.server("response.event", at=at, event={"type": kind, **fields}, delegation_id=delegation)

    def calls(self, call: str, name: str = "look_up", arguments: str = "{}", place: int = 0, **where: Any) -> None:
        """It asks for a function."""
        item = {"type": "function_call", "status": "completed", "call_id": call, "name": name, "arguments": arguments}
        self.backend("response.output_item.done", output_index=place, item=item, **where)

    def done(self, kind: str = "response.completed", into: int = 0, out: int = 0, **where: Any) -> None:
        """One of its responses ends."""
        usage = {"input_tokens": into, "output_tokens": out, "total_tokens": into + out}
        self.backend(kind, response={"id": "resp_1", "model": "gpt-6-luna", "usage": usage}, **where)

    def error(self, code: str, message: str = "", client_event_id: str | None = None, kind: str = "x") -> None:
        """An error event."""
        error = {"type": kind, "code": code, "message": message, "client_event_id": client_event_id}
        self.server("error", error=error)

    def closed(self, reason: str, seconds: float = 0.0, *, at: int = -1) -> None:
        """The service has closed the session."""
        self.server("session.closed", at=at, reason=reason, session=self.resource(), usage={"seconds": seconds})
