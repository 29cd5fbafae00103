"""A dialog as plain state: who, in which order, and by which way (RFC 3261 12).

What happens in a dialog is `session`'s business.
"""

from __future__ import annotations

from extenbot.errors import Malformed, Refused
from extenbot.sip import grammar
from extenbot.sip.headers import NameAddr, name_addr
from extenbot.sip.message import Message, Request, Response, renumbered
from extenbot.sip.uri import Uri


class Dialog:
    """One side's view of a dialog (RFC 3261 12.1); `answered` and `called` make it of messages."""

    def __init__(
        self,
        call_id: str,
        local: str,
        remote: str,
        target: Uri,
        routes: tuple[NameAddr, ...],
        local_cseq: int,
        remote_cseq: int | None,
        encoding: str = "utf-8",
    ) -> None:
        """`local` and `remote` are what stands in From and To of our requests, with their tags.

        `local_cseq` is the number before that of our next request, `remote_cseq` None before their first one.
        """
        self.call_id = call_id
        self.local = local
        self.remote = remote
        self.local_tag = name_addr(local).tag
        self.remote_tag = name_addr(remote).tag
        self.target = target
        self.routes = routes
        self.local_cseq = local_cseq
        self.remote_cseq = remote_cseq
        self.ours = remote_cseq is None  # we chose its Call-ID
        self.encoding = encoding

    @classmethod
    def answered(cls, invite: Request, tag: str, cseq: int) -> Dialog:
        """Ours when we answer `invite` with this To tag (RFC 3261 12.1.1). `Malformed` without a usable Contact."""
        local = f"<{invite.to.uri}>;tag={tag}"
        routes = tuple(name_addr(route) for route in invite.all("record-route"))
        return cls(
            invite.call_id,
            local,
            invite.first("from") or "",
            _contact(invite),
            routes,
            cseq,
            invite.cseq.number,
            invite.encoding,
        )

    @classmethod
    def called(cls, invite: Request, response: Response) -> Dialog:
        """Ours when they answer our `invite` with a 1xx or 2xx that has a To tag (RFC 3261 12.1.2).

        `Malformed` without a tag or a usable Contact.
        """
        if not response.to.tag:
            raise Malformed("The answer has no To tag")
        routes = tuple(name_addr(route) for route in reversed(response.all("record-route")))
        return cls(
            invite.call_id,
            invite.first("from") or "",
            response.first("to") or "",
            _contact(response),
            routes,
            invite.cseq.number,
            None,
            invite.encoding,
        )

    @property
    def next_hop(self) -> Uri:
        """Where a request of ours goes first (RFC 3261 12.2.1.1)."""
        return self.routes[0].uri if self.routes else self.target

    def request(self, method: str) -> Request:
        """The next request of ours in this dialog (RFC 3261 12.2.1.1)."""
        self.local_cseq += 1
        return self._request(method, self.local_cseq)

    def acknowledgement(self, number: int) -> Request:
        """The ACK of a 2xx for our INVITE with this CSeq (RFC 3261 13.2.2.4)."""
        return self._request("ACK", number)

    def again(self, request: Request) -> Request:
        """A request of ours as the next one, because it was not taken as it is."""
        self.local_cseq += 1
        return renumbered(request, self.local_cseq)

    def _request(self, method: str, number: int) -> Request:
        routes = [str(route) for route in self.routes]
        target = self.target
        if self.routes and "lr" not in self.routes[0].uri.params:  # a strict router of RFC 2543
            target = self.routes[0].uri
            routes = [*routes[1:], f"<{self.target}>"]
        request = Request(method, target)
        request.encoding = self.encoding
        for route in routes:
            request.add("route", route)
        request.set("from", self.local)
        request.set("to", self.remote)
        request.set("call-id", self.call_id)
        request.set("cseq", f"{number} {method}")
        return request

    def received(self, request: Request) -> None:
        """Take note of a request of theirs; `Refused` 500 when it is out of order (RFC 3261 12.2.2)."""
        number = request.cseq.number
        if self.remote_cseq is not None and number <= self.remote_cseq:
            raise Refused(500, "Out of order")
        self.remote_cseq = number

    def refresh(self, message: Message) -> None:
        """A re-INVITE or UPDATE that is accepted, and the 2xx to one, may name a new target (RFC 3261 12.2).

        The route set stays. `Malformed` when the Contact is unusable.
        """
        if message.first("contact"):
            self.target = _contact(message)


def _contact(message: Message) -> Uri:
    contacts = message.all("contact")
    if len(contacts) != 1 or (uri := name_addr(contacts[0]).uri).scheme not in ("sip", "sips"):
        raise Malformed("There is not one SIP Contact")
    grammar.host_port(uri.host)
    return uri
