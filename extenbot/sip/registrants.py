"""All bots that register at PBXs: begins, changes and ends their registrations as bots come and go.

It knows whose a request is that comes to one of our unguessable Contacts. A bot with other settings gets a new
registrant once the old one has signed off, so that a PBX that takes one contact of a user takes the new one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from extenbot.errors import Refused
from extenbot.interfaces import Bot, Registration
from extenbot.sip.message import Request
from extenbot.sip.registrant import Login, Means, Registrant
from extenbot.sip.way import Way


def contact_user(bot: Bot) -> str:
    """The user of a bot's Contact: the same after a restart, and nobody else can know it (96 bits)."""
    return hmac.new(bot.password.encode(), f"contact {bot.id}".encode(), hashlib.sha256).hexdigest()[:24]


class Pace:
    """Turns, in the order of asking, `rate` a second: a thousand bots must not all register at one moment."""

    def __init__(self, clock: IReactorTime, rate: float) -> None:
        self._clock = clock
        self._step = 1.0 / rate
        self._free = 0.0  # when the next turn is free

    def turn(self) -> float:
        """Take the next turn; seconds until it comes."""
        now = self._clock.seconds()
        at = max(now, self._free)
        self._free = at + self._step
        return at - now


class Registrants:
    """`on_changed` is told each change of a state."""

    def __init__(self, means: Means, on_changed: Callable[[Registration], None]) -> None:
        self._means = means
        self._on_changed = on_changed
        self._by_bot: dict[str, Registrant] = {}
        self._by_contact: dict[str, Registrant] = {}
        self._wanted: dict[str, Login] = {}
        self._stopped: Deferred[None] | None = None

    def set(self, bot_id: str, bot: Bot | None) -> None:
        """The bot is now as given, or gone; what does not touch its registration changes nothing."""
        wants = bot is not None and bot.enabled and bot.kind == "registrant" and self._stopped is None
        login = Login.of(bot, contact_user(bot)) if wants and bot is not None else None
        if login == self._wanted.get(bot_id):
            return
        if login is None:
            del self._wanted[bot_id]
        else:
            self._wanted[bot_id] = login
        if bot_id in self._by_bot:
            self._by_bot[bot_id].stop()  # `_left` goes on
        elif login is not None:
            self._begin(login)

    def stop(self) -> Deferred[None]:
        """Sign off everywhere; fires when that is done, at most 4 s later."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._wanted.clear()
            for registrant in tuple(self._by_bot.values()):
                registrant.stop()
            if not self._by_bot and not self._stopped.called:
                self._stopped.callback(None)
        return self._stopped

    def all(self) -> tuple[Registration, ...]:
        return tuple(registrant.registration for registrant in self._by_bot.values())

    def state(self, bot_id: str) -> Registration | None:
        """How it stands with a bot; None when it does not register."""
        registrant = self._by_bot.get(bot_id)
        return registrant.registration if registrant else None

    def way(self, bot_id: str) -> Way | None:
        """How requests of a bot go to its PBX; None while it is not registered there."""
        registrant = self._by_bot.get(bot_id)
        return registrant.way() if registrant else None

    def of(self, request: Request, host: str) -> Registrant | None:
        """Whose Contact a request from `host` is for; `Refused` 403 when it does not come from that PBX."""
        registrant = self._by_contact.get(request.uri.user)
        if registrant is not None and not registrant.trusts(host):
            raise Refused(403, "Forbidden")
        return registrant

    def trust(self, host: str) -> bool:
        """Whether any bot's PBX is at this address."""
        return any(registrant.trusts(host) for registrant in self._by_bot.values())

    def _begin(self, login: Login) -> None:
        registrant = Registrant(login, self._means, self._on_changed, self._left)
        self._by_bot[login.bot_id] = self._by_contact[login.contact_user] = registrant
        registrant.start()

    def _left(self, registrant: Registrant) -> None:
        login = registrant.login
        del self._by_bot[login.bot_id], self._by_contact[login.contact_user]
        if login.bot_id in self._wanted:
            self._begin(self._wanted[login.bot_id])
        elif self._stopped is not None and not self._by_bot and not self._stopped.called:
            self._stopped.callback(None)
