"""The language of scripts, and every fault it can make, as a client sees them."""

from __future__ import annotations

import re
import struct
import wave
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed
from extenbot.sandbox.formats import PCMU
from extenbot.sandbox.script import PLAIN, load, read
from extenbot.sandbox.sounds import Sound, render
from tests.sandbox.rig import PHONE, Client

DOCUMENT = Path(__file__).parents[2] / "docs" / "scripts.md"


class Language(SynchronousTestCase):
    def test_rules_and_settings(self) -> None:
        """Settings, one-line rules and indented rules are read; comments and empty lines are not."""
        script = read(
            "speed 20 # fast\nchunk 100 ms\nlate deltas 2\nlife 1.5 min\n\n# a comment\n"
            'on speech 2: say "a # is no comment, \\"quoted\\""\n'
            'on output add:\n    call f {"x": [1, {"y": "z"}]}\n\n    wait 250 ms\nevery 2 s: nothing\n'
        )
        self.assertEqual((script.speed, script.chunk, script.late, script.life), (20, 100, 2, 90))
        speech, output, every = script.rules
        self.assertEqual((speech.when, speech.number), ("speech", 2))
        self.assertEqual(speech.actions[0].words, 'a # is no comment, "quoted"')
        self.assertEqual((output.name, [action.verb for action in output.actions]), ("add", ["call", "wait"]))
        self.assertEqual(output.actions[0].words, '{"x": [1, {"y": "z"}]}')
        self.assertEqual((every.when, every.seconds), ("every", 2))
        self.assertEqual(read(""), PLAIN)

    def test_which_rule(self) -> None:
        """The rule of this number comes before the one of this name, and that before the plain one."""
        script = read("on output: nothing\non output add: hang\non output 2: ignore")

        def verb(number: int, name: str) -> str:
            rule = script.rule("output", number, name)
            return rule.actions[0].verb if rule else ""

        self.assertEqual([verb(1, "sub"), verb(1, "add"), verb(2, "add")], ["nothing", "hang", "ignore"])

    def test_mistakes(self) -> None:
        """A mistake is told with its line and what is wrong."""
        for text, words in (
            ("hello", "line 1: cannot read 'hello'"),
            ("\non greet: sing", "line 2: does not know 'sing'"),
            ("on greet: tone loud", "line 1: cannot read 'tone loud'"),
            ("  tone 440 for 1 s", "line 1: an indented line"),
            ("on greet:\n  refuse\n", "line 2: cannot read 'refuse'"),
            ("on connect: tone 440 for 1 s", "line 1: 'tone' has no place under 'connect'"),
            ("on connect: refuse 200", "line 1: a connection is refused with an HTTP status"),
            ("on greet: heard nothing", "line 1: 'heard' has no place under 'greet'"),
            ("on greet: call f {x}", "line 1: {x} is not JSON"),
            ("on greet: send {}", "line 1: an event needs a type"),
            ("on greet: play ../x.wav", "line 1: ../x.wav must be a file beside the script"),
            ("on speech add: nothing", "line 1: only 'on output' takes the name"),
            ("chunk 1 ms", "line 1: a chunk lasts from 20 ms to 5 s"),
            ("on greet: tone 440 for 20 min", "line 1: a sound lasts at most 600 s"),
        ):
            error = self.assertRaises(Malformed, read, text)
            self.assertTrue(str(error).startswith(words), str(error))

    @given(st.lists(st.text(alphabet='on greet: tone"{}4 s\t#wait\\', max_size=30), max_size=4))
    def test_any_text(self, lines: list[str]) -> None:
        """Any text is a script or a clear mistake."""
        try:
            read("\n".join(lines))
        except Malformed as error:
            self.assertIn("line ", str(error))

    def test_the_document(self) -> None:
        """Every script printed in docs/scripts.md is one."""
        blocks = re.findall(r"^```\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        self.assertGreater(len(blocks), 4)
        for block in blocks:
            self.assertTrue(read(block).rules, block)

    def test_wav(self) -> None:
        """A WAV file beside the script is played; a broken one is a mistake with file and line."""
        folder = Path(self.mktemp())
        folder.mkdir()
        with wave.open(str(folder / "ramp.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(struct.pack("<320h", *range(0, 32000, 100)))
        (folder / "a.txt").write_text('on greet: play ramp.wav "up"')
        sound = load(folder / "a.txt").rules[0].actions[0].sound
        assert sound is not None
        self.assertEqual(len(render(sound, PCMU)), 160)
        (folder / "ramp.wav").write_bytes(b"RIFF")
        self.assertIn(
            "a.txt, line 1: ramp.wav cannot be read", str(self.assertRaises(Malformed, load, folder / "a.txt"))
        )
        self.assertIn("b.txt cannot be read", str(self.assertRaises(Malformed, load, folder / "b.txt")))


class Faults(SynchronousTestCase):
    def test_wrong_key(self) -> None:
        """A wrong key: an error and close 3000, and never a session."""
        client = Client(
            'on open:\n error invalid_api_key "Incorrect API key"\n close 3000 "invalid_request_error.invalid_api_key"'
        )
        self.assertEqual(client.types(), ["error"])
        self.assertEqual(client.events[0]["error"]["code"], "invalid_api_key")
        self.assertEqual(client.closed, (3000, "invalid_request_error.invalid_api_key"))

    def test_slow_open(self) -> None:
        """The session comes late, or never."""
        client = Client("on open: wait 3 s", phone=False)
        client.wait(2.5)
        self.assertEqual(client.types(), [])
        client.wait(1)
        self.assertEqual(client.types(), ["session.created"])
        client = Client("on open: hang", phone=False)
        client.wait(60)
        self.assertEqual(client.types(), [])

    def test_refused_update(self) -> None:
        """A session.update is refused with code, parameter and our event."""
        client = Client('on update 1: refuse unknown_parameter "Unknown" param session.audio', phone=False)
        client.send("session.update", session=PHONE, event_id="c1")
        error = client.last("error")["error"]
        self.assertEqual(
            (error["code"], error["param"], error["event_id"]), ("unknown_parameter", "session.audio", "c1")
        )
        client.send("session.update", session=PHONE)
        self.assertEqual(client.types()[-1], "session.updated")

    def test_wrong_format(self) -> None:
        """session.updated claims another format than was asked."""
        client = Client('on update: effective {"audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}}}}')
        audio = client.last("session.updated")["session"]["audio"]
        self.assertEqual(audio["output"]["format"], {"type": "audio/pcm", "rate": 24000})
        self.assertEqual(audio["input"]["format"], {"type": "audio/pcmu"})

    def test_no_credit(self) -> None:
        """No credit: the response fails, with no error event beside it."""
        client = Client('on greet:\n fail insufficient_quota "No credit"')
        client.send("response.create")
        done = client.last("response.done")["response"]
        self.assertEqual((done["status"], done["usage"]), ("failed", None))
        self.assertEqual(done["status_details"]["error"]["code"], "insufficient_quota")
        self.assertNotIn("error", client.types())

    def test_incomplete_and_empty(self) -> None:
        """An answer is cut by max_output_tokens; another is empty."""
        client = Client("on greet:\n tone 440 for 1 s\n incomplete max_output_tokens\non response: nothing")
        client.send("response.create")
        client.wait(1)
        done = client.last("response.done")["response"]
        self.assertEqual(done["status_details"], {"type": "incomplete", "reason": "max_output_tokens"})
        self.assertEqual(done["output"][0]["status"], "incomplete")
        client.send("response.create")
        self.assertEqual(client.last("response.done")["response"]["output"], [])

    def test_dropped(self) -> None:
        """The line drops in mid-sentence: the client has some audio, no end, no close frame."""
        client = Client("speed 1\nchunk 100 ms\non greet:\n tone 440 for 1 s\n drop\n")
        client.send("response.create")
        client.wait(2)
        self.assertEqual(client.closed, (1006, ""))
        self.assertEqual(len(client.audio()), 8000)
        self.assertNotIn("response.done", client.types())
        self.assertEqual(client.clock.getDelayedCalls(), [])

    def test_timed(self) -> None:
        """After some seconds the session expires; every second a foreign event comes; errors come in between."""
        client = Client(
            'after 3500 ms: expire\nevery 1 s: send {"type": "moon.phase", "full": true}\n'
            'after 2 s: error server_error "Oops"'
        )
        client.wait(5)
        self.assertEqual([event["full"] for event in client.foreign], [True] * 3)
        errors = [(event["error"]["type"], event["error"]["code"]) for event in client.all("error")]
        self.assertEqual(errors, [("server_error", None), ("invalid_request_error", "session_expired")])
        self.assertEqual(client.closed and client.closed[0], 1001)

    def test_speaks_by_itself(self) -> None:
        """`after` speaks without being asked, once the answer that goes on is done."""
        client = Client('speed 1\nafter 1 s: tone 500 for 1 s "By the way"\non greet: tone 440 for 2 s')
        client.send("response.create")
        client.wait(5)
        self.assertEqual(client.last("response.output_audio_transcript.done")["transcript"], "By the way")
        self.assertEqual(len(client.audio()), 3 * 8000)

    def test_refused_response(self) -> None:
        """A response is refused, ignored, or never ends."""
        client = Client(
            "on greet: refuse conversation_already_has_active_response\non response 1: ignore\non response: hang"
        )
        client.send("response.create", event_id="g")
        self.assertEqual(client.last("error")["error"]["event_id"], "g")
        client.send("response.create")
        self.assertNotIn("response.created", client.types())
        client.send("response.create")
        client.wait(60)
        self.assertIn("response.created", client.types())
        self.assertNotIn("response.done", client.types())

    def test_transcripts(self) -> None:
        """A transcript comes late, fails, or never comes."""
        client = Client('on speech 1: heard "late" after 5 s\non speech 2: heard failed\non speech 3: heard nothing')
        completed = "conversation.item.input_audio_transcription.completed"
        client.speak()
        client.wait(3)
        self.assertNotIn(completed, client.types())
        client.wait(2)
        self.assertEqual(client.last(completed)["transcript"], "late")
        client.speak()
        failed = client.last("conversation.item.input_audio_transcription.failed")
        self.assertEqual(failed["item_id"], client.last("input_audio_buffer.committed")["item_id"])
        client.speak()
        client.wait(10)
        self.assertEqual(len(client.all(completed)), 1)

    def test_text_only(self) -> None:
        """An answer in text though audio was asked, and a message after it."""
        client = Client('on greet:\n text "Only words"\n next message\n tone 440 for 1 s "And sound"')
        client.send("response.create")
        client.wait(1)
        output = client.last("response.done")["response"]["output"]
        self.assertEqual([item["content"][0]["type"] for item in output], ["output_text", "output_audio"])

    def test_all_at_once(self) -> None:
        """With speed 0 the whole answer is there at once; an action changes the speed of the rest."""
        client = Client(
            "speed 0\non greet: tone 440 for 9 s\non response:\n tone 440 for 1 s\n speed 1\n tone 440 for 1 s"
        )
        client.send("response.create")
        self.assertEqual(client.types()[-1], "response.done")
        self.assertEqual(client.audio(), render(Sound(hz=440, seconds=9), PCMU))
