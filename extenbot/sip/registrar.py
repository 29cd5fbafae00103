"""Who is registered where (RFC 3261 10.3): bindings of usernames to contacts, in memory.

`on_changed` gives each user's bindings to who keeps them over a restart, `restore` takes them back.
A bot has at most `limit` contacts: one more replaces the oldest that came from the same device (same
`+sip.instance`, same Call-ID, or same host in its Contact: a PBX that forgot to sign off before it was
restarted), and without such a one it gets 403.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from extenbot.errors import Malformed, Refused
from extenbot.interfaces import Flow
from extenbot.sip import grammar
from extenbot.sip.headers import NameAddr, name_addr
from extenbot.sip.message import Request, Response, answer
from extenbot.sip.uri import Uri


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

    def replaces(self, other: Binding) -> bool:
        """Whether this is `other` refreshed (RFC 3261 10.3 step 7, RFC 5626 6)."""
        if self.instance and other.instance and self.reg_id and other.reg_id:
            return (self.instance, self.reg_id) == (other.instance, other.reg_id)
        return Uri.read(self.contact).same(Uri.read(other.contact))

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
        self._timers: dict[str, IDelayedCall] = {}

    def register(self, request: Request, username: str, flow: Flow) -> Response:
        """The 200 for a REGISTER of an authenticated user; `Refused` or `Malformed` for what earns another."""
        if request.to.uri.user != username:
            raise Refused(403, "Register your own address")
        contacts = request.all("contact")
        bindings = self.bindings(username)
        if "*" in contacts:
            if len(contacts) > 1 or self._asked(request.first("expires")) != 0:
                raise Malformed("Contact * stands alone and with Expires 0")
            for binding in bindings:
                _in_order(request.call_id, request.cseq.number, binding)
            bindings = ()
        else:
            for contact in contacts:
                bindings = self._with(bindings, self._binding(request, username, flow, name_addr(contact)))
        if contacts:
            self._set(username, bindings)
        return answer(request, 200, headers=[("Contact", self._written(binding)) for binding in bindings])

    def bindings(self, username: str) -> tuple[Binding, ...]:
        """Those in force, the oldest first."""
        now = self._now()
        return tuple(binding for binding in self._bindings.get(username, ()) if binding.expires_at > now)

    def all(self) -> tuple[Binding, ...]:
        return tuple(binding for username in self._bindings for binding in self.bindings(username))

    def restore(self, bindings: Iterable[Binding]) -> None:
        """Take back what `on_changed` gave out before a restart; `on_changed` is not called."""
        now = self._now()
        for binding in bindings:
            if binding.expires_at > now:
                self._bindings[binding.username] = (*self._bindings.get(binding.username, ()), binding)
        for username in self._bindings:
            self._schedule(username)

    def forget(self, username: str) -> None:
        """The bot is gone or disabled."""
        if self._bindings.get(username):
            self._set(username, ())

    def stop(self) -> None:
        """No timer is left; bindings stay as they are."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _asked(self, text: str | None) -> int:
        """Seconds; what is missing or unreadable means the default (RFC 3261 10.2.1.1)."""
        try:
            return self._expires if text is None else grammar.number(text, 2**32 - 1)
        except Malformed:
            return self._expires

    def _binding(self, request: Request, username: str, flow: Flow, contact: NameAddr) -> Binding:
        """What one Contact asks for; `expires_at` is in the past when it asks to be removed."""
        if contact.uri.scheme not in ("sip", "sips"):
            raise Malformed("A Contact is no SIP address")
        stated = contact.params.get("expires")
        seconds = self._asked(stated if stated is not None else request.first("expires"))
        if 0 < seconds < self._min_expires:
            raise Refused(423, "Interval Too Brief", [("Min-Expires", str(self._min_expires))])
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
            q=contact.params.get("q") or "",
            user_agent=request.first("user-agent") or "",
            registered_at=now,
        )

    def _with(self, bindings: tuple[Binding, ...], new: Binding) -> tuple[Binding, ...]:
        for old in bindings:
            if new.replaces(old):
                _in_order(new.call_id, new.cseq, old)
        kept = tuple(old for old in bindings if not new.replaces(old))
        if new.expires_at <= self._now():
            return kept
        if len(kept) >= self._limit:
            same = next((old for old in kept if new.same_device(old)), None)
            if same is None:
                raise Refused(403, "Too many contacts")
            kept = tuple(old for old in kept if old is not same)
        return (*kept, new)

    def _written(self, binding: Binding) -> str:
        seconds = math.ceil(binding.expires_at - self._now() - 0.001)  # sums of floats are a little off
        text = f"<{binding.contact}>;expires={seconds}"
        if binding.q:
            text += f";q={binding.q}"
        if binding.instance:
            text += f";+sip.instance={grammar.quote(binding.instance)}"
        return text + (f";reg-id={binding.reg_id}" if binding.reg_id else "")

    def _set(self, username: str, bindings: tuple[Binding, ...]) -> None:
        if bindings:
            self._bindings[username] = bindings
        else:
            self._bindings.pop(username, None)
        self._schedule(username)
        if self.on_changed:
            self.on_changed(username, bindings)

    def _schedule(self, username: str) -> None:
        if timer := self._timers.pop(username, None):
            timer.cancel()
        if bindings := self._bindings.get(username):
            wait = min(binding.expires_at for binding in bindings) - self._now()
            self._timers[username] = self._clock.callLater(max(wait, 0.0), self._expired, username)

    def _expired(self, username: str) -> None:
        del self._timers[username]
        bindings = self.bindings(username)
        if bindings != self._bindings[username]:
            self._set(username, bindings)
        else:  # the time of day was set back
            self._timers[username] = self._clock.callLater(1.0, self._expired, username)


def _in_order(call_id: str, cseq: int, old: Binding) -> None:
    """RFC 3261 10.3 step 6 and 7: within one Call-ID a request must be newer than what it changes."""
    if call_id == old.call_id and cseq <= old.cseq:
        raise Refused(500, "Out of order")
