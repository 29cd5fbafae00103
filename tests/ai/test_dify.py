"""Apps of dify: what they are sent, and what is made of the replies that its documentation shows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from extenbot import plugins
from extenbot.ai import dify
from extenbot.errors import ToolFailed
from extenbot.interfaces import Function, ITool, Reply, ToolContext

WORKFLOW = Function("f1", "book", "https://api.dify.ai/v1", "app-key", kind="dify_workflow", timeout=60)
CHAT = replace(WORKFLOW, kind="dify_chat")
CONTEXT = ToolContext("b1", "c1", "+491701234")


def reply(document: object, status: int = 200) -> Reply:
    return Reply(status, "application/json", json.dumps(document).encode())


def stream(*events: Any) -> Reply:
    """As dify writes them, pings between."""
    blocks = "".join(f"event: ping\n\ndata: {json.dumps(event)}\n\n" for event in events)
    return Reply(200, "text/event-stream; charset=utf-8", blocks.encode())


def finished(**data: Any) -> dict[str, Any]:
    return {"event": "workflow_finished", "task_id": "t", "workflow_run_id": "r", "data": {"id": "r", **data}}


class Asked(SynchronousTestCase):
    def test_addresses(self) -> None:
        """The base is taken as people have it: with or without /v1, with a path of theirs, or the whole address."""
        for url, wanted in (
            ("https://api.dify.ai/v1", "https://api.dify.ai/v1/workflows/run"),
            ("https://api.dify.ai/v1/", "https://api.dify.ai/v1/workflows/run"),
            ("https://api.dify.ai", "https://api.dify.ai/v1/workflows/run"),
            ("http://10.0.0.5:8080/v1/workflows/run", "http://10.0.0.5:8080/v1/workflows/run"),
            ("https://x.example/dify/v1/chat-messages", "https://x.example/dify/v1/workflows/run"),
        ):
            self.assertEqual(dify.address(replace(WORKFLOW, url=url)), wanted)
        self.assertEqual(dify.address(CHAT), "https://api.dify.ai/v1/chat-messages")

    def test_workflow(self) -> None:
        """The arguments are the inputs, the caller is the user, and the reply comes at once or as a stream."""
        wanted = {"inputs": {"city": "Rome"}, "response_mode": "blocking", "user": "+491701234"}
        self.assertEqual(dify.workflow(WORKFLOW, {"city": "Rome"}, CONTEXT), wanted)
        streaming = dify.workflow(replace(WORKFLOW, streaming=True), {}, ToolContext("b1", "c1", ""))
        self.assertEqual(streaming, {"inputs": {}, "response_mode": "streaming", "user": "c1"})

    def test_templates(self) -> None:
        """A template is the inputs, or with inputs in it the whole; no argument can change anything but itself."""
        evil = '", "user": "admin", "x": "{user}'
        inputs = replace(WORKFLOW, template='{"town": "{city}", "from": "{user}"}')
        body = dify.workflow(inputs, {"city": evil}, CONTEXT)
        self.assertEqual(body["inputs"], {"town": evil, "from": "+491701234"})
        self.assertEqual(body["user"], "+491701234")
        whole = replace(WORKFLOW, template='{"inputs": {"town": "{city}"}, "user": "me", "files": []}')
        body = dify.workflow(whole, {"city": "Rome"}, CONTEXT)
        wanted = {"inputs": {"town": "Rome"}, "user": "me", "files": [], "response_mode": "blocking"}
        self.assertEqual(body, wanted)

    def test_query(self) -> None:
        """A chat app is asked what the argument of that kind says, or the only text; the others are inputs."""
        for arguments, query, inputs in (
            ({"query": "when?", "city": "Rome"}, "when?", {"city": "Rome"}),
            ({"question": "when?"}, "when?", {}),
            ({"message": "hi", "n": 1}, "hi", {"n": 1}),
            ({"topic": "tax", "n": 1}, "tax", {"n": 1}),
            ({"a": "x", "b": "y"}, '{"a": "x", "b": "y"}', {}),
            ({}, "{}", {}),
        ):
            body = dify.chat(CHAT, arguments, CONTEXT)
            self.assertEqual((body["query"], body["inputs"]), (query, inputs))
            self.assertEqual((body["response_mode"], body["user"]), ("streaming", "+491701234"))
            self.assertNotIn("conversation_id", body)


class Workflows(SynchronousTestCase):
    def test_outputs(self) -> None:
        """One output is its text, several are JSON, a path chooses; none is said to be none."""
        for found, path, words in (
            ({"text": "It is booked."}, "", "It is booked."),
            ({"text": "<think>hm</think>\n\nIt is booked."}, "", "It is booked."),
            ({"n": 5}, "", "5"),
            ({"a": "x", "b": [1]}, "", '{"a": "x", "b": [1]}'),
            ({"a": "x", "b": [1]}, "b[0]", "1"),
            ({}, "", "The workflow has ended without a result."),
            (None, "", "The workflow has ended without a result."),
        ):
            data = {"id": "r", "workflow_id": "w", "status": "succeeded", "outputs": found, "error": None}
            blocking = reply({"workflow_run_id": "r", "task_id": "t", "data": data})
            self.assertEqual(dify.outputs(blocking, path), words)
            started = {"event": "workflow_started", "data": {"id": "r"}}
            step = {"event": "node_finished", "data": {"outputs": {"text": "not this"}, "status": "succeeded"}}
            self.assertEqual(
                dify.outputs(stream(started, step, finished(status="succeeded", outputs=found)), path), words
            )

    def test_partly(self) -> None:
        """A workflow of which a part has failed and been handled has its outputs."""
        data = {"status": "partial-succeeded", "outputs": {"text": "most"}}
        self.assertEqual(dify.outputs(reply({"data": data})), "most")

    def fails(self, given: Reply, words: str) -> None:
        with self.assertRaises(ToolFailed) as caught:
            dify.outputs(given)
        self.assertIn(words, str(caught.exception))

    def test_failed(self) -> None:
        """A workflow that failed, was stopped or waits for people says so."""
        for data, words in (
            ({"status": "failed", "error": "no such tool"}, "the dify workflow has failed: no such tool"),
            ({"status": "failed"}, "has failed: no reason given"),
            ({"status": "stopped"}, "the dify workflow has been stopped"),
            ({"status": "paused"}, "it waits for somebody's input"),
        ):
            self.fails(reply({"data": data}), words)
            self.fails(stream(finished(**data)), words)
        self.fails(
            stream({"event": "workflow_paused", "data": {"paused_nodes": ["n"]}}), "it waits for somebody's input"
        )

    def test_errors(self) -> None:
        """The errors of its documentation are sentences, with what dify says."""
        for status, code, words in (
            (400, "invalid_param", "its inputs are not what it expects: city is required"),
            (400, "not_workflow_app", "a chat app or agent is a function of that kind"),
            (400, "app_unavailable", "not published"),
            (400, "provider_not_initialize", "no credentials"),
            (400, "provider_quota_exceeded", "quota"),
            (400, "completion_request_error", "completion_request_error: city is required"),
            (401, "unauthorized", "its API key is not accepted"),
            (404, "not_found", "there is no such app"),
            (413, "file_too_large", "too large"),
            (429, "too_many_requests", "it has too much to do"),
            (500, "internal_server_error", "internal_server_error: city is required"),
        ):
            error = {"code": code, "message": "city is required", "status": status}
            self.fails(reply(error, status), words)
            self.fails(stream({"event": "error", "task_id": "t", **error}), words)
        self.fails(Reply(502, "text/html", b"<html>Bad Gateway</html>"), "it answered with 502")

    def test_broken(self) -> None:
        """What is no reply of dify's is none."""
        for found, words in (
            (stream(), "broke off"),
            (stream({"event": "workflow_started"}), "broke off"),
            (Reply(200, "text/html", b"<html>"), "is no JSON object"),
            (Reply(200, "application/json", b"[1]"), "is no JSON object"),
            (Reply(200, "application/json", b"[" * 100_000), "is no JSON object"),
            (Reply(200, "text/event-stream", b"data: {\n\ndata: " + b"[" * 100_000 + b"\n\n"), "broke off"),
        ):
            self.fails(found, words)

    @given(st.binary(max_size=200), st.sampled_from(("application/json", "text/event-stream", "")))
    def test_noise(self, body: bytes, kind: str) -> None:
        """Any bytes are a reply or a failure."""
        for read in (dify.outputs, dify.answer):
            try:
                read(Reply(200, kind, body))
            except ToolFailed:
                continue


class Chats(SynchronousTestCase):
    def test_chat(self) -> None:
        """A chat app's answer comes in pieces, and its conversation with it."""
        pieces = [{"event": "message", "answer": each, "conversation_id": "v1"} for each in ("At ", "ten ", "o'clock.")]
        given = stream(*pieces, {"event": "message_end", "conversation_id": "v1", "metadata": {}})
        self.assertEqual(dify.answer(given), ("At ten o'clock.", "v1"))

    def test_blocking(self) -> None:
        """A whole answer is taken, too."""
        given = reply({"event": "message", "answer": "At ten.", "conversation_id": "v1", "mode": "chat"})
        self.assertEqual(dify.answer(given), ("At ten.", "v1"))

    def test_agent(self) -> None:
        """An agent's thoughts are its own; what it says all of once more in the end is told once."""
        said = [{"event": "agent_message", "answer": each, "conversation_id": "v1"} for each in ("At ", "ten.")]
        thought = {"event": "agent_thought", "thought": "Let me look", "tool": "clock", "observation": "10"}
        end = {"event": "message_end", "conversation_id": "v1"}
        self.assertEqual(dify.answer(stream(thought, *said, end)).words, "At ten.")
        closing = {"event": "message", "answer": "At ten.", "conversation_id": "v1"}
        self.assertEqual(dify.answer(stream(thought, *said, closing, end)).words, "At ten.")

    def test_moderated(self) -> None:
        """Moderation takes words back."""
        given = stream(
            {"event": "message", "answer": "Something bad"},
            {"event": "message_replace", "answer": "I cannot say."},
            {"event": "message_end"},
        )
        self.assertEqual(dify.answer(given).words, "I cannot say.")

    def test_thinking(self) -> None:
        """What its model was thinking is not read out."""
        given = stream({"event": "message", "answer": "<think>\nten?\n</think>\n\nAt ten."}, {"event": "message_end"})
        self.assertEqual(dify.answer(given).words, "At ten.")

    def test_failed(self) -> None:
        """A chatflow that fails, waits for people or breaks off in the middle has not answered."""
        for events, words in (
            (({"event": "message", "answer": "At"}, finished(status="failed", error="no model")), "no model"),
            (({"event": "workflow_paused", "data": {"paused_nodes": []}},), "waits for somebody's input"),
            (({"event": "error", "status": 400, "code": "invalid_param", "message": "x"},), "not what it expects: x"),
            ((), "broke off"),
        ):
            with self.assertRaises(ToolFailed) as caught:
                dify.answer(stream(*events))
            self.assertIn(words, str(caught.exception))

    def test_empty(self) -> None:
        """An app may end without a word."""
        self.assertEqual(dify.answer(stream({"event": "message_end"})).words, "The app has answered without a word.")


class Service:
    """An outside world that is dify: it keeps what it was asked, and answers in turn."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, str, Any, dict[str, Any]]] = []

    async def fetch(self, queue: str, method: str, url: str, *, body: bytes = b"", **more: Any) -> Reply:
        self.asked.append((method, url, json.loads(body), more))
        return self.replies.pop(0)


class Plugin(SynchronousTestCase):
    def run_it(self, service: Any, function: Function, context: ToolContext, **arguments: Any) -> str:
        (tool,) = [tool for tool in getPlugins(ITool, plugins) if tool.serves(function)]
        words: str = self.successResultOf(Deferred.fromCoroutine(tool.run(function, arguments, context, service)))
        return words

    def test_workflow(self) -> None:
        """A workflow is run with the app's key, within the function's time, and never twice."""
        service = Service(reply({"data": {"status": "succeeded", "outputs": {"text": "Done."}}}))
        context = replace(CONTEXT, key="k1", late=30)
        function = replace(WORKFLOW, secret="s", headers=(("X-Team", "7"),))
        self.assertEqual(self.run_it(service, function, context, city="Rome"), "Done.")
        ((method, url, body, more),) = service.asked
        self.assertEqual((method, url), ("POST", "https://api.dify.ai/v1/workflows/run"))
        self.assertEqual(body["inputs"], {"city": "Rome"})
        self.assertEqual((more["token"], more["timeout"], more["late"], more["key"]), ("app-key", 60, 30, "k1"))
        self.assertEqual((more["secret"], more["headers"]), ("s", (("X-Team", "7"),)))
        self.assertEqual(more.get("retries", 0), 0)

    def test_conversation_gone(self) -> None:
        """When dify has forgotten the conversation, the next question begins a new one."""
        gone = reply({"code": "not_found", "message": "Conversation Not Exists.", "status": 404}, 404)
        service = Service(gone, stream({"event": "message", "answer": "Yes.", "conversation_id": "v2"}))
        context = replace(CONTEXT, kept={CHAT.id: "v1"})
        (tool,) = [tool for tool in getPlugins(ITool, plugins) if tool.serves(CHAT)]
        asking = Deferred.fromCoroutine(tool.run(CHAT, {"query": "Open?"}, context, service))
        self.assertIn("its conversation is gone", str(self.failureResultOf(asking, ToolFailed).value))
        self.assertEqual(self.run_it(service, CHAT, context, query="Open?"), "Yes.")
        self.assertEqual([asked[2].get("conversation_id") for asked in service.asked], ["v1", None])
        self.assertEqual(context.kept, {CHAT.id: "v2"})

    def test_conversation(self) -> None:
        """A chat app's conversation goes on within the call, and another call has another."""
        end = {"event": "message_end"}
        service = Service(
            *(
                stream({"event": "message", "answer": "Yes.", "conversation_id": each}, end)
                for each in ("v1", "v1", "v2")
            )
        )
        call = replace(CONTEXT, kept={})
        for context in (call, call, replace(CONTEXT, kept={})):
            self.assertEqual(self.run_it(service, CHAT, context, query="Really?"), "Yes.")
        self.assertEqual([body.get("conversation_id") for _, _, body, _ in service.asked], [None, "v1", None])
        self.assertEqual(call.kept, {"f1": "v1"})
