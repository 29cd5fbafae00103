"""Who may speak at all: limits of a source before its messages are read, and bans that grow.

A datagram's source address can be forged, and nobody may lock out a PBX in that way. So there are three answers:

    rate     more messages a second than a stranger may send are dropped, with no memory of it a second later
    suspect  a source whose messages are unreadable, or that tries numbers and users (30 in some minutes), is heard
             once in 5 s, as long as it goes on; a PBX behind that address gets through all the same, later
    ban      a source that is proven, because it answered a challenge that was made for its address or is at the
             other end of a connection, and guesses passwords, or is suspect: nothing is heard for a minute, then 5,
             30, and 4 hours; each hour of good behaviour takes one back, right credentials take all

A source that has authenticated is exempt, for as long as it is registered, and so are those that `known` names
(the other end of a call, a registrant's PBX, a trusted network). Messages of scanners, known by their User-Agent,
are answered once a source and then dropped, for themselves: others from there are heard.

A source is an IPv4 address or an IPv6 network of 64 bits. What is kept is bounded: the least recent goes first, bans
apart from the rest. `lets` is all that happens for each packet. `counters` says what was dropped, by reason.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from extenbot import settings
from extenbot.interfaces import Flow
from extenbot.sip.message import Request

MOST = 10_000  # sources remembered, and bans, and each a good deal less than a kilobyte
MOST_VOUCHED = 100_000
STEPS = (1, 5, 30, 240)  # lengths of the first, second … ban, in first ones
HOUR = 3600.0  # seconds of good behaviour that take back one step
FAILURE_LEAK = 30.0  # seconds after which one failure is forgotten: a PBX with a wrong password tries less often
SUSPICIONS = 30  # that make a source suspect
SUSPICION_LEAK = 10.0
TRICKLE = 0.2  # messages a second that a suspect may send
USERS = 64  # names tried that are remembered of one source
SURE = 1.0  # seconds that an answer of `known` is good
AUTHENTICATED = 600.0  # seconds that right credentials vouch for their source
_AGENT = re.compile(rb"\nuser-agent[ \t]*:[^\n]*", re.IGNORECASE)
_HARMLESS = frozenset({401, 407, 480, 486, 500, 503})  # answers that say nothing bad of who earned them


@dataclass(frozen=True, slots=True)
class Ban:
    """Times are of the clock, in seconds; `step` counts from 0."""

    source: str
    why: str
    step: int
    until: float


class _Source:
    __slots__ = (
        "at", "failed_at", "failures", "known", "known_at", "scanner", "suspected_at", "suspicions", "tokens", "users",
    )  # fmt: skip

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens = tokens  # messages it may send now
        self.at = self.failed_at = self.suspected_at = now
        self.failures = self.suspicions = 0.0
        self.known, self.known_at = False, -SURE
        self.scanner = False
        self.users: set[str] = set()


class Guard:
    """Asked before a message is read, and told what became of it. `known` may be slow: it is asked rarely."""

    log = Logger()

    def __init__(self, clock: IReactorTime, rules: settings.Guard) -> None:
        self.known: Callable[[str], bool] = lambda _host: False
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._rules = rules
        words = b"|".join(re.escape(name.encode()) for name in rules.scanners)
        self._scanner = re.compile(words, re.IGNORECASE) if words else None
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._bans: OrderedDict[str, Ban] = OrderedDict()
        self._vouched: OrderedDict[str, float] = OrderedDict()

    # -- For each packet --

    def lets(self, host: str, data: bytes) -> bool:
        """Whether a message from the address `host` is to be read at all. Takes the same time for all."""
        now = self._clock.seconds()
        if (until := self._vouched.get(host)) is not None:
            if until > now:
                return True
            del self._vouched[host]
        if not self._rules.enabled:
            return True
        key = _network(host) if ":" in host else host
        source = self._source(key, now)
        if (ban := self._bans.get(key)) is not None and ban.until > now:
            return self._spared(source, host, now, "banned")
        rate, most = float(self._rules.messages), float(self._rules.burst)
        suspect = source.suspicions and self._suspicions(source, now) >= SUSPICIONS
        if suspect:
            rate, most = TRICKLE, 1.0
        tokens = min(most, source.tokens + (now - source.at) * rate)
        source.at = now
        if tokens < 1.0:
            source.tokens = tokens
            return self._spared(source, host, now, "suspect" if suspect else "rate")
        source.tokens = tokens - 1.0
        if self._scanner is not None and self._scanner.search(_agent(data)):
            if source.scanner:
                return self._spared(source, host, now, "scanner")
            source.scanner = True
        return True

    # -- What became of it --

    def vouch(self, host: str, seconds: float = AUTHENTICATED) -> None:
        """Who is at `host` has authenticated: exempt for so long, and all is forgiven."""
        until = self._clock.seconds() + seconds
        self._vouched[host] = max(until, self._vouched.pop(host, 0.0))
        if len(self._vouched) > MOST_VOUCHED:
            self._vouched.popitem(last=False)
        self.forgive(host)

    def knows(self, host: str) -> bool:
        """Whether `vouch` is in force."""
        return self._vouched.get(host, 0.0) > self._clock.seconds()

    def failed(self, flow: Flow) -> None:
        """Wrong credentials, for a challenge that was made for this source: that it is there is proven."""
        self.counters["failed digest"] += 1
        now = self._clock.seconds()
        source = self._source(_key(flow), now)
        source.failures = max(0.0, source.failures - (now - source.failed_at) / FAILURE_LEAK) + 1.0
        source.failed_at = now
        if source.failures > self._rules.failures - 1:
            source.failures = 0.0
            self._ban(flow, "wrong passwords")

    def refused(self, flow: Flow, code: int, request: Request | None) -> None:
        """A stranger's request was refused; `request` is None when it could not even be read."""
        now = self._clock.seconds()
        source = self._source(_key(flow), now)
        if code == 401 and request is not None:
            user = (request.to if request.method == "REGISTER" else request).uri.user[:USERS]
            if user in source.users or len(source.users) >= USERS:
                return
            source.users.add(user)
            if len(source.users) == 1:
                return
        elif code in _HARMLESS:
            return
        before = self._suspicions(source, now)
        source.suspicions, source.suspected_at = before + 1.0, now
        if source.suspicions >= SUSPICIONS:
            if flow.transport != "UDP":
                source.suspicions = 0.0
                self._ban(flow, "scanning")
            elif before < SUSPICIONS:
                self.counters["suspects"] += 1
                source.tokens = 0.0

    # -- For the operator --

    def bans(self) -> tuple[Ban, ...]:
        """Those in force."""
        now = self._clock.seconds()
        return tuple(ban for ban in self._bans.values() if ban.until > now)

    def forgive(self, host: str) -> None:
        """Forget all that is held against a source."""
        key = _network(host) if ":" in host else host
        self._bans.pop(key, None)
        self._sources.pop(key, None)

    # -- Inside --

    def _source(self, key: str, now: float) -> _Source:
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = _Source(float(self._rules.burst), now)
            if len(self._sources) > MOST:
                self._sources.popitem(last=False)
        else:
            self._sources.move_to_end(key)
        return source

    def _suspicions(self, source: _Source, now: float) -> float:
        return max(0.0, source.suspicions - (now - source.suspected_at) / SUSPICION_LEAK)

    def _spared(self, source: _Source, host: str, now: float, reason: str) -> bool:
        """Whether it is heard all the same, because it is one of ours; else it is counted."""
        if now - source.known_at >= SURE:
            source.known, source.known_at = self.known(host), now
        if not source.known:
            self.counters[reason] += 1
        return source.known

    def _ban(self, flow: Flow, why: str) -> None:
        host, key, now = flow.remote[0], _key(flow), self._clock.seconds()
        if not self._rules.enabled or self.knows(host) or self.known(host):
            return
        last = self._bans.pop(key, None)
        step = max(0, last.step + 1 - int((now - last.until) // HOUR)) if last else 0
        step = min(step, len(STEPS) - 1)
        seconds = float(self._rules.ban * STEPS[step])
        self._bans[key] = Ban(key, why, step, now + seconds)
        if len(self._bans) > MOST:
            self._bans.popitem(last=False)
        self.counters["bans"] += 1
        self.log.info("{source} is banned for {seconds:g} s: {why}", source=key, seconds=seconds, why=why)


def _agent(data: bytes) -> bytes:
    """The line of the User-Agent: found at once where it is spelled as nearly all spell it."""
    start = data.find(b"\nUser-Agent:")
    if start < 0:
        found = _AGENT.search(data)
        return found[0] if found else b""
    end = data.find(b"\n", start + 1)
    return data[start : end if end > 0 else len(data)]


@lru_cache(1024)
def _network(host: str) -> str:
    """The first 64 bits of an IPv6 address; an IPv4 one in IPv6's clothes is itself."""
    address = IPv6Address(host)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex(":", 2) + "::/64"


def _key(flow: Flow) -> str:
    host = flow.remote[0]
    return _network(host) if ":" in host else host
