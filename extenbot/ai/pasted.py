"""JSON as people paste it: read leniently (JSON5: comments, trailing commas), refused with line and column."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any, NoReturn

import json5

from extenbot.errors import Invalid

LONGEST = 16 * 1024
"""Characters of one text."""

DEEPEST = 32
"""Levels of objects and lists in it."""


def read(text: str, field: str, shown: str = "") -> Any:
    """JSON or JSON5, to values that JSON can hold; `Invalid` with line and column, in `shown` if that is not `text`."""

    def refuse(constant: str) -> NoReturn:
        raise Invalid({field: f"{constant} is not a JSON value."})

    def finite(number: str) -> float:
        return value if isfinite(value := float(number)) else refuse(number)

    too_deep = f"It is nested more than {DEEPEST} levels deep."
    if len(text) > LONGEST:
        raise Invalid({field: f"It is longer than {LONGEST} characters."})
    if not text.strip():
        raise Invalid({field: "It is empty."})
    try:
        try:  # json5 is a thousand times slower
            found = json.loads(text, parse_constant=refuse, parse_float=finite)
        except ValueError:
            found = json5.loads(text, parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise Invalid({field: too_deep}) from None
    except ValueError as error:
        raise Invalid({field: _where(shown or text, str(error))}) from None
    if _depth(found) > DEEPEST:
        raise Invalid({field: too_deep})
    return found


def _depth(node: Any) -> int:
    depth, level = 0, [node]
    while level:
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth - 1


def _where(text: str, words: str) -> str:
    """The parser's words as a sentence. `<string>:2 Unexpected "x" at column 6` is what it says."""
    match = re.fullmatch(r"<string>:(\d+) (.*) at column (\d+)", words, re.DOTALL)
    if match is None:
        return f"It is not JSON: {words}."
    line, column = int(match[1]), int(match[3])
    lines = text.split("\n")
    if match[2].startswith("Unexpected end"):
        lines = text.rstrip().split("\n")
        return f"It is not JSON: it ends too early, at line {len(lines)}, column {len(lines[-1])}."
    found = lines[line - 1][column - 1 : column] if line <= len(lines) else ""
    return f"It is not JSON: unexpected {found or 'end of line'} at line {line}, column {column}."
