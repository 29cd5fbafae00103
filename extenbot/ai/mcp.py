"""MCP (Model Context Protocol, 2025-11-25) as the model sees it: the tools of servers, their names, their results.

Everything a server says is bounded here, and what a Realtime function tool may not have is taken out:
a server with one bad tool loses that tool's finer points, and nothing else.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from extenbot.ai.tools import SPOKEN
from extenbot.interfaces import Event, Json, McpServer

TOOLS = 128
"""Tools of one server that the model is told of: as many as OpenAI takes in one session."""
DESCRIPTION = 2000
"""Characters of one tool's description."""
SCHEMA = 16_000
"""Characters of one tool's parameters as JSON."""
DEPTH = 12
"""Levels of objects and lists in one tool's parameters; what lies deeper may be anything."""
LONGEST_NAME = 128
"""Characters of a tool's name on its server (MCP 2025-11-25, "Tool Names")."""

_OPEN: Json = {"type": "object", "properties": {}, "additionalProperties": True}
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
_UNWANTED = {"$schema", "$id", *_ALTERNATIVES, "enum", "const", "not", "if", "then", "else"}
"""What OpenAI refuses at the top of a function's parameters, or has no use for."""
_WORDS = {"description", "title", "examples", "default", "$comment"}
"""What a schema can lose and still mean the same."""


def provider_tool(server: McpServer) -> Json:
    """The Realtime tool by which the voice service itself speaks with the server."""
    tool: dict[str, Any] = {
        "type": "mcp",
        "server_label": server.label,
        "server_url": server.url,
        "require_approval": "always" if server.approval else "never",  # left out it would be "always"
    }
    if server.key:
        tool["authorization"] = server.key
    if server.headers:
        tool["headers"] = dict(server.headers)
    if server.allowed:
        tool["allowed_tools"] = list(server.allowed)
    return tool


def used(event: Event, servers: Iterable[McpServer]) -> tuple[McpServer, str, Json] | None:
    """The use of a tool that an event of a call tells of: its server, when that is still there, name, arguments."""
    fields = event.fields
    ours = event.what == "tool.exchange" and fields.get("method") == "MCP"
    if not ours and event.what != "mcp.called":  # which the voice service has done by itself
        return None
    try:
        body = json.loads(str(fields.get("body"))) if ours else fields
        name = str(body["name"])
        arguments = body["arguments"] if ours else json.loads(str(body["arguments"]) or "{}")
    except (ValueError, KeyError, TypeError):
        return None
    for server in servers:
        same = shown_url(server.url) == fields.get("url") if ours else server.label == fields.get("server")
        if same and isinstance(arguments, dict):
            return server, name, arguments
    return None


def shown_url(url: str) -> str:
    """A server's URL for people: user, query and fragment may hold secrets."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return ""


# -- Tools ------------------------------------------------------------------------------


def tools(found: Iterable[Any], allowed: Collection[str] = ()) -> tuple[Json, ...]:
    """Of the tools that a server lists those that are allowed (none named: all), each {"name", "description",
    "parameters"} and fit for a Realtime function tool but for its name, at most `TOOLS` of them.

    Of several with one name the first counts; one without a name that can be used is left out.
    """
    fit: dict[str, Json] = {}
    for tool in found:
        if len(fit) == TOOLS:
            break
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.strip() or name in fit:
            continue
        if not allowed or name in allowed:
            words = tool.get("description") or tool.get("title") or ""
            fit[name] = {
                "name": name,
                "description": _cut(words, DESCRIPTION) if isinstance(words, str) else "",
                "parameters": parameters(tool.get("inputSchema")),
            }
    return tuple(fit.values())


def parameters(schema: Any) -> Json:
    """A JSON schema as parameters of a Realtime function tool: of type object, without what services refuse there."""
    if not isinstance(schema, dict):
        return _OPEN
    plain = _shallow(_merged(schema), DEPTH)
    if len(json.dumps(plain)) > SCHEMA:
        plain = _bare(plain)
    return plain if len(json.dumps(plain)) <= SCHEMA else _OPEN


def _merged(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with the properties of its alternatives, none of which is required then."""
    plain = {key: value for key, value in schema.items() if key not in _UNWANTED}
    ways = [schema, *(way for key in _ALTERNATIVES for way in _list(schema.get(key)) if isinstance(way, dict))]
    properties: dict[str, Any] = {}
    for way in ways:
        inner = way.get("properties")
        for name, value in inner.items() if isinstance(inner, dict) else ():
            if isinstance(value, (dict, bool)):
                properties.setdefault(name, value)
    required = [name for name in _list(plain.pop("required", None)) if isinstance(name, str) and name in properties]
    if len(ways) > 1:
        plain.pop("additionalProperties", None)
    return {**plain, "type": "object", "properties": properties, **({"required": required} if required else {})}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _shallow(node: Any, levels: int) -> Any:
    if isinstance(node, dict):
        return {key: _shallow(value, levels - 1) for key, value in node.items()} if levels else {}
    if isinstance(node, list):
        return [_shallow(value, levels - 1) for value in node] if levels else []
    return node


def _bare(node: Any, names: bool = False) -> Any:
    """The schema without its words; under `names` the keys are names of properties, whatever they are."""
    if isinstance(node, dict):
        return {
            key: _bare(value, not names and key in ("properties", "$defs", "definitions"))
            for key, value in node.items()
            if names or key not in _WORDS
        }
    return [_bare(value) for value in node] if isinstance(node, list) else node


# -- Names ------------------------------------------------------------------------------


def named(servers: Mapping[str, Iterable[str]], taken: Collection[str] = ()) -> dict[str, tuple[str, str]]:
    """For the model a name of every tool, with its server's label and its own name there.

    It is the tool's own name where that is legal, not `taken`, and no other server has it; else `label_name`. So a
    plain name comes never to mean the tool of another server when one more server is there.
    """
    tools_of = {label: tuple(dict.fromkeys(names)) for label, names in servers.items()}
    counts = Counter(_legal(name) for names in tools_of.values() for name in names)
    found: dict[str, tuple[str, str]] = {}
    for label, names in tools_of.items():
        for name in names:
            plain = _legal(name)
            if counts[plain] > 1 or plain in taken:
                plain = _legal(f"{label}_{name}")
            if plain in found or plain in taken:
                plain = _marked(plain, f"{label}\n{name}")
            if plain not in found and plain not in taken:
                found[plain] = (label, name)
    return found


def _legal(name: str) -> str:
    """The name in [A-Za-z0-9_-]{1,64}; one that is too long ends in a mark, so that two stay two."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return plain if len(plain) <= 64 else _marked(plain, name)


def _marked(plain: str, of: str) -> str:
    return f"{plain[:55]}_{zlib.crc32(of.encode('utf-8', 'replace')):08x}"


# -- Results ----------------------------------------------------------------------------


def text(result: Mapping[str, Any]) -> str:
    """What the model is told of a result of `tools/call`, as JSON of MCP."""
    parts = [part for part in _list(result.get("content")) if isinstance(part, dict)]
    words = [_part(part) for part in parts]
    structured = result.get("structuredContent")
    texts = [str(part.get("text", "")) for part in parts if part.get("type") == "text"]
    if structured is not None and sum(map(len, words)) < SPOKEN and not _says(texts, structured):
        words.append(json.dumps(structured, ensure_ascii=False))
    said = "\n".join(word for word in words if word).strip()
    if not said and result.get("isError"):
        return "the tool has not said why"
    return _cut(said, SPOKEN) or "The tool has finished and returned nothing."


def _says(texts: Iterable[str], structured: Any) -> bool:
    """Whether the words hold the data already, as they should (MCP 2025-11-25, "Structured Content").

    What is no object servers wrap into one with a "result", which has the same words.
    """
    for text in texts:
        if isinstance(structured, dict) and structured.keys() == {"result"} and text.strip():
            return True
        try:
            if json.loads(text) == structured:
                return True
        except (ValueError, RecursionError):
            continue
    return False


def _part(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    if kind == "text":
        return str(part.get("text", ""))
    if kind in ("image", "audio"):
        return f"[{'an image' if kind == 'image' else 'audio'}, {part.get('mimeType') or 'of unknown kind'}]"
    if kind == "resource_link":
        name = part.get("title") or part.get("name") or "a resource"
        description = part.get("description")
        return f"{name}: {part.get('uri', '')}" + (f" ({description})" if description else "")
    if kind == "resource":
        inner = part.get("resource")
        inner = inner if isinstance(inner, dict) else {}
        if isinstance(inner.get("text"), str):
            return str(inner["text"])
        return f"[a file, {inner.get('mimeType') or 'of unknown kind'}: {inner.get('uri', '')}]"
    return f"[{kind or 'something'} that cannot be spoken]"


def _cut(words: str, longest: int) -> str:
    return words if len(words) <= longest else f"{words[:longest]} … (cut off here)"
