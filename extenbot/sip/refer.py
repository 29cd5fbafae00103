"""Sending the other side of a call elsewhere: REFER and what becomes of it (RFC 3515, RFC 4488, RFC 5589).

`Transfers` belongs to a session. It says what stands in a REFER, follows the subscription that comes with it, and
reports. Sending, and what the end of the call means, is the session's.

        refer → asked ──2xx, NOTIFY 1xx──→ accepted ──NOTIFY 2xx-6xx, end of subscription──→ outcome
                  └─3xx-6xx, time-out───────────────────── no word for PATIENCE, BYE ──────────┘

A PBX that takes the call over may simply end it: after it has accepted, its BYE counts as success. A 2xx with
`Refer-Sub: false` says that no NOTIFY will come: with it the transfer has succeeded as far as anybody will tell us.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from twisted.internet.interfaces import IReactorTime

from extenbot.errors import Refused
from extenbot.sip import bodies, grammar
from extenbot.sip.dialog import Dialog
from extenbot.sip.message import Request, Response
from extenbot.sip.timers import Timers
from extenbot.sip.uri import Uri

PATIENCE = 60.0  # seconds without news of a transfer, unless its subscription names a time
LONGEST = 180.0  # seconds that such a time is believed


def replacing(dialog: Dialog) -> Uri:
    """The Refer-To that joins the other side of `dialog`, taking its place in it (RFC 5589 7, RFC 3891 6.1).

    The tags are named as the other side of that dialog will see them.
    """
    uri = Uri.read(str(dialog.target))
    value = f"{dialog.call_id};to-tag={dialog.remote_tag};from-tag={dialog.local_tag}"
    uri.header_text = "Replaces=" + quote(value, safe="")
    return uri


class Transfers:
    """The transfers of one call, one at a time; `told` gets code, words and whether that was the last."""

    def __init__(self, clock: IReactorTime, told: Callable[[int, str, bool], None]) -> None:
        self._told = told
        self._patience = Timers(clock)
        self._all: set[int] = set()  # CSeqs of all our REFERs
        self._current: int | None = None  # of the one without an outcome
        self._accepted = False

    @property
    def under_way(self) -> bool:
        return self._current is not None

    def asked(self, number: int) -> None:
        """A REFER of this CSeq is out."""
        self._all.add(number)
        self._current = number
        self._accepted = False
        self._wait()

    def repeated(self, number: int, again: int) -> None:
        """It was challenged and is out again under another CSeq."""
        self._all.add(again)
        if number == self._current:
            self._current = again

    def answered(self, number: int, response: Response) -> None:
        """The final response to it."""
        unwatched = (response.first("refer-sub") or "").partition(";")[0].strip().lower() == "false"  # RFC 4488 4
        self._news(number, response.code, response.phrase, response.code >= 300 or unwatched)

    def notified(self, request: Request, accept: Callable[[], None]) -> None:
        """A NOTIFY of the package `refer`; without an id it belongs to the REFER under way (RFC 3515 2.4.6).

        `Refused` 481 when it belongs to none; otherwise `accept` answers it, before the news is told.
        """
        _, *parameters = grammar.pieces(request.first("event") or "", ";")
        ident = grammar.params(";".join(parameters)).get("id")
        number = grammar.number(ident, 2**31) if ident else self._current
        if number not in self._all and (ident or not self._all):
            raise Refused(481, "There is no such subscription")
        state, *parameters = grammar.pieces(request.first("subscription-state") or "", ";")
        expires = grammar.params(";".join(parameters)).get("expires") or ""
        patience = min(float(grammar.number(expires, 2**32 - 1)), LONGEST) if expires else PATIENCE
        code, words = bodies.status(request) or (100, "")
        accept()
        if code < 200 and (state.lower() == "terminated" or not patience):
            self._news(number, 480, "The transfer ended without a result", True)
        else:
            self._news(number, code, words, code >= 200, patience)

    def taken_over(self) -> None:
        """The other side ended the call: a PBX that has accepted the REFER has done its work."""
        if self._accepted:
            self.end(200, "The PBX took the call over")

    def end(self, code: int, words: str) -> None:
        """What is under way comes to this outcome."""
        self._news(self._current, code, words, True)

    def stop(self) -> None:
        """Nothing more is told."""
        self._current = None
        self._patience.enter()

    def _wait(self, patience: float = PATIENCE) -> None:
        self._patience.enter((patience, lambda: self.end(408, "No word of the transfer")))

    def _news(self, number: int | None, code: int, words: str, final: bool, patience: float = PATIENCE) -> None:
        if number is None or number != self._current:
            return
        if final:
            self.stop()
        else:
            self._accepted = True
            self._wait(patience)
        self._told(code, words, final)
