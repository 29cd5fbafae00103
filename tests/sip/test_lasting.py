"""Session timers on a fake clock, to the millisecond (RFC 4028)."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.sip.authorize import Authorizer
from extenbot.sip.dialog import Dialog
from extenbot.sip.lasting import Lasting
from extenbot.sip.message import Request, Response, read
from extenbot.sip.session import Means, Session
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.sip.called import Called
from tests.sip.wire import ANSWER, FLOW, OFFER, request

UPDATES = "Allow: INVITE, ACK, BYE, CANCEL, UPDATE\r\n"
KNOWS = "Supported: 100rel, timer\r\n"
ASTERISK = f"{KNOWS}Session-Expires: 1800\r\nMin-SE: 90\r\n"


class Case(Called):
    expires = 1800

    def setUp(self) -> None:
        super().setUp()
        self.stack.expires = self.expires

    def last(self) -> Response | Request:
        return self.wire.messages()[-1]

    def granted(self, message: Response | Request) -> tuple[str | None, list[str]]:
        return message.first("session-expires"), message.all("require")

    def answered(self, headers: str) -> tuple[str | None, list[str]]:
        """What our 200 to an INVITE with these headers says of the timer; the call is up then."""
        session = self.invited(headers=headers)
        session.answer(ANSWER)
        said = self.granted(self.last())
        self.ours("ACK", 1, branch="ack")
        self.told.clear()
        return said

    def within(self, method: str, number: int, **more: Any) -> Response:
        """Our last answer to a request within the call; a 200 of an INVITE is acknowledged."""
        tag = self.stack.session.dialog.local_tag
        self.stack.transactions.received(request(method, number, to_tag=tag, **more), FLOW)
        last = self.last()
        assert isinstance(last, Response)
        if method == "INVITE" and last.code == 200:
            self.ours("ACK", number, branch=f"ack{number}")
        return last

    def at(self, seconds: float) -> list[str]:
        """What is sent from now to then; the last millisecond by itself."""
        self.clock.advance(seconds - 0.001 - self.clock.seconds())
        early = self.wire.take()
        self.assertEqual(early, [], f"before {seconds}")
        self.clock.advance(seconds - self.clock.seconds())
        return [line.split(" ", 1)[1] for line in self.wire.take()]

    def sent_at(self, seconds: float) -> Request:
        """The one request of ours that is sent then, and nothing before; it waits for `reply`."""
        self.clock.advance(seconds - 0.001 - self.clock.seconds())
        self.assertEqual(self.wire.take(), [], f"before {seconds}")
        self.clock.advance(seconds - self.clock.seconds())
        (_, data, _) = self.wire.sent[-1]
        message = read(data)
        assert isinstance(message, Request)
        return message


class Asked(Case):
    """What we answer to what they ask (RFC 4028 9, table 2)."""

    def test_table(self) -> None:
        """Who refreshes, and how often, for all that an INVITE may say."""
        least = "Min-SE: 2400\r\n"
        for headers, seconds, refresher in (
            ("", 1800, "uas"),
            (KNOWS, 1800, "uas"),
            (ASTERISK, 1800, "uac"),
            (f"{KNOWS}Session-Expires: 600\r\n", 600, "uac"),
            (f"{KNOWS}Session-Expires: 3600\r\n", 1800, "uac"),
            (f"{KNOWS}Session-Expires: 3600\r\n{least}", 2400, "uac"),
            (f"{KNOWS}{least}", 2400, "uas"),
            (f"{KNOWS}Session-Expires: 90;refresher=uac\r\n", 90, "uac"),
            (f"{KNOWS}x: 600 ; refresher=UAS\r\n", 600, "uas"),
            (f"{KNOWS}Session-Expires: 600;refresher=who\r\n", 600, "uac"),
            ("Require: timer\r\nSession-Expires: 600\r\n", 600, "uac"),
            ("Session-Expires: 600\r\n", 600, "uas"),
            ("Session-Expires: 600;refresher=uac\r\n", 600, "uas"),
            ("Session-Expires: 30\r\n", 1800, "uas"),
        ):
            self.setUp()
            required = ["timer"] if refresher == "uac" else []
            self.assertEqual(self.answered(headers), (f"{seconds};refresher={refresher}", required), headers)
            self.stack.session.bye()
            self.nothing_left()

    def test_never_ask(self) -> None:
        """With `session_expires = 0` there is a timer only where the PBX asks for one."""
        self.expires = 0
        for headers, said in (
            ("", None),
            (KNOWS, None),
            (ASTERISK, "1800;refresher=uac"),
            (f"{KNOWS}Session-Expires: 7200;refresher=uas\r\n", "7200;refresher=uas"),
        ):
            self.setUp()
            self.assertEqual(self.answered(headers)[0], said)
        self.setUp()
        self.answered("")
        self.assertEqual(self.run_for(7200), [])
        self.stack.session.bye()
        self.nothing_left()

    def test_too_small(self) -> None:
        """Less than 90 s is 422 with Min-SE, in an INVITE, a re-INVITE and an UPDATE, and nothing has changed."""
        small = f"{KNOWS}Session-Expires: 89\r\n"
        self.stack.transactions.received(request("INVITE", body=OFFER, headers=small), FLOW)
        last = self.last()
        assert isinstance(last, Response)
        self.assertEqual((last.code, last.phrase, last.first("min-se")), (422, "Session Interval Too Small", "90"))
        self.assertEqual(len(self.stack.sessions), 0)
        self.received(request("ACK", branch="INVITE1", to_tag=last.to.tag))
        self.clock.advance(40)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.setUp()
        self.answered(ASTERISK)
        for number, method in ((2, "INVITE"), (3, "UPDATE"), (4, "UPDATE")):
            body = b"" if number == 4 else OFFER
            last = self.within(method, number, headers=small, body=body, contact="<sip:moved@192.0.2.20>")
            self.assertEqual((last.code, last.first("min-se")), (422, "90"))
            if method == "INVITE":
                self.ours("ACK", number, branch=f"INVITE{number}")
        self.assertEqual(self.told, [])
        self.assertEqual(str(self.stack.session.dialog.target), "sip:pbx@192.0.2.10:5060")
        self.assertEqual(self.at(1768), ["BYE sip:pbx@192.0.2.10:5060 SIP/2.0"])

    def test_unreadable(self) -> None:
        """A timer that is no number is 400."""
        for header in ("Session-Expires: soon", "Session-Expires: ", "Min-SE: -1", "Session-Expires: 99999999999"):
            self.setUp()
            sent = self.received(request("INVITE", body=OFFER, headers=f"{KNOWS}{header}\r\n"))
            self.assertEqual(sent[0][:13], "0 SIP/2.0 400", header)


class TheyRefresh(Case):
    def test_dead_peer(self) -> None:
        """Who was to refresh and did not is gone shortly before the end: BYE, and the call is told."""
        for interval, end in ((90, 60.0), (96, 64.0), (120, 88.0), (1800, 1768.0)):
            self.setUp()
            self.answered(f"{KNOWS}Session-Expires: {interval};refresher=uac\r\n")
            self.assertEqual(self.at(end), ["BYE sip:pbx@192.0.2.10:5060 SIP/2.0"])
            self.assertEqual(self.told, [("ended", "lost")])
            self.nothing_left()

    def test_two_hours(self) -> None:
        """A call of two hours that the PBX refreshes by re-INVITE and UPDATE in turn stays up, then is missed."""
        self.answered(ASTERISK)
        for number in range(2, 10):
            self.clock.advance(900)
            method = "INVITE" if number % 2 else "UPDATE"
            headers = f"{KNOWS}Session-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\n"
            last = self.within(method, number, headers=headers, body=OFFER if number % 2 else b"")
            self.assertEqual((last.code, *self.granted(last)), (200, "1800;refresher=uac", ["timer"]))
        self.assertEqual(self.clock.seconds(), 7200)
        self.assertEqual(self.at(7200 + 1768), ["BYE sip:pbx@192.0.2.10:5060 SIP/2.0"])
        self.assertEqual(self.told[-1], ("ended", "lost"))

    def test_refusal_is_no_refresh(self) -> None:
        """A re-INVITE that was refused, or an INFO, does not make the call last longer."""
        self.answered(ASTERISK)
        self.clock.advance(1000)
        self.stack.listener.reply = 488
        self.assertEqual(self.within("INVITE", 2, headers=ASTERISK, body=OFFER).code, 488)
        self.ours("ACK", 2, branch="INVITE2")
        self.assertEqual(self.within("INFO", 3).code, 200)
        self.assertEqual(self.at(1768), ["BYE sip:pbx@192.0.2.10:5060 SIP/2.0"])

    def test_roles_stay(self) -> None:
        """A re-INVITE that does not say who refreshes leaves it as it was; one that does changes it."""
        self.answered(ASTERISK)
        for number, (headers, said) in enumerate(
            (
                (KNOWS, "1800;refresher=uac"),
                (f"{KNOWS}Session-Expires: 600\r\n", "600;refresher=uac"),
                (KNOWS, "600;refresher=uac"),
                (f"{KNOWS}Session-Expires: 600;refresher=uas\r\n", "600;refresher=uas"),
                (f"{KNOWS}Session-Expires: 600\r\n", "600;refresher=uas"),
                ("", "600;refresher=uas"),
            ),
            2,
        ):
            for method in ("UPDATE", "INVITE"):
                last = self.within(method, 2 * number + (method == "INVITE"), headers=headers, body=OFFER)
                self.assertEqual(last.first("session-expires"), said, headers)
        self.assertEqual(self.at(300), ["INVITE sip:pbx@192.0.2.10:5060 SIP/2.0"])

    def test_turned_off_meanwhile(self) -> None:
        """When they turn it off while a refresh of ours is out, whatever comes of that begins nothing."""
        self.expires = 0
        for code in (200, 488, 491, 500):
            self.setUp()
            self.answered(f"{UPDATES}{KNOWS}Session-Expires: 1800;refresher=uas\r\n")
            self.sent_at(900)
            refresh = list(self.wire.sent)
            self.assertIsNone(self.within("UPDATE", 2, headers=KNOWS).first("session-expires"))
            self.wire.sent = refresh
            self.reply(code)
            self.assertEqual(self.run_for(60), [])
            self.clock.advance(7200)
            self.assertEqual((self.wire.take(), self.told), ([], []))
            self.stack.session.bye()
            self.nothing_left()

    def test_turned_off(self) -> None:
        """With `session_expires = 0` a re-INVITE without a timer ends the one there was."""
        self.expires = 0
        self.setUp()
        self.answered(ASTERISK)
        self.assertIsNone(self.within("UPDATE", 2, headers=KNOWS).first("session-expires"))
        self.clock.advance(7200)
        self.assertEqual((self.wire.take(), self.told), ([], []))
        self.stack.session.bye()
        self.nothing_left()


class WeRefresh(Case):
    def test_by_update(self) -> None:
        """Half-way we send an UPDATE without SDP where it is known, and the interval begins anew."""
        self.answered(f"{UPDATES}{KNOWS}")
        sent = self.sent_at(900)
        self.assertEqual((sent.method, sent.body, sent.first("session-expires")), ("UPDATE", b"", "1800;refresher=uac"))
        self.assertEqual((sent.first("min-se"), sent.all("contact")), ("90", ["<sip:bot@192.0.2.1:5060>"]))
        self.assertIn("timer", sent.tokens("supported"))
        self.clock.advance(0.25)
        self.reply(200, session_expires="600;refresher=uac", contact="<sip:moved@192.0.2.20>")
        sent = self.sent_at(1200.25)
        self.assertEqual((str(sent.uri), sent.first("session-expires")), ("sip:moved@192.0.2.20", "600;refresher=uac"))
        self.reply(200, session_expires="600;refresher=uas")
        self.assertEqual(self.at(1200.25 + 568), ["BYE sip:moved@192.0.2.20 SIP/2.0"])

    def test_by_reinvite(self) -> None:
        """Where UPDATE is not known it is a re-INVITE with the very SDP that they know."""
        self.answered(KNOWS)
        sent = self.sent_at(900)
        self.assertEqual((sent.method, sent.body, sent.first("content-type")), ("INVITE", ANSWER, "application/sdp"))
        self.assertEqual(sent.first("session-expires"), "1800;refresher=uac")
        self.assertNotIn("100rel", sent.tokens("supported"))
        _, ok = self.reply(200, session_expires="1800;refresher=uac", contact="<sip:new@192.0.2.20>", body=OFFER)
        self.assertEqual(self.told, [("acked", OFFER)])
        ack = self.wire.sent[-1]
        self.assertEqual(
            (self.wire.take(), ack[2].remote), (["900 ACK sip:new@192.0.2.20 SIP/2.0"], ("192.0.2.20", 5060))
        )
        self.stack.transactions.received(ok, FLOW)  # our ACK was lost
        self.assertEqual(self.wire.sent[-1][1], ack[1])
        self.assertEqual(self.told, [("acked", OFFER)])
        self.wire.take()
        self.assertEqual(self.at(1800), ["INVITE sip:new@192.0.2.20 SIP/2.0"])

    def test_two_hours(self) -> None:
        """A call of two hours with a PBX that knows no timers is refreshed every quarter of an hour."""
        self.answered(UPDATES)
        for number in range(1, 9):
            sent = self.sent_at(900 * number)
            self.assertEqual((sent.method, sent.cseq.number), ("UPDATE", number + 1))
            self.reply(200)
        self.assertEqual((self.clock.seconds(), self.told), (7200, []))
        self.stack.session.bye()
        self.nothing_left()

    def test_nobody_there(self) -> None:
        """A refresh without an answer for 32 s: BYE, and the call is told."""
        for headers in (UPDATES, KNOWS):
            self.setUp()
            self.answered(headers)
            self.clock.advance(900)
            sent = self.run_for(31.875)
            self.assertEqual({line.split()[1] for line in sent}, {"UPDATE" if headers == UPDATES else "INVITE"})
            self.assertEqual(self.run_for(0.125)[-1], "932 BYE sip:pbx@192.0.2.10:5060 SIP/2.0")
            self.assertEqual(self.told, [("ended", "lost")])
            self.nothing_left()

    def test_never_decided(self) -> None:
        """A re-INVITE that is only ever being tried ends with the interval: CANCEL, BYE, nothing is left."""
        self.answered(KNOWS)
        self.sent_at(900)
        self.reply(100, "Trying")
        self.assertEqual(
            self.at(1768), ["CANCEL sip:pbx@192.0.2.10:5060 SIP/2.0", "BYE sip:pbx@192.0.2.10:5060 SIP/2.0"]
        )
        self.assertEqual(self.told, [("ended", "lost")])
        self.nothing_left()

    def test_short_interval(self) -> None:
        """When 32 s are longer than what is left, the end comes with the interval."""
        self.answered(f"{UPDATES}{KNOWS}Session-Expires: 90;refresher=uas\r\n")
        self.sent_at(45)
        self.run_for(14.875)
        self.assertEqual(self.run_for(0.125)[-1], "60 BYE sip:pbx@192.0.2.10:5060 SIP/2.0")
        self.assertEqual(self.told, [("ended", "lost")])
        self.nothing_left()

    def test_forgotten(self) -> None:
        """A PBX that no longer knows the call: 481, BYE, and the call is told."""
        for headers in (UPDATES, KNOWS):
            self.setUp()
            self.answered(headers)
            self.sent_at(900)
            self.reply(481, "Gone")
            self.assertIn("900 BYE sip:pbx@192.0.2.10:5060 SIP/2.0", self.wire.take())
            self.assertEqual(self.told, [("ended", "lost")])
            self.nothing_left()

    def test_no_update_after_all(self) -> None:
        """UPDATE was named in Allow but is 405 or 501: a re-INVITE does it, now and later."""
        for code in (405, 501):
            self.setUp()
            self.answered(f"{UPDATES}{KNOWS}")
            self.sent_at(900)
            self.reply(code)
            self.assertEqual(self.wire.sent[-1][1][:6], b"INVITE")
            self.reply(200, session_expires="1800;refresher=uac")
            self.wire.take()
            self.assertEqual(self.sent_at(1800).method, "INVITE")

    def test_wants_longer(self) -> None:
        """422 to a refresh: at once again with what it wants; one that is never content is not asked for ever."""
        self.answered(f"{UPDATES}{KNOWS}")
        self.sent_at(900)
        self.reply(422, min_se="3600")
        sent, _ = self.reply(200, session_expires="3600;refresher=uac")
        self.assertEqual((sent.first("session-expires"), sent.first("min-se")), ("3600;refresher=uac", "3600"))
        self.sent_at(2700)
        self.reply(422, min_se="3600")
        self.assertEqual(self.sent_at(2700 + 450).method, "UPDATE")
        self.reply(422, min_se="no number")
        self.assertEqual(self.sent_at(2700 + 900).method, "UPDATE")

    def test_refused_for_now(self) -> None:
        """Retry-After is obeyed; 491 is tried again within 2 s; other refusals every eighth, to the end."""
        self.answered(f"{UPDATES}{KNOWS}")
        self.sent_at(900)
        self.reply(500, retry_after="7 (busy)")
        self.sent_at(907)
        self.reply(491)
        began = self.clock.seconds()
        while not self.wire.sent:
            self.clock.advance(0.01)
        self.assertLessEqual(self.clock.seconds() - began, 2.005)
        self.reply(488)
        for _ in range(3):
            began += 225
            self.clock.advance(225)
            self.reply(503)
        self.clock.advance(1768 - self.clock.seconds())
        self.assertEqual(self.wire.take()[-1], "1768 BYE sip:pbx@192.0.2.10:5060 SIP/2.0")
        self.assertEqual(self.told, [("ended", "lost")])
        self.nothing_left()

    def test_a_refusal_is_life(self) -> None:
        """A PBX that knows no timers and refuses the refresh lives: the call goes on as after a refresh."""
        self.answered("")
        self.sent_at(900)
        self.reply(488)
        self.wire.take()
        self.assertEqual(self.sent_at(1800).method, "INVITE")
        self.reply(503)  # which may be ours, of a connection that is gone
        self.wire.take()
        self.assertEqual(self.sent_at(2025).method, "INVITE")

    def test_glare(self) -> None:
        """A re-INVITE of theirs that crosses ours is 491, as is an UPDATE with SDP; one without is fine."""
        self.answered(KNOWS)
        self.sent_at(900)
        reinvite = list(self.wire.sent)
        self.assertEqual(self.within("INVITE", 2, body=OFFER).code, 491)
        self.ours("ACK", 2, branch="INVITE2")
        self.assertEqual(self.within("UPDATE", 3, body=OFFER).code, 491)
        self.assertEqual(self.within("UPDATE", 4, headers=KNOWS).code, 200)
        self.wire.sent = reinvite
        self.reply(491)
        self.wire.take()
        self.assertEqual(self.told, [])
        self.assertEqual(self.within("INVITE", 5, body=OFFER, headers=KNOWS).code, 200)  # theirs was quicker
        self.wire.take()
        self.assertEqual(self.at(1800), ["INVITE sip:pbx@192.0.2.10:5060 SIP/2.0"])

    def test_theirs_counts(self) -> None:
        """When they refresh although it was ours to do, ours is due half an interval later."""
        self.answered(f"{UPDATES}{KNOWS}")
        self.clock.advance(800)
        self.assertEqual(self.within("UPDATE", 2, headers=KNOWS).first("session-expires"), "1800;refresher=uas")
        self.assertEqual(self.at(1700), ["UPDATE sip:pbx@192.0.2.10:5060 SIP/2.0"])

    def test_hang_up_meanwhile(self) -> None:
        """A BYE of either side while a refresh is out ends all; the late 200 of a re-INVITE still gets its ACK."""
        for ours in (True, False):
            self.setUp()
            self.answered(KNOWS)
            self.sent_at(900)
            sent = list(self.wire.sent)
            if ours:
                self.wire.take()
                self.stack.session.bye()
                self.reply(200)
            else:
                self.ours("BYE", 2)
            self.wire.sent = sent
            self.reply(200, body=OFFER)
            self.assertEqual([line.split()[1] for line in self.wire.take()], ["ACK"])
            self.assertEqual(self.told, [] if ours else [("ended", "caller")])
            self.nothing_left()

    def test_challenged(self) -> None:
        """A refresh that is challenged is sent again with credentials; the ACK of a re-INVITE has them too."""
        asks = 'Digest realm="pbx", nonce="n1"'
        challenge: dict[str, Any]
        for headers, method in ((UPDATES, "UPDATE"), (KNOWS, "INVITE")):
            for code, name, answers in (
                (401, "www_authenticate", "authorization"),
                (407, "proxy_authenticate", "proxy-authorization"),
            ):
                self.setUp()
                self.answered(headers)
                challenge = {name: asks}
                self.stack.session.authorizer = Authorizer("100", "secret", CountingTokens())
                self.assertEqual(self.sent_at(900).all(answers), [])
                self.reply(code, "Who?", **challenge)
                sent, _ = self.reply(200, session_expires="1800;refresher=uac")
                self.assertEqual((sent.method, sent.cseq.number), (method, 3))
                self.assertIn('username="100"', sent.first(answers) or "")
                acks = [message for message in self.wire.messages() if isinstance(message, Request)]
                self.assertEqual([ack.first(answers) for ack in acks], [sent.first(answers)] * (method == "INVITE"))
                again = self.sent_at(1800)  # at once with credentials
                self.assertIn('username="100"', again.first(answers) or "")
                self.reply(code, "Wrong", **challenge)
                self.assertEqual([line for line in self.wire.take() if method in line], [])
                self.stack.session.bye()
                self.nothing_left()

    def test_challenged_too_late(self) -> None:
        """A re-INVITE that is challenged after we hung up is not sent again."""
        self.answered(KNOWS)
        self.stack.session.authorizer = Authorizer("100", "secret", CountingTokens())
        self.sent_at(900)
        reinvite = list(self.wire.sent)
        self.stack.session.bye()
        self.wire.sent = reinvite
        self.reply(401, "Who?", www_authenticate='Digest realm="pbx", nonce="n1"')
        self.assertEqual([line for line in self.wire.take() if "INVITE" in line], [])
        self.nothing_left()

    def test_nobody_to_ask(self) -> None:
        """A challenge is a refusal where we have no credentials, and of a living PBX all the same."""
        self.answered(UPDATES)
        self.sent_at(900)
        self.reply(401, "Who?", www_authenticate='Digest realm="pbx", nonce="n1"')
        self.assertEqual(self.at(1800), ["UPDATE sip:pbx@192.0.2.10:5060 SIP/2.0"])

    def test_bad_contact(self) -> None:
        """A 200 with a Contact of no use leaves the target as it was."""
        self.answered(UPDATES)
        self.sent_at(900)
        self.reply(200, contact="*")
        self.assertEqual(self.at(1800), ["UPDATE sip:pbx@192.0.2.10:5060 SIP/2.0"])


class WeCall(Case):
    """Our INVITE was accepted."""

    def up(self, headers: str, expires: int = 1800) -> Session:
        self.stack.expires = expires
        invite = read(request("INVITE", 7, body=OFFER))
        assert isinstance(invite, Request)
        lines = f"Contact: <sip:200@192.0.2.10>\r\n{headers}"
        response = read(
            b"SIP/2.0 200 OK\r\n" + request("INVITE", 7, contact="", to_tag="them", headers=lines).split(b"\r\n", 1)[1]
        )
        assert isinstance(response, Response)
        means = Means(self.clock, self.stack.tokens, self.stack.transactions, self.stack.sessions, expires)
        session = Session(means, Dialog.called(invite, response), FLOW, "192.0.2.10", "sip:bot@192.0.2.1:5060")
        session.listener = self.stack.listener
        session.confirmed(response, OFFER)
        return session

    def test_what_they_grant(self) -> None:
        """The 2xx says who refreshes; without a word we do, and never when we want no timer."""
        for headers, expires, due, line in (
            ("Session-Expires: 600;refresher=uac\r\n", 1800, 300, "INVITE"),
            ("Session-Expires: 600;refresher=uas\r\n", 1800, 568, "BYE"),
            ("Session-Expires: 600\r\n", 1800, 300, "INVITE"),
            (f"{UPDATES}Session-Expires: 600\r\n", 1800, 300, "UPDATE"),
            ("Session-Expires: 5;refresher=uas\r\n", 1800, 60, "BYE"),
            ("Session-Expires: often\r\n", 1800, 900, "INVITE"),
            ("", 1800, 900, "INVITE"),
        ):
            self.setUp()
            self.up(headers, expires)
            self.assertEqual(self.at(due), [f"{line} sip:200@192.0.2.10 SIP/2.0"])
        self.setUp()
        session = self.up("", 0)
        self.clock.advance(7200)
        self.assertEqual(self.wire.take(), [])
        session.bye()
        self.nothing_left()

    def test_their_offer(self) -> None:
        """A re-INVITE of ours repeats the offer of our INVITE."""
        self.up("")
        self.assertEqual(self.sent_at(900).body, OFFER)

    def test_asked(self) -> None:
        """What an INVITE of ours asks for; after a 422 it is what they want, once."""
        clock = Clock()
        lasting = Lasting(clock, CountingTokens(), 1800, True, lambda: None, lambda: None)
        self.assertEqual(lasting.asked(), [("Session-Expires", "1800"), ("Min-SE", "90")])
        too_small = Response(422)
        too_small.set("min-se", "3600")
        self.assertTrue(lasting.raised(too_small))
        self.assertFalse(lasting.raised(too_small))
        self.assertFalse(lasting.raised(Response(422)))
        self.assertEqual(lasting.asked(), [("Session-Expires", "3600"), ("Min-SE", "3600")])
        self.assertEqual(Lasting(clock, CountingTokens(), 0, True, lambda: None, lambda: None).asked(), [])


class Chance:
    """Tokens whose bits are these."""

    def __init__(self, bits: int) -> None:
        self._bits = bits

    def text(self, length: int) -> str:
        return "0" * length

    def bits(self, count: int) -> int:
        return self._bits


class Glare(SynchronousTestCase):
    def test_waits(self) -> None:
        """After 491 the caller waits 2.1 to 4 s and the called 0 to 2 s, in steps of 10 ms (RFC 3261 14.1)."""
        for caller, chance, wait in (
            (True, 0, 2.1), (True, 190, 4.0), (True, 191, 2.1), (False, 0, 0.0), (False, 200, 2.0), (False, 5, 0.05),
        ):  # fmt: skip
            clock = Clock()
            lasting = Lasting(clock, Chance(chance), 1800, caller, lambda: None, lambda: None)
            lasting.confirmed(Response(200))
            lasting.refused(Response(491))
            self.assertEqual(min(call.getTime() for call in clock.getDelayedCalls()), wait)
            lasting.stop()
            lasting.refused(Response(488))
            self.assertEqual(clock.getDelayedCalls(), [])
