"""MCP servers by other people's code, as processes: the SDK's own server and npm's "everything" server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from extenbot.errors import ToolFailed
from extenbot.interfaces import Exchange, McpServer
from extenbot.net.mcp import Servers
from extenbot.net.mcpsession import Sessions
from tests.need import need
from tests.real.harness import free_port

pytestmark = pytest.mark.real

ROOT = Path(__file__).parent.parent.parent
SERVER = Path(__file__).parent / "mcpserver.py"
reactor: Any = any_reactor


class Case(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.port = free_port()
        self.servers = Servers(reactor, Sessions(lambda _address: True))
        self.addCleanup(self.servers.stop)
        self.noted: list[Exchange] = []

    def start(self, kind: str = "http", *more: str) -> subprocess.Popen[str]:
        """Our peer as a process. It is not there yet when this returns: we are to find it in any case."""
        command = [sys.executable, str(SERVER), kind, str(self.port), *more]
        peer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(self.end, peer)
        return peer

    def end(self, peer: subprocess.Popen[str]) -> None:
        peer.kill()
        peer.wait()
        assert peer.stdout is not None
        peer.stdout.close()

    def server(self, **fields: Any) -> McpServer:
        path = "sse" if fields.get("transport") == "sse" else "mcp"
        url = fields.pop("url", f"http://127.0.0.1:{self.port}/{path}")
        return McpServer("m1", "peer", url, **fields)

    async def until(self, server: McpServer, what: Callable[[set[str]], bool]) -> set[str]:
        """Wait, as a call does, until the known tools are such."""
        while True:
            names = {str(tool["name"]) for tool in self.servers.tools(server)}
            if what(names):
                return names
            changed: Deferred[None] = Deferred()
            end = self.servers.watch(server, lambda done=changed: done.called or done.callback(None))  # type: ignore[misc]
            await changed
            end()

    async def use(self, server: McpServer, name: str, /, **arguments: Any) -> str:
        return await self.servers.call(server, name, arguments, self.noted.append)

    async def refused(self, server: McpServer, name: str, /, **arguments: Any) -> str:
        try:
            said = await self.use(server, name, **arguments)
        except ToolFailed as error:
            return str(error)
        raise AssertionError(said)


class Sdk(Case):
    async def everything(self, server: McpServer) -> None:
        """One round through all the kinds of contents, and the ways in which a use ends."""
        names = await self.until(server, bool)
        self.assertEqual(names, {"add", "weather", "media", "resources", "fail", "slow", "huge", "grow"})
        add = next(tool for tool in self.servers.tools(server) if tool["name"] == "add")
        self.assertEqual(add["description"], "Adds two numbers.")
        self.assertEqual(set(add["parameters"]["properties"]), {"a", "b"})
        self.assertEqual(await self.use(server, "add", a=2, b=3), "5")
        self.assertEqual(json.loads(await self.use(server, "weather", city="Bern")), {"degrees": 4, "sky": "blue"})
        self.assertEqual(await self.use(server, "media"), "[an image, image/png]\n[audio, audio/wav]")
        self.assertEqual(
            await self.use(server, "resources"),
            "menu: https://peer.example/menu\nRing twice.\n[a file, application/pdf: file:///bill.pdf]",
        )
        self.assertEqual(await self.use(server, "huge", size=9000), "x" * 8000 + " … (cut off here)")
        self.assertIn("fail", await self.refused(server, "fail"))
        self.assertIn("unknown", (await self.refused(server, "unknown")).lower())
        self.assertIn("MCP server", await self.refused(server, "huge", size=3_000_000))
        self.assertEqual(await self.use(server, "add", a=1, b=1), "2")
        self.assertEqual({exchange.url for exchange in self.noted}, {server.url})

    async def test_streamable_http(self) -> None:
        """The SDK's server over streamable HTTP: every kind of content is told as text, huge replies are cut off."""
        self.start()
        await self.everything(self.server())

    async def test_stateless(self) -> None:
        """The same of a server that keeps no sessions."""
        self.start("stateless")
        await self.everything(self.server())

    async def test_sse(self) -> None:
        """The same of a server that speaks only the older transport: it is found out, or the owner has said it."""
        self.start("sse")
        await self.everything(self.server(url=f"http://127.0.0.1:{self.port}/sse"))
        await self.everything(self.server(transport="sse"))

    async def test_the_wrong_transport(self) -> None:
        """A server that does not speak the transport that the owner insists on is told as such."""
        self.start("sse")
        await self.until(self.server(transport="sse"), bool)
        server = self.server(transport="http", url=f"http://127.0.0.1:{self.port}/sse")
        self.assertEqual(await self.refused(server, "add"), 'the MCP server "peer" answers with HTTP status 405')

    async def test_tools_change(self) -> None:
        """A server that gets a tool in the middle of a call says so, and the bot has it."""
        self.start()
        server = self.server()
        await self.until(server, bool)
        self.assertEqual(await self.use(server, "grow", name="multiply"), "Grown.")
        await self.until(server, lambda names: "multiply" in names)
        self.assertEqual(await self.use(server, "multiply", a=2, b=3), "5")

    async def test_newer(self) -> None:
        """A server that speaks only MCP of 2026-07-28, without sessions, is used all the same, and tells of changes."""
        self.start("newer")
        server = self.server()
        await self.everything(server)
        self.assertEqual(await self.use(server, "grow", name="multiply"), "Grown.")
        await self.until(server, lambda names: "multiply" in names)
        self.assertEqual(await self.use(server, "multiply", a=2, b=3), "5")

    async def test_side_by_side(self) -> None:
        """A slow tool keeps no other from its result; it is given up in its time, and cancelled on the server."""
        peer = self.start()
        server = self.server(timeout=1.0)
        await self.until(server, bool)
        slow = Deferred.fromCoroutine(self.refused(server, "slow", seconds=50))
        self.assertEqual(await self.use(server, "add", a=2, b=3), "5")
        self.assertEqual(await slow, 'the MCP server "peer" has not answered within 1 second')
        assert peer.stdout is not None
        lines = [await deferToThread(peer.stdout.readline) for _ in range(2)]
        self.assertEqual(lines, ["slow began\n", "slow was cancelled\n"])
        self.assertEqual(await self.use(server, "add", a=2, b=3), "5")

    async def test_down_at_first(self) -> None:
        """A server that comes up later is found; until then a call waits no longer than the owner allows."""
        server = self.server(wait=1.0)
        began = reactor.seconds()
        await self.servers.ready(server)
        self.assertEqual(self.servers.tools(server), ())
        self.assertEqual(await self.refused(server, "add"), 'the MCP server "peer" cannot be reached')
        self.assertLess(reactor.seconds() - began, 4)
        self.start()
        await self.until(server, bool)
        self.assertEqual(await self.use(server, "add", a=2, b=3), "5")

    async def test_gone_and_back(self) -> None:
        """A server that is restarted in the middle of a call is used on, and what it can do now is known."""
        for kind in ("http", "sse"):
            peer = self.start(kind)
            server = self.server(transport="sse" if kind == "sse" else "")
            await self.until(server, bool)
            self.assertEqual(await self.use(server, "add", a=2, b=3), "5")
            self.end(peer)
            self.assertIn("MCP server", await self.refused(server, "add", a=2, b=3))
            self.assertIn("add", {tool["name"] for tool in self.servers.tools(server)})
            self.start(kind, "divide")
            await self.until(server, lambda names: "divide" in names)
            self.assertEqual(await self.use(server, "add", a=2, b=3), "5")
            self.port = free_port()

    async def test_never_waits_longer(self) -> None:
        """`ready` takes no longer than `wait`, of a server that takes connections and says nothing at all."""
        from twisted.internet.protocol import Factory, Protocol

        listening = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        server = self.server(wait=0.5, url=f"http://127.0.0.1:{listening.getHost().port}/mcp")
        began = reactor.seconds()
        await self.servers.ready(server)
        self.assertLess(reactor.seconds() - began, 0.7)
        await self.servers.stop()
        await deferLater(reactor, 0.1, lambda: None)  # the connection is taken down


class Everything(Case):
    """The reference server of the protocol's authors, in TypeScript."""

    def start(self, kind: str = "streamableHttp", *more: str) -> subprocess.Popen[str]:
        server = ROOT / "var/npm/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
        need("npm's server-everything", "sh tests/install.sh", server.exists() and shutil.which("node") is not None)
        command = ["node", str(server), kind, *more]
        environment = {**os.environ, "PORT": str(self.port)}
        peer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        self.addCleanup(self.end, peer)
        return peer

    async def test_streamable_http(self) -> None:
        """All the tools that a bot can use are used, and each has something to say."""
        self.start()
        server = self.server(timeout=10.0)
        names = await self.until(server, bool)
        self.assertIn("echo", names)
        self.assertEqual(await self.use(server, "echo", message="Grüezi"), "Echo: Grüezi")
        self.assertIn("5", await self.use(server, "get-sum", a=2, b=3))
        self.assertIn("[an image, image/png]", await self.use(server, "get-tiny-image"))
        self.assertIn("temperature", await self.use(server, "get-structured-content", location="Chicago"))
        links = await self.use(server, "get-resource-links", count=2)
        self.assertEqual(links.count("demo://"), 2, links)
        words = await self.use(server, "get-resource-reference", resourceType="Text", resourceId=1)
        self.assertIn("demo://", words)
        self.assertIn("MCP", await self.refused(server, "get-sum", a="two", b=3))

    async def test_sse(self) -> None:
        """The same server by the older transport."""
        self.start("sse")
        server = self.server(transport="sse")
        await self.until(server, bool)
        self.assertEqual(await self.use(server, "echo", message="hello"), "Echo: hello")
