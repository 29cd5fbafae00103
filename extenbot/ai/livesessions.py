"""The GPT-Live sessions of one conversation, one after the other: where the audio goes now, and where next.

    first --open--> current --EARLY before its end--> follower dialled --open, nobody speaks--> that is the current one
    current lost, another may be had --> follower dialled, up to len(TRIES) times until the model has spoken
    current lost otherwise, no more tries, or LONGEST_GAP --> lost

Each follower begins with what has been said so far.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from extenbot.ai.livelink import LiveSession, Stage
from extenbot.ai.livestart import delegation, headers, settings
from extenbot.ai.timers import Timers
from extenbot.errors import BackendLost
from extenbot.interfaces import Json, Line, VoiceOrder, VoiceSurroundings

BETWEEN = 0.5
"""Seconds between two looks whether nobody speaks."""

EARLY = 300.0
"""Seconds before the end of a session that its follower is opened; a fifth of its life where that is less."""

SWAP_BY = 15.0
"""Seconds before the end of a session that the audio moves over, whoever speaks."""

AGAIN = 30.0
"""Seconds until a follower that could not be had is tried again."""

TRIES = (0.0, 0.5, 1.0, 2.0)
"""Seconds before each try for another session after a loss."""

LONGEST_GAP = 10.0
"""Seconds in which another session must be open: a caller who hears nothing for longer hangs up."""


class Owner(Protocol):
    """Whose sessions they are."""

    @property
    def may_move(self) -> bool:
        """Whether the audio may go elsewhere unnoticed: nobody speaks and nothing is due."""

    def said(self) -> tuple[Line, ...]:
        """All of the conversation so far, for a follower."""

    def opened(self, session: LiveSession) -> None:
        """The first one is open."""

    def left(self) -> None:
        """The current one is gone or will be: what it was saying is over."""

    def interrupted(self) -> bool:
        """The current one is lost; whether another one is wanted."""

    def moved(self, session: LiveSession, told: tuple[Line, ...], *, mending: bool) -> None:
        """The audio goes to this one now, which was begun with `told`; `mending`: there was none for a moment."""

    def happened(self, session: LiveSession, event: Json) -> None:
        """Any event of any of them. May raise `Malformed`."""

    def lost(self, why: BackendLost) -> None:
        """There is none, and none to be had."""

    def closed(self) -> None:
        """All is closed, as `finish` wanted it."""


class LiveSessions:
    """The owner of each `LiveSession`."""

    def __init__(self, order: VoiceOrder, surroundings: VoiceSurroundings, owner: Owner) -> None:
        self.current: LiveSession | None = None
        """Where the audio goes; None while there is no session."""
        self.all: list[LiveSession] = []
        self._order = order
        self._surroundings = surroundings
        self._log = surroundings.log
        self._timers = Timers(surroundings.clock)
        self._owner = owner
        self._url = ""
        self._follower: LiveSession | None = None
        self._offered: dict[LiveSession, tuple[Json, ...]] = {}  # the tools that each knows
        self._told: tuple[Line, ...] = ()  # what that was begun with
        self._tries = 0
        self._opened = self._mending = self._finishing = self._over = False

    def open(self, url: str) -> None:
        """Dial the first one."""
        self._url = url
        self.current = self._dialled()

    def spoke(self) -> None:
        """The model is heard, so the current one is a good one."""
        self._tries = 0

    def finish(self) -> None:
        """Close them; `closed` follows, at once where there is none."""
        self._finishing = True
        self._close_all()
        if self.current is None or self.current.stage is Stage.GONE:
            self._closed()

    def stop(self) -> None:
        """Close them, and say no more."""
        self._over = True
        self._close_all()

    def _close_all(self) -> None:
        self._timers.clear_all()
        for session in (self._follower, self.current):
            if session is not None:
                session.close()

    def offer(self, tools: tuple[Json, ...]) -> None:
        """There are other tools; what the speaking model was told of them stays as it was."""
        self._order = replace(self._order, tools=tools)
        for session in (self._follower, self.current):
            if session is not None and session.stage is Stage.OPEN:
                self._offer_to(session)

    def _offer_to(self, session: LiveSession) -> None:
        self._offered[session] = self._order.tools
        session.send("session.update", {"session": {"delegation": delegation(self._order)}})

    @property
    def seconds(self) -> float:
        """What the service bills so far."""
        return sum(session.seconds for session in self.all)

    def _dialled(self, said: tuple[Line, ...] = ()) -> LiveSession:
        around, order = self._surroundings, self._order
        wanted = settings(order, said)
        session = LiveSession(self, around.clock, self._log, wanted, order.bot.token, around.open_timeout)
        self.all.append(session)
        self._offered[session] = order.tools
        session.open(around.connect, self._url, headers(order, self._url))
        return session

    # -- What each of them says

    def started(self, session: LiveSession) -> None:
        """It is open: the first one, or one that follows."""
        again = {"number": len(self.all)} if len(self.all) > 1 else {}
        self._log.happened("session.opened", ms=session.opening_ms, **again)
        if self._offered[session] != self._order.tools:  # while it was opening
            self._offer_to(session)
        if not self._opened:
            self._opened = True
            self._expect_end(session)
            self._owner.opened(session)
        elif self.current is None:
            self._move()
        else:
            self._follow()

    def happened(self, session: LiveSession, event: Json) -> None:
        """One event of one that is open, or closes."""
        self._owner.happened(session, event)

    def ended(self, session: LiveSession, why: BackendLost | None, again: bool) -> None:
        """It is over."""
        if self._finishing:
            if session is self.current:
                self._closed()
        elif why is None or self._over:
            return
        elif session is self.current:
            self._lost(why, again)
        elif session is self._follower:
            self._follower = None
            if self.current is None:
                self._try(why, again)
            else:  # the one that runs is still good for a while
                self._timers.set("renew", AGAIN, self._renew)

    # -- From one to the next

    def _expect_end(self, session: LiveSession) -> None:
        """It will have a follower in time."""
        life = session.expires_at - self._surroundings.now() if session.expires_at else 0.0
        if life > 0:
            self._timers.set("renew", max(life - min(EARLY, life / 5), 0.0), self._renew)
            self._timers.set("swap", max(life - SWAP_BY, 0.0), self._move)

    def _renew(self) -> None:
        if self._follower is None:
            self._told = self._owner.said()
            self._follower = self._dialled(self._told)

    def _follow(self) -> None:
        """The follower is open: the audio goes there as soon as nobody speaks."""
        if self._owner.may_move:
            self._move()
        else:
            self._timers.set("quiet", BETWEEN, self._follow)

    def _move(self) -> None:
        """The audio goes to the follower, if there is one."""
        follower, old = self._follower, self.current
        if follower is None or follower.stage is not Stage.OPEN:
            return
        self.current, self._follower = follower, None
        for name in ("quiet", "gap"):
            self._timers.clear(name)
        self._log.happened("session.moved", number=len(self.all))
        self._owner.left()
        if old is not None:
            old.close()
        self._expect_end(follower)
        mending, self._mending = self._mending, False
        self._owner.moved(follower, self._told, mending=mending)

    def _lost(self, why: BackendLost, again: bool) -> None:
        if not self._owner.interrupted():
            self._give_up(why)
            return
        self.current = None
        self._owner.left()
        self._log.happened("session.interrupted", cause=why.cause, words=str(why))
        self._mending = True
        for name in ("renew", "swap", "quiet"):
            self._timers.clear(name)
        too_long = BackendLost("lost", f"No voice session could be had within {LONGEST_GAP:g} s.")
        self._timers.set("gap", LONGEST_GAP, self._give_up, too_long)
        if self._follower is None:
            self._try(why, again)
        else:
            self._move()

    def _try(self, why: BackendLost, again: bool) -> None:
        """Try for another session, a few times until one has spoken."""
        if again and self._tries < len(TRIES):
            self._tries += 1
            self._timers.set("mend", TRIES[self._tries - 1], self._renew)
        else:
            self._give_up(why)

    def _give_up(self, why: BackendLost) -> None:
        self.stop()
        self._owner.lost(why)

    def _closed(self) -> None:
        if not self._over:
            self._over = True
            self._owner.closed()
