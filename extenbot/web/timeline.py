"""The timeline of a call in words: what kind of thing each event was, and how fast the bot answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

from extenbot.interfaces import Event, Json

KINDS: Mapping[str, str] = {
    "sip": "SIP",
    "media": "Media",
    "speech": "Speech",
    "model": "Model",
    "tool": "Functions",
    "error": "Errors",
}
"""What an event can be of, in words."""

_WORDS: Mapping[str, tuple[str, str]] = {
    # SIP
    "invited": ("sip", "Call from {caller} to {dialled}"),
    "ordered": ("sip", "Calling {dialled}"),
    "progress": ("sip", "The PBX says {code} {words}"),
    "answered": ("sip", "Answered"),
    "acked": ("sip", "The PBX has confirmed the answer"),
    "replaced": ("sip", "The caller is somebody else now: {caller}"),
    "transfer": ("sip", "Transfer: {code} {words}"),
    "leaving": ("sip", "Leaving the conversation by {tool}"),
    "leaving.politely": ("sip", "The bot is told to say goodbye"),
    "ended": ("sip", "Ended: {reason}"),
    # Media
    "media.moved": ("media", "The audio goes elsewhere now"),
    "media.ignored": ("media", "{packets} packets from a stranger were ignored"),
    "dtmf": ("media", "Key {digit}"),
    "recording.failed": ("error", "The recording has stopped: {words}"),
    # Speech
    "speech.started": ("speech", "The caller speaks"),
    "speech.stopped": ("speech", "The caller has finished"),
    "barge_in": ("speech", "The caller interrupted the bot after {ms} ms of this sentence"),
    "first_audio": ("speech", "First audio of the bot after {ms} ms"),
    "silence": ("speech", "The caller has been silent for {seconds} s"),
    "turn": ("speech", "The bot answered"),
    "greeting.ready": ("speech", "The greeting is ready"),
    # Model
    "session.connected": ("model", "Connected to the voice service after {ms} ms"),
    "session.opened": ("model", "The voice is ready after {ms} ms"),
    "session.finished": ("model", "The voice session is closed"),
    "response.created": ("model", "The model begins to answer"),
    "response.done": ("model", "The model has answered"),
    "cap.near": ("model", "Most of the cap is spent: the bot is told to wrap up"),
    "length.warned": ("model", "The call has gone on for long: the bot is told to wrap up"),
    # Functions
    "tool.asked": ("tool", "The model asks for {name}"),
    "tool.answered": ("tool", "{name} has answered"),
    "tool.leaving": ("tool", "{name}: once the goodbye has been heard"),
    # Errors
    "error": ("error", "The voice service reports an error: {message}"),
    "session.lost": ("error", "The voice session is lost: {words}"),
    "voice.lost": ("error", "The voice is lost: {words}"),
    "answer.unusable": ("error", "The PBX answered with what cannot be used: {words}"),
    "transcript.failed": ("error", "An utterance could not be transcribed"),
    "response.given_up": ("error", "No answer came from the model"),
}

_KIND_OF: Mapping[str, str] = {  # of names that stand above nowhere, by what they begin with
    "sip": "sip",
    "call": "sip",
    "transfer": "sip",
    "media": "media",
    "rtp": "media",
    "dtmf": "media",
    "keys": "media",
    "recording": "media",
    "speech": "speech",
    "greeting": "speech",
    "session": "model",
    "response": "model",
    "usage": "model",
    "tool": "tool",
    "error": "error",
    "failure": "error",
}
_ILL = frozenset({"failed", "lost", "error", "refused"})


class Entry(NamedTuple):
    """One line of the timeline."""

    at: float  # seconds since the call came in
    what: str  # the event's own name
    kind: str  # a key of `KINDS`
    words: str
    more: Json  # what the words do not say


def entries(events: Iterable[Event]) -> list[Entry]:
    """The events in words, in their order."""
    return [_entry(event) for event in events]


def _entry(event: Event) -> Entry:
    kind, words = _WORDS.get(event.what, ("", ""))
    if not words:
        parts = event.what.split(".")
        kind = "error" if parts[-1] in _ILL else _KIND_OF.get(parts[0], "sip")
        return Entry(event.at, event.what, kind, event.what, event.fields)
    said = _Said(event.fields)
    text = words.format_map(said)
    return Entry(event.at, event.what, kind, text, {k: v for k, v in event.fields.items() if k not in said.used})


class _Said(dict[str, Any]):
    """The fields of an event as they stand in a sentence, and which of them have been used."""

    def __init__(self, fields: Json) -> None:
        super().__init__({name: "—" if value in ("", None) else value for name, value in fields.items()})
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.used.add(name)
        return super().__getitem__(name)

    def __missing__(self, _name: str) -> str:
        return "—"


class Latency(NamedTuple):
    """How long callers waited for the bot, ms, over the turns of one call."""

    turns: int
    half: float  # the median
    worst: float


def latencies(events: Iterable[Event]) -> dict[str, Latency]:
    """By field of the `turn` events: `first_audio` from the model, `wire` at the phone's side of ours."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.what == "turn":
            for name in ("first_audio", "wire"):
                value = event.fields.get(name)
                if isinstance(value, (int, float)):
                    found[name].append(value)
    return {name: Latency(len(values), median(values), max(values)) for name, values in found.items()}
