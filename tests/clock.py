"""A fake clock for tests that make millions of steps."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from operator import attrgetter

from twisted.internet import task
from twisted.internet.base import DelayedCall

_TIME = attrgetter("time")


class Clock(task.Clock):
    """Twisted's, but what is to come is kept in order instead of being sorted anew with each call and each step."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:  # noqa: A002
        now = self.seconds()
        call = DelayedCall(now + delay, callable, args, kw, self.calls.remove, self._earlier, self.seconds)
        insort(self.calls, call, key=_TIME)
        return call

    def _earlier(self, call: DelayedCall) -> None:
        self.calls.remove(call)
        insort(self.calls, call, key=_TIME)

    def advance(self, amount: float) -> None:
        self.rightNow += amount
        calls = self.calls
        while calls and calls[0].time <= self.rightNow:
            call = calls.pop(0)
            if call.delayed_time:  # put off: that is found out here, as reactors do
                call.activate_delay()
                insort(calls, call, key=_TIME)
                continue
            call.called = 1
            call.func(*call.args, **call.kw)
