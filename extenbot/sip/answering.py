"""The beginning of a call that came to us: from the INVITE to its answer (RFC 3261 13.3, RFC 3262 3).

Who may call at all is decided before; what follows the answer is a `Session`. When the caller requires 100rel our
180 is repeated until its PRACK. It never holds SDP, so nothing has to wait for that (RFC 3262 3); and when the offer
is to be ours, which would have to stand in it (RFC 3262 5), there is none.
"""

from __future__ import annotations

from collections.abc import Sequence

from extenbot.errors import Malformed, Refused
from extenbot.sip import grammar, lasting
from extenbot.sip.bodies import offered
from extenbot.sip.dialog import Dialog
from extenbot.sip.headers import ALLOW
from extenbot.sip.message import Request, answer
from extenbot.sip.repeated import Repeated
from extenbot.sip.session import Means, Session, State
from extenbot.sip.transaction import ServerTransaction


class Answering(Session):
    """An INVITE that waits for our answer, and the call it becomes."""

    def __init__(self, means: Means, transaction: ServerTransaction, contact: str) -> None:
        """`contact` is our own URI.

        `Malformed` when no dialog can be made of the INVITE; `Refused` 422 when its session timer is too short.
        """
        self.request = request = transaction.request
        lasting.check(request)
        dialog = Dialog.answered(request, transaction.tag, means.tokens.bits(16))
        super().__init__(means, dialog, transaction.flow, request.via.host.strip("[]"), contact)
        self._learn(request)
        self._transaction = transaction
        self._ringing: Repeated | None = None
        self._rseq = 0  # of a 180 that waits for its PRACK
        transaction.on_cancelled = self._cancelled

    # -- Orders -----------------------------------------------------------------------

    def ring(self) -> None:
        """Send 180."""
        if self._state is not State.EARLY:
            return
        headers = [self._contact, ALLOW, *self._recorded()]
        if "100rel" not in map(str.lower, self.request.tokens("require")):
            self._transaction.answer(180, headers=headers)
        elif self.request.body and self._ringing is None:
            self._rseq = 1 + self._means.tokens.bits(30)
            response = answer(self.request, 180, "", [*headers, ("Require", "100rel"), ("RSeq", str(self._rseq))])
            self._ringing = Repeated(
                self._means.clock, lambda: self._transaction.respond(response), self._ringing_unacknowledged
            )

    def answer(self, sdp: bytes) -> None:
        """Send 200 with our SDP and repeat it until the ACK; without ACK for 32 s the call is ended by BYE."""
        if self._state is State.EARLY:
            self._state = State.ANSWERED
            self._stop_ringing()
            self._accept(self._transaction, sdp, self._recorded())

    def refuse(self, code: int, words: str = "", headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send 300 to 699."""
        if self._state is State.EARLY:
            self._end()
            self._transaction.answer(code, words, headers)

    def bye(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Hang up; before the answer this is a 480."""
        if self._state is State.EARLY:
            self.refuse(480, headers=headers)
        else:
            super().bye(headers)

    # -- Inside -----------------------------------------------------------------------

    def _recorded(self) -> list[tuple[str, str]]:
        """RFC 3261 12.1.1: the answer gives the Record-Routes back as they came."""
        return [("Record-Route", value) for value in self.request.all("record-route")]

    def _heard(self, request: Request, transaction: ServerTransaction) -> None:
        parts = (request.first("rack") or "").split()
        if len(parts) != 3:
            raise Malformed("RAck is not two numbers and a method")
        numbers = [grammar.number(part, 2**32 - 1) for part in parts[:2]]
        if not self._rseq or [*numbers, parts[2]] != [self._rseq, self.request.cseq.number, "INVITE"]:
            super()._heard(request, transaction)
        self._stop_ringing()
        self._rseq = 0
        if offered(request):  # our answer to the INVITE's is still to come
            raise Refused(500, "An offer of yours waits for its answer", [("Retry-After", "1")])
        transaction.answer(200)

    def _ringing_unacknowledged(self) -> None:
        """RFC 3262 3."""
        self.refuse(500, "The 180 was never acknowledged")
        if self.listener:
            self.listener.ended("no-ack")

    def _stop_ringing(self) -> None:
        if self._ringing:
            self._ringing.stop()

    def _leave(self) -> None:
        self._stop_ringing()
        super()._leave()

    def _cancelled(self) -> None:
        if self._state is State.EARLY:
            self.refuse(487)
            if self.listener:
                self.listener.cancelled()

    def _hung_up(self, transaction: ServerTransaction) -> None:
        early = self._state is State.EARLY
        super()._hung_up(transaction)
        if early:
            self._transaction.answer(487)
