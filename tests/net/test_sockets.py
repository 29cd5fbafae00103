"""The sockets, on loopback: SIP datagrams, RTP port pairs, websockets."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import trustme
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from extenbot.errors import Refused
from extenbot.interfaces import Address
from extenbot.net.addresses import advertised, local_toward
from extenbot.net.rtp import REST, RtpPool
from extenbot.net.websocket import WebSockets
from extenbot.settings import Advertised, Rtp
from tests.clock import Clock


def free_range(pairs: int) -> range:
    """A range of ports from an even one on that nobody uses now."""
    for base in range(42000, 60000, 2 * pairs):
        held = []
        try:
            for port in range(base, base + 2 * pairs):
                held.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                held[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return range(base, base + 2 * pairs)
        finally:
            for each in held:
                each.close()
    raise AssertionError("no free ports")


class Heard:
    """An `RtpReceiver` that fires when something comes."""

    def __init__(self) -> None:
        self.audio: Deferred[tuple[bytes, Address]] = Deferred()
        self.control: Deferred[tuple[bytes, Address]] = Deferred()

    def received(self, data: bytes, source: Address, at: float) -> None:
        self.at = at
        self.audio.callback((data, source))

    def received_control(self, data: bytes, source: Address) -> None:
        self.control.callback((data, source))


class Addresses(SynchronousTestCase):
    def test_own_address(self) -> None:
        """The address we tell a peer is the one packets to it leave from."""
        self.assertEqual(local_toward("127.0.0.9"), "127.0.0.1")

    def test_advertised(self) -> None:
        """A peer is told what the settings say, else the interface we are bound to when it can reach that."""
        rules = Advertised(hosts=("203.0.113.5",))
        none = Advertised()
        for settings, interface, peer, told in (
            (rules, "127.0.0.3", "127.0.0.9", "203.0.113.5"),
            (none, "127.0.0.3", "127.0.0.9", "127.0.0.3"),
            (none, "0.0.0.0", "127.0.0.9", "127.0.0.1"),
            (rules, "127.0.0.3", "::1", "::1"),
        ):
            self.assertEqual(advertised(settings, interface, peer), told)


class Rtcp(TestCase):
    def setUp(self) -> None:
        self.settings = Rtp(ports=free_range(3), interface="127.0.0.1")

    async def test_pair(self) -> None:
        """RTP and RTCP arrive on neighbouring ports and are told apart."""
        pool = RtpPool(reactor, self.settings)
        heard = Heard()
        one, other = pool.open(heard, "127.0.0.1"), pool.open(Heard(), "127.0.0.1")
        self.assertEqual((one.address[0], one.address[1] % 2, pool.used), ("127.0.0.1", 0, 2))
        other.send(b"audio", one.address)
        other.send_control(b"control", (one.address[0], one.address[1] + 1))
        self.assertEqual(await heard.control, (b"control", (other.address[0], other.address[1] + 1)))
        self.assertFalse(heard.audio.called)  # it waits until it is asked for, and says when it came
        one.poll()
        self.assertEqual(await heard.audio, (b"audio", other.address))
        self.assertLess(abs(heard.at - time.time()), 5)
        one.close()
        other.close()
        one.close()
        one.poll()
        self.assertEqual(pool.used, 0)

    async def test_ports_rest(self) -> None:
        """A pair that was given back rests; when all are out or resting the caller is refused for now."""
        clock = Clock()
        clock.adoptDatagramPort = reactor.adoptDatagramPort  # type: ignore[attr-defined]
        clock.advance(1)
        pool = RtpPool(clock, self.settings)
        pairs = [pool.open(Heard(), "127.0.0.1") for _ in range(pool.size)]
        pairs[1].close()
        await deferLater(reactor, 0)
        with self.assertRaises(Refused) as caught:
            pool.open(Heard(), "127.0.0.1")
        self.assertEqual(caught.exception.code, 503)
        clock.advance(REST)
        again = pool.open(Heard(), "127.0.0.1")
        self.assertEqual(again.address, pairs[1].address)
        for pair in (*pairs, again):
            pair.close()

    def test_both_ip_versions(self) -> None:
        """Bound to a wild card, a pair is of the peer's IP version and of no other, and so is what the SDP says."""
        settings = replace(
            self.settings, interface="0.0.0.0", advertise=Advertised(hosts=("203.0.113.5", "2001:db8::5"))
        )
        pool = RtpPool(reactor, settings)
        for peer, host, other in (("127.0.0.1", "203.0.113.5", "::1"), ("::1", "2001:db8::5", "127.0.0.1")):
            pair = pool.open(Heard(), peer)
            self.assertEqual(pair.address[0], host)
            with socket.socket(socket.AF_INET6 if ":" in other else socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((other, pair.address[1]))  # the port of the other IP version is not taken
            pair.send(b"x", (peer, 9))
            self.assertEqual(pool.unsent, 0)
            pair.close()

    def test_one_ip_version(self) -> None:
        """Bound to one address, a peer of the other IP version is told so, and no port is lost."""
        pool = RtpPool(reactor, self.settings)
        refused = self.assertRaises(Refused, pool.open, Heard(), "::1")
        self.assertEqual(refused.code, 488)
        self.assertEqual(refused.headers, (("Warning", '301 extenbot "Incompatible network address formats"'),))
        self.assertEqual(pool.used, 0)

    def test_no_ipv6(self) -> None:
        """A machine without IPv6 says so too, and does not try every port."""
        pool = RtpPool(reactor, replace(self.settings, interface="0.0.0.0"))
        tried = []

        def bind(*arguments: object) -> None:
            tried.append(arguments)
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

        self.patch(pool, "_bind", bind)
        self.assertEqual(self.assertRaises(Refused, pool.open, Heard(), "::1").code, 488)
        self.assertEqual((len(tried), pool.used), (1, 0))

    def test_foreign_port(self) -> None:
        """Ports that another program holds are stepped over."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foreign:
            foreign.bind(("127.0.0.1", self.settings.ports[1]))
            pool = RtpPool(reactor, replace(self.settings, ports=self.settings.ports[:4]))
            pair = pool.open(Heard(), "127.0.0.1")
            self.assertEqual(pair.address[1], self.settings.ports[2])
            pair.close()

    def test_order(self) -> None:
        """Which pair comes next is not what it was before a restart: a late caller of then meets nobody of now."""
        settings = Rtp(ports=range(20000, 30000))
        first, second = (list(RtpPool(reactor, settings)._free) for _ in range(2))
        self.assertEqual(sorted(first), sorted(second))
        self.assertNotEqual(first, second)


class Listener:
    """A `LinkListener` that keeps what it is told."""

    def __init__(self, connected: Callable[[], None] = lambda: None) -> None:
        self.opened, self.texts = connected, list[bytes]()
        self.over: Deferred[tuple[bool, int | None, str]] = Deferred()

    def connected(self) -> None:
        self.opened()

    def received(self, text: bytes) -> None:
        self.texts.append(text)

    def lost(self, clean: bool, code: int | None, reason: str) -> None:
        self.over.callback((clean, code, reason))


SEEN: list[str] = []
DEAF: list[Any] = []  # transports that do not read


class Server(WebSocketServerProtocol):
    """Echoes; refuses a wrong key; closes when told `bye`; reads nothing after `deaf`."""

    def onConnect(self, request: Any) -> None:
        SEEN.append(request.headers["user-agent"])
        if request.headers.get("authorization") == "Bearer wrong":
            from autobahn.websocket.types import ConnectionDeny

            raise ConnectionDeny(401, "no")

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if payload == b"bye":
            self.sendClose(4000, "because")
        elif payload == b"deaf":
            DEAF.append(self.transport)
            DEAF[-1].pauseProducing()
        else:
            self.sendMessage(payload, isBinary)


class WebSocket(TestCase):
    def connect(self, listener: Listener, key: str = "right", certificate: PrivateCertificate | None = None) -> Any:
        factory = WebSocketServerFactory()
        factory.protocol = Server
        factory.noisy = False
        listen: Any = reactor
        if certificate is None:
            scheme, host = "ws", "127.0.0.1"
            port = listen.listenTCP(0, factory, interface="127.0.0.1")
        else:
            scheme, host = "wss", "localhost"
            port = listen.listenSSL(0, factory, certificate.options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"{scheme}://{host}:{port.getHost().port}/v1/realtime?model=m"
        return WebSockets(reactor)(url, {"Authorization": f"Bearer {key}"}, listener, 5)

    async def test_echo(self) -> None:
        """Text goes out and comes back; the close code and words of the server arrive."""
        opened: Deferred[None] = Deferred()
        listener = Listener(lambda: opened.callback(None))
        link = self.connect(listener)
        link.send(b"too early")
        await opened
        link.send(b"hello")
        link.send(b"bye")
        self.assertEqual(await listener.over, (True, 4000, "because"))
        self.assertEqual(listener.texts, [b"hello"])
        self.assertIn("extenbot/", SEEN[-1])
        link.send(b"too late")
        link.close()

    async def test_every_size(self) -> None:
        """Messages of every size class of RFC 6455 5.2 arrive as they were sent, and come back."""
        opened: Deferred[None] = Deferred()
        listener = Listener(lambda: opened.callback(None))
        link = self.connect(listener)
        await opened
        sent = [b"x" * size for size in (0, 1, 3, 125, 126, 127, 65535, 65536, 300_000)] + ["žluťoučký".encode()]
        for text in sent:
            link.send(text)
        link.send(b"bye")
        await listener.over
        self.assertEqual(listener.texts, sent)

    def certificate(self, host: str, *, trusted: bool = True) -> PrivateCertificate:
        """A server certificate for `host`, of an authority that this process trusts, or not."""
        authority = trustme.CA()
        if trusted:
            roots = self.mktemp() + ".pem"
            authority.cert_pem.write_to_path(roots)
            self.addCleanup(os.environ.pop, "SSL_CERT_FILE", None)
            os.environ["SSL_CERT_FILE"] = roots  # what OpenSSL asks for the roots of this machine
        made = authority.issue_cert(host)
        pem = made.private_key_pem.bytes() + made.cert_chain_pems[0].bytes()
        certificate: PrivateCertificate = PrivateCertificate.loadPEM(pem)
        return certificate

    async def test_tls(self) -> None:
        """Over TLS messages come and go as they do without."""
        opened: Deferred[None] = Deferred()
        listener = Listener(lambda: opened.callback(None))
        link = self.connect(listener, certificate=self.certificate("localhost"))
        await opened
        sent = [b"hello", b"x" * 300_000]
        for text in sent:
            link.send(text)
        link.send(b"bye")
        self.assertEqual(await listener.over, (True, 4000, "because"))
        self.assertEqual(listener.texts, sent)

    async def test_wrong_certificate(self) -> None:
        """A server that cannot prove its name, or whose authority nobody trusts, gets nothing."""
        for certificate in (self.certificate("localhost", trusted=False), self.certificate("elsewhere.example")):
            listener = Listener()
            link = self.connect(listener, certificate=certificate)
            self.assertEqual((await listener.over)[0], False)
            link.send(b"secret")

    async def test_refused(self) -> None:
        """A refused handshake tells its HTTP status."""
        listener = Listener()
        self.connect(listener, "wrong")
        clean, _code, reason = await listener.over
        self.assertEqual(clean, False)
        self.assertIn("[401]", reason)

    async def test_nobody_there(self) -> None:
        """A port nobody listens on is a loss with words, told once."""
        listener = Listener()
        link = WebSockets(reactor)("ws://127.0.0.1:9/x", {}, listener, 5)
        clean, code, reason = await listener.over
        self.assertEqual((clean, code), (False, None))
        self.assertTrue(reason)
        link.close()

    async def test_given_up(self) -> None:
        """Closing while dialling ends the attempt."""
        listener = Listener()
        link = self.connect(listener)
        link.close()
        self.assertEqual((await listener.over)[0], False)

    async def test_behind(self) -> None:
        """A server that does not read is noticed by what waits."""
        opened: Deferred[None] = Deferred()
        listener = Listener(lambda: opened.callback(None))
        link = self.connect(listener)
        await opened
        self.assertEqual(link.waiting(), 0)
        link.send(b"deaf")
        while not DEAF:
            await deferLater(reactor, 0)
        for _ in range(200):
            link.send(b"x" * 100_000)
        self.assertGreater(link.waiting(), 1_000_000)
        link._protocol.dropConnection(abort=True)
        await listener.over
        DEAF.pop().abortConnection()
        await deferLater(reactor, 0)
