"""Slows guessing down: after some failures in a row one has to wait, longer each time."""

from __future__ import annotations

from collections.abc import Callable, Hashable

FIRST_WAIT = 15.0  # seconds
LONGEST_WAIT = 900.0
FORGOTTEN = 3600.0  # seconds after which failures no longer count
MOST_KEYS = 20_000


class Throttle:
    """Counts failures by key (an address, an account, both)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failures: dict[Hashable, tuple[int, float]] = {}  # count, when the last one was

    def wait(self, key: Hashable, free: int) -> float:
        """Seconds until this key may try again; `free` failures cost nothing."""
        count, last = self._failures.get(key, (0, 0.0))
        if count < free or self._now() - last > FORGOTTEN:
            return 0.0
        pause = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(count - free, 10))
        return max(0.0, last + pause - self._now())

    def failed(self, key: Hashable) -> None:
        now = self._now()
        count, last = self._failures.pop(key, (0, now))
        self._failures[key] = (count + 1 if now - last <= FORGOTTEN else 1, now)
        if len(self._failures) > MOST_KEYS:  # the one that has been quiet for longest
            del self._failures[next(iter(self._failures))]

    def passed(self, key: Hashable) -> None:
        self._failures.pop(key, None)
