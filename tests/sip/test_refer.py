"""Transfers, as PBXs and phones answer them."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from hypothesis import given, settings
from hypothesis import strategies as st

from extenbot.errors import Malformed, Misuse, Refused
from extenbot.sip.authorize import Authorizer
from extenbot.sip.dialog import Dialog
from extenbot.sip.headers import name_addr
from extenbot.sip.message import Request, Response, read
from extenbot.sip.refer import replacing
from extenbot.sip.session import Means, Session
from extenbot.sip.uri import Uri, callee
from tests.fakes import CountingTokens
from tests.sip.called import Called
from tests.sip.wire import ANSWER, FLOW, OFFER, request


class Transfer(Called):
    def test_asterisk_transfer(self) -> None:
        """Asterisk: 202, NOTIFY 100, 180, 200, and then it waits for our BYE."""
        session = self.talking()
        session.refer("sip:200@192.0.2.10", "sip:bot@example.org")
        sent = self.wire.messages()[0]
        assert isinstance(sent, Request)
        self.assertEqual((sent.first("refer-to"), sent.first("r")), ("<sip:200@192.0.2.10>",) * 2)
        self.assertEqual(sent.first("referred-by"), "<sip:bot@example.org>")
        self.assertEqual(sent.all("contact"), ["<sip:bot@192.0.2.1:5060>"])
        for number, (status, state) in enumerate(
            (("100 Trying", "active"), ("180 Ringing", "active"), ("200 OK", "terminated;reason=noresource")), 2
        ):
            self.assertEqual(self.notify(number, status, state), ["0 SIP/2.0 200 OK"])
        self.assertEqual(
            self.told,
            [
                ("transferred", 100, "Trying", False),
                ("transferred", 180, "Ringing", False),
                ("transferred", 200, "OK", True),
            ],
        )
        session.bye()
        self.nothing_left()

    def test_failed_transfer(self) -> None:
        """A missing extension: NOTIFY 404, and the call goes on and may try another target."""
        session = self.talking()
        session.refer("999")
        self.reply(202, "Accepted")
        self.notify(2, "404 Not Found", "terminated;reason=noresource", f"refer;id={session.dialog.local_cseq}")
        self.assertEqual(self.told, [("transferred", 202, "Accepted", False), ("transferred", 404, "Not Found", True)])
        self.assertFalse(session.over)
        self.assertEqual(self.run_for(70), [])
        session.refer("100")
        self.assertEqual(self.wire.sent[0][1].count(b"Refer-To: <sip:100@192.0.2.10>\r\n"), 1)
        self.told.clear()
        self.notify(3, "200 OK", "terminated", f"refer;id={session.dialog.local_cseq - 1}")
        self.assertEqual(self.told, [])
        session.bye()
        self.nothing_left()

    def test_freeswitch_transfer(self) -> None:
        """FreeSWITCH: one NOTIFY with the CSeq as id, terminated, and then it sends BYE."""
        session = self.talking()
        session.refer("200")
        self.reply(202, "Accepted")
        self.notify(2, "200 OK", "terminated;reason=noresource", f"refer;id={session.dialog.local_cseq}")
        self.ours("BYE", 3)
        self.assertEqual(self.told[1:], [("transferred", 200, "OK", True), ("ended", "caller")])
        self.nothing_left()

    def test_early_notify(self) -> None:
        """A NOTIFY may overtake the 202; the late 202 then says nothing new."""
        session = self.talking()
        session.refer("200")
        refer = list(self.wire.sent)
        self.notify(2, "200 OK", "terminated")
        self.wire.sent = refer
        self.reply(202)
        self.assertEqual(self.told, [("transferred", 200, "OK", True)])

    def test_refused_transfer(self) -> None:
        """A PBX that refuses REFER says why."""
        self.talking().refer("200")
        self.reply(603, "Decline")
        self.assertEqual(self.told, [("transferred", 603, "Decline", True)])

    def test_silent_transfer(self) -> None:
        """No news for 60 s is the end of waiting; any news starts it anew."""
        session = self.talking()
        session.refer("200")
        self.reply(202, "Accepted")
        self.run_for(50)
        self.notify(2, "180 Ringing")
        self.run_for(59)
        self.assertEqual(len(self.told), 2)
        self.run_for(1)
        self.assertEqual(self.told[2:], [("transferred", 408, "No word of the transfer", True)])
        session.bye()
        self.nothing_left()

    def test_terminated_without_result(self) -> None:
        """A subscription that ends without a final state is an end without a result, not a success."""
        self.talking().refer("200")
        self.notify(2, "100 Trying", "terminated;reason=timeout")
        self.assertEqual(self.told, [("transferred", 480, "The transfer ended without a result", True)])

    def test_lost_dialog(self) -> None:
        """If the other side no longer knows the call, it is over (RFC 3261 12.2.1.2)."""
        self.talking().refer("200")
        self.reply(481, "Gone")
        self.assertEqual(self.told, [("transferred", 481, "Gone", True), ("ended", "lost")])
        self.assertEqual(self.wire.take(), ["0 BYE sip:pbx@192.0.2.10:5060 SIP/2.0"])
        self.nothing_left()

    def test_foreign_notify(self) -> None:
        """A NOTIFY for no REFER of ours is 481."""
        session = self.talking()
        self.assertEqual(self.notify(2, "200 OK"), ["0 SIP/2.0 481 There is no such subscription"])
        session.refer("200")
        self.wire.take()
        self.assertEqual(self.notify(3, "200 OK", event="refer;id=77"), ["0 SIP/2.0 481 There is no such subscription"])
        self.assertEqual(self.told, [])

    def test_targets(self) -> None:
        """Numbers and tel URIs become SIP addresses at the caller's PBX; what is no target is refused."""
        for target, uri in (
            ("100", "sip:100@192.0.2.10"),
            ("tel:+1-212-555", "sip:+1212555@192.0.2.10"),
            ("sip:a@h;user=phone", "sip:a@h;user=phone"),
            (" *98# ", "sip:*98%23@192.0.2.10"),
        ):
            self.setUp()
            self.talking().refer(target)
            self.assertEqual(self.wire.messages()[0].first("refer-to"), f"<{uri}>")
        self.setUp()
        session = self.talking()
        for target in ("", "sip:a@h\r\nX: y", "100\r\n", "sip:a@h>;evil", "https://h", "two words"):
            self.assertRaises(Malformed, session.refer, target)
        self.assertRaises(Malformed, session.refer, "100", "sip:a@h\r\nX: y")
        self.assertEqual(self.wire.sent, [])
        session.refer("100")
        self.assertRaises(Misuse, session.refer, "100")

    def test_expired_subscription(self) -> None:
        """The PBX's own time for news counts, up to three minutes, and 0 is the end of it."""
        for state, wait in (("active;expires=30", 30), ("active; expires=120", 120), ("pending;expires=3600", 180)):
            self.setUp()
            session = self.talking()
            session.refer("200")
            self.reply(202, "Accepted")
            self.notify(2, "180 Ringing", state)
            self.clock.advance(wait - 0.001)
            self.assertEqual(len(self.told), 2)
            self.clock.advance(0.001)
            self.assertEqual(self.told[2:], [("transferred", 408, "No word of the transfer", True)])
            session.bye()
            self.nothing_left()
        self.setUp()
        self.talking().refer("200")
        self.notify(2, "180 Ringing", "active;expires=0")
        self.assertEqual(self.told, [("transferred", 480, "The transfer ended without a result", True)])

    def test_no_subscription(self) -> None:
        """A 2xx with `Refer-Sub: false` says that no NOTIFY will come: that is the outcome (RFC 4488)."""
        session = self.talking()
        session.refer("200")
        self.reply(202, "Accepted", refer_sub="false ;x=y")
        self.assertEqual(self.told, [("transferred", 202, "Accepted", True)])
        self.assertEqual(self.run_for(70), [])
        self.setUp()
        self.talking().refer("200")
        self.reply(200, "OK", refer_sub="true")
        self.assertEqual(self.told, [("transferred", 200, "OK", False)])

    def test_taken_over(self) -> None:
        """A PBX that has accepted and then ends the call by itself has done it, whatever it said in between."""
        for news in ((), ("100 Trying",), ("100 Trying", "180 Ringing")):
            self.setUp()
            self.talking().refer("200")
            self.reply(202, "Accepted")
            for number, status in enumerate(news, 2):
                self.notify(number, status)
            self.told.clear()
            self.assertEqual(self.ours("BYE", 9), ["0 SIP/2.0 200 OK"])
            self.assertEqual(self.told, [("transferred", 200, "The PBX took the call over", True), ("ended", "caller")])
            self.nothing_left()

    def test_hung_up_too_early(self) -> None:
        """A BYE before the REFER was accepted, or after it failed, is the caller's."""
        session = self.talking()
        session.refer("200")
        self.wire.take()
        self.ours("BYE", 2)
        self.assertEqual(self.told, [("ended", "caller")])
        self.setUp()
        self.talking().refer("200")
        self.reply(202)
        self.notify(2, "486 Busy Here", "terminated")
        self.told.clear()
        self.ours("BYE", 3)
        self.assertEqual(self.told, [("ended", "caller")])

    def test_refusals(self) -> None:
        """Whatever a PBX says against it is told in its own words, and the call goes on."""
        for code, words in ((403, "Forbidden"), (405, "Nope"), (420, "Bad"), (501, "Not here"), (503, "Later")):
            self.setUp()
            session = self.talking()
            session.refer("200")
            self.reply(code, words)
            self.assertEqual(self.told, [("transferred", code, words, True)])
            self.assertTrue(session.up)
            self.notify(2, "200 OK", "terminated")
            self.assertEqual(len(self.told), 1)

    def test_no_answer(self) -> None:
        """A REFER without any answer is 408 after 32 s, and the call is over (RFC 3261 12.2.1.2)."""
        self.talking().refer("200")
        self.assertEqual(self.run_for(32)[-1], "32 BYE sip:pbx@192.0.2.10:5060 SIP/2.0")
        self.assertEqual(self.told, [("transferred", 408, "Request Timeout", True), ("ended", "lost")])
        self.nothing_left()

    def test_challenged(self) -> None:
        """A challenged REFER goes again with credentials, and the NOTIFYs of the second one count."""
        session = self.talking()
        session.authorizer = Authorizer("100", "secret", CountingTokens())
        session.refer("200")
        self.reply(407, "Who?", proxy_authenticate='Digest realm="pbx", nonce="n"')
        sent, _ = self.reply(202)
        self.assertEqual((sent.cseq.number, sent.first("refer-to")), (3, "<sip:200@192.0.2.10>"))
        self.assertIn('username="100"', sent.first("proxy-authorization") or "")
        self.notify(2, "200 OK", "terminated", "refer;id=3")
        self.assertEqual(self.told, [("transferred", 202, "OK", False), ("transferred", 200, "OK", True)])

    def test_several(self) -> None:
        """Each REFER has its own NOTIFYs; late ones of an earlier one are answered and mean nothing."""
        session = self.talking()
        session.refer("200")
        self.reply(202)
        first = session.dialog.local_cseq
        self.notify(2, "486 Busy Here", "terminated", f"refer;id={first}")
        session.refer("300")
        self.reply(202)
        self.told.clear()
        self.assertEqual(self.notify(3, "200 OK", "terminated", f"refer;id={first}"), ["0 SIP/2.0 200 OK"])
        self.assertEqual(self.told, [])
        self.notify(4, "603 Decline", "terminated", f"Refer ; id={first + 1}")
        self.assertEqual(self.told, [("transferred", 603, "Decline", True)])

    def test_unreadable_notify(self) -> None:
        """A NOTIFY that cannot be read is 400 and tells nothing; a body that is no status line is no news."""
        self.talking().refer("200")
        self.wire.take()
        self.assertEqual(self.notify(2, "200 OK", event="refer;id=x")[0][:13], "0 SIP/2.0 400")
        self.assertEqual(self.notify(3, "200 OK", state="active;expires=x")[0][:13], "0 SIP/2.0 400")
        self.assertEqual(self.told, [])
        self.notify(4, "what", state="")
        self.assertEqual(self.told, [("transferred", 100, "", False)])

    def test_never_asks_for_silence(self) -> None:
        """We want to know what becomes of it: no REFER says `Refer-Sub: false`."""
        self.talking().refer("200")
        (sent,) = self.wire.messages()
        self.assertEqual((sent.first("refer-sub"), "norefersub" in sent.tokens("supported")), (None, True))


_host = st.sampled_from(["192.0.2.10", "[2001:db8::1]", "pbx.example"])


class Targets(Called):
    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=40) | st.from_regex(r"(sips?|tel):[ -~\r\n]{0,30}"), _host)
    def test_no_headers_injected(self, target: str, host: str) -> None:
        """Whatever is given as a target, it is refused or it stands in Refer-To and nowhere else."""
        try:
            uri = callee(target, host)
        except Malformed:
            return
        dialog = Dialog("c", "<sip:a@h>;tag=1", "<sip:b@h>;tag=2", Uri.read("sip:b@h"), (), 1, 1)
        sent = dialog.request("REFER")
        sent.set("via", "SIP/2.0/UDP h;branch=z9hG4bK1")
        names = list(sent.headers)
        sent.set("refer-to", f"<{uri}>")
        again = read(sent.toString().encode())
        self.assertEqual(list(again.headers), [*names, "refer-to"])
        there = name_addr(again.first("refer-to") or "")
        self.assertEqual((there.uri, there.display, dict(there.params)), (uri, "", {}))
        self.assertIn(there.uri.scheme, ("sip", "sips"))

    def test_forms(self) -> None:
        """What people and models write for a target."""
        for target, uri in (
            ("+49 (30) 1234", "sip:+49301234@pbx.example"),
            ("+49-30-1234", "sip:+49301234@pbx.example"),
            ("tel:+49-30-(12)34;phone-context=x", "sip:+49301234@pbx.example"),
            ("TEL:100", "sip:100@pbx.example"),
            ("sips:a@h", "sips:a@h"),
            ("sip:a@h?Replaces=x", "sip:a@h?Replaces=x"),
            ("anna", "sip:anna@pbx.example"),
            ("<sip:a@h>", None),
            ('"Anna" <sip:a@h>', None),
            ("urn:service:sos", None),
            ("sip:", None),
        ):
            if uri is None:
                self.assertRaises(Malformed, callee, target, "pbx.example")
            else:
                self.assertEqual(str(callee(target, "pbx.example")), uri)


class Attended(Called):
    """The caller is joined with somebody whom we have called meanwhile (RFC 5589 7)."""

    def consultation(self, call_id: str = "consult;1@h", tag: str = "their tag") -> Session:
        invite = read(request("INVITE", 7, body=OFFER, call_id=call_id))
        ok = request("INVITE", 7, contact="<sip:200@192.0.2.10:5062>", call_id=call_id, to_tag=tag)
        response = read(b"SIP/2.0 200 OK\r\n" + ok.split(b"\r\n", 1)[1])
        assert isinstance(invite, Request)
        assert isinstance(response, Response)
        means = Means(self.clock, self.stack.tokens, self.stack.transactions, self.stack.sessions, 0)
        session = Session(means, Dialog.called(invite, response), FLOW, "192.0.2.10", "sip:bot@192.0.2.1:5060")
        session.confirmed(response, OFFER)
        return session

    def test_refer_to(self) -> None:
        """Refer-To names the other call as its far side knows it, escaped; the PBX ends both."""
        session, other = self.talking(), self.consultation()
        session.refer_to(other, "sip:bot@example.org")
        sent, _ = self.reply(202)
        there = name_addr(sent.first("refer-to") or "")
        self.assertEqual(
            sent.first("refer-to"),
            "<sip:200@192.0.2.10:5062?Replaces=consult%3B1%40h%3Bto-tag%3Dtheir%20tag%3Bfrom-tag%3Dpbx>",
        )
        self.assertEqual(unquote(there.uri.header_text), "Replaces=consult;1@h;to-tag=their tag;from-tag=pbx")
        self.assertEqual(sent.first("referred-by"), "<sip:bot@example.org>")
        self.assertEqual(str(other.dialog.target), "sip:200@192.0.2.10:5062")
        self.notify(2, "200 OK", "terminated")
        self.assertEqual(self.told[-1], ("transferred", 200, "OK", True))
        other.bye()
        self.reply(200)
        session.bye()
        self.nothing_left()

    @settings(max_examples=100, deadline=None)
    @given(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), min_size=1), st.from_regex(r"[!-~]{1,20}"))
    def test_any_call(self, call_id: str, tag: str) -> None:
        """Whatever the other side calls the call: the Refer-To reads back as one URI with one header."""
        dialog = Dialog(call_id, "<sip:a@h>;tag=1", "<sip:b@h>;tag=2", Uri.read("sip:b@h;x=y"), (), 1, None)
        dialog.remote_tag = tag
        there = name_addr(f"<{replacing(dialog)}>").uri
        name, _, value = there.header_text.partition("=")
        self.assertEqual((name, unquote(value)), ("Replaces", f"{call_id};to-tag={tag};from-tag=1"))

    def test_not_up(self) -> None:
        """There must be two calls."""
        session, other = self.talking(), self.consultation()
        other.bye()
        self.assertRaises(Misuse, session.refer_to, other)
        session.bye()
        self.assertRaises(Misuse, session.refer_to, self.consultation("c2"))


class Replaced(Called):
    """The PBX joins two phones, so that a call of the bot's goes on in a new dialog (RFC 3891)."""

    def wish(self, value: str, **more: Any) -> Session | None:
        invite = read(request("INVITE", call_id="new", headers=f"Replaces: {value}\r\n", **more))
        assert isinstance(invite, Request)
        return self.stack.sessions.replaced(invite)

    def value(self, more: str = "", remote: str = "pbx") -> str:
        return f"call-1;to-tag={self.stack.session.dialog.local_tag};from-tag={remote}{more}"

    def refused(self, value: str) -> int:
        try:
            self.wish(value)
        except (Refused, Malformed) as error:
            return error.code
        return 200

    def test_which(self) -> None:
        """The call is named by Call-ID and tags, as we see them."""
        session = self.talking()
        self.assertIs(self.wish(self.value()), session)
        self.assertIs(self.wish(self.value(" ; x=y")), session)
        plain = read(request("INVITE"))
        assert isinstance(plain, Request)
        self.assertIsNone(self.stack.sessions.replaced(plain))

    def test_refusals(self) -> None:
        """What cannot be replaced is refused as RFC 3891 3 says."""
        session = self.talking()
        tag = session.dialog.local_tag
        for value, code in (
            (self.value(remote="evil"), 481),
            (f"call-2;to-tag={tag};from-tag=pbx", 481),
            (f"call-1;to-tag=pbx;from-tag={tag}", 481),
            (self.value(";early-only"), 486),
            (f"call-1;to-tag={tag}", 400),
            ("call-1", 400),
            ("", 200),
            (f"{self.value()}, {self.value()}", 400),
            (f"{self.value()}\r\nReplaces: {self.value()}", 400),
            (f"{self.value()}\r\nJoin: {self.value()}", 400),
        ):
            self.assertEqual(self.refused(value), code, value)
        session.bye()
        self.assertEqual(self.refused(self.value()), 603)
        self.setUp()
        self.invited()
        self.assertEqual(self.refused(self.value()), 481)

    def test_goes_on(self) -> None:
        """The listener goes over to the new dialog, which tells of no ACK of its own; the old one gets BYE."""
        for late in (False, True):
            self.setUp()
            old = self.talking()
            self.received(request("INVITE", branch="new", call_id="new", body=b"" if late else OFFER))
            new = self.stack.session
            new.listener = None
            new.answer(OFFER if late else ANSWER)
            self.wire.take()
            old.replaced_by(new)
            bye, _ = self.reply(200)
            self.assertEqual((bye.call_id, bye.first("reason")), ("call-1", 'SIP;cause=200;text="Replaced"'))
            tag = new.dialog.local_tag
            ack = request("ACK", branch="ack2", call_id="new", to_tag=tag, body=ANSWER if late else b"")
            self.received(ack)
            self.assertEqual(self.told, [("acked", ANSWER)] if late else [])
            self.told.clear()
            self.received(request("BYE", 2, call_id="new", to_tag=tag))
            self.assertEqual(self.told, [("ended", "caller")])
            self.nothing_left()

    def test_before_its_ack(self) -> None:
        """Replaced before its ACK came: the first ACK of either side begins the conversation, once."""
        old = self.invited()
        old.answer(ANSWER)
        self.received(request("INVITE", branch="new", call_id="new", body=OFFER))
        new = self.stack.session
        new.answer(ANSWER)
        old.replaced_by(new)
        for call_id, tag in (("new", new.dialog.local_tag), ("call-1", old.dialog.local_tag)):
            self.received(request("ACK", branch=f"ack{call_id}", call_id=call_id, to_tag=tag))
        self.assertEqual(self.told, [("acked", b"")])
        self.assertTrue(old.over)
        self.assertTrue(new.up)

    def test_in_a_transfer(self) -> None:
        """A transfer that is under way in the old dialog is given up, and its call told so."""
        old = self.talking()
        old.refer("200")
        self.reply(202)
        self.told.clear()
        self.received(request("INVITE", branch="new", call_id="new", body=OFFER))
        self.stack.session.answer(ANSWER)
        old.replaced_by(self.stack.session)
        self.assertEqual(self.told, [("transferred", 487, "Another call has replaced this one", True)])
