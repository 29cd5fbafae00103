"""MCP servers, each by one warm session: with sessions that the test plays, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import ToolFailed
from extenbot.interfaces import Exchange, Json, McpServer
from extenbot.net.mcp import IDLE, OPENING, Servers, SessionListener, Stale
from tests.clock import Clock

SHOP = McpServer("m1", "shop", "https://shop.example/mcp", key="sesame", headers=(("X-Shop", "hidden"),))


def tool(name: str) -> Json:
    return {"name": name, "description": f"Does {name}.", "inputSchema": {"type": "object", "properties": {}}}


class FakeSession:
    """A session that the test plays."""

    def __init__(self, server: McpServer, listener: SessionListener) -> None:
        self.server, self.listener = server, listener
        self.closed = False
        self.calls: list[tuple[str, Json, Deferred[Json]]] = []
        self.cancelled: list[str] = []

    def call(self, name: str, arguments: Json) -> Deferred[Json]:
        answer: Deferred[Json] = Deferred(lambda _answer: self.cancelled.append(name))
        self.calls.append((name, arguments, answer))
        return answer

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.sessions: list[FakeSession] = []
        self.servers = Servers(self.clock, self.opened)
        self.noted: list[Exchange] = []

    def opened(self, server: McpServer, listener: SessionListener) -> FakeSession:
        self.sessions.append(FakeSession(server, listener))
        return self.sessions[-1]

    def use(self, name: str = "buy", server: McpServer = SHOP, **arguments: Any) -> Deferred[str]:
        return Deferred.fromCoroutine(self.servers.call(server, name, arguments, self.noted.append))

    def names(self, server: McpServer = SHOP) -> list[str]:
        return [str(found["name"]) for found in self.servers.tools(server)]

    def told(self, server: McpServer = SHOP) -> tuple[list[list[str]], Callable[[], None]]:
        """What a watching call sees each time it is told, and what ends that."""
        seen: list[list[str]] = []
        return seen, self.servers.watch(server, lambda: seen.append(self.names(server)))


class Knowing(Case):
    def test_asking_opens_one_session_for_all(self) -> None:
        """Many calls ask for a server's tools: it is connected to once, and each has them at once from then on."""
        self.assertEqual(self.names(), [])
        self.sessions[0].listener.listed((tool("buy"), tool("sell")))
        self.assertEqual(self.names(), ["buy", "sell"])
        self.assertEqual(self.servers.tools(SHOP)[0]["parameters"], {"type": "object", "properties": {}})
        self.assertEqual(len(self.sessions), 1)

    def test_only_allowed_tools(self) -> None:
        """Of the tools the owner has named only those are offered; another bot's choice shares the session."""
        some = replace(SHOP, allowed=("sell",))
        self.servers.tools(SHOP)
        self.sessions[0].listener.listed((tool("buy"), tool("sell")))
        self.assertEqual((self.names(), self.names(some)), (["buy", "sell"], ["sell"]))
        self.assertEqual(len(self.sessions), 1)
        failure = self.failureResultOf(self.use("buy", some), ToolFailed)
        self.assertEqual(failure.getErrorMessage(), 'the tool "buy" is not among those that are allowed')

    def test_ready_when_listed(self) -> None:
        """A call that waits for the tools goes on as soon as they are there."""
        ready = self.servers.ready(SHOP)
        self.assertNoResult(ready)
        self.sessions[0].listener.listed(())
        self.successResultOf(ready)
        self.successResultOf(self.servers.ready(SHOP))

    def test_ready_after_the_wait(self) -> None:
        """No call is answered later than the owner allows for a server that says nothing."""
        ready = self.servers.ready(SHOP)
        self.clock.advance(SHOP.wait - 0.125)
        self.assertNoResult(ready)
        self.clock.advance(0.125)
        self.successResultOf(ready)

    def test_ready_when_it_has_failed(self) -> None:
        """Nobody waits for a server that is down, neither at its first failure nor while it is tried again."""
        ready = self.servers.ready(SHOP)
        self.sessions[0].listener.lost("cannot be reached")
        self.successResultOf(ready)
        self.successResultOf(self.servers.ready(SHOP))
        self.clock.advance(1)
        self.assertEqual(len(self.sessions), 2)
        self.successResultOf(self.servers.ready(SHOP))

    def test_listed(self) -> None:
        """Who tries a server out is told its tools, or why there are none, of an attempt that is made at once."""
        first = Deferred.fromCoroutine(self.servers.all_tools(SHOP, 10))
        self.sessions[0].listener.lost("cannot be reached")
        words = str(self.failureResultOf(first, ToolFailed).value)
        self.assertEqual(words, 'The MCP server "shop" cannot be reached.')
        second = Deferred.fromCoroutine(self.servers.all_tools(SHOP, 10))  # long before the next attempt was due
        self.sessions[1].listener.listed((tool("buy"),))
        self.assertEqual([found["name"] for found in self.successResultOf(second)], ["buy"])
        some = replace(SHOP, allowed=("sell",))
        again = self.successResultOf(Deferred.fromCoroutine(self.servers.all_tools(some, 10)))
        self.assertEqual((len(again), len(self.sessions)), (1, 2))
        self.sessions[1].listener.listed(())
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.servers.all_tools(SHOP, 10))), ())
        silent = Deferred.fromCoroutine(self.servers.all_tools(replace(SHOP, id="m2"), 10))
        self.clock.advance(10)
        self.assertIn("has not answered within 10 seconds", str(self.failureResultOf(silent, ToolFailed).value))

    def test_watchers_are_told_of_what_concerns_them(self) -> None:
        """A call hears of new tools while it goes on, not of those it may not use, and not once it has ended."""
        all_seen, end = self.told()
        some_seen, _ = self.told(replace(SHOP, allowed=("sell",)))
        listener = self.sessions[0].listener
        listener.listed((tool("sell"),))
        listener.listed((tool("sell"), tool("buy")))
        self.assertEqual((all_seen, some_seen), ([["sell"], ["sell", "buy"]], [["sell"]]))
        end()
        end()
        listener.listed(())
        self.assertEqual((len(all_seen), some_seen[1:]), (2, [[]]))


class Using(Case):
    def test_what_it_says(self) -> None:
        """The bot uses a tool, hears its text, and the owner can read of it, without secrets."""
        shop = replace(SHOP, url="https://me:hidden@shop.example/mcp?key=hidden#hidden")
        self.servers.tools(shop)
        self.sessions[0].listener.listed((tool("buy"),))
        used = self.use(server=shop, what="tea")
        name, arguments, answer = self.sessions[0].calls[0]
        self.assertEqual((name, arguments), ("buy", {"what": "tea"}))
        self.clock.advance(0.25)
        answer.callback({"content": [{"type": "text", "text": "Bought."}]})
        self.assertEqual(self.successResultOf(used), "Bought.")
        body = '{"name": "buy", "arguments": {"what": "tea"}}'
        self.assertEqual(self.noted, [Exchange("MCP", SHOP.url, body=body, reply="Bought.", seconds=0.25)])
        self.assertNotIn("sesame", repr(self.noted))
        self.assertNotIn("hidden", repr(self.noted))

    def test_what_it_says_of_an_error(self) -> None:
        """A tool that failed tells the bot why in its own words, and the owner."""
        used = self.use()
        self.sessions[0].listener.listed(())
        self.sessions[0].calls[0][2].callback({"content": [{"type": "text", "text": "Sold out."}], "isError": True})
        self.assertEqual(self.failureResultOf(used, ToolFailed).getErrorMessage(), "Sold out.")
        self.assertEqual((self.noted[0].reply, self.noted[0].trouble), ("", "Sold out."))

    def test_it_waits_for_the_session(self) -> None:
        """A tool used before the server is connected waits for it, and hears why when that fails."""
        used = self.use()
        self.assertNoResult(used)
        self.sessions[0].listener.lost("cannot be reached")
        words = 'the MCP server "shop" cannot be reached'
        self.assertEqual(self.failureResultOf(used, ToolFailed).getErrorMessage(), words)
        self.assertEqual(self.noted[0].trouble, words)

    def test_in_its_time(self) -> None:
        """A tool that says nothing is given up in the time the owner gave it, and the server is told."""
        self.servers.tools(SHOP)
        self.sessions[0].listener.listed((tool("buy"),))
        used = self.use()
        self.clock.advance(SHOP.timeout)
        words = 'the MCP server "shop" has not answered within 20 seconds'
        self.assertEqual(self.failureResultOf(used, ToolFailed).getErrorMessage(), words)
        self.assertEqual(self.sessions[0].cancelled, ["buy"])
        self.assertFalse(self.sessions[0].closed)

    def test_in_flight(self) -> None:
        """However many tools are asked for at once, a server has a few to do at a time; who gives up waiting is out."""
        self.servers = Servers(self.clock, self.opened, 2)
        used = [self.use(name) for name in ("a", "b", "c", "d")]
        self.sessions[0].listener.listed(())
        self.assertEqual([name for name, *_ in self.sessions[0].calls], ["a", "b"])
        used[2].cancel()
        self.failureResultOf(used[2], CancelledError)
        self.sessions[0].calls[0][2].callback({"content": []})
        self.assertEqual([name for name, *_ in self.sessions[0].calls], ["a", "b", "d"])
        self.clock.advance(SHOP.timeout)
        for each in (used[1], used[3]):
            self.failureResultOf(each, ToolFailed)
        self.use("e")
        self.assertEqual(self.sessions[0].calls[-1][0], "e")

    def test_cancelled(self) -> None:
        """When the caller hangs up a running tool is cancelled on its server."""
        self.servers.tools(SHOP)
        self.sessions[0].listener.listed((tool("buy"),))
        used = self.use()
        used.cancel()
        self.failureResultOf(used)
        self.assertEqual(self.sessions[0].cancelled, ["buy"])
        self.assertEqual(self.noted[0].trouble, "the call of the tool was cancelled")
        waiting = self.use(server=replace(SHOP, id="m2"))
        waiting.cancel()
        self.failureResultOf(waiting)
        self.sessions[1].listener.lost("is gone")

    def test_a_forgotten_session(self) -> None:
        """The server was restarted and knows our session no more: the tool is used again, in a new one, once."""
        self.servers.tools(SHOP)
        self.sessions[0].listener.listed((tool("buy"),))
        used = self.use()
        self.sessions[0].listener.lost("has ended our session")
        self.sessions[0].calls[0][2].errback(Stale("has ended our session"))
        self.assertEqual(len(self.sessions), 2)
        self.sessions[1].listener.listed((tool("buy"),))
        self.sessions[1].calls[0][2].callback({"content": [{"type": "text", "text": "Bought."}]})
        self.assertEqual(self.successResultOf(used), "Bought.")


class Lasting(Case):
    def test_tried_again_after_growing_pauses(self) -> None:
        """A server that is down is tried again after 1, 2, 4 … 60 seconds for as long as a call wants it."""
        _seen, end = self.told()
        pauses = []
        for _ in range(9):
            self.sessions[-1].listener.lost("cannot be reached")
            before, start = len(self.sessions), self.clock.seconds()
            while len(self.sessions) == before:
                self.clock.advance(1)
            pauses.append(self.clock.seconds() - start)
        self.assertEqual(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60])
        end()
        self.sessions[-1].listener.lost("cannot be reached")
        self.clock.pump([60] * 30)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone_and_back(self) -> None:
        """While a server is away its tools stay known, their use is tried at once, and what has changed is told."""
        seen, _ = self.told()
        self.sessions[0].listener.listed((tool("buy"),))
        self.sessions[0].listener.lost("has broken off the connection")
        self.assertEqual(self.names(), ["buy"])
        used = self.use()
        self.assertEqual(len(self.sessions), 2)
        self.sessions[1].listener.lost("cannot be reached")
        self.failureResultOf(used, ToolFailed)
        self.clock.advance(2)
        self.sessions[2].listener.listed((tool("buy"),))
        self.assertEqual(seen, [["buy"]])
        self.sessions[2].listener.lost("has broken off the connection")
        self.clock.advance(4)
        self.sessions[3].listener.listed((tool("buy"), tool("sell")))
        self.assertEqual(seen, [["buy"], ["buy", "sell"]])

    def test_asked_again_at_once(self) -> None:
        """A call that hears of the failure asks again at once: one attempt is under way, not two."""
        used = self.use()
        used.addErrback(lambda failure: (failure.trap(ToolFailed), self.names()))
        self.sessions[0].listener.lost("cannot be reached")
        self.assertEqual(len(self.sessions), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.sessions), 2)
        self.successResultOf(self.servers.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_session_that_never_opens(self) -> None:
        """A server that takes the connection and says nothing is given up, and tried again."""
        self.told()
        self.clock.advance(OPENING)
        self.assertTrue(self.sessions[0].closed)
        self.sessions[0].listener.listed((tool("buy"),))  # too late
        self.assertEqual(self.names(), [])
        self.clock.advance(1)
        self.assertEqual(len(self.sessions), 2)

    def test_closed_without_use(self) -> None:
        """After ten minutes without use a session is closed; its tools are there at once for the next call."""
        seen, end = self.told()
        self.sessions[0].listener.listed((tool("buy"),))
        self.clock.pump([60] * 30)
        self.assertFalse(self.sessions[0].closed)
        end()
        self.clock.advance(IDLE - 0.125)
        self.assertFalse(self.sessions[0].closed)
        self.clock.advance(0.125)
        self.assertTrue(self.sessions[0].closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.names(), ["buy"])
        self.assertEqual((len(self.sessions), len(seen)), (2, 1))

    def test_new_settings(self) -> None:
        """With another key the old session is closed: at once, or when the calls that use it have ended."""
        self.servers.tools(SHOP)
        self.sessions[0].listener.listed((tool("buy"),))
        newer = replace(SHOP, key="other")
        self.servers.tools(newer)
        self.assertTrue(self.sessions[0].closed)
        _seen, end = self.told(newer)
        self.sessions[1].listener.listed((tool("sell"),))
        newest = replace(SHOP, headers=())
        self.servers.tools(newest)
        self.assertEqual((self.sessions[1].closed, self.names(newer)), (False, ["sell"]))
        end()
        self.assertTrue(self.sessions[1].closed)
        self.assertFalse(self.sessions[2].closed)
        self.servers.tools(replace(newest, allowed=("x",), wait=3.0, timeout=4.0, label="other"))
        self.assertEqual(len(self.sessions), 3)

    def test_many_servers(self) -> None:
        """Servers that nobody uses any more do not fill the memory."""
        for number in range(400):
            server = replace(SHOP, id=f"m{number}")
            self.servers.tools(server)
            self.sessions[-1].listener.listed((tool("buy"),))
        self.clock.advance(IDLE)
        self.servers.tools(SHOP)
        self.assertLessEqual(len(self.servers._warm), 257)
        self.assertEqual(len(self.servers._latest), len(self.servers._warm))

    def test_stopping(self) -> None:
        """When the service ends all sessions are closed, and none is opened any more."""
        self.told()
        self.servers.tools(replace(SHOP, id="m2"))
        self.sessions[0].listener.listed((tool("buy"),))
        used = self.use(server=replace(SHOP, id="m2"))
        self.successResultOf(self.servers.stop())
        self.failureResultOf(used, ToolFailed)
        self.assertEqual([session.closed for session in self.sessions], [True, True])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.names(), [])
        self.successResultOf(self.servers.ready(SHOP))
        words = self.failureResultOf(self.use(), ToolFailed).getErrorMessage()
        self.assertEqual((words, len(self.sessions)), ("the service is ending", 2))
