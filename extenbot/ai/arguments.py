"""Arguments of a function, checked against its schema (JSON Schema, draft 2020-12) before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from json import dumps, loads
from typing import Any

from jsonschema.exceptions import ValidationError
from referencing.exceptions import Unresolvable

from extenbot.ai.schemas import validator
from extenbot.interfaces import Json

MOST = 5
"""Mistakes that the model is told of at once."""

LONGEST = 200
"""Characters of one of them."""


def mistakes(parameters: Json, arguments: Json) -> str:
    """What is wrong with the arguments, for the model to put right; empty when they are good."""
    try:
        errors = _validator(dumps(parameters)).iter_errors(arguments)
        found = sorted(errors, key=lambda error: list(map(str, error.path)))
    except (Unresolvable, RecursionError):  # a schema that nobody can satisfy is not the model's fault
        return ""
    return " ".join(_sentences(found[:MOST]))


def _sentences(errors: Iterable[ValidationError]) -> Iterable[str]:
    for error in errors:
        words = error.message if len(error.message) <= LONGEST else f"{error.message[:LONGEST]}…"
        where = ".".join(map(str, error.path))
        yield f"{where}: {words}." if where else f"{words}."


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Any:
    """Made once for each schema: that takes longer than to check by it."""
    return validator(loads(schema))
