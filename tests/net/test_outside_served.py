"""Requests to real servers that are slow, huge, endless, broken or somebody else: raw ones on loopback."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import trustme
from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import KeyPair, PrivateCertificate
from twisted.internet.task import LoopingCall, deferLater
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from extenbot import plugins
from extenbot.errors import ToolFailed
from extenbot.interfaces import Exchange, Function, ITool, Reply, ToolContext
from extenbot.net import checked
from extenbot.net.outside import Http
from extenbot.settings import Tools

reactor: Any = any_reactor

GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\ngood"
HERE = (ipaddress.ip_network("127.0.0.1"),)


class Peer(Protocol):
    """One connection to a server: it answers each request with its reply, then goes on with its filling for ever."""

    server: Server

    def connectionMade(self) -> None:
        self.server.peers.append(self)
        self.got = b""
        self.lost: Deferred[None] = Deferred()
        self.filling = LoopingCall(self.fill)
        assert self.transport is not None
        self.transport.write(self.server.greeting)

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        head, blank, body = self.got.partition(b"\r\n\r\n")
        _, found, length = head.lower().partition(b"content-length: ")
        if not blank or (found and len(body) < int(length.split(b"\r\n")[0])):
            return
        self.server.requests.append(self.got)
        self.got = b""
        assert self.transport is not None
        self.transport.write(self.server.reply)
        if self.server.closes:
            self.transport.loseConnection()
        elif self.server.filling and not self.filling.running:
            self.filling.start(self.server.pause)

    def fill(self) -> None:
        assert self.transport is not None
        self.transport.write(self.server.filling)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.filling.running:
            self.filling.stop()
        self.lost.callback(None)


class Server(Factory):
    def __init__(
        self,
        reply: bytes = GOOD,
        *,
        greeting: bytes = b"",
        filling: bytes = b"",
        pause: float = 0.001,
        closes: bool = False,
    ) -> None:
        self.reply, self.greeting = reply, greeting
        self.filling, self.pause, self.closes = filling, pause, closes
        self.peers: list[Peer] = []
        self.requests: list[bytes] = []

    def buildProtocol(self, addr: Any) -> Peer:
        peer = Peer()
        peer.server = self
        return peer


def shows(authority: trustme.CA, *names: str) -> Any:
    made = authority.issue_cert(*names)
    pem = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    return PrivateCertificate.load(pem, KeyPair.load(made.private_key_pem.bytes(), 1), 1).options()


class Case(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.notes: list[Exchange] = []

    def serve(self, server: Server, host: str = "127.0.0.1", tls: Any = None, scheme: str = "") -> str:
        server.noisy = False
        port = (
            reactor.listenSSL(0, server, tls, interface=host) if tls else reactor.listenTCP(0, server, interface=host)
        )
        self.addCleanup(port.stopListening)
        return f"{scheme or ('https' if tls else 'http')}://{host}:{port.getHost().port}"

    def http(self, *, allow: Any = HERE, trust: Path | None = None, **more: Any) -> Http:
        http = Http(reactor, Tools(allow=allow, trust=trust, **more), reactor.seconds)
        self.addCleanup(lambda: deferLater(reactor, 0.02, lambda: None))  # connections are taken down
        self.addCleanup(http.stop)
        return http

    def start(self, url: str, http: Http | None = None, method: str = "POST", **more: Any) -> Any:
        http = http or self.http()
        return Deferred.fromCoroutine(http.fetch("b1", method, url, noted=self.notes.append, **more))

    async def failure(self, url: str, http: Http | None = None, **more: Any) -> str:
        """Why it failed, without who it was."""
        try:
            reply = await self.start(url, http, **more)
        except ToolFailed as error:
            return str(error).partition(" cannot be used: ")[2]
        raise self.failureException(f"there was a reply: {reply[:2]}")

    async def ended(self, server: Server) -> None:
        """All connections to the server are gone."""
        self.assertTrue(server.peers)
        for peer in server.peers:
            await peer.lost.addTimeout(5, reactor)


class Good(Case):
    async def test_kept(self) -> None:
        """One connection carries request after request; what stands in another's way gets one of its own."""
        url, http = self.serve(server := Server()), self.http()
        for _ in range(3):
            self.assertEqual(await self.start(url, http, body=b"{}"), Reply(200, "text/plain", b"good"))
        self.assertEqual((len(server.peers), len(server.requests)), (1, 3))
        await http.stop()
        await self.ended(server)

    async def test_not_kept(self) -> None:
        """A server that closes each time is connected to each time; a GET does not mind that it did not say so."""
        for method, more in (("POST", b"Connection: close\r\n"), ("GET", b"")):
            reply = GOOD.replace(b"\r\n\r\n", b"\r\n" + more + b"\r\n")
            url, http = self.serve(server := Server(reply, closes=True)), self.http()
            for _ in range(2):
                self.assertEqual((await self.start(url, http, method))[0], 200)
            self.assertEqual((len(server.peers), len(server.requests)), (2, 2))

    async def test_large(self) -> None:
        """A megabyte goes out whole."""
        url = self.serve(server := Server())
        await self.start(url, body=b"x" * 1_000_000)
        self.assertEqual(len(server.requests[0].partition(b"\r\n\r\n")[2]), 1_000_000)

    async def test_kinds_of_replies(self) -> None:
        """Chunks, an end by closing, early notes and an empty reply are all fine."""
        for reply, body in (
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ngo\r\n2;x=y\r\nod\r\n0\r\n\r\n", b"good"),
            (b"HTTP/1.0 200 OK\r\n\r\ngood", b"good"),
            (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + GOOD, b"good"),
            (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b""),
            (b"HTTP/1.1 204 None\r\n\r\n", b""),
        ):
            self.assertEqual((await self.start(self.serve(Server(reply, closes=True))))[2], body)


class Streamed(Case):
    async def test_dify(self) -> None:
        """A workflow's stream over a real connection, with pings and long steps, comes to its outputs."""
        step = {"event": "node_finished", "data": {"outputs": {"documents": ["x" * 1000] * 300}}}
        events: list[Any] = [{"event": "workflow_started", "data": {}}, step, step]
        events.append({"event": "workflow_finished", "data": {"status": "succeeded", "outputs": {"text": "Booked."}}})
        blocks = "event: ping\n\n".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
        pieces = [blocks[at : at + 1000] for at in range(0, len(blocks), 1000)]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        url = self.serve(server := Server(head + chunks))
        function = Function("f1", "book", f"{url}/v1", "app-key", kind="dify_workflow", streaming=True)
        (tool,) = [tool for tool in getPlugins(ITool, plugins) if tool.serves(function)]
        context = ToolContext("b1", "c1", "100", noted=self.notes.append)
        self.assertEqual(await tool.run(function, {"day": "Monday"}, context, self.http()), "Booked.")
        self.assertTrue(server.requests[0].startswith(b"POST /v1/workflows/run HTTP/1.1\r\n"))
        self.assertEqual(self.notes[0].status, 200)
        self.assertNotIn("app-key", str(self.notes))


class Slow(Case):
    async def test_no_reply(self) -> None:
        """A server that says nothing is left in time, and its connection is closed."""
        url = self.serve(server := Server(b""))
        began = reactor.seconds()
        self.assertEqual(await self.failure(url, timeout=0.3), "it has not answered within 0.3 seconds")
        self.assertLess(reactor.seconds() - began, 1)
        await self.ended(server)

    async def test_dripping(self) -> None:
        """So is one whose reply never ends, in headers, body or chunks, however busy it is."""
        for reply, filling in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
            (b"HTTP/1.1 200 OK\r\nX-A: ", b"x"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ):
            url = self.serve(server := Server(reply, filling=filling, pause=0.02))
            self.assertEqual(await self.failure(url, timeout=0.2), "it has not answered within 0.2 seconds")
            await self.ended(server)

    async def test_hung_up(self) -> None:
        """When the call ends, the connection is closed at once."""
        url = self.serve(server := Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"))
        deferred = self.start(url)
        deferred.addErrback(lambda _failure: None)
        while not server.requests:
            await deferLater(reactor, 0.01, lambda: None)
        deferred.cancel()
        await self.ended(server)

    async def test_unanswered_connect(self) -> None:
        """A server that does not take connections costs no more than its time."""
        self.patch(checked, "CONNECTING", 0.2)
        url = "http://127.0.0.1:1"
        self.assertIn("it cannot be reached: connection was refused", await self.failure(url))


class Huge(Case):
    async def endless(
        self, reply: bytes, filling: bytes, words: str, tls: Any = None, http: Http | None = None
    ) -> None:
        url = self.serve(server := Server(reply, filling=filling), tls=tls)
        self.assertEqual(await self.failure(url, http, timeout=10), words)
        await self.ended(server)

    async def test_bodies(self) -> None:
        """A reply without end is left when it is too large, whatever it announced, and the server notices."""
        for head in (b"Content-Length: 99999999999", b"X: y", b"Transfer-Encoding: chunked"):
            filling = b"20000\r\n%s\r\n" % (b"x" * 131072)
            await self.endless(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n" % head, filling, "its reply is larger than 256 KiB")

    async def test_headers(self) -> None:
        """Headers, chunks without anything in them and early notes without end are left, too."""
        words = "it sends more than any reply may have"
        for reply, filling in (
            (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 10_000),
            (b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 5_000),
        ):
            await self.endless(reply, filling, words)

    async def test_many_headers(self) -> None:
        """Long headers and early notes, as servers really send them, leave all of the reply's own room."""
        notes = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" * 20
        headers = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 1000) for n in range(50))
        body = bytes(262_144)
        url = self.serve(Server(notes + b"HTTP/1.1 200 OK\r\n%sContent-Length: 262144\r\n\r\n" % headers + body))
        self.assertEqual(len((await self.start(url))[2]), 262_144)

    async def test_one_header(self) -> None:
        """One header without end is no header."""
        url = self.serve(server := Server(b"HTTP/1.1 200 OK\r\nX-A: ", filling=b"x" * 100_000))
        self.assertIn("it", await self.failure(url, timeout=5))
        await self.ended(server)


class Broken(Case):
    async def test_replies(self) -> None:
        """What is no HTTP, or breaks off, is said to be that; nothing of it is taken for a reply."""
        for reply in (
            b"",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\ngood",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\ngood",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\ngood\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n",
            b"HTTP/1.1 200 OK\r\nX-A: half",
            b"\0\xff" * 1000,
        ):
            url = self.serve(Server(reply, closes=True))
            self.assertEqual(await self.failure(url, timeout=2), "it has broken off the connection", reply[:60])

    async def test_again(self) -> None:
        """A GET is tried again when the connection broke, a POST never."""
        for method, tries in (("GET", 2), ("POST", 1)):
            url = self.serve(server := Server(b"", closes=True))
            await self.failure(url, method=method, retries=1, key="k")
            self.assertEqual(len(server.requests), tries)


class Elsewhere(Case):
    async def test_forbidden(self) -> None:
        """A redirect to an address that is not allowed goes nowhere: nobody connects there."""
        inner = Server()
        place = self.serve(inner, "127.0.0.2")
        for target in (place, place.replace("127.0.0.2", "[::ffff:127.0.0.2]"), place.replace("127.0.0.2", "127.2")):
            reply = f"HTTP/1.1 307 Go\r\nContent-Length: 0\r\nLocation: {target}/\r\n\r\n".encode()
            words = await self.failure(self.serve(Server(reply)), body=b"{}")
            self.assertRegex(words, r"^its address \S+ is private: the operator can name it in the setting")
        self.assertEqual(inner.peers, [])

    async def test_not_allowed(self) -> None:
        """Without a word of the operator nobody on this machine is called, by any spelling."""
        url = self.serve(server := Server())
        port = url.rpartition(":")[2]
        http = self.http(allow=())
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::ffff:7f00:1]", "0", "①②⑦.0.0.1"):
            words = await self.failure(f"http://{host}:{port}/", http)
            self.assertRegex(words, r"is private|not known", host)
        self.assertEqual(server.peers, [])


class Certified(Case):
    def setUp(self) -> None:
        super().setUp()
        self.authority = trustme.CA()
        self.trust = Path(self.mktemp())
        self.trust.write_bytes(self.authority.cert_pem.bytes())

    def certificate(self, *names: str) -> Any:
        return shows(self.authority, *names)

    async def test_trusted(self) -> None:
        """A server of the operator's own authority is called, its connection kept."""
        url = self.serve(server := Server(), tls=self.certificate("127.0.0.1"))
        http = self.http(trust=self.trust)
        for _ in range(2):
            self.assertEqual((await self.start(url, http, body=b"{}", token="t"))[2], b"good")
        self.assertEqual(len(server.peers), 1)

    async def test_refused(self) -> None:
        """Who proves to be somebody else, or nobody that we trust, gets no request, and the owner reads why."""
        for certificate, words in (
            (self.certificate("other.example.com"), "its certificate is not for 127.0.0.1 but for other.example.com"),
            (self.certificate("127.0.0.2"), "its certificate is not for 127.0.0.1 but for 127.0.0.2"),
            (shows(trustme.CA(), "127.0.0.1"), r"its certificate is .*\(the setting \[tools\] trust"),
        ):
            url = self.serve(server := Server(), tls=certificate)
            found = await self.failure(url, self.http(trust=self.trust), token="t", method="GET", retries=3)
            self.assertRegex(found, words)
            self.assertEqual((server.requests, len(server.peers)), ([], 1))

    async def test_untrusted(self) -> None:
        """Without that authority the very same server is refused."""
        url = self.serve(server := Server(), tls=self.certificate("127.0.0.1"))
        self.assertIn("[tools] trust", await self.failure(url))
        self.assertEqual(server.requests, [])

    async def test_no_tls(self) -> None:
        """A server that speaks no TLS where it should is broken, and hears nothing of the request."""
        url = self.serve(server := Server(greeting=b"SSH-2.0-OpenSSH_9.2\r\n"), scheme="https")
        self.assertIn("it has broken off the connection", await self.failure(url, token="secret", timeout=2))
        self.assertNotIn(b"secret", b"".join(peer.got for peer in server.peers))

    async def test_endless(self) -> None:
        """Also over TLS an endless reply ends at once: there is no goodbye to wait for."""
        filling = b"x" * 131072
        url = self.serve(
            server := Server(b"HTTP/1.1 200 OK\r\n\r\n", filling=filling), tls=self.certificate("127.0.0.1")
        )
        words = await self.failure(url, self.http(trust=self.trust))
        self.assertEqual(words, "its reply is larger than 256 KiB")
        await self.ended(server)

    async def test_in_small_pieces(self) -> None:
        """However fast a server sends, over TLS or not, audio has its turn after each small piece."""
        sizes: list[int] = []
        received = checked._Line.dataReceived

        def noted(line: Any, data: bytes) -> None:
            sizes.append(len(data))
            received(line, data)

        self.patch(checked._Line, "dataReceived", noted)
        for tls in (None, shows(self.authority, "127.0.0.1")):
            url = self.serve(Server(GOOD.replace(b" 4\r\n", b" 200004\r\n") + bytes(200_000)), tls=tls)
            self.assertEqual(len((await self.start(url, self.http(trust=self.trust)))[2]), 200_004)
            self.assertLessEqual(max(sizes), 16384)  # a record of TLS is a whole

    async def test_downgrade(self) -> None:
        """No redirect leads from https to http, wherever to."""
        plain = self.serve(other := Server())
        reply = f"HTTP/1.1 308 Go\r\nContent-Length: 0\r\nLocation: {plain}/\r\n\r\n".encode()
        url = self.serve(Server(reply), tls=self.certificate("127.0.0.1"))
        self.assertEqual(await self.failure(url, self.http(trust=self.trust)), "it redirects from https to http")
        self.assertEqual(other.peers, [])
