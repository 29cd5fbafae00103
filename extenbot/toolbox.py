"""The tools of one call: which the model is told of, and who does what it asks for.

Functions of the bot run as they may, at the same time; keys are the keypad's. Those that end or leave the conversation
are not asked for here: the voice says so when all before them has been heard.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from extenbot.ai import built_in, tools
from extenbot.errors import ToolFailed
from extenbot.interfaces import Bot, Function, Json, ToolCall, ToolContext, Voice
from extenbot.keypad import Keypad
from extenbot.surroundings import RunTool
from extenbot.tasks import Tasks


class Toolbox:
    """What it has begun ends with `stop`."""

    log = Logger()

    def __init__(self, bot: Bot, run: RunTool) -> None:
        """`Invalid` when a function's description cannot be read."""
        self._bot = bot
        self._run_tool = run
        self._functions = {tools.name_of(function): function for function in bot.functions}
        self._tasks = Tasks()

    @property
    def offered(self) -> tuple[Json, ...]:
        """The Realtime function tools of the bot."""
        functions = (tools.tool(function) for function in self._bot.functions)
        return (*functions, *built_in.tools(self._bot, self._functions))

    @property
    def terminal(self) -> frozenset[str]:
        """Those of them that end or leave the conversation."""
        return built_in.TERMINAL - self._functions.keys()

    def ask(self, tool: ToolCall, voice: Voice, keypad: Keypad, context: ToolContext) -> None:
        """Do it; the answer goes to `voice`, now or later."""
        function = self._functions.get(tool.name)
        if function is not None:
            self._tasks.start(self._run(function, tool, voice, context), "a function")
        elif tool.name == built_in.COLLECT:
            keypad.collect(tool)
        elif tool.name == built_in.SEND:
            keypad.send(tool)
        else:
            voice.answered(tool.call_id, f"There is no function called {tool.name}.")

    def stop(self) -> None:
        """The call is over: nobody waits for an answer any more."""
        self._tasks.stop()

    async def _run(self, function: Function, tool: ToolCall, voice: Voice, context: ToolContext) -> None:
        """Run one function; whatever happens, the model hears an answer."""
        try:
            output = str(await self._run_tool(function, tool.arguments, context))
        except ToolFailed as error:
            output = f"The function failed: {error}"
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001  a plugin may fail in any way, and the caller waits for words
            self.log.failure("The function {name} of bot {bot} failed", name=tool.name, bot=self._bot.username)
            output = "The function failed by a fault of the service."
        voice.answered(tool.call_id, output)
