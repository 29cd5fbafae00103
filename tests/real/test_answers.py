"""A real phone asks the demo bot for things that are done elsewhere, and hears what came of them, without any key."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.real.harness import Baresip, Process, Service, free_port, until
from tests.real.speech import share, spoken, transcribed

HOST = "127.0.0.52"
TABLE = json.dumps(
    {
        "name": "free_tables",
        "description": "Tells which tables of the restaurant are free.",
        "parameters": {
            "type": "object",
            "required": ["guests"],
            "properties": {"guests": {"type": "integer", "description": "How many guests"}},
        },
    }
)


class Owner:
    """The servers of a bot's owner: a slow webhook, and those around a call. What they were asked is in `asked`."""

    def __init__(self, test: SynchronousTestCase, seconds: float) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        outer = self

        class Page(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, dict(self.headers.items()), body))
                reply: Any = {}
                if self.path == "/before":
                    reply = {"variables": {"customer": "Missis Parker"}}
                elif self.path == "/tables":
                    time.sleep(seconds)
                    reply = {"data": {"say": "The big table at the window is free."}}
                data = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer((HOST, 0), Page)
        self.url = f"http://{HOST}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        test.addCleanup(thread.join)
        test.addCleanup(server.server_close)
        test.addCleanup(server.shutdown)

    def of(self, path: str) -> list[tuple[dict[str, str], Any]]:
        return [(headers, body) for at, headers, body in self.asked if at == path]


def _listens(port: int) -> bool | None:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return None
    return True


@pytest.mark.real
class Answers(SynchronousTestCase):
    def setUp(self) -> None:
        need("baresip", "apt-get install baresip-core", shutil.which("baresip") is not None)
        need("sox", "apt-get install sox", shutil.which("sox") is not None)
        need("faster-whisper", "pip install extenbot[speech]", find_spec("faster_whisper") is not None)

    def call(self, service: Service, user: str, password: str, *sentences: str) -> tuple[str, dict[str, Any]]:
        """Call the bot and say a sentence, "" is none, whenever it has spoken; what was heard and the call's record."""
        account = f"<sip:{user}@127.0.0.1:{service.sip};transport=udp>;auth_user={user};auth_pass={password};regint=60"
        phone = Baresip(self, account, spoken(self, 60.0), codecs="PCMU")
        phone.process.wait_for("registered successfully")
        phone.do("sndcode")
        phone.do("dial", f"sip:openai@127.0.0.1:{service.sip}")
        phone.wait_for("CALL_ESTABLISHED")
        for sentence in sentences:
            phone.listen()
            if sentence:
                phone.play(spoken(self, sentence, 60.0))
        phone.wait_for("CALL_CLOSED", 90)
        phone.process.stop()
        [record] = until("the record", lambda: service.calls() or None)
        return transcribed(phone.recording()), record

    def test_webhook(self) -> None:
        """A slow webhook: the caller hears that it takes a moment, then the answer; the owner is asked before the call
        and told after it."""
        owner = Owner(self, 6.0)
        service = Service(self, EXTENBOT_TOOLS_ALLOW=f"{HOST}")
        service.command(
            "function", "add", "--url", f"{owner.url}/tables", "--description", TABLE, "--result", "data.say",
            "--waiting", "One moment, I am looking into the book.", "--secret", "hush",
        )  # fmt: skip
        user, password = service.bot(
            "--model", "sandbox", "--welcome", "Good evening {{customer}}.", "--function", "free_tables",
            "--before-url", f"{owner.url}/before", "--after-url", f"{owner.url}/after", "--hook-token", "hook-token",
        )  # fmt: skip
        heard, record = self.call(service, user, password, "Are there free tables for four guests?", "", "Goodbye.")
        said = (
            "Good evening Missis Parker. One moment, I am looking into the book. The big table at the window is free."
        )
        self.assertGreater(share(said, heard), 0.7)
        [(headers, body)] = owner.of("/tables")
        self.assertEqual(body["arguments"], {"guests": 4})
        self.assertRegex(headers["X-Extenbot-Signature"], r"^t=\d+,v1=[0-9a-f]{64}$")
        self.assertTrue(headers["Idempotency-Key"].startswith(record["id"]))
        [(headers, body)] = owner.of("/before")
        self.assertEqual((headers["Authorization"], body["caller"]), ("Bearer hook-token", record["caller"]))
        until("the post after the call", lambda: owner.of("/after") or None)
        [(headers, body)] = owner.of("/after")
        self.assertEqual((body["call"], body["reason"]), (record["id"], "bot hung up"))
        self.assertTrue(any("window" in line["text"] for line in body["transcript"]))
        self.assertEqual(service.command("outbox", "list"), [])
        self.assertNotIn("hush", json.dumps(record))

    def test_mcp(self) -> None:
        """A tool of a real MCP server is used when the caller has said yes, and its answer is heard."""
        need("the MCP SDK", "pip install mcp", find_spec("mcp") is not None)
        port = free_port()
        Process(self, [sys.executable, str(Path(__file__).with_name("mcpserver.py")), "http", str(port)])
        until("the MCP server", lambda: _listens(port))
        service = Service(self, EXTENBOT_TOOLS_ALLOW="127.0.0.1")
        service.command(
            "mcp", "add", "--label", "office", "--url", f"http://127.0.0.1:{port}/mcp", "--approval", "yes",
            "--allowed", "weather",
        )  # fmt: skip
        user, password = service.bot("--model", "sandbox", "--welcome", "Hello.", "--mcp", "office")
        heard, record = self.call(service, user, password, "Please tell me the weather.", "Yes, please.", "Goodbye.")
        self.assertGreater(share("Shall I really do that? Degrees: 27. Sky: blue.", heard), 0.7)
        what = [event["what"] for event in record["events"]]
        self.assertLess(what.index("tool.decided"), what.index("tool.exchange"))
        [exchange] = [event["fields"] for event in record["events"] if event["what"] == "tool.exchange"]
        self.assertTrue(re.search(r'"name": "weather"', exchange["body"]))
