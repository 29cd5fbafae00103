"""GPT-Live: what the service is sent, and what the caller and the call get of it."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai import livestart
from extenbot.errors import BackendLost
from extenbot.interfaces import Line, ToolCall
from tests.ai.liveworld import LiveLink, LiveWorld, live_order
from tests.ai.world import END_CALL, LOOK_UP


class Opening(SynchronousTestCase):
    def test_dials(self) -> None:
        """The service is dialled without a query, with the key, and hears nothing before the websocket is open."""
        world = LiveWorld()
        self.assertEqual(
            world.dialled,
            [("wss://voice.example/v1/live/sessions", {"Authorization": "Bearer sk-secret"}, 10.0)],
        )
        self.assertEqual(world.links[0].sent, [])

    def test_settings(self) -> None:
        """The one session.start says all that this call needs; the functions go to the backend."""
        [start] = LiveWorld().start()
        told = "You are on the telephone."
        session = start["session"]
        self.assertEqual(start["event_id"], "c1")
        self.assertEqual(session["model"], "gpt-live-1.1")
        self.assertEqual(
            session["audio"], {"format": {"type": "audio/pcmu", "rate": 8000}, "output": {"voice": "marin"}}
        )
        self.assertTrue(session["instructions"].startswith(f"You are Eva.\n\n{told}"))
        self.assertIn("- end_call: Hang up.", session["instructions"])
        self.assertEqual(session["delegation"]["type"], "responses")
        backend = session["delegation"]["responses"]
        self.assertEqual((backend["model"], backend["tools"]), ("gpt-6-luna", [LOOK_UP, END_CALL]))
        self.assertTrue(backend["instructions"].startswith("You are Eva."))
        self.assertEqual(len(session["safety_identifier"]), 64)
        self.assertNotIn("100", session["safety_identifier"])
        self.assertEqual(set(session), {"model", "audio", "instructions", "delegation", "safety_identifier"})

    def test_manner(self) -> None:
        """What a bot says of reasoning, parallel functions and tokens goes to the backend, its own settings on top."""
        extra = '{"delegation": {"responses": {"model": "other", "text": {"verbosity": "low"}}}, "store": true}'
        manner = {"reasoning": "low", "parallel_tools": "no", "max_output_tokens": 300, "extra": extra}
        [start] = LiveWorld(live_order(manner=manner, voice="voice_7")).start()
        session = start["session"]
        backend = session["delegation"]["responses"]
        self.assertEqual(backend["reasoning"], {"effort": "low"})
        self.assertEqual((backend["parallel_tool_calls"], backend["max_output_tokens"]), (False, 300))
        self.assertEqual((backend["model"], backend["text"]), ("other", {"verbosity": "low"}))
        self.assertEqual((session["store"], session["audio"]["output"]["voice"]), (True, {"id": "voice_7"}))

    def test_opened_when_started(self) -> None:
        """The call may be answered when the session has started with its codec, and not before."""
        for law in ("audio/pcmu", "audio/pcma"):
            world = LiveWorld(live_order(format=law))
            world.voice.heard(bytes(320))
            world.voice.greet()
            self.assertEqual(world.listener.told, [])
            world.clock.advance(0.5)
            world.start()
            self.assertEqual(world.listener.told, [("opened", None)])
            self.assertEqual(world.log.of("session.opened"), [{"ms": 500}])
            self.assertEqual(world.timers, [])

    def test_wrong_format(self) -> None:
        """A session in another codec is not talked into."""
        world = LiveWorld()
        world.start(law="audio/pcma")
        self.assertEqual(world.listener.told, [("lost", "wrong_format")])
        self.assertEqual((world.links[0].closed, world.timers), (1, []))

    def test_addresses(self) -> None:
        """The place of the sessions is found beside that of the Realtime service, without its model."""
        for url, found in (
            ("wss://api.openai.com/v1/realtime", "wss://api.openai.com/v1/live/sessions"),
            ("wss://eu.api.openai.com/v1/realtime?model=x&a=b", "wss://eu.api.openai.com/v1/live/sessions?a=b"),
            ("wss://r.openai.azure.com/openai/v1/realtime", "wss://r.openai.azure.com/openai/v1/live/sessions"),
            ("ws://[::1]:8000/v1/live/sessions/", "ws://[::1]:8000/v1/live/sessions"),
            ("wss://host", "wss://host/v1/live/sessions"),
        ):
            self.assertEqual(livestart.address(url), found)
        for url in ("https://host/v1/realtime", "wss://"):
            with self.assertRaises(BackendLost):
                livestart.address(url)

    def test_azure(self) -> None:
        """Azure's keys have a header of their own."""
        world = LiveWorld(url="wss://r.openai.azure.com/openai/v1/realtime")
        self.assertEqual(world.dialled[0][1]["api-key"], "sk-secret")


class Refused(SynchronousTestCase):
    def lost(self, world: LiveWorld) -> str:
        """The cause that the call hears, once; nothing is left behind."""
        world.clock.advance(0)
        [(name, cause)] = world.listener.told
        self.assertEqual((name, world.timers), ("lost", []))
        return str(cause)

    def test_wrong_key(self) -> None:
        """A wrong key is told as one, whether the handshake or the session is refused, and never quoted."""
        world = LiveWorld()
        world.drop(1006, "upgrade failed [401]: Unauthorized")
        self.assertEqual(self.lost(world), "wrong_key")
        world = LiveWorld()
        world.listeners[0].connected()
        world.error("invalid_api_key", "Incorrect API key provided: sk-secret.")
        self.assertEqual(self.lost(world), "wrong_key")
        self.assertNotIn("sk-secret", str(world.log.lines))

    def test_settings(self) -> None:
        """Settings that the service does not take are told in its words."""
        for code, name in (("unknown_parameter", None), ("forbidden", "c1")):
            world = LiveWorld()
            world.listeners[0].connected()
            world.error(code, "The voice fable is not available.", name, "invalid_request_error")
            self.assertEqual(self.lost(world), "refused_settings")
            self.assertIn("The voice fable is not available.", str(world.log.of("session.lost")))

    def test_own_settings(self) -> None:
        """Settings of the owner's own that cannot be used refuse the call before anything is dialled."""
        for extra in ('{"model": "x"}', '{"audio": {"format": {"type": "audio/pcm"}}}', "["):
            world = LiveWorld(live_order(manner={"extra": extra}))
            self.assertEqual(self.lost(world), "refused_settings")
            self.assertEqual(world.dialled, [])
        world = LiveWorld(url="https://host/")
        self.assertEqual(self.lost(world), "refused_settings")

    def test_overload(self) -> None:
        """A service that has no room says so."""
        for code, reason in ((1006, "[503]"), (1006, "[429]"), (1013, "")):
            world = LiveWorld()
            world.drop(code, reason)
            self.assertEqual(self.lost(world), "busy")

    def test_late(self) -> None:
        """A session that does not start in time is given up."""
        world = LiveWorld()
        world.listeners[0].connected()
        world.clock.advance(10)
        self.assertEqual(self.lost(world), "late")

    def test_closed_at_once(self) -> None:
        """A session that the service closes while it starts is lost."""
        world = LiveWorld()
        world.listeners[0].connected()
        world.closed("content")
        self.assertEqual(self.lost(world), "lost")

    def test_finished_early(self) -> None:
        """A caller who hangs up while the session opens leaves nothing behind."""
        world = LiveWorld()
        world.voice.finish()
        self.assertEqual(world.listener.told, [("finished", None)])
        self.assertEqual((world.links[0].closed, world.timers), (1, []))


class Greeting(SynchronousTestCase):
    def test_asked(self) -> None:
        """The welcome message is asked for word by word, and heard."""
        world = LiveWorld()
        world.start()
        world.voice.greet()
        [said] = world.sent()
        self.assertEqual(
            (said["type"], said["content"], said["delegation_id"]),
            ("session.commentary.append", 'Say exactly: "Hello!"', None),
        )
        world.says("Hello!")
        world.playout.play()
        self.assertEqual(world.voice.transcript, (Line("bot", "Hello!", 0.0),))
        self.assertEqual(world.log.of("greeting.heard"), [{"ms": 0}])

    def test_of_its_own(self) -> None:
        """A bot without a welcome message greets as it likes."""
        world = LiveWorld(live_order(welcome=""))
        world.start()
        world.voice.greet()
        self.assertIn("Greet the caller", world.sent()[0]["content"])

    def test_held(self) -> None:
        """It is made while the phone rings, kept until the answer, and heard then; the model hears silence so long."""
        world = LiveWorld()
        world.start()
        world.voice.prepare()
        world.voice.prepare()
        self.assertEqual([event["content"] for event in world.sent()], ['Say exactly: "Hello!"'])
        world.clock.pump([0.04] * 20)
        fed = world.all_sent()
        self.assertEqual({event["type"] for event in fed}, {"session.input_audio.append"})
        self.assertEqual(len(fed), 20)
        self.assertEqual(b64decode(fed[0]["audio"]), b"\xff" * 320)
        world.voice.heard(bytes(160))  # nobody is there yet
        self.assertEqual(world.listener.names, ["opened"])
        world.says("Hello!", 400)
        world.clock.advance(0)
        self.assertEqual(world.listener.names, ["opened", "prepared"])
        self.assertTrue(world.playout.held)
        world.clock.pump([0.04] * 20)
        self.assertLessEqual(len(world.all_sent()), 1)  # 400 ms are enough to begin with
        world.playout.play()
        self.assertEqual(world.voice.transcript, ())
        world.voice.greet()
        self.assertFalse(world.playout.held)
        world.playout.play()
        self.assertEqual([line.text for line in world.voice.transcript], ["Hello!"])
        self.assertEqual(world.sent(), [])

    def test_stored(self) -> None:
        """A stored greeting is played as it is, and the model told of it."""
        world = LiveWorld(replace(live_order(), greeting=b"\x55" * 1600))
        world.start()
        world.voice.prepare()
        world.clock.advance(0)
        self.assertEqual(world.listener.names, ["opened", "prepared"])
        world.voice.greet()
        world.playout.play()
        [told] = world.sent()
        self.assertEqual(told["type"], "session.instructions.append")
        self.assertIn('"Hello!" Do not greet again.', told["content"])
        self.assertEqual(world.voice.transcript, (Line("bot", "Hello!", 0.0),))
        self.assertEqual(world.timers, [])

    def test_not_interruptible(self) -> None:
        """Where nobody shall talk over it the model hears silence until it has been heard to its end."""
        world = LiveWorld(live_order(manner={"greeting_interruptible": False}))
        world.start()
        world.voice.greet()
        world.says("Hello!")
        world.hear(0.4)
        self.assertEqual(_heard(world), b"\xff" * 3200)
        world.wait(1)
        world.playout.play()
        world.hear(0.4)
        self.assertEqual(_heard(world), b"\x2a" * 3200)

    def test_silent(self) -> None:
        """A model that does not greet is asked once more; then it counts as lost. The caller is heard meanwhile."""
        world = LiveWorld(live_order(manner={"greeting_interruptible": False}))
        world.start()
        world.voice.greet()
        world.sent()
        world.wait(8)
        self.assertEqual([event["content"] for event in world.sent()], ['Say exactly: "Hello!"'])
        self.assertEqual(world.log.of("response.late"), [{"seconds": 8.0}])
        world.hear(0.04)
        self.assertEqual(_heard(world), b"\x2a" * 320)
        world.wait(8)
        self.assertEqual(world.listener.told, [("opened", None), ("lost", "silent")])

    def test_long(self) -> None:
        """A welcome message that is too long for one message comes in several, with nothing lost."""
        welcome = " ".join(["Welcome"] * 400)
        world = LiveWorld(live_order(welcome=welcome))
        world.start()
        world.voice.greet()
        sent = world.sent()
        self.assertEqual(len(sent), 3)
        self.assertEqual("".join(event["content"] for event in sent), f'Say exactly: "{welcome}"')


def _heard(world: LiveWorld) -> bytes:
    """What the model was given to hear since the last time."""
    return b"".join(b64decode(event["audio"]) for event in world.all_sent() if "audio" in event)


class Audio(SynchronousTestCase):
    def test_caller(self) -> None:
        """Everything of the caller goes to the model in messages of 40 ms, silence as well."""
        world = LiveWorld().up()
        world.hear(0.2)
        world.hear(0.2, b"\xff")
        sent = world.all_sent()
        self.assertEqual(len(sent), 10)
        self.assertEqual(b"".join(b64decode(event["audio"]) for event in sent), b"\x2a" * 1600 + b"\xff" * 1600)

    def test_congested(self) -> None:
        """What the network does not take is thrown away instead of being heard late, and counted."""
        world = LiveWorld().up()
        world.links[0].behind = 200_001
        world.hear(0.4)
        self.assertEqual(world.all_sent(), [])
        world.voice.finish()
        world.closed("close_requested")
        [end] = world.log.of("session.finished")
        self.assertEqual(end, {"sessions": 1, "malformed": 0, "dropped_ms": 400})

    def test_barge_in_off(self) -> None:
        """A bot that must not be interrupted hears silence while it speaks, and the caller when it is done."""
        for mode, code in (("off", b"\xff"), ("immediate", b"\x2a")):
            world = LiveWorld(live_order(manner={"barge_in": mode})).up()
            world.says("We open at nine.", 600)
            world.hear(0.2)
            self.assertEqual(_heard(world), code * 1600)
            world.wait(1)
            world.playout.play()
            world.hear(0.2)
            self.assertEqual(_heard(world), b"\x2a" * 1600)

    def test_interrupted(self) -> None:
        """A model that is talked over falls silent by itself: nothing is cut off, and the caller's words follow."""
        world = LiveWorld().up()
        world.says("We open at", 400)
        world.voice.loud(True)
        world.caller("Stop!", 1000, 1300)
        world.wait(1)
        world.playout.play()
        world.voice.loud(False)
        self.assertEqual([line.text for line in world.voice.transcript], ["Hello!", "We open at", "Stop!"])
        self.assertEqual(world.sent(), [])
        self.assertEqual(world.playout.finished, {"live1", "live2"})

    def test_cushion(self) -> None:
        """80 ms of an utterance are gathered before it plays, or waited for; then all comes at once."""
        world = LiveWorld().up()
        world.sound(40)
        self.assertEqual(world.playout.received.get("live2"), None)
        world.sound(40)
        self.assertEqual(world.playout.received["live2"], 640)
        world.sound(20)
        self.assertEqual(world.playout.received["live2"], 800)
        world.playout.play()  # the network is late: gather again
        world.sound(20)
        self.assertEqual(world.playout.received["live2"], 800)
        world.clock.advance(0.08)
        self.assertEqual(world.playout.received["live2"], 960)

    def test_silence_between(self) -> None:
        """A service that sends its silence as well makes no endless utterance of it."""
        world = LiveWorld().up()
        for _ in range(50):
            world.sound(20, what=b"\xff")
        self.assertEqual(world.playout.live, [])
        world.says("Yes.")
        for _ in range(40):
            world.clock.advance(0.02)
            world.sound(20, what=b"\xfe")
        self.assertEqual(world.playout.finished, {"live1", "live2"})
        self.assertLess(world.playout.received["live2"], 1600 + 5600)
        self.assertEqual(world.playout.received["live2"] % 160, 0)

    def test_words(self) -> None:
        """Words stand in the utterance they came with, a little before or after its sound; the caller's in lines."""
        world = LiveWorld().up()
        world.server("session.output_transcript.delta", delta="We open", start_ms=0, end_ms=1)
        world.sound(100)
        world.wait(0.75)
        world.server("session.output_transcript.delta", delta=" at nine.", start_ms=0, end_ms=1)
        world.caller("And", 9000, 9200)
        world.caller(" when", 9300, 9500)
        world.caller("Hello?", 11000, 11200)
        world.playout.play()
        lines = [(line.speaker, line.text) for line in world.voice.transcript]
        self.assertEqual(
            lines, [("bot", "Hello!"), ("bot", "We open at nine."), ("caller", "And when"), ("caller", "Hello?")]
        )
        self.assertEqual((world.voice.turns, len(world.log.of("speech.started"))), (2, 2))

    def test_words_by_their_time(self) -> None:
        """Where the service says when words were spoken they stand there, however quickly another utterance follows."""
        world = LiveWorld().up()
        for words, at in (("Nine to", 1000), ("Anything else?", 2000)):
            world.server("session.output_transcript.delta", delta=words, start_ms=at + 20, end_ms=at + 200)
            world.sound(200, until=at + 200)
            world.wait(0.75)
            if at == 1000:
                world.server("session.output_transcript.delta", delta=" five.", start_ms=1150, end_ms=1200)
        world.playout.play()
        self.assertEqual([line.text for line in world.voice.transcript], ["Hello!", "Nine to five.", "Anything else?"])

    def test_faltering(self) -> None:
        """However late audio is in the middle of an utterance, it is gathered again before it goes on."""
        world = LiveWorld().up()
        world.sound(100)
        world.playout.play()
        world.clock.advance(0.25)
        world.sound(40)
        self.assertEqual(world.playout.received["live2"], 800)
        world.sound(40)
        self.assertEqual(world.playout.received["live2"], 1440)

    def test_latency(self) -> None:
        """From the caller's last word to the first audio of the answer, and to its first packet."""
        world = LiveWorld().up()
        world.hear(1)
        world.caller("When?", 300, 800)
        world.clock.advance(0.5)
        world.sound(100)
        world.clock.advance(0.125)
        world.playout.play()
        self.assertEqual(world.log.of("turn"), [{"after": "speech", "first_audio": 700, "wire": 825}])

    def test_idle(self) -> None:
        """Nobody is asked whether they are there while somebody speaks or something is due."""
        world = LiveWorld()
        self.assertIsNone(world.voice.idle_since)
        world.start()
        world.voice.greet()
        self.assertIsNone(world.voice.idle_since)
        world.says("Hello!")
        self.assertIsNone(world.voice.idle_since)
        world.wait(1)
        self.assertIsNone(world.voice.idle_since)
        world.playout.play()
        self.assertEqual(world.voice.idle_since, 1.0)
        world.wait(1)
        world.voice.loud(True)
        self.assertIsNone(world.voice.idle_since)
        world.voice.loud(False)
        self.assertEqual(world.voice.idle_since, 2.0)
        world.wait(1)
        world.caller("Hm.", 1, 2)
        self.assertEqual(world.voice.idle_since, 3.0)
        world.calls("f1")
        self.assertIsNone(world.voice.idle_since)


class Told(SynchronousTestCase):
    def test_told(self) -> None:
        """Keys are an instruction to answer, what we want said a commentary, the rest a thought."""
        world = LiveWorld().up()
        world.voice.told("[The caller pressed 1234#]", by_caller=True)
        world.voice.told("[Ask whether the caller is still there.]")
        world.voice.told("[One minute is left.]", speak=False)
        self.assertEqual(
            [(event["type"], event["content"]) for event in world.sent()],
            [
                ("session.instructions.append", "[The caller pressed 1234#] Respond to it now."),
                ("session.commentary.append", "[Ask whether the caller is still there.]"),
                ("session.thinking.append", "[One minute is left.]"),
            ],
        )
        self.assertEqual(world.voice.transcript[-1].text, "[The caller pressed 1234#]")
        self.assertEqual(world.voice.turns, 1)

    def test_no_answer(self) -> None:
        """A model that does not say what it is told to is told once more, then it is lost; one that does is not."""
        for answers in (True, False):
            world = LiveWorld().up()
            world.voice.told("[Ask whether the caller is still there.]")
            world.wait(4)
            if answers:
                world.says("Are you there?")
                world.playout.play()
            world.wait(20)
            self.assertEqual("lost" in world.listener.names, not answers)
            self.assertEqual(len(world.log.of("response.late")), 0 if answers else 1)


class Unanswered(SynchronousTestCase):
    def asks(self, **manner: Any) -> LiveWorld:
        """The caller has asked something."""
        world = LiveWorld(live_order(manner={"silence": 0, **manner})).up()
        world.hear(2)
        world.caller("When do you open?", 500, 1900)
        world.sent()
        return world

    def test_asked_once_more(self) -> None:
        """A caller who gets no answer does not wait for ever: the model is told to, then it counts as lost."""
        world = self.asks()
        world.wait(7.875)
        self.assertEqual(world.sent(), [])
        world.wait(0.125)
        [again] = world.sent()
        self.assertEqual(again["type"], "session.instructions.append")
        self.assertEqual(world.log.of("response.late"), [{"seconds": 8.0}])
        world.wait(8)
        self.assertEqual(world.listener.told[1:], [("lost", "silent")])

    def test_answered(self) -> None:
        """Who is answered, be it late, is not asked for anything; words that come after the answer change nothing."""
        world = self.asks()
        world.wait(7)
        world.says("At nine.")
        world.hear(1)
        world.playout.play()
        world.caller(" Please.", 1900, 1950)
        world.sent()
        world.wait(20)
        self.assertEqual((world.sent(), world.log.of("response.late")), ([], []))
        self.assertEqual(world.listener.names, ["opened"])

    def test_told_and_answered(self) -> None:
        """A model that answers when it is told to is as good as ever."""
        world = self.asks()
        world.wait(8)
        world.says("At nine.")
        world.wait(1)
        world.playout.play()
        world.sent()
        world.wait(20)
        self.assertEqual((world.sent(), world.listener.names), ([], ["opened"]))

    def test_not_while_a_function_runs(self) -> None:
        """What it was asked for is being done, or the caller goes on speaking: nobody is hurried."""
        world = self.asks()
        world.calls("f1")
        world.wait(30)
        self.assertEqual(world.sent(), [])
        world = self.asks()
        world.voice.loud(True)
        world.wait(30)
        self.assertEqual(world.sent(), [])


class Functions(SynchronousTestCase):
    def test_one(self) -> None:
        """A function that the backend asks for is run; its result goes there, and the backend on."""
        world = LiveWorld().up()
        delegation = {"id": "d1", "target": "responses", "type": "delegation"}
        world.server("session.delegation.created", delegation=delegation, offset_ms=1)
        world.backend("response.created", response={"id": "resp_1"})
        world.backend("response.output_item.done", output_index=0, item={"type": "reasoning", "id": "r"})
        world.calls("f1", arguments='{"room": 7}', place=1)
        self.assertEqual(world.listener.told[-1], ("asked", ToolCall("f1", "look_up", {"room": 7})))
        world.voice.answered("f1", "It is free.")
        world.voice.answered("f1", "Again.")
        [output] = world.sent()
        item = {"type": "function_call_output", "call_id": "f1", "output": "It is free."}
        self.assertEqual((output["type"], output["item"]), ("response.item.create", item))
        world.done(into=100, out=10)
        self.assertEqual([event["type"] for event in world.sent()], ["response.create"])
        world.done(into=120, out=20)
        self.assertEqual(world.sent(), [])
        self.assertEqual(world.log.of("delegated"), [{"target": "responses"}])

    def test_several(self) -> None:
        """Results go back in the order of the calls, and the backend goes on when all of a response are there."""
        world = LiveWorld().up()
        world.calls("f1", place=0)
        world.calls("f2", place=1)
        world.calls("g1", delegation="d2")
        world.done()
        world.voice.answered("f2", "two")
        self.assertEqual(world.sent(), [])
        world.done(delegation="d2")
        world.voice.answered("g1", "three")
        self.assertEqual([event["type"] for event in world.sent()], ["response.item.create", "response.create"])
        world.voice.answered("f1", "one")
        sent = world.sent()
        self.assertEqual([event["item"]["output"] for event in sent[:2]], ["one", "two"])
        self.assertEqual([event["type"] for event in sent[2:]], ["response.create"])

    def test_not_json(self) -> None:
        """Arguments that are no object go back to the backend."""
        world = LiveWorld().up()
        world.calls("f1", arguments="[")
        world.done()
        sent = world.sent()
        self.assertIn("not a JSON object", sent[0]["item"]["output"])
        self.assertEqual(sent[1]["type"], "response.create")

    def test_client_delegation(self) -> None:
        """A bot without functions has no backend: the model is told so when it wants one."""
        world = LiveWorld(replace(live_order(), tools=()))
        [start] = world.start()
        self.assertNotIn("delegation", start["session"])
        delegation = {"id": "d9", "target": "client", "type": "delegation"}
        world.server("session.delegation.created", delegation=delegation, offset_ms=1)
        [told] = world.sent()
        self.assertEqual((told["type"], told["delegation_id"]), ("session.thinking.append", "d9"))

    def test_leaving(self) -> None:
        """The bot leaves when its goodbye has been heard to its end and nothing more came, not before."""
        world = LiveWorld().up()
        world.says("Good", 400)
        world.calls("f1", "end_call")
        world.done()
        self.assertNotIn("leaving", world.listener.names)
        world.wait(0.5)
        world.says("bye!", 400)
        world.wait(3)
        self.assertNotIn("leaving", world.listener.names)
        world.playout.play()
        world.wait(1)
        self.assertNotIn("leaving", world.listener.names)
        world.wait(0.5)
        self.assertEqual(world.listener.told[-1], ("leaving", ToolCall("f1", "end_call", {})))
        self.assertEqual(world.sent(), [])

    def test_leaving_at_once(self) -> None:
        """A goodbye that is heard as it comes keeps the bot a good second from its last sound, no longer."""
        world = LiveWorld().up()
        world.calls("f1", "end_call")
        world.done()
        world.says("Goodbye!", 400)
        world.playout.play()
        world.wait(1)
        self.assertNotIn("leaving", world.listener.names)
        world.wait(0.5)
        self.assertEqual(world.listener.names[-1], "leaving")

    def test_leaving_stuck(self) -> None:
        """A goodbye that does not get ahead is waited for 5 s."""
        world = LiveWorld().up()
        world.says("Good", 400)
        world.calls("f1", "end_call")
        world.wait(6)
        self.assertEqual(world.listener.names[-1], "leaving")

    def test_came_back(self) -> None:
        """A transfer that failed is told to the backend, and the model says so."""
        world = LiveWorld().up()
        world.calls("f1", "transfer_call")
        world.done()
        world.wait(2)
        self.assertEqual(world.listener.names[-1], "leaving")
        world.voice.answered("f1", "Nobody answered.")
        self.assertEqual([event["type"] for event in world.sent()], ["response.item.create", "response.create"])


class Ending(SynchronousTestCase):
    def test_finish(self) -> None:
        """At the end the session is closed, its last words are taken, and what it used."""
        world = LiveWorld().up()
        world.says("We open at nine.", 800)
        world.playout.play(3200)
        world.voice.finish()
        world.voice.finish()
        [close] = world.sent()
        self.assertEqual((close["type"], world.listener.names), ("session.close", ["opened"]))
        world.caller("Bye", 1, 2)
        world.done(into=1_000_000, out=100_000)
        world.closed("close_requested", 90.0)
        self.assertEqual(world.listener.names, ["opened", "finished"])
        self.assertEqual(world.voice.usage, {"seconds": 90.0, "input_tokens": 1_000_000, "output_tokens": 100_000})
        self.assertAlmostEqual(world.voice.cost, 0.05 * 1.5 + 1.0 + 0.8)
        hello, cut, bye = world.voice.transcript
        self.assertEqual((cut.text, cut.interrupted), ("We open", True))
        self.assertEqual((hello.text, bye.text), ("Hello!", "Bye"))
        self.assertEqual((world.links[0].closed, list(world.clock.getDelayedCalls())), (1, []))

    def test_no_answer(self) -> None:
        """A service that does not confirm the end is left after two seconds."""
        world = LiveWorld().up()
        world.voice.finish()
        world.clock.advance(2)
        self.assertEqual(world.listener.names[-1], "finished")
        self.assertEqual((world.links[0].closed, list(world.clock.getDelayedCalls())), (1, []))

    def test_price_that_nobody_knows(self) -> None:
        """An owner reads that no cap can hold for a model without a price; of others there is nothing to say."""
        self.assertEqual(LiveWorld().up().log.of("price.unknown"), [])
        world = LiveWorld(live_order(model="gpt-live-9")).up()
        self.assertEqual(world.log.of("price.unknown"), [{"model": "gpt-live-9"}])

    def test_cost(self) -> None:
        """The price goes on with the minutes, and follows the service's own count."""
        world = LiveWorld().up()
        world.wait(59)
        self.assertAlmostEqual(world.voice.cost, 0.05)
        world.server("session.usage.updated", usage={"seconds": 30.0})
        world.wait(30)
        self.assertAlmostEqual(world.voice.cost, 0.05)
        self.assertEqual(world.voice.usage["seconds"], 60.0)

    def test_unreadable(self) -> None:
        """What cannot be read harms nothing and is counted."""
        world = LiveWorld().up()
        for text in (b"[]", b"\xff", b'{"type": "session.output_audio.delta", "delta": "a"}', b'{"type": 7}'):
            world.listeners[0].received(text)
        world.listeners[0].received(b'{"type": "info", "code": "x", "message": "y"}')
        world.voice.finish()
        world.closed("close_requested")
        self.assertEqual(world.log.of("session.finished")[0]["malformed"], 4)


class Strict(SynchronousTestCase):
    def test_checker(self) -> None:
        """The tests' own link refuses what the service would refuse."""
        for text in (
            b'{"type": "session.input_audio.append", "audio": ""}',  # before session.start
            b'{"type": "session.start", "session": {"model": "m", "voice": "marin"}}',
            b'{"type": "session.begin"}',
            b'{"type": "session.start", "session": {"model": "m", "audio": {"format": {"type": "audio/opus"}}}}',
        ):
            with self.assertRaises((AssertionError, ValueError)):
                LiveLink().send(text)
