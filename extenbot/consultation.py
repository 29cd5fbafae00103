"""The second call of an attended transfer: to whom the caller is to be joined with (RFC 5589 7).

It is there so that nobody is sent to a phone that is busy or does not answer. Nothing is said in it: as soon as it
is answered the two are joined, and the PBX takes it over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from extenbot.errors import Refused
from extenbot.interfaces import Address
from extenbot.media import sdp
from extenbot.sip.calling import Calling, CallingListener
from extenbot.sip.session import Session

#: seconds that a phone may ring while the caller waits
PATIENCE = 40.0
_DISCARD = 9  # RFC 863: no audio is to come


class Dial(Protocol):
    """Calls somebody at the PBX of a bot."""

    def __call__(self, target: str, sdp: bytes, listener: CallingListener, patience: float = ...) -> Calling: ...


class Consultation:
    """One such call. `joinable` gets its session once it is up, else `failed` the reason."""

    def __init__(
        self, dial: Dial, target: str, address: Address, joinable: Callable[[Session], None],
        failed: Callable[[int, str], None],
    ) -> None:  # fmt: skip
        """`address` is ours, for the description. Raises what `dial` does."""
        self._joinable = joinable
        self._failed = failed
        self._over = False
        silent = sdp.write_offer((address[0], _DISCARD), 1, 1, direction="inactive")
        calling = dial(target, silent, self, PATIENCE)
        self._part: Callable[[], None] = calling.cancel

    def end(self) -> None:
        """Hang up, whatever has become of it; nothing more is told."""
        self._over = True
        self._part()

    # -- What the call tells us --

    def progressed(self, code: int, words: str, sdp: bytes) -> None:
        """It rings; the caller hears a tone of ours."""

    def answered(self, session: Session, sdp: bytes) -> None:  # noqa: ARG002
        """Somebody is there."""
        self._part = session.bye
        session.listener = self
        if self._over:
            session.bye()
        else:
            self._joinable(session)

    def failed(self, code: int, words: str) -> None:
        """Nobody is there."""
        if not self._over:
            self._failed(code, words)

    # -- What its session tells us: the PBX says by NOTIFY what becomes of the transfer --

    def acked(self, sdp: bytes) -> None: ...

    def cancelled(self) -> None: ...

    def ended(self, by: str) -> None: ...

    def reoffered(self, sdp: bytes) -> bytes:  # noqa: ARG002
        raise Refused(488, "This call is to be taken over")

    def transferred(self, code: int, words: str, final: bool) -> None: ...

    def pressed(self, digit: str) -> None: ...
