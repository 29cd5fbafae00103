"""What tests of whole calls have in common."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import CallRecord, Manner
from tests.memory import Caller, World

GREETING = """
speed 4
on greet: tone 440 for 1 s "Good morning!"
"""

STORY = """
speed {speed}
late deltas {late}
on greet: tone 440 for 10 s "Once upon a time there was a very long story that nobody wanted to hear"
on speech:
    heard "Stop!"
    tone 600 for 500 ms "Sorry."
"""
"""Much to say, and a caller who stops it."""

PLAIN = Manner(echo_gate=False)
"""Until the gate knows that there is no echo it gives the caller's first words 0.2 to 0.4 s late."""


class Case(SynchronousTestCase):
    """After each test everything has been given back."""

    def begin(self, script: str = GREETING, *bots: Any, **options: Any) -> tuple[World, Caller]:
        world = World(dedent(script), *bots, **options)
        self.addCleanup(self.nothing_left, world)
        return world, Caller(world)

    def nothing_left(self, world: World) -> None:
        world.drain()
        self.assertEqual(world.left(), [])

    def up(self, script: str = GREETING, *bots: Any, **options: Any) -> tuple[World, Caller]:
        world, caller = self.begin(script, *bots, **options)
        caller.dial()
        return world, caller

    def ended(self, world: World, reason: str) -> CallRecord:
        """The call is over for this reason, told once, with nothing held any more but transaction timers."""
        world.run(0.1)
        self.assertEqual(world.switch.calls, ())
        self.assertEqual(world.ports, [])
        self.assertEqual(world.record.end_reason, reason)
        return world.record

    def back(self, world: World, caller: Caller, told: str) -> None:
        """The caller is with the bot again, which knows why and speaks; the call goes on until they hang up."""
        self.assertEqual(world.outputs(), [told])
        self.assertTrue(caller.hears(600))
        self.assertEqual(world.call.state, "talking")
        caller.bye()
        self.ended(world, "caller hung up")
