"""Ringing that the caller must acknowledge (RFC 3262)."""

from __future__ import annotations

from typing import Any

from extenbot.sip.answering import Answering
from extenbot.sip.message import Response
from tests.sip.called import Called
from tests.sip.wire import ANSWER, FLOW, OFFER, request

REQUIRED = "Require: 100rel\r\n"


class Ringing(Called):
    def ringing(self, **more: Any) -> Response:
        """An INVITE that requires 100rel, and our first 180."""
        self.invited(**{"headers": REQUIRED, **more}).ring()
        return self.ring()

    def ring(self) -> Response:
        (sent,) = [m for m in self.wire.messages() if isinstance(m, Response)]
        return sent

    def prack(self, number: int, rack: str, **more: Any) -> list[str]:
        return self.ours("PRACK", number, headers=f"RAck: {rack}\r\n", **more)

    def test_acknowledged(self) -> None:
        """The 180 has a number and is repeated, doubling, until its PRACK; then the call is answered as ever."""
        first = self.ringing()
        self.assertEqual((first.code, first.all("require")), (180, ["100rel"]))
        self.assertTrue(1 <= int(first.first("rseq") or 0) < 2**31)
        self.assertEqual(self.run_for(16), [f"{at:g} SIP/2.0 180 Ringing" for at in (0.5, 1.5, 3.5, 7.5, 15.5)])
        self.assertEqual(self.prack(2, f"{first.first('rseq')} 1 INVITE"), ["16 SIP/2.0 200 OK"])
        self.assertEqual(self.run_for(40), [])
        self.stack.session.answer(ANSWER)
        self.wire.take()
        self.ours("ACK", 1, branch="ack")
        self.assertEqual(self.told, [("acked", b"")])

    def test_never_acknowledged(self) -> None:
        """Without a PRACK for 32 s the INVITE is refused, and the call is told."""
        self.ringing()
        self.assertEqual(self.run_for(32)[-1], "32 SIP/2.0 500 The 180 was never acknowledged")
        self.assertEqual(self.told, [("ended", "no-ack")])
        self.nothing_left()

    def test_wrong_ones(self) -> None:
        """A PRACK for something else is 481, an unreadable one 400, and the 180 goes on being repeated."""
        rseq = int(self.ringing().first("rseq") or 0)
        for number, (rack, line) in enumerate(
            (
                (f"{rseq + 1} 1 INVITE", "481 There is no such response to acknowledge"),
                (f"{rseq} 2 INVITE", "481 There is no such response to acknowledge"),
                (f"{rseq} 1 UPDATE", "481 There is no such response to acknowledge"),
                (f"{rseq} INVITE", "400 RAck is not two numbers and a method"),
                ("", "400 RAck is not two numbers and a method"),
                (f"{rseq} x INVITE", "400 Not a number from 0 to 4294967295"),
            ),
            2,
        ):
            self.assertEqual(self.prack(number, rack), [f"0 SIP/2.0 {line}"])
        self.assertEqual(self.run_for(0.5), ["0.5 SIP/2.0 180 Ringing"])
        self.assertEqual(self.prack(20, f" {rseq}  1  INVITE")[-1], "0.5 SIP/2.0 200 OK")
        self.assertEqual(
            self.prack(21, f"{rseq} 1 INVITE")[-1], "0.5 SIP/2.0 481 There is no such response to acknowledge"
        )

    def test_answered_first(self) -> None:
        """Our 180 has no SDP, so the 200 need not wait for its PRACK, which is still taken (RFC 3262 3)."""
        rseq = self.ringing().first("rseq")
        self.stack.session.answer(ANSWER)
        self.assertEqual(self.run_for(0.5), ["0 SIP/2.0 200 OK", "0.5 SIP/2.0 200 OK"])
        self.assertEqual(self.prack(2, f"{rseq} 1 INVITE"), ["0.5 SIP/2.0 200 OK"])
        self.ours("ACK", 1, branch="ack")
        self.assertEqual(self.run_for(40), [])
        self.assertEqual(self.told, [("acked", b"")])

    def test_offer_in_prack(self) -> None:
        """An offer in the PRACK comes before our answer to the first: 500, and the 180 counts as heard."""
        rseq = self.ringing().first("rseq")
        sent = self.prack(2, f"{rseq} 1 INVITE", body=OFFER)
        self.assertEqual(sent, ["0 SIP/2.0 500 An offer of yours waits for its answer"])
        self.assertEqual(self.run_for(40), [])

    def test_only_supported(self) -> None:
        """Who only supports 100rel gets an ordinary 180, once."""
        sent = self.ringing(headers="Supported: 100rel\r\n")
        self.assertEqual((sent.first("rseq"), sent.first("require")), (None, None))
        self.assertEqual(self.run_for(40), [])

    def test_late_offer(self) -> None:
        """Required, and the offer is to be ours: a 180 would have to hold it, so there is none before the 200."""
        session = self.invited(body=b"", headers=REQUIRED)
        self.wire.take()
        session.ring()
        self.assertEqual(self.run_for(5), [])
        session.answer(OFFER)
        self.ours("ACK", 1, branch="ack", body=ANSWER)
        self.assertEqual(self.told, [("acked", ANSWER)])

    def test_ordered_twice(self) -> None:
        """Ringing twice is one 180, and none after the answer."""
        self.ringing()
        self.stack.session.ring()
        self.assertEqual(self.wire.take(), [])
        self.stack.session.answer(ANSWER)
        self.wire.take()
        self.stack.session.ring()
        self.assertEqual(self.wire.take(), [])

    def test_ended_meanwhile(self) -> None:
        """CANCEL, BYE, a refusal: no 180 is sent after it and nothing is left."""

        def cancel(_session: Answering) -> None:
            self.received(request("CANCEL", branch="INVITE1"))

        def bye(_session: Answering) -> None:
            self.ours("BYE", 2)

        def refuse(session: Answering) -> None:
            session.refuse(486)

        for end in (cancel, bye, refuse):
            self.setUp()
            self.ringing()
            end(self.stack.session)
            self.wire.take()
            self.ours("ACK", 1, branch="INVITE1")
            self.assertEqual(self.run_for(40), [], end.__name__)
            self.nothing_left()

    def test_repeated_invite(self) -> None:
        """A copy of the INVITE gets the same 180 again."""
        first = self.ringing()
        self.stack.transactions.received(request("INVITE", body=OFFER, headers=REQUIRED), FLOW)
        self.assertEqual(self.ring(), first)
