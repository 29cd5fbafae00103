"""What has been spent today, and whether that leaves room for more.

A day is one of UTC. The records of today's finished calls say at start what was spent before; from then on the calls
tell. The cost of a call that goes on over midnight counts for the day in which it arises, after a restart for the day
in which the call ended.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from extenbot.interfaces import Bot

DAY = 86400
BOT = "bot"
ACCOUNT = "account"


class Caps(Protocol):
    """Where the caps in force are known."""

    def by_id(self, bot_id: str) -> Bot | None: ...

    def cap_of(self, account_id: str) -> float: ...


class Ledger:
    """Implements `interfaces.Ledger`. Amounts are USD."""

    def __init__(self, caps: Caps, now: Callable[[], float] = time.time) -> None:
        self._caps = caps
        self._now = now
        self._day = self._today()
        self._spent: defaultdict[tuple[str, str], float] = defaultdict(float)  # by account and bot
        self._of_accounts: defaultdict[str, float] = defaultdict(float)

    @property
    def midnight(self) -> float:
        """When today began."""
        return float(self._today() * DAY)

    def load(self, sums: Iterable[tuple[str, str, float]]) -> None:
        """What was spent before we began, once: account, bot and amount."""
        for account_id, bot_id, amount in sums:
            self._add(account_id, bot_id, amount)

    def refusal(self, bot: Bot) -> str:
        left = self.left(bot)
        if left is None or left[0] > 0:
            return ""
        whose = f"The bot {bot.name}" if left[2] == BOT else "The account"
        return f"{whose} may cost {left[1]:.2f} USD a day, and that is spent; it goes on at midnight (UTC)."

    def left(self, bot: Bot) -> tuple[float, float, str] | None:
        self._turn_over()
        now = self._caps.by_id(bot.id) or bot  # a call keeps the bot as it was
        caps = (
            (now.manner.cap_day, self._spent[bot.account_id, bot.id], BOT),
            (self._caps.cap_of(bot.account_id), self._of_accounts[bot.account_id], ACCOUNT),
        )
        return min(((cap - so_far, cap, whose) for cap, so_far, whose in caps if cap), default=None)

    def spent(self, bot: Bot, amount: float) -> None:
        self._add(bot.account_id, bot.id, amount)

    def today(self, account_id: str) -> Mapping[str, float]:
        """What the bots of an account have cost today, by bot id."""
        self._turn_over()
        return {bot: amount for (account, bot), amount in self._spent.items() if account == account_id and amount}

    def _add(self, account_id: str, bot_id: str, amount: float) -> None:
        self._turn_over()
        if amount > 0:
            self._spent[account_id, bot_id] += amount
            self._of_accounts[account_id] += amount

    def _today(self) -> int:
        return int(self._now() // DAY)

    def _turn_over(self) -> None:
        today = self._today()
        if today != self._day:
            self._day = today
            self._spent.clear()
            self._of_accounts.clear()
