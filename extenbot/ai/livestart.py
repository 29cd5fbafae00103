"""What a GPT-Live session is started with, and where.

The functions go to a second model (`delegation`), which the first one calls when the conversation needs them; so both
are told what they are there for. Settings are strict: one key that the service does not know and there is no session.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlunsplit

from extenbot.ai import dialects, extra
from extenbot.interfaces import Json, Line, VoiceOrder

RATE = 8000
"""Hz of G.711, which the service wants said."""

MODEL = "gpt-live-1.1"
VOICE = "marin"
BACKEND = "gpt-6-luna"
"""The model that calls the functions, as the provider's own examples have it; `manner.extra` may name another."""

HISTORY = 100
HISTORY_TEXT = 16_000
"""Lines, and characters, of what was said that another session is given (the service takes 128 and 8192 tokens)."""

LONGEST = 1200
"""Characters of one message to the model while it runs (the service takes 500 tokens)."""

_PHONE = "You are on the telephone. What the functions below do is done by a backend: delegate to it when it is needed."
_BACK = "Call the functions that the telephone conversation needs, and report what came of them in a sentence."


def address(url: str) -> str:
    """Where sessions are to be had beside the Realtime `url`; `BackendLost` when it is no websocket address."""
    parts = dialects.websocket(url)
    path = parts.path.rstrip("/")
    if not path.endswith("/live/sessions"):
        path = f"{path.removesuffix('/realtime') or '/v1'}/live/sessions"
    query = urlencode([pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "model"])
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def settings(order: VoiceOrder, history: tuple[Line, ...] = ()) -> dict[str, Any]:
    """What `session.start` says; `Invalid` when the owner's own settings cannot be added."""
    bot = order.bot
    voice = bot.voice or VOICE
    instructions = [bot.instruction] if bot.instruction else []
    found: dict[str, Any] = {
        "model": bot.model or MODEL,
        "audio": {
            "format": {"type": order.format, "rate": RATE},
            "output": {"voice": {"id": voice} if voice.startswith("voice_") else voice},
        },
    }
    if order.tools:
        listed = "\n".join(f"- {tool['name']}: {tool.get('description', '')}".rstrip(": ") for tool in order.tools)
        found["delegation"] = delegation(order)
        instructions.append(f"{_PHONE}\n{listed}")
    if instructions:
        found["instructions"] = "\n\n".join(instructions)
    if order.caller:
        found["safety_identifier"] = dialects.caller_of(order)
    if history:
        found["input"] = [_message(line) for line in _latest(history)]
    return extra.merged(found, extra.read(bot.manner.extra, strict=False))


def delegation(order: VoiceOrder) -> Json:
    """The model behind the one that speaks, which calls the functions."""
    manner = order.bot.manner
    backend: dict[str, Any] = {
        "model": BACKEND,
        "instructions": "\n\n".join(filter(None, (order.bot.instruction, _BACK))),
        "tools": [dialects.function(tool) for tool in order.tools],
    }
    if manner.reasoning:
        backend["reasoning"] = {"effort": manner.reasoning}
    if manner.parallel_tools:
        backend["parallel_tool_calls"] = manner.parallel_tools == "yes"
    if manner.max_output_tokens:
        backend["max_output_tokens"] = manner.max_output_tokens
    return {"type": "responses", "responses": backend}


_ROLES = {
    "caller": ("user", "input_text"),
    "bot": ("assistant", "output_text"),
    "function": ("developer", "input_text"),
}


def _message(line: Line) -> Json:
    """A line as an item of the conversation."""
    role, kind = _ROLES[line.speaker]
    return {"type": "message", "role": role, "content": [{"type": kind, "text": line.text}]}


def _latest(history: tuple[Line, ...]) -> list[Line]:
    """The end of what was said, as much as a new session takes."""
    found: list[Line] = []
    room = HISTORY_TEXT
    for line in reversed(history[-HISTORY:]):
        room -= len(line.text)
        if room < 0:
            break
        found.append(line)
    return found[::-1]


def headers(order: VoiceOrder, url: str) -> dict[str, str]:
    """What the handshake carries; Azure has its own."""
    if dialects.name_of("", url, "") == "azure":
        return dialects.Azure().headers(order)
    return dialects.authorization(order)


def pieces(words: str) -> Iterator[str]:
    """`words` as messages that are not too long, cut between words where that can be."""
    while len(words) > LONGEST:
        end = words.rfind(" ", 0, LONGEST) + 1 or LONGEST
        yield words[:end]
        words = words[end:]
    yield words
