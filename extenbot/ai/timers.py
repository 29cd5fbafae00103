"""The named timers of one conversation: setting one again moves it, and all can be cleared at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Timers:
    """Delayed calls on one clock, by name."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._calls: dict[str, Any] = {}

    def set(self, name: str, seconds: float, do: Callable[..., object], *args: object) -> None:
        """Call `do` in so many seconds, unless the timer is set again or cleared."""
        self.clear(name)
        self._calls[name] = self._clock.callLater(seconds, self._fire, name, do, args)

    def __contains__(self, name: str) -> bool:
        return name in self._calls

    def clear(self, name: str) -> None:
        """Forget one timer; nothing happens when it is not set."""
        call = self._calls.pop(name, None)
        if call is not None:
            call.cancel()

    def clear_all(self) -> None:
        """Forget every timer."""
        while self._calls:
            self._calls.popitem()[1].cancel()

    def _fire(self, name: str, do: Callable[..., object], args: tuple[object, ...]) -> None:
        del self._calls[name]
        do(*args)
