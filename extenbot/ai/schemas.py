"""JSON schemas that others have written (draft 2020-12), checked without harm to calls.

Nothing is fetched: what refers to a schema elsewhere is unresolvable. Patterns are matched by RE2, in linear time, as a
schema may come from an MCP server and the text from a caller; a pattern that RE2 does not know (look-around, back
references) holds for everything, and so does what a schema says of properties by pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from extenbot.interfaces import Json

_MEMORY = 1 << 20  # bytes of a compiled pattern
_BY_PATTERN = frozenset({"patternProperties", "additionalProperties", "unevaluatedProperties"})


def validator(schema: Json) -> Any:
    """What checks values by `schema`; making it takes longer than to use it."""
    return _Validator(_plain(schema, {}), registry=Registry())


def _plain(node: Any, done: dict[int, Any]) -> Any:
    """Without properties by pattern, which the library matches by itself, and what depends on them."""
    if isinstance(node, dict):
        if id(node) not in done:
            left_out = _BY_PATTERN if "patternProperties" in node else ()
            done[id(node)] = {key: _plain(value, done) for key, value in node.items() if key not in left_out}
        return done[id(node)]
    return [_plain(value, done) for value in node] if isinstance(node, list) else node


def _pattern(_validator: Any, pattern: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and isinstance(pattern, str) and not _matches(pattern, value):
        yield ValidationError(f"does not match the pattern {pattern}")


def _matches(pattern: str, text: str) -> bool:
    compiled = _compiled(pattern)
    return compiled is None or compiled.search(text.encode("utf-8", "replace")) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        return re2.compile(pattern.encode("utf-8", "replace"), options)
    except re2.error:
        return None


_Validator: Any = extend(Draft202012Validator, {"pattern": _pattern})
