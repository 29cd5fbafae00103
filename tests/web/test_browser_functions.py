"""A real browser on the pages of functions and MCP servers, at desk and phone width.

With EXTENBOT_SCREENSHOTS=FOLDER each step also leaves a picture there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread

from extenbot.interfaces import Exchange, Function, Json, McpServer
from extenbot.web.seams import Live, Ran
from tests.web.test_browser import Served

EXCHANGE = Exchange(
    "POST",
    "https://api.dify.ai/v1/workflows/run",
    (("content-type", "application/json"), ("idempotency-key", "call_1")),
    '{"inputs": {"number1": 1, "number2": 1}, "response_mode": "blocking", "user": "+4930123456"}',
    200,
    (("content-type", "application/json"),),
    '{"data": {"status": "succeeded", "outputs": {"text": "The sum is two."}}}',
    0.412,
)
TOOLS = (
    {"name": "add", "description": "Adds two numbers.", "parameters": {"type": "object", "properties": {"a": {}}}},
    {"name": "echo", "description": "Says it again.", "parameters": {"type": "object"}},
)


def run_function(_function: Function, _arguments: Json) -> Deferred[Ran]:
    return succeed(Ran((EXCHANGE,), "The sum is two.", seconds=0.42))


def run_tool(_server: McpServer, name: str, _arguments: Json) -> Deferred[Ran]:
    return succeed(Ran((), f"{name} has nothing to say", seconds=0.02))


@pytest.mark.real
class InABrowser(Served):
    live = Live(run_function=run_function, server_tools=lambda _server: succeed(TOOLS), run_tool=run_tool)

    async def test_functions(self) -> None:
        """From nothing to a function and an MCP server that were tried and belong to a bot."""
        for width in (1280, 360):
            await deferToThread(self.visit, width)

    def walk(self, page: Any, width: int, look: Callable[[str], None]) -> None:
        page.goto(f"{self.url}/signup")
        page.fill("#email", f"you{width}@example.org")
        page.fill("#password", "correct horse battery")
        page.click("main button")
        page.click("nav >> text=Functions")
        look("no-functions")
        page.click("text=Make the first function")
        look("new-function")
        page.click("text=exten.bot’s example")
        self.assertIn('"{function_name}",\n    },', page.input_value("#template"))
        page.check("[name=kind][value=dify_chat]")
        self.assertTrue(page.is_visible("#template"))
        page.fill("#template", "")
        self.assertFalse(page.is_visible("#template"))
        self.assertFalse(page.is_visible("[name=streaming][value=yes]"))
        page.check("[name=kind][value=webhook]")
        page.click("summary:has-text('Method, headers')")
        page.fill("#headers", "X-Team: 7")
        page.fill("#description", '{\n  "name": }')
        page.click("button:has-text('Save')")
        self.assertIn("line 2, column 11", page.inner_text("#description-problem"))
        look("wrong-function")
        page.goto(f"{self.url}/settings/functions/new?example=exten")
        page.click("button:has-text('Save')")
        page.click("button:has-text('Run it')")
        self.assertTrue(page.is_visible("text=after 412 ms"))
        look("function-tried")
        page.click("main >> text=Edit")
        look("function")
        page.goto(f"{self.url}/settings/functions/import")
        page.fill("#curl", "curl https://example.org/orders -H 'X-Key: k' -d '{\"order\": \"A-1\"}'")
        look("import")
        page.click("text=Make a function of it")
        self.assertEqual(page.input_value("#url"), "https://example.org/orders")
        look("imported")
        page.click("button:has-text('Save')")
        page.click("nav >> text=Functions")
        look("functions")
        page.click("nav >> text=MCP")
        page.click("text=Add the first MCP server")
        page.fill("#label", "calendar")
        page.fill("#url", "https://example.org/mcp")
        page.fill("#key", "secret-key")
        look("new-server")
        page.click("button:has-text('Save')")
        page.click("text=List its tools")
        page.click("summary:has-text('echo')")
        page.click("details[open] >> text=Run it")
        self.assertTrue(page.is_visible("text=echo has nothing to say"))
        look("server-tried")
        page.click("nav >> text=MCP")
        look("servers")
        page.click("nav >> text=Bots")
        page.click("text=Make the first bot")
        page.fill("#name", "Reception")
        page.check("label:has-text('two_numbers') input")
        page.check("label:has-text('calendar') input")
        page.click("summary:has-text('Webhooks around')")
        look("bot-form-abilities")
        page.click("button:has-text('Make the bot')")
        self.assertTrue(page.is_visible("dd >> text=two_numbers"))
        look("bot-with-abilities")
