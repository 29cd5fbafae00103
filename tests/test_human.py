"""Whole calls in memory: no dead air, no silent line, no surprise bill, nobody stranded."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import CallRecord
from extenbot.media import g711
from tests.memory import BOT, Caller, World, bot

TALK = """
speed 4
on greet: tone 440 for 1 s "Good morning!"
on speech:
    heard "Where are you?" after 300 ms
    tone 600 for 1 s "Here I am."
"""
ASKED = """
speed 4
on greet: tone 440 for 1 s "Good morning!"
on response: tone 700 for 1 s "Are you still there?"
"""


class Case(SynchronousTestCase):
    def begin(self, script: str, codec: str = "PCMU", **manner: Any) -> tuple[World, Caller]:
        world = World(dedent(script), bot(manner=replace(BOT.manner, **manner)))
        self.addCleanup(self.nothing_left, world)
        return world, Caller(world, codec=codec)

    def nothing_left(self, world: World) -> None:
        world.drain()
        self.assertEqual(world.left(), [])

    def ended(self, world: World, seconds: float = 60.0) -> CallRecord:
        world.run_until(lambda: world.records, seconds)
        return world.record


class Greeting(Case):
    def acked(self, world: World, caller: Caller) -> float:
        """When the ACK came."""
        return [float(line.split()[0]) for line in world.ladder if "--> ACK" in line][-1]

    def test_at_once(self) -> None:
        """The greeting is made while the phone rings: its first sound leaves within 100 ms of the ACK."""
        world, caller = self.begin(
            """
            on greet:
                wait 800 ms
                tone 440 for 1 s "Good morning!"
            """
        )
        caller.dial()
        self.assertEqual(caller.codes, [100, 180, 200])
        world.run(2)
        acked = self.acked(world, caller)
        self.assertGreater(acked, 0.8)
        self.assertTrue(caller.hears(440, acked, acked + 0.12))
        self.assertLess(self.first(caller) - acked, 0.1)
        self.assertEqual(world.call.journal.events[0].what, "invited")
        caller.bye()

    def first(self, caller: Caller) -> float:
        """When the first packet of words came."""
        return next(at for at, packet in caller.packets if packet.marker)

    def test_late(self) -> None:
        """A greeting that is long in coming does not let the phone ring for ever."""
        world, caller = self.begin("on greet:\n    wait 5 s\n    tone 440 for 1 s")
        caller.dial()
        self.assertApproximates(self.acked(world, caller), 1.5, 0.1)
        world.run(5)
        self.assertTrue(caller.hears(440))
        caller.bye()

    def test_fails_meanwhile(self) -> None:
        """A voice that is lost before the answer is no answered call."""
        world, caller = self.begin('on greet:\n    close 4000 "invalid_request_error.model_not_found"')
        caller.invite()
        world.run(1)
        self.assertEqual(caller.codes[-1], 480)
        self.assertIn("no such model", self.ended(world).trouble)

    def test_gives_up_meanwhile(self) -> None:
        """Who hangs up while the greeting is made is answered 487, and nothing is left."""
        world, caller = self.begin("on greet:\n    wait 5 s\n    tone 440 for 1 s")
        caller.invite()
        world.run(0.5)
        self.assertEqual(world.call.state, "readying")
        caller.cancel()
        world.run(0.1)
        self.assertEqual(self.ended(world).end_reason, "caller gave up")

    def test_given_up_costs_as_well(self) -> None:
        """The greeting that was made for a caller who hangs up before the answer counts for the caps of the day."""
        world, caller = self.begin("on greet:\n    wait 800 ms\n    tone 440 for 3 s")
        caller.invite()
        world.run(0.5)
        caller.cancel()
        record = self.ended(world)
        self.assertIsNone(record.answered)
        self.assertGreater(record.cost, 0)
        self.assertAlmostEqual(world.ledger.sums["b1"], record.cost)

    def test_exact(self) -> None:
        """A stored greeting is played as it is, at once, and the model knows that it has been said."""
        world, caller = self.begin(TALK, greeting_exact=True)
        world.sentences.stored["Good morning!"] = g711.tone("PCMU", 950, 1000)
        caller.dial()
        world.run(1.5)
        acked = self.acked(world, caller)
        self.assertLess(self.first(caller) - acked, 0.1)
        self.assertTrue(caller.hears(950, acked, acked + 1))
        self.assertFalse(caller.hears(440))
        self.assertEqual(world.voice("response.create"), [])
        [item] = [said.event["item"] for said in world.voice("conversation.item.create")]
        self.assertEqual(item["role"], "system")
        self.assertIn("Good morning!", item["content"][0]["text"])
        caller.bye()
        [line] = self.ended(world).transcript
        self.assertEqual((line.speaker, line.text), ("bot", "Good morning!"))

    def test_exact_but_none_stored(self) -> None:
        """As long as there is no audio the voice says it itself."""
        world, caller = self.begin(TALK, greeting_exact=True)
        caller.dial()
        world.run(1.5)
        self.assertTrue(caller.hears(440))
        caller.bye()

    def test_notice(self) -> None:
        """Where calls are recorded the notice comes first."""
        world, caller = self.begin(TALK, record=True, record_notice="This call is recorded.")
        caller.dial()
        [create] = world.voice("response.create")
        self.assertIn("This call is recorded. Good morning!", create.event["response"]["instructions"])
        caller.bye()


class Silence(Case):
    def test_left_politely(self) -> None:
        """A caller who says nothing is asked twice, hears a goodbye, then the bot hangs up."""
        world, caller = self.begin(ASKED, silence=5)
        caller.dial()
        record = self.ended(world)
        self.assertEqual(record.end_reason, "the caller said nothing")
        self.assertEqual([line.text for line in record.transcript].count("Are you still there?"), 3)
        asked = [event.at for event in record.events if event.what == "silence"]
        self.assertEqual(len(asked), 2)
        self.assertApproximates(asked[0], 6.5, 1.0)
        self.assertIn("BYE", [request.method for request in caller.requests])
        self.assertTrue(caller.hears(700, record.events[-1].at - 4))

    def test_speaks_again(self) -> None:
        """Who answers is not left."""
        world, caller = self.begin(TALK.replace("on speech", "on response: tone 700 for 1 s\non speech"), silence=5)
        caller.dial()
        world.run(8)
        for _ in range(4):
            caller.hz = 800
            world.run(1)
            caller.hz = 0
            world.run(6)
        self.assertEqual(len(world.switch.calls), 1)
        caller.bye()


class Length(Case):
    def test_longest(self) -> None:
        """The longest duration ends a call politely, and the model knew before."""
        world, caller = self.begin(ASKED, silence=0, longest=2)
        caller.dial()
        record = self.ended(world, 140)
        self.assertEqual(record.end_reason, "longest duration reached")
        told = [said.event["item"]["content"][0]["text"] for said in world.voice("conversation.item.create")]
        self.assertIn("one minute", told[0])
        self.assertIn("goodbye", told[1])
        self.assertApproximates(record.ended - record.started, 123, 4)


class Money(Case):
    def test_cost(self) -> None:
        """The record says what the call has cost, by the price table; while it is up the pages know it, too."""
        world, caller = self.begin(TALK)
        caller.dial()
        world.run(2)
        [live] = world.switch.live("a1")
        self.assertGreater(live.cost, 0)
        self.assertEqual((live.caller, live.state, live.bot_id), ("100", "talking", "b1"))
        self.assertEqual(world.switch.live("a2"), ())
        caller.bye()
        record = self.ended(world)
        usage = record.usage
        paid = usage["input_text"] + usage["input_audio"] + usage["output_text"] + usage["output_audio"]
        self.assertAlmostEqual(record.cost, paid / 1e6)
        self.assertAlmostEqual(world.ledger.sums["b1"], record.cost)

    def test_over_the_cap(self) -> None:
        """A bot over its daily cap takes no call: 480 with the reason, and no session is opened."""
        world, caller = self.begin(TALK)
        world.ledger.caps["b1"] = 1.0
        world.ledger.spent(BOT, 1.0)
        caller.invite()
        world.run(0.5)
        self.assertEqual(caller.codes[-1], 480)
        self.assertIn("the daily cap of the bot is reached", caller.last.first("reason") or "")
        self.assertEqual((world.dialled, world.records), (0, []))

    def test_cap_in_a_call(self) -> None:
        """A call that reaches the cap is ended politely."""
        world, caller = self.begin(ASKED, silence=0)
        world.ledger.caps["b1"] = 1.0
        caller.dial()
        world.run(3)
        world.ledger.spent(BOT, 0.85)
        world.run(3)
        self.assertEqual(len(world.switch.calls), 1)
        world.ledger.spent(BOT, 0.15)
        record = self.ended(world)
        self.assertEqual(record.end_reason, "the cap of the bot is reached")
        self.assertEqual([event.what for event in record.events].count("cap.near"), 1)


class Recording(Case):
    def test_both_sides(self) -> None:
        """The caller is left and the bot right, as it was heard and sent, to the end of the call."""
        world, caller = self.begin(TALK, record=True)
        caller.dial()
        world.run(2)
        caller.hz = 800
        world.run(1)
        caller.hz = 0
        world.run(2)
        caller.bye()
        record = self.ended(world)
        self.assertTrue(record.recorded)
        recording = world.recordings[record.id]
        self.assertTrue(recording.closed)
        samples = memoryview(recording.frames).cast("h")
        left, right = samples[::2].tolist(), samples[1::2].tolist()
        answered = record.answered
        assert answered is not None
        self.assertApproximates(len(left) / 8000, record.ended - answered, 0.1)
        self.assertGreater(max(left), 5000)
        self.assertLess(max(left[:12000]), 100)  # the greeting is not on the caller's side
        self.assertGreater(max(right[:8000]), 5000)

    def test_off(self) -> None:
        """Nothing is recorded where the owner did not ask for it."""
        world, caller = self.begin(TALK)
        caller.dial()
        world.run(1)
        caller.bye()
        self.assertFalse(self.ended(world).recorded)
        self.assertEqual(world.recordings, {})

    def test_fails(self) -> None:
        """What goes wrong with the recording is in the timeline; the call goes on."""
        world, caller = self.begin(TALK, record=True)
        caller.dial()
        world.recordings[world.call.id].failed("the disk is full")
        world.run(1)
        caller.bye()
        self.assertIn("recording.failed", [event.what for event in self.ended(world).events])
