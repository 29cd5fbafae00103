"""Writes that must not be waited for: done one after the other, tried again when the database is away.

What comes by the thousand, such as the bindings of PBXs that register every minute, is written many at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from extenbot.tasks import Tasks

FIRST_PAUSE = 0.5  # seconds before a write is tried again; doubles up to the longest
LONGEST_PAUSE = 30.0
LAST_TRIES = 4  # once the service stops
TOGETHER = 500  # parts in one transaction
_AWAY = (OperationalError, InterfaceError, PoolTimeout)


class Run(Protocol):
    """Runs a function in the thread pool."""

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Deferred[Any]: ...


class Part(NamedTuple):
    """A job that can be done together with others: `write` takes all of them, by the second half of their keys."""

    write: Callable[[Mapping[str, Any]], object]
    value: object


Job = Callable[[], object] | Part


class Writing:
    """Jobs by key: a newer job takes the place of an older one that has the same key."""

    log = Logger()

    def __init__(self, run: Run, clock: Any) -> None:
        self._run = run
        self._clock = clock
        self._jobs: dict[tuple[str, str], Job] = {}
        self._alone = 0  # so many are done one by one: written together they failed, and one of them is bad
        self._tasks = Tasks()
        self._pause: Deferred[None] | None = None
        self._tries_left: int | None = None  # a number once we stop

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, key: tuple[str, str], job: Job) -> None:
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
            jobs = self._next()
            key = next(iter(jobs))
            try:
                await self._run(_together(jobs))
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
                if len(jobs) > 1:
                    self._alone = len(jobs)
                    continue
                self.log.failure("Cannot write {what} {id}, given up", what=key[0], id=key[1])
            pause = FIRST_PAUSE
            self._alone = max(0, self._alone - 1)
            for key, job in jobs.items():
                if self._jobs.get(key) is job:
                    del self._jobs[key]
        if self._idle is not None:
            self._idle.callback(None)

    def _next(self) -> dict[tuple[str, str], Job]:
        """The oldest job, with those behind it that can be done together with it."""
        waiting = iter(self._jobs.items())
        key, first = next(waiting)
        found: dict[tuple[str, str], Job] = {key: first}
        if isinstance(first, Part) and not self._alone:
            for key, job in waiting:
                if not isinstance(job, Part) or job.write != first.write or len(found) >= TOGETHER:
                    break
                found[key] = job
        return found

    async def _sleep(self, seconds: float) -> None:
        self._pause = Deferred()
        waking = self._clock.callLater(seconds, self._pause.callback, None)
        await self._pause
        self._pause = None
        if waking.active():
            waking.cancel()


def _together(jobs: Mapping[tuple[str, str], Job]) -> Callable[[], object]:
    job = next(iter(jobs.values()))
    if not isinstance(job, Part):
        return job
    return partial(job.write, {key[1]: part.value for key, part in jobs.items() if isinstance(part, Part)})
