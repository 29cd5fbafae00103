"""What the demo voice answers: a few plain rules on the words it heard, no model behind them.

Goodbye ends the call, an operator is a transfer, the words of a function call it, and
everything else is said back. Tools are the session's, as the client declared them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from extenbot.interfaces import Json
from extenbot.sandbox.figures import numbers

END, TRANSFER, DECIDE = "end_call", "transfer_call", "caller_decision"
OWN = frozenset({END, TRANSFER, DECIDE, "collect_digits", "send_digits"})
"""Tools that every bot has: the words in their descriptions call nothing."""

LONGEST = 600  # characters said in one answer

_YES = re.compile(r"\b(yes|yeah|yep|sure|okay|ok|please|of course|go ahead|do it)\b", re.IGNORECASE)
_NO = re.compile(r"\b(no|nope|not|don't|never|stop)\b", re.IGNORECASE)
_GOODBYE = re.compile(r"\b(good[ -]?bye|bye|hang up|end the call)\b", re.IGNORECASE)
_OPERATOR = re.compile(
    r"\b(operators?|real person|human|transfer me|speak to (a|some)( ?one| person|body))\b", re.IGNORECASE
)
_COMMON = (
    "about after also any are ask call caller can could does for from function get give has have her him his how into "
    "its like make must need not our please process provide say should some tell than that the their them then there "
    "this use user wants want was what when where which who will with would you your them if to and"
)
_COMMON_WORDS = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Call:
    """A function to call."""

    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Answer:
    """Words to say and then a function to call. `pending`: a function that still misses something."""

    words: str = ""
    call: Call | None = None
    pending: str = ""


def words_of(text: str) -> list[str]:
    """Lower-case words; camelCase and snake_case fall apart, a plural loses its s."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    found = re.findall(r"[a-z]+|\d+", apart.lower())
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in found]


def answer(heard: str, tools: Iterable[Json], pending: str = "") -> Answer:
    """The answer to what was heard. `pending` names a function whose missing values may be in it."""
    functions = {str(tool["name"]): tool for tool in tools if tool.get("type") == "function"}
    if not re.search(r"\w", heard):
        return Answer("Sorry, I did not hear you.")
    if _GOODBYE.search(heard):
        return Answer("Goodbye.", Call(END, {}) if END in functions else None)
    if _OPERATOR.search(heard) and TRANSFER in functions:
        arguments, _missing = _fill(functions[TRANSFER], heard)
        return Answer("One moment, I will connect you.", Call(TRANSFER, arguments))
    chosen = pending if pending in functions else _meant(heard, functions)
    if chosen:
        arguments, missing = _fill(functions[chosen], heard)
        if missing and chosen != pending:
            return Answer(f"Please tell me: {', '.join(missing)}.", pending=chosen)
        if not missing:
            return Answer("", Call(chosen, arguments))
    return Answer(f"You said: {heard}")


def consent(text: str) -> str:
    """The name of a request that the caller has to agree to, where `text` (a result, or a message) asks for that."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    asks = isinstance(found, dict) and "agree" in str(found.get("status", ""))
    return str(found.get("request", "")) if asks else ""


def decided(heard: str, request: str) -> Answer | None:
    """What the caller's words mean for a request; None when they are neither yes nor no."""
    no = bool(_NO.search(heard))
    if not (no or _YES.search(heard)):
        return None
    return Answer("", Call(DECIDE, {"request": request, "agreed": not no}))


def _meant(heard: str, functions: dict[str, Json]) -> str:
    """The function whose name, or else two words of whose description, were heard; the best one, else none."""
    spoken = set(words_of(heard))
    best, score = "", 0.0
    for name, tool in functions.items():
        if name in OWN:
            continue
        called = set(words_of(name))
        told = {
            word for word in words_of(str(tool.get("description", ""))) if len(word) > 2 and word not in _COMMON_WORDS
        }
        common = len(told & spoken)
        mine = 100.0 + len(called) if called <= spoken else float(common) if common >= min(2, len(told) or 2) else 0.0
        if mine > score:
            best, score = name, mine
    return best


def _fill(tool: Json, heard: str) -> tuple[dict[str, Any], list[str]]:
    """Arguments from the words heard, and what the required ones that are missing are called."""
    schema = tool.get("parameters")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or not isinstance(properties, dict):
        return {}, []
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    waiting = numbers(heard, ignoring=frozenset(words_of(str(tool["name"]))))
    arguments: dict[str, Any] = {}
    missing: list[str] = []
    for name, described in properties.items():
        wanted: Json = described if isinstance(described, dict) else {}
        value = _value(wanted, heard, waiting, needed=name in required)
        if value is not None:
            arguments[name] = value
        elif name in required:
            missing.append(str(wanted.get("description") or name).rstrip("."))
    return arguments, missing


def _value(wanted: Json, heard: str, waiting: list[int | float], *, needed: bool) -> Any:
    options = wanted.get("enum")
    if isinstance(options, list) and options:
        spoken = set(words_of(heard))
        return next(
            (option for option in options if set(words_of(str(option))) <= spoken), options[0] if needed else None
        )
    match wanted.get("type"):
        case "integer" | "number":
            if not waiting:
                return None
            value = waiting.pop(0)
            return int(value) if wanted["type"] == "integer" else value
        case "boolean":
            return not re.search(r"\b(no|not|never)\b", heard, re.IGNORECASE)
        case "string" | None:
            return heard
    return None


def told(output: str) -> str:
    """How the result of a function is said: the words in it, short enough to listen to."""
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        value = output
    return _spoken(value)[:LONGEST].strip() or "It is done."


def _spoken(value: Any) -> str:
    if isinstance(value, str):
        return re.sub(r"^say this to the user:\s*", "", value, flags=re.IGNORECASE)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        for key in ("say", "answer", "message", "text", "result", "output"):
            if isinstance(value.get(key), str):
                return str(value[key])
        return ", ".join(f"{key.replace('_', ' ')}: {_spoken(entry)}" for key, entry in value.items())
    if isinstance(value, Sequence):
        return ", ".join(_spoken(entry) for entry in value)
    return "" if value is None else str(value)
