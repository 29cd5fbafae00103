"""A call of two hours between two of our stacks, over a wire that loses much."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Flow
from extenbot.sip.calling import Calling
from extenbot.sip.session import Means, Session
from extenbot.sip.way import Way
from tests.clock import Clock
from tests.sip.wire import ANSWER, OFFER, PBX, US, Listener, Switch, Wire, stack

HOURS = 2 * 3600


class Caller:
    """Who calls, and its session once there is one."""

    def __init__(self) -> None:
        self.session: Session
        self.listener = Listener()

    def progressed(self, code: int, words: str, sdp: bytes) -> None:
        pass

    def answered(self, session: Session, sdp: bytes) -> None:
        self.session = session
        session.listener = self.listener

    def failed(self, code: int, words: str) -> None:
        raise AssertionError(f"{code} {words}")


class TwoHours(SynchronousTestCase):
    def begin(self, ours: int, theirs: int) -> tuple[Wire, Switch, Switch, Caller]:
        """A call from the PBX's place to ours; who asks for which session interval."""
        wire = Wire(Clock())
        there, here = stack(wire.clock, wire.transport(PBX)), stack(wire.clock, wire.transport(US))
        wire.end(there.transactions, PBX)
        wire.end(here.transactions, US)
        here.expires = ours
        caller = Caller()
        means = Means(wire.clock, there.tokens, there.transactions, there.sessions, theirs)
        flow = Flow("UDP", PBX, US)
        way = Way(flow, (), "sip:100@192.0.2.10", f"sip:pbx@{PBX[0]}:{PBX[1]}", "192.0.2.1", "", "")
        Calling(means, way, "sip:bot@192.0.2.1", OFFER, caller)
        wire.run(0.5)
        here.session.answer(ANSWER)
        wire.run(1)
        return wire, here, there, caller

    def refreshes(self, wire: Wire) -> list[str]:
        return [line for line in wire.ladder if " UPDATE " in line]

    def test_stays_up(self) -> None:
        """Every third datagram is lost, and both sides still have the call after two hours; then one hangs up."""
        for ours, theirs, who in ((1800, 1800, PBX), (1800, 0, US), (600, 90, PBX), (0, 600, PBX)):
            wire, here, there, caller = self.begin(ours, theirs)
            wire.lose = lambda number: number % 3 == 0
            wire.run(HOURS)
            interval = min(filter(None, (ours, theirs)))
            sent = {line.split()[-1] for line in self.refreshes(wire)}
            self.assertGreaterEqual(len(self.refreshes(wire)), 2 * HOURS // interval - 1)
            self.assertEqual(len(sent), 1)  # always the same side
            self.assertEqual({line.split()[1] for line in self.refreshes(wire)}, {who[0]})
            self.assertEqual((here.listener.told, caller.listener.told), ([("acked", b"")], []))
            self.assertTrue(here.session.up and caller.session.up)
            caller.session.bye()
            wire.run(100)
            self.assertEqual(here.listener.told[1:], [("ended", "caller")])
            self.assertEqual((len(here.sessions), len(there.sessions)), (0, 0))
            self.assertEqual(wire.clock.getDelayedCalls(), [])

    def test_cut(self) -> None:
        """The wire is cut in the middle of the call: both sides miss the other, and nothing is left."""
        for ours, theirs in ((1800, 1800), (600, 0), (0, 600)):
            wire, here, there, caller = self.begin(ours, theirs)
            wire.run(1000)
            wire.lose = lambda _number: True
            wire.run(2000)
            self.assertEqual(here.listener.told[1:], [("ended", "lost")])
            self.assertEqual(caller.listener.told, [("ended", "lost")])
            self.assertEqual((len(here.sessions), len(there.sessions)), (0, 0))
            self.assertEqual(wire.clock.getDelayedCalls(), [])
