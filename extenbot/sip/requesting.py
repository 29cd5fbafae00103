"""Our own requests within a dialog: the way they take, credentials when they are challenged, the ACK of a re-INVITE.

What is asked, and what an answer means, is the session's business (RFC 3261 12.2.1, 14.1, 22.2).
"""

from __future__ import annotations

from collections.abc import Callable

from extenbot.errors import Malformed
from extenbot.interfaces import Flow
from extenbot.sip.authorize import CHALLENGED, MOST_TRIES, Authorizer, ask
from extenbot.sip.client import ClientInvite
from extenbot.sip.dialog import Dialog
from extenbot.sip.message import Request, Response
from extenbot.sip.transaction import Transactions
from extenbot.sip.way import toward


class Requesting:
    """Who sends requests in one dialog."""

    def __init__(self, transactions: Transactions, dialog: Dialog, flow: Flow, seen_as: str, contact: str) -> None:
        """`flow` leads to the other side, who calls its host `seen_as` itself; `contact` is our own URI."""
        self.authorizer: Authorizer | None = None  # who has credentials for requests of ours
        self.dialog = dialog
        self.flow = flow
        self._transactions = transactions
        self._seen_as = seen_as
        self._contact = ("Contact", f"<{contact}>")
        self._reinvite: ClientInvite | None = None  # the last one of ours

    def _toward(self) -> Flow:
        """The way of our requests now."""
        return toward(self.dialog.next_hop, self.flow, self._seen_as)

    def _ask(self, request: Request, answered: Callable[[Response], None]) -> None:
        """Send it (no INVITE); `answered` gets the one final response, a challenge only where we cannot meet it."""
        ask(self._transactions, request, self._toward(), answered, self.authorizer, self._renewed)

    def _renewed(self, request: Request) -> Request:
        """A request that was challenged, as the next one."""
        return self.dialog.again(request)

    def _ask_again(
        self, request: Request, answered: Callable[[Request, Response], None], tries: int = MOST_TRIES
    ) -> None:
        """Send a re-INVITE; `answered` gets what `_ask` gives, with the request that it answers.

        The ACK of a 2xx is sent here, also for each copy, and goes to the new target already.
        """
        authorizer = self.authorizer
        if authorizer:
            authorizer.authorize(request)
        again: Callable[[], None] | None = None

        def responded(response: Response, _flow: Flow) -> None:
            nonlocal again
            if again:
                again()
                return
            if 200 <= response.code < 300:
                self._retarget(response)
                again = self._transactions.acknowledge(self._acknowledgement(request), self._toward())
            elif authorizer and tries > 1 and self._challenged(authorizer, request, response):
                self._ask_again(self._renewed(request), answered, tries - 1)
                return
            if response.code >= 200:
                answered(request, response)

        self._reinvite = self._transactions.invite(request, self._toward(), responded)

    def _challenged(self, authorizer: Authorizer, request: Request, response: Response) -> bool:
        """Whether a re-INVITE is to be sent once more: not one that was called off."""
        called_off = self._reinvite is None or self._reinvite.cancelled is not None
        return response.code in CHALLENGED and not called_off and authorizer.challenged(request, response)

    def _acknowledgement(self, invite: Request) -> Request:
        ack = self.dialog.acknowledgement(invite.cseq.number)
        for name in ("authorization", "proxy-authorization"):  # RFC 3261 22.1
            for value in invite.all(name):
                ack.add(name, value)
        return ack

    def _retarget(self, response: Response) -> None:
        """A 2xx to a re-INVITE or UPDATE of ours may name a new target (RFC 3261 12.2.1.2)."""
        try:
            self.dialog.refresh(response)
        except Malformed:  # it stays where it was
            return
