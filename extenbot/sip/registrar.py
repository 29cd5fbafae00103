"""Who is registered where (RFC 3261 10.3): bindings of usernames to contacts, in memory.

`on_changed` gives each user's bindings to who keeps them over a restart, `restore` takes them back.
A bot has at most `limit` contacts: one more replaces the oldest that came from the same device (same
`+sip.instance`, same Call-ID, or same host in its Contact: a PBX that forgot to sign off before it was
restarted), and without such a one it gets 403. All of a REGISTER comes true, or nothing of it.

The proxies between are kept with a binding (Path, RFC 3327), whether the PBX says that it supports that or not: it
need not know. Outbound (RFC 5626) in full is had over TCP and TLS only, where pings are answered; over UDP the UA would
wait for STUN. There, too, an instance and reg-id replace what they registered before.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from extenbot.errors import Malformed, Refused
from extenbot.interfaces import Flow
from extenbot.sip import grammar
from extenbot.sip.headers import NameAddr, name_addr
from extenbot.sip.message import Request, Response, answer
from extenbot.sip.uri import Uri

LEAST_WAIT = 0.001  # seconds; sums of floats are a little off


@dataclass(frozen=True, slots=True)
class Binding:
    """One contact of a bot. Times are unix seconds."""

    username: str
    contact: str  # the URI as the PBX wrote it
    instance: str  # +sip.instance (RFC 5626 4.1), else empty
    reg_id: str
    call_id: str
    cseq: int
    flow: Flow  # where the REGISTER came from
    expires_at: float
    q: str
    user_agent: str
    registered_at: float
    path: tuple[str, ...] = ()  # Route header values that lead there, the first hop first (RFC 3327)

    @property
    def host(self) -> str:
        return Uri.read(self.contact).address.lower()

    @property
    def preference(self) -> tuple[float, float]:
        """To be compared: the higher q, then the newer one. Without a q it is 1."""
        return float(self.q or 1), self.registered_at

    def replaces(self, other: Binding) -> bool:
        """Whether this is `other` refreshed (RFC 3261 10.3 step 7, RFC 5626 6)."""
        if self.instance and other.instance and self.reg_id and other.reg_id:
            return (self.instance, self.reg_id) == (other.instance, other.reg_id)
        return self.contact == other.contact or Uri.read(self.contact).same(Uri.read(other.contact))

    def same_device(self, other: Binding) -> bool:
        if self.instance and other.instance:
            return self.instance == other.instance
        return self.call_id == other.call_id or self.host == other.host


class Registrar:
    """The bindings of all bots. `now` is unix seconds, `expires` and `min_expires` are seconds."""

    def __init__(
        self, clock: IReactorTime, now: Callable[[], float], expires: int, min_expires: int, limit: int = 5
    ) -> None:
        self.on_changed: Callable[[str, tuple[Binding, ...]], None] | None = None
        self._clock = clock
        self._now = now
        self._expires = expires
        self._min_expires = min_expires
        self._limit = limit
        self._bindings: dict[str, tuple[Binding, ...]] = {}  # oldest first
        self._hosts: dict[str, frozenset[str]] = {}  # usernames by the address that they are registered from
        self._looks: list[tuple[float, str]] = []  # a heap: when to look whose bindings have expired
        self._look: dict[str, float] = {}  # the next of these of each user
        self._timer: IDelayedCall | None = None  # for the first of them

    def register(self, request: Request, username: str, flow: Flow) -> Response:
        """The 200 for a REGISTER of an authenticated user; `Refused` or `Malformed` for what earns another."""
        if request.to.uri.user != username:
            raise Refused(403, "Register your own address")
        contacts = request.all("contact")
        path = _path(request)
        bindings = self.bindings(username)
        if "*" in contacts:
            if len(contacts) > 1 or self._asked(request.first("expires")) != 0:
                raise Malformed("Contact * stands alone and with Expires 0")
            for binding in bindings:
                _in_order(request.call_id, request.cseq.number, binding)
            bindings = ()
        else:
            made = [self._binding(request, username, flow, path, name_addr(contact)) for contact in contacts]
            bindings = self._with(bindings, made)
        if contacts:
            self._set(username, bindings)
        headers = [("Contact", self._written(binding)) for binding in bindings]
        if path:
            headers += [("Path", value) for value in path] + [("Supported", "path")]
        if _is_outbound(request, flow, path):
            headers.append(("Require", "outbound"))
        return answer(request, 200, headers=headers)

    def best(self, username: str) -> Binding | None:
        """Where to call this bot's PBX: the highest q, of these the newest."""
        return max(self.bindings(username), key=lambda binding: binding.preference, default=None)

    def bindings(self, username: str) -> tuple[Binding, ...]:
        """Those in force, the oldest first."""
        now = self._now()
        return tuple(binding for binding in self._bindings.get(username, ()) if binding.expires_at > now)

    def registered_from(self, host: str) -> frozenset[str]:
        """The usernames that are registered from this IP address."""
        return self._hosts.get(host, frozenset())

    def all(self) -> tuple[Binding, ...]:
        return tuple(binding for username in self._bindings for binding in self.bindings(username))

    def restore(self, bindings: Iterable[Binding]) -> None:
        """Take back what `on_changed` gave out before a restart; `on_changed` is not called."""
        now = self._now()
        for binding in bindings:
            if binding.expires_at > now:
                self._bindings[binding.username] = (*self._bindings.get(binding.username, ()), binding)
                self._moved(binding.username, (), (binding,))
        for username in self._bindings:
            self._note(username)
        self._wait()

    def forget(self, username: str) -> None:
        """The bot is gone or disabled."""
        if self._bindings.get(username):
            self._set(username, ())

    def stop(self) -> None:
        """No timer is left; bindings stay as they are."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _asked(self, text: str | None) -> int:
        """Seconds; what is missing or unreadable means the default (RFC 3261 10.2.1.1)."""
        try:
            return self._expires if text is None else grammar.number(text, 2**32 - 1)
        except Malformed:
            return self._expires

    def _binding(
        self, request: Request, username: str, flow: Flow, path: tuple[str, ...], contact: NameAddr
    ) -> Binding:
        """What one Contact asks for; `expires_at` is in the past when it asks to be removed."""
        if contact.uri.scheme not in ("sip", "sips"):
            raise Malformed("A Contact is no SIP address")
        stated = contact.params.get("expires")
        seconds = self._asked(stated if stated is not None else request.first("expires"))
        if 0 < seconds < self._min_expires:
            raise Refused(423, "Interval Too Brief", [("Min-Expires", str(self._min_expires))])
        q = contact.params.get("q") or ""
        if q and not re.fullmatch(r"0?\.[0-9]+|0\.?|1(\.0*)?", q):
            raise Malformed("The q of a Contact is not from 0 to 1")
        now = self._now()
        return Binding(
            username=username,
            contact=str(contact.uri),
            instance=grammar.unquote(contact.params.get("+sip.instance") or ""),
            reg_id=contact.params.get("reg-id") or "",
            call_id=request.call_id,
            cseq=request.cseq.number,
            flow=flow,
            expires_at=now + min(seconds, self._expires),
            q=q,
            user_agent=request.first("user-agent") or "",
            registered_at=now,
            path=path,
        )

    def _with(self, bindings: tuple[Binding, ...], made: list[Binding]) -> tuple[Binding, ...]:
        """`bindings` as the contacts of one REGISTER want them. What these bring does not make way for each other."""
        now = self._now()
        kept, new = list(bindings), list[Binding]()
        for binding in made:
            for old in [old for old in kept if binding.replaces(old)]:
                _in_order(binding.call_id, binding.cseq, old)
                kept.remove(old)
            new = [other for other in new if not binding.replaces(other)]
            if binding.expires_at > now:
                new.append(binding)
        while len(kept) + len(new) > self._limit:
            same = next((old for old in kept if any(binding.same_device(old) for binding in new)), None)
            if same is None:
                raise Refused(403, "Too many contacts")
            kept.remove(same)
        return (*kept, *new)

    def _written(self, binding: Binding) -> str:
        seconds = math.ceil(binding.expires_at - self._now() - 0.001)  # sums of floats are a little off
        text = f"<{binding.contact}>;expires={seconds}"
        if binding.q:
            text += f";q={binding.q}"
        if binding.instance:
            text += f";+sip.instance={grammar.quote(binding.instance)}"
        return text + (f";reg-id={binding.reg_id}" if binding.reg_id else "")

    def _set(self, username: str, bindings: tuple[Binding, ...]) -> None:
        self._moved(username, self._bindings.get(username, ()), bindings)
        if bindings:
            self._bindings[username] = bindings
            self._note(username)
        else:
            self._bindings.pop(username, None)
            if not self._bindings:
                self._looks.clear()
                self._look.clear()
        self._wait()
        if self.on_changed:
            self.on_changed(username, bindings)

    def _moved(self, username: str, before: tuple[Binding, ...], after: tuple[Binding, ...]) -> None:
        was, now = ({binding.flow.remote[0] for binding in bindings} for bindings in (before, after))
        for host in now - was:
            self._hosts[host] = self._hosts.get(host, frozenset()) | {username}
        for host in was - now:
            if left := self._hosts[host] - {username}:
                self._hosts[host] = left
            else:
                del self._hosts[host]

    def _note(self, username: str) -> None:
        """Look at this user's bindings when the first of them expires. A refresh leaves the earlier look as it is."""
        when = min(binding.expires_at for binding in self._bindings[username])
        if when < self._look.get(username, math.inf):
            self._look[username] = when
            heapq.heappush(self._looks, (when, username))

    def _wait(self) -> None:
        """One timer for all: thousands of them would make every other timer of the reactor dear."""
        if not self._looks:
            self.stop()
            return
        wait = max(self._looks[0][0] - self._now(), LEAST_WAIT)
        if self._timer is None:
            self._timer = self._clock.callLater(wait, self._expired)
        elif self._clock.seconds() + wait < self._timer.getTime():
            self._timer.reset(wait)

    def _expired(self) -> None:
        self._timer = None
        now, due = self._now(), list[str]()
        while self._looks and self._looks[0][0] <= now:
            when, username = heapq.heappop(self._looks)
            if self._look.get(username) == when:  # else there was an earlier one
                del self._look[username]
                due.append(username)
        for username in due:
            known = self._bindings.get(username, ())
            live = self.bindings(username)
            if live != known:
                self._set(username, live)
            elif known:
                self._note(username)
        self._wait()


def _path(request: Request) -> tuple[str, ...]:
    """The proxies to go through, the first hop first (RFC 3327 5.3)."""
    path = tuple(request.tokens("path"))
    for value in path:
        if name_addr(value).uri.scheme not in ("sip", "sips"):
            raise Malformed("A Path is no SIP address")
    return path


def _is_outbound(request: Request, flow: Flow, path: tuple[str, ...]) -> bool:
    """Whether we say that outbound is in force (RFC 5626 6): the first hop is us, or keeps flows itself."""
    if flow.transport == "UDP" or "outbound" not in map(str.lower, request.tokens("supported")):
        return False
    asked = any("+sip.instance" in found.params and "reg-id" in found.params for found in _contacts(request))
    return asked and (len(request.all("via")) == 1 or (bool(path) and "ob" in name_addr(path[-1]).uri.params))


def _contacts(request: Request) -> list[NameAddr]:
    return [name_addr(text) for text in request.all("contact") if text != "*"]


def _in_order(call_id: str, cseq: int, old: Binding) -> None:
    """RFC 3261 10.3 step 6 and 7: within one Call-ID a request must be newer than what it changes."""
    if call_id == old.call_id and cseq <= old.cseq:
        raise Refused(500, "Out of order")
