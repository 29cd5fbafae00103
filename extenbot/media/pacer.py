"""The 20-ms clock of all calls: ten shared phase slots a period, so that packets leave evenly and timers stay few.

Turns stand on a grid that never drifts. A late turn is caught up, a long stall only in its
last frames: a burst of more than that would overrun the phone, so the rest is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

SLOTS = 10
CATCH_UP = 8
"""Turns made up for at once after a stall."""

EARLY = 0.0005
"""Seconds by which a timer may fire before its turn, timers being kept in whole milliseconds by some loops."""


class _Member:
    __slots__ = ("active", "tick")

    def __init__(self, tick: Callable[[], None]) -> None:
        self.tick = tick
        self.active = True


class _Slot:
    """The calls that share one phase. `turn` counts whole periods since the wheel's first moment."""

    __slots__ = ("members", "phase", "turn")

    def __init__(self, phase: float) -> None:
        self.phase = phase
        self.turn = 0
        self.members: list[_Member] = []


class _Wheel:
    """All calls of one period."""

    log = Logger()

    def __init__(self, clock: Any, period: float) -> None:
        self._clock = clock
        self._period = period
        self._start: float = clock.seconds()
        self._slots = [_Slot(period * n / SLOTS) for n in range(SLOTS)]
        self._timer: IDelayedCall | None = None
        self._turning = False

    def join(self, tick: Callable[[], None]) -> Callable[[], None]:
        now: float = self._clock.seconds()
        slot = min(self._slots, key=lambda slot: (len(slot.members), self._next(slot, now)))
        if not slot.members:
            slot.turn = self._next_turn(slot, now)
        member = _Member(tick)
        slot.members.append(member)
        self._schedule()
        return partial(self._leave, slot, member)

    def _leave(self, slot: _Slot, member: _Member) -> None:
        if member.active:
            member.active = False
            slot.members.remove(member)
            self._schedule()

    def _next_turn(self, slot: _Slot, now: float) -> int:
        return int((now - self._start - slot.phase) // self._period) + 1

    def _due(self, slot: _Slot) -> float:
        return self._start + slot.phase + slot.turn * self._period

    def _next(self, slot: _Slot, now: float) -> float:
        return self._start + slot.phase + self._next_turn(slot, now) * self._period

    def _schedule(self) -> None:
        """One timer, for the slot that is due first; none when there is no call."""
        if self._turning:
            return
        due = min((self._due(slot) for slot in self._slots if slot.members), default=None)
        if self._timer is not None:
            if due is not None and self._timer.getTime() <= due:
                return  # fires early enough; it looks again then
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._turning = True
        now = self._clock.seconds() + EARLY
        for slot in self._slots:
            if slot.members and self._due(slot) <= now:
                last = max(slot.turn, self._next_turn(slot, now) - 1)
                for _ in range(min(last - slot.turn + 1, CATCH_UP)):
                    self._turn(slot)
                slot.turn = last + 1
        self._turning = False
        self._schedule()

    def _turn(self, slot: _Slot) -> None:
        for member in slot.members.copy():
            if member.active:
                try:
                    member.tick()
                except Exception:  # noqa: BLE001  one call's fault must not silence the others
                    self.log.failure("A call's audio failed and was stopped")
                    self._leave(slot, member)


class Pacer:
    """Calls each member's tick once a period, for as long as it stays."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock  # IReactorTime
        self._wheels: dict[int, _Wheel] = {}

    def join(self, tick: Callable[[], None], period_ms: int) -> Callable[[], None]:
        """Call `tick` every `period_ms` from now on; the returned callable ends that, and may be called twice.

        A tick that raises is logged and called no more.
        """
        wheel = self._wheels.get(period_ms)
        if wheel is None:
            wheel = self._wheels[period_ms] = _Wheel(self._clock, period_ms / 1000)
        return wheel.join(tick)
