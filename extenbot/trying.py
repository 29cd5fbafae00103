"""Functions and tools run for their owner to see, outside of any call: the bench of the pages and the command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from extenbot.ai import tools
from extenbot.ai.arguments import mistakes
from extenbot.errors import ExtenbotError, ToolFailed
from extenbot.interfaces import Exchange, Function, Json, McpServer, McpServers, ToolContext
from extenbot.surroundings import RunTool
from extenbot.web.seams import Ran

CALLER = "+15550100"
"""Who calls, in a trial."""


async def try_function(run: RunTool, clock: Any, function: Function, arguments: Json, bot_id: str, number: str) -> Ran:
    """Run a function as a call would; `number` names the trial, as its call and for its idempotency key."""
    parameters = tools.tool(function).get("parameters")
    wrong = mistakes(parameters, arguments) if isinstance(parameters, dict) else ""
    if wrong:
        return Ran((), f"Not called, as the arguments are wrong: {wrong}", failed=True)
    found: list[Exchange] = []
    context = ToolContext(bot_id, f"trial-{number}", CALLER, "A trial", "", f"trial-{number}", {}, found.append)
    return await _tried(lambda: run(function, arguments, context), clock, found, function.failure)


async def try_tool(servers: McpServers, clock: Any, server: McpServer, name: str, arguments: Json) -> Ran:
    """Use a tool of an MCP server, whether or not it is among the allowed ones."""
    found: list[Exchange] = []
    whole = replace(server, allowed=())
    return await _tried(lambda: servers.call(whole, name, arguments, found.append), clock, found)


async def list_tools(servers: McpServers, server: McpServer, patience: float = 10.0) -> tuple[Json, ...]:
    """All tools of an MCP server, waiting for it to come up; `ToolFailed` when it does not."""
    whole = replace(server, allowed=(), wait=patience)
    listed = servers.tools(whole)
    if not listed:
        await servers.ready(whole)
        listed = servers.tools(whole)
    if not listed:
        raise ToolFailed(f"The MCP server {server.label} has not listed any tools.")
    return listed


async def _tried(
    work: Callable[[], Awaitable[str]], clock: Any, found: list[Exchange], sentence: str = ""
) -> Ran:  # fmt: skip
    began = clock.seconds()
    try:
        heard, failed = await work(), False
    except ExtenbotError as error:
        words = f"The function failed: {error}"
        heard, failed = f'{words} Say to the caller: "{sentence}"' if sentence else words, True
    return Ran(tuple(found), heard, failed, clock.seconds() - began)
