"""A call before it is one: the phone rings while the bot's owner is asked about the caller, and MCP servers get ready.

The owner's webhook may give variables for the prompt, refuse the call, or choose another bot. Nothing of the call is
open yet, and the caller may give up at any moment.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from extenbot.errors import Refused
from extenbot.interfaces import Screening
from extenbot.sip.answering import Answering


class Ringing:
    """Listens to a session until its call begins. One of the two it is given is told, once."""

    log = Logger()

    def __init__(
        self, session: Answering, screened: Callable[[Screening], None], given_up: Callable[[str], None]
    ) -> None:
        """`screened`: the call may begin. `given_up`: it never will, and why."""
        self._session = session
        self._screened = screened
        self._given_up = given_up
        self._asked: Deferred[Screening] | None = None
        session.listener = self

    def wait(self, asked: Deferred[Screening]) -> None:
        """Ring until there is an answer."""
        self._session.ring()
        self._asked = asked
        asked.addCallbacks(self._answered, self._failed).addErrback(self._log_fault)

    def refuse(self, reason: str) -> None:
        """We do not take it."""
        self._session.refuse(503)
        self._end(reason)

    def _answered(self, found: Screening) -> None:
        self._asked = None
        self._screened(found)

    def _failed(self, failure: Failure) -> Failure | None:
        if self._asked is None:  # given up
            return None
        self._answered(Screening())  # a fault of ours; the call begins as if nobody had been asked
        return failure

    def _log_fault(self, failure: Failure) -> None:
        self.log.failure("Asking about a call failed", failure=failure)

    def _end(self, reason: str) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()
            self._given_up(reason)

    # -- What the session tells

    def cancelled(self) -> None:
        self._end("caller gave up")

    def ended(self, by: str) -> None:
        self._end("caller gave up" if by == "caller" else "the PBX lost the call")

    def acked(self, sdp: bytes) -> None:
        """There was no answer to acknowledge."""

    def reoffered(self, sdp: bytes) -> bytes:  # noqa: ARG002
        raise Refused(491, "The call has not begun", [])

    def transferred(self, code: int, words: str, final: bool) -> None:
        """Nobody was sent anywhere."""

    def pressed(self, digit: str) -> None:
        """Nobody hears it."""
