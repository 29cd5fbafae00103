"""The times of RFC 3261 17.1.1.1 in seconds, and the timers of one machine."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

T1 = 0.5
T2 = 4.0
T4 = 5.0
LONG = 64 * T1  # timers B, F, H, J, L


class Timers:
    """Belongs to the state its machine is in: entering the next state stops what the last one started."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._running: list[IDelayedCall] = []

    def enter(self, *timers: tuple[float, Callable[[], None]]) -> None:
        """Stop all that runs and start these (seconds, what to do)."""
        for call in self._running:
            if call.active():
                call.cancel()
        self._running = [self._clock.callLater(seconds, fire) for seconds, fire in timers]

    def again(self, seconds: float, fire: Callable[[], None]) -> None:
        """One more in the same state."""
        self._running = [call for call in self._running if call.active()]
        self._running.append(self._clock.callLater(seconds, fire))
