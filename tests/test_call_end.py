"""Whole calls and their ends, whoever or whatever brings them about."""

from __future__ import annotations

import gc
from typing import Any
from unittest.mock import Mock
from weakref import ref

from extenbot.call import Call
from extenbot.media import g711
from tests.case import Case
from tests.memory import Caller, World


class Endings(Case):
    def test_operator(self) -> None:
        """An operator ends the call: BYE, at once."""
        world, caller = self.up()
        world.run(0.5)
        world.call.hang_up("ended from the console")
        world.run(0.1)
        self.assertEqual([request.method for request in caller.requests], ["BYE"])
        self.ended(world, "ended from the console")

    def test_voice_drops(self) -> None:
        """The voice is gone for good in the middle of a sentence: a tone, BYE, and the record has what was heard."""
        world, caller = self.up(
            """
            speed 1
            on greet:
                tone 440 for 10 s "I am going to be cut"
            after 1 s: error insufficient_quota "No."
            """
        )
        world.run_until(lambda: caller.asked("BYE"))
        self.assertTrue(caller.hears(1400, 1.0))
        record = self.ended(world, "voice lost: The account of this key has no credit left at the voice service.")
        [line] = record.transcript
        self.assertTrue("I am going to be cut".startswith(line.text))
        self.assertTrue(line.text)

    def test_session_expires(self) -> None:
        """The voice session reaches its longest time and there is no other one to be had: a tone, then BYE."""
        world, caller = self.up('after 1 s: expire\non connect 2: refuse 401 "Unauthorized"')
        world.run_until(lambda: world.records)
        self.assertTrue(caller.hears(1400, 1.0))
        self.assertEqual(len(caller.asked("BYE")), 1)
        self.assertIn("voice lost: The voice s", world.record.end_reason)

    def test_no_audio(self) -> None:
        """A caller whose audio stops coming is hung up after the settable time, not before."""
        world, caller = self.up(rtp_timeout=6)
        world.run(2)
        caller.talking = False
        world.run(5.9)
        self.assertEqual(caller.requests, [])
        world.run(1.2)
        self.assertEqual(len(caller.asked("BYE")), 1)
        self.ended(world, "no RTP from the caller")

    def test_never_any_audio(self) -> None:
        """The same for a caller who never sent any."""
        world, caller = self.begin(rtp_timeout=6)
        caller.talking = False
        caller.dial()
        world.run(7.2)
        self.assertEqual(len(caller.asked("BYE")), 1)
        self.assertEqual(self.ended(world, "no RTP from the caller").packets_received, 0)

    def test_no_ack(self) -> None:
        """Our 200 is never acknowledged: it is repeated, and after 32 s the call ends by BYE; nobody was greeted."""
        world, caller = self.begin(rtp_timeout=60)
        caller.acks = False
        caller.invite()
        world.run(32.2)
        self.assertEqual(caller.codes.count(200), 11)
        self.assertEqual(len(caller.asked("BYE")), 1)
        self.assertFalse(caller.hears(440))
        self.ended(world, "the answer was never acknowledged")

    def test_deaf_pbx(self) -> None:
        """Our BYE is never answered: the record is written all the same, and the dialog is forgotten."""
        world, caller = self.up()
        caller.yields = False
        world.call.hang_up("ended from the console")
        world.run(1)
        self.assertEqual(len(world.records), 1)
        self.assertEqual(len(world.sessions), 1)
        self.assertGreater(len(caller.asked("BYE")), 1)

    def test_hang_up_before_ack(self) -> None:
        """Hung up between our 200 and its ACK: the BYE waits for the ACK (RFC 3261 15)."""
        world, caller = self.begin()
        caller.acks = False
        caller.invite()
        world.run(0.2)
        world.call.hang_up("ended from the console")
        world.run(0.1)
        self.ended(world, "ended from the console")
        self.assertEqual(caller.requests, [])
        caller.acks = True
        world.run(2)
        self.assertEqual(len(caller.asked("BYE")), 1)

    def test_end_call(self) -> None:
        """The model hangs up: its goodbye is heard to the end, then comes the BYE."""
        world, caller = self.up(
            """
            speed 8
            on greet:
                tone 440 for 2 s "Goodbye!"
                call end_call
            """
        )
        world.run(1.9)
        self.assertEqual(caller.requests, [])
        world.run(0.5)
        self.assertEqual(len(caller.asked("BYE")), 1)
        record = self.ended(world, "bot hung up")
        audio = caller.heard().strip(b"\xff")
        self.assertApproximates(len(audio) / g711.RATE, 2.0, 0.01)
        self.assertEqual([(line.text, line.interrupted) for line in record.transcript], [("Goodbye!", False)])

    def hung_up_after_a_word(self, script: str) -> World:
        """A caller who says something and hangs up."""
        world, caller = self.up(script)
        world.run(1)
        caller.hz = 800
        world.run(0.5)
        caller.hz = 0
        world.run(0.8)
        caller.bye()
        return world

    def test_late_transcript(self) -> None:
        """What the caller said last is in the record although its words came after the end."""
        world = self.hung_up_after_a_word('on speech:\n    heard "And goodbye" after 2 s\n    nothing')
        world.run(0.1)
        self.assertEqual(world.records, [])
        self.assertEqual(world.ports, [])
        world.run(2.2)
        self.assertIn("And goodbye", [line.text for line in world.record.transcript])

    def test_no_transcript(self) -> None:
        """Words that never come keep the record waiting for 2 s at most."""
        world = self.hung_up_after_a_word("on speech:\n    heard nothing\n    nothing")
        world.run(2.1)
        self.ended(world, "caller hung up")

    def test_crossing(self) -> None:
        """Both hang up at the same moment: one record."""
        world, caller = self.up()
        caller.yields = False
        world.call.hang_up("ended from the console")
        caller.bye()
        self.ended(world, "ended from the console")

    def test_pbx_forgot(self) -> None:
        """A PBX that does not know the dialog any more (481 to our REFER) has lost the call."""
        world, caller = self.begin("on greet: call transfer_call")
        caller.yields = False
        caller.dial()
        world.run_until(lambda: caller.asked("REFER"))
        reply(world, caller, "481 Call/Transaction Does Not Exist")
        world.run(0.2)
        self.assertEqual(world.record.end_reason, "the PBX lost the call")


def reply(world: World, caller: Caller, status: str) -> None:
    """Answer the last request of the service."""
    request = caller.requests[-1]
    lines = [f"SIP/2.0 {status}"]
    lines += [f"{name}: {request.first(name)}" for name in ("via", "from", "to", "call-id", "cseq")]
    world.deliver(("\r\n".join([*lines, "Content-Length: 0"]) + "\r\n\r\n").encode(), caller.address)


class Forgotten(Case):
    def test_nothing_of_it_stays(self) -> None:
        """When a call is over its audio and conversation are let go, though its transaction lives on for 32 s."""
        self.patch(Call, "log", Mock())  # that of the tests keeps who logged
        world, caller = self.up()
        kept: list[Any] = [ref(world.call._session), ref(world.call._line), ref(world.call._voice)]
        caller.bye()
        self.ended(world, "caller hung up")
        world.run(0.1)
        self.assertTrue(world.transactions._invites)
        gc.collect()
        self.assertEqual([each() for each in kept], [None, None, None])
