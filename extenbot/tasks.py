"""The one way a coroutine is started, in a group that logs its failure and can be cancelled and awaited; long work."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")
P = ParamSpec("P")


class Tasks:
    """Coroutines that belong to one owner (a call, the service) and end with it."""

    log = Logger()

    def __init__(self) -> None:
        self._running: set[Deferred[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, coroutine: Coroutine[Deferred[Any], Any, T], what: str) -> Deferred[T | None]:
        """Run it; a failure is logged as `what`. The Deferred fires with the result, or None after a failure."""
        deferred: Deferred[T | None] = Deferred.fromCoroutine(coroutine)
        self._running.add(deferred)

        def done(result: T | Failure | None) -> T | None:
            self._running.discard(deferred)
            if isinstance(result, Failure):
                if not result.check(CancelledError):
                    self.log.failure("{what} failed", failure=result, what=what)
                return None
            return result

        return deferred.addBoth(done)

    def stop(self) -> Deferred[None]:
        """Cancel all that runs and wait for it to end."""
        running = list(self._running)
        waiting = DeferredList(running)
        for deferred in running:
            deferred.cancel()
        return waiting.addCallback(lambda _results: None)


LITTLE = 16 * 1024
"""Bytes that are worked through at once: 256 KiB of JSON and a path through them take 0.1 s, and audio must go on."""


async def aside(length: int, work: Callable[P, T], *given: P.args, **more: P.kwargs) -> T:
    """Do the work on a text of so many bytes, in a thread when that is long."""
    if length <= LITTLE:
        return work(*given, **more)
    done: T = await deferToThread(work, *given, **more)
    return done
