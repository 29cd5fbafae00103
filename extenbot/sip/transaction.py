"""The transaction layer: who gets a message, and what is repeated until it has arrived (RFC 3261 17, 18).

`Transactions` gets every message and never raises. Copies stop here; a new request goes to the
`TransactionUser`, and an INVITE that is not refused at once gets 100. CANCEL is answered here (RFC 3261 9.2),
as is what no user could answer: unreadable requests (400, 505), foreign URI schemes (416) and extensions
that we were required to know (420). What strangers are refused is sent once and forgotten.
Requests of ours are in `client`, the machines in `invite` and `noninvite`; sockets belong to the `SipTransport`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from extenbot.errors import Malformed, Refused, Remote
from extenbot.interfaces import Flow, SipTransport, Tokens
from extenbot.sip import noninvite
from extenbot.sip.client import COOKIE, Clients
from extenbot.sip.headers import EXTENSIONS, REGISTERING, Via
from extenbot.sip.invite import InviteServerCore, invite_server
from extenbot.sip.message import Request, Response, Unreadable, answer, give_tag, read, write
from extenbot.sip.timers import LONG, Timers

PORT = 5060
TLS_PORT = 5061
MOST = 100_000  # server transactions at one time, half of them of one source; strangers have none
MOST_OF_ONE = MOST // 2
SCHEMES = frozenset({"sip", "sips", "tel"})


class TransactionUser(Protocol):
    """Who gets what the transaction layer lets through."""

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        """A new request, not ACK and not CANCEL. `Refused` and `Remote` raised here become its answer."""

    def acknowledged(self, request: Request, flow: Flow) -> None:
        """An ACK for a 2xx."""


class ServerTransaction(ABC):
    """A request that waits for its answer. `flow` leads back to the sender, `tag` is our To tag."""

    def __init__(self, request: Request, flow: Flow, tag: str) -> None:
        self.request = request
        self.flow = flow
        self.tag = tag
        self.answered = False  # finally
        self.vouched = False  # the sender has shown who it is; for strangers nothing is kept or repeated
        self.on_cancelled: Callable[[], None] | None = None

    def respond(self, response: Response) -> None:
        """Send it, with our To tag. After a final response nothing is sent but a 2xx of INVITE once more."""
        if response.code > 100:
            give_tag(response, self.tag)
        data = write(response)
        if response.code >= 200:
            self.answered = True
            self.on_cancelled = None  # the transaction lives on for 32 s: not with the whole call
        self._say(response.code, data)

    def answer(
        self,
        code: int,
        words: str = "",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> None:
        """`respond` with an `answer` to the request."""
        self.respond(answer(self.request, code, words, headers, body, content_type))

    @abstractmethod
    def repeated(self) -> None:
        """The request came once more."""

    @abstractmethod
    def stop(self) -> None:
        """Forget it; nothing more is sent."""

    @abstractmethod
    def _say(self, code: int, data: bytes) -> None: ...


class _InviteTransaction(ServerTransaction):
    def __init__(self, request: Request, flow: Flow, tag: str, core: InviteServerCore) -> None:
        super().__init__(request, flow, tag)
        self.machine = invite_server(core)
        self._tried = False

    def try_(self) -> None:
        """Send 100, unless something was sent already (RFC 3261 17.2.1)."""
        if not self._tried:
            self.answer(100)

    def _say(self, code: int, data: bytes) -> None:
        if 100 < code < 300:
            self.try_()
        self._tried = True
        if code < 200:
            self.machine.provisional(data)
        elif code < 300:
            self.machine.accepted(data)
        else:
            self.machine.refused(data)

    def repeated(self) -> None:
        self.machine.repeated()

    def stop(self) -> None:
        self.machine.stop()


class _OtherTransaction(ServerTransaction):
    def __init__(self, request: Request, flow: Flow, tag: str, core: noninvite.ServerCore) -> None:
        super().__init__(request, flow, tag)
        self.machine = noninvite.server(core)
        self.last = b""

    def repeated(self) -> None:
        self.machine.repeated()

    def stop(self) -> None:
        self.machine.stop()

    def _say(self, code: int, data: bytes) -> None:
        if code < 200:
            self.machine.provisional(data)
        else:
            self.last = self.last or data
            self.machine.final(data)


class Transactions(Clients):
    """All transactions of the service. `counters` says what was dropped or refused here, by reason."""

    def __init__(
        self, clock: IReactorTime, transport: SipTransport, tokens: Tokens, user: TransactionUser | None = None
    ) -> None:
        super().__init__(clock, transport, tokens)
        self.user = user
        self.on_refused: Callable[[Flow, int, Request | None], None] | None = None
        """Told of each request that a stranger was refused; the request is None when it could not be read."""
        self._servers: dict[Hashable, ServerTransaction] = {}
        self._invites: dict[tuple[str, int, str], _InviteTransaction] = {}  # by Call-ID, CSeq and our tag
        self._origins: set[Hashable] = set()  # of the server transactions that are alive
        self._answered: dict[Hashable, bytes] = {}  # what was said to requests that are over
        self._leaving: deque[tuple[float, Hashable, str]] = deque()  # until when, of what, to whom
        self._sweeping: IDelayedCall | None = None
        self._of_source: Counter[str] = Counter()  # server transactions by the address they are answered to
        self._secret = b""  # for To tags of answers that nothing is kept of

    def received(self, data: bytes, flow: Flow) -> None:
        """One datagram, or one message of a connection, from `flow`. Never raises."""
        if not data.strip(b"\r\n\0 \t"):
            self.counters["keep-alive"] += 1
            return
        try:
            try:
                message = read(data)
            except Unreadable as error:
                self._unreadable(error, flow)
                return
            if isinstance(message, Response):
                self._responded(message, flow)
            else:
                self._came(message, flow)
        except Exception:  # noqa: BLE001 - whatever a stranger sent, the next datagram must be heard
            self.counters["fault"] += 1
            self.log.failure("A SIP message was lost by our own fault")

    def stop(self) -> None:
        """Forget all transactions; no timer is left."""
        super().stop()
        for transaction in list(self._servers.values()):
            transaction.stop()
        self._answered.clear()
        self._leaving.clear()
        self._of_source.clear()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _came(self, request: Request, flow: Flow) -> None:
        via, back = _stamp(request, flow)
        if request.method == "ACK":
            self._acknowledged(request, via, flow)
            return
        key = _key(request, via, flow, request.method)
        if known := self._servers.get(key):
            known.repeated()
            return
        if said := self._answered.get(key):
            self._transport.send(said, back)
            return
        if len(self._servers) + len(self._answered) >= MOST or self._of_source[flow.remote[0]] >= MOST_OF_ONE:
            self.counters["overload"] += 1
            self._transport.send(self._passing(request, 503, "", [("Retry-After", "5")]), back)
            return
        if _origin(request) in self._origins:
            self._transport.send(self._passing(request, 482, "Merged Request"), back)
            return
        transaction = self._open(key, request, back)
        try:
            try:
                self._serve(request, transaction, _key(request, via, flow, "INVITE"))
            except Refused as error:
                self._refuse(transaction, error.code, str(error), error.headers)
            except Remote as error:
                self._refuse(transaction, error.code, str(error))
        except Exception:  # noqa: BLE001 - RFC 3261 21.5.1 is for exactly this
            self.counters["fault"] += 1
            self.log.failure("A SIP request failed by our own fault")
            self._refuse(transaction, 500)
        if transaction.answered and not transaction.vouched:
            transaction.stop()
        elif isinstance(transaction, _OtherTransaction) and transaction.answered and back.transport == "UDP":
            self._keep(key, transaction)

    def _serve(self, request: Request, transaction: ServerTransaction, invite: Hashable) -> None:
        if request.method == "CANCEL":
            self._cancelled(transaction, self._servers.get(invite))
            return
        _check(request)
        if self.user is None:
            raise Refused(503, "Starting up")
        self.user.requested(request, transaction)
        if isinstance(transaction, _InviteTransaction):
            transaction.try_()

    def _refuse(
        self, transaction: ServerTransaction, code: int, words: str = "", headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Strangers are answered once, and nothing is kept (RFC 3261 8.2.7, 26.3.2.4): a forged address gets no more
        than its owner was made to send, and each copy of the request gets the same answer.

        A 100 before it would stop the caller from repeating what we have forgotten, so there is none.
        """
        if transaction.vouched or transaction.answered:
            transaction.answer(code, words, headers)
            return
        data = self._passing(transaction.request, code, words, headers)
        transaction.answered = True
        transaction.stop()
        self._transport.send(data, transaction.flow)
        if self.on_refused:
            self.on_refused(transaction.flow, code, transaction.request)

    def _keep(self, key: Hashable, transaction: _OtherTransaction) -> None:
        """Of what was answered at once only the answer is kept until timer J (RFC 3261 17.2.2, Completed).

        1,500 REGISTERs a second are 48,000 of these, so they are small, and one timer serves all.
        """
        source = transaction.flow.remote[0]
        transaction.stop()
        self._answered[key] = transaction.last
        self._of_source[source] += 1
        self._leaving.append((self._clock.seconds() + LONG, key, source))
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(LONG, self._sweep)

    def _sweep(self) -> None:
        now, self._sweeping = self._clock.seconds(), None
        while self._leaving and self._leaving[0][0] <= now:
            _, key, source = self._leaving.popleft()
            del self._answered[key]
            self._less(source)
        if self._leaving:
            self._sweeping = self._clock.callLater(self._leaving[0][0] - now, self._sweep)

    def _less(self, source: str) -> None:
        self._of_source[source] -= 1
        if not self._of_source[source]:
            del self._of_source[source]

    def _passing(self, request: Request, code: int, words: str = "", headers: Sequence[tuple[str, str]] = ()) -> bytes:
        """An answer without a transaction. Its To tag is that of each answer to this request (RFC 3261 8.2.7)."""
        self._secret = self._secret or self._tokens.text(32).encode()
        known = "\0".join([request.first(name) or "" for name in ("via", "from", "call-id", "cseq")])
        tag = hashlib.blake2b(known.encode("utf-8", "replace"), key=self._secret, digest_size=8).hexdigest()
        return write(answer(request, code, words, headers, to_tag=tag))

    def _open(self, key: Hashable, request: Request, back: Flow) -> ServerTransaction:
        def send(data: bytes) -> None:
            self._transport.send(data, back)

        dialog = (request.call_id, request.cseq.number, self._tag())
        origin, source = _origin(request), back.remote[0]

        def ended() -> None:
            self._servers.pop(key, None)
            self._invites.pop(dialog, None)
            self._origins.discard(origin)
            self._less(source)

        def failed() -> None:
            self.counters["no-ack"] += 1

        timers, reliable = Timers(self._clock), back.transport != "UDP"
        transaction: ServerTransaction
        if request.method == "INVITE":
            invite = InviteServerCore(send, timers, reliable, failed, ended)
            transaction = self._invites[dialog] = _InviteTransaction(request, back, dialog[2], invite)
        else:
            core = noninvite.ServerCore(send, timers, reliable, ended)
            transaction = _OtherTransaction(request, back, dialog[2], core)
        self._servers[key] = transaction
        if origin is not None:
            self._origins.add(origin)
        self._of_source[source] += 1
        return transaction

    def _acknowledged(self, request: Request, via: Via, flow: Flow) -> None:
        """To the INVITE it belongs to; for a 2xx to the user (RFC 3261 17.2.3, 13.3.1.4).

        Some phones and SIPp scenarios acknowledge refusals with a branch of their own: our tag tells.
        """

        def pass_on() -> None:
            if user := self.user:
                self._guarded(lambda: user.acknowledged(request, flow))

        invite = self._servers.get(_key(request, via, flow, "INVITE"))
        if not isinstance(invite, _InviteTransaction):
            invite = self._invites.get((request.call_id, request.cseq.number, request.to.tag))
        if invite:
            invite.machine.acknowledged(pass_on)
        else:
            pass_on()

    def _cancelled(self, transaction: ServerTransaction, invite: ServerTransaction | None) -> None:
        """RFC 3261 9.2."""
        if invite is None:
            raise Refused(481, "Call/Transaction Does Not Exist")
        transaction.vouched = invite.vouched
        transaction.tag = invite.tag
        transaction.answer(200)
        if invite.answered:
            return
        if invite.on_cancelled:
            invite.on_cancelled()
        if not invite.answered:
            invite.answer(487)

    def _unreadable(self, error: Unreadable, flow: Flow) -> None:
        self.counters["malformed"] += 1
        if request := error.request:
            _, back = _stamp(request, flow)
            self._transport.send(self._passing(request, error.code, str(error)), back)
        if self.on_refused:
            self.on_refused(flow, error.code, None)

    def _tag(self) -> str:
        return self._tokens.text(16)


def _check(request: Request) -> None:
    """What no user of ours could answer otherwise (RFC 3261 8.2.2.1, 8.2.2.3)."""
    if request.uri.scheme not in SCHEMES:
        raise Malformed("This URI scheme is not served", 416)
    known = REGISTERING if request.method == "REGISTER" else EXTENSIONS
    if unknown := [tag for tag in request.tokens("require") if tag.lower() not in known]:
        raise Refused(420, "Bad Extension", [("Unsupported", ", ".join(unknown))])


def _origin(request: Request) -> Hashable:
    """The same in all copies of a request that came by different ways (RFC 3261 8.2.2.2); None within a dialog."""
    return None if request.to.tag else (request.call_id, request.from_.tag, request.first("cseq"))


def _stamp(request: Request, flow: Flow) -> tuple[Via, Flow]:
    """Note in the top Via where it came from; the Via as it was, and the flow for answers.

    RFC 3261 18.2.2 without maddr, which would let a stranger aim our answers at others; RFC 3581 4.
    """
    via = request.via
    request.headers["via"][0] = via.stamped(flow.remote).toString()
    if flow.transport != "UDP" or "rport" in via.params:
        return via, flow
    return via, flow._replace(remote=(flow.remote[0], via.port or PORT))


def _key(request: Request, via: Via, flow: Flow, method: str) -> Hashable:
    """RFC 3261 17.2.3. The source is part of it: nobody can occupy another's branch."""
    if (via.branch or "").startswith(COOKIE):
        return via.branch, via.sent_by, flow.remote[0], method
    # RFC 2543 had no unique branches. The To tag is left out: it is not there yet in INVITE, but in its ACK.
    sender = request.from_.tag, request.call_id, request.cseq.number
    return request.uri, sender, via.toString(), flow.remote[0], method
