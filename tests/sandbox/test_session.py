"""A session as its client sees it; every event is held against the official types by the rig."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.sandbox.formats import PCM, PCMA, PCMU
from extenbot.sandbox.sounds import Sound, render
from tests.sandbox.rig import PHONE, Client

ANSWER = [
    "response.created",
    "rate_limits.updated",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


class Opening(SynchronousTestCase):
    def test_created_and_updated(self) -> None:
        """The first event is session.created with an expiry; an update is confirmed with all that is in force."""
        client = Client()
        created = client.events[0]["session"]
        self.assertEqual(client.types(), ["session.created", "session.updated"])
        self.assertEqual(created["object"], "realtime.session")
        self.assertEqual(created["expires_at"], 10**9 + 3600)
        self.assertEqual(created["audio"]["output"]["format"], {"type": "audio/pcm", "rate": 24000})
        updated = client.events[1]["session"]
        self.assertEqual(updated["audio"]["output"]["format"], {"type": "audio/pcmu"})
        self.assertEqual(updated["audio"]["input"]["turn_detection"]["silence_duration_ms"], 500)
        self.assertEqual(updated["id"], created["id"])
        self.assertEqual(client.gone(), [])

    def test_refused_update_changes_nothing(self) -> None:
        """One wrong key refuses the whole update, names the key and our event, and the session stays up."""
        client = Client(phone=False)
        client.send("session.update", event_id="c1", session={**PHONE, "instructions": "x", "voice": "marin"})
        error = client.last("error")["error"]
        self.assertEqual(
            (error["code"], error["param"], error["event_id"]), ("unknown_parameter", "session.voice", "c1")
        )
        self.assertEqual(error["message"], "Unknown parameter: 'session.voice'.")
        self.assertEqual(client.session.config["audio"]["input"]["format"]["type"], "audio/pcm")
        self.assertNotEqual(client.session.config["instructions"], "x")
        client.send("session.update", session={k: v for k, v in PHONE.items() if k != "type"})
        self.assertEqual(client.last("error")["error"]["code"], "missing_required_parameter")
        self.assertEqual(client.types().count("session.updated"), 0)

    def test_voice_stays(self) -> None:
        """The voice cannot be changed once it has been heard."""
        client = Client()
        client.send("response.create")
        client.wait(2)
        client.send("session.update", session={"type": "realtime", "audio": {"output": {"voice": "cedar"}}})
        self.assertEqual(client.last("error")["error"]["code"], "cannot_update_voice")

    def test_old_models(self) -> None:
        """Reasoning is unknown to models before gpt-realtime-2."""
        for model, good in (("gpt-realtime", False), ("gpt-realtime-2.1", True), ("gpt-realtime-2025-08-28", False)):
            client = Client(model=model)
            client.forget()
            client.send("session.update", session={"type": "realtime", "reasoning": {"effort": "low"}})
            self.assertEqual(client.types(), ["session.updated"] if good else ["error"], model)

    def test_an_hour(self) -> None:
        """After sixty minutes the session ends with session_expired and close 1001."""
        client = Client()
        client.clock.advance(3600)
        self.assertEqual(client.last("error")["error"]["code"], "session_expired")
        self.assertEqual(client.closed, (1001, "Your session hit the maximum duration of 60 minutes."))
        self.assertEqual(client.clock.getDelayedCalls(), [])


class Answering(SynchronousTestCase):
    def test_order_of_events(self) -> None:
        """An answer is told in the order of the real service, and says the welcome message."""
        client = Client()
        client.forget()
        options = {"instructions": 'Say exactly: "Good morning" and wait.', "metadata": {"purpose": "greeting"}}
        client.send("response.create", response=options)
        client.wait(3)
        self.assertEqual(client.types(), ANSWER)
        done = client.last("response.done")["response"]
        self.assertEqual(done["status"], "completed")
        self.assertEqual(done["metadata"], {"purpose": "greeting"})
        self.assertEqual(done["output"][0]["content"], [{"type": "output_audio", "transcript": "Good morning"}])
        self.assertEqual(done["usage"]["output_token_details"]["audio_tokens"], len(client.audio()) // 8 // 50)
        self.assertEqual(client.gone(), [])

    def test_faster_than_real_time(self) -> None:
        """Audio leaves in pieces, as many times faster than it plays as the script says."""
        client = Client("speed 4\nchunk 200 ms\non greet: tone 440 for 2 s")
        client.send("response.create")
        self.assertEqual(len(client.audio()), 1600)
        client.clock.advance(0.25)
        self.assertEqual(len(client.audio()), 1600 * 6)
        client.clock.advance(0.25)
        self.assertEqual(len(client.audio()), 16000)
        self.assertEqual(client.types()[-1], "response.done")
        self.assertEqual(client.audio(), render(Sound(hz=440, seconds=2), PCMU))

    def test_one_at_a_time(self) -> None:
        """A second response.create while one is active is refused and leaves no trace."""
        client = Client()
        client.send("response.create")
        client.send("response.create", event_id="second")
        error = client.last("error")["error"]
        self.assertEqual(error["code"], "conversation_already_has_active_response")
        self.assertEqual(error["event_id"], "second")
        client.wait(3)
        self.assertEqual(client.types().count("response.created"), 1)

    def test_beside_the_conversation(self) -> None:
        """A response with conversation none may run beside another and adds no items."""
        client = Client()
        client.send("response.create")
        client.forget()
        client.send("response.create", response={"conversation": "none", "output_modalities": ["text"]})
        client.wait(3)
        self.assertEqual(client.types().count("response.done"), 2)
        self.assertEqual(client.last("response.output_text.done")["text"], "I am here.")
        self.assertEqual(len(client.session.items), 1)

    def test_cancel(self) -> None:
        """response.cancel stops the answer; with nothing to stop it is an error."""
        client = Client("on greet: tone 440 for 10 s")
        client.send("response.create")
        client.send("response.cancel")
        done = client.last("response.done")["response"]
        self.assertEqual(done["status"], "cancelled")
        self.assertEqual(done["status_details"], {"type": "cancelled", "reason": "client_cancelled"})
        self.assertEqual(done["output"][0]["status"], "incomplete")
        client.send("response.cancel", event_id="late")
        self.assertEqual(client.last("error")["error"]["code"], "response_cancel_not_active")
        self.assertEqual(client.last("error")["error"]["event_id"], "late")

    def test_text(self) -> None:
        """In a text session words come without audio."""
        client = Client()
        client.send("session.update", session={"type": "realtime", "output_modalities": ["text"]})
        client.send("response.create")
        client.wait(1)
        self.assertEqual(client.audio(), b"")
        self.assertEqual(client.last("response.output_text.done")["text"], "Hello.")

    def test_formats(self) -> None:
        """Audio comes in the format of the session: A-law, or 24 kHz PCM."""
        for wire, shape in ((PCMA, {"type": "audio/pcma"}), (PCM, {"type": "audio/pcm", "rate": 24000})):
            client = Client("on greet: tone 440 for 1 s")
            client.send("session.update", session={"type": "realtime", "audio": {"output": {"format": shape}}})
            client.send("response.create")
            client.wait(1)
            self.assertEqual(client.audio(), render(Sound(hz=440, seconds=1), wire))


class Turns(SynchronousTestCase):
    def test_a_turn(self) -> None:
        """Speech is announced, committed after the silence, transcribed and answered."""
        client = Client('on speech: heard "one"\n')
        client.forget()
        client.hear(PCMU.silence * 8000)
        client.speak(1.0, 2.0)
        client.wait(1)
        began = [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
        ]
        self.assertEqual(client.types()[:7], [*began, *ANSWER[:2]])
        self.assertEqual(client.last("input_audio_buffer.speech_started")["audio_start_ms"], 700)
        self.assertEqual(client.last("input_audio_buffer.speech_stopped")["audio_end_ms"], 2500)
        heard = client.last("conversation.item.input_audio_transcription.completed")
        self.assertEqual(heard["transcript"], "one")
        self.assertEqual(heard["usage"], {"type": "duration", "seconds": 1.8})
        self.assertEqual(heard["item_id"], client.last("input_audio_buffer.committed")["item_id"])
        self.assertEqual(client.gone(), [])

    def test_barge_in(self) -> None:
        """Who speaks while the bot does stops it: the response ends as cancelled by turn detection."""
        client = Client("speed 1\non greet: tone 440 for 30 s")
        client.send("response.create")
        client.wait(1)
        client.forget()
        client.speak(0.5, 0)
        names = client.types()
        self.assertIn("response.output_item.done", names)
        done = client.last("response.done")["response"]
        self.assertEqual(done["status_details"], {"type": "cancelled", "reason": "turn_detected"})
        started = names.index("input_audio_buffer.speech_started")
        self.assertNotIn("response.output_audio.delta", names[started:])

    def test_late_deltas(self) -> None:
        """A script can let audio of a dead response arrive after speech_started, as networks do."""
        client = Client("speed 1\nlate deltas 3\non greet: tone 440 for 30 s")
        client.send("response.create")
        client.wait(1)
        client.speak(0.2, 0)
        kinds = [event["type"] for event in client.events]
        after = kinds[kinds.index("input_audio_buffer.speech_started") :]
        self.assertEqual(after.count("response.output_audio.delta"), 3)

    def test_not_interrupted(self) -> None:
        """With interrupt_response false the bot speaks on, and the turn is answered after it."""
        client = Client("speed 1\non greet: tone 440 for 3 s\non speech: tone 600 for 1 s")
        quiet = {"type": "server_vad", "interrupt_response": False}
        client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": quiet}}})
        client.send("response.create")
        client.speak(0.5, 1)
        self.assertEqual(client.types().count("response.created"), 1)
        client.wait(4)
        states = [event["response"]["status"] for event in client.all("response.done")]
        self.assertEqual(states, ["completed", "completed"])

    def test_no_answer_by_itself(self) -> None:
        """With create_response false the client decides when to answer a turn."""
        client = Client()
        own = {"type": "server_vad", "create_response": False}
        client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": own}}})
        client.speak()
        self.assertIn("input_audio_buffer.committed", client.types())
        self.assertNotIn("response.created", client.types())

    def test_silence_duration(self) -> None:
        """A pause shorter than silence_duration_ms does not end the turn; semantic_vad is taken as well."""
        client = Client()
        slow = {"type": "server_vad", "silence_duration_ms": 1500}
        client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": slow}}})
        client.speak(0.5, 1.0)
        client.speak(0.5, 1.0)
        self.assertEqual(client.types().count("input_audio_buffer.speech_started"), 1)
        self.assertNotIn("input_audio_buffer.speech_stopped", client.types())
        wise = {"type": "semantic_vad", "eagerness": "high"}
        client = Client()
        client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": wise}}})
        client.speak(0.5, 0.4)
        self.assertIn("input_audio_buffer.speech_stopped", client.types())

    def test_push_to_talk(self) -> None:
        """Without turn detection the client commits and asks; too little audio is an error."""
        client = Client('on speech: heard "pushed"\n')
        client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        client.send("input_audio_buffer.commit", event_id="empty")
        error = client.last("error")["error"]
        self.assertEqual((error["code"], error["event_id"]), ("input_audio_buffer_commit_empty", "empty"))
        client.speak()
        self.assertNotIn("input_audio_buffer.speech_started", client.types())
        client.send("input_audio_buffer.commit")
        client.send("response.create")
        client.wait(3)
        transcript = client.last("conversation.item.input_audio_transcription.completed")
        self.assertEqual((transcript["transcript"], transcript["usage"]["seconds"]), ("pushed", 2.0))
        self.assertEqual(client.last("response.done")["response"]["status"], "completed")

    def test_commit_with_turn_detection(self) -> None:
        """Committing under turn detection while nobody speaks is an error."""
        client = Client()
        client.hear(PCMU.silence * 8000)
        client.send("input_audio_buffer.commit")
        self.assertEqual(client.last("error")["error"]["code"], "input_audio_buffer_commit_empty")

    def test_clear(self) -> None:
        """A cleared buffer forgets the turn that was going on."""
        client = Client()
        client.speak(0.5, 0)
        client.send("input_audio_buffer.clear")
        client.hear(PCMU.silence * 16000)
        self.assertIn("input_audio_buffer.cleared", client.types())
        self.assertNotIn("input_audio_buffer.speech_stopped", client.types())

    def test_silent_caller(self) -> None:
        """idle_timeout_ms after the bot has been heard, the silence itself becomes a turn."""
        client = Client()
        idle = {"type": "server_vad", "idle_timeout_ms": 5000}
        client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": idle}}})
        client.send("response.create")
        client.wait(1)
        client.forget()
        client.wait(5)
        self.assertEqual(client.types()[0], "input_audio_buffer.timeout_triggered")
        self.assertIn("response.created", client.types())
        self.assertEqual(client.gone(), [])

    def test_little_memory(self) -> None:
        """An hour of silence keeps a few seconds of audio; endless speech two minutes."""
        client = Client()
        client.hear(PCMU.silence * 8 * 60_000)
        self.assertLess(len(client.session._buffer), 8 * 3000)
        client.hear(render(Sound(hz=800, seconds=130), PCMU))
        self.assertLessEqual(len(client.session._buffer), 8 * 120_100)


class Items(SynchronousTestCase):
    def test_functions(self) -> None:
        """Two functions are called in one answer; their outputs are taken, and the next answer speaks."""
        client = Client('on speech:\n call add {"a": 1}\n call add {"a": 2}\non output add: tone 440 for 1 s "Three."')
        client.speak()
        done = client.last("response.done")["response"]
        self.assertEqual([item["arguments"] for item in done["output"]], ['{"a": 1}', '{"a": 2}'])
        self.assertEqual([item["status"] for item in done["output"]], ["completed"] * 2)
        self.assertEqual(len(client.all("response.function_call_arguments.done")), 2)
        client.forget()
        for item in done["output"]:
            output = {"type": "function_call_output", "call_id": item["call_id"], "output": "3"}
            client.send("conversation.item.create", item=output)
        self.assertEqual(client.types(), ["conversation.item.added", "conversation.item.done"] * 2)
        client.send("response.create")
        client.wait(1)
        self.assertEqual(client.last("response.output_audio_transcript.done")["transcript"], "Three.")

    def test_unknown_call(self) -> None:
        """The output of a call that was never made is an error."""
        client = Client()
        client.send(
            "conversation.item.create", item={"type": "function_call_output", "call_id": "call_x", "output": "3"}
        )
        self.assertEqual(client.last("error")["error"]["code"], "invalid_tool_call_id")

    def test_order(self) -> None:
        """Items go to the end, the front or behind another; an unknown place is an error."""
        client = Client()
        text = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
        client.send("conversation.item.create", item={**text, "id": "a"})
        client.send("conversation.item.create", item={**text, "id": "b"})
        self.assertEqual(client.last("conversation.item.added")["previous_item_id"], "a")
        client.send("conversation.item.create", item={**text, "id": "c"}, previous_item_id="root")
        client.send("conversation.item.create", item={**text, "id": "d"}, previous_item_id="a")
        self.assertEqual(list(client.session.items), ["c", "a", "d", "b"])
        client.send("conversation.item.create", item={**text, "id": "e"}, previous_item_id="nobody")
        self.assertEqual(client.last("error")["error"]["code"], "item_create_invalid_previous_item_id")
        client.send("conversation.item.create", item={**text, "id": "a"})
        self.assertEqual(client.last("error")["error"]["code"], "item_create_duplicate_item_id")

    def test_retrieve_and_delete(self) -> None:
        """Items can be read back and deleted; what is not there is an error."""
        client = Client()
        client.send("response.create")
        client.wait(2)
        name = client.last("response.output_item.done")["item"]["id"]
        client.send("conversation.item.retrieve", item_id=name)
        self.assertEqual(client.last("conversation.item.retrieved")["item"]["role"], "assistant")
        client.send("conversation.item.delete", item_id=name)
        self.assertEqual(client.last("conversation.item.deleted")["item_id"], name)
        client.send("conversation.item.retrieve", item_id=name)
        self.assertEqual(client.last("error")["error"]["code"], "item_retrieve_invalid_item_id")
        client.send("conversation.item.delete", item_id=name)
        self.assertEqual(client.last("error")["error"]["code"], "item_delete_invalid_item_id")

    def test_truncate(self) -> None:
        """Truncation forgets the words, and is an error beyond what was sent."""
        client = Client("on greet: tone 440 for 1300 ms")
        client.send("response.create")
        client.wait(2)
        name = client.last("response.output_item.done")["item"]["id"]
        where = {"item_id": name, "content_index": 0}
        client.send("conversation.item.truncate", **where, audio_end_ms=1560, event_id="t")
        error = client.last("error")["error"]
        self.assertEqual(error["message"], "Audio content of 1300ms is already shorter than 1560ms")
        self.assertEqual(error["event_id"], "t")
        client.send("conversation.item.truncate", **where, audio_end_ms=700)
        self.assertEqual(client.last("conversation.item.truncated")["audio_end_ms"], 700)
        self.assertNotIn("transcript", client.session.items[name]["content"][0])
        client.send("conversation.item.truncate", **where, audio_end_ms=701)
        self.assertIn("700ms is already shorter", client.last("error")["error"]["message"])

    def test_truncate_while_speaking(self) -> None:
        """An item can be truncated while its answer still goes on."""
        client = Client("speed 1\non greet: tone 440 for 5 s")
        client.send("response.create")
        client.wait(1)
        name = client.last("response.output_item.added")["item"]["id"]
        client.send("conversation.item.truncate", item_id=name, content_index=0, audio_end_ms=500)
        self.assertEqual(client.types()[-1], "conversation.item.truncated")


class Nonsense(SynchronousTestCase):
    def test_not_json(self) -> None:
        """What is not JSON, not an object or nested without end is an error event, and the session goes on."""
        client = Client()
        for text in (b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b"{}", b'{"type": 3}', b'{"type": "x"}'):
            client.forget()
            client.session.received(text)
            self.assertEqual(client.types(), ["error"], text[:10])
        client.send("response.create")
        self.assertIn("response.created", client.types())

    def test_not_base64(self) -> None:
        """Audio that is not base64 is an error."""
        client = Client()
        for audio in ("a", "####", "é"):
            client.forget()
            client.send("input_audio_buffer.append", audio=audio)
            self.assertEqual(client.last("error")["error"]["param"], "audio")

    @settings(max_examples=150, deadline=None)
    @given(
        st.sampled_from(
            ["session.update", "conversation.item.create", "conversation.item.truncate", "response.create", "x"]
        ),
        st.sampled_from(["session", "item", "item_id", "response", "audio_end_ms", "event_id"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["type", "audio", "tools", "content", "id", "role", "x"]), inner, max_size=4
                )
            ),
            max_leaves=8,
        ),
    )
    def test_anything(self, kind: str, key: str, value: object) -> None:
        """No event, however wrong, raises."""
        client = Client()
        client.session.received(json.dumps({"type": kind, key: value}).encode())
        client.session.received(json.dumps(value).encode())
        client.gone()

    def test_after_the_end(self) -> None:
        """Nothing is sent once the connection is gone."""
        client = Client("on greet: tone 440 for 9 s")
        client.send("response.create")
        self.assertEqual(client.gone(), [])
        client.forget()
        client.send("response.create")
        client.wait(1)
        self.assertEqual(client.events, [])
