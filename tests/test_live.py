"""Whole calls with GPT-Live in memory; every message either way is of the official form."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import Any, get_args

from openai.types.live import ClientEvent, ServerEvent
from pydantic import BaseModel, TypeAdapter
from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.pricing import PriceTable
from extenbot.interfaces import CallRecord, Price
from extenbot.media import g711
from tests.ai.world import extras
from tests.memory import BOT, Caller, World, bot

HELLO = """
speed 4
on greet: tone 440 for 1 s "Good morning!"
"""
TALK = (
    HELLO
    + """
on speech:
    heard "Where are you?" after 300 ms
    tone 600 for 3 s "Here I am, and here I stay."
"""
)
_SERVER: TypeAdapter[Any] = TypeAdapter(ServerEvent)


def _types(union: Any) -> dict[str, type[BaseModel]]:
    union = get_args(union)[0] if not hasattr(get_args(union)[0], "model_fields") else union
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(union)}


_CLIENT = _types(ClientEvent)


class Case(SynchronousTestCase):
    def begin(self, script: str, **changes: Any) -> tuple[World, Caller]:
        manner = replace(BOT.manner, silence=0, **changes.pop("manner", {}))
        world = World(dedent(script), bot(model="sandbox-live", manner=manner, **changes))
        self.addCleanup(self.nothing_wrong, world)
        return world, Caller(world)

    def nothing_wrong(self, world: World) -> None:
        """Nothing is left, and the official types take all that was said."""
        world.drain()
        self.assertEqual(world.left(), [])
        for said in world.said:
            if said.way == "<":
                _SERVER.validate_python(said.event)
                continue
            model = _CLIENT[said.event["type"]].model_validate(said.event, strict=True)
            self.assertEqual(list(extras(model, said.event["type"])), [])
        started = [said.at for said in world.said if said.event["type"] == "session.started"]
        early = [said.event["type"] for said in world.said if said.way == ">" and said.at < min(started, default=1e9)]
        self.assertLessEqual(set(early), {"session.start"})

    def ended(self, world: World, seconds: float = 60.0) -> CallRecord:
        world.run_until(lambda: world.records, seconds)
        return world.record

    def speak(self, world: World, caller: Caller, seconds: float) -> None:
        caller.hz = 800
        world.run(seconds)
        caller.hz = 0


class Live(Case):
    def test_greeting(self) -> None:
        """It is made while the phone rings, and heard with the answer."""
        world, caller = self.begin(HELLO)
        caller.dial()
        world.run(1.5)
        self.assertTrue(caller.hears(440))
        [start] = world.voice("session.start")
        self.assertEqual(start.event["session"]["audio"]["format"], {"type": "audio/pcmu", "rate": 8000})
        [say] = world.voice("session.commentary.append")
        self.assertIn("Good morning!", say.event["content"])
        first = next(at for at, packet in caller.packets if packet.marker)
        acked = [float(line.split()[0]) for line in world.ladder if "--> ACK" in line][-1]
        self.assertLess(first - acked, 0.1)
        caller.bye()
        [line] = self.ended(world).transcript
        self.assertEqual((line.speaker, line.text), ("bot", "Good morning!"))

    def test_turn(self) -> None:
        """Both sides are heard and written down in their order."""
        world, caller = self.begin(TALK)
        caller.dial()
        world.run(1.5)
        self.speak(world, caller, 1)
        world.run(5)
        self.assertTrue(caller.hears(600))
        caller.bye()
        lines = [(line.speaker, line.text) for line in self.ended(world).transcript]
        self.assertEqual(
            lines, [("bot", "Good morning!"), ("caller", "Where are you?"), ("bot", "Here I am, and here I stay.")]
        )

    def test_barge_in(self) -> None:
        """The model falls silent by itself; what it did not say any more is not heard."""
        world, caller = self.begin(TALK)
        caller.dial()
        world.run(1.5)
        self.speak(world, caller, 1)
        world.run(2)
        self.speak(world, caller, 1)
        spoke = world.clock.seconds() - 0.5
        self.assertFalse(caller.hears(600, spoke))
        caller.bye()
        self.ended(world)

    def test_not_to_be_interrupted(self) -> None:
        """With barge-in off the model hears silence while it speaks."""
        world, caller = self.begin(TALK, manner={"barge_in": "off"})
        caller.dial()
        world.run(1.5)
        self.speak(world, caller, 1)
        world.run(1.5)
        self.speak(world, caller, 0.5)
        self.assertTrue(caller.hears(600, world.clock.seconds() - 0.3))
        caller.bye()
        self.ended(world)

    def test_function(self) -> None:
        """A function is called by the model behind, and its result spoken of."""
        world, caller = self.begin(
            """
            speed 4
            on greet: call add {"a": 1}
            on output: tone 700 for 1 s "It is five."
            """
        )
        world.gives("add", "5")
        caller.dial()
        world.run_until(lambda: caller.hears(700), 10)
        [item] = world.voice("response.item.create")
        self.assertEqual(item.event["item"]["output"], "5")
        self.assertEqual(world.asked[0][:2], ("add", {"a": 1}))
        caller.bye()
        self.ended(world)

    def test_goodbye(self) -> None:
        """It is heard to its end before the bot hangs up."""
        world, caller = self.begin(
            """
            speed 4
            on greet:
                tone 440 for 2 s "Goodbye then!"
                call end_call
            """
        )
        caller.dial()
        self.assertEqual(self.ended(world).end_reason, "bot hung up")
        heard = [at for at, packet in caller.packets if packet.payload != b"\xff" * 160]
        self.assertGreater(max(heard) - min(heard), 1.9)

    def test_keys(self) -> None:
        """Keys reach the model as an instruction to which it answers."""
        world, caller = self.begin(HELLO + 'on response: tone 700 for 1 s "One."\n')
        caller.dial()
        world.run(1.5)
        world.call.pressed("1")
        world.call.pressed("#")
        world.run(2)
        self.assertTrue(caller.hears(700))
        [told] = world.voice("session.instructions.append")
        self.assertIn("pressed 1#", told.event["content"])
        caller.bye()
        self.ended(world)

    def test_exact_greeting(self) -> None:
        """A stored greeting is played, and the model told."""
        world, caller = self.begin(HELLO, manner={"greeting_exact": True})
        world.sentences.stored["Good morning!"] = g711.tone("PCMU", 950, 1000)
        caller.dial()
        world.run(1.5)
        self.assertTrue(caller.hears(950))
        self.assertFalse(caller.hears(440))
        caller.bye()
        [line] = self.ended(world).transcript
        self.assertEqual(line.text, "Good morning!")

    def test_cost(self) -> None:
        """It is paid for by the minute."""
        world, caller = self.begin(HELLO)
        world.prices = PriceTable({"sandbox-live": Price(minute=6.0)})
        caller.dial()
        world.run(10)
        caller.bye()
        self.assertApproximates(self.ended(world).cost, 1.0, 0.05)

    def test_follower(self) -> None:
        """Before a session ends another one takes over with what was said; the caller hears nothing of it."""
        world, caller = self.begin(TALK)
        world.live_life = 400.0
        caller.dial()
        world.run(330)
        self.assertEqual(len(world.voice("session.start")), 2)
        inputs = world.voice("session.start")[1].event["session"]["input"]
        self.assertEqual(inputs[0]["content"][0]["text"], "Good morning!")
        self.speak(world, caller, 1)
        world.run(3)
        self.assertTrue(caller.hears(600, world.clock.seconds() - 3))
        caller.bye()
        record = self.ended(world)
        self.assertEqual([event.what for event in record.events].count("session.moved"), 1)

    def test_lost_and_mended(self) -> None:
        """A connection that breaks is replaced, and the model asks the caller to repeat."""
        world, caller = self.begin(HELLO)
        caller.dial()
        world.run(2)
        world.links[0].lose(False, 1006, "")
        world.run(2)
        self.assertEqual(world.call.state, "talking")
        self.assertIn("repeat", world.voice("session.commentary.append")[-1].event["content"])
        caller.bye()
        self.ended(world)

    def test_wrong_settings(self) -> None:
        """A session that is refused is no answered call, and the owner is told why."""
        world, caller = self.begin(HELLO, manner={"extra": '{"triggers": "no", "colour": 1}'})
        caller.invite()
        world.run(1)
        self.assertEqual(caller.codes[-1], 480)
        self.assertIn("colour", self.ended(world).trouble)
        world.said.clear()

    def test_wrong_key(self) -> None:
        """A key that is not accepted is no answered call."""
        world, caller = self.begin('on connect: refuse 401 "Unauthorized"\n' + HELLO)
        caller.invite()
        world.run(1)
        self.assertEqual(caller.codes[-1], 480)
        self.assertIn("key", self.ended(world).trouble)
