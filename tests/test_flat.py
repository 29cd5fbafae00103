"""Whole calls with a server that speaks the flat form of the beta and 24 kHz PCM, and refuses anything else."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.memory import BOT, Caller, World, bot

TALK = """
speed 4
on greet: tone 440 for 1 s "Good morning!"
on speech:
    heard "Add one, please." after 300 ms
    call add {"a": 1}
on output: tone 600 for 2 s "It is five."
"""


class Flat(SynchronousTestCase):
    def begin(self, **manner: Any) -> tuple[World, Caller]:
        world = World(dedent(TALK), bot(ai_url="ws://127.0.0.1:8000/v1/realtime", manner=replace(BOT.manner, **manner)))
        world.flat = True
        world.gives("add", "5")
        return world, Caller(world)

    def over(self, world: World, caller: Caller) -> None:
        caller.bye()
        world.drain()
        self.assertEqual(world.left(), [])

    def test_conversation(self) -> None:
        """Greeting, caller, function and answer: both sides hear each other, and the transcript is whole."""
        world, caller = self.begin(dialect="beta")
        caller.dial()
        world.run(1.5)
        self.assertTrue(caller.hears(440))
        caller.hz = 800
        world.run(1)
        caller.hz = 0
        world.run_until(lambda: caller.hears(600), 10)
        self.over(world, caller)
        lines = [(line.speaker, line.text) for line in world.record.transcript]
        self.assertEqual(lines[:2], [("bot", "Good morning!"), ("caller", "Add one, please.")])
        self.assertEqual([said.event["error"] for said in world.voice("error")], [])

    def test_barge_in(self) -> None:
        """The bot stops although the server cannot shorten what it has said: it is not asked to."""
        world, caller = self.begin(dialect="beta", echo_gate=False)
        caller.dial()
        world.run(0.5)
        caller.hz = 800
        world.run(1)
        caller.hz = 0
        self.assertFalse(caller.hears(440, world.clock.seconds() - 0.4))
        self.over(world, caller)
        self.assertTrue(world.record.transcript[0].interrupted)
        self.assertEqual(world.voice("error"), [])

    def test_wrong_dialect(self) -> None:
        """A server that is taken for another kind refuses the settings, and the caller never hears noise."""
        world, caller = self.begin()
        caller.invite()
        world.run(1)
        self.assertEqual(caller.codes[-1], 480)
        world.drain()
        self.assertIn("refused the settings", world.record.trouble)
        self.assertEqual(world.left(), [])
