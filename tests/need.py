"""A test that needs a tool says so; where the tools are promised (CI), a missing one is a failure."""

from __future__ import annotations

import os
from unittest import SkipTest


def need(tool: str, install: str, present: bool) -> None:
    """Skip the test unless `tool` is `present`; under CI=true fail instead. `install` is the command that gets it."""
    if present:
        return
    words = f"{tool} is missing: {install}"
    if os.environ.get("CI", "").lower() == "true":
        raise AssertionError(words)
    raise SkipTest(words)
