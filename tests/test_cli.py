"""The `extenbot` command, as it is typed."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from extenbot import toolroom
from extenbot.cli import main
from extenbot.interfaces import Event, Registration, Standing
from extenbot.media import g711
from extenbot.settings import Settings
from extenbot.store.accounts import Accounts
from extenbot.store.calls import Calls
from extenbot.store.database import Database
from extenbot.store.registrations import Registrations
from extenbot.web import wav
from extenbot.web.seams import Ran
from tests.store.examples import record
from tests.store.inline import new_folder


class Command(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.config = self.folder / "extenbot.toml"
        self.config.write_text('domain = "voice.example.org"\ndata = "var"\n')
        self.patch(sys, "stdin", io.StringIO("correct horse\n"))

    def run_it(self, *words: str, config: bool = True) -> tuple[int, str, list[str]]:
        """The exit code, what was printed, and the lines on standard error."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words, *(["--config", str(self.config)] if config else [])])
        return code, out.getvalue(), err.getvalue().splitlines()

    def good(self, *words: str) -> Any:
        """The JSON of a command that works."""
        code, out, err = self.run_it(*words, "--json")
        self.assertEqual((code, err), (0, []))
        return json.loads(out)

    def bad(self, *words: str) -> list[str]:
        """The lines of a command that does not."""
        code, out, err = self.run_it(*words)
        self.assertEqual((code, out), (1, ""))
        self.assertTrue(all(line.startswith("extenbot: ") for line in err), err)
        return err

    def test_registrant(self) -> None:
        """A bot that registers at a PBX has options of its own, and shows how it stands; mistakes are all told."""
        self.good("account", "add", "you@example.org")
        given = ("--type", "registrant", "--username", "100", "--password", "secret", "--domain", "pbx.example")
        bot = self.good(
            "bot", "add", "--name", "Ada", *given, "--port", "5080", "--auth-id", "login", "--expires", "120"
        )
        self.assertEqual((bot["port"], bot["auth_id"], bot["expires"]), (5080, "login", 120))
        self.assertEqual(bot["registration"], [])
        database = Database(Settings(data=self.folder / "var"))
        self.addCleanup(database.close)
        words = "The PBX refuses: 403 Forbidden."
        Registrations(database).write(Registration(bot["id"], Standing.REFUSED, 1_900_000_000.0, words))
        self.assertEqual(self.good("bot", "show", "Ada")["registration"][0]["words"], words)
        self.assertIn(words, self.run_it("bot", "show", "Ada")[1])
        later = Registration(bot["id"], Standing.UNREACHABLE, 1_900_000_000.0, "No.", next_try=4_000_000_000.0)
        Registrations(database).write(later)
        text = self.run_it("bot", "show", "Ada")[1]
        self.assertRegex(text, r"unreachable  No\.  next try 2096-10-0\d")
        self.assertLess(text.index("unreachable"), text.index("refused"))
        lines = self.bad("bot", "edit", "Ada", "--allowed", "0.0.0.0/0", "--transport", "pigeon", "--port", "x")
        self.assertEqual(len(lines), 3)

    def test_trusted(self) -> None:
        """Addresses that need no password: repeated, replaced, cleared, with a warning in words; never everybody."""
        self.good("account", "add", "you@example.org")
        code, out, err = self.run_it(
            "bot", "add", "--name", "Ada", "--trust-address", "192.0.2.7", "--trust-address", "8.8.0.0/16", "--json"
        )
        self.assertEqual((code, json.loads(out)["trusted"]), (0, ["192.0.2.7/32", "8.8.0.0/16"]))
        self.assertEqual(len(err), 2)
        self.assertIn("192.0.2.7/32, 8.8.0.0/16 can call this bot without a password, and spend your money", err[0])
        self.assertIn("8.8.0.0/16 is 65,536 public addresses", err[1])
        self.assertEqual(self.run_it("bot", "edit", "Ada", "--name", "Eva")[2], [])
        for wrong in ("0.0.0.0/0", "::/0", "10.0.0.0/7", "2000::/18", "pbx.example"):
            [line] = self.bad("bot", "edit", "Eva", "--trust-address", "10.8.0.1", "--trust-address", wrong)
            self.assertIn("extenbot: --trust-address: ", line)
            self.assertIn(wrong, line)
        code, out, err = self.run_it("bot", "edit", "Eva", "--trust-address", "10.0.0.0/8")
        self.assertEqual((code, len(err)), (0, 1))
        self.assertRegex(out, r"trusted +10.0.0.0/8\n")
        for nobody in ("none", ""):
            self.run_it("bot", "edit", "Eva", "--trust-address", "10.8.0.1")
            self.assertEqual(self.good("bot", "edit", "Eva", "--trust-address", nobody)["trusted"], [])

    def test_from_nothing(self) -> None:
        """Without any service an account and a bot can be made; what is left out is made up."""
        account = self.good("account", "add", "you@example.org", "--admin")
        self.assertTrue(account["admin"])
        self.assertGreaterEqual(len(account["password"]), 20)
        bot = self.good("bot", "add", "--name", "Ada")
        self.assertEqual(
            (bot["type"], bot["model"], bot["server"], bot["port"]), ("registrar", "sandbox", "voice.example.org", 5060)
        )
        self.assertIn("sip:openai@voice.example.org", bot["sip_uris"])
        self.assertEqual(self.good("bot", "show", bot["username"]), bot)
        self.assertNotIn(bot["password"], json.dumps(self.good("bot", "list")))

    def test_password_from_input(self) -> None:
        """A given password is not printed."""
        self.assertNotIn("password", self.good("account", "add", "you@example.org", "--password-stdin"))
        self.patch(sys, "stdin", io.StringIO("short"))
        self.assertEqual(
            self.bad("account", "add", "b@example.org", "--password-stdin"),
            ["extenbot: --password: At least 8 characters, please."],
        )

    def test_every_option(self) -> None:
        """A bot with everything said, then with some of it changed."""
        self.good("account", "add", "you@example.org")
        given = {
            "name": "Ada",
            "type": "registrant",
            "username": "100",
            "password": "from-the-pbx",
            "domain": "pbx.example.org",
            "model": "m",
            "voice": "v",
            "ai_url": "ws://127.0.0.1:1/v1/realtime",
            "instruction": "Be short.",
            "welcome": "Hello",
            "transfer_uri": "sip:100@10.8.0.1",
        }
        options = [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", value)]
        made = self.good("bot", "add", "--account", "you@example.org", "--token", "sk-x", *options)
        self.assertEqual({key: made[key] for key in given}, given)
        self.assertEqual(made["token"], "set")
        edited = self.good("bot", "edit", made["id"], "--welcome", "Good day", "--token", "", "--disabled")
        self.assertEqual(edited, made | {"welcome": "Good day", "token": "not set", "enabled": False})
        self.assertTrue(self.good("bot", "edit", "100", "--enabled")["enabled"])

    def test_every_mistake(self) -> None:
        """All mistakes are told at once, one line each, by the option's name."""
        self.good("account", "add", "you@example.org")
        lines = self.bad("bot", "add", "--type", "registrant", "--ai-url", "http://x", "--transfer-uri", "100")
        for option in ("--name", "--username", "--password", "--domain", "--ai-url", "--transfer-uri"):
            self.assertEqual(len([line for line in lines if line.startswith(f"extenbot: {option}: ")]), 1, lines)
        self.assertEqual(len(lines), 6)
        self.assertTrue(self.bad("bot", "add", "--name", "x", "--type", "peer")[0].startswith("extenbot: --type: "))

    def test_which_account(self) -> None:
        """The account may be left out only when there is one."""
        self.assertIn("no account yet", self.bad("bot", "add", "--name", "Ada")[0])
        self.good("account", "add", "a@example.org")
        self.good("bot", "add", "--name", "Ada")
        self.good("account", "add", "b@example.org")
        self.assertIn("--account", self.bad("bot", "add", "--name", "Bea")[0])
        bea = self.good("bot", "add", "--name", "Bea", "--account", "b@example.org")
        self.assertEqual(self.good("bot", "list", "--account", "b@example.org")[0]["id"], bea["id"])
        self.assertEqual(len(self.good("bot", "list")), 2)
        self.good("account", "remove", "b@example.org")
        self.assertEqual([account["email"] for account in self.good("account", "list")], ["a@example.org"])
        self.assertEqual([bot["name"] for bot in self.good("bot", "list")], ["Ada"])

    def test_which_bot(self) -> None:
        """A bot is named by id, username or name; where that is not clear, the ids are told."""
        self.good("account", "add", "you@example.org")
        one, two = (self.good("bot", "add", "--name", "Ada") for _ in range(2))
        [line] = self.bad("bot", "remove", "Ada")
        self.assertIn(one["id"], line)
        self.assertIn(two["id"], line)
        self.good("bot", "remove", one["id"])
        self.good("bot", "remove", "Ada")
        self.assertIn("no bot Ada", self.bad("bot", "show", "Ada")[0])

    def test_functions(self) -> None:
        """A function from files, linked to a bot, checked before it is kept."""
        self.good("account", "add", "you@example.org")
        bot = self.good("bot", "add", "--name", "Ada")
        (file := self.folder / "two.json").write_text('{"name": "two_numbers", "type": "function"}')
        template = '{"user": "{user}", "inputs": {"n": {number1},},}'
        made = self.good(
            "function", "add", "--url", "http://127.0.0.1:1/", "--token", "k", "--description", f"@{file}",
            "--template", template, "--bot", "Ada",
        )  # fmt: skip
        self.assertEqual(
            (made["name"], made["template"], made["bots"], made["token"]), ("two_numbers", template, [bot["id"]], "set")
        )
        self.assertEqual(self.good("function", "list"), [made])
        self.assertEqual(self.good("bot", "show", "Ada")["functions"], ["two_numbers"])
        lines = self.bad(
            "function",
            "add",
            "--url",
            "x",
            "--description",
            '{"name": "a b"}',
            "--template",
            '{\n"a": }',
            "--name",
            "x",
        )
        self.assertEqual([line.split(":")[1].strip() for line in lines], ["--url", "--description", "--template"])
        self.assertIn("line 2", lines[2])
        self.assertIn("cannot be read", self.bad("function", "add", "--description", "@nowhere")[0])
        self.good("function", "remove", "two_numbers")
        self.assertEqual(self.good("function", "list"), [])

    def test_function_run(self) -> None:
        """Arguments are what was given, read as leniently as in the pages, or a sample; mistakes have their place."""
        self.good("account", "add", "you@example.org")
        schema = {"type": "object", "properties": {"day": {"type": "string"}}}
        description = json.dumps({"name": "tides", "parameters": schema})
        self.good("function", "add", "--url", "https://example.org/", "--description", description)
        used: list[Any] = []

        def tried(_office: Any, uses: Any) -> list[Ran]:
            used.extend(arguments for _, _, arguments in uses)
            return [Ran((), "High.", failed=False)]

        self.patch(toolroom, "_tried", tried)
        for given in ([], ["--arguments", "{}"], ["--arguments", '{"day": "Monday",}']):
            self.assertEqual(self.good("function", "run", "tides", *given)[0]["heard"], "High.")
        self.assertEqual(used, [{"day": "Tuesday"}, {}, {"day": "Monday"}])
        self.assertIn("line 1, column 7", self.bad("function", "run", "tides", "--arguments", '{"a": }')[0])
        self.assertIn("JSON object", self.bad("function", "run", "tides", "--arguments", "[1]")[0])

    def test_replay(self) -> None:
        """What the model asked for in a call is asked for again, of functions and tools that its bot still has."""
        account = self.good("account", "add", "you@example.org")
        for name in ("Ada", "Eva"):
            self.good("bot", "add", "--name", name)
        for name, bot in (("tides", "Ada"), ("winds", "Eva")):
            self.good("function", "add", "--name", name, "--url", "https://example.org/", "--bot", bot)
        self.good("mcp", "add", "--label", "shop", "--url", "https://example.org/mcp", "--bot", "Ada")
        events = (
            Event(1.0, "tool.asked", {"name": "tides", "call": "call_1", "arguments": {"day": "Monday"}}),
            Event(2.0, "tool.asked", {"name": "winds", "call": "call_2", "arguments": {}}),
            Event(3.0, "tool.asked", {"name": "buy", "call": "call_3", "arguments": {"what": "tea"}}),
            Event(4.0, "tool.exchange", {
                "method": "MCP", "url": "https://example.org/mcp",
                "body": '{"name": "buy", "arguments": {"what": "tea"}}',
            }),
        )  # fmt: skip
        database = Database(Settings(data=self.folder / "var"))
        self.addCleanup(database.close)
        bots = {each["name"]: each["id"] for each in self.good("bot", "list")}
        Calls(database).write(replace(record(account["id"], bots["Ada"]), events=events))
        Calls(database).write(replace(record(account["id"], bots["Ada"]), id="c2", events=()))
        self.patch(toolroom, "_tried", lambda _office, uses: [Ran((), "Done.", failed=False) for _ in uses])
        again = self.good("function", "replay", "c1")
        self.assertEqual(
            [(each["name"], each["arguments"]) for each in again],
            [("tides", {"day": "Monday"}), ("buy", {"what": "tea"})],
        )
        self.assertIn("no function or tool", self.bad("function", "replay", "c2")[0])
        self.assertIn("no call", self.bad("function", "replay", "nothing")[0])

    def test_function_import(self) -> None:
        """A curl command that works is a function; so is an operation of a document, which lists what it has."""
        self.good("account", "add", "you@example.org")
        self.good("bot", "add", "--name", "Ada")
        given = "curl https://flows.example.org/tickets -H 'Authorization: Bearer k' -d '{\"title\": \"Broken\"}'"
        made = self.good("function", "import", "--curl", given, "--bot", "Ada")
        self.assertEqual((made["url"], made["token"], len(made["bots"])), (given.split()[1], "set", 1))
        (file := self.folder / "shop.yaml").write_text(
            "openapi: 3.0.0\nservers: [{url: https://shop.example.org}]\npaths:\n  /orders/{number}:\n"
            "    get: {operationId: order, summary: Status of an order, parameters: "
            "[{name: number, in: path, required: true, schema: {type: integer}}]}\n"
        )
        operation = "GET /orders/{number}"
        listed = self.good("function", "import", "--openapi", f"@{file}")
        self.assertEqual(listed, [{"key": operation, "words": "Status of an order"}])
        made = self.good("function", "import", "--openapi", f"@{file}", "--operation", operation, "--name", "Orders")
        self.assertEqual((made["url"], made["method"]), ("https://shop.example.org/orders/{number}", "GET"))
        self.assertEqual(made["name"], "Orders")
        self.assertIn("--curl", self.bad("function", "import")[0])
        self.assertIn(
            "no such operation", self.bad("function", "import", "--openapi", f"@{file}", "--operation", "x")[0]
        )

    def test_function_fields(self) -> None:
        """Every field of a function has an option; an edit keeps the rest; secrets are told as set, never shown."""
        self.good("account", "add", "you@example.org")
        bot = self.good("bot", "add", "--name", "Ada")
        (file := self.folder / "token").write_text("bearer-1\n")
        made = self.good(
            "function", "add", "--name", "order", "--url", "https://example.org/hook", "--token", f"@{file}",
            "--secret", "signing-2", "--header", "X-Key: header-3", "--header", "X-Other: 4", "--method", "put",
            "--timeout", "2.5", "--retries", "2", "--result", "data.text", "--waiting", "One moment.",
            "--failure", "Sorry.", "--speak", "no", "--bot", "Ada",
        )  # fmt: skip
        self.assertEqual((made["token"], made["secret"], made["headers"]), ("set", "set", ["X-Key:", "X-Other:"]))
        self.assertEqual((made["method"], made["timeout"], made["speak"]), ("PUT", 2.5, False))
        edited = self.good("function", "edit", "order", "--secret", "", "--header", "X-Key:", "--waiting", "")
        self.assertEqual(edited, made | {"secret": "not set", "headers": ["X-Key:"], "waiting": ""})
        self.assertEqual(edited["bots"], [bot["id"]])
        everything = "".join(self.run_it(*words)[1] for words in (
            ("function", "show", "order"), ("function", "list", "--json"), ("function", "list"),
            ("bot", "show", "Ada", "--json"),
        ))  # fmt: skip
        self.assertIn("https://example.org/hook", everything)
        for secret in ("bearer-1", "signing-2", "header-3"):
            self.assertNotIn(secret, everything)
        self.assertEqual(self.good("function", "edit", made["id"], "--header", "none", "--bot", "none")["bots"], [])
        wrong = ("--timeout", "x", "--header", "Host: x", "--result", "a..b", "--method", "trace")
        self.assertEqual(
            sorted(line.split(":")[1].strip() for line in self.bad("function", "edit", "order", *wrong)),
            ["--header", "--method", "--result", "--timeout"],
        )
        self.assertEqual(self.good("function", "show", "order")["timeout"], 2.5)
        self.assertIn("no function", self.bad("function", "edit", "nothing", "--name", "x")[0])

    def test_mcp(self) -> None:
        """An MCP server has a command of its own, its key told as set; a bot is given servers and functions by name."""
        self.good("account", "add", "you@example.org")
        self.good("bot", "add", "--name", "Ada")
        made = self.good(
            "mcp", "add", "--label", "shop", "--url", "https://example.org/mcp", "--key", "mcp-key-4",
            "--header", "X-Key: header-5", "--allowed", "find buy", "--approval", "yes", "--wait", "0", "--bot", "Ada",
        )  # fmt: skip
        self.assertEqual((made["key"], made["headers"], made["allowed"]), ("set", ["X-Key:"], ["find", "buy"]))
        self.assertEqual((made["approval"], made["wait"]), (True, 0.0))
        self.assertEqual(self.good("mcp", "edit", "shop", "--label", "store"), made | {"label": "store"})
        shown = "".join(self.run_it("mcp", verb, *words)[1] for verb, words in (("show", ["store"]), ("list", [])))
        self.assertIn("https://example.org/mcp", shown)
        self.assertNotIn("mcp-key-4", shown + self.run_it("mcp", "list", "--json")[1])
        self.assertNotIn("header-5", shown)
        self.good("function", "add", "--name", "order", "--url", "https://example.org/hook")
        words = ("--function", "order", "--mcp", "store", "--after-url", "https://example.org/after")
        bot = self.good("bot", "edit", "Ada", *words, "--hook-token", "hook-6", "--hook-secret", "hook-7")
        self.assertEqual((bot["functions"], bot["mcp_servers"]), (["order"], ["store"]))
        self.assertEqual((bot["after_url"], bot["hook_token"], bot["hook_secret"]), (words[5], "set", "set"))
        self.assertNotIn("hook-", self.run_it("bot", "show", "Ada")[1].replace("hook_", ""))
        self.assertEqual(self.good("bot", "edit", "Ada", "--welcome", "Hello")["mcp_servers"], ["store"])
        bot = self.good("bot", "edit", "Ada", "--mcp", "none", "--function", "none")
        self.assertEqual((bot["functions"], bot["mcp_servers"]), ([], []))
        self.assertIn("no function x", self.bad("bot", "edit", "Ada", "--function", "x")[0])
        lines = self.bad("mcp", "add", "--label", "a b", "--url", "x", "--wait", "11")
        self.assertEqual([line.split(":")[1].strip() for line in sorted(lines)], ["--label", "--url", "--wait"])
        self.good("mcp", "remove", "store")
        self.assertEqual(self.good("mcp", "list"), [])

    def test_same_names(self) -> None:
        """Where two accounts have functions of one name, a bot is given that of its own account."""
        for email in ("a@example.org", "b@example.org"):
            self.good("account", "add", email)
            words = ("--name", "order", "--url", f"https://{email[0]}.example.org/", "--account", email)
            self.good("function", "add", *words)
            self.good("bot", "add", "--name", email[0], "--account", email, "--function", "order")
        found = {each["url"]: each["bots"] for each in self.good("function", "list")}
        bots = {each["name"]: each["id"] for each in self.good("bot", "list")}
        self.assertEqual(found, {f"https://{name}.example.org/": [bots[name]] for name in "ab"})
        stranger = self.good("function", "list", "--account", "b@example.org")[0]["id"]
        self.bad("bot", "edit", "a", "--function", stranger)
        self.bad("function", "edit", stranger, "--bot", "a")
        self.assertIn("several functions", self.bad("function", "show", "order")[0])

    def test_outbox(self) -> None:
        """What waits to be posted after calls is listed, and can be tried again at once."""
        account = self.good("account", "add", "you@example.org")
        bot = self.good("bot", "add", "--name", "Ada", "--after-url", "https://example.org/after")
        database = Database(Settings(data=self.folder / "var"))
        Calls(database).write(record(account["id"], bot["id"]))
        database.close()
        self.assertRegex(self.run_it("outbox", "list")[1], r"^c1 .* 0 tries .*https://example\.org/after\n$")
        [post] = self.good("outbox", "list", "--account", "you@example.org")
        self.assertEqual((post["call_id"], post["tries"]), ("c1", 0))
        self.good("outbox", "retry", "c1")
        self.bad("outbox", "retry", "c2")

    def test_calls(self) -> None:
        """Finished calls, with their transcript."""
        account = self.good("account", "add", "you@example.org")
        bot = self.good("bot", "add", "--name", "Ada")
        database = Database(Settings(data=self.folder / "var"))
        Calls(database).write(record(account["id"], bot["id"]))
        database.close()
        [listed] = self.good("call", "list", "--bot", "Ada")
        self.assertEqual(listed["id"], "c1")
        shown = self.good("call", "show", "c1")
        self.assertEqual(
            shown["transcript"][1], {"speaker": "caller", "text": "Grüß Gott <b>!", "at": 4.0, "interrupted": False}
        )
        self.assertIn("Grüß Gott", self.run_it("call", "show", "c1")[1])
        self.assertIn("no call", self.bad("call", "show", "c2")[0])

    def test_manner(self) -> None:
        """How a bot converses has an option each; what is wrong is told by the option's own name."""
        self.good("account", "add", "you@example.org")
        given = ("--barge-in", "off", "--record", "yes", "--silence", "20", "--cap-day", "1.50", "--extra", '{"a": 1}')
        bot = self.good("bot", "add", "--name", "Ada", *given, "--dialect", "localai")
        self.assertEqual([bot[name] for name in ("barge_in", "record", "silence", "cap_day")], ["off", True, 20, 1.5])
        code, out, _ = self.run_it("bot", "show", "Ada")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"cap_day +1.5\n")
        self.assertNotIn("vad_silence", out)  # as usual
        self.assertEqual(self.good("bot", "edit", "Ada", "--barge-in", "")["barge_in"], "immediate")
        wrong = ("--barge-in", "often", "--silence", "2", "--cap-call", "1,50", "--refusal", "302", "--extra", "{")
        errors = self.bad("bot", "edit", "Ada", *wrong)
        self.assertEqual(
            sorted(line.split(":")[1].strip() for line in errors),
            ["--barge-in", "--cap-call", "--extra", "--refusal-uri", "--silence"],
        )

    def test_destinations(self) -> None:
        """Whom callers can be transferred to has a name, addresses and a sentence."""
        self.good("account", "add", "you@example.org")
        bot = self.good(
            "bot", "add", "--name", "Ada",
            "--destination", "sales", "sip:200@10.8.0.1 201", "who want to buy",
            "--destination", "boss", "202",
        )  # fmt: skip
        self.assertEqual(
            [(each["name"], each["uris"], each["when"]) for each in bot["destinations"]],
            [("sales", "sip:200@10.8.0.1 201", "who want to buy"), ("boss", "202", "")],
        )
        self.assertIn("sales · sip:200@10.8.0.1 201 · who want to buy", self.run_it("bot", "show", "Ada")[1])
        [error] = self.bad("bot", "edit", "Ada", "--destination", "the boss", "202")
        self.assertIn("--destination: Destination 1", error)
        self.assertEqual(self.good("bot", "edit", "Ada", "--destination", "none")["destinations"], [])

    def test_cap(self) -> None:
        """An account has a daily cap, or none."""
        self.good("account", "add", "you@example.org")
        self.assertEqual(self.good("account", "cap", "you@example.org", "12.50")["cap_day"], 12.5)
        self.assertIn("12.50 USD", self.run_it("account", "cap", "you@example.org", "12.5")[1])
        self.assertEqual(self.good("account", "cap", "you@example.org", "0")["cap_day"], 0)
        self.bad("account", "cap", "you@example.org", "much")
        self.bad("account", "cap", "nobody@example.org", "1")

    def test_sentences(self) -> None:
        """A recording of what a bot says is kept, listed and removed; the welcome message is meant by default."""
        self.good("account", "add", "you@example.org")
        self.good("bot", "add", "--name", "Ada", "--welcome", "Good morning!")
        file = self.folder / "hello.wav"
        file.write_bytes(wav.written(g711.tone("PCMU", 440, 1000)))
        code, out, err = self.run_it("sentence", "add", "Ada", str(file))
        self.assertEqual((code, out), (0, "recorded (1.0 s): Good morning!\n"))
        self.assertIn("--greeting-exact", err[0])
        self.good("bot", "edit", "Ada", "--greeting-exact", "yes")
        self.good("sentence", "add", "Ada", str(file), "--text", "One moment.")
        told = self.good("sentence", "list", "Ada")
        self.assertEqual({each["text"] for each in told}, {"Good morning!", "One moment."})
        self.good("sentence", "remove", "Ada", "One moment.")
        self.bad("sentence", "remove", "Ada", "One moment.")
        self.assertEqual(len(self.good("sentence", "list", "Ada")), 1)
        file.write_bytes(b"not a sound")
        self.bad("sentence", "add", "Ada", str(file))
        self.bad("sentence", "add", "Ada", str(self.folder / "nowhere.wav"))

    def test_recording(self) -> None:
        """Where a call's recording lies; or that there is none, or none any more."""
        settings = Settings(data=self.folder / "var")
        database = Database(settings)
        account = Accounts(database).add("you@example.org", "correct horse")
        for name, recorded in (("c1", True), ("c2", False), ("c3", True)):
            Calls(database).write(replace(record(account.id), id=name, recorded=recorded))
        database.close()
        path = settings.recordings_folder / "2026" / "11" / "c1.wav"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"RIFF")
        self.assertEqual(self.good("call", "recording", "c1")["recording"], str(path))
        self.assertIn("was not recorded", self.bad("call", "recording", "c2")[0])
        self.assertIn("is gone", self.bad("call", "recording", "c3")[0])
        self.bad("call", "recording", "c4")

    def test_config_anywhere(self) -> None:
        """--config and --json stand before, between or after; EXTENBOT_CONFIG does as well."""
        self.good("account", "add", "you@example.org")
        config = ["--config", str(self.config)]
        for words in (
            [*config, "--json", "account", "list"],
            ["account", *config, "--json", "list"],
            ["--json", "account", "list", *config],
        ):
            code, out, _ = self.run_it(*words, config=False)
            self.assertEqual((code, len(json.loads(out))), (0, 1), words)
        with mock.patch.dict("os.environ", {"EXTENBOT_CONFIG": str(self.config)}):
            self.assertIn("you@example.org", self.run_it("account", "list", config=False)[1])

    def test_wrong_settings(self) -> None:
        """Wrong settings are all listed, and nothing is made."""
        self.config.write_text('domain = "a b"\nnonsense = 1\n')
        self.assertEqual(len(self.bad("account", "list")), 2)
        self.config.write_text('data = "extenbot.toml/var"\n')
        self.assertIn("data folder", self.bad("account", "list")[0])

    def test_wrong_words(self) -> None:
        """A command that does not exist is one line and exit 1, not a page of usage."""
        for words in (["bot", "foo"], ["nonsense"], ["bot", "add", "--nonsense", "x"], ["account", "add"]):
            self.assertEqual(len(self.bad(*words)), 1, words)

    def test_light(self) -> None:
        """The command imports no reactor."""
        program = (
            "import sys; from extenbot.cli import main; code = main(sys.argv[1:]);"
            "sys.exit(code or 'twisted.internet.reactor' in sys.modules)"
        )
        words = [sys.executable, "-c", program, "account", "list", "--config", str(self.config)]
        said = subprocess.run(words, capture_output=True, check=False)
        self.assertEqual((said.returncode, said.stdout, said.stderr), (0, b"", b""))
