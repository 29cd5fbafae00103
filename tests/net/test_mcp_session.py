"""Sessions with MCP servers that misbehave: HTTP servers on loopback that the test writes the replies of."""

from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import trustme
from twisted.internet import reactor as any_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.ssl import KeyPair, PrivateCertificate
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from extenbot.errors import ToolFailed
from extenbot.interfaces import Json, McpServer
from extenbot.net.mcpsession import Sessions

reactor: Any = any_reactor
Reply = tuple[int, str, bytes]

GREETING = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}


def tool(name: object, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


class Peer(Resource):
    """An MCP server over HTTP; `replies` has by method what it answers: a result, or status, content type and body."""

    isLeaf = True

    def __init__(self, **replies: Any) -> None:
        super().__init__()
        self.replies = {"initialize": GREETING, "tools/list": {"tools": [tool("buy")]}, **replies}
        self.asked: list[tuple[str, Json]] = []
        self.headers: list[dict[str, str]] = []
        self.location = ""
        self.packed = False

    def render(self, request: Any) -> bytes:
        headers = {
            name.decode().lower(): values[0].decode() for name, values in request.requestHeaders.getAllRawHeaders()
        }
        self.headers.append(headers)
        body = request.content.read()
        message = json.loads(body) if body else {"method": request.method.decode()}
        self.asked.append((message["method"], message.get("params", {})))
        reply = self.replies.get(message["method"], (405, "text/plain", b"") if not body else (202, "", b""))
        if callable(reply):
            reply = reply(message.get("params", {}))
        if not isinstance(reply, tuple) and reply != NOT_DONE_YET:
            reply = (
                200,
                "application/json",
                json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": reply}).encode(),
            )
        if reply == NOT_DONE_YET:
            return cast(bytes, reply)  # Twisted Web's word for: no answer yet
        status, kind, data = reply
        request.setResponseCode(status)
        request.setHeader(b"content-type", kind.encode())
        if 300 <= status < 400:
            request.setHeader(b"location", self.location.encode())
        if self.packed:
            request.setHeader(b"content-encoding", b"gzip")
            data = gzip.compress(data)
        return bytes(data)


def mcpclient() -> Any:
    """The module of the SDK's imports, imported by now."""
    return importlib.import_module("extenbot.net.mcpclient")


class Listener:
    """What a session has told."""

    def __init__(self) -> None:
        self.first: Deferred[tuple[Json, ...] | str] = Deferred()
        self.told: list[tuple[Json, ...] | str] = []

    def listed(self, tools: tuple[Json, ...]) -> None:
        self._tell(tools)

    def lost(self, why: str) -> None:
        self._tell(why)

    def _tell(self, what: tuple[Json, ...] | str) -> None:
        self.told.append(what)
        if len(self.told) == 1:
            self.first.callback(what)


class Case(TestCase):
    timeout = 30

    def serve(self, peer: Peer, tls: Any = None) -> str:
        site = Site(peer)
        options = {"interface": "127.0.0.1"}
        port = reactor.listenSSL(0, site, tls, **options) if tls else reactor.listenTCP(0, site, **options)
        self.addCleanup(port.stopListening)
        return f"{'https' if tls else 'http'}://localhost:{port.getHost().port}/mcp"

    async def open(
        self,
        url: str,
        allowed: Callable[[str], bool] = lambda address: address == "127.0.0.1",
        trust: Path | None = None,
        **fields: Any,
    ) -> tuple[Any, Any]:
        """The session, and the first that it tells: tools, or why there are none."""
        listener = Listener()
        fields.setdefault("transport", "http")
        session = Sessions(allowed, trust)(McpServer("m1", "shop", url, **fields), listener)
        self.addCleanup(lambda: deferLater(reactor, 0.05, lambda: None))  # connections are taken down
        self.addCleanup(session.close)
        return session, await listener.first

    async def why(self, peer: Peer, **fields: Any) -> Any:
        """Why there are no tools."""
        return (await self.open(self.serve(peer), **fields))[1]


class Opening(Case):
    async def test_who_we_are(self) -> None:
        """The server gets the owner's key and headers with each request, and learns what we are."""
        peer = Peer()
        _session, tools = await self.open(self.serve(peer), key="sesame", headers=(("X-Shop", "7"),))
        self.assertEqual([found["name"] for found in tools], ["buy"])
        self.assertEqual({headers["authorization"] for headers in peer.headers}, {"Bearer sesame"})
        self.assertEqual({headers["x-shop"] for headers in peer.headers}, {"7"})
        self.assertEqual(peer.asked[0][1]["clientInfo"]["name"], "extenbot")

    async def test_a_wrong_key(self) -> None:
        """A server that wants another key is told as such; the older transport is not tried with it."""
        peer = Peer(initialize=(401, "text/plain", b"no"))
        self.assertEqual(await self.why(peer, transport=""), "refuses our key (HTTP status 401)")
        self.assertNotIn("GET", [method for method, _params in peer.asked])
        peer = Peer(initialize=(403, "text/html", b"<p>no"))
        self.assertEqual(await self.why(peer), "refuses our key (HTTP status 403)")

    async def test_not_an_mcp_server(self) -> None:
        """Whatever else answers at the URL is told in a sentence, and tried for the older transport when it may be."""
        cases: list[tuple[Any, str]] = [
            ((500, "text/plain", b"oops"), "answers with HTTP status 500"),
            ((404, "text/html", b"<p>nothing here"), "answers with HTTP status 404"),
            ((200, "text/html", b"<p>welcome"), "sends what is not MCP"),
            ((200, "application/json", b"{]"), "sends what is not MCP"),
            ((200, "application/json", b"[" * 9999), "sends what is not MCP"),
            ((200, "application/json", b" " * (1 << 21)), "has sent more than 1 MiB"),
            ((200, "text/event-stream", b"data: " + b"x" * (1 << 21) + b"\n\n"), "has sent more than 1 MiB"),
            ({"protocolVersion": "1999-01-01"}, "sends what is not MCP"),
            ({**GREETING, "protocolVersion": "1999-01-01"}, "sends what is not MCP"),
        ]
        for reply, why in cases:
            self.assertEqual(await self.why(Peer(initialize=reply)), why, str(reply)[:80])
        peer = Peer(initialize=(404, "text/html", b"<p>nothing here"))
        self.assertEqual(await self.why(peer, transport=""), "answers with HTTP status 404")
        self.assertEqual([method for method, _params in peer.asked][-1], "GET")
        page = (200, "text/html", b"<p>welcome")
        ends, refuses = (200, "text/event-stream", b": hello\n\n"), (401, "text/plain", b"")
        endpoint = (200, "text/event-stream", b"event: endpoint\ndata: /messages\n\n")
        older: list[tuple[Any, str]] = [
            (page, "answers with HTTP status 404"),
            ((303, "", b""), "answers with HTTP status 404"),
            (ends, "answers with HTTP status 404"),
            (endpoint, "has broken off the connection"),
            (refuses, "refuses our key (HTTP status 401)"),
        ]
        for reply, why in older:
            peer = Peer(initialize=(404, "text/html", b"<p>nothing here"), GET=reply)
            self.assertEqual(await self.why(peer, transport=""), why, str(reply)[:80])

    async def test_an_impossible_key(self) -> None:
        """A key or header that HTTP cannot carry is told as such, and nothing is sent."""
        peer = Peer()
        for fields in ({"key": "sesame\r\nX: 1"}, {"key": "Sésam\u2764"}, {"headers": (("X y", "1"),)}):
            self.assertEqual(
                await self.why(peer, **fields),
                "cannot be asked: its key and headers may have only characters that HTTP allows",
            )
        self.assertEqual(peer.asked, [])

    async def test_redirects(self) -> None:
        """A redirect to another place is not followed: the key is meant for this one."""
        other = Peer()
        peer = Peer(initialize=(307, "", b""))
        peer.location = self.serve(other).replace("localhost", "127.0.0.1")
        self.assertEqual(
            await self.why(peer, key="sesame"), "redirects elsewhere: its URL must be that of the place itself"
        )
        self.assertEqual(other.asked, [])

    async def test_addresses(self) -> None:
        """No bot reaches an address that the operator has not allowed, by whatever name; one that is, is connected to
        as it was checked."""
        peer = Peer()
        url, asked = self.serve(peer), []

        def never(address: str) -> bool:
            asked.append(address)
            return False

        for host in ("localhost", "127.0.0.1", "127.1", "2130706433"):
            _session, why = await self.open(url.replace("localhost", host), never)
            self.assertRegex(why, r"^is at \S+, which is private: .*\[tools\] allow$")
        self.assertLessEqual({"127.0.0.1"}, set(asked))
        self.assertLessEqual(set(asked), {"127.0.0.1", "::1"})
        self.assertEqual(peer.asked, [])
        _session, why = await self.open("http://nowhere.invalid/mcp")
        self.assertEqual(why, "cannot be found: its host name is not known")
        for url in ("ftp://localhost/", "http://", "nonsense", "http://[::1/", "file:///etc/passwd"):
            _session, why = await self.open(url)
            self.assertIsInstance(why, str, url)

    async def test_tls(self) -> None:
        """A certificate must be of an authority that the system or the operator trusts."""
        authority = trustme.CA()
        made = authority.issue_cert("localhost")
        pem = b"".join((made.private_key_pem.bytes(), *(one.bytes() for one in made.cert_chain_pems)))
        pair = PrivateCertificate.loadPEM(pem)
        self.assertIsInstance(pair.privateKey, KeyPair)
        url = self.serve(Peer(), pair.options())
        _session, why = await self.open(url)
        self.assertIn("has a certificate that is not trusted", why)
        trust = Path(self.mktemp())
        authority.cert_pem.write_to_path(str(trust))
        _session, tools = await self.open(url, trust=trust)
        self.assertEqual([found["name"] for found in tools], ["buy"])
        _session, why = await self.open(url, trust=Path("/nowhere"))
        self.assertIn("[tools] trust", why)


class Starting(SynchronousTestCase):
    def test_nobody_pays_who_has_none(self) -> None:
        """Who uses no MCP server never waits for the import of the SDK, which takes more than half a second."""
        look = "import sys, extenbot.service; print({'mcp', 'mcp_types', 'httpx2', 'pydantic'} & set(sys.modules))"
        found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
        self.assertEqual(found.stdout, "set()\n")


class Listing(Case):
    async def test_broken_tools(self) -> None:
        """A list with broken tools in it loses those only."""
        broken = [tool(7), tool("x", inputSchema="no"), {"name": "y"}, None, "z", tool("w", description=[1])]
        peer = Peer(**{"tools/list": {"tools": [tool("a"), *broken, tool("b", annotations={"readOnlyHint": True})]}})
        _session, tools = await self.open(self.serve(peer))
        self.assertEqual([found["name"] for found in tools], ["a", "b"])
        self.assertEqual((await self.why(Peer(**{"tools/list": {"tools": "none"}}))), "sends what is not MCP")
        without = {**GREETING, "capabilities": {}}
        self.assertEqual(await self.why(Peer(initialize=without)), ())

    async def test_pages(self) -> None:
        """A list in pages is read to its end; one without an end, or of thousands, is not."""

        def page(params: Json) -> Json:
            number = int(params.get("cursor", "0"))
            return {"tools": [tool(f"t{number}")], **({"nextCursor": str(number + 1)} if number < 2 else {})}

        _session, tools = await self.open(self.serve(Peer(**{"tools/list": page})))
        self.assertEqual([found["name"] for found in tools], ["t0", "t1", "t2"])
        endless = Peer(
            **{"tools/list": lambda params: {"tools": [tool("t")], "nextCursor": params.get("cursor", "") + "x"}}
        )
        await self.open(self.serve(endless))
        self.assertLess(len(endless.asked), 25)
        many = Peer(**{"tools/list": {"tools": [tool(f"t{number}") for number in range(9000)], "nextCursor": "more"}})
        _session, tools = await self.open(self.serve(many))
        self.assertEqual((len(tools), len(many.asked)), (512, 3))


class Using(Case):
    async def said(self, reply: Any) -> Any:
        session, _tools = await self.open(self.serve(Peer(**{"tools/call": reply})))
        try:
            return await session.call("buy", {})
        except ToolFailed as error:
            return str(error)

    async def test_what_comes_back(self) -> None:
        """Results that MCP does not know lose what is unknown; what is none at all is told in a sentence."""
        words = {"type": "text", "text": "hello"}
        found = await self.said({"content": [words, {"type": "hologram"}, 7], "isError": True})
        self.assertEqual((found["content"], found["isError"]), ([words], True))
        self.assertEqual(len((await self.said({"content": [words] * 9999}))["content"]), 256)
        self.assertEqual((await self.said({"structuredContent": {"a": 1}}))["structuredContent"], {"a": 1})
        self.assertEqual(await self.said({"content": "text"}), "sends what is not MCP")
        self.assertEqual(await self.said((200, "application/json", b"{]")), "sends what is not MCP")
        self.assertEqual(await self.said((200, "application/json", b" " * (1 << 21))), "has sent more than 1 MiB")
        self.assertEqual(await self.said((500, "text/plain", b"oops")), "answers with HTTP status 500")
        self.assertEqual(await self.said((401, "text/plain", b"")), "refuses our key (HTTP status 401)")
        self.assertEqual(await self.said((202, "", b"")), "sends what is not MCP")
        error = b'{"jsonrpc":"2.0","id":3,"error":{"code":-32602,"message":"Give me\\na name."}}'
        self.assertEqual(await self.said((200, "application/json", error)), "says: Give me a name.")

    async def test_packed(self) -> None:
        """Replies are asked for as they are; what a server packs all the same is not unpacked: it may be a bomb."""
        for kind in ("application/json", "text/event-stream"):
            peer = Peer(**{"tools/call": (200, kind, b'{"a": "' + bytes(1 << 26))})
            session, _tools = await self.open(self.serve(peer))
            self.assertEqual({headers["accept-encoding"] for headers in peer.headers}, {"identity"})
            peer.packed = True
            began = time.process_time()
            with self.assertRaisesRegex(ToolFailed, "sends packed replies"):
                await session.call("buy", {})
            self.assertLess(time.process_time() - began, 5)

    async def test_a_server_that_falls_silent(self) -> None:
        """A tool that was given up makes us look whether the server hears us at all: if not, the session is lost."""
        self.patch(mcpclient(), "ASKED", 0.25)
        lost: Deferred[str] = Deferred()
        for silent in (("tools/call",), ("tools/call", "ping")):
            peer = Peer(**dict.fromkeys(silent, NOT_DONE_YET), **({} if "ping" in silent else {"ping": {}}))
            session, _tools = await self.open(self.serve(peer))
            session._listener.lost = lost.callback
            used = session.call("buy", {})
            await deferLater(reactor, 0.1, used.cancel)
            await self.assertFailure(used, CancelledError)
        self.assertEqual(await lost, "does not answer any more")

    async def test_no_secrets_in_logs(self) -> None:
        """Nothing that the SDK or its HTTP client logs reaches us: it holds addresses, keys and what was said."""
        import logging

        heard = BytesIO()

        class Ear(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                heard.write(self.format(record).encode())

        ear = Ear()
        logging.getLogger().addHandler(ear)
        self.addCleanup(logging.getLogger().removeHandler, ear)
        session, _tools = await self.open(self.serve(Peer(**{"tools/call": {"content": []}})), key="sesame")
        await session.call("buy", {"what": "secret tea"})
        await self.why(Peer(initialize=(200, "application/json", b"{]")))
        await self.why(Peer(initialize=(500, "text/plain", b"")), transport="sse")
        self.assertEqual(heard.getvalue(), b"")
