"""Two of our SIP stacks joined in memory, and what the tests of this room share."""

from __future__ import annotations

from collections.abc import Callable

from extenbot.errors import Refused
from extenbot.interfaces import Address, Flow
from extenbot.sip.answering import Answering
from extenbot.sip.headers import CAPABILITIES
from extenbot.sip.message import Request, Response, read
from extenbot.sip.session import Means, Sessions
from extenbot.sip.transaction import ServerTransaction, Transactions
from tests.clock import Clock
from tests.fakes import CountingTokens

PBX: Address = ("192.0.2.10", 5060)
US: Address = ("192.0.2.1", 5060)
FLOW = Flow("UDP", US, PBX)
OFFER = b"v=0\r\no=pbx\r\n"
ANSWER = b"v=0\r\no=us\r\n"


class Recorder:
    """A `SipTransport` that notes (time, data, flow)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sent: list[tuple[float, bytes, Flow]] = []
        self.lost: list[Callable[[], None]] = []  # who wants to know that a connection could not be had

    def send(self, data: bytes, flow: Flow, lost: Callable[[], None] | None = None) -> None:
        self.sent.append((self.clock.seconds(), data, flow))
        if lost and flow.transport != "UDP":
            self.lost.append(lost)

    def advertised(self, flow: Flow) -> Address:
        return flow.local

    def take(self) -> list[str]:
        """What was sent since the last time, as `time start-line`."""
        lines = [f"{at:g} {data.split(bytes([13]))[0].decode()}" for at, data, _ in self.sent]
        self.sent = []
        return lines

    def messages(self) -> list[Request | Response]:
        found = [read(data) for _, data, _ in self.sent]
        self.sent = []
        return found


class Wire:
    """Datagrams between stacks by address. `lose`, `delay` and `repeat` are asked for each, by its number from 0."""

    def __init__(
        self,
        clock: Clock,
        lose: Callable[[int], bool] = lambda _: False,
        delay: Callable[[int], float] = lambda _: 0.125,
        repeat: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self.clock = clock
        self.lose, self.delay, self.repeat = lose, delay, repeat
        self.ends: dict[Address, Transactions] = {}
        self.count = 0
        self.ladder: list[str] = []

    def end(self, transactions: Transactions, address: Address) -> None:
        self.ends[address] = transactions

    def transport(self, address: Address) -> _End:
        return _End(self, address)

    def carry(self, data: bytes, source: Address, target: Address) -> None:
        number, self.count = self.count, self.count + 1
        lost = self.lose(number)
        arrow = "--x" if lost else "-->"
        line = data.split(b"\r\n")[0].decode().replace("SIP/2.0 ", "").removesuffix(" SIP/2.0")
        self.ladder.append(f"{self.clock.seconds():6.3f} {source[0]} {arrow} {target[0]} {line}")
        for _ in range(0 if lost else 2 if self.repeat(number) else 1):
            self.clock.callLater(self.delay(number), self._arrive, data, source, target)

    def _arrive(self, data: bytes, source: Address, target: Address) -> None:
        if end := self.ends.get(target):
            end.received(data, Flow("UDP", target, source))

    def run(self, seconds: float) -> None:
        self.clock.pump([0.125] * round(seconds / 0.125))


class _End:
    def __init__(self, wire: Wire, address: Address) -> None:
        self.wire, self.address = wire, address

    def send(self, data: bytes, flow: Flow, lost: Callable[[], None] | None = None) -> None:
        self.wire.carry(data, self.address, flow.remote)

    def advertised(self, flow: Flow) -> Address:
        return self.address


class Listener:
    """A `SessionListener` that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.reply: bytes | Refused | int = ANSWER  # to an offer; a number is a refusal

    def acked(self, sdp: bytes) -> None:
        self.told.append(("acked", sdp))

    def cancelled(self) -> None:
        self.told.append(("cancelled",))

    def ended(self, by: str) -> None:
        self.told.append(("ended", by))

    def reoffered(self, sdp: bytes) -> bytes:
        self.told.append(("reoffered", sdp))
        if isinstance(self.reply, int):
            raise Refused(self.reply, "Not this")
        if isinstance(self.reply, Refused):
            raise self.reply
        return self.reply

    def pressed(self, digit: str) -> None:
        self.told.append(("pressed", digit))

    def transferred(self, code: int, words: str, final: bool) -> None:
        self.told.append(("transferred", code, words, final))


class Switch:
    """A `TransactionUser` that takes every call, as the real one does after it has checked."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.tokens = CountingTokens()
        self.transactions: Transactions
        self.sessions = Sessions()
        self.listener = Listener()
        self.expires = 1800
        self.session: Answering
        self.requests: list[tuple[Request, ServerTransaction]] = []

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        self.requests.append((request, transaction))
        transaction.vouched = request.method != "OPTIONS"
        if request.to.tag:
            session = self.sessions.find(request)
            if session is None:
                raise Refused(481, "No such call")
            session.requested(request, transaction)
        elif request.method == "OPTIONS":
            transaction.answer(200, headers=CAPABILITIES)
        elif request.method == "INVITE":
            contact = "sip:bot@192.0.2.1:5060"
            means = Means(self.clock, self.tokens, self.transactions, self.sessions, self.expires)
            self.session = Answering(means, transaction, contact)
            self.session.listener = self.listener
        else:
            raise Refused(405, "Not here")

    def acknowledged(self, request: Request, flow: Flow) -> None:
        if session := self.sessions.find(request):
            session.acknowledged(request)


def stack(clock: Clock, transport: Recorder | _End) -> Switch:
    """Our stack on `transport`, with a switch that takes calls."""
    switch = Switch(clock)
    switch.transactions = Transactions(clock, transport, CountingTokens(), switch)
    return switch


def request(
    method: str,
    number: int = 1,
    *,
    uri: str = "sip:bot@192.0.2.1",
    branch: str = "",
    to_tag: str = "",
    headers: str = "",
    body: bytes = b"",
    call_id: str = "call-1",
    via: str = "",
    contact: str = "<sip:pbx@192.0.2.10:5060>",
) -> bytes:
    """A request as the PBX sends it; `headers` are whole lines."""
    via = via or f"SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK{branch or f'{method}{number}'};rport"
    tag = f";tag={to_tag}" if to_tag else ""
    contact = f"Contact: {contact}\r\n" if contact else ""
    kind = "Content-Type: application/sdp\r\n" if body and "content-type" not in headers.lower() else ""
    return (
        f"{method} {uri} SIP/2.0\r\n"
        f"Via: {via}\r\n"
        "From: <sip:100@192.0.2.10>;tag=pbx\r\n"
        f"To: <sip:bot@192.0.2.1>{tag}\r\n"
        f"Call-ID: {call_id}\r\n"
        f"CSeq: {number} {method}\r\n"
        f"{contact}{headers}{kind}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
