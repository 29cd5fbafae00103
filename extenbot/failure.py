"""What a caller gets when the voice fails: before the answer another place to go, after it a sentence and a way on.

Before the answer the PBX is told: 503 or 480, or the 302 that sends its caller elsewhere. After the answer the
stored sentence is spoken (without one the tone that every telephone has for it), then the caller is transferred, or
the call ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from extenbot.errors import BackendLost, Malformed
from extenbot.interfaces import Bot, Playout
from extenbot.media import g711
from extenbot.sip.uri import callee

ITEM = "failure"
"""The name of the sentence in the playout; no voice names its items so."""

GRACE = 5.0
"""Seconds beyond the length of all that is to be heard that it may take; a caller on hold hears nothing."""


@cache
def sorry(codec: str) -> bytes:
    """The special information tone, once (ITU-T E.180 3.5): the call cannot go on as it was meant to."""
    pause = g711.SILENCE[codec] * (1000 * g711.PER_MS)
    return b"".join(g711.tone(codec, hertz, 330) for hertz in (950, 1400, 1800)) + pause


def refusal(bot: Bot, why: BackendLost, domain: str) -> tuple[int, list[tuple[str, str]]]:
    """The answer to an INVITE that no voice can take: code and headers. `domain` is the PBX's, for bare numbers."""
    manner = bot.manner
    code = int(manner.refusal) if manner.refusal else why.code
    headers = [("Reason", f'SIP;cause={why.code};text="{quotable(str(why))}"')]  # RFC 3326
    if code == 302:
        try:
            headers.append(("Contact", f"<{callee(manner.refusal_uri, domain)}>"))
        except Malformed:  # it was good when it was saved
            code = why.code
    if code == 503:
        headers.append(("Retry-After", "10"))
    return code, headers


class Apology:
    """The sentence after the answer. `said` is called once, when it has been heard or cannot be."""

    def __init__(self, clock: IReactorTime, playout: Playout, audio: bytes, said: Callable[[], None]) -> None:
        """What the bot had said before and still waits is heard first."""
        self._playout = playout
        self._said = said
        playout.on_began = None
        playout.on_drained = self._over
        playout.held = False
        playout.add(ITEM, audio)
        playout.finish(ITEM)
        self._latest: IDelayedCall | None = clock.callLater(playout.waiting / g711.RATE + GRACE, self._over)

    def stop(self) -> None:
        """Nothing more is told."""
        self._playout.on_drained = None
        if self._latest is not None and self._latest.active():
            self._latest.cancel()
        self._latest = None

    def _over(self) -> None:
        self.stop()
        self._said()


def quotable(text: str) -> str:
    """Text for inside a quoted string of a SIP header (RFC 3261 25.1), shortened."""
    return "".join(c for c in text if c >= " " and c not in '"\\')[:120]
