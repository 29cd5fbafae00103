"""The answering side of a call, as the PBX sees it on the wire."""

from __future__ import annotations

from extenbot.errors import Refused
from extenbot.interfaces import Dial, Flow
from extenbot.sip.message import Request, Response
from tests.sip.called import Called
from tests.sip.wire import ANSWER, FLOW, OFFER, US, request


class Calling(Called):
    # -- Answering ----------------------------------------------------------------------

    def test_ring_and_answer(self) -> None:
        """180 and 200 carry what a PBX needs; the 200 has our SDP and its type."""
        session = self.invited(headers="Record-Route: <sip:p;lr>, <sip:q;lr>\r\n")
        session.ring()
        session.answer(ANSWER)
        ringing, ok = (data.decode() for _, data, _ in self.wire.sent)
        same = (
            "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKINVITE1;rport=5060;received=192.0.2.10\r\n"
            "From: <sip:100@192.0.2.10>;tag=pbx\r\n"
            "To: <sip:bot@192.0.2.1>;tag=0000000000000001\r\n"
            "Call-ID: call-1\r\n"
            "CSeq: 1 INVITE\r\n"
            "Contact: <sip:bot@192.0.2.1:5060>\r\n"
            "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY, UPDATE, PRACK, REGISTER\r\n"
        )
        routes = "Record-Route: <sip:p;lr>\r\nRecord-Route: <sip:q;lr>\r\n"
        self.assertEqual(ringing, f"SIP/2.0 180 Ringing\r\n{same}{routes}Content-Length: 0\r\n\r\n")
        self.assertEqual(
            ok,
            f"SIP/2.0 200 OK\r\n{same}Supported: 100rel, norefersub, replaces, timer\r\n"
            f"Session-Expires: 1800;refresher=uas\r\n{routes}"
            "Content-Type: application/sdp\r\nContent-Length: 11\r\n\r\nv=0\r\no=us\r\n",
        )

    def test_repeated_until_ack(self) -> None:
        """The 200 is repeated at T1 doubling to T2 until the ACK comes."""
        self.invited().answer(ANSWER)
        self.assertEqual(self.run_for(8), [f"{at:g} SIP/2.0 200 OK" for at in (0, 0.5, 1.5, 3.5, 7.5)])
        self.ours("ACK", 1, branch="ack")
        self.ours("ACK", 1, branch="ack")
        self.assertEqual(self.run_for(30), [])
        self.assertEqual(self.told, [("acked", b"")])

    def test_never_acknowledged(self) -> None:
        """Without an ACK for 32 s we send BYE and the call is over."""
        self.invited().answer(ANSWER)
        sent = self.run_for(32)
        self.assertEqual(len(sent), 12)
        self.assertEqual(sent[-1], "32 BYE sip:pbx@192.0.2.10:5060 SIP/2.0")
        self.assertEqual(self.told, [("ended", "no-ack")])
        self.nothing_left()

    def test_late_offer(self) -> None:
        """An INVITE without SDP gets our offer, and the ACK brings the answer."""
        self.invited(body=b"").answer(OFFER)
        self.ours("ACK", 1, branch="ack", body=ANSWER)
        self.assertEqual(self.told, [("acked", ANSWER)])

    def test_late_answer_that_is_none(self) -> None:
        """An ACK cannot be refused: what is no SDP in it counts as none."""
        self.invited(body=b"").answer(OFFER)
        self.ours("ACK", 1, branch="ack", body=b"hi", headers="Content-Type: text/plain\r\n")
        self.assertEqual(self.told, [("acked", b"")])

    def test_refused(self) -> None:
        """A refusal is sent with its headers and ends it; later orders do nothing."""
        session = self.invited()
        session.refuse(488, "No common codec", [("Warning", '304 us "G.711 only"')])
        for order in (session.ring, session.bye, lambda: session.answer(ANSWER), lambda: session.refuse(500)):
            order()
        (sent,) = self.wire.messages()
        self.assertEqual((sent.first("warning"), sent.first("content-type")), ('304 us "G.711 only"', None))
        self.assertEqual(self.told, [])
        self.nothing_left()

    def test_cancelled(self) -> None:
        """CANCEL before the answer: 200, 487, and the call is told."""
        session = self.invited()
        sent = self.received(request("CANCEL", branch="INVITE1"))
        self.assertEqual(sent, ["0 SIP/2.0 200 OK", "0 SIP/2.0 487 Request Terminated"])
        session.answer(ANSWER)
        self.assertEqual((self.told, self.wire.take()), ([("cancelled",)], []))
        self.nothing_left()

    def test_early_bye(self) -> None:
        """BYE before the answer: 200 for it, 487 for the INVITE."""
        self.invited().ring()
        self.wire.take()
        self.assertEqual(self.ours("BYE", 2), ["0 SIP/2.0 200 OK", "0 SIP/2.0 487 Request Terminated"])
        self.assertEqual(self.told, [("ended", "caller")])
        self.nothing_left()

    def test_unusable_contact(self) -> None:
        """An INVITE that says not where we could reach the caller is 400."""
        self.assertEqual(
            self.received(request("INVITE", contact="")),
            ["0 SIP/2.0 400 There is not one SIP Contact"],
        )
        self.assertEqual(len(self.stack.sessions), 0)

    # -- Ending -------------------------------------------------------------------------

    def test_caller_hangs_up(self) -> None:
        """BYE gets 200, also when it comes again, and the call is told once."""
        self.talking()
        self.assertEqual(self.ours("BYE", 2), ["0 SIP/2.0 200 OK"])
        self.assertEqual(self.ours("BYE", 2), ["0 SIP/2.0 200 OK"])
        self.assertEqual(self.ours("BYE", 3), ["0 SIP/2.0 481 No such call"])
        self.assertEqual(self.told, [("ended", "caller")])
        self.nothing_left()

    def test_we_hang_up(self) -> None:
        """Our BYE has the tags turned round, and comes once however often it is ordered."""
        session = self.talking(headers="Record-Route: <sip:192.0.2.10;lr>\r\n")
        session.bye([("Reason", 'Q.850;cause=16;text="done"')])
        session.bye()
        self.assertEqual(len(self.wire.sent), 1)
        self.assertEqual(
            self.wire.sent[0][1].decode(),
            "BYE sip:pbx@192.0.2.10:5060 SIP/2.0\r\n"
            "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK0000000000000002;rport\r\n"
            "Route: <sip:192.0.2.10;lr>\r\n"
            "From: <sip:bot@192.0.2.1>;tag=0000000000000001\r\n"
            "To: <sip:100@192.0.2.10>;tag=pbx\r\n"
            "Call-ID: call-1\r\n"
            "CSeq: 2 BYE\r\n"
            'Reason: Q.850;cause=16;text="done"\r\n'
            "Max-Forwards: 70\r\n"
            "Content-Length: 0\r\n\r\n",
        )
        self.reply(200)
        self.assertEqual((self.told, len(self.stack.sessions)), ([], 0))
        self.nothing_left()

    def test_crossing_byes(self) -> None:
        """A BYE that crosses ours gets 200; other requests get 481; nothing is told."""
        self.talking().bye()
        self.wire.take()
        self.assertEqual(self.ours("INFO", 2), ["0 SIP/2.0 481 This call is over"])
        self.assertEqual(self.ours("BYE", 3), ["0 SIP/2.0 200 OK"])
        self.assertEqual(self.told, [])
        self.nothing_left()

    def test_hang_up_before_ack(self) -> None:
        """A BYE may not overtake the ACK (RFC 3261 15): it waits for it, or for its time-out."""
        for acknowledged in (True, False):
            self.setUp()
            session = self.invited()
            session.answer(ANSWER)
            session.bye()
            self.assertEqual(self.wire.take(), ["0 SIP/2.0 200 OK"])
            if acknowledged:
                self.assertEqual(self.ours("ACK", 1, branch="ack"), ["0 BYE sip:pbx@192.0.2.10:5060 SIP/2.0"])
            else:
                self.assertEqual(self.run_for(32)[-1], "32 BYE sip:pbx@192.0.2.10:5060 SIP/2.0")
            self.assertEqual(self.told, [])
            self.nothing_left()

    def test_hang_up_before_answer(self) -> None:
        """Hanging up on a call that was not answered is a refusal."""
        self.invited().bye()
        self.assertEqual(self.wire.take(), ["0 SIP/2.0 480 Temporarily Unavailable"])
        self.nothing_left()

    # -- Within the call ------------------------------------------------------------------

    def test_reinvite(self) -> None:
        """A re-INVITE gets the call's new answer, repeated until its own ACK, and a new target counts."""
        session = self.talking()
        sent = self.ours("INVITE", 2, body=OFFER, contact="<sip:moved@192.0.2.20>")
        self.assertEqual(sent, ["0 SIP/2.0 100 Trying", "0 SIP/2.0 200 OK"])
        self.assertEqual(self.run_for(1), ["0.5 SIP/2.0 200 OK"])
        self.ours("ACK", 2, branch="ack2")
        self.assertEqual(self.run_for(40), [])
        self.assertEqual(self.told, [("reoffered", OFFER)])
        session.bye()
        self.assertEqual(self.wire.sent[0][2].remote, ("192.0.2.20", 5060))

    def test_reinvite_without_offer(self) -> None:
        """A re-INVITE without SDP gets our offer; until its answer is here another is 491 (RFC 5407 3.1.5)."""
        self.talking()
        self.ours("INVITE", 2)
        self.assertEqual(self.ours("INVITE", 3, body=OFFER)[-1], "0 SIP/2.0 491 An offer of ours waits for its answer")
        self.ours("ACK", 2, branch="ack2", body=OFFER)
        self.assertEqual(self.told, [("reoffered", b""), ("acked", OFFER)])

    def test_reinvite_refused(self) -> None:
        """What the call refuses is refused, and the call goes on as it was."""
        session = self.talking()
        self.stack.listener.reply = Refused(488, "No common codec", [("Warning", "x")])
        sent = self.ours("INVITE", 2, body=OFFER, contact="<sip:moved@192.0.2.20>")
        self.assertEqual(sent[-1], "0 SIP/2.0 488 No common codec")
        self.assertEqual(str(session.dialog.target), "sip:pbx@192.0.2.10:5060")
        self.assertFalse(session.over)

    def test_reinvite_too_early(self) -> None:
        """A second INVITE before the first is answered is 500 with Retry-After (RFC 3261 14.2)."""
        self.invited().ring()
        tag = self.stack.session.dialog.local_tag
        self.stack.transactions.received(request("INVITE", 2, body=OFFER, to_tag=tag), FLOW)
        last = self.wire.messages()[-1]
        assert isinstance(last, Response)
        self.assertEqual((last.code, 1 <= int(last.first("retry-after") or 0) <= 10), (500, True))

    def test_reinvite_before_lost_ack(self) -> None:
        """A re-INVITE may overtake the ACK: Asterisk sends it about 1 ms later."""
        self.invited().answer(ANSWER)
        self.wire.take()
        self.assertEqual(self.ours("INVITE", 2, body=OFFER)[-1], "0 SIP/2.0 200 OK")
        self.ours("ACK", 1, branch="ack")
        self.ours("ACK", 2, branch="ack2")
        self.assertEqual(self.told, [("reoffered", OFFER), ("acked", b"")])
        self.assertEqual(self.run_for(40), [])

    def test_reinvite_never_acknowledged(self) -> None:
        """Without an ACK for a re-INVITE the call ends (RFC 3261 14.2)."""
        self.talking()
        self.ours("INVITE", 2, body=OFFER)
        self.assertEqual(self.run_for(32)[-1][:6], "32 BYE")
        self.assertEqual(self.told[-1], ("ended", "no-ack"))
        self.nothing_left()

    def test_update(self) -> None:
        """UPDATE is answered with or without SDP (RFC 3311)."""
        self.talking()
        self.ours("UPDATE", 2, body=OFFER)
        self.stack.transactions.received(
            request("UPDATE", 3, to_tag=self.stack.session.dialog.local_tag, contact="<sip:moved@h>"), FLOW
        )
        (sent,) = self.wire.messages()
        self.assertEqual((sent.body, sent.first("content-type")), (b"", None))
        self.assertEqual(self.told, [("reoffered", OFFER)])
        self.assertEqual(str(self.stack.session.dialog.target), "sip:moved@h")

    def test_other_body(self) -> None:
        """A body that is no SDP is 415 and says what we take."""
        self.talking()
        sent = self.ours("INVITE", 2, body=b"hi", headers="Content-Type: text/plain\r\n")
        self.assertEqual(sent[-1], "0 SIP/2.0 415 Only SDP is understood")
        sent = self.ours("UPDATE", 3, body=OFFER, headers="Content-Encoding: gzip\r\n")
        self.assertEqual(sent[-1], "0 SIP/2.0 415 No encoding is understood")

    def test_other_methods(self) -> None:
        """Each method within a call has its answer."""
        self.talking()
        for number, (method, line) in enumerate(
            (
                ("INFO", "200 OK"),
                ("OPTIONS", "200 OK"),
                ("REFER", "603 Transfers are not taken"),
                ("NOTIFY", "489 Bad Event"),
                ("MESSAGE", "405 Not here"),
                ("REGISTER", "405 Not here"),
                ("FOO", "501 Unknown method"),
            ),
            2,
        ):
            self.assertEqual(self.ours(method, number), [f"0 SIP/2.0 {line}"])

    def test_out_of_order(self) -> None:
        """A request older than one we have seen is 500 (RFC 3261 12.2.2)."""
        self.talking()
        self.ours("INFO", 9)
        self.assertEqual(self.ours("INFO", 8), ["0 SIP/2.0 500 Out of order"])

    def test_foreign_tags(self) -> None:
        """A request with the wrong tags belongs to no call."""
        self.talking()
        self.assertEqual(self.received(request("BYE", 2, to_tag="x")), ["0 SIP/2.0 481 No such call"])
        data = request("BYE", 3, to_tag=self.stack.session.dialog.local_tag).replace(b"tag=pbx", b"tag=evil")
        self.assertEqual(self.received(data), ["0 SIP/2.0 481 No such call"])
        self.assertEqual(self.told, [])

    # -- The way of our own requests ------------------------------------------------------

    def test_way(self) -> None:
        """Our requests follow Route and Contact, but behind NAT the way the call came."""
        proxy = "<sip:192.0.2.77;lr>"
        public, nat = ("192.0.2.10", 5060), ("198.51.100.7", 40000)
        for remote, contact, headers, goes, routes in (
            (public, "<sip:pbx@192.0.2.10:5070>", "", ("192.0.2.10", 5070), []),
            (public, "<sip:pbx@192.0.2.99>", "", ("192.0.2.99", 5060), []),
            (public, "<sip:pbx@pbx.example>", "", public, []),
            (("8.8.8.8", 5060), "<sip:pbx@10.0.0.5>", "", ("8.8.8.8", 5060), []),
            (nat, "<sip:pbx@192.168.1.5:5080>", "", nat, []),
            (public, "<sip:pbx@h>", f"Record-Route: {proxy}\r\n", ("192.0.2.77", 5060), [proxy]),
        ):  # fmt: skip
            self.setUp()
            via = f"SIP/2.0/UDP {'192.0.2.10' if remote == nat else remote[0]}:5060;branch=z9hG4bKi;rport"
            flow = Flow("UDP", US, remote)
            session = self.invited(contact=contact, headers=headers, flow=flow, via=via)
            session.answer(ANSWER)
            self.ours("ACK", 1, branch="ack")
            session.bye()
            self.assertEqual(self.wire.sent[0][2].remote, goes, contact)
            (bye,) = self.wire.messages()
            self.assertEqual(bye.all("route"), routes)
            self.nothing_left()

    def test_strict_route(self) -> None:
        """A first hop without lr gets the request addressed to itself (RFC 3261 12.2.1.1)."""
        self.talking(headers="Record-Route: <sip:192.0.2.10>, <sip:q;lr>\r\n").bye()
        (bye,) = self.wire.messages()
        assert isinstance(bye, Request)
        self.assertEqual(str(bye.uri), "sip:192.0.2.10")
        self.assertEqual(bye.all("route"), ["<sip:q;lr>", "<sip:pbx@192.0.2.10:5060>"])

    def test_on_its_connection(self) -> None:
        """Our BYE goes on the PBX's connection, or else to its Contact, behind NAT to the Contact's port."""
        for number, (host, contact, dial) in enumerate(
            (
                ("192.0.2.10", "<sip:pbx@192.0.2.10:5070;transport=tcp>", Dial(("192.0.2.10", 5070), "192.0.2.10")),
                ("192.0.2.10", "<sip:pbx@pbx.example>", Dial(("192.0.2.10", 5061), "pbx.example")),
                ("10.0.0.5", "<sip:pbx@10.0.0.5:5070>", Dial(("198.51.100.7", 5070), "10.0.0.5")),
            )
        ):
            self.setUp()
            source = host if host != "10.0.0.5" else "198.51.100.7"
            flow = Flow("TLS", US, (source, 40000))
            via = f"SIP/2.0/TLS {host};branch=z9hG4bK{number};rport"
            session = self.invited(flow=flow, via=via, contact=contact)
            session.answer(ANSWER)
            tag = session.dialog.local_tag
            newer = Flow("TLS", US, (source, 40001))
            self.received(request("ACK", 1, to_tag=tag, branch="ack"), flow)
            self.received(request("INFO", 2, to_tag=tag), newer)
            session.bye()
            self.assertEqual(self.wire.sent[-1][2], newer._replace(dial=dial))
            self.reply(200)
            self.nothing_left()
