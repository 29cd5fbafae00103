"""What the bot says: its audio in the playout, and how much of each utterance the caller has heard.

How much was received and sent is the playout's knowledge, because the server sends far faster than the caller hears.
An interruption is defined by what waits there, not by what the server is doing: it is mostly done with a response long
before the caller has heard it. Utterances outlive the session they were made in: they play on, and stay in the
transcript.
"""

from __future__ import annotations

from collections.abc import Callable

from extenbot.ai.transcript import Transcript
from extenbot.interfaces import Line, Played, Playout


class Utterance:
    """One item of the model with audio, or a stored sentence, which has no `response`."""

    __slots__ = ("content", "cut", "finished", "item", "name", "response", "session")

    def __init__(self, name: str, session: int, response: str, item: str, content: int) -> None:
        self.name = name  # in the playout and the transcript
        self.session = session
        self.response = response
        self.item = item
        self.content = content
        self.finished = False
        self.cut: Played | None = None


def name_of(session: int, item: str) -> str:
    """Items of different sessions may have the same id."""
    return item if session <= 1 else f"{session}/{item}"


class Utterances:
    """All of one conversation. `on_began` gets an utterance as its first frame leaves, `on_drained` when none waits."""

    def __init__(self, playout: Playout, words: Transcript) -> None:
        self.on_began: Callable[[Utterance], None] | None = None
        self.on_drained: Callable[[], None] | None = None
        self.received = 0
        """Bytes of all."""
        self._playout = playout
        self._words = words
        self._all: dict[str, Utterance] = {}
        self._waiting = self._paused = False
        self._ended = False

    def begin(self) -> None:
        """From now on the playout tells us what leaves."""
        self._playout.on_began = self._began
        self._playout.on_drained = self._drained

    def end(self) -> None:
        """It tells us no more; what waits to be played is left to others."""
        if not self._ended:
            self._ended = True
            self._playout.on_began = self._playout.on_drained = None

    # -- Audio

    def of(self, session: int, item: str) -> Utterance | None:
        """The utterance that this item of that session is."""
        return self._all.get(name_of(session, item))

    def new(self, session: int, response: str, item: str, content: int, at: float) -> Utterance:
        """An utterance begins, `at` seconds into the call."""
        name = name_of(session, item)
        found = self._all[name] = Utterance(name, session, response, item, content)
        self._words.began(name, "bot", at)
        return found

    def add(self, utterance: Utterance, audio: bytes) -> None:
        """More audio of it."""
        self.received += len(audio)
        self._playout.add(utterance.name, audio)

    def say(self, utterance: Utterance, words: str) -> None:
        """All of its words."""
        self._words.all(utterance.name, 0, words)

    def finish(self, utterance: Utterance) -> None:
        """All of its audio is there."""
        if utterance.cut is None and not utterance.finished:
            utterance.finished = True
            self._playout.finish(utterance.name)

    def cut(self) -> list[tuple[Utterance, Played]]:
        """Drop what waits; what was not heard to its end, with what was heard of it."""
        found = []
        for played in self._playout.cut():
            utterance = self._all.get(played.item)
            if utterance is not None and utterance.cut is None:
                utterance.cut = played
                self._words.cut(utterance.name)
                found.append((utterance, played))
        self.pause(on=False)
        return found

    # -- When it is heard

    def wait(self, *, on: bool) -> None:
        """Nobody hears us yet: what there is waits until that is over."""
        self._waiting = on
        self._playout.held = self._waiting or self._paused

    def pause(self, *, on: bool) -> None:
        """Be still for a moment, perhaps to go on."""
        self._paused = on
        self._playout.held = self._waiting or self._paused

    @property
    def waiting(self) -> bool:
        """Whether nobody hears us yet."""
        return self._waiting

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be heard."""
        return self._playout.empty

    @property
    def sent(self) -> int:
        """Bytes that have left of what was not interrupted."""
        return sum(self._playout.played(name).sent for name, each in self._all.items() if each.cut is None)

    def lines(self, *, whole: bool = False) -> tuple[Line, ...]:
        """Both sides of the conversation; the bot's words as far as they were heard, or (`whole`) will be."""
        return self._words.lines(self._whole if whole else self._heard_of)

    def _heard_of(self, name: str) -> tuple[Played, bool]:
        utterance = self._all.get(name)
        if utterance is None:
            return Played(name, 0, 0), False
        if utterance.cut is not None:
            return utterance.cut, True
        played = self._playout.played(name)
        return played, self._ended and played.sent < played.received

    def _whole(self, name: str) -> tuple[Played, bool]:
        played, interrupted = self._heard_of(name)
        return (played, True) if interrupted else (Played(name, played.received, played.received), False)

    def _began(self, name: str) -> None:
        if self.on_began is not None and name in self._all:
            self.on_began(self._all[name])

    def _drained(self) -> None:
        if self.on_drained is not None:
            self.on_drained()
