"""What a session is told of the conversation before it.

It stands in one message of ours: earlier words of the bot as items of their own would make some models answer in text.
"""

from __future__ import annotations

from collections.abc import Iterable

from extenbot.interfaces import Line

LONGEST = 24_000
"""Characters, some 6,000 tokens: what was said first is left out beyond that."""

_SPEAKERS = {"caller": "Caller", "bot": "You", "function": "Function"}
_BEFORE = "[This conversation has been going on for a while. What was said so far:"
_AFTER = "The caller knows all of that. Go on from there, and do not greet again.]"
_CUT = " (interrupted)"


def message(lines: Iterable[Line]) -> str:
    """All of it in words; empty when nothing has been said."""
    said = [
        f"{_SPEAKERS[line.speaker]}: {line.text}{_CUT if line.interrupted else ''}"
        for line in sorted(lines, key=lambda line: line.at)
    ]
    if not said:
        return ""
    length = 0
    for number, line in enumerate(reversed(said)):
        length += len(line) + 1
        if length > LONGEST:
            said = ["(…)", *said[len(said) - number :]]
            break
    return "\n".join([_BEFORE, *said, _AFTER])
