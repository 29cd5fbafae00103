"""What each kind of server is asked for, and what of its answers is believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai import dialects, events, livestart
from extenbot.ai.dialects import Dialect
from extenbot.errors import Invalid
from extenbot.interfaces import Line, Manner, VoiceOrder
from tests.ai import liveworld
from tests.ai.world import World, check, order

GOLDEN = Path(__file__).parent / "golden"
RICH = Manner(
    turn_detection="semantic_vad",
    vad_threshold=0.6,
    vad_padding=200,
    vad_silence=700,
    vad_eagerness="low",
    barge_in="confirmed",
    noise_reduction="near_field",
    transcription_model="whisper-large",
    transcription_language="sk",
    speed=1.1,
    reasoning="low",
    parallel_tools="no",
    max_output_tokens=2000,
)
ADDED = {
    "openai": '{"truncation": "auto", "audio": {"input": {"transcription": {"prompt": "rooms"}}}, /* ours */}',
    "xai": '{"resumption": {"enabled": true}, "turn_detection": {"idle_timeout_ms": 15000}}',
    "qwen": '{"enable_search": true}',
}
ASKED = {
    "instructions": "You are Eva.\n\nSay exactly: …",
    "tool_choice": "none",
    "output_modalities": ["audio"],
    "metadata": {"client_event_id": "c2"},
}
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]}


def rich(name: str, **changes: Any) -> VoiceOrder:
    """A call of a bot with everything set."""
    manner = replace(RICH, dialect=name, extra=ADDED.get(name, ""), **changes)
    return replace(order(manner=manner, model="m", voice="eva"), format="audio/pcma")


def of(name: str) -> Dialect:
    return dialects.of(rich(name), "wss://voice.example/")


class Golden(SynchronousTestCase):
    def test_messages(self) -> None:
        """Each server is asked for the same call in its own form, down to the last key."""
        for name in dialects.DIALECTS:
            made: dict[str, Any]
            if name == dialects.LIVE:
                made = {
                    "session": livestart.settings(rich(name), (Line("bot", "Hello!", 0.0), Line("caller", "Hi.", 1.0)))
                }
            else:
                dialect = of(name)
                self.assertEqual(dialect.name, name)
                made = {
                    "session": dialect.session(rich(name)),
                    "response": dialect.response(ASKED),
                    "item": dialect.item(SAID),
                }
            golden = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
            self.assertEqual(made, golden, name)

    def test_official(self) -> None:
        """What servers of today's form are sent passes the official types."""
        for name in ("openai", "azure", "localai", "huggingface"):
            dialect = of(name)
            check({"type": "session.update", "session": dialect.session(rich(name))})
            check({"type": "response.create", "response": dialect.response(ASKED)})
        liveworld.check({"type": "session.start", "session": livestart.settings(rich(dialects.LIVE))})


class Settings(SynchronousTestCase):
    def session(self, model: str = "gpt-realtime-2.1", **manner: Any) -> Any:
        wanted = order(manner=Manner(**manner), model=model)
        session = dialects.of(wanted, "wss://api.openai.com/v1/realtime").session(wanted)
        check({"type": "session.update", "session": session})
        return session

    def test_plain(self) -> None:
        """A bot about whose manner nothing was said gets the phone defaults, and no key more than that."""
        self.assertEqual(
            self.session()["audio"]["input"],
            {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "gpt-transcribe"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
        )
        self.assertEqual(
            set(self.session()), {"type", "output_modalities", "audio", "instructions", "tools", "tool_choice"}
        )

    def test_barge_in(self) -> None:
        """The service interrupts by itself only where any sound shall do that, and answers unless we are to confirm."""
        for barge_in, interrupts in (("immediate", True), ("confirmed", False), ("off", False)):
            for kind in ("server_vad", "semantic_vad"):
                detection = self.session(barge_in=barge_in, turn_detection=kind)["audio"]["input"]["turn_detection"]
                self.assertEqual((detection["type"], detection["interrupt_response"]), (kind, interrupts))
                self.assertEqual(detection["create_response"], barge_in != "confirmed")

    def test_models(self) -> None:
        """Reasoning and parallel functions are asked of models that take them, of unknown ones, never of old ones."""
        for model, taken in (
            ("gpt-realtime-2.1", True),
            ("gpt-realtime-2", True),
            ("gpt-realtime-7", True),
            ("deployment", True),
            ("gpt-realtime", False),
            ("gpt-realtime-1.5", False),
            ("gpt-realtime-mini-2025-12-15", False),
            ("gpt-realtime-2025-08-28", False),
        ):
            session = self.session(
                model, reasoning="low", parallel_tools="yes", extra='{"reasoning": {"effort": "high"}}'
            )
            self.assertEqual(("reasoning" in session, "parallel_tool_calls" in session), (taken, taken), model)
        self.assertEqual(session.get("reasoning"), None)
        self.assertEqual(self.session(extra='{"reasoning": {"effort": "high"}}')["reasoning"], {"effort": "high"})

    def test_turn_detection_that_does_not_go_together(self) -> None:
        """Who adds a threshold to semantic turn detection, which has none, is served without it."""
        extra = '{"audio": {"input": {"turn_detection": {"threshold": 0.9, "eagerness": "high"}}}}'
        for kind, key, other in (("server_vad", "threshold", "eagerness"), ("semantic_vad", "eagerness", "threshold")):
            detection = self.session(turn_detection=kind, extra=extra)["audio"]["input"]["turn_detection"]
            self.assertIn(detection[key], (0.9, "high"))
            self.assertNotIn(other, detection)

    def test_custom_voice(self) -> None:
        """A voice of one's own is named by its id."""
        wanted = order(voice="voice_1")
        session = dialects.of(wanted, "").session(wanted)
        self.assertEqual(session["audio"]["output"]["voice"], {"id": "voice_1"})


class Extra(SynchronousTestCase):
    def refusal(self, text: str, dialect: str = "openai") -> str:
        with self.assertRaises(Invalid) as caught:
            dialects.check_extra(text, dialect)
        self.assertEqual(list(caught.exception.problems), ["extra"])
        return str(caught.exception.problems["extra"])

    def test_accepted(self) -> None:
        """What the session accepts may be added, with comments and trailing commas."""
        for text in (
            "",
            "  \n",
            "{}",
            "{'truncation': {type: 'retention_ratio', retention_ratio: 0.8, token_limits: {post_instructions: 8000}},}",
            '{"audio": {"input": {"noise_reduction": null, "turn_detection": {"idle_timeout_ms": 15000}}}}',
            '{"audio": {"output": {"voice": {"id": "voice_1"}, "speed": 1.2}}, "max_output_tokens": "inf"}',
            '{"tracing": {"workflow_name": "x"}, "include": ["item.input_audio_transcription.logprobs"]}',
        ):
            for name in ("openai", "azure", ""):
                dialects.check_extra(text, name)

    def test_accepted_by_the_service(self) -> None:
        """Whatever may be added passes the official types."""
        for text in (
            '{"truncation": {"type": "retention_ratio", "retention_ratio": 0.8}, "tracing": "auto"}',
            '{"audio": {"input": {"transcription": {"keywords": ["a"], "languages": ["sk"], "delay": "low"}}}}',
            '{"audio": {"input": {"turn_detection": {"idle_timeout_ms": 5000}}}, "parallel_tool_calls": true}',
            '{"audio": {"input": {"noise_reduction": {"type": "far_field"}}}}',
            '{"include": ["item.input_audio_transcription.logprobs"], "tool_choice": "required"}',
        ):
            wanted = order(manner=Manner(extra=text))
            check({"type": "session.update", "session": dialects.of(wanted, "").session(wanted)})

    def test_sentences(self) -> None:
        """What it does not accept is refused by name, what is no JSON with its line and column."""
        for text, words in (
            ("[]", "one JSON object"),
            ('{"a": 1', "ends too early, at line 1, column 7"),
            ('{"truncation": \n  auto!}', "line 2, column 3"),
            ('{"temperature": 0.8}', '"temperature" cannot be set here'),
            (
                '{"audio": {"input": {"turn_detection": {"threshold": 7}}}}',
                'turn_detection.threshold" must be at most 1',
            ),
            ('{"max_output_tokens": 0}', '"max_output_tokens" is none of the values'),
            ('{"reasoning": {"effort": "extreme"}}', "must be one of minimal, low"),
            ('{"reasoning": "low"}', '"reasoning" must be an object'),
            ('{"audio": {"output": {"voice": 7}}}', "must be text or an object"),
            ('{"audio": {"input": {"noise_reduction": {"strength": 1}}}}', 'needs "type"'),
        ):
            self.assertIn(words, self.refusal(text))

    def test_what_the_call_stands_on(self) -> None:
        """Nobody can change the codec, the model, the functions, or let the service fall silent."""
        for text in (
            '{"type": "transcription"}',
            '{"model": "other"}',
            '{"tools": []}',
            '{"instructions": ""}',
            '{"output_modalities": ["text"]}',
            '{"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}}',
            '{"audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}}}}',
        ):
            for name in dialects.DIALECTS:
                self.assertIn("cannot be set here", self.refusal(text, name))
        for text in (
            '{"audio": {"input": {"turn_detection": null}}}',
            '{"audio": {"input": {"turn_detection": {"create_response": false}}}}',
            '{"audio": {"input": {"turn_detection": {"interrupt_response": false}}}}',
        ):
            self.refusal(text)
        for text in ('{"input_audio_format": "g711_ulaw"}', '{"output_audio_format": "pcm16"}', '{"modalities": []}'):
            self.refusal(text, "beta")

    def test_other_servers(self) -> None:
        """Of other servers less is known: they get what their owner writes."""
        for name in ("xai", "beta", "qwen", "localai", "huggingface"):
            dialects.check_extra('{"resumption": {"enabled": true}, "temperature": 0.8}', name)

    def test_at_the_call(self) -> None:
        """Settings that cannot be used any more refuse the call with a sentence, before anything is dialled."""
        world = World(order(manner=Manner(extra='{"tools": []}')))
        world.clock.advance(0)
        self.assertEqual((world.dialled, world.listener.told), ([], [("lost", "refused_settings")]))
        (lost,) = world.log.of("session.lost")
        self.assertIn('"tools" cannot be set here', str(lost["words"]))


class Which(SynchronousTestCase):
    def test_found(self) -> None:
        """The server's kind is known by its address, else by the model; who names one means it."""
        for wanted, url, model, name in (
            ("", "wss://api.openai.com/v1/realtime", "gpt-realtime-2.1", "openai"),
            ("", "wss://eu.api.openai.com/v1/realtime", "", "openai"),
            ("", "wss://res.openai.azure.com/openai/v1/realtime", "my-deployment", "azure"),
            ("", "wss://api.x.ai/v1/realtime", "grok-voice-latest", "xai"),
            ("", "wss://gateway.example/", "xai/grok-voice-3.0", "xai"),
            ("", "wss://dashscope-intl.aliyuncs.com/api-ws/v1/realtime", "", "qwen"),
            ("", "wss://dashscope.aliyuncs.com/api-ws/v1/realtime", "", "qwen"),
            ("", "wss://api.stepfun.com/v1/realtime", "stepaudio-3-realtime-preview", "beta"),
            ("", "wss://open.bigmodel.cn/api/paas/v4/realtime", "glm", "beta"),
            ("", "ws://127.0.0.1:8000/v1/realtime", "", "openai"),
            ("beta", "ws://127.0.0.1:8000/v1/realtime", "", "beta"),
            ("localai", "wss://api.x.ai/v1/realtime", "", "localai"),
            ("no such", "wss://[", "", "openai"),
        ):
            one = order(model=model, manner=Manner(dialect=wanted))
            self.assertEqual(dialects.of(one, url).name, name, url)
            self.assertEqual(dialects.name_of(wanted, url, model), name)

    def test_addresses(self) -> None:
        """Where a bot names no model the server's usual one is asked for, or its own choice is left to it."""
        for name, url in (
            ("openai", "wss://h/?model=gpt-realtime-2.1"),
            ("xai", "wss://h/?model=grok-voice-latest"),
            ("localai", "wss://h/"),
        ):
            self.assertEqual(of(name).address("wss://h/", ""), url)
        self.assertEqual(of("beta").address("wss://h/?language=sk", "m"), "wss://h/?language=sk&model=m")

    def test_keys(self) -> None:
        """Azure takes keys in a header of its own and Entra's tokens as others do; only OpenAI hears who calls."""
        caller = "OpenAI-Safety-Identifier"
        for name, token, found in (
            ("openai", "sk-1", {"Authorization", caller}),
            ("azure", "abc", {"api-key", caller}),
            ("azure", "eyJabc", {"Authorization", caller}),
            ("azure", "", {caller}),
            ("xai", "xai-1", {"Authorization"}),
            ("beta", "", set()),
        ):
            made = of(name).headers(order(token=token))
            self.assertEqual(set(made), found)
            self.assertEqual(made.get("api-key", "abc"), "abc")


class Confirmed(SynchronousTestCase):
    def test_formats(self) -> None:
        """A session is only talked into when the server does not say another codec than the one it was asked for."""
        law = {"audio": {"input": {"format": {"type": "audio/pcma"}}, "output": {"format": {"type": "audio/pcma"}}}}
        pcm24: dict[str, Any] = {"type": "audio/pcm", "rate": 24000}
        pcm = {"audio": {"input": {"format": pcm24}, "output": {"format": pcm24}}}
        flat = {"input_audio_format": "pcm16", "output_audio_format": "pcm16"}
        for session, agreed in (
            (law, {"openai", "azure", "xai"}),
            (pcm, {"beta", "localai", "huggingface"}),
            (flat, {"beta", "qwen", "localai", "huggingface"}),
            ({"input_audio_format": "pcm", "output_audio_format": "pcm"}, {"beta", "qwen", "localai", "huggingface"}),
            ({"input_audio_format": "g711_alaw", "output_audio_format": "g711_alaw"}, {"openai", "azure", "xai"}),
            ({"input_audio_format": "pcm16", "output_audio_format": "g711_ulaw"}, set()),
            ({"audio": {"input": {"format": pcm24}, "output": {"format": {"type": "audio/pcm", "rate": 8000}}}}, set()),
            ({}, {"beta", "qwen", "localai", "huggingface"}),
            ({"audio": {"input": {"format": "pcm16"}, "output": 7}}, {"beta", "qwen", "localai", "huggingface"}),
        ):
            found = {
                name for name in dialects.DIALECTS if name != "gpt-live" and of(name).confirms(rich(name), session)
            }
            self.assertEqual(found, agreed, session)

    def test_names(self) -> None:
        """Events of the beta are read under their names of today."""
        for old, new in (
            ("response.audio.delta", "response.output_audio.delta"),
            ("response.audio_transcript.done", "response.output_audio_transcript.done"),
            ("response.text.delta", "response.output_text.delta"),
            ("conversation.item.created", "conversation.item.added"),
            ("response.done", "response.done"),
        ):
            self.assertEqual(events.read(json.dumps({"type": old}).encode())["type"], new)


class Presets(SynchronousTestCase):
    def test_forms(self) -> None:
        """What forms offer is there, described, and the first of each is what bots get that name none."""
        default = dialects.of(order(), "")
        self.assertEqual(next(iter(dialects.MODELS)), default.model)
        self.assertEqual((dialects.VOICES[0], dialects.TRANSCRIBERS[0]), (default.voice, default.transcriber))
        self.assertTrue(all(dialects.DIALECTS.values()) and all(dialects.MODELS.values()))
