"""Greeting, audio both ways, barge-in, responses that fail, and the end of a conversation."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Manner
from tests.ai.world import World, order


def create(event_id: str, **response: object) -> dict[str, object]:
    """The response.create that the client sends under `event_id`."""
    metadata = {**response.pop("metadata", {}), "client_event_id": event_id}  # type: ignore[dict-item]
    return {"type": "response.create", "event_id": event_id, "response": {**response, "metadata": metadata}}


GREETING = {
    "instructions": 'You are Eva.\n\nSay exactly: "Hello!" and then wait.',
    "tool_choice": "none",
    "metadata": {"purpose": "greeting"},
}


def delete(event_id: str, item: str) -> dict[str, object]:
    return {"type": "conversation.item.delete", "event_id": event_id, "item_id": item}


def truncate(event_id: str, item: str, ms: int, content: int = 0) -> dict[str, object]:
    fields = {"item_id": item, "content_index": content, "audio_end_ms": ms}
    return {"type": "conversation.item.truncate", "event_id": event_id, **fields}


class Greeting(SynchronousTestCase):
    def test_says_the_welcome_message(self) -> None:
        """The bot speaks first, word by word as its owner wrote, and only once."""
        world = World().open()
        world.voice.greet()
        world.voice.greet()
        self.assertEqual(world.sent(), [create("c2", **GREETING)])

    def test_without_welcome_message(self) -> None:
        """Without one the model greets as it likes; without an instruction nothing is put before."""
        world = World(order(welcome="", instruction="")).open()
        world.voice.greet()
        words = "Greet the caller in one short sentence, then wait."
        self.assertEqual(world.sent()[0]["response"]["instructions"], words)

    def test_speaks(self) -> None:
        """Audio goes to the playout as it came, far ahead of real time, and its item is closed."""
        world = World().open()
        world.voice.greet()
        world.created("r1")
        for _ in range(20):
            world.say("r1", "i1", 4000)
        world.said("r1", "i1")
        world.done("r1")
        self.assertEqual(world.playout.received, {"i1": 80000})
        self.assertEqual(world.playout.finished, {"i1"})

    def test_unfinished_items_are_closed_with_their_response(self) -> None:
        """A response that ends in the middle of an item does not leave the playout waiting for more."""
        world = World().talk()
        world.created("r1")
        world.say("r1", "i1", 100)
        world.done("r1", "incomplete", status_details={"type": "incomplete", "reason": "max_output_tokens"})
        self.assertIn("i1", world.playout.finished)

    def test_latency_is_logged(self) -> None:
        """The timeline says how long the caller waited for the first sound, by the model and on the wire."""
        world = World().open()
        world.voice.greet()
        world.clock.advance(0.25)
        world.created("r1")
        world.say("r1", "i1", 80)
        world.say("r1", "i1", 80)
        world.clock.advance(0.25)
        world.playout.play()
        self.assertEqual(world.log.of("greeting.heard"), [{"ms": 500}])
        world.speaks("u1")
        world.clock.advance(0.375)
        world.created("r2")
        world.say("r2", "i2", 80)
        world.clock.advance(0.125)
        world.playout.play()
        # the caller had been silent for half a second when the server said so
        self.assertEqual(world.log.of("turn"), [{"after": "speech", "first_audio": 875, "wire": 1000}])


class Hearing(SynchronousTestCase):
    def test_two_frames_a_message(self) -> None:
        """Caller audio goes out in messages of 40 ms, byte for byte."""
        world = World().open()
        frames = [bytes([n]) * 160 for n in range(4)]
        for frame in frames:
            world.voice.heard(frame)
        first, second = world.sent()
        self.assertEqual(b64decode(first["audio"]) + b64decode(second["audio"]), b"".join(frames))
        self.assertEqual(
            first, {"type": "input_audio_buffer.append", "audio": b64encode(b"".join(frames[:2])).decode()}
        )

    def test_network_behind(self) -> None:
        """When the network does not take our audio, it is dropped and counted, and flows again after."""
        world = World().open()
        world.link.behind = 200_001
        for _ in range(4):
            world.voice.heard(bytes(160))
        self.assertEqual(world.sent(), [])
        world.link.behind = 200_000
        for _ in range(2):
            world.voice.heard(bytes(160))
        self.assertEqual(world.kinds(), ["input_audio_buffer.append"])
        world.voice.finish()
        self.assertEqual(world.log.of("session.finished")[0]["dropped_ms"], 80)


class BargeIn(SynchronousTestCase):
    def speaking(self, size: int = 8000) -> World:
        """In the middle of a response with one item of `size` bytes."""
        world = World().talk()
        world.created("r1")
        world.say("r1", "i1", size)
        return world

    def start(self, world: World) -> None:
        world.server("input_audio_buffer.speech_started", audio_start_ms=1, item_id="u1")

    def test_in_the_middle(self) -> None:
        """The playout is cut at once, and the model told the milliseconds that really left; nothing is cancelled."""
        world = self.speaking()
        world.playout.play(1607)
        self.start(world)
        self.assertTrue(world.playout.empty)
        self.assertEqual(world.sent(), [truncate("c3", "i1", 200)])
        self.assertEqual(world.log.of("barge_in"), [{"item": "i1", "ms": 200}])

    def test_content_index(self) -> None:
        """The truncation names the content part that the audio came in."""
        world = World().talk()
        world.created("r1")
        world.say("r1", "i1", 800, content=1)
        world.playout.play(80)
        self.start(world)
        self.assertEqual(world.sent(), [truncate("c3", "i1", 10, content=1)])

    def test_after_the_response_is_done(self) -> None:
        """The server is done long before the caller has heard it all: cut and truncated all the same."""
        world = self.speaking()
        world.said("r1", "i1")
        world.done("r1")
        world.playout.play(4000)
        self.start(world)
        self.assertEqual(world.sent(), [truncate("c3", "i1", 500)])

    def test_before_the_first_frame(self) -> None:
        """What nobody heard a millisecond of is taken out of the conversation."""
        world = self.speaking()
        self.start(world)
        self.assertEqual(world.sent(), [delete("c3", "i1")])
        world = self.speaking()
        world.playout.play(7)
        self.start(world)
        self.assertEqual(world.sent(), [delete("c3", "i1")])

    def test_several_items(self) -> None:
        """A preamble half heard is truncated, the answer behind it deleted, what was heard whole stays."""
        world = World().talk()
        world.created("r1")
        for item in ("i1", "i2", "i3"):
            world.say("r1", item, 800)
            world.said("r1", item)
        world.playout.play(1200)
        self.start(world)
        self.assertEqual(world.sent(), [truncate("c3", "i2", 50), delete("c4", "i3")])

    def test_all_heard_so_far(self) -> None:
        """All received has been heard but more would come: the server is told where it ended."""
        world = self.speaking(800)
        world.playout.play()
        self.start(world)
        self.assertEqual(world.sent(), [truncate("c3", "i1", 100)])

    def test_nothing_playing(self) -> None:
        """A caller who speaks into silence interrupts nothing."""
        world = World().talk()
        self.start(world)
        self.assertEqual(world.sent(), [])
        self.assertEqual(world.log.of("barge_in"), [])

    def test_late_audio_is_dropped(self) -> None:
        """What still comes of the dead response is not heard, nor is a later item of it; the next response is."""
        world = self.speaking()
        world.playout.play(800)
        self.start(world)
        world.sent()
        world.say("r1", "i1", 800)
        world.said("r1", "i1")
        self.assertEqual(world.sent(), [])
        world.say("r1", "i9", 800)
        world.say("r1", "i9", 800)
        self.assertEqual(world.sent(), [delete("c4", "i9")])
        world.done("r1", "cancelled", status_details={"type": "cancelled", "reason": "turn_detected"})
        self.assertTrue(world.playout.empty)
        world.created("r2")
        world.say("r2", "i2", 800)
        self.assertEqual(world.playout.received["i2"], 800)
        self.assertEqual(world.sent(), [])
        world.done("r2")
        world.voice.finish()
        self.assertEqual(world.log.of("session.finished")[0]["late"], 3)

    def test_before_the_first_audio(self) -> None:
        """A response interrupted before any of its audio came is dead too."""
        world = World().talk()
        world.created("r1")
        self.start(world)
        self.assertEqual(world.sent(), [])
        world.say("r1", "i1", 800)
        self.assertEqual(world.sent(), [delete("c3", "i1")])
        self.assertTrue(world.playout.empty)

    def test_interrupted_response_is_not_retried(self) -> None:
        """That a dead response had no audio is no reason to ask again."""
        world = World().talk()
        world.created("r1")
        self.start(world)
        world.done("r1", "completed")
        world.clock.advance(30)
        self.assertEqual(world.sent(), [])


class Trouble(SynchronousTestCase):
    def test_errors_do_not_end_the_call(self) -> None:
        """Errors that are not fatal are written down, and the conversation goes on."""
        world = World().talk()
        for code in (
            "rate_limit_exceeded",
            "server_error",
            None,
            "unknown_parameter",
            "response_cancel_not_active",
            "input_audio_buffer_commit_empty",
            "cannot_update_voice",
            "item_retrieve_invalid_item_id",
            "conversation_already_has_active_response",
            "never_heard_of",
        ):
            world.error(code, "Words.")
        self.assertEqual(world.listener.names, ["opened"])
        self.assertEqual(world.sent(), [])
        self.assertEqual(len(world.log.of("error")), 10)

    def test_fatal_errors_do(self) -> None:
        """No credit and a dead key end it, once, and leave nothing behind."""
        for code, cause in (("insufficient_quota", "no_credit"), ("invalid_api_key", "wrong_key")):
            world = World().talk()
            world.speaks("u1")
            world.error(code)
            world.drop(True, 1001, "")
            self.assertEqual(world.listener.told[1:], [("lost", cause)])
            self.assertEqual(world.link.closed, 1)
            self.assertIsNone(world.playout.on_drained)
            self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_no_credit_in_a_response(self) -> None:
        """OpenAI says that the credit is used up in a failed response: the call ends, nothing is tried again."""
        world = World().talk()
        world.created("r1")
        world.failed("r1", "insufficient_quota")
        self.assertEqual(world.listener.told[1:], [("lost", "no_credit")])
        self.assertEqual(world.sent(), [])
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_rate_limit(self) -> None:
        """A rate limit is waited out as long as it says, then the same is asked for once."""
        world = World().open()
        world.voice.greet()
        world.sent()
        world.created("r1")
        world.failed("r1", "rate_limit_exceeded", "Please try again in 1.5s.")
        self.assertEqual(world.sent(), [])
        world.clock.advance(1.375)
        self.assertEqual(world.sent(), [])
        world.clock.advance(0.125)
        self.assertEqual(world.sent(), [create("c3", **GREETING)])
        world.created("r2")
        world.failed("r2", "inference_rate_limit_exceeded")
        self.assertEqual(world.sent(), [])
        self.assertEqual(world.log.of("response.given_up"), [{}])
        self.assertEqual(world.listener.told[1:], [("lost", "busy")])
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_rate_limit_and_a_new_turn(self) -> None:
        """When the caller speaks meanwhile, the server's own response is enough."""
        world = World().talk()
        world.created("r1")
        world.failed("r1", "rate_limit_exceeded")
        world.created("r2")
        world.say("r2", "i2", 80)
        world.done("r2")
        world.clock.advance(60)
        self.assertEqual(world.sent(), [])

    def test_server_error(self) -> None:
        """A response that failed by the server's fault is asked for once more."""
        world = World().talk()
        world.created("r1")
        world.failed("r1", None, kind="server_error")
        (again,) = world.sent()
        self.assertEqual(again, create("c3"))
        world.created("r2", metadata=again["response"]["metadata"])
        world.failed("r2", None, kind="server_error")
        self.assertEqual(world.sent(), [])

    def test_silent_response(self) -> None:
        """A response without audio and without a function is asked for once more; success allows another time."""
        world = World().talk()
        for number in (3, 4):
            world.created(f"r{number}")
            world.done(f"r{number}", output=[{"type": "message"}])
            (again,) = world.sent()
            self.assertEqual(again, create(f"c{number}"))
            world.created(f"again{number}", metadata=again["response"]["metadata"])
            world.say(f"again{number}", f"i{number}", 80)
            world.done(f"again{number}")
            self.assertEqual(world.sent(), [])

    def test_overtaken_request(self) -> None:
        """A response.create that the server's own response overtook is sent again when that is done, once."""
        world = World().open()
        world.voice.greet()
        world.sent()
        world.created("vad", metadata=None)
        world.error("conversation_already_has_active_response", event_id="c2")
        world.clock.advance(5)
        self.assertEqual(world.sent(), [])
        world.say("vad", "i1", 80)
        world.done("vad")
        self.assertEqual(world.sent(), [create("c3", **GREETING)])
        world.error("conversation_already_has_active_response", event_id="c3")
        world.clock.advance(5)
        self.assertEqual(world.sent(), [])

    def test_overtaken_without_a_name(self) -> None:
        """A server that does not say which request it refused cannot close the gate for good."""
        world = World().open()
        world.voice.greet()
        world.sent()
        world.created("vad", metadata={"client_event_id": "foreign"})
        world.error("conversation_already_has_active_response")
        world.say("vad", "i1", 80)
        world.done("vad")
        self.assertEqual(world.sent(), [create("c3", **GREETING)])

    def test_refused_for_another_reason(self) -> None:
        """A refused request is sent once more, after as long as a rate limit says; refused again ends it in words."""
        for code, words, kind, after in (
            (None, "A fault.", "server_error", 1.0),
            ("invalid_value", "No.", "invalid_request_error", 1.0),
            ("rate_limit_exceeded", "Please try again in 3s.", "x", 3.0),
        ):
            world = World().open()
            world.voice.greet()
            world.sent()
            world.error(code, words, event_id="c2", kind=kind)
            world.clock.advance(after - 0.125)
            self.assertEqual(world.sent(), [])
            world.clock.advance(0.125)
            self.assertEqual(world.sent(), [create("c3", **GREETING)])
            world.error(code, words, event_id="c3", kind=kind)
            self.assertEqual(world.listener.told[1:], [("lost", "busy")])
            self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_refused_while_the_greeting_must_be_heard(self) -> None:
        """A greeting that was refused and is made at the second try leaves nobody unheard."""
        world = World(order(manner=replace(Manner(), greeting_interruptible=False))).open()
        world.voice.greet()
        world.error("invalid_value", event_id="c2")
        world.clock.advance(1)
        world.created("greeting")
        world.say("greeting", "hello", 800)
        world.done("greeting")
        world.playout.play()
        world.sent()
        world.voice.heard(bytes(320))
        self.assertEqual(world.kinds(), ["input_audio_buffer.append"])

    def test_a_word_meanwhile_is_refused(self) -> None:
        """A sentence that is worth saying only now is not asked for again, and stands in nobody's way."""
        world = World().talk()
        world.voice.say("One moment.")
        world.error("rate_limit_exceeded", event_id="c3")
        world.sent()
        world.clock.advance(5)
        self.assertEqual(world.sent(), [])
        world.voice.told("[Ask.]")
        self.assertEqual(world.kinds(), ["conversation.item.create", "response.create"])

    def test_failed_for_any_reason(self) -> None:
        """A response that failed, for whatever reason or for none, is asked for once more; then the voice is lost."""
        for error in ({"type": "invalid_request_error", "code": "never_heard_of", "message": "Odd."}, None):
            world = World().talk()
            details = {"type": "failed", "error": error} if error else None
            world.created("r1")
            world.done("r1", "failed", status_details=details)
            [again] = world.sent()
            self.assertEqual(again, create("c3"))
            world.created("r2", metadata=again["response"]["metadata"])
            world.done("r2", "failed", status_details=details)
            self.assertEqual(world.listener.told[1:], [("lost", "busy")])
            self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_overtaken_by_nothing_seen(self) -> None:
        """Should the overtaking response never show, the request is sent again a second later."""
        world = World().open()
        world.voice.greet()
        world.sent()
        world.error("conversation_already_has_active_response", event_id="c2")
        world.clock.advance(1)
        self.assertEqual(world.sent(), [create("c3", **GREETING)])

    def test_unknown_and_broken_events(self) -> None:
        """What cannot be read or is not known is counted and forgotten."""
        world = World().talk()
        for text in (
            b"",
            b"\xff",
            b"[]",
            b"1",
            b"{",
            b'{"type":1}',
            b"[" * 100_000,
            b'{"type":"x","n":NaN}',
            b'{"type":"\xff"}',
        ):
            world.received(text)
        for kind in ("ping", "response.hologram.delta"):
            world.server(kind, anything=[{}])
        world.server("rate_limits.updated", rate_limits=[])
        world.server("response.output_audio.delta", item_id="i", delta="not base64!")
        world.server("response.output_audio.delta", item_id=7, delta="")
        world.voice.finish()
        counts = world.log.of("session.finished")[0]
        self.assertEqual((counts["malformed"], counts["unknown"]), (11, 2))

    def test_beta_names(self) -> None:
        """A server that still uses the names of the beta is understood."""
        world = World().talk()
        world.created("r1")
        where = {"response_id": "r1", "item_id": "i1", "content_index": 0}
        world.server("response.audio_transcript.delta", **where, delta="Hi.")
        world.server("response.audio.delta", **where, delta=b64encode(bytes(800)).decode())
        world.server("response.audio.done", **where)
        world.playout.play()
        self.assertEqual([line.text for line in world.voice.transcript], ["Hello!", "Hi."])


class Ending(SynchronousTestCase):
    def test_at_once(self) -> None:
        """With nothing outstanding it ends at once: closed, told, silent."""
        world = World().talk()
        world.voice.finish()
        self.assertEqual(world.listener.names, ["opened", "finished"])
        self.assertEqual(world.link.closed, 1)
        self.assertIsNone(world.playout.on_drained)
        self.assertEqual(world.clock.getDelayedCalls(), [])
        world.voice.finish()
        world.drop(True, 1000, "")
        world.voice.heard(bytes(320))
        world.voice.answered("x", "y")
        world.say("r9", "i9", 800)
        self.assertEqual(world.listener.names, ["opened", "finished"])
        self.assertNotIn("i9", world.playout.received)

    def test_waits_for_the_last_words(self) -> None:
        """What the caller said last is waited for, while no audio goes either way any more."""
        world = World().talk()
        world.speaks("u1", "hello")
        world.created("r1")
        world.say("r1", "i1", 800)
        world.voice.finish()
        self.assertTrue(world.playout.empty)
        world.voice.heard(bytes(320))
        world.say("r1", "i1", 800)
        world.done("r1", usage={"input_tokens": 9})
        self.assertEqual(world.listener.names, ["opened"])
        self.assertEqual(world.kinds(), ["response.cancel"])
        world.transcribed("u1", "Bye then.")
        self.assertEqual(world.listener.names, ["opened", "finished"])
        self.assertEqual([line.text for line in world.voice.transcript], ["Hello!", "Bye then."])
        self.assertEqual(world.voice.usage["input_tokens"], 9)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_waits_for_what_a_response_has_cost(self) -> None:
        """Who hangs up in the middle of an answer has it taken back, and pays for what there was of it."""
        world = World().talk()
        world.created("r1")
        world.say("r1", "i1", 800)
        world.voice.finish()
        [cancel] = world.sent()
        self.assertEqual((cancel["type"], cancel["response_id"]), ("response.cancel", "r1"))
        self.assertEqual(world.listener.names, ["opened"])
        world.done("r1", "cancelled", usage={"input_tokens": 900, "output_tokens": 4})
        self.assertEqual(world.listener.names, ["opened", "finished"])
        self.assertEqual(world.voice.usage["input_tokens"], 900)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_waits_for_the_cost_of_an_interrupted_response(self) -> None:
        """One that the caller has interrupted is not taken back twice; a service that never says its cost is left."""
        world = World().talk()
        world.created("r1")
        world.server("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=0)
        world.sent()
        world.voice.finish()
        self.assertEqual(world.sent(), [])
        world.clock.advance(1.875)
        self.assertEqual(world.listener.names, ["opened"])
        world.clock.advance(0.125)
        self.assertEqual(world.listener.names, ["opened", "finished"])

    def test_but_not_for_ever(self) -> None:
        """After 2 s, or when the connection breaks, it ends without them."""
        for broken in (False, True):
            world = World().talk()
            world.speaks("u1")
            world.voice.finish()
            world.clock.advance(1.875)
            self.assertEqual(world.listener.names, ["opened"])
            if broken:
                world.drop(False, 1006, "")
            else:
                world.clock.advance(0.125)
            self.assertEqual(world.listener.names, ["opened", "finished"])
            self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_before_the_greeting(self) -> None:
        """An open session that never was greeted ends as well."""
        world = World().open()
        world.voice.finish()
        self.assertEqual(world.listener.names, ["opened", "finished"])
