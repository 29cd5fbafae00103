"""Functions that are webhooks, from the model's arguments to what it is told; nothing in them reaches beyond itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase, TestCase

from extenbot import plugins
from extenbot.errors import ToolFailed
from extenbot.interfaces import Exchange, Function, ITool, Json, ToolContext
from extenbot.net.outside import Http, Packed, signature
from extenbot.settings import Tools
from tests.clock import Clock
from tests.net.test_outside import Hooks

URL = "https://hooks.example.com/run"
ASK = Function("f1", "ask", URL, description='{"name": "ask", "type": "function"}')
EVIL = (
    '"',
    '", "user": "admin',
    "\r\nX-Evil: 1\r\n\r\nGET /admin HTTP/1.1\r\nHost: inner",
    "{user} {bot_id} {parameters}",
    "{{caller}} ${x} %00 %0d%0a",
    "\0\x01\x7f\u2028\ud800",
    "../../admin?x=1&y=2#z",
)
LONG = "x" * 1_000_000


def deep(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


(WEBHOOK,) = [tool for tool in getPlugins(ITool, plugins) if tool.name == "Webhook"]


class Runs(SynchronousTestCase):
    def setUp(self) -> None:
        self.hooks = Hooks()
        self.clock = Clock()
        self.http = Http(self.clock, Tools(), lambda: 0.0)
        self.http._agent = Packed(RequestTraversalAgent(self.hooks))
        self.notes: list[Exchange] = []

    def start(self, function: Function, arguments: Json) -> Any:
        context = ToolContext("b1", "c1", "100", key="k1", noted=self.notes.append)
        return Deferred.fromCoroutine(WEBHOOK.run(function, arguments, context, self.http))

    def run_it(self, function: Function, arguments: Json) -> str:
        words: str = self.successResultOf(self.start(function, arguments))
        return words

    def failure(self, function: Function, arguments: Json) -> str:
        return str(self.failureResultOf(self.start(function, arguments), ToolFailed).value)


class Asked(Runs):
    def test_serves(self) -> None:
        """It is there without being named anywhere, for http and https alone, and not for dify."""
        for url, wanted in ((URL, True), ("HTTP://x", True), ("ftp://x", False), ("", False)):
            self.assertEqual(WEBHOOK.serves(Function("f", "ask", url)), wanted)
        self.assertFalse(WEBHOOK.serves(replace(ASK, kind="dify_chat")))

    def test_posted(self) -> None:
        """The arguments are posted as JSON, with all that the function has, and the model is told the answer."""
        self.hooks.replies["/run"] = [(200, {"Content-Type": "application/json"}, b'{"answer": "yes"}')]
        function = replace(ASK, token="t", secret="s", headers=(("X-Api", "v"),))
        self.assertEqual(self.run_it(function, {"q": 'x"y'}), "yes")
        ((method, place, headers, data),) = self.hooks.got
        self.assertEqual((method, place), ("POST", "hooks.example.com/run"))
        wanted = {"function": "ask", "arguments": {"q": 'x"y'}, "caller": "100", "bot": "b1", "call": "c1"}
        self.assertEqual(json.loads(data), wanted)
        self.assertEqual(headers["x-extenbot-signature"], [signature("s", 0, data)])
        for name, value in {"authorization": "Bearer t", "x-api": "v", "idempotency-key": "k1"}.items():
            self.assertEqual(headers[name], [value])

    def test_late(self) -> None:
        """What has been asked for in time may be answered somewhat later, for the timeline."""
        self.hooks.silent = True
        context = ToolContext("b1", "c1", "100", late=3)
        slow = Deferred.fromCoroutine(WEBHOOK.run(replace(ASK, timeout=2), {"q": "x"}, context, self.http))
        self.clock.advance(4.5)
        self.assertNoResult(slow)
        self.clock.advance(0.5)
        self.assertIn("within 5 seconds", str(self.failureResultOf(slow, ToolFailed).value))

    def test_query(self) -> None:
        """A GET has its arguments in the query, beside those of the URL; with a template it has a body."""
        function = replace(ASK, method="GET", url=f"{URL}?lang=de")
        self.run_it(function, {"city": "São Paulo & x=1", "n": 5, "deep": {"a": [1]}, "none": None})
        method, place, headers, data = self.hooks.got[0]
        wanted = [("lang", "de"), ("city", "São Paulo & x=1"), ("n", "5"), ("deep", '{"a": [1]}'), ("none", "")]
        self.assertEqual(parse_qsl(urlsplit(f"//{place}").query, keep_blank_values=True), wanted)
        self.assertEqual((method, data, "content-type" in headers), ("GET", b"", False))
        self.run_it(replace(function, method="DELETE"), {"id": 1})
        self.assertEqual(self.hooks.got[1][:2], ("DELETE", "hooks.example.com/run?lang=de&id=1"))
        self.run_it(replace(function, template='{"c": "{city}"}'), {"city": "Rome"})
        self.assertEqual(json.loads(self.hooks.got[2][3]), {"c": "Rome"})

    def test_answers(self) -> None:
        """A path takes what matters of the reply; an error's words are told with its status, its pages are not."""
        self.hooks.replies["/run"] = [
            (200, {}, b'{"order": {"status": "sent"}}'),
            (404, {"Content-Type": "application/json"}, b'{"error": "order not found"}'),
            (500, {"Content-Type": "text/html"}, b"<html><h1>Oops</h1></html>"),
            (302, {}, b""),
            (400, {}, b"z" * 5000),
            (204, {}, b""),
        ]
        self.assertEqual(self.run_it(replace(ASK, result="order.status"), {}), "sent")
        self.assertEqual(self.failure(ASK, {}), 'the webhook answered with status 404: {"error": "order not found"}')
        self.assertEqual(self.failure(ASK, {}), "the webhook answered with status 500")
        self.assertEqual(self.failure(ASK, {}), "the webhook answered with status 302")
        self.assertEqual(self.failure(ASK, {}), f"the webhook answered with status 400: {'z' * 300}")
        self.assertEqual(self.run_it(ASK, {}), "The function has finished and returned nothing.")


class Injected(Runs):
    def test_bodies(self) -> None:
        """Whatever the model says stays the value that it is: in the default body and in templates."""
        templates = ("", '{"a": "<{x}>", "user": "{user}", "raw": {x}, "all": {parameters}}')
        for template in templates:
            for evil in (*EVIL, LONG):
                self.hooks.got.clear()
                self.run_it(replace(ASK, template=template, token="t"), {"x": evil})
                ((_, place, headers, data),) = self.hooks.got
                found = json.loads(data)
                if template:
                    wanted = {"a": f"<{evil}>", "user": "100", "raw": evil, "all": {"x": evil}}
                else:
                    wanted = {"function": "ask", "arguments": {"x": evil}, "caller": "100", "bot": "b1", "call": "c1"}
                self.assertEqual(found, wanted)
                self.assertEqual(place, "hooks.example.com/run")
                self.assertNotIn("x-evil", headers)

    def test_queries(self) -> None:
        """Nor does it become another parameter, path, host or header of a GET."""
        function = replace(ASK, method="GET", token="t")
        for evil in EVIL:
            self.hooks.got.clear()
            self.run_it(function, {"x": evil, evil[:100]: "v"})
            ((_, place, headers, _),) = self.hooks.got
            parts = urlsplit(f"//{place}")
            self.assertEqual((parts.netloc, parts.path), ("hooks.example.com", "/run"))
            pairs = parse_qsl(parts.query, keep_blank_values=True)
            seen = evil.encode("utf-8", "replace").decode()
            self.assertEqual(pairs, [("x", seen), (evil[:100].encode("utf-8", "replace").decode(), "v")])
            self.assertEqual(headers["authorization"], ["Bearer t"])
            self.assertNotIn("x-evil", headers)

    def test_paths(self) -> None:
        """Nor does a value in the URL reach beyond its place there."""
        function = replace(ASK, method="GET", url="https://hooks.example.com/orders/{x}/items?q={x}")
        for evil in EVIL:
            self.hooks.got.clear()
            self.run_it(function, {"x": evil})
            ((_, place, headers, _),) = self.hooks.got
            parts = urlsplit(f"//{place}")
            self.assertEqual(parts.netloc, "hooks.example.com")
            self.assertEqual((parts.path.count("/"), parts.path[:8], parts.path[-6:]), (3, "/orders/", "/items"))
            self.assertEqual(len(parse_qsl(parts.query, keep_blank_values=True)), 1)
            self.assertNotIn("x-evil", headers)

    def test_deep(self) -> None:
        """Arguments that are nested deep arrive; nested without end they are told to be that."""
        self.run_it(ASK, {"x": deep(300)})
        self.assertEqual(json.loads(self.hooks.got[0][3])["arguments"]["x"], deep(300))
        for function in (
            ASK,
            replace(ASK, template='{"a": "{x}"}'),
            replace(ASK, template='{"a": {x}}'),
            replace(ASK, method="GET"),
            replace(ASK, url=f"{URL}/{{x}}"),
        ):
            self.assertEqual(self.failure(function, {"x": deep(20_000)}), "the arguments are nested too deep")

    def test_long(self) -> None:
        """A megabyte is no part of a URL, and the model is told so."""
        for function in (replace(ASK, method="GET"), replace(ASK, url=f"{URL}/{{x}}")):
            self.assertIn("longer than 8000 characters", self.failure(function, {"x": LONG}))

    @settings(max_examples=30)
    @given(
        st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.booleans() | st.text(), st.lists), max_size=4)
    )
    def test_any(self, arguments: dict[str, Any]) -> None:
        """Any arguments arrive as they are, or are told to be wrong."""
        self.hooks.got.clear()
        self.run_it(ASK, arguments)
        self.assertEqual(json.loads(self.hooks.got[0][3])["arguments"], arguments)
        self.run_it(replace(ASK, method="GET"), arguments)
        self.assertEqual(self.hooks.got[1][1].partition("?")[0], "hooks.example.com/run")


class Long(TestCase):
    async def test_in_a_thread(self) -> None:
        """A long reply is read aside, with the same outcome."""
        hooks = Hooks()
        rows = [{"n": n} for n in range(15_000)]
        hooks.replies["/run"] = [(200, {}, json.dumps(rows).encode())]
        http = Http(Clock(), Tools(), lambda: 0.0)
        http._agent = Packed(RequestTraversalAgent(hooks))
        context = ToolContext("b1", "c1", "100")
        function = replace(ASK, result="[?n > `14997`].n")
        self.assertEqual(await WEBHOOK.run(function, {}, context, http), "[14998, 14999]")
