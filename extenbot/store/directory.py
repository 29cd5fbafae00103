"""All bots in memory, with what they say and may cost, for the signalling path: never older than a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from extenbot.errors import CannotStart
from extenbot.interfaces import Bot
from extenbot.networks import Networks
from extenbot.store.bots import Bots, Snapshot
from extenbot.store.database import Database
from extenbot.store.sentences import Sentences
from extenbot.store.writing import Run

POLL = 0.5  # seconds between two looks at the revision


class Change(NamedTuple):
    """A bot that came (`before` is None), changed, or went (`after` is None)."""

    before: Bot | None
    after: Bot | None


class Directory:
    """Implements `interfaces.Directory`.

    Commands and pages may run in other processes; each change of bots, functions,
    sentences or accounts raises the revision in the database, which is polled.
    """

    log = Logger()

    on_changed: Callable[[tuple[Change, ...]], None] | None = None
    """Called in the reactor with what is different now."""

    def __init__(self, database: Database, run: Run, clock: Any) -> None:
        self._database = database
        self._bots = Bots(database)
        self.sentences = Sentences(database)
        self._run = run
        self._now = Snapshot()
        self._by_username: dict[str, Bot] = {}
        self._trusting: Networks[Bot] = Networks(())
        self._one_owner = False
        self._away = False
        self._polling = LoopingCall(self._poll)
        self._polling.clock = clock

    def load(self) -> None:
        """The first look, blocking; `CannotStart` when the keys do not fit."""
        snapshot = self._bots.snapshot(self._now)
        if snapshot.unreadable:
            names = ", ".join(snapshot.unreadable)
            raise CannotStart(f"The key file does not hold the key that the secrets of these bots need: {names}.")
        self._take(snapshot)

    def start(self) -> None:
        self._polling.start(POLL, now=False)

    def stop(self) -> None:
        if self._polling.running:
            self._polling.stop()

    def by_username(self, username: str) -> Bot | None:
        """The registrar bot of that name: names of registrants belong to other PBXs."""
        return self._by_username.get(username)

    def by_id(self, bot_id: str) -> Bot | None:
        return self._now.bots.get(bot_id)

    def of_account(self, account_id: str, text: str) -> Bot | None:
        mine = [bot for bot in self._now.bots.values() if bot.account_id == account_id]
        for name in ("id", "username", "name"):
            for bot in mine:
                if getattr(bot, name) == text:
                    return bot
        return None

    def trusting(self, host: str) -> Mapping[str, Bot]:
        return self._trusting.at(host)

    def meant_by(self, host: str) -> Bot | None:
        found = self._trusting.at(host)
        bot = next(iter(found.values())) if len(found) == 1 else None
        return bot if bot and (self._one_owner or bot.account_id in self._now.admins) else None

    def cap_of(self, account_id: str) -> float:
        """What the bots of an account may cost a day together, USD; 0: no cap."""
        return self._now.caps.get(account_id, 0.0)

    def all(self) -> list[Bot]:
        return list(self._now.bots.values())

    async def refresh(self) -> None:
        """Look now."""
        if await self._run(self._database.revision) == self._now.revision:
            return
        self._take(await self._run(self._bots.snapshot, self._now))

    def _poll(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        try:
            await self.refresh()
        except Exception as error:  # noqa: BLE001 — calls go on with the bots as they were
            if not self._away:
                self.log.error("Cannot read the bots, going on with the last state: {error}", error=str(error))
            self._away = True
        else:
            self._away = False

    def _take(self, snapshot: Snapshot) -> None:
        before = self._now
        if snapshot.revision <= before.revision:  # two looks crossed, the newer one was first
            return
        self._now = snapshot
        self.sentences.take(snapshot.sentences)
        self._by_username = {bot.username: bot for bot in snapshot.bots.values() if bot.kind == "registrar"}
        self._trusting = Networks((bot.trusted, name, bot) for name, bot in self._by_username.items() if bot.trusted)
        self._one_owner = len({bot.account_id for bot in snapshot.bots.values()}) == 1
        for name in snapshot.unreadable:
            self.log.error("The key file does not fit the secrets of the bot {name}: it is left out", name=name)
        changes = tuple(
            Change(before.bots.get(bot_id), snapshot.bots.get(bot_id))
            for bot_id in before.bots.keys() | snapshot.bots.keys()
            if before.bots.get(bot_id) != snapshot.bots.get(bot_id)
        )
        if changes and self.on_changed is not None:
            try:
                self.on_changed(changes)
            except Exception:  # noqa: BLE001 — who listens must not stop the directory
                self.log.failure("A change of the bots was not taken up")
