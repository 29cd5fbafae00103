"""The transaction layer: what reaches its user, and what it answers by itself."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed, Refused
from extenbot.interfaces import Dial, Flow
from extenbot.sip import transaction
from extenbot.sip.client import ClientInvite
from extenbot.sip.message import Request, Response, answer, write
from extenbot.sip.transaction import ServerTransaction, Transactions
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.sip.wire import FLOW, OFFER, PBX, US, Recorder, request


class User:
    """Notes what reaches it; `raises` is raised from `requested`."""

    def __init__(self) -> None:
        self.got: list[ServerTransaction] = []
        self.acks: list[Request] = []
        self.raises: Exception | None = None

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        self.got.append(transaction)
        if self.raises:
            raise self.raises

    def acknowledged(self, request: Request, flow: Flow) -> None:
        self.acks.append(request)


class Layer(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Recorder(self.clock)
        self.user = User()
        self.layer = Transactions(self.clock, self.wire, CountingTokens(), self.user)

    def received(self, data: bytes, flow: Flow = FLOW) -> list[str]:
        self.layer.received(data, flow)
        return self.wire.take()

    def run_down(self) -> None:
        """Nothing is left when all timers have run."""
        self.clock.pump([0.5] * 140)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.layer._servers, self.layer._clients, self.layer._invites), ({}, {}, {}))
        self.assertEqual(self.layer._calls, {})

    def test_trying(self) -> None:
        """An INVITE gets 100 at once; its copies get the last answer and never reach the user again."""
        self.assertEqual(self.received(request("INVITE")), ["0 SIP/2.0 100 Trying"])
        self.assertEqual(self.received(request("INVITE")), ["0 SIP/2.0 100 Trying"])
        self.user.got[0].answer(180)
        self.assertEqual(self.received(request("INVITE")), ["0 SIP/2.0 180 Ringing"] * 2)
        self.assertEqual(len(self.user.got), 1)

    def test_same_tag(self) -> None:
        """All answers to one request have the same To tag, 100 has none."""
        self.layer.received(request("INVITE"), FLOW)
        self.user.got[0].answer(180)
        self.user.got[0].answer(486)
        tags = [message.to.tag for message in self.wire.messages()]
        self.assertEqual(tags, ["", self.user.got[0].tag, self.user.got[0].tag])
        self.layer.received(request("ACK", branch="INVITE1", to_tag=tags[1]), FLOW)
        self.assertEqual(self.user.acks, [])
        self.run_down()

    def test_ack_with_its_own_branch(self) -> None:
        """Some phones acknowledge a refusal with a new branch: our tag tells what it belongs to."""
        self.layer.received(request("INVITE"), FLOW)
        self.user.got[0].answer(486)
        self.layer.received(request("ACK", branch="other", to_tag=self.user.got[0].tag), FLOW)
        self.wire.take()
        self.clock.pump([0.5] * 20)
        self.assertEqual((self.wire.take(), self.user.acks), ([], []))

    def test_ack_of_2xx(self) -> None:
        """The ACK of a 2xx reaches the user, whatever its branch; the user's own repeats are sent."""
        self.layer.received(request("INVITE"), FLOW)
        invite = self.user.got[0]
        invite.answer(200)
        invite.answer(200)
        self.assertEqual(self.wire.take(), ["0 SIP/2.0 100 Trying", "0 SIP/2.0 200 OK", "0 SIP/2.0 200 OK"])
        for branch in ("new", "INVITE1"):
            self.layer.received(request("ACK", branch=branch, to_tag=invite.tag), FLOW)
        self.assertEqual(len(self.user.acks), 2)
        self.run_down()

    def test_final_is_final(self) -> None:
        """After a final response nothing else is sent."""
        self.layer.received(request("OPTIONS"), FLOW)
        self.user.got[0].answer(200)
        self.user.got[0].answer(500)
        self.assertEqual(self.wire.take(), ["0 SIP/2.0 200 OK"])
        self.run_down()

    def test_cancel(self) -> None:
        """CANCEL gets 200, the INVITE's user is told once, and the INVITE gets 487 if the user leaves it open."""
        self.layer.received(request("INVITE"), FLOW)
        told: list[str] = []
        self.user.got[0].on_cancelled = lambda: told.append("cancelled")
        self.wire.take()
        cancel = request("CANCEL", branch="INVITE1")
        self.assertEqual(self.received(cancel), ["0 SIP/2.0 200 OK", "0 SIP/2.0 487 Request Terminated"])
        self.assertEqual(self.received(cancel), ["0 SIP/2.0 200 OK"])
        self.assertEqual(told, ["cancelled"])

    def test_cancel_too_late(self) -> None:
        """A CANCEL after the answer changes nothing; one for no INVITE gets 481."""
        self.layer.received(request("INVITE"), FLOW)
        self.user.got[0].on_cancelled = lambda: self.fail("too late")
        self.user.got[0].answer(200)
        self.wire.take()
        self.assertEqual(self.received(request("CANCEL", branch="INVITE1")), ["0 SIP/2.0 200 OK"])
        self.assertEqual(
            self.received(request("CANCEL", branch="x")), ["0 SIP/2.0 481 Call/Transaction Does Not Exist"]
        )

    def test_what_the_user_raises(self) -> None:
        """Refused and Remote become their answers, anything else is logged and becomes 500."""
        self.user.raises = Refused(486, "Busy", [("Retry-After", "3")])
        self.layer.received(request("OPTIONS", 1), FLOW)
        self.assertIn(b"SIP/2.0 486 Busy\r\n", self.wire.sent[0][1])
        self.assertIn(b"\r\nRetry-After: 3\r\n", self.wire.sent[0][1])
        self.wire.take()
        self.user.raises = Malformed("What is that")
        self.assertEqual(self.received(request("OPTIONS", 2)), ["0 SIP/2.0 400 What is that"])
        self.user.raises = ZeroDivisionError()
        self.assertEqual(self.received(request("OPTIONS", 3)), ["0 SIP/2.0 500 Internal Server Error"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_challenge(self) -> None:
        """A challenge is sent once and forgotten (RFC 3261 26.3.2.4); a copy of the INVITE gets a new one."""
        self.user.raises = Refused(401, "Unauthorized", [("WWW-Authenticate", "Digest x")])
        for _ in range(2):
            self.assertEqual(self.received(request("INVITE")), ["0 SIP/2.0 401 Unauthorized"])
            self.assertEqual((self.clock.getDelayedCalls(), self.layer._servers), ([], {}))
        self.received(request("ACK", branch="INVITE1", to_tag="x"))
        self.run_down()

    def test_trying_comes_first(self) -> None:
        """Also when the user rings before it returns, 100 comes first; a refusal needs none."""
        self.user.requested = lambda request, transaction: (  # type: ignore[method-assign]
            transaction.answer(180) if request.cseq.number == 1 else transaction.answer(486)
        )
        self.assertEqual(self.received(request("INVITE", 1)), ["0 SIP/2.0 100 Trying", "0 SIP/2.0 180 Ringing"])
        self.assertEqual(self.received(request("INVITE", 2)), ["0 SIP/2.0 486 Busy Here"])

    def test_answer_with_line_break(self) -> None:
        """If our own words held a line break, the answer would be 500, not a forged header."""
        self.user.raises = Refused(403, "No\r\nContact: <sip:evil>")
        self.layer.received(request("OPTIONS"), FLOW)
        self.assertEqual([m.all("contact") for m in self.wire.messages()], [[]])
        self.flushLoggedErrors()

    def test_where_answers_go(self) -> None:
        """With rport to the source, without it to the port of the Via at the source's address (RFC 3581)."""
        source = Flow("UDP", US, ("198.51.100.7", 40000))
        for via, target in (
            ("SIP/2.0/UDP 10.0.0.1:5080;branch=z9hG4bKa;rport", ("198.51.100.7", 40000)),
            ("SIP/2.0/UDP 198.51.100.7:40000;branch=z9hG4bKb;rport", ("198.51.100.7", 40000)),
            ("SIP/2.0/UDP 10.0.0.1:5080;branch=z9hG4bKc", ("198.51.100.7", 5080)),
            ("SIP/2.0/UDP pbx.example;branch=z9hG4bKd", ("198.51.100.7", 5060)),
            ("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKe;maddr=6.6.6.6;received=6.6.6.6", ("198.51.100.7", 5060)),
        ):
            self.layer.received(request("OPTIONS", via=via), source)
            self.user.got[-1].answer(200)
            self.assertEqual(self.wire.sent[-1][2].remote, target, via)
        self.assertIn(b";received=198.51.100.7", self.wire.sent[0][1])
        self.assertIn(b";rport=40000", self.wire.sent[1][1])

    def test_foreign_branch(self) -> None:
        """The same branch from another address is another transaction: nobody can occupy it."""
        self.layer.received(request("OPTIONS"), Flow("UDP", US, ("203.0.113.66", 5060)))
        self.layer.received(request("OPTIONS", call_id="call-2"), FLOW)
        self.assertEqual(len(self.user.got), 2)

    def test_merged(self) -> None:
        """A request that a proxy sent to us twice, by two ways, is served once; the other gets 482 (8.2.2.2)."""
        self.layer.received(request("INVITE"), FLOW)
        self.wire.take()
        for flow in (FLOW, Flow("UDP", US, ("203.0.113.66", 5060))):
            self.assertEqual(self.received(request("INVITE", branch="fork"), flow), ["0 SIP/2.0 482 Merged Request"])
        self.assertEqual(self.received(request("INVITE", 2, branch="fork2")), ["0 SIP/2.0 100 Trying"])
        self.assertEqual(self.received(request("OPTIONS", branch="other")), [])
        self.assertEqual(len(self.user.got), 3)

    def test_strangers_are_answered_once(self) -> None:
        """What a stranger is refused is never repeated by itself; each copy of the request gets the same answer."""
        for number, error in enumerate(
            (Refused(403, "No"), Refused(404, "No"), Malformed("What"), Malformed("x", 416))
        ):
            self.user.raises = error
            for _ in range(2):
                self.layer.received(request("INVITE", number), FLOW)
            first, second = self.wire.messages()
            self.assertEqual((first.to.tag, first), (second.to.tag, second))
            self.assertTrue(first.to.tag)
            self.assertEqual((self.layer._servers, self.clock.getDelayedCalls()), ({}, []))
        self.assertEqual(self.layer._origins, set())
        self.assertEqual(self.layer._of_source, {})

    def test_refused_who_is_known(self) -> None:
        """Who has authenticated gets its refusal until it is acknowledged (timer G)."""

        class Known(User):
            def requested(self, request: Request, transaction: ServerTransaction) -> None:
                transaction.vouched = True
                raise Refused(486, "Busy Here")

        self.layer.user = Known()
        self.assertEqual(self.received(request("INVITE")), ["0 SIP/2.0 486 Busy Here"])
        self.clock.pump([0.5] * 3)
        self.assertEqual(self.wire.take(), ["0.5 SIP/2.0 486 Busy Here", "1.5 SIP/2.0 486 Busy Here"])
        self.run_down()

    def test_answered_at_once(self) -> None:
        """Copies of a request that was answered at once get the same answer for 32 s; then it is a new one."""

        class Known(User):
            def requested(self, request: Request, transaction: ServerTransaction) -> None:
                super().requested(request, transaction)
                transaction.vouched = True
                transaction.answer(200, headers=[("X-Count", str(len(self.got)))])
                transaction.answer(500)

        self.layer.user = user = Known()
        for number in (1, 2):
            self.assertEqual(self.received(request("OPTIONS", number)), ["0 SIP/2.0 200 OK"])
            self.assertEqual(self.layer._servers, {})
        [timer] = self.clock.getDelayedCalls()
        self.clock.advance(31.999)
        self.layer.received(request("OPTIONS"), FLOW)
        [again] = self.wire.messages()
        self.assertEqual((again.first("x-count"), len(user.got)), ("1", 2))
        self.clock.advance(0.001)
        self.assertEqual((timer.active(), len(self.layer._of_source)), (False, 0))
        self.layer.received(request("OPTIONS"), FLOW)
        self.assertEqual(len(user.got), 3)
        with patch.object(transaction, "MOST_OF_ONE", 1):
            self.assertEqual(
                self.received(request("OPTIONS", 9)), ["32 SIP/2.0 200 OK", "32 SIP/2.0 503 Service Unavailable"]
            )
        self.layer.stop()
        self.assertEqual((self.clock.getDelayedCalls(), self.layer._answered, self.layer._of_source), ([], {}, {}))

    def test_one_source(self) -> None:
        """One source cannot fill the table: the next one is still served."""
        with patch.object(transaction, "MOST_OF_ONE", 3):
            for number in range(5):
                self.layer.received(request("INVITE", number), FLOW)
            self.assertEqual(self.layer.counters["overload"], 2)
            self.assertEqual(len(self.user.got), 3)
            self.layer.received(request("INVITE", 9), Flow("UDP", US, ("203.0.113.66", 5060)))
            self.assertEqual(len(self.user.got), 4)

    def test_rfc_2543(self) -> None:
        """Without the magic branch, requests are told apart by their other identifiers (RFC 3261 17.2.3)."""
        via = "SIP/2.0/UDP 192.0.2.10"
        self.layer.received(request("INVITE", via=via), FLOW)
        self.layer.received(request("INVITE", via=via), FLOW)
        self.assertEqual(len(self.user.got), 1)
        self.user.got[0].answer(486)
        self.layer.received(request("ACK", via=via, to_tag=self.user.got[0].tag), FLOW)
        self.assertEqual(self.user.acks, [])
        self.layer.received(request("INVITE", 2, via=via), FLOW)
        self.assertEqual(len(self.user.got), 2)

    def test_answered_here(self) -> None:
        """Unknown schemes, required extensions and unreadable requests never reach the user."""
        for data, line in (
            (request("OPTIONS", uri="nobodyKnowsThisScheme:x"), "416 This URI scheme is not served"),
            (request("OPTIONS", 2, headers="Require: timer, gruu\r\n"), "420 Bad Extension"),
            (request("OPTIONS", 3).replace(b"SIP/2.0\r\nVia", b"SIP/7.0\r\nVia"), "505 Only SIP/2.0 is spoken here"),
            (request("OPTIONS", 4).replace(b"th: 0", b"th: 5"), "400 The message is shorter than its Content-Length"),
        ):
            self.assertEqual(self.received(data), [f"0 SIP/2.0 {line}"])
        self.assertEqual(self.user.got, [])
        self.assertEqual(self.layer.counters["malformed"], 2)

    def test_unsupported_is_named(self) -> None:
        """420 says which extensions (RFC 3261 8.2.2.3)."""
        headers = "Require: 100rel, precondition, Timer\r\nRequire: x\r\n"
        self.layer.received(request("INVITE", headers=headers), FLOW)
        self.assertIn(b"Unsupported: precondition, x\r\n", self.wire.sent[-1][1])

    def test_required_of_a_registrar(self) -> None:
        """A REGISTER may require path and outbound; what else it requires is named alone (RFC 3327, RFC 5626)."""
        self.layer.received(request("REGISTER", headers="Require: path, Outbound\r\n"), FLOW)
        self.assertEqual(len(self.user.got), 1)
        self.layer.received(request("REGISTER", 2, headers="Require: path, gruu\r\n"), FLOW)
        self.assertIn(b"Unsupported: gruu\r\n", self.wire.sent[-1][1])
        self.layer.received(request("OPTIONS", 3, headers="Require: path\r\n"), FLOW)
        self.assertIn(b"Unsupported: path\r\n", self.wire.sent[-1][1])
        self.assertEqual(len(self.user.got), 1)

    def test_dropped(self) -> None:
        """Keep-alives, noise and stray responses are counted and not answered."""
        stray = b"SIP/2.0 200 OK\r\n" + request("BYE").split(b"\r\n", 1)[1]
        for data in (b"\r\n\r\n", b"\0", b"\xff" * 40, b"GET / HTTP/1.1\r\n\r\n", stray):
            self.assertEqual(self.received(data), [])
        self.assertEqual(dict(self.layer.counters), {"keep-alive": 2, "malformed": 2, "stray-response": 1})

    def test_overload(self) -> None:
        """Beyond a bound new requests get 503 and nothing is kept for them."""
        with patch.object(transaction, "MOST", 1):
            self.layer.received(request("OPTIONS", 1), FLOW)
            self.assertEqual(self.received(request("OPTIONS", 2)), ["0 SIP/2.0 503 Service Unavailable"])
        self.assertEqual(len(self.user.got), 1)

    @given(st.data())
    def test_never_raises(self, data: st.DataObject) -> None:
        """Whatever comes, the next good call is heard."""
        self.setUp()
        whole = bytearray(request("INVITE", headers="Record-Route: <sip:p;lr>\r\nRequire: x\r\n", body=OFFER))
        for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6)):
            whole[at] = byte
        self.layer.received(bytes(whole[: data.draw(st.integers(0, len(whole)))]), FLOW)
        self.layer.received(data.draw(st.binary(max_size=80)), FLOW)
        self.assertEqual(self.layer.counters["fault"], 0)
        heard = len(self.user.got)
        self.layer.received(request("INVITE", 7, call_id="good"), FLOW)
        self.assertEqual(len(self.user.got), heard + 1)

    def test_our_own_fault(self) -> None:
        """Even a transport that breaks its promise does not reach the reactor."""
        with patch.object(self.wire, "send", side_effect=ZeroDivisionError):
            self.layer.received(request("OPTIONS", uri="x:y"), FLOW)
            self.layer.received(request("OPTIONS", 2).replace(b"th: 0", b"th: 5"), FLOW)
        self.assertEqual(self.layer.counters["fault"], 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(
            self.received(request("OPTIONS", 3, uri="x:y")), ["0 SIP/2.0 416 This URI scheme is not served"]
        )

    def test_nobody_yet(self) -> None:
        """Before there is a user, requests get 503."""
        self.layer.user = None
        self.assertEqual(self.received(request("OPTIONS")), ["0 SIP/2.0 503 Starting up"])
        self.received(request("ACK"))

    def test_provisional(self) -> None:
        """Other methods may get a 1xx as well."""
        self.layer.received(request("REGISTER"), FLOW)
        self.user.got[0].answer(100)
        self.assertEqual(self.received(request("REGISTER")), ["0 SIP/2.0 100 Trying"] * 2)

    def test_ipv6(self) -> None:
        """IPv6 at both ends: received without brackets, our Via with them."""
        flow = Flow("UDP", ("2001:db8::1", 5060), ("2001:db8::2", 5070))
        self.layer.received(request("OPTIONS", via="SIP/2.0/UDP [2001:db8::9];branch=z9hG4bKx;rport"), flow)
        self.user.got[0].answer(200)
        self.assertEqual(self.wire.sent[0][2], flow)
        self.assertIn(b"[2001:db8::9];branch=z9hG4bKx;rport=5070;received=2001:db8::2\r\n", self.wire.sent[0][1])
        bye = Request("BYE", "sip:a@[2001:db8::2]")
        for name, value in (("From", "<sip:b@u>;tag=1"), ("To", "<sip:a@p>"), ("Call-ID", "x"), ("CSeq", "1 BYE")):
            bye.set(name, value)
        self.layer.request(bye, flow, lambda _: None)
        self.assertIn(b"Via: SIP/2.0/UDP [2001:db8::1]:5060;branch", self.wire.sent[1][1])

    def test_stop(self) -> None:
        """Stopping leaves no timer, in any state."""
        for number, code in enumerate((100, 200, 486)):
            self.layer.received(request("INVITE", number), FLOW)
            self.user.got[-1].answer(code)
        self.layer.received(request("OPTIONS"), FLOW)
        self.user.got[-1].answer(200)
        self.ask()
        self.layer.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def ask(self) -> list[Response]:
        bye = Request("BYE", "sip:pbx@192.0.2.10")
        for name, value in (
            ("From", "<sip:b@u>;tag=1"),
            ("To", "<sip:a@p>;tag=2"),
            ("Call-ID", "x"),
            ("CSeq", "1 BYE"),
        ):
            bye.set(name, value)
        answered: list[Response] = []
        self.layer.request(bye, FLOW, answered.append)
        return answered

    def test_client(self) -> None:
        """A request of ours gets our Via, is repeated until answered, and its answer comes once."""
        answered = self.ask()
        ((_, data, flow),) = self.wire.sent
        head = data.split(b"\r\n")
        self.assertEqual(flow, FLOW)
        self.assertEqual(head[0], b"BYE sip:pbx@192.0.2.10 SIP/2.0")
        self.assertEqual(head[1], b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK0000000000000001;rport")
        self.assertIn(b"Max-Forwards: 70", head)
        self.clock.pump([0.5] * 3)
        self.assertEqual([at for at, _, _ in self.wire.sent], [0, 0.5, 1.5])
        response = b"SIP/2.0 200 OK\r\n" + b"\r\n".join(head[1:])
        for data in (response.replace(b"200 OK", b"100 Trying"), response, response):
            self.layer.received(data, FLOW)
        self.assertEqual([r.code for r in answered], [200])
        self.run_down()

    def test_client_unanswered(self) -> None:
        """Without any answer it gets a 408 after 32 s."""
        answered = self.ask()
        self.clock.pump([0.5] * 64)
        self.assertEqual([write(r).split(b"\r\n")[0] for r in answered], [b"SIP/2.0 408 Request Timeout"])
        self.run_down()

    def test_client_callback_fails(self) -> None:
        """A fault of ours in what follows an answer is logged and goes no further."""
        bye = Request("BYE", f"sip:{PBX[0]}")
        for name, value in (("From", "<sip:b@u>;tag=1"), ("To", "<sip:a@p>"), ("Call-ID", "x"), ("CSeq", "1 BYE")):
            bye.set(name, value)
        self.layer.request(bye, FLOW, lambda _: 1 // 0)  # type: ignore[arg-type]
        self.clock.pump([0.5] * 64)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.run_down()

    def send_large(self) -> list[Response]:
        """A request of ours that is too large for one datagram."""
        info = Request("INFO", f"sip:{PBX[0]}")
        for name, value in (("From", "<sip:b@u>;tag=1"), ("To", "<sip:a@p>"), ("Call-ID", "x"), ("CSeq", "1 INFO")):
            info.set(name, value)
        info.body = b"x" * 1300
        answered: list[Response] = []
        self.layer.request(info, FLOW, answered.append)
        return answered

    def test_large(self) -> None:
        """What is too large for a datagram goes over TCP, once (RFC 3261 18.1.1)."""
        answered = self.send_large()
        [(_, data, flow)] = self.wire.sent
        self.assertEqual(flow, Flow("TCP", US, PBX, Dial(PBX)))
        self.assertIn(b"Via: SIP/2.0/TCP 192.0.2.1:5060;branch", data)
        self.clock.pump([0.5] * 70)
        self.assertEqual((len(self.wire.sent), [each.code for each in answered]), (1, [408]))
        self.run_down()

    def test_large_but_no_tcp(self) -> None:
        """Who does not take TCP gets it by UDP all the same, and is not asked again for ten minutes."""
        self.send_large()
        [lost] = self.wire.lost
        lost()
        lost()
        _, (_, data, flow) = self.wire.sent
        self.assertEqual((flow, b"Via: SIP/2.0/UDP" in data), (FLOW, True))
        self.send_large()
        self.assertEqual(self.wire.sent[-1][2], FLOW)
        self.run_down()
        self.clock.advance(600)
        self.send_large()
        self.assertEqual(self.wire.sent[-1][2].transport, "TCP")
        self.run_down()

    def test_no_connection(self) -> None:
        """Over TCP a request without a connection has failed at once, with 503 (RFC 3261 8.1.3.1)."""
        bye = Request("BYE", f"sip:{PBX[0]};transport=tcp")
        for name, value in (("From", "<sip:b@u>;tag=1"), ("To", "<sip:a@p>"), ("Call-ID", "x"), ("CSeq", "1 BYE")):
            bye.set(name, value)
        answered: list[Response] = []
        self.layer.request(bye, FLOW._replace(transport="TCP"), answered.append)
        self.wire.lost.pop()()
        self.assertEqual([each.code for each in answered], [503])
        self.run_down()

    # -- INVITE -------------------------------------------------------------------------

    def call(self, body: bytes = OFFER) -> tuple[ClientInvite, list[int]]:
        """An INVITE of ours, and the codes that it is told."""
        invite = Request("INVITE", "sip:100@192.0.2.10")
        for name, value in (
            ("Route", "<sip:192.0.2.10;lr>"),
            ("Route", "<sip:q;lr>"),
            ("From", "<sip:b@u>;tag=1"),
            ("To", "<sip:100@192.0.2.10>"),
            ("Call-ID", "x"),
            ("CSeq", "7 INVITE"),
            ("Contact", "<sip:b@192.0.2.1>"),
        ):
            invite.add(name, value)
        invite.body = body
        codes: list[int] = []
        return self.layer.invite(invite, FLOW, lambda response, _flow: codes.append(response.code)), codes

    def reply(self, invite: ClientInvite, code: int, tag: str = "a") -> None:
        self.layer.received(write(answer(invite.request, code, to_tag=tag)), FLOW)

    def test_invite_refused(self) -> None:
        """A refusal is acknowledged with the INVITE's branch and route and the answer's To, and told once."""
        invite, codes = self.call()
        for code in (100, 180, 486, 486):
            self.reply(invite, code)
        _, first, second = self.wire.sent
        self.assertEqual((first, codes), (second, [180, 486]))
        self.assertEqual(
            first[1].decode(),
            "ACK sip:100@192.0.2.10 SIP/2.0\r\n"
            "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK0000000000000001;rport\r\n"
            "Route: <sip:192.0.2.10;lr>\r\n"
            "Route: <sip:q;lr>\r\n"
            "From: <sip:b@u>;tag=1\r\n"
            "To: <sip:100@192.0.2.10>;tag=a\r\n"
            "Call-ID: x\r\n"
            "Max-Forwards: 70\r\n"
            "CSeq: 7 ACK\r\n"
            "Content-Length: 0\r\n\r\n",
        )
        self.run_down()

    def test_invite_accepted(self) -> None:
        """Every 2xx is told, of forks too; its ACK is the user's, sent once with a branch of its own."""
        invite, codes = self.call()
        for tag in ("a", "a", "b"):
            self.reply(invite, 200, tag)
        self.assertEqual((len(self.wire.sent), codes), (1, [200, 200, 200]))
        ack = Request("ACK", "sip:100@192.0.2.10")
        for name in ("from", "to", "call-id"):
            ack.set(name, invite.request.first(name) or "")
        ack.set("cseq", "7 ACK")
        self.wire.sent = []
        again = self.layer.acknowledge(ack, FLOW)
        again()
        first, second = self.wire.sent
        self.assertEqual(first, second)
        self.assertNotIn((invite.request.via.branch or "").encode(), first[1])
        self.assertIn(b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK", first[1])
        self.run_down()

    def test_invite_cancelled(self) -> None:
        """CANCEL has the INVITE's branch, route and To, waits for a 1xx, and is repeated until it is answered."""
        invite, codes = self.call()
        self.wire.sent = []
        invite.cancel([("Reason", "SIP;cause=200")])
        invite.cancel()
        self.assertEqual(self.wire.sent, [])
        self.reply(invite, 100)
        self.clock.pump([0.5] * 3)
        times = [at for at, data, _ in self.wire.sent]
        cancel = self.wire.messages()[0]
        self.assertEqual(times, [0, 0.5, 1.5])
        self.assertEqual(
            cancel.toString(),
            "CANCEL sip:100@192.0.2.10 SIP/2.0\r\n"
            "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK0000000000000001;rport\r\n"
            "Route: <sip:192.0.2.10;lr>\r\n"
            "Route: <sip:q;lr>\r\n"
            "From: <sip:b@u>;tag=1\r\n"
            "To: <sip:100@192.0.2.10>\r\n"
            "Call-ID: x\r\n"
            "Max-Forwards: 70\r\n"
            "CSeq: 7 CANCEL\r\n"
            "Reason: SIP;cause=200\r\n"
            "Content-Length: 0\r\n\r\n",
        )
        assert isinstance(cancel, Request)
        self.layer.received(write(answer(cancel, 200)), FLOW)
        self.reply(invite, 487)
        self.assertEqual((codes, self.wire.take()), ([487], ["1.5 ACK sip:100@192.0.2.10 SIP/2.0"]))
        self.run_down()

    def test_invite_unanswered(self) -> None:
        """Nobody there: 408 of our own making, and what comes later is a stray response."""
        invite, codes = self.call()
        self.clock.pump([0.5] * 64)
        self.reply(invite, 200)
        self.assertEqual((codes, self.layer.counters["stray-response"]), ([408], 1))
        self.run_down()

    def test_large_invite(self) -> None:
        """A large INVITE goes over TCP, where it is refused by UDP, with the CANCEL that came in between."""
        invite, codes = self.call(b"x" * 1300)
        self.assertEqual((invite.flow.transport, b"SIP/2.0/TCP" in self.wire.sent[0][1]), ("TCP", True))
        invite.cancel()
        self.wire.lost.pop()()
        self.assertEqual((invite.flow, b"SIP/2.0/UDP" in self.wire.sent[1][1]), (FLOW, True))
        self.reply(invite, 180)
        self.assertEqual(self.wire.sent[-1][1][:6], b"CANCEL")
        self.clock.pump([0.5] * 64)
        self.assertEqual(codes, [180, 487])
        self.run_down()

    def test_invite_without_connection(self) -> None:
        """No connection: 503 of our own making (RFC 3261 8.1.3.1)."""
        codes: list[int] = []
        request = Request("INVITE", "sip:100@192.0.2.10")
        for name, value in (("From", "<sip:b@u>;tag=1"), ("To", "<sip:a@p>"), ("Call-ID", "x"), ("CSeq", "1 INVITE")):
            request.set(name, value)
        stream = FLOW._replace(transport="TCP")
        self.layer.invite(request, stream, lambda response, flow: codes.append(response.code))
        self.wire.lost.pop()()
        self.assertEqual(codes, [503])
        self.run_down()

    def test_invite_stopped(self) -> None:
        """An INVITE of ours leaves no timer when the service stops."""
        _, codes = self.call()
        self.layer.stop()
        self.assertEqual((self.clock.getDelayedCalls(), codes), ([], []))
        self.run_down()
