"""Who speaks: the three ways to interrupt a bot, a pause at any sound, keys, words of ours, and the first words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Manner
from extenbot.media import g711
from tests.ai.world import World, order


def up(**manner: Any) -> World:
    """A call that has been greeted, of a bot of this manner."""
    return World(order(manner=replace(Manner(), **manner))).talk()


def speaking(**manner: Any) -> World:
    """In the middle of a second of speech, of which a tenth has been heard."""
    world = up(**manner)
    world.created("r1")
    world.say("r1", "i1", 8000, "We open at nine.")
    world.playout.play(800)
    return world


def starts(world: World, item: str = "u1") -> None:
    world.server("input_audio_buffer.speech_started", audio_start_ms=0, item_id=item)


def stops(world: World, item: str = "u1") -> None:
    world.server("input_audio_buffer.speech_stopped", audio_end_ms=0, item_id=item)
    world.server("input_audio_buffer.committed", item_id=item, previous_item_id=None)


class Confirmed(SynchronousTestCase):
    def test_cough(self) -> None:
        """A short sound without words does not stop the bot, is not answered, and is taken out of the conversation."""
        world = speaking(barge_in="confirmed")
        starts(world)
        world.clock.advance(0.25)
        stops(world)
        self.assertFalse(world.playout.empty)
        self.assertEqual(world.sent(), [])
        world.transcribed("u1", "")
        [gone] = world.sent()
        self.assertEqual((gone["type"], gone["item_id"]), ("conversation.item.delete", "u1"))
        world.said("r1", "i1")
        world.done("r1")
        world.playout.play()
        world.clock.advance(7)
        self.assertEqual(world.sent(), [])
        self.assertEqual(world.voice.turns, 0)

    def test_speech(self) -> None:
        """After 300 ms it is speech: the bot stops, the response is cancelled, and the turn is answered on request."""
        world = speaking(barge_in="confirmed")
        starts(world)
        world.clock.advance(0.3)
        self.assertTrue(world.playout.empty)
        self.assertEqual(world.kinds(), ["response.cancel", "conversation.item.truncate"])
        world.done("r1", "cancelled")
        world.clock.advance(0.5)
        stops(world)
        self.assertEqual(world.kinds(), ["response.create"])
        self.assertEqual(world.voice.turns, 1)

    def test_a_word(self) -> None:
        """A short "stop" is a word: it interrupts as soon as it is known, and is answered."""
        world = speaking(barge_in="confirmed")
        starts(world)
        world.clock.advance(0.25)
        stops(world)
        self.assertFalse(world.playout.empty)
        world.transcribed("u1", "Stop!")
        self.assertTrue(world.playout.empty)
        self.assertEqual(world.kinds(), ["response.cancel", "conversation.item.truncate"])
        world.done("r1", "cancelled")
        self.assertEqual(world.kinds(), ["response.create"])

    def test_a_word_while_it_is_spoken(self) -> None:
        """Where words come while the caller speaks, the first one interrupts."""
        world = speaking(barge_in="confirmed")
        starts(world)
        kind = "conversation.item.input_audio_transcription.delta"
        world.server(kind, item_id="u1", content_index=0, delta="Stop")
        self.assertTrue(world.playout.empty)

    def test_into_silence(self) -> None:
        """While nobody speaks a short "yes" needs no confirmation."""
        world = up(barge_in="confirmed")
        starts(world)
        world.clock.advance(0.125)
        stops(world)
        self.assertEqual(world.kinds(), ["response.create"])

    def test_server_that_does_not_obey(self) -> None:
        """A service that always interrupts by itself is followed: no bot talks on over a response that was dropped."""
        world = World(order(manner=Manner(barge_in="confirmed", dialect="xai"))).talk()
        world.created("r1")
        world.say("r1", "i1", 8000)
        starts(world)
        self.assertTrue(world.playout.empty)


class Off(SynchronousTestCase):
    def test_speaks_on(self) -> None:
        """The bot finishes its sentence; what the caller said meanwhile is answered then."""
        world = speaking(barge_in="off")
        starts(world)
        world.clock.advance(1)
        stops(world)
        self.assertFalse(world.playout.empty)
        self.assertEqual(world.sent(), [])
        world.said("r1", "i1")
        world.done("r1")
        world.clock.advance(1)
        self.assertEqual(world.kinds(), ["response.create"])
        self.assertNotIn("i1", [played.item for played in world.playout.cut() if played.sent < 800])

    def test_server_that_does_not_obey(self) -> None:
        """A service that would interrupt does not hear the caller while the bot speaks."""
        world = World(order(manner=Manner(barge_in="off", dialect="xai"))).talk()
        world.created("r1")
        world.say("r1", "i1", 8000)
        world.said("r1", "i1")
        world.playout.play(80)
        for _ in range(4):
            world.voice.heard(bytes(160))
        self.assertEqual(world.sent(), [])
        world.playout.play()
        for _ in range(4):
            world.voice.heard(bytes(160))
        self.assertEqual(world.kinds(), ["input_audio_buffer.append"] * 2)

    def test_loud(self) -> None:
        """No sound makes it pause."""
        world = speaking(barge_in="off")
        world.voice.loud(True)
        self.assertFalse(world.playout.held)


class SpokenInto(SynchronousTestCase):
    def asked(self, **manner: Any) -> tuple[World, dict[str, Any]]:
        """The caller speaks on when a response has been asked for that has not begun."""
        world = up(**manner)
        if manner["barge_in"] == "confirmed":
            starts(world)
            stops(world)
        else:
            world.created("f1")
            world.calls("f1", "k1")
            world.voice.answered("k1", "7")
            world.done("f1")
        create = world.sent()[-1]
        self.assertEqual(create["type"], "response.create")
        starts(world, "u2")
        return world, create["response"]["metadata"]

    def test_not_said_into_the_callers_words(self) -> None:
        """Who goes on speaking before the answer has begun does not hear it meanwhile, but one to all of it."""
        world, metadata = self.asked(barge_in="confirmed")
        world.created("r1", metadata=metadata)
        [cancel] = world.sent()
        self.assertEqual((cancel["type"], cancel["response_id"]), ("response.cancel", "r1"))
        world.say("r1", "i1", 800)
        world.done("r1", "cancelled")
        self.assertTrue(world.playout.empty)
        stops(world, "u2")
        self.assertIn("response.create", world.kinds())

    def test_the_server_answers(self) -> None:
        """Where the server answers turns by itself, that answer is enough; after mere noise ours is asked for again."""
        for answers in (True, False):
            world, metadata = self.asked(barge_in="immediate")
            world.created("r1", metadata=metadata)
            world.done("r1", "cancelled")
            self.assertEqual(world.kinds(), ["response.cancel"])
            stops(world, "u2")
            if answers:
                world.created("r2", metadata=None)
                world.say("r2", "i2", 80)
                world.done("r2")
            world.clock.advance(0.5)
            self.assertEqual(world.kinds(), [] if answers else ["response.create"])

    def test_a_caller_who_does_not_stop(self) -> None:
        """Whoever has been speaking for five seconds is answered all the same; so is who cannot interrupt."""
        world, metadata = self.asked(barge_in="immediate")
        world.clock.advance(5)
        world.created("r1", metadata=metadata)
        self.assertEqual(world.sent(), [])
        world, metadata = self.asked(barge_in="off")
        world.created("r1", metadata=metadata)
        self.assertEqual(world.sent(), [])


class Loud(SynchronousTestCase):
    def test_pauses_and_goes_on(self) -> None:
        """A bang makes the bot pause at once; when the service knows of no speech it goes on where it was."""
        world = speaking()
        world.voice.loud(True)
        self.assertTrue(world.playout.held)
        world.voice.loud(False)
        world.clock.advance(0.59)
        self.assertTrue(world.playout.held)
        world.clock.advance(0.02)
        self.assertFalse(world.playout.held)
        self.assertEqual(world.sent(), [])
        world.playout.play()
        self.assertEqual(world.playout.sent["i1"], 8000)

    def test_speech(self) -> None:
        """When it is speech the bot stops where it paused, and what comes next is heard."""
        world = speaking()
        world.voice.loud(True)
        world.clock.advance(0.25)
        starts(world)
        self.assertEqual(world.sent()[0]["audio_end_ms"], 100)
        self.assertFalse(world.playout.held)

    def test_nothing_to_pause(self) -> None:
        """While the bot is silent it only listens: an answer is not held back by the caller's own voice."""
        world = up()
        world.voice.loud(True)
        self.assertFalse(world.playout.held)

    def test_in_the_greeting(self) -> None:
        """A greeting that must be heard to its end is not paused."""
        world = World(order(manner=Manner(greeting_interruptible=False))).open()
        world.voice.greet()
        world.created("r1")
        world.say("r1", "i1", 8000)
        world.voice.loud(True)
        self.assertFalse(world.playout.held)


class Greeting(SynchronousTestCase):
    def test_held(self) -> None:
        """It is asked for while the phone rings, waits in the playout, and leaves the moment the caller hears us."""
        world = World().open()
        world.voice.prepare()
        world.voice.prepare()
        [create] = world.sent()
        world.created("r1", metadata=create["response"]["metadata"])
        self.assertEqual(world.listener.names, ["opened"])
        world.say("r1", "i1", 800)
        world.clock.advance(0)
        self.assertEqual(world.listener.names, ["opened", "prepared"])
        self.assertTrue(world.playout.held)
        world.voice.greet()
        self.assertFalse(world.playout.held)
        self.assertEqual(world.sent(), [])
        world.playout.play()
        self.assertEqual(world.log.of("greeting.heard"), [{"ms": 0}])

    def test_nothing_came(self) -> None:
        """A greeting of which no sound came is as ready as it will be: the phone does not ring for it."""
        world = World().open()
        world.voice.prepare()
        [create] = world.sent()
        world.created("r1", metadata=create["response"]["metadata"])
        world.calls("r1", "k1")
        world.done("r1")
        world.clock.advance(0)
        self.assertIn("prepared", world.listener.names)

    def test_stored(self) -> None:
        """A stored greeting is there at once, word by word; the model is told, and not asked for one."""
        sound = g711.tone("PCMU", 440, 500)
        world = World(replace(order(), greeting=sound)).open()
        world.voice.prepare()
        world.clock.advance(0)
        self.assertEqual(world.listener.names, ["opened", "prepared"])
        [item] = world.sent()
        self.assertEqual(item["item"]["role"], "system")
        self.assertIn('"Hello!"', item["item"]["content"][0]["text"])
        world.voice.greet()
        world.playout.play()
        self.assertEqual([line.text for line in world.voice.transcript], ["Hello!"])
        self.assertEqual(world.sent(), [])

    def test_stored_and_interrupted(self) -> None:
        """A caller may speak into it; the server knows no such item, and is told of none."""
        world = World(replace(order(), greeting=bytes(8000))).open()
        world.voice.greet()
        world.sent()
        world.playout.play(800)
        starts(world)
        self.assertTrue(world.playout.empty)
        self.assertEqual(world.sent(), [])

    def test_not_to_be_interrupted(self) -> None:
        """Until it has been heard to its end the caller's audio goes nowhere; after it, it does."""
        world = World(order(manner=Manner(greeting_interruptible=False))).open()
        world.voice.greet()
        [create] = world.sent()
        world.created("r1", metadata=create["response"]["metadata"])
        world.say("r1", "i1", 8000)
        world.said("r1", "i1")
        world.done("r1")
        for _ in range(4):
            world.voice.heard(bytes(160))
        world.playout.play(4000)
        self.assertEqual(world.sent(), [])
        world.playout.play()
        for _ in range(2):
            world.voice.heard(bytes(160))
        self.assertEqual(world.kinds(), ["input_audio_buffer.append"])

    def test_not_to_be_interrupted_and_failed(self) -> None:
        """A greeting that comes to nothing does not leave the caller unheard."""
        world = World(order(manner=Manner(greeting_interruptible=False))).open()
        world.voice.greet()
        for _ in range(2):
            [create] = world.sent()
            world.created("r", metadata=create["response"]["metadata"])
            world.done("r", output=[{"type": "message"}])
        for _ in range(2):
            world.voice.heard(bytes(160))
        self.assertEqual(world.kinds(), ["input_audio_buffer.append"])


class Told(SynchronousTestCase):
    def test_by_us(self) -> None:
        """A word of ours is a system message; the model speaks of it when it shall."""
        world = up()
        world.voice.told("[The call must end soon.]", speak=False)
        [item] = world.sent()
        self.assertEqual(item["item"]["role"], "system")
        world.voice.told("[Say goodbye.]")
        self.assertEqual(world.kinds(), ["conversation.item.create", "response.create"])
        self.assertEqual(world.voice.turns, 0)

    def test_by_the_caller(self) -> None:
        """Keys are the caller's turn: they interrupt, stand in the transcript, and are answered."""
        world = speaking()
        world.voice.told("[The caller pressed 1#]", by_caller=True)
        self.assertTrue(world.playout.empty)
        kinds = ["conversation.item.create", "response.cancel", "conversation.item.truncate"]
        self.assertEqual(world.kinds(), kinds)
        world.done("r1", "cancelled")
        self.assertEqual(world.kinds(), ["response.create"])
        self.assertEqual(world.voice.turns, 1)
        self.assertEqual(world.voice.transcript[-1].text, "[The caller pressed 1#]")

    def test_while_the_caller_speaks(self) -> None:
        """Nobody talks into the caller's words: what we want said waits."""
        world = up()
        starts(world)
        world.voice.told("[Say goodbye.]")
        self.assertEqual(world.kinds(), ["conversation.item.create"])
        stops(world)
        world.created("r1")
        world.say("r1", "i1", 80)
        world.done("r1")
        self.assertEqual(world.sent(), [])  # the server's own answer has seen it


class Idle(SynchronousTestCase):
    def test_who_is_silent(self) -> None:
        """Nobody speaks and nothing is due: since then. Whatever moves ends it."""
        world = up()
        world.clock.advance(3)
        self.assertEqual(world.voice.idle_since, 0)
        starts(world)
        self.assertIsNone(world.voice.idle_since)
        world.clock.advance(1)
        stops(world)
        self.assertIsNone(world.voice.idle_since)  # the answer is due
        world.created("r1")
        world.say("r1", "i1", 800)
        world.calls("r1", "k1")
        world.said("r1", "i1")
        world.done("r1")
        self.assertIsNone(world.voice.idle_since)  # the caller hears it
        world.clock.advance(1)
        world.playout.play()
        self.assertIsNone(world.voice.idle_since)  # a function runs
        world.voice.answered("k1", "a")
        world.created("r2", metadata=world.sent()[-1]["response"]["metadata"])
        world.say("r2", "i2", 800)
        world.said("r2", "i2")
        world.done("r2")
        world.clock.advance(1)
        world.playout.play()
        self.assertEqual(world.voice.idle_since, 6)
