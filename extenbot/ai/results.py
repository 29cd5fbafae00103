"""What the model is told of an HTTP reply: all of it, or the part that a JMESPath names, short enough to listen to."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError, ParseError

from extenbot.ai.tools import SPOKEN, spoken
from extenbot.errors import Invalid, ToolFailed
from extenbot.interfaces import Reply

GROWTH = 64
"""A path may make so much more of a reply than there is: each list or object that it builds holds all of its parts."""


def check_path(path: str) -> None:
    """`Invalid` {"result": …} unless it is JMESPath; empty is good and means the whole reply."""
    if not path.strip():
        return
    try:
        parsed = _compiled(path).parsed
    except ParseError as error:
        raise Invalid({"result": f"It is not JMESPath: column {error.lex_position + 1}."}) from None
    except JMESPathError as error:
        raise Invalid({"result": f"It is not JMESPath: {error}."}) from None
    except RecursionError:
        parsed = None
    if parsed is None or _growth(parsed) > GROWTH:
        raise Invalid({"result": "It builds too much: fewer lists, objects and texts within each other, please."})
    if not _finds_values(parsed):
        raise Invalid({"result": "& belongs into sort_by, min_by, max_by and map only."})


def told(reply: Reply, path: str) -> str:
    """The words of a good reply, by `path`; that there is nothing at that place is an answer, too."""
    if not path.strip():
        return spoken(reply.body, reply.kind)
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        raise ToolFailed("the reply is not JSON, so its result cannot be found in it") from None
    try:
        found = _compiled(path).search(document)
        if found is None:
            return f"The reply has nothing at {path}."
        return found[:SPOKEN] if isinstance(found, str) else _beginning(found)
    except (JMESPathError, RecursionError) as error:
        raise ToolFailed(f"the result cannot be found in the reply: {error}") from None


def _beginning(found: Any) -> str:
    """As JSON, as much of it as the model is told: what is longer is not written out."""
    text = ""
    for piece in json.JSONEncoder(ensure_ascii=False).iterencode(found):
        text += piece
        if len(text) >= SPOKEN:
            break
    return text[:SPOKEN]


@lru_cache(maxsize=512)
def _compiled(path: str) -> Any:
    return jmespath.compile(path)


def _finds_values(node: Any, *, used: bool = False) -> bool:
    """Whether expressions (&) stand only where they are used up: as a result one is nothing that can be said."""
    uses = node["type"] == "function_expression" and node["value"] in ("sort_by", "min_by", "max_by", "map")
    children = [each for each in node["children"] if isinstance(each, dict)]
    return (used or node["type"] != "expref") and all(_finds_values(each, used=uses) for each in children)


def _growth(node: Any) -> int:
    """How many times as long as its input the outcome of a parsed path may be, roughly; no less than it is."""
    times, name = 1, node.get("value")
    if node["type"] in ("multi_select_list", "multi_select_dict"):
        times = len(node["children"])
    elif node["type"] == "function_expression" and name == "to_string":
        times = 2  # it escapes quotes
    elif node["type"] == "function_expression" and name == "join" and node["children"][0]["type"] != "literal":
        times = GROWTH + 1  # with a long text between many
    for each in node["children"]:
        if isinstance(each, dict):
            times *= _growth(each)
    return times
