"""`python -m extenbot.sandbox`: the local voice as a process of its own, for load and for other programs' tests."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from extenbot import settings
from extenbot.errors import CannotStart, Malformed
from extenbot.sandbox.script import load


def main() -> None:
    """Listen, print the URL in one line, and serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m extenbot.sandbox", description="A Realtime voice server.")
    parser.add_argument("--listen", default="tcp:0:interface=127.0.0.1", help="where, such as %(default)s")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--script", type=Path, help="one script, for every model name")
    which.add_argument("--scripts", type=Path, help="folder of scripts: NAME.txt serves the model sandbox-NAME")
    parser.add_argument("--whisper", type=Path, help="folder of a faster-whisper model")
    parser.add_argument("--piper", type=Path, help="a Piper voice, the .onnx file")
    parser.add_argument("--verbose", action="store_true", help="log to standard error")
    arguments = parser.parse_args()
    try:
        endpoint = settings.endpoint(arguments.listen, ("tcp",))
        script = load(arguments.script) if arguments.script else None
    except (ValueError, Malformed) as error:
        parser.exit(1, f"{error}\n")

    from twisted.internet.defer import Deferred
    from twisted.internet.task import react
    from twisted.logger import globalLogBeginner, textFileLogObserver

    from extenbot.sandbox.server import Sandbox

    globalLogBeginner.beginLoggingTo(
        [textFileLogObserver(sys.stderr)] if arguments.verbose else [], redirectStandardIO=False
    )
    chosen = settings.Sandbox((endpoint,), arguments.scripts, arguments.whisper, arguments.piper)

    async def serve(reactor: Any) -> None:
        sandbox = Sandbox(reactor, chosen, script=script)
        try:
            url = await sandbox.start()
        except CannotStart as error:
            parser.exit(1, f"{error}\n")
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        reactor.addSystemEventTrigger("before", "shutdown", sandbox.stop)
        await Deferred()

    react(lambda reactor: Deferred.fromCoroutine(serve(reactor)))


if __name__ == "__main__":
    main()
