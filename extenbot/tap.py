"""What `twistd extenbot` needs: its options, the service, and the reactor it runs best on."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.python.usage import Options as TwistedOptions

from extenbot.errors import SettingsError
from extenbot.settings import Settings, load

if TYPE_CHECKING:
    from extenbot.service import Extenbot


def install_reactor() -> None:
    """Install the asyncio reactor over uvloop, unless a reactor is there already (`twistd --reactor`).

    asyncio libraries (the MCP SDK) then share the loop. Without uvloop (PyPy, Windows) plain asyncio serves.
    """
    if "twisted.internet.reactor" in sys.modules:
        return
    import asyncio

    from twisted.internet import asyncioreactor

    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:

        class Loop(uvloop.Loop):
            """uvloop counts in whole milliseconds of a clock that stands still during a turn, so its timers fire up to
            1.5 ms early. Twisted then asks for the rest, gets a timer of 0 ms, and so on: 500 times a second, half a
            millisecond of doing nothing busily. A millisecond later is soon enough."""

            def call_at(self, when: float, *given: Any, **more: Any) -> asyncio.TimerHandle:  # type: ignore[override]
                return super().call_at(when + 0.001, *given, **more)

        loop = Loop()
    # Otherwise what starts before the loop runs is scheduled on another loop and hangs without a word.
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)
    from twisted.internet import reactor

    # uvloop takes the wake-up descriptor by which Twisted learns that a child process has ended.
    reactor.callWhenRunning(_reap_children)


def _reap_children() -> None:
    from twisted.internet import reactor
    from twisted.internet.process import reapAllProcesses

    def ended(_signal: int, _frame: object) -> None:
        reactor.callFromThread(reapAllProcesses)  # type: ignore[attr-defined]

    signal.signal(signal.SIGCHLD, ended)
    reapAllProcesses()


# twistd imports this module when `extenbot` was chosen, and before it installs a reactor of its own.
install_reactor()


def _end_on_signals() -> None:
    """SIGTERM and SIGINT end us in order, with exit code 0; a second one, while we end, changes nothing.

    Twisted's own way ends by the signal itself, and a second one is a traceback: impatient people press Ctrl-C twice.
    """
    from twisted.internet import reactor
    from twisted.logger import Logger

    def end(number: int, _frame: object) -> None:
        for known in (signal.SIGTERM, signal.SIGINT):
            signal.signal(known, signal.SIG_IGN)
        Logger(namespace="extenbot").info("{signal}: ending", signal=signal.Signals(number).name)
        reactor.callFromThread(reactor.stop)  # type: ignore[attr-defined]

    for known in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(known) is not signal.SIG_IGN:
            signal.signal(known, end)


class Options(TwistedOptions):
    """The options of `twistd extenbot`."""

    optParameters: ClassVar = [
        ["config", "c", None, "the settings, a TOML file (default: extenbot.toml here, if there is one)"]
    ]
    settings: Settings

    def postOptions(self) -> None:
        """Read the settings; every mistake is one line, and nothing starts."""
        config = self["config"]
        try:
            self.settings = load(Path(config) if config else None, os.environ)
        except SettingsError as error:
            lines = (f"extenbot cannot start: {key}: {sentence}" for key, sentence in error.problems)
            raise SystemExit("\n".join(lines)) from None


def makeService(options: Options) -> Extenbot:
    """Called by twistd."""
    from twisted.internet import reactor

    from extenbot.service import make_service

    reactor.callWhenRunning(_end_on_signals)
    parent: Any = options.parent
    return make_service(options.settings, reactor, foreground=bool(parent and parent.get("nodaemon")))
