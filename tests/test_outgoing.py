"""Calls that a bot makes, on one fake clock in memory: by a PBX that registered here, to whoever it can reach."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed, Refused
from extenbot.interfaces import CallRecord
from extenbot.settings import Limits
from extenbot.sip.message import Request
from tests.memory import Caller, Fault, World, bot, offer

TALK = """
speed 4
on greet: tone 440 for 1 s "Good morning!"
on speech:
    heard "Who is it?" after 300 ms
    tone 600 for 1 s "Eva."
"""


class Case(SynchronousTestCase):
    """A PBX has registered as the bot; after each test everything has been given back."""

    def begin(self, script: str = TALK, *bots: Any, **options: Any) -> tuple[World, Caller]:
        world = World(dedent(script), *bots, **options)
        self.addCleanup(self.nothing_left, world)
        phone = Caller(world, codec=options.pop("codec", "PCMU"))
        phone.register()
        world.run(0.1)
        self.news: list[str] = []
        return world, phone

    def nothing_left(self, world: World) -> None:
        world.drain()
        world.registrar.forget("eva")
        self.assertEqual(world.left(), [])

    def place(self, world: World, target: str = "100") -> Request:
        """The INVITE of a call that was ordered."""
        world.switch.place(world.bots["eva"], target, self.news.append)
        world.run(0.1)
        [phone] = world.phones.values()
        return phone.asked("INVITE")[-1]

    def up(self, script: str = TALK, *bots: Any, **options: Any) -> tuple[World, Caller]:
        world, phone = self.begin(script, *bots, **options)
        self.place(world)
        phone.ring()
        world.run(0.5)
        phone.pick_up()
        world.run(0.02)
        return world, phone

    def ended(self, world: World, reason: str) -> CallRecord:
        world.run(3)
        self.assertEqual(world.switch.calls, ())
        self.assertEqual(world.record.end_reason, reason)
        self.assertEqual(self.news[-1], f"ended: {reason}")
        return world.record


class Outgoing(Case):
    def test_whole_call(self) -> None:
        """A bot calls an extension of its PBX, greets when it is picked up, talks, and the person hangs up."""
        world, phone = self.begin()
        invite = self.place(world)
        self.assertEqual(str(invite.uri), "sip:100@192.0.2.10:5060")
        self.assertEqual(invite.from_.uri.user, "eva")
        phone.ring()
        world.run(3)
        self.assertEqual(self.news, ["ringing"])
        self.assertEqual(phone.packets, [])
        picked_up = world.clock.seconds()
        phone.pick_up()
        world.run(1.5)
        self.assertEqual(self.news, ["ringing", "answered"])
        self.assertTrue(phone.hears(440, picked_up, picked_up + 0.3))
        phone.hz = 800
        world.run(1)
        phone.hz = 0
        world.run(2)
        self.assertTrue(phone.hears(600))
        phone.bye()
        record = self.ended(world, "caller hung up")
        self.assertTrue(record.outgoing)
        self.assertEqual((record.caller, record.dialled), ("eva", "sip:100@192.0.2.10:5060"))
        self.assertEqual([line.text for line in record.transcript], ["Good morning!", "Who is it?", "Eva."])
        self.assertEqual(len(phone.asked("ACK")), 1)

    def test_other_law(self) -> None:
        """A phone that takes A-law only hears the bot and is heard, whatever law the voice speaks."""
        world, phone = self.begin()
        self.place(world)
        phone.codec, phone.kind = "PCMA", 8
        phone.pick_up()
        world.run(1.5)
        self.assertTrue(phone.hears(440))
        phone.hz = 800
        world.run(1)
        phone.hz = 0
        world.run(2)
        self.assertTrue(phone.hears(600))
        phone.bye()
        self.assertEqual(self.ended(world, "caller hung up").codec, "PCMA")

    def test_early_media(self) -> None:
        """The ringing tone that a PBX sends as audio is not taken for somebody who speaks."""
        world, phone = self.begin()
        invite = self.place(world)
        phone.ring(183, "Session Progress", offer("0 101", address=phone.media))
        phone._learn(invite.body)
        phone.hz = 800
        world.run(3)
        phone.hz = 0
        phone.pick_up()
        world.run(2)
        self.assertEqual(world.voice("input_audio_buffer.speech_started"), [])
        self.assertTrue(phone.hears(440))
        phone.bye()
        self.ended(world, "caller hung up")

    def test_by_a_registration(self) -> None:
        """A bot that is registered at a PBX calls by it: the PBX's own number, with the login that it gave out."""
        world, phone = self.begin()
        registrant = replace(bot(), id="b2", kind="registrant", username="300", password="pbx", domain="192.0.2.10")
        world.bots["300"] = registrant
        world.registrants.set("b2", registrant)
        world.run(0.1)
        world.switch.place(registrant, "tel:+49-30-123456", self.news.append)
        world.run(0.1)
        [invite] = phone.asked("INVITE")
        self.assertEqual(str(invite.uri), "sip:+4930123456@192.0.2.10")
        self.assertEqual(str(invite.from_.uri), "sip:300@192.0.2.10")
        phone.decline(407, "Proxy Authentication Required", 'Proxy-Authenticate: Digest realm="pbx", nonce="1"\r\n')
        world.run(0.1)
        again = phone.asked("INVITE")[-1]
        self.assertIn('username="300"', again.first("proxy-authorization") or "")
        phone.pick_up()
        world.run(1.5)
        self.assertTrue(phone.hears(440))
        phone.bye()
        record = self.ended(world, "caller hung up")
        self.assertEqual((record.caller, record.dialled), ("300", "sip:+4930123456@192.0.2.10"))
        world.registrants.stop()
        world.run(5)

    def test_parameters_of_the_contact(self) -> None:
        """Asterisk tells by a parameter of its Contact which trunk a call belongs to: it comes back with any number."""
        world, phone = self.begin()
        phone.parameters, phone._authorization = ";transport=udp;line=xvbqtdb", ""
        phone.register()
        world.run(0.1)
        invite = self.place(world, "0049 (30) 123456")
        self.assertEqual(str(invite.uri), "sip:004930123456@192.0.2.10:5060;transport=udp;line=xvbqtdb")
        invite = self.place(world, "sip:anna@pbx.example")
        self.assertEqual(str(invite.uri), "sip:anna@pbx.example")
        for call in world.switch.calls:
            call.hang_up("the end of the test")
        world.run(40)

    def test_not_taken(self) -> None:
        """A busy extension ends the call with the PBX's words; nobody was ever spoken to."""
        world, phone = self.begin()
        self.place(world)
        phone.decline(486, "Busy Here")
        record = self.ended(world, "not answered: 486 Busy Here")
        self.assertIsNone(record.answered)
        self.assertEqual(phone.packets, [])

    def test_given_up(self) -> None:
        """Who orders a call and ends it while it rings has it cancelled."""
        world, phone = self.begin()
        self.place(world)
        phone.ring()
        world.run(0.1)
        world.call.hang_up("ended from the console")
        world.run(0.1)
        self.assertEqual(len(phone.asked("CANCEL")), 1)
        phone.decline(487, "Request Terminated")
        self.ended(world, "ended from the console")

    def test_voice_goes_while_it_rings(self) -> None:
        """Without a voice there is no use in the call: it is cancelled before anybody hears silence."""
        world, phone = self.begin('on connect 2: refuse 401 "Unauthorized"')
        self.place(world)
        phone.ring()
        world.run(0.1)
        world.links[0].lose(False, 1006, "")
        world.run(0.1)
        self.assertEqual(len(phone.asked("CANCEL")), 1)
        phone.decline(487, "Request Terminated")
        world.run(1)
        self.assertIn("voice not available", world.record.end_reason)

    def test_no_voice(self) -> None:
        """A voice that refuses is known before anybody's phone rings."""
        world, phone = self.begin('on connect: refuse 401 "wrong key"')
        world.switch.place(world.bots["eva"], "100", self.news.append)
        world.run(1)
        self.assertEqual(phone.asked("INVITE"), [])
        self.assertIn("voice not available", world.record.end_reason)
        self.assertEqual(self.news[-1], f"ended: {world.record.end_reason}")

    def test_answer_of_no_use(self) -> None:
        """An answer without audio that we can speak ends the call at once, with BYE."""
        for sdp in (b"", offer("9")):
            world, phone = self.begin()
            self.place(world)
            phone.pick_up(sdp)
            world.run(0.1)
            self.assertEqual(len(phone.asked("BYE")), 1)
            self.ended(world, "the PBX answered our offer with nothing of use")

    def test_bot_hangs_up(self) -> None:
        """The bot can end a call that it made, after its last word."""
        world, phone = self.up("on greet: call end_call")
        world.run(2)
        self.assertEqual(len(phone.asked("BYE")), 1)
        self.ended(world, "bot hung up")

    def test_refused_at_once(self) -> None:
        """No PBX, a disabled bot, a full house, and what is no number or address: told to who orders."""
        world, _phone = self.begin(TALK, bot(), limits=Limits(calls_per_bot=1))
        eva = world.bots["eva"]
        for target in ("", "a b", "sip:", "http://example.com", "sip:1@h\r\nX: y", "<sip:1@h>"):
            with self.assertRaises(Malformed, msg=target):
                world.switch.place(eva, target, self.news.append)
        with self.assertRaises(Refused):
            world.switch.place(bot(enabled=False), "100", self.news.append)
        with self.assertRaises(Refused):
            world.switch.place(bot(username="nobody"), "100", self.news.append)
        with self.assertRaises(Refused):
            world.switch.place(bot(kind="registrant"), "100", self.news.append)
        self.place(world)
        with self.assertRaises(Refused) as refusal:
            world.switch.place(eva, "100", self.news.append)
        self.assertEqual(refusal.exception.code, 486)
        world.call.hang_up("the end of the test")
        world.run(40)

    def test_service_stops(self) -> None:
        """A stop of the service while it rings cancels the call and writes its record."""
        world, phone = self.begin()
        self.place(world)
        phone.ring()
        world.run(0.1)
        emptied: list[int] = []
        world.switch.close("service stopped", lambda: emptied.append(1))
        world.run(3)
        self.assertEqual((emptied, world.record.end_reason), ([1], "service stopped"))
        phone.decline(487, "Request Terminated")

    def test_any_outside_fault(self) -> None:
        """Whatever call to the outside fails, once: a record is written at most once, and nothing is left."""
        self.news = []
        number = 0
        while True:
            world = World(dedent(TALK))
            phone = Caller(world)
            phone.register()
            world.run(0.1)
            world.outside.fail_at = len(world.outside.calls) + number
            try:
                world.switch.place(world.bots["eva"], "100", self.news.append)
                world.run(0.2)
                if phone.asked("INVITE"):
                    phone.pick_up()
                world.run(1.5)
                phone.bye()
            except Fault:
                pass
            world.drain()
            world.registrar.forget("eva")
            self.flushLoggedErrors()
            self.assertEqual(world.left(), [], number)
            self.assertLessEqual(len(world.records), 1, number)
            if len(world.outside.calls) <= world.outside.fail_at:
                break
            number += 1
        self.assertGreater(number, 20)
