"""The demo mind with a stand-in for the speech process: what is heard, said and called, and when it dies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from extenbot.consent import Consent
from extenbot.errors import BackendLost
from extenbot.sandbox import voice
from extenbot.sandbox.demo import Demo
from extenbot.sandbox.formats import PCMU, Format
from extenbot.sandbox.frames import Unpacker, pack
from extenbot.sandbox.session import Session
from extenbot.sandbox.voice import SpeechProcess
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.sandbox.rig import PHONE, validated

END = {"type": "function", "name": "end_call"}
ADD = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}


class FakeEar:
    def __init__(self) -> None:
        self.got = 0
        self.closed = False

    def heard(self, audio: bytes, wire: Format, detection: Any) -> None:
        self.got += len(audio)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class FakeSpeech:
    """Hears what the test says; speaks 100 ms for each character when the test lets it."""

    usable = True

    def __init__(self) -> None:
        self.an_ear = FakeEar()
        self.hearing: list[Deferred[str]] = []
        self.cancelled: list[str] = []
        self.speaking: list[tuple[str, Callable[[bytes], None], Deferred[Any]]] = []

    def ear(self, started: Callable[[int], None], stopped: Callable[[int], None]) -> FakeEar:
        return self.an_ear

    def hear(self, audio: bytes, wire: Format, language: str = "") -> Deferred[str]:
        self.hearing.append(Deferred())
        return self.hearing[-1]

    def say(self, text: str, wire: Format, piece: Callable[[bytes], None], tempo: float = 1.0) -> Deferred[Any]:
        self.tempo = tempo
        done: Deferred[Any] = Deferred(lambda _deferred: self.cancelled.append(text))
        self.speaking.append((text, piece, done))
        return done

    def speak(self) -> str:
        """The sentence asked for last is spoken; which."""
        text, piece, done = self.speaking[-1]
        piece(b"\x10" * len(text) * 10)
        piece(b"\x20" * len(text) * 10)
        done.callback(None)
        return text


class Conversation(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.speech = Clock(), FakeSpeech()
        self.events: list[dict[str, Any]] = []
        self.session = self.open(self.speech)

    def open(self, speech: Any) -> Session:
        """A session with the demo mind and two tools."""
        session = Session(
            self.clock, CountingTokens(), lambda session: Demo(session, speech), self.sent, lambda code, reason: None
        )
        session.opened()
        self.to(session, "session.update", session={**PHONE, "tools": [END, ADD], "instructions": "A shop."})
        return session

    def sent(self, text: bytes) -> None:
        event = json.loads(text)
        validated(event)
        self.events.append(event)

    def to(self, whom: Session, kind: str, /, **fields: Any) -> None:
        whom.received(json.dumps({"type": kind, **fields}).encode())
        self.clock.advance(0)

    def turn(self, heard: str) -> None:
        """The caller says something."""
        self.session.received(b'{"type":"input_audio_buffer.append","audio":"' + b"AAAA" * 2000 + b'"}')
        self.session.speech_started(100)
        self.session.speech_stopped(700)
        self.speech.hearing[-1].callback(heard)
        self.clock.advance(0)

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def said(self) -> list[Any]:
        done = [event["response"] for event in self.events if event["type"] == "response.done"]
        return [item.get("name") or item["content"][0]["transcript"] for item in done[-1]["output"]]

    def test_speed(self) -> None:
        """The voice speaks as fast as the session says."""
        for update, tempo in (({}, 1.0), ({"audio": {"output": {"speed": 1.25}}}, 1.25)):
            self.to(self.session, "session.update", session={"type": "realtime", **update})
            self.to(self.session, "response.create", response={"instructions": 'Say exactly: "Hello there."'})
            self.speech.speak()
            self.clock.advance(60)
            self.assertEqual(self.speech.tempo, tempo)

    def test_welcome(self) -> None:
        """The welcome message is spoken word by word, its audio as soon as there is some."""
        self.to(self.session, "response.create", response={"instructions": 'Say exactly: "Hello there. Who is it?"'})
        self.assertEqual(self.speech.speak(), "Hello there.")
        self.clock.advance(0)
        self.assertIn("response.output_audio.delta", self.types())
        self.assertEqual(self.speech.speak(), "Who is it?")
        self.clock.advance(10)
        self.assertEqual(self.said(), ["Hello there. Who is it?"])

    def test_said_back(self) -> None:
        """What was heard is told as transcript and said back; its words come before its sound."""
        self.turn("Red roses.")
        self.assertIn("conversation.item.input_audio_transcription.completed", self.types())
        self.assertEqual(self.speech.speak(), "You said:")
        self.assertEqual(self.speech.speak(), "Red roses.")
        self.clock.advance(10)
        self.assertEqual(self.said(), ["You said: Red roses."])

    def test_function(self) -> None:
        """A function is called with the number heard, and its result is spoken."""
        self.turn("Please add 7")
        self.clock.advance(0)
        self.assertEqual(self.said(), ["add"])
        call = next(event for event in self.events if event["type"] == "response.function_call_arguments.done")
        self.assertEqual(json.loads(call["arguments"]), {"a": 7})
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"message": "It is eight"}'}
        self.to(self.session, "conversation.item.create", item=output)
        self.to(self.session, "response.create")
        self.assertEqual(self.speech.speak(), "It is eight")

    def test_consent(self) -> None:
        """What the caller must agree to is asked for until the answer is a yes or a no."""
        asked = Consent().ask("order", {}, 1, lambda _yes, _call: None)
        self.turn("Please add 7")
        self.clock.advance(0)
        call = next(event for event in self.events if event["type"] == "response.function_call_arguments.done")
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": asked}
        self.to(self.session, "conversation.item.create", item=output)
        self.to(self.session, "response.create")
        self.assertEqual(self.speech.speak(), "Shall I really do that?")
        self.speech.speak()
        self.clock.advance(10)
        for words, said in (("What?", ["Shall I really do that? Please say yes or no."]), ("Yes", ["caller_decision"])):
            self.turn(words)
            if words == "What?":
                self.speech.speak()
                self.speech.speak()
            self.clock.advance(10)
            self.assertEqual(self.said(), said)
        last = [event for event in self.events if event["type"] == "response.function_call_arguments.done"][-1]
        self.assertEqual(json.loads(last["arguments"]), {"request": "request-1", "agreed": True})

    def test_meanwhile(self) -> None:
        """Asked for a word while a function runs it says that it takes a moment."""
        options = {"instructions": "It takes a while.", "metadata": {"purpose": "meanwhile"}}
        self.to(self.session, "response.create", response={"instructions": 'Say exactly: "Hello."'})
        self.speech.speak()
        self.clock.advance(10)
        self.to(self.session, "response.create", response=options)
        self.assertEqual(self.speech.speak(), "One moment, please.")

    def test_goodbye(self) -> None:
        """Goodbye is spoken first, then the call is ended."""
        self.turn("Goodbye")
        self.assertNotIn("response.function_call_arguments.done", self.types())
        self.speech.speak()
        self.clock.advance(10)
        self.assertEqual(self.said(), ["Goodbye.", "end_call"])

    def test_no_tools_when_forbidden(self) -> None:
        """tool_choice none calls nothing."""
        self.to(self.session, "session.update", session={"type": "realtime", "tool_choice": "none"})
        self.turn("Goodbye")
        self.speech.speak()
        self.clock.advance(10)
        self.assertEqual(self.said(), ["Goodbye."])

    def test_barge_in(self) -> None:
        """Who speaks meanwhile cancels what is being said, and the speech process is told."""
        self.to(self.session, "response.create")
        self.session.speech_started(0)
        self.assertEqual(self.speech.cancelled, ["Hello."])
        self.assertEqual(self.events[-1]["response"]["status_details"]["reason"], "turn_detected")

    def test_dead_speech(self) -> None:
        """When the speech process dies a tone is heard instead, and the turn is not lost."""
        self.turn("Hello")
        self.speech.speaking[-1][2].errback(BackendLost("lost", "died"))
        self.clock.advance(10)
        self.speech.speaking[-1][2].errback(BackendLost("lost", "died"))
        self.clock.advance(10)
        self.assertEqual(self.said(), ["You said: Hello"])
        self.session.received(b'{"type":"input_audio_buffer.append","audio":"' + b"AAAA" * 2000 + b'"}')
        self.session.speech_started(800)
        self.session.speech_stopped(1400)
        self.speech.hearing[-1].errback(BackendLost("lost", "died"))
        self.assertIn("conversation.item.input_audio_transcription.failed", self.types())
        self.assertEqual(self.speech.speaking[-1][0], "Sorry, I did not hear you.")

    def test_hang_up(self) -> None:
        """Hanging up cancels everything and forgets the ear."""
        self.turn("Hello")
        self.session.lost()
        self.assertTrue(self.speech.an_ear.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_speech(self) -> None:
        """Without the speech extra it answers with tones, by loudness, and one line in the log says why."""
        self.patch(voice, "find_spec", lambda name: None)
        speech = SpeechProcess(Clock())
        logged: list[str] = []

        observe: Any = lambda event: logged.append(formatEvent(event))  # noqa: E731 an observer of any shape
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.session = self.open(speech)
        self.to(self.session, "response.create")
        self.clock.advance(5)
        self.assertEqual(self.said(), ["Hello."])
        self.assertIn("response.output_audio.delta", self.types())
        self.open(speech)
        self.assertEqual(len(logged), 1)
        self.assertIn("pip install 'extenbot[speech]'", logged[0])
        self.assertIn("faster_whisper", logged[0])


class FakeReactor(Clock):
    """Counts the processes started."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[list[str]] = []
        self.written: list[bytes] = []
        self.killed = 0

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], env: dict[str, str]) -> None:
        self.commands.append(args)
        self.environment = env
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def signalProcess(self, name: str) -> None:
        self.killed += 1


class Process(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.patch(voice, "find_spec", lambda name: object())
        self.speech = SpeechProcess(self.reactor)

    def heads(self) -> list[dict[str, Any]]:
        return [head for head, _body in Unpacker().received(b"".join(self.reactor.written))]

    def test_one_for_all(self) -> None:
        """It is started once, offline, and answers go to who asked."""
        first = self.speech.hear(b"\xff" * 800, PCMU)
        second = self.speech.hear(b"\xff" * 800, PCMU)
        self.assertEqual(len(self.reactor.commands), 1)
        self.assertEqual(self.reactor.environment["HF_HUB_OFFLINE"], "1")
        keys = [head["key"] for head in self.heads()]
        answer = pack({"is": "done", "key": keys[1], "text": "two"}) + pack(
            {"is": "done", "key": keys[0], "text": "one"}
        )
        self.speech.outReceived(answer[:20])
        self.speech.outReceived(answer[20:])
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), ("one", "two"))

    def test_dies(self) -> None:
        """When it dies, who waits is told, and it is started again; later each time, and given up after three."""
        waiting = self.speech.hear(b"", PCMU)
        for wait, started in ((1, 2), (2, 3)):
            self.speech.processEnded(Failure(ProcessTerminated(1)))
            self.assertEqual(len(self.reactor.commands), started - 1)
            self.reactor.advance(wait)
            self.assertEqual(len(self.reactor.commands), started)
        self.failureResultOf(waiting, BackendLost)
        self.speech.processEnded(Failure(ProcessTerminated(1)))
        self.assertFalse(self.speech.usable)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.failureResultOf(self.speech.hear(b"", PCMU), BackendLost)

    def test_unnoticed_death(self) -> None:
        """A process that dies is looked after though nobody tells us (uvloop keeps SIGCHLD to itself)."""
        looked: list[int] = []
        self.patch(voice, "reapAllProcesses", lambda: looked.append(1))
        self.speech.start()
        self.speech.outConnectionLost()
        self.reactor.advance(voice.REAP)
        self.assertEqual(len(looked), 2)
        self.speech.processEnded(Failure(ProcessTerminated(1)))
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)  # the new start

    def test_cancel(self) -> None:
        """Who does not want to hear the rest says so to the process, and gets no more."""
        pieces: list[bytes] = []
        speaking = self.speech.say("Hello", PCMU, pieces.append)
        key = self.heads()[-1]["key"]
        self.speech.outReceived(pack({"is": "piece", "key": key}, b"abc"))
        speaking.cancel()
        speaking.addErrback(lambda failure: None)
        self.speech.outReceived(pack({"is": "piece", "key": key}, b"def") + pack({"is": "done", "key": key}))
        self.assertEqual(pieces, [b"abc"])
        self.assertEqual(self.heads()[-1], {"do": "cancel", "key": key})

    def test_stop(self) -> None:
        """It is killed with the service, and stopping waits for that."""
        self.successResultOf(self.speech.stop())
        self.speech = SpeechProcess(self.reactor, Path("w"), None)
        self.patch(voice, "missing", lambda whisper, piper: "")
        self.speech._lacking = ""
        self.speech.start()
        self.assertEqual(self.reactor.commands[-1][3], "--whisper")
        stopping = self.speech.stop()
        self.assertNoResult(stopping)
        self.assertEqual(self.reactor.killed, 1)
        self.speech.processEnded(Failure(ProcessDone(0)))
        self.successResultOf(stopping)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_turns(self) -> None:
        """Turns are told to the session they belong to; a session that is over is forgotten."""
        told: list[Any] = []
        self.speech.start()
        ear = self.speech.ear(lambda at: told.append(("on", at)), lambda at: told.append(("off", at)))
        ear.heard(b"\xff" * 160, PCMU, {"type": "server_vad", "silence_duration_ms": 500, "threshold": 0.5})
        ear.heard(b"\xff" * 160, PCMU, {"type": "server_vad", "silence_duration_ms": 500, "threshold": 0.5})
        self.assertEqual([head["at"] for head in self.heads()], [0, 20])
        key = self.heads()[-1]["ear"]
        self.speech.outReceived(
            pack({"is": "started", "ear": key, "at": 5}) + pack({"is": "stopped", "ear": key, "at": 9})
        )
        self.assertEqual(told, [("on", 5), ("off", 9)])
        ear.close()
        self.speech.outReceived(pack({"is": "started", "ear": key, "at": 15}))
        self.assertEqual(len(told), 2)

    def test_nonsense(self) -> None:
        """Nonsense from the process kills it; the service lives."""
        self.speech.start()
        self.speech.outReceived(b"\xff" * 100)
        self.assertEqual(self.reactor.killed, 1)
