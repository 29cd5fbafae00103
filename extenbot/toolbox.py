"""The tools of one call: which the model is told of, and who does what it asks for.

Functions and MCP tools run as they may, several at the same time, none of them in the way of the audio; keys are the
keypad's. Those that end or leave the conversation are not asked for here: the voice says so when all before them has
been heard.

A function that takes its time is spoken of: by its owner's sentence at once, else by words of the model's own, so that
the caller does not think the line is dead. One that outlives its time-out is told to the model as failed; what comes of
it later stands in the timeline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from extenbot.ai import built_in, mcp, tools
from extenbot.ai.arguments import mistakes
from extenbot.consent import Consent
from extenbot.errors import ToolFailed, unanswered
from extenbot.interfaces import Bot, CallLog, Exchange, Function, Json, McpServer, ToolCall, ToolContext, Voice
from extenbot.journal import SHOWN, fields_of
from extenbot.keypad import Keypad
from extenbot.surroundings import Surroundings
from extenbot.tasks import Tasks

PATIENCE = 2.0
"""Seconds without a word after which the caller is told that it takes a moment."""

AGAIN = 12.0
"""Seconds after which they are told once more."""

LATE = 30.0
"""Seconds beyond its time-out in which a function may still end, for the timeline."""

FAULT = "The function failed by a fault of the service."


class Toolbox:
    """What it has begun ends with `stop`."""

    log = Logger()

    def __init__(self, bot: Bot, around: Surroundings, journal: CallLog, call_id: str) -> None:
        """`Invalid` when a function's description cannot be read."""
        self._bot = bot
        self._clock = around.clock
        self._run_tool = around.run_tool
        self._servers = around.servers
        self._journal = journal
        self._call_id = call_id
        self._functions = {tools.name_of(function): function for function in bot.functions}
        own, self._provided = servers_of(bot, around)
        self._own = {server.label: server for server in own}
        self._of_servers: dict[str, tuple[McpServer, Json]] = {}  # by the name that the model knows
        self._consent = Consent()
        self._tasks = Tasks()
        self._kept: dict[str, str] = {}
        self._moment: IDelayedCall | None = None  # until the caller is told that it takes one
        self._running = 0
        self._watches: list[Callable[[], None]] = []
        self._look()

    def _look(self) -> None:
        """Which tools the servers have."""
        found = {label: self._servers.tools(server) for label, server in self._own.items()}
        taken = {*self._functions, *built_in.BUILT_IN}
        by_name = {label: {str(tool["name"]): tool for tool in tools_} for label, tools_ in found.items()}
        named = mcp.named({label: list(tools_) for label, tools_ in by_name.items()}, taken)
        self._of_servers = {name: (self._own[label], by_name[label][inner]) for name, (label, inner) in named.items()}

    @property
    def offered(self) -> tuple[Json, ...]:
        """The Realtime tools of the bot."""
        functions = (tools.tool(function) for function in self._bot.functions)
        of_servers = ({"type": "function", **tool, "name": name} for name, (_, tool) in self._of_servers.items())
        provided = (mcp.provider_tool(server) for server in self._provided)
        return (*functions, *of_servers, *provided, *built_in.tools(self._bot, self._functions))

    @property
    def terminal(self) -> frozenset[str]:
        """Those of them that end or leave the conversation."""
        return built_in.TERMINAL - self._functions.keys()

    def watch(self, voice: Voice) -> None:
        """Tell the voice when MCP servers come, go, or have other tools."""

        def changed() -> None:
            before = self.offered
            self._look()
            if self.offered != before:
                self._journal.happened("tools.changed", tools=len(self._of_servers))
                voice.offer(self.offered)

        self._watches = [self._servers.watch(server, changed) for server in self._own.values()]
        changed()

    def ask(self, tool: ToolCall, voice: Voice, keypad: Keypad, context: ToolContext) -> None:
        """Do it; the answer goes to `voice`, now or later."""
        function, of_server = self._functions.get(tool.name), self._of_servers.get(tool.name)
        answer = partial(voice.answered, tool.call_id)
        if function is not None:
            self._use(function, tool, voice, context)
        elif of_server is not None:
            self._use_server(*of_server, tool, voice)
        elif tool.name == built_in.COLLECT:
            keypad.collect(tool)
        elif tool.name == built_in.SEND:
            keypad.send(tool)
        elif tool.name == built_in.DECIDE:
            try:
                self._consent.decide(tool, voice.turns)
            except ToolFailed as error:
                answer(str(error))
        else:
            answer(f"There is no function called {tool.name}.")

    def approve(self, tool: ToolCall, voice: Voice) -> None:
        """The voice service itself wants to use a tool, if the caller agrees."""

        def decided(yes: bool, call_id: str) -> None:
            self._journal.happened("tool.decided", name=tool.name, agreed=yes)
            voice.answered(call_id, "Noted.", speak=False)
            voice.approved(tool.call_id, yes)

        voice.told(self._consent.ask(tool.name, tool.arguments, voice.turns, decided))

    def stop(self) -> None:
        """The call is over: nobody waits for an answer any more."""
        for leave in self._watches:
            leave()
        self._watches.clear()
        self._tasks.stop()
        self._say_no_more()

    # -- Functions

    def _use(self, function: Function, tool: ToolCall, voice: Voice, context: ToolContext) -> None:
        parameters = tools.tool(function).get("parameters")
        if isinstance(parameters, dict) and (wrong := mistakes(parameters, tool.arguments)):
            voice.answered(tool.call_id, _wrong(wrong))
            return
        context = replace(
            context, key=f"{self._call_id}-{tool.call_id}", kept=self._kept, late=LATE, noted=partial(self._note, tool)
        )
        work = self._run_tool(function, tool.arguments, context)
        self._begin(tool, voice, work, function.timeout, function.waiting, function.failure, speak=function.speak)

    def _note(self, tool: ToolCall, exchange: Exchange) -> None:
        self._journal.happened("tool.exchange", name=tool.name, call=tool.call_id, **fields_of(exchange))

    # -- Tools of MCP servers

    def _use_server(self, server: McpServer, offered: Json, tool: ToolCall, voice: Voice) -> None:
        if wrong := mistakes(offered["parameters"], tool.arguments):
            voice.answered(tool.call_id, _wrong(wrong))
        elif server.approval:
            decided = partial(self._decided, server, offered, tool, voice)
            voice.answered(tool.call_id, self._consent.ask(tool.name, tool.arguments, voice.turns, decided))
        else:
            self._call_server(server, offered, tool, voice)

    def _call_server(self, server: McpServer, offered: Json, tool: ToolCall, voice: Voice) -> None:
        work = self._servers.call(server, str(offered["name"]), tool.arguments, partial(self._note, tool))
        self._begin(tool, voice, work, server.timeout + 1)

    def _decided(self, server: McpServer, offered: Json, tool: ToolCall, voice: Voice, yes: bool, call_id: str) -> None:
        """The model has told in another call what the caller said; that one gets the result."""
        self._journal.happened("tool.decided", name=tool.name, agreed=yes)
        if yes:
            self._call_server(server, offered, tool._replace(call_id=call_id), voice)
        else:
            voice.answered(call_id, "It is not done, as the caller does not want it.")

    # -- While something runs

    def _begin(
        self, tool: ToolCall, voice: Voice, work: Awaitable[str], timeout: float, waiting: str = "", failure: str = "",
        *, speak: bool = True,
    ) -> None:  # fmt: skip
        self._running += 1
        if waiting:
            voice.say(waiting)
        if self._moment is None:
            self._moment = self._clock.callLater(AGAIN if waiting else PATIENCE, self._speak_of_it, voice)
        self._tasks.start(self._run(tool, voice, work, timeout, failure, speak), "a function")

    def _speak_of_it(self, voice: Voice) -> None:
        voice.say("")
        self._moment = self._clock.callLater(AGAIN, self._speak_of_it, voice)

    def _say_no_more(self) -> None:
        if self._moment is not None and self._moment.active():
            self._moment.cancel()
        self._moment = None

    async def _run(
        self, tool: ToolCall, voice: Voice, work: Awaitable[str], patience: float, failure: str, speak: bool,
    ) -> None:  # fmt: skip
        """Run one; whatever happens, the model hears an answer, in time."""
        late = False

        def answer(output: str, *, speak: bool) -> None:
            self._running -= 1
            if not self._running:
                self._say_no_more()
            voice.answered(tool.call_id, output, speak=speak)

        def give_up() -> None:
            nonlocal late
            late = True
            answer(_failed(f"it has {unanswered(patience)}.", failure), speak=True)

        watch = self._clock.callLater(patience, give_up)
        try:
            output, well = str(await work), True
        except ToolFailed as error:
            output, well = _failed(str(error), failure), False
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001  a plugin may fail in any way, and the caller waits for words
            self.log.failure("The function {name} of bot {bot} failed", name=tool.name, bot=self._bot.username)
            output, well = _failed(FAULT, failure), False
        finally:
            if watch.active():
                watch.cancel()
        if late:
            self._journal.happened("tool.late", name=tool.name, call=tool.call_id, output=output[:SHOWN])
        else:
            answer(output, speak=speak or not well)


def servers_of(bot: Bot, around: Surroundings) -> tuple[tuple[McpServer, ...], tuple[McpServer, ...]]:
    """The MCP servers that we call for the bot, and those that its voice service calls by itself."""
    able = around.calls_mcp(bot)
    theirs = tuple(server for server in bot.servers if able and server.by == "provider")
    return tuple(server for server in bot.servers if server not in theirs), theirs


def _wrong(mistakes: str) -> str:
    return f"Not called, as the arguments are wrong: {mistakes} Put them right and try again."


def _failed(why: str, sentence: str) -> str:
    """What the model is told of a failure, and what its owner wants said then."""
    words = why if why == FAULT else f"The function failed: {why}"
    return f'{words.rstrip(".")}. Say to the caller: "{sentence}"' if sentence else words
