"""The timeline of a call in words: what kind of thing each event was, and how fast the bot answered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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
    "screened": ("sip", "The webhook before the call has answered"),
    "ordered": ("sip", "Calling {dialled}"),
    "progress": ("sip", "The PBX says {code} {words}"),
    "answered": ("sip", "Answered"),
    "acked": ("sip", "The PBX has confirmed the answer"),
    "replaced": ("sip", "The caller is somebody else now: {caller}"),
    "transferring": ("sip", "Transfer to {destination}"),
    "transfer": ("sip", "Transfer: {code} {words}"),
    "timeline.cut": ("sip", "{events} events between this one and the one before are left out: the call was too long"),
    "leaving": ("sip", "Leaving the conversation by {tool}"),
    "leaving.politely": ("sip", "The bot is told to say goodbye: {reason}"),
    "staying": ("sip", "The caller is there after all: the call goes on"),
    "ended": ("sip", "Ended: {reason}"),
    # Media
    "media.moved": ("media", "The audio goes elsewhere now"),
    "media.ignored": ("media", "{packets} packets from a stranger were ignored"),
    "dtmf": ("media", "The caller presses {digit}"),
    "dialled": ("media", "The bot presses {digits}"),
    "recording.failed": ("error", "The recording has stopped: {words}"),
    # Speech
    "speech.started": ("speech", "The caller speaks"),
    "speech.stopped": ("speech", "The caller has finished"),
    "barge_in": ("speech", "The caller interrupts the bot after {ms} ms of this sentence"),
    "silence": ("speech", "Silence for {seconds} s: the caller is asked"),
    "turn": (
        "speech",
        "The bot answers after {wire} ms (the model took {first_audio} ms)",
    ),
    "turn message": ("speech", "The bot speaks {wire} ms after it was told something"),
    "turn function": ("speech", "The bot speaks {wire} ms after a function has answered"),
    "greeting.ready": ("speech", "The greeting is ready"),
    "greeting.heard": ("speech", "The caller hears the greeting {ms} ms after the answer"),
    "greeting.repeated": ("speech", "The greeting is said again"),
    # Model
    "session.connected": ("model", "Connected to the voice service after {ms} ms"),
    "session.opened": ("model", "The voice is ready after {ms} ms"),
    "session.moved": ("model", "The conversation goes on in the next voice session"),
    "session.finished": ("model", "The voice session is closed"),
    "response.created": ("model", "The model begins to answer"),
    "response.done": ("model", "The model has answered"),
    "response.done cancelled": ("model", "The answer was broken off"),
    "response.done incomplete": ("error", "The answer was cut short: {reason}"),
    "response.done failed": ("error", "The model failed to answer: {reason}"),
    "delegated": ("model", "The voice asks {target} to think"),
    "price.unknown": ("model", "No price is known for {model}: what it costs is not counted, and no cap holds"),
    "cap.near": ("model", "Most of the cap is spent: the bot is told to wrap up"),
    "length.warned": ("model", "The call has gone on for long: the bot is told to wrap up"),
    # Functions
    "tool.asked": ("tool", "The model asks for {name}"),
    "tool.answered": ("tool", "{name} has answered"),
    "tool.late": ("tool", "{name} has answered too late"),
    "screening.exchange": ("tool", "The webhook before the call: {method} {url} gets {status}"),
    "tool.exchange": ("tool", "{name}: {method} {url} gets {status}"),
    "tool.exchange MCP": ("tool", "{name}: asked of the MCP server at {url}"),
    "tool.decided": ("tool", "The caller does not agree to {name}"),
    "tool.decided True": ("tool", "The caller agrees to {name}"),
    "tools.changed": ("tool", "MCP servers offer other tools now: {tools}"),
    "mcp.listed": ("tool", "The MCP server {server} offers {tools} tools"),
    "mcp.called": ("tool", "The voice service has used {name} of {server}"),
    "mcp.approval": ("tool", "The voice service would like to use {name}"),
    "tool.leaving": ("tool", "{name}: once the goodbye has been heard"),
    # Errors
    "error": ("error", "The voice service reports an error: {message}"),
    "session.lost": ("error", "The voice session is lost: {words}"),
    "session.interrupted": ("error", "The voice session is lost, the next one takes over: {words}"),
    "voice.lost": ("error", "The voice is lost: {words}"),
    "answer.unusable": ("error", "The PBX answered with what cannot be used: {words}"),
    "transcript.failed": ("error", "An utterance could not be transcribed"),
    "response.late": ("error", "No answer from the model for {seconds} s: it is asked again"),
    "response.given_up": ("error", "No answer came from the model"),
}

_TOLD_APART = {"tool.exchange": "method", "turn": "after", "response.done": "status", "tool.decided": "agreed"}
"""Events that have other words by the value of one field: they stand above as NAME VALUE, else as NAME."""

_KIND_OF: Mapping[str, str] = {  # of names that stand above nowhere, by what they begin with
    "media": "media",
    "recording": "media",
    "speech": "speech",
    "greeting": "speech",
    "session": "model",
    "response": "model",
    "tool": "tool",
    "tools": "tool",
    "mcp": "tool",
}
_ILL = frozenset({"failed", "lost", "error", "refused"})


class Entry(NamedTuple):
    """One line of the timeline."""

    at: float  # seconds since the call came in
    what: str  # the event's own name
    kind: str  # a key of `KINDS`
    words: str
    more: str  # what the words do not say


def entries(events: Iterable[Event]) -> list[Entry]:
    """The events in words, in their order."""
    return [_entry(event) for event in events]


def known(what: str) -> bool:
    """Whether there are words for events of that name."""
    return what in _WORDS


def _entry(event: Event) -> Entry:
    name = event.what
    apart = _TOLD_APART.get(name)
    if apart and (special := f"{name} {event.fields.get(apart)}") in _WORDS:
        name = special
    if name not in _WORDS:
        parts = name.split(".")
        kind = "error" if parts[-1] in _ILL else _KIND_OF.get(parts[0], "sip")
        return Entry(event.at, event.what, kind, event.what, _fields(event.fields))
    kind, words = _WORDS[name]
    said = _Said(event.fields)
    said.used.add(apart or "")
    text = words.format_map(said)
    more = {field: value for field, value in event.fields.items() if field not in said.used}
    return Entry(event.at, event.what, kind, text, _fields(more))


def _fields(values: Json) -> str:
    """The fields of an event on one line; what is empty or nought says nothing."""
    return "  ".join(f"{name}={_value(name, value)}" for name, value in values.items() if value)


def _value(name: str, value: Any) -> str:
    if name == "usage" and isinstance(value, dict):
        return tokens(value)
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def tokens(usage: Json) -> str:
    """What was used, in words: 1,200 in (900 audio, 300 cached), 400 out (380 audio)."""

    def count(name: str, what: str) -> str:
        number = usage.get(name)
        return f"{round(number):,} {what}" if number and isinstance(number, (int, float)) else ""

    def part(name: str, what: str, *inside: tuple[str, str]) -> str:
        of_it = ", ".join(filter(None, (count(*each) for each in inside)))
        return count(name, what) + (f" ({of_it})" if of_it else "")

    parts = (
        part("input_tokens", "in", ("input_audio", "audio"), ("cached", "cached")),
        part("output_tokens", "out", ("output_audio", "audio")),
        count("transcription_tokens", "for the transcript"),
        count("transcription_seconds", "s for the transcript"),
    )
    return ", ".join(filter(None, parts)) or "none"


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


class Turn(NamedTuple):
    """One answer of the bot to what the caller said."""

    at: float  # seconds since the call came in: the first of it is on the wire
    first_audio: float  # ms from the end of what the caller said until the model has sent the first audio
    wire: float  # ms until that is on the wire


def turns(events: Iterable[Event]) -> list[Turn]:
    """Out of the `turn` events those that answer speech."""
    found = []
    for event in events:
        waits = [event.fields.get(name) for name in ("first_audio", "wire")]
        if event.what == "turn" and event.fields.get("after", "speech") == "speech":
            first_audio, wire = waits
            if isinstance(first_audio, (int, float)) and isinstance(wire, (int, float)):
                found.append(Turn(event.at, first_audio, wire))
    return found


def latency(found: Sequence[Turn]) -> Latency | None:
    """Over all turns, at the phone's side of ours."""
    waits = [turn.wire for turn in found]
    return Latency(len(waits), median(waits), max(waits)) if waits else None
