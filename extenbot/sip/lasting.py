"""How long a call lasts without a word: the session timer (RFC 4028).

A `Lasting` belongs to one session. It reads and writes Session-Expires and Min-SE, says when a refresh of ours is
due, and when the other side has been silent for too long. Sending is the session's.

Who refreshes is agreed on with every 2xx to an INVITE or UPDATE, in either direction, and each starts the interval
anew. Who asks us for a timer refreshes itself unless it says otherwise. We ask in every call, because a PBX that is
gone would otherwise never be missed. Where the other side knows nothing of timers we refresh for both (RFC 4028 9,
table 2), and any answer, also a refusal, proves that it lives.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from extenbot.errors import Malformed, Refused
from extenbot.interfaces import Tokens
from extenbot.sip import grammar
from extenbot.sip.message import Message, Request, Response
from extenbot.sip.timers import Timers

LEAST = 90  # seconds (RFC 4028 5)
_MOST = 2**32 - 1  # RFC 3261 25.1 delta-seconds


class Lasting:
    """The session timer of one dialog. It runs from the first 2xx."""

    def __init__(
        self,
        clock: IReactorTime,
        tokens: Tokens,
        wanted: int,
        caller: bool,
        refresh: Callable[[], None],
        expired: Callable[[], None],
    ) -> None:
        """`wanted` seconds, 0 for none of our own wish; `caller`: whether the call is ours."""
        self._tokens = tokens
        self._wanted = wanted
        self._caller = caller
        self._refresh = refresh
        self._expired = expired
        self._least = LEAST  # what a 422 has taught us
        self._seconds = 0  # the interval agreed on; 0: there is none
        self._ours = False  # whether we refresh
        self._known = False  # whether they know timers
        self._timers = Timers(clock)
        self._retry = Timers(clock)

    # -- They ask -----------------------------------------------------------------------

    def granted(self, request: Request) -> list[tuple[str, str]]:
        """What the 2xx for it says (RFC 4028 9). The interval begins."""
        asked, refresher = _wish(request)
        self._known = _knows(request)
        if asked < LEAST:  # of a proxy that does not know better: a 422 would not be understood
            asked = 0
        if not asked and not self._wanted:
            self.stop()
            return []
        least = max(_number(request, "min-se"), LEAST)
        if not asked:
            seconds = max(self._seconds or self._wanted, least)
        elif self._wanted:
            seconds = min(asked, max(self._wanted, least))
        else:
            seconds = asked
        if not self._known:
            refresher = "uas"
        elif refresher not in ("uac", "uas"):
            refresher = self._as_before("uas", "uac") or ("uac" if asked else "uas")
        self._begin(seconds, refresher == "uas")
        headers = [("Session-Expires", f"{seconds};refresher={refresher}")]
        return [*headers, ("Require", "timer")] if refresher == "uac" else headers

    # -- We ask -------------------------------------------------------------------------

    def asked(self) -> list[tuple[str, str]]:
        """What an INVITE or UPDATE of ours says (RFC 4028 7.1, 7.4)."""
        wanted = self._seconds or self._wanted
        if not wanted:
            return []
        refresher = self._as_before("uac", "uas")
        value = f"{max(wanted, self._least)}" + (f";refresher={refresher}" if refresher else "")
        return [("Session-Expires", value), ("Min-SE", str(self._least))]

    def confirmed(self, response: Response) -> None:
        """Its 2xx (RFC 4028 7.2). One without a word of timers leaves it to us alone."""
        try:
            seconds, refresher = _wish(response)
        except Malformed:
            seconds, refresher = 0, ""
        self._known = bool(seconds)
        if seconds:
            self._begin(max(seconds, LEAST), refresher != "uas")
        elif self._wanted:
            self._begin(max(self._wanted, self._least), True)
        else:
            self.stop()

    def raised(self, response: Response) -> bool:
        """A 422: whether asking once more, for as much as it wants, makes sense (RFC 4028 7.3)."""
        try:
            least = _number(response, "min-se")
        except Malformed:
            return False
        if least <= self._least:
            return False
        self._least = least
        return True

    def refused(self, response: Response) -> None:
        """A refresh of ours was answered by another refusal than 408 or 481: it is tried again, until it is too late.

        RFC 4028 10; RFC 3261 14.1 for 491.
        """
        if not self._seconds:  # turned off meanwhile
            return
        if response.code == 422 and self.raised(response):
            self._refresh()
        elif response.code == 491:
            self._retry.enter((self._pause(), self._refresh))
        elif after := _after(response):
            self._retry.enter((after, self._refresh))
        elif self._known or response.code == 503:  # which may be of our own making
            self._retry.enter((self._seconds / 8, self._refresh))
        else:
            self._begin(self._seconds, True)

    def stop(self) -> None:
        """There is no timer, any more."""
        self._seconds = 0
        self._timers.enter()
        self._retry.enter()

    # -- Inside -------------------------------------------------------------------------

    def _begin(self, seconds: int, ours: bool) -> None:
        """RFC 4028 10: at half time we refresh; who was not heard of shortly before the end is gone."""
        self._seconds, self._ours = seconds, ours
        self._retry.enter()
        end = (seconds - min(32.0, seconds / 3), self._expired)
        if ours:
            self._timers.enter((seconds / 2, self._refresh), end)
        else:
            self._timers.enter(end)

    def _as_before(self, ours: str, theirs: str) -> str:
        """The word for who refreshes now; empty when nobody does."""
        return "" if not self._seconds else ours if self._ours else theirs

    def _pause(self) -> float:
        """RFC 3261 14.1, in steps of 10 ms: 2.1 to 4 s for who began the call, else 0 to 2 s."""
        chance = self._tokens.bits(16)
        return (210 + chance % 191) / 100 if self._caller else chance % 201 / 100


def check(request: Request) -> None:
    """`Refused` 422 when an INVITE or UPDATE wants less than RFC 4028 allows; `Malformed` when it is unreadable."""
    _number(request, "min-se")
    seconds, _ = _wish(request)
    if request.first("session-expires") is not None and seconds < LEAST and _knows(request):
        raise Refused(422, "Session Interval Too Small", [("Min-SE", str(LEAST))])


def _wish(message: Message) -> tuple[int, str]:
    """Session-Expires: seconds (0 when it is not there) and who refreshes (empty when it does not say)."""
    text = message.first("session-expires")
    seconds, *parameters = grammar.pieces("0" if text is None else text, ";")
    refresher = grammar.params(";".join(parameters)).get("refresher") or ""
    return grammar.number(seconds, _MOST), refresher.lower()


def _number(message: Message, name: str) -> int:
    """The number that a header begins with, 0 without it."""
    text = message.first(name)
    return 0 if text is None else grammar.number(text.partition(";")[0], _MOST)


def _after(response: Response) -> int:
    """Retry-After in seconds; 0 when it does not say (RFC 3261 20.33)."""
    try:
        return grammar.number((response.first("retry-after") or "0").partition(";")[0].partition("(")[0], _MOST)
    except Malformed:
        return 0


def _knows(request: Request) -> bool:
    named = request.tokens("supported") + request.tokens("require")
    return any(tag.lower() == "timer" for tag in named)
