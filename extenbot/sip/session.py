"""A call's dialog, whoever began it, from its first answer to the BYE (RFC 3261 12.2, 14, 15; RFC 3311, RFC 3515).

A `Session` takes re-INVITEs, sends BYE and REFER, and tells its listener what the other side did. How it begins
is told in `answering` (they call us) and `calling` (we call them). SDP is opaque bytes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from extenbot.errors import Malformed, Misuse, Refused
from extenbot.interfaces import Dial, Flow, Tokens
from extenbot.sip import grammar
from extenbot.sip.dialog import Dialog
from extenbot.sip.headers import ALLOW, CAPABILITIES, METHODS, SUPPORTED
from extenbot.sip.message import Request, Response, answer
from extenbot.sip.timers import LONG, T1, T2, Timers
from extenbot.sip.transaction import PORT, TLS_PORT, ServerTransaction, Transactions
from extenbot.sip.uri import Uri

SDP = "application/sdp"
PATIENCE = 60.0  # seconds without news of a transfer
_KNOWN = frozenset({"MESSAGE", "PRACK", "PUBLISH", "REFER", "SUBSCRIBE"})
_FRAGMENT = re.compile(rb"\s*SIP/2\.0 +([1-6]\d\d) *([^\r\n]*)", re.IGNORECASE)
_NUMBER = re.compile(r"[+*#0-9A-Za-z][-+*#.()0-9A-Za-z_]*")


class SessionListener(Protocol):
    """What a session tells its call. After `cancelled` or `ended` nothing more comes."""

    def acked(self, sdp: bytes) -> None:
        """The caller has our 200. `sdp` is its answer when the offer was ours, else empty.

        Comes once for the call, and again with an answer after each re-INVITE that had no offer.
        """

    def cancelled(self) -> None:
        """The caller gave up before we answered; 487 is sent already."""

    def ended(self, by: str) -> None:
        """It is over, not by `bye` or `refuse`.

        `by`: "caller" (BYE), "no-ack" (our 200 was never acknowledged; BYE is sent), "lost" (the other
        side no longer knows the dialog).
        """

    def reoffered(self, sdp: bytes) -> bytes:
        """A re-INVITE or UPDATE: our answer, or our own offer when `sdp` is empty. May raise `Refused`."""

    def transferred(self, code: int, words: str, final: bool) -> None:
        """News of a `refer`: the answer to it or a state of the new call as a SIP code; `final` comes once."""


class State(Enum):
    """Where a session stands."""

    EARLY = 1  # not answered yet
    ANSWERED = 2  # our 200 is out, no ACK yet
    CONFIRMED = 3
    LEAVING = 4  # our BYE waits for the ACK, or for its answer
    ENDED = 5


@dataclass(frozen=True, slots=True)
class Means:
    """What all sessions of this process share."""

    clock: IReactorTime
    tokens: Tokens
    transactions: Transactions
    sessions: Sessions


def offered(request: Request) -> bytes:
    """The SDP in a message, empty when there is none; `Refused` 415 for any other body (RFC 3261 8.2.3)."""
    if not request.body:
        return b""
    kind = (request.first("content-type") or "").partition(";")[0].strip().lower()
    if kind != SDP:
        raise Refused(415, "Only SDP is understood", [("Accept", SDP)])
    if (request.first("content-encoding") or "identity").lower() != "identity":
        raise Refused(415, "No encoding is understood", [("Accept-Encoding", "identity")])
    return request.body


class _Acceptance:
    """A 200 for an INVITE, repeated until its ACK comes (RFC 3261 13.3.1.4)."""

    def __init__(self, clock: IReactorTime, send: Callable[[], None], failed: Callable[[], None], late: bool) -> None:
        self.late = late  # the offer is ours, so the ACK brings the answer
        self._send = send
        self._wait = T1
        self._timers = Timers(clock)
        self._timers.enter((LONG, failed), (T1, self._again))
        send()

    def _again(self) -> None:
        self._wait = min(2 * self._wait, T2)
        self._timers.again(self._wait, self._again)
        self._send()

    def stop(self) -> None:
        self._timers.enter()


class Session:
    """One INVITE dialog. Orders that come too late do nothing."""

    def __init__(self, means: Means, dialog: Dialog, flow: Flow, seen_as: str, contact: str) -> None:
        """`flow` leads to the other side, who calls its host `seen_as` itself; `contact` is our own URI."""
        self.listener: SessionListener | None = None
        self.dialog = dialog
        self.flow = flow
        self._means = means
        self._seen_as = seen_as
        self._contact = ("Contact", f"<{contact}>")
        self._state = State.EARLY
        self._acceptances: dict[int, _Acceptance] = {}  # by CSeq
        self._refers: set[int] = set()  # CSeqs of all our REFERs
        self._referring: int | None = None  # of the one without an outcome
        self._patience = Timers(means.clock)
        self._farewell: Sequence[tuple[str, str]] = ()  # headers of a BYE that waits for the ACK
        means.sessions.add(self)

    @property
    def call_id(self) -> str:
        return self.dialog.call_id

    @property
    def over(self) -> bool:
        """Whether orders no longer have any effect."""
        return self._state in (State.LEAVING, State.ENDED)

    # -- Orders -----------------------------------------------------------------------

    def bye(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Hang up a call that was answered. `headers` go into the BYE (such as Reason, RFC 3326)."""
        if self._state is State.CONFIRMED:
            self._leave()
            self._send_bye(headers)
        elif self._state is State.ANSWERED:  # RFC 3261 15: not before the ACK
            self._state = State.LEAVING
            self._farewell = headers

    def refer(self, target: str, referred_by: str = "") -> None:
        """Send the caller to `target`: a SIP or tel URI, or a number at the caller's PBX (RFC 3515).

        `Malformed` when it is no such thing; `Misuse` without a call or while another transfer is under way.
        """
        if self._state is not State.CONFIRMED or self._referring is not None:
            raise Misuse("There is no call to transfer now")
        uri = self._transfer_uri(target)
        request = self.dialog.request("REFER")
        request.set("refer-to", f"<{uri}>")
        request.set("referred-by", f"<{Uri.read(referred_by)}>" if referred_by else self._contact[1])
        for name, value in (self._contact, ALLOW, SUPPORTED):
            request.set(name, value)
        self._referring = self.dialog.local_cseq
        self._refers.add(self._referring)
        self._wait_for_news()
        number = self._referring
        self._means.transactions.request(
            request, self._toward(), lambda response: self._refer_answered(number, response)
        )

    # -- What the other side does -------------------------------------------------------

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        """A request within the dialog. Raises what the transaction layer answers with."""
        self.dialog.received(request)
        if transaction.flow.transport != "UDP":  # the connection before may be gone
            self.flow = transaction.flow
        if request.method == "BYE":
            self._hung_up(transaction)
        elif self.over:
            raise Refused(481, "This call is over")
        elif request.method == "INVITE":
            self._reinvited(request, transaction)
        elif request.method == "UPDATE":
            self._updated(request, transaction)
        elif request.method == "NOTIFY":
            self._notified(request, transaction)
        elif request.method == "INFO":
            transaction.answer(200)
        elif request.method == "OPTIONS":
            transaction.answer(200, headers=[self._contact, *CAPABILITIES])
        elif request.method == "REFER":
            raise Refused(603, "Transfers are not taken")
        elif request.method in METHODS or request.method in _KNOWN:
            raise Refused(405, "Not here", [ALLOW])
        else:
            raise Refused(501, "Unknown method", [ALLOW])

    def acknowledged(self, request: Request) -> None:
        """An ACK within the dialog; copies are ignored."""
        acceptance = self._acceptances.pop(request.cseq.number, None)
        if acceptance is None:
            return
        acceptance.stop()
        try:
            sdp = offered(request) if acceptance.late else b""
        except Refused:  # an ACK cannot be refused; a call without media is ended by who sees it
            sdp = b""
        if self._state is State.LEAVING:
            self._leave()
            self._send_bye(self._farewell)
            return
        first = self._state is State.ANSWERED
        self._state = State.CONFIRMED
        if self.listener and (first or sdp):
            self.listener.acked(sdp)

    # -- Inside -------------------------------------------------------------------------

    def _accept(self, transaction: ServerTransaction, sdp: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
        request = transaction.request
        response = answer(request, 200, "", [self._contact, ALLOW, SUPPORTED, *headers], sdp, SDP)
        self._acceptances[request.cseq.number] = _Acceptance(
            self._means.clock, lambda: transaction.respond(response), self._unacknowledged, late=not request.body
        )

    def _unacknowledged(self) -> None:
        """RFC 3261 13.3.1.4, 14.2."""
        told = self._state is State.LEAVING
        headers = self._farewell if told else ()
        self._leave()
        self._send_bye(headers)
        if self.listener and not told:
            self.listener.ended("no-ack")

    def _hung_up(self, transaction: ServerTransaction) -> None:
        """RFC 3261 15.1.2; it may cross our own BYE."""
        transaction.answer(200)
        told = self.over
        self._end()
        if self.listener and not told:
            self.listener.ended("caller")

    def _reinvited(self, request: Request, transaction: ServerTransaction) -> None:
        """RFC 3261 14.2, RFC 5407 3.1.5."""
        sdp = self._renegotiated(request)
        self.flow = transaction.flow
        self._accept(transaction, sdp)

    def _updated(self, request: Request, transaction: ServerTransaction) -> None:
        """RFC 3311 5.2."""
        sdp = b""
        if request.body:
            sdp = self._renegotiated(request)
        else:
            self.dialog.refresh(request)
        transaction.answer(200, "", [self._contact, ALLOW, SUPPORTED], sdp, SDP)

    def _renegotiated(self, request: Request) -> bytes:
        if self._state is State.EARLY:
            raise Refused(500, "The call is not answered yet", [("Retry-After", str(1 + self._means.tokens.bits(3)))])
        if any(acceptance.late for acceptance in self._acceptances.values()):
            raise Refused(491, "An offer of ours waits for its answer")
        if self.listener is None:
            raise Refused(488, "There is nothing to change")
        sdp = self.listener.reoffered(offered(request))
        self.dialog.refresh(request)
        return sdp

    def _leave(self) -> None:
        """No more orders and no more timers; the dialog is known until our BYE is answered."""
        self._state = State.LEAVING
        self._patience.enter()
        for acceptance in self._acceptances.values():
            acceptance.stop()
        self._acceptances.clear()

    def _end(self) -> None:
        self._leave()
        self._state = State.ENDED
        self._means.sessions.remove(self)

    def _send_bye(self, headers: Sequence[tuple[str, str]]) -> None:
        request = self.dialog.request("BYE")
        for name, value in headers:
            request.add(name, value)
        self._ask(request, lambda _response: self._end())

    def _ask(self, request: Request, answered: Callable[[Response], None]) -> None:
        self._means.transactions.request(request, self._toward(), answered)

    def _toward(self) -> Flow:
        """The way of our own requests: RFC 3261 12.2.1.1 where addresses can be believed.

        Behind NAT a Contact names what only its own network can reach, and then, as for hosts without
        an address, the way the call came is the way back. A connection is used as long as it lives.
        """
        hop = self.dialog.next_hop
        source = self.flow.remote[0]
        port = hop.port or (TLS_PORT if self.flow.transport == "TLS" else PORT)
        believed = self._seen_as == source
        try:
            there, here = ipaddress.ip_address(hop.address), ipaddress.ip_address(source)
        except ValueError:
            target = None
        else:
            believed = believed and there.version == here.version and (here.is_private or not there.is_private)
            target = (hop.address, port) if believed else None
        if self.flow.transport != "UDP":
            return self.flow._replace(dial=Dial(target or (source, port), hop.address))
        return self.flow._replace(remote=target) if target else self.flow

    # -- Transfer -----------------------------------------------------------------------

    def _transfer_uri(self, target: str) -> Uri:
        target = target.strip(" ")
        if _NUMBER.fullmatch(target):
            return Uri.of(target, self.dialog.target.host)
        uri = Uri.read(target)
        if uri.scheme == "tel":
            return Uri.of(re.sub(r"[-.()]", "", uri.user), self.dialog.target.host)
        if uri.scheme not in ("sip", "sips"):
            raise Malformed("A call can be transferred to a SIP address or a number only")
        return uri

    def _wait_for_news(self) -> None:
        self._patience.enter((PATIENCE, lambda: self._news(self._referring, 408, "No word of the transfer", True)))

    def _refer_answered(self, number: int, response: Response) -> None:
        self._news(number, response.code, response.phrase, response.code >= 300)
        if response.code in (408, 481) and not self.over:  # RFC 3261 12.2.1.2
            self._leave()
            self._send_bye(())
            if self.listener:
                self.listener.ended("lost")

    def _notified(self, request: Request, transaction: ServerTransaction) -> None:
        """RFC 3515 2.4.4; without an id the NOTIFY belongs to the REFER under way."""
        package, *parameters = grammar.pieces(request.first("event") or "", ";")
        if package.lower() != "refer":
            raise Refused(489, "Bad Event", [("Allow-Events", "refer")])
        ident = grammar.params(";".join(parameters)).get("id")
        number = grammar.number(ident, 2**31) if ident else self._referring
        if number not in self._refers and (ident or not self._refers):
            raise Refused(481, "There is no such subscription")
        transaction.answer(200)
        over = (request.first("subscription-state") or "").partition(";")[0].strip().lower() == "terminated"
        status = _FRAGMENT.match(request.body)
        code = int(status[1]) if status else 100
        words = status[2].decode("utf-8", "replace").strip() if status else ""
        if over and code < 200:
            self._news(number, 480, "The transfer ended without a result", True)
        else:
            self._news(number, code, words, code >= 200)

    def _news(self, number: int | None, code: int, words: str, final: bool) -> None:
        if number is None or number != self._referring or self.over:
            return
        if final:
            self._referring = None
            self._patience.enter()
        else:
            self._wait_for_news()
        if self.listener:
            self.listener.transferred(code, words, final)


class Sessions:
    """The sessions that a request may belong to, by Call-ID and tags (RFC 3261 12.2.2)."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        self._sessions[session.call_id, session.dialog.local_tag] = session

    def remove(self, session: Session) -> None:
        self._sessions.pop((session.call_id, session.dialog.local_tag), None)

    def find(self, request: Request) -> Session | None:
        """The session of a request that has a To tag; None when there is none (481 is due)."""
        session = self._sessions.get((request.call_id, request.to.tag))
        if session is None or session.dialog.remote_tag != request.from_.tag:
            return None
        return session
