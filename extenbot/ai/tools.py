"""Functions of a bot: what the model is told of them, the body that is posted, and what is said of the reply.

A function description is one Realtime function tool; it and the body template are read
leniently (JSON5: comments, trailing commas), as people paste them.

A body template is JSON with placeholders: `{user}` (the caller's number), `{function_name}`,
`{parameters}` (all arguments), `{bot_id}`, `{call_id}`, and each argument by its name.

* Inside a quoted string a placeholder becomes text there: `"{number1}"` gives `"7"`.
* Unquoted it becomes a JSON value: `{number1}` gives `7`, `{parameters}` the object.
* An argument that the model left out is `""` inside a string and `null` unquoted; other words
  in braces inside a string stay as they are. Keys are never changed.

Values are put into the parsed template, never into its text: no value can change anything but itself.
Without a template the body is `{"function": …, "arguments": {…}, "caller": …, "bot": …, "call": …}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from extenbot.ai import pasted
from extenbot.ai.built_in import BUILT_IN
from extenbot.errors import Invalid, ToolFailed
from extenbot.interfaces import Function, Json, Reply, ToolContext

SPOKEN = 8000
"""Characters of a reply that the model is given."""

LARGEST = 4 << 20
"""Characters that may be put into a template for one request."""

ADDRESS = 8000
"""Characters of a value in a URL, which may not be longer as a whole either."""

REFUSAL = 300
"""Characters of an error's body that the model is told."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLACE = re.compile(r"\{[ \t]*([^\W\d][\w.-]*)[ \t]*\}")
_TOKENS = re.compile(
    # A string or comment that is not closed reaches to the end: searched once, not again from each of its characters.
    r'(?P<other>"(?:\\.|[^"\\])*(?:"|\\?\Z)|\'(?:\\.|[^\'\\])*(?:\'|\\?\Z)|//[^\n]*|/\*.*?(?:\*/|\Z))|'
    + _PLACE.pattern,
    re.DOTALL,
)


# -- What the model is told -----------------------------------------------------------


def tool(function: Function) -> Json:
    """The Realtime tool of a function, its description unchanged but for what must be there."""
    if not function.description.strip():
        name = re.sub(r"[^A-Za-z0-9_-]", "_", function.name)[:64]
        return {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}}
    return {"type": "function", **_description(function.description)}


def name_of(function: Function) -> str:
    """The name by which the model calls it: that in the description."""
    return str(tool(function)["name"])


def check_description(text: str) -> None:
    """`Invalid` {"description": …} unless it is one function tool that a model accepts."""
    found = _description(text)

    def need(good: bool, sentence: str) -> None:
        if not good:
            raise Invalid({"description": sentence})

    name, parameters = found.get("name"), found.get("parameters")
    need(found.get("type", "function") == "function", 'Its "type" must be "function".')
    need(isinstance(name, str), 'It needs a "name".')
    need(
        isinstance(name, str) and _NAME.fullmatch(name) is not None,
        'Its "name" may have only letters, digits, _ and -, at most 64 of them.',
    )
    need(name not in BUILT_IN, f'The name "{name}" is taken by the bot itself: choose another.')
    need(isinstance(found.get("description", ""), str), 'Its "description" must be text.')
    if "parameters" in found:
        need(
            isinstance(parameters, dict) and parameters.get("type", "object") == "object",
            'Its "parameters" must be a JSON schema of "type": "object".',
        )
        assert isinstance(parameters, dict)
        properties, required = parameters.get("properties", {}), parameters.get("required", [])
        need(
            isinstance(properties, dict) and all(isinstance(schema, (dict, bool)) for schema in properties.values()),
            'The "properties" of its "parameters" must be an object with a schema for each name.',
        )
        need(
            isinstance(required, list) and all(isinstance(word, str) and word in properties for word in required),
            'The "required" of its "parameters" must be a list of names from "properties".',
        )
        try:
            Draft202012Validator.check_schema(parameters)
        except SchemaError as error:
            where = ".".join(["parameters", *map(str, error.path)])
            raise Invalid({"description": f"Not a JSON schema (2020-12) at {where}: {error.message[:200]}."}) from None


@lru_cache(maxsize=1024)
def _description(text: str) -> dict[str, Any]:
    found = pasted.read(text, "description")
    if not isinstance(found, dict):
        raise Invalid({"description": "It must be one JSON object that describes a function."})
    inner = found.get("function")
    if "name" not in found and isinstance(inner, dict):  # the chat API's wrapper, which Realtime refuses
        found = inner
    return found


# -- The body to post -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """An unquoted placeholder."""

    name: str


def check_template(text: str) -> None:
    """`Invalid` {"template": …} unless it is JSON with placeholders; empty is good and means the default body."""
    if text.strip():
        _template(text)


def body(function: Function, arguments: Json, context: ToolContext) -> Any:
    """The JSON value to post for one call of a function."""
    tool_name = name_of(function)
    if not function.template.strip():
        return {
            "function": tool_name,
            "arguments": dict(arguments),
            "caller": context.caller,
            "bot": context.bot_id,
            "call": context.call_id,
        }
    return _Filling(_values(function, arguments, context)).fill(_template(function.template))


def _values(function: Function, arguments: Json, context: ToolContext) -> dict[str, Any]:
    """What each placeholder stands for."""
    schema = tool(function).get("parameters")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return {
        **dict.fromkeys(properties or (), None),
        **arguments,
        "user": context.caller,
        "function_name": name_of(function),
        "parameters": dict(arguments),
        "bot_id": context.bot_id,
        "call_id": context.call_id,
    }


class _Filling:
    """One template being filled. Many placeholders for one long value would make a flood: `ToolFailed`."""

    def __init__(self, values: Json) -> None:
        self._values = values
        self._texts: dict[str, str] = {}
        self._left = LARGEST

    def fill(self, node: Any) -> Any:
        if isinstance(node, _Place):
            self._text(node.name)
            return self._values.get(node.name)
        if isinstance(node, str):
            return _PLACE.sub(lambda match: self._text(match[1]) if match[1] in self._values else match[0], node)
        if isinstance(node, dict):
            return {key: self.fill(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.fill(value) for value in node]
        return node

    def _text(self, name: str) -> str:
        if name not in self._texts:
            self._texts[name] = _text(self._values.get(name))
        self._left -= len(self._texts[name])
        if self._left < 0:
            raise ToolFailed(f"what is to be sent is larger than {LARGEST >> 20} MiB")
        return self._texts[name]


def _text(value: Any) -> str:
    """A value inside a string."""
    if value is None:
        return ""
    return value if isinstance(value, str) else _json(value, ensure_ascii=False)


def _json(value: Any, *, ensure_ascii: bool = True) -> str:
    try:
        return json.dumps(value, ensure_ascii=ensure_ascii)
    except RecursionError:
        raise ToolFailed("the arguments are nested too deep") from None


@lru_cache(maxsize=1024)
def _template(text: str) -> Any:
    """The parsed template, `_Place` where an unquoted placeholder stands.

    Each becomes a string of one character that the text cannot otherwise yield, as long as it was, so that the
    parser's lines and columns stay those of the text.
    """
    if len(text) > pasted.LONGEST:
        raise Invalid({"template": f"It is longer than {pasted.LONGEST} characters."})
    marks, places = _unused(text), {}

    def replace(match: re.Match[str]) -> str:
        if match["other"] is not None:
            return match[0]
        mark = next(marks, None)
        if mark is None:
            raise Invalid({"template": "It has too many placeholders."})
        places[mark] = _Place(match[2])
        return f'"{mark}"'.ljust(len(match[0]))

    def settle(node: Any) -> Any:
        if isinstance(node, str):
            return places.get(node, node)
        if isinstance(node, dict):
            for key in node:
                if key in places:
                    raise Invalid({"template": f"{{{places[key].name}}} stands where a key must be: put it in quotes."})
            return {key: settle(value) for key, value in node.items()}
        return [settle(value) for value in node] if isinstance(node, list) else node

    return settle(pasted.read(_TOKENS.sub(replace, text), "template", text))


def _unused(text: str) -> Iterator[str]:
    """Private characters that neither stand in the text nor are written in it as an escape."""
    low = text.lower()
    return (chr(code) for code in range(0xE000, 0xF900) if chr(code) not in low and f"\\u{code:04x}" not in low)


# -- The reply --------------------------------------------------------------------------


def written(body: Any) -> bytes:
    """A body as JSON."""
    return _json(body).encode()


def addressed(function: Function, arguments: Json, context: ToolContext) -> tuple[str, Json]:
    """The URL with its placeholders filled, as in a string of a template, and the arguments that it does not name.

    They stand in its path and query, and no value reaches beyond its own place.
    """
    parts, values, used = urlsplit(function.url), _values(function, arguments, context), set()

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            return match[0]
        used.add(match[1])
        found = _text(values[match[1]])
        if found in (".", ".."):
            raise ToolFailed(f"{match[1]} cannot be {found}")
        if len(found) > ADDRESS:
            raise ToolFailed(f"{match[1]} is longer than {ADDRESS} characters: that much is sent in the body of a POST")
        return quote(found, safe="", errors="replace")

    filled = parts._replace(path=_PLACE.sub(value, parts.path), query=_PLACE.sub(value, parts.query))
    return urlunsplit(filled), {name: each for name, each in arguments.items() if name not in used}


def with_query(url: str, arguments: Json) -> str:
    """A URL with the arguments in its query, those that are no text as JSON."""
    parts = urlsplit(url)
    query = urlencode([(name, _text(value)) for name, value in arguments.items()], errors="replace")
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, query)))))


def refusal(who: str, reply: Reply) -> str:
    """Why a reply is none: its status, and of a 4xx the beginning of what it says: "no such order", perhaps.

    Who answers with 5xx has a fault of its own, and its words are no caller's business.
    """
    words = " ".join(reply.body[:2000].decode("utf-8", "replace").split())
    if not 400 <= reply.status < 500 or "<" in words or not words.isprintable():  # a page for people
        words = ""
    return f"{who} answered with status {reply.status}" + (f": {words[:REFUSAL]}" if words else "")


def spoken(reply: bytes, content_type: str) -> str:
    """What the model is told of a webhook's reply: dify's outputs or answer, else the JSON or text itself.

    `ToolFailed` when dify says that its workflow failed, or when the reply is no text at all.
    """
    charset = re.search(r"charset\s*=\s*\"?([\w.:-]+)", content_type, re.IGNORECASE)
    text = _decoded(reply, charset[1] if charset else "utf-8").strip()
    if not text:
        return "The function has finished and returned nothing."
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _bounded(text)
    return _bounded(_words(found))


def _decoded(reply: bytes, charset: str) -> str:
    try:
        text = reply.decode(charset, "replace")
    except (LookupError, ValueError):
        text = reply.decode("utf-8", "replace")
    text = text.removeprefix("\ufeff")
    if "\0" in text or text.count("\ufffd") > len(text) // 10:
        raise ToolFailed("the reply is not text")
    return text


def _words(found: Any) -> str:
    if isinstance(found, dict):
        data = found.get("data")
        if isinstance(data, dict) and "outputs" in data:  # a dify workflow
            if data.get("status") in ("failed", "stopped"):
                raise ToolFailed(
                    _bounded(f"the workflow {data['status']}: {_text(data.get('error')) or 'no reason given'}")
                )
            return _only(data["outputs"])
        if isinstance(found.get("answer"), str):  # a dify chat app
            return str(found["answer"])
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _only(outputs: Any) -> str:
    """The value of a single output, else all of them."""
    value = next(iter(outputs.values())) if isinstance(outputs, dict) and len(outputs) == 1 else outputs
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bounded(text: str) -> str:
    return text if len(text) <= SPOKEN else f"{text[:SPOKEN]} … (cut off here)"
