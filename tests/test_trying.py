"""Functions and tools tried out: what an owner is told of them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import ToolFailed
from extenbot.interfaces import Exchange, Function, Json, McpServer, ToolContext
from extenbot.net.mcp import Servers
from extenbot.trying import CALLER, Bench
from tests.clock import Clock
from tests.net.test_mcp import FakeSession, tool

DESCRIPTION = '{"name": "tides", "parameters": {"type": "object", "required": ["day"], "properties": {"day": {}}}}'
TIDES = Function("f1", "tides", "https://example.org/", description=DESCRIPTION, failure="I cannot see the sea.")
SHOP = McpServer("m1", "shop", "https://shop.example/mcp", allowed=("sell",))


class Tried(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.sessions: list[FakeSession] = []
        self.used: list[tuple[Json, ToolContext]] = []
        self.result: str | ToolFailed = "High."
        self.bench = Bench(self.run_tool, Servers(self.clock, self.opened), self.clock)

    def opened(self, server: McpServer, listener: Any) -> FakeSession:
        self.sessions.append(FakeSession(server, listener))
        return self.sessions[-1]

    async def run_tool(self, _function: Function, arguments: Json, context: ToolContext) -> str:
        self.used.append((arguments, context))
        context.noted(Exchange("POST", "https://example.org/", status=200))
        self.clock.advance(0.25)
        if isinstance(self.result, ToolFailed):
            raise self.result
        return self.result

    def ran(self, **arguments: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(self.bench.try_function(TIDES, arguments)))

    def test_function(self) -> None:
        """The owner sees what went over the line, how long it took and what a model would hear."""
        ran = self.ran(day=1)
        self.assertEqual((ran.heard, ran.failed, ran.seconds, len(ran.exchanges)), ("High.", False, 0.25, 1))
        [(arguments, context)] = self.used
        self.assertEqual((arguments, context.caller), ({"day": 1}, CALLER))
        self.assertTrue(context.key)

    def test_failure(self) -> None:
        """A failure is told as the model is told of it, with the owner's sentence; wrong arguments are not sent."""
        self.result = ToolFailed("the webhook answered with status 500")
        ran = self.ran(day=1)
        words = 'The function failed: the webhook answered with status 500. Say to the caller: "I cannot see the sea."'
        self.assertEqual((ran.heard, ran.failed, len(ran.exchanges)), (words, True, 1))
        ran = self.ran()
        self.assertEqual((ran.failed, len(self.used)), (True, 1))
        self.assertIn("'day' is a required property", ran.heard)

    def test_tools(self) -> None:
        """All tools of a server are listed and can be used, allowed or not; one that cannot be had says why."""
        listing = Deferred.fromCoroutine(self.bench.list_tools(SHOP))
        self.sessions[0].listener.lost("refuses our key (HTTP status 401)")
        words = str(self.failureResultOf(listing, ToolFailed).value)
        self.assertEqual(words, 'The MCP server "shop" refuses our key (HTTP status 401).')
        listing = Deferred.fromCoroutine(self.bench.list_tools(SHOP))
        self.sessions[1].listener.listed((tool("buy"), tool("sell")))
        self.assertEqual([each["name"] for each in self.successResultOf(listing)], ["buy", "sell"])
        using = Deferred.fromCoroutine(self.bench.try_tool(SHOP, "buy", {}))
        [(_, _, answer)] = self.sessions[1].calls
        answer.callback({"content": [{"type": "text", "text": "Bought."}]})
        ran = self.successResultOf(using)
        self.assertEqual((ran.heard, ran.failed, len(ran.exchanges)), ("Bought.", False, 1))
