"""A conversation with GPT-Live outlives its sessions: before they end, and when they break."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.livesessions import TRIES
from tests.ai.liveworld import LiveWorld


def told(sent: list[dict[str, Any]], kind: str = "commentary") -> list[str]:
    """What the model was told in this way."""
    return [event["content"] for event in sent if event["type"] == f"session.{kind}.append"]


def moves(world: LiveWorld) -> int:
    """How often the audio went to another session."""
    return len(world.log.of("session.moved"))


class Following(SynchronousTestCase):
    def test_before_the_end(self) -> None:
        """Five minutes before its end a session is followed by another, which knows what was said; nothing is heard."""
        world = LiveWorld().up()
        world.caller("When do you open?", 100, 900)
        world.says("At nine.")
        world.wait(1)
        world.playout.play()
        world.clock.advance(7200 - 301 - world.clock.seconds())
        self.assertEqual(len(world.links), 1)
        world.clock.advance(1)
        [start] = world.start()
        said = [(item["role"], item["content"][0]["text"]) for item in start["session"]["input"]]
        self.assertEqual(said, [("assistant", "Hello!"), ("user", "When do you open?"), ("assistant", "At nine.")])
        self.assertEqual(world.sent(0)[-1]["type"], "session.close")
        self.assertEqual(world.sent(), [])
        world.hear(0.04)
        self.assertEqual([event["type"] for event in world.all_sent()], ["session.input_audio.append"])
        self.assertEqual(world.listener.names, ["opened"])

    def test_while_somebody_speaks(self) -> None:
        """The audio moves when nobody speaks, a quarter of a minute before the end in any case."""
        world = LiveWorld().up()
        world.voice.loud(True)
        world.clock.advance(6900)
        world.start()
        world.wait(2)
        self.assertEqual(moves(world), 0)
        world.clock.advance(7200 - 16 - world.clock.seconds())
        self.assertEqual(moves(world), 0)
        world.clock.advance(1)
        self.assertEqual(moves(world), 1)

    def test_and_again(self) -> None:
        """The follower is followed, too."""
        world = LiveWorld().up()
        world.clock.advance(6900)
        world.start()
        world.clock.advance(6899)
        self.assertEqual(len(world.links), 2)
        world.clock.advance(1)
        self.assertEqual(len(world.links), 3)

    def test_not_to_be_had(self) -> None:
        """A follower that cannot be had is tried for again, and the call goes on meanwhile."""
        world = LiveWorld().up()
        world.clock.advance(6900)
        world.drop()
        world.clock.advance(29)
        self.assertEqual(len(world.links), 2)
        world.clock.advance(1)
        self.assertEqual(len(world.links), 3)
        self.assertEqual(world.listener.names, ["opened"])

    def test_meanwhile(self) -> None:
        """What was said between the follower's dialling and the move is told to it, and is not spoken of."""
        world = LiveWorld().up()
        world.clock.advance(6900)
        world.caller("And on Sundays?", 6_900_000, 6_901_000, at=0)
        world.start()
        [thought] = told(world.sent(), "thinking")
        self.assertTrue(thought.endswith("caller: And on Sundays?"), thought)

    def test_late_words(self) -> None:
        """What the caller said last to the session before is still written down, and apart from what follows."""
        world = LiveWorld().up()
        world.clock.advance(6900)
        world.start()
        self.assertEqual(moves(world), 1)
        world.caller("Oh,", 6_899_000, 6_899_300, at=0)
        world.caller(" yes.", 6_899_400, 6_900_000, at=0)
        world.caller("And now?", 100, 900)
        words = [line.text for line in world.voice.transcript if line.speaker == "caller"]
        self.assertEqual(words, ["Oh, yes.", "And now?"])

    def test_time_begins_anew(self) -> None:
        """Words of the bot stand with their sound though the next session counts from nought."""
        world = LiveWorld().up()
        for words, at in (("Yes.", 1_000_000), ("No.", 500)):
            world.server("session.output_transcript.delta", delta=words, start_ms=at - 180, end_ms=at)
            world.sound(200, until=at)
            world.playout.play()
            world.wait(1)
            if words == "Yes.":
                world.clock.advance(6900)
                world.start()
        self.assertEqual([line.text for line in world.voice.transcript], ["Hello!", "Yes.", "No."])

    def test_function_under_way(self) -> None:
        """A function that was asked for before is asked for in the follower as well, and its result spoken of there."""
        world = LiveWorld().up()
        world.calls("f1", arguments='{"a": 1}')
        world.done()
        world.clock.advance(6900)
        world.start()
        world.clock.advance(290)
        self.assertEqual(moves(world), 1)
        [asked] = [event["item"] for event in world.sent()]
        self.assertEqual((asked["type"], asked["call_id"], asked["arguments"]), ("function_call", "f1", '{"a": 1}'))
        world.voice.answered("f1", "five")
        result, go_on = world.sent()
        self.assertEqual((result["item"]["type"], result["item"]["output"]), ("function_call_output", "five"))
        self.assertEqual(go_on["type"], "response.create")


class Loss(SynchronousTestCase):
    def test_mended(self) -> None:
        """Another session is begun at once; the model says that the line was interrupted, and hears what was owed."""
        world = LiveWorld().up()
        world.drop()
        world.voice.told("[The caller pressed 1#]", by_caller=True)
        self.assertIsNone(world.voice.idle_since)
        world.clock.advance(0)
        [start] = world.start()
        self.assertEqual(start["session"]["input"][0]["content"][0]["text"], "Hello!")
        sent = world.sent()
        self.assertIn("repeat", told(sent)[0])
        self.assertIn("1#", told(sent, "instructions")[0])
        self.assertEqual(world.listener.names, ["opened"])

    def test_given_up(self) -> None:
        """After the last try it is lost, with the cause of that; nothing is left."""
        world = LiveWorld().up()
        for pause in TRIES:
            world.drop()
            world.clock.advance(pause)
        self.assertEqual(len(world.links), 1 + len(TRIES))
        world.drop(reason="connection refused [503]")
        self.assertEqual(world.listener.told[1:], [("lost", "busy")])
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_too_long(self) -> None:
        """Nobody is kept waiting for longer than ten seconds."""
        world = LiveWorld().up()
        world.drop()
        world.wait(9.5)
        self.assertNotIn("lost", world.listener.names)
        world.wait(1)
        self.assertIn("lost", world.listener.names)

    def test_falls_again(self) -> None:
        """A session that falls before the model has spoken counts as a try; after that all tries are there again."""
        world = LiveWorld().up()
        for pause in TRIES:
            world.drop()
            world.clock.advance(pause)
            world.start()
        world.says("Sorry, could you say that again?")
        world.drop()
        world.clock.advance(0)
        self.assertEqual(len(world.links), 2 + len(TRIES))
        self.assertEqual(world.listener.names, ["opened"])

    def test_no_use(self) -> None:
        """What another session cannot help against is the end at once."""
        world = LiveWorld().up()
        world.error("insufficient_quota")
        self.assertEqual(world.listener.told[1:], [("lost", "no_credit")])
        world = LiveWorld().up()
        world.closed("content")
        self.assertEqual(world.listener.names, ["opened", "lost"])

    def test_finished_meanwhile(self) -> None:
        """A caller who hangs up between two sessions leaves nothing behind."""
        world = LiveWorld().up()
        world.drop()
        world.voice.finish()
        self.assertEqual(world.listener.names, ["opened", "finished"])
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_secret(self) -> None:
        """A service that repeats the key does not bring it into the timeline."""
        world = LiveWorld().up()
        world.error("odd", "The key sk-secret is fine.")
        self.assertEqual(world.log.of("error"), [{"code": "odd", "message": "The key … is fine."}])
