"""When the voice fails: what the PBX is told before the answer, and what the caller gets after it."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import BackendLost, Refused
from extenbot.failure import Apology, refusal, sorry
from extenbot.interfaces import Bot, CallRecord
from extenbot.media import g711
from extenbot.media.playout import PlayoutQueue
from tests.clock import Clock
from tests.memory import BOT, Caller, World, bot

BUSY = BackendLost("busy", 'The voice service is "overloaded".')
KEY = BackendLost("wrong_key", "The voice service does not accept this key.")
LOST = """
speed 4
on greet: tone 440 for 500 ms "Good morning!"
after 2 s: close 4000 "invalid_request_error.model_not_found"
"""
SORRY = "We are sorry."


def manner(**fields: Any) -> Bot:
    return bot(manner=replace(BOT.manner, **fields))


class Refusal(SynchronousTestCase):
    def test_by_the_cause(self) -> None:
        """Without a wish of the owner: 480 where the owner must act, 503 where later may do, with the reason."""
        code, headers = refusal(BOT, KEY, "pbx")
        self.assertEqual(code, 480)
        [(name, reason)] = headers
        self.assertEqual((name, reason), ("Reason", 'SIP;cause=480;text="The voice service does not accept this key."'))
        code, headers = refusal(BOT, BUSY, "pbx")
        self.assertEqual(code, 503)
        self.assertIn('text="The voice service is overloaded."', headers[0][1])
        self.assertEqual(headers[1], ("Retry-After", "10"))

    def test_as_the_owner_says(self) -> None:
        """The same answer for every cause."""
        self.assertEqual(refusal(manner(refusal="503"), KEY, "pbx")[0], 503)
        self.assertEqual(refusal(manner(refusal="480"), BUSY, "pbx")[0], 480)

    def test_elsewhere(self) -> None:
        """302 with the Contact; a bare number is one at the PBX."""
        for uri, contact in (("sip:9@192.0.2.9", "<sip:9@192.0.2.9>"), ("600", "<sip:600@pbx.example>")):
            code, headers = refusal(manner(refusal="302", refusal_uri=uri), BUSY, "pbx.example")
            self.assertEqual(code, 302)
            self.assertIn(("Contact", contact), headers)

    def test_nowhere(self) -> None:
        """A 302 to no place that there can be is no 302."""
        self.assertEqual(refusal(manner(refusal="302", refusal_uri="sip:"), BUSY, "pbx")[0], 503)


class Apologies(SynchronousTestCase):
    def begin(self) -> None:
        self.clock, self.playout, self.said = Clock(), PlayoutQueue("PCMU"), 0
        self.playout.add("before", b"\x01" * 320)
        self.playout.finish("before")
        self.playout.held = True
        self.apology = Apology(self.clock, self.playout, b"\x02" * 800, self.over)

    def over(self) -> None:
        self.said += 1

    def test_heard_to_its_end(self) -> None:
        """What the bot had said before is heard, then the sentence, then it goes on, once."""
        self.begin()
        frames = [self.playout.next(160) for _ in range(8)]
        self.assertEqual(frames, [b"\x01" * 160] * 2 + [b"\x02" * 160] * 5 + [None])
        self.assertEqual(self.said, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_heard(self) -> None:
        """A caller on hold does not keep it waiting for ever."""
        self.begin()
        self.clock.advance(5)
        self.assertEqual(self.said, 0)
        self.clock.advance(0.25)
        self.assertEqual(self.said, 1)

    def test_behind_a_long_answer(self) -> None:
        """However much the bot had to say before, the sentence is heard to its end."""
        clock, playout = Clock(), PlayoutQueue("PCMU")
        playout.add("before", b"\x01" * 160 * 1000)
        playout.finish("before")
        self.said = 0
        Apology(clock, playout, b"\x02" * 160 * 50, self.over)
        frames = []
        while not self.said:
            frames.append(playout.next(160))
            clock.advance(0.02)
        self.assertEqual(frames[:1050], [b"\x01" * 160] * 1000 + [b"\x02" * 160] * 50)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """After the end of the call nothing follows."""
        self.begin()
        self.apology.stop()
        while self.playout.next(160):
            pass
        self.playout.next(160)
        self.assertEqual((self.said, self.clock.getDelayedCalls()), (0, []))

    def test_tone(self) -> None:
        """Without a sentence there is the tone that every telephone has for it, in both laws."""
        for law in ("PCMU", "PCMA"):
            self.assertEqual(len(sorry(law)), 1990 * 8)
            self.assertEqual(sorry(law)[: 330 * 8], g711.tone(law, 950, 330))


class Calls(SynchronousTestCase):
    def up(self, script: str, **fields: Any) -> tuple[World, Caller]:
        world = World(dedent(script), manner(**fields))
        self.addCleanup(self.nothing_left, world)
        world.sentences.stored[SORRY] = g711.tone("PCMU", 1000, 1000)
        caller = Caller(world)
        return world, caller

    def nothing_left(self, world: World) -> None:
        world.drain()
        self.assertEqual(world.left(), [])

    def ended(self, world: World) -> CallRecord:
        world.run_until(lambda: world.records)
        return world.record

    def test_elsewhere(self) -> None:
        """Before the answer the PBX is sent elsewhere when the owner says so; the record has the trouble in words."""
        world, caller = self.up("on connect: refuse 401", refusal="302", refusal_uri="sip:9@192.0.2.9")
        caller.invite()
        world.run(0.5)
        self.assertEqual(caller.codes[-1], 302)
        self.assertEqual(caller.last.first("contact"), "<sip:9@192.0.2.9>")
        self.assertEqual(self.ended(world).trouble, "The voice service does not accept this key (HTTP 401).")

    def test_sentence_and_end(self) -> None:
        """After the answer the caller hears the stored sentence to its end, then the call ends; none is silent."""
        world, caller = self.up(LOST, failure_sentence=SORRY)
        caller.dial()
        world.run_until(lambda: world.records)
        self.assertTrue(caller.hears(1000, 2.0, 3.2))
        self.assertIn("BYE", [request.method for request in caller.requests])
        [ended] = [event for event in world.record.events if event.what == "ended"]
        self.assertApproximates(ended.at, 3.1, 0.2)
        self.assertIn("voice lost: The voice service has no such model", world.record.end_reason)
        self.assertIn("no such model", world.record.trouble)

    def test_tone_and_transfer(self) -> None:
        """Without a sentence the caller hears a tone, and is transferred where the owner says."""
        world, caller = self.up(LOST, failure_uri="300")
        caller.dial()
        world.run_until(lambda: any(request.method == "REFER" for request in caller.requests))
        [refer] = [request for request in caller.requests if request.method == "REFER"]
        self.assertIn("sip:300@", refer.first("refer-to") or "")
        self.assertTrue(caller.hears(1400, 2.0))
        caller.notify("200 OK", over=True)
        world.run(0.2)
        self.assertRegex(self.ended(world).end_reason, "^voice lost: .* no such model.*[^.]; transferred to 300$")

    def test_transfer_fails(self) -> None:
        """A transfer that fails leaves nobody in silence: the call ends, and the record says both."""
        world, caller = self.up(LOST, failure_uri="300")
        caller.dial()
        world.run_until(lambda: any(request.method == "REFER" for request in caller.requests))
        caller.notify("486 Busy Here", over=True)
        world.run(0.2)
        self.assertIn("the transfer failed: The line is busy (486 Busy Here)", self.ended(world).end_reason)

    def test_hangs_up_meanwhile(self) -> None:
        """Who hangs up while the sentence is spoken leaves nothing behind."""
        world, caller = self.up(LOST, failure_sentence=SORRY)
        caller.dial()
        world.run_until(lambda: world.call.state == "failing")
        caller.bye()
        world.run(0.1)
        self.assertEqual(self.ended(world).end_reason, "caller hung up")

    def test_not_even_begun(self) -> None:
        """A bot over its daily cap takes no call, and makes none: whoever orders one is told why."""
        world, caller = self.up("on greet: hang")
        world.ledger.caps["b1"] = 1.0
        world.ledger.spent(BOT, 1.0)
        caller.invite()
        world.run(0.5)
        self.assertEqual(caller.codes, [480])
        self.assertEqual(caller.last.first("reason"), 'SIP;cause=480;text="the daily cap of the bot is reached"')
        refused = self.assertRaises(Refused, world.switch.place, world.bots["eva"], "100", lambda _: None)
        self.assertEqual(str(refused), "the daily cap of the bot is reached")
        self.assertEqual((world.dialled, world.opened, world.records), (0, 0, []))

    BEFORE = (
        ("on connect: refuse 401", 480, "does not accept this key (HTTP 401)"),
        ('on open: error insufficient_quota "No."', 480, "no credit left"),
        ('on greet: fail insufficient_quota "No."', 480, "no credit left"),
        ('on greet: fail odd "Odd"\non response: fail odd "Odd"', 503, "failed to answer twice: Odd"),
        ('on greet: refuse odd "Odd"\non response: refuse odd "Odd"', 503, "failed to answer twice: Odd"),
        ("on connect: refuse 404", 480, "no such model"),
        ('on update: refuse invalid_value "Wrong voice" param session.voice', 480, "refused the settings of this bot"),
        ("on connect: refuse 429", 503, "too many requests"),
        ("on connect: refuse 503", 503, "internal error"),
        ('on open: close 1013 "later"', 503, "overloaded"),
        ("on open: drop", 503, "cannot be reached"),
        ("on open: hang", 503, "not ready within 10 s"),
        (
            'on update: effective {"audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}}}}',
            503,
            "does not use the codec of the call",
        ),
    )

    def test_each_cause_before_the_answer(self) -> None:
        """Whatever keeps the voice away is a refusal of the call within its time, tried once, in the owner's words."""
        for script, code, words in self.BEFORE:
            world, caller = self.up(script)
            caller.invite()
            world.run(10.5)
            self.assertEqual(caller.codes, [100, 180, code], script)
            self.assertIn(words, world.record.trouble, script)
            self.assertEqual(world.record.end_reason, f"voice not available: {world.record.trouble}")
            self.assertEqual((world.dialled, caller.packets), (1, []), script)

    HELLO = 'speed 4\non greet: tone 440 for 500 ms "Hello"\n'
    AFTER = (
        (HELLO + 'after 2 s: error insufficient_quota "No."', "no credit left"),
        (HELLO + 'on speech: fail insufficient_quota "No."', "no credit left"),
        (
            'speed 0\non greet: tone 440 for 15 s "A long story"\nevery 1 s: error insufficient_quota "No."',
            "no credit left",
        ),
        (HELLO + 'after 2 s: close 3000 "invalid_request_error.invalid_api_key"', "does not know this key"),
        (HELLO + "after 2 s: drop\non connect: wait 10 ms\non connect 2: refuse 401", "does not accept this key"),
        (HELLO + "after 2 s: drop", "connection to the voice service was lost"),
        (HELLO + 'on speech: fail server_error "Oops"\non response: fail server_error "Oops"', "Oops"),
        (
            HELLO + 'on speech: fail rate_limit_exceeded "Wait"\non response: fail rate_limit_exceeded "Wait"',
            "failed to answer twice: Wait",
        ),
        (HELLO + 'on speech: fail odd "Odd"\non response: fail odd "Odd"', "failed to answer twice: Odd"),
        (HELLO + 'on speech: text "Written"\non response: text "Written"', "without a word"),
        (HELLO + "on speech: hang\non response: hang", "silent for 8 seconds"),
        (HELLO + "on speech: ignore\non response: ignore", "silent for 8 seconds"),
    )

    def test_each_cause_after_the_answer(self) -> None:
        """Whatever takes the voice away in a call: the caller hears the sentence to its end, and nothing goes on."""
        for script, words in self.AFTER:
            world, caller = self.up(script, failure_sentence=SORRY)
            caller.dial()
            world.run(1.5)
            caller.hz = 800
            world.run(1)
            caller.hz = 0
            world.run_until(lambda world=world: world.records, 40)  # type: ignore[misc]
            end = world.clock.seconds()
            self.assertIn(words, world.record.trouble, script)
            self.assertEqual(world.record.end_reason, f"voice lost: {world.record.trouble}")
            self.assertTrue(caller.hears(1000, end - 1.1), script)
            self.assertLess(world.dialled, 10, script)
            self.assertLess(len(world.voice("response.create")), 8, script)
            self.assertEqual(len(caller.asked("BYE")), 1, script)
