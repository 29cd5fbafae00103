"""JSON schemas that others have written (draft 2020-12), checked without harm to calls.

Nothing is fetched: what refers to a schema elsewhere is unresolvable. Patterns are matched by RE2, in linear time, as a
schema may come from an MCP server and the text from a caller; a pattern that RE2 does not know (look-around, back
references) holds for everything, and so does what a schema says of properties by pattern and of what is left over.

References make it easy to write a schema of a few lines that takes years to check: each check has a number of steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any

import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from extenbot.interfaces import Json

_MEMORY = 1 << 20  # bytes of a compiled pattern
_BY_PATTERN = frozenset({"patternProperties", "additionalProperties"})
_LEFT_OVER = frozenset({"unevaluatedProperties", "unevaluatedItems"})

_Check = Callable[[Any, Any, Any, Json], Iterator[ValidationError] | None]


class TooMuch(Exception):
    """The steps are used up before the value is checked."""


@dataclass(slots=True)
class _Steps:
    left: int


_steps: ContextVar[_Steps] = ContextVar("steps", default=_Steps(0))  # noqa: B039  nobody takes a step of that one


@contextmanager
def bounded(steps: int) -> Iterator[None]:
    """All checks within may take so many steps together: one for each keyword and value, some 10 µs. `TooMuch`."""
    before = _steps.set(_Steps(steps))
    try:
        yield
    finally:
        _steps.reset(before)


def validator(schema: Json) -> Any:
    """What checks values by `schema`, within `bounded`; making it takes longer than to use it."""
    return _Validator(_plain(schema, {}), registry=Registry())


def _plain(node: Any, done: dict[int, Any]) -> Any:
    """Without properties by pattern, which the library matches by itself, and what depends on them and on all else."""
    if isinstance(node, dict):
        if id(node) not in done:
            left_out = _LEFT_OVER | (_BY_PATTERN if "patternProperties" in node else frozenset())
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


def _unique(_validator: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    """The library compares each with each."""
    if (
        wanted is True
        and isinstance(value, list)
        and len({json.dumps(each, sort_keys=True) for each in value}) < len(value)
    ):
        yield ValidationError("has the same item twice")


def _counted(check: Any) -> _Check:
    @wraps(check)
    def checked(*given: Any) -> Iterator[ValidationError] | None:
        steps = _steps.get()
        if steps.left <= 0:
            raise TooMuch
        steps.left -= 1
        found: Iterator[ValidationError] | None = check(*given)
        return found

    return checked


_ours = Draft202012Validator.VALIDATORS | {"pattern": _pattern, "uniqueItems": _unique}
_Validator: Any = extend(Draft202012Validator, {keyword: _counted(check) for keyword, check in _ours.items()})
