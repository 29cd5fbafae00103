"""Whole calls between two of our stacks over a wire that loses, delays and repeats."""

from __future__ import annotations

from textwrap import dedent

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Flow
from extenbot.sip.message import Request, Response, answer, read
from extenbot.sip.transaction import ServerTransaction, Transactions
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.sip.wire import ANSWER, OFFER, PBX, US, Switch, Wire, request, stack


class Phone:
    """The calling side, as small as it can be: an INVITE repeated until answered, each 200 acknowledged."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.transactions = Transactions(wire.clock, wire.transport(PBX), CountingTokens(), self)
        self.tag = ""
        self.answers: list[int] = []
        self.hung_up = False
        wire.ends[PBX] = self  # type: ignore[assignment]

    def call(self) -> None:
        self._invite()
        for wait in (0.5, 1.5, 3.5, 7.5, 15.5, 31.5):  # RFC 3261 17.1.1.2 timer A
            self.wire.clock.callLater(wait, self._invite)

    def _invite(self) -> None:
        if not self.answers:
            self.wire.carry(request("INVITE", body=OFFER), PBX, US)

    def received(self, data: bytes, flow: Flow) -> None:
        message = read(data)
        if isinstance(message, Response) and message.cseq.method == "INVITE":
            self.answers.append(message.code)
            if message.code >= 200:
                self.tag = message.to.tag
                branch = "ack" if message.code < 300 else "INVITE1"
                self.wire.carry(request("ACK", branch=branch, to_tag=self.tag), PBX, US)
        else:
            self.transactions.received(data, flow)

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        self.hung_up = request.method == "BYE"
        transaction.respond(answer(request, 200))

    def acknowledged(self, request: Request, flow: Flow) -> None:
        raise AssertionError("we never answer")

    def bye(self) -> None:
        message = read(request("BYE", 2, to_tag=self.tag))
        assert isinstance(message, Request)
        message.remove("via")
        self.transactions.request(message, Flow("UDP", PBX, US), lambda _: None)


class Ladder(SynchronousTestCase):
    def begin(self, wire: Wire) -> tuple[Phone, Switch]:
        us = stack(wire.clock, wire.transport(US))
        wire.end(us.transactions, US)
        return Phone(wire), us

    def ladder(self, wire: Wire, text: str) -> None:
        names = {PBX[0]: "PBX", US[0]: "bot"}
        lines = wire.ladder
        for address, name in names.items():
            lines = [line.replace(f"{address} ", f"{name} ") for line in lines]
        self.assertEqual([line.strip() for line in lines], dedent(text).strip().splitlines())

    def test_whole_call(self) -> None:
        """INVITE, ringing, answer, and our BYE."""
        wire = Wire(Clock())
        phone, us = self.begin(wire)
        phone.call()
        wire.run(0.25)
        us.session.ring()
        wire.run(0.25)
        us.session.answer(ANSWER)
        wire.run(1)
        us.session.bye()
        wire.run(40)
        self.ladder(
            wire,
            """\
            0.000 PBX --> bot INVITE sip:bot@192.0.2.1
            0.125 bot --> PBX 100 Trying
            0.250 bot --> PBX 180 Ringing
            0.500 bot --> PBX 200 OK
            0.625 PBX --> bot ACK sip:bot@192.0.2.1
            1.500 bot --> PBX BYE sip:pbx@192.0.2.10:5060
            1.625 PBX --> bot 200 OK
            """,
        )
        self.assertEqual(us.listener.told, [("acked", b"")])
        self.assertEqual(wire.clock.getDelayedCalls(), [])

    def test_lossy_call(self) -> None:
        """The INVITE, the 200, the ACK and the BYE are each lost once; the call is the same."""
        lost = {0, 3, 5, 8}
        wire = Wire(Clock(), lose=lost.__contains__)
        phone, us = self.begin(wire)
        phone.call()
        wire.run(1)
        us.session.ring()
        us.session.answer(ANSWER)
        wire.run(4)
        us.session.bye()
        wire.run(60)
        self.ladder(
            wire,
            """\
            0.000 PBX --x bot INVITE sip:bot@192.0.2.1
            0.500 PBX --> bot INVITE sip:bot@192.0.2.1
            0.625 bot --> PBX 100 Trying
            1.000 bot --x PBX 180 Ringing
            1.000 bot --> PBX 200 OK
            1.125 PBX --x bot ACK sip:bot@192.0.2.1
            1.500 bot --> PBX 200 OK
            1.625 PBX --> bot ACK sip:bot@192.0.2.1
            5.000 bot --x PBX BYE sip:pbx@192.0.2.10:5060
            5.500 bot --> PBX BYE sip:pbx@192.0.2.10:5060
            5.625 PBX --> bot 200 OK
            """,
        )
        self.assertEqual(us.listener.told, [("acked", b"")])
        self.assertEqual(wire.clock.getDelayedCalls(), [])

    @settings(max_examples=40, deadline=None)
    @given(st.data(), st.booleans())
    def test_any_wire(self, data: st.DataObject, ours: bool) -> None:
        """Whatever is lost (not all), delayed or repeated: the call is answered, ends once, and nothing is left."""
        fates = st.lists(st.sampled_from(["lost", "twice", "late", ""]), min_size=4, max_size=4)
        wire = Wire(Clock())
        fate: dict[int, str] = {}

        def next_four() -> None:
            """The fates of the next four datagrams; those behind them arrive."""
            fate.update(enumerate(data.draw(fates), wire.count))

        wire.lose = lambda n: fate.get(n) == "lost"
        wire.delay = lambda n: 0.75 if fate.get(n) == "late" else 0.125
        wire.repeat = lambda n: fate.get(n) == "twice"
        next_four()
        phone, us = self.begin(wire)
        phone.call()
        wire.run(10)
        next_four()
        us.session.answer(ANSWER)
        wire.run(12)
        self.assertEqual(us.listener.told, [("acked", b"")])
        next_four()
        if ours:
            us.session.bye()
        else:
            phone.bye()
        wire.run(10)
        self.assertEqual(us.listener.told, [("acked", b"")] + ([] if ours else [("ended", "caller")]))
        self.assertEqual(phone.hung_up, ours)
        wire.run(70)
        self.assertEqual(wire.clock.getDelayedCalls(), [])
        self.assertEqual((len(us.sessions), us.transactions.counters["fault"]), (0, 0))
