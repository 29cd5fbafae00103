"""What we answer an INVITE with and say again until the caller has it (RFC 3261 13.3.1.4, RFC 3262 3)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from extenbot.sip.timers import LONG, T1, Timers


class Repeated:
    """Sent now, and again after T1, 2 T1 and so on until `stop`; after 64 T1 it has `failed`."""

    def __init__(
        self, clock: IReactorTime, send: Callable[[], None], failed: Callable[[], None], most: float = LONG
    ) -> None:
        """`most` is the longest wait between two, in seconds."""
        self._send = send
        self._wait = T1
        self._most = most
        self._timers = Timers(clock)
        self._timers.enter((LONG, failed), (T1, self._again))
        send()

    def _again(self) -> None:
        self._wait = min(2 * self._wait, self._most)
        self._timers.again(self._wait, self._again)
        self._send()

    def stop(self) -> None:
        self._timers.enter()
