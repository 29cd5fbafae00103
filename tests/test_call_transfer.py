"""Whole calls that go to somebody else: by REFER, by a call of our own, by Replaces."""

from __future__ import annotations

from typing import Any

from extenbot.transferring import STILL_THERE
from tests.case import GREETING, Case
from tests.memory import Caller, World, bot, offer


class Transfer(Case):
    ASKS = """
    speed 8
    on greet:
        tone 440 for 1 s "I connect you."
        call transfer_call
    on output: tone 600 for 1 s "Nobody is there."
    """

    def refer(self, script: str = ASKS, **changes: Any) -> tuple[World, Caller]:
        world, caller = self.up(script, bot(**changes))
        world.run(0.8)
        self.assertEqual(caller.requests, [])  # speak first
        world.run_until(lambda: caller.asked("REFER"), 1)
        world.run(0.1)
        return world, caller

    def test_success(self) -> None:
        """The caller hears it announced, the PBX connects the call, and we leave."""
        world, caller = self.refer()
        [request] = caller.asked("REFER")
        self.assertEqual(request.first("refer-to"), "<sip:200@192.0.2.10>")
        self.assertApproximates(len(caller.heard().strip(b"\xff")), 8000, 4)
        caller.notify("100 Trying")
        world.run(0.5)
        self.assertEqual(len(world.switch.calls), 1)
        caller.notify("200 OK", over=True)
        world.run(0.1)
        self.assertEqual([request.method for request in caller.requests], ["REFER", "BYE"])
        record = self.ended(world, "transferred")
        news = [(e.fields["code"], e.fields["final"]) for e in record.events if e.what == "transfer"]
        self.assertEqual(news, [(202, False), (100, False), (200, True)])

    def test_failure(self) -> None:
        """Nobody is there: the model is told, speaks, and the call goes on."""
        world, caller = self.refer()
        caller.notify("100 Trying")
        world.run(0.5)
        caller.notify("404 Not Found", over=True)
        world.run(1.5)
        self.back(world, caller, f"There is no such number (404 Not Found). {STILL_THERE}")

    def test_again(self) -> None:
        """After a failure it can be tried again."""
        world, caller = self.refer(self.ASKS + "    call transfer_call")
        caller.notify("486 Busy Here", over=True)
        world.run(1.5)
        caller.notify("200 OK", over=True)
        self.assertEqual(len(caller.asked("REFER")), 2)
        self.ended(world, "transferred")

    def test_pbx_hangs_up(self) -> None:
        """A PBX that ends the call as soon as it is transferred."""
        world, caller = self.refer()
        caller.notify("200 OK", over=True)
        caller.bye()
        self.ended(world, "transferred")

    def test_no_news(self) -> None:
        """A PBX that never says what became of it: after a minute the model is told."""
        world, caller = self.refer()
        caller.talking = False  # the PBX plays music to the caller: nobody is missed
        world.run(59)
        self.assertEqual(world.outputs(), [])
        caller.talking = True
        world.run(2)
        self.assertEqual(world.outputs(), [f"The person did not answer (408 No word of the transfer). {STILL_THERE}"])
        world.run(2)
        self.assertEqual(len(world.switch.calls), 1)
        caller.bye()

    def test_impossible_target(self) -> None:
        """A target that is no address: the model is told at once, nothing is sent."""
        world, caller = self.up(self.ASKS, bot(transfer_uri="mailto:anna@example.net"))
        world.run(3)
        self.assertEqual(caller.requests, [])
        [output] = world.outputs()
        self.assertIn("There is no such number (400 Only a SIP", output)
        caller.bye()

    def test_twice(self) -> None:
        """Asked for while one is under way: the model is told that it is."""
        world, caller = self.refer(self.ASKS + "after 2 s: call transfer_call")
        world.run(3)
        self.assertEqual(world.outputs(), ["The transfer cannot be started now."])
        self.assertEqual(len(caller.asked("REFER")), 1)
        caller.notify("200 OK", over=True)
        self.ended(world, "transferred")

    def test_before_the_ack(self) -> None:
        """Asked for before our 200 is acknowledged: it waits until the caller hears us."""
        world, caller = self.begin("after 500 ms: call transfer_call")
        caller.acks = False
        caller.invite()
        world.run(0.9)
        self.assertEqual((world.call.state, caller.asked("REFER")), ("answering", []))
        caller.acks = True
        world.run_until(lambda: caller.asked("REFER"))
        caller.notify("200 OK", over=True)
        self.ended(world, "transferred")

    def test_meanwhile(self) -> None:
        """While it is under way functions run, and a PBX may put the caller on hold by asking for our offer."""
        world, caller = self.refer(self.ASKS + "after 2 s: call add {}")
        world.gives("add", "5")
        caller.ack_body = offer("0 101", direction="sendonly")
        caller.again(b"")
        world.run(0.1)
        sent = len(caller.packets)
        world.run(1)
        self.assertEqual(world.outputs(), ["5"])
        self.assertEqual(len(caller.packets), sent)
        caller.notify("200 OK", over=True)
        self.ended(world, "transferred")

    def test_caller_hangs_up(self) -> None:
        """A BYE before the PBX has taken the REFER is the caller's; after it the PBX has taken the call over."""
        for taken, reason in ((False, "caller hung up"), (True, "transferred")):
            world, caller = self.begin(self.ASKS)
            caller.yields = taken
            caller.dial()
            world.run_until(lambda caller=caller: caller.asked("REFER"))  # type: ignore[misc]
            world.run(0.1)
            caller.bye()
            self.ended(world, reason)


class Attended(Case):
    """The bot calls whom the caller asks for, and joins the two only when somebody is there."""

    def consult(self, **more: Any) -> tuple[World, Caller, Caller]:
        """The caller waits, the other phone has got our call."""
        world, caller = self.begin(Transfer.ASKS, bot(transfer_mode="attended", **more))
        other = Caller(world, number=1)
        other.own_tag = "other"
        other.register()
        world.run(0.1)
        caller.dial()
        world.run_until(lambda: other.asked("INVITE"), 3)
        return world, caller, other

    def nothing_left(self, world: World) -> None:
        world.registrar.forget("eva")
        super().nothing_left(world)

    def test_joined(self) -> None:
        """The caller hears it ring; when somebody answers the PBX gets both calls to join, and ends ours."""
        world, caller, other = self.consult()
        [invite] = other.asked("INVITE")
        self.assertEqual(str(invite.uri), "sip:200@192.0.2.10:5061")
        self.assertIn(b"a=inactive", invite.body)
        other.ring()
        since = world.clock.seconds()
        world.run(4)
        self.assertTrue(caller.hears(425, since, since + 1))
        self.assertEqual(caller.asked("REFER"), [])
        other.pick_up(offer("0 101", address=other.media, direction="inactive"))
        world.run(0.1)
        [refer] = caller.asked("REFER")
        target = refer.first("refer-to") or ""
        self.assertTrue(target.startswith("<sip:pbx@192.0.2.10:5061?Replaces="), target)
        self.assertIn(f"to-tag%3Dother%3Bfrom-tag%3D{invite.from_.tag}", target)
        since = world.clock.seconds()
        world.run(2)
        self.assertFalse(caller.hears(425, since))
        other.bye()
        caller.notify("200 OK", over=True)
        world.run(0.1)
        self.assertEqual(len(caller.asked("BYE")), 1)
        self.assertEqual(other.asked("BYE"), [])
        self.ended(world, "transferred")

    def test_not_there(self) -> None:
        """Busy: the caller is back with the bot, which is told why."""
        world, caller, other = self.consult()
        other.ring()
        world.run(0.5)
        other.decline(486, "Busy Here")
        world.run(1.5)
        self.assertEqual(world.outputs(), [f"The line is busy (486 Busy Here). {STILL_THERE}"])
        self.assertTrue(caller.hears(600))
        self.assertEqual(caller.asked("REFER"), [])
        caller.bye()
        self.ended(world, "caller hung up")

    def test_nobody_answers(self) -> None:
        """After 40 s the call there is cancelled, and the caller is back with the bot."""
        world, _caller, other = self.consult()
        other.ring()
        world.run(41)
        self.assertEqual(len(other.asked("CANCEL")), 1)
        other.decline(487, "Request Terminated")
        world.run(1)
        self.assertEqual(len(world.outputs()), 1)
        world.call.hang_up("the end of the test")

    def test_caller_goes_meanwhile(self) -> None:
        """A caller who does not wait: the call there is cancelled, and when that comes too late it is hung up."""
        for late in (False, True):
            world, caller, other = self.consult()
            other.ring()
            world.run(0.1)
            caller.bye()
            world.run(0.1)
            self.assertEqual(len(other.asked("CANCEL")), 1)
            if late:
                other.pick_up()
                world.run(0.1)
                self.assertEqual(len(other.asked("BYE")), 1)
            else:
                other.decline(487, "Request Terminated")
            self.ended(world, "caller hung up")

    def test_join_fails(self) -> None:
        """The PBX cannot join them: the other phone is hung up, the caller is back with the bot."""
        world, caller, other = self.consult()
        other.pick_up()
        world.run(0.1)
        caller.notify("503 Service Unavailable", over=True)
        world.run(1.5)
        self.assertEqual(len(other.asked("BYE")), 1)
        self.assertTrue(caller.hears(600))
        caller.bye()
        self.ended(world, "caller hung up")

    def test_no_pbx_to_call_by(self) -> None:
        """A bot that no PBX is registered for cannot call: the model is told."""
        world, _caller = self.up(Transfer.ASKS, bot(transfer_mode="attended"))
        world.run(3)
        self.assertEqual(len(world.outputs()), 1)
        self.assertIn("No PBX is registered", world.outputs()[0])
        world.call.hang_up("the end of the test")


class Replaced(Case):
    """The PBX transfers its own end of a call, by an INVITE with Replaces (RFC 3891)."""

    def replace(self, world: World, tags: str, *, username: str = "eva", sdp: bytes | None = None) -> Caller:
        other = Caller(world, number=len(world.phones), codec="PCMA", username=username)
        other.own_tag = "other"
        other.invite(sdp, headers=f"Replaces: call-0;{tags}\r\n")
        world.run(0.1)
        return other

    def test_conversation_goes_on(self) -> None:
        """Somebody else's phone takes the call over: the bot goes on with the same sentence, in that phone's law."""
        world, caller = self.up('speed 4\non greet: tone 440 for 6 s "A long story."')
        world.run(1)
        other = self.replace(world, f"to-tag={caller.tag};from-tag=pbx")
        self.assertEqual(other.codes[-1], 200)
        self.assertEqual(len(caller.asked("BYE")), 1)
        now = world.clock.seconds()
        world.run(1)
        self.assertTrue(other.hears(440, now))
        self.assertFalse(caller.hears(440, now))
        world.run(5)
        self.assertEqual(len(world.switch.calls), 1)
        other.bye()
        record = self.ended(world, "caller hung up")
        self.assertEqual([line.text for line in record.transcript], ["A long story."])
        self.assertIn("replaced", [event.what for event in record.events])

    def test_our_offer(self) -> None:
        """An INVITE without SDP gets our offer, and its ACK brings the answer."""
        world, caller = self.up('speed 4\non greet: tone 440 for 6 s "A long story."')
        other = Caller(world, number=1)
        other.own_tag = "other"
        other.ack_body = offer("0 101", address=other.media)
        other.invite(b"", headers=f"Replaces: call-0;to-tag={caller.tag};from-tag=pbx\r\n")
        world.run(1)
        self.assertEqual(other.codes[-1], 200)
        self.assertTrue(other.hears(440))
        other.bye()
        self.ended(world, "caller hung up")

    def test_refused(self) -> None:
        """No such call, another bot's call, a description of no use: refused, and the call goes on."""
        mallory = bot(id="b2", username="mallory", name="Mallory")
        world, caller = self.up(GREETING, bot(), mallory)
        right = f"to-tag={caller.tag};from-tag=pbx"
        for tags, options, code in (
            ("to-tag=1;from-tag=2", {}, 481),
            (right, {"username": "mallory"}, 481),
            (right, {"sdp": offer("9")}, 488),
            (right + ";early-only", {}, 486),
            ("from-tag=pbx", {}, 400),
        ):
            other = self.replace(world, tags, **options)
            self.assertEqual(other.codes[-1], code, tags)
        self.assertEqual(len(world.switch.calls), 1)
        self.assertEqual(caller.asked("BYE"), [])
        caller.bye()
        self.ended(world, "caller hung up")
