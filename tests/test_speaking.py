"""A sentence spoken once by a bot's own voice, to be kept."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import BackendLost
from extenbot.interfaces import Bot, Line, ToolCall, VoiceOrder
from extenbot.media import g711
from extenbot.speaking import LONGEST, PATIENCE, Speaking
from tests.clock import Clock

BOT = Bot("b", "a", "Ada", "registrar", "1000", "secret")
TEXT = "Hello, this is Ada."
SOUND = g711.tone("PCMU", 440, 500)


class Spoken:
    """A voice that says what the test wants, and ends when it is told to."""

    def __init__(self, order: VoiceOrder, playout: Any, listener: Any) -> None:
        self.order, self.playout, self.listener = order, playout, listener
        self.transcript: tuple[Line, ...] = ()
        self.idle_since: float | None = None
        self.cost = 0.0
        self.did: list[Any] = []

    def greet(self) -> None:
        self.did.append("greet")

    def answered(self, call_id: str, output: str, *, speak: bool = True) -> None:
        self.did.append((call_id, speak))

    def finish(self) -> None:
        self.did.append("finish")
        self.listener.finished()

    def say(self, audio: bytes, *words: str) -> None:
        self.playout.add("item_1", audio)
        self.transcript = (Line("caller", "(noise)", 0.0), *(Line("bot", text, 0.0) for text in words))


class Once(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.refusal: BackendLost | None = None

    def open(self, order: VoiceOrder, playout: Any, listener: Any, log: Any) -> Any:
        if self.refusal is not None:
            raise self.refusal
        self.voice = Spoken(order, playout, listener)
        return self.voice

    def begun(self) -> Deferred[tuple[bytes, str]]:
        self.speaking = Speaking(self.clock, self.open, BOT, TEXT, "c1")
        if self.refusal is None:
            self.speaking.opened()
        return self.speaking.spoken

    def test_said(self) -> None:
        """The whole sound comes with the words that were really said, and what they have cost."""
        spoken = self.begun()
        self.assertEqual((self.voice.order.welcome, self.voice.order.format), (TEXT, "audio/pcmu"))
        self.voice.say(SOUND, "Hello,")
        self.clock.advance(5)
        self.assertNoResult(spoken)  # more is due
        self.voice.say(SOUND, "Hello,", "this is Ada!")
        self.voice.idle_since, self.voice.cost = 5.0, 0.0125
        self.clock.advance(0.125)
        self.assertEqual(self.successResultOf(spoken), (SOUND + SOUND, "Hello, this is Ada!"))
        self.assertEqual((self.voice.did, self.speaking.cost), (["greet", "finish"], 0.0125))

    def test_silent(self) -> None:
        """A voice that says nothing is not waited for for ever; it has cost something all the same."""
        spoken = self.begun()
        self.voice.idle_since, self.voice.cost = 0.0, 0.5
        self.clock.pump([0.125] * int(PATIENCE * 8 + 1))
        self.assertIn("within 30 s", str(self.failureResultOf(spoken, BackendLost).value))
        self.assertEqual(self.speaking.cost, 0.5)

    def test_endless(self) -> None:
        """One that goes on talking is stopped."""
        spoken = self.begun()
        self.voice.say(bytes(LONGEST + 1))
        self.clock.advance(0.125)
        self.assertIn("more than a minute", str(self.failureResultOf(spoken, BackendLost).value))

    def test_lost(self) -> None:
        """A voice that is refused or lost is told in its words."""
        spoken = self.begun()
        self.speaking.lost(BackendLost("wrong_key", "The voice service does not know this key."))
        self.assertIn("this key", str(self.failureResultOf(spoken, BackendLost).value))
        self.refusal = BackendLost("no_model", "No voice back end serves the model.")
        self.assertEqual(self.failureResultOf(self.begun(), BackendLost).value, self.refusal)
        self.assertEqual(self.speaking.cost, 0.0)

    def test_functions(self) -> None:
        """A function that the model asks for meanwhile is not run."""
        self.begun()
        self.speaking.asked(ToolCall("call_1", "weather", {}))
        self.assertIn(("call_1", False), self.voice.did)
        self.speaking.lost(BackendLost("lost", "Gone."))
        self.failureResultOf(self.speaking.spoken, BackendLost)

    def test_given_up(self) -> None:
        """Whoever no longer waits for it ends it."""
        spoken = self.begun()
        spoken.cancel()
        self.assertEqual(self.voice.did, ["greet", "finish"])
        self.failureResultOf(spoken, BackendLost)
