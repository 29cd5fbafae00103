"""Posting to webhooks: what they get, and what the model is told when they do not work."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Sequence
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError as Refusal
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from extenbot import plugins
from extenbot.errors import ToolFailed
from extenbot.interfaces import Function, ITool, ToolContext
from extenbot.net import webhook
from extenbot.net.webhook import post

URL = "https://hooks.example.com/run"


class Hook(Resource):
    """A webhook that keeps what it got, and answers as told."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answer, self.code, self.kind = b'{"answer": "yes"}', 200, b"application/json"
        self.requests: list[tuple[bytes, dict[bytes, Sequence[bytes]], bytes]] = []
        self.slow = ""  # "answer": never begins, "body": never ends

    def render(self, request: Request) -> Any:
        assert request.content is not None
        self.requests.append((request.method, dict(request.requestHeaders.getAllRawHeaders()), request.content.read()))
        request.setResponseCode(self.code)
        request.setHeader(b"Content-Type", self.kind)
        if self.slow == "body":
            request.write(self.answer)
        return NOT_DONE_YET if self.slow else self.answer


class Broken:
    """A client whose requests fail before they begin."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def post(self, url: str, **_: Any) -> Deferred[Any]:
        return fail(self.error)


class Posting(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.hook = Hook()
        self.stub = StubTreq(self.hook)

    def start(self, body: object = None, *, client: Any = None, url: str = URL, token: str = "", **more: Any) -> Any:
        coroutine: Coroutine[Any, Any, Any] = post(
            url, token, body, client=client or self.stub, clock=self.clock, **more
        )
        return Deferred.fromCoroutine(coroutine)

    def failure(self, deferred: Any) -> str:
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return str(self.failureResultOf(deferred, ToolFailed).value)

    def test_what_it_gets(self) -> None:
        """The webhook gets JSON with the bearer token, and its reply comes back with status and kind."""
        reply = self.successResultOf(self.start({"a": "ä"}, token="s3cret"))
        self.assertEqual(reply, (200, "application/json", b'{"answer": "yes"}'))
        ((method, headers, data),) = self.hook.requests
        self.assertEqual((method, json.loads(data)), (b"POST", {"a": "ä"}))
        self.assertEqual(headers[b"Authorization"], [b"Bearer s3cret"])
        self.assertEqual(headers[b"Content-Type"], [b"application/json"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_token(self) -> None:
        """Without a token no authorization is sent."""
        self.start()
        self.assertNotIn(b"Authorization", self.hook.requests[0][1])

    def test_statuses(self) -> None:
        """Any status is handed back, a redirect is not followed."""
        self.hook.code = 302
        self.assertEqual(self.successResultOf(self.start(token="s3cret"))[0], 302)
        self.assertEqual(len(self.hook.requests), 1)

    def test_never_answers(self) -> None:
        """A webhook that does not answer fails in its time, and no longer."""
        self.hook.slow = "answer"
        deferred = self.start()
        self.clock.advance(9.9)
        self.assertNoResult(deferred)
        self.clock.advance(0.1)
        self.assertEqual(self.failure(deferred), "the webhook has not answered within 10 seconds")

    def test_never_ends(self) -> None:
        """Neither does a reply that begins and never ends hold up the call."""
        self.hook.slow = "body"
        deferred = self.start(timeout=2)
        self.stub.flush()
        self.clock.advance(2)
        self.assertEqual(self.failure(deferred), "the webhook has not answered within 2 seconds")

    def test_too_large(self) -> None:
        """A reply over the limit is refused, one of just the limit is taken."""
        self.hook.answer = b"x" * 65536
        self.assertEqual(len(self.successResultOf(self.start())[2]), 65536)
        self.hook.answer += b"x"
        self.assertEqual(self.failure(self.start()), "the webhook's reply is larger than 64 KiB")

    def test_unreachable(self) -> None:
        """What is wrong with the way there is said in words, without an address."""
        for error, words in (
            (DNSLookupError("no results"), "the webhook's host name is not known"),
            (Refusal("111: 192.0.2.1"), "the webhook cannot be reached: Connection was refused by other side"),
            (ValueError("bad"), "the webhook's URL is not valid"),
        ):
            self.assertEqual(self.failure(self.start(client=Broken(error))), words)

    def test_cancelled(self) -> None:
        """A call that ends takes its running webhook with it."""
        self.hook.slow = "answer"
        deferred = self.start()
        deferred.addErrback(lambda _failure: None)
        deferred.cancel()
        self.successResultOf(deferred)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Plugin(SynchronousTestCase):
    function = Function("f", "ask", URL, token="s3cret", description='{"name": "ask", "type": "function"}')

    def setUp(self) -> None:
        (self.tool,) = [tool for tool in getPlugins(ITool, plugins) if tool.name == "Webhook"]
        self.hook = Hook()
        stub = StubTreq(self.hook)

        async def posted(url: str, token: str, body: Any) -> Any:
            return await post(url, token, body, client=stub, clock=Clock())

        self.patch(webhook, "post", posted)

    def run_it(self) -> Any:
        context = ToolContext("b1", "c1", "100")
        return Deferred.fromCoroutine(self.tool.run(self.function, {"q": 'x"y'}, context))

    def test_serves(self) -> None:
        """It is there without being named anywhere, for http and https alone."""
        for url, wanted in ((URL, True), ("HTTP://x", True), ("ftp://x", False), ("", False)):
            self.assertEqual(self.tool.serves(Function("f", "ask", url)), wanted)

    def test_run(self) -> None:
        """The function's arguments are posted, and the model is told the answer."""
        self.assertEqual(self.successResultOf(self.run_it()), "yes")
        wanted = {"function": "ask", "arguments": {"q": 'x"y'}, "caller": "100", "bot": "b1", "call": "c1"}
        self.assertEqual(json.loads(self.hook.requests[0][2]), wanted)

    def test_refused(self) -> None:
        """A webhook that answers with an error status is a failure that names it."""
        self.hook.code = 401
        failure: Failure = self.failureResultOf(self.run_it(), ToolFailed)
        self.assertEqual(str(failure.value), "the webhook answered with status 401")
