"""The beginning of a call that came to us: from the INVITE to its answer (RFC 3261 13.3).

Who may call at all is decided before; what follows the answer is a `Session`.
"""

from __future__ import annotations

from collections.abc import Sequence

from extenbot.sip.dialog import Dialog
from extenbot.sip.headers import ALLOW
from extenbot.sip.session import Means, Session, State
from extenbot.sip.transaction import ServerTransaction


class Answering(Session):
    """An INVITE that waits for our answer, and the call it becomes."""

    def __init__(self, means: Means, transaction: ServerTransaction, contact: str) -> None:
        """`contact` is our own URI. `Malformed` when no dialog can be made of the INVITE."""
        self.request = request = transaction.request
        dialog = Dialog.answered(request, transaction.tag, means.tokens.bits(16))
        super().__init__(means, dialog, transaction.flow, request.via.host.strip("[]"), contact)
        self._transaction = transaction
        transaction.on_cancelled = self._cancelled

    # -- Orders -----------------------------------------------------------------------

    def ring(self) -> None:
        """Send 180."""
        if self._state is State.EARLY:
            self._transaction.answer(180, headers=[self._contact, ALLOW, *self._recorded()])

    def answer(self, sdp: bytes) -> None:
        """Send 200 with our SDP and repeat it until the ACK; without ACK for 32 s the call is ended by BYE."""
        if self._state is State.EARLY:
            self._state = State.ANSWERED
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
