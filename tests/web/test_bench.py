"""The bench: functions and tools of MCP servers, tried in the pages."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred, fail

from extenbot.errors import ToolFailed
from extenbot.interfaces import Event, Exchange
from extenbot.web.abilities import EXAMPLE
from extenbot.web.seams import Ran
from tests.store.examples import record
from tests.web.browser import Page
from tests.web.rig import EVIL, Pages
from tests.web.test_functions import MCP, NEW, WEBHOOK

EXCHANGE = Exchange(
    "POST",
    "https://example.org/hook",
    (("X-A", "1"),),
    f'{{"q": "{EVIL}"}}',
    502,
    (("server", EVIL),),
    EVIL,
    0.042,
    EVIL,
)


class Bench(Pages):
    def setUp(self) -> None:
        super().setUp()
        self.mine = self.sign_up()
        self.path = self.mine.send(NEW, **WEBHOOK, description=EXAMPLE["description"], token="hush-hush-hush").location

    def test_samples(self) -> None:
        """The arguments are there already, made from the schema."""
        page = self.mine.get(self.path)
        self.assertEqual(json.loads(page.value("arguments")), {"number1": 1, "number2": 1})

    def test_run(self) -> None:
        """One sees the request and the reply as they were, how long it took, and what the model would get."""
        self.ran = Ran((EXCHANGE,), "It failed: 502 <b>", failed=True, seconds=1.5)
        page = self.mine.send(self.path, arguments='{"number1": 7,}')
        self.assertEqual(self.run_with, [("Weather", {"number1": 7})])
        self.assertEqual((page.code, page.value("arguments")), (200, '{"number1": 7,}'))
        for words in ("It failed", "after 1500 ms", "after 42 ms", "It failed: 502 &lt;b&gt;", "502", "X-A: 1", "POST"):
            self.assertIn(words, page.text)
        self.assertNotIn("<script>alert", page.text)
        self.assertNotIn("hush-hush-hush", page.text)

    def test_wrong_arguments(self) -> None:
        """Arguments that are no JSON object are told with line and column, and nothing runs."""
        page = self.mine.send(self.path, arguments='{\n"a": }')
        self.assertIn("line 2, column 6", page.problem("arguments"))
        self.assertEqual((page.code, page.value("arguments")), (422, '{\n"a": }'))
        self.assertTrue(self.mine.send(self.path, arguments="[1]").problem("arguments"))
        self.assertTrue(self.mine.send(self.path, arguments="[" * 20_000).problem("arguments"))
        self.assertEqual(self.run_with, [])

    def test_trouble(self) -> None:
        """A server that cannot run it says so."""
        self.running = fail(ToolFailed("No functions here."))
        page = self.mine.send(self.path, arguments="{}")
        self.assertIn("No functions here.", page.text)

    def test_one_at_a_time(self) -> None:
        """An account tries one thing at a time; when that has ended the next may run."""
        self.running = Deferred()
        token = self.mine.get(self.path).value("form_token")
        waiting = self.mine.start("POST", self.path, data={"form_token": token, "arguments": "{}"})
        page = self.mine.send(self.path, arguments="{}")
        self.assertIn("tried already", page.text)
        self.assertEqual(len(self.run_with), 1)
        self.running.callback(Ran((), "Late but there."))
        self.running = None
        self.assertIn("Late but there.", self.mine.end(waiting).text)
        self.assertIn("Rain.", self.mine.send(self.path, arguments="{}").text)

    def test_huge_reply(self) -> None:
        """Of a huge reply the beginning is shown."""
        self.ran = Ran((EXCHANGE._replace(reply="x" * 1_000_000),), "x" * 1_000_000)
        self.assertLess(len(self.mine.send(self.path, arguments="{}").text), 60_000)

    def test_others(self) -> None:
        """Nobody runs what belongs to somebody else, nor without the form."""
        other = self.sign_up("me@example.org")
        self.assertEqual(other.get(self.path).code, 404)
        token = other.get(NEW).value("form_token")
        self.assertEqual(other.ask("POST", self.path, data={"form_token": token}).code, 404)
        self.assertEqual(self.mine.ask("POST", self.path, data={}).code, 403)
        self.assertEqual(self.run_with, [])


class Replay(Pages):
    def test_tool(self) -> None:
        """So does each use of a tool of an MCP server that the bot still has."""
        mine = self.sign_up()
        [account] = self.store.accounts.all()
        url = "https://mcp.example.org/mcp"
        path = mine.send("/settings/servers/new", label="office", url=f"{url}?k=secret").location.removesuffix("/run")
        server_id = path.rsplit("/", 1)[-1]
        bot_id = self.a_bot(mine, abilities="yes", **{f"server_{server_id}": "on"}).rsplit("/", 1)[-1]
        body = '{"name": "weather", "arguments": {"city": "Berlin"}}'
        exchange = {"name": "office_weather", "call": "call_1", "method": "MCP", "url": url, "body": body}
        events = (
            Event(1.0, "tool.asked", {"name": "office_weather", "call": "call_1", "arguments": {"city": "Berlin"}}),
            Event(2.0, "tool.exchange", exchange),
            Event(3.0, "tool.exchange", exchange | {"url": "https://gone.example.org/"}),
            Event(4.0, "tool.exchange", exchange | {"body": "{"}),
            Event(5.0, "mcp.called", {"server": "office", "name": "rain", "arguments": '{"city": "Rome"}'}),
            Event(6.0, "mcp.called", {"server": "gone", "name": "rain", "arguments": "{}"}),
            Event(7.0, "mcp.called", {"server": "office", "name": "rain", "arguments": '{"city": '}),
        )
        self.store.calls.write(record(account.id, bot_id, id="c1", events=events))
        shown = mine.get("/calls/c1").text
        self.assertEqual(shown.count("Try it again"), 2)
        page = mine.get(f"{path}/run?call=c1&place=4")  # by the voice service itself
        self.assertIn("rain", page.text)
        self.assertIn("&#34;Rome&#34;", page.text)
        page = mine.get(f"{path}/run?call=c1&place=1")
        self.assertIn("weather", page.text)
        self.assertIn("&#34;city&#34;: &#34;Berlin&#34;", page.text)
        for place in ("0", "2", "3", "5", "6", "9", "-1", "x"):
            self.assertEqual(mine.get(f"{path}/run?call=c1&place={place}").code, 404)

    def test_replay(self) -> None:
        """On the page of a call each function call leads to the bench, with its arguments."""
        mine = self.sign_up()
        [account] = self.store.accounts.all()
        path = mine.send(NEW, **WEBHOOK, description=EXAMPLE["description"]).location.removesuffix("/run")
        function_id = path.rsplit("/", 1)[-1]
        bot_id = self.a_bot(mine, abilities="yes", **{f"function_{function_id}": "on"}).rsplit("/", 1)[-1]
        events = (
            Event(1.0, "tool.asked", {"name": "two_numbers", "call": "call_1", "arguments": {"number1": 3}}),
            Event(2.0, "tool.asked", {"name": "hang_up", "call": "call_2", "arguments": {}}),
        )
        self.store.calls.write(record(account.id, bot_id, id="c1", events=events))
        shown = mine.get("/calls/c1").text
        self.assertEqual(shown.count("Try it again"), 1)
        self.assertIn(f"{path}/run?call=c1&amp;use=call_1", shown)
        page = mine.get(f"{path}/run?call=c1&use=call_1")
        self.assertEqual(json.loads(page.value("arguments")), {"number1": 3})
        self.assertEqual(mine.get(f"{path}/run?call=c1&use=call_9").code, 404)
        other = self.sign_up("me@example.org")
        theirs = other.send(NEW, **WEBHOOK).location
        self.assertEqual(other.get(f"{theirs}?call=c1&use=call_1").code, 404)


class ServerBench(Pages):
    def setUp(self) -> None:
        super().setUp()
        self.mine = self.sign_up()
        self.path = self.mine.send("/settings/servers/new", **MCP, key="abc-key").location
        self.tools = (
            {"name": "echo", "description": EVIL, "parameters": {"type": "object", "properties": {"n": {"const": 5}}}},
            {"name": "broken", "description": 7, "parameters": "?"},
        )

    def tried(self, **fields: str) -> Page:
        return self.mine.send(self.path, **fields)

    def test_tools(self) -> None:
        """A button lists the tools, each with arguments that fit."""
        self.assertIn("List its tools", self.mine.get(self.path).text)
        page = self.tried()
        self.assertIn("&#34;n&#34;: 5", page.text)
        self.assertIn("broken", page.text)
        self.assertNotIn("<script>alert", page.text)
        self.assertNotIn("abc-key", page.text)

    def test_use(self) -> None:
        """One of them is used, and what the model would get is shown."""
        page = self.tried(tool="echo", arguments='{"n": 6}')
        self.assertEqual(self.run_with, [("echo", {"n": 6})])
        self.assertIn("Rain.", page.text)
        self.assertIn("&#34;n&#34;: 6", page.text)
        page = self.tried(tool="echo", arguments="{")
        self.assertIn("line 1", page.problem("arguments"))
        self.assertEqual(len(self.run_with), 1)

    def test_down(self) -> None:
        """A server that is down is told in words."""
        self.tools = ()
        page = self.tried()
        self.assertEqual(page.code, 422)
        self.assertIn("The server cannot be reached.", page.text)
