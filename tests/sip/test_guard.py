"""The guard: floods, scanners and guessers are dropped, and nobody who is known or whose address was forged."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot import settings
from extenbot.interfaces import Flow
from extenbot.sip import guard
from extenbot.sip.guard import Guard
from extenbot.sip.message import Request, read
from tests.clock import Clock
from tests.sip.wire import request

STRANGER = "203.0.113.66"
DATA = request("OPTIONS")


def flow(host: str = STRANGER, transport: str = "UDP") -> Flow:
    return Flow(transport, ("192.0.2.1", 5060), (host, 5060))


def register(user: str) -> Request:
    """A REGISTER of a user, without credentials."""
    message = read(request("REGISTER").replace(b"<sip:bot@", f"<sip:{user}@".encode()))
    assert isinstance(message, Request)
    return message


def agent(name: str) -> bytes:
    return request("OPTIONS", headers=f"User-Agent: {name}\r\n")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.guard = self.build()

    def build(self, **rules: object) -> Guard:
        made: Guard = Guard(self.clock, settings.Guard(**rules))  # type: ignore[arg-type]
        return made

    def passed(self, count: int, host: str = STRANGER, data: bytes = DATA) -> int:
        """How many of so many messages are let through."""
        return sum(self.guard.lets(host, data) for _ in range(count))


class Rate(Case):
    def test_burst_and_rate(self) -> None:
        """A stranger may send a burst and then so many a second; a second later the flood is forgotten."""
        self.assertEqual(self.passed(500), 100)
        self.clock.advance(1)
        self.assertEqual(self.passed(500), 30)
        self.assertEqual(self.guard.counters["rate"], 870)
        self.clock.advance(10)
        self.assertEqual(self.passed(500), 100)

    def test_each_for_itself(self) -> None:
        """What one source sends too much is no other's fault; an IPv6 network of 64 bits is one source."""
        self.passed(200)
        self.assertEqual(self.passed(1, "203.0.113.67"), 1)
        self.assertEqual(self.passed(200, "2001:db8:1:2::3"), 100)
        self.assertEqual(self.passed(1, "2001:db8:1:2:3:4:5:6"), 0)
        self.assertEqual(self.passed(1, "2001:db8:1:3::3"), 1)
        self.assertEqual(self.passed(1, "fe80::1%eth0"), 1)

    def test_known(self) -> None:
        """Who has authenticated, or is otherwise known, is not limited; asked is once a second."""
        self.guard.vouch("192.0.2.10", 60)
        self.assertEqual(self.passed(500, "192.0.2.10"), 500)
        self.clock.advance(61)
        self.assertEqual(self.passed(500, "192.0.2.10"), 100)
        asked: list[str] = []
        self.guard.known = lambda host: not asked.append(host)  # type: ignore[func-returns-value]
        self.assertEqual(self.passed(500, "192.0.2.11"), 500)
        self.assertEqual(asked, ["192.0.2.11"])

    def test_off(self) -> None:
        """The guard can be switched off."""
        self.guard = self.build(enabled=False)
        self.assertEqual(self.passed(500), 500)
        for _ in range(50):
            self.guard.failed(flow())
        self.assertEqual(self.passed(500), 500)

    def test_bounded(self) -> None:
        """A flood from forged addresses takes no more memory than so many sources; bans are kept beside them."""
        for _ in range(10):
            self.guard.failed(flow("198.51.100.1"))
        with patch.object(guard, "MOST", 100):
            for number in range(1000):
                self.guard.lets(f"203.0.{number // 250}.{number % 250}", DATA)
                self.guard.lets(f"2001:db8:{number:x}::1", DATA)
        self.assertEqual(len(self.guard._sources), 100)
        self.assertEqual(self.passed(1, "198.51.100.1"), 0)
        with patch.object(guard, "MOST", 3):
            for number in range(100):
                for _ in range(10):
                    self.guard.failed(flow(f"198.51.100.{number}"))
        self.assertEqual(len(self.guard._bans), 3)
        with patch.object(guard, "MOST_VOUCHED", 3):
            for number in range(100):
                self.guard.vouch(f"198.51.100.{number}")
        self.assertEqual(len(self.guard._vouched), 3)


class Bans(Case):
    def guess(self, count: int = 10, host: str = STRANGER) -> None:
        for _ in range(count):
            self.guard.failed(flow(host))

    def test_growing(self) -> None:
        """Ten wrong passwords ban for a minute, the next ten for 5, 30 minutes and 4 hours; each is told."""
        for minutes in (1, 5, 30, 240, 240):
            self.guess(9)
            self.assertEqual(self.passed(1), 1)
            self.guess(1)
            [ban] = self.guard.bans()
            self.assertEqual((ban.source, ban.why), (STRANGER, "wrong passwords"))
            self.clock.advance(60 * minutes - 1)
            self.assertEqual(self.passed(10), 0)
            self.clock.advance(2)
            self.assertEqual((self.passed(1), self.guard.bans()), (1, ()))
        self.assertEqual(self.guard.counters["bans"], 5)
        self.assertEqual(self.guard.counters["banned"], 50)

    def test_forgiven(self) -> None:
        """An hour of good behaviour takes one step back; right credentials take all."""
        for _ in range(3):
            self.guess()
            self.clock.advance(self.guard.bans()[0].until - self.clock.seconds() + 1)
        self.clock.advance(2 * 3600)
        self.guess()
        self.assertEqual(self.guard.bans()[0].step, 1)
        self.clock.advance(400)
        self.guard.vouch(STRANGER, 1)
        self.clock.advance(2)
        self.guess()
        self.assertEqual(self.guard.bans()[0].step, 0)
        self.guard.forgive(STRANGER)
        self.assertEqual((self.guard.bans(), self.passed(1)), ((), 1))

    def test_wrong_password_of_a_pbx(self) -> None:
        """A PBX with a wrong password that tries every 30 s is never banned."""
        for _ in range(1000):
            self.guess(1)
            self.clock.advance(30)
        self.assertEqual(self.guard.counters["bans"], 0)

    def test_spared(self) -> None:
        """Whoever is known is never banned, however often another behind its address guesses."""
        self.guard.vouch("192.0.2.10", 3600)
        self.guess(100, "192.0.2.10")
        self.guard.known = lambda host: host == "192.0.2.11"
        self.guess(100, "192.0.2.11")
        self.assertEqual(self.guard.bans(), ())
        self.guess(10)
        self.guard.known = lambda host: host == STRANGER
        self.assertEqual(self.passed(1000), 1000)


class Suspects(Case):
    def test_forged(self) -> None:
        """Garbage with a forged address bans nobody: who is behind it is heard less often, and again after a while."""
        for _ in range(100):
            self.guard.refused(flow(), 400, None)
        self.assertEqual((self.guard.bans(), self.guard.counters["suspects"]), ((), 1))
        self.assertEqual(self.passed(10), 0)
        self.clock.advance(5)
        self.assertEqual(self.passed(10), 1)
        self.clock.advance(800)
        self.assertEqual(self.passed(10), 10)

    def test_connection(self) -> None:
        """At the other end of a connection nobody forges: scanning bans."""
        for _ in range(30):
            self.guard.refused(flow(transport="TCP"), 404, register("x"))
        self.assertEqual([ban.why for ban in self.guard.bans()], ["scanning"])

    def test_users(self) -> None:
        """Trying one user after the other is suspect; the same again and again, or being challenged, is not."""
        for _ in range(200):
            self.guard.refused(flow(), 401, register("eva"))
        for code in (480, 486, 503, 500):
            for _ in range(100):
                self.guard.refused(flow(), code, register("eva"))
        self.assertEqual(self.guard.counters["suspects"], 0)
        for number in range(40):
            self.guard.refused(flow(), 401, register(str(number)))
        self.assertEqual(self.guard.counters["suspects"], 1)
        for number in range(5000):
            self.guard.refused(flow(), 401, register(str(number)))
        self.assertEqual(len(self.guard._sources[STRANGER].users), guard.USERS)

    def test_trunks_behind_one_address(self) -> None:
        """A site whose many trunks come at once is let in as soon as the first has logged in."""
        for number in range(40):
            self.guard.refused(flow(), 401, register(str(number)))
        self.clock.advance(5)
        self.assertEqual(self.passed(1), 1)
        self.guard.vouch(STRANGER)
        self.assertEqual(self.passed(1000), 1000)


class Scanners(Case):
    def test_once(self) -> None:
        """A scanner is answered once; others behind its address are heard, and known ones whatever they say."""
        self.assertEqual(self.passed(10, data=agent("friendly-scanner")), 1)
        self.assertEqual(self.passed(10, data=agent("SIPVicious 0.3")), 0)
        self.assertEqual(self.passed(10, data=agent("sipcli").replace(b"User-Agent:", b"USER-AGENT :")), 0)
        self.assertEqual(self.guard.counters["scanner"], 29)
        self.assertEqual(self.passed(10, data=agent("FPBX-17.0.19(22.1.0)")), 10)
        self.guard.vouch(STRANGER)
        self.assertEqual(self.passed(10, data=agent("sipcli/v1.8")), 10)

    def test_elsewhere(self) -> None:
        """The name of a scanner in another header, or in the body, is nothing."""
        data = request("OPTIONS", headers="Subject: sipvicious\r\n", body=b"friendly-scanner")
        self.assertEqual(self.passed(10, data=data), 10)

    def test_settings(self) -> None:
        """The list is the operator's; an empty one knows nobody."""
        self.guard = self.build(scanners=("evil (",))
        self.assertEqual(self.passed(10, data=agent("very Evil (1)")), 1)
        self.assertEqual(self.passed(10, "192.0.2.99", agent("friendly-scanner")), 10)
        self.guard = self.build(scanners=())
        self.assertEqual(self.passed(10, data=agent("friendly-scanner")), 10)


class Any(Case):
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["lets", "failed", "refused", "vouch", "forgive", "wait"]),
                st.sampled_from([STRANGER, "192.0.2.10", "2001:db8::1", "::ffff:192.0.2.1"]),
                st.sampled_from(["UDP", "TLS"]),
                st.floats(0, 5000),
            ),
            max_size=60,
        )
    )
    def test_any_order(self, steps: list[tuple[str, str, str, float]]) -> None:
        """Whatever happens in whatever order: nothing raises, and who is vouched for is heard."""
        clock = Clock()
        made = Guard(clock, settings.Guard(failures=2, burst=2, messages=1))
        for what, host, transport, seconds in steps:
            match what:
                case "lets":
                    self.assertTrue(made.lets(host, DATA) or not made.knows(host))
                case "failed":
                    made.failed(flow(host, transport))
                case "refused":
                    for _ in range(20):
                        made.refused(flow(host, transport), 404, register("x"))
                case "vouch":
                    made.vouch(host, seconds)
                case "forgive":
                    made.forgive(host)
                case "wait":
                    clock.advance(seconds)
