"""The seams between our own parts, and the plain values that cross them.

Protocols join parts of this program, zope Interfaces are for plugins. Nothing here does
any work: a part that implements a seam lives in its own room. Units: audio is G.711
bytes (8 a millisecond, 160 in 20 ms), times of day are unix seconds (UTC), clocks are
`IReactorTime` seconds that may start anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from extenbot.errors import BackendLost

Address = tuple[str, int]
"""Host (an IP address as text) and port."""

Json = Mapping[str, Any]


# -- Randomness ---------------------------------------------------------------------


class Tokens(Protocol):
    """Where identifiers come from; tests inject a counting one."""

    def text(self, length: int) -> str:
        """`length` characters of [0-9a-f], unguessable."""

    def bits(self, count: int) -> int:
        """A number of `count` random bits."""


# -- SIP transport --------------------------------------------------------------------


class Dial(NamedTuple):
    """Where to connect. `name` is who the other end of TLS must prove to be; empty: its address."""

    address: Address
    name: str = ""


class Flow(NamedTuple):
    """The path of a SIP message between two sockets (RFC 5626 3): answers go back on it.

    Of TCP and TLS it is one connection. When that is gone, or `local` has port 0 because there never was
    one, we connect to `dial`, or with port 0 to `remote`; otherwise what is sent is lost.
    """

    transport: str  # "UDP", "TCP" or "TLS"
    local: Address
    remote: Address
    dial: Dial | None = None


class Target(NamedTuple):
    """One place to send a request to (RFC 3263 4): `host` is an IP address."""

    transport: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port} ({self.transport})"


class Locate(Protocol):
    """Finds out where a SIP domain is served (RFC 3263)."""

    def __call__(self, host: str, port: int, transport: str) -> Deferred[tuple[Target, ...]]:
        """The places, best first. Port 0 and an empty transport mean: as DNS says. Fails with `Unlocated`."""


class SipTransport(Protocol):
    """Sends SIP messages; the sockets behind it are not our business."""

    def send(self, data: bytes, flow: Flow, lost: Callable[[], None] | None = None) -> None:
        """Send one whole message. Never raises: what cannot be sent is counted and lost.

        Over TCP and TLS `lost` is called, later, when no connection could be had for it.
        """

    def advertised(self, flow: Flow) -> Address:
        """The host and port by which the other end of `flow` can reach us (Via, Contact)."""


class Watch(Protocol):
    """Keeps connections alive (RFC 5626 4.4.1) and says when they are gone."""

    def __call__(self, flow: Flow, gone: Callable[[str], None]) -> Callable[[], None]:
        """From now on `gone` is told, later and once, that the connection to `flow.dial` is lost or cannot be had.

        It gets the reason as the end of a sentence about the peer. What is returned ends the watch. Of UDP there
        is nothing to watch.
        """


# -- RTP sockets ----------------------------------------------------------------------


class RtpReceiver(Protocol):
    """Gets the datagrams of one port pair. Must not raise."""

    def received(self, data: bytes, source: Address, at: float) -> None:
        """An RTP datagram that arrived `at`: seconds of a clock that may start anywhere, for jitter."""

    def received_control(self, data: bytes, source: Address) -> None: ...


class RtpPort(Protocol):
    """A pair of UDP ports, RTP on the even one and RTCP one above (RFC 3550 11)."""

    address: Address
    """What the SDP says: the advertised host and the RTP port."""

    def send(self, data: bytes, to: Address) -> None: ...

    def poll(self) -> float:
        """Hand the RTP that has arrived since the last time to the receiver; it waits here until asked for.

        Audio goes on at the tick in any case: asking then costs no latency, and no wake-up for each packet. The time
        of this, by the clock of `RtpReceiver.received`.
        """

    def drain(self) -> None:
        """Drop the RTP that has arrived so far: nobody was there to hear it."""

    def send_control(self, data: bytes, to: Address) -> None: ...

    def close(self) -> None:
        """Give the pair back; the pool lets it rest before it is used again."""


class RtpPorts(Protocol):
    """The pool of port pairs."""

    def open(self, receiver: RtpReceiver, toward: str) -> RtpPort:
        """A pair whose advertised host suits the peer at `toward`.

        `Refused` 503 when none is free, 488 when there is no address of the peer's IP version.
        """


# -- Playout, as the conversation sees it -----------------------------------------------


class Played(NamedTuple):
    """How much of one item of the voice was given to us and really went on the wire (G.711 bytes)."""

    item: str
    received: int
    sent: int


class Playout(Protocol):
    """Bot audio waiting for its 20-ms turns, counted per item as it really leaves."""

    on_drained: Callable[[], None] | None
    """Called once each time the last waiting byte has left."""

    on_began: Callable[[str], None] | None
    """Called with the name of an item when its first frame goes on the wire."""

    held: bool
    """While this is set nothing leaves; what waits stays, and more may be added."""

    @property
    def empty(self) -> bool: ...

    @property
    def waiting(self) -> int:
        """Bytes that have not left."""

    def add(self, item: str, audio: bytes) -> None:
        """Queue audio of `item`; items play in the order they were first added."""

    def finish(self, item: str) -> None:
        """No more audio of `item` will come: a partial last frame may be padded and sent."""

    def played(self, item: str) -> Played:
        """The count so far, also of items that have ended."""

    def cut(self) -> tuple[Played, ...]:
        """Drop all that waits; the items that lost audio or were not finished yet, in order."""


# -- Voice ------------------------------------------------------------------------------


class Line(NamedTuple):
    """One line of a transcript. `at` is seconds since the call came in."""

    speaker: str  # "caller" or "bot"
    text: str
    at: float
    interrupted: bool = False


class Event(NamedTuple):
    """One thing that happened in a call, for its timeline. `at` is seconds since the call came in."""

    at: float
    what: str
    fields: Json


class CallLog(Protocol):
    """What the customer will see of a call. Never secrets, never audio."""

    def happened(self, what: str, /, **fields: object) -> None:
        """Add to the timeline; `what` is a short dotted name such as `speech.started`."""

    def elapsed(self) -> float:
        """Seconds since the call came in."""


class ToolCall(NamedTuple):
    """The model asks for a function. `arguments` has been read from JSON and is an object."""

    call_id: str
    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Function:
    """Something that a bot may have done elsewhere: by a webhook, or by an app of dify.

    Product words: name, URL, bearer token, description, input schema (`template`). What else there is to it stands in
    the table of `abilities`.
    """

    id: str
    name: str
    url: str  # of the webhook; of dify the base of its API, such as https://api.dify.ai/v1
    token: str = field(default="", repr=False)
    description: str = ""  # one Realtime function tool, as JSON text
    template: str = ""  # the body to post, JSON with placeholders; empty: the default body
    kind: str = "webhook"  # or "dify_workflow", "dify_chat"
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # besides our own; they may hold secrets
    secret: str = field(default="", repr=False)  # requests are signed with it (HMAC-SHA256); empty: they are not
    timeout: float = 10.0  # seconds
    retries: int = 0  # after a failure that may pass, of methods that may be repeated
    result: str = ""  # JMESPath: which part of a JSON reply the model is told; empty: all of it
    waiting: str = ""  # what the bot says while it runs
    failure: str = ""  # what the bot says when it has failed
    speak: bool = True  # whether the model speaks when the result is there
    streaming: bool = False  # of a dify workflow: ask for its reply in pieces


@dataclass(frozen=True, slots=True)
class McpServer:
    """An MCP server whose tools a bot may use (product words: server URL, API key, label, approval, allowed tools)."""

    id: str
    label: str  # shown in logs and to the bot: letters, digits, _ and -
    url: str
    key: str = field(default="", repr=False)  # sent as a bearer token
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    approval: bool = False  # the bot asks the caller before each use
    allowed: tuple[str, ...] = ()  # names of tools; empty: all
    by: str = "extenbot"  # who calls it; or "provider": the voice service itself
    transport: str = ""  # "http" (streamable) or "sse"; empty: whichever it speaks
    timeout: float = 20.0  # seconds that one use may take
    wait: float = 1.0  # seconds that a call is answered later for it, at most


class Destination(NamedTuple):
    """Somebody callers can be transferred to."""

    name: str  # for the model: letters, digits, _ and -
    uris: str  # one or more numbers, SIP or tel URIs separated by blanks: tried in this order
    when: str = ""  # a sentence: when to send callers there


@dataclass(frozen=True, slots=True)
class Manner:
    """How a bot converses, what it does in trouble and what it may cost; stored as JSON without what is the default."""

    # Turns
    turn_detection: str = "server_vad"  # or "semantic_vad"
    vad_threshold: float = 0.5  # of server_vad: 0 to 1
    vad_padding: int = 300  # of server_vad: ms of audio before the speech that belong to it
    vad_silence: int = 500  # of server_vad: ms after which a turn is over
    vad_eagerness: str = "auto"  # of semantic_vad: low, medium, high, auto
    barge_in: str = "immediate"  # "confirmed": by 300 ms of speech or a word; "off": the bot speaks on
    greeting_interruptible: bool = True
    echo_gate: bool = True  # the bot's own words, heard again from a speaker phone, do not reach the model
    # The voice service
    dialect: str = ""  # a name of `ai.dialects`; empty: known by the address and the model
    noise_reduction: str = ""  # "near_field", "far_field"
    transcription_model: str = ""
    transcription_language: str = ""
    speed: float = 1.0
    reasoning: str = ""  # minimal, low, medium, high, xhigh
    parallel_tools: str = ""  # "yes", "no"; empty: as the service does
    max_output_tokens: int = 0  # 0: no bound
    extra: str = ""  # a JSON object that is merged into the session settings
    response_timeout: float = 8.0  # seconds without anything from the model, where something is due
    # Keys, silence and length
    dtmf_inband: bool = False  # listen for tones when the phone does not signal keys otherwise
    silence: int = 15  # seconds after which a silent caller is asked; twice, then politely left; 0: never
    longest: int = 120  # minutes of a call; 0: no bound
    # Exact sentences, spoken from stored audio
    greeting_exact: bool = False  # the welcome message is played as it was recorded or once synthesised
    # When the voice fails
    refusal: str = ""  # before the answer: "503", "480" or "302"; empty: by the cause
    refusal_uri: str = ""  # where a 302 sends the caller
    failure_sentence: str = ""  # after the answer: what is said
    failure_uri: str = ""  # and where the caller is sent; empty: hang up
    # Money, in USD; 0: no cap
    cap_call: float = 0.0
    cap_day: float = 0.0  # of this bot
    # Recording
    record: bool = False
    record_notice: str = ""  # what callers are told before the greeting


@dataclass(frozen=True, slots=True)
class Bot:
    """A bot as the signalling path needs it, secrets in clear, held in memory only."""

    id: str
    account_id: str
    name: str
    kind: str  # "registrar" or "registrant"
    username: str
    password: str = field(repr=False)
    domain: str = ""
    model: str = ""
    voice: str = ""
    token: str = field(default="", repr=False)
    ai_url: str = ""
    instruction: str = ""
    welcome: str = ""
    transfer_uri: str = ""
    transfer_mode: str = "blind"  # or "attended": whom callers are sent to is called first
    enabled: bool = True
    functions: tuple[Function, ...] = ()
    servers: tuple[McpServer, ...] = ()
    # Who is told of calls; both are posted to, with the token as bearer and signed with the secret where these are set
    before_url: str = ""  # before the answer: may give variables, refuse, or choose another bot
    after_url: str = ""  # after the call: its record
    hook_token: str = field(default="", repr=False)
    hook_secret: str = field(default="", repr=False)
    # Of a registrant only:
    auth_id: str = ""  # the digest username; empty: the username
    outbound_proxy: str = ""  # host or host:port that everything is sent to; empty: the domain itself
    port: int = 0  # of the domain; 0: as DNS says, 5060 when it says nothing
    transport: str = ""  # "udp", "tcp" or "tls"; empty: as DNS says
    expires: int = 600  # seconds that a registration is asked for
    allowed: str = ""  # more addresses that may call, networks separated by blanks
    # Of a registrar only:
    trusted: str = ""  # who may call without a digest, networks separated by blanks
    # Of both:
    destinations: tuple[Destination, ...] = ()  # beside `transfer_uri`, which has no name
    manner: Manner = Manner()


@dataclass(frozen=True, slots=True)
class VoiceOrder:
    """What one call wants of a voice back end."""

    bot: Bot
    call_id: str
    format: str  # "audio/pcmu" or "audio/pcma", both ways
    caller: str = ""
    caller_name: str = ""
    dialled: str = ""
    welcome: str = ""  # what is said first; empty: a short greeting of the model's own
    greeting: bytes = b""  # `welcome` as G.711 in `format`, to be played instead of asking the model for it
    tools: tuple[Json, ...] = ()  # Realtime tools: {"type": "function", "name": …} and {"type": "mcp", …}
    terminal: frozenset[str] = frozenset()  # names of tools that end or leave the conversation


class Voice(Protocol):
    """An open (or opening) conversation with a voice model, as the call sees it."""

    def prepare(self) -> None:
        """The caller will hear us soon: ask for the greeting, which waits in the playout until `greet`.

        `VoiceListener.prepared` follows when its first audio is there; it may never come.
        """

    def greet(self) -> None:
        """The caller hears us now: let the greeting out, asking for it if nobody has."""

    def heard(self, audio: bytes) -> None:
        """20 ms of the caller's audio, gaps already filled with silence. On the hot path."""

    def answered(self, call_id: str, output: str, *, speak: bool = True) -> None:
        """Tell the model what became of a tool call; unknown or late ids are ignored."""

    def told(self, text: str, *, by_caller: bool = False, speak: bool = True) -> None:
        """A message for the model that is not speech: keys that the caller pressed (`by_caller`), or a word of ours.

        With `speak` it answers, as soon as nobody else speaks.
        """

    def say(self, text: str) -> None:
        """Have the caller hear this sentence now, to the word as far as the model obeys; empty: that it takes a moment.

        It is left out when somebody speaks, or anything else is about to be said.
        """

    def offer(self, tools: tuple[Json, ...]) -> None:
        """The tools from now on, in place of those of the order."""

    def approved(self, call_id: str, yes: bool) -> None:
        """What came of `VoiceListener.approval`; unknown ids are ignored."""

    def loud(self, on: bool) -> None:
        """The caller has become loud at the line, or quiet again; no more than a hint that they may be speaking.

        While the bot speaks it pauses at once, and goes on where it was unless the service confirms a turn.
        """

    def finish(self) -> None:
        """The call is over: wait 2 s at most for the last words and costs, close, then `VoiceListener.finished`."""

    @property
    def transcript(self) -> tuple[Line, ...]:
        """Both sides in the order of the conversation; the bot's words only as far as they were heard."""

    @property
    def usage(self) -> Json:
        """Sums over the session: input_tokens, output_tokens, input_text, input_audio, cached, …"""

    @property
    def cost(self) -> float:
        """What all of it has cost so far, USD by the price table; what has no price there counts nothing."""

    @property
    def turns(self) -> int:
        """How often the caller has spoken or pressed keys so far."""

    @property
    def idle_since(self) -> float | None:
        """Since when (the clock's seconds) nobody speaks and nothing is due; None while that is not so."""


class VoiceListener(Protocol):
    """What a voice tells its call. `lost` or `finished` comes last, exactly once."""

    def opened(self) -> None:
        """The session has confirmed our formats: the call may be answered."""

    def prepared(self) -> None:
        """The first audio of the greeting that `Voice.prepare` asked for is there."""

    def asked(self, tool: ToolCall) -> None:
        """Run this function; the result comes back by `Voice.answered`."""

    def approval(self, tool: ToolCall) -> None:
        """The voice service wants to use this tool of an MCP server, and waits for `Voice.approved`."""

    def leaving(self, tool: ToolCall) -> None:
        """A terminal tool, and all that was to be said before it has been heard (or 5 s have passed)."""

    def lost(self, why: BackendLost) -> None:
        """Refused before `opened`, or gone after it and not to be had again."""

    def finished(self) -> None:
        """`finish` is done; nothing more will come."""


class Link(Protocol):
    """An open or opening websocket."""

    def send(self, text: bytes) -> None:
        """Send one text message; ignored when not connected."""

    def waiting(self) -> int:
        """Bytes accepted by `send` that the network has not taken yet."""

    def close(self) -> None:
        """Close with 1000; `LinkListener.lost` follows."""


class LinkListener(Protocol):
    """What a websocket tells its user. `lost` comes last, exactly once, also when connecting failed."""

    def connected(self) -> None: ...

    def received(self, text: bytes) -> None: ...

    def lost(self, clean: bool, code: int | None, reason: str) -> None:
        """`reason` holds `[401]` and the like when the handshake was refused (autobahn's words)."""


class Connect(Protocol):
    """Opens websockets."""

    def __call__(self, url: str, headers: Mapping[str, str], listener: LinkListener, timeout: float) -> Link: ...


@dataclass(frozen=True, slots=True)
class Price:
    """Of one model, USD. `text` and `audio`: into it, into it from its cache, out of it, each per million tokens."""

    text: tuple[float, float, float] = (0.0, 0.0, 0.0)
    audio: tuple[float, float, float] = (0.0, 0.0, 0.0)
    minute: float = 0.0  # where a service bills by time


class Prices(Protocol):
    """What a voice service takes, USD; None for a model that has no price here (`ai.pricing`)."""

    def response(self, model: str, counts: Json) -> float | None:
        """One response; `counts` as `ai.usage.of_response` gives them."""

    def transcription(self, model: str, usage: Json, seconds: float) -> float | None:
        """One utterance of `seconds`; `usage` as the service says, by tokens or by duration."""

    def minute(self, model: str) -> float | None:
        """One minute of a session, of models that are billed by time."""


@dataclass(frozen=True, slots=True)
class VoiceSurroundings:
    """What a back end may use to serve one call."""

    clock: Any  # IReactorTime
    tokens: Tokens
    connect: Connect
    playout: Playout
    listener: VoiceListener
    log: CallLog
    url: str  # [ai] url
    sandbox_url: str  # where the local voice listens
    open_timeout: float  # seconds
    prices: Prices
    now: Callable[[], float]  # unix seconds: sessions say when they expire


class IVoiceBackend(Interface):
    """A kind of voice model. Plugins in `extenbot.plugins` provide it."""

    name = Attribute("A short name, shown to users.")
    order = Attribute("Back ends are asked in this order, lowest first.")

    def serves(bot: Bot) -> bool:
        """Whether this back end is the one for `bot`."""

    def open(order: VoiceOrder, surroundings: VoiceSurroundings) -> Voice:
        """Start to open a session; `opened` or `lost` follows, never before this returns."""


class Exchange(NamedTuple):
    """One request to a server of the owner's and what came of it, for the owner to read. Never with secrets."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    status: int = 0  # 0: there was no reply
    reply_headers: tuple[tuple[str, str], ...] = ()
    reply: str = ""
    seconds: float = 0.0
    trouble: str = ""  # why it failed, as a sentence


def unnoted(_exchange: Exchange) -> None:
    """Nobody reads of it."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Who asks for a function, and in what call."""

    bot_id: str
    call_id: str
    caller: str
    caller_name: str = ""
    dialled: str = ""
    key: str = ""  # of this one use of a function: the same when it is tried again (Idempotency-Key)
    kept: dict[str, str] = field(default_factory=dict)  # what functions remember until the call ends, by function id
    late: float = 0.0  # seconds beyond the time-out in which an answer is still of interest, for the timeline
    noted: Callable[[Exchange], None] = unnoted


class ITool(Interface):
    """A kind of function that a bot can call. Plugins in `extenbot.plugins` provide it."""

    name = Attribute("A short name, shown to users.")

    def serves(function: Function) -> bool:
        """Whether this kind runs `function`."""

    async def run(function: Function, arguments: Json, context: ToolContext, outside: Outside) -> str:
        """What the model shall hear; `ToolFailed` with a sentence when it did not work.

        It takes `function.timeout` and `context.late` at most, or is cancelled; nothing is begun after the time-out.
        """


class Reply(NamedTuple):
    """An HTTP reply, whole."""

    status: int
    kind: str  # the content type
    body: bytes


class Outside(Protocol):
    """Sends HTTP requests to servers of the owners', and to no address that is none of theirs."""

    async def fetch(
        self,
        queue: str,
        method: str,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        token: str = "",
        secret: str = "",
        key: str = "",
        body: bytes = b"",
        timeout: float = 10.0,  # noqa: ASYNC109  Twisted's, not asyncio's
        late: float = 0.0,
        retries: int = 0,
        noted: Callable[[Exchange], None] = unnoted,
    ) -> Reply:
        """One request of a bot with its redirects and retries, bounded in time, size and number; `ToolFailed`.

        Of one `queue` so many are under way at a time; a bot has several, so that no call waits for posts after calls.
        `token` is sent as bearer, `secret` signs, `key` becomes Idempotency-Key; any status is a good reply. After
        `timeout` no request is begun, as the caller has been told by then; what is under way has `late` seconds more.
        """


class McpServers(Protocol):
    """The MCP servers that we speak with ourselves, each by one warm session."""

    def tools(self, server: McpServer) -> tuple[Json, ...]:
        """Its allowed tools as far as they are known, each {"name", "description", "parameters"}; empty: none (yet).

        Asking opens the session.
        """

    def ready(self, server: McpServer) -> Deferred[None]:
        """Fires when its tools are known, or it has failed, or `server.wait` seconds have passed."""

    def watch(self, server: McpServer, changed: Callable[[], None]) -> Callable[[], None]:
        """From now on `changed` is told when `tools` has changed. What is returned ends that."""

    async def call(
        self, server: McpServer, name: str, arguments: Json, noted: Callable[[Exchange], None] = unnoted
    ) -> str:
        """Use a tool, within `server.timeout`; what the model shall hear, or `ToolFailed`."""


class McpBench(McpServers, Protocol):
    """The same for who tries a server out."""

    async def all_tools(self, server: McpServer, patience: float) -> tuple[Json, ...]:
        """Its tools, allowed or not, connected to now if need be, within `patience` seconds.

        `ToolFailed` says why it cannot be had.
        """


class Screening(NamedTuple):
    """What the webhook before a call has said."""

    variables: Json = {}  # noqa: RUF012 — for instruction and welcome; a Mapping
    refusal: str = ""  # why the call is not taken; empty: it is
    bot: str = ""  # id, username or name of another bot of the same account that shall take it


# -- Registrations at PBXs ------------------------------------------------------------


class Standing(StrEnum):
    """How it can stand with a registration."""

    OFF = "off"  # we do not want one, or not any more
    REGISTERING = "registering"
    REGISTERED = "registered"
    REFUSED = "refused"  # the PBX said no; we try again
    UNREACHABLE = "unreachable"  # nobody said anything; we try again
    LEAVING = "leaving"  # signing off


@dataclass(frozen=True, slots=True)
class Registration:
    """How it stands with the registration of one bot at its PBX. Times are unix seconds."""

    bot_id: str
    state: Standing
    at: float  # since when
    words: str = ""  # why, for people
    until: float = 0.0  # how long the PBX keeps our contact; 0: it has none
    next_try: float = 0.0  # when we ask again; 0: that is not known
    target: str = ""  # where the registrar was reached, as text


# -- Storage ----------------------------------------------------------------------------


class Directory(Protocol):
    """The bots, in memory; always the current state of the database, at most a second old."""

    def by_username(self, username: str) -> Bot | None:
        """Also finds disabled bots: who asks decides what to say."""

    def by_id(self, bot_id: str) -> Bot | None: ...

    def of_account(self, account_id: str, text: str) -> Bot | None:
        """One of this account, by its id, username or name."""

    def trusting(self, host: str) -> Mapping[str, Bot]:
        """The registrar bots, by username, that let callers from this address in without a digest."""

    def meant_by(self, host: str) -> Bot | None:
        """The one that a caller from this address who names none may mean.

        No other bot trusts the address, and the bot is an admin's, or nobody else has bots here: otherwise
        anybody with an account could draw other people's calls to a bot of their own.
        """


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One finished call."""

    id: str
    bot_id: str
    account_id: str
    sip_call_id: str
    caller: str
    caller_name: str
    dialled: str
    peer: str  # the address that called, "host:port"
    started: float
    answered: float | None
    ended: float
    codec: str  # "PCMU", "PCMA" or "" when none was agreed
    end_reason: str
    packets_sent: int = 0
    packets_received: int = 0
    packets_lost: int = 0
    jitter_ms: float = 0.0
    transcript: tuple[Line, ...] = ()
    usage: Json = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    outgoing: bool = False  # the bot called `dialled`; else `caller` called the bot
    cost: float = 0.0  # USD
    trouble: str = ""  # what was wrong with the voice, in words for the bot's owner
    recorded: bool = False  # there is, or was, a recording


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call that is up, for the pages. Times are unix seconds."""

    id: str
    bot_id: str
    account_id: str
    caller: str
    dialled: str
    outgoing: bool
    state: str
    started: float
    answered: float | None
    cost: float


class Recording(Protocol):
    """A call's recording while it is made. Never raises and never blocks: what cannot be written is lost."""

    def write(self, frames: bytes) -> None:
        """Stereo, 16-bit little-endian at 8 kHz: the caller left, the bot right."""

    def close(self) -> None: ...


class Record(Protocol):
    """Begins the recording of a call."""

    def __call__(self, call_id: str, failed: Callable[[str], None]) -> Recording:
        """`failed` is told, later and at most once, that writing has stopped, in words."""


class Sentences(Protocol):
    """What bots say word by word, as audio in memory."""

    def audio(self, bot_id: str, text: str, law: str) -> bytes:
        """`text` as the bot `bot_id` says it, G.711 of "PCMU" or "PCMA"; empty when there is none (yet)."""


class Ledger(Protocol):
    """What has been spent today (UTC)."""

    def refusal(self, bot: Bot) -> str:
        """Why no further call of this bot may begin, for its owner; empty when one may."""

    def left(self, bot: Bot) -> tuple[float, float, str] | None:
        """Of the daily caps that stand over the bot the one with the least left: left, cap, whose; None without any."""

    def spent(self, bot: Bot, amount: float) -> None:
        """A call of this bot has cost so much more."""


class Records(Protocol):
    """Where finished calls go."""

    def save(self, record: CallRecord) -> None:
        """Write it soon, without blocking; a failure is logged and tried again."""
