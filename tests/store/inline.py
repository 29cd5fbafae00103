"""A reactor and a thread pool in which everything happens at once, for tests of what uses the store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from extenbot.settings import Settings
from extenbot.store.store import Store
from tests.clock import Clock


class InlineReactor(Clock):
    """A clock that hands calls from threads over at once."""

    def callFromThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)


class InlinePool:
    """Runs what it is given before it returns."""

    broken: Exception | None = None
    """When set, every job fails with it."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def callInThreadWithCallback(
        self, done: Callable[[bool, Any], None], function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        try:
            if self.broken is not None:
                raise self.broken
            result = function(*args, **kwargs)
        except Exception:  # noqa: BLE001
            done(False, Failure())
        else:
            done(True, result)


def new_folder(case: SynchronousTestCase) -> Path:
    """An empty folder that goes with the test."""
    folder = tempfile.TemporaryDirectory(prefix="extenbot-")
    case.addCleanup(folder.cleanup)
    return Path(folder.name)


def open_store(folder: Path, reactor: InlineReactor | None = None, pool: InlinePool | None = None) -> Store:
    """A store in `folder`, open; nothing of it needs a running reactor."""
    store = Store(Settings(data=folder), reactor or InlineReactor(), pool or InlinePool())  # type: ignore[arg-type]
    store.open()
    return store
