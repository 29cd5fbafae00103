"""The machine of a call: each state with each event, failures at each step, and walks through it at random."""

from __future__ import annotations

from itertools import count, product
from textwrap import dedent
from typing import Any, ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from extenbot.call import INPUTS, STATES, Call
from extenbot.errors import BackendLost
from extenbot.interfaces import Json, Manner, ToolCall
from tests.case import STORY, Case
from tests.memory import Caller, Fault, World, bot, offer


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
        world, caller = self.up(STORY.format(speed=0, late=0))
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
