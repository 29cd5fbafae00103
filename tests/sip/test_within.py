"""What the PBX may send within a call, in every state of it."""

from __future__ import annotations

from typing import Any

from extenbot.errors import Refused
from extenbot.interfaces import Flow
from extenbot.sip.message import Request, Response
from tests.sip.called import Called
from tests.sip.wire import ANSWER, FLOW, OFFER, US, request

STATES = ("early", "answered", "confirmed", "refreshing", "leaving", "ended")
#: the code of our answer in each of `STATES`
TABLE = {
    "INVITE":         (500, 200, 200, 491, 481, 481),
    "INVITE offer":   (500, 200, 200, 491, 481, 481),
    "UPDATE":         (200, 200, 200, 200, 481, 481),
    "UPDATE offer":   (500, 200, 200, 491, 481, 481),
    "BYE":            (200, 200, 200, 200, 200, 481),
    "CANCEL":         (481, 481, 481, 481, 481, 481),
    "OPTIONS":        (200, 200, 200, 200, 481, 481),
    "INFO":           (200, 200, 200, 200, 481, 481),
    "PRACK":          (400, 400, 400, 400, 481, 481),
    "NOTIFY":         (489, 489, 489, 489, 481, 481),
    "NOTIFY refer":   (481, 481, 481, 481, 481, 481),
    "NOTIFY summary": (200, 200, 200, 200, 481, 481),
    "REFER":          (603, 603, 603, 603, 481, 481),
    "SUBSCRIBE":      (489, 489, 489, 489, 481, 481),
    "MESSAGE":        (405, 405, 405, 405, 481, 481),
    "PUBLISH":        (405, 405, 405, 405, 481, 481),
    "REGISTER":       (405, 405, 405, 405, 481, 481),
    "FOO":            (501, 501, 501, 501, 481, 481),
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "offer": {"body": OFFER},
    "refer": {"headers": "Event: refer\r\nSubscription-State: active\r\n"},
    "summary": {"headers": "Event: message-summary\r\nContent-Type: application/simple-message-summary\r\n"},
}


class Within(Called):
    def answer(self, method: str, number: int, **more: Any) -> Response:
        """Our last answer to it."""
        tag = self.stack.session.dialog.local_tag
        self.wire.take()
        self.stack.transactions.received(request(method, number, to_tag=tag, **more), FLOW)
        answers = [message for message in self.wire.messages() if isinstance(message, Response)]
        return [answer for answer in answers if answer.cseq.method == method][-1]

    def into(self, state: str) -> None:
        session = self.invited()
        if state == "early":
            session.ring()
            return
        session.answer(ANSWER)
        if state == "answered":
            return
        self.ours("ACK", 1, branch="ack")
        if state == "refreshing":
            self.clock.advance(900)  # they did not name UPDATE, so it is a re-INVITE
        elif state in ("leaving", "ended"):
            session.bye()
            if state == "ended":
                self.reply(200)

    def test_table(self) -> None:
        """Every request in every state has its answer, and only BYE ends the call."""
        for what, codes in TABLE.items():
            method, _, how = what.partition(" ")
            for state, code in zip(STATES, codes, strict=True):
                self.setUp()
                self.into(state)
                self.told.clear()
                answer = self.answer(method, 2, branch="x", **MORE.get(how, {}))
                self.assertEqual(answer.code, code, f"{what} {state}")
                over = state in ("leaving", "ended") or method == "BYE"
                self.assertEqual(self.stack.session.over, over, f"{what} {state}")
                ended = [("ended", "caller")] if method == "BYE" and state not in ("leaving", "ended") else []
                self.assertEqual([told for told in self.told if told[0] != "reoffered"], ended, f"{what} {state}")
                self.stack.session.bye()
                self.nothing_left()

    def test_says_what_it_would_take(self) -> None:
        """405 and 501 list our methods, 489 our events, OPTIONS what we can do."""
        self.talking()
        methods = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY, UPDATE, PRACK, REGISTER"
        for number, (method, name, value) in enumerate(
            (
                ("MESSAGE", "allow", methods),
                ("FOO", "allow", methods),
                ("SUBSCRIBE", "allow-events", "refer, message-summary"),
                ("NOTIFY", "allow-events", "refer, message-summary"),
                ("OPTIONS", "allow", methods),
                ("OPTIONS", "supported", "100rel, norefersub, replaces, timer"),
                ("OPTIONS", "accept", "application/sdp"),
            ),
            2,
        ):
            self.assertEqual(self.answer(method, number).first(name), value, method)

    def test_keys(self) -> None:
        """A key told by INFO reaches the call, whichever way the PBX writes it."""
        self.talking()
        relay, plain = "application/dtmf-relay", "application/dtmf"
        for number, (kind, body, digit) in enumerate(
            (
                (relay, "Signal=5\r\nDuration=160\r\n", "5"),
                (relay, "Signal= 0\nDuration= 100", "0"),
                (relay, "Duration=160\r\nsignal=*", "*"),
                (relay, "Signal=#\r\n", "#"),
                (relay, "Signal=10\r\n", "*"),
                (relay, "Signal=11\r\n", "#"),
                (relay, "Signal=15\r\n", "D"),
                (relay, "Signal=a\r\n", "A"),
                (f"{relay}; charset=utf-8", "Signal=9", "9"),
                (plain, "7", "7"),
                (plain, " d\r\n", "D"),
                (plain.upper(), "11", "#"),
                (relay, "Signal=\r\nDuration=1", ""),
                (relay, "Signal=16", ""),
                (relay, "Duration=1", ""),
                (relay, "Signal=12345", ""),
                (plain, "\xff", ""),
                (plain, "hello", ""),
            ),
            2,
        ):
            self.told.clear()
            headers = f"Content-Type: {kind}\r\n"
            answer = self.answer("INFO", number, headers=headers, body=body.encode("latin-1"))
            self.assertEqual(answer.code, 200, body)
            self.assertEqual(self.told, [("pressed", digit)] if digit else [], body)

    def test_other_infos(self) -> None:
        """An INFO of another kind is 415 and says what we take; one of a package we never asked for is 469."""
        self.talking()
        xml = "Content-Type: application/media_control+xml\r\n"
        answer = self.answer("INFO", 2, headers=xml, body=b"<x/>")
        self.assertEqual((answer.code, answer.first("accept")), (415, "application/dtmf-relay, application/dtmf"))
        answer = self.answer("INFO", 3, headers=f"Info-Package: foo\r\n{xml}", body=b"<x/>")
        self.assertEqual((answer.code, answer.phrase, answer.first("recv-info")), (469, "Bad Info Package", ""))
        packed = "Content-Type: application/dtmf\r\nContent-Encoding: gzip\r\n"
        self.assertEqual(self.answer("INFO", 4, headers=packed, body=b"5").code, 415)
        self.assertEqual(self.told, [])

    def test_new_target(self) -> None:
        """A re-INVITE or UPDATE moves the target, never the route set; a refused one moves nothing."""
        session = self.talking(headers="Record-Route: <sip:192.0.2.77;lr>\r\n")
        cases: tuple[tuple[str, bytes, bytes | int, bool], ...] = (
            ("INVITE", OFFER, ANSWER, True),
            ("UPDATE", b"", ANSWER, True),
            ("UPDATE", OFFER, ANSWER, True),
            ("INVITE", OFFER, 488, False),
            ("UPDATE", OFFER, 488, False),
        )
        for number, (method, body, reply, moves) in enumerate(cases, 2):
            self.stack.listener.reply = reply
            before, there = str(session.dialog.target), f"sip:at{number}@192.0.2.20"
            routes = "Record-Route: <sip:192.0.2.99;lr>\r\n"
            answer = self.answer(method, number, body=body, contact=f"<{there}>", headers=routes)
            self.assertEqual(answer.code, 200 if moves else 488)
            self.assertEqual(str(session.dialog.target), there if moves else before)
            self.ours("ACK", number, branch=f"INVITE{number}" if not moves else f"ack{number}")
        for number, (method, body) in enumerate((("INVITE", OFFER), ("UPDATE", OFFER), ("UPDATE", b"")), 10):
            self.told.clear()
            self.assertEqual(self.answer(method, number, body=body, contact="<tel:1>").code, 400)
            self.assertEqual(self.told, [])  # the media stay as well
        session.bye()
        bye = [message for message in self.wire.messages() if isinstance(message, Request)][-1]
        self.assertEqual((str(bye.uri), bye.all("route")), ("sip:at4@192.0.2.20", ["<sip:192.0.2.77;lr>"]))

    def test_new_way(self) -> None:
        """A PBX behind NAT whose port has changed is reached where its last re-INVITE or UPDATE came from."""
        for method in ("INVITE", "UPDATE"):
            self.setUp()
            nat = Flow("UDP", US, ("198.51.100.7", 40000))
            session = self.invited(
                flow=nat, contact="<sip:pbx@192.168.1.5>", via="SIP/2.0/UDP 192.168.1.5;branch=z9hG4bK1;rport"
            )
            session.answer(ANSWER)
            tag = session.dialog.local_tag
            self.received(request("ACK", 1, branch="ack", to_tag=tag), nat)
            moved = nat._replace(remote=("198.51.100.7", 40002))
            self.received(request(method, 2, to_tag=tag, body=OFFER, contact="<sip:pbx@192.168.1.5>"), moved)
            session.bye()
            self.assertEqual(self.wire.sent[-1][2].remote, moved.remote)

    def test_required_within(self) -> None:
        """A re-INVITE may require what we know; anything else is 420 and changes nothing."""
        self.talking()
        known = "Require: 100rel, timer\r\nSession-Expires: 600\r\n"
        self.assertEqual(self.answer("INVITE", 2, body=OFFER, headers=known).code, 200)
        self.ours("ACK", 2, branch="ack2")
        answer = self.answer("INVITE", 3, body=OFFER, headers="Require: precondition\r\n")
        self.assertEqual((answer.code, answer.first("unsupported")), (420, "precondition"))
        self.assertEqual(self.told, [("reoffered", OFFER)])

    def test_late_ack_of_the_first(self) -> None:
        """An ACK that comes after a re-INVITE was refused belongs to the 200 before it."""
        self.invited().answer(ANSWER)
        self.stack.listener.reply = Refused(488, "No")
        self.assertEqual(self.answer("INVITE", 2, body=OFFER).code, 488)
        self.ours("ACK", 2, branch="INVITE2")
        self.assertEqual(self.told, [("reoffered", OFFER)])
        self.ours("ACK", 1, branch="ack")
        self.assertEqual(self.told[-1], ("acked", b""))
        self.assertEqual(self.run_for(40), [])

    def test_replies_say_when(self) -> None:
        """500 for what comes too early says when to try again, 0 to 10 s (RFC 3261 14.2, RFC 3311 5.2)."""
        self.into("early")
        for method in ("INVITE", "UPDATE"):
            answer = self.answer(method, 2 if method == "INVITE" else 3, body=OFFER)
            self.assertTrue(0 <= int(answer.first("retry-after") or 99) <= 10)

    def test_early_update(self) -> None:
        """An UPDATE before the answer moves the target and begins no session timer."""
        self.into("early")
        answer = self.answer("UPDATE", 2, contact="<sip:early@192.0.2.20>", headers="Supported: timer\r\n")
        self.assertEqual((answer.code, answer.first("session-expires")), (200, None))
        self.assertEqual(str(self.stack.session.dialog.target), "sip:early@192.0.2.20")
        self.stack.session.refuse(486)
        self.nothing_left()
