"""Function calls: asked, answered, spoken about; and those that end the conversation."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.functions import TAIL
from extenbot.interfaces import ToolCall
from tests.ai.test_talking import create, truncate
from tests.ai.world import World


def output(event_id: str, call: str, text: str) -> dict[str, object]:
    """The conversation.item.create that answers `call`."""
    item = {"type": "function_call_output", "call_id": call, "output": text}
    return {"type": "conversation.item.create", "event_id": event_id, "item": item}


class Functions(SynchronousTestCase):
    def test_asked_and_answered(self) -> None:
        """A call is handed on with its arguments; its output goes back, and the model speaks once."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1", arguments='{"number1": 7}')
        self.assertEqual(world.listener.told[1:], [("asked", ToolCall("k1", "look_up", {"number1": 7}))])
        world.done("r1", output=[{"type": "function_call"}])
        self.assertEqual(world.sent(), [])
        world.voice.answered("k1", '{"sum": "é"}')
        self.assertEqual(world.sent(), [output("c3", "k1", '{"sum": "é"}'), create("c4")])
        self.assertEqual(world.log.of("tool.asked"), [{"name": "look_up", "call": "k1", "arguments": {"number1": 7}}])
        self.assertEqual(world.log.of("tool.answered"), [{"name": "look_up", "call": "k1", "output": '{"sum": "é"}'}])

    def test_answered_before_the_response_is_done(self) -> None:
        """A quick function: the output goes at once, the request to speak waits for the end of the response."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1")
        world.voice.answered("k1", "7")
        self.assertEqual(world.sent(), [output("c3", "k1", "7")])
        world.done("r1")
        self.assertEqual(world.sent(), [create("c4")])

    def test_preamble_plays_on(self) -> None:
        """The result of a function does not cut what the bot is saying meanwhile."""
        world = World().talk()
        world.created("r1")
        world.say("r1", "i1", 8000, "One moment.")
        world.calls("r1", "k1", place=1)
        world.done("r1")
        world.voice.answered("k1", "7")
        self.assertFalse(world.playout.empty)

    def test_two_at_once(self) -> None:
        """Two calls of one response: outputs in their order, one request when the slow one is there."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k2", place=1)
        world.calls("r1", "k1", place=0)
        world.done("r1")
        world.voice.answered("k2", "b")
        self.assertEqual(world.sent(), [])
        world.voice.answered("k1", "a")
        self.assertEqual(world.sent(), [output("c3", "k1", "a"), output("c4", "k2", "b"), create("c5")])

    def test_answered_in_order(self) -> None:
        """An output does not wait for a later one."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1", place=0)
        world.calls("r1", "k2", place=1)
        world.voice.answered("k1", "a")
        self.assertEqual(world.sent(), [output("c3", "k1", "a")])
        world.done("r1")
        world.voice.answered("k2", "b", speak=False)
        self.assertEqual(world.sent(), [output("c4", "k2", "b"), create("c5")])

    def test_not_to_be_spoken_about(self) -> None:
        """An output may be only for the model to know."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1")
        world.done("r1")
        world.voice.answered("k1", "a", speak=False)
        self.assertEqual(world.kinds(), ["conversation.item.create"])

    def test_unknown_and_late_answers(self) -> None:
        """Answers to what nobody asked, and second answers, are ignored."""
        world = World().talk()
        world.voice.answered("k9", "a")
        world.created("r1")
        world.calls("r1", "k1")
        world.calls("r1", "k1")
        world.done("r1")
        world.voice.answered("k1", "a")
        world.sent()
        world.voice.answered("k1", "b")
        self.assertEqual(world.sent(), [])
        self.assertEqual(world.listener.names.count("asked"), 1)

    def test_broken_arguments(self) -> None:
        """Arguments that are not a JSON object are told to the model, which may try again; nothing runs."""
        for arguments in ("{", "[1]", '"x"', '{"a": NaN}', "[" * 100_000):
            world = World().talk()
            world.created("r1")
            world.calls("r1", "k1", arguments=arguments)
            self.assertEqual(world.listener.names, ["opened"])
            (sent,) = world.sent()
            self.assertIn("not a JSON object", sent["item"]["output"])
            world.done("r1")
            self.assertEqual(world.kinds(), ["response.create"])

    def test_no_arguments(self) -> None:
        """No arguments at all are an empty object."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1", arguments="")
        self.assertEqual(world.listener.told[-1], ("asked", ToolCall("k1", "look_up", {})))

    def test_cut_off_calls_are_not_run(self) -> None:
        """A call that was interrupted while it was written is not run."""
        world = World().talk()
        world.created("r1")
        item = {"type": "function_call", "status": "incomplete", "call_id": "k", "name": "look_up", "arguments": '{"a'}
        world.server("response.output_item.done", response_id="r1", output_index=0, item=item)
        world.done("r1", "cancelled")
        self.assertEqual(world.listener.names, ["opened"])
        self.assertEqual(world.sent(), [])

    def test_barge_in_while_it_runs(self) -> None:
        """The caller's new turn has seen the outputs when it began after them: no second answer."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1")
        world.done("r1")
        world.server("input_audio_buffer.speech_started", item_id="u1")
        world.voice.answered("k1", "a")
        self.assertEqual(world.kinds(), ["conversation.item.create"])
        world.server("input_audio_buffer.speech_stopped", item_id="u1")
        world.created("r2")
        world.say("r2", "i2", 80)
        world.done("r2")
        world.clock.advance(30)
        self.assertEqual(world.sent(), [])

    def test_barge_in_that_comes_to_nothing(self) -> None:
        """Noise taken for speech, no response of the server: the answer comes half a second after it."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1")
        world.done("r1")
        world.server("input_audio_buffer.speech_started", item_id="u1")
        world.voice.answered("k1", "a")
        world.sent()
        world.server("input_audio_buffer.speech_stopped", item_id="u1")
        world.clock.advance(0.375)
        self.assertEqual(world.sent(), [])
        world.clock.advance(0.125)
        self.assertEqual(world.kinds(), ["response.create"])

    def test_response_that_failed_after_it(self) -> None:
        """A response that fails behind a call is not asked for again: the result goes on, or the bot leaves."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1")
        world.failed("r1", None, kind="server_error")
        self.assertEqual(world.sent(), [])
        world.voice.answered("k1", "a")
        self.assertEqual(world.kinds(), ["conversation.item.create", "response.create"])
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1", "end_call")
        world.failed("r1", None, kind="server_error")
        world.clock.advance(0.25)
        self.assertEqual(world.sent(), [])
        self.assertEqual(world.listener.names, ["opened", "leaving"])

    def test_caller_who_does_not_stop(self) -> None:
        """Endless speech (or music) holds an answer back for 5 s only."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1")
        world.done("r1")
        world.server("input_audio_buffer.speech_started", item_id="u1")
        world.voice.answered("k1", "a")
        world.clock.advance(5)
        self.assertEqual(world.kinds(), ["conversation.item.create", "response.create"])

    def test_new_turn_before_the_answer(self) -> None:
        """A response that runs while the outputs arrive has not seen them: the answer follows it."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1")
        world.done("r1")
        world.speaks("u1")
        world.created("r2")
        world.voice.answered("k1", "a")
        self.assertEqual(world.kinds(), ["conversation.item.create"])
        world.say("r2", "i2", 80)
        world.done("r2")
        self.assertEqual(world.kinds(), ["response.create"])

    def test_overtaken(self) -> None:
        """The server's own response was quicker than our request: asked again when that is done."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1")
        world.done("r1")
        world.voice.answered("k1", "a")
        world.sent()
        world.created("r2", metadata=None)
        world.error("conversation_already_has_active_response", event_id="c4")
        world.say("r2", "i2", 80)
        world.done("r2")
        self.assertEqual(world.sent(), [create("c5")])

    def test_server_without_metadata(self) -> None:
        """A server that does not give our metadata back does not stop the gate for good."""
        world = World().open()
        world.voice.greet()
        world.created("r1")
        world.calls("r1", "k1")
        world.done("r1")
        world.sent()
        world.voice.answered("k1", "a")
        self.assertEqual(world.kinds(), ["conversation.item.create", "response.create"])

    def test_response_never_seen_to_begin(self) -> None:
        """A response.done without its response.created frees the gate."""
        world = World().open()
        world.voice.greet()
        (greeting,) = world.sent()
        world.calls("r1", "k1")
        world.done("r1", metadata=greeting["response"]["metadata"])
        world.voice.answered("k1", "a")
        self.assertEqual(world.kinds(), ["conversation.item.create", "response.create"])


class Leaving(SynchronousTestCase):
    TOOL = ToolCall("k1", "end_call", {})

    def goodbye(self, name: str = "end_call") -> World:
        """A response that says goodbye for a second and wants to leave, not yet done."""
        world = World().talk()
        world.created("r1")
        world.say("r1", "i1", 8000, "Goodbye!")
        world.said("r1", "i1")
        world.calls("r1", "k1", name=name, place=1)
        return world

    def left(self, world: World) -> bool:
        """Whether it leaves, as soon as a phone has played what it was sent."""
        world.clock.advance(TAIL)
        return ("leaving", self.TOOL) in world.listener.told

    def test_goodbye_is_heard_to_its_end(self) -> None:
        """It leaves when the last byte has been played, and the model is not asked to speak again."""
        world = self.goodbye()
        world.done("r1")
        world.playout.play(7999)
        self.assertFalse(self.left(world))
        world.playout.play()
        self.assertTrue(self.left(world))
        world.clock.advance(30)
        self.assertEqual(world.listener.names, ["opened", "leaving"])
        self.assertEqual(world.sent(), [])
        self.assertEqual(world.timers, [])

    def test_played_before_the_response_is_done(self) -> None:
        """Quick playing is not the end: more may come until the response is done."""
        world = self.goodbye()
        world.playout.play()
        self.assertFalse(self.left(world))
        world.done("r1")
        self.assertTrue(self.left(world))

    def test_without_a_word(self) -> None:
        """A model that leaves without a goodbye leaves with the end of its response."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "k1", name="end_call")
        self.assertFalse(self.left(world))
        world.done("r1")
        self.assertTrue(self.left(world))

    def test_long_goodbye(self) -> None:
        """A goodbye of more than 5 s is heard to its end too."""
        world = self.goodbye()
        world.say("r1", "i2", 80_000)
        world.done("r1")
        for _ in range(10):
            self.assertFalse(self.left(world))
            world.playout.play(8000)
            world.clock.advance(1)
        world.playout.play()
        self.assertTrue(self.left(world))

    def test_nothing_moves(self) -> None:
        """When nothing is played for 5 s (the caller is on hold, RTP has stopped) it leaves as things are."""
        world = self.goodbye()
        world.done("r1")
        world.playout.play(80)
        world.clock.advance(5)
        self.assertFalse(self.left(world))
        world.clock.advance(5)
        self.assertTrue(self.left(world))
        self.assertEqual(world.timers, [])

    def test_response_never_done(self) -> None:
        """A server that forgets to end the response does not keep the caller."""
        world = self.goodbye()
        world.playout.play()
        world.clock.advance(5)
        world.clock.advance(5)
        self.assertTrue(self.left(world))

    def test_caller_speaks_over_the_goodbye(self) -> None:
        """The rest of the goodbye is cut, and with nothing left to be heard it leaves."""
        world = self.goodbye()
        world.done("r1")
        world.playout.play(800)
        world.server("input_audio_buffer.speech_started", item_id="u1")
        self.assertTrue(self.left(world))
        self.assertEqual(world.sent(), [truncate("c3", "i1", 100)])

    def test_beside_an_ordinary_call(self) -> None:
        """An ordinary function of the same response is answered, but nothing is said after leaving."""
        world = self.goodbye()
        world.calls("r1", "k2", place=2)
        world.done("r1")
        world.voice.answered("k2", "a")
        self.assertEqual(world.sent(), [output("c3", "k2", "a")])

    def test_two_at_once(self) -> None:
        """Only the first of two counts, and the model is told."""
        world = self.goodbye()
        world.calls("r1", "k2", name="transfer_call", place=2)
        world.done("r1")
        world.playout.play()
        world.clock.advance(TAIL)
        self.assertEqual([name for name in world.listener.names if name == "leaving"], ["leaving"])
        (sent,) = world.sent()
        self.assertEqual((sent["item"]["call_id"], sent["item"]["output"][:9]), ("k2", "Not done:"))

    def test_failed_transfer(self) -> None:
        """A transfer that comes back: the model is told why, and the conversation goes on."""
        world = self.goodbye("transfer_call")
        world.done("r1")
        world.playout.play()
        world.clock.advance(TAIL)
        self.assertEqual(world.listener.told[-1], ("leaving", ToolCall("k1", "transfer_call", {})))
        world.voice.answered("k1", "Nobody answered (480).")
        self.assertEqual(world.sent(), [output("c3", "k1", "Nobody answered (480)."), create("c4")])
        world.created("r2")
        world.say("r2", "i2", 80)
        self.assertEqual(world.playout.received["i2"], 80)

    def test_answered_instead(self) -> None:
        """A terminal function that the call answers at once is not left for."""
        world = self.goodbye("transfer_call")
        world.voice.answered("k1", "No such target.")
        world.done("r1")
        world.playout.play()
        self.assertEqual(world.listener.names, ["opened"])
        self.assertEqual(world.kinds(), ["conversation.item.create", "response.create"])
        self.assertEqual(world.timers, [8.0])  # for the answer

    def test_finished_meanwhile(self) -> None:
        """The caller hangs up during the goodbye: no leaving any more, no timer."""
        world = self.goodbye()
        world.done("r1")
        world.voice.finish()
        world.playout.play()
        world.clock.advance(30)
        self.assertEqual(world.listener.names, ["opened", "finished"])
