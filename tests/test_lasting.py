"""Whole calls that last: session timers, refreshes while on hold, keys by INFO."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import Any

from extenbot.sip.message import Request
from tests.case import GREETING, Case
from tests.memory import BOT, PBX, Caller, World, bot, offer


class Phone(Caller):
    """A PBX that answers a re-INVITE, in the direction that it is in."""

    direction = "sendrecv"
    more = ""  # lines of its description

    def hold(self, direction: str) -> None:
        self.direction = direction
        self.again(offer(f"{self.kind} 101", direction=direction, address=self.media))

    def _asked(self, request: Request) -> None:
        if request.method not in ("INVITE", "ACK"):
            super()._asked(request)
            return
        self.requests.append(request)
        if request.method == "ACK" or not self.yields:
            return
        body = offer(f"{self.kind} 101", direction=self.direction, address=self.media, more=self.more)
        lines = ["SIP/2.0 200 OK", f"Contact: <sip:pbx@{PBX[0]}>", "Content-Type: application/sdp"]
        lines += [f"{name}: {request.first(name)}" for name in ("via", "from", "to", "call-id", "cseq")]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n"
        self.world.deliver(head.encode() + body, self.address)


class Lasting(Case):
    def last(self, **options: Any) -> tuple[World, Phone]:
        """A call that is up, with a session interval of 90 s that we refresh after 45 s, by re-INVITE."""
        world = World("", bot(manner=replace(BOT.manner, silence=0)), session_expires=90, **options)
        self.addCleanup(self.nothing_left, world)
        phone = Phone(world)
        phone.dial()
        return world, phone

    def test_refreshed(self) -> None:
        """Each refresh repeats the description that the PBX knows, and nothing else happens."""
        world, phone = self.last()
        ours = phone.last.body
        world.run(100)
        reinvites = phone.asked("INVITE")
        self.assertEqual([request.body for request in reinvites], [ours, ours])
        self.assertEqual(len(phone.asked("ACK")), 2)
        self.assertEqual(world.call.state, "talking")
        phone.bye()
        self.ended(world, "caller hung up")

    def test_on_hold(self) -> None:
        """A caller on hold stays on hold through a refresh of ours, and is back when it says so."""
        world, phone = self.last()
        world.run(1)
        phone.hold("sendonly")
        world.run(0.1)
        self.assertIn(b"a=recvonly", phone.last.body)
        sent = len(phone.packets)
        world.run(46)
        [reinvite] = phone.asked("INVITE")
        self.assertIn(b"a=recvonly", reinvite.body)
        self.assertEqual(len(phone.packets), sent)
        phone.hold("sendrecv")
        world.run(1)
        self.assertGreater(len(phone.packets), sent + 40)
        phone.bye()
        self.ended(world, "caller hung up")

    def test_same_description(self) -> None:
        """A re-INVITE that changes nothing gets the answer of before, to the byte; one that does a new version."""
        world, phone = self.last()
        before = phone.last.body
        world.run(1)
        phone.hold("sendrecv")
        world.run(0.1)
        self.assertEqual(phone.last.body, before)
        phone.hold("sendonly")
        world.run(0.1)
        held = phone.last.body
        self.assertNotEqual(held.splitlines()[1], before.splitlines()[1])
        phone.hold("sendrecv")
        world.run(0.1)
        self.assertNotIn(phone.last.body.splitlines()[1], (held.splitlines()[1], before.splitlines()[1]))
        phone.bye()
        self.ended(world, "caller hung up")

    def test_dead(self) -> None:
        """A PBX that no longer knows what it is doing, though audio still comes from it: the call ends in time."""
        world, phone = self.last()
        phone.yields = False
        world.run(59.9)
        self.assertEqual(len(world.switch.calls), 1)
        world.run(0.2)
        self.ended(world, "the PBX lost the call")

    def test_keys(self) -> None:
        """A key by INFO is noted like one in the audio."""
        world, phone = self.last()
        phone.send("INFO", b"Signal=5\r\nDuration=160\r\n", headers="Content-Type: application/dtmf-relay\r\n")
        world.run(0.1)
        phone.bye()
        record = self.ended(world, "caller hung up")
        self.assertEqual([event.fields for event in record.events if event.what == "dtmf"], [{"digit": "5"}])


class Replaced(Case):
    """The PBX joins the bot with another phone by INVITE with Replaces, as after an attended transfer."""

    def replaces(self, phone: Caller, more: str = "") -> str:
        return f"Replaces: {phone.name};to-tag={phone.tag};from-tag={phone.own_tag}{more}\r\n"

    def joined(self, world: World, phone: Caller, body: bytes | None = None, **options: Any) -> Caller:
        """Another phone's INVITE that replaces the call; the challenge is answered."""
        other = Caller(world, number=1, **options)
        other.invite(body, headers=self.replaces(phone))
        world.run(0.1)
        return other

    def test_goes_on(self) -> None:
        """The bot goes on talking, to the other phone; the first has its BYE; it is one call with one record."""
        world, phone = self.up('on greet: tone 440 for 3 s "Good morning!"')
        world.run(1)
        other = self.joined(world, phone)
        self.assertEqual(other.codes[-1], 200)
        self.assertEqual([request.method for request in phone.requests], ["BYE"])
        self.assertEqual(len(world.switch.calls), 1)
        sent = len(phone.packets)
        world.run(1)
        self.assertEqual(len(phone.packets), sent)
        self.assertTrue(other.hears(440))
        other.bye()
        record = self.ended(world, "caller hung up")
        [event] = [event for event in record.events if event.what == "replaced"]
        self.assertEqual(event.fields, {"caller": "100", "call": "call-1"})
        self.assertEqual(len(world.voice("response.create")), 1)  # greeted once

    def test_bot_hangs_up(self) -> None:
        """When the bot hangs up, it is the other phone that gets the BYE."""
        world, phone = self.up('on greet:\n    tone 440 for 1 s "Bye."\n    call end_call')
        other = self.joined(world, phone)
        world.run(2)
        self.assertEqual([len(each.asked("BYE")) for each in (phone, other)], [1, 1])
        self.ended(world, "bot hung up")

    def test_in_a_transfer(self) -> None:
        """A transfer that was under way is given up, and the model told so."""
        world, phone = self.up("on greet: call transfer_call", bot(transfer_uri="sip:200@192.0.2.10"))
        world.run(0.5)
        self.assertEqual(world.call.state, "transferring")
        other = self.joined(world, phone)
        self.assertEqual(world.call.state, "talking")
        [output] = world.outputs()
        self.assertIn("could not transfer the call (487", output)
        other.bye()
        self.ended(world, "caller hung up")

    def test_with_our_offer(self) -> None:
        """The INVITE that replaces may come without an offer."""
        world, phone = self.up()
        other = Caller(world, number=1)
        other.ack_body = offer("0 101", address=other.media)
        other.invite(b"", headers=self.replaces(phone))
        world.run(0.5)
        self.assertEqual(world.call.state, "talking")
        self.assertGreater(len(other.packets), 10)
        other.bye()
        self.ended(world, "caller hung up")

    def test_no_common_codec(self) -> None:
        """What it offers is of no use: 488, and the call goes on as it was."""
        world, phone = self.up()
        other = self.joined(world, phone, offer("9"))
        self.assertEqual(other.codes[-1], 488)
        sent = len(phone.packets)
        world.run(1)
        self.assertGreater(len(phone.packets), sent + 40)
        phone.bye()
        self.ended(world, "caller hung up")

    def test_anothers_call(self) -> None:
        """Nobody can take the call of another's bot: to them there is none."""
        world, phone = self.up(GREETING, BOT, bot(id="b2", username="adam", password="apple"))
        other = self.joined(world, phone, username="adam", password="apple")
        self.assertEqual(other.codes[-1], 481)
        self.assertEqual(phone.requests, [])
        phone.bye()
        self.ended(world, "caller hung up")

    def test_no_such_call(self) -> None:
        """A call that has ended, or never was, is 481."""
        world, phone = self.up()
        phone.bye()
        world.run(1)
        other = self.joined(world, phone)
        self.assertEqual(other.codes[-1], 481)
        self.assertEqual(len(world.records), 1)


class TwoHours(Case):
    """A whole call of two hours: INVITE, voice and RTP on one clock, over every boundary on the way."""

    HOURS = 2

    def test_two_hours(self) -> None:
        """Sequence numbers and timestamps wrap both ways, the session is refreshed, the voice
        moves from session to session, and at the end both still hear.

        The phone takes and sends 60 ms in a packet, so that the test does not take long.
        """
        script = """
        speed 8
        on greet: tone 440 for 1 s "Good morning!"
        on speech:
            heard "Still there?" after 300 ms
            tone 600 for 1 s "I am."
        """
        patient = bot(manner=replace(BOT.manner, silence=0, longest=0))
        world = World(dedent(script), patient, session_expires=1800)
        world.script = replace(world.script, life=3600.0)  # of a voice session
        self.addCleanup(self.nothing_left, world)
        phone = Phone(world)
        phone.packet, phone.sequence, phone.timestamp = 0.06, 60_000, 0xFFFFF000
        bits = world.tokens.bits
        world.tokens.bits = lambda count: {15: 60_000, 32: 0xFFFFF000}.get(count) or bits(count)  # type: ignore[method-assign]
        phone.more = "a=ptime:60\r\n"
        phone.invite(offer(f"{phone.kind} 101", address=phone.media, more=phone.more))
        world.run_until(lambda: phone.codes and phone.codes[-1] == 200)
        world.tokens.bits = bits  # type: ignore[method-assign]
        wraps = [0, 0]
        before = phone.packets[0] if phone.packets else None
        for _ in range(self.HOURS * 60):
            for _ in range(1000):
                phone.tick()
                world.clock.advance(0.06)
            for at, packet in phone.packets:
                if before is not None:
                    gap = at - before[0]
                    self.assertLess(gap, 0.09)
                    self.assertEqual((packet.sequence - before[1].sequence) & 0xFFFF, 1)
                    self.assertEqual((packet.timestamp - before[1].timestamp) & 0xFFFFFFFF, 480)
                    wraps[0] += packet.sequence < before[1].sequence
                    wraps[1] += packet.timestamp < before[1].timestamp
                before = at, packet
            self.assertEqual((world.call.state, len(phone.packets)), ("talking", 1000))
            phone.packets.clear()
            world.said.clear()
        self.assertEqual(wraps, [2, 1])
        self.assertEqual(len(phone.asked("INVITE")), 7)  # every 900 s
        self.assertEqual(world.call.state, "talking")
        phone.hz = 800
        world.run(1)
        phone.hz = 0
        world.run(2)
        self.assertTrue(phone.hears(600))
        phone.bye()
        record = self.ended(world, "caller hung up")
        self.assertEqual(record.packets_lost, 0)
        self.assertEqual([event.what for event in record.events].count("session.moved"), 2)
        self.assertEqual([line.text for line in record.transcript], ["Good morning!", "Still there?", "I am."])
