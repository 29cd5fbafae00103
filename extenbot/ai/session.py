"""One session with a voice server over one websocket: dialled, configured, open, closed.

    connecting --session.created--> configuring --session.updated, formats right--> open
    any: refused, late, lost, a fatal error --> closed, and the owner hears `lost`
    any: close --> closed, and the owner hears nothing more

In *connecting* and *configuring* nothing of the call goes out: a server that has not confirmed our codec yet would take
G.711 for PCM, and the caller would hear noise. What is said in an open session is the work of `talk`, which session a
conversation uses that of `conversation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from automat import TypeMachineBuilder

from extenbot.ai import events, refusals
from extenbot.ai.dialects import Dialect
from extenbot.ai.events import number, section, word
from extenbot.ai.timers import Timers
from extenbot.errors import BackendLost, Malformed
from extenbot.interfaces import Json, Link, VoiceOrder, VoiceSurroundings


class Owner(Protocol):
    """Who has opened a session. It is told nothing before the call that opened has returned, and `lost` comes last."""

    def opened(self, session: Session) -> None:
        """Our settings are in force: audio may flow."""

    def happened(self, session: Session, event: Json) -> None:
        """An event of an open session."""

    def erred(self, session: Session, error: Json) -> None:
        """An error event that does not end the session."""

    def lost(self, session: Session, why: BackendLost) -> None:
        """The session is gone, or could not be had."""


class _Stages(Protocol):
    """All that can happen to a session."""

    def connected(self) -> None:
        """The websocket is open."""

    def created(self, settings: Json) -> None:
        """The server has made a session."""

    def updated(self, settings: Json) -> None:
        """The server says which settings are in force."""

    def confirmed(self) -> None:
        """They are the ones that this call needs."""

    def erred(self, error: Json) -> None:
        """An error event."""

    def happened(self, event: Json) -> None:
        """Any other event of the server."""

    def failed(self, why: BackendLost) -> None:
        """This cannot go on."""

    def gone(self, code: int | None, reason: str) -> None:
        """The websocket is closed, or never opened."""

    def close(self) -> None:
        """It is not needed any more."""


class Nowhere:
    """The link before there is one."""

    def send(self, text: bytes) -> None:
        """Lost: nothing is sent before the websocket is open."""

    def waiting(self) -> int:
        """Nothing waits."""
        return 0

    def close(self) -> None:
        """Nothing to close."""


class Session:
    """A `LinkListener` to the websocket. `number` counts the sessions of one conversation from 1."""

    def __init__(
        self, owner: Owner, order: VoiceOrder, surroundings: VoiceSurroundings, dialect: Dialect, number_: int = 1
    ) -> None:
        self.number = number_
        self.link: Link = Nowhere()
        self.malformed = 0
        self.opened_at: float | None = None
        """The clock's seconds."""
        self._closed_at: float | None = None
        self.expires_at = 0.0
        """Unix seconds; 0: the server has not said it."""
        self._owner = owner
        self._order = order
        self._surroundings = surroundings
        self._dialect = dialect
        self._timers = Timers(surroundings.clock)
        self._began = surroundings.clock.seconds()
        self._error: Json = {}  # the last error event: a close alone often does not say why
        self._configured: VoiceOrder | None = None  # what the server knows
        self._update_id = ""
        self._sent = 0
        self._dialled = False
        self._stages = _build(self)

    # -- What its owner does with it

    def dial(self, url: str, headers: Mapping[str, str]) -> None:
        """It must be open within the surroundings' `open_timeout` from now."""
        around = self._surroundings
        self._timers.set("open", around.open_timeout, self._too_late)
        try:
            self.link = around.connect(url, headers, self, around.open_timeout)
        except BaseException:
            self._timers.clear_all()
            raise
        self._dialled = True

    def refuse(self, why: BackendLost) -> None:
        """There is nothing to dial; the owner hears so in a moment."""
        self._timers.set("refuse", 0, self._stages.failed, why)

    def send(self, kind: str, fields: Json) -> str:
        """Send a client event; its event id, by which an error would name it."""
        name = self.next_id()
        self.link.send(events.write(kind, name, fields))
        return name

    def offer(self, order: VoiceOrder) -> None:
        """The order has other tools now."""
        self._order = order
        if self.opened_at is not None and self._configured is not order:
            self._configured = order
            self.send("session.update", {"session": self._dialect.offer(order)})

    def next_id(self) -> str:
        """An event id that has not been used."""
        self._sent += 1
        return f"c{self._sent}"

    @property
    def lasted(self) -> float:
        """Seconds that it has been open so far."""
        if self.opened_at is None:
            return 0.0
        until: float = self._surroundings.clock.seconds() if self._closed_at is None else self._closed_at
        return until - self.opened_at

    def close(self) -> None:
        """Let go of it."""
        self._stages.close()

    # -- LinkListener

    def connected(self) -> None:
        """The websocket is open; the server speaks first."""
        self._stages.connected()

    def received(self, text: bytes) -> None:
        """One message of the server. What cannot be read is counted and forgotten."""
        try:
            event = events.read(text)
        except Malformed:
            self.malformed += 1
            return
        kind = event["type"]
        if kind in ("session.created", "conversation.created"):  # some servers only have the latter
            self._stages.created(section(event, "session"))
        elif kind == "session.updated":
            self._stages.updated(section(event, "session"))
        elif kind == "error":
            self._stages.erred(section(event, "error"))
        else:
            self._stages.happened(event)

    def lost(self, clean: bool, code: int | None, reason: str) -> None:  # noqa: ARG002
        """The websocket is closed or never opened. Bad luck within `dial` itself is told a moment later."""
        if self._dialled:
            self._stages.gone(code, reason)
        else:
            self._timers.set("gone", 0, self._stages.gone, code, reason)

    # -- What the transitions do

    def log_connected(self) -> None:
        self._log("session.connected", ms=self._ms())

    def configure(self, settings: Json) -> None:
        self.note_end(settings)
        self._configured = self._order
        self._update_id = self.send("session.update", {"session": self._dialect.session(self._order)})

    def note_end(self, settings: Json) -> None:
        """What is past is no time of an end."""
        ends = number(settings, "expires_at")
        if ends > self._surroundings.now():
            self.expires_at = float(ends)

    def verify(self, settings: Json) -> BackendLost | None:
        self.note_end(settings)
        if self._dialect.confirms(self._order, settings):
            return None
        return refusals.wrong_format(self._order.format, *events.formats(settings))

    def refused(self) -> BackendLost | None:
        """Why the last error event ends the opening, if it does."""
        return refusals.fatal(self._error) or refusals.settings(self._error, self._update_id)

    def open(self) -> None:
        self._timers.clear_all()
        self.opened_at = self._surroundings.clock.seconds()
        again = {"number": self.number} if self.number > 1 else {}
        self._log("session.opened", ms=self._ms(), **again)
        self._owner.opened(self)
        self.offer(self._order)

    def note_error(self, error: Json) -> None:
        """Remember and show an error event; its words may quote the key."""
        said = self._clean(word(error, "message"))
        self._error = {**error, "message": said}
        self._log("error", code=word(error, "code"), message=said[:300])

    def tell_error(self, error: Json) -> None:
        self._owner.erred(self, error)

    def tell(self, event: Json) -> None:
        self._owner.happened(self, event)

    def end(self) -> None:
        self._timers.clear_all()
        self._closed_at = self._surroundings.clock.seconds()
        self.link.close()

    def lose(self, why: BackendLost) -> None:
        self.end()
        self._log("session.lost", cause=why.cause, words=str(why))
        self._owner.lost(self, why)

    def lose_link(self, code: int | None, reason: str, *, opened: bool) -> None:
        self.lose(refusals.gone(code, self._clean(reason), self._error, opened=opened))

    def _too_late(self) -> None:
        self._stages.failed(refusals.late(self._surroundings.open_timeout, self._error))

    def _clean(self, said: str) -> str:
        token = self._order.bot.token
        return said.replace(token, "…") if token else said

    def _log(self, what: str, **fields: object) -> None:
        self._surroundings.log.happened(what, **fields)

    def _ms(self) -> int:
        took: float = self._surroundings.clock.seconds() - self._began
        return round(took * 1000)


def _machine() -> TypeMachineBuilder[_Stages, Session]:
    machine = TypeMachineBuilder(_Stages, Session)
    connecting = machine.state("connecting")
    configuring = machine.state("configuring")
    opened = machine.state("open")
    closed = machine.state("closed")

    @connecting.upon(_Stages.connected).loop()
    def _connected(_: _Stages, session: Session) -> None:
        session.log_connected()

    @connecting.upon(_Stages.created).to(configuring)
    def _created(_: _Stages, session: Session, settings: Json) -> None:
        session.configure(settings)

    @configuring.upon(_Stages.created).loop()
    def _created_again(_: _Stages, session: Session, settings: Json) -> None:
        session.note_end(settings)

    @configuring.upon(_Stages.updated).loop()
    def _updated(stages: _Stages, session: Session, settings: Json) -> None:
        wrong = session.verify(settings)
        if wrong is None:
            stages.confirmed()
        else:
            stages.failed(wrong)

    @configuring.upon(_Stages.confirmed).to(opened)
    def _confirmed(_: _Stages, session: Session) -> None:
        session.open()

    @connecting.upon(_Stages.erred).loop()
    @configuring.upon(_Stages.erred).loop()
    def _refused(stages: _Stages, session: Session, error: Json) -> None:
        session.note_error(error)
        why = session.refused()
        if why is not None:
            stages.failed(why)

    @opened.upon(_Stages.erred).loop()
    def _erred(stages: _Stages, session: Session, error: Json) -> None:
        session.note_error(error)
        why = refusals.fatal(error)
        if why is None:
            session.tell_error(error)
        else:
            stages.failed(why)

    @opened.upon(_Stages.happened).loop()
    def _happened(_: _Stages, session: Session, event: Json) -> None:
        session.tell(event)

    @connecting.upon(_Stages.failed).to(closed)
    @configuring.upon(_Stages.failed).to(closed)
    @opened.upon(_Stages.failed).to(closed)
    def _failed(_: _Stages, session: Session, why: BackendLost) -> None:
        session.lose(why)

    @connecting.upon(_Stages.gone).to(closed)
    @configuring.upon(_Stages.gone).to(closed)
    def _not_reached(_: _Stages, session: Session, code: int | None, reason: str) -> None:
        session.lose_link(code, reason, opened=False)

    @opened.upon(_Stages.gone).to(closed)
    def _gone(_: _Stages, session: Session, code: int | None, reason: str) -> None:
        session.lose_link(code, reason, opened=True)

    @connecting.upon(_Stages.close).to(closed)
    @configuring.upon(_Stages.close).to(closed)
    @opened.upon(_Stages.close).to(closed)
    def _close(_: _Stages, session: Session) -> None:
        session.end()

    # -- Without meaning: a server repeats itself, or speaks before its time or after its end
    for state, absorbed in (
        (connecting, (_Stages.updated, _Stages.confirmed, _Stages.happened)),
        (configuring, (_Stages.connected, _Stages.happened)),
        (opened, (_Stages.connected, _Stages.created, _Stages.updated, _Stages.confirmed)),
        (closed, (_Stages.connected, _Stages.created, _Stages.updated, _Stages.confirmed, _Stages.erred)),
        (closed, (_Stages.happened, _Stages.failed, _Stages.gone, _Stages.close)),
    ):
        for each in absorbed:
            state.upon(each).loop().returns(None)
    return machine


_build = _machine().build()
