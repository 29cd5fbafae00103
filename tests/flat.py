"""A server of one's own that speaks the flat form of the beta, as speaches and Qwen do: PCM, and names of old.

What is of today's form it refuses whole, as those servers do. Behind it is the scripted voice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from extenbot.sandbox.script import Script
from extenbot.sandbox.scripted import ScriptSession
from tests.fakes import CountingTokens

SESSION = frozenset(
    {
        "modalities", "instructions", "voice", "input_audio_format", "output_audio_format", "speed", "temperature",
        "input_audio_transcription", "input_audio_noise_reduction", "turn_detection", "tools", "tool_choice",
        "max_response_output_tokens",
    }
)  # fmt: skip
RESPONSE = frozenset({"modalities", "instructions", "tools", "tool_choice", "conversation", "input", "metadata"})
NAMES = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "conversation.item.added": "conversation.item.created",
}
UNKNOWN = frozenset({"conversation.item.done", "rate_limits.updated"})


class FlatSession:
    """One session, to the tests' link as the scripted voice is."""

    def __init__(
        self,
        clock: Any,
        tokens: CountingTokens,
        script: Script,
        send: Callable[[bytes], None],
        close: Callable[[int, str], None],
        wall: Callable[[], float],
    ) -> None:
        self._send = send
        self._settings: dict[str, Any] = {}
        self._inner = ScriptSession(clock, tokens, script, self._told, close, wall=wall)

    def opened(self) -> None:
        self._inner.opened()

    def lost(self) -> None:
        self._inner.lost()

    def received(self, data: bytes) -> None:
        event = json.loads(data)
        match event["type"]:
            case "session.update":
                self._update(event)
            case "response.create":
                response = event.get("response", {})
                if not self._strange(response, RESPONSE, event):
                    kept = {key: value for key, value in response.items() if key != "modalities"}
                    self._inner.received(json.dumps({**event, "response": kept}).encode())
            case "conversation.item.truncate":
                self._refuse(event, "unknown_event", "There is no such event.")
            case _:
                self._inner.received(data)

    def _update(self, event: dict[str, Any]) -> None:
        flat = event["session"]
        if self._strange(flat, SESSION, event):
            return
        if {flat.get("input_audio_format"), flat.get("output_audio_format")} != {"pcm16"}:
            self._refuse(event, "invalid_value", "Only pcm16.")
            return
        self._settings |= flat
        pcm = {"type": "audio/pcm", "rate": 24000}
        heard: dict[str, Any] = {"format": pcm, "transcription": {"model": "gpt-transcribe"}}
        if "turn_detection" in flat:
            heard["turn_detection"] = flat["turn_detection"]
        same = {key: flat[key] for key in ("instructions", "tools", "tool_choice") if key in flat}
        session = {"type": "realtime", "audio": {"input": heard, "output": {"format": pcm}}, **same}
        self._inner.received(json.dumps({**event, "session": session}).encode())

    def _strange(self, given: Mapping[str, Any], known: frozenset[str], event: Mapping[str, Any]) -> bool:
        for key in given.keys() - known:
            self._refuse(event, "unknown_parameter", f"Unknown parameter: '{key}'.")
            return True
        return False

    def _refuse(self, event: Mapping[str, Any], code: str, words: str) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": words, "event_id": event.get("event_id")}
        self._send(json.dumps({"type": "error", "error": error}).encode())

    def _told(self, data: bytes) -> None:
        event = json.loads(data)
        kind = event["type"]
        if kind in UNKNOWN:
            return
        if kind == "session.created":
            event["session"] = {"id": "flat", "modalities": ["text", "audio"], "input_audio_format": "pcm16"}
        elif kind == "session.updated":
            event["session"] = {"id": "flat", **self._settings}
        event["type"] = NAMES.get(kind, kind)
        self._send(json.dumps(event).encode())
