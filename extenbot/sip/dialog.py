"""A dialog as plain state: who, in which order, and by which way (RFC 3261 12).

What happens in a dialog is `session`'s business.
"""

from __future__ import annotations

from extenbot.errors import Malformed, Refused
from extenbot.sip import grammar
from extenbot.sip.headers import name_addr
from extenbot.sip.message import Request
from extenbot.sip.uri import Uri


class Dialog:
    """The answering side's view of the dialog that an INVITE makes (RFC 3261 12.1.1)."""

    def __init__(self, invite: Request, local_tag: str, cseq: int) -> None:
        """`cseq` is the number before that of our first request. `Malformed` without a usable Contact."""
        to = invite.to
        self.call_id = invite.call_id
        self.local_tag = local_tag
        self.remote_tag = invite.from_.tag
        self.local = f"<{to.uri}>;tag={local_tag}"
        self.remote = invite.first("from") or ""
        self.local_cseq = cseq
        self.remote_cseq = invite.cseq.number
        self.target = _contact(invite)
        self.routes = tuple(name_addr(route) for route in invite.all("record-route"))
        self.encoding = invite.encoding

    @property
    def next_hop(self) -> Uri:
        """Where a request of ours goes first (RFC 3261 12.2.1.1)."""
        return self.routes[0].uri if self.routes else self.target

    def request(self, method: str) -> Request:
        """The next request of ours in this dialog (RFC 3261 12.2.1.1)."""
        self.local_cseq += 1
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
        request.set("cseq", f"{self.local_cseq} {method}")
        return request

    def received(self, request: Request) -> None:
        """Take note of a request of theirs; `Refused` 500 when it is out of order (RFC 3261 12.2.2)."""
        number = request.cseq.number
        if number <= self.remote_cseq:
            raise Refused(500, "Out of order")
        self.remote_cseq = number

    def refresh(self, request: Request) -> None:
        """A re-INVITE or UPDATE that was accepted may name a new target (RFC 3261 12.2.2)."""
        if request.first("contact"):
            self.target = _contact(request)


def _contact(request: Request) -> Uri:
    contacts = request.all("contact")
    if len(contacts) != 1 or (uri := name_addr(contacts[0]).uri).scheme not in ("sip", "sips"):
        raise Malformed("There is not one SIP Contact")
    grammar.host_port(uri.host)
    return uri
