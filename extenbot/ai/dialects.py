"""What the servers of the Realtime family want differently: one `Dialect` each, found by `of`.

A dialect knows its address, its headers, the form of the session settings and of a response request, what audio it
takes, and which orders it understands. Under which names its events come is the business of `events`, which takes all
of them from everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from extenbot.ai import events
from extenbot.errors import BackendLost
from extenbot.interfaces import Json, VoiceOrder

MODEL = "gpt-realtime-2.1"
VOICE = "marin"
TRANSCRIBER = "gpt-transcribe"

#: the phone default; semantic_vad is slower on short answers such as "yes"
TURN_DETECTION: Json = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "create_response": True,
    "interrupt_response": True,
}

_TOOL_KEYS = ("type", "name", "description", "parameters")


@dataclass(frozen=True, slots=True)
class Codec:
    """The way of one call's audio to a server and back; G.711 on our side."""

    def encode(self, audio: bytes) -> bytes:
        """G.711 of the caller, as this server takes it."""
        return audio

    def decode(self, audio: bytes) -> bytes:
        """Audio of the server as G.711."""
        return audio


@dataclass(frozen=True, slots=True)
class Dialect:
    """OpenAI's own form; others change what they must."""

    name: str = "openai"
    truncates: bool = True  # conversation.item.truncate
    deletes: bool = True  # conversation.item.delete
    cancels: bool = True  # response.cancel

    def address(self, url: str, model: str) -> str:
        """`url` with what the dialect adds to it; `BackendLost` when it is no websocket address."""
        return address(url, model or MODEL)

    def headers(self, order: VoiceOrder) -> dict[str, str]:
        """What the handshake carries."""
        return headers(order)

    def session(self, order: VoiceOrder) -> Json:
        """The whole session settings of one call, as `session.update` takes them."""
        return _session(order)

    def codec(self, order: VoiceOrder) -> Codec:  # noqa: ARG002
        """A new one for each session."""
        return Codec()

    def confirms(self, order: VoiceOrder, session: Json) -> bool:
        """Whether what the server says is in force is what `session` asked for."""
        return events.formats(session) == (order.format, order.format)

    def response(self, options: Json) -> Json:
        """The body of a `response.create`, from options under their names of today."""
        return options


def of(order: VoiceOrder, url: str) -> Dialect:  # noqa: ARG001
    """The dialect of the server at `url`: the one that the bot names, else by host and model."""
    return Dialect()


def address(url: str, model: str) -> str:
    """`url` with `model=` added unless its query has one; `BackendLost` when it is no websocket address."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise BackendLost("refused_settings", "The address of the voice service must begin with ws:// or wss://.")
    query = parts.query
    if "model" not in dict(parse_qsl(query, keep_blank_values=True)):
        query += ("&" if query else "") + "model=" + quote(model, safe="")
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def headers(order: VoiceOrder) -> dict[str, str]:
    """What the handshake carries besides autobahn's own: the key, and who calls without saying the number."""
    found = {}
    # A pasted key may bring blanks and line ends along, which would break the request apart.
    key = "".join(letter for letter in order.bot.token if "!" <= letter <= "~")
    if key:
        found["Authorization"] = f"Bearer {key}"
    if order.caller:
        found["OpenAI-Safety-Identifier"] = sha256(f"{order.bot.account_id}\n{order.caller}".encode()).hexdigest()
    return found


def _session(order: VoiceOrder) -> Json:
    """The session settings of one call. Only documented keys: one unknown key and the server refuses them all."""
    voice = order.bot.voice or VOICE
    format_ = {"type": order.format}
    found: dict[str, object] = {
        "type": "realtime",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": format_,
                "transcription": {"model": TRANSCRIBER},
                "turn_detection": dict(TURN_DETECTION),
            },
            "output": {"format": format_, "voice": {"id": voice} if voice.startswith("voice_") else voice},
        },
    }
    if order.bot.instruction:
        found["instructions"] = order.bot.instruction
    if order.tools:
        found["tools"] = [{key: tool[key] for key in _TOOL_KEYS if key in tool} for tool in order.tools]
        found["tool_choice"] = "auto"
    return found
