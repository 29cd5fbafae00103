"""One bot that is a phone of somebody's PBX: it registers there and stays registered (RFC 3261 10.2, RFC 5626).

                 ┌──────── redirected ────────┐
    off ─start─→ locating ─located─→ registering ─accepted─→ registered
     │           ↑   └─failed─→ waiting ←─failed─┘   ↑────── due ──────┤
     │           └───── due ───────┘↑↑←───────────── broken ───────────┘
     └─queued───────────────────────┘
    any ─stop─→ leaving ─accepted, failed, broken, due─→ off

The registrar's places come from `Locate`, the best first; one that does not answer makes way for the next.
Each response is read by `Registrant` into one of the inputs, so that the machine has no doubts: `again` is the
same order with other credentials, times or place. A challenge is answered once, and once more for each stale
nonce; a nonce is kept and its count grows, so a refresh needs no challenge. When nothing helps we wait, 30 s at
first and twice as long each time up to 30 min, each a fifth more or less by lot (RFC 5626 4.5 has the idea). A
binding has one Call-ID for its whole life and a CSeq that grows.

Our Contact holds a user that nobody can guess: who knows it and calls from where the registrar is may talk to
the bot without a digest. Its host is what the registrar saw (Via received and rport), so it leads through NAT.
Over TCP and TLS there is one connection to a place, for all bots that are registered there; it carries the PBX's
requests and ours (RFC 5626 5). When it is lost we register anew at once; TLS must prove the name that was asked for.
Service-Route (RFC 3608) and Path (RFC 3327) are kept; `way` is for who sends requests to the PBX.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from extenbot.errors import Malformed, Unlocated
from extenbot.interfaces import (
    Address,
    Bot,
    Dial,
    Flow,
    Locate,
    Registration,
    SipTransport,
    Standing,
    Target,
    Tokens,
    Watch,
)
from extenbot.sip import grammar
from extenbot.sip.authorize import CHALLENGED, Authorizer
from extenbot.sip.digest import strongest
from extenbot.sip.headers import ALLOW, name_addr
from extenbot.sip.message import Request, Response
from extenbot.sip.timers import Timers
from extenbot.sip.transaction import Transactions
from extenbot.sip.uri import Uri
from extenbot.sip.way import Way

FIRST_WAIT = 30.0  # seconds
LONGEST_WAIT = 1800.0
JITTER = 0.2  # part that a wait is longer or shorter by lot
SOON = 2.0  # seconds within which a lost connection is made anew
FAREWELL = 4.0  # seconds that signing off may take
EARLIEST, LATEST = 0.75, 0.9  # parts of the granted time after which it is refreshed
LONGEST_EXPIRES = 7 * 86400
MOST_TRIES = 8  # requests to one place in one attempt: challenges, 423, 439
MOST_REDIRECTS = 3
_TRY_NEXT = frozenset({408, 430, 480, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Login:
    """What the PBX's administrator gave out, as far as the registration is concerned."""

    bot_id: str
    username: str
    password: str = field(repr=False)
    auth_id: str
    domain: str
    port: int
    transport: str
    outbound_proxy: str
    expires: int
    allowed: str
    contact_user: str

    @classmethod
    def of(cls, bot: Bot, contact_user: str) -> Login:
        return cls(
            bot_id=bot.id,
            username=bot.username,
            password=bot.password,
            auth_id=bot.auth_id or bot.username,
            domain=bot.domain,
            port=bot.port,
            transport=bot.transport.upper(),
            outbound_proxy=bot.outbound_proxy,
            expires=bot.expires,
            allowed=bot.allowed,
            contact_user=contact_user,
        )

    @property
    def instance(self) -> str:
        """The same for a bot at all times (RFC 5626 4.1)."""
        return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'extenbot:{self.bot_id}')}>"


@dataclass(frozen=True, slots=True)
class Means:
    """What all registrants of this process share."""

    clock: IReactorTime
    now: Callable[[], float]  # unix seconds
    tokens: Tokens
    transactions: Transactions
    transport: SipTransport
    locate: Locate
    watch: Watch
    turn: Callable[[], float]  # seconds until it is one's turn to register, so that not all do at once
    keepalive: float  # seconds between two small datagrams that keep NATs open; 0: none


class Inputs(Protocol):
    """What may happen to a registration."""

    def start(self) -> None:
        """It is wanted, now."""

    def queued(self, seconds: float) -> None:
        """It is wanted, but others are before it."""

    def located(self) -> None:
        """The places of the registrar are known."""

    def again(self) -> None:
        """The same once more, in another form or at the next place."""

    def redirected(self) -> None:
        """Another registrar is to be asked."""

    def accepted(self) -> None:
        """200."""

    def failed(self, standing: Standing, words: str) -> None:
        """It did not work at any place."""

    def broken(self, why: str) -> None:
        """The connection is lost, or could not be had."""

    def due(self) -> None:
        """The time of this state is over."""

    def stop(self) -> None:
        """It is wanted no more."""


def _build() -> Callable[[Registrant], Inputs]:
    builder = TypeMachineBuilder(Inputs, Registrant)
    off = builder.state("off")
    locating = builder.state("locating")  # RFC 3263 4
    registering = builder.state("registering")  # a REGISTER is under way, the first or a refresh
    registered = builder.state("registered")
    waiting = builder.state("waiting")  # RFC 5626 4.5: after a failure
    leaving = builder.state("leaving")  # RFC 3261 10.2.2

    @off.upon(Inputs.start).to(locating)
    @waiting.upon(Inputs.start).to(locating)
    @waiting.upon(Inputs.due).to(locating)
    def locate(_machine: Inputs, registrant: Registrant) -> None:
        registrant.attempt()
        registrant.look_up()

    @off.upon(Inputs.queued).to(waiting)
    def queue(machine: Inputs, registrant: Registrant, seconds: float) -> None:
        registrant.queue(seconds)
        registrant.timers.enter((seconds, machine.due))

    @registering.upon(Inputs.redirected).to(locating)
    def follow(_machine: Inputs, registrant: Registrant) -> None:
        registrant.look_up()

    @registered.upon(Inputs.start).to(registering)
    @registered.upon(Inputs.due).to(registering)
    def refresh(_machine: Inputs, registrant: Registrant) -> None:
        registrant.attempt()
        registrant.register()

    @locating.upon(Inputs.located).to(registering)
    @registering.upon(Inputs.again).loop()
    def register(_machine: Inputs, registrant: Registrant) -> None:
        registrant.register()

    @registering.upon(Inputs.accepted).to(registered)
    def hold(machine: Inputs, registrant: Registrant) -> None:
        registrant.timers.enter((registrant.hold(), machine.due))

    @registering.upon(Inputs.broken).loop()
    def elsewhere(_machine: Inputs, registrant: Registrant, why: str) -> None:
        registrant.elsewhere(why)

    @registered.upon(Inputs.broken).to(waiting)
    def come_back(machine: Inputs, registrant: Registrant, why: str) -> None:
        registrant.timers.enter((registrant.come_back(why), machine.due))

    @locating.upon(Inputs.failed).to(waiting)
    @registering.upon(Inputs.failed).to(waiting)
    def back_off(machine: Inputs, registrant: Registrant, standing: Standing, words: str) -> None:
        registrant.timers.enter((registrant.back_off(standing, words), machine.due))

    @locating.upon(Inputs.stop).to(leaving)
    @registering.upon(Inputs.stop).to(leaving)
    @registered.upon(Inputs.stop).to(leaving)
    @waiting.upon(Inputs.stop).to(leaving)
    def leave(machine: Inputs, registrant: Registrant) -> None:
        registrant.timers.enter((FAREWELL if registrant.leave() else 0.0, machine.due))

    @leaving.upon(Inputs.again).loop()
    def sign_off_again(_machine: Inputs, registrant: Registrant) -> None:
        registrant.sign_off()

    @off.upon(Inputs.stop).loop()
    @leaving.upon(Inputs.accepted).to(off)
    @leaving.upon(Inputs.redirected).to(off)
    @leaving.upon(Inputs.due).to(off)
    def end(_machine: Inputs, registrant: Registrant) -> None:
        registrant.end()

    @leaving.upon(Inputs.broken).to(off)
    def end_cut_off(_machine: Inputs, registrant: Registrant, why: str) -> None:  # noqa: ARG001
        registrant.end()

    @leaving.upon(Inputs.failed).to(off)
    def end_unheard(_machine: Inputs, registrant: Registrant, standing: Standing, words: str) -> None:  # noqa: ARG001
        registrant.end()

    # What is under way already is not begun twice; who leaves does not come back: a new registrant does.
    for state in (locating, registering, leaving):
        state.upon(Inputs.start).loop().returns(None)
    leaving.upon(Inputs.stop).loop().returns(None)
    for state in (off, locating, waiting):  # the next REGISTER connects in any case
        state.upon(Inputs.broken).loop().returns(None)
    return builder.build()


class Registrant:
    """The registration of one bot. `on_changed` is told each new state, `on_left` once after `stop`."""

    log = Logger()

    def __init__(
        self,
        login: Login,
        means: Means,
        on_changed: Callable[[Registration], None],
        on_left: Callable[[Registrant], None],
    ) -> None:
        self.login = login
        self.registration = Registration(login.bot_id, Standing.OFF, means.now())
        self.service_route: tuple[str, ...] = ()
        self.path: tuple[str, ...] = ()
        self.timers = Timers(means.clock)
        self._alive = Timers(means.clock)
        self._means = means
        self._on_changed = on_changed
        self._on_left = on_left
        self._networks = tuple(ipaddress.ip_network(text, strict=False) for text in login.allowed.split())
        domain = f"[{login.domain}]" if ":" in login.domain else login.domain
        self._registrar = Uri(domain, None, None, login.port or None)
        proxy, port = grammar.host_port(login.outbound_proxy) if login.outbound_proxy else ("", None)
        self._proxy = Uri(proxy, None, None, port, params={"lr": None}) if proxy else None
        self.aor = Uri.of(login.username, domain)
        self._call_id, self._tag = means.tokens.text(32), means.tokens.text(16)
        self._cseq = 0
        self._expires = login.expires  # what we ask for: grows with 423
        self._outbound = True  # until a first hop cannot do it (439)
        self._redirect: Uri | None = None  # another registrar that the PBX has named
        self._redirects = 0
        self._search: Deferred[tuple[Target, ...]]
        self._looking = False
        self._targets: tuple[Target, ...] = ()
        self._place = 0  # which of them
        self._hosts: dict[str, frozenset[str]] = {}  # the addresses of registrar, proxy and redirect
        self._public: Address | None = None  # how the registrar sees us
        self._moved = False  # the Contact was corrected since the last refresh
        self._bound = ""  # the Contact that the registrar has
        self._asked = ""  # the one in the last REGISTER
        self._authorizer = self._new_authorizer()
        self._sent = Request("REGISTER", self._registrar)  # the last one
        self._tries = 0
        self._failures = 0  # in a row
        self._retry_after = 0.0
        self._serial = 0  # of the last request: answers to others are too late
        self._watched: Flow | None = None  # the connection that we are told the loss of
        self._unwatch: Callable[[], None] = lambda: None
        self._reconnected = False  # in this attempt, to the same place
        self._machine = _machine(self)

    def __repr__(self) -> str:
        return f"<Registrant {self.aor} {self.registration.state}>"

    def start(self) -> None:
        """Register when it is our turn, which is now unless many begin, and stay registered."""
        wait = self._means.turn()
        if wait:
            self._machine.queued(wait)
        else:
            self._machine.start()

    def stop(self) -> None:
        """Sign off; `on_left` is called when that is done, at most 4 s later."""
        self._machine.stop()

    @property
    def contact(self) -> str:
        """Our own URI, as the PBX can reach it."""
        host, port = self._public or self._means.transport.advertised(self._flow)
        uri = Uri.of(self.login.contact_user, host, port)
        if self._target.transport != "UDP":
            uri.params = {"transport": self._target.transport.lower()}
        return str(uri)

    def way(self) -> Way | None:
        """How requests of ours go to this PBX; None when it does not have us registered.

        An outbound proxy stays the first hop, before the Service-Route (RFC 3608 6.1) unless that begins with it.
        """
        if not self._still():
            return None
        routes = self.service_route
        if self._proxy and not (routes and name_addr(routes[0]).uri.same(self._proxy)):
            routes = (f"<{self._proxy}>", *routes)
        domain = str(self._registrar).partition(":")[2]
        login = self.login
        return Way(self._flow, routes, str(self.aor), self.contact, domain, login.auth_id, login.password)

    def trusts(self, host: str) -> bool:
        """Whether a request from there is the PBX's: its registrar is there, or the owner said so."""
        if any(host in hosts for hosts in self._hosts.values()):
            return True
        return any(ipaddress.ip_address(host) in network for network in self._networks)

    # -- What the machine orders --

    def queue(self, seconds: float) -> None:
        self._say(Standing.REGISTERING, next_try=self._means.now() + seconds)

    def attempt(self) -> None:
        """A new attempt: what was tried before does not count."""
        self._tries = self._redirects = 0
        self._retry_after = 0.0
        self._reconnected = False
        if self.registration.state is not Standing.REGISTERED:  # a refresh is no news
            self._say(Standing.REGISTERING, until=self._still())

    def look_up(self) -> None:
        """Find the places: of the registrar that we were sent to, the outbound proxy, or the domain."""
        self.timers.enter()
        asked = self._redirect or self._proxy or self._registrar
        if self._proxy:  # the PBX may call from its own address nevertheless
            self._find(self._registrar, lambda _targets: None, lambda _failure: None)
        self._looking = True
        self._search = self._find(asked, self._found, self._lost)

    def _find(
        self, uri: Uri, found: Callable[[tuple[Target, ...]], None], lost: Callable[[Failure], None]
    ) -> Deferred[tuple[Target, ...]]:
        def trust(targets: tuple[Target, ...]) -> None:
            self._hosts[str(uri)] = frozenset(target.host for target in targets)
            found(targets)

        transport = (uri.params.get("transport") or "").upper() or self.login.transport
        search = self._means.locate(uri.address, uri.port or 0, transport)
        search.addCallbacks(trust, lost)
        search.addErrback(lambda failure: self.log.failure("A registration fails by our own fault", failure=failure))
        return search

    def _found(self, targets: tuple[Target, ...]) -> None:
        self._looking = False
        if not self._targets or targets[0] != self._target:
            self._public = None
        self._targets, self._place = targets, 0
        self._machine.located()

    def _lost(self, failure: Failure) -> None:
        if not self._looking:  # given up by us
            return
        self._looking = False
        self._forget_redirect()
        words = str(failure.value) if failure.check(Unlocated) else "The PBX cannot be looked up."
        self._machine.failed(Standing.UNREACHABLE, words)

    def register(self) -> None:
        """Send a REGISTER; a Contact of ours that is no longer right is taken back with it."""
        self.timers.enter()
        contact = self._asked = self.contact
        old = [self._bound] if self._bound not in ("", contact) else []
        self._send([self._written(contact, self._expires), *(self._written(uri, 0) for uri in old)], self._expires)

    def hold(self) -> float:
        """We are registered; seconds until the refresh."""
        self._bound = self._asked
        self._failures = 0
        now, granted = self._means.now(), self._granted
        correct = self.contact != self._bound and not self._moved
        self._moved = correct
        wait = 0.0 if correct else granted * self._between(EARLIEST, LATEST)
        self._say(Standing.REGISTERED, until=now + granted, next_try=now + wait)
        self._keep_alive()
        return wait

    def back_off(self, standing: Standing, words: str) -> float:
        """It did not work; seconds until the next attempt.

        A Retry-After is not obeyed the first times: PBXs send long ones while they start.
        """
        self._failures += 1
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._failures - 1, 10))
        wait *= self._between(1.0 - JITTER, 1.0 + JITTER)
        if self._failures > 2:
            wait = max(wait, min(self._retry_after, LONGEST_WAIT))
        self._authorizer = self._new_authorizer()
        now = self._means.now()
        until = self._still()
        if not until:
            self._alive.enter()
            self._forget_connection()
        self._say(standing, words, until, now + wait)
        return wait

    def elsewhere(self, why: str) -> None:
        """There is no connection to this place: the next one, when there is one.

        When we are registered there it may only have been an old connection: then once more.
        """
        self._serial += 1  # its request has no answer
        if self._still() and not self._reconnected:
            self._reconnected = True
            self._machine.again()
        elif not self._next_place():
            self._forget_redirect()
            self._machine.failed(Standing.UNREACHABLE, f"The PBX cannot be reached at {self._target}: {why}.")

    def come_back(self, why: str) -> float:
        """The connection that we were registered by is lost; seconds until we register anew."""
        wait = self._between(0.0, SOON) + self._means.turn()
        words = f"The connection to the PBX at {self._target} was lost: {why}."
        self._say(Standing.UNREACHABLE, words, self._still(), self._means.now() + wait)
        return wait

    def leave(self) -> bool:
        """Sign off where we may be registered; whether there is such a place."""
        self._alive.enter()
        if self._looking:
            self._looking = False
            self._search.cancel()
        self._tries = 0
        self._serial += 1
        if not self._asked or not self._targets:
            return False
        self._say(Standing.LEAVING)
        self.sign_off()
        return True

    def sign_off(self) -> None:
        """Send a REGISTER that takes back all our Contacts."""
        contacts = dict.fromkeys(uri for uri in (self._bound, self._asked) if uri)
        self._send([self._written(uri, 0) for uri in contacts], 0)

    def end(self) -> None:
        self.timers.enter()
        self._alive.enter()
        self._forget_connection()
        self._serial += 1
        self._say(Standing.OFF)
        self._on_left(self)

    # -- Requests --

    @property
    def _target(self) -> Target:
        return self._targets[self._place]

    @property
    def _flow(self) -> Flow:
        transport, host, port = self._target
        if transport == "UDP":
            return Flow(transport, ("", 0), (host, port))
        asked = self._redirect or self._proxy or self._registrar
        return Flow(transport, ("", 0), (host, port), Dial((host, port), asked.address if transport == "TLS" else ""))

    def _watch(self) -> None:
        """Be told when the connection to this place is lost."""
        flow = self._flow
        if flow == self._watched:
            return

        def gone(why: str) -> None:
            if flow == self._watched:
                self._watched = self._public = None  # the next one has another port of ours
                self._machine.broken(why)

        self._unwatch()
        self._watched, self._unwatch = flow, self._means.watch(flow, gone)

    def _new_authorizer(self) -> Authorizer:
        return Authorizer(self.login.auth_id, self.login.password, self._means.tokens)

    def _forget_connection(self) -> None:
        self._unwatch()
        self._watched = None

    def _written(self, contact: str, expires: int) -> str:
        outbound = f";+sip.instance={grammar.quote(self.login.instance)}" + (";reg-id=1" if self._outbound else "")
        return f"<{contact}>{outbound};expires={expires}"

    def _send(self, contacts: Sequence[str], expires: int) -> None:
        self._tries += 1
        self._cseq += 1
        uri = self._redirect or self._registrar
        request = Request("REGISTER", uri)
        if self._proxy and not self._redirect:
            request.add("route", f"<{self._proxy}>")
        request.set("from", f"<{self.aor}>;tag={self._tag}")
        request.set("to", f"<{self.aor}>")
        request.set("call-id", self._call_id)
        request.set("cseq", f"{self._cseq} REGISTER")
        for contact in contacts:
            request.add("contact", contact)
        request.set("expires", str(expires))
        request.set("supported", "path, outbound" if self._outbound else "path")
        request.set(*ALLOW)
        request.set("user-agent", "extenbot")
        self._authorizer.authorize(request)
        self._sent = request
        self._watch()
        serial = self._serial = self._serial + 1
        self._means.transactions.request(request, self._flow, lambda response: self._responded(serial, response))

    # -- Responses --

    def _responded(self, serial: int, response: Response) -> None:
        if serial != self._serial:
            return
        try:
            self._read(response)
        except Malformed as error:
            self._machine.failed(Standing.REFUSED, f"The PBX's answer cannot be understood: {error}.")

    def _read(self, response: Response) -> None:
        code = response.code
        self._learn(response)
        if code < 300:
            self._granted = self._granted_by(response)
            if not self._granted and self.registration.state is not Standing.LEAVING:
                self._machine.failed(Standing.REFUSED, "The PBX accepted the registration for no time at all.")
                return
            self.path = tuple(response.tokens("path"))
            self.service_route = tuple(str(name_addr(text)) for text in response.tokens("service-route"))
            self._machine.accepted()
        elif self._tries >= MOST_TRIES:
            self._refused(response)
        elif code in CHALLENGED:
            self._challenged(response)
        elif code in (301, 302):
            self._redirected(response)
        elif code == 423:
            least = grammar.number(response.first("min-expires") or "", 2**32 - 1)
            if not self._expires < least <= LONGEST_EXPIRES:
                raise Malformed("It asks for another time with a Min-Expires that makes no sense")
            self._expires = least
            self._machine.again()
        elif code == 439 and self._outbound:  # RFC 5626 6
            self._outbound = False
            self._machine.again()
        elif code in _TRY_NEXT:
            self._silent(response)
        else:
            self._refused(response)

    def _learn(self, response: Response) -> None:
        """How the registrar sees us (RFC 3581 4); our own 408 and strange values teach nothing.

        Of TCP and TLS that is the connection, which serves where NAT leaves no other way. Without NAT we say
        where we listen, so that the PBX can connect as well.
        """
        via = response.via
        host, port = (via.params.get("received") or via.host).strip("[]"), via.params.get("rport") or ""
        if via.transport != self._target.transport or not re.fullmatch(r"[1-9][0-9]{0,4}", port):
            return  # what was too large for a datagram went by a connection, and was seen from its port
        with suppress(ValueError):  # its host is a name of ours
            seen = str(ipaddress.ip_address(host)), int(port)
            ours = self._target.transport != "UDP" and seen[0] == self._means.transport.advertised(self._flow)[0]
            self._public = None if ours else seen

    def _granted_by(self, response: Response) -> int:
        """Seconds: what stands at our Contact, else in Expires, else what we asked (RFC 3261 10.2.4)."""
        contacts = [name_addr(text) for text in response.all("contact") if text != "*"]
        asked = Uri.read(self._asked)
        mine = [contact for contact in contacts if contact.uri.same(asked)]
        mine = mine or [contact for contact in contacts if contact.uri.user == asked.user]  # mended by a NAT-minded PBX
        stated = mine[0].params.get("expires") if mine else None
        if stated is None:
            stated = response.first("expires") or str(self._expires)
        return min(grammar.number(stated, 2**32 - 1), LONGEST_EXPIRES)

    def _challenged(self, response: Response) -> None:
        asks, _ = CHALLENGED[response.code]
        strongest(response.all(asks))  # one must be such that it can be met
        if self._authorizer.challenged(self._sent, response):
            self._machine.again()
        else:
            words = f"The PBX does not accept the username or password ({response.code} {response.phrase})."
            self._machine.failed(Standing.REFUSED, words)

    def _redirected(self, response: Response) -> None:
        self._redirects += 1
        contact = name_addr(response.first("contact") or "")
        if self._redirects > MOST_REDIRECTS or contact.uri.scheme != "sip":
            raise Malformed("It redirects to nowhere")
        uri = contact.uri
        self._redirect = Uri(uri.host, None, None, uri.port, params={k: v for k, v in uri.params.items() if k != "lr"})
        self._machine.redirected()

    def _silent(self, response: Response) -> None:
        """This place does not serve us now: the next one, when there is one."""
        self._retry_after = max(self._retry_after, _seconds(response.first("retry-after")))
        if self.registration.state is not Standing.LEAVING and self._next_place():
            return
        self._forget_redirect()
        if response.code == 408:
            self._machine.failed(Standing.UNREACHABLE, f"The PBX does not answer at {self._target}.")
        else:
            self._refused(response)

    def _next_place(self) -> bool:
        """Ask the next place; whether there is one."""
        if self._place + 1 >= len(self._targets):
            return False
        self._place += 1
        self._public = None
        self._tries = 0
        self._machine.again()
        return True

    def _refused(self, response: Response) -> None:
        self._forget_redirect()
        self._retry_after = max(self._retry_after, _seconds(response.first("retry-after")))
        self._machine.failed(Standing.REFUSED, f"The PBX refuses: {response.code} {response.phrase}.")

    # -- The rest --

    _granted = 0

    def _forget_redirect(self) -> None:
        if self._redirect:
            self._hosts.pop(str(self._redirect), None)
            self._redirect = None

    def _still(self) -> float:
        """How long a registration lasts that could not be refreshed; 0 when there is none."""
        return self.registration.until if self.registration.until > self._means.now() else 0.0

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * self._means.tokens.bits(16) / 65535

    def _keep_alive(self) -> None:
        """A datagram that PBXs ignore and NATs count; connections are kept alive by who holds them."""
        timed = self._means.keepalive and self._target.transport == "UDP"
        self._alive.enter(*([(self._means.keepalive, self._say_alive)] if timed else []))

    def _say_alive(self) -> None:
        self._means.transport.send(b"\r\n", self._flow)
        self._keep_alive()

    def _say(self, state: Standing, words: str = "", until: float = 0.0, next_try: float = 0.0) -> None:
        before = self.registration
        same = (state, words) == (before.state, before.words)
        target = str(self._target) if self._targets else ""
        now = self._means.now()
        self.registration = Registration(
            self.login.bot_id, state, before.at if same else now, words, until, next_try, target
        )
        if not same and state in (Standing.REGISTERED, Standing.REFUSED, Standing.UNREACHABLE):
            self.log.info(
                "{aor} is {state} at {target} {words}",
                aor=str(self.aor),
                state=state.value,
                target=target,
                words=words,
            )
        if replace(self.registration, at=before.at) != before:
            self._on_changed(self.registration)


def _seconds(text: str | None) -> float:
    """A Retry-After, which may have a comment and parameters (RFC 3261 20.33)."""
    digits = (text or "").split(";")[0].split("(")[0].strip()
    return float(digits[:9]) if digits.isascii() and digits.isdigit() else 0.0


_machine = _build()
