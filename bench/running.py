"""What the benches measure: the service and the scripted voice, each a process of its own on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real.harness import BIN, free_port, surroundings


@dataclass
class Running:
    """The processes' ids, the SIP port, and a bot that the voice serves."""

    folder: Path
    environment: dict[str, str]
    service: int
    voice: int
    sip: int
    bot: dict[str, Any]

    def command(self, *words: str) -> Any:
        """`extenbot WORDS --json` on the same database."""
        return _command(self.folder, self.environment, *words)

    @property
    def faults(self) -> str:
        """The end of the service's log when there is a traceback in it."""
        text = (self.folder / "log").read_text()
        return text[-5000:] if "Traceback" in text or "Unhandled" in text else ""


def _command(folder: Path, environment: dict[str, str], *words: str) -> Any:
    command = [str(BIN / "extenbot"), *words, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@contextmanager
def running(
    folder: Path,
    script: str | Sequence[str],
    *,
    before: Sequence[str] = (),
    before_voice: Sequence[str] = (),
    options: Sequence[str] = (),
    **settings: str,
) -> Iterator[Running]:
    """Start both, and stop them at the end.

    `script` is what the scripted voice says, or the command of another voice, which prints its URL. `before` and
    `before_voice` stand before their commands (taskset), `options` are twistd's, `settings` EXTENBOT_*.
    """
    if isinstance(script, str):
        (folder / "bench.txt").write_text(script)
        script = [sys.executable, "-m", "extenbot.sandbox", "--script", str(folder / "bench.txt")]
    sip = free_port(socket.SOCK_DGRAM)
    environment = surroundings(folder, sip, free_port(), **settings)
    voice = subprocess.Popen([*before_voice, *script], stdout=subprocess.PIPE, text=True)
    with (folder / "log").open("w") as log:
        command = [*before, str(BIN / "twistd"), *options, "-n", "--pidfile=", "extenbot"]
        service = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        assert voice.stdout is not None
        url = voice.stdout.readline().strip()
        while "extenbot is running" not in (folder / "log").read_text():
            if service.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.1)
        bot = _command(folder, environment, "bot", "add", "--name", "bench", "--ai-url", url, "--model", "bench")
        time.sleep(1.5)  # the running service sees the new bot within a second
        yield Running(folder, environment, service.pid, voice.pid, sip, bot)
    finally:
        for process in (service, voice):
            process.terminate()
            process.wait(30)
