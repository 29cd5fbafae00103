"""One call from INVITE to BYE: the only place where SIP, media and the voice meet.

The call builds the audio line once and steps out of it: no packet passes through here.
It is a machine because the caller, the voice and our own timers may each speak at any
moment; `Call.TABLE` is the whole of it:

    opening      the caller hears 180 while the voice session opens
    answering    200 is out, RTP runs, we wait for the ACK
    talking      the conversation
    transferring REFER is out, we watch what becomes of it; a failure returns to talking
    closing      everything the caller could notice is over; the voice may still bring a transcript
    over         the one record is written, nothing is left

Whatever ends the call goes through one door (`_release`), once, from any state. A fault in
what we do, be it ours or a plugin's, ends the call too (`_fail`): nothing stays behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from extenbot.ai import tools
from extenbot.errors import BackendLost, Malformed, Misuse, Refused, ToolFailed
from extenbot.interfaces import (
    Bot,
    CallLog,
    CallRecord,
    Event,
    Function,
    Json,
    Playout,
    Records,
    RtpPorts,
    Tokens,
    ToolCall,
    ToolContext,
    Voice,
    VoiceListener,
    VoiceOrder,
)
from extenbot.media import sdp
from extenbot.media.line import Line
from extenbot.media.pacer import Pacer
from extenbot.sip.answering import Answering
from extenbot.sip.bodies import offered
from extenbot.sip.headers import name_addr
from extenbot.sip.message import Request
from extenbot.tasks import Tasks

#: what we offer when the INVITE has no offer: the law every PBX knows, as the voice must know it before the answer
OURS = sdp.Agreed("PCMU", 0, "audio/pcmu", sdp.EVENT_TYPE, 20, None, None, "sendrecv", False)
#: the session's words for how a call ended, for people
ENDED = {"caller": "caller hung up", "no-ack": "the answer was never acknowledged", "lost": "the PBX lost the call"}
#: a timeline longer than this is cut: a record must stay a record
MOST_EVENTS = 2000


class OpenVoice(Protocol):
    """Finds the back end of a bot and opens a session with it."""

    def __call__(self, order: VoiceOrder, playout: Playout, listener: VoiceListener, log: CallLog) -> Voice: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every call of this process shares."""

    clock: IReactorTime
    now: Callable[[], float]  # unix seconds
    tokens: Tokens
    ports: RtpPorts
    pacer: Pacer
    open_voice: OpenVoice
    run_tool: Callable[[Function, Json, ToolContext], Awaitable[str]]
    records: Records
    rtp_timeout: float  # seconds


class Journal:
    """What the customer will see of a call; the `CallLog` its parts write to."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._began = clock.seconds()
        self.events: list[Event] = []

    def happened(self, what: str, /, **fields: object) -> None:
        """Add to the timeline, to a bound."""
        if len(self.events) < MOST_EVENTS:
            self.events.append(Event(self.elapsed(), what, fields))

    def elapsed(self) -> float:
        """Seconds since the call came in, to the millisecond."""
        return round(self._clock.seconds() - self._began, 3)


@dataclass(slots=True)
class Caller:
    """Who calls: P-Asserted-Identity, else Remote-Party-ID, else From (product.md 2; RFC 3325 9.1)."""

    number: str = ""
    name: str = ""


def caller_of(request: Request) -> Caller:
    """The caller of an INVITE; empty fields where the headers do not say."""
    for header in ("p-asserted-identity", "remote-party-id", "from"):
        for text in request.all(header):
            try:
                who = name_addr(text)
            except Malformed:
                continue
            number = who.uri.user or ""
            if number:
                return Caller(number, who.display)
    return Caller()


class Inputs(Protocol):
    """Everything that can happen to a call."""

    def opened(self) -> None:
        """The voice has confirmed our formats."""

    def lost(self, why: BackendLost) -> None:
        """The voice is gone, or never came."""

    def finished(self) -> None:
        """The voice has brought what it had."""

    def acked(self, body: bytes) -> None:
        """The ACK of our 200."""

    def ended(self, reason: str) -> None:
        """The other side ended the call."""

    def hang_up(self, reason: str) -> None:
        """We end the call."""

    def asked(self, tool: ToolCall) -> None:
        """The model wants a function run."""

    def transfer(self, tool: ToolCall) -> None:
        """The model has announced a transfer, and the caller has heard it."""

    def returned(self, code: int, words: str) -> None:
        """The transfer failed."""

    def failed(self) -> None:
        """What we did about the last input went wrong."""


class Call:
    """One call. It listens to its SIP session and its voice, and is told `hang_up` by operators.

    `over` is called once, when the record has been written. What cannot even begin raises, and nothing is open then.
    """

    log = Logger()

    def __init__(
        self,
        request: Request,
        session: Answering,
        bot: Bot,
        around: Surroundings,
        peer: str,
        over: Callable[[Call], None],
        registration: str = "",
    ) -> None:
        """`registration` is the address at its PBX that a registrant was called at, else empty."""
        self.id = around.tokens.text(20)
        self.bot = bot
        self.caller = caller_of(request)
        self.dialled = (request.to if registration else request).uri.user or ""  # a registrant's Contact is no name
        self.peer = peer
        self.started = around.now()
        self.answered: float | None = None
        self.state = "opening"
        self.reason = ""
        self.journal = Journal(around.clock)
        self._around = around
        self._session = session
        self._over = over
        self._tasks = Tasks()
        self._leaving: ToolCall | None = None
        self._watch: IDelayedCall | None = None
        self._version = 1
        self._described = b""
        self._inputs = _build(self)
        # These may refuse (400, 415, 488, 503): nothing is open yet.
        body = offered(request)
        self._offer = sdp.read_offer(body) if body else None
        self._agreed = sdp.agree(self._offer) if self._offer else OURS
        host = peer.rpartition(":")[0].strip("[]")
        self._line = Line(
            around.clock, around.pacer, around.tokens, self._agreed, self._agreed.codec, host, _unheard, self._digit
        )
        order = self._order()
        came = {"registration": registration} if registration else {}
        self.journal.happened("invited", caller=self.caller.number, dialled=self.dialled, peer=peer, **came)
        with ExitStack() as undo:
            undo.callback(self._inputs.failed)
            self._port = around.ports.open(self._line, host)
            undo.callback(self._port.close)
            try:
                self._voice = around.open_voice(order, self._line.playout, self, self.journal)
            except BackendLost as error:
                raise Refused(error.code, str(error), _excuse(error)) from error
            undo.callback(self._voice.finish)
            self._line.heard = self._voice.heard
            session.listener = self
            session.ring()
            undo.pop_all()

    def _order(self) -> VoiceOrder:
        return VoiceOrder(
            bot=self.bot,
            call_id=self.id,
            format=self._agreed.format,
            caller=self.caller.number,
            caller_name=self.caller.name,
            dialled=self.dialled,
            tools=(
                *(tools.tool(function) for function in self.bot.functions),
                tools.END_CALL,
                *((tools.TRANSFER,) if self.bot.transfer_uri else ()),
            ),
            terminal=tools.BUILT_IN,
        )

    # -- What the session and the voice tell us --

    def opened(self) -> None:
        self._inputs.opened()

    def asked(self, tool: ToolCall) -> None:
        self._inputs.asked(tool)

    def leaving(self, tool: ToolCall) -> None:
        self.journal.happened("leaving", tool=tool.name)
        if tool.name in tools.TRANSFERS:
            self._inputs.transfer(tool)
        else:
            self._inputs.hang_up("bot hung up")

    def lost(self, why: BackendLost) -> None:
        self.journal.happened("voice.lost", cause=why.cause, words=str(why))
        self._inputs.lost(why)

    def finished(self) -> None:
        self._inputs.finished()

    def acked(self, body: bytes) -> None:
        self.journal.happened("acked")
        self._inputs.acked(body)

    def cancelled(self) -> None:
        self._inputs.ended("caller gave up")

    def ended(self, by: str) -> None:
        self._inputs.ended(ENDED[by])

    def reoffered(self, body: bytes) -> bytes:
        """A re-INVITE or UPDATE: media moves, or the caller is put on hold. Returns our answer."""
        if body:
            offer = sdp.read_offer(body)
            self._move(sdp.agree(offer, self._agreed.codec))
            self._offer = offer
        # Without an offer of theirs this is ours, and who is on hold may be taken off it (RFC 6337 5.3).
        agreed = self._agreed if body else replace(self._agreed, direction="sendrecv")
        if (same := self._description(agreed)) == self._described:  # RFC 4028 7.4
            return same
        self._version += 1
        self._described = self._description(agreed)
        return self._described

    def pressed(self, digit: str) -> None:
        """A key by INFO; those that come as RTP events are noted alike."""
        self._digit(digit)

    def transferred(self, code: int, words: str, final: bool) -> None:
        self.journal.happened("transfer", code=code, words=words, final=final)
        if final and code < 300:
            self._inputs.hang_up("transferred")
        elif final:
            self._inputs.returned(code, words)

    def hang_up(self, reason: str) -> None:
        """End the call now; `reason` stands in its record."""
        self._inputs.hang_up(reason)

    # -- What we do; each is an output of the machine and must not raise --

    def _answer(self) -> None:
        """200 only when the voice has confirmed the formats; RTP starts with it, without waiting."""
        self.answered = self._around.now()
        self._described = self._description(self._agreed)
        self._session.answer(self._described)
        self._line.start(self._port)
        self.journal.happened("answered", codec=self._agreed.codec)
        self._quiet_since = self._around.clock.seconds()
        self._watch = self._around.clock.callLater(1, self._listen)

    def _refuse(self, why: BackendLost) -> None:
        """The PBX's own failover takes it: 480 where the owner must act, 503 where later may do."""
        self._session.refuse(why.code, "", _excuse(why))
        self._release(f"voice not available: {why}")
        self._inputs.finished()

    def _decline(self, reason: str) -> None:
        self._session.refuse(480)
        self._release(reason)
        self._voice.finish()

    def _greet(self, body: bytes) -> None:
        if self._offer is not None or self._take_answer(body):
            self._voice.greet()

    def _take_answer(self, body: bytes) -> bool:
        """The offer was ours, the ACK brings the answer; one of no use ends the call (RFC 3261 13.2.1, 14.2)."""
        try:
            self._move(sdp.read_answer(body, self._agreed.codec))
        except (Malformed, Refused) as error:
            self.journal.happened("answer.unusable", words=str(error))
            self._inputs.hang_up("the PBX answered our offer with nothing of use")
            return False
        return True

    def _ask(self, tool: ToolCall) -> None:
        self._tasks.start(self._run(tool), "a function")

    def _transfer(self, tool: ToolCall) -> None:
        self._leaving = tool
        try:
            self._session.refer(self.bot.transfer_uri)
        except (Malformed, Refused, Misuse) as error:
            self._inputs.returned(getattr(error, "code", 500), str(error))

    def _return(self, code: int, words: str) -> None:
        """The transfer failed: the caller is still here, and the model is told why."""
        assert self._leaving is not None
        tool, self._leaving = self._leaving, None
        self._voice.answered(tool.call_id, f"The transfer failed: {code} {words}. The caller is still on the line.")

    def _reject(self, tool: ToolCall) -> None:
        self._voice.answered(tool.call_id, "The transfer cannot be started now.", speak=False)

    def _lose(self, why: BackendLost) -> None:
        self._session.bye()
        self._release(f"voice lost: {why}")
        self._inputs.finished()

    def _leave(self, reason: str) -> None:
        self._release(reason)
        self._voice.finish()

    def _end(self, reason: str) -> None:
        self._session.bye()
        self._leave(reason)

    def _abandon(self) -> None:
        """It has never begun: whatever its voice still says is let go."""

    def _fail(self) -> None:
        """The last step stopped half-way: let go of all there is, each part whatever becomes of the others."""
        with ExitStack() as steps:  # last in, first out
            steps.callback(self._write)
            steps.callback(self._voice.finish)
            if not self.reason:
                steps.callback(self._release, "a fault of the service")
            steps.callback(self._session.bye)

    def _write(self, *_why: object) -> None:
        """The one record of this call."""
        try:
            self._around.records.save(self._record())
        finally:
            self._over(self)
        self.log.info(
            "Call {id} of bot {bot} ended: {reason}; {seconds} s",
            id=self.id,
            bot=self.bot.username,
            reason=self.reason,
            seconds=round(self._ended - self.started, 1),
        )

    def _record(self) -> CallRecord:
        statistics = self._line.statistics
        return CallRecord(
            id=self.id,
            bot_id=self.bot.id,
            account_id=self.bot.account_id,
            sip_call_id=self._session.call_id,
            caller=self.caller.number,
            caller_name=self.caller.name,
            dialled=self.dialled,
            peer=self.peer,
            started=self.started,
            answered=self.answered,
            ended=self._ended,
            codec=self._agreed.codec,
            end_reason=self.reason,
            packets_sent=statistics.packets_sent,
            packets_received=statistics.packets_received,
            packets_lost=statistics.packets_lost,
            jitter_ms=statistics.jitter_ms,
            transcript=self._voice.transcript,
            usage=self._voice.usage,
            events=tuple(self.journal.events),
        )

    def _release(self, reason: str) -> None:
        """The one door: stop audio, give the ports back, cancel timers and functions."""
        self.reason = reason
        self._ended = self._around.now()
        self.journal.happened("ended", reason=reason)
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        with ExitStack() as steps:  # last in, first out, each whatever becomes of the others
            steps.callback(self._tasks.stop)
            steps.callback(self._port.close)
            steps.callback(self._line.stop)

    # -- Our own --

    def _description(self, agreed: sdp.Agreed) -> bytes:
        session_id = int(self.id[:8], 16)
        if self._offer is None:
            return sdp.write_offer(self._port.address, session_id, self._version, agreed)
        return sdp.write_answer(self._offer, agreed, self._port.address, session_id, self._version)

    def _move(self, agreed: sdp.Agreed) -> None:
        self._agreed = agreed
        self._line.move(agreed)
        self.journal.happened("media.moved", direction=agreed.direction)

    def _listen(self) -> None:
        """Every second: is anybody there? While the caller holds, mutes or is being transferred we do not ask."""
        now = self._around.clock.seconds()
        last = self._line.last_received
        if self._agreed.direction != "sendrecv" or self._leaving is not None:
            self._quiet_since = now
        elif last is not None and last > self._quiet_since:
            self._quiet_since = last
        if now - self._quiet_since > self._around.rtp_timeout:
            self._inputs.hang_up("no RTP from the caller")
        else:
            self._watch = self._around.clock.callLater(1, self._listen)

    def _digit(self, digit: str) -> None:
        self.journal.happened("dtmf", digit=digit)

    async def _run(self, tool: ToolCall) -> None:
        """Run one function of the bot; whatever happens, the model hears an answer."""
        function = next((f for f in self.bot.functions if tools.name_of(f) == tool.name), None)
        if function is None:
            output = f"There is no function called {tool.name}."
        else:
            context = ToolContext(self.bot.id, self.id, self.caller.number)
            try:
                output = str(await self._around.run_tool(function, tool.arguments, context))
            except ToolFailed as error:
                output = f"The function failed: {error}"
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001  a plugin may fail in any way, and the caller waits for words
                self.log.failure("The function {name} of bot {bot} failed", name=tool.name, bot=self.bot.username)
                output = "The function failed by a fault of the service."
        self._voice.answered(tool.call_id, output)

    # -- The machine --

    TABLE: ClassVar[tuple[tuple[str, Any, str, Any], ...]] = (
        # in this state   when this happens  go there        and do that
        ("opening",       Inputs.opened,     "answering",    _answer),
        ("opening",       Inputs.lost,       "closing",      _refuse),
        ("opening",       Inputs.ended,      "closing",      _leave),
        ("opening",       Inputs.hang_up,    "closing",      _decline),
        ("opening",       Inputs.failed,     "over",         _abandon),
        ("answering",     Inputs.acked,      "talking",      _greet),
        ("answering",     Inputs.asked,      "answering",    _ask),
        ("answering",     Inputs.transfer,   "answering",    _reject),
        ("answering",     Inputs.lost,       "closing",      _lose),
        ("answering",     Inputs.ended,      "closing",      _leave),
        ("answering",     Inputs.hang_up,    "closing",      _end),
        ("answering",     Inputs.failed,     "over",         _fail),
        ("talking",       Inputs.acked,      "talking",      _take_answer),
        ("talking",       Inputs.asked,      "talking",      _ask),
        ("talking",       Inputs.transfer,   "transferring", _transfer),
        ("talking",       Inputs.lost,       "closing",      _lose),
        ("talking",       Inputs.ended,      "closing",      _leave),
        ("talking",       Inputs.hang_up,    "closing",      _end),
        ("talking",       Inputs.failed,     "over",         _fail),
        ("transferring",  Inputs.acked,      "transferring", _take_answer),
        ("transferring",  Inputs.returned,   "talking",      _return),
        ("transferring",  Inputs.asked,      "transferring", _ask),
        ("transferring",  Inputs.transfer,   "transferring", _reject),
        ("transferring",  Inputs.lost,       "closing",      _lose),
        ("transferring",  Inputs.ended,      "closing",      _leave),
        ("transferring",  Inputs.hang_up,    "closing",      _end),
        ("transferring",  Inputs.failed,     "over",         _fail),
        ("closing",       Inputs.finished,   "over",         _write),
        ("closing",       Inputs.lost,       "over",         _write),
        ("closing",       Inputs.failed,     "over",         _fail),
    )  # fmt: skip


def _unheard(_audio: bytes) -> None:
    """Before the voice is there; the line has not started then."""


def _excuse(why: BackendLost) -> list[tuple[str, str]]:
    """Headers that say why there is no voice (RFC 3326), and when there may be one."""
    headers = [("Reason", f'SIP;cause={why.code};text="{_quotable(str(why))}"')]
    return [*headers, ("Retry-After", "10")] if why.code == 503 else headers


def _quotable(text: str) -> str:
    """Text for inside a quoted string of a SIP header (RFC 3261 25.1), shortened."""
    return "".join(c for c in text if c >= " " and c not in '"\\')[:120]


STATES = ("opening", "answering", "talking", "transferring", "closing", "over")
INPUTS = ("opened", "lost", "finished", "acked", "ended", "hang_up", "asked", "transfer", "returned", "failed")


def _machine() -> Callable[[Call], Inputs]:
    """The machine of `TABLE`; what is not in it means nothing in that state and is let go."""
    builder = TypeMachineBuilder(Inputs, Call)
    states = {name: builder.state(name) for name in STATES}
    rows = {(state, event.__name__): (target, output) for state, event, target, output in Call.TABLE}
    for state in STATES:
        for event in INPUTS:
            upon = states[state].upon(getattr(Inputs, event))
            target, output = rows.get((state, event), (state, None))
            if output is None:
                upon.loop().returns(None)
            else:
                upon.to(states[target])(_output(target, output))
    return builder.build()


def _output(target: str, method: Callable[..., object]) -> Callable[..., None]:
    """The machine goes on only when its outputs do not raise."""

    def output(inputs: Inputs, call: Call, *arguments: object) -> None:
        call.state = target
        try:
            method(call, *arguments)
        except Exception:  # noqa: BLE001
            call.log.failure("Call {id} failed by our own fault", id=call.id)
            inputs.failed()

    return output


_build = _machine()
