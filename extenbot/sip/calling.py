"""The beginning of a call that we make: from our INVITE to its answer (RFC 3261 13.2, RFC 3262, RFC 4028).

A `Calling` is one attempt to reach somebody, whatever it takes: credentials when we are challenged, other addresses
when we are redirected (RFC 3261 8.1.3.4), a longer session interval (422). Each of these is one more INVITE under
the same Call-ID and the next CSeq, always by the same `Way`: a redirection changes whom we ask for, never where our
bytes go, so nobody can aim us at a third party.

One INVITE may be answered by many (a fork). Each To tag in a 1xx makes an early dialog, a `Session` already, so that
requests of that side find it. The first 2xx wins and is the call; every other one is acknowledged and hung up at
once, also one that comes after we gave up or were refused. A copy of a 2xx gets the same ACK again. After
`answered` or `failed`, exactly one of which is told, whatever still comes is cleared away in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from extenbot.errors import Malformed
from extenbot.interfaces import Flow
from extenbot.sip import grammar
from extenbot.sip.authorize import CHALLENGED, Authorizer
from extenbot.sip.bodies import SDP
from extenbot.sip.client import ClientInvite
from extenbot.sip.dialog import Dialog
from extenbot.sip.headers import ALLOW, EXTENSIONS, SUPPORTED, NameAddr, name_addr
from extenbot.sip.lasting import LEAST
from extenbot.sip.message import Request, Response, renumbered
from extenbot.sip.session import Means, Session, State
from extenbot.sip.timers import Timers
from extenbot.sip.transaction import ServerTransaction
from extenbot.sip.uri import Uri, callee
from extenbot.sip.way import Way

LONGEST_INTERVAL = 86400  # seconds that a 422 may ask for
PATIENCE = 180.0  # seconds from the order to the answer
MOST_ADDRESSES = 5  # asked in one attempt, with those that we are redirected to
MOST_INVITES = 12
MOST_FORKS = 16  # early dialogs
MOST_CONTACTS = 20  # looked at in a redirection
_REDIRECTS = frozenset({300, 301, 302, 305, 380})
_OURS = frozenset(
    {"via", "from", "to", "call-id", "cseq", "contact", "route", "record-route", "max-forwards", "allow", "supported",
     "require", "proxy-require", "content-type", "content-length", "content-encoding", "session-expires", "min-se",
     "authorization", "proxy-authorization", "user-agent", "rseq", "rack", "replaces"}
)  # fmt: skip


class CallingListener(Protocol):
    """What an attempt tells whoever made it. `answered` or `failed` comes last, exactly once."""

    def progressed(self, code: int, words: str, sdp: bytes) -> None:
        """101 to 199; `sdp` is where early media comes from, when the response says so. Forks come mixed."""

    def answered(self, session: Session, sdp: bytes) -> None:
        """The call is up and acknowledged. `sdp` is the answer to our offer, empty when there was none."""

    def failed(self, code: int, words: str) -> None:
        """There will be no call: the refusal, 408 when patience was at its end, 487 after `cancel`."""


class Calling:
    """One attempt to call somebody."""

    def __init__(
        self,
        means: Means,
        way: Way,
        target: str,
        sdp: bytes,
        listener: CallingListener,
        *,
        caller: str = "",
        display: str = "",
        headers: Sequence[tuple[str, str]] = (),
        patience: float = PATIENCE,
    ) -> None:
        """`target` is a SIP or tel URI or a number at the way's domain, `sdp` our offer. `caller`, an address or a
        number too, is shown to whom we call instead of our own (RFC 3325), where the PBX allows that.
        `patience` is in seconds from here to the answer. `Malformed` with a sentence for what cannot be called
        or sent; the listener is not told anything before this returns.
        """
        self._means = means
        self._way = way
        self._listener = listener
        self._authorizer = Authorizer(way.username, way.password, means.tokens)
        uri = callee(target, way.domain)
        if uri.header_text:
            raise Malformed("An address to call cannot have headers")
        self._request = self._first(self._reachable(uri), sdp, display, caller, headers)
        self._asked = [self._request.uri]
        self._waiting: list[Uri] = []  # addresses that we were redirected to
        self._invites = 0
        self._retold: set[int] = set()  # codes that changed the request
        self._outcome: tuple[int, str] | None = None  # what to tell when we no longer want it
        self._over = False
        self._patience = Timers(means.clock)
        self._attempt: _Attempt
        self._invite()
        self._patience.enter((patience, self._lose_patience))

    @property
    def call_id(self) -> str:
        return self._request.call_id

    def cancel(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Call it off; `failed` follows when that is done. Too late it does nothing: then there is a session.

        `headers` go into the CANCEL (such as Reason, RFC 3326).
        """
        self._give_up(487, "Cancelled", headers)

    # -- The request -------------------------------------------------------------------

    def _first(self, target: Uri, sdp: bytes, display: str, caller: str, headers: Sequence[tuple[str, str]]) -> Request:
        way, tokens = self._way, self._means.tokens
        if re.search(r"[\x00-\x1f\x7f]", display):
            raise Malformed("A display name cannot have control characters")
        request = Request("INVITE", target)
        for route in way.routes:
            request.add("route", route)
        request.set("max-forwards", "70")
        request.set("from", str(NameAddr(display, Uri.read(way.local), {"tag": tokens.text(16)})))
        request.set("to", f"<{target}>")
        request.set("call-id", tokens.text(32))
        request.set("cseq", f"{1 + tokens.bits(16)} INVITE")
        request.set(*ALLOW)
        request.set(*SUPPORTED)
        if seconds := self._means.expires:
            request.set("session-expires", str(max(seconds, LEAST)))
            request.set("min-se", str(LEAST))
        request.set("user-agent", "extenbot")
        if caller:
            request.set("p-asserted-identity", str(NameAddr(display, callee(caller, way.domain))))
        for name, value in _checked(headers):
            request.add(name, value)
        if sdp:
            request.set("content-type", SDP)
            request.body = sdp
        return request

    def _reachable(self, uri: Uri) -> Uri:
        """As a request URI (RFC 3261 19.1.5), bare of headers; `Malformed` when our way does not lead there."""
        if uri.scheme == "sips" and self._way.flow.transport != "TLS":
            raise Malformed("A sips address can be called over TLS only")
        params = {name: value for name, value in uri.params.items() if name != "method"}
        return Uri(uri.host, uri.username, uri.password, uri.port, scheme=uri.scheme, params=params)

    def _contact(self) -> str:
        """Whom we call by sips must reach us by sips (RFC 3261 8.1.1.8)."""
        if self._request.uri.scheme != "sips":
            return self._way.contact
        uri = Uri.read(self._way.contact)
        params = {name: value for name, value in uri.params.items() if name != "transport"}
        return str(Uri(uri.host, uri.username, None, uri.port, scheme="sips", params=params))

    def _invite(self) -> None:
        self._invites += 1
        self._request.set("contact", f"<{self._contact()}>")
        self._authorizer.authorize(self._request)
        attempt = self._attempt = _Attempt()
        attempt.invite = self._means.transactions.invite(
            self._request, self._way.flow, lambda response, flow: self._responded(attempt, response, flow)
        )

    def _again(self) -> None:
        """The same INVITE, or what has become of it, under the next CSeq; PRACKs may have used some."""
        used = max((fork.dialog.local_cseq for fork in self._attempt.forks.values()), default=0)
        self._request = renumbered(self._request, max(used, self._request.cseq.number) + 1)
        self._invite()

    # -- Responses ---------------------------------------------------------------------

    def _responded(self, attempt: _Attempt, response: Response, flow: Flow) -> None:
        if response.code < 200:
            self._provisional(attempt, response, flow)
        elif response.code < 300:
            self._accepted(attempt, response, flow)
        else:
            attempt.clear()
            self._refused(response)

    def _provisional(self, attempt: _Attempt, response: Response, flow: Flow) -> None:
        fork, sdp = self._early(attempt, response, flow), _sdp(response)
        if fork is not None:
            if not fork.takes(response):
                return
            fork.sdp = sdp or fork.sdp
        if not self._over and self._outcome is None:
            self._listener.progressed(response.code, response.phrase, sdp)

    def _early(self, attempt: _Attempt, response: Response, flow: Flow) -> _Called | None:
        """The early dialog of this response; None when it makes none."""
        fork = attempt.forks.get(response.to.tag)
        if fork is None and response.to.tag and len(attempt.forks) < MOST_FORKS:
            with suppress(Malformed):  # without a Contact nothing can be sent there
                fork = self._adopt(attempt, Dialog.called(attempt.invite.request, response), flow)
        return fork

    def _accepted(self, attempt: _Attempt, response: Response, flow: Flow) -> None:
        fork = attempt.forks.get(response.to.tag)
        if fork is not None and fork.acknowledge is not None:  # a copy
            fork.acknowledge()
            return
        if fork is None and len(attempt.forks) >= 2 * MOST_FORKS:
            self._means.transactions.counters["too-many-forks"] += 1
            return
        problem = ""
        try:
            dialog = Dialog.called(attempt.invite.request, response)
        except Malformed as error:  # it must be ended all the same
            problem = str(error)
            dialog = _makeshift(attempt.invite.request, response)
        if fork is None:
            fork = self._adopt(attempt, dialog, flow)
        fork.accepted(dialog, attempt.invite.request, response)
        if self._over or attempt is not self._attempt:
            fork.bye()
        elif self._outcome or problem or fork.over:
            fork.bye()
            self._fail(*(self._outcome or (502, problem or "It was hung up at once")))
        else:
            self._end()
            self._listener.answered(fork, _sdp(response) or fork.sdp)

    def _adopt(self, attempt: _Attempt, dialog: Dialog, flow: Flow) -> _Called:
        # What was too large for a datagram is alone in going over TCP.
        flow = self._way.flow if self._way.flow.transport == "UDP" else flow
        fork = _Called(self._means, dialog, flow, self._way.flow.remote[0], self._contact())
        fork.authorizer = self._authorizer
        attempt.forks[dialog.remote_tag] = fork
        return fork

    def _refused(self, response: Response) -> None:
        code = response.code
        if self._over:
            return
        if self._outcome:
            self._fail(*self._outcome)
        elif self._invites < MOST_INVITES and self._mended(response):
            self._again()
        elif self._waiting and code < 600 and len(self._asked) < MOST_ADDRESSES:
            self._request.uri = self._waiting.pop(0)
            self._asked.append(self._request.uri)
            self._again()
        else:
            self._fail(code, response.phrase)

    def _mended(self, response: Response) -> bool:
        """Whether the INVITE can be sent once more in another form; of a redirection the addresses are noted."""
        code = response.code
        try:
            if code in CHALLENGED:
                return self._authorizer.challenged(self._request, response)
            if code in _REDIRECTS:
                self._redirected(response)
            elif code == 421 and code not in self._retold:
                self._retold.add(code)
                return self._required(response.tokens("require"))
            elif code == 422 and code not in self._retold:
                self._retold.add(code)
                return self._lengthened(grammar.number(response.first("min-se") or "", LONGEST_INTERVAL))
        except Malformed:
            pass
        return False

    def _redirected(self, response: Response) -> None:
        """RFC 3261 8.1.3.4: the best first, nobody twice; tel numbers are the PBX's."""
        found: list[tuple[float, Uri]] = []
        for text in response.all("contact")[:MOST_CONTACTS]:
            with suppress(Malformed):
                contact = name_addr(text)
                uri = self._reachable(callee(str(contact.uri), self._way.domain))
                known = (*self._asked, *self._waiting, *(uri for _, uri in found))
                if not any(uri.same(other) for other in known):
                    found.append((_weight(contact), uri))
        found.sort(key=lambda pair: -pair[0])
        self._waiting[:0] = [uri for _, uri in found]

    def _required(self, tags: Sequence[str]) -> bool:
        """421: they want an extension for certain that we have only offered (RFC 3261 21.4.16)."""
        wanted = {tag.lower() for tag in tags}
        if not wanted or wanted.difference(EXTENSIONS):
            return False
        self._request.set("require", ", ".join(sorted(wanted)))
        return True

    def _lengthened(self, least: int) -> bool:
        """422 (RFC 4028 7.3)."""
        if least <= max(self._means.expires, LEAST):
            return False
        self._request.set("session-expires", str(least))
        self._request.set("min-se", str(least))
        return True

    # -- The end -----------------------------------------------------------------------

    def _lose_patience(self) -> None:
        self._give_up(408, "Nobody answered in time", ())

    def _give_up(self, code: int, words: str, headers: Sequence[tuple[str, str]]) -> None:
        if self._outcome is None and not self._over:
            headers = _checked(headers)
            self._outcome = code, words
            self._patience.enter()
            self._attempt.invite.cancel(headers)

    def _fail(self, code: int, words: str) -> None:
        self._end()
        self._listener.failed(code, words or Response(code).phrase)

    def _end(self) -> None:
        self._over = True
        self._patience.enter()
        self._attempt.clear()


class _Attempt:
    """One INVITE and the dialogs it has made, by their To tags."""

    invite: ClientInvite

    def __init__(self) -> None:
        self.forks: dict[str, _Called] = {}

    def clear(self) -> None:
        """Its early dialogs are none any more."""
        for fork in self.forks.values():
            fork.drop()


class _Called(Session):
    """A dialog that our INVITE has made: early, and with a 2xx the call or one too many."""

    sdp = b""  # where its early media comes from
    acknowledge: Callable[[], None] | None = None  # sends the ACK again
    _hung_up_early = False
    _last = 0  # RSeq; none is 0 (RFC 3262 7.1)

    def takes(self, response: Response) -> bool:
        """Whether this 1xx is to be looked at; a reliable one gets its PRACK, in order, copies do not (RFC 3262 4)."""
        try:
            if "100rel" not in (tag.lower() for tag in response.tokens("require")):
                return True
            number = grammar.number(response.first("rseq") or "", 2**32 - 1)
        except Malformed:
            return False
        if self._last and number != self._last + 1:
            return False
        self._last = number
        if not self.over:
            prack = self.dialog.request("PRACK")
            prack.set("rack", f"{number} {response.cseq.number} INVITE")
            self._ask(prack, self._pracked)
        return True

    def _pracked(self, response: Response) -> None:
        if response.code >= 300:
            self._transactions.counters["prack-refused"] += 1

    def accepted(self, dialog: Dialog, invite: Request, response: Response) -> None:
        """A 2xx: acknowledge it. Its Contact and route count, and an early dialog given up is there again."""
        self.dialog.target, self.dialog.routes = dialog.target, dialog.routes
        if not self._hung_up_early:
            self._state = State.EARLY
            self._means.sessions.add(self)
        self.acknowledge = self._transactions.acknowledge(self._acknowledgement(invite), self._toward())
        self.confirmed(response, invite.body)

    def drop(self) -> None:
        """Nothing has become of it."""
        if self._state is State.EARLY:
            self._end()

    def _hung_up(self, transaction: ServerTransaction) -> None:
        """A BYE may overtake the 2xx."""
        self._hung_up_early = self._state is State.EARLY
        super()._hung_up(transaction)


def _makeshift(invite: Request, response: Response) -> Dialog:
    """For a 2xx without a usable Contact or route: its ACK and BYE go where the INVITE went."""
    routes = tuple(name_addr(route) for route in invite.all("route"))
    remote = response.first("to") or ""
    local, number = invite.first("from") or "", invite.cseq.number
    return Dialog(invite.call_id, local, remote, invite.uri, routes, number, None, invite.encoding)


def _sdp(response: Response) -> bytes:
    """Its SDP, empty when it has none or another body."""
    kind = (response.first("content-type") or "").partition(";")[0].strip().lower()
    packed = (response.first("content-encoding") or "identity").lower() != "identity"
    return response.body if kind == SDP and not packed else b""


def _weight(contact: NameAddr) -> float:
    """Its q (RFC 3261 20.10); what is none counts as the best."""
    text = contact.params.get("q") or ""
    return float(text) if re.fullmatch(r"[01](\.\d{0,3})?", text) else 1.0


def _checked(headers: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """`Malformed` for headers that nobody may choose, or that would be more than one line."""
    for name, value in headers:
        if not grammar.TOKEN.fullmatch(name) or grammar.header_name(name) in _OURS:
            raise Malformed(f"{name!r} is no header that can be chosen")
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
            raise Malformed(f"The header {name} cannot have line breaks or control characters")
    return headers
