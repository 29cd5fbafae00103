"""A conversation outlives its sessions: before they end, when they break, and when nothing comes of them."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.conversation import TRIES
from extenbot.interfaces import Manner, ToolCall
from tests.ai.world import World, order

HOUR = 3600


def up(**manner: Any) -> World:
    """A call that has been greeted."""
    return World(order(manner=replace(Manner(), **manner))).talk()


def another(world: World, **session: object) -> list[dict[str, Any]]:
    """The next session opens; what it is sent after its settings."""
    world.connected()
    world.server("session.created", session={"type": "realtime", **session})
    assert world.kinds() == ["session.update"]
    world.updated()
    return world.sent()


def texts(sent: list[dict[str, Any]]) -> list[str]:
    """The messages of ours among these."""
    items = [event["item"] for event in sent if event["type"] == "conversation.item.create"]
    return [item["content"][0]["text"] for item in items if item["type"] == "message"]


class Rollover(SynchronousTestCase):
    def test_before_the_end(self) -> None:
        """Five minutes before its end a session is followed by another, which knows what was said; nothing is heard."""
        world = up()
        world.speaks("u1")
        world.created("r1")
        world.say("r1", "i1", 800, "We open at nine.")
        world.said("r1", "i1")
        world.done("r1")
        world.transcribed("u1", "When do you open?")
        world.playout.play()
        world.sent()
        world.clock.advance(HOUR - 301)
        self.assertEqual(len(world.links), 1)
        world.clock.advance(1)
        self.assertEqual(len(world.links), 2)
        [said] = texts(another(world))
        lines = ["You: Hello!", "Caller: When do you open?", "You: We open at nine."]
        self.assertIn("\n".join(lines), said)
        self.assertEqual(world.links[0].closed, 1)
        self.assertEqual(world.listener.names, ["opened"])
        self.assertEqual(world.log.of("session.moved"), [{"number": 2}])
        for _ in range(2):
            world.voice.heard(bytes(160))
        self.assertEqual(world.kinds(), ["input_audio_buffer.append"])

    def test_as_the_server_says(self) -> None:
        """The time that the server names counts, and of a short session a fifth is left."""
        world = World()
        world.connected()
        world.server("session.created", session={"expires_at": 1_700_000_000 + 600})
        world.updated()
        world.clock.advance(479)
        self.assertEqual(len(world.links), 1)
        world.clock.advance(1)
        self.assertEqual(len(world.links), 2)

    def test_between_turns(self) -> None:
        """The audio moves when nobody speaks and nothing is due, and not before."""
        world = up()
        world.clock.advance(HOUR - 300)
        world.sessions[0].received(b'{"type":"response.created","response":{"id":"r1"}}')
        self.assertEqual(another(world), [])
        self.assertEqual(world.log.of("session.moved"), [])
        world.sessions[0].received(b'{"type":"response.done","response":{"id":"r1","status":"cancelled"}}')
        world.clock.advance(0.5)
        self.assertEqual(world.log.of("session.moved"), [{"number": 2}])

    def test_whoever_speaks(self) -> None:
        """A quarter of a minute before the end it moves in any case; the caller's words are heard again."""
        world = up()
        world.clock.advance(HOUR - 300)
        world.sessions[0].received(b'{"type":"input_audio_buffer.speech_started","item_id":"u1"}')
        another(world)
        for number in range(10):
            world.voice.heard(bytes([number]) * 160)
        world.clock.advance(284)
        world.sent()
        world.clock.advance(1)
        sent = world.sent()
        heard = b"".join(b64decode(event["audio"]) for event in sent if "audio" in event)
        self.assertEqual(heard, b"".join(bytes([number]) * 160 for number in range(10)))

    def test_late_words(self) -> None:
        """What the caller said last in the old session is still written down, for two seconds."""
        world = up()
        world.clock.advance(HOUR - 300)
        world.sessions[0].received(b'{"type":"input_audio_buffer.committed","item_id":"u1"}')
        another(world)
        self.assertEqual(world.links[0].closed, 0)
        event = (
            b'{"type":"conversation.item.input_audio_transcription.completed","item_id":"u1","transcript":"Oh, yes."}'
        )
        world.sessions[0].received(event)
        self.assertEqual(world.links[0].closed, 1)
        self.assertEqual([line.text for line in world.voice.transcript], ["Hello!", "Oh, yes."])

    def test_same_names(self) -> None:
        """A server that counts its items anew in each session confuses nothing."""
        world = up()
        world.clock.advance(HOUR - 300)
        another(world)
        world.created("r1")
        world.say("r1", "hello", 800, "Hello again!")
        world.server("input_audio_buffer.speech_started", item_id="u1")
        [gone] = world.sent()
        self.assertEqual((gone["type"], gone["item_id"]), ("conversation.item.delete", "hello"))
        world.playout.play()
        self.assertEqual([line.text for line in world.voice.transcript], ["Hello!"])

    def test_functions_survive(self) -> None:
        """A function that is under way is told to the new session, and its result goes there."""
        world = up()
        world.created("r1")
        world.calls("r1", "k1", arguments='{"a":1}')
        world.done("r1")
        world.clock.advance(HOUR - 300)
        another(world)  # it does not move while a function runs, ...
        self.assertEqual(world.log.of("session.moved"), [])
        world.clock.advance(285)  # ... until it must
        call = {"type": "function_call", "call_id": "k1", "name": "look_up", "arguments": '{"a":1}'}
        self.assertIn(call, [event.get("item") for event in world.sent()])
        world.voice.answered("k1", "7")
        output, create = world.sent()
        self.assertEqual(output["item"], {"type": "function_call_output", "call_id": "k1", "output": "7"})
        self.assertEqual(create["type"], "response.create")

    def test_results_are_remembered(self) -> None:
        """What functions said before is part of what the new session knows."""
        world = up()
        world.created("r1")
        world.calls("r1", "k1", arguments='{"order": 5}')
        world.done("r1")
        world.voice.answered("k1", "shipped on Monday")
        world.created("r2", metadata=world.sent()[-1]["response"]["metadata"])
        world.say("r2", "i2", 80, "It is on its way.")
        world.said("r2", "i2")
        world.done("r2")
        world.playout.play()
        world.clock.advance(HOUR - 300)
        [said] = texts(another(world))
        self.assertIn('Function: look_up({"order": 5}): shipped on Monday', said)

    def test_follower_cannot_be_had(self) -> None:
        """It is tried again every half minute while the session lasts; the caller hears nothing of it."""
        world = up()
        world.clock.advance(HOUR - 300)
        for number in range(3):
            self.assertEqual(len(world.links), 2 + number)
            world.drop(False, 1006, "refused")
            world.clock.advance(30)
        another(world)
        self.assertEqual(world.log.of("session.moved"), [{"number": 5}])
        self.assertEqual(world.listener.names, ["opened"])

    def test_cost_and_usage_go_on(self) -> None:
        """Sums are over all sessions."""
        world = up()
        world.created("r1")
        world.say("r1", "i1", 80)
        world.done("r1", usage={"input_tokens": 5})
        world.playout.play()
        world.clock.advance(HOUR - 300)
        another(world)
        world.created("r1")
        world.done("r1", "cancelled", usage={"input_tokens": 7})
        self.assertEqual(world.voice.usage["input_tokens"], 12)

    def test_cost_of_what_was_under_way(self) -> None:
        """A response that the move cuts short is taken back in its session, and what it has cost is counted."""
        world = up()
        world.clock.advance(HOUR - 300)
        spoken = b'{"type":"input_audio_buffer.speech_started","item_id":"u1"}'
        world.sessions[0].received(spoken)
        another(world)
        world.clock.advance(284)
        world.sessions[0].received(b'{"type":"response.created","response":{"id":"r1"}}')
        world.clock.advance(1)
        self.assertEqual(world.links[0].sent[-1]["type"], "response.cancel")
        self.assertEqual(world.links[0].closed, 0)
        done = b'{"type":"response.done","response":{"id":"r1","status":"cancelled","usage":{"input_tokens":9}}}'
        world.sessions[0].received(done)
        self.assertEqual(world.links[0].closed, 1)
        self.assertEqual(world.voice.usage["input_tokens"], 9)

    def test_long_history(self) -> None:
        """Of a very long conversation the new session is told the later part."""
        world = up()
        for number in range(40):
            world.speaks(f"u{number}")
            world.created(f"r{number}")
            world.say(f"r{number}", f"i{number}", 80)
            world.done(f"r{number}")
            world.transcribed(f"u{number}", f"Sentence {number}. " + "Words and words. " * 100)
            world.playout.play()
            world.clock.advance(1)
        world.clock.advance(HOUR - 300)
        [said] = texts(another(world))
        self.assertLess(len(said), 25_000)
        self.assertIn("(…)", said)
        self.assertNotIn("Sentence 3.", said)
        self.assertIn("Sentence 39.", said)


class Mending(SynchronousTestCase):
    def test_lost_while_quiet(self) -> None:
        """A connection that breaks between turns is replaced at once, and nobody says anything about it."""
        world = up()
        world.drop(False, 1006, "")
        world.clock.advance(0)
        self.assertEqual(len(world.links), 2)
        sent = another(world)
        self.assertEqual([event["type"] for event in sent], ["conversation.item.create"])
        self.assertEqual(world.listener.names, ["opened"])

    def test_lost_while_the_caller_speaks(self) -> None:
        """What the caller has said, and says meanwhile, is heard by the next session; it answers by itself."""
        world = up()
        for _ in range(50):
            world.voice.heard(b"\xff" * 160)
        world.server("input_audio_buffer.speech_started", item_id="u1")
        for number in range(20):
            world.voice.heard(bytes([number]) * 160)
        world.drop(False, 1006, "")
        for number in range(20, 30):
            world.voice.heard(bytes([number]) * 160)
        world.clock.advance(0)
        sent = another(world)
        heard = b"".join(b64decode(event["audio"]) for event in sent if event["type"] == "input_audio_buffer.append")
        self.assertEqual(heard[:3840], b"\xff" * 3840)  # half a second before the first word, without what is older
        self.assertEqual(heard[3840:], b"".join(bytes([number]) * 160 for number in range(30)))
        self.assertNotIn("response.create", [event["type"] for event in sent])

    def test_lost_before_the_answer(self) -> None:
        """The caller has asked something and the words are known: the new session is asked to answer."""
        world = up()
        world.speaks("u1")
        world.transcribed("u1", "When do you open?")
        world.drop(False, 1006, "")
        world.clock.advance(0)
        sent = another(world)
        self.assertIn("Caller: When do you open?", texts(sent)[0])
        self.assertEqual(sent[-1]["type"], "response.create")

    def test_lost_in_a_sentence(self) -> None:
        """What was received plays on; the rest of the sentence comes from the next session."""
        world = up()
        world.created("r1")
        world.say("r1", "i1", 8000, "We open at nine and")
        world.playout.play(800)
        world.drop(False, 1011, "")
        self.assertFalse(world.playout.empty)
        world.clock.advance(0)
        sent = another(world)
        history, cut = texts(sent)
        self.assertIn("You: We open at nine and", history)
        self.assertIn("cut off", cut)
        self.assertEqual(sent[-1]["type"], "response.create")

    def test_lost_in_a_pause(self) -> None:
        """A bang, and the session breaks before it has told that nobody spoke: the bot does not stay silent."""
        world = up()
        world.created("r1")
        world.say("r1", "i1", 8000)
        world.done("r1")
        world.playout.play(800)
        world.voice.loud(True)
        self.assertTrue(world.playout.held)
        world.drop(False, 1006, "")
        self.assertFalse(world.playout.held)
        world.clock.advance(0)
        another(world)
        self.assertFalse(world.playout.held)

    def test_heard_to_its_end_meanwhile(self) -> None:
        """What must be heard to its end, and was while there was no session, leaves nobody unheard afterwards."""
        for manner in ({"greeting_interruptible": False}, {"barge_in": "off", "dialect": "xai"}):
            world = World(order(manner=replace(Manner(), **manner))).open()
            world.voice.greet()
            world.created("r1")
            world.say("r1", "i1", 8000)
            world.said("r1", "i1")
            world.done("r1")
            world.playout.play(800)
            world.drop(False, 1006, "")
            world.playout.play()
            world.clock.advance(0)
            another(world)
            for _ in range(2):
                world.voice.heard(bytes(160))
            self.assertEqual(world.kinds(), ["input_audio_buffer.append"])

    def test_function_meanwhile(self) -> None:
        """A result that comes while there is no session goes to the next one, which speaks of it."""
        world = up()
        world.created("r1")
        world.calls("r1", "k1")
        world.drop(False, 1006, "")
        world.voice.answered("k1", "7")
        world.clock.advance(0)
        sent = another(world)
        kinds = [event.get("item", {}).get("type", event["type"]) for event in sent]
        self.assertEqual(kinds, ["message", "function_call", "function_call_output", "response.create"])

    def test_told_meanwhile(self) -> None:
        """Keys pressed while there is no session are told to the next one."""
        world = up()
        world.drop(False, 1006, "")
        world.voice.told("[The caller pressed 1#]", by_caller=True)
        world.clock.advance(0)
        sent = another(world)
        self.assertEqual(texts(sent)[-1], "[The caller pressed 1#]")
        self.assertEqual(sent[-1]["type"], "response.create")

    def test_session_expired(self) -> None:
        """The server's own end of a session is no failure."""
        world = up()
        world.error("session_expired", "Your session hit the maximum duration of 60 minutes.")
        world.clock.advance(0)
        another(world)
        self.assertEqual(world.listener.names, ["opened"])

    def test_not_for_ever(self) -> None:
        """A service that cannot be had is tried for a few times, then the voice is lost, once."""
        world = up()
        for pause in TRIES:
            world.drop(False, 1006, "")
            world.clock.advance(pause)
        self.assertEqual(len(world.links), 1 + len(TRIES))
        self.assertEqual(world.listener.names, ["opened"])
        world.drop(False, 1006, "")
        self.assertEqual(world.listener.told[1:], [("lost", "lost")])
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_not_too_long(self) -> None:
        """A service that does not answer keeps the caller in silence for ten seconds at most."""
        world = up()
        world.drop(False, 1006, "")
        world.clock.advance(0)
        world.clock.advance(10)
        self.assertEqual(world.listener.told[1:], [("lost", "lost")])
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_lets_us_in_and_fails(self) -> None:
        """Only a response that came to its end begins the count anew: no loop with a service that always breaks."""
        world = up()
        for pause in TRIES:
            world.drop(False, 1011, "")
            world.clock.advance(pause)
            another(world)
        world.drop(False, 1011, "")
        self.assertEqual(world.listener.told[1:], [("lost", "lost")])
        world = up()
        for _ in range(9):
            world.drop(False, 1011, "")
            world.clock.advance(0)
            another(world)
            world.created("r1")
            world.say("r1", "i1", 80)
            world.done("r1")
        self.assertEqual(world.listener.names, ["opened"])

    def test_wrong_key_now(self) -> None:
        """What another session would meet as well ends it at once."""
        world = up()
        world.drop(False, 1006, "")
        world.clock.advance(0)
        world.drop(False, 1006, 'connection was closed uncleanly ("WebSocket connection upgrade failed [401]: No")')
        self.assertEqual(world.listener.told[1:], [("lost", "wrong_key")])

    def test_hung_up_meanwhile(self) -> None:
        """The caller hangs up while there is no session: nothing is left."""
        world = up()
        world.drop(False, 1006, "")
        world.voice.finish()
        self.assertEqual(world.listener.names, ["opened", "finished"])
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_follower_is_there(self) -> None:
        """A session that breaks when its follower is open already is replaced within the same moment."""
        world = up()
        world.clock.advance(HOUR - 300)
        world.sessions[0].received(b'{"type":"response.created","response":{"id":"r1"}}')
        another(world)
        world.sessions[0].lost(False, 1006, "")
        world.clock.advance(0)
        self.assertEqual(world.log.of("session.moved"), [{"number": 2}])
        self.assertEqual(len(world.links), 2)

    def test_before_the_caller_hears_us(self) -> None:
        """A session that is lost while the phone rings is no answered call: the PBX tries elsewhere."""
        world = World().open()
        world.voice.prepare()
        world.drop(False, 1006, "")
        self.assertEqual(world.listener.told[1:], [("lost", "lost")])


class Due(SynchronousTestCase):
    def test_nothing_comes(self) -> None:
        """No answer in time: asked for once more, then the voice is given up."""
        world = up(response_timeout=4)
        world.speaks("u1")
        world.clock.advance(4)
        self.assertEqual(world.kinds(), ["response.create"])
        self.assertEqual(world.log.of("response.late"), [{"seconds": 4}])
        world.clock.advance(4)
        self.assertEqual(world.listener.told[1:], [("lost", "silent")])
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_response_that_stops(self) -> None:
        """A response that begins and then stops is taken back, and asked for again."""
        world = up(response_timeout=4)
        world.speaks("u1")
        world.clock.advance(3)
        world.created("r1")
        world.clock.advance(3.875)
        self.assertEqual(world.sent(), [])
        world.clock.advance(0.125)
        cancel, create = world.sent()
        self.assertEqual((cancel["type"], cancel["response_id"]), ("response.cancel", "r1"))
        self.assertEqual(create["type"], "response.create")
        world.say("r1", "i1", 80)  # what still comes of it is not heard
        self.assertNotIn("i1", world.playout.received)
        world.created("r2", metadata=create["response"]["metadata"])
        world.say("r2", "i2", 80)
        world.done("r2")
        world.clock.advance(60)
        self.assertEqual(world.listener.names, ["opened"])

    def test_not_while_somebody_speaks(self) -> None:
        """As long as the caller hears the bot nothing is due."""
        world = up(response_timeout=4)
        world.created("r1")
        world.say("r1", "i1", 80_000)
        world.clock.advance(8)
        self.assertEqual(world.sent(), [])
        world.playout.play()
        world.clock.advance(4)
        self.assertEqual(world.kinds(), ["response.cancel", "response.create"])

    def test_greeting_again(self) -> None:
        """A greeting of which nothing came is asked for once more, as it was."""
        world = World(order(manner=Manner(response_timeout=4))).open()
        world.voice.greet()
        [first] = world.sent()
        world.clock.advance(4)
        [second] = world.sent()
        self.assertEqual(first["response"]["instructions"], second["response"]["instructions"])

    def test_text_only(self) -> None:
        """A model that answers without a word is asked again; when that does not help twice, the voice is given up."""
        world = up()
        for turn in range(2):
            for again in range(2):
                world.created(f"r{turn}{again}")
                world.done(f"r{turn}{again}", output=[{"type": "message"}])
            world.speaks(f"u{turn}")
        self.assertEqual(world.listener.told[1:], [("lost", "silent")])

    def test_leaving_is_not_hurried(self) -> None:
        """A goodbye that is heard is not asked for again."""
        world = up(response_timeout=4)
        world.created("r1")
        world.calls("r1", "k1", name="end_call")
        world.clock.advance(4.5)
        self.assertEqual(world.sent(), [])
        world.clock.advance(5.5)
        self.assertEqual(world.listener.told[-1], ("leaving", ToolCall("k1", "end_call", {})))
