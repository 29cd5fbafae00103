"""Keys both ways: what the model gets of the caller's, and how it presses its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import CallRecord, Manner, ToolCall, Voice
from extenbot.keypad import COLLECTING, HELD, SENT, WAIT, Keypad
from extenbot.media.dialling import check
from extenbot.media.dtmf import KEYS
from extenbot.media.playout import PlayoutQueue
from tests.clock import Clock
from tests.memory import Caller, World, bot, offer


@dataclass
class MadeUpVoice:
    told_so_far: list[tuple[str, bool, bool]] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)

    def told(self, text: str, *, by_caller: bool = False, speak: bool = True) -> None:
        self.told_so_far.append((text, by_caller, speak))

    def answered(self, call_id: str, output: str, *, speak: bool = True) -> None:
        self.answers.append((call_id, output))


class MadeUpLine:
    def __init__(self) -> None:
        self.playout = PlayoutQueue("PCMU")
        self.dialled: list[str] = []
        self.done: list[Callable[[], None]] = []

    def dial(self, digits: str, done: Callable[[], None]) -> None:
        self.dialled.append(check(digits))
        self.done.append(done)


class Log:
    def happened(self, what: str, /, **fields: object) -> None: ...

    def elapsed(self) -> float:
        return 0.0


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.voice, self.line, self.listening = Clock(), MadeUpVoice(), MadeUpLine(), True
        self.keypad = Keypad(self.clock, cast(Voice, self.voice), self.line, Log(), lambda: self.listening)
        self.addCleanup(self.nothing_left)

    def nothing_left(self) -> None:
        self.keypad.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def run_for(self, seconds: float) -> None:
        for _ in range(round(seconds * 8)):
            self.clock.advance(0.125)

    def press(self, keys: str) -> None:
        for key in keys:
            self.keypad.pressed(key)
            self.clock.advance(0.125)

    def speak(self) -> None:
        """The bot has something to say."""
        self.line.playout.add("item", bytes(800))

    def hush(self) -> None:
        self.line.playout.cut()

    def collect(self, **arguments: Any) -> None:
        self.keypad.collect(ToolCall("k1", "collect_digits", arguments))

    def send(self, digits: Any, call_id: str = "k1") -> None:
        self.keypad.send(ToolCall(call_id, "send_digits", {"digits": digits}))


class Messages(Case):
    def test_until_hash(self) -> None:
        """All keys up to # are one message of the caller's, at once."""
        self.press("12")
        self.assertEqual(self.voice.told_so_far, [])
        self.press("34#")
        self.assertEqual(self.voice.told_so_far, [("[The caller pressed 1234#]", True, True)])
        self.run_for(5)
        self.assertEqual(len(self.voice.told_so_far), 1)

    def test_after_a_pause(self) -> None:
        """Without # they are a message when no further key has come for 2 s."""
        self.press("1")
        self.run_for(1.75)
        self.press("2")
        self.run_for(1.75)
        self.assertEqual(self.voice.told_so_far, [])
        self.run_for(0.25)
        self.assertEqual(self.voice.told_so_far, [("[The caller pressed 12]", True, True)])

    def test_while_nobody_listens(self) -> None:
        """What is pressed while the caller is being transferred is noted by the model without a word."""
        self.listening = False
        self.press("5#")
        self.assertEqual(self.voice.told_so_far, [("[The caller pressed 5#]", True, False)])

    def test_no_end(self) -> None:
        """Who leans on the keys does not fill the memory."""
        self.press("1" * 200)
        self.assertEqual(len(self.voice.told_so_far), 3)

    def test_stopped(self) -> None:
        """Nothing is told after the end of the call."""
        self.press("1")
        self.keypad.stop()
        self.run_for(3)
        self.assertEqual(self.voice.told_so_far, [])


class Collecting(Case):
    def test_length(self) -> None:
        """With as many keys as were asked for it is complete; the next one is a message again."""
        self.collect(length=4)
        self.press("1234")
        self.assertEqual(self.voice.answers, [("k1", "The caller pressed 1234.")])
        self.press("5#")
        self.assertEqual(self.voice.told_so_far, [("[The caller pressed 5#]", True, True)])
        self.assertEqual(len(self.voice.answers), 1)

    def test_terminator(self) -> None:
        """The closing key is # or the one that the model chose, or none."""
        self.collect()
        self.press("12*#")
        self.collect(terminator="*")
        self.press("3#*")
        self.collect(terminator="", length=3)
        self.press("#*#")
        self.collect()
        self.press("#")
        self.assertEqual(
            [output for _, output in self.voice.answers],
            [
                "The caller pressed 12* and then #.",
                "The caller pressed 3# and then *.",
                "The caller pressed #*#.",
                "The caller pressed nothing and then #.",
            ],
        )
        self.assertEqual(self.voice.told_so_far, [])

    def test_time_out(self) -> None:
        """When no further key comes the model gets what there is."""
        self.collect(timeout=3)
        self.run_for(2.5)
        self.press("1")
        self.run_for(2.5)
        self.assertEqual(self.voice.answers, [])
        self.run_for(0.75)
        self.assertEqual(self.voice.answers, [("k1", "The caller pressed 1, and no further key for 3 seconds.")])

    def test_none(self) -> None:
        """Nobody pressed anything."""
        self.collect()
        self.run_for(9)
        self.assertEqual(self.voice.answers, [("k1", "The caller pressed no key within 8 seconds.")])

    def test_question_first(self) -> None:
        """The time begins when the bot has asked, and stands still while the caller is on hold."""
        self.speak()
        self.collect(timeout=2)
        self.run_for(10)
        self.hush()
        self.listening = False
        self.run_for(10)
        self.assertEqual(self.voice.answers, [])
        self.listening = True
        self.run_for(2.5)
        self.assertEqual(len(self.voice.answers), 1)

    def test_early_keys(self) -> None:
        """Who types into the question is not asked again; what is too much of it is let go."""
        self.press("12")
        self.collect(length=3)
        self.run_for(3)
        self.press("3")
        self.assertEqual(self.voice.answers, [("k1", "The caller pressed 123.")])
        self.press("4567")
        self.collect(length=2)
        self.assertEqual(self.voice.answers[1:], [("k1", "The caller pressed 45.")])
        self.run_for(3)
        self.assertEqual(self.voice.told_so_far, [])

    def test_refused(self) -> None:
        """Two at once, and wishes that mean nothing, are told to the model."""
        self.collect(length=0)
        self.assertIn("length", self.voice.answers[0][1])
        self.collect()
        self.collect()
        self.assertEqual(self.voice.answers[1], ("k1", COLLECTING))


class Sending(Case):
    def test_after_the_words(self) -> None:
        """Keys are pressed when the bot has finished speaking, and the model hears when they are out."""
        self.speak()
        self.send("1, 2#")
        self.run_for(1)
        self.assertEqual(self.line.dialled, [])
        self.hush()
        self.run_for(0.25)
        self.assertEqual(self.line.dialled, ["1,2#"])
        self.assertEqual(self.voice.answers, [])
        self.line.done[0]()
        self.assertEqual(self.voice.answers, [("k1", SENT)])

    def test_in_order(self) -> None:
        """Further keys wait for the ones before, so that the words between them stand between them."""
        self.send("1")
        self.send("2", "k2")
        self.assertEqual(self.line.dialled, ["1"])
        self.line.done[0]()
        self.clock.advance(0)
        self.assertEqual(self.line.dialled, ["1", "2"])
        self.line.done[1]()
        self.assertEqual(self.voice.answers, [("k1", SENT), ("k2", SENT)])

    def test_no_keys(self) -> None:
        """What is no key is told to the model, and the next wish is done."""
        self.send("12x")
        self.assertEqual(
            self.voice.answers[0][1],
            "The keys were not sent: 'X' is no key: there are 0-9, *, #, A-D, and the pauses , and w.",
        )
        self.send(None, "k2")
        self.send("5", "k3")
        self.assertEqual([call for call, _ in self.voice.answers], ["k1", "k2"])
        self.assertEqual(self.line.dialled, ["5"])

    def test_on_hold(self) -> None:
        """On hold nobody hears keys: the model is told so after a while."""
        self.listening = False
        self.send("1")
        self.run_for(WAIT + 0.5)
        self.assertEqual(self.voice.answers, [("k1", HELD)])
        self.assertEqual(self.line.dialled, [])

    def test_stopped(self) -> None:
        """The end of the call lets them go, in whatever way they waited."""
        self.send("1")
        self.send("2", "k2")
        self.keypad.stop()
        self.line.done[0]()
        self.run_for(1)
        self.assertEqual((self.line.dialled, self.voice.answers), (["1"], []))


class Calls(SynchronousTestCase):
    """Whole calls."""

    def up(self, script: str, **manner: Any) -> tuple[World, Caller]:
        world = World(dedent(script), bot(manner=Manner(**manner)))
        self.addCleanup(self.nothing_left, world)
        caller = Caller(world)
        caller.dial()
        return world, caller

    def nothing_left(self, world: World) -> None:
        world.drain()
        self.assertEqual(world.left(), [])

    def press(self, world: World, caller: Caller, keys: str) -> None:
        """Keys as RTP events, 100 ms each, with a lost beginning and a doubled end."""
        [port] = world.ports
        for key in keys:
            for end in (False, True, True):
                caller.sequence += 1
                event = bytes([KEYS.index(key), 0x8A if end else 0x0A, 0x03, 0x20])
                header = (
                    bytes([0x80, 101]) + caller.sequence.to_bytes(2) + caller.timestamp.to_bytes(4) + (7).to_bytes(4)
                )
                port.arrive(header + event, caller.media)
            world.run(0.1)

    def messages(self, world: World) -> list[str]:
        items = [said.event["item"] for said in world.voice("conversation.item.create")]
        return [item["content"][0]["text"] for item in items if item["type"] == "message" and item["role"] == "user"]

    def ended(self, world: World, caller: Caller) -> CallRecord:
        caller.bye()
        world.run(0.1)
        return world.record

    def test_message(self) -> None:
        """The caller presses 42# and the bot answers that."""
        world, caller = self.up("""
            speed 4
            on greet: tone 440 for 500 ms "Press a number."
            on text: tone 600 for 500 ms "Forty-two."
        """)
        world.run(1)
        self.press(world, caller, "42#")
        world.run(1)
        self.assertEqual(self.messages(world), ["[The caller pressed 42#]"])
        self.assertTrue(caller.hears(600, 1.0))
        record = self.ended(world, caller)
        keys = [event.fields["digit"] for event in record.events if event.what == "dtmf"]
        self.assertEqual(keys, ["4", "2", "#"])
        lines = ["Press a number.", "[The caller pressed 42#]", "Forty-two."]
        self.assertEqual([line.text for line in record.transcript], lines)

    def test_somebody_is_there(self) -> None:
        """Who only presses keys is there: nobody is left who types now and then, and who stops is."""
        script = """
            on greet: tone 440 for 100 ms "Hi"
            on text: tone 600 for 100 ms "Yes"
            on response: tone 700 for 100 ms "Hm?"
        """
        world, caller = self.up(script, silence=4)
        for _ in range(8):
            world.run(6)  # asked once each time
            self.press(world, caller, "1#")
        self.assertEqual(len(world.switch.calls), 1)
        world.run(20)
        self.assertEqual(world.record.end_reason, "the caller said nothing")

    def test_info(self) -> None:
        """Keys by SIP INFO are told alike."""
        world, caller = self.up('on greet: tone 440 for 100 ms "Hi"')
        world.run(0.5)
        for key in "7#":
            body = f"Signal={key}\r\nDuration=100\r\n".encode()
            caller.send("INFO", body, headers="Content-Type: application/dtmf-relay\r\n")
            world.run(0.1)
        self.assertEqual(self.messages(world), ["[The caller pressed 7#]"])
        self.ended(world, caller)

    def test_collected(self) -> None:
        """The bot asks for a PIN; the caller types it, and only the tool's answer says so."""
        world, caller = self.up("""
            speed 4
            on greet:
                tone 440 for 500 ms "Your PIN, please."
                call collect_digits {"length": 4, "purpose": "PIN"}
            on output collect_digits: tone 600 for 500 ms "Thank you."
        """)
        world.run(1)
        self.press(world, caller, "1234")
        world.run(1)
        self.assertEqual(world.outputs(), ["The caller pressed 1234."])
        self.assertEqual(self.messages(world), [])
        self.assertTrue(caller.hears(600, 1.0))
        self.ended(world, caller)

    def test_hangs_up_while_asked(self) -> None:
        """Who hangs up while keys are awaited leaves nothing behind."""
        world, caller = self.up("""
            on greet:
                tone 440 for 100 ms "Your PIN, please."
                call collect_digits
        """)
        world.run(1)
        self.press(world, caller, "1")
        self.assertEqual(self.ended(world, caller).end_reason, "caller hung up")

    def test_sent(self) -> None:
        """The bot walks through a menu: its keys leave as RTP events when its words have been heard."""
        world, caller = self.up("""
            speed 4
            on greet:
                tone 440 for 500 ms "Let me see."
                call send_digits {"digits": "12"}
            on output send_digits: tone 600 for 500 ms "Done."
        """)
        world.run(2)
        events = [(at, packet) for at, packet in caller.packets if packet.payload_type == 101]
        self.assertEqual(list(dict.fromkeys(KEYS[packet.payload[0]] for _, packet in events)), ["1", "2"])
        first = events[0][0]
        self.assertGreater(len(caller.heard(until=first).strip(b"\xff")), 3900)  # all of "Let me see."
        spoken = [packet for at, packet in caller.packets if first <= at < events[-1][0] and packet.payload_type == 0]
        self.assertEqual({packet.payload.strip(b"\xff") for packet in spoken}, {b""})
        self.assertEqual(world.outputs(), [SENT])
        self.assertTrue(caller.hears(600, events[-1][0]))
        self.ended(world, caller)

    def test_sent_on_hold(self) -> None:
        """A PBX that has put the bot on hold gets no keys, and the call's end leaves none behind."""
        world, caller = self.up("""
            on greet: tone 440 for 100 ms "Hi"
            after 2 s: call send_digits {"digits": "1"}
        """)
        world.run(1)
        caller.again(offer(direction="sendonly"))
        world.run(5)
        self.assertEqual([packet for _, packet in caller.packets if packet.payload_type == 101], [])
        self.ended(world, caller)
