"""What the caller must agree to before it is done: the bot asks in its own words, and only a yes has it done.

That the model says "agreed" is not enough: the caller must have said something since it was told to ask.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from extenbot.ai.built_in import DECIDE
from extenbot.errors import ToolFailed
from extenbot.interfaces import Json, ToolCall

Decided = Callable[[bool, str], None]
"""Told once whether it was a yes, and in which tool call the model has said so."""

SHOWN = 1000
"""Characters of the arguments that the model is reminded of."""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that waits for a yes."""

    turns: int  # of the caller until it was asked for
    decided: Decided


class Consent:
    """Of one call."""

    def __init__(self) -> None:
        self._waiting: dict[str, Act] = {}
        self._numbers = count(1)

    def ask(self, what: str, arguments: Json, turns: int, decided: Decided) -> str:
        """Have the caller asked whether `what` may be done; what the model is to be told.

        `turns`: how often the caller has spoken so far.
        """
        name = f"request-{next(self._numbers)}"
        self._waiting[name] = Act(turns, decided)
        told = json.dumps(dict(arguments), ensure_ascii=False)
        return json.dumps(
            {
                "status": "not done yet: the caller has to agree first",
                "what": f"{what} {told[:SHOWN]}",
                "next": "Ask the caller in your own words whether you may do this, and wait for the answer. Then call"
                f' {DECIDE} with "request": "{name}" and whether the caller agreed.',
                "request": name,
            },
            ensure_ascii=False,
        )

    def decide(self, tool: ToolCall, turns: int) -> None:
        """The model reports what the caller said. `ToolFailed` when it cannot be taken so."""
        name, agreed = str(tool.arguments.get("request")), tool.arguments.get("agreed")
        act = self._waiting.get(name)
        if act is None:
            raise ToolFailed("Nothing waits for an answer of the caller under this name.")
        if not isinstance(agreed, bool):
            raise ToolFailed('Say in "agreed" whether the caller agreed: true or false.')
        if agreed and turns <= act.turns:
            raise ToolFailed("The caller has not answered yet. Ask, and wait for the answer.")
        del self._waiting[name]
        act.decided(agreed, tool.call_id)
