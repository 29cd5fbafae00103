"""Before anything imports a reactor: the one the service runs on. Files of tests go to a folder of their own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from extenbot.tap import install_reactor

install_reactor()


@pytest.fixture(scope="session", autouse=True)
def elsewhere() -> Iterator[None]:
    """trial's `mktemp` makes its files in the working directory: not in the checkout."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="extenbot-tests-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        yield
        os.chdir(home)
