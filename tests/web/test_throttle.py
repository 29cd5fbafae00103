"""Guessing gets slower and slower."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from extenbot.web.throttle import FIRST_WAIT, FORGOTTEN, LONGEST_WAIT, MOST_KEYS, Throttle
from extenbot.web.visits import address
from tests.clock import Clock


class ThrottleTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.throttle = Throttle(self.clock.seconds)

    def test_longer_and_longer(self) -> None:
        """The first failures are free, then each doubles the wait, up to a quarter of an hour."""
        waits = []
        for _ in range(12):
            self.throttle.failed("x")
            waits.append(self.throttle.wait("x", 3))
        self.assertEqual(waits[:5], [0, 0, FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT])
        self.assertEqual(waits[-1], LONGEST_WAIT)
        self.assertEqual(self.throttle.wait("y", 3), 0)
        self.clock.advance(LONGEST_WAIT)
        self.assertEqual(self.throttle.wait("x", 3), 0)

    def test_forgotten(self) -> None:
        """A success forgets all failures, and so does an hour."""
        for _ in range(9):
            self.throttle.failed("x")
        self.throttle.passed("x")
        self.assertEqual(self.throttle.wait("x", 1), 0)
        for _ in range(9):
            self.throttle.failed("x")
        self.clock.advance(FORGOTTEN + 1)
        self.throttle.failed("x")
        self.assertEqual(self.throttle.wait("x", 2), 0)

    def test_bounded(self) -> None:
        """A flood of addresses takes no more than so much memory."""
        for number in range(MOST_KEYS + 100):
            self.throttle.failed(number)
        self.assertEqual(len(self.throttle._failures), MOST_KEYS)
        self.assertGreater(self.throttle.wait(MOST_KEYS + 99, 1), 0)


class Address(SynchronousTestCase):
    def asked(self, peer: str, forwarded: str | None) -> str:
        class Request:
            def getClientAddress(self) -> object:
                return type("Peer", (), {"host": peer})

            def getHeader(self, _name: str) -> str | None:
                return forwarded

        return address(Request())  # type: ignore[arg-type]

    def test_behind_a_proxy(self) -> None:
        """A proxy on this machine says who asks; nobody else is believed."""
        self.assertEqual(self.asked("127.0.0.1", "10.9.9.9, 192.0.2.7"), "192.0.2.7")
        self.assertEqual(self.asked("192.0.2.1", "10.9.9.9"), "192.0.2.1")
        self.assertEqual(self.asked("127.0.0.1", None), "127.0.0.1")
        self.assertEqual(self.asked("127.0.0.1", "nonsense"), "127.0.0.1")
        self.assertEqual(self.asked("", "x"), "")
