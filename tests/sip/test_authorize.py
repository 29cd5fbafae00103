"""Credentials for requests of ours: what is sent, when it is sent again, and when no more."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from extenbot.sip.authorize import Authorizer, ask
from extenbot.sip.digest import Challenger
from extenbot.sip.message import Request, Response, answer, write
from extenbot.sip.transaction import Transactions
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.sip.wire import FLOW, Recorder


def options() -> Request:
    request = Request("OPTIONS", "sip:pbx.example")
    for name, value in (("From", "<sip:b@u>;tag=1"), ("To", "<sip:p>"), ("Call-ID", "x"), ("CSeq", "7 OPTIONS")):
        request.set(name, value)
    return request


def challenge(nonce: str, realm: str = "pbx", algorithm: str = "MD5", more: str = "") -> str:
    return f'Digest realm="{realm}", nonce="{nonce}", qop="auth", algorithm={algorithm}{more}'


class Credentials(SynchronousTestCase):
    def setUp(self) -> None:
        self.authorizer = Authorizer("bot", "secret", CountingTokens())

    def sent(self) -> Request:
        request = options()
        self.authorizer.authorize(request)
        return request

    def refused(self, request: Request, *challenges: str, code: int = 401, proxy: tuple[str, ...] = ()) -> bool:
        headers = [("WWW-Authenticate" if code == 401 else "Proxy-Authenticate", each) for each in challenges]
        headers += [("Proxy-Authenticate", each) for each in proxy]
        return self.authorizer.challenged(request, answer(request, code, headers=headers))

    def test_nothing_known(self) -> None:
        """Without a challenge there is nothing to say, and what stood there is taken out."""
        request = options()
        request.set("authorization", "Digest old")
        self.authorizer.authorize(request)
        self.assertEqual((request.all("authorization"), request.all("proxy-authorization")), ([], []))

    def test_good_password(self) -> None:
        """The credentials are right in the eyes of our own registrar, with a count that grows."""
        challenger = Challenger("pbx", lambda: 0.0, b"key", 300)
        refusal = challenger.challenge(options(), "192.0.2.1")
        self.assertTrue(self.authorizer.challenged(options(), answer(options(), 401, headers=refusal.headers)))
        for count in (1, 2, 3):
            request = self.sent()
            self.assertEqual(challenger.check(request, "192.0.2.1", {"bot": "secret"}.get), "bot")
            self.assertIn(f"nc={count:08x}", request.first("authorization") or "")
            self.assertIn("algorithm=SHA-256", request.first("authorization") or "")

    def test_strongest(self) -> None:
        """Of several challenges for a realm the strongest that we know is met; others are passed over."""
        self.refused(options(), challenge("1", algorithm="X"), challenge("2"), challenge("3", algorithm="SHA-512-256"))
        self.assertIn('nonce="3"', self.sent().first("authorization") or "")
        self.setUp()
        self.assertFalse(self.refused(options(), challenge("1", algorithm="X"), "Basic realm=x", "", "Digest"))
        self.assertFalse(self.refused(options()))

    def test_realms(self) -> None:
        """Proxies and the PBX are answered each in its place, also when one response asks for all (RFC 3261 22.3)."""
        self.assertTrue(self.refused(options(), challenge("1", "a"), challenge("2", "b"), proxy=(challenge("3", "a"),)))
        request = self.sent()
        nonces = [value.split('nonce="')[1][0] for value in request.all("authorization")]
        self.assertEqual((nonces, len(request.all("proxy-authorization"))), (["1", "2"], 1))

    def test_wrong_password(self) -> None:
        """Fresh credentials that are refused are not tried again, stale ones are."""
        self.assertTrue(self.refused(options(), challenge("1")))
        self.assertTrue(self.refused(self.sent(), challenge("2", more=", stale=TRUE")))
        self.assertFalse(self.refused(self.sent(), challenge("3")))

    def test_kept_nonce(self) -> None:
        """A nonce that was good before gets one new try when it is refused, though nobody says stale."""
        self.refused(options(), challenge("1"))
        self.sent()  # accepted
        self.assertTrue(self.refused(self.sent(), challenge("2")))
        self.assertFalse(self.refused(self.sent(), challenge("3")))

    def test_same_nonce(self) -> None:
        """Credentials for a nonce that is still in use are simply wrong; stale, the count goes on."""
        self.refused(options(), challenge("1"))
        self.sent()
        self.assertFalse(self.refused(self.sent(), challenge("1")))
        self.assertTrue(self.refused(self.sent(), challenge("1", more=", stale=true")))
        self.assertIn("nc=00000004", self.sent().first("authorization") or "")

    def test_requests_at_a_time(self) -> None:
        """A request that was on its way when the nonce changed is sent again with the new one."""
        self.refused(options(), challenge("1"))
        first, second = self.sent(), self.sent()
        self.assertTrue(self.refused(first, challenge("2")))
        self.assertTrue(self.refused(second, challenge("3")))

    def test_many_realms(self) -> None:
        """Realms that nobody asks for any more are forgotten."""
        for number in range(100):
            self.refused(options(), challenge("1", f"r{number}"))
        self.assertEqual(len(self.sent().all("authorization")), 8)

    def test_secret(self) -> None:
        """The password is in no printed form."""
        self.assertNotIn("secret", repr(self.authorizer) + str(self.sent()))


class Asking(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Recorder(self.clock)
        self.layer = Transactions(self.clock, self.wire, CountingTokens())
        self.authorizer = Authorizer("bot", "secret", CountingTokens())
        self.answered: list[Response] = []

    def says(self, code: int, *headers: tuple[str, str]) -> None:
        """Answer the last request."""
        last = self.wire.messages()[-1]
        assert isinstance(last, Request)
        self.request = last
        self.layer.received(write(answer(last, code, headers=headers)), FLOW)

    def test_challenged(self) -> None:
        """The request is sent again under the next CSeq with a new branch; the answer is that to the last one."""
        ask(self.layer, options(), FLOW, self.answered.append, self.authorizer)
        self.says(401, ("WWW-Authenticate", challenge("1")))
        first = self.request
        self.says(407, ("Proxy-Authenticate", challenge("2", "proxy")))
        self.says(200)
        self.assertEqual([response.cseq.number for response in self.answered], [9])
        self.assertNotEqual(first.via.branch, self.request.via.branch)
        self.assertEqual(first.call_id, self.request.call_id)
        self.clock.pump([0.5] * 100)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_by_its_own_numbers(self) -> None:
        """Within a dialog the next number is the dialog's."""

        def renew(request: Request) -> Request:
            request = options()
            request.set("cseq", "70 OPTIONS")
            return request

        ask(self.layer, options(), FLOW, self.answered.append, self.authorizer, renew)
        self.says(401, ("WWW-Authenticate", challenge("1")))
        self.says(200)
        self.assertEqual([response.cseq.number for response in self.answered], [70])

    def test_to_a_bound(self) -> None:
        """Who finds every nonce stale is not asked for ever."""
        ask(self.layer, options(), FLOW, self.answered.append, self.authorizer)
        tries = 0
        while not self.answered:
            self.says(401, ("WWW-Authenticate", challenge(str(tries), more=", stale=true")))
            tries += 1
        self.assertEqual((tries, [response.code for response in self.answered]), (5, [401]))

    def test_wrong_password(self) -> None:
        """A wrong password is told after one try."""
        ask(self.layer, options(), FLOW, self.answered.append, self.authorizer)
        self.says(401, ("WWW-Authenticate", challenge("1")))
        self.says(401, ("WWW-Authenticate", challenge("2")))
        self.assertEqual([response.code for response in self.answered], [401])

    def test_without_credentials(self) -> None:
        """Who has none tells the challenge as it is."""
        ask(self.layer, options(), FLOW, self.answered.append, None)
        self.says(401, ("WWW-Authenticate", challenge("1")))
        self.assertEqual([response.code for response in self.answered], [401])

    def test_unanswered(self) -> None:
        """Nobody answers: 408, as without credentials."""
        ask(self.layer, options(), FLOW, self.answered.append, self.authorizer)
        self.clock.pump([0.5] * 64)
        self.assertEqual([response.code for response in self.answered], [408])
