"""One conversation with a voice model, from dialling its server to the last transcript.

The machine, as the world sees it:

    connecting --session.created--> configuring --session.updated, formats right--> ready
    ready --greet--> talking           ready, talking --finish--> finishing --settled--> closed
    any but finishing: refused, late, lost, a fatal error --> closed, and the listener hears `lost`
    finishing: whatever happens --> closed, and the listener hears `finished`

In *connecting* and *configuring* nothing of the call goes out: a server that has not
confirmed our codec yet would take G.711 for PCM, and the caller would hear noise. *ready*
differs from *talking* only in that the greeting is still owed. *finishing* waits for what
the caller said last: transcripts come late, or never, so it lasts 2 s at most. *closed* is
final and silent: no timer, no message, no call to the listener.

The turn taking inside ready and talking is the work of `talk`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from automat import TypeMachineBuilder

from extenbot.ai import events, refusals
from extenbot.ai.dialects import Dialect
from extenbot.ai.talk import Talk
from extenbot.ai.timers import Timers
from extenbot.errors import BackendLost, Malformed
from extenbot.interfaces import Json, Line, VoiceOrder, VoiceSurroundings

PATIENCE = 2.0
"""Seconds that `finish` waits for what the caller said last."""


class Stages(Protocol):
    """All that can happen to a conversation."""

    def connected(self) -> None:
        """The websocket is open."""

    def created(self) -> None:
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

    def greet(self) -> None:
        """The caller hears us."""

    def answered(self, call_id: str, output: str, speak: bool) -> None:
        """A function call has its result."""

    def finish(self) -> None:
        """The call is over."""

    def settled(self) -> None:
        """Nothing more is to be waited for."""


class Session:
    """What the transitions do."""

    def __init__(self, order: VoiceOrder, surroundings: VoiceSurroundings, dialect: Dialect) -> None:
        self.order = order
        self.surroundings = surroundings
        self.dialect = dialect
        self.timers = Timers(surroundings.clock)
        self.began = surroundings.clock.seconds()
        self.error: Json = {}  # the last error event: a close alone often does not say why
        self.update_id = ""
        self.talk = Talk(order, surroundings, self.timers, dialect)

    def log_connected(self) -> None:
        self.surroundings.log.happened("session.connected", ms=self._ms())

    def configure(self) -> None:
        self.update_id = self.talk.send("session.update", {"session": self.dialect.session(self.order)})

    def verify(self, session: Json) -> BackendLost | None:
        if self.dialect.confirms(self.order, session):
            return None
        return refusals.wrong_format(self.order.format, *events.formats(session))

    def late(self) -> BackendLost:
        return refusals.late(self.surroundings.open_timeout, self.error)

    def open(self) -> None:
        self.timers.clear_all()
        self.surroundings.log.happened("session.opened", ms=self._ms())
        self.talk.begin()
        self.surroundings.listener.opened()

    def err(self, error: Json) -> None:
        """Remember and show an error event; its words may quote the key."""
        said = self._clean(events.word(error, "message"))
        self.error = {**error, "message": said}
        self.surroundings.log.happened("error", code=events.word(error, "code"), message=said[:300])

    def stop(self) -> None:
        self.timers.clear_all()
        self.talk.stop()

    def lose(self, why: BackendLost) -> None:
        self.timers.clear_all()
        self.talk.end()
        self.talk.link.close()
        self.surroundings.log.happened("session.lost", cause=why.cause, words=str(why))
        self.surroundings.listener.lost(why)

    def lose_link(self, code: int | None, reason: str, *, opened: bool) -> None:
        self.lose(refusals.gone(code, self._clean(reason), self.error, opened=opened))

    def finish(self) -> None:
        self.timers.clear_all()
        self.talk.link.close()
        self.surroundings.log.happened("session.finished", **self.talk.counts)
        self.surroundings.listener.finished()

    def _clean(self, said: str) -> str:
        token = self.order.bot.token
        return said.replace(token, "…") if token else said

    def _ms(self) -> int:
        took: float = self.surroundings.clock.seconds() - self.began
        return round(took * 1000)


def _machine() -> TypeMachineBuilder[Stages, Session]:
    machine = TypeMachineBuilder(Stages, Session)
    connecting = machine.state("connecting")
    configuring = machine.state("configuring")
    ready = machine.state("ready")
    talking = machine.state("talking")
    finishing = machine.state("finishing")
    closed = machine.state("closed")

    # -- Opening

    @connecting.upon(Stages.connected).loop()
    def _connected(_: Stages, session: Session) -> None:
        session.log_connected()

    @connecting.upon(Stages.created).to(configuring)
    def _created(_: Stages, session: Session) -> None:
        session.configure()

    @configuring.upon(Stages.updated).loop()
    def _updated(stages: Stages, session: Session, settings: Json) -> None:
        wrong = session.verify(settings)
        if wrong is None:
            stages.confirmed()
        else:
            stages.failed(wrong)

    @configuring.upon(Stages.confirmed).to(ready)
    def _confirmed(_: Stages, session: Session) -> None:
        session.open()

    @connecting.upon(Stages.erred).loop()
    @configuring.upon(Stages.erred).loop()
    def _refused(stages: Stages, session: Session, error: Json) -> None:
        session.err(error)
        why = refusals.fatal(error) or refusals.settings(session.error, session.update_id)
        if why is not None:
            stages.failed(why)

    # -- Talking

    @ready.upon(Stages.greet).to(talking)
    def _greet(_: Stages, session: Session) -> None:
        session.talk.greet()

    @ready.upon(Stages.happened).loop()
    @talking.upon(Stages.happened).loop()
    def _happened(stages: Stages, session: Session, event: Json) -> None:
        why = session.talk.happened(event)
        if why is not None:
            stages.failed(why)

    @ready.upon(Stages.answered).loop()
    @talking.upon(Stages.answered).loop()
    def _answered(_: Stages, session: Session, call_id: str, output: str, speak: bool) -> None:
        session.talk.answered(call_id, output, speak=speak)

    @ready.upon(Stages.erred).loop()
    @talking.upon(Stages.erred).loop()
    def _erred(stages: Stages, session: Session, error: Json) -> None:
        session.err(error)
        why = refusals.fatal(error)
        if why is not None:
            stages.failed(why)
        else:
            session.talk.erred(error)

    # -- Ending

    @ready.upon(Stages.finish).to(finishing)
    @talking.upon(Stages.finish).to(finishing)
    def _finish(stages: Stages, session: Session) -> None:
        session.stop()
        if session.talk.awaiting:
            session.timers.set("settle", PATIENCE, stages.settled)
        else:
            stages.settled()

    @finishing.upon(Stages.happened).loop()
    def _last(stages: Stages, session: Session, event: Json) -> None:
        session.talk.happened_last(event)
        if not session.talk.awaiting:
            stages.settled()

    @connecting.upon(Stages.finish).to(closed)
    @configuring.upon(Stages.finish).to(closed)
    @finishing.upon(Stages.settled).to(closed)
    def _settled(_: Stages, session: Session) -> None:
        session.finish()

    @finishing.upon(Stages.failed).to(closed)
    def _failed_last(_: Stages, session: Session, why: BackendLost) -> None:  # noqa: ARG001
        session.finish()

    @finishing.upon(Stages.gone).to(closed)
    def _gone_last(_: Stages, session: Session, code: int | None, reason: str) -> None:  # noqa: ARG001
        session.finish()

    @connecting.upon(Stages.failed).to(closed)
    @configuring.upon(Stages.failed).to(closed)
    @ready.upon(Stages.failed).to(closed)
    @talking.upon(Stages.failed).to(closed)
    def _failed(_: Stages, session: Session, why: BackendLost) -> None:
        session.lose(why)

    @connecting.upon(Stages.gone).to(closed)
    @configuring.upon(Stages.gone).to(closed)
    def _not_reached(_: Stages, session: Session, code: int | None, reason: str) -> None:
        session.lose_link(code, reason, opened=False)

    @ready.upon(Stages.gone).to(closed)
    @talking.upon(Stages.gone).to(closed)
    def _gone(_: Stages, session: Session, code: int | None, reason: str) -> None:
        session.lose_link(code, reason, opened=True)

    # -- Without meaning: a server repeats itself, or the call speaks to a voice that has not opened or has ended

    opened = (Stages.connected, Stages.created)
    answer = (Stages.updated, Stages.confirmed)
    orders = (Stages.greet, Stages.answered)
    for state, absorbed in (
        (connecting, (*answer, *orders, Stages.happened, Stages.settled)),
        (configuring, (*opened, *orders, Stages.happened, Stages.settled)),
        (ready, (*opened, *answer, Stages.settled)),
        (talking, (*opened, *answer, Stages.greet, Stages.settled)),
        (finishing, (*opened, *answer, *orders, Stages.erred, Stages.finish)),
        (closed, (*opened, *answer, *orders, Stages.erred, Stages.happened, Stages.settled)),
        (closed, (Stages.failed, Stages.gone, Stages.finish)),
    ):
        for each in absorbed:
            state.upon(each).loop().returns(None)
    return machine


_stages = _machine().build()


class Conversation:
    """A `Voice` to the call and a `LinkListener` to the websocket.

    `opened` and `lost` never come before the call that opened has returned; `finished` may
    come within `finish` when nothing is outstanding.
    """

    def __init__(self, order: VoiceOrder, surroundings: VoiceSurroundings, dialect: Dialect) -> None:
        self._session = Session(order, surroundings, dialect)
        self._stages = _stages(self._session)
        self._dialled = False
        self.heard = self._session.talk.heard  # on the hot path: straight to where it is used

    def open(self, url: str, headers: Mapping[str, str]) -> None:
        """Dial; the session must be ready within the surroundings' `open_timeout` from now."""
        surroundings, session = self._session.surroundings, self._session
        session.timers.set("open", surroundings.open_timeout, lambda: self._stages.failed(session.late()))
        try:
            session.talk.link = surroundings.connect(url, headers, self, surroundings.open_timeout)
        except BaseException:
            session.timers.clear_all()
            raise
        self._dialled = True

    def refuse(self, why: BackendLost) -> None:
        """There is nothing to dial; the listener hears so in a moment."""
        self._session.timers.set("refuse", 0, self._stages.failed, why)

    # -- Voice

    def prepare(self) -> None:
        """To be: the greeting is asked for."""
        self._session.timers.set("prepared", 0, self._session.surroundings.listener.prepared)

    def told(self, text: str, *, by_caller: bool = False, speak: bool = True) -> None:
        """To be."""

    def loud(self, on: bool) -> None:
        """To be."""

    @property
    def cost(self) -> float:
        return 0.0

    @property
    def turns(self) -> int:
        return 0

    @property
    def idle_since(self) -> float | None:
        return None

    def greet(self) -> None:
        """Say the welcome message; once."""
        self._stages.greet()

    def answered(self, call_id: str, output: str, *, speak: bool = True) -> None:
        """Tell the model what became of a function call; unknown, repeated or late ids are ignored."""
        self._stages.answered(call_id, output, speak)

    def finish(self) -> None:
        """Stop the audio, wait at most 2 s for outstanding caller transcripts, close."""
        self._stages.finish()

    @property
    def transcript(self) -> tuple[Line, ...]:
        """Both sides in order, the bot's words as far as they were heard."""
        return self._session.talk.transcript

    @property
    def usage(self) -> Json:
        """Token sums over all responses and transcriptions so far."""
        return self._session.talk.usage

    # -- LinkListener

    def connected(self) -> None:
        """The websocket is open; the server speaks first."""
        self._stages.connected()

    def received(self, text: bytes) -> None:
        """One message of the server. What cannot be read is counted and forgotten."""
        try:
            event = events.read(text)
        except Malformed:
            self._session.talk.malformed += 1
            return
        kind = event["type"]
        if kind in ("session.created", "conversation.created"):  # some servers only have the latter
            self._stages.created()
        elif kind == "session.updated":
            self._stages.updated(events.section(event, "session"))
        elif kind == "error":
            self._stages.erred(events.section(event, "error"))
        else:
            self._stages.happened(event)

    def lost(self, clean: bool, code: int | None, reason: str) -> None:  # noqa: ARG002
        """The websocket is closed or never opened. Bad luck within `open` itself is told a moment later."""
        if self._dialled:
            self._stages.gone(code, reason)
        else:
            self._session.timers.set("gone", 0, self._stages.gone, code, reason)
