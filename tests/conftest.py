"""Before anything imports a reactor: the one the service runs on. Files of tests go to a folder of their own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from passlib.hash import argon2

from extenbot.store import accounts
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


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> None:
    """A password costs 60 ms to hash, as it should; tests make hundreds."""
    accounts._hasher = cache(lambda: argon2.using(rounds=1, memory_cost=8, parallelism=1))
