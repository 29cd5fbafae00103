"""One call from INVITE to BYE: the only place where SIP, media and the voice meet.

The call builds the audio line once and steps out of it: no packet passes through here.
It is a machine because the caller, the voice and our own timers may each speak at any
moment; `Call.TABLE` is the whole of it:

    new          nothing has happened
    opening      the caller hears 180 while the voice session opens
    readying     the caller still hears 180: the greeting is asked for, and its first audio is waited for
    answering    200 is out, RTP runs, we wait for the ACK
    preparing    we are to call somebody: first of all the voice session opens
    calling      our INVITE is out
    talking      the conversation
    transferring REFER is out, or before it the call to whom it goes (`consultation`); a failure returns to talking
    failing      the voice is gone for good: a sentence, then a transfer or the end (`failure`)
    closing      everything the caller could notice is over; the voice may still bring a transcript
    over         the one record is written, nothing is left

Whatever ends the call goes through one door (`_release`), once, from any state. A fault in
what we do, be it ours or a plugin's, ends the call too (`_fail`): nothing stays behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, FirstError, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from extenbot import failure, prompt, toolbox
from extenbot.ai import built_in
from extenbot.audio import Audio
from extenbot.consultation import Dial
from extenbot.errors import BackendLost, Malformed, Refused, ToolFailed
from extenbot.failure import Apology
from extenbot.inputs import Inputs
from extenbot.interfaces import (
    Bot,
    CallRecord,
    Destination,
    Exchange,
    Json,
    LiveCall,
    Recording,
    Screening,
    ToolCall,
    ToolContext,
    VoiceOrder,
)
from extenbot.journal import Caller, Journal, caller_of, fields_of, headers_of
from extenbot.keypad import Keypad
from extenbot.manner import greeting_of
from extenbot.media.recording import Recorder
from extenbot.sip.answering import Answering
from extenbot.sip.bodies import offered
from extenbot.sip.message import Request
from extenbot.sip.session import Session
from extenbot.sip.uri import Uri
from extenbot.surroundings import Surroundings
from extenbot.table import inputs_of, machine, states_of
from extenbot.toolbox import Toolbox
from extenbot.transferring import STILL_THERE, Transferring
from extenbot.watch import Watch

GREETING_PATIENCE = 1.5
"""Seconds that a phone rings on for the greeting after the voice is open; later the caller hears silence instead."""

NOBODY_ASKED = Screening()

#: the session's words for how a call ended, for people
ENDED = {"caller": "caller hung up", "no-ack": "the answer was never acknowledged", "lost": "the PBX lost the call"}


class Call:
    """One call, taken by `take` or made by `place`. It listens to its SIP session and its voice.

    `over` is called once, when the record has been written. What cannot even begin raises, and nothing is open then.
    """

    log = Logger()

    def __init__(self, bot: Bot, around: Surroundings, dial: Dial, over: Callable[[Call], None]) -> None:
        """`dial` calls somebody at the bot's PBX; it may raise `Refused` and `Malformed`."""
        self.id = around.tokens.text(20)
        self.bot = bot
        self.person = Caller()  # at the other end
        self.caller = self.dialled = self.peer = ""
        self.outgoing = False
        self.started = around.now()
        self.answered_at: float | None = None
        self.state = "new"
        self.reason = ""
        self.trouble = ""  # of the voice, in words
        self.told: Callable[[str], None] = _nothing
        """Gets "ringing", "answered" and in the end "ended: " with the reason."""
        self.journal = Journal(around.clock)
        self._around = around
        self._dial = dial
        self._over = over
        self._leaving: ToolCall | None = None
        self._watch: Watch | None = None
        self._patience: IDelayedCall | None = None  # with the greeting
        self._apology: Apology | None = None
        self._recording: Recording | None = None
        self._voiceless = False
        self._audio = Audio(around.clock, around.tokens, around.ports, around.pacer, self.journal, int(self.id[:8], 16))
        self._part: Callable[[], None] = _nothing  # takes leave of the other side
        self._call_id = self._domain = ""
        self._registration = ""
        self._headers: dict[str, str] = {}
        self._answers: Json = {}  # of the owner's webhook, for the prompt
        self._inputs = inputs = _build(self)
        self._transfers = Transferring(around.clock, dial, self._audio, self.journal, self._gone, inputs.returned)

    @property
    def live(self) -> LiveCall:
        """How it stands with the call now."""
        return LiveCall(
            id=self.id,
            bot_id=self.bot.id,
            account_id=self.bot.account_id,
            caller=self.caller,
            dialled=self.dialled,
            outgoing=self.outgoing,
            state=self.state,
            started=self.started,
            answered=self.answered_at,
            cost=0.0 if self.state == "new" else self._voice.cost,
        )

    def meet(self, request: Request, session: Answering, peer: str, registration: str = "") -> None:
        """An INVITE from `peer`; `registration` is the address at its PBX that a registrant was called at.

        Nothing is open yet; `take` or `turned_away` comes next. `Refused` (415, 488) and `Malformed` for the rest.
        """
        self.person = caller_of(request)
        self._headers = headers_of(request)
        self.caller = self.person.number
        self.dialled = (request.to if registration else request).uri.user or ""  # a registrant's Contact is no name
        self.peer = peer
        self._session: Session = session
        self._call_id = session.call_id
        self._domain = request.from_.uri.host
        self._part = session.bye
        self._answering = session
        self._audio.begin(offered(request), session)
        came = {"registration": registration} if registration else {}
        self.journal.happened("invited", caller=self.caller, dialled=self.dialled, peer=peer, **came)

    def screen(self) -> Deferred[Screening] | None:
        """Ask the bot's owner about the call, and wait for MCP servers that are not ready, a second or so.

        None when there is nobody to ask and nothing to wait for.
        """
        around, bot = self._around, self.bot
        asked = around.screen(bot, self.variables, self._screened)
        ours = toolbox.servers_of(bot, around)[0]
        cold = [server for server in ours if server.wait and not around.servers.tools(server)]
        if asked is None and not cold:
            return None
        waits: list[Deferred[Any]] = [around.servers.ready(server) for server in cold]
        both = gatherResults([asked or succeed(Screening()), *waits], consumeErrors=True)
        return both.addCallbacks(_first, _inner)

    def _screened(self, exchange: Exchange) -> None:
        self.journal.happened("screening.exchange", **fields_of(exchange))

    def take(self, found: Screening = NOBODY_ASKED) -> None:
        """Begin. `Refused` (503) when that cannot be; then nothing is open."""
        self._answers = found.variables
        if found != NOBODY_ASKED:
            self.journal.happened("screened", bot=self.bot.name, variables=sorted(found.variables))
        with self._opening():
            self._answering.listener = self
            self._answering.ring()
        self._inputs.came()

    def turned_away(self, reason: str) -> None:
        """It never begins: all that remains is a record."""
        self.reason = reason
        self._ended = self._around.now()
        self.journal.happened("ended", reason=reason)
        self._around.records.save(self._record())

    @property
    def variables(self) -> dict[str, Any]:
        """What the bot's instruction and welcome message may name (`prompt`)."""
        now = datetime.fromtimestamp(self._around.now(), tz=UTC).astimezone()
        return {
            "caller": self.person.number,
            "caller_name": self.person.name,
            "called": self.dialled,
            "time": f"{now:%A}, {now.day} {now:%B %Y}, {now:%H:%M}",
            "headers": prompt.Headers.of(self._headers),
            "bot": self.bot.name,
            "call": self.id,
            **self._answers,
        }

    def place(self, target: Uri, peer: str, told: Callable[[str], None]) -> None:
        """Begin by calling `target` at `peer`, once the voice is ready; `told` gets the news."""
        self.person = Caller(target.user or str(target))
        self.caller, self.dialled = self.bot.username, str(target)
        self.peer = peer
        self.outgoing = True
        self.told = told
        self.journal.happened("ordered", dialled=self.dialled, peer=self.peer)
        with self._opening():
            pass
        self._inputs.ordered()

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Take a port pair and open the voice; both are given back when this or the body fails."""
        variables = self.variables
        self.bot = replace(
            self.bot,
            instruction=prompt.filled(self.bot.instruction, variables),
            welcome=prompt.filled(self.bot.welcome, variables),
        )
        self._toolbox = Toolbox(self.bot, self._around, self.journal, self.id)
        order = self._order()
        with ExitStack() as undo:
            undo.callback(self._inputs.failed)
            self._audio.open(self.peer.rpartition(":")[0].strip("[]"), self._digit)
            undo.callback(self._audio.close)
            self._line = self._audio.line
            try:
                self._voice = self._around.open_voice(order, self._line.playout, self, self.journal)
            except BackendLost as error:
                code, headers = failure.refusal(self.bot, error, self._domain)
                raise Refused(code, str(error), headers) from error
            undo.callback(self._voice.finish)
            undo.callback(self._toolbox.stop)
            self._toolbox.watch(self._voice)
            self._keypad = Keypad(self._around.clock, self._voice, self._line, self.journal, self._listening)
            self._line.heard = self._voice.heard
            self._line.on_loud = self._voice.loud
            self._line.echo_gate = self.bot.manner.echo_gate
            self._line.inband = self.bot.manner.dtmf_inband
            yield
            undo.pop_all()

    def _order(self) -> VoiceOrder:
        agreed, welcome = self._audio.agreed, greeting_of(self.bot)
        exact = self.bot.manner.greeting_exact and welcome
        return VoiceOrder(
            bot=self.bot,
            call_id=self.id,
            format=agreed.format,
            caller=self.person.number,
            caller_name=self.person.name,
            dialled=self.dialled,
            welcome=welcome,
            greeting=self._around.sentences.audio(self.bot.id, welcome, agreed.codec) if exact else b"",
            tools=self._toolbox.offered,
            terminal=self._toolbox.terminal,
        )

    # -- What the session and the voice tell us --

    def opened(self) -> None:
        self._inputs.opened()

    def prepared(self) -> None:
        self.journal.happened("greeting.ready")
        self._inputs.prepared()

    def asked(self, tool: ToolCall) -> None:
        self._inputs.asked(tool)

    def approval(self, tool: ToolCall) -> None:
        self._inputs.approval(tool)

    def leaving(self, tool: ToolCall) -> None:
        self.journal.happened("leaving", tool=tool.name)
        if tool.name == built_in.TRANSFER:
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

    def progressed(self, code: int, words: str, sdp: bytes) -> None:
        """Whom we call is told, or has been; early media is not listened to: it is a ringing tone."""
        self.journal.happened("progress", code=code, words=words, media=bool(sdp))
        if code >= 180:
            self._voice.prepare()  # somebody may be there any moment
            self.told("ringing")

    def answered(self, session: Session, body: bytes) -> None:
        """Whom we called has taken the call."""
        self._session, self._call_id, self._part = session, session.call_id, session.bye
        session.listener = self
        self._audio.secure(session)
        self._line.signalled(session.flow.remote[0])
        self._inputs.connected(body)

    def failed(self, code: int, words: str) -> None:
        """Whom we called has not taken the call."""
        self._inputs.ended(f"not answered: {code} {words}")

    def ended(self, by: str) -> None:
        self._inputs.ended(ENDED[by])

    def reoffered(self, body: bytes) -> bytes:
        """A re-INVITE or UPDATE: media moves, or the caller is put on hold. Returns our answer."""
        return self._audio.reoffered(body)

    def pressed(self, digit: str) -> None:
        """A key by INFO; those that come as RTP events are noted alike."""
        self._line.informed(digit)

    def move(self, session: Answering) -> None:
        """The PBX puts somebody else, or another line, on this call (RFC 3891): the conversation goes on there.

        `Refused` (415, 480, 488) and `Malformed` when that cannot be; then nothing has changed.
        """
        if self.state not in ("talking", "transferring"):
            raise Refused(480, "The call to replace has not begun, or is ending")
        body = offered(session.request)
        self._audio.check(body, session)
        self._session.replaced_by(session)
        self._session, self._part = session, session.bye
        self.person = caller_of(session.request)
        self.journal.happened("replaced", caller=self.person.number, call=session.call_id)
        session.answer(self._audio.change(body, session))

    def transferred(self, code: int, words: str, final: bool) -> None:
        self._transfers.told(code, words, final)

    def hang_up(self, reason: str) -> None:
        """End the call now; `reason` stands in its record."""
        self._inputs.hang_up(reason)

    # -- What we do; each is an output of the machine and must not raise --

    def _answer(self) -> None:
        """200 only when the voice has confirmed the formats; RTP starts with it, without waiting."""
        self._answering.answer(self._audio.describe())
        self._stop_waiting()
        self._begin()

    def _begin(self) -> None:
        around = self._around
        self.answered_at = around.now()
        if self.bot.manner.record:
            self._recording = around.record(self.id, self._unrecorded)
            self._line.recorder = Recorder(self._recording.write, self._audio.agreed.codec)
        self._audio.start()
        self.journal.happened("answered", codec=self._audio.agreed.codec)
        self._watch = Watch(
            around.clock, self.bot, self._voice, self._line, around.ledger, self.journal, around.rtp_timeout,
            self._listening, self._inputs.hang_up,
        )  # fmt: skip
        self.told("answered")

    def _unrecorded(self, words: str) -> None:
        self.journal.happened("recording.failed", words=words)

    def _listening(self) -> bool:
        return self._audio.agreed.direction == "sendrecv" and self.state == "talking"

    def _ready(self) -> None:
        """The greeting is made while the phone rings on: nobody hears silence after the answer."""
        self._patience = self._around.clock.callLater(GREETING_PATIENCE, self._inputs.prepared)
        self._voice.prepare()

    def _stop_waiting(self) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()

    def _refuse(self, why: BackendLost) -> None:
        """The PBX's own failover takes it."""
        self._without_voice(why)
        code, headers = failure.refusal(self.bot, why, self._domain)
        self._answering.refuse(code, "", headers)
        self._release(f"voice not available: {why}")
        self._inputs.finished()

    def _decline(self, reason: str) -> None:
        self._answering.refuse(480)
        self._release(reason)
        self._voice.finish()

    def _invite(self) -> None:
        """The voice is ready: now the other side may answer."""
        try:
            calling = self._dial(self.dialled, self._audio.describe(), self)
        except (Malformed, Refused) as error:  # the registration went meanwhile
            self._inputs.ended(f"not called: {error}")
            return
        self._call_id, self._part = calling.call_id, calling.cancel

    def _connect(self, body: bytes) -> None:
        if self._take_answer(body):
            self._begin()
            self._voice.greet()

    def _greet(self, body: bytes) -> None:
        if not self._audio.ours or self._take_answer(body):
            self._voice.greet()

    def _take_answer(self, body: bytes) -> bool:
        """The offer was ours, the ACK brings the answer; one of no use ends the call (RFC 3261 13.2.1, 14.2)."""
        try:
            self._audio.answered(body)
        except (Malformed, Refused) as error:
            self.journal.happened("answer.unusable", words=str(error))
            self._inputs.hang_up("the PBX answered our offer with nothing of use")
            return False
        return True

    def _ask(self, tool: ToolCall) -> None:
        person = self.person
        context = ToolContext(self.bot.id, self.id, person.number, person.name, self.dialled)
        self._toolbox.ask(tool, self._voice, self._keypad, context)

    def _consent(self, tool: ToolCall) -> None:
        self._toolbox.approve(tool, self._voice)

    def _transfer(self, tool: ToolCall) -> None:
        self._leaving = tool
        try:
            destination = built_in.destination(self.bot, tool.arguments)
        except ToolFailed as error:
            self._inputs.returned(str(error))
            return
        self._transfers.begin(self._session, destination, attended=self.bot.transfer_mode == "attended")

    def _gone(self, destination: Destination) -> None:
        """The caller is with somebody else."""
        reason = f"transferred to {destination.name}" if destination.name else "transferred"
        self._inputs.hang_up(f"{self._voice_lost}; {reason}" if self.state == "failing" else reason)

    @property
    def _voice_lost(self) -> str:
        return f"voice lost: {self.trouble.rstrip('.')}"

    def _return(self, words: str) -> None:
        """The transfer failed: the caller is still here, and the model is told why."""
        assert self._leaving is not None
        tool, self._leaving = self._leaving, None
        if self._voiceless:
            self._inputs.lost(BackendLost("lost", self.trouble))
        else:
            self._voice.answered(tool.call_id, f"{words} {STILL_THERE}")

    def _reject(self, tool: ToolCall) -> None:
        self._voice.answered(tool.call_id, "The transfer cannot be started now.", speak=False)

    def _without_voice(self, why: BackendLost) -> None:
        self._voiceless, self.trouble = True, str(why)

    def _lose(self, why: BackendLost) -> None:
        self._without_voice(why)
        self._end(f"voice not available: {why}")

    def _apologise(self, why: BackendLost) -> None:
        """The caller is told, and does not hear silence meanwhile."""
        self._without_voice(why)
        codec = self._audio.agreed.codec
        audio = self._around.sentences.audio(self.bot.id, self.bot.manner.failure_sentence, codec)
        self._apology = Apology(
            self._around.clock, self._line.playout, audio or failure.sorry(codec), self._inputs.apologised
        )

    def _settle(self, body: bytes) -> None:
        if self._audio.ours or body:
            self._take_answer(body)

    def _go_on(self) -> None:
        """After the apology: to a person, or nowhere."""
        target = self.bot.manner.failure_uri
        if target:
            self._transfers.begin(self._session, Destination(target, target))
        else:
            self._inputs.hang_up(f"voice lost: {self.trouble}")

    def _strand(self, words: str) -> None:
        self._end(f"{self._voice_lost}; the transfer failed: {words}")

    def _transfer_on(self, why: BackendLost) -> None:
        """Whoever is on the way to a person does not need the voice; should that fail, `_return` comes back to it."""
        self._without_voice(why)

    def _leave(self, reason: str) -> None:
        self._release(reason)
        if self._voiceless:
            self._inputs.finished()
        else:
            self._voice.finish()

    def _end(self, reason: str) -> None:
        self._part()
        self._leave(reason)

    def _stand(self) -> None:
        """`take` and `place` have done it, or undone it: whatever a voice still says is let go then."""

    def _fail(self) -> None:
        """The last step stopped half-way: let go of all there is, each part whatever becomes of the others."""
        with ExitStack() as steps:  # last in, first out
            steps.callback(self._write)
            steps.callback(self._voice.finish)
            if not self.reason:
                steps.callback(self._release, "a fault of the service")
            steps.callback(self._part)

    def _write(self, *_why: object) -> None:
        """The one record of this call."""
        if self._watch is not None:
            self._watch.count()  # transcripts that came last have been paid for, too
        elif self._voice.cost:  # nobody has taken the call, and yet a greeting was made for it
            self._around.ledger.spent(self.bot, self._voice.cost)
        try:
            self._around.records.save(self._record())
        finally:
            self._over(self)
            self.told(f"ended: {self.reason}")
        self.log.info(
            "Call {id} of bot {bot} ended: {reason}; {seconds} s",
            id=self.id,
            bot=self.bot.username,
            reason=self.reason,
            seconds=round(self._ended - self.started, 1),
        )

    def _record(self) -> CallRecord:
        begun, statistics = self.state != "new", self._audio.statistics
        return CallRecord(
            id=self.id,
            bot_id=self.bot.id,
            account_id=self.bot.account_id,
            sip_call_id=self._call_id,
            caller=self.caller,
            caller_name="" if self.outgoing else self.person.name,
            dialled=self.dialled,
            peer=self.peer,
            started=self.started,
            answered=self.answered_at,
            ended=self._ended,
            codec=self._audio.agreed.codec,
            end_reason=self.reason,
            packets_sent=statistics.packets_sent,
            packets_received=statistics.packets_received,
            packets_lost=statistics.packets_lost,
            jitter_ms=statistics.jitter_ms,
            transcript=self._voice.transcript if begun else (),
            usage=self._voice.usage if begun else {},
            cost=self._voice.cost if begun else 0.0,
            trouble=self.trouble,
            recorded=self._recording is not None,
            events=self.journal.events,
            outgoing=self.outgoing,
        )

    def _release(self, reason: str) -> None:
        """The one door: stop audio, give the ports back, cancel timers and functions."""
        self.reason = reason
        self._ended = self._around.now()
        statistics = self._line.statistics
        if statistics.ignored_from is not None:
            host, port = statistics.ignored_from
            self.journal.happened("media.ignored", packets=statistics.packets_ignored, last_host=host, last_port=port)
        self.journal.happened("ended", reason=reason)
        self._stop_waiting()
        with ExitStack() as steps:  # last in, first out, each whatever becomes of the others
            steps.callback(self._toolbox.stop)
            steps.callback(self._keypad.stop)
            for part in (self._watch, self._apology):
                if part is not None:
                    steps.callback(part.stop)
            if self._recording is not None:
                steps.callback(self._recording.close)
                if self._line.recorder is not None:
                    steps.callback(self._line.recorder.close)
            steps.callback(self._transfers.stop)
            steps.callback(self._audio.close)

    # -- Our own --

    def _digit(self, key: str) -> None:
        if self.state != "failing":  # there is nobody to tell
            self._keypad.pressed(key)

    # -- The machine --

    TABLE: ClassVar[tuple[tuple[str, Any, str, Any], ...]] = (
        # in this state   when this happens  go there        and do that
        ("new",           Inputs.came,       "opening",      _stand),
        ("new",           Inputs.ordered,    "preparing",    _stand),
        ("new",           Inputs.failed,     "over",         _stand),
        ("preparing",     Inputs.opened,     "calling",      _invite),
        ("preparing",     Inputs.lost,       "closing",      _lose),
        ("preparing",     Inputs.hang_up,    "closing",      _end),
        ("preparing",     Inputs.failed,     "over",         _fail),
        ("calling",       Inputs.connected,  "talking",      _connect),
        ("calling",       Inputs.lost,       "closing",      _lose),
        ("calling",       Inputs.ended,      "closing",      _leave),
        ("calling",       Inputs.hang_up,    "closing",      _end),
        ("calling",       Inputs.failed,     "over",         _fail),
        ("opening",       Inputs.opened,     "readying",     _ready),
        ("opening",       Inputs.lost,       "closing",      _refuse),
        ("opening",       Inputs.ended,      "closing",      _leave),
        ("opening",       Inputs.hang_up,    "closing",      _decline),
        ("opening",       Inputs.failed,     "over",         _fail),
        ("readying",      Inputs.prepared,   "answering",    _answer),
        ("readying",      Inputs.asked,      "readying",     _ask),
        ("readying",      Inputs.approval,   "readying",     _consent),
        ("readying",      Inputs.lost,       "closing",      _refuse),
        ("readying",      Inputs.ended,      "closing",      _leave),
        ("readying",      Inputs.hang_up,    "closing",      _decline),
        ("readying",      Inputs.failed,     "over",         _fail),
        ("answering",     Inputs.acked,      "talking",      _greet),
        ("answering",     Inputs.asked,      "answering",    _ask),
        ("answering",     Inputs.approval,   "answering",    _consent),
        ("answering",     Inputs.transfer,   "answering",    _reject),
        ("answering",     Inputs.lost,       "failing",      _apologise),
        ("answering",     Inputs.ended,      "closing",      _leave),
        ("answering",     Inputs.hang_up,    "closing",      _end),
        ("answering",     Inputs.failed,     "over",         _fail),
        ("talking",       Inputs.acked,      "talking",      _take_answer),
        ("talking",       Inputs.asked,      "talking",      _ask),
        ("talking",       Inputs.approval,   "talking",      _consent),
        ("talking",       Inputs.transfer,   "transferring", _transfer),
        ("talking",       Inputs.lost,       "failing",      _apologise),
        ("talking",       Inputs.ended,      "closing",      _leave),
        ("talking",       Inputs.hang_up,    "closing",      _end),
        ("talking",       Inputs.failed,     "over",         _fail),
        ("transferring",  Inputs.acked,      "transferring", _take_answer),
        ("transferring",  Inputs.returned,   "talking",      _return),
        ("transferring",  Inputs.asked,      "transferring", _ask),
        ("transferring",  Inputs.approval,   "transferring", _consent),
        ("transferring",  Inputs.transfer,   "transferring", _reject),
        ("transferring",  Inputs.lost,       "transferring", _transfer_on),
        ("transferring",  Inputs.ended,      "closing",      _leave),
        ("transferring",  Inputs.hang_up,    "closing",      _end),
        ("transferring",  Inputs.failed,     "over",         _fail),
        ("failing",       Inputs.acked,      "failing",      _settle),
        ("failing",       Inputs.apologised, "failing",      _go_on),
        ("failing",       Inputs.returned,   "closing",      _strand),
        ("failing",       Inputs.ended,      "closing",      _leave),
        ("failing",       Inputs.hang_up,    "closing",      _end),
        ("failing",       Inputs.failed,     "over",         _fail),
        ("closing",       Inputs.finished,   "over",         _write),
        ("closing",       Inputs.lost,       "over",         _write),
        ("closing",       Inputs.failed,     "over",         _fail),
    )  # fmt: skip


def _first(found: list[Any]) -> Screening:
    """What the owner has said; the MCP servers say nothing."""
    screening: Screening = found[0]
    return screening


def _inner(failure: Failure) -> Failure:
    """What went wrong, without what is around it."""
    inner: Failure = failure.value.subFailure if isinstance(failure.value, FirstError) else failure
    return inner


def _nothing(*_: object) -> None:
    """What is told, heard or ordered before there is somebody to tell it to."""


STATES, INPUTS = states_of(Call.TABLE), inputs_of(Inputs)
_build: Callable[[Call], Inputs] = machine(Inputs, Call, Call.TABLE)
