"""Functions and MCP servers as they are kept: checked, sealed, and only with bots of the same account."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from extenbot.errors import Invalid
from extenbot.store.directory import POLL
from tests.store.test_bots import Kept

HOOK = "https://example.org/hook"
MCP = "https://example.org/mcp"
SECRETS = ("bearer-1", "signing-2", "header-3", "mcp-key-4", "mcp-header-5", "hook-token-6", "hook-secret-7")


class Outsiders(Kept):
    """An account with the bot Ada, and another with the bot Zoe."""

    def setUp(self) -> None:
        super().setUp()
        self.ada = self.add()
        self.stranger = self.store.accounts.add("zoe@example.org", "correct horse")
        self.zoe = self.store.bots.add(self.stranger.id, {"name": "Zoe"})
        self.functions, self.servers = self.other.functions, self.other.servers

    def function(self, **values: Any) -> Any:
        return self.functions.add(self.account.id, {"name": "order", "url": HOOK} | values)

    def server(self, **values: Any) -> Any:
        return self.servers.add(self.account.id, {"label": "shop", "url": MCP} | values)

    def wrong(self, call: Any, *arguments: Any, **values: Any) -> dict[str, str]:
        with self.assertRaises(Invalid) as caught:
            call(*arguments, **values)
        return dict(caught.exception.problems)


class FunctionsTest(Outsiders):
    def test_every_field(self) -> None:
        """All that a form sends comes back in its settled form, and an edit changes only what it says."""
        made = self.function(
            token="t", secret="s", kind="webhook", method="put", timeout="2.5", retries="3", result="data.text",
            waiting="One moment.", failure="Sorry.", speak="no", headers="X-Key: 1\r\nX-Other:  two words ",
        )  # fmt: skip
        self.assertEqual((made.method, made.timeout, made.retries, made.speak), ("PUT", 2.5, 3, False))
        self.assertEqual(made.headers, (("X-Key", "1"), ("X-Other", "two words")))
        self.assertEqual(self.store.functions.get(made.id), made)
        edited = self.functions.edit(made.id, {"headers": "x-key:\nX-New: 3", "timeout": ""})
        assert edited is not None
        self.assertEqual((edited.headers, edited.timeout), ((("x-key", "1"), ("X-New", "3")), 10.0))
        self.assertEqual((edited.token, edited.secret, edited.result), ("t", "s", "data.text"))
        self.assertEqual(self.store.functions.get(made.id), edited)
        self.assertIsNone(self.functions.edit("gone", {"name": "x"}))

    def test_every_mistake(self) -> None:
        """What is wrong is told for each field at once, and nothing is kept."""
        problems = self.wrong(
            self.function, name=" ", url="mailto:a@b", token="two words", secret="two words", kind="pigeon",
            method="trace", timeout="0.4", retries="6", result="a..b", headers="Host: x", speak="perhaps",
        )  # fmt: skip
        fields = "name url token secret kind method timeout retries result headers speak"
        self.assertEqual(problems.keys(), set(fields.split()))
        self.assertIn("column", problems["result"])
        self.assertEqual(self.functions.all(), [])

    def test_headers(self) -> None:
        """Headers that would change the request itself, or smuggle another one in, are refused by their line."""
        for text, words in (
            ("X-A: 1\nTransfer-Encoding: chunked", "Line 2: Transfer-Encoding"),
            ("content-length: 3", "content-length is written by"),
            ("connection: close", "connection is written by"),
            ("X A: 1", "Line 1"),
            ("no colon", "Line 1"),
            ("X-A: a\rX-B: b", "printable"),
            ("X-A: 1\nx-a: 2", "twice"),
            ("X-A:", "has no value"),
            ("\n".join(f"X-{number}: 1" for number in range(21)), "At most 20"),
        ):
            self.assertIn(words, self.wrong(self.function, headers=text)["headers"], text)

    def test_schema(self) -> None:
        """A mistake in the schema of the arguments is told with its place; one in the JSON with line and column."""
        text = '{"name": "o", "parameters": {"type": "object", "properties": {"number1": {"type": "nubmer"}}}}'
        self.assertIn("parameters.properties.number1.type", self.wrong(self.function, description=text)["description"])
        self.assertRegex(self.wrong(self.function, description='{\n"name": }')["description"], "line 2")

    def test_one_name(self) -> None:
        """The model can tell the functions of a bot apart, however they come to it, and from the bot's own tools."""
        one, two = self.function(), self.function(name="status")
        self.store.bots.edit(self.ada.id, {"functions": [one.id, two.id]})
        named = {"description": '{"name": "order"}'}
        self.assertIn("order", self.wrong(self.functions.edit, two.id, named)["bot"])
        self.assertEqual(self.functions.get(two.id), two)
        self.functions.edit(two.id, {}, [])
        self.functions.edit(two.id, named)
        wanted = {"functions": [one.id, two.id], "name": "Eva"}
        self.assertIn("order", self.wrong(self.store.bots.edit, self.ada.id, wanted)["functions"])
        self.assertIn("order", self.wrong(self.functions.edit, two.id, {}, [self.ada.id])["bot"])
        found = self.store.bots.get(self.ada.id)
        assert found is not None
        self.assertEqual((found.name, found.functions), ("Ada", (one,)))
        for taken in ("transfer_call", "end_call"):
            self.assertIn("name", self.wrong(self.function, name=taken))
            self.assertIn("description", self.wrong(self.function, name="x", description=f'{{"name": "{taken}"}}'))

    def test_strangers(self) -> None:
        """Nothing of another account can be linked, from either side, and a mistake changes no link."""
        mine = self.function()
        self.functions.edit(mine.id, {}, [self.ada.id])
        theirs = self.store.functions.add(self.stranger.id, {"name": "theirs", "url": HOOK})
        server = self.store.servers.add(self.stranger.id, {"label": "theirs", "url": MCP})
        for field, other in (("functions", theirs), ("servers", server)):
            self.assertIn(field, self.wrong(self.store.bots.edit, self.ada.id, {field: [mine.id, other.id]}))
            self.assertIn(field, self.wrong(self.store.bots.add, self.account.id, {"name": "B", field: [other.id]}))
        self.assertIn("bot", self.wrong(self.functions.edit, mine.id, {}, [self.zoe.id]))
        self.assertIn("bot", self.wrong(self.servers.edit, server.id, {}, [self.ada.id]))
        self.assertIsNone(self.functions.get(theirs.id, self.account.id))
        self.assertIsNone(self.servers.get(server.id, self.account.id))
        self.assertEqual(self.functions.all(self.account.id), [(mine, self.account.id, (self.ada.id,))])
        self.assertEqual(len(self.store.bots.all(self.account.id)), 1)


class ServersTest(Outsiders):
    def test_every_field(self) -> None:
        """All that a form sends comes back, tools separated as one likes; what is not said stays."""
        made = self.server(
            key="k", headers="X-Key: 1", allowed="find, buy\nfind", approval="yes", by="provider", transport="sse",
            timeout="3", wait="0",
        )  # fmt: skip
        self.assertEqual((made.allowed, made.approval, made.wait), (("find", "buy"), True, 0.0))
        self.assertEqual(self.store.servers.get(made.id), made)
        edited = self.servers.edit(made.id, {"allowed": "", "headers": "X-Key:"}, [self.ada.id])
        assert edited is not None
        self.assertEqual((edited.allowed, edited.headers, edited.key), ((), (("X-Key", "1"),), "k"))
        self.assertEqual(self.store.servers.all(), [(edited, self.account.id, (self.ada.id,))])
        self.assertIsNone(self.servers.edit("gone", {}))
        self.assertTrue(self.servers.remove(made.id))
        self.assertFalse(self.servers.remove(made.id))

    def test_every_mistake(self) -> None:
        """What is wrong is told for each field; a label is there once in an account, and free in another."""
        given = {"label": "a b", "url": "ws://x", "key": "a b", "wait": "11", "timeout": "121", "transport": "udp"}
        self.assertEqual(self.wrong(self.server, **given, by="me", allowed="x" * 129).keys(), {*given, "by", "allowed"})
        self.server()
        self.assertIn("label", self.wrong(self.server))
        second = self.server(label="other")
        self.assertIn("label", self.wrong(self.servers.edit, second.id, {"label": "shop"}))
        self.store.servers.add(self.stranger.id, {"label": "shop", "url": MCP})


class KeptTest(Outsiders):
    def test_nothing_in_clear(self) -> None:
        """No secret of a function, an MCP server or a webhook around calls stands in the files of the database."""
        self.function(token=SECRETS[0], secret=SECRETS[1], headers=f"X-Key: {SECRETS[2]}")
        self.server(key=SECRETS[3], headers=f"X-Key: {SECRETS[4]}")
        self.store.bots.edit(self.ada.id, {"hook_token": SECRETS[5], "hook_secret": SECRETS[6]})
        kept = b"".join(path.read_bytes() for path in self.folder.iterdir() if "sqlite3" in path.name)
        self.assertIn(HOOK.encode(), kept)  # so these are the files
        self.assertEqual([secret for secret in SECRETS if secret.encode() in kept], [])

    def test_running(self) -> None:
        """A running service has an edit of a function or a server within a second, and other bots untouched."""
        self.successResultOf(Deferred.fromCoroutine(self.store.start()))
        self.addCleanup(self.store.directory.stop)
        function, server = self.function(), self.server()
        self.other.bots.edit(self.ada.id, {"functions": [function.id], "servers": [server.id]})
        self.reactor.advance(POLL)
        zoe = self.store.directory.by_id(self.zoe.id)
        self.functions.edit(function.id, {"timeout": "3"})
        self.servers.edit(server.id, {"approval": "yes"})
        self.reactor.advance(POLL)
        found = self.store.directory.by_id(self.ada.id)
        assert found is not None
        self.assertLessEqual(POLL, 1)
        self.assertEqual((found.functions[0].timeout, found.servers[0].approval), (3.0, True))
        self.assertIs(self.store.directory.by_id(self.zoe.id), zoe)
        self.functions.remove(function.id)
        self.servers.remove(server.id)
        self.reactor.advance(POLL)
        found = self.store.directory.by_id(self.ada.id)
        assert found is not None
        self.assertEqual((found.functions, found.servers), ((), ()))

    def test_bot_goes(self) -> None:
        """What a removed bot used is kept for the others; what a removed account had goes with it."""
        function, server = self.function(), self.server()
        self.store.bots.edit(self.ada.id, {"functions": [function.id], "servers": [server.id]})
        self.store.bots.remove(self.ada.id)
        self.assertEqual(self.functions.all(), [(function, self.account.id, ())])
        self.assertEqual(self.servers.all(), [(server, self.account.id, ())])
        self.store.accounts.remove(self.account.id)
        self.assertEqual((self.functions.all(), self.servers.all()), ([], []))
