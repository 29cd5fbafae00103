"""The tools that a bot has of itself: to hang up, to transfer, and for keys both ways.

What the model is told of them, by which names it may call them, and how their arguments are read. What they do is
done by the call.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

from extenbot.errors import ToolFailed
from extenbot.interfaces import Bot, Destination, Json

END = frozenset({"end_call", "terminate_call"})
"""Hanging up; the second name stands in instructions that were written long ago."""

TRANSFER = "transfer_call"
COLLECT = "collect_digits"
SEND = "send_digits"
DECIDE = "caller_decision"

TERMINAL: frozenset[str] = END | {TRANSFER}
"""What ends or leaves the conversation, and so waits until all before it has been heard."""

BUILT_IN: frozenset[str] = TERMINAL | {COLLECT, SEND, DECIDE}
"""No function may take one of these names."""

KEYS = "0123456789*#ABCD"

MOST_KEYS = 64
"""Keys that one `collect_digits` takes."""

SHORTEST, USUAL, LONGEST = 1.0, 8.0, 60.0
"""Seconds that `collect_digits` waits for the next key: at least, when the model does not say, and at most."""


def _tool(name: str, description: str, properties: Json, required: tuple[str, ...] = ()) -> Json:
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = list(required)
    return {"type": "function", "name": name, "description": description, "parameters": parameters}


END_CALL = _tool(
    "end_call",
    "Hang up. Say goodbye to the caller first, then call this. Use it when the caller wants to end the conversation,"
    " or when it is over.",
    {},
)
COLLECT_DIGITS = _tool(
    COLLECT,
    "Let the caller type on the keypad of the phone, for example a customer number or a PIN. Ask for it first, then"
    " call this, and say nothing until it returns: it tells you what was pressed. Keys that the caller presses"
    " at other times reach you as messages.",
    {
        "purpose": {"type": "string", "description": "What the keys are for"},
        "length": {"type": "integer", "description": "How many keys at most; with that many it is complete"},
        "terminator": {"type": "string", "description": 'The key that completes it, "#" unless you say another'},
        "timeout": {"type": "number", "description": f"Seconds to wait for the next key, {USUAL:g} unless you say"},
    },
)
SEND_DIGITS = _tool(
    SEND,
    "Press keys of the telephone, for whoever is on the line: to walk through a menu, or to dial an extension. They"
    " are sent when what you have said before has been heard.",
    {
        "digits": {
            "type": "string",
            "description": "0-9, *, # and A-D, in their order; a comma waits for a second, w for half of one",
        },
    },
    ("digits",),
)


CALLER_DECISION = _tool(
    DECIDE,
    "Some things are done only when the caller has agreed: you are told so when you ask for them. Ask the caller, wait"
    " for the answer, then call this.",
    {
        "request": {"type": "string", "description": "The name of the request, as you were told"},
        "agreed": {"type": "boolean", "description": "Whether the caller clearly said yes"},
    },
    ("request", "agreed"),
)


def tools(bot: Bot, taken: Container[str] = ()) -> Iterator[Json]:
    """The tools of `bot`, but for names that are `taken`: functions that are older than the tool keep theirs."""
    decisions = (CALLER_DECISION,) if any(server.approval for server in bot.servers) else ()
    for tool in (END_CALL, *_transfer(bot), COLLECT_DIGITS, SEND_DIGITS, *decisions):
        if tool["name"] not in taken:
            yield tool


def _transfer(bot: Bot) -> Iterator[Json]:
    """Whom callers can be connected to: one by no name, more by theirs."""
    named, usual = bot.destinations, bool(bot.transfer_uri)
    if not named and not usual:
        return
    text = (
        "Connect the caller to a person. Tell the caller first that you are connecting them, then call this. Use it"
        " when the caller asks for a person or an operator, or when you cannot help. If it does not work, you are told"
        " why and the caller is with you again."
    )
    if len(named) + usual == 1:
        when = f" {named[0].name}: {named[0].when}" if named and named[0].when else ""
        yield _tool(TRANSFER, text + when, {})
        return
    lines = [f"{each.name}: {each.when}" if each.when else each.name for each in named]
    if usual:
        lines.append("Leave it out for anybody else who asks for a person.")
    choice = {"type": "string", "enum": [each.name for each in named], "description": "\n".join(["To whom.", *lines])}
    yield _tool(TRANSFER, text, {"destination": choice}, () if usual else ("destination",))


def destination(bot: Bot, arguments: Json) -> Destination:
    """To whom the model wants the caller connected; the unnamed one is called "". `ToolFailed` when it is unclear."""
    wish = arguments.get("destination") or ""
    for each in bot.destinations:
        if isinstance(wish, str) and each.name.lower() == wish.strip().lower():
            return each
    if bot.transfer_uri and not wish:
        return Destination("", bot.transfer_uri)
    if not bot.transfer_uri and len(bot.destinations) == 1:
        return bot.destinations[0]
    if not bot.destinations:
        if bot.transfer_uri:  # a name that the model made up; there is only one that can be meant
            return Destination("", bot.transfer_uri)
        raise ToolFailed("There is nobody whom callers can be connected to. Tell the caller so.")
    names = ", ".join(each.name for each in bot.destinations)
    raise ToolFailed(f'There is no destination "{wish}". There are: {names}. Call {TRANSFER} again with one of them.')


@dataclass(frozen=True, slots=True)
class Collection:
    """What `collect_digits` was asked for."""

    length: int = MOST_KEYS
    terminator: str = "#"  # or none
    patience: float = USUAL  # seconds for the next key


def collection(arguments: Json) -> Collection:
    """Read the arguments of `collect_digits`; `ToolFailed` with a sentence for those that mean nothing."""
    length, end, patience = (arguments.get(name) for name in ("length", "terminator", "timeout"))
    if length is None:
        length = MOST_KEYS
    if patience is None:
        patience = USUAL
    end = "#" if end is None else str(end).strip().upper()
    if isinstance(length, bool) or not isinstance(length, int | float) or not 1 <= length <= MOST_KEYS:
        raise ToolFailed(f"The length must be a number from 1 to {MOST_KEYS}.")
    if isinstance(patience, bool) or not isinstance(patience, int | float):
        raise ToolFailed("The timeout must be a number of seconds.")
    if len(end) > 1 or (end and end not in KEYS):
        raise ToolFailed('The terminator must be one key: a digit, "*" or "#".')
    return Collection(int(length), end, min(max(SHORTEST, float(patience)), LONGEST))


def digits(arguments: Json) -> str:
    """What `send_digits` is to press, as the line takes it; `ToolFailed` when it says nothing."""
    wish = arguments.get("digits")
    if isinstance(wish, int) and not isinstance(wish, bool):
        wish = str(wish)  # models do that, although the schema says text
    if not isinstance(wish, str) or not wish.strip():
        raise ToolFailed('There are no keys to send: say which in "digits".')
    if len(wish) > MOST_KEYS:
        raise ToolFailed(f"At most {MOST_KEYS} keys at once.")
    return "".join(key for key in wish if key not in " -()")
