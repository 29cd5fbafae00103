"""A call's dialog, whoever began it, from its first answer to the BYE (RFC 3261 12.2, 14, 15; RFC 3311).

A `Session` takes what the other side sends within the call, keeps the call alive (`lasting`), sends it elsewhere
(`refer`), and tells its listener what happened. How its own requests leave is told in `requesting`, how it begins in
`answering` (they call us) and `calling` (we call them). SDP is opaque bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime

from extenbot.errors import Malformed, Misuse, Refused
from extenbot.interfaces import Flow, Tokens
from extenbot.sip import grammar, lasting
from extenbot.sip.bodies import SDP, offered, pressed
from extenbot.sip.dialog import Dialog
from extenbot.sip.headers import ALLOW, CAPABILITIES, EVENTS, EXTENSIONS, METHODS, SUPPORTED, UNSERVED
from extenbot.sip.message import Message, Request, Response, answer
from extenbot.sip.refer import Transfers, replacing
from extenbot.sip.repeated import Repeated
from extenbot.sip.requesting import Requesting
from extenbot.sip.timers import T2
from extenbot.sip.transaction import ServerTransaction, Transactions
from extenbot.sip.uri import Uri, callee

_UNREMARKABLE = ", ".join(tag for tag in EXTENSIONS if tag != "100rel")  # so that nobody waits for a PRACK of ours


class SessionListener(Protocol):
    """What a session tells its call. After `cancelled` or `ended` nothing more comes."""

    def acked(self, sdp: bytes) -> None:
        """The caller has our 200. `sdp` is its answer when the offer was ours, else empty.

        Comes once for the call, and again with an answer after each re-INVITE that had no offer, and when
        a re-INVITE of ours, which repeats our last description, was answered.
        """

    def cancelled(self) -> None:
        """The caller gave up before we answered; 487 is sent already."""

    def ended(self, by: str) -> None:
        """It is over, not by `bye` or `refuse`.

        `by`: "caller" (BYE), "no-ack" (our 200 was never acknowledged; BYE is sent), "lost" (the other
        side no longer knows the dialog, or is gone).
        """

    def reoffered(self, sdp: bytes) -> bytes:
        """A re-INVITE or UPDATE: our answer, or our own offer when `sdp` is empty. May raise `Refused`.

        Where nothing has changed it is to be the very description of before (RFC 4028 7.4).
        """

    def transferred(self, code: int, words: str, final: bool) -> None:
        """News of a `refer`: the answer to it or a state of the new call as a SIP code; `final` comes once."""

    def pressed(self, digit: str) -> None:
        """A key, told by INFO: 0-9, *, #, A-D."""


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
    expires: int = 1800  # seconds, the session interval that we ask for; 0: we ask for none


class _Acceptance(NamedTuple):
    """A 200 for an INVITE that waits for its ACK (RFC 3261 13.3.1.4)."""

    late: bool  # the offer is ours, so the ACK brings the answer
    repeated: Repeated


class Session(Requesting):
    """One INVITE dialog. Orders that come too late do nothing."""

    def __init__(self, means: Means, dialog: Dialog, flow: Flow, seen_as: str, contact: str) -> None:
        """`flow` leads to the other side, who calls its host `seen_as` itself; `contact` is our own URI."""
        super().__init__(means.transactions, dialog, flow, seen_as, contact)
        self.listener: SessionListener | None = None
        self._means = means
        self._state = State.EARLY
        self._acceptances: dict[int, _Acceptance] = {}  # by CSeq
        self._described = b""  # our last SDP
        self._updates = False  # whether they take UPDATE
        self._refreshing = ""  # the method of a refresh of ours that has no answer yet
        self._continues = False  # its listener has been talking in another session before
        self._farewell: Sequence[tuple[str, str]] = ()  # headers of a BYE that waits for the ACK
        self._transfers = Transfers(means.clock, self._transferred)
        self._lasting = lasting.Lasting(
            means.clock, means.tokens, means.expires, dialog.ours, self._refresh, self._lost
        )
        means.sessions.add(self)

    @property
    def call_id(self) -> str:
        return self.dialog.call_id

    @property
    def over(self) -> bool:
        """Whether orders no longer have any effect."""
        return self._state in (State.LEAVING, State.ENDED)

    @property
    def early(self) -> bool:
        """Whether it was not answered yet."""
        return self._state is State.EARLY

    @property
    def up(self) -> bool:
        """Whether it is a call that was answered and acknowledged and has not ended."""
        return self._state is State.CONFIRMED

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
        self._refer(callee(target, self.dialog.target.host), referred_by)

    def refer_to(self, other: Session, referred_by: str = "") -> None:
        """Join the caller with the other side of `other`, a call of ours of its own (RFC 5589 7).

        The PBX ends `other` when it has replaced it. `Misuse` as in `refer`, and when `other` is not up.
        """
        if not other.up:
            raise Misuse("There is no call to transfer to now")
        self._refer(replacing(other.dialog), referred_by)

    def replaced_by(self, session: Session) -> None:
        """`session`, which came with our tags in `Replaces`, takes this one's place (RFC 3891 3).

        What listens here listens to that one, which tells of its first ACK only when there is an answer in it, or
        this one waits for its own still; this one ends by BYE, and without a word.
        """
        self._transfers.end(487, "Another call has replaced this one")
        session.listener, self.listener = self.listener, None
        session._continues = self.up
        self.bye([("Reason", 'SIP;cause=200;text="Replaced"')])

    def confirmed(self, response: Response, described: bytes) -> None:
        """This 2xx came for our INVITE that began the dialog and `described` us, and the ACK is out."""
        if self._state is State.EARLY:
            self._state = State.CONFIRMED
            self._described = described
            self._learn(response)
            self._lasting.confirmed(response)

    # -- What the other side does -------------------------------------------------------

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        """A request within the dialog. Raises what the transaction layer answers with."""
        self.dialog.received(request)
        self._learn(request)
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
        elif request.method == "PRACK":
            self._heard(request, transaction)
        elif request.method == "NOTIFY":
            self._notified(request, transaction)
        elif request.method == "INFO":
            self._informed(request, transaction)
        elif request.method == "OPTIONS":
            transaction.answer(200, headers=[self._contact, *CAPABILITIES])
        elif request.method == "REFER":
            raise Refused(603, "Transfers are not taken")
        elif request.method == "SUBSCRIBE":
            raise Refused(489, "Bad Event", [EVENTS])
        elif request.method in METHODS or request.method in UNSERVED:
            raise Refused(405, "Not here", [ALLOW])
        else:
            raise Refused(501, "Unknown method", [ALLOW])

    def acknowledged(self, request: Request) -> None:
        """An ACK within the dialog; copies are ignored."""
        acceptance = self._acceptances.pop(request.cseq.number, None)
        if acceptance is None:
            return
        acceptance.repeated.stop()
        try:
            sdp = offered(request) if acceptance.late else b""
        except Refused:  # an ACK cannot be refused; a call without media is ended by who sees it
            sdp = b""
        if self._state is State.LEAVING:
            self._leave()
            self._send_bye(self._farewell)
            return
        first = self._state is State.ANSWERED and not self._continues
        self._state = State.CONFIRMED
        if self.listener and (first or sdp):
            self.listener.acked(sdp)

    # -- Inside -------------------------------------------------------------------------

    def _accept(self, transaction: ServerTransaction, sdp: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
        request = transaction.request
        timer = self._lasting.granted(request)
        response = answer(request, 200, "", [self._contact, ALLOW, SUPPORTED, *timer, *headers], sdp, SDP)
        self._described = sdp
        repeated = Repeated(self._means.clock, lambda: transaction.respond(response), self._unacknowledged, T2)
        self._acceptances[request.cseq.number] = _Acceptance(not request.body, repeated)

    def _unacknowledged(self) -> None:
        """RFC 3261 13.3.1.4, 14.2."""
        self._go("no-ack")

    def _lost(self) -> None:
        """RFC 3261 12.2.1.2, RFC 4028 10."""
        self._go("lost")

    def _go(self, why: str) -> None:
        """End what is not over: with a BYE, though there may be nobody to hear it."""
        if self._state is State.ENDED:
            return
        told = self._state is State.LEAVING
        headers = self._farewell if told else ()
        self._leave()
        self._send_bye(headers)
        if self.listener and not told:
            self.listener.ended(why)

    def _hung_up(self, transaction: ServerTransaction) -> None:
        """RFC 3261 15.1.2; it may cross our own BYE."""
        transaction.answer(200)
        told = self.over
        if not told:
            self._state = State.LEAVING
            self._transfers.taken_over()
        self._end()
        if self.listener and not told:
            self.listener.ended("caller")

    def _reinvited(self, request: Request, transaction: ServerTransaction) -> None:
        """RFC 3261 14.2, RFC 5407 3.1.5."""
        if self._refreshing == "INVITE":
            raise Refused(491, "A re-INVITE of ours is under way")
        sdp = self._renegotiated(request)
        self.flow = transaction.flow
        self._accept(transaction, sdp)

    def _updated(self, request: Request, transaction: ServerTransaction) -> None:
        """RFC 3311 5.2."""
        sdp = b""
        if request.body:
            if self._refreshing == "INVITE":  # it holds an offer
                raise Refused(491, "An offer of ours waits for its answer")
            self._described = sdp = self._renegotiated(request)
        else:
            lasting.check(request)
            self.dialog.refresh(request)
        self.flow = transaction.flow
        timer = [] if self._state is State.EARLY else self._lasting.granted(request)
        transaction.answer(200, "", [self._contact, ALLOW, SUPPORTED, *timer], sdp, SDP)

    def _renegotiated(self, request: Request) -> bytes:
        if self._state is State.EARLY:
            raise Refused(500, "The call is not answered yet", [("Retry-After", str(1 + self._means.tokens.bits(3)))])
        if any(acceptance.late for acceptance in self._acceptances.values()):
            raise Refused(491, "An offer of ours waits for its answer")
        if self.listener is None:
            raise Refused(488, "There is nothing to change")
        lasting.check(request)
        before = self.dialog.target
        self.dialog.refresh(request)
        try:
            return self.listener.reoffered(offered(request))
        except BaseException:
            self.dialog.target = before
            raise

    def _heard(self, request: Request, transaction: ServerTransaction) -> None:  # noqa: ARG002
        """A PRACK (RFC 3262 3)."""
        raise Refused(481, "There is no such response to acknowledge")

    def _informed(self, request: Request, transaction: ServerTransaction) -> None:
        """RFC 6086; keys as PBXs tell them in RFC 2976's way."""
        digit = pressed(request)
        transaction.answer(200)
        if digit and self.listener:
            self.listener.pressed(digit)

    def _learn(self, message: Message) -> None:
        """What they say they can do."""
        if allowed := message.tokens("allow"):
            self._updates = "UPDATE" in allowed

    def _leave(self) -> None:
        """No more orders and no more timers; the dialog is known until our BYE is answered."""
        self._state = State.LEAVING
        self._transfers.stop()
        self._lasting.stop()
        if self._reinvite:
            self._reinvite.cancel()
        for acceptance in self._acceptances.values():
            acceptance.repeated.stop()
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

    # -- Keeping it alive ---------------------------------------------------------------

    def _refresh(self) -> None:
        """UPDATE without an offer, or a re-INVITE with the offer that they know (RFC 4028 7.4)."""
        if self._state is not State.CONFIRMED or self._refreshing:
            return
        self._refreshing = "UPDATE" if self._updates else "INVITE"
        request = self.dialog.request(self._refreshing)
        for name, value in (self._contact, ALLOW, SUPPORTED, *self._lasting.asked()):
            request.set(name, value)
        if self._refreshing == "UPDATE":
            self._ask(request, lambda response: self._refreshed(request, response))
        else:
            request.set("supported", _UNREMARKABLE)
            request.set("content-type", SDP)
            request.body = self._described
            self._ask_again(request, self._refreshed)

    def _refreshed(self, request: Request, response: Response) -> None:
        """The final answer to a refresh; copies, and one that comes after the call has ended, mean nothing."""
        if not self._refreshing or self.over:
            return
        self._refreshing = ""
        if response.code in (408, 481):
            self._lost()
        elif response.code in (405, 501) and request.method == "UPDATE":
            self._updates = False
            self._refresh()
        elif response.code >= 300:
            self._lasting.refused(response)
        else:
            self._retarget(response)
            self._learn(response)
            self._lasting.confirmed(response)
            if request.body and response.body and self.listener:
                self.listener.acked(response.body)

    # -- Transfer -----------------------------------------------------------------------

    def _refer(self, uri: Uri, referred_by: str) -> None:
        if self._state is not State.CONFIRMED or self._transfers.under_way:
            raise Misuse("There is no call to transfer now")
        referrer = f"<{Uri.read(referred_by)}>" if referred_by else self._contact[1]
        request = self.dialog.request("REFER")
        for name, value in (("Refer-To", f"<{uri}>"), ("Referred-By", referrer), self._contact, ALLOW, SUPPORTED):
            request.set(name, value)
        self._transfers.asked(request.cseq.number)
        self._ask(request, self._refer_answered)

    def _renewed(self, request: Request) -> Request:
        again = super()._renewed(request)
        if request.method == "REFER":
            self._transfers.repeated(request.cseq.number, again.cseq.number)
        return again

    def _refer_answered(self, response: Response) -> None:
        self._transfers.answered(response.cseq.number, response)
        if response.code in (408, 481) and not self.over:
            self._lost()

    def _notified(self, request: Request, transaction: ServerTransaction) -> None:
        """RFC 6665 4.1.3."""
        package = grammar.pieces(request.first("event") or "", ";")[0].lower()
        if package == "refer":
            self._transfers.notified(request, lambda: transaction.answer(200))
        elif package == "message-summary":
            transaction.answer(200)
        else:
            raise Refused(489, "Bad Event", [EVENTS])

    def _transferred(self, code: int, words: str, final: bool) -> None:
        if self.listener:
            self.listener.transferred(code, words, final)


class Sessions:
    """The sessions that a request may belong to, by Call-ID and tags (RFC 3261 12.2.2)."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str, str], Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        self._sessions[_key(session)] = session

    def remove(self, session: Session) -> None:
        self._sessions.pop(_key(session), None)

    def reach(self, host: str) -> bool:
        """Whether the other end of any is at this address."""
        return any(session.flow.remote[0] == host for session in self._sessions.values())

    def find(self, request: Request) -> Session | None:
        """The session of a request that has a To tag; None when there is none (481 is due)."""
        return self._sessions.get((request.call_id, request.to.tag, request.from_.tag))

    def replaced(self, request: Request) -> Session | None:
        """The session whose place an INVITE wants to take (RFC 3891 3); None when it has no such wish.

        `Refused`: 481 when there is none, or none that was answered; 486 when only an early one was meant; 603 when
        it has just ended. `Malformed` when it cannot be read. Whether the sender may is to be decided by others:
        that it is the same bot's. Who accepts calls `Session.replaced_by`.
        """
        values = request.tokens("replaces")
        if not values:
            return None
        if len(values) > 1 or request.first("join") is not None:
            raise Malformed("There is more than one call to replace")
        call_id, *parameters = grammar.pieces(values[0], ";")
        tags = grammar.params(";".join(parameters))
        to_tag, from_tag = tags.get("to-tag"), tags.get("from-tag")
        if not call_id or not to_tag or not from_tag:
            raise Malformed("Replaces does not name a call")
        session = self._sessions.get((call_id, to_tag, from_tag))
        if session is None:
            raise Refused(481, "There is no such call to replace")
        if session.over:
            raise Refused(603, "The call to replace has ended")
        if session.early:
            raise Refused(481, "The call to replace was not answered yet")
        if "early-only" in tags:
            raise Refused(486, "The call to replace was answered already")
        return session


def _key(session: Session) -> tuple[str, str, str]:
    """All forks of an INVITE of ours have the same Call-ID and local tag (RFC 3261 12.1.2)."""
    return session.call_id, session.dialog.local_tag, session.dialog.remote_tag
