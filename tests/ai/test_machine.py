"""The machine of a conversation as a whole: every input in every state, and servers that do anything at all."""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai import events
from extenbot.errors import Malformed
from tests.ai.world import World

Step = Callable[[World], object]


def finishing(world: World) -> None:
    world.talk().speaks("u1")
    world.voice.finish()


STATES: dict[str, Step] = {
    "connecting": lambda world: None,
    "configuring": World.configure,
    "ready": World.open,
    "talking": World.talk,
    "finishing": finishing,
    "closed": lambda world: world.voice.finish(),
}

INPUTS: dict[str, Step] = {
    "connected": lambda world: world.voice.connected(),
    "created": lambda world: world.server("session.created", session={}),
    "updated": lambda world: world.updated(),
    "wrong": lambda world: world.updated("audio/pcm", "audio/pcm"),
    "error": lambda world: world.error("odd"),
    "fatal": lambda world: world.error("invalid_api_key"),
    "event": lambda world: world.created("r9"),
    "lost": lambda world: world.voice.lost(False, 1006, ""),
    "greet": lambda world: world.voice.greet(),
    "answered": lambda world: world.voice.answered("k", "o"),
    "heard": lambda world: [world.voice.heard(bytes(160)) for _ in range(2)],
    "time": lambda world: world.clock.advance(60),
    "finish": lambda world: world.voice.finish(),
}

#: what the call is told and the server is sent, for each state and each input not named here: nothing
EXPECTED: dict[tuple[str, str], tuple[list[object], list[str]]] = {
    ("connecting", "created"): ([], ["session.update"]),
    ("connecting", "fatal"): ([("lost", "wrong_key")], []),
    ("connecting", "lost"): ([("lost", "lost")], []),
    ("connecting", "time"): ([("lost", "late")], []),
    ("connecting", "finish"): ([("finished", None)], []),
    ("configuring", "updated"): ([("opened", None)], []),
    ("configuring", "wrong"): ([("lost", "wrong_format")], []),
    ("configuring", "fatal"): ([("lost", "wrong_key")], []),
    ("configuring", "lost"): ([("lost", "lost")], []),
    ("configuring", "time"): ([("lost", "late")], []),
    ("configuring", "finish"): ([("finished", None)], []),
    ("ready", "fatal"): ([("lost", "wrong_key")], []),
    ("ready", "lost"): ([("lost", "lost")], []),
    ("ready", "greet"): ([], ["response.create"]),
    ("ready", "heard"): ([], ["input_audio_buffer.append"]),
    ("ready", "finish"): ([("finished", None)], []),
    ("talking", "fatal"): ([("lost", "wrong_key")], []),
    ("talking", "lost"): ([("lost", "lost")], []),
    ("talking", "heard"): ([], ["input_audio_buffer.append"]),
    ("talking", "finish"): ([("finished", None)], []),
    ("finishing", "lost"): ([("finished", None)], []),
    ("finishing", "time"): ([("finished", None)], []),
}


class Complete(SynchronousTestCase):
    def test_every_input_in_every_state(self) -> None:
        """Whatever happens whenever: the call is told what it must know, the server what it may hear, no more."""
        for state, reach in STATES.items():
            for name, happen in INPUTS.items():
                world = World()
                reach(world)
                world.sent()
                world.listener.told.clear()
                happen(world)
                told, sent = EXPECTED.get((state, name), ([], []))
                self.assertEqual((world.listener.told, world.kinds()), (told, sent), f"{name} in {state}")
                ended = state == "closed" or bool({"lost", "finished"} & {each[0] for each in told})  # type: ignore[index]
                if ended:
                    self.assertEqual(world.clock.getDelayedCalls(), [], f"{name} in {state}")
                    self.assertIsNone(world.playout.on_drained)

    def test_call_that_answers_at_once(self) -> None:
        """A call that reacts within each thing it is told (as a call does) meets no surprise."""
        world = World()
        listener = world.listener
        listener.opened = world.voice.greet  # type: ignore[method-assign]
        listener.asked = lambda tool: world.voice.answered(tool.call_id, "done")  # type: ignore[method-assign]
        listener.leaving = lambda tool: world.voice.finish()  # type: ignore[method-assign]
        world.open()
        world.created("r1")
        world.calls("r1", "k1")
        self.assertEqual(world.kinds(), ["conversation.item.create"])
        world.done("r1")
        self.assertEqual(world.kinds(), ["response.create"])
        world.created("r2")
        world.calls("r2", "k2", name="end_call")
        world.done("r2")
        self.assertEqual(listener.names, ["finished"])
        self.assertEqual(world.clock.getDelayedCalls(), [])


IDS = st.sampled_from(["r1", "r2", "i1", "i2", "u1", "k1", "c1", "c2", "c3", ""])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | IDS
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(IDS, inner, max_size=3), max_leaves=6
)
TEXTS = st.sampled_from(
    ["completed", "failed", "cancelled", "function_call", "message", "end_call", "look_up", "{}", "{"]
)
CODES = st.sampled_from(["rate_limit_exceeded", "server_error", "conversation_already_has_active_response", "x", None])
KINDS = st.sampled_from(
    [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.created",
        "conversation.item.input_audio_transcription.completed",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.failed",
        "response.created",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.delta",
        "response.output_audio_transcript.done",
        "response.output_item.done",
        "response.done",
        "session.created",
        "session.updated",
        "error",
        "what.ever",
    ]
)


def either(*values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what belongs there, sometimes anything."""
    return st.one_of(*values, *values, *values, JSON)


EVENTS = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "response_id": either(IDS),
        "item_id": either(IDS),
        "previous_item_id": either(IDS),
        "content_index": either(st.integers(0, 3)),
        "output_index": either(st.integers(0, 3)),
        "delta": either(st.binary(max_size=900).map(lambda data: b64encode(data).decode())),
        "transcript": either(st.text(max_size=9)),
        "usage": either(st.dictionaries(st.sampled_from(["seconds", "type", "total_tokens"]), JSON)),
        "item": either(
            st.fixed_dictionaries(
                {},
                optional={
                    "id": either(IDS),
                    "type": either(TEXTS),
                    "status": either(TEXTS),
                    "call_id": either(IDS),
                    "name": either(TEXTS),
                    "arguments": either(TEXTS),
                },
            )
        ),
        "response": either(
            st.fixed_dictionaries(
                {},
                optional={
                    "id": either(IDS),
                    "status": either(TEXTS),
                    "output": JSON,
                    "usage": JSON,
                    "metadata": either(st.fixed_dictionaries({"client_event_id": IDS})),
                    "status_details": either(st.fixed_dictionaries({"error": st.fixed_dictionaries({"code": CODES})})),
                },
            )
        ),
        "error": either(
            st.fixed_dictionaries({"code": CODES}, optional={"event_id": IDS, "message": st.text(), "type": TEXTS})
        ),
        "session": JSON,
    },
)

#: between the events: the caller, the playout, the clock and the call go on as they like
MOVES = st.sampled_from(["heard", "play", "drain", "tick", "wait", "answer", "answer late"])


def move(world: World, name: str) -> None:
    if name == "heard":
        world.voice.heard(bytes(160))
    elif name == "play":
        world.playout.play(160)
    elif name == "drain":
        world.playout.play()
    elif name == "tick":
        world.clock.advance(0.125)
    elif name == "wait":
        world.clock.advance(7)
    else:
        world.voice.answered("k1" if name == "answer" else "i1", "result")


class Anything(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.one_of(EVENTS, EVENTS, MOVES), max_size=40), st.booleans(), st.booleans())
    def test_any_server(self, steps: list[Any], talking: bool, broken: bool) -> None:
        """A server in any order and shape raises nothing, makes us send nothing wrong, and the end is the end."""
        world = World()
        if talking:
            world.talk()
        for step in steps:
            if isinstance(step, str):
                move(world, step)
            else:
                world.voice.received(json.dumps(step).encode())
            self.assertIsInstance(world.voice.transcript, tuple)
        if broken:
            world.voice.lost(False, 1006, "")
        else:
            world.voice.finish()
            world.clock.advance(2)
        for last in ("lost", "finished"):
            self.assertNotIn(last, world.listener.names[:-1])
        self.assertIn(world.listener.names[-1], ("lost", "finished"))
        self.assertEqual(world.clock.getDelayedCalls(), [])
        told, sent = len(world.listener.told), len(world.link.sent)
        for step in steps:
            if not isinstance(step, str):
                world.voice.received(json.dumps(step).encode())
            else:
                move(world, step)
        self.assertEqual((len(world.listener.told), len(world.link.sent)), (told, sent))
        self.assertEqual(world.clock.getDelayedCalls(), [])
        json.dumps([world.voice.usage, world.voice.transcript], allow_nan=False).encode()

    @given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_reader(self, data: bytes) -> None:
        """The reader gives an event or `Malformed`, and nothing else."""
        with contextlib.suppress(Malformed):
            self.assertIsInstance(events.read(data)["type"], str)

    @given(EVENTS.map(lambda event: json.dumps(event).encode()), st.integers(0, 400), st.binary(max_size=3))
    def test_mutated(self, data: bytes, at: int, instead: bytes) -> None:
        """A damaged message is read as something or not at all; the conversation goes on."""
        world = World().open()
        world.voice.received(data[:at] + instead + data[at + len(instead) :])
        world.voice.finish()
        world.clock.advance(2)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    @given(st.binary())
    def test_append(self, audio: bytes) -> None:
        """The append event that is joined by hand is the one that `json` would write."""
        wanted = {"type": "input_audio_buffer.append", "audio": b64encode(audio).decode()}
        self.assertEqual(json.loads(events.append(audio)), wanted)
