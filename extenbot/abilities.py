"""The fields of functions and MCP servers beyond name and address: one table each for pages, commands and store.

As `manner` has it: what each may be, and the way from what people type and what is stored to a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from extenbot.interfaces import Function, McpServer
from extenbot.manner import Field

KINDS: Final = {
    "webhook": "A webhook",
    "dify_workflow": "A dify workflow",
    "dify_chat": "A dify chat app or agent",
}
METHODS: Final = ("POST", "GET", "PUT", "PATCH", "DELETE")
MOST_HEADERS = 20
LONGEST_HEADER = 4000
LONGEST_SENTENCE = 300

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "user-agent")
)

T = TypeVar("T", Function, McpServer)


def _choice(says: str, default: str, *choices: str) -> Field:
    return Field("", says, default, "choice", choices=choices)


FUNCTION: Final[Mapping[str, Field]] = {
    "kind": _choice("what it is", "webhook", *KINDS),
    "method": _choice("of the request to a webhook", "POST", *(method.lower() for method in METHODS)),
    "timeout": Field("", "how long it may take", 10.0, "number", low=0.5, high=120, unit="s"),
    "retries": Field("", "tries after a failure that may pass, of GET, PUT and DELETE", 0, "whole", high=5),
    "result": Field("", "the part of a JSON reply that the model is told, as JMESPath; empty: all of it", "", "line",
                    longest=500),
    "waiting": Field("", "what the bot says while it runs", "", "line", longest=LONGEST_SENTENCE),
    "failure": Field("", "what the bot says when it has failed", "", "line", longest=LONGEST_SENTENCE),
    "speak": Field("", "whether the bot speaks when the result is there", True, "flag"),
    "streaming": Field("", "of a dify workflow: take its reply in pieces", False, "flag"),
}  # fmt: skip
"""Fields of a `Function`, by their names."""

SERVER: Final[Mapping[str, Field]] = {
    "approval": Field("", "the bot asks the caller before each use", False, "flag"),
    "by": _choice(
        "who calls it: this program, or the voice service where that can", "extenbot", "extenbot", "provider"
    ),
    "transport": _choice("which it speaks; empty: whichever", "", "", "http", "sse"),
    "timeout": Field("", "how long one use may take", 20.0, "number", low=0.5, high=120, unit="s"),
    "wait": Field("", "a call is answered later for it by this much at most", 1.0, "number", low=0, high=10, unit="s"),
}
"""Fields of an `McpServer`, by their names."""


def stored(value: Function | McpServer, table: Mapping[str, Field]) -> str:
    """JSON of what is not the default."""
    values = {name: getattr(value, name) for name in table}
    return json.dumps({name: each for name, each in values.items() if each != table[name].default})


def restored(text: str, table: Mapping[str, Field]) -> dict[str, Any]:
    """The values out of `stored`; what makes no sense has its default, what a newer version has added is left out."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    values: dict[str, Any] = {}
    for name, raw in document.items() if isinstance(document, dict) else ():
        if name in table:
            try:
                values[name] = read(name, raw, table)
            except ValueError:
                continue
    return values


def read(name: str, raw: object, table: Mapping[str, Field]) -> Any:
    """The value of a field as it was typed; ValueError with a sentence."""
    found = table[name].read(raw)
    return found.upper() if name == "method" else found


# -- Headers, as people write them


def read_headers(text: str, before: Iterable[tuple[str, str]] = ()) -> tuple[tuple[str, str], ...]:
    """Lines `Name: value`; a line without a value keeps the one that its header had `before`.

    ValueError with a sentence that names the line.
    """
    old = {name.lower(): value for name, value in before}
    found: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not line.strip():
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or not _TOKEN.fullmatch(name):
            raise ValueError(f"Line {number}: a header is written as Name: value.")
        if name.lower() in _OURS:
            raise ValueError(f"Line {number}: {name} is written by extenbot itself.")
        value = value or old.get(name.lower(), "")
        if not value:
            raise ValueError(f"Line {number}: {name} has no value.")
        if len(value) > LONGEST_HEADER or not value.isprintable() or not value.isascii():
            raise ValueError(f"Line {number}: at most {LONGEST_HEADER} printable ASCII characters, please.")
        if name.lower() in found:
            raise ValueError(f"Line {number}: {name} stands there twice.")
        found[name.lower()] = (name, value)
    if len(found) > MOST_HEADERS:
        raise ValueError(f"At most {MOST_HEADERS} headers, please.")
    return tuple(found.values())


def shown_headers(headers: Iterable[tuple[str, str]]) -> str:
    """The names, as lines without their values, which are secrets."""
    return "\n".join(f"{name}:" for name, _ in headers)
