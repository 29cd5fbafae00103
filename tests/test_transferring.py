"""Sending callers on: to whom, in which order, what the model hears of it, and who ends up with whom."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Destination, Manner
from extenbot.sip.message import Request
from extenbot.transferring import STILL_THERE, sentence
from tests import case
from tests.memory import Caller, World, bot, offer

SALES = Destination("sales", "300 sip:anna@192.0.2.77 tel:+49-30-1234", "Who wants to buy something.")
REPAIRS = Destination("repairs", "400")
ASKS = """
speed 8
on greet:
    tone 440 for 500 ms "I connect you."
    call transfer_call {"destination": "sales"}
on output transfer_call: tone 600 for 500 ms "Nobody is there."
"""


class Sentences(SynchronousTestCase):
    def test_each(self) -> None:
        """The model is told in words that it can say, and with the code for who reads the timeline."""
        for code, words in (
            (486, "The line is busy"),
            (480, "The person did not answer"),
            (408, "The person did not answer"),
            (404, "There is no such number"),
            (603, "The person did not take the call"),
            (403, "The telephone system does not allow this transfer"),
            (503, "The telephone system could not transfer the call"),
        ):
            self.assertEqual(sentence(code, "Why"), f"{words} ({code} Why).")


class Case(case.Case):
    def begin(self, script: str = ASKS, *bots: Any, **changes: Any) -> tuple[World, Caller]:
        changes = {"transfer_uri": "", "destinations": (SALES, REPAIRS), **changes}
        return super().begin(script, *bots, bot(**changes))

    def nothing_left(self, world: World) -> None:
        world.registrar.forget("eva")
        super().nothing_left(world)

    def refer(self, **changes: Any) -> tuple[World, Caller]:
        """The caller has been sent somewhere."""
        world, caller = self.begin(**changes)
        caller.dial()
        self.sent_on(world, caller, 1)
        return world, caller

    def sent_on(self, world: World, caller: Caller, times: int) -> str:
        """Where to, for the n-th time."""
        world.run_until(lambda: len(caller.asked("REFER")) == times, 3)
        world.run(0.05)
        return caller.asked("REFER")[-1].first("refer-to") or ""


class Named(Case):
    def test_reached(self) -> None:
        """The caller is sent to the destination that the model named, and the record says to whom."""
        world, caller = self.refer()
        self.assertEqual(caller.asked("REFER")[0].first("refer-to"), "<sip:300@192.0.2.10>")
        caller.notify("200 OK", over=True)
        record = self.ended(world, "transferred to sales")
        [event] = [event for event in record.events if event.what == "transferring"]
        self.assertEqual(event.fields, {"destination": "sales", "addresses": 3})

    def test_next_address(self) -> None:
        """Busy there: the next address is tried, a number, a SIP or a tel URI; nobody says a word in between."""
        world, caller = self.refer()
        caller.notify("486 Busy Here", over=True)
        self.assertEqual(self.sent_on(world, caller, 2), "<sip:anna@192.0.2.77>")
        caller.notify("480 Temporarily Unavailable", over=True)
        self.assertEqual(self.sent_on(world, caller, 3), "<sip:+49301234@192.0.2.10>")
        self.assertEqual(world.outputs(), [])
        caller.notify("200 OK", over=True)
        self.ended(world, "transferred to sales")

    def test_nobody(self) -> None:
        """When no address was reached the caller is back with the bot, which knows why and can try another one."""
        world, caller = self.refer()
        for times, news in enumerate(("486 Busy Here", "404 Not Found", "480 Temporarily Unavailable"), 2):
            caller.notify(news, over=True)
            if times < 4:
                self.sent_on(world, caller, times)
        world.run(1)
        last = "None of 3 numbers was reached. The last one: The person did not answer (480 Temporarily Unavailable)."
        self.back(world, caller, f"{last} {STILL_THERE}")

    def test_refused_by_the_pbx(self) -> None:
        """A PBX that takes no REFER: the same."""
        world, caller = self.begin(destinations=(REPAIRS,), script=ASKS.replace("sales", "repairs"))
        caller.yields = False
        caller.dial()
        self.sent_on(world, caller, 1)
        [refer] = caller.asked("REFER")
        self.answer(world, caller, refer, "405 Method Not Allowed")
        world.run(1)
        allowed = "The telephone system does not allow this transfer (405 Method Not Allowed)."
        self.assertEqual(world.outputs(), [f"{allowed} {STILL_THERE}"])
        caller.yields = True
        caller.bye()
        self.ended(world, "caller hung up")

    def answer(self, world: World, caller: Caller, request: Request, status: str) -> None:
        lines = [f"SIP/2.0 {status}"]
        lines += [f"{name}: {request.first(name)}" for name in ("via", "from", "to", "call-id", "cseq")]
        world.deliver(("\r\n".join([*lines, "Content-Length: 0"]) + "\r\n\r\n").encode(), caller.address)

    def test_unknown_name(self) -> None:
        """A name that there is not is told to the model at once; nothing is sent, the caller is still there."""
        world, caller = self.begin(script=ASKS.replace("sales", "accounting"))
        caller.dial()
        world.run(2)
        [output] = world.outputs()
        self.assertIn("There are: sales, repairs.", output)
        self.assertEqual(caller.asked("REFER"), [])
        self.assertEqual(world.call.state, "talking")
        caller.bye()

    def test_nobody_to_transfer_to(self) -> None:
        """An old instruction that speaks of transfers, in a bot that has no target: the model is told."""
        world, caller = self.begin(destinations=())
        caller.dial()
        world.run(2)
        self.assertIn("nobody", world.outputs()[0])
        caller.bye()

    def test_caller_goes(self) -> None:
        """Who hangs up while the next address is tried is not called after."""
        world, caller = self.refer()
        caller.notify("486 Busy Here", over=True)
        caller.bye()
        self.ended(world, "caller hung up")
        self.assertEqual(len(caller.asked("REFER")), 1)

    def test_operator_ends_it(self) -> None:
        """A call that is ended from the console between two addresses leaves nothing."""
        world, caller = self.refer()
        caller.notify("486 Busy Here", over=True)
        world.call.hang_up("ended from the console")
        self.ended(world, "ended from the console")

    def test_old_name_to_hang_up(self) -> None:
        """`terminate_call`, as old instructions have it, hangs up after the goodbye."""
        world, caller = self.begin('on greet:\n    tone 440 for 500 ms "Goodbye."\n    call terminate_call')
        caller.dial()
        world.run(1)
        self.assertEqual(len(caller.asked("BYE")), 1)
        self.assertApproximates(len(caller.heard().strip(b"\xff")), 4000, 4)
        self.ended(world, "bot hung up")


class VoiceLost(Case):
    LOST = ASKS + 'after 1500 ms: error insufficient_quota "No."\n'

    def lost(self, **manner: Any) -> tuple[World, Caller]:
        """The voice is gone for good while the caller is on the way to a person."""
        world, caller = self.refer(script=self.LOST, manner=Manner(**manner))
        world.run(2)
        self.assertEqual(world.call.state, "transferring")
        return world, caller

    def test_reached_all_the_same(self) -> None:
        """Whoever is on the way to a person does not need the voice."""
        world, caller = self.lost()
        caller.notify("486 Busy Here", over=True)
        self.sent_on(world, caller, 2)
        caller.notify("200 OK", over=True)
        record = self.ended(world, "transferred to sales")
        self.assertIn("no credit", record.trouble)

    def test_not_reached(self) -> None:
        """Back to a bot without a voice: the sentence of a failure, and the way on from there."""
        world, caller = self.lost(failure_uri="900")
        for times in (2, 3):
            caller.notify("486 Busy Here", over=True)
            self.sent_on(world, caller, times)
        since = world.clock.seconds()
        caller.notify("486 Busy Here", over=True)
        self.assertEqual(self.sent_on(world, caller, 4), "<sip:900@192.0.2.10>")
        self.assertTrue(caller.hears(1400, since))
        caller.notify("200 OK", over=True)
        reason = "voice lost: The account of this key has no credit left at the voice service; transferred to 900"
        self.ended(world, reason)


class Attended(Case):
    def test_next_address(self) -> None:
        """One after the other is called while the caller hears it ring; only who answers gets the caller."""
        world, caller = self.begin(transfer_mode="attended")
        other = Caller(world, number=1)
        other.own_tag = "other"
        other.register()
        world.run(0.1)
        caller.dial()
        world.run_until(lambda: other.asked("INVITE"), 3)
        self.assertEqual(other.asked("INVITE")[0].uri.user, "300")
        since = world.clock.seconds()
        other.ring()
        world.run(1)
        other.decline(486, "Busy Here")
        world.run(0.1)
        second = other.asked("INVITE")[-1]
        self.assertEqual(str(second.uri), "sip:anna@192.0.2.77")
        world.run(0.5)
        self.assertTrue(caller.hears(425, since))
        self.assertEqual(caller.asked("REFER"), [])
        other.own_tag = "second"
        other.pick_up(offer("0 101", address=other.media, direction="inactive"))
        self.assertIn("to-tag%3Dsecond", self.sent_on(world, caller, 1))
        other.bye()
        caller.notify("200 OK", over=True)
        self.ended(world, "transferred to sales")
