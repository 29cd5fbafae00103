"""One conversation with a voice model, from dialling its server to the last transcript, in one session after another.

The machine, as the call sees it:

    opening --session open--> ready --greet--> talking
    talking --session lost--> mending --another one open--> talking
    ready, talking, mending --finish--> finishing --settled--> closed
    opening, ready: the session is lost, or talking, mending: no other can be had --> closed, and the call hears `lost`
    finishing: whatever happens --> closed, and the call hears `finished`

*ready* differs from *talking* only in that nobody hears us yet. *finishing* waits for what the caller said last, and
for what a response that was under way has cost: both come late, or never, so it lasts 2 s at most. *closed* is final
and silent: no timer, no message.

Sessions end: services close them after an hour, and connections break. Some minutes before its end a session gets a
*follower*, which is told what has been said so far; the audio goes there between two turns, and the caller hears
nothing of it. After an unexpected loss the same is done as quickly as it can be, a few times until a response has come
to its end: a service that lets us in and then fails must not be asked for ever. What the caller says meanwhile is kept
and heard by the next session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from automat import TypeMachineBuilder

from extenbot.ai import history
from extenbot.ai.dialects import Dialect
from extenbot.ai.functions import Functions
from extenbot.ai.greeting import Greeting
from extenbot.ai.hearing import Hearing
from extenbot.ai.session import Session
from extenbot.ai.talk import Shared, Talk
from extenbot.ai.timers import Timers
from extenbot.ai.transcript import Transcript
from extenbot.ai.usage import Usage
from extenbot.ai.utterances import Utterances
from extenbot.errors import BackendLost
from extenbot.interfaces import Json, Line, VoiceOrder, VoiceSurroundings

PATIENCE = 2.0
"""Seconds that `finish` waits for the caller's last words and the last costs, and a session that is over likewise."""

EARLY = 300.0
"""Seconds before the end of a session that its follower is opened; a fifth of its life where that is less."""

SWAP_BY = 15.0
"""Seconds before the end of a session that the audio moves over, whoever speaks."""

BETWEEN = 0.5
"""Seconds between two looks whether nobody speaks."""

AGAIN = 30.0
"""Seconds until a follower that could not be had is tried again."""

TRIES = (0.0, 0.5, 1.0, 2.0)
"""Seconds before each try for another session after a loss."""

LONGEST_GAP = 10.0
"""Seconds in which another session must be open: a caller who hears nothing for longer hangs up."""

#: causes that the next session need not meet
_PASSING = frozenset({"lost", "busy", "late", "expired"})


class Stages(Protocol):
    """All that can happen to a conversation."""

    def opened(self) -> None:
        """The first session is open."""

    def happened(self, session: Session, event: Json) -> None:
        """An event of a server."""

    def erred(self, error: Json) -> None:
        """An error event."""

    def lost(self, why: BackendLost) -> None:
        """The session that the audio goes to is gone."""

    def broken(self) -> None:
        """It is, and another one may be had."""

    def mended(self) -> None:
        """Another one is open."""

    def failed(self, why: BackendLost) -> None:
        """This cannot go on."""

    def prepare(self) -> None:
        """The caller will hear us soon."""

    def greet(self) -> None:
        """The caller hears us."""

    def answered(self, call_id: str, output: str, speak: bool) -> None:
        """A function call has its result."""

    def told(self, words: str, by_caller: bool, speak: bool) -> None:
        """A message for the model that is not speech."""

    def say(self, words: str) -> None:
        """A sentence that is worth saying only now."""

    def offer(self, tools: tuple[Json, ...]) -> None:
        """There are other tools."""

    def approved(self, call_id: str, yes: bool) -> None:
        """A tool of the service's own is allowed, or is not."""

    def loud(self, on: bool) -> None:
        """The line is loud, or quiet again."""

    def finish(self) -> None:
        """The call is over."""

    def settled(self) -> None:
        """Nothing more is to be waited for."""


class Course:
    """What the transitions do."""

    def __init__(
        self, owner: Conversation, order: VoiceOrder, surroundings: VoiceSurroundings, dialect: Dialect
    ) -> None:
        clock = surroundings.clock
        self.order = order
        self.surroundings = surroundings
        self.timers = Timers(clock)
        self.sessions: list[Session] = []
        self.session: Session | None = None  # where the audio goes
        self.follower: Session | None = None  # where it will go
        self.talk: Talk | None = None
        self._owner = owner
        self._dialect = dialect
        self._url = ""
        self._headers: Mapping[str, str] = {}
        self._tries = 0
        self._why: BackendLost | None = None  # the last session was lost
        self._owed: list[tuple[str, bool, bool]] = []  # told while there was no session
        self._past: list[tuple[Session, Talk]] = []  # sessions that still owe words of the caller
        words = Transcript()
        utterances = Utterances(surroundings.playout, words)
        hearing = Hearing()
        self.shared = Shared(
            order=order,
            dialect=dialect,
            now=clock.seconds,
            log=surroundings.log,
            words=words,
            usage=Usage(surroundings.prices, order.bot.model or dialect.model, self._transcriber()),
            hearing=hearing,
            utterances=utterances,
            functions=Functions(order.terminal, surroundings.listener, surroundings.log, utterances, Timers(clock)),
            greeting=Greeting(order, hearing, utterances, surroundings.log, clock.seconds, self._prepared),
            listener=surroundings.listener,
            failed=owner.failed,
            completed=self._completed,
        )

    def _transcriber(self) -> str:
        return self.order.bot.manner.transcription_model or self._dialect.transcriber

    def _prepared(self) -> None:
        self.timers.set("prepared", 0, self.surroundings.listener.prepared)

    def _completed(self) -> None:
        """The service works: a later loss is another one."""
        self._tries = 0

    # -- Sessions

    def dial(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, headers
        self.session = self._dialled()

    def _dialled(self) -> Session:
        session = Session(self._owner, self.order, self.surroundings, self._dialect, len(self.sessions) + 1)
        self.sessions.append(session)
        session.dial(self._url, self._headers)
        return session

    def refuse(self, why: BackendLost) -> None:
        self.session = Session(self._owner, self.order, self.surroundings, self._dialect)
        self.session.refuse(why)

    def open(self) -> None:
        """The first session."""
        assert self.session is not None
        self.talk = self._new_talk(self.session)
        self.shared.utterances.begin()
        self.talk.begin()
        self._plan(self.session)
        if model := self.shared.usage.unpriced:
            self.surroundings.log.happened("price.unknown", model=model)
        self.surroundings.listener.opened()

    def _new_talk(self, session: Session) -> Talk:
        return Talk(session, self.shared, self._dialect.codec(self.order), Timers(self.surroundings.clock))

    def _plan(self, session: Session) -> None:
        """Have a follower in time."""
        life = session.expires_at - self.surroundings.now() if session.expires_at else self._dialect.lasts
        if life > 0:
            self.timers.set("renew", max(life - min(EARLY, life / 5), 0.0), self._renew)
            self.timers.set("swap", max(life - SWAP_BY, 0.0), self._move)

    def _renew(self) -> None:
        if self.follower is None:
            self.follower = self._dialled()

    def follow(self) -> None:
        """The follower is open: the audio goes there as soon as nobody speaks."""
        if self.talk is not None and self.talk.quiet_since is None:
            self.timers.set("quiet", BETWEEN, self.follow)
        else:
            self._move()

    def unfollowed(self) -> None:
        """The follower is gone, the session is still good for a while."""
        self.follower = None
        self.timers.clear("quiet")
        self.timers.set("renew", AGAIN, self._renew)

    def _move(self) -> None:
        """The audio goes to the follower, if there is one."""
        session, before, old = self.follower, self.talk, self.session
        if session is None or session.opened_at is None or before is None:
            return
        self.follower, self.session = None, session
        self.timers.clear("quiet")
        shared = self.shared
        shared.functions.pause()
        before.end()
        said = history.message((*shared.utterances.lines(whole=True), *shared.functions.past()))
        self.talk = self._new_talk(session)
        self.surroundings.log.happened("session.moved", number=session.number)
        self.talk.take_over(before, said)
        owed, self._owed = self._owed, []
        for words, by_caller, speak in owed:
            self.talk.told(words, by_caller=by_caller, speak=speak)
        if old is not None:
            self._outlast(old, before)
        self._plan(session)

    def _outlast(self, session: Session, talk: Talk) -> None:
        """It may still bring words of the caller, and what its last response costs."""
        talk.hush()
        if talk.outstanding:
            self._past.append((session, talk))
            self.timers.set(f"past {session.number}", PATIENCE, self._forget, session)
        else:
            session.close()

    def past_happened(self, session: Session, event: Json) -> None:
        """An event of a session that is over."""
        for each, talk in self._past:
            if each is session:
                talk.happened_last(event)
                if not talk.outstanding:
                    self._forget(session)
                return

    def _forget(self, session: Session) -> None:
        self.timers.clear(f"past {session.number}")
        self._past = [each for each in self._past if each[0] is not session]
        session.close()

    # -- A session is lost while the caller speaks with it

    def may_mend(self, why: BackendLost) -> bool:
        return why.cause in _PASSING and self._tries < len(TRIES)

    def mend(self) -> None:
        """What the caller says is kept; another session is opened as soon as it can be had."""
        assert self.talk is not None
        self.session = None
        self.talk.end()
        self.shared.functions.pause()
        self.shared.hearing.leave()
        for name in ("renew", "swap", "quiet"):
            self.timers.clear(name)
        self.timers.set("gap", LONGEST_GAP, self._give_up)
        if self.follower is None:
            self._try()
        elif self.follower.opened_at is not None:
            self.timers.set("mend", 0, self._owner.mended)

    def _try(self) -> None:
        pause = TRIES[self._tries]
        self._tries += 1
        self.timers.set("mend", pause, self._renew)

    def missed(self, why: BackendLost) -> bool:
        """The session that was to mend it is lost, too; whether another one may be had."""
        self.follower = None
        if self.may_mend(why):
            self._try()
            return True
        return False

    def _give_up(self) -> None:
        self._owner.failed(BackendLost("lost", f"No voice session could be had within {LONGEST_GAP:g} s."))

    def mended(self) -> None:
        self.timers.clear("gap")
        self._move()

    def owe(self, words: str, by_caller: bool, speak: bool) -> None:
        self._owed.append((words, by_caller, speak))

    def offer(self, tools: tuple[Json, ...]) -> None:
        """Sessions to come have them from the start; should one be opening now it is told when it is open."""
        self.order = self.shared.order = replace(self.order, tools=tools)
        for session in (self.session, self.follower):
            if session is not None:
                session.offer(self.order)

    # -- The end

    def lose(self, why: BackendLost) -> None:
        """What waits to be played is left to the call."""
        self._close()
        self.surroundings.listener.lost(why)

    def stop(self) -> None:
        """The call is over: drop what the caller has not heard."""
        self._quieten()
        if self.session is not None and self.talk is not None:
            self.talk.hush()
        self.shared.utterances.cut()
        if self.follower is not None:
            self.follower.close()

    def finish(self) -> None:
        self._close()
        counts = self.shared.counts
        malformed = counts["malformed"] + sum(session.malformed for session in self.sessions)
        self.surroundings.log.happened(
            "session.finished",
            sessions=len(self.sessions),
            unknown=counts["unknown"],
            malformed=malformed,
            late=counts["late"],
            dropped_ms=self.shared.hearing.dropped // 8,
        )
        self.surroundings.listener.finished()

    @property
    def awaiting(self) -> bool:
        return self.session is not None and self.talk is not None and self.talk.outstanding

    def _quieten(self) -> None:
        self.timers.clear_all()
        self.shared.hearing.stop()
        self.shared.functions.stop()
        self.shared.utterances.end()
        if self.talk is not None:
            self.talk.end()

    def _close(self) -> None:
        self._quieten()
        for session in self.sessions:
            session.close()


def _machine() -> TypeMachineBuilder[Stages, Course]:
    machine = TypeMachineBuilder(Stages, Course)
    opening = machine.state("opening")
    ready = machine.state("ready")
    talking = machine.state("talking")
    mending = machine.state("mending")
    finishing = machine.state("finishing")
    closed = machine.state("closed")

    @opening.upon(Stages.opened).to(ready)
    def _opened(_: Stages, course: Course) -> None:
        course.open()

    # -- Talking

    @ready.upon(Stages.prepare).loop()
    def _prepare(_: Stages, course: Course) -> None:
        assert course.talk is not None
        course.talk.prepare()

    @ready.upon(Stages.greet).to(talking)
    def _greet(_: Stages, course: Course) -> None:
        assert course.talk is not None
        course.talk.greet()

    @ready.upon(Stages.happened).loop()
    @talking.upon(Stages.happened).loop()
    def _happened(_: Stages, course: Course, session: Session, event: Json) -> None:
        if session is course.session:
            assert course.talk is not None
            course.talk.happened(event)
        else:
            course.past_happened(session, event)

    @ready.upon(Stages.erred).loop()
    @talking.upon(Stages.erred).loop()
    def _erred(_: Stages, course: Course, error: Json) -> None:
        assert course.talk is not None
        course.talk.erred(error)

    @ready.upon(Stages.answered).loop()
    @talking.upon(Stages.answered).loop()
    @mending.upon(Stages.answered).loop()
    def _answered(_: Stages, course: Course, call_id: str, output: str, speak: bool) -> None:
        course.shared.functions.answered(call_id, output, speak=speak)

    @ready.upon(Stages.told).loop()
    @talking.upon(Stages.told).loop()
    def _told(_: Stages, course: Course, words: str, by_caller: bool, speak: bool) -> None:
        assert course.talk is not None
        course.talk.told(words, by_caller=by_caller, speak=speak)

    @talking.upon(Stages.say).loop()
    def _say(_: Stages, course: Course, words: str) -> None:
        assert course.talk is not None
        course.talk.say(words)

    @opening.upon(Stages.offer).loop()
    @ready.upon(Stages.offer).loop()
    @talking.upon(Stages.offer).loop()
    @mending.upon(Stages.offer).loop()
    def _offer(_: Stages, course: Course, tools: tuple[Json, ...]) -> None:
        course.offer(tools)

    @talking.upon(Stages.approved).loop()
    def _approved(_: Stages, course: Course, call_id: str, yes: bool) -> None:
        assert course.talk is not None
        course.talk.approved(call_id, yes=yes)

    @talking.upon(Stages.loud).loop()
    def _loud(_: Stages, course: Course, on: bool) -> None:
        assert course.talk is not None
        course.talk.loud(on=on)

    # -- Mending

    @talking.upon(Stages.lost).loop()
    def _lost(stages: Stages, course: Course, why: BackendLost) -> None:
        if course.may_mend(why):
            stages.broken()
        else:
            stages.failed(why)

    @talking.upon(Stages.broken).to(mending)
    def _broken(_: Stages, course: Course) -> None:
        course.mend()

    @mending.upon(Stages.lost).loop()
    def _missed(stages: Stages, course: Course, why: BackendLost) -> None:
        if not course.missed(why):
            stages.failed(why)

    @mending.upon(Stages.mended).to(talking)
    def _mended(_: Stages, course: Course) -> None:
        course.mended()

    @mending.upon(Stages.told).loop()
    def _owe(_: Stages, course: Course, words: str, by_caller: bool, speak: bool) -> None:
        course.owe(words, by_caller, speak)

    # -- Ending

    @ready.upon(Stages.finish).to(finishing)
    @talking.upon(Stages.finish).to(finishing)
    @mending.upon(Stages.finish).to(finishing)
    def _finish(stages: Stages, course: Course) -> None:
        course.stop()
        if course.awaiting:
            course.timers.set("settle", PATIENCE, stages.settled)
        else:
            stages.settled()

    @finishing.upon(Stages.happened).loop()
    def _last(stages: Stages, course: Course, session: Session, event: Json) -> None:
        if session is course.session and course.talk is not None:
            course.talk.happened_last(event)
            if not course.awaiting:
                stages.settled()

    @opening.upon(Stages.finish).to(closed)
    @finishing.upon(Stages.settled).to(closed)
    def _settled(_: Stages, course: Course) -> None:
        course.finish()

    @finishing.upon(Stages.lost).to(closed)
    @finishing.upon(Stages.failed).to(closed)
    def _lost_last(_: Stages, course: Course, why: BackendLost) -> None:  # noqa: ARG001
        course.finish()

    @opening.upon(Stages.lost).to(closed)
    @ready.upon(Stages.lost).to(closed)
    @ready.upon(Stages.failed).to(closed)
    @talking.upon(Stages.failed).to(closed)
    @mending.upon(Stages.failed).to(closed)
    def _failed(_: Stages, course: Course, why: BackendLost) -> None:
        course.lose(why)

    # -- Without meaning: the call speaks to a voice that has not opened or has ended, or says the same again

    course_ = (Stages.broken, Stages.mended, Stages.settled)
    asides = (Stages.say, Stages.approved, Stages.loud)
    orders = (Stages.prepare, Stages.greet, Stages.answered, Stages.told, *asides)
    for state, absorbed in (
        (opening, (*course_, *orders, Stages.happened, Stages.erred, Stages.failed)),
        (ready, (*course_, Stages.opened, *asides)),
        (talking, (Stages.mended, Stages.settled, Stages.opened, Stages.prepare, Stages.greet)),
        (mending, (Stages.opened, Stages.happened, Stages.erred, Stages.broken, Stages.settled)),
        (mending, (Stages.prepare, Stages.greet, *asides)),
        (finishing, (*orders, Stages.offer, Stages.opened, Stages.erred, Stages.broken, Stages.mended, Stages.finish)),
        (closed, (*course_, *orders, Stages.offer, Stages.opened, Stages.happened, Stages.erred)),
        (closed, (Stages.lost, Stages.failed, Stages.finish)),
    ):
        for each in absorbed:
            state.upon(each).loop().returns(None)
    return machine


_stages = _machine().build()


class Conversation:
    """A `Voice` to the call and the `Owner` of its sessions.

    `opened` and `lost` never come before the call that opened has returned; `finished` may
    come within `finish` when nothing is outstanding.
    """

    def __init__(self, order: VoiceOrder, surroundings: VoiceSurroundings, dialect: Dialect) -> None:
        self._course = Course(self, order, surroundings, dialect)
        self._stages = _stages(self._course)
        self.heard = self._course.shared.hearing.heard  # on the hot path: straight to where it is used

    def open(self, url: str, headers: Mapping[str, str]) -> None:
        """Dial; the session must be ready within the surroundings' `open_timeout` from now."""
        self._course.dial(url, headers)

    def refuse(self, why: BackendLost) -> None:
        """There is nothing to dial; the listener hears so in a moment."""
        self._course.refuse(why)

    # -- Voice

    def prepare(self) -> None:
        """Ask for the welcome message, and hold it until `greet`."""
        self._stages.prepare()

    def greet(self) -> None:
        """Say the welcome message; once."""
        self._stages.greet()

    def answered(self, call_id: str, output: str, *, speak: bool = True) -> None:
        """Tell the model what became of a function call; unknown, repeated or late ids are ignored."""
        self._stages.answered(call_id, output, speak)

    def told(self, text: str, *, by_caller: bool = False, speak: bool = True) -> None:
        """A message for the model that is not speech."""
        self._stages.told(text, by_caller, speak)

    def say(self, text: str) -> None:
        """A sentence that is worth saying only now."""
        self._stages.say(text)

    def offer(self, tools: tuple[Json, ...]) -> None:
        """The tools from now on."""
        self._stages.offer(tools)

    def approved(self, call_id: str, yes: bool) -> None:
        """A tool of the service's own is allowed, or is not."""
        self._stages.approved(call_id, yes)

    def loud(self, on: bool) -> None:
        """The line is loud: the bot pauses until the server has told whether somebody speaks."""
        self._stages.loud(on)

    def finish(self) -> None:
        """Stop the audio, wait at most 2 s for outstanding transcripts and costs, close."""
        self._stages.finish()

    @property
    def transcript(self) -> tuple[Line, ...]:
        """Both sides in order, the bot's words as far as they were heard."""
        return self._course.shared.utterances.lines()

    @property
    def usage(self) -> Json:
        """Token sums over all responses and transcriptions so far."""
        return self._course.shared.usage.sums

    @property
    def cost(self) -> float:
        """USD so far, by the price table."""
        usage = self._course.shared.usage
        return usage.cost + usage.by_time(sum(session.lasted for session in self._course.sessions))

    @property
    def turns(self) -> int:
        """How often the caller has spoken or pressed keys."""
        return self._course.shared.turns

    @property
    def idle_since(self) -> float | None:
        """Since when nobody speaks and nothing is due; None while that is not so."""
        course = self._course
        return course.talk.quiet_since if course.session is not None and course.talk is not None else None

    # -- Owner

    def opened(self, session: Session) -> None:
        """A session is open: the first one, or one that follows."""
        course = self._course
        if session is course.session:
            self._stages.opened()
        elif course.session is None:
            self.mended()
        else:
            course.follow()

    def happened(self, session: Session, event: Json) -> None:
        """An event of an open session."""
        self._stages.happened(session, event)

    def erred(self, session: Session, error: Json) -> None:
        """An error event that does not end the session."""
        if session is self._course.session:
            self._stages.erred(error)

    def lost(self, session: Session, why: BackendLost) -> None:
        """A session is gone."""
        course = self._course
        if session is course.session or (course.session is None and session is course.follower):
            self._stages.lost(why)
        elif session is course.follower:
            course.unfollowed()

    # -- What `Course` reports

    def mended(self) -> None:
        """Another session is open."""
        self._stages.mended()

    def failed(self, why: BackendLost) -> None:
        """This cannot go on."""
        self._stages.failed(why)
