"""Whole calls, from INVITE to BYE, on one fake clock in memory: what the caller hears and what the record says."""

from __future__ import annotations

from itertools import pairwise
from textwrap import dedent
from typing import Any

from extenbot.errors import ToolFailed
from extenbot.interfaces import CallRecord
from extenbot.journal import LONGEST, MOST_EVENTS, Journal, caller_of
from extenbot.journal import Caller as WhoCalls
from extenbot.media import g711
from extenbot.sip.message import Request, read
from tests.case import GREETING, STORY, Case
from tests.clock import Clock
from tests.memory import ADD, Caller, World, bot, offer


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
    def interrupt(self, speed: int, late: int = 0) -> None:
        world, caller = self.up(STORY.format(speed=speed, late=late))
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
