"""The local voice by the GPT-Live protocol: who gets in, what it refuses, and that it speaks at the pace of speech."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path
from textwrap import dedent
from typing import Any

from openai.types.live import ServerEvent
from pydantic import TypeAdapter
from twisted.trial.unittest import SynchronousTestCase

from extenbot.sandbox.formats import PCMU
from extenbot.sandbox.script import read
from extenbot.sandbox.sounds import Sound, render
from tests.sandbox.test_server import GONE, Joined

PATH = "/v1/live/sessions"
START: dict[str, Any] = {"model": "gpt-live-1.1", "audio": {"format": {"type": "audio/pcmu", "rate": 8000}}}
_SERVER: TypeAdapter[Any] = TypeAdapter(ServerEvent)


class Case(SynchronousTestCase):
    def join(self, script: str = "", path: str = PATH) -> Joined:
        """A client on a websocket; in the end all it got is of the official form, and nothing is left of it."""
        joined = Joined(read(dedent(script)), path=path)
        self.addCleanup(self.leave, joined)
        return joined

    def leave(self, joined: Joined) -> None:
        for event in joined.factory.events:
            _SERVER.validate_python(event)
        joined.far.connectionLost(GONE)
        self.assertEqual(joined.clock.getDelayedCalls(), [])
        self.assertEqual(joined.server.connections, set())

    def start(self, script: str = "", **session: Any) -> Joined:
        """A session that has started."""
        joined = self.join(script)
        joined.send(type="session.start", session={**START, **session})
        self.assertEqual(joined.types(), ["session.started"])
        return joined

    def wait(self, joined: Joined, seconds: float, sound: bytes = b"\xff" * 320) -> None:
        """The caller sends this, in messages of 40 ms."""
        for at in range(round(seconds / 0.04)):
            part = sound[at * 320 % len(sound) :][:320]
            joined.send(type="session.input_audio.append", audio=b64encode(part).decode())
            for _ in range(2):
                joined.clock.advance(0.02)
                joined.pump()

    def error(self, joined: Joined) -> dict[str, Any]:
        """The latest message, which must be an error."""
        event = joined.factory.events[-1]
        self.assertEqual(event["type"], "error")
        return event

    def audio(self, joined: Joined) -> bytes:
        """All that the bot has said."""
        events = joined.factory.events
        return b"".join(b64decode(each["delta"]) for each in events if each["type"] == "session.output_audio.delta")


class Sessions(Case):
    def test_started(self) -> None:
        """Any GPT-Live model and any key is let in; the client speaks first, and is told what holds."""
        for path in (PATH, "/openai/v1/live/sessions"):
            joined = self.join(path=path)
            self.assertEqual(joined.types(), [])
            joined.send(type="session.start", event_id="c1", session=START)
            [event] = joined.factory.events
            self.assertEqual((event["type"], event["client_event_id"]), ("session.started", "c1"))
            self.assertEqual(event["session"]["expires_at"], 10**9 + 7200)
            self.assertEqual(event["session"]["audio"]["format"], START["audio"]["format"])

    def test_unknown_model(self) -> None:
        """A script that does not exist is no model, and the connection is closed."""
        joined = Joined(None, Path(self.mktemp()), path=PATH)
        joined.send(type="session.start", session={**START, "model": "sandbox-live-nobody"})
        self.assertEqual(self.error(joined)["error"]["code"], "model_not_found")
        self.assertEqual(joined.near.remoteCloseCode, 4000)
        joined.far.connectionLost(GONE)

    def test_refused_settings(self) -> None:
        """Settings are strict: an unknown key or another format, and there is no session."""
        for session, code in (
            ({**START, "turn_detection": None}, "unknown_parameter"),
            ({**START, "audio": {"format": {"type": "audio/pcmu", "rate": 16000}}}, "invalid_value"),
            ({"audio": START["audio"]}, "missing_required_parameter"),
        ):
            joined = self.join()
            joined.send(type="session.start", event_id="c1", session=session)
            event = self.error(joined)
            self.assertEqual((event["error"]["code"], event["client_event_id"]), (code, "c1"))
            self.assertEqual(joined.near.remoteCloseCode, 4000)

    def test_too_early(self) -> None:
        """Nothing may be sent before the session has been asked for."""
        joined = self.join()
        joined.send(type="session.input_audio.append", audio="")
        self.assertEqual(self.error(joined)["error"]["code"], "invalid_event")
        self.assertEqual(joined.near.remoteCloseCode, 4000)

    def test_mistakes(self) -> None:
        """A message that the service would refuse is an error that names it, and the session goes on."""
        joined = self.start()
        for message, code in (
            ({"type": "response.cancel"}, "invalid_value"),
            ({"type": "session.commentary.append", "content": "x", "voice": "y"}, "unknown_parameter"),
            ({"type": "session.commentary.append"}, "missing_required_parameter"),
            ({"type": "session.commentary.append", "content": 5}, "invalid_type"),
            ({"type": "session.thinking.append", "content": "x" * 2001}, "string_above_max_length"),
            ({"type": "session.start", "session": START}, "invalid_event"),
        ):
            joined.send(event_id="c7", **message)
            event = self.error(joined)
            self.assertEqual((event["error"]["code"], event["client_event_id"]), (code, "c7"))
        joined.near.sendMessage(b"{")
        joined.pump()
        self.assertEqual(self.error(joined)["error"]["code"], "invalid_json")
        joined.send(type="session.close")
        self.assertEqual(joined.types()[-1], "session.closed")


class Speech(Case):
    def test_pace(self) -> None:
        """What is to be said comes in 20 ms of sound each 20 ms, with its words, all of it."""
        joined = self.start('speed 20\non greet: tone 440 for 1 s "Good morning!"')
        joined.send(type="session.commentary.append", content="Greet.")
        self.assertEqual(joined.types()[1], "session.commentary.appended")
        self.wait(joined, 0.52)
        self.assertApproximates(len(self.audio(joined)), 3840, 320)
        self.wait(joined, 1)
        self.assertEqual(self.audio(joined), render(Sound(hz=440, seconds=1), PCMU))
        words = [event for event in joined.factory.events if event["type"] == "session.output_transcript.delta"]
        self.assertEqual("".join(event["delta"] for event in words), "Good morning!")

    def test_busy(self) -> None:
        """A server that is late now and then does not speak slower for it."""
        joined = self.start("speed 20\non greet: tone 440 for 3 s")
        joined.send(type="session.commentary.append", content="Greet.")
        joined.clock.pump([0.0225] * 100)
        joined.pump()
        self.assertApproximates(len(self.audio(joined)), 2.25 * 8000, 480)
        joined.clock.pump([0.0225] * 40)
        joined.pump()
        self.assertEqual(self.audio(joined), render(Sound(hz=440, seconds=3), PCMU))

    def test_interrupted(self) -> None:
        """It falls silent by itself when the caller speaks, and answers what was said."""
        joined = self.start(
            """
            speed 20
            on greet: tone 440 for 20 s
            on speech:
                heard "Stop!"
                tone 600 for 1 s "Yes?"
            """
        )
        joined.send(type="session.commentary.append", content="Greet.")
        self.wait(joined, 1)
        self.wait(joined, 1, render(Sound(hz=800, seconds=1), PCMU))
        self.wait(joined, 3)
        said = self.audio(joined)
        self.assertLess(len(said), 8000 * 4)
        self.assertTrue(said.endswith(render(Sound(hz=600, seconds=1), PCMU)))
        [words] = [event for event in joined.factory.events if event["type"] == "session.input_transcript.delta"]
        self.assertEqual(words["delta"], "Stop!")

    def test_function(self) -> None:
        """A function is called by the model behind, which goes on with the result when it is told to."""
        joined = self.start(
            'on greet: call add {"a": 1}\non output add: tone 500 for 1 s "Five."',
            delegation={
                "type": "responses",
                "responses": {"model": "m", "tools": [{"type": "function", "name": "add"}]},
            },
        )
        joined.send(type="session.commentary.append", content="Greet.")
        self.wait(joined, 0.4)
        inner = [event["event"] for event in joined.factory.events if event["type"] == "response.event"]
        self.assertEqual([event["type"] for event in inner], ["response.output_item.done", "response.completed"])
        call = inner[0]["item"]
        self.assertEqual((call["name"], call["arguments"]), ("add", '{"a": 1}'))
        item = {"type": "function_call_output", "call_id": call["call_id"], "output": "5"}
        joined.send(type="response.item.create", item=item)
        joined.send(type="response.create")
        self.wait(joined, 1.6)
        self.assertEqual(self.audio(joined), render(Sound(hz=500, seconds=1), PCMU))

    def test_paid_by_time(self) -> None:
        """It says what has been used every ten seconds, and at the end; the longest duration ends it."""
        joined = self.start()
        self.wait(joined, 10.2)
        used = [event["usage"] for event in joined.factory.events if event["type"] == "session.usage.updated"]
        self.assertEqual(len(used), 1)
        self.assertApproximates(used[0]["seconds"], 10, 0.03)

    def test_expired(self) -> None:
        """The longest duration, two hours or what the script says, ends it with 1001."""
        for script, seconds in (("", 7200), ("life 5 s", 5)):
            joined = self.start(script)
            self.assertEqual(joined.factory.events[0]["session"]["expires_at"], 10**9 + seconds)
            joined.clock.pump([0.5] * (2 * seconds - 1))
            joined.pump()
            self.assertIsNone(joined.near.remoteCloseCode)
            joined.clock.advance(0.5)
            joined.pump()
            last = joined.factory.events[-1]
            self.assertEqual((last["type"], last["reason"]), ("session.closed", "expired"))
            self.assertEqual(joined.near.remoteCloseCode, 1001)
