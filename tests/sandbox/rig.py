"""A client on a fake clock that holds every event it gets against the official types."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, get_args

from openai.types.realtime import RealtimeServerEvent

from extenbot.sandbox.formats import FORMATS
from extenbot.sandbox.script import read
from extenbot.sandbox.scripted import ScriptSession
from extenbot.sandbox.sounds import Sound, render
from tests.clock import Clock
from tests.fakes import CountingTokens

SERVER = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(RealtimeServerEvent)[0])
}
PHONE: dict[str, Any] = {
    "type": "realtime",
    "audio": {
        "input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "gpt-transcribe"}},
        "output": {"format": {"type": "audio/pcmu"}},
    },
}


def validated(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The event, when the official SDK's type takes it strictly."""
    SERVER[event["type"]].model_validate(event, strict=True)
    return event


class Client:
    """One session with a script, from its opening on."""

    def __init__(self, script: str = "", *, model: str = "m", phone: bool = True) -> None:
        self.clock = Clock()
        self.events: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.foreign: list[dict[str, Any]] = []  # of types the SDK does not know
        self.session = ScriptSession(
            self.clock, CountingTokens(), read(script), self._received, self._closed, model=model, wall=lambda: 1e9
        )
        self.session.opened()
        if phone and self.events:
            self.send("session.update", session=PHONE)

    def _received(self, text: bytes) -> None:
        event = json.loads(text)
        if event["type"] in SERVER:
            self.events.append(event)
            validated(event)
        else:
            self.foreign.append(event)

    def _closed(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def send(self, kind: str, **fields: Any) -> None:
        """One client event; the clock is turned so that what is due at once has happened."""
        self.session.received(json.dumps({"type": kind, **fields}).encode())
        self.clock.advance(0)

    def hear(self, sound: bytes) -> None:
        """Audio in pieces of 40 ms, in real time."""
        size = FORMATS[self.session.config["audio"]["input"]["format"]["type"]].per_ms * 40
        for start in range(0, len(sound), size):
            self.send("input_audio_buffer.append", audio=base64.b64encode(sound[start : start + size]).decode())
            self.clock.advance(0.04)

    def speak(self, seconds: float = 1.0, silence: float = 1.0) -> None:
        """The caller: a tone of 800 Hz, then silence, in real time."""
        wire = FORMATS[self.session.config["audio"]["input"]["format"]["type"]]
        self.hear(render(Sound(hz=800, seconds=seconds), wire) + render(Sound(seconds=silence), wire))

    def wait(self, seconds: float) -> None:
        """Nothing is said."""
        for _ in range(round(seconds / 0.125)):
            self.clock.advance(0.125)

    def types(self) -> list[str]:
        """The events so far; several deltas in a row count once."""
        names: list[str] = []
        for event in self.events:
            if not (names and names[-1] == event["type"] and names[-1].endswith("delta")):
                names.append(event["type"])
        return names

    def last(self, kind: str) -> dict[str, Any]:
        """The latest event of a type."""
        return next(event for event in reversed(self.events) if event["type"] == kind)

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Every event of a type."""
        return [event for event in self.events if event["type"] == kind]

    def audio(self) -> bytes:
        """All the bot's audio."""
        return b"".join(base64.b64decode(event["delta"]) for event in self.all("response.output_audio.delta"))

    def forget(self) -> None:
        """Begin a new list of events."""
        self.events.clear()

    def gone(self) -> list[Any]:
        """Hang up; what the clock still holds, which must be nothing."""
        self.session.lost()
        return list(self.clock.getDelayedCalls())
