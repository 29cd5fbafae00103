"""Requests of ours: what is repeated until its answer comes, and by which way (RFC 3261 17.1, 18.1.1).

`Clients` is what `Transactions` is as far as we ask. The machines are in `invite` and `noninvite`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from extenbot.interfaces import Address, Dial, Flow, SipTransport, Tokens
from extenbot.sip import noninvite
from extenbot.sip.headers import Via
from extenbot.sip.invite import InviteClient, InviteClientCore, invite_client
from extenbot.sip.message import Request, Response, answer, write
from extenbot.sip.timers import Timers

COOKIE = "z9hG4bK"  # RFC 3261 8.1.1.7
LARGE = 1300  # bytes that a path of unknown MTU carries in one datagram (RFC 3261 18.1.1)
REMEMBERED = 600.0  # seconds that we do not try TCP again where it was refused
MOST_REMEMBERED = 1000


class ClientInvite:
    """An INVITE of ours. `request` is as it was sent, with our Via, and `flow` where; both change with a fall-back."""

    def __init__(self) -> None:
        self.request: Request
        self.flow: Flow
        self.machine: InviteClient
        self.cancelled: Sequence[tuple[str, str]] | None = None  # the headers of the CANCEL

    def cancel(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send CANCEL, but not before a provisional response (RFC 3261 9.1); too late it does nothing.

        The outcome comes all the same: a refusal, mostly 487, or the 2xx that was quicker. `headers` go into the
        CANCEL (such as Reason, RFC 3326).
        """
        if self.cancelled is None:
            self.cancelled = headers
            self.machine.cancel()


class Clients:
    """The client transactions of the service. `counters` says what was dropped here, by reason."""

    log = Logger()

    def __init__(self, clock: IReactorTime, transport: SipTransport, tokens: Tokens) -> None:
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._transport = transport
        self._tokens = tokens
        self._clients: dict[Hashable, noninvite.Client] = {}
        self._calls: dict[str, ClientInvite] = {}  # by branch
        self._no_tcp: dict[Address, float] = {}  # who refused it, until when we believe that

    def request(self, request: Request, flow: Flow, answered: Callable[[Response], None]) -> None:
        """Send a request (not INVITE) and repeat it; `answered` gets the one final response.

        When none comes within 32 s it gets a 408 of our own making, and without a connection a 503
        (RFC 3261 8.1.3.1). What is too large for UDP goes over TCP where the peer takes it (RFC 3261 18.1.1).
        """
        self._begin(request, flow, lambda stamped, flow, lost: self._ask(stamped, flow, answered, lost), answered)

    def invite(self, request: Request, flow: Flow, responded: Callable[[Response, Flow], None]) -> ClientInvite:
        """Send an INVITE and repeat it; `responded` gets every provisional response but 100, every 2xx (copies
        and those of forks too) and one 300 to 699, which is acknowledged here.

        Our own making are 408 when nobody answers for 32 s, 487 when nobody says what a CANCEL has done for
        as long, and 503 without a connection. There is no other limit: who waits too long cancels. Large ones
        go over TCP as in `request`. `responded` is not called before this returns.
        """
        invite = ClientInvite()
        self._begin(
            request,
            flow,
            lambda stamped, flow, lost: self._call(invite, stamped, flow, responded, lost),
            lambda response: responded(response, invite.flow),
        )
        return invite

    def acknowledge(self, request: Request, flow: Flow) -> Callable[[], None]:
        """Send the ACK of a 2xx, once; the result sends the same bytes again (RFC 3261 13.2.2.4)."""
        data = write(self._stamped(request, flow))

        def send() -> None:
            self._transport.send(data, flow)

        send()
        return send

    def _begin(
        self,
        request: Request,
        flow: Flow,
        ask: Callable[[Request, Flow, Callable[[], None]], None],
        failed: Callable[[Response], None],
    ) -> None:
        """`ask` with our Via, and where RFC 3261 18.1.1 wants it over TCP."""
        stamped = self._stamped(request, flow)

        def lost() -> None:
            failed(answer(stamped, 503, "No Connection"))

        if flow.transport == "UDP" and len(write(stamped)) > LARGE and not self._only_datagrams(flow.remote):
            stream = flow._replace(transport="TCP", dial=Dial(flow.remote))

            def fall_back() -> None:
                self._remember(flow.remote)
                ask(stamped, flow, lost)

            ask(self._stamped(request, stream), stream, fall_back)
        else:
            ask(stamped, flow, lost)

    def _stamped(self, request: Request, flow: Flow) -> Request:
        """The request with our Via."""
        host, port = self._transport.advertised(flow)
        params = {"branch": COOKIE + self._tokens.text(16), "rport": None}
        via = Via(flow.transport, f"[{host}]" if ":" in host else host, port, params)
        stamped = Request(request.method, request.uri)
        stamped.encoding, stamped.body = request.encoding, request.body
        stamped.headers = {"via": [via.toString()], **request.headers}
        stamped.headers.setdefault("max-forwards", ["70"])
        return stamped

    def _ask(
        self, request: Request, flow: Flow, answered: Callable[[Response], None], lost: Callable[[], None]
    ) -> None:
        data, key = write(request), (request.via.branch, request.method)

        def ended() -> None:
            self._clients.pop(key, None)

        def unsent() -> None:
            if machine := self._clients.get(key):
                machine.stop()
                self._guarded(lost)

        core = noninvite.ClientCore(
            send=lambda: self._transport.send(data, flow, unsent),
            timers=Timers(self._clock),
            reliable=flow.transport != "UDP",
            answered=lambda response: self._guarded(lambda: answered(response)),
            unanswered=lambda: self._guarded(lambda: answered(answer(request, 408))),
            ended=ended,
        )
        self._clients[key] = machine = noninvite.client(core)
        machine.start()

    def _only_datagrams(self, peer: Address) -> bool:
        return self._no_tcp.get(peer, 0.0) > self._clock.seconds()

    def _remember(self, peer: Address) -> None:
        """RFC 3261 18.1.1: who does not take TCP gets it by UDP all the same."""
        if len(self._no_tcp) >= MOST_REMEMBERED:
            self._no_tcp.clear()
        self._no_tcp[peer] = self._clock.seconds() + REMEMBERED

    def _call(
        self,
        invite: ClientInvite,
        request: Request,
        flow: Flow,
        responded: Callable[[Response, Flow], None],
        lost: Callable[[], None],
    ) -> None:
        data, branch = write(request), request.via.branch or ""

        def tell(response: Response, flow: Flow) -> None:
            self._guarded(lambda: responded(response, flow))

        def unsent() -> None:
            if branch in self._calls:
                machine.stop()
                self._guarded(lost)

        def send_cancel() -> None:
            cancel = _like(request, "CANCEL")
            for name, value in invite.cancelled or ():
                cancel.add(name, value)
            self._guarded(lambda: self._ask(cancel, flow, lambda _response: None, lambda: None))

        def acknowledge(response: Response) -> None:
            ack = _like(request, "ACK")
            ack.headers["to"] = response.all("to")
            self._guarded(lambda: self._transport.send(write(ack), flow))

        def ended() -> None:
            self._calls.pop(branch, None)

        core = InviteClientCore(
            send=lambda: self._transport.send(data, flow, unsent),
            send_cancel=send_cancel,
            acknowledge=acknowledge,
            timers=Timers(self._clock),
            reliable=flow.transport != "UDP",
            responded=tell,
            unanswered=lambda code: tell(answer(request, code), flow),
            ended=ended,
        )
        invite.request, invite.flow = request, flow
        self._calls[branch] = invite
        invite.machine = machine = invite_client(core)
        machine.start()
        if invite.cancelled is not None:  # on the way that failed before this one
            machine.cancel()

    def stop(self) -> None:
        """Forget them all; no timer is left."""
        for machine in list(self._clients.values()):
            machine.stop()
        for invite in list(self._calls.values()):
            invite.machine.stop()

    def _responded(self, response: Response, flow: Flow) -> None:
        """RFC 3261 17.1.3."""
        branch, method = response.via.branch, response.cseq.method
        if method == "INVITE":
            self._invite_responded(response, flow)
        elif (machine := self._clients.get((branch, method))) is None:
            self.counters["stray-response"] += 1
        elif response.code < 200:
            machine.provisional()
        else:
            machine.final(response)

    def _invite_responded(self, response: Response, flow: Flow) -> None:
        invite = self._calls.get(response.via.branch or "")
        if invite is None:
            self.counters["stray-response"] += 1
        elif response.code < 200:
            invite.machine.provisional(response, flow)
        elif response.code < 300:
            invite.machine.accepted(response, flow)
        else:
            invite.machine.refused(response, flow)

    def _guarded(self, call: Callable[[], None]) -> None:
        """Outputs of machines must not raise."""
        try:
            call()
        except Exception:  # noqa: BLE001
            self.counters["fault"] += 1
            self.log.failure("What follows a SIP message failed by our own fault")


def _like(invite: Request, method: str) -> Request:
    """The CANCEL, or the ACK of a refusal, that goes the way of the INVITE (RFC 3261 9.1, 17.1.1.3)."""
    request = Request(method, invite.uri)
    request.encoding = invite.encoding
    request.headers["via"] = invite.all("via")[:1]
    for name in ("route", "from", "to", "call-id", "max-forwards"):
        if values := invite.all(name):
            request.headers[name] = values
    request.set("cseq", f"{invite.cseq.number} {method}")
    return request
