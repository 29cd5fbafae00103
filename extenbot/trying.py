"""Functions and tools run for their owner to see, outside of any call: the bench of the pages and of the command."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.plugin import getPlugins

from extenbot import plugins
from extenbot.ai import tools
from extenbot.ai.arguments import mistakes
from extenbot.errors import ExtenbotError, ToolFailed
from extenbot.interfaces import (
    Exchange,
    Function,
    ITool,
    Json,
    McpBench,
    McpServer,
    Outside,
    ToolContext,
)
from extenbot.settings import Settings
from extenbot.surroundings import RunTool
from extenbot.web.seams import Ran

T = TypeVar("T")

CALLER = "+15550100"
"""Who calls, in a trial."""

PATIENCE = 10.0
"""Seconds that an MCP server has to come up."""


def runner(outside: Outside) -> RunTool:
    """Runs functions by the plugins that there are."""
    kinds = list(getPlugins(ITool, plugins))

    async def run(function: Function, arguments: Json, context: ToolContext) -> str:
        for kind in kinds:
            if kind.serves(function):
                result: str = await kind.run(function, arguments, context, outside)
                return result
        raise ToolFailed("nothing here can call this URL")

    return run


class Bench:
    """Runs one thing and tells all of it."""

    def __init__(self, run: RunTool, servers: McpBench, clock: Any) -> None:
        self._run = run
        self._servers = servers
        self._clock = clock

    async def try_function(self, function: Function, arguments: Json) -> Ran:
        """Run a function as a call would."""
        parameters = tools.tool(function).get("parameters")
        wrong = mistakes(parameters, arguments) if isinstance(parameters, dict) else ""
        if wrong:
            return Ran((), f"Not called, as the arguments are wrong: {wrong}", failed=True)
        found: list[Exchange] = []
        name = f"trial-{token_hex(6)}"
        context = ToolContext(function.id, name, CALLER, "A trial", key=name, noted=found.append)
        return await self._tried(lambda: self._run(function, arguments, context), found, function.failure)

    async def try_tool(self, server: McpServer, name: str, arguments: Json) -> Ran:
        """Use a tool of an MCP server, whether or not it is among the allowed ones."""
        found: list[Exchange] = []
        whole = replace(server, allowed=())
        return await self._tried(lambda: self._servers.call(whole, name, arguments, found.append), found)

    async def list_tools(self, server: McpServer) -> tuple[Json, ...]:
        """All tools of an MCP server, waiting for it to come up; `ToolFailed` when it does not."""
        return await self._servers.all_tools(server, PATIENCE)

    async def _tried(self, work: Callable[[], Awaitable[str]], found: list[Exchange], sentence: str = "") -> Ran:
        began = self._clock.seconds()
        try:
            heard, failed = await work(), False
        except ExtenbotError as error:
            words = f"The function failed: {error}"
            heard, failed = f'{words.rstrip(".")}. Say to the caller: "{sentence}"' if sentence else words, True
        return Ran(tuple(found), heard, failed, self._clock.seconds() - began)


def alone(settings: Settings, work: Callable[[Bench], Coroutine[Any, Any, T]]) -> T:
    """Do it without a service; once in a process, as it runs the reactor. Its `ExtenbotError` goes on to the caller."""
    from twisted.internet import asyncioreactor, task
    from twisted.internet.error import ReactorAlreadyInstalledError

    with suppress(ReactorAlreadyInstalledError):
        asyncioreactor.install()  # the SDK of MCP needs asyncio
    from extenbot.net.mcp import Servers
    from extenbot.net.mcpsession import Sessions
    from extenbot.net.outside import Http

    results: list[T] = []
    problems: list[ExtenbotError] = []

    async def run(reactor: Any) -> None:
        outside = Http(reactor, settings.tools, time.time)
        servers = Servers(reactor, Sessions(outside.allowed, settings.tools.trust))
        try:
            results.append(await work(Bench(runner(outside), servers, reactor)))
        except ExtenbotError as error:
            problems.append(error)
        finally:
            await servers.stop()
            await outside.stop()

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit:  # its way to say that it is done
        if not results and not problems:
            sys.exit(130)  # stopped from the keyboard
    if problems:
        raise problems[0]
    return results[0]
