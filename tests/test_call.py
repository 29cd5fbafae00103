"""Whole calls, from INVITE to BYE, on one fake clock in memory: what the caller hears and what the record says."""

from __future__ import annotations

import gc
import re
from itertools import count, pairwise, product
from textwrap import dedent
from typing import Any, ClassVar
from unittest.mock import Mock
from weakref import ref

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from extenbot.call import INPUTS, STATES, Call
from extenbot.errors import BackendLost, ToolFailed
from extenbot.interfaces import CallRecord, Json, Manner, ToolCall
from extenbot.journal import LONGEST, MOST_EVENTS, Journal, caller_of
from extenbot.journal import Caller as WhoCalls
from extenbot.media import g711
from extenbot.sip.message import Request, read
from extenbot.transferring import STILL_THERE
from tests.clock import Clock
from tests.memory import ADD, MEDIA, Caller, Fault, World, bot, loudness, offer

GREETING = """
speed 4
on greet: tone 440 for 1 s "Good morning!"
"""
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


class Conversation(Case):
    TALK = """
    speed 4
    on greet: tone 440 for 1 s "Good morning!"
    on speech:
        heard "Where are you?" after 300 ms
        tone 600 for 1 s "Here I am."
    """

    def talk(self, codec: str) -> None:
        world = World(dedent(self.TALK))
        self.addCleanup(self.nothing_left, world)
        caller = Caller(world, codec=codec)
        caller.dial()
        world.run(1.5)
        self.assertTrue(caller.hears(440, 0.0, 1.1))
        self.assertFalse(caller.hears(440, 1.1))
        self.assertFalse(caller.hears(600))
        caller.hz = 800
        world.run(1.0)
        caller.hz = 0
        asked = world.clock.seconds()
        world.run(2.5)
        self.assertTrue(caller.hears(600, asked, asked + 2))
        self.assertFalse(caller.hears(440, asked))
        self.assertFalse(caller.hears(800))  # nobody hears himself
        self.assertEqual(world.appended().count(g711.tone(codec, 800, 20)), 50)
        caller.bye()
        self.assertEqual(caller.last.code, 200)
        record = self.ended(world, "caller hung up")
        self.assertEqual(record.codec, codec)
        self.assertEqual(
            [(line.speaker, line.text, line.interrupted) for line in record.transcript],
            [
                ("bot", "Good morning!", False),
                ("caller", "Where are you?", False),
                ("bot", "Here I am.", False),
            ],
        )
        self.assertEqual((record.caller, record.caller_name, record.dialled), ("100", "Anna", "openai"))
        self.assertEqual((record.bot_id, record.account_id, record.peer), ("b1", "a1", "192.0.2.10:5060"))
        self.assertEqual(record.sip_call_id, "call-0")
        self.assertEqual(record.packets_sent, len(caller.packets))
        self.assertApproximates(record.packets_received, caller.sequence, 1)
        self.assertEqual(record.packets_lost, 0)
        self.assertLess(record.jitter_ms, 1)
        self.assertEqual(record.usage["responses"], 2)
        self.assertEqual(record.usage["output_audio"], 40)  # 50 ms each
        self.assertApproximates(record.ended - record.started, record.events[-1].at, 0.01)
        answered = record.answered
        assert answered is not None
        self.assertLess(answered - record.started, 0.1)
        names = [event.what for event in record.events]
        for name in ("invited", "answered", "acked", "speech.started", "speech.stopped", "response.done", "ended"):
            self.assertIn(name, names)
        times = [event.at for event in record.events]
        self.assertEqual(times, sorted(times))

    def test_mu_law(self) -> None:
        """The caller hears the greeting, speaks, hears the answer, hangs up; the record tells all of it."""
        self.talk("PCMU")

    def test_a_law(self) -> None:
        """The same in A-law, byte for byte: nothing is transcoded."""
        self.talk("PCMA")

    def test_pace(self) -> None:
        """Packets leave every 20 ms from the answer on, without a gap in sequence and timestamp."""
        world, caller = self.up(self.TALK)
        world.run(3)
        self.assertLess(caller.packets[0][0], 0.1)
        for (at, packet), (then, following) in pairwise(caller.packets):
            self.assertApproximates(then - at, 0.02, 0.011)
            self.assertEqual(following.sequence, (packet.sequence + 1) & 0xFFFF)
            self.assertEqual(following.timestamp, packet.timestamp + 160)
        self.assertEqual([packet.marker for _, packet in caller.packets].count(True), 1)  # one talkspurt
        caller.bye()

    def test_gap(self) -> None:
        """What the network loses reaches the model as silence: its turn detection counts time in audio."""
        world, caller = self.up(self.TALK)
        world.run(2)
        caller.hz = 800
        world.run(0.6)
        caller.talking = False
        world.run(3)
        self.assertTrue(caller.hears(600))
        seconds = len(world.appended()) / g711.RATE
        self.assertApproximates(seconds, world.clock.seconds(), 0.1)
        caller.bye()

    def test_stranger(self) -> None:
        """Whose RTP was not heard stands in the call's timeline, so that an administrator finds the wrong address."""
        world, caller = self.up()
        caller.media = ("198.51.100.66", 5000)
        world.run(1)
        self.assertTrue(caller.hears(440))  # the bot still talks to the phone
        caller.bye()
        record = self.ended(world, "caller hung up")
        [event] = [event for event in record.events if event.what == "media.ignored"]
        self.assertEqual((event.fields["last_host"], event.fields["last_port"]), caller.media)
        self.assertGreater(event.fields["packets"], 40)

    def test_keys(self) -> None:
        """A key of the phone stands in the timeline and is not heard as speech."""
        world, caller = self.up()
        world.run(0.2)
        [port] = world.ports
        for end in (False, False, True, True, True):
            caller.sequence += 1
            event = bytes([5, 0x8A if end else 0x0A, 0x03, 0x20])
            header = bytes([0x80, 101]) + caller.sequence.to_bytes(2) + (9000).to_bytes(4) + (7).to_bytes(4)
            port.arrive(header + event, caller.media)
        world.run(0.1)
        caller.bye()
        record = self.ended(world, "caller hung up")
        self.assertEqual([event.fields for event in record.events if event.what == "dtmf"], [{"digit": "5"}])

    def test_caller_id(self) -> None:
        """P-Asserted-Identity, then Remote-Party-ID, then From; one that cannot be read or names nobody is passed."""
        asserted, party = 'P-Asserted-Identity: "Bea" <tel:+4930123>\r\n', "Remote-Party-ID: <sip:17@pbx.example>\r\n"
        for headers, number, name in (
            (party + asserted, "+4930123", "Bea"),
            (party, "17", ""),
            ("P-Asserted-Identity: <sip:pbx.example>\r\n" + party, "17", ""),
            ('P-Asserted-Identity: "no end\r\n', "100", "Anna"),
        ):
            lines = f"INVITE sip:openai@x SIP/2.0\r\n{headers}" + 'From: "Anna" <sip:100@pbx.example>;tag=1\r\n'
            lines += "Via: SIP/2.0/UDP x;branch=z9hG4bK1\r\nTo: <sip:openai@x>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n"
            request = read(lines.encode())
            assert isinstance(request, Request)
            self.assertEqual(caller_of(request), WhoCalls(number, name), headers)

    def test_anonymous(self) -> None:
        """A caller who says nothing of himself is nobody."""
        request = Request("INVITE", "sip:openai@x")
        request.set("from", "<sip:pbx.example>;tag=1")
        self.assertEqual(caller_of(request), WhoCalls("", ""))

    def test_long_timeline(self) -> None:
        """What a wild model makes of a long call must not fill the memory: how it began and how it ended stays."""
        journal = Journal(Clock())
        journal.happened("invited")
        for number in range(2 * MOST_EVENTS):
            journal.happened("speech.started", number=number)
        journal.happened("ended", reason="caller hung up")
        events = journal.events
        self.assertEqual(len(events), MOST_EVENTS)
        self.assertEqual((events[0].what, events[-1].what), ("invited", "ended"))
        [cut] = [event for event in events if event.what == "timeline.cut"]
        self.assertEqual(cut.fields["events"], 2 * MOST_EVENTS + 2 - (len(events) - 1))

    def test_long_values(self) -> None:
        """What a server sends in megabytes, or nested a thousand times, does not lose the record."""
        journal = Journal(Clock())
        deep: dict[str, Any] = {}
        for _ in range(5000):
            deep = {"a": deep}
        journal.happened("tool.asked", name="n" * 1_000_000, arguments={"text": "t" * 1_000_000}, call=7)
        journal.happened("tool.asked", arguments=deep, usage={"in": 1})
        first, second = journal.events
        self.assertEqual([len(str(first.fields[key])) for key in ("name", "arguments")], [LONGEST + 1] * 2)
        self.assertEqual(first.fields["call"], 7)
        self.assertEqual(second.fields, {"arguments": "…", "usage": {"in": 1}})

    def test_timeline_within_its_bound(self) -> None:
        """Nothing is said to be left out as long as nothing is."""
        journal = Journal(Clock())
        for number in range(MOST_EVENTS - 1):
            journal.happened("speech.started", number=number)
        self.assertEqual([event.fields["number"] for event in journal.events], list(range(MOST_EVENTS - 1)))


class BargeIn(Case):
    STORY = """
    speed {speed}
    late deltas {late}
    on greet: tone 440 for 10 s "Once upon a time there was a very long story that nobody wanted to hear"
    on speech:
        heard "Stop!"
        tone 600 for 500 ms "Sorry."
    """

    def interrupt(self, speed: int, late: int = 0) -> None:
        world, caller = self.up(self.STORY.format(speed=speed, late=late))
        world.run(2)
        caller.hz = 800
        world.run_until(lambda: world.voice("input_audio_buffer.speech_started"))
        [started] = world.voice("input_audio_buffer.speech_started")
        world.run(1)
        self.assertFalse(caller.hears(440, started.at + 0.02))  # within one frame
        self.assertTrue(caller.hears(440, started.at - 0.1, started.at))
        self.assertEqual(set(caller.heard(started.at + 0.02)), {0xFF})  # and silence goes on
        [truncated] = world.voice("conversation.item.truncate")
        heard = caller.heard(until=started.at + 0.001).replace(b"\xff" * 160, b"")
        self.assertEqual(truncated.at, started.at)
        self.assertEqual(truncated.event["audio_end_ms"], len(heard) // 8)  # what really left, not what was given to us
        self.assertEqual(truncated.event["content_index"], 0)
        self.assertEqual(world.voice("error"), [])  # the server finds nothing wrong with it
        self.assertEqual(len(world.voice("conversation.item.truncated")), 1)
        caller.hz = 0
        world.run(2)
        self.assertTrue(caller.hears(600, started.at + 1))
        caller.bye()
        record = self.ended(world, "caller hung up")
        first, said, sorry = record.transcript
        self.assertTrue(first.interrupted)
        self.assertTrue("Once upon a time".startswith(first.text) or first.text.startswith("Once"))
        self.assertLess(len(first.text), 40)
        self.assertEqual((said.speaker, sorry.text), ("caller", "Sorry."))
        [barge_in] = [event for event in record.events if event.what == "barge_in"]
        self.assertEqual(barge_in.fields["ms"], truncated.event["audio_end_ms"])

    def test_while_it_is_sent(self) -> None:
        """The caller speaks while the model still sends: silence within one frame, truncated at what was heard."""
        self.interrupt(2)

    def test_after_it_was_sent(self) -> None:
        """The same when the model was done long ago and all of it waits here."""
        self.interrupt(0)

    def test_late_audio(self) -> None:
        """What still comes of the interrupted answer is not heard."""
        self.interrupt(2, late=3)


class Refusals(Case):
    def refused(self, script: str, code: int, reason: str, seconds: float = 1.0, **options: Any) -> CallRecord:
        world, caller = self.begin(script, **options)
        caller.invite()
        world.run(seconds)
        self.assertEqual(caller.codes, [100, 180, code])
        self.assertIn(f"SIP;cause={code};text=", caller.last.first("reason") or "")
        self.assertEqual(caller.last.first("retry-after"), "10" if code == 503 else None)
        record = self.ended(world, f"voice not available: {reason}")
        self.assertIsNone(record.answered)
        self.assertEqual(record.packets_sent, 0)
        self.assertEqual(caller.packets, [])
        return record

    def test_wrong_key(self) -> None:
        """The key is refused at the door: 480, and the Reason says why."""
        self.refused(
            'on connect: refuse 401 "Unauthorized"', 480, "The voice service does not accept this key (HTTP 401)."
        )

    def test_wrong_key_event(self) -> None:
        """The key is refused by an event, as the real service does."""
        script = """
        on open:
            error invalid_api_key "Incorrect API key provided."
            close 3000 "invalid_request_error.invalid_api_key"
        """
        self.refused(script, 480, "The voice service does not know this key.")

    def test_no_credit(self) -> None:
        """No credit: 480, the owner must act."""
        self.refused(
            'on open: error insufficient_quota "No."',
            480,
            "The account of this key has no credit left at the voice service.",
        )

    def test_too_many(self) -> None:
        """Too many requests: 503, try later."""
        self.refused(
            'on connect: refuse 429 "Too Many Requests"',
            503,
            "The voice service has too many requests from this account (HTTP 429).",
        )

    def test_slow(self) -> None:
        """A voice that is not ready in time: 503, not before and not much later."""
        world, caller = self.begin("on open: hang", open_timeout=4)
        caller.invite()
        world.run(3.9)
        self.assertEqual(caller.codes, [100, 180])
        world.run(0.2)
        self.assertEqual(caller.codes[-1], 503)
        self.assertEqual(caller.last.first("retry-after"), "10")
        self.ended(world, "voice not available: The voice service was not ready within 4 s.")

    def test_wrong_format(self) -> None:
        """A voice that would speak another codec is not let near the caller."""
        script = 'on update: effective {"audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}}}}'
        record = self.refused(
            script,
            503,
            "The voice service does not use the codec of the call: asked for audio/pcmu,"
            " got audio/pcmu to hear and audio/pcm to speak.",
        )
        self.assertEqual([e.fields["cause"] for e in record.events if e.what == "voice.lost"], ["wrong_format"])

    def test_words_of_the_server(self) -> None:
        """What the voice service says of the settings reaches the PBX, and cannot add a header of its own."""
        error = r'{"type": "error", "error": {"code": "invalid_value", "message": "No \"x\"\r\nX-Evil: 1"}}'
        world, caller = self.begin(f"on update: send {error}")
        caller.invite()
        world.run(0.2)
        self.assertEqual(caller.codes[-1], 480)
        self.assertEqual(
            caller.last.first("reason"),
            'SIP;cause=480;text="The voice service refused the settings of this bot: No xX-Evil: 1"',
        )
        self.assertIsNone(caller.last.first("x-evil"))

    def test_no_back_end(self) -> None:
        """A bot whose address is no websocket: 480, and the record says so too."""
        world, caller = self.begin("", bot(model="gpt-realtime", ai_url="http://voice.example"))
        caller.invite()
        world.run(0.2)
        self.assertEqual(caller.codes[-1], 480)
        self.ended(world, "voice not available: The address of the voice service must begin with ws:// or wss://.")

    def test_cancel(self) -> None:
        """The caller gives up while it rings: 487, and the voice is let go."""
        world, caller = self.begin("on open: wait 3 s")
        caller.invite()
        world.run(1)
        caller.cancel()
        world.run(0.1)
        self.assertEqual(caller.codes, [100, 180, 487])
        self.assertIn(200, [answer.code for answer in caller.answers if answer.cseq.method == "CANCEL"])
        record = self.ended(world, "caller gave up")
        self.assertIsNone(record.answered)

    def test_hang_up_while_ringing(self) -> None:
        """An operator ends a call that is not answered yet: 480."""
        world, caller = self.begin("on open: wait 3 s")
        caller.invite()
        world.run(1)
        world.call.hang_up("ended from the console")
        world.run(0.1)
        self.assertEqual(caller.codes, [100, 180, 480])
        self.ended(world, "ended from the console")


class Descriptions(Case):
    def refused(self, sdp: bytes, code: int, warning: str | None = None, headers: str = "") -> Caller:
        world, caller = self.begin()
        caller.invite(sdp, headers=headers)
        world.run(0.1)
        self.assertEqual(caller.codes[-1], code)
        self.assertEqual(caller.last.first("warning"), warning)
        self.assertEqual(world.records, [])  # there was no call
        self.assertEqual(world.opened, 0)
        return caller

    def test_no_common_codec(self) -> None:
        """Only G.722 and Opus: 488 with a Warning."""
        self.refused(
            offer("9 96", more="a=rtpmap:96 opus/48000/2\r\n"), 488, '305 extenbot "Incompatible media format"'
        )

    def test_encrypted(self) -> None:
        """SRTP, but the signalling is not encrypted: 488 with a Warning."""
        self.refused(offer(protocol="RTP/SAVP"), 488, '302 extenbot "TLS is needed for SRTP"')

    def test_no_audio(self) -> None:
        """A fax only: 488 with a Warning."""
        fax = offer().replace(b"m=audio 4000 RTP/AVP 0 8 101", b"m=image 4000 udptl t38")
        self.refused(fax, 488, '304 extenbot "Media type not available"')

    def test_garbage(self) -> None:
        """SDP that is none: 400."""
        self.refused(b"hello\r\n", 400)

    def test_other_body(self) -> None:
        """A body that is not SDP: 415 with what is accepted."""
        caller = self.refused(b"<xml/>", 415, headers="Content-Type: application/xml\r\n")
        self.assertEqual(caller.last.first("accept"), "application/sdp")

    def test_order(self) -> None:
        """The first law of the offer is taken, both ways."""
        world, caller = self.begin()
        caller.codec, caller.kind = "PCMA", 8
        caller.invite(offer("9 8 0 101"))
        world.run(1.2)
        self.assertTrue(caller.hears(440))
        self.assertEqual({packet.payload_type for _, packet in caller.packets}, {8})
        self.assertEqual(world.voice("session.update")[0].event["session"]["audio"]["input"]["format"]["type"],
                         "audio/pcma")  # fmt: skip
        caller.bye()
        self.assertEqual(self.ended(world, "caller hung up").codec, "PCMA")

    def test_late_offer(self) -> None:
        """An INVITE without SDP: our offer is in the 200, the answer in the ACK, and then they talk."""
        world, caller = self.begin()
        caller.ack_body = offer("0")
        caller.invite(b"")
        world.run(1.2)
        self.assertTrue(caller.hears(440))
        caller.bye()
        self.ended(world, "caller hung up")

    def late_answer(self, answer: bytes) -> None:
        world, caller = self.begin()
        caller.ack_body = answer
        caller.invite(b"")
        world.run(0.5)
        self.assertEqual(len(caller.asked("BYE")), 1)
        self.assertEqual(caller.packets, [])
        self.ended(world, "the PBX answered our offer with nothing of use")

    def test_late_answer_missing(self) -> None:
        """An ACK that brings no answer to our offer ends the call: there is no media to talk over."""
        self.late_answer(b"")

    def test_late_answer_of_another_codec(self) -> None:
        """Nor does one in a codec that we did not offer."""
        self.late_answer(offer("9"))

    def test_late_answer_in_a_law(self) -> None:
        """Our late offer names both laws; the answer in A-law is spoken to by a voice that opened in mu-law."""
        world, caller = self.begin()
        caller.codec, caller.kind, caller.ack_body = "PCMA", 8, offer("8")
        caller.invite(b"")
        world.run(1.2)
        self.assertEqual(
            world.voice("session.update")[0].event["session"]["audio"]["input"]["format"]["type"], "audio/pcmu"
        )
        self.assertTrue(caller.hears(440))
        self.assertEqual({packet.payload_type for _, packet in caller.packets}, {8})
        caller.bye()
        self.assertEqual(self.ended(world, "caller hung up").codec, "PCMA")


class Hold(Case):
    def test_hold(self) -> None:
        """While the caller is on hold the music does not reach the model, and nothing is sent; then it goes on."""
        world, caller = self.up(rtp_timeout=5)
        world.run(2)
        caller.again(offer(direction="sendonly"))
        world.run(0.5)
        self.assertIn(b"a=recvonly", caller.last.body)
        before, sent = len(world.appended()), len(caller.packets)
        caller.hz = 800
        world.run(3)
        caller.talking = False  # nor is silence taken for an end
        world.run(8)
        self.assertEqual(len(caller.packets), sent)
        self.assertEqual(len(world.appended()), before)
        caller.hz, caller.talking = 0, True
        caller.again(offer())
        world.run(1)
        self.assertIn(b"a=sendrecv", caller.last.body)
        self.assertApproximates(len(world.appended()) - before, 8000, 640)
        self.assertGreater(len(caller.packets), sent + 40)
        self.assertEqual(len({packet.ssrc for _, packet in caller.packets}), 1)
        caller.bye()
        self.ended(world, "caller hung up")

    def test_each_way(self) -> None:
        """However it is held, what the bot was saying waits and is said to its end; the music makes no turn."""
        for held, answer in (
            (offer(direction="sendonly"), b"a=recvonly"),
            (offer(direction="inactive"), b"a=inactive"),
            (offer(address=("0.0.0.0", MEDIA[1])), b"a=recvonly"),
            (offer(address=(MEDIA[0], 0)), b"m=audio 0 RTP/AVP"),
        ):
            world, caller = self.up('speed 4\non greet: tone 440 for 3 s "A story"\n')
            world.run(0.5)
            before = len(caller.heard().strip(b"\xff"))
            caller.again(held)
            world.run(0.1)
            self.assertEqual(caller.codes[-1], 200)
            self.assertIn(answer, caller.last.body)
            given, sent, caller.hz = len(world.appended()), len(caller.packets), 800
            world.run(5)
            self.assertEqual((len(world.appended()), len(caller.packets)), (given, sent))
            caller.hz = 0
            caller.again(offer())
            world.run(4)
            self.assertEqual(world.voice("input_audio_buffer.speech_started"), [])
            self.assertGreater(before, 800)
            self.assertApproximates(len(caller.heard().strip(b"\xff")), 24000, 200)
            caller.bye()
            self.ended(world, "caller hung up")

    def test_mute(self) -> None:
        """A phone that only listens is no lost phone."""
        world, caller = self.up(rtp_timeout=5)
        caller.talking = False
        caller.again(offer(direction="recvonly"))
        world.run(8)
        self.assertEqual(len(world.switch.calls), 1)
        caller.bye()

    def test_resume_without_offer(self) -> None:
        """A re-INVITE without SDP gets our offer, both ways again, and its answer counts (RFC 6337 5.3)."""
        world, caller = self.up()
        caller.again(offer(direction="sendonly"))
        world.run(0.5)
        sent = len(caller.packets)
        caller.ack_body = offer()
        caller.again(b"")
        world.run(1)
        self.assertIn(b"a=sendrecv", caller.last.body)
        self.assertGreater(len(caller.packets), sent + 40)
        caller.bye()
        self.ended(world, "caller hung up")

    def test_moved(self) -> None:
        """Media moves to another address in the middle of the call, and our audio with it."""
        world, caller = self.up()
        world.run(0.2)
        there = ("192.0.2.99", 7000)
        world.phones[there] = caller
        del world.phones[caller.media]
        caller.media = there
        caller.packets.clear()
        caller.again(offer(address=there))
        world.run(1)
        self.assertGreater(len(caller.packets), 45)
        caller.bye()
        self.assertGreater(self.ended(world, "caller hung up").packets_received, 50)

    def test_other_ip_version(self) -> None:
        """Media that moves to IPv6 gets a port there, and our answer names it; the IPv4 port is given back."""
        world, caller = self.up('speed 4\non greet: tone 440 for 3 s "A story"\n')
        self.assertIn(b"c=IN IP4 ", caller.last.body)
        there = ("2001:db8::77", 7000)
        world.phones[there] = caller
        del world.phones[caller.media]
        caller.media = there
        caller.packets.clear()
        caller.again(offer(address=there).replace(b"IN IP4", b"IN IP6"))
        world.run(0.5)
        self.assertIn(b"c=IN IP6 2001:db8::1\r\n", caller.last.body)
        self.assertEqual([":" in port.address[0] for port in world.ports], [True])
        self.assertTrue(caller.hears(440))
        before = len(caller.packets)
        self.assertGreater(before, 20)
        caller.again(offer(address=there).replace(b"IN IP4", b"IN IP6"))  # a refresh keeps the port
        world.run(0.5)
        self.assertEqual(world.opened, 2)
        caller.bye()
        self.assertGreater(self.ended(world, "caller hung up").packets_received, 40)

    def test_ipv6_from_the_beginning(self) -> None:
        """An INVITE over IPv4 whose media is at an IPv6 address is answered with a port there."""
        world, caller = self.begin()
        there = ("2001:db8::77", 7000)
        world.phones[there] = caller
        caller.media = there
        caller.invite(offer(address=there).replace(b"IN IP4", b"IN IP6"))
        world.run(1)
        self.assertTrue(caller.hears(440))
        caller.bye()
        self.assertGreater(self.ended(world, "caller hung up").packets_received, 20)

    def test_keys(self) -> None:
        """Over TLS the audio is encrypted; our key stays over a refresh, and changes when our address does."""
        world, caller = self.begin()
        world.transport = "TLS"
        lines = "a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj\r\n"
        here = offer(protocol="RTP/SAVP", more=lines)
        there = offer(address=("2001:db8::77", 7000), protocol="RTP/SAVP", more=lines).replace(b"IN IP4", b"IN IP6")
        caller.talking = False
        keys = []
        caller.invite(here)
        world.run(1)
        for again in (here, there, there):
            keys.append(re.findall(rb"a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:(\S{40})\r\n", caller.last.body))
            caller.again(again)
            world.run(0.2)
        keys.append(re.findall(rb"inline:(\S{40})", caller.last.body))
        first, second, third, last = [found for [found] in keys]
        self.assertEqual((first, third), (second, last))
        self.assertNotEqual(second, third)
        self.assertIn(b" RTP/SAVP 0 101", caller.last.body)
        caller.bye()
        self.ended(world, "caller hung up")

    def test_video(self) -> None:
        """A re-INVITE that adds video: the answer has a line for it, refused (RFC 3264 6), and the call goes on."""
        world, caller = self.up()
        caller.again(offer() + b"m=video 5000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n")
        world.run(0.1)
        self.assertEqual(caller.codes[-1], 200)
        self.assertIn(b"m=video 0 RTP/AVP 96", caller.last.body)
        self.assertIn(b"o=- 0 2 ", caller.last.body)  # another version of our description
        caller.bye()

    def test_garbage(self) -> None:
        """A re-INVITE that cannot be read gets 400, and the call goes on."""
        world, caller = self.up()
        caller.again(b"hello")
        world.run(1)
        self.assertEqual(caller.codes[-1], 400)
        self.assertTrue(caller.hears(440))
        caller.bye()

    def test_other_law(self) -> None:
        """A re-INVITE for the other law is taken: both hear each other on, and the voice never knows."""
        world, caller = self.up(GREETING, bot(manner=PLAIN))
        caller.again(offer("8 101"))
        caller.codec, caller.kind = "PCMA", 8
        world.run(0.1)
        self.assertEqual(caller.codes[-1], 200)
        self.assertIn(b"RTP/AVP 8 101", caller.last.body)
        now, given = world.clock.seconds(), len(world.appended())
        world.run(0.3)
        self.assertTrue(caller.hears(440, now))
        caller.hz = 800
        world.run(1)
        self.assertEqual({packet.payload_type for at, packet in caller.packets if at >= now}, {8})
        self.assertGreater(loudness(world.appended()[given:], "PCMU", 800), 1000)
        caller.bye()
        self.assertEqual(self.ended(world, "caller hung up").codec, "PCMA")

    def test_no_law(self) -> None:
        """A re-INVITE without G.711 gets 488, and the call goes on as it was."""
        world, caller = self.up()
        caller.acks = True
        caller.again(offer("9 101"))
        world.run(0.2)
        self.assertEqual(caller.codes[-1], 488)
        world.run(1)
        self.assertTrue(caller.hears(440))
        self.assertEqual({packet.payload_type for _, packet in caller.packets}, {0})
        caller.again(b"")  # what was refused is not in our next offer
        world.run(0.2)
        self.assertIn(b"RTP/AVP 0 101", caller.last.body)
        caller.bye()


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

    def test_late_transcript(self) -> None:
        """What the caller said last is in the record although its words came after the end."""
        world, caller = self.up('on speech:\n    heard "And goodbye" after 2 s\n    nothing')
        world.run(1)
        caller.hz = 800
        world.run(0.5)
        caller.hz = 0
        world.run(0.8)
        caller.bye()
        world.run(0.1)
        self.assertEqual(world.records, [])
        self.assertEqual(world.ports, [])
        world.run(2.2)
        self.assertIn("And goodbye", [line.text for line in world.record.transcript])

    def test_no_transcript(self) -> None:
        """Words that never come keep the record waiting for 2 s at most."""
        world, caller = self.up("on speech:\n    heard nothing\n    nothing")
        world.run(1)
        caller.hz = 800
        world.run(0.5)
        caller.hz = 0
        world.run(0.8)
        caller.bye()
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


class Functions(Case):
    ASKS = """
    on greet:
        tone 440 for 200 ms "Let me see."
        call {name} {{"a": 2, "b": 3}}
    on output: tone 600 for 500 ms "It is five."
    """

    def asks(self, name: str = "add") -> tuple[World, Caller]:
        return self.up(self.ASKS.format(name=name))

    def test_result(self) -> None:
        """A function runs with its arguments, and the model says its result."""
        world, caller = self.asks()
        world.gives("add", "5")
        world.run(1.5)
        [(name, arguments, context)] = world.asked
        self.assertEqual((name, arguments), ("add", {"a": 2, "b": 3}))
        self.assertEqual((context.bot_id, context.call_id, context.caller), ("b1", world.call.id, "100"))
        self.assertEqual(world.outputs(), ["5"])
        self.assertTrue(caller.hears(600))
        caller.bye()
        record = self.ended(world, "caller hung up")
        [answered] = [event.fields for event in record.events if event.what == "tool.answered"]
        self.assertEqual((answered["name"], answered["output"]), ("add", "5"))

    def test_slow(self) -> None:
        """A slow function does not stop the audio."""
        world, caller = self.asks()
        waiting = world.waits("add")
        world.run(3)
        self.assertEqual(world.outputs(), [])
        self.assertEqual(len(caller.packets), 151)
        waiting.callback("5")
        world.run(0.5)
        self.assertEqual(world.outputs(), ["5"])
        caller.bye()

    def test_unknown(self) -> None:
        """A function that the bot does not have: the model is told."""
        world, caller = self.asks("divide")
        world.run(1)
        self.assertEqual(world.outputs(), ["There is no function called divide."])
        self.assertEqual(world.asked, [])
        caller.bye()

    def test_fails(self) -> None:
        """A function that fails: the model is told why, and the call goes on."""
        world, caller = self.asks()
        world.gives("add", ToolFailed("the webhook answered with status 500"))
        world.run(1.5)
        self.assertEqual(world.outputs(), ["The function failed: the webhook answered with status 500"])
        self.assertTrue(caller.hears(600))
        caller.bye()

    def test_breaks(self) -> None:
        """A function that breaks in a way nobody foresaw: the model is told all the same, and it is logged."""
        world, caller = self.asks()
        world.gives("add", ZeroDivisionError("secret inside"))
        world.run(1.5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(world.outputs(), ["The function failed by a fault of the service."])
        self.assertTrue(caller.hears(600))
        caller.bye()

    def test_not_words(self) -> None:
        """What a plugin gives that is not text reaches the model as text."""
        world, caller = self.asks()
        world.gives("add", 5)  # type: ignore[arg-type]
        world.run(0.5)
        self.assertEqual(world.outputs(), ["5"])
        caller.bye()

    def test_hang_up_meanwhile(self) -> None:
        """The caller hangs up while a function runs: it is cancelled, and nobody is told."""
        world, caller = self.asks()
        waiting = world.waits("add")
        world.run(1)
        caller.bye()
        self.ended(world, "caller hung up")
        self.assertTrue(waiting.called)
        self.assertEqual(world.outputs(), [])

    def test_while_it_is_answered(self) -> None:
        """A model that asks before our 200 is acknowledged is answered too."""
        world, caller = self.begin('after 500 ms: call add {"a": 1}')
        world.gives("add", "1")
        caller.acks = False
        caller.invite()
        world.run(0.9)
        self.assertEqual(world.outputs(), ["1"])
        caller.acks = True
        world.run(3)
        caller.bye()

    def test_told_of_them(self) -> None:
        """The model is told of the bot's functions and of those every bot has; transfer only when there is a target."""
        keys = ["collect_digits", "send_digits"]
        for target, names in (("200", ["add", "end_call", "transfer_call"]), ("", ["add", "end_call"])):
            world, caller = self.up(GREETING, bot(transfer_uri=target))
            [update] = world.voice("session.update")
            self.assertEqual([tool["name"] for tool in update.event["session"]["tools"]], names + keys)
            caller.bye()

    def test_unreadable(self) -> None:
        """A function whose description cannot be read fails the call before anything is open."""
        broken = bot(functions=(ADD.__class__("f2", "x", "https://example.net", description="{"),))
        world, caller = self.begin("", broken)
        caller.invite()
        world.run(0.1)
        self.flushLoggedErrors()
        self.assertEqual(caller.codes[-1], 500)
        self.assertEqual(world.opened, 0)


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
        self.assertEqual(world.outputs(), [f"There is no such number (404 Not Found). {STILL_THERE}"])
        self.assertTrue(caller.hears(600))
        self.assertEqual(world.call.state, "talking")
        caller.bye()
        self.ended(world, "caller hung up")

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


class Ladders(Case):
    maxDiff = None

    def test_messages(self) -> None:
        """A call with everything in it, as a ladder of SIP messages."""
        world, caller = self.up(
            """
            on greet: tone 440 for 1 s "Good morning!"
            on speech:
                tone 600 for 1 s "I connect you."
                call transfer_call
            """
        )
        world.run(2)
        caller.hz = 800
        world.run(1)
        caller.hz = 0
        world.run_until(lambda: caller.asked("REFER"))
        caller.again(offer(direction="sendonly"))
        world.run(0.5)
        caller.notify("200 OK", over=True)
        world.run(0.5)
        self.assertEqual([line.strip() for line in world.ladder], dedent(LADDER).strip().splitlines())

    def test_voice(self) -> None:
        """A call with a barge-in, as a ladder of Realtime events; audio is left out."""
        world, caller = self.up(BargeIn.STORY.format(speed=0, late=0))
        world.run(1)
        caller.hz = 800
        world.run(0.5)
        caller.hz = 0
        world.run(1.5)
        caller.bye()
        audio = ("input_audio_buffer.append", "response.output_audio.delta")
        lines = [f"{said.at:.2f} {said.way} {said.event['type']}" for said in world.said
                 if said.event["type"] not in audio]  # fmt: skip
        self.assertEqual(lines, dedent(EVENTS).strip().splitlines())

    def test_answers(self) -> None:
        """Our answers to an INVITE with credentials, word by word."""
        world, caller = self.up()
        ours = [data.decode() for data in world.messages if data.startswith((b"SIP/2.0 1", b"SIP/2.0 2"))]
        lines = [line.rstrip() for message in ours for line in message.split("\r\n")]
        self.assertEqual("\n".join(lines).strip(), ANSWERS.strip())
        caller.bye()


LADDER = """
0.00 --> INVITE sip:openai@bots.example
0.00 <-- 401 Unauthorized
0.01 --> ACK sip:openai@bots.example
0.01 --> INVITE sip:openai@bots.example
0.01 <-- 100 Trying
0.01 <-- 180 Ringing
0.01 <-- 200 OK
0.01 --> ACK sip:eva@192.0.2.1:5060
4.80 <-- REFER sip:pbx@192.0.2.10:5060
4.80 --> 202 Accepted
4.80 --> INVITE sip:eva@192.0.2.1:5060
4.80 <-- 100 Trying
4.80 <-- 200 OK
4.81 --> ACK sip:eva@192.0.2.1:5060
5.30 --> NOTIFY sip:eva@192.0.2.1:5060
5.30 <-- 200 OK
5.30 <-- BYE sip:pbx@192.0.2.10:5060
5.31 --> 200 OK
"""
EVENTS = """
0.01 < session.created
0.01 > session.update
0.01 < session.updated
0.01 > response.create
0.01 < response.created
0.01 < rate_limits.updated
0.01 < response.output_item.added
0.01 < conversation.item.added
0.01 < response.content_part.added
0.01 < response.output_audio_transcript.delta
0.01 < response.output_audio.done
0.01 < response.output_audio_transcript.done
0.01 < response.content_part.done
0.01 < response.output_item.done
0.01 < conversation.item.done
0.01 < response.done
1.08 < input_audio_buffer.speech_started
1.08 > conversation.item.truncate
1.08 < conversation.item.truncated
2.04 < input_audio_buffer.speech_stopped
2.04 < input_audio_buffer.committed
2.04 < conversation.item.added
2.04 < conversation.item.done
2.04 < response.created
2.04 < rate_limits.updated
2.04 < response.output_item.added
2.04 < conversation.item.added
2.04 < response.content_part.added
2.04 < response.output_audio_transcript.delta
2.04 < response.output_audio.done
2.04 < response.output_audio_transcript.done
2.04 < response.content_part.done
2.04 < response.output_item.done
2.04 < conversation.item.done
2.04 < response.done
2.30 < conversation.item.input_audio_transcription.delta
2.30 < conversation.item.input_audio_transcription.completed
"""
ANSWERS = """
SIP/2.0 100 Trying
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKcall-0INVITE2
From: "Anna" <sip:100@192.0.2.10>;tag=pbx
To: <sip:openai@bots.example>
Call-ID: call-0
CSeq: 2 INVITE
Content-Length: 0


SIP/2.0 180 Ringing
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKcall-0INVITE2
From: "Anna" <sip:100@192.0.2.10>;tag=pbx
To: <sip:openai@bots.example>;tag=0000000000000003
Call-ID: call-0
CSeq: 2 INVITE
Contact: <sip:eva@192.0.2.1:5060>
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY, UPDATE, PRACK, REGISTER
Content-Length: 0


SIP/2.0 200 OK
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKcall-0INVITE2
From: "Anna" <sip:100@192.0.2.10>;tag=pbx
To: <sip:openai@bots.example>;tag=0000000000000003
Call-ID: call-0
CSeq: 2 INVITE
Contact: <sip:eva@192.0.2.1:5060>
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY, UPDATE, PRACK, REGISTER
Supported: 100rel, norefersub, replaces, timer
Session-Expires: 1800;refresher=uas
Content-Type: application/sdp
Content-Length: 190

v=0
o=- 0 1 IN IP4 192.0.2.1
s=-
c=IN IP4 192.0.2.1
t=0 0
m=audio 10000 RTP/AVP 0 101
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=ptime:20
a=sendrecv
"""


class Machine(Case):
    """The call against all that may happen to it, in any state."""

    ARGUMENTS: ClassVar[dict[str, tuple[Any, ...]]] = {
        "came": (),
        "ordered": (),
        "opened": (),
        "prepared": (),
        "connected": (offer("0"),),
        "lost": (BackendLost("lost", "gone"),),
        "finished": (),
        "acked": (offer("0"),),
        "ended": ("caller hung up",),
        "hang_up": ("ended from the console",),
        "asked": (ToolCall("c1", "add", {}),),
        "approval": (ToolCall("m1", "shop.order", {}),),
        "transfer": (ToolCall("c2", "transfer_call", {}),),
        "returned": ("The line is busy.",),
        "apologised": (),
        "failed": (),
    }

    def bring(self, state: str) -> tuple[World, Caller, Call]:
        """A call in this state."""
        script = "on open: wait 3 s" if state in ("opening", "preparing") else "on greet: call transfer_call"
        if state in ("talking", "failing", "closing", "over"):
            script = "on speech: heard nothing"
        world, caller = self.begin(script, bot(manner=Manner(failure_uri="300")))
        world.gives("add", "5")
        if state in ("preparing", "calling"):
            return world, caller, self.ordered(world, caller, state)
        caller.acks = state != "answering"
        if state == "readying":
            world.disguise = Unprepared
        caller.invite()
        world.run(0.4)
        call = world.call
        if state == "failing":
            call.lost(BackendLost("lost", "gone"))
        if state == "closing":
            caller.hz = 800
            world.run(0.5)
            caller.hz = 0
            world.run(1)
        if state in ("closing", "over"):
            caller.bye()
        self.assertEqual(call.state, state)
        return world, caller, call

    def ordered(self, world: World, caller: Caller, state: str) -> Call:
        """A call of the bot's in this state."""
        eva = world.bots["eva"]
        caller.register()
        world.run(0.1)
        call = world.switch.place(eva, "100", lambda _: None)
        world.run(0.2)
        self.assertEqual(call.state, state)
        return call

    def test_all_pairs(self) -> None:
        """In each state each input does what the table says, or nothing; and always one record is the end of it."""
        self.assertEqual(set(self.ARGUMENTS), set(INPUTS))
        rows = {(state, event.__name__): target for state, event, target, _ in Call.TABLE}
        seen = set()
        pairs = list(product(STATES, INPUTS))
        pairs = [pair for pair in pairs if pair[0] != "new"]  # nothing can happen to it from outside
        for state, name in pairs:
            world, caller, call = self.bring(state)
            written = len(world.records)
            if (state, name) == ("calling", "connected"):
                caller.pick_up()  # it brings a session
            else:
                getattr(call._inputs, name)(*self.ARGUMENTS[name])
            target = rows.get((state, name), state)
            if (state, name) in rows:
                seen.add((state, name))
            if target == state:
                self.assertEqual((call.state, len(world.records)), (state, written), (state, name))
            elif target in ("closing", "over"):  # closing may be over at once
                self.assertIn(call.state, ("closing", "over"), (state, name))
            else:
                self.assertEqual(call.state, target, (state, name))
            world.run(0.1)
            caller.acks = caller.yields = True
            call.hang_up("the end of the test")
            call._part()  # these two may not know what we were told
            call._voice.finish()
            world.run(3)
            world.registrar.forget("eva")
            world.drain()
            self.assertEqual(len(world.records), 1, (state, name))
            self.assertEqual(world.left(), [], (state, name))
            self.assertEqual(call.state, "over")
        self.assertEqual(seen, {row for row in rows if row[0] != "new"})

    def test_table_says_each_thing_once(self) -> None:
        """No pair stands twice, and only states and inputs that exist are named."""
        pairs = [(state, event.__name__) for state, event, _, _ in Call.TABLE]
        self.assertEqual(len(pairs), len(set(pairs)))
        self.assertLessEqual({state for state, _ in pairs} | {row[2] for row in Call.TABLE}, set(STATES))
        self.assertLessEqual({name for _, name in pairs}, set(INPUTS))


class Faults(Case):
    """Whatever fails, nothing stays behind."""

    SCRIPT = """
    speed 0
    on greet:
        tone 440 for 60 ms "Hi"
        call add {"a": 1}
    on output:
        tone 600 for 40 ms "One."
        call transfer_call
    """

    def scenario(self, fail_at: int | None) -> World:
        """A short call with a function, a transfer and a re-INVITE; outside call number `fail_at` fails."""
        world = World(dedent(self.SCRIPT), rtp_timeout=4)
        world.outside.fail_at = fail_at
        world.gives("add", "1")
        caller = Caller(world)
        caller.invite()
        world.run(0.1)
        if 200 in caller.codes:
            caller.again(offer())
        world.run(0.3)
        if caller.asked("REFER"):
            caller.notify("200 OK", over=True)
        world.run(0.6)
        if 200 in caller.codes and not caller.asked("BYE"):
            caller.bye()
        world.drain()
        return world

    def test_sweep(self) -> None:
        """The n-th outside call fails, for every n: no port, timer, session, websocket or call is ever left."""
        for number in count():
            world = self.scenario(number)
            self.flushLoggedErrors(Fault)
            broken = world.outside.calls[number] if number < len(world.outside.calls) else "nothing"
            self.assertEqual(world.left(), [], f"{number}: {broken}")
            self.assertLessEqual(len(world.records), 1)
            if broken == "nothing":
                self.assertEqual(world.record.end_reason, "transferred")
                break
            if broken not in ("ports.open", "open_voice", "connect", "records.save", "transport.send"):
                self.assertEqual(len(world.records), 1, f"{number}: {broken}")
        self.assertEqual(
            set(world.outside.calls),
            {
                "transport.send",
                "ports.open",
                "open_voice",
                "connect",
                "link.send",
                "link.close",
                "port.send",
                "port.send_control",
                "port.close",
                "run_tool",
                "records.save",
            },
        )

    def test_plugin_voice(self) -> None:
        """A voice of a plugin may raise wherever it can: the call ends, and one record is written."""
        for name in ("greet", "answered", "finish"):
            world, caller = self.begin(
                'on greet:\n    tone 440 for 1 s "Hi"\n    call divide\non output: call transfer_call'
            )
            world.disguise = lambda voice, name=name: Broken(voice, name)  # type: ignore[misc]
            caller.dial()
            world.run(2)
            caller.notify("404 Not Found", over=True)
            world.run(0.2)
            if name == "finish":
                caller.bye()
            world.run(0.5)
            self.assertEqual(len(caller.asked("BYE")), 0 if name == "finish" else 1, name)
            self.assertTrue(self.flushLoggedErrors(Fault), name)
            self.assertEqual(world.switch.calls, (), name)
            self.assertEqual(len(world.records), 1, name)
            self.nothing_left(world)


class Unprepared:
    """A voice that is long in making its greeting."""

    def __init__(self, voice: Any) -> None:
        self._voice = voice

    def __getattr__(self, name: str) -> Any:
        return getattr(self._voice, name)

    def prepare(self) -> None:
        """It makes none."""


class Broken:
    """A voice with one method that does what it should, and then raises."""

    def __init__(self, voice: Any, name: str) -> None:
        self._voice, self._name = voice, name

    def __getattr__(self, name: str) -> Any:
        part = getattr(self._voice, name)

        def broken(*arguments: object, **options: object) -> None:
            part(*arguments, **options)
            raise Fault(name)

        return broken if name == self._name else part


SCRIPTS = (
    'speed 0\non greet: tone 440 for 2 s "Hello"\non speech: tone 600 for 1 s "Yes"',
    'on open: wait 2 s\non greet:\n    tone 440 for 100 ms "Wait"\n    call transfer_call\non output: call end_call',
    "on greet: call add {}\non output: call transfer_call\non speech:\n    heard nothing\n    call add {}",
    'on connect: refuse 429 "Later"',
    'late deltas 2\non greet: tone 440 for 5 s "A story"\non speech: call transfer_call\nafter 3 s: drop',
    'on greet: call collect_digits {"length": 2}\non output: call send_digits {"digits": "12"}',
    'on greet: call send_digits {"digits": "1,,2"}\non text: call collect_digits\nafter 4 s: call transfer_call',
    'on speech 1: call end_call\nafter 1 s: call add {}\nevery 2 s: error server_error "Oops"',
)
STEPS = (
    *("wait", "wait", "wait long", "speak", "hush", "mute", "bye", "cancel", "hold", "resume", "late offer", "garbage"),
    *("other law", "trying", "moved", "not found", "options", "deaf", "hearing", "drop", "operator", "result", "down"),
    *("ack", "invite", "key", "hash"),
)


class Walk(Case):
    """Whatever PBX, caller, model and operator do, in any order."""

    def step(self, world: World, caller: Caller, step: str) -> None:
        match step:
            case "wait":
                world.run(0.15)
            case "wait long":
                world.run(2.5)
            case "speak":
                caller.hz = 800
                world.run(0.4)
            case "hush":
                caller.hz = 0
                world.run(0.7)
            case "mute":
                caller.talking = not caller.talking
            case "bye":
                caller.send("BYE")
            case "cancel":
                caller.cancel()
            case "hold" | "resume":
                caller.again(offer(direction="sendonly" if step == "hold" else "sendrecv"))
            case "late offer":
                caller.again(b"")
            case "garbage":
                caller.again(b"v=1")
            case "other law":
                caller.again(offer("8"))
            case "trying":
                caller.notify("100 Trying")
            case "moved":
                caller.notify("200 OK", over=True)
            case "not found":
                caller.notify("404 Not Found", over=True)
            case "options":
                caller.send("OPTIONS")
            case "deaf" | "hearing":
                caller.acks = caller.yields = step == "hearing"
            case "drop":
                for link in list(world.links):
                    link.lose(False, 1006, "")
            case "operator":
                for call in world.switch.calls:
                    call.hang_up("ended from the console")
            case "result":
                for waiting in self.waiting:
                    if not waiting.called:
                        waiting.callback("5")
            case "down":
                world.switch.close("service stopped", lambda: None)
            case "key" | "hash":
                body = f"Signal={'#' if step == 'hash' else 5}\r\n".encode()
                caller.send("INFO", body, headers="Content-Type: application/dtmf-relay\r\n")
            case "ack":
                caller.send("ACK", offer())
            case "invite":
                caller.tag = caller.target = ""
                caller.name += "-"
                caller.invite()

    async def wait(self, _arguments: Json) -> str:
        self.waiting.append(Deferred())
        return await self.waiting[-1]

    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from(SCRIPTS), st.lists(st.sampled_from(STEPS), max_size=14))
    def test_walk(self, script: str, steps: list[str]) -> None:
        """Each call ends with one record, and nothing is left of it."""
        world = World(script, rtp_timeout=5)
        self.waiting: list[Deferred[str]] = []
        world.functions["add"] = self.wait
        caller = Caller(world)
        caller.ack_body = offer("0")
        caller.invite()
        world.run(0.1)
        for step in steps:
            self.step(world, caller, step)
        world.run(0.1)
        for call in world.switch.calls:
            call.hang_up("the end of the test")
        world.drain()
        self.assertEqual(world.left(), [])
        self.assertEqual(len(world.records), world.outside.calls.count("open_voice"))
        self.assertEqual(self.flushLoggedErrors(), [])
        for record in world.records:
            self.assertTrue(record.end_reason)
            self.assertEqual([event.what for event in record.events].count("ended"), 1)
            self.assertGreaterEqual(record.ended, record.started)
        self.assertEqual(world.transactions.counters["fault"], 0)
