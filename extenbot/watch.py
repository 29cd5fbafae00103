"""The watch over a call that is up: is anybody there, how long has it gone on, what does it cost.

It looks once a second and acts in two ways only: the model is told something, or the call is ended with a reason.
An end is polite where it can be: the model is told to say goodbye, and the call ends when that has been heard, or
after `FAREWELL` in any case, not counting what the bot still had to say.

    no RTP          ends the call: there is nobody to say anything to
    silence         a caller who says nothing is asked twice, then politely left; who speaks into the goodbye is not
    length          a word of warning one minute before the longest duration, then a polite end
    money           at 80 % of a cap the model is told to wrap up, at 100 % a polite end
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from extenbot.interfaces import Bot, CallLog, Ledger, Voice

PERIOD = 1.0
"""Seconds between two looks."""

FAREWELL = 15.0
"""Seconds in which a goodbye must be over, once what the bot had to say before has been heard."""

AFTER = 1.5
"""Seconds of quiet after the goodbye."""

WARNING = 60.0
"""Seconds before the longest duration at which the model is told."""

WRAP_UP = 0.8
"""The share of a cap at which the model is told."""

SILENT = "the caller said nothing"
"""The reason of an end that the caller can still prevent."""

ASKED = 2
"""How often a silent caller is asked."""

_ASK = (
    "[The caller has said nothing for {seconds} seconds. Ask in one short sentence whether they are still there.]",
    "[The caller still says nothing. Ask once more, in other words, and offer to call again later.]",
)
_LEAVE = "[{why} Say goodbye in one short sentence now; the call ends after it.]"
_SILENT = "The caller does not answer."
_STAY = "[The caller is there after all: the call does not end. Go on.]"
_LONG = "The call has reached its longest duration."
_SOON = "[The call must end in one minute. Bring the conversation to its end.]"
_SPENT = "This conversation has to end now."
_DEAR = "[Wrap up: keep your answers short and bring the conversation to its end soon.]"


class Ears(Protocol):
    """What is known of the call's audio."""

    @property
    def last_received(self) -> float | None: ...

    @property
    def unheard(self) -> float:
        """Seconds of the bot's words that wait to be heard."""


class Watch:
    """It begins when made and ends with `stop`. `end` gets the reason."""

    def __init__(
        self,
        clock: IReactorTime,
        bot: Bot,
        voice: Voice,
        ears: Ears,
        ledger: Ledger,
        log: CallLog,
        rtp_timeout: float,
        listening: Callable[[], bool],
        end: Callable[[str], None],
    ) -> None:
        """`listening`: whether the caller can be heard and is with the bot, not on hold nor being transferred."""
        self._clock = clock
        self._bot = bot
        self._voice = voice
        self._ears = ears
        self._ledger = ledger
        self._log = log
        self._rtp_timeout = rtp_timeout
        self._listening = listening
        self._end = end
        self._began = self._quiet_since = clock.seconds()
        self._asked = self._turns = 0
        self._idle_from = 0.0  # silence before that does not count
        self._warned = self._dear = False
        self._counted = 0.0  # of the cost, in the ledger
        self._leaving: tuple[str, float] | None = None
        self._latest = 0.0  # when a goodbye must be over
        self._next: IDelayedCall | None = clock.callLater(PERIOD, self._look)

    def stop(self) -> None:
        """Look no more, and count what the call has cost to its end."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self.count()

    def count(self) -> None:
        """Tell the ledger what has been spent since the last time."""
        cost = self._voice.cost
        if cost > self._counted:
            self._ledger.spent(self._bot, cost - self._counted)
            self._counted = cost

    def _look(self) -> None:
        self._next = None
        self.count()
        self._stay()
        reason = self._nobody() or self._farewell()
        if reason:
            self._end(reason)
            return
        if self._leaving is None:
            self._check_length()
            self._check_money()
            self._check_silence()
        self._next = self._clock.callLater(PERIOD, self._look)

    def _nobody(self) -> str:
        """While the caller holds, mutes or is being transferred we do not ask."""
        now, last = self._clock.seconds(), self._ears.last_received
        if not self._listening():
            self._quiet_since = self._idle_from = now
        elif last is not None and last > self._quiet_since:
            self._quiet_since = last
        return "no RTP from the caller" if now - self._quiet_since > self._rtp_timeout else ""

    def _stay(self) -> None:
        """Nobody who answers at last is left."""
        if self._leaving is not None and self._leaving[0] == SILENT and self._voice.turns != self._turns:
            self._leaving = None
            self._log.happened("staying")
            self._voice.told(_STAY, speak=False)

    def _farewell(self) -> str:
        if self._leaving is None:
            return ""
        reason, since = self._leaving
        now, idle = self._clock.seconds(), self._voice.idle_since
        said = idle is not None and idle > since and now - idle >= AFTER
        return reason if said or now >= self._latest else ""

    def _leave(self, why: str, reason: str) -> None:
        if self._leaving is None:
            now = self._clock.seconds()
            self._leaving, self._latest = (reason, now), now + self._ears.unheard + FAREWELL
            self._log.happened("leaving.politely", reason=reason)
            self._voice.told(_LEAVE.format(why=why))

    def _check_length(self) -> None:
        longest, lasted = self._bot.manner.longest * 60, self._clock.seconds() - self._began
        if not longest:
            return
        if lasted >= longest:
            self._leave(_LONG, "longest duration reached")
        elif not self._warned and lasted >= longest - WARNING:
            self._warned = True
            self._log.happened("length.warned", seconds=round(lasted))
            self._voice.told(_SOON, speak=False)

    def _check_money(self) -> None:
        caps = [each for each in (self._ledger.left(self._bot),) if each]
        if cap := self._bot.manner.cap_call:
            caps.append((cap - self._voice.cost, cap, "call"))
        for left, cap, whose in caps:
            if left <= 0:
                self._leave(_SPENT, f"the cap of the {whose} is reached")
            elif not self._dear and left <= cap * (1 - WRAP_UP):
                self._dear = True
                self._log.happened("cap.near", whose=whose, left=round(left, 4), cap=cap)
                self._voice.told(_DEAR, speak=False)

    def _check_silence(self) -> None:
        patience, turns = self._bot.manner.silence, self._voice.turns
        if turns != self._turns:
            self._turns, self._asked = turns, 0
        idle = self._voice.idle_since
        if not patience or idle is None:
            return
        now = self._clock.seconds()
        if now - max(idle, self._idle_from) < patience:
            return
        self._idle_from = now
        if self._asked < ASKED:
            self._log.happened("silence", seconds=patience, asked=self._asked + 1)
            self._voice.told(_ASK[self._asked].format(seconds=patience))
            self._asked += 1
        else:
            self._leave(_SILENT, SILENT)
