"""Sending a caller on to a person, and getting them back when nobody is reached.

A destination has one or more addresses: numbers at the PBX, SIP or tel URIs. They are tried in their order, blind by
REFER, or attended: whoever is meant is called first (`consultation`), while the caller hears a phone ring.

    begin → an address ─┬ reached ──────────────────────────→ `gone`
                ↑       └ busy, away, wrong, no word of it ─┬→ `back`, with words for the model
                └── the next one ───────────────────────────┘
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from extenbot.audio import Audio
from extenbot.consultation import Consultation, Dial
from extenbot.errors import Malformed, Misuse, Refused
from extenbot.interfaces import CallLog, Destination
from extenbot.sip.session import Session

STILL_THERE = "The caller is still on the line: say so, and offer another way, such as to take a message."

_BUSY = frozenset({486, 600})
_AWAY = frozenset({408, 480})
_WRONG = frozenset({400, 404, 410, 414, 416, 484, 485, 604})
_DECLINED = frozenset({603, 607})
_FORBIDDEN = frozenset({401, 403, 405, 407, 420, 501, 606})


def sentence(code: int, words: str) -> str:
    """What became of one address, for the model."""
    if code in _BUSY:
        said = "The line is busy"
    elif code in _AWAY:
        said = "The person did not answer"
    elif code in _WRONG:
        said = "There is no such number"
    elif code in _DECLINED:
        said = "The person did not take the call"
    elif code in _FORBIDDEN:
        said = "The telephone system does not allow this transfer"
    else:
        said = "The telephone system could not transfer the call"
    return f"{said} ({code} {words})."


class Transferring:
    """The transfers of one call, one at a time."""

    def __init__(
        self,
        clock: IReactorTime,
        dial: Dial,
        audio: Audio,
        log: CallLog,
        gone: Callable[[Destination], None],
        back: Callable[[str], None],
    ) -> None:
        """`gone`: the caller is connected to somebody of the destination. `back`: they are not, in words."""
        self._clock = clock
        self._dial = dial
        self._audio = audio
        self._log = log
        self._gone = gone
        self._back = back
        self._destination: Destination | None = None  # of the transfer under way
        self._session: Session
        self._attended = False
        self._addresses: deque[str] = deque()  # to be tried
        self._consultation: Consultation | None = None
        self._next: IDelayedCall | None = None

    def begin(self, session: Session, destination: Destination, *, attended: bool = False) -> None:
        """Send the other side of `session` there. One of the two outcomes follows, perhaps before this returns."""
        self._session, self._destination, self._attended = session, destination, attended
        self._addresses = deque(destination.uris.split())
        self._log.happened("transferring", destination=destination.name, addresses=len(self._addresses))
        self._try()

    def stop(self) -> None:
        """The call is over: whoever is being called is let go, and nothing more is told."""
        self._destination = None
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._end_consultation()

    def told(self, code: int, words: str, final: bool) -> None:
        """News of the REFER, from the session."""
        self._log.happened("transfer", code=code, words=words, final=final)
        if not final or self._destination is None:
            return
        if code < 300:
            self._gone(self._destination)
        else:
            self._failed(code, words)

    # -- One address --

    def _try(self) -> None:
        self._next = None
        address = self._addresses.popleft() if self._addresses else ""
        try:
            if self._attended:
                self._consultation = Consultation(self._dial, address, self._audio.address, self._join, self._unjoined)
                self._audio.line.ring()
            else:
                self._session.refer(address)
        except (Malformed, Refused, Misuse) as error:
            self._unjoined(getattr(error, "code", 500), str(error))

    def _join(self, other: Session) -> None:
        """Whoever is meant is there: the PBX joins the two (RFC 5589 7)."""
        self._audio.line.ring(on=False)
        try:
            self._session.refer_to(other)
        except (Malformed, Refused, Misuse) as error:
            self._unjoined(getattr(error, "code", 500), str(error))

    def _unjoined(self, code: int, words: str) -> None:
        self._log.happened("transfer", code=code, words=words, final=True)
        self._failed(code, words)

    def _failed(self, code: int, words: str) -> None:
        self._end_consultation()
        if self._addresses:
            # Not at once: what failed may have been the end of the call itself, and then this is stopped.
            self._next = self._clock.callLater(0, self._try)
            return
        assert self._destination is not None
        tried, self._destination = len(self._destination.uris.split()), None
        many = f"None of {tried} numbers was reached. The last one: " if tried > 1 else ""
        self._back(f"{many}{sentence(code, words)}")

    def _end_consultation(self) -> None:
        if self._consultation is not None:
            self._consultation.end()
            self._consultation = None
            self._audio.line.ring(on=False)
