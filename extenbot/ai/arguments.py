"""Arguments of a function, checked against its schema (JSON Schema, draft 2020-12) before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from json import dumps, loads
from typing import Any

from jsonschema.exceptions import ValidationError
from referencing.exceptions import Unresolvable

from extenbot.ai.schemas import TooMuch, bounded, validator
from extenbot.interfaces import Json

MOST = 5
"""Mistakes that the model is told of at once."""

LOOKED_AT = 50
"""Mistakes among which those are chosen, by their places."""

LONGEST = 200
"""Characters of one of them."""

STEPS = 5000
"""Of one check, some 50 ms; what has not been looked at by then counts as good: who gets it checks it, too."""


def mistakes(parameters: Json, arguments: Json) -> str:
    """What is wrong with the arguments, for the model to put right; empty when they are good."""
    found: list[ValidationError] = []
    with suppress(Unresolvable, RecursionError, TooMuch), bounded(STEPS):  # such schemas are not the model's fault
        for error in islice(_validator(dumps(parameters)).iter_errors(arguments), LOOKED_AT):
            found.append(error)  # noqa: PERF402  what there is when it gets too much shall be told
    found.sort(key=lambda error: list(map(str, error.path)))
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
