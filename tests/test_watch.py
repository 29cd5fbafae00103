"""The watch over a call: who is asked, warned, left, and when; on a fake clock with a made-up voice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Manner, Voice
from extenbot.watch import FAREWELL, Watch
from tests.clock import Clock
from tests.memory import BOT, MemoryLedger, bot


@dataclass
class MadeUpVoice:
    cost: float = 0.0
    turns: int = 0
    idle_since: float | None = None
    said: list[tuple[float, str, bool]] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    answers: bool = True

    def told(self, text: str, *, by_caller: bool = False, speak: bool = True) -> None:
        self.said.append((self.clock.seconds(), text, speak))
        if speak and self.answers:  # two seconds of words
            self.idle_since = None
            self.clock.callLater(2, self._quiet)

    def _quiet(self) -> None:
        self.idle_since = self.clock.seconds()


@dataclass
class Ears:
    last_received: float | None = None
    unheard: float = 0.0


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def happened(self, what: str, /, **fields: object) -> None:
        self.lines.append((what, fields))

    def elapsed(self) -> float:
        return 0.0


class Case(SynchronousTestCase):
    def begin(self, **manner: Any) -> None:
        self.clock = Clock()
        self.voice = MadeUpVoice(clock=self.clock, idle_since=0.0)
        self.ears, self.log, self.ledger = Ears(), Log(), MemoryLedger()
        self.listening = True
        self.packets = True
        self.ends: list[tuple[float, str]] = []
        self.watch = Watch(
            self.clock,
            bot(manner=Manner(**({"silence": 0, "longest": 0} | manner))),
            cast(Voice, self.voice),
            self.ears,
            self.ledger,
            self.log,
            30.0,
            lambda: self.listening,
            lambda reason: self.ends.append((self.clock.seconds(), reason)),
        )

    def run_for(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            if self.packets:
                self.ears.last_received = self.clock.seconds()
            self.clock.advance(0.5)

    def stop(self) -> None:
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.voice.said]


class Silence(Case):
    def test_asked_twice_then_left(self) -> None:
        """A caller who says nothing is asked twice, hears a goodbye, and is left when it is over."""
        self.begin(silence=10)
        self.run_for(60)
        self.assertEqual(self.times, [10, 22, 34])
        self.assertTrue(all(speak for _, _, speak in self.voice.said))
        self.assertIn("still there", self.voice.said[0][1])
        self.assertIn("goodbye", self.voice.said[2][1])
        self.assertEqual(self.ends, [(38, "the caller said nothing")])
        self.assertEqual([what for what, _ in self.log.lines], ["silence", "silence", "leaving.politely"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_spoke_meanwhile(self) -> None:
        """Who says something is not counted down any further."""
        self.begin(silence=10)
        self.run_for(23)
        self.assertEqual(self.times, [10, 22])
        self.run_for(3)
        self.voice.turns, self.voice.idle_since = 1, self.clock.seconds()
        self.run_for(37)
        self.assertEqual(self.times, [10, 22, 36, 48, 60])
        self.assertIn("goodbye", self.voice.said[4][1])
        self.stop()

    def test_spoke_into_the_goodbye(self) -> None:
        """Who answers at last, while the goodbye is said, is not left; who then falls silent is asked anew."""
        self.begin(silence=10)
        self.run_for(35)
        self.assertIn("goodbye", self.voice.said[2][1])
        self.voice.turns, self.voice.idle_since = 1, None
        self.run_for(25)
        self.assertEqual(self.ends, [])
        _, words, speak = self.voice.said[3]
        self.assertIn("does not end", words)
        self.assertFalse(speak)
        self.voice.idle_since = self.clock.seconds()
        self.run_for(60)
        self.assertEqual([words for _, words, _ in self.voice.said[4:]], [words for _, words, _ in self.voice.said[:3]])
        self.assertEqual([reason for _, reason in self.ends], ["the caller said nothing"])

    def test_not_while_somebody_speaks(self) -> None:
        """Nobody is asked while the bot or the caller speaks, or an answer is due."""
        self.begin(silence=10)
        self.voice.idle_since = None
        self.run_for(100)
        self.assertEqual(self.times, [])
        self.stop()

    def test_hold(self) -> None:
        """A caller on hold cannot answer: silence counts from when they are back."""
        self.begin(silence=10)
        self.listening = False
        self.run_for(100)
        self.listening = True
        self.run_for(9)
        self.assertEqual(self.times, [])
        self.run_for(2)
        self.assertEqual(self.times, [110])
        self.run_for(2)
        self.stop()

    def test_never(self) -> None:
        """With silence 0 nobody is asked."""
        self.begin()
        self.run_for(1000)
        self.assertEqual((self.voice.said, self.ends), ([], []))
        self.stop()


class Length(Case):
    def test_warned_then_ended(self) -> None:
        """The model is told a minute before the end, without a word to the caller, and says goodbye at the end."""
        self.begin(longest=3)
        self.run_for(200)
        self.assertEqual(self.times, [120, 180])
        self.assertEqual([speak for _, _, speak in self.voice.said], [False, True])
        self.assertEqual(self.ends, [(184, "longest duration reached")])

    def test_who_speaks_is_left_all_the_same(self) -> None:
        """The longest duration is no matter of whether anybody is there."""
        self.begin(longest=3)
        self.run_for(181)
        self.voice.turns = 1
        self.run_for(20)
        self.assertEqual(self.ends, [(184, "longest duration reached")])

    def test_in_the_middle_of_a_long_answer(self) -> None:
        """A goodbye behind half a minute of words is not cut short."""
        self.begin(longest=3)
        self.run_for(179)
        self.voice.answers, self.voice.idle_since, self.ears.unheard = False, None, 30.0
        self.run_for(40)
        self.assertEqual(self.ends, [])
        self.run_for(20)
        self.assertEqual(self.ends, [(180 + 30 + FAREWELL, "longest duration reached")])

    def test_model_goes_on(self) -> None:
        """A model that does not stop is stopped."""
        self.begin(longest=1)
        self.voice.answers = False
        self.voice.idle_since = None
        self.run_for(80)
        self.assertEqual(self.ends, [(60 + FAREWELL, "longest duration reached")])


class Money(Case):
    def test_cap_of_a_call(self) -> None:
        """At 80 % of the cap the model is told to wrap up, at 100 % the call ends politely."""
        self.begin(cap_call=1.0)
        self.voice.cost = 0.79
        self.run_for(5)
        self.assertEqual(self.voice.said, [])
        self.voice.cost = 0.8
        self.run_for(5)
        [(_, text, speak)] = self.voice.said
        self.assertIn("Wrap up", text)
        self.assertFalse(speak)
        self.voice.cost = 1.01
        self.run_for(8)
        self.assertEqual([reason for _, reason in self.ends], ["the cap of the call is reached"])
        self.assertEqual(len(self.voice.said), 2)

    def test_cap_of_a_day(self) -> None:
        """What other calls spend counts as well."""
        self.begin()
        self.ledger.caps["b1"] = 2.0
        self.voice.cost = 0.5
        self.run_for(2)
        self.assertEqual(self.ledger.sums["b1"], 0.5)
        self.ledger.spent(BOT, 1.25)
        self.run_for(2)
        self.assertEqual(len(self.voice.said), 1)
        self.ledger.spent(BOT, 0.25)
        self.run_for(8)
        self.assertEqual([reason for _, reason in self.ends], ["the cap of the bot is reached"])

    def test_counted_once(self) -> None:
        """Every dollar is counted once, the last ones after the end."""
        self.begin()
        self.voice.cost = 0.25
        self.run_for(5)
        self.voice.cost = 0.5
        self.stop()
        self.voice.cost = 0.75
        self.watch.count()
        self.assertEqual(self.ledger.sums["b1"], 0.75)


class Rtp(Case):
    def test_nobody_there(self) -> None:
        """A call without a packet for longer than the limit ends; nobody is there to say goodbye to."""
        self.begin()
        self.packets = False
        self.run_for(40)
        self.assertEqual(self.ends, [(31, "no RTP from the caller")])
        self.assertEqual(self.voice.said, [])
