"""Writes that must not be waited for: done one after the other, tried again when the database is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from extenbot.tasks import Tasks

FIRST_PAUSE = 0.5  # seconds before a write is tried again; doubles up to the longest
LONGEST_PAUSE = 30.0
LAST_TRIES = 4  # once the service stops
_AWAY = (OperationalError, InterfaceError, PoolTimeout)


class Run(Protocol):
    """Runs a function in the thread pool."""

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Deferred[Any]: ...


class Writing:
    """Jobs by key: a newer job takes the place of an older one that has the same key."""

    log = Logger()

    def __init__(self, run: Run, clock: Any) -> None:
        self._run = run
        self._clock = clock
        self._jobs: dict[tuple[str, str], Callable[[], object]] = {}
        self._tasks = Tasks()
        self._pause: Deferred[None] | None = None
        self._tries_left: int | None = None  # a number once we stop

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, key: tuple[str, str], job: Callable[[], object]) -> None:
        """Do it soon. `key` is what it is about, for the log: ("call", id)."""
        self._jobs.pop(key, None)
        self._jobs[key] = job
        if not len(self._tasks):
            self._tasks.start(self._work(), "writing to the database")

    async def stop(self) -> None:
        """Write what still waits; what cannot be written after a few tries is logged and lost."""
        self._tries_left = LAST_TRIES
        if self._pause is not None:
            self._pause.callback(None)
        if self._jobs:
            idle: Deferred[None] = Deferred()
            self._idle = idle
            await idle

    _idle: Deferred[None] | None = None

    async def _work(self) -> None:
        pause = FIRST_PAUSE
        while self._jobs:
            key, job = next(iter(self._jobs.items()))
            try:
                await self._run(job)
            except _AWAY as error:
                self.log.error(
                    "Cannot write {what} {id}, {waiting} waiting: {error}",
                    what=key[0],
                    id=key[1],
                    waiting=len(self._jobs),
                    error=str(error.orig if hasattr(error, "orig") else error),
                )
                if self._tries_left is not None:
                    self._tries_left -= 1
                    if self._tries_left <= 0:
                        self.log.critical("{count} writes are lost", count=len(self._jobs))
                        self._jobs.clear()
                        break
                await self._sleep(min(pause, LONGEST_PAUSE if self._tries_left is None else FIRST_PAUSE))
                pause *= 2
                continue
            except Exception:  # noqa: BLE001 — one bad write must not stop the others
                self.log.failure("Cannot write {what} {id}, given up", what=key[0], id=key[1])
            pause = FIRST_PAUSE
            if self._jobs.get(key) is job:
                del self._jobs[key]
        if self._idle is not None:
            self._idle.callback(None)

    async def _sleep(self, seconds: float) -> None:
        self._pause = Deferred()
        waking = self._clock.callLater(seconds, self._pause.callback, None)
        await self._pause
        self._pause = None
        if waking.active():
            waking.cancel()
