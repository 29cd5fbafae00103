"""Functions made from what people have already: a curl command that works, or an operation of an OpenAPI document.

What comes back are the values of the form of a function, to be looked at and saved there.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from extenbot.abilities import METHODS
from extenbot.ai import curl, openapi, pasted
from extenbot.ai.openapi import Operation, operations
from extenbot.errors import Invalid
from extenbot.interfaces import Json

__all__ = ["Operation", "from_curl", "from_openapi", "operations"]

MOST_PARAMETERS = 20

QUERYING = frozenset({"GET", "DELETE"})
"""Methods whose arguments stand in the query by themselves."""

KEY = "PUT-THE-KEY-HERE"
"""Stands where an OpenAPI document asks for a key."""

_OWN = frozenset({"user", "function_name", "parameters", "bot_id", "call_id"})
"""Placeholders that have a meaning already."""

_FIXED = frozenset({"response_mode", "stream", "streaming", "model", "type", "version", "format", "jsonrpc", "method"})
"""Keys whose values say how something is asked, not what."""

_SECRET = re.compile(r"token|secret|passw|(?:^|_|-)(?:api)?_?key$|auth", re.IGNORECASE)
_DROPPED = re.compile(
    r"content-type|content-length|host|connection|accept-encoding|user-agent|sec-.*|origin|referer|pragma|cache-control"
    r"|priority|dnt|upgrade-insecure-requests|accept-language",
    re.IGNORECASE,
)
_DIFY = {"workflows/run": "dify_workflow", "chat-messages": "dify_chat"}


def from_curl(text: str) -> dict[str, str]:
    """Values for a new function; `Invalid` {"curl": …}."""
    request = curl.read(text)
    if request.method not in METHODS:
        raise Invalid({"curl": f"A function does not send {request.method}: only {', '.join(METHODS)}."})
    parts = urlsplit(request.url)
    found = _Parameters()
    body = _body(request.body)
    path, dify = parts.path.rstrip("/"), ""
    for end, kind in _DIFY.items():
        if isinstance(body, dict) and path.endswith(f"/{end}"):
            dify, path = kind, path.removesuffix(f"/{end}")
    values = {"method": request.method, "kind": dify or "webhook"}
    if dify:
        assert isinstance(body, dict)
        inputs = body.get("inputs")
        found.placed({**(inputs if isinstance(inputs, dict) else {}), **_only(body, "query" * (dify == "dify_chat"))})
        values["url"] = urlunsplit((*parts[:2], path, "", ""))
        values["streaming"] = "yes" if dify == "dify_workflow" and body.get("response_mode") == "streaming" else "no"
    else:
        values["url"] = urlunsplit((*parts[:3], found.query(parts.query, by_itself=request.method in QUERYING), ""))
        values["template"] = found.template(body) if request.body else ""
    name = _name(dify or [step for step in parts.path.split("/") if step] or parts.hostname or "")
    values |= {"name": name, "description": _described(name, "", found.schema)}
    values["headers"] = "\n".join(f"{key}: {value}" for key, value in request.headers if not _DROPPED.fullmatch(key))
    values |= {"token": request.token} if request.token else {}
    values |= {"timeout": request.timeout} if request.timeout else {}
    return values


def _only(body: Json, key: str) -> dict[str, Any]:
    return {key: body[key]} if key in body else {}


def _body(text: str) -> Any:
    if not text:
        return None
    try:
        return pasted.read(text, "curl")
    except Invalid as error:
        if re.match(r"\s*[\[{]", text):
            raise Invalid({"curl": f"The body: {error.problems['curl']}"}) from None
        raise Invalid({"curl": "The body is not JSON: a function sends nothing else."}) from None


class _Parameters:
    """The parameters of a function as they are found in a request."""

    def __init__(self) -> None:
        self._properties: dict[str, Any] = {}

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "object", "required": list(self._properties), "properties": self._properties}

    def text(self, key: str, value: Any) -> str:
        """The placeholder for a value, when it looks like an argument."""
        if key == "user":
            return "{user}"
        placed = isinstance(value, str) and re.search(r"\{[ \t]*[^\W\d][\w.-]*[ \t]*\}", value)
        if placed or key in _FIXED or _SECRET.search(key) or len(self._properties) >= MOST_PARAMETERS:
            return ""
        plain = re.sub(r"\W", "_", key) or "value"
        plain = f"_{plain}" if plain[0].isdigit() else plain
        name, number = plain, 1
        while name in self._properties or name in _OWN:
            name, number = f"{plain}_{number + 1}", number + 1
        self._properties[name] = _shape(value)
        return f"{{{name}}}"

    def query(self, text: str, *, by_itself: bool) -> str:
        """A query with placeholders; `by_itself`: without those arguments that stand there by themselves."""
        parts = []
        for key, value in parse_qsl(text, keep_blank_values=True):
            place = self.text(key, value)
            if not (by_itself and place == f"{{{key}}}" and key not in _OWN):
                parts.append(f"{quote(key)}={place or quote(value)}")
        return "&".join(parts)

    def placed(self, node: Any, key: str = "") -> Any:
        """`node` with placeholders for what looks like an argument; those of other things than text as a `_Mark`."""
        if isinstance(node, dict):
            return {name: self.placed(value, name) for name, value in node.items()}
        if isinstance(node, list) and any(isinstance(value, (dict, list)) for value in node):
            return [self.placed(value, key) for value in node]
        if node is None or not key:
            return node
        place = self.text(key, node)
        return (place if isinstance(node, str) else _Mark(place)) if place else node

    def template(self, body: Any) -> str:
        marks: list[str] = []

        def marked(mark: object) -> str:
            assert isinstance(mark, _Mark)
            marks.append(mark.place)
            return f"\ue000{len(marks) - 1}\ue000"

        text = json.dumps(self.placed(body), indent=2, ensure_ascii=False, default=marked)
        return re.sub('"\ue000(\\d+)\ue000"', lambda match: marks[int(match[1])], text)


class _Mark:
    """An unquoted placeholder."""

    def __init__(self, place: str) -> None:
        self.place = place


def _shape(value: Any) -> dict[str, Any]:
    """The schema of a value."""
    if isinstance(value, list):
        return {"type": "array", "items": _shape(value[0]) if value else {}, "examples": [value]}
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": kinds[type(value)], "examples": [value]} if type(value) in kinds else {}


def _name(words: str | list[str]) -> str:
    """A name that is good for a model, from the end of a path or the like."""
    last = (
        words if isinstance(words, str) else next((w for w in reversed(words) if re.search("[A-Za-z]", w)), words[-1])
    )
    return re.sub(r"[^A-Za-z0-9-]+", "_", last).strip("_")[:64] or "function"


def _described(name: str, words: str, schema: Json) -> str:
    tool = {"type": "function", "name": name, "description": words, "parameters": schema}
    return json.dumps(tool, indent=2, ensure_ascii=False)


# -- OpenAPI


def from_openapi(text: str, operation: str) -> dict[str, str]:
    """Values for a new function that does one of `operations(text)`, by its `key`; `Invalid` {"openapi": …}."""
    found = openapi.details(text, operation)
    properties, required = dict(found.parameters), [name for name in found.parameters if name in found.required]
    template = ""
    if found.body is not None:
        inner = found.body.get("properties")
        if not properties and isinstance(inner, dict):
            schema: Json = found.body
            template = "{parameters}"
        else:
            properties["body"] = found.body
            required.append("body")
            template = "{body}"
    if template != "{parameters}":
        schema = {"type": "object", "required": required, "properties": properties}
    named = () if found.method in QUERYING and not template else found.query
    query = "&".join([*(f"{quote(name)}={{{name}}}" for name in named), *(f"{key}={KEY}" for key in found.query_keys)])
    name = _name(found.name)
    description = _described(name, found.words, schema)
    if len(description) > pasted.LONGEST:
        raise Invalid({"openapi": "The parameters of this operation are too large for a function."})
    return {
        "kind": "webhook",
        "name": name,
        "url": found.url + (f"?{query}" if query else ""),
        "method": found.method,
        "description": description,
        "template": template,
        "headers": "\n".join(f"{key}: {KEY}" for key in found.header_keys),
    }
