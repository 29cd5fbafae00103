"""What comes at a bad moment or goes wrong, on whole calls: what the server is sent, and what the caller hears."""

from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import pairwise
from typing import Any

from extenbot.errors import ToolFailed
from extenbot.media import g711
from tests.case import Case
from tests.memory import ADD, BOT, Caller, World, bot

HELLO = 'on greet: tone 440 for 500 ms "Good morning!"\n'


class SpeakerPhone(Caller):
    """A loudspeaker: what it plays comes back 120 ms later, 12 dB softer."""

    def sound(self, size: int) -> bytes:
        if self.hz or len(self.packets) < 6:
            return super().sound(size)
        heard = memoryview(g711.to_linear(self.codec, self.packets[-6][1].payload)).cast("h")
        return g711.from_linear(self.codec, array("h", [sample // 4 for sample in heard]).tobytes())


class Scenarios(Case):
    def dialled(self, script: str, *bots: Any) -> tuple[World, Caller]:
        world, caller = self.begin(HELLO + script, *bots)
        caller.dial()
        return world, caller

    def goes_on(self, world: World, caller: Caller) -> Any:
        """Packets have left every 20 ms all the time, and the call ends as calls do."""
        gaps = {round(after - before, 3) for (before, _), (after, _) in pairwise(caller.packets)}
        self.assertEqual(gaps, {0.02})
        caller.bye()
        world.run_until(lambda: world.records, 3)
        return self.ended(world, "caller hung up")

    def hears(self, caller: Caller, hz: int) -> float:
        """Since when the caller hears a tone, to 0.1 s; fails when that is never."""
        for tenth in range(1, 300):
            if caller.hears(hz, tenth / 10, tenth / 10 + 0.1):
                return tenth / 10
        raise self.failureException(f"{hz} Hz was not heard")

    def on_speaker_phone(self, *, gate: bool, speaks: bool = False) -> World:
        """Eight seconds of a bot that talks to somebody with a loudspeaker, who speaks over it or does not."""
        hertz = (300, 500, 400, 700, 350, 600) * 5
        syllables = "".join(f"    tone {each} for 180 ms\n    silence 90 ms\n" for each in hertz)
        world = World(f"speed 4\n{HELLO}after 1 s:\n{syllables}", bot(manner=replace(BOT.manner, echo_gate=gate)))
        self.addCleanup(self.nothing_left, world)
        caller = SpeakerPhone(world)
        caller.dial()
        world.run(5)
        caller.hz = 800 if speaks else 0
        world.run(3)
        caller.bye()
        world.run_until(lambda: world.records, 3)
        return world

    def test_speaker_phone(self) -> None:
        """The bot is not interrupted by its own words from a loudspeaker, but by who speaks there."""
        self.assertEqual(self.on_speaker_phone(gate=True).voice("input_audio_buffer.speech_started"), [])
        self.assertNotEqual(self.on_speaker_phone(gate=False).voice("conversation.item.truncate"), [])
        [truncated] = self.on_speaker_phone(gate=True, speaks=True).voice("conversation.item.truncate")
        self.assertGreater(truncated.at, 5)

    def test_interrupted_before_the_first_packet(self) -> None:
        """Who speaks before the first packet of an answer never hears it, and the server is told to forget it."""
        started = '{"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": "u9"}'
        world, caller = self.dialled(
            f'after 2 s:\n    speed 0\n    tone 700 for 5 s "Nobody hears this."\n    send {started}\n    hang'
        )
        world.run(4)
        [deleted] = world.voice("conversation.item.delete")
        said = {part.event["item_id"] for part in world.voice("response.output_audio.delta") if part.at > 2}
        self.assertEqual(said, {deleted.event["item_id"]})
        self.assertEqual(world.voice("conversation.item.truncate"), [])
        self.assertRaises(self.failureException, self.hears, caller, 700)
        self.goes_on(world, caller)

    def test_two_functions_one_slow_one_failing(self) -> None:
        """The caller hears one answer, when both are known: the one that failed is told in words, in its place."""
        sub = replace(ADD, id="f2", name="sub", description="")
        script = "after 1 s:\n    call add {}\n    call sub {}\non output: tone 600 for 500 ms"
        world, caller = self.begin(HELLO + script, bot(functions=(ADD, sub)))
        slow = world.waits("add")
        world.gives("sub", ToolFailed("the shop is closed."))
        caller.dial()
        world.run(2.5)
        self.assertEqual(world.outputs(), [])
        self.assertRaises(self.failureException, self.hears, caller, 600)
        slow.callback("5")
        world.run(1.5)
        self.assertEqual(world.outputs(), ["5", "The function failed: the shop is closed."])
        self.hears(caller, 600)
        outputs = [said.at for said in world.voice("conversation.item.create")]
        creates = [said.at for said in world.voice("response.create") if said.at >= outputs[-1]]
        self.assertEqual(len(creates), 1)
        self.goes_on(world, caller)

    def test_another_response_is_active(self) -> None:
        """A request that another response was quicker than is sent once more, and the caller hears the answer."""
        world, caller = self.dialled(
            "after 1 s: call add {}\n"
            'on output 1: refuse conversation_already_has_active_response "Wait."\n'
            "on output 2: tone 600 for 500 ms\n"
            "on response: tone 600 for 500 ms"
        )
        world.gives("add", "5")
        world.run(5)
        self.assertEqual(len(world.voice("error")), 1)
        self.assertEqual(len(world.voice("response.create")), 3)
        self.hears(caller, 600)
        self.goes_on(world, caller)

    def test_unknown_events(self) -> None:
        """What nobody knows, in between and in any shape, is heard by nobody."""
        world, caller = self.dialled(
            'every 1 s: send {"type": "response.hologram.delta", "delta": [1]}\non speech: tone 600 for 500 ms'
        )
        world.run(2)
        caller.hz = 800
        world.run(1)
        caller.hz = 0
        world.run(3)
        self.assertGreater(len(world.voice("response.hologram.delta")), 3)
        self.hears(caller, 440)
        self.hears(caller, 600)
        self.assertEqual(world.voice("error"), [])
        self.goes_on(world, caller)

    def test_transcripts_late_and_failed(self) -> None:
        """Words that come after the answer stand before it in the record; those that never come are no line."""
        world, caller = self.dialled(
            'on speech 1:\n    heard "Where are you?" after 3 s\n    tone 600 for 500 ms "Here."\n'
            'on speech 2:\n    heard failed\n    tone 700 for 500 ms "There."'
        )
        for _ in range(2):
            world.run(2)
            caller.hz = 800
            world.run(1)
            caller.hz = 0
            world.run(3)
        self.hears(caller, 600)
        self.hears(caller, 700)
        record = self.goes_on(world, caller)
        self.assertEqual(
            [line.text for line in record.transcript], ["Good morning!", "Where are you?", "Here.", "There."]
        )
        self.assertEqual(len([event for event in record.events if event.what == "transcript.failed"]), 1)
