"""The Realtime protocol over a websocket, GA shape: address, headers and session settings of one call.

What is said in the session is the work of `conversation` and `talk`.
"""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from extenbot.ai.conversation import Conversation
from extenbot.errors import BackendLost
from extenbot.interfaces import Json, VoiceOrder, VoiceSurroundings

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


def open_voice(order: VoiceOrder, surroundings: VoiceSurroundings, url: str, model: str = "") -> Conversation:
    """Start to open a session at `url` (ws or wss, query allowed); the listener hears `opened` or `lost`, later."""
    conversation = Conversation(order, surroundings, session(order))
    try:
        where = address(url, model or MODEL)
    except BackendLost as why:
        conversation.refuse(why)
    else:
        conversation.open(where, headers(order))
    return conversation


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


def session(order: VoiceOrder) -> Json:
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
