"""OpenAPI 3 documents as people paste them, JSON or YAML: which operations there are, and what one of them takes.

Schemas are written out in place of their references, within bounds: what refers to itself ends as "anything".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from extenbot.errors import Invalid
from extenbot.interfaces import Json

LONGEST = 400_000
"""Characters of a document."""

DEEPEST = 6
"""Levels of a schema that are written out."""

MOST = 100
"""Parts of schemas that are written out for one operation."""

MOST_OPERATIONS = 500

_METHODS = ("get", "post", "put", "patch", "delete")
_KEPT = frozenset(
    (
        *("type", "enum", "const", "default", "format", "pattern", "minLength", "maxLength", "minimum", "maximum"),
        *("multipleOf", "minItems", "maxItems", "uniqueItems", "exclusiveMinimum", "exclusiveMaximum", "required"),
    )
)
_WORDS = 500  # characters of a description


class Operation(NamedTuple):
    """One of a document."""

    key: str  # as GET /orders/{id}
    words: str


class Details(NamedTuple):
    """What one operation takes."""

    method: str
    url: str
    name: str
    words: str
    parameters: Mapping[str, Json]  # of path and query: schemas by name
    required: frozenset[str]
    query: tuple[str, ...]  # those of them that stand in the query
    body: Json | None  # its schema
    header_keys: tuple[str, ...]  # headers that carry a key
    query_keys: tuple[str, ...]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe, and quick where libyaml is; dates stay text, merges (which can grow without bound) are refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith(":timestamp")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def flatten_mapping(self, node: Any) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _value in node.value):
            raise yaml.YAMLError("merge keys (<<) are not taken")


def operations(text: str) -> list[Operation]:
    """Those of a document, in its order; `Invalid` {"openapi": …}. Slow for long ones: for a thread."""
    found = [
        Operation(f"{method.upper()} {path}", _line(operation.get("summary") or operation.get("operationId")))
        for path, method, operation in _operations(_document(text))
    ]
    if not found:
        raise _wrong("It has no operations.")
    return found[:MOST_OPERATIONS]


def details(text: str, key: str) -> Details:
    """Of the operation with that key; `Invalid` {"openapi": …}."""
    document = _document(text)
    for path, method, operation in _operations(document):
        if f"{method.upper()} {path}" == key:
            return _details(document, path, method, operation)
    raise _wrong("There is no such operation in it.")


@lru_cache(maxsize=4)
def _document(text: str) -> Json:
    if len(text) > LONGEST:
        raise _wrong(
            f"It is longer than {LONGEST} characters: paste only the paths that you need, and what they refer to."
        )
    try:
        try:
            found = json.loads(text)
        except ValueError:
            found = yaml.load(text, Loader=_Loader)  # noqa: S506  a safe one
    except RecursionError:
        raise _wrong("It is nested too deep.") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _wrong(f"It is neither JSON nor YAML: {getattr(error, 'problem', None) or error}{where}.") from None
    if isinstance(found, dict) and "swagger" in found:
        raise _wrong("It is of Swagger 2: convert it to OpenAPI 3 first.")
    if not isinstance(found, dict) or not isinstance(found.get("paths"), dict):
        raise _wrong('It is no OpenAPI document: it has no "paths".')
    return found


def _operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method in _METHODS:
            if isinstance(item, dict) and isinstance(item.get(method), dict):
                yield str(path), method, item[method]


def _details(document: Json, path: str, method: str, operation: Json) -> Details:
    schemas = _Schemas(document)
    parameters: dict[str, Json] = {}
    required, query = set(), []
    for given in (*_list(document["paths"][path].get("parameters")), *_list(operation.get("parameters"))):
        parameter = schemas.referred(given)
        name, place = str(parameter.get("name", "")), parameter.get("in")
        if place not in ("path", "query") or not re.fullmatch(r"[^\W\d][\w.-]*", name):
            continue
        schema = schemas.plain(parameter.get("schema", {}))
        words = _line(parameter.get("description"))
        parameters[name] = {**({"description": words} if words else {}), **schema}
        if place == "path" or parameter.get("required") is True:
            required.add(name)
        if place == "query" and name not in query:
            query.append(name)
    content = schemas.referred(operation.get("requestBody")).get("content")
    body: Json | None = None
    if isinstance(content, dict) and content:
        kind = next((kind for kind in content if re.match(r"(application/(.+\+)?json|\*/\*)", str(kind))), None)
        if kind is None:
            raise _wrong("This operation takes no JSON: a function sends nothing else.")
        body = schemas.plain(schemas.referred(content[kind]).get("schema", {}))
    return Details(
        method.upper(),
        _server(document, path, operation) + path,
        str(operation.get("operationId") or f"{method}_{path}"),
        _line(operation.get("summary") or operation.get("description")),
        parameters,
        frozenset(required),
        tuple(query),
        body,
        *_keys(document, operation, schemas),
    )


def _server(document: Json, path: str, operation: Json) -> str:
    for place in (operation, document["paths"][path], document):
        for server in map(_dict, _list(place.get("servers"))[:1]):
            url = str(server.get("url", "")).rstrip("/")
            for name, variable in _dict(server.get("variables")).items():
                url = url.replace(f"{{{name}}}", str(_dict(variable).get("default", "")))
            try:
                if urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname:
                    return url
            except ValueError:
                pass
            raise _wrong("Its server must be a whole URL: write it into the document under servers.")
    raise _wrong("It does not say where its server is: write the URL into the document under servers.")


def _keys(document: Json, operation: Json, schemas: _Schemas) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the headers and of the query that carry a key; a bearer token needs neither."""
    schemes = _dict(_dict(document.get("components")).get("securitySchemes"))
    wanted = _list(operation.get("security", document.get("security")))[:1]
    found: dict[str, list[str]] = {"header": [], "query": []}
    for name in (name for each in wanted for name in _dict(each)):
        scheme = schemas.referred(schemes.get(name))
        place = found.get(str(scheme.get("in")))
        if scheme.get("type") == "apiKey" and place is not None and re.fullmatch(r"[\w-]+", str(scheme.get("name"))):
            place.append(str(scheme["name"]))
    return tuple(found["header"]), tuple(found["query"])


class _Schemas:
    """Writes schemas out."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._left = MOST

    def referred(self, node: Any) -> Json:
        """What stands there itself, or what it refers to."""
        for _ in range(DEEPEST):
            pointer = node.get("$ref") if isinstance(node, dict) else None
            if not isinstance(pointer, str):
                break
            if not pointer.startswith("#/"):
                raise _wrong(f"It refers to another document: {pointer[:80]}.")
            node = self._document
            for step in pointer[2:].split("/"):
                node = _dict(node).get(step.replace("~1", "/").replace("~0", "~"))
        return _dict(node)

    def plain(self, given: Any, depth: int = 0) -> Json:
        """A schema as JSON Schema has it, with nothing referred to."""
        self._left -= 1
        if depth > DEEPEST or self._left < 0:
            return {}
        schema = self.referred(given)
        made = {key: value for key, value in schema.items() if key in _KEPT and _small(value)}
        if words := _line(schema.get("description")):
            made["description"] = words
        if "example" in schema and _small(schema["example"]):
            made["examples"] = [schema["example"]]
        elif isinstance(schema.get("examples"), list) and _small(schema["examples"]):
            made["examples"] = schema["examples"]
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(made.get(exclusive), bool) and made.pop(exclusive) and bound in made:  # as in OpenAPI 3.0
                made[exclusive] = made.pop(bound)
        if isinstance(schema.get("properties"), dict):
            made["properties"] = {
                str(name): self.plain(inner, depth + 1)
                for name, inner in schema["properties"].items()
                if self.referred(inner).get("readOnly") is not True
            }
            made["required"] = [name for name in _list(schema.get("required")) if name in made["properties"]]
        if "items" in schema:
            made["items"] = self.plain(schema["items"], depth + 1)
        for choice in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(choice), list):
                made[choice] = [self.plain(inner, depth + 1) for inner in schema[choice]]
        if isinstance(schema.get("additionalProperties"), dict):
            made["additionalProperties"] = self.plain(schema["additionalProperties"], depth + 1)
        if schema.get("nullable") is True and isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
            if isinstance(made.get("enum"), list):
                made["enum"] = [*made["enum"], None]
        return made


def _small(value: Any) -> bool:
    """Whether it can be written out at all: YAML may have built what does not end."""
    try:
        return len(json.dumps(value)) <= 4000 if not isinstance(value, (dict, list)) or len(value) <= 200 else False
    except (TypeError, ValueError, RecursionError):
        return False


def _line(text: Any) -> str:
    return " ".join(text.split())[:_WORDS] if isinstance(text, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _wrong(sentence: str) -> Invalid:
    return Invalid({"openapi": sentence})
