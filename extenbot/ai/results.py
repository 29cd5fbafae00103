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


def check_path(path: str) -> None:
    """`Invalid` {"result": …} unless it is JMESPath; empty is good and means the whole reply."""
    if path.strip():
        try:
            _compiled(path)
        except ParseError as error:
            raise Invalid({"result": f"It is not JMESPath: column {error.lex_position + 1}."}) from None
        except JMESPathError as error:
            raise Invalid({"result": f"It is not JMESPath: {error}."}) from None


def told(reply: Reply, path: str) -> str:
    """The words of a good reply, by `path`; `ToolFailed` when there is nothing at that place."""
    if not path.strip():
        return spoken(reply.body, reply.kind)
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        raise ToolFailed("the webhook's reply is not JSON, so its result cannot be found in it") from None
    try:
        found = _compiled(path).search(document)
    except (JMESPathError, RecursionError) as error:
        raise ToolFailed(f"the result cannot be found in the webhook's reply: {error}") from None
    if found is None:
        raise ToolFailed(f"the webhook's reply has nothing at {path}")
    return found[:SPOKEN] if isinstance(found, str) else json.dumps(found, ensure_ascii=False)[:SPOKEN]


@lru_cache(maxsize=512)
def _compiled(path: str) -> Any:
    return jmespath.compile(path)
