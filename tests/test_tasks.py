"""Coroutines that belong to somebody: logged when they fail, gone when their owner goes."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from extenbot.tasks import Tasks


async def gives(result: object) -> object:
    return result


async def waits(deferred: Deferred[str]) -> str:
    return await deferred


async def breaks() -> None:
    raise ZeroDivisionError("on purpose")


class Group(SynchronousTestCase):
    def test_result(self) -> None:
        """Who wants the result gets it."""
        tasks = Tasks()
        self.assertEqual(self.successResultOf(tasks.start(gives(5), "a sum")), 5)
        self.assertEqual(len(tasks), 0)

    def test_running(self) -> None:
        """What runs is counted until it is done."""
        tasks, deferred = Tasks(), Deferred[str]()
        running = tasks.start(waits(deferred), "waiting")
        self.assertEqual(len(tasks), 1)
        self.assertNoResult(running)
        deferred.callback("done")
        self.assertEqual(self.successResultOf(running), "done")
        self.assertEqual(len(tasks), 0)

    def test_failure(self) -> None:
        """A failure is logged with its name, and nobody else is troubled by it."""
        tasks = Tasks()
        self.assertIsNone(self.successResultOf(tasks.start(breaks(), "dividing")))
        [failure] = self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(failure.getErrorMessage(), "on purpose")
        self.assertEqual(len(tasks), 0)

    def test_stop(self) -> None:
        """All that runs is cancelled, without a word in the log."""
        tasks, first, second = Tasks(), Deferred[str](), Deferred[str]()
        results = [tasks.start(waits(first), "one"), tasks.start(waits(second), "two")]
        self.successResultOf(tasks.stop())
        self.assertEqual([self.successResultOf(result) for result in results], [None, None])
        self.assertEqual(len(tasks), 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stop_waits(self) -> None:
        """Stopping is done when a coroutine that still has to clean up has done so."""
        tasks, cleaning = Tasks(), Deferred[str]()

        async def cleans_up() -> None:
            try:
                await Deferred()
            except CancelledError:
                await cleaning
                raise

        tasks.start(cleans_up(), "cleaning")
        stopped = tasks.stop()
        self.assertNoResult(stopped)
        cleaning.callback("")
        self.successResultOf(stopped)

    def test_stop_nothing(self) -> None:
        """Nothing runs: stopped at once, as often as one likes."""
        tasks = Tasks()
        self.successResultOf(tasks.stop())
        self.successResultOf(tasks.stop())

    def test_after_stop(self) -> None:
        """A group that was stopped can be used again."""
        tasks = Tasks()
        tasks.stop()
        self.assertEqual(self.successResultOf(tasks.start(gives(1), "one")), 1)

    def test_failure_while_stopping(self) -> None:
        """What breaks instead of ending when it is cancelled is logged."""
        tasks = Tasks()

        async def stubborn() -> None:
            try:
                await Deferred()
            except CancelledError:
                raise ZeroDivisionError from None

        tasks.start(stubborn(), "ending")
        self.successResultOf(tasks.stop())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
