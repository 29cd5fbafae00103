"""What is wrong with a bot, in words for its owner: a cap that is reached, and the last trouble with its voice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from extenbot.interfaces import Bot, CallRecord
from extenbot.web.seams import Account

REFUSED = "calls are refused with 480 until midnight UTC."


class Trouble(NamedTuple):
    words: str
    now: bool = True  # callers are likely to meet it
    call: CallRecord | None = None  # where it happened


def troubles(bot: Bot, account: Account, spent: Mapping[str, float], calls: Sequence[CallRecord]) -> Iterator[Trouble]:
    """`spent` is of today, USD by bot id; `calls` are the last ones of the bot, the newest first."""
    for whose, cap, so_far in (
        ("of this bot", bot.manner.cap_day, spent.get(bot.id, 0.0)),
        ("of the account", account.cap_day, sum(spent.values())),
    ):
        if cap and so_far >= cap:
            yield Trouble(f"The cap {whose}, ${cap:,.2f} a day, is reached: {REFUSED}")
            break
    last = next((call for call in calls if call.trouble), None)
    if last is not None:
        yield Trouble(last.trouble, last is calls[0], last)


def troubled(bot: Bot, account: Account, spent: Mapping[str, float], calls: Sequence[CallRecord]) -> str:
    """What callers of the bot are likely to meet now; `calls` are the last ones of the whole account."""
    own = [call for call in calls if call.bot_id == bot.id][:1]
    return next((trouble.words for trouble in troubles(bot, account, spent, own)), "")
