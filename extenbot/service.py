"""The composition root: builds the program from its settings, starts it in order, stops it in order.

    start   file limit, database, plugins, RTP pool, SIP rules, local voice, pages, console, and SIP last:
            nobody is answered before everything behind the answer is there
    stop    no new calls, BYE to every caller, their records written, then everything else

What prevents the start is one line for the operator (`CannotStart`), never a traceback.
"""

from __future__ import annotations

import gc
import resource
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, TextIO

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.plugin import getPlugins
from twisted.python.failure import Failure

from extenbot import plugins, trying
from extenbot.ai.dialects import calls_mcp
from extenbot.ai.pricing import PriceTable
from extenbot.console import console
from extenbot.control import Control
from extenbot.errors import BackendLost, CannotStart, Refused
from extenbot.hooks import Delivery, ask
from extenbot.interfaces import (
    Bot,
    CallLog,
    Flow,
    IVoiceBackend,
    Playout,
    Registration,
    Voice,
    VoiceListener,
    VoiceOrder,
    VoiceSurroundings,
)
from extenbot.media.pacer import Pacer
from extenbot.net.addresses import ANY, listening_error, outward
from extenbot.net.certificate import Authorities, Certificate
from extenbot.net.mcp import Servers
from extenbot.net.mcpsession import Sessions
from extenbot.net.outside import Http
from extenbot.net.resolve import Resolver, system_names
from extenbot.net.rtp import RtpPool
from extenbot.net.sip import SipSockets
from extenbot.net.websocket import WebSockets
from extenbot.sandbox.server import Sandbox
from extenbot.settings import Endpoint, Settings
from extenbot.sip import session
from extenbot.sip.digest import Challenger
from extenbot.sip.guard import Guard
from extenbot.sip.registrant import Means
from extenbot.sip.registrants import Pace, Registrants
from extenbot.sip.registrar import Registrar
from extenbot.sip.transaction import Transactions
from extenbot.speaking import Speaking
from extenbot.store.directory import Change
from extenbot.store.sentences import SYNTHESISED
from extenbot.store.store import Store
from extenbot.surroundings import Surroundings
from extenbot.switch import Switch
from extenbot.web.seams import Connection, Live
from extenbot.web.site import PagesSite, site

#: files, sockets and pipes of one call, generously: two UDP sockets, one TCP, and both ends of it with the local voice
FILES_PER_CALL = 5
FILES_BESIDES = 200
#: threads, made as they are needed, that look up names and read long replies: a name whose server does not answer
#: holds one up for as long as the system likes, and nobody else's function shall wait for that
LOOK_UPS = 64
#: registrations at PBXs begun a second
REGISTRATIONS = 50
#: seconds that callers and the last records get when the service stops
STOP_TIMEOUT = 5.0
#: thresholds of Python's collector of cycles, which also leaves alone what is there after the start: a full round
#: stops all audio for as long as it takes, so it comes after some 3,000 calls and not after a few
COLLECT = (20_000, 5, 20)


class SystemTokens:
    """Identifiers from the system's randomness."""

    def text(self, length: int) -> str:
        return secrets.token_hex((length + 1) // 2)[:length]

    def bits(self, count: int) -> int:
        return secrets.randbits(count)


class Extenbot(Service):
    """The whole program as one twistd service."""

    log = Logger()

    def __init__(self, settings: Settings, reactor: Any, screen: TextIO | None = None) -> None:
        self.settings = settings
        self.domain = settings.domain or outward()
        self._reactor = reactor
        self._screen = screen
        self._ports: list[Any] = []

    def startService(self) -> None:
        """Start everything; `CannotStart` when that cannot be, which then ends the process with one line and 1."""
        super().startService()
        try:
            self._start()
        except CannotStart:
            # twistd lets a daemon's parent know of exceptions only: after SystemExit it would wait for ever.
            sys.excepthook = self._say_why_not
            raise

    def _start(self) -> None:
        settings, reactor = self.settings, self._reactor
        self._raise_file_limit()
        self.store = Store(settings, reactor)
        self.store.open()
        tokens = SystemTokens()
        sip = settings.sip
        certificate = Certificate(sip.certificate, sip.key) if sip.certificate and sip.key else None
        self.sip = SipSockets(
            reactor,
            self._received,
            sip.advertise,
            certificate,
            Authorities(sip.trust),
            keepalive=sip.keepalive,
            idle=sip.expires + 300.0,  # who is registered comes again before that
            most=settings.limits.connections,
        )
        self.rtp = RtpPool(reactor, settings.rtp)
        self.sandbox = Sandbox(reactor, settings.sandbox)
        self._sandbox_url = ""
        self._connect = WebSockets(reactor)
        self._prices = PriceTable(dict(settings.ai.prices))
        self._backends = sorted(getPlugins(IVoiceBackend, plugins), key=lambda backend: backend.order)
        self._tokens = tokens
        reactor.suggestThreadPoolSize(LOOK_UPS)
        self.outside = Http(reactor, settings.tools, time.time)
        self.servers = Servers(reactor, Sessions(self.outside.allowed, settings.tools.trust), settings.tools.in_flight)
        run_tool = trying.runner(self.outside)
        self._bench = trying.Bench(run_tool, self.servers, reactor)
        around = Surroundings(
            clock=reactor,
            now=time.time,
            tokens=tokens,
            ports=self.rtp,
            pacer=Pacer(reactor),
            open_voice=self._open_voice,
            run_tool=run_tool,
            servers=self.servers,
            calls_mcp=lambda bot: calls_mcp(bot, bot.ai_url or settings.ai.url),
            screen=partial(ask, self.outside),
            records=self.store.records,
            rtp_timeout=settings.rtp.timeout,
            ledger=self.store.ledger,
            sentences=self.store.sentences,
            record=self.store.recordings.begin,
        )
        self.registrar = Registrar(reactor, time.time, settings.sip.expires, settings.sip.min_expires)
        self.registrar.restore(chain.from_iterable(self.store.bindings.load().values()))
        self.registrar.on_changed = self.store.bindings.save
        self.transactions = Transactions(reactor, self.sip, tokens)
        self.guard = Guard(reactor, settings.guard)
        self.transactions.on_refused = self.guard.refused
        families = sorted({6 if ":" in endpoint.interface else 4 for endpoint in settings.sip.listen})
        datagrams = any(endpoint.kind == "udp" for endpoint in settings.sip.listen)
        transports = ("TLS", "TCP", "UDP") if datagrams else ("TLS", "TCP")  # to connect we need not listen
        self.registrants = Registrants(
            Means(
                clock=reactor,
                now=time.time,
                tokens=tokens,
                transactions=self.transactions,
                transport=self.sip,
                locate=Resolver(system_names(reactor), tokens, transports, families).locate,
                watch=self.sip.watch,
                turn=Pace(reactor, REGISTRATIONS).turn,
                keepalive=settings.sip.keepalive,
            ),
            self.store.saved_registrations.save,
        )
        self.switch = Switch(
            around=around,
            transport=self.sip,
            means=session.Means(reactor, tokens, self.transactions, session.Sessions(), settings.sip.session_expires),
            challenger=Challenger(
                self.domain, time.time, secrets.token_bytes(32), settings.sip.nonce_life, settings.sip.digest
            ),
            registrar=self.registrar,
            directory=self.store.directory,
            limits=settings.limits,
            registrants=self.registrants,
            guard=self.guard,
        )
        self.transactions.user = self.switch
        self.switch.vouch(self.registrar.all())
        self.store.directory.on_changed = self._bots_changed
        Deferred.fromCoroutine(self.store.start())
        self._delivery = Delivery(self.store, self.outside, reactor)
        problems: list[Failure] = []
        self.sandbox.start().addCallbacks(self._sandbox_listens, problems.append)
        if problems:  # a TCP port is ours or not at once
            problems[0].raiseException()
        # SIP first of those that may be in use: its port is the one an operator cares about.
        for endpoint in settings.sip.listen:
            self.sip.listen(endpoint)
        pages = PagesSite(
            site(
                self.store,
                settings,
                self._connection(),
                self.registrar.bindings,
                self.registrants.state,
                live=self._live(),
            )
        )
        web = [self._listen_tcp(endpoint, pages) for endpoint in settings.web.listen]
        if settings.console.authorized_keys is not None:
            factory = console(settings.console.authorized_keys, settings.data, self._names())
            for endpoint in settings.console.listen:
                self._listen_tcp(endpoint, factory)
        if (port := Control(self.place_call).listen(reactor, settings.data)) is not None:
            self._ports.append(port)
        self.log.info(
            "extenbot is up: SIP on {sip}, pages on {web}",
            sip=[str(endpoint) for endpoint in self.sip.endpoints],
            web=[str(endpoint) for endpoint in web],
        )
        for bot in self.store.directory.all():
            self.registrants.set(bot.id, bot)
        self._delivery.start()  # not before: a thread at work would keep a process alive that cannot start
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT)
        if self._screen is not None:
            # Only now: who is told of a port in use must still be told the password at the next start.
            self._tell(self._screen, self.store.seed_demo())

    async def _stop(self) -> None:
        emptied: Deferred[None] = Deferred()
        self.switch.close("service stopped", lambda: emptied.callback(None))
        emptied.addTimeout(STOP_TIMEOUT, self._reactor, onTimeoutCancel=lambda _result, _timeout: None)
        await DeferredList([emptied, self.registrants.stop()])
        await self._delivery.stop()
        self.transactions.stop()
        self.registrar.stop()
        await DeferredList([*(port.stopListening() for port in self._ports), *self.sip.close(), self.sandbox.stop()])
        await DeferredList([self.servers.stop(), self.outside.stop()])
        await self.store.stop()

    def stopService(self) -> Deferred[None] | None:
        """Stop everything; fires when nothing of ours is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop()) if hasattr(self, "switch") else None

    def place_call(self, bot_id: str, target: str, told: Callable[[str, str], None]) -> str:
        """Let a bot call a number or URI at its PBX; `told` gets the call's id and "ringing", "answered", "ended: …".

        The id of the call. `Refused` and `Malformed` with words for whoever asked.
        """
        bot = self.store.directory.by_id(bot_id)
        if bot is None:
            raise Refused(404, "There is no such bot")
        call = self.switch.place(bot, target, lambda news: told(call.id, news))
        return call.id

    # -- Parts --

    def _received(self, data: bytes, flow: Flow) -> None:
        if self.guard.lets(flow.remote[0], data):
            self.transactions.received(data, flow)

    def _listen_tcp(self, endpoint: Endpoint, factory: Any) -> Endpoint:
        """Listen; the endpoint with the port that we got."""
        try:
            self._ports.append(self._reactor.listenTCP(endpoint.port, factory, interface=endpoint.interface))
        except CannotListenError as error:
            raise listening_error(endpoint, error.socketError) from None
        return endpoint._replace(port=self._ports[-1].getHost().port)

    def _sandbox_listens(self, url: str) -> None:
        self._sandbox_url = url

    def _raise_file_limit(self) -> None:
        streams = any(endpoint.kind != "udp" for endpoint in self.settings.sip.listen)
        besides = FILES_BESIDES + self.settings.limits.connections * (2 if streams else 1)
        want = self.settings.limits.calls * FILES_PER_CALL + besides
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < want:
            able = want if hard == resource.RLIM_INFINITY else min(want, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (able, hard))
            if able < want:
                self.log.warn(
                    "The open-file limit of {able} is enough for about {calls} calls, not for {limit}: raise it",
                    able=able,
                    calls=max(0, (able - besides) // FILES_PER_CALL),
                    limit=self.settings.limits.calls,
                )

    def _open_voice(self, order: VoiceOrder, playout: Playout, listener: VoiceListener, log: CallLog) -> Voice:
        surroundings = VoiceSurroundings(
            clock=self._reactor,
            tokens=self._tokens,
            connect=self._connect,
            playout=playout,
            listener=listener,
            log=log,
            url=self.settings.ai.url,
            sandbox_url=self._sandbox_url,
            open_timeout=self.settings.ai.open_timeout,
            prices=self._prices,
            now=time.time,
        )
        for backend in self._backends:
            if backend.serves(order.bot):
                voice: Voice = backend.open(order, surroundings)
                return voice
        raise BackendLost("no_model", f"No voice back end serves the model {order.bot.model}.")

    def _live(self) -> Live:
        """What the pages see of calls, and do with them."""

        def hang_up(account_id: str, call_id: str) -> bool:
            found = [call for call in self.switch.calls if call.id == call_id and call.bot.account_id == account_id]
            for call in found:
                call.hang_up("ended on the pages")
            return bool(found)

        async def speak(bot: Bot, text: str) -> str:
            ledger = self.store.ledger
            if why := ledger.refusal(bot):
                raise Refused(480, why)
            speaking = Speaking(self._reactor, self._open_voice, bot, text, self._tokens.text(20))
            try:
                audio, said = await speaking.spoken
            finally:
                ledger.spent(bot, speaking.cost)
            await self.store.change(self.store.sentences.save, bot.id, text, audio, SYNTHESISED, said)
            return said

        return Live(
            calls=self.switch.live,
            hang_up=hang_up,
            spent_today=self.store.ledger.today,
            speak=lambda bot, text: Deferred.fromCoroutine(speak(bot, text)),
            recording=self.store.recordings.path,
            erase=self.store.recordings.remove,
            run_function=lambda *given: Deferred.fromCoroutine(self._bench.try_function(*given)),
            server_tools=lambda server: Deferred.fromCoroutine(self._bench.list_tools(server)),
            run_tool=lambda *given: Deferred.fromCoroutine(self._bench.try_tool(*given)),
        )

    def _bots_changed(self, changes: Sequence[Change]) -> None:
        bots = (bot for change in changes for bot in change if bot is not None)
        self.switch.changed({bot.username for bot in bots})
        for before, after in changes:
            known = after or before
            if known is not None:
                self.registrants.set(known.id, after)

    def _names(self) -> dict[str, Any]:
        """What the console offers beside Python itself."""

        def calls() -> list[str]:
            """The calls that are up."""
            return [
                f"{call.id}  {call.caller} → {call.dialled if call.outgoing else call.bot.name}  {call.state}"
                f"  {call.journal.elapsed():.0f} s"
                for call in self.switch.calls
            ]

        def hang_up(call_id: str) -> str:
            """End a call, named by its id or the beginning of it."""
            found = [call for call in self.switch.calls if call.id.startswith(call_id)]
            if len(found) != 1:
                return f"{len(found)} calls begin with {call_id!r}"
            found[0].hang_up("ended from the console")
            return "ended"

        def bots() -> list[Bot]:
            """All bots (passwords and keys are not shown)."""
            return self.store.directory.all()

        def bindings() -> list[Any]:
            """Who is registered."""
            return list(self.registrar.all())

        def registrations() -> list[Registration]:
            """How it stands with the registrations at PBXs."""
            return list(self.registrants.all())

        def guard() -> list[str]:
            """Who is banned, for how long and why."""
            now = self._reactor.seconds()
            return [f"{ban.source}  {ban.until - now:.0f} s more  {ban.why}" for ban in self.guard.bans()]

        def counters() -> list[str]:
            """What was dropped or refused since the start, by reason."""
            counted = self.guard.counters + self.transactions.counters
            counted["unsent"] += self.sip.unsent
            return [f"{number:>9}  {reason}" for reason, number in sorted(counted.items())]

        return {
            "calls": Listing(calls),
            "bots": Listing(bots),
            "bindings": Listing(bindings),
            "registrations": Listing(registrations),
            "guard": Listing(guard),
            "counters": Listing(counters),
            "settings": self.settings,
            "hang_up": hang_up,
            "forgive": self.guard.forgive,
            "service": self,
        }

    # -- What the person who started us needs to know --

    def _say_why_not(self, _kind: type[BaseException], error: BaseException, _trace: object) -> None:
        """On the screen as it is; a daemon's standard error is its log."""
        stream = sys.stderr if self._screen is None else sys.__stderr__
        print(f"extenbot cannot start: {error}", file=stream)

    def _connection(self) -> Connection:
        first = self.sip.endpoints[0]
        return Connection(self.domain, first.port, self.settings.rtp.ports, first.kind.upper())

    def _tell(self, screen: TextIO, first: tuple[str, str, Bot] | None) -> None:
        demo = first[2] if first else next((bot for bot in self.store.directory.all() if bot.model == "sandbox"), None)
        lines = ["", "extenbot is running. Ctrl-C stops it."]
        if self._ports and self.settings.web.listen:
            lines.append(f"  Pages     {self._web_url()}")
        if first:
            lines.append(f"  Account   {first[0]}, password {first[1]} (shown only now)")
        ways = ", ".join(f"{self.domain}:{each.port} ({each.kind.upper()})" for each in self.sip.endpoints)
        lines.append(f"  SIP       {ways}")
        if demo is not None:
            lines += [
                f"  Bot       username {demo.username}, password {demo.password}",
                f"  Next      register a phone or a PBX trunk with these values and call openai@{self.domain}",
            ]
        screen.write("\n".join([*lines, "", ""]))
        screen.flush()

    def _web_url(self) -> str:
        endpoint, host = self.settings.web.listen[0], self.settings.web.listen[0].interface
        port = self._ports[0].getHost().port if endpoint.port == 0 else endpoint.port
        return self.settings.web.url or f"http://{self.domain if host in ANY else host}:{port}/"


class Listing:
    """A name for the console that prints a fresh list, with or without parentheses."""

    def __init__(self, read: Callable[[], Sequence[object]]) -> None:
        self._read = read

    def __call__(self) -> Sequence[object]:
        return self._read()

    def __repr__(self) -> str:
        return "\n".join(str(row) for row in self._read()) or "(none)"


def make_service(settings: Settings, reactor: Any, foreground: bool) -> Extenbot:
    """The service for these settings; in the foreground it says on the screen how to go on."""
    return Extenbot(settings, reactor, sys.__stdout__ if foreground else None)
