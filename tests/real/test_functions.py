"""A webhook function, from the command line to the words of the bot."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.real.caller import Caller
from tests.real.harness import Service, new_folder, scripts

#: as exten.bot publishes them, the trailing comma included
DESCRIPTION = """{"name": "two_numbers", "type": "function",
 "parameters": {"type": "object", "required": ["number1", "number2"],
   "properties": {"number1": {"type": "number", "description": "First number"}, "number2": {"type": "number", "description": "Second number"}}},
 "description": "If the user wants to provide two numbers, ask for and process two numbers."}"""  # noqa: E501
TEMPLATE = """{
    "user": "{user}",
    "inputs": {
        "function_name": "{function_name}",
    },
    "response_mode": "blocking"
}"""
SCRIPT = """on greet:
    say "One moment."
    call two_numbers {"number1": 7, "number2": 3}
on output two_numbers:
    tone 880 for 2 s "Ten."
    call end_call
"""


class Webhook:
    """A web server of one page; what it was asked is in `asked`."""

    def __init__(self, test: SynchronousTestCase, code: int, reply: Any) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        outer = self

        class Page(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, dict(self.headers.items()), json.loads(body)))
                data = json.dumps(reply).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        server = HTTPServer(("127.0.0.51", 0), Page)
        self.url = f"http://127.0.0.51:{server.server_port}/v1/workflows/run"
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        test.addCleanup(thread.join)
        test.addCleanup(server.server_close)
        test.addCleanup(server.shutdown)


@pytest.mark.real
class Functions(SynchronousTestCase):
    def run_call(self, hook: Webhook, *options: str) -> dict[str, Any]:
        """Add the function to a scripted bot and call it until the bot hangs up; the record."""
        service = self.service = Service(
            self,
            EXTENBOT_SANDBOX_SCRIPTS=scripts(new_folder(self) / "voices", adds=SCRIPT),
            EXTENBOT_TOOLS_ALLOW="127.0.0.51",
        )
        user, password = service.bot("--model", "sandbox-adds", "--username", "adder")
        made = service.command(
            "function", "add", "--url", hook.url, "--description", DESCRIPTION, "--bot", user, *options
        )
        self.assertEqual(made["name"], "two_numbers")
        self.assertIn("two_numbers", service.command("bot", "show", user)["functions"])
        caller = Caller(self, service.sip, user, password)
        # The function reaches the service with the next change it sees.
        service.bot("--username", "later")
        caller.call()
        caller.audio.wait_for_tone(880)
        caller.wait_for_bye()
        [record] = service.calls()
        self.assertEqual(record["end_reason"], "bot hung up")
        self.bot_id = service.command("bot", "show", user)["id"]
        return record

    def answered(self, record: dict[str, Any]) -> str:
        """What the model was told."""
        [event] = [event for event in record["events"] if event["what"] == "tool.answered"]
        output: str = event["fields"]["output"]
        return output

    def test_published_example(self) -> None:
        """The published description and body template work verbatim; the words of the reply reach the model."""
        hook = Webhook(self, 200, {"data": {"outputs": {"text": "The sum is ten."}}})
        record = self.run_call(hook, "--template", TEMPLATE, "--token", "app-key-123")
        [(path, headers, body)] = hook.asked
        self.assertEqual(path, "/v1/workflows/run")
        self.assertEqual(headers["Authorization"], "Bearer app-key-123")
        self.assertEqual(
            body, {"user": record["caller"], "inputs": {"function_name": "two_numbers"}, "response_mode": "blocking"}
        )
        self.assertEqual(record["caller"], "adder")
        self.assertIn("The sum is ten.", self.answered(record))
        self.assertEqual([line["text"] for line in record["transcript"]][:2], ["One moment.", "Ten."])
        self.assertNotIn("app-key-123", json.dumps(record))

    def test_bench(self) -> None:
        """The command shows the real request, the reply and what a model hears; a past call's functions run again."""
        hook = Webhook(self, 200, {"data": {"outputs": {"text": "The sum is ten."}}})
        record = self.run_call(hook, "--token", "app-key-123")
        [ran] = self.service.command("function", "run", "two_numbers", "--arguments", '{"number1": 1, "number2": 2}')
        self.assertEqual((ran["heard"], ran["failed"]), ("The sum is ten.", False))
        [exchange] = ran["exchanges"]
        self.assertEqual((exchange["method"], exchange["url"], exchange["status"]), ("POST", hook.url, 200))
        self.assertEqual(json.loads(exchange["body"])["arguments"], {"number1": 1, "number2": 2})
        self.assertIn(["Authorization", "Bearer …"], exchange["headers"])
        self.assertNotIn("app-key-123", json.dumps(ran))
        [again] = self.service.command("function", "replay", record["id"])
        self.assertEqual((again["arguments"], again["heard"]), ({"number1": 7, "number2": 3}, "The sum is ten."))
        self.assertEqual(len(hook.asked), 3)

    def test_default_body(self) -> None:
        """Without a template the body is the documented one: function, arguments, caller, bot and call."""
        hook = Webhook(self, 200, {"sum": 10})
        record = self.run_call(hook)
        [(_, headers, body)] = hook.asked
        self.assertNotIn("Authorization", headers)
        self.assertEqual(
            body,
            {
                "function": "two_numbers",
                "arguments": {"number1": 7, "number2": 3},
                "caller": "adder",
                "bot": self.bot_id,
                "call": record["id"],
            },
        )

    def test_failing_webhook(self) -> None:
        """A webhook that fails is told to the model in words; the call goes on."""
        record = self.run_call(Webhook(self, 500, {"error": "secret inner words"}))
        self.assertEqual(self.answered(record), "The function failed: the webhook answered with status 500")
