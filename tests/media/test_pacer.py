"""The shared clock: when each call's turn comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from extenbot.media.pacer import CATCH_UP, Pacer
from tests.clock import Clock


class Pacing(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1234.5)  # where a clock stands is nobody's business
        self.pacer = Pacer(self.clock)
        self.turns: list[float] = []

    def tick(self) -> None:
        self.turns.append(round(self.clock.seconds() - 1234.5, 6))

    def run_for(self, seconds: float, step: float = 0.001) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def test_every_period(self) -> None:
        """A call has its turn once a period, whichever of the usual periods that is."""
        for period in (10, 20, 30, 40, 60):
            turns: list[int] = []
            leave = self.pacer.join(lambda turns=turns: turns.append(1), period)  # type: ignore[misc]
            self.run_for(1.2)
            leave()
            self.assertLessEqual(abs(len(turns) - 1200 / period), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_drift(self) -> None:
        """After an hour with a coarse timer the turns are still where they began."""
        leave = self.pacer.join(self.tick, 20)
        for _ in range(3600 * 1000 // 7):
            self.clock.advance(0.007)
        leave()
        self.assertEqual(len(self.turns), 180000)

    def test_first_turn_is_near(self) -> None:
        """The first call's audio starts within 2 ms, and never later than one period."""
        self.pacer.join(self.tick, 20)
        self.run_for(0.003)
        self.assertEqual(len(self.turns), 1)
        self.doCleanupTimers()

    def doCleanupTimers(self) -> None:
        for call in self.clock.getDelayedCalls():
            call.cancel()

    def test_spread(self) -> None:
        """A hundred calls fill the ten phases evenly, and go on doing so as calls come and go."""
        when: dict[int, float] = {}

        def member(number: int) -> Callable[[], None]:
            return lambda: when.__setitem__(number, round(self.clock.seconds() % 0.020, 3))

        leaves = [self.pacer.join(member(number), 20) for number in range(100)]
        self.run_for(0.0205, 0.0005)
        self.assertEqual(sorted(Counter(when.values()).values()), [10] * 10)
        for leave in leaves[:50:2]:
            leave()
        leaves += [self.pacer.join(member(number), 20) for number in range(100, 125)]
        when.clear()
        self.run_for(0.0205, 0.0005)
        self.assertEqual(sorted(Counter(when.values()).values()), [10] * 10)
        self.doCleanupTimers()

    def test_few_timers(self) -> None:
        """However many calls there are, one timer waits; with none, no timer."""
        leaves = [self.pacer.join(self.tick, 20) for _ in range(30)]
        self.run_for(0.05)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for leave in leaves:
            leave()
            leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_turns(self) -> None:
        """A short stall is made up for at once; of a long one only the last frames."""
        self.pacer.join(self.tick, 20)
        self.run_for(0.1)
        del self.turns[:]
        self.clock.advance(0.1)
        self.assertEqual(len(self.turns), 5)
        self.clock.advance(3.0)
        self.assertEqual(len(self.turns), 5 + CATCH_UP)
        self.run_for(0.1)
        self.assertEqual(len(self.turns), 5 + CATCH_UP + 5)
        self.doCleanupTimers()

    def test_failing_turn(self) -> None:
        """A call whose turn raises is logged and stopped; those beside it go on."""

        def broken() -> None:
            raise RuntimeError("broken")

        leaves = [self.pacer.join(tick, 20) for tick in [broken, self.tick] * 10]
        self.run_for(0.1005, 0.0005)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 10)
        self.assertEqual(len(self.turns), 50)
        for leave in leaves:
            leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_leaving_in_a_turn(self) -> None:
        """A turn that ends its own call, or another in the same phase, is their last."""
        leaves: list[Callable[[], None]] = []

        def last() -> None:
            self.tick()
            for leave in leaves:
                leave()

        leaves += [self.pacer.join(last, 20) for _ in range(11)]
        self.run_for(0.1)
        self.assertEqual(len(self.turns), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
