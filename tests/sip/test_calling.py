"""Calls that we make, as the PBX sees them on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed
from extenbot.interfaces import Flow
from extenbot.sip.calling import Calling
from extenbot.sip.digest import Challenger
from extenbot.sip.grammar import header_name
from extenbot.sip.message import Request, Response, answer, read, write
from extenbot.sip.session import Means, Session
from extenbot.sip.transaction import ServerTransaction, Transactions
from extenbot.sip.uri import callee
from extenbot.sip.way import Way
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.sip.wire import ANSWER, FLOW, OFFER, PBX, US, Listener, Recorder, Switch, Wire, stack

WAY = Way(
    flow=FLOW,
    routes=("<sip:192.0.2.10;lr>",),
    local="sip:bot@pbx.example",
    contact="sip:x7f@192.0.2.1:5060",
    domain="pbx.example",
    username="bot",
    password="secret",
)
MEAN = 'a1é\r\n\t\0\x0b\u2028\x85"\\\\<>;,:@%? '
CHALLENGE = 'Digest realm="pbx", nonce="{}", qop="auth", algorithm=MD5'
TAG = "phone"


class Told:
    """A `CallingListener` that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.session: Session | None = None
        self.hang_up = False

    def progressed(self, code: int, words: str, sdp: bytes) -> None:
        self.told.append(("progressed", code, sdp))

    def answered(self, session: Session, sdp: bytes) -> None:
        self.told.append(("answered", sdp))
        self.session = session
        session.listener = Listener()
        if self.hang_up:
            session.bye()

    def failed(self, code: int, words: str) -> None:
        self.told.append(("failed", code, words))


class Caller(SynchronousTestCase):
    """A stack that calls, and a PBX that says what the test says."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Recorder(self.clock)
        self.stack = stack(self.clock, self.wire)
        self.means = Means(self.clock, self.stack.tokens, self.stack.transactions, self.stack.sessions)
        self.told = Told()
        self.invite: Request
        self.seen: list[Request] = []

    def call(self, target: str = "100", way: Way = WAY, sdp: bytes = OFFER, **more: Any) -> Calling:
        calling = Calling(self.means, way, target, sdp, self.told, **more)
        self.look()
        return calling

    def look(self) -> list[str]:
        """The requests sent since the last time, as `METHOD CSeq`; the last INVITE is noted."""
        found = [message for message in self.wire.messages() if isinstance(message, Request)]
        self.seen += found
        for message in found:
            if message.method == "INVITE":
                self.invite = message
        return [f"{message.method} {message.cseq.number - self.first}" for message in found]

    @property
    def first(self) -> int:
        """The CSeq of the first INVITE, less one."""
        return self.seen[0].cseq.number - 1

    def last(self, method: str) -> Request:
        return [message for message in self.seen if message.method == method][-1]

    def says(
        self,
        code: int,
        *headers: tuple[str, str],
        tag: str = TAG,
        sdp: bytes = b"",
        contact: str = "<sip:100@192.0.2.10>",
        to: Request | None = None,
        kind: str = "application/sdp",
        flow: Flow = FLOW,
    ) -> list[str]:
        """The PBX answers our last INVITE (or another request); what we send then."""
        more = [("Contact", contact)] if contact and 100 < code < 300 else []
        response = answer(to or self.invite, code, "", [*more, *headers], sdp, kind, tag if code > 100 else "")
        self.stack.transactions.received(write(response), flow)
        return self.look()

    def asks(self, method: str, number: int, tag: str = TAG, headers: str = "", body: bytes = b"") -> Response:
        """The PBX sends a request within a dialog; our answer."""
        invite = self.invite
        kind = "Content-Type: application/sdp\r\n" if body else ""
        data = (
            f"{method} {WAY.contact} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK{method}{number}{tag};rport\r\n"
            f"From: {invite.first('to')};tag={tag}\r\nTo: {invite.first('from')}\r\nCall-ID: {invite.call_id}\r\n"
            f"CSeq: {number} {method}\r\n{headers}{kind}Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.stack.transactions.received(data, FLOW)
        response = read(self.wire.sent.pop()[1])
        assert isinstance(response, Response)
        return response

    def nothing_left(self) -> None:
        """Everything is released when all transactions have run out."""
        if self.told.session:
            self.told.session.bye()
        self.clock.pump([0.5] * 200)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((len(self.stack.sessions), self.stack.transactions._calls), (0, {}))
        ends = [what for what, *_ in self.told.told if what != "progressed"]
        self.assertEqual(len(ends), 1, self.told.told)
        self.assertEqual(self.stack.transactions.counters["fault"], 0)


class Plain(Caller):
    def test_invite(self) -> None:
        """The INVITE has all that a PBX wants to see."""
        calling = self.call("100", display='Bot "7"', headers=[("X-Reason", "reminder"), ("Diversion", "<sip:1@h>")])
        self.assertEqual(
            self.invite.toString().replace(self.invite.via.branch or "", "BRANCH"),
            "INVITE sip:100@pbx.example SIP/2.0\r\n"
            "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=BRANCH;rport\r\n"
            "Route: <sip:192.0.2.10;lr>\r\n"
            "Max-Forwards: 70\r\n"
            'From: "Bot \\"7\\"" <sip:bot@pbx.example>;tag=0000000000000001\r\n'
            "To: <sip:100@pbx.example>\r\n"
            f"Call-ID: {calling.call_id}\r\n"
            "CSeq: 4 INVITE\r\n"
            "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY, UPDATE, PRACK, REGISTER\r\n"
            "Supported: 100rel, norefersub, replaces, timer\r\n"
            "Session-Expires: 1800\r\n"
            "Min-SE: 90\r\n"
            "User-Agent: extenbot\r\n"
            "X-Reason: reminder\r\n"
            "Diversion: <sip:1@h>\r\n"
            "Content-Type: application/sdp\r\n"
            "Contact: <sip:x7f@192.0.2.1:5060>\r\n"
            "Content-Length: 12\r\n\r\n",
        )
        self.assertEqual(self.invite.body, OFFER)

    def test_answered(self) -> None:
        """Ringing and the answer are told; the ACK goes to the Contact by the recorded route, and so does our BYE."""
        self.call()
        self.says(100)
        self.says(180)
        route = ("Record-Route", "<sip:192.0.2.10:5080;lr>, <sip:q;lr>")
        contact = "<sip:100@192.0.2.99:5062>"
        self.assertEqual(self.says(200, route, sdp=ANSWER, contact=contact), ["ACK 1"])
        self.assertEqual(self.told.told, [("progressed", 180, b""), ("answered", ANSWER)])
        ack = self.last("ACK")
        self.assertEqual(str(ack.uri), "sip:100@192.0.2.99:5062")
        self.assertEqual(ack.all("route"), ["<sip:q;lr>", "<sip:192.0.2.10:5080;lr>"])
        self.assertEqual((ack.to.tag, ack.from_.tag), (TAG, self.invite.from_.tag))
        self.assertNotEqual(ack.via.branch, self.invite.via.branch)
        self.nothing_left()
        self.look()
        self.assertEqual(str(self.last("BYE").uri), "sip:100@192.0.2.99:5062")

    def test_answer_again(self) -> None:
        """A copy of the 200 gets the very same ACK once more, and nobody is told again (RFC 3261 13.2.2.4)."""
        self.call()
        for _ in range(3):
            self.assertEqual(self.says(200, sdp=ANSWER), ["ACK 1"])
        first, second, third = (write(ack) for ack in self.seen if ack.method == "ACK")
        self.assertEqual((first, first), (second, third))
        self.clock.advance(31.5)
        self.assertEqual(self.says(200, sdp=ANSWER), ["ACK 1"])
        self.assertEqual(self.told.told, [("answered", ANSWER)])
        self.nothing_left()

    def test_session_timer(self) -> None:
        """The timer that the PBX agreed to runs: at half time we refresh, with the offer that they know (RFC 4028)."""
        self.call()
        self.says(200, ("Session-Expires", "600;refresher=uac"), ("Require", "timer"), sdp=ANSWER)
        self.clock.advance(299)
        self.assertEqual(self.look(), [])
        self.clock.advance(1)
        self.assertEqual(self.look(), ["INVITE 2"])
        self.assertEqual((self.invite.body, self.invite.to.tag), (OFFER, TAG))
        self.assertEqual(self.says(200, ("Session-Expires", "600;refresher=uac"), sdp=ANSWER), ["ACK 2"])
        self.nothing_left()

    def test_no_session_timer(self) -> None:
        """Where the settings want none, none is asked for."""
        self.means = replace(self.means, expires=0)
        self.call()
        self.assertEqual((self.invite.first("session-expires"), self.invite.first("min-se")), (None, None))

    def test_hung_up_at_once(self) -> None:
        """Who does not want the call any more when it is answered may hang up at once."""
        self.told.hang_up = True
        self.call()
        self.assertEqual(self.says(200), ["ACK 1", "BYE 2"])
        self.nothing_left()

    def test_refused(self) -> None:
        """A refusal is acknowledged and told with its words, or the usual ones."""
        for code, words in ((486, "Busy Here"), (603, "Decline"), (500, "Internal Server Error"), (491, None)):
            self.setUp()
            self.call()
            self.says(180)
            self.assertEqual(self.says(code, ("Retry-After", "1")), ["ACK 1"])
            self.assertEqual(self.told.told[1], ("failed", code, words or "Request Pending"))
            self.nothing_left()

    def test_nobody_there(self) -> None:
        """Nobody answers at all: 408 after 32 s."""
        self.call()
        self.clock.pump([0.5] * 64)
        self.assertEqual(self.told.told, [("failed", 408, "Request Timeout")])
        self.nothing_left()

    def test_no_connection(self) -> None:
        """Over TCP nobody listens: 503."""
        self.call(way=replace(WAY, flow=FLOW._replace(transport="TCP")))
        self.wire.lost.pop()()
        self.assertEqual(self.told.told, [("failed", 503, "No Connection")])
        self.nothing_left()

    def test_on_its_connection(self) -> None:
        """Over TCP the ACK and the BYE go on the connection that the answer came on."""
        self.call(way=replace(WAY, flow=Flow("TCP", ("192.0.2.1", 0), PBX)))
        connection = Flow("TCP", ("192.0.2.1", 40000), PBX)
        self.stack.transactions.received(
            write(answer(self.invite, 200, to_tag=TAG, headers=[("Contact", "<sip:h>")])), connection
        )
        flows = [flow for _, _, flow in self.wire.sent]
        self.assertEqual([(flow.transport, flow.local, flow.remote) for flow in flows], [connection[:3]])
        self.nothing_left()

    def test_too_large_for_a_datagram(self) -> None:
        """A large INVITE goes over TCP; within the call UDP is good again."""
        self.call(sdp=b"x" * 1300)
        self.assertEqual(self.invite.via.transport, "TCP")
        response = answer(self.invite, 200, to_tag=TAG, headers=[("Contact", "<sip:100@192.0.2.10>")])
        self.stack.transactions.received(write(response), Flow("TCP", ("192.0.2.1", 40000), PBX))
        self.assertEqual([flow for _, _, flow in self.wire.sent], [FLOW])
        self.nothing_left()

    def test_early_media(self) -> None:
        """The SDP of a 183 is told, also when another body comes; it stands for a 200 that has none."""
        self.call()
        self.says(183, sdp=ANSWER)
        self.says(183, sdp=b"<x/>", kind="text/xml")
        self.says(200)
        self.assertEqual(self.told.told, [("progressed", 183, ANSWER), ("progressed", 183, b""), ("answered", ANSWER)])
        self.nothing_left()

    def test_answer_without_sdp(self) -> None:
        """What the answer lacks the caller sees: it decides."""
        for body, kind in ((b"", ""), (b"hi", "text/plain")):
            self.setUp()
            self.call()
            self.says(200, sdp=body, kind=kind)
            self.assertEqual(self.told.told, [("answered", b"")])
            self.nothing_left()

    def test_answer_without_contact(self) -> None:
        """A 200 that nothing can be sent to is acknowledged and ended where the INVITE went: a failure."""
        for contact, tag in (("", TAG), ("<tel:1>", TAG), ("<sip:100@192.0.2.10>", "")):
            self.setUp()
            self.call()
            self.assertEqual(self.says(200, contact=contact, tag=tag), ["ACK 1", "BYE 2"])
            self.assertEqual((self.last("BYE").uri, self.last("BYE").all("route")), (self.invite.uri, list(WAY.routes)))
            self.assertEqual([told[:2] for told in self.told.told], [("failed", 502)])
            self.assertEqual(self.says(200, contact=contact, tag=tag), ["ACK 1"])
            self.nothing_left()


class Typed(Caller):
    """What people type."""

    def test_targets(self) -> None:
        """Numbers and tel URIs become addresses at the PBX, other addresses are called as they are."""
        for target, uri in (
            ("100", "sip:100@pbx.example"),
            (" +1 (212) 555-0100 ", "sip:+12125550100@pbx.example"),
            ("212.555.0100", "sip:2125550100@pbx.example"),
            ("192.0.2.1", "sip:192.0.2.1@pbx.example"),
            ("tel:+1-212-555.0100;ext=7", "sip:+12125550100@pbx.example"),
            ("*98#", "sip:*98%23@pbx.example"),
            ("alice", "sip:alice@pbx.example"),
            ("sip:a@h;user=phone", "sip:a@h;user=phone"),
            ("sip:a@h;method=BYE", "sip:a@h"),
        ):
            self.setUp()
            self.call(target)
            self.assertEqual((str(self.invite.uri), self.invite.first("to")), (uri, f"<{uri}>"))
            self.says(486)
            self.nothing_left()

    def test_domain(self) -> None:
        """The domain may have a port and parameters, as the Contact of a PBX has."""
        self.assertEqual(str(callee("100", "192.0.2.10:5070;line=x")), "sip:100@192.0.2.10:5070;line=x")
        self.assertEqual(str(callee("100", "[2001:db8::1]")), "sip:100@[2001:db8::1]")

    def test_no_targets(self) -> None:
        """What is no number and no SIP address is refused with a sentence, and nothing is sent."""
        for target in (
            "", "two words", "sip:", "sip:a@h\r\nX: y", "100\r\nX: y", "sip:a@h>;evil", "https://h", "mailto:a@h",
            "sips:a@h", "sip:a@h?Route=%3Csip:evil%3E", "tel:-", "(", "sip:a@h:0", "sip:a b@h", "\u0661\u0662",
        ):  # fmt: skip
            self.assertRaises(Malformed, Calling, self.means, WAY, target, OFFER, self.told)
        self.assertEqual((self.wire.sent, self.clock.getDelayedCalls(), self.told.told), ([], [], []))

    def test_sips(self) -> None:
        """A sips address is called over TLS, and our own is one then (RFC 3261 8.1.1.8); so is a redirection to one."""
        way = replace(WAY, flow=FLOW._replace(transport="TLS"), contact="sip:x@192.0.2.1:5061;transport=tls")
        self.call("sips:a@h", way)
        self.assertEqual((str(self.invite.uri), self.invite.first("contact")), ("sips:a@h", "<sips:x@192.0.2.1:5061>"))
        self.call("100", way)
        self.assertEqual(self.invite.first("contact"), f"<{way.contact}>")
        self.says(302, ("Contact", "<sips:b@h>"), contact="")
        self.assertEqual((str(self.invite.uri), self.invite.first("contact")), ("sips:b@h", "<sips:x@192.0.2.1:5061>"))

    def test_no_injection(self) -> None:
        """Neither a name nor a header that was typed in can hold a second header, or one that is ours."""
        wrong: tuple[dict[str, Any], ...] = (
            {"display": "a\r\nX: y"},
            {"caller": "1\r\nX: y"},
            *({"headers": [header]} for header in (
                ("X-A", "1\r\nX-B: 2"), ("X-A", "1\n"), ("X-A\r\nX-B", "1"), ("X A", "1"), ("", "1"), ("X-A", "\0"),
                ("Via", "x"), ("v", "x"), ("From", "x"), ("ROUTE", "x"), ("Contact", "x"), ("m", "x"),
                ("Authorization", "x"), ("Require", "x"), ("Content-Length", "9"), ("x", "90"),
            )),
        )  # fmt: skip
        for more in wrong:
            self.assertRaises(Malformed, Calling, self.means, WAY, "100", OFFER, self.told, **more)
        calling = self.call()
        self.assertRaises(Malformed, calling.cancel, [("Reason", "x\r\nVia: y")])
        self.assertEqual(self.wire.sent, [])
        self.says(200)
        self.nothing_left()

    @settings(max_examples=400, deadline=None)
    @given(
        st.sampled_from(["100", "sip:a@h"])
        | st.text(MEAN, max_size=20)
        | st.from_regex(r"(sips?|tel):[ -~\r\n]{0,30}"),
        st.text(MEAN, max_size=8),
        st.sampled_from(["", "100"]) | st.text(MEAN, max_size=8),
        st.lists(st.tuples(st.just("X-A") | st.text(MEAN, max_size=8), st.text(MEAN, max_size=8)), max_size=2),
    )
    def test_whatever_is_typed(self, target: str, display: str, caller: str, headers: list[tuple[str, str]]) -> None:
        """It is refused with a sentence, or what is sent can be read and has the headers that it should have."""
        self.setUp()
        try:
            Calling(self.means, WAY, target, OFFER, self.told, display=display, caller=caller, headers=headers)
        except Malformed as error:
            self.assertTrue(str(error))
            self.assertEqual((self.wire.sent, self.clock.getDelayedCalls()), ([], []))
            return
        [sent] = self.wire.messages()
        assert isinstance(sent, Request)
        names = [
            "via",
            "route",
            "max-forwards",
            "from",
            "to",
            "call-id",
            "cseq",
            "allow",
            "supported",
            "session-expires",
        ]
        names += ["min-se", "user-agent", *(["p-asserted-identity"] if caller else []), *(name for name, _ in headers)]
        names += ["content-type", "contact"]
        self.assertEqual(list(sent.headers), list(dict.fromkeys(header_name(name) for name in names)))
        self.assertEqual((sent.method, sent.body, sent.from_.uri.user), ("INVITE", OFFER, "bot"))
        self.assertEqual((sent.to.uri, sent.from_.display), (sent.uri, display.strip()))
        for name, value in headers:
            self.assertIn(value.strip(" \t"), sent.all(name))

    def test_caller(self) -> None:
        """The number of somebody for whom the bot calls is shown where the PBX believes us (RFC 3325)."""
        self.call(caller="+1-212-555-0100", display="Ann")
        self.assertEqual(self.invite.first("p-asserted-identity"), '"Ann" <sip:+12125550100@pbx.example>')
        self.assertEqual(self.invite.from_.uri.user, "bot")


class Challenged(Caller):
    def challenge(
        self, nonce: str, *more: str, code: int = 401, realm: str = "pbx"
    ) -> tuple[int, Sequence[tuple[str, str]]]:
        name = "WWW-Authenticate" if code == 401 else "Proxy-Authenticate"
        text = CHALLENGE.format(nonce).replace('"pbx"', f'"{realm}"')
        return code, [(name, ", ".join([text, *more]))]

    def test_credentials(self) -> None:
        """Challenged by a proxy and by the PBX: each time CSeq and branch are new, all else the same."""
        self.call()
        first = self.invite
        code, headers = self.challenge("n1", code=407, realm="proxy")
        self.assertEqual(self.says(code, *headers, tag="t1"), ["ACK 1", "INVITE 2"])
        second = self.invite
        code, headers = self.challenge("n2")
        self.assertEqual(self.says(code, *headers, tag="t2"), ["ACK 2", "INVITE 3"])
        third = self.invite
        self.assertEqual(len({invite.via.branch for invite in (first, second, third)}), 3)
        for name in ("from", "to", "call-id", "contact", "route", "supported"):
            self.assertEqual(first.all(name), third.all(name))
        self.assertEqual((first.body, third.body), (OFFER, OFFER))
        self.assertIn('realm="proxy"', second.first("proxy-authorization") or "")
        self.assertIn("nc=00000002", third.first("proxy-authorization") or "")
        self.assertIn("nc=00000001", third.first("authorization") or "")
        self.assertEqual(self.says(200), ["ACK 3"])
        ack = self.last("ACK")
        for name in ("authorization", "proxy-authorization"):  # RFC 3261 22.1
            self.assertEqual(ack.all(name), third.all(name))
        assert self.told.session
        self.told.session.bye()
        self.look()
        self.assertIn("nc=00000002", self.last("BYE").first("authorization") or "")
        code, headers = self.challenge("n3")
        self.assertEqual(self.says(code, *headers, to=self.last("BYE")), ["BYE 5"])
        self.says(200, to=self.last("BYE"))
        self.nothing_left()

    def test_wrong_password(self) -> None:
        """Fresh credentials that are refused are not sent again."""
        self.call()
        code, headers = self.challenge("n1")
        self.says(code, *headers)
        code, headers = self.challenge("n2")
        self.assertEqual(self.says(code, *headers), ["ACK 2"])
        self.assertEqual(self.told.told, [("failed", 401, "Unauthorized")])
        self.nothing_left()

    def test_stale(self) -> None:
        """A nonce that was too old is replaced, to a bound."""
        self.call()
        sent = 1
        for number in range(30):
            code, headers = self.challenge(f"n{number}", "stale=true")
            sent += len(self.says(code, *headers)) - 1
            if self.told.told:
                break
        self.assertEqual((sent, self.told.told), (12, [("failed", 401, "Unauthorized")]))
        self.nothing_left()

    def test_not_to_be_met(self) -> None:
        """A challenge that we cannot meet is the end."""
        self.call()
        self.assertEqual(self.says(401, ("WWW-Authenticate", 'Digest realm="a", nonce="n", algorithm=X')), ["ACK 1"])
        self.assertEqual(self.told.told, [("failed", 401, "Unauthorized")])
        self.nothing_left()


class Mended(Caller):
    def test_longer_interval(self) -> None:
        """422: once more with the interval that is asked for, and not a second time (RFC 4028 7.3)."""
        self.call()
        self.assertEqual(self.says(422, ("Min-SE", "3600")), ["ACK 1", "INVITE 2"])
        self.assertEqual((self.invite.first("session-expires"), self.invite.first("min-se")), ("3600", "3600"))
        self.assertEqual(self.says(422, ("Min-SE", "7200")), ["ACK 2"])
        self.assertEqual(self.told.told, [("failed", 422, "Session Interval Too Small")])
        self.nothing_left()

    def test_senseless_interval(self) -> None:
        """422 for an interval that we keep already, or that makes no sense, is a refusal."""
        for least in ("90", "1800", "x", "", "99999999"):
            self.setUp()
            self.call()
            self.assertEqual(self.says(422, ("Min-SE", least)), ["ACK 1"], least)
            self.nothing_left()

    def test_extension_required(self) -> None:
        """421: what we can do anyway is promised for certain, once; what we cannot do is the end."""
        self.call()
        self.assertEqual(self.says(421, ("Require", "100rel")), ["ACK 1", "INVITE 2"])
        self.assertEqual(self.invite.first("require"), "100rel")
        self.assertEqual(self.says(421, ("Require", "timer")), ["ACK 2"])
        self.nothing_left()
        for tags in ("foo", "100rel, foo", ""):
            self.setUp()
            self.call()
            self.assertEqual(self.says(421, ("Require", tags)), ["ACK 1"])
            self.nothing_left()


class Redirected(Caller):
    def moved(self, *contacts: str, code: int = 302) -> list[str]:
        return self.says(code, *(("Contact", contact) for contact in contacts))

    def test_followed(self) -> None:
        """The best address first, then the others; each by our own way, with the same Call-ID and To."""
        first = self.call()
        self.assertEqual(
            self.moved("<sip:b@h>;q=0.3", "<sip:a@203.0.113.66:9>;q=0.9", "<tel:+1-22>;q=0.5"), ["ACK 1", "INVITE 2"]
        )
        self.assertEqual((str(self.invite.uri), self.invite.call_id), ("sip:a@203.0.113.66:9", first.call_id))
        self.assertEqual(self.invite.first("to"), "<sip:100@pbx.example>")
        self.assertEqual(self.invite.all("route"), list(WAY.routes))
        self.assertEqual(self.says(486), ["ACK 2", "INVITE 3"])
        self.assertEqual(str(self.invite.uri), "sip:+122@pbx.example")
        self.assertEqual(self.says(404), ["ACK 3", "INVITE 4"])
        self.assertEqual(str(self.invite.uri), "sip:b@h")
        self.says(200)
        self.assertEqual(self.told.told, [("answered", b"")])
        self.nothing_left()

    def test_only_our_way(self) -> None:
        """Wherever we are redirected, every byte goes to our PBX."""
        self.call()
        response = answer(self.invite, 302, to_tag=TAG, headers=[("Contact", "<sip:a@203.0.113.66:9>")])
        self.stack.transactions.received(write(response), FLOW)
        self.assertEqual({flow.remote for _, _, flow in self.wire.sent}, {PBX})

    def test_limit(self) -> None:
        """Five addresses are asked, not one more."""
        self.call()
        for number in range(10):
            self.moved(f"<sip:{number}@h>", f"<sip:other{number}@h>")
        self.assertEqual(len({str(message.uri) for message in self.seen if message.method == "INVITE"}), 5)
        self.assertEqual(self.told.told, [("failed", 302, "Moved Temporarily")])
        self.nothing_left()

    def test_loop(self) -> None:
        """Whom we have asked already is not asked again."""
        self.call()
        self.assertEqual(self.moved("<sip:a@h>", code=301), ["ACK 1", "INVITE 2"])
        self.assertEqual(self.moved("<sip:100@PBX.example>", "<sip:a@H>", code=300), ["ACK 2"])
        self.assertEqual(self.told.told, [("failed", 300, "Multiple Choices")])
        self.nothing_left()

    def test_nowhere(self) -> None:
        """A redirection to what cannot be called is a refusal."""
        for contact in ("<mailto:a@h>", "<sips:a@h>", "*", "<sip:>", ""):
            self.setUp()
            self.call()
            self.assertEqual(self.moved(*([contact] if contact else []), code=305), ["ACK 1"])
            self.assertEqual(self.told.told, [("failed", 305, "Use Proxy")])
            self.nothing_left()

    def test_headers_are_left_out(self) -> None:
        """A redirection cannot put headers or another method into our INVITE."""
        self.call()
        self.moved("<sip:a@h;method=BYE?Route=%3Csip:evil%3E>", code=380)
        self.assertEqual((str(self.invite.uri), self.invite.method), ("sip:a@h", "INVITE"))

    def test_declined_everywhere(self) -> None:
        """A 6xx is for all addresses (RFC 3261 21.6)."""
        self.call()
        self.moved("<sip:a@h>", "<sip:b@h>")
        self.assertEqual(self.says(603), ["ACK 2"])
        self.assertEqual(self.told.told, [("failed", 603, "Decline")])
        self.nothing_left()


class Cancelled(Caller):
    def test_while_ringing(self) -> None:
        """CANCEL, 487, ACK, and it has failed with 487."""
        calling = self.call()
        self.says(180)
        calling.cancel([("Reason", 'SIP;cause=200;text="Call completed elsewhere"')])
        calling.cancel()
        self.assertEqual(self.look(), ["CANCEL 1"])
        self.assertEqual(self.last("CANCEL").first("reason"), 'SIP;cause=200;text="Call completed elsewhere"')
        self.assertEqual(self.says(200, to=self.last("CANCEL")), [])
        self.assertEqual(self.told.told, [("progressed", 180, b"")])
        self.assertEqual(self.says(487), ["ACK 1"])
        self.assertEqual(self.told.told[1:], [("failed", 487, "Cancelled")])
        self.nothing_left()

    def test_at_the_first_ring(self) -> None:
        """Who hears that it rings may call it off on the spot."""
        calling = self.call()
        self.told.progressed = lambda *_: calling.cancel()  # type: ignore[method-assign]
        self.assertEqual(self.says(180), ["CANCEL 1"])
        self.says(487)
        self.assertEqual(self.told.told, [("failed", 487, "Cancelled")])
        self.nothing_left()

    def test_before_anything(self) -> None:
        """CANCEL waits for the first provisional response (RFC 3261 9.1)."""
        self.call().cancel()
        self.assertEqual(self.look(), [])
        self.assertEqual(self.says(100), ["CANCEL 1"])
        self.says(487)
        self.nothing_left()

    def test_answered_meanwhile(self) -> None:
        """The 200 was quicker: it is acknowledged and hung up, and the caller hears 487."""
        for early in (True, False):
            self.setUp()
            calling = self.call()
            if early:
                self.says(180)
            calling.cancel()
            self.look()
            self.assertEqual(self.says(200), ["ACK 1", "BYE 2"])
            self.assertEqual(self.told.told[-1], ("failed", 487, "Cancelled"))
            self.assertEqual(self.says(200), ["ACK 1"])
            self.nothing_left()

    def test_challenged_meanwhile(self) -> None:
        """After CANCEL no challenge and no redirection is followed."""
        for code, header in (
            (401, ("WWW-Authenticate", CHALLENGE.format("n"))),
            (302, ("Contact", "<sip:a@h>")),
            (422, ("Min-SE", "3600")),
        ):
            self.setUp()
            self.call().cancel()
            self.assertEqual(self.says(code, header), ["ACK 1"])
            self.assertEqual(self.told.told, [("failed", 487, "Cancelled")])
            self.nothing_left()

    def test_no_outcome(self) -> None:
        """When nobody says what became of it, it has failed 32 s after CANCEL; a late answer is ended."""
        calling = self.call()
        self.says(180)
        calling.cancel()
        self.clock.pump([0.5] * 64)
        self.look()
        self.assertEqual(self.told.told[1:], [("failed", 487, "Cancelled")])
        self.assertEqual(self.says(200), ["ACK 1", "BYE 2"])
        self.nothing_left()

    def test_nobody_there(self) -> None:
        """Nobody answers and it was cancelled: 487, too."""
        self.call().cancel()
        self.clock.pump([0.5] * 64)
        self.assertEqual(self.told.told, [("failed", 487, "Cancelled")])
        self.nothing_left()

    def test_patience(self) -> None:
        """It rings too long: CANCEL, and 408 with words."""
        self.call(patience=20)
        self.says(180)
        self.clock.pump([0.125] * 159)
        self.assertEqual(self.look(), [])
        self.clock.advance(0.125)
        self.assertEqual(self.look(), ["CANCEL 1"])
        self.says(487)
        self.assertEqual(self.told.told[1:], [("failed", 408, "Nobody answered in time")])
        self.nothing_left()

    def test_too_late(self) -> None:
        """After the answer CANCEL does nothing: there is a session to hang up."""
        calling = self.call()
        self.says(200)
        calling.cancel()
        self.assertEqual((self.look(), self.told.told), ([], [("answered", b"")]))
        self.nothing_left()


class Forked(Caller):
    def test_first_answer_wins(self) -> None:
        """Several ring, two take it: the first has the call, the other gets ACK and BYE, each by its own dialog."""
        self.call()
        for tag in ("a", "b", "c"):
            self.says(180, tag=tag, sdp=tag.encode(), contact=f"<sip:{tag}@192.0.2.10>")
        self.assertEqual(len(self.stack.sessions), 3)
        self.assertEqual(self.says(200, tag="b", sdp=ANSWER, contact="<sip:b@192.0.2.10>"), ["ACK 1"])
        self.assertEqual(self.says(200, tag="a", sdp=OFFER, contact="<sip:a@192.0.2.10>"), ["ACK 1", "BYE 2"])
        self.assertEqual((str(self.last("BYE").uri), self.last("BYE").to.tag), ("sip:a@192.0.2.10", "a"))
        self.assertEqual(self.says(200, tag="a", contact="<sip:a@192.0.2.10>"), ["ACK 1"])
        self.assertEqual(self.last("ACK").to.tag, "a")
        self.assertEqual(self.asks("BYE", 1, "a").code, 200)  # it may cross ours
        self.clock.advance(30)
        self.look()
        self.assertEqual(self.says(200, tag="late", contact="<sip:d@192.0.2.10>"), ["ACK 1", "BYE 2"])
        self.assertEqual(
            self.told.told, [*(("progressed", 180, tag.encode()) for tag in ("a", "b", "c")), ("answered", ANSWER)]
        )
        assert self.told.session
        self.assertEqual(self.told.session.dialog.remote_tag, "b")
        self.nothing_left()

    def test_late_answer(self) -> None:
        """A 2xx that comes after a refusal or on an INVITE of before is ended, and the attempt goes on."""
        self.call()
        first = self.invite
        self.says(401, ("WWW-Authenticate", CHALLENGE.format("n")))
        self.assertEqual(self.says(200, to=first), ["ACK 1", "BYE 2"])
        self.assertEqual(self.told.told, [])
        self.says(486)
        self.assertEqual(self.says(200, tag="late"), ["ACK 2", "BYE 3"])
        self.assertEqual(self.told.told, [("failed", 486, "Busy Here")])
        self.nothing_left()

    def test_many_forks(self) -> None:
        """A peer that answers in thousands of names does not fill the memory."""
        self.call()
        for number in range(100):
            self.says(180, tag=f"e{number}")
        self.assertEqual(len(self.stack.sessions), 16)
        sent = [self.says(200, tag=f"w{number}") for number in range(100)]
        self.assertEqual(sum(each == ["ACK 1", "BYE 2"] for each in sent), 15)
        self.assertEqual(self.stack.transactions.counters["too-many-forks"], 84)
        self.nothing_left()

    def test_requests_in_early_dialogs(self) -> None:
        """Whoever rings may send requests already; each belongs to its own dialog."""
        self.call()
        self.says(183, tag="a")
        self.says(183, tag="b")
        self.assertEqual(self.asks("UPDATE", 1, "a").code, 200)
        self.assertEqual(self.asks("INFO", 1, "b").code, 200)
        self.assertEqual(self.asks("UPDATE", 2, "b", body=OFFER).code, 500)
        self.assertEqual(self.asks("INVITE", 3, "b", "Contact: <sip:h>\r\n", OFFER).code, 500)
        self.assertEqual(self.asks("INFO", 1, "stranger").code, 481)
        self.says(200, tag="a")
        self.assertEqual(self.asks("INFO", 2, "a").code, 200)
        self.assertEqual(self.asks("INFO", 4, "b").code, 481)
        self.nothing_left()

    def test_hung_up_before_the_answer(self) -> None:
        """A BYE that overtakes the 200 has ended the call: the 200 is acknowledged, and that is all."""
        self.call()
        self.says(180)
        self.assertEqual(self.asks("BYE", 1).code, 200)
        self.assertEqual(self.says(200, sdp=ANSWER), ["ACK 1"])
        self.assertEqual(self.told.told[1:], [("failed", 502, "It was hung up at once")])
        self.nothing_left()


class Reliable(Caller):
    def reliable(self, number: int, code: int = 183, tag: str = TAG, sdp: bytes = b"") -> list[str]:
        return self.says(code, ("Require", "100rel"), ("RSeq", str(number)), tag=tag, sdp=sdp)

    def test_prack(self) -> None:
        """Each reliable provisional response gets its PRACK in order; copies and gaps are ignored (RFC 3262 4)."""
        self.call()
        self.assertEqual(self.reliable(7, sdp=ANSWER), ["PRACK 2"])
        prack, number = self.last("PRACK"), self.invite.cseq.number
        self.assertEqual((prack.first("rack"), prack.to.tag), (f"7 {number} INVITE", TAG))
        self.assertEqual(str(prack.uri), "sip:100@192.0.2.10")
        self.says(200, to=prack)
        self.assertEqual(self.reliable(7, sdp=ANSWER), [])
        self.assertEqual(self.reliable(9, 180), [])
        self.assertEqual(self.reliable(8, 180), ["PRACK 3"])
        self.says(200, to=self.last("PRACK"))
        self.assertEqual(self.says(200), ["ACK 1"])
        self.assertEqual(self.told.told, [("progressed", 183, ANSWER), ("progressed", 180, b""), ("answered", ANSWER)])
        assert self.told.session
        self.told.session.bye()
        self.assertEqual(self.look(), ["BYE 4"])
        self.nothing_left()

    def test_each_fork_counts(self) -> None:
        """RSeq is of each dialog; an INVITE that follows has a CSeq above all PRACKs."""
        self.call()
        self.assertEqual(self.reliable(1, tag="a"), ["PRACK 2"])
        self.assertEqual(self.reliable(1, tag="b"), ["PRACK 2"])
        self.assertEqual(self.reliable(2, tag="b"), ["PRACK 3"])
        self.assertEqual(self.says(302, ("Contact", "<sip:a@h>"), tag="b"), ["ACK 1", "INVITE 4"])
        self.says(486)
        self.nothing_left()

    def test_refused(self) -> None:
        """A PRACK that is refused is counted, challenged it is sent again; the call goes on."""
        self.call()
        self.reliable(1)
        self.assertEqual(
            self.says(401, ("WWW-Authenticate", CHALLENGE.format("n")), to=self.last("PRACK")), ["PRACK 3"]
        )
        self.says(481, to=self.last("PRACK"))
        self.assertEqual(self.stack.transactions.counters["prack-refused"], 1)
        self.says(200)
        self.nothing_left()

    def test_unreliable_after_all(self) -> None:
        """A reliable response without a proper RSeq cannot be acknowledged and is not looked at."""
        self.call()
        self.assertEqual(self.says(183, ("Require", "100rel"), ("RSeq", "x")), [])
        self.assertEqual(self.says(183, ("Require", "100rel")), [])
        self.assertEqual(self.told.told, [])
        self.says(200)
        self.nothing_left()

    def test_after_cancel(self) -> None:
        """What still comes after CANCEL gets its PRACK, so that nobody repeats it, and is not told."""
        calling = self.call()
        self.says(180)
        calling.cancel()
        self.look()
        self.assertEqual(self.reliable(1), ["PRACK 2"])
        self.says(487)
        self.assertEqual([told[:2] for told in self.told.told], [("progressed", 180), ("failed", 487)])
        self.nothing_left()


STEPS = st.one_of(
    st.tuples(
        st.just("response"),
        st.sampled_from([100, 180, 183, 199, 200, 202, 302, 401, 407, 422, 486, 487, 503, 603]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(-3, -1),  # to which INVITE, from the last one back
        st.sampled_from([0, 0, 1, 2]),  # RSeq; 0: unreliable
    ),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 5.0, 33.0])),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("bye"), st.sampled_from(["a", "b", "c"])),
)


class AnyOrder(Caller):
    @settings(max_examples=300, deadline=None)
    @given(st.lists(STEPS, max_size=14))
    def test_any_order(self, steps: list[tuple[Any, ...]]) -> None:
        """Whatever comes in whatever order: one outcome, every 2xx acknowledged, all but the one call ended."""
        self.setUp()
        calling = self.call(patience=60)
        invites, nonces = [self.invite], count()
        taken: list[tuple[int, str]] = []  # CSeq and tag of each 2xx that was let through
        for step in steps:
            if step[0] == "wait":
                self.clock.advance(step[1])
            elif step[0] == "cancel":
                calling.cancel()
            elif step[0] == "bye":
                self.asks("BYE", 1000 + next(nonces), step[1])
            else:
                _, code, tag, which, number = step
                invite = invites[max(which, -len(invites))]
                strays = self.stack.transactions.counters["stray-response"]
                self.says(code, *self.headers(code, number, next(nonces)), tag=tag, to=invite, sdp=tag.encode())
                if code in (200, 202) and self.stack.transactions.counters["stray-response"] == strays:
                    taken.append((invite.cseq.number, tag))
            self.look()
            invites = list({m.via.branch: m for m in self.seen if m.method == "INVITE"}.values())
        answered = self.told.session
        self.clock.advance(70)
        self.look()
        acks = [(m.cseq.number, m.to.tag) for m in self.seen if m.method == "ACK" and m.via.branch not in
                {invite.via.branch for invite in invites}]  # fmt: skip
        self.assertEqual(sorted(acks), sorted(taken))
        byes = [m.to.tag for m in {m.via.branch: m for m in self.seen if m.method == "BYE"}.values()]
        hung_up = {tag for kind, tag, *_ in (step for step in steps if step[0] == "bye")}
        winner = answered and answered.dialog.remote_tag
        for number, tag in set(taken):
            if tag not in hung_up and (tag != winner or number != invites[-1].cseq.number):
                self.assertIn(tag, byes)
        if answered:
            self.assertFalse(answered.over and winner not in hung_up)
        self.nothing_left()

    def headers(self, code: int, number: int, nonce: int) -> list[tuple[str, str]]:
        if code < 200:
            return [("Require", "100rel"), ("RSeq", str(number))] if number else []
        return {
            302: [("Contact", f"<sip:{nonce}@h>")],
            401: [("WWW-Authenticate", CHALLENGE.format(nonce))],
            407: [("Proxy-Authenticate", CHALLENGE.format(nonce))],
            422: [("Min-SE", "3600")],
        }.get(code, [])


class Guarded(Switch):
    """Wants credentials for every INVITE that begins a call, and for every BYE."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.challenger = Challenger("pbx", clock.seconds, b"key", 300)

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        if request.method == "BYE" or not request.to.tag:
            self.challenger.check(request, transaction.flow.remote[0], {"a": "x"}.get)
        super().requested(request, transaction)


class Wired(SynchronousTestCase):
    """We call ourselves over a wire that loses, delays and repeats."""

    def begin(self, wire: Wire, guarded: bool = False) -> tuple[Calling, Told, Switch, Switch]:
        told, there = Told(), Guarded(wire.clock) if guarded else Switch(wire.clock)
        there.transactions = Transactions(wire.clock, wire.transport(US), CountingTokens(), there)
        here = stack(wire.clock, wire.transport(PBX))
        wire.end(here.transactions, PBX)
        wire.end(there.transactions, US)
        way = Way(Flow("UDP", PBX, US), (), "sip:a@192.0.2.10", "sip:a@192.0.2.10:5060", "192.0.2.1", "a", "x")
        means = Means(wire.clock, here.tokens, here.transactions, here.sessions)
        return Calling(means, way, "bot", OFFER, told), told, here, there

    def test_whole_call(self) -> None:
        """INVITE, ringing, answer, re-INVITE of theirs refused by nobody, and our BYE."""
        wire = Wire(Clock())
        _, told, here, there = self.begin(wire)
        wire.run(0.25)
        there.session.ring()
        wire.run(1)
        there.session.answer(ANSWER)
        wire.run(1)
        assert told.session
        told.session.bye()
        wire.run(40)
        self.assertEqual(
            [line.split("192.0.2.1", 1)[1].removeprefix("0") for line in wire.ladder],
            [
                " --> 192.0.2.1 INVITE sip:bot@192.0.2.1",
                " --> 192.0.2.10 100 Trying",
                " --> 192.0.2.10 180 Ringing",
                " --> 192.0.2.10 200 OK",
                " --> 192.0.2.1 ACK sip:bot@192.0.2.1:5060",
                " --> 192.0.2.1 BYE sip:bot@192.0.2.1:5060",
                " --> 192.0.2.10 200 OK",
            ],
        )
        self.assertEqual(told.told, [("progressed", 180, b""), ("answered", ANSWER)])
        self.assertEqual(there.listener.told, [("acked", b""), ("ended", "caller")])
        self.assertEqual((wire.clock.getDelayedCalls(), len(here.sessions), len(there.sessions)), ([], 0, 0))

    @settings(max_examples=100, deadline=None)
    @given(st.data(), st.sampled_from(["answer", "refuse", "cancel", "cancel and answer", "hang up"]), st.booleans())
    def test_any_wire(self, data: st.DataObject, ending: str, guarded: bool) -> None:
        """Whatever is lost (not all), late or repeated: both sides agree on what became of the call."""
        fates = st.lists(st.sampled_from(["lost", "twice", "late", ""]), min_size=5, max_size=5)
        wire = Wire(Clock())
        fate: dict[int, str] = {}

        def next_five() -> None:
            fate.update(enumerate(data.draw(fates), wire.count))

        wire.lose = lambda n: fate.get(n) == "lost"
        wire.delay = lambda n: 0.75 if fate.get(n) == "late" else 0.125
        wire.repeat = lambda n: fate.get(n) == "twice"
        next_five()
        calling, told, here, there = self.begin(wire, guarded and ending != "hang up")
        wire.run(20)
        there.session.ring()
        wire.run(1)
        next_five()
        if "cancel" in ending:
            calling.cancel()
        if ending == "refuse":
            there.session.refuse(486)
        elif ending != "cancel":
            there.session.answer(ANSWER)
        wire.run(20)
        next_five()
        if ending == "answer":
            assert told.session
            told.session.bye()
        elif ending == "hang up":
            there.session.bye()
        wire.run(150)
        outcome = [each[:2] for each in told.told if each[0] != "progressed"]
        expected = {"refuse": [("failed", 486)], "cancel": [("failed", 487)], "cancel and answer": [("failed", 487)]}
        self.assertEqual(outcome, expected.get(ending, [("answered", ANSWER)]))
        theirs = {
            "answer": [("acked", b""), ("ended", "caller")],
            "refuse": [],
            "cancel": [("cancelled",)],
            "cancel and answer": [("acked", b""), ("ended", "caller")],
            "hang up": [("acked", b"")],
        }
        if ending == "cancel and answer" and there.listener.told[:1] != [("acked", b"")]:
            there.listener.told.insert(0, ("acked", b""))  # our BYE may overtake our ACK
        self.assertEqual(there.listener.told, theirs[ending])
        if told.session:
            assert isinstance(told.session.listener, Listener)
            self.assertEqual(told.session.listener.told, [("ended", "caller")] if ending == "hang up" else [])
        self.assertEqual((wire.clock.getDelayedCalls(), len(here.sessions), len(there.sessions)), ([], 0, 0))
        self.assertEqual((here.transactions.counters["fault"], there.transactions.counters["fault"]), (0, 0))
