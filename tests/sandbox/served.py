"""A sandbox as a process of its own, and what an SDK client makes of it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


class Served:
    """`python -m extenbot.sandbox ARGUMENTS`, running."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "extenbot.sandbox", *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def stop(self) -> int:
        """End it; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(10)
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def talk(self, model: str, *sounds: Path) -> list[dict[str, Any]]:
        """The answers an SDK client got, audio as bytes."""
        command = [sys.executable, "-m", "tests.sandbox.sdk_client", self.url, model, *map(str, sounds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
        if done.returncode:
            raise AssertionError(done.stderr)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return [{**answer, "audio": base64.b64decode(answer["audio"])} for answer in answers]
