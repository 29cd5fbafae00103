"""A bot that registers at a PBX: what it sends when, and what people are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from automat import NoTransition
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Refused, Unlocated
from extenbot.interfaces import Bot, Dial, Flow, Registration, Standing, Target
from extenbot.sip.digest import Challenger
from extenbot.sip.headers import name_addr
from extenbot.sip.message import Request, answer, read, write
from extenbot.sip.registrant import Inputs, Login, Means, Registrant, _machine
from extenbot.sip.registrants import Pace, Registrants, contact_user
from extenbot.sip.registrar import Registrar
from extenbot.sip.transaction import ServerTransaction, Transactions
from extenbot.sip.way import Way
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.sip.wire import PBX, US, Recorder, Wire

BOT = Bot(
    id="b1",
    account_id="a",
    name="Ada",
    kind="registrant",
    username="100",
    password="secret",
    domain="pbx.example",
    port=5080,
    expires=600,
)
CHALLENGE = 'Digest realm="pbx", nonce="n1", qop="auth", algorithm=MD5'
FIRST, SECOND = Target("UDP", "192.0.2.10", 5060), Target("UDP", "192.0.2.11", 5060)


TCP, TLS = Target("TCP", "192.0.2.10", 5060), Target("TLS", "192.0.2.10", 5061)


class Sent(Recorder):
    """Also the connections: who watches which."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.watched: dict[Flow, Callable[[str], None]] = {}

    def advertised(self, flow: Flow) -> tuple[str, int]:
        return US

    def watch(self, flow: Flow, gone: Callable[[str], None]) -> Callable[[], None]:
        if flow.transport == "UDP":
            return lambda: None
        assert flow not in self.watched
        self.watched[flow] = gone
        return lambda: self.watched.pop(flow, None) and None

    def cut(self, why: str) -> None:
        """The one connection is lost, or could not be had."""
        [flow] = self.watched
        self.watched.pop(flow)(why)


class Rig(SynchronousTestCase):
    """One registrant whose requests are answered by hand."""

    keepalive = 0.0
    turn = 0.0  # seconds until it is one's turn

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = Sent(self.clock)
        self.transactions = Transactions(self.clock, self.transport, CountingTokens())
        self.places: list[tuple[Target, ...] | Unlocated] = []
        self.located: list[tuple[str, int, str]] = []
        self.told: list[Registration] = []
        self.left: list[Registrant] = []
        self.seen = 0
        self.addCleanup(self.nothing_left)

    def nothing_left(self) -> None:
        self.transactions.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def locate(self, host: str, port: int, transport: str) -> Deferred[tuple[Target, ...]]:
        self.located.append((host, port, transport))
        found = self.places.pop(0) if self.places else (FIRST,)
        if isinstance(found, Unlocated):
            deferred: Deferred[tuple[Target, ...]] = Deferred()
            deferred.errback(found)
            return deferred
        return succeed(found)

    def means(self) -> Means:
        tokens = CountingTokens()
        return Means(
            clock=self.clock,
            now=self.clock.seconds,
            tokens=tokens,
            transactions=self.transactions,
            transport=self.transport,
            locate=self.locate,
            watch=self.transport.watch,
            turn=lambda: self.turn,
            keepalive=self.keepalive,
        )

    def registrant(self, **changes: object) -> Registrant:
        bot = replace(BOT, **changes)  # type: ignore[arg-type]
        made = Registrant(Login.of(bot, contact_user(bot)), self.means(), self.told.append, self.left.append)
        self.addCleanup(self.end, made)
        made.start()
        return made

    def end(self, registrant: Registrant) -> None:
        registrant.stop()
        self.run_for(5)

    def run_for(self, seconds: float) -> None:
        self.clock.pump([0.125] * round(seconds / 0.125))

    def request(self) -> Request:
        """The one new request, and no more."""
        sent, self.seen = self.transport.sent[self.seen :], len(self.transport.sent)
        requests = [message for _, data, _ in sent if isinstance(message := read(data), Request)]
        self.assertEqual(len(requests), 1, requests)
        self.flow = sent[0][2]
        return requests[0]

    def nothing_sent(self) -> None:
        self.assertEqual(len(self.transport.sent), self.seen)

    def reply(
        self, code: int, *headers: tuple[str, str], seen_as: tuple[str, int] = US, phrase: str = "", granted: int = 0
    ) -> Request:
        """Answer the one new request, as a registrar that sees us at `seen_as`; the request."""
        request = self.request()
        request.headers["via"][0] = request.via.stamped(seen_as).toString()
        more = list(headers)
        if code == 200:
            more += [("Contact", f"<{name_addr(request.all('contact')[0]).uri}>;expires={granted or 600}")]
        response = answer(request, code, phrase, more, to_tag="pbx")
        self.transactions.received(write(response), self.flow)
        return request

    def registered(self, **changes: object) -> Registrant:
        made = self.registrant(**changes)
        self.reply(401, ("WWW-Authenticate", CHALLENGE))
        self.reply(200)
        self.assertEqual(made.registration.state, Standing.REGISTERED)
        return made

    def states(self) -> list[tuple[float, str]]:
        return [(state.at, state.state.value) for state in self.told]


class Registering(Rig):
    def test_first(self) -> None:
        """REGISTER to the domain without a user, a Contact nobody can guess; the challenge is answered; 200."""
        made = self.registrant(auth_id="login")
        first = self.reply(401, ("WWW-Authenticate", CHALLENGE))
        self.assertEqual(str(first.uri), "sip:pbx.example:5080")
        self.assertEqual(str(first.to.uri), "sip:100@pbx.example")
        self.assertEqual(first.first("expires"), "600")
        self.assertEqual(first.first("supported"), "path, outbound")
        [contact] = [name_addr(text) for text in first.all("contact")]
        self.assertEqual(len(contact.uri.user), 24)
        self.assertNotIn("100", contact.uri.user[:3])
        self.assertRegex(contact.params["+sip.instance"] or "", r'^"<urn:uuid:[0-9a-f-]{36}>"$')
        self.assertEqual(contact.params["reg-id"], "1")
        self.assertIsNone(first.first("authorization"))
        second = self.reply(200, ("Service-Route", "<sip:edge.example;lr>"), ("Path", "<sip:p.example;lr>"))
        self.assertEqual(second.call_id, first.call_id)
        self.assertEqual(second.cseq.number, first.cseq.number + 1)
        self.assertIn('username="login"', second.first("authorization") or "")
        self.assertIn("nc=00000001", second.first("authorization") or "")
        self.assertEqual(self.states(), [(0, "registering"), (0, "registered")])
        self.assertEqual((made.registration.until, made.registration.target), (600, "192.0.2.10:5060 (UDP)"))
        self.assertEqual((made.service_route, made.path), (("<sip:edge.example;lr>",), ("<sip:p.example;lr>",)))
        self.assertEqual(self.located, [("pbx.example", 5080, "")])

    def test_refresh(self) -> None:
        """Between 3/4 and 9/10 of the granted time it is refreshed, with the nonce it has and one more count."""
        self.registered()
        wait = self.told[-1].next_try
        self.assertTrue(450 <= wait <= 540, wait)
        self.run_for(wait - 0.25)
        self.nothing_sent()
        self.run_for(0.5)
        request = self.reply(200, granted=60)
        self.assertEqual(request.cseq.number, 3)
        self.assertIn("nc=00000002", request.first("authorization") or "")
        self.assertTrue(45 <= self.told[-1].next_try - self.clock.seconds() <= 54.25)

    def test_stale(self) -> None:
        """A stale nonce is replaced, and that is no wrong password, however often."""
        made = self.registrant()
        self.reply(401, ("WWW-Authenticate", CHALLENGE))
        for number in (2, 3):
            self.reply(401, ("WWW-Authenticate", f'Digest realm="pbx", nonce="n{number}", stale=true'))
        self.assertIn('nonce="n3"', self.reply(200).first("authorization") or "")
        self.assertEqual(made.registration.state, Standing.REGISTERED)

    def test_endless(self) -> None:
        """A PBX that challenges for ever is given up."""
        made = self.registrant()
        for number in range(8):
            self.reply(401, ("WWW-Authenticate", f'Digest realm="pbx", nonce="n{number}", stale=true'))
        self.nothing_sent()
        self.assertEqual(made.registration.state, Standing.REFUSED)

    def test_proxy_challenge(self) -> None:
        """A proxy asks with 407, then the registrar with 401: both get what they want, without qop too."""
        made = self.registrant()
        self.reply(407, ("Proxy-Authenticate", 'Digest realm="edge", nonce="e"'))
        second = self.reply(401, ("WWW-Authenticate", CHALLENGE))
        self.assertIn('realm="edge"', second.first("proxy-authorization") or "")
        self.assertNotIn("qop", second.first("proxy-authorization") or "")
        third = self.reply(200)
        self.assertIn('realm="edge"', third.first("proxy-authorization") or "")
        self.assertIn('realm="pbx"', third.first("authorization") or "")
        self.assertEqual(made.registration.state, Standing.REGISTERED)

    def test_strongest(self) -> None:
        """Of several algorithms the strongest that we know is used (RFC 8760)."""
        self.registrant()
        kinds = ("MD5", "SHA-256", "SHA-512-256", "SHA-9000")
        self.reply(401, *(("WWW-Authenticate", f'Digest realm="p", nonce="n", algorithm={k}') for k in kinds))
        self.assertIn("algorithm=SHA-512-256", self.reply(200).first("authorization") or "")

    def test_longer(self) -> None:
        """423 with Min-Expires: asked again for that long, also later."""
        self.registrant()
        self.reply(423, ("Min-Expires", "1800"))
        self.assertEqual(self.reply(200, granted=1800).first("expires"), "1800")
        self.clock.advance(self.told[-1].next_try - self.clock.seconds())
        self.assertEqual(self.reply(200).first("expires"), "1800")

    def test_senseless_interval(self) -> None:
        """A 423 that asks for less, or says nothing, is a refusal."""
        for value in ("60", "99999999", "soon"):
            made = self.registrant()
            self.reply(423, ("Min-Expires", value))
            self.nothing_sent()
            self.assertEqual(made.registration.state, Standing.REFUSED)
            made.stop()
            self.run_for(5)
            self.seen = len(self.transport.sent)

    def test_redirected(self) -> None:
        """302: the registrar that it names is looked up and asked, and calls may come from there."""
        made = self.registrant()
        self.places = [(SECOND,)]
        self.reply(302, ("Contact", "<sip:100@two.example:5070>"))
        self.assertEqual(self.located[-1], ("two.example", 5070, ""))
        request = self.reply(200)
        self.assertEqual(str(request.uri), "sip:two.example:5070")
        self.assertEqual(self.flow.remote, ("192.0.2.11", 5060))
        self.assertTrue(made.trusts("192.0.2.11"))

    def test_redirected_in_a_circle(self) -> None:
        """After three redirects it is enough."""
        made = self.registrant()
        for _ in range(4):
            self.reply(301, ("Contact", "<sip:pbx.example>"))
        self.nothing_sent()
        self.assertEqual(made.registration.state, Standing.REFUSED)

    def test_first_hop_without_outbound(self) -> None:
        """439: once more without reg-id (RFC 5626 6)."""
        self.registrant()
        self.reply(439)
        request = self.reply(200)
        self.assertNotIn("reg-id", request.first("contact") or "")
        self.assertEqual(request.first("supported"), "path")

    def test_outbound_proxy(self) -> None:
        """Everything goes to the outbound proxy, with a Route; calls may come from it and from the domain."""
        self.places = [(SECOND,), (FIRST,)]
        made = self.registrant(outbound_proxy="edge.example:5090")
        self.assertEqual(self.located, [("pbx.example", 5080, ""), ("edge.example", 5090, "")])
        request = self.reply(200)
        self.assertEqual(request.first("route"), "<sip:edge.example:5090;lr>")
        self.assertEqual(str(request.uri), "sip:pbx.example:5080")
        self.assertTrue(made.trusts("192.0.2.10") and made.trusts("192.0.2.11"))
        self.assertFalse(made.trusts("192.0.2.12"))


class WayOut(Rig):
    ROUTES = "<sip:edge.example:5090;lr>, <sip:core.example;lr>"

    def way(self, made: Registrant) -> Way:
        found = made.way()
        assert found is not None
        return found

    def test_plain(self) -> None:
        """The bot's own requests go where it is registered, as the extension, with its login; before that nowhere."""
        made = self.registrant(auth_id="login")
        self.assertIsNone(made.way())
        self.reply(401, ("WWW-Authenticate", CHALLENGE))
        self.assertIsNone(made.way())
        self.reply(200)
        way = self.way(made)
        self.assertEqual((way.flow.transport, way.flow.remote, way.routes), ("UDP", PBX, ()))
        self.assertEqual((way.local, way.contact), ("sip:100@pbx.example", made.contact))
        self.assertEqual((way.domain, way.username, way.password), ("pbx.example:5080", "login", "secret"))
        self.assertNotIn("secret", repr(way))

    def test_service_route(self) -> None:
        """They take the way that the registrar has named (RFC 3608), until it names another or none."""
        made = self.registrant()
        self.reply(200, ("Service-Route", self.ROUTES))
        self.assertEqual(self.way(made).routes, ("<sip:edge.example:5090;lr>", "<sip:core.example;lr>"))
        self.clock.advance(made.registration.next_try)
        self.assertTrue(made.way())  # while a refresh is under way
        self.reply(200)
        self.assertEqual(self.way(made).routes, ())

    def test_outbound_proxy(self) -> None:
        """The outbound proxy is the first hop, once, also when the registrar names it as well."""
        for proxy, routes in (
            ("edge.example:5090", self.ROUTES),
            ("front.example", f"<sip:front.example;lr>,{self.ROUTES}"),
        ):
            made = self.registrant(outbound_proxy=proxy)
            self.reply(200, ("Service-Route", self.ROUTES))
            self.assertEqual(", ".join(self.way(made).routes).replace(">, <", ">,<"), routes.replace(">, <", ">,<"))
            made.stop()
            self.reply(200)

    def test_over(self) -> None:
        """A registration that could not be refreshed serves until its time is over; a bot that signs off has none."""
        made = self.registered()
        self.clock.advance(made.registration.next_try)
        self.reply(403)
        self.assertTrue(made.way())
        self.clock.advance(600 - self.clock.seconds() - 0.5)
        self.assertTrue(made.way())
        self.clock.advance(0.5)
        self.assertIsNone(made.way())
        self.seen = len(self.transport.sent)
        other = self.registered()
        other.stop()
        self.assertIsNone(other.way())


class BehindNat(Rig):
    def test_learned_from_the_challenge(self) -> None:
        """The registrar's view of us, in the Via of its 401, is in the next Contact."""
        self.registrant()
        self.reply(401, ("WWW-Authenticate", CHALLENGE), seen_as=("203.0.113.5", 1024))
        uri = name_addr(self.reply(200, seen_as=("203.0.113.5", 1024)).all("contact")[0]).uri
        self.assertEqual((uri.host, uri.port), ("203.0.113.5", 1024))
        self.run_for(1)
        self.nothing_sent()

    def test_learned_from_the_answer(self) -> None:
        """Learned from a 200 only: registered again at once, and the wrong Contact is taken back."""
        made = self.registrant()
        self.reply(200, seen_as=("203.0.113.5", 1024))
        self.run_for(0.125)
        contacts = [name_addr(text) for text in self.reply(200, seen_as=("203.0.113.5", 1024)).all("contact")]
        self.assertEqual([(c.uri.host, c.params["expires"]) for c in contacts], [("203.0.113.5", "600"), (US[0], "0")])
        self.run_for(1)
        self.nothing_sent()
        self.assertIn("203.0.113.5:1024", made.contact)

    def test_large(self) -> None:
        """A REGISTER that is too large for a datagram goes over TCP; the port of that says nothing of our UDP port."""
        made = self.registrant(username="1" * 1000)
        request = self.request()
        self.assertEqual((self.flow.transport, request.via.transport), ("TCP", "TCP"))
        self.seen -= 1
        self.reply(200, seen_as=("203.0.113.5", 40000))
        self.assertIn(f"@{US[0]}:{US[1]}", made.contact)
        self.assertNotIn("transport", made.contact)

    def test_new_port_each_time(self) -> None:
        """A NAT that changes the port with every packet does not make us register without end."""
        self.registrant()
        for port in (1024, 1025):
            self.reply(200, seen_as=("203.0.113.5", port))
            self.run_for(0.125)
        self.nothing_sent()


class KeptAlive(Rig):
    keepalive = 30.0

    def test_keepalive(self) -> None:
        """While registered a small packet goes to the PBX every 30 s, and none after signing off."""
        made = self.registered()
        self.run_for(90.5)
        packets = [(at, data, flow.remote) for at, data, flow in self.transport.sent[self.seen :]]
        self.assertEqual(packets, [(at, b"\r\n", PBX) for at in (30.0, 60.0, 90.0)])
        self.seen = len(self.transport.sent)
        made.stop()
        self.reply(200)
        self.run_for(60)
        self.nothing_sent()


class Connected(Rig):
    """Over TCP and TLS."""

    keepalive = 30.0

    def test_flow(self) -> None:
        """A connection is made, for TLS to who proves to be the domain; the Contact says by which transport."""
        for place, proves in ((TCP, ""), (TLS, "pbx.example")):
            self.places = [(place,)]
            made = self.registrant()
            request = self.reply(200)
            self.assertEqual(self.flow, Flow(place.transport, ("", 0), place[1:], Dial(place[1:], proves)))
            contact = name_addr(request.all("contact")[0]).uri
            self.assertEqual((contact.host, contact.params["transport"]), (US[0], place.transport.lower()))
            self.assertEqual(made.registration.target, f"192.0.2.10:{place.port} ({place.transport})")
            self.assertEqual(made.way(), made.way() and replace(made.way(), flow=self.flow))  # type: ignore[type-var]
            self.run_for(60)
            self.nothing_sent()  # the connection is kept alive by who holds it
            made.stop()
            self.assertEqual(self.reply(200).first("expires"), "0")
            self.assertEqual(self.transport.watched, {})

    def test_proxy_proves(self) -> None:
        """With an outbound proxy that is who must prove its name; after a redirect the new registrar."""
        self.places = [(SECOND,), (TLS,), (SECOND,), (TLS,)]
        self.registrant(outbound_proxy="edge.example")
        self.reply(302, ("Contact", "<sip:two.example;transport=tls>"))
        self.assertEqual(self.flow.dial, Dial(TLS[1:], "edge.example"))
        self.assertEqual(self.located[-1], ("two.example", 0, "TLS"))
        self.reply(200)
        self.assertEqual(self.flow.dial, Dial(TLS[1:], "two.example"))

    def test_behind_nat(self) -> None:
        """Seen at our own address we say where we listen; behind NAT the Contact is the connection."""
        self.places = [(TCP,)]
        made = self.registrant()
        self.reply(200, seen_as=(US[0], 40000))
        self.run_for(1)
        self.nothing_sent()
        self.assertIn(f"{US[0]}:5060;transport=tcp", made.contact)
        made.stop()
        self.reply(200)
        self.places = [(TCP,)]
        self.registrant()
        self.reply(401, ("WWW-Authenticate", CHALLENGE), seen_as=("203.0.113.5", 40000))
        contact = name_addr(self.reply(200, seen_as=("203.0.113.5", 40000)).all("contact")[0]).uri
        self.assertEqual((contact.host, contact.port), ("203.0.113.5", 40000))

    def test_cannot_prove(self) -> None:
        """A connection that cannot be had is told with its reason, and tried again like any failure."""
        self.places = [(TLS,)]
        made = self.registrant()
        self.request()
        self.transport.cut("its certificate is not for pbx.example but for other.example")
        self.assertEqual(made.registration.state, Standing.UNREACHABLE)
        self.assertEqual(
            made.registration.words,
            "The PBX cannot be reached at 192.0.2.10:5061 (TLS): "
            "its certificate is not for pbx.example but for other.example.",
        )
        self.assertTrue(24 <= made.registration.next_try <= 36)
        self.run_for(2)
        self.nothing_sent()

    def test_failover(self) -> None:
        """The next place is asked at once, also by another transport; late news of the first changes nothing."""
        self.places = [(TLS, TCP, FIRST)]
        made = self.registrant()
        self.request()
        lost = self.transport.lost[-1]
        self.transport.cut("it refuses the connection")
        self.assertEqual((self.request().method, self.flow.transport), ("REGISTER", "TCP"))
        lost()
        self.nothing_sent()
        self.transport.cut("it does not answer")
        self.reply(200)
        self.assertEqual(made.registration.target, "192.0.2.10:5060 (UDP)")
        self.assertEqual(self.transport.watched, {})

    def test_lost(self) -> None:
        """When the connection is lost we register anew within 2 s, and people can see that it was so."""
        self.places = [(TCP,), (TCP,)]
        made = self.registered()
        self.run_for(10)
        self.transport.cut("it has closed the connection")
        state = made.registration
        self.assertEqual(
            state.words, "The connection to the PBX at 192.0.2.10:5060 (TCP) was lost: it has closed the connection."
        )
        self.assertEqual((state.state, state.until), (Standing.UNREACHABLE, 600))
        self.assertTrue(10 <= state.next_try <= 12)
        self.run_for(2)
        self.assertIn("nc=00000002", self.reply(200).first("authorization") or "")
        self.assertEqual(made.registration.state, Standing.REGISTERED)

    def test_lost_by_a_refresh(self) -> None:
        """A refresh that finds its connection gone goes over a new one at once, and only once."""
        self.places = [(TCP,), (TCP,)]
        made = self.registered()
        self.clock.advance(made.registration.next_try)
        self.request()
        self.transport.cut("it has closed the connection")
        self.assertEqual(self.request().cseq.number, 4)
        self.transport.cut("it refuses the connection")
        self.nothing_sent()
        self.assertEqual((made.registration.state, made.registration.until), (Standing.UNREACHABLE, 600))

    def test_lost_while_waiting(self) -> None:
        """A connection that is lost while we wait after a refusal is no news."""
        self.places = [(TCP,), (TCP,)]
        made = self.registered()
        self.clock.advance(made.registration.next_try)
        self.reply(403)
        before = made.registration
        self.transport.cut("it has closed the connection")
        self.assertEqual(made.registration, before)
        self.clock.advance(before.next_try - self.clock.seconds())
        self.reply(200)

    def test_lost_while_leaving(self) -> None:
        """Nobody waits for an answer to a sign-off when the connection is gone."""
        self.places = [(TCP,)]
        made = self.registered()
        made.stop()
        self.request()
        self.transport.cut("it has closed the connection")
        self.assertEqual(self.left, [made])


class Failing(Rig):
    def test_wrong_password(self) -> None:
        """A second challenge that is not stale: refused, in words, and tried again after about 30 s."""
        made = self.registrant()
        self.reply(401, ("WWW-Authenticate", CHALLENGE))
        self.reply(401, ("WWW-Authenticate", CHALLENGE))
        self.nothing_sent()
        state = made.registration
        self.assertEqual(state.state, Standing.REFUSED)
        self.assertEqual(state.words, "The PBX does not accept the username or password (401 Unauthorized).")
        self.assertTrue(24 <= state.next_try <= 36)
        self.run_for(state.next_try + 0.125)
        self.assertIsNone(self.reply(403, phrase="Go away").first("authorization"))
        self.assertEqual(self.told[-1].words, "The PBX refuses: 403 Go away.")

    def test_back_off(self) -> None:
        """The waits double from 30 s up to 30 min, each a fifth more or less, and begin anew after a success."""
        made = self.registrant()
        waits = []
        for _ in range(9):
            self.reply(403)
            waits.append(made.registration.next_try - self.clock.seconds())
            self.clock.advance(waits[-1])
        for number, wait in enumerate(waits):
            middle = min(1800, 30 * 2**number)
            self.assertTrue(0.8 * middle <= wait <= 1.2 * middle, (number, wait))
        self.reply(200)
        self.clock.advance(made.registration.next_try - self.clock.seconds())
        self.reply(403)
        self.assertTrue(24 <= made.registration.next_try - self.clock.seconds() <= 36)

    def test_back_off_spreads(self) -> None:
        """The waits of many bots are not the same, over the whole width."""
        made = self.registrant()
        tokens = self.tokens_of(made)
        waits = []
        for bits in (0, 32767, 65535):
            self.patch(tokens, "bits", lambda _count, bits=bits: bits)
            self.reply(403)
            waits.append(made.registration.next_try - self.clock.seconds())
            made._failures = 0
            self.clock.advance(waits[-1])
        self.request()
        self.assertEqual([round(wait) for wait in waits], [24, 30, 36])

    def tokens_of(self, made: Registrant) -> CountingTokens:
        tokens = made._means.tokens
        assert isinstance(tokens, CountingTokens)
        return tokens

    def test_retry_after(self) -> None:
        """A Retry-After is obeyed from the third refusal on: PBXs send long ones while they start."""
        made = self.registrant()
        waits = []
        for _ in range(3):
            self.reply(503, ("Retry-After", "900 (starting)"))
            waits.append(made.registration.next_try - self.clock.seconds())
            self.clock.advance(waits[-1])
        self.assertTrue(waits[0] <= 36 and waits[1] <= 72 and waits[2] == 900, waits)
        self.request()

    def test_next_place(self) -> None:
        """When a place does not answer within 32 s, or says 503, the next one is asked."""
        self.places = [(FIRST, SECOND)]
        made = self.registrant()
        self.run_for(32)
        self.transport.sent, self.seen = self.transport.sent[-1:], 0
        self.reply(200)
        self.assertEqual(self.flow.remote, ("192.0.2.11", 5060))
        self.assertEqual(made.registration.target, "192.0.2.11:5060 (UDP)")

    def test_nobody(self) -> None:
        """No answer anywhere: unreachable, with the place; later it is looked up anew."""
        made = self.registrant()
        self.run_for(32.25)
        self.assertEqual(made.registration.state, Standing.UNREACHABLE)
        self.assertEqual(made.registration.words, "The PBX does not answer at 192.0.2.10:5060 (UDP).")
        self.run_for(60)
        self.assertEqual(len(self.located), 2)

    def test_no_address(self) -> None:
        """A domain without an address is told in the words of the resolver."""
        self.places = [Unlocated("The PBX pbx.example cannot be found: it has no address.")]
        made = self.registrant()
        self.nothing_sent()
        self.assertEqual(made.registration.words, "The PBX pbx.example cannot be found: it has no address.")
        self.clock.advance(made.registration.next_try)
        self.reply(200)
        self.assertEqual(made.registration.state, Standing.REGISTERED)

    def test_refresh_fails(self) -> None:
        """When a refresh fails the PBX still has us until the granted time is over, and it is told so."""
        made = self.registered()
        self.run_for(made.registration.next_try + 0.125)
        self.reply(500)
        self.assertEqual((made.registration.state, made.registration.until), (Standing.REFUSED, 600))
        self.assertTrue(made.trusts(PBX[0]))

    def test_nothing_granted(self) -> None:
        """A 200 that grants no time is no registration."""
        made = self.registrant()
        request = self.request()
        response = answer(request, 200, headers=[("Contact", f"<{made.contact}>;expires=0")], to_tag="x")
        self.transactions.received(write(response), Flow("UDP", US, PBX))
        self.assertEqual(made.registration.state, Standing.REFUSED)

    def test_strange_answers(self) -> None:
        """Answers that make no sense are a refusal and nothing worse."""
        for code, headers in (
            (401, [("WWW-Authenticate", "Basic realm=x")]),
            (401, []),
            (302, []),
            (302, [("Contact", "<tel:123>")]),
            (200, [("Contact", "<nonsense>")]),
            (699, []),
        ):
            made = self.registrant()
            response = answer(self.request(), code, headers=headers, to_tag="x")
            self.transactions.received(write(response), Flow("UDP", US, PBX))
            self.assertEqual(made.registration.state, Standing.REFUSED, (code, headers))
            made.stop()
            self.run_for(5)
            self.seen = len(self.transport.sent)


class Queued(Rig):
    turn = 3.0

    def test_turn(self) -> None:
        """Who begins when many begin waits for its turn, which people can see."""
        made = self.registrant()
        self.assertEqual((made.registration.state, made.registration.next_try), (Standing.REGISTERING, 3))
        self.run_for(2.875)
        self.nothing_sent()
        self.run_for(0.125)
        self.reply(200)
        self.assertEqual(self.states(), [(0, "registering"), (0, "registering"), (3, "registered")])

    def test_stopped(self) -> None:
        """Stopped before its turn: nothing is sent."""
        made = self.registrant()
        made.stop()
        self.run_for(10)
        self.nothing_sent()
        self.assertEqual(self.left, [made])


class Leaving(Rig):
    def test_sign_off(self) -> None:
        """Stopped while registered: a REGISTER with Expires 0, challenged anew, and then it is over."""
        made = self.registered()
        made.stop()
        request = self.reply(401, ("WWW-Authenticate", CHALLENGE.replace("n1", "n2")))
        self.assertEqual(request.first("expires"), "0")
        self.assertIn(";expires=0", request.first("contact") or "")
        self.reply(200)
        self.assertEqual(self.states()[-2:], [(0, "leaving"), (0, "off")])
        self.assertEqual(self.left, [made])

    def test_unheard(self) -> None:
        """A PBX that does not answer to the sign-off is waited for 4 s."""
        made = self.registered()
        made.stop()
        self.run_for(3.875)
        self.assertEqual(self.left, [])
        self.run_for(0.125)
        self.assertEqual(self.left, [made])

    def test_late_answer(self) -> None:
        """Stopped while the REGISTER is under way: its late 200 changes nothing, the sign-off has its own."""
        made = self.registrant()
        request = self.request()
        made.stop()
        self.transactions.received(write(answer(request, 200, to_tag="x")), Flow("UDP", US, PBX))
        self.assertEqual(made.registration.state, Standing.LEAVING)
        self.reply(200)
        self.assertEqual(made.registration.state, Standing.OFF)

    def test_never_asked(self) -> None:
        """Stopped before the domain was found: nothing is sent."""
        waiting: Deferred[tuple[Target, ...]] = Deferred()
        self.patch(self, "locate", lambda *_: waiting)
        made = self.registrant()
        made.stop()
        self.run_for(0.125)
        self.nothing_sent()
        self.assertEqual(self.left, [made])
        self.assertTrue(waiting.called)


class Complete(Rig):
    """Every input in every state is a transition, or cannot come."""

    CANNOT = {  # noqa: RUF012
        "off": {"located", "again", "redirected", "accepted", "failed", "due"},
        "locating": {"queued", "again", "redirected", "accepted", "due"},
        "registering": {"queued", "located", "due"},
        "registered": {"queued", "located", "again", "redirected", "accepted", "failed"},
        "waiting": {"queued", "located", "again", "redirected", "accepted", "failed"},
        "leaving": {"queued", "located"},
    }

    def into(self, state: str) -> Inputs:
        made = Registrant(Login.of(BOT, "c"), self.means(), self.told.append, self.left.append)
        for name in ("look_up", "register", "sign_off"):
            setattr(made, name, lambda: None)
        self.patch(made, "elsewhere", lambda _why: None)
        self.patch(made, "come_back", lambda _why: 1.0)
        made.hold = lambda: 1.0  # type: ignore[method-assign]
        made.leave = lambda: True  # type: ignore[method-assign]
        machine = _machine(made)
        ways: dict[str, Sequence[str]] = {
            "off": (),
            "locating": ("start",),
            "registering": ("start", "located"),
            "registered": ("start", "located", "accepted"),
            "waiting": ("start", "failed"),
            "leaving": ("start", "stop"),
        }
        for name in ways[state]:
            self.give(machine, name)
        self.made = made
        return machine

    def give(self, machine: Inputs, name: str) -> None:
        order: Callable[..., None] = getattr(machine, name)
        given = {"failed": (Standing.REFUSED, "no"), "broken": ("it is gone",), "queued": (1.0,)}
        order(*given.get(name, ()))

    def test_all(self) -> None:
        """The list of what cannot come is exact."""
        names = [name for name in vars(Inputs) if not name.startswith("_")]
        self.assertEqual(len(names), 10)
        for state, cannot in self.CANNOT.items():
            missing = set()
            for name in names:
                machine = self.into(state)
                try:
                    self.give(machine, name)
                except NoTransition:
                    missing.add(name)
                self.made.timers.enter()
            self.assertEqual(missing, cannot, state)


class Pbx:
    """Our own registrar as the PBX of the other end."""

    def __init__(self, wire: Wire, clock: Clock) -> None:
        self.challenger = Challenger("pbx.example", clock.seconds, b"key", 300)
        self.registrar = Registrar(clock, clock.seconds, 3600, 60)
        self.transactions = Transactions(clock, wire.transport(PBX), CountingTokens(), self)
        wire.end(self.transactions, PBX)

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        username = self.challenger.check(request, transaction.flow.remote[0], {"100": "secret"}.get)
        transaction.respond(self.registrar.register(request, username, transaction.flow))

    def acknowledged(self, request: Request, flow: Flow) -> None:
        raise AssertionError(request)


class TwoEnds(SynchronousTestCase):
    """Registrants and a registrar, both ours, on a wire."""

    def build(self, **wire: Callable[[int], bool]) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock, **wire)
        self.pbx = Pbx(self.wire, self.clock)
        self.tokens = CountingTokens()
        transport = self.wire.transport(US)
        self.transactions = Transactions(self.clock, transport, self.tokens)
        self.wire.end(self.transactions, US)

        def locate(host: str, port: int, transport: str) -> Deferred[tuple[Target, ...]]:
            self.assertEqual((host, port, transport), ("pbx.example", 5080, ""))
            return succeed((Target("UDP", *PBX),))

        means = Means(
            clock=self.clock,
            now=self.clock.seconds,
            tokens=self.tokens,
            transactions=self.transactions,
            transport=transport,
            locate=locate,
            watch=lambda _flow, _gone: lambda: None,
            turn=Pace(self.clock, 50).turn,
            keepalive=0.0,
        )
        self.registrants = Registrants(means, lambda _state: None)
        self.addCleanup(self.finish)

    def finish(self) -> None:
        stopped = self.registrants.stop()
        self.wire.run(5)
        self.successResultOf(stopped)
        self.transactions.stop()
        self.pbx.transactions.stop()
        self.pbx.registrar.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def state(self, bot_id: str = "b1") -> Standing | None:
        found = self.registrants.state(bot_id)
        return found.state if found else None

    def test_a_day(self) -> None:
        """For a day, on a wire that loses and doubles datagrams, there is one binding all the time."""
        self.build(lose=lambda n: n % 5 == 3, repeat=lambda n: n % 7 == 2)
        self.registrants.set("b1", BOT)
        self.wire.run(10)
        for _ in range(24 * 6):
            self.clock.pump([0.5] * 1200)
            [binding] = self.pbx.registrar.bindings("100")
            self.assertIn(contact_user(BOT), binding.contact)
            self.assertEqual(self.state(), Standing.REGISTERED)

    def test_changes(self) -> None:
        """Other settings: signed off and registered anew at once; others that do not matter: nothing; off: gone."""
        self.build()
        self.registrants.set("b1", replace(BOT, password="wrong"))
        self.wire.run(2)
        self.assertEqual(self.state(), Standing.REFUSED)
        self.registrants.set("b1", BOT)
        self.wire.run(5)
        self.assertEqual(self.state(), Standing.REGISTERED)
        count = self.wire.count
        self.registrants.set("b1", replace(BOT, welcome="Hi"))
        self.wire.run(5)
        self.assertEqual(self.wire.count, count)
        self.registrants.set("b1", replace(BOT, enabled=False))
        self.wire.run(5)
        self.assertEqual((self.state(), self.pbx.registrar.all()), (None, ()))
        self.registrants.set("b1", BOT)
        self.registrants.set("b1", None)
        self.registrants.set("b1", BOT)
        self.wire.run(5)
        self.assertEqual(self.state(), Standing.REGISTERED)

    def test_many(self) -> None:
        """Many bots begin at a pace of 50 a second, and do not refresh in step."""
        self.build()
        self.patch(self.pbx.challenger, "check", lambda request, _source, _of: request.to.uri.user)
        self.patch(self.tokens, "bits", Random(7).getrandbits)
        refreshes: list[float] = []
        self.registrants._on_changed = lambda state: (
            refreshes.append(state.next_try) if state.state is Standing.REGISTERED else None
        )
        for number in range(300):
            self.registrants.set(
                f"b{number}", replace(BOT, id=f"b{number}", username=str(number), password=f"x{number}")
            )
        self.clock.pump([0.125] * 60)
        starts = [float(line.split()[0]) for line in self.wire.ladder if line.endswith("REGISTER sip:pbx.example:5080")]
        self.assertEqual((len(starts), len(refreshes)), (300, 300))
        busiest = max(sum(second <= at < second + 1 for at in starts) for second in range(7))
        self.assertLessEqual(busiest, 51)
        busiest = max(sum(second <= at < second + 1 for at in refreshes) for second in range(400, 600))
        self.assertLessEqual(busiest, 20)

    def test_whose(self) -> None:
        """A request for the Contact is the bot's when it comes from the PBX, 403 from elsewhere."""
        self.build()
        bot = replace(BOT, allowed="198.51.100.0/24")
        self.registrants.set("b1", bot)
        self.wire.run(2)
        request = Request("INVITE", f"sip:{contact_user(bot)}@{US[0]}")
        for host in (PBX[0], "198.51.100.77"):
            found = self.registrants.of(request, host)
            assert found is not None
            self.assertEqual(found.login.bot_id, "b1")
        self.assertEqual(self.assertRaises(Refused, self.registrants.of, request, "203.0.113.9").code, 403)
        self.assertIsNone(self.registrants.of(Request("INVITE", "sip:100@192.0.2.1"), PBX[0]))
