"""A whole service in memory on one fake clock, and a caller: no socket, file or thread.

`World` is everything between the PBX and the voice: the real transactions, switch, sessions, calls, lines,
conversations and the scripted voice. What is outside of them (SIP, RTP, websocket, records, functions) is
here, notes all that passes with its time, and can be told to fail at any one of its calls.
`Caller` is the PBX: it answers challenges, acknowledges, and sends a packet every 20 ms.
"""

from __future__ import annotations

import json
from binascii import a2b_base64
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cache
from math import cos, pi, sqrt
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from extenbot import settings
from extenbot.ai.pricing import PriceTable
from extenbot.call import Call
from extenbot.interfaces import (
    Address,
    Bot,
    CallLog,
    CallRecord,
    Exchange,
    Flow,
    Function,
    Json,
    LinkListener,
    McpServer,
    Playout,
    Price,
    Registration,
    RtpReceiver,
    Screening,
    Target,
    ToolContext,
    Voice,
    VoiceListener,
    VoiceOrder,
    VoiceSurroundings,
    unnoted,
)
from extenbot.media import g711, rtp
from extenbot.media.pacer import Pacer
from extenbot.networks import Networks
from extenbot.plugins.live import live
from extenbot.plugins.local import local
from extenbot.plugins.realtime import realtime
from extenbot.sandbox import script as scripts
from extenbot.sandbox.live import LiveSession
from extenbot.sandbox.scripted import Scripted, ScriptSession
from extenbot.settings import Limits
from extenbot.sip import session
from extenbot.sip.digest import Challenger, answer_challenge
from extenbot.sip.guard import Guard
from extenbot.sip.message import Request, Response, read
from extenbot.sip.registrant import Means
from extenbot.sip.registrants import Registrants
from extenbot.sip.registrar import Registrar
from extenbot.sip.session import Sessions
from extenbot.sip.transaction import Transactions
from extenbot.surroundings import Surroundings
from extenbot.switch import Switch
from tests.ai.world import check
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.flat import FlatSession

US: Address = ("192.0.2.1", 5060)
PBX: Address = ("192.0.2.10", 5060)
MEDIA: Address = ("192.0.2.10", 4000)
"""Where the caller's audio comes from and goes to."""

EPOCH = 1_700_000_000.0
STEP = 0.01
PACKET = 0.02

ADD = Function("f1", "add", "https://example.net/add", description='{"name": "add", "parameters": {"type": "object"}}')
BOT = Bot(
    id="b1",
    account_id="a1",
    name="Eva",
    kind="registrar",
    username="eva",
    password="secret",
    model="sandbox-script",
    instruction="You are Eva.",
    welcome="Good morning!",
    transfer_uri="200",
    functions=(ADD,),
)


class Fault(Exception):
    """What an outside call fails with when a test wants it to."""


class Outside:
    """All calls that leave our own parts, in order; the one numbered `fail_at` raises."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail_at: int | None = None

    def call(self, name: str) -> None:
        number = len(self.calls)
        self.calls.append(name)
        if number == self.fail_at:
            raise Fault(f"{name}, outside call {number}")


class MemoryPort:
    """A port pair; what arrives waits for `poll`."""

    def __init__(self, world: World, receiver: RtpReceiver, address: Address) -> None:
        self.address = address
        self.control: list[tuple[bytes, Address]] = []
        self._world = world
        self._receiver = receiver
        self._waiting: list[tuple[bytes, Address, float]] = []

    def arrive(self, data: bytes, source: Address) -> None:
        self._waiting.append((data, source, self._world.clock.seconds()))

    def poll(self) -> float:
        waiting, self._waiting = self._waiting, []
        for data, source, at in waiting:
            self._receiver.received(data, source, at)
        return self._world.clock.seconds()

    def drain(self) -> None:
        self._waiting.clear()

    def send(self, data: bytes, to: Address) -> None:
        assert self in self._world.ports, "sent on a closed port"
        self._world.outside.call("port.send")
        if phone := self._world.phones.get(to):
            phone.hear(data)

    def send_control(self, data: bytes, to: Address) -> None:
        assert self in self._world.ports, "sent on a closed port"
        self._world.outside.call("port.send_control")
        self.control.append((data, to))

    def close(self) -> None:
        self._world.ports.remove(self)
        self._world.outside.call("port.close")


class Link:
    """Both ends of one websocket: the conversation's `Link`, and the scripted voice behind it."""

    def __init__(self, world: World, script: scripts.Script, listener: LinkListener, url: str) -> None:
        self._world = world
        self._listener = listener
        self._over = False
        self._checked: set[str] = set()
        self.session: ScriptSession | LiveSession | FlatSession
        if url.partition("?")[0].endswith("/live/sessions"):
            self.session = LiveSession(
                world.clock, world.tokens, lambda _model: lambda session: Scripted(session, script), self._say,
                self._closed, wall=world.now,
            )  # fmt: skip
            self.session.life = world.live_life
        elif world.flat:
            self.session = FlatSession(world.clock, world.tokens, script, self._say, self._closed, world.now)
        else:
            self.session = ScriptSession(world.clock, world.tokens, script, self._say, self._closed, wall=world.now)
        self._dial(script.rule("connect", world.dialled))

    def send(self, text: bytes) -> None:
        self._world.outside.call("link.send")
        if not self._over:
            said = self._world.note_voice(">", text)
            if isinstance(self.session, ScriptSession) and said.event["type"] not in self._checked:
                check(said.event)  # of what comes fifty times a second once is enough
                if said.event["type"] == "input_audio_buffer.append":
                    self._checked.add(said.event["type"])
            self._later(self.session.received, text)

    def waiting(self) -> int:
        return 0

    def close(self) -> None:
        self._later(self.lose, True, 1000, "")
        self._world.outside.call("link.close")

    def lose(self, clean: bool, code: int, reason: str) -> None:
        if not self._over:
            self._over = True
            self._world.links.remove(self)
            self.session.lost()
            self._listener.lost(clean, code, reason)

    def _dial(self, rule: scripts.Rule | None) -> None:
        wait = 0.0
        for action in rule.actions if rule else ():
            if action.verb == "wait":
                wait += action.seconds
            else:
                words = f"WebSocket connection upgrade failed [{action.code}]: {action.words}"
                self._later(self.lose, False, 1006, words, wait=wait)
                return
        self._later(self._open, wait=wait)

    def _open(self) -> None:
        if not self._over:
            self._listener.connected()
            self.session.opened()

    def _say(self, text: bytes) -> None:
        self._later(self._deliver, text)

    def _deliver(self, text: bytes) -> None:
        if not self._over:
            self._world.note_voice("<", text)
            try:
                self._listener.received(text)
            except Fault:  # as Twisted does when a protocol raises
                self._world.log.failure("The websocket breaks")
                self.lose(False, 1006, "")

    def _closed(self, code: int, reason: str) -> None:
        self._later(self.lose, code != 1006, code, reason)

    def _later(self, action: Callable[..., None], *arguments: object, wait: float = 0.0) -> None:
        self._world.clock.callLater(wait, action, *arguments)


class MemoryLedger:
    """Today's spending; `cap` of each bot by its id."""

    def __init__(self) -> None:
        self.caps: dict[str, float] = {}
        self.sums: Counter[str] = Counter()

    def refusal(self, bot: Bot) -> str:
        left = self.left(bot)
        return "the daily cap of the bot is reached" if left is not None and left[0] <= 0 else ""

    def left(self, bot: Bot) -> tuple[float, float, str] | None:
        cap = self.caps.get(bot.id)
        return None if cap is None else (cap - self.sums[bot.id], cap, "bot")

    def spent(self, bot: Bot, amount: float) -> None:
        self.sums[bot.id] += amount  # type: ignore[assignment]


class MemorySentences:
    """Stored audio by its text."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    def audio(self, bot_id: str, text: str, law: str) -> bytes:
        return self.stored.get(text, b"")


class MemoryRecording:
    """A recording as it is written."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self.failed = failed
        self.frames = b""
        self.closed = False

    def write(self, frames: bytes) -> None:
        assert not self.closed, "written after the end"
        self.frames += frames

    def close(self) -> None:
        self.closed = True


class Said(NamedTuple):
    """One message on the websocket; `way` is ">" from us to the voice, "<" from it to us."""

    at: float
    way: str
    event: dict[str, Any]


class MemoryServers:
    """MCP servers whose tools are what a test says."""

    def __init__(self) -> None:
        self.listed: dict[str, tuple[Json, ...]] = {}  # by label
        self.waiting: dict[str, Deferred[None]] = {}
        self.watched: dict[str, list[Callable[[], None]]] = {}
        self.calls: list[tuple[str, str, Json]] = []
        self.results: dict[str, Callable[[Json], Awaitable[str]]] = {}  # by tool

    def tools(self, server: McpServer) -> tuple[Json, ...]:
        return self.listed.get(server.label, ())

    def ready(self, server: McpServer) -> Deferred[None]:
        return self.waiting.setdefault(server.label, Deferred())

    def watch(self, server: McpServer, changed: Callable[[], None]) -> Callable[[], None]:
        watching = self.watched.setdefault(server.label, [])
        watching.append(changed)
        return lambda: watching.remove(changed)

    def list(self, label: str, *names: str) -> None:
        """The server has these tools now."""
        schema = {"type": "object", "properties": {"what": {"type": "string"}}}
        self.listed[label] = tuple({"name": name, "description": name, "parameters": schema} for name in names)
        for changed in tuple(self.watched.get(label, ())):
            changed()

    async def call(
        self, server: McpServer, name: str, arguments: Json, noted: Callable[[Exchange], None] = unnoted
    ) -> str:
        self.calls.append((server.label, name, arguments))
        noted(Exchange("MCP", server.url))
        return await self.results[name](arguments)


class World:
    """The service. `run` lets time pass; `left` names what has not been given back."""

    log = Logger()

    def __init__(
        self,
        script: str = "",
        *bots: Bot,
        limits: Limits = Limits(),  # noqa: B008  a frozen value
        guard: settings.Guard = settings.Guard(),  # noqa: B008
        rtp_timeout: float = 30.0,
        open_timeout: float = 10.0,
        session_expires: int = 1800,
    ) -> None:
        self.clock = Clock()
        self.tokens = CountingTokens()
        self.outside = Outside()
        self.script = scripts.read(script)
        self.bots = {bot.username: bot for bot in bots or (BOT,)}
        self.open_timeout = open_timeout
        self.prices = PriceTable({"sandbox": Price((1, 1, 1), (1, 1, 1))})  # a dollar for a million
        self.ledger = MemoryLedger()
        self.sentences = MemorySentences()
        self.recordings: dict[str, MemoryRecording] = {}  # by call
        self.ports: list[MemoryPort] = []
        self.flat = False  # the voice speaks the flat form of the beta
        self.live_life = 7200.0  # seconds of a GPT-Live session
        self.opened = self.dialled = 0  # ports, websockets so far
        self.phones: dict[Address, Caller] = {}
        self.links: list[Link] = []
        self.said: list[Said] = []
        self.records: list[CallRecord] = []
        self.transport = "UDP"
        self.ladder: list[str] = []
        self.messages: list[bytes] = []  # SIP, both ways
        self.servers = MemoryServers()
        self.provides = False  # the voice service uses MCP servers by itself
        self.screenings: dict[str, Deferred[Screening]] = {}  # by bot: what its owner says of a call
        self.screened: list[tuple[str, Json]] = []
        self.functions: dict[str, Callable[[Json], Awaitable[str]]] = {}
        self.disguise: Callable[[Voice], Any] = lambda voice: voice  # what a call is given for its voice
        self.asked: list[tuple[str, dict[str, Any], ToolContext]] = []
        self.transactions = Transactions(self.clock, self, self.tokens)
        self.sessions = Sessions()
        self.registrar = Registrar(self.clock, self.now, 3600, 60)
        means = Means(
            clock=self.clock,
            now=self.now,
            tokens=self.tokens,
            transactions=self.transactions,
            transport=self,
            locate=self.locate,
            watch=lambda _flow, _gone: lambda: None,
            turn=lambda: 0.0,
            keepalive=30,
        )
        self.registrations: list[Registration] = []
        self.registrants = Registrants(means, self.registrations.append)
        self.guard = Guard(self.clock, guard)
        self.switch = Switch(
            around=Surroundings(
                clock=self.clock,
                now=self.now,
                tokens=self.tokens,
                ports=self,
                pacer=Pacer(self.clock),
                open_voice=self._open_voice,
                run_tool=self._run_tool,
                servers=self.servers,
                calls_mcp=lambda _bot: self.provides,
                screen=self._screen,
                records=self,
                rtp_timeout=rtp_timeout,
                ledger=self.ledger,
                sentences=self.sentences,
                record=self._record,
            ),
            transport=self,
            means=session.Means(self.clock, self.tokens, self.transactions, self.sessions, session_expires),
            challenger=Challenger("bots.example", self.now, b"key", 300),
            registrar=self.registrar,
            directory=self,
            limits=limits,
            registrants=self.registrants,
            guard=self.guard,
        )
        self.transactions.user = self.switch
        self.transactions.on_refused = self.guard.refused

    def locate(self, host: str, port: int, transport: str) -> Deferred[tuple[Target, ...]]:
        """A PBX's domain is its address here."""
        return succeed((Target(transport or "UDP", host, port or 5060),))

    def now(self) -> float:
        return EPOCH + self.clock.seconds()

    def run(self, seconds: float) -> None:
        """Let time pass, in steps short enough for the audio."""
        for _ in range(round(seconds / STEP)):
            for phone in list(self.phones.values()):
                phone.tick()
            self._advance(STEP)

    def run_until(self, met: Callable[[], object], seconds: float = 20.0) -> None:
        """Let time pass until something is the case."""
        for _ in range(round(seconds / STEP)):
            if met():
                return
            self.run(STEP)
        raise AssertionError(f"not within {seconds} s")

    @property
    def call(self) -> Call:
        """The one call that is up."""
        [call] = self.switch.calls
        return call

    @property
    def record(self) -> CallRecord:
        """The one record written so far."""
        [record] = self.records
        return record

    def drain(self) -> None:
        """Let all that still waits come to its end: 32 s for an ACK, and 32 s for the answer to a BYE after that."""
        for phone in self.phones.values():
            phone.talking = False
        for _ in range(150):
            self._advance(0.5)

    def _advance(self, seconds: float) -> None:
        while True:
            try:
                self.clock.advance(seconds)
                return
            except Fault:  # a reactor goes on
                self.log.failure("A timer failed")
                seconds = 0

    def left(self) -> list[str]:
        """What is not as before the first call."""
        found = [f"port {port.address}" for port in self.ports]
        found += [f"call {call.id} {call.state}" for call in self.switch.calls]
        found += [f"session {len(self.sessions)}"] if len(self.sessions) else []
        found += ["websocket" for _ in self.links]
        found += [f"place of bot {bot}" for bot in self.switch._of_bot]
        return found + [f"timer {call}" for call in self.clock.getDelayedCalls()]

    # -- What the voice and its client said

    def note_voice(self, way: str, text: bytes) -> Said:
        self.said.append(Said(self.clock.seconds(), way, json.loads(text)))
        return self.said[-1]

    def voice(self, kind: str) -> list[Said]:
        """All messages of one type, either way."""
        return [said for said in self.said if said.event["type"] == kind]

    def appended(self) -> bytes:
        """All audio the model was given."""
        return b"".join(a2b_base64(said.event["audio"]) for said in self.voice("input_audio_buffer.append"))

    def outputs(self) -> list[str]:
        """What the model was told of its function calls."""
        items = (said.event["item"] for said in self.voice("conversation.item.create"))
        return [item["output"] for item in items if item["type"] == "function_call_output"]

    # -- SipTransport

    def send(self, data: bytes, flow: Flow, lost: Callable[[], None] | None = None) -> None:
        try:
            self.outside.call("transport.send")
        except Fault:  # this one never raises: what cannot be sent is lost
            return
        self._step("<--", data)
        for phone in self.phones.values():
            if phone.address == flow.remote:
                self.clock.callLater(0, phone.receive, data)

    def advertised(self, flow: Flow) -> Address:
        return US

    def deliver(self, data: bytes, source: Address) -> None:
        """A datagram from the PBX."""
        self._step("-->", data)
        if self.guard.lets(source[0], data):
            self.transactions.received(data, Flow(self.transport, US, source))

    def _step(self, arrow: str, data: bytes) -> None:
        self.messages.append(data)
        line = data.split(b"\r\n")[0].decode("latin-1").replace("SIP/2.0 ", "").removesuffix(" SIP/2.0")
        self.ladder.append(f"{self.clock.seconds():5.2f} {arrow} {line}")

    # -- RtpPorts

    def open(self, receiver: RtpReceiver, toward: str) -> MemoryPort:
        self.outside.call("ports.open")
        port = MemoryPort(self, receiver, ("2001:db8::1" if ":" in toward else US[0], 10000 + 2 * self.opened))
        self.opened += 1
        self.ports.append(port)
        return port

    # -- Directory, Records

    def by_username(self, username: str) -> Bot | None:
        return self.bots.get(username)

    def trusting(self, host: str) -> Mapping[str, Bot]:
        return Networks((bot.trusted, name, bot) for name, bot in self.bots.items()).at(host)

    def meant_by(self, host: str) -> Bot | None:
        found = self.trusting(host)
        return next(iter(found.values())) if len(found) == 1 else None

    def _screen(self, bot: Bot, variables: Json, noted: Callable[[Exchange], None]) -> Deferred[Screening] | None:
        self.screened.append((bot.username, variables))
        if bot.username in self.screenings:
            noted(Exchange("POST", "https://pbx.example/before", body="{}"))
        return self.screenings.get(bot.username)

    def of_account(self, account_id: str, text: str) -> Bot | None:
        mine = (bot for bot in self.bots.values() if bot.account_id == account_id)
        return next((bot for bot in mine if text in (bot.id, bot.username, bot.name)), None)

    def by_id(self, bot_id: str) -> Bot | None:
        return next((bot for bot in self.bots.values() if bot.id == bot_id), None)

    def save(self, record: CallRecord) -> None:
        self.outside.call("records.save")
        self.records.append(record)

    def _record(self, call_id: str, failed: Callable[[str], None]) -> MemoryRecording:
        self.outside.call("record")
        return self.recordings.setdefault(call_id, MemoryRecording(failed))

    # -- Voices and functions

    def _open_voice(self, order: VoiceOrder, playout: Playout, listener: VoiceListener, log: CallLog) -> Voice:
        self.outside.call("open_voice")
        surroundings = VoiceSurroundings(
            clock=self.clock,
            tokens=self.tokens,
            connect=self._connect,
            playout=playout,
            listener=listener,
            log=log,
            url="wss://voice.example/v1/realtime",
            sandbox_url="ws://127.0.0.1:1/v1/realtime",
            open_timeout=self.open_timeout,
            prices=self.prices,
            now=self.now,
        )
        backend = next(each for each in (live, local, realtime) if each.serves(order.bot))
        voice: Voice = self.disguise(backend.open(order, surroundings))
        return voice

    def _connect(self, url: str, headers: Mapping[str, str], listener: LinkListener, timeout: float) -> Link:
        self.outside.call("connect")
        self.dialled += 1
        link = Link(self, self.script, listener, url)
        self.links.append(link)
        return link

    async def _run_tool(self, function: Function, arguments: Json, context: ToolContext) -> str:
        self.outside.call("run_tool")
        self.asked.append((function.name, dict(arguments), context))
        return await self.functions[function.name](arguments)

    def waits(self, name: str) -> Deferred[str]:
        """Let a function take as long as a test likes: its result is the Deferred's."""
        waiting: Deferred[str] = Deferred()

        async def wait(_arguments: Json) -> str:
            return await waiting

        self.functions[name] = wait
        return waiting

    def gives(self, name: str, result: str | Exception) -> None:
        """Let a function answer at once."""

        async def give(_arguments: Json) -> str:
            if isinstance(result, Exception):
                raise result
            return result

        self.functions[name] = give


def offer(
    formats: str = "0 8 101",
    *,
    address: Address = MEDIA,
    direction: str = "sendrecv",
    protocol: str = "RTP/AVP",
    more: str = "",
) -> bytes:
    """The SDP of a PBX; `more` are further lines."""
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address[0]}\r\ns=-\r\nc=IN IP4 {address[0]}\r\nt=0 0\r\n"
        f"m=audio {address[1]} {protocol} {formats}\r\n{more}"
        f"a=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na={direction}\r\n"
    ).encode()


class Caller:
    """A PBX with one call to the service. What it does by itself can be turned off: see the attributes."""

    def __init__(
        self,
        world: World,
        user: str = "openai",
        *,
        codec: str = "PCMU",
        username: str = "eva",
        password: str = "secret",
        number: int = 0,
    ) -> None:
        self.world = world
        self.username, self.password = username, password
        self.codec, self.kind = codec, {"PCMU": 0, "PCMA": 8}[codec]
        self.uri = f"sip:{user}@bots.example"
        self.name = self.call_id = f"call-{number}"
        self.address = (PBX[0], PBX[1] + number)
        self.media = (MEDIA[0], MEDIA[1] + 2 * number)
        self.acks = True  # acknowledge a 200
        self.ack_body = b""
        self.yields = True  # answer BYE and REFER
        self.talking = True  # send RTP once there is somewhere to send it to
        self.hz = 0  # the tone it speaks; 0: silence
        self.codes: list[int] = []  # answers to the INVITE
        self.answers: list[Response] = []
        self.requests: list[Request] = []  # from the service
        self.packets: list[tuple[float, rtp.Packet]] = []
        self.caller = "100"
        self.own_tag = "pbx"
        self.parameters = ""  # of its Contact
        self.tag = ""  # of the service, in the dialog
        self.target = ""  # its Contact there
        self._authorization = ""
        self._number = 0
        self._asking = b""
        self._port: Address | None = None
        self.packet = PACKET  # seconds of audio in one
        self.sequence = self.timestamp = 0
        self._next = 0.0
        world.phones[self.media] = self

    # -- SIP

    def invite(self, sdp: bytes | None = None, *, headers: str = "") -> None:
        """Call; the challenge is answered by itself."""
        body = offer(f"{self.kind} 101", address=self.media) if sdp is None else sdp
        self.send("INVITE", body, headers=headers)

    def again(self, sdp: bytes) -> None:
        """A re-INVITE."""
        self.send("INVITE", sdp)

    def dial(self) -> None:
        """Call, and let time pass until the call is up."""
        self.invite()
        self.world.run_until(lambda: self.codes and self.codes[-1] == 200)
        self.world.run(0.02)

    def bye(self) -> None:
        """Hang up."""
        self.talking = False
        self.send("BYE")

    def cancel(self) -> None:
        request = read(self._asking)
        assert isinstance(request, Request)
        via = request.first("via")
        self._number -= 1
        self.send("CANCEL", via=via or "")

    def notify(self, fragment: str, *, over: bool = False) -> None:
        """News of a transfer."""
        state = "terminated;reason=noresource" if over else "active;expires=60"
        headers = f"Event: refer\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag\r\n"
        self.send("NOTIFY", f"SIP/2.0 {fragment}\r\n".encode(), headers=headers)

    def register(self, user: str = "", **options: Any) -> None:
        """Register at the service, as `user` (itself)."""
        target = f"<sip:{user or self.username}@bots.example>"
        self.uri = "sip:bots.example"
        self.send("REGISTER", to=target, **options)

    def send(
        self,
        method: str,
        body: bytes = b"",
        *,
        headers: str = "",
        via: str = "",
        to: str = "",
        tag: str | None = None,
        retry: bool = False,
    ) -> None:
        """Any request. `tag` is another To tag than that of the dialog."""
        if method != "ACK":
            self._number += 1
        tag = self.tag if tag is None else tag
        kind = "Content-Type: application/sdp\r\n" if body and "content-type" not in headers.lower() else ""
        authorization = f"Authorization: {self._authorization}\r\n" if retry else ""
        via = via or f"SIP/2.0/UDP {self.address[0]}:{self.address[1]};branch=z9hG4bK{self.name}{method}{self._number}"
        data = (
            f"{method} {self.target or self.uri} SIP/2.0\r\n"
            f"Via: {via}\r\n"
            f'From: "Anna" <sip:{self.caller}@{self.address[0]}>;tag={self.own_tag}\r\n'
            f"To: {to or f'<{self.uri}>'}{f';tag={tag}' if tag else ''}\r\n"
            f"Call-ID: {self.call_id}\r\n"
            f"CSeq: {self._number} {method}\r\n"
            f"Contact: <sip:pbx@{self.address[0]}:{self.address[1]}{self.parameters}>\r\n"
            f"{authorization}{headers}{kind}"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        if method in ("INVITE", "REGISTER"):
            self._asking = data
        self.world.deliver(data, self.address)

    # -- SIP, called by the service

    def ring(self, code: int = 180, words: str = "Ringing", sdp: bytes = b"") -> None:
        """Tell the service that its call rings, or more."""
        self._reply(code, words, sdp)

    def pick_up(self, sdp: bytes | None = None) -> None:
        """Answer the service's call."""
        [invite] = self.asked("INVITE")[-1:]
        self.tag, self.call_id = invite.from_.tag, invite.call_id
        self.target = (invite.first("contact") or "").strip("<>")
        self._learn(invite.body)
        self._reply(200, "OK", offer(f"{self.kind} 101", address=self.media) if sdp is None else sdp)

    def decline(self, code: int, words: str, headers: str = "") -> None:
        """Do not take the service's call."""
        self._reply(code, words, headers=headers)

    def _reply(self, code: int, words: str, sdp: bytes = b"", headers: str = "") -> None:
        [invite] = self.asked("INVITE")[-1:]
        lines = [f"SIP/2.0 {code} {words}"]
        lines += [f"{name}: {invite.first(name)}" for name in ("via", "from", "call-id", "cseq")]
        lines += [f"To: {invite.first('to')};tag={self.own_tag}"]
        lines += [f"Contact: <sip:pbx@{self.address[0]}:{self.address[1]}>"]
        lines += ["Content-Type: application/sdp"] if sdp else []
        head = "\r\n".join([*lines, f"{headers}Content-Length: {len(sdp)}"])
        self.world.deliver(f"{head}\r\n\r\n".encode() + sdp, self.address)

    def receive(self, data: bytes) -> None:
        """A SIP message of the service."""
        message = read(data)
        if isinstance(message, Response):
            self._answered(message)
        else:
            self._asked(message)

    def _answered(self, response: Response) -> None:
        self.answers.append(response)
        method = response.cseq.method
        challenge = response.first("www-authenticate") or ""
        if response.code == 401 and (not self._authorization or "stale=true" in challenge):
            self._authorize(response, method)
        elif method == "INVITE":
            self.codes.append(response.code)
            if 200 <= response.code < 300:
                self.tag, self.target = response.to.tag, (response.first("contact") or "").strip("<>")
                self._learn(response.body)
                if self.acks:
                    self._number = response.cseq.number
                    self.send("ACK", self.ack_body)
            elif response.code >= 300:
                self.send("ACK", via=read(self._asking).first("via") or "", tag=response.to.tag)

    def _authorize(self, response: Response, method: str) -> None:
        if method == "INVITE":
            self.send("ACK", via=read(self._asking).first("via") or "", tag=response.to.tag)
        challenge = response.all("www-authenticate")[0]
        self._authorization = answer_challenge(challenge, method, self.uri, self.username, self.password, "cnonce")
        first = read(self._asking)
        headers = "".join(
            f"{name}: {first.first(name)}\r\n"
            for name in ("content-type", "p-asserted-identity", "expires", "replaces", "x-order")
            if first.first(name)
        )
        self.send(method, first.body, headers=headers, to=first.first("to") or "", retry=True)

    def _asked(self, request: Request) -> None:
        self.requests.append(request)
        if not self.yields or request.method in ("INVITE", "ACK"):
            return
        code, words = (202, "Accepted") if request.method == "REFER" else (200, "OK")
        lines = [f"SIP/2.0 {code} {words}"]
        lines += [f"{name}: {request.first(name)}" for name in ("via", "from", "to", "call-id", "cseq")]
        self.world.deliver(("\r\n".join([*lines, "Content-Length: 0"]) + "\r\n\r\n").encode(), self.address)
        if request.method == "BYE":
            self.talking = False

    def _learn(self, sdp: bytes) -> None:
        lines = {line[:2]: line.split() for line in reversed(sdp.decode().split("\r\n"))}
        self._port = (lines["c="][2], int(lines["m="][1]))

    def asked(self, method: str) -> list[Request]:
        """The requests of one method that came from the service."""
        return [request for request in self.requests if request.method == method]

    @property
    def last(self) -> Response:
        """The last answer to anything."""
        return self.answers[-1]

    # -- RTP

    def tick(self) -> None:
        """A packet of audio, when it is time."""
        now = self.world.clock.seconds()
        if not self.talking or self._port is None or now < self._next - STEP / 2:
            return
        self._next = max(self._next, now) + self.packet
        size = round(self.packet * g711.RATE)
        self.sequence, self.timestamp = (self.sequence + 1) & 0xFFFF, (self.timestamp + size) & 0xFFFFFFFF
        packet = rtp.Packet(self.kind, False, self.sequence, self.timestamp, 7, self.sound(size))
        for port in self.world.ports:
            if port.address == self._port:
                port.arrive(rtp.write(packet), self.media)

    def sound(self, size: int) -> bytes:
        """What the next packet says."""
        return tone(self.codec, self.hz) * (size // 160) if self.hz else g711.SILENCE[self.codec] * size

    def hear(self, data: bytes) -> None:
        """A packet of the service."""
        self.packets.append((self.world.clock.seconds(), rtp.read(data)))

    def heard(self, since: float = 0.0, until: float = 1e9) -> bytes:
        """All audio that came in this time."""
        return b"".join(packet.payload for at, packet in self.packets if since <= at < until)

    def hears(self, hz: float, since: float = 0.0, until: float = 1e9) -> bool:
        """Whether a tone of the voice was in what came in this time."""
        return loudness(self.heard(since, until), self.codec, hz) > 1000


@cache
def tone(codec: str, hz: int) -> bytes:
    """20 ms that can be repeated: `hz` is a multiple of 50."""
    return g711.tone(codec, hz, 20)


def loudness(audio: bytes, codec: str, hz: float) -> float:
    """The amplitude of a tone in G.711 audio (Goertzel), 16-bit samples."""
    samples = memoryview(g711.to_linear(codec, audio)).cast("h")
    if not samples:
        return 0.0
    factor = 2 * cos(2 * pi * hz / g711.RATE)
    before = last = 0.0
    for sample in samples:
        before, last = last, sample + factor * last - before
    power = before * before + last * last - factor * before * last
    return 2 * sqrt(max(power, 0.0)) / len(samples)


def bot(**changes: Any) -> Bot:
    """The usual bot, changed."""
    return replace(BOT, **changes)
