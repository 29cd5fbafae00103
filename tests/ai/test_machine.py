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


def mending(world: World) -> None:
    world.talk().drop(False, 1006, "")


STATES: dict[str, Step] = {
    "connecting": lambda world: None,
    "configuring": World.configure,
    "ready": World.open,
    "talking": World.talk,
    "mending": mending,
    "finishing": finishing,
    "closed": lambda world: world.voice.finish(),
}

INPUTS: dict[str, Step] = {
    "connected": lambda world: world.connected(),
    "created": lambda world: world.server("session.created", session={}),
    "updated": lambda world: world.updated(),
    "wrong": lambda world: world.updated("audio/pcm", "audio/pcm"),
    "error": lambda world: world.error("odd"),
    "fatal": lambda world: world.error("invalid_api_key"),
    "event": lambda world: world.created("r9"),
    "lost": lambda world: world.drop(False, 1006, ""),
    "prepare": lambda world: world.voice.prepare(),
    "greet": lambda world: world.voice.greet(),
    "told": lambda world: world.voice.told("[Something.]", speak=False),
    "loud": lambda world: world.voice.loud(True),
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
    ("ready", "prepare"): ([], ["response.create"]),
    ("ready", "told"): ([], ["conversation.item.create"]),
    ("talking", "told"): ([], ["conversation.item.create"]),
    ("talking", "heard"): ([], ["input_audio_buffer.append"]),
    ("talking", "finish"): ([("finished", None)], []),
    ("mending", "time"): ([("lost", "lost")], []),
    ("mending", "finish"): ([("finished", None)], []),
    ("finishing", "fatal"): ([("finished", None)], []),
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
        world.clock.advance(1)
        self.assertEqual(listener.names, ["finished"])
        self.assertEqual(world.clock.getDelayedCalls(), [])


RESPONSES = st.sampled_from(["r1", "r2"])
ITEMS = st.sampled_from(["i1", "i2", "u1"])
CALLS = st.sampled_from(["k1", "k2"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | RESPONSES
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ITEMS, inner, max_size=3), max_leaves=6
)


def mostly(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What belongs there, and sometimes anything."""
    return st.sampled_from(range(40)).flatmap(lambda n: JSON if n == 33 else value)


def event(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An event of this kind whose fields are mostly right."""
    return st.fixed_dictionaries({"type": st.just(kind), **{key: mostly(value) for key, value in fields.items()}})


def section(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({key: mostly(value) for key, value in fields.items()})


TAG = section(client_event_id=st.sampled_from(["c2", "c3", "c4"])) | st.none()
CODES = st.sampled_from(["rate_limit_exceeded", "server_error", "conversation_already_has_active_response", "x", None])
ERROR = section(
    code=CODES, event_id=st.sampled_from(["c2", "c3", "c4"]), message=st.text(max_size=9), type=st.just("x")
)
AUDIO = st.binary(max_size=900).map(lambda data: b64encode(data).decode())
CALL = section(
    type=st.just("function_call"),
    status=st.just("completed"),
    call_id=CALLS,
    name=st.sampled_from(["look_up", "end_call", "transfer_call"]),
    arguments=st.sampled_from(["{}", '{"a":1}', "{", ""]),
)
RESPONSE = section(
    id=RESPONSES,
    status=st.sampled_from(["completed", "completed", "failed", "cancelled"]),
    output=st.lists(section(type=st.sampled_from(["message", "function_call"])), max_size=2),
    usage=section(input_tokens=st.integers(), input_token_details=section(text_tokens=st.integers())),
    metadata=TAG,
    status_details=section(error=ERROR),
)
TRANSCRIPTION = "conversation.item.input_audio_transcription"
EVENTS = st.one_of(
    event("input_audio_buffer.speech_started", item_id=ITEMS),
    event("input_audio_buffer.speech_stopped", item_id=ITEMS),
    event("input_audio_buffer.committed", item_id=ITEMS, previous_item_id=ITEMS | st.none()),
    event("conversation.item.added", item=section(id=ITEMS), previous_item_id=ITEMS | st.none()),
    event("conversation.item.created", item=section(id=ITEMS)),
    event(
        f"{TRANSCRIPTION}.completed", item_id=ITEMS, transcript=st.text(max_size=9), usage=section(total_tokens=LEAVES)
    ),
    event(f"{TRANSCRIPTION}.completed", item_id=ITEMS, transcript=st.text(max_size=9), usage=section(seconds=LEAVES)),
    event(f"{TRANSCRIPTION}.delta", item_id=ITEMS, delta=st.text(max_size=9), content_index=st.integers(0, 1)),
    event(f"{TRANSCRIPTION}.failed", item_id=ITEMS, error=ERROR),
    event("response.created", response=section(id=RESPONSES, metadata=TAG)),
    event(
        "response.output_audio.delta",
        response_id=RESPONSES,
        item_id=ITEMS,
        delta=AUDIO,
        content_index=st.integers(0, 1),
    ),
    event("response.output_audio.done", response_id=RESPONSES, item_id=ITEMS),
    event("response.output_audio_transcript.delta", item_id=ITEMS, delta=st.text(max_size=9)),
    event("response.output_audio_transcript.done", item_id=ITEMS, transcript=st.text(max_size=9)),
    event("response.output_item.done", response_id=RESPONSES, output_index=st.integers(0, 2), item=CALL),
    event("response.done", response=RESPONSE),
    event("error", error=ERROR),
    event("error", error=section(code=st.sampled_from(["insufficient_quota", "x", "y", "z"]))),
    event("session.created", session=JSON),
    event("session.updated", session=JSON),
    event("what.ever", response=JSON),
)

#: between the events: the caller, the playout, the clock and the call go on as they like
MOVES = st.sampled_from(
    ["heard", "play", "drain", "tick", "wait", "answer", "answer quietly", "keys", "loud", "quiet", "drop", "reopen"]
)
STEPS = st.sampled_from([MOVES, EVENTS, EVENTS]).flatmap(lambda steps: steps)


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
    elif name == "keys":
        world.voice.told("[The caller pressed 1#]", by_caller=True)
    elif name in ("loud", "quiet"):
        world.voice.loud(name == "loud")
    elif name == "drop":
        world.drop(False, 1006, "")
        world.clock.advance(0)
    elif name == "reopen":
        world.configure()
        world.updated()
    else:
        world.voice.answered("k1" if name == "answer" else "k2", "result", speak=name == "answer")


class Anything(SynchronousTestCase):
    @settings(max_examples=250, deadline=None)
    @given(st.lists(STEPS, min_size=25, max_size=60), st.sampled_from(list(STATES)[1:5]), st.booleans())
    def test_any_server(self, steps: list[Any], state: str, broken: bool) -> None:
        """A server in any order and shape raises nothing, makes us send nothing wrong, and the end is the end."""
        world = World()
        STATES[state](world)
        for step in steps:
            if isinstance(step, str):
                move(world, step)
            else:
                world.received(json.dumps(step).encode())
            self.assertIsInstance(world.voice.transcript, tuple)
        if broken:
            for _ in range(6):  # another session is tried for, a few times
                world.drop(False, 1006, "")
                world.clock.advance(2)
            world.clock.advance(10)
        if world.listener.names[-1:] not in (["lost"], ["finished"]):
            world.voice.finish()
            world.clock.advance(2)
        for last in ("lost", "finished"):
            self.assertNotIn(last, world.listener.names[:-1])
        self.assertIn(world.listener.names[-1], ("lost", "finished"))
        self.assertEqual(world.clock.getDelayedCalls(), [])
        told, sent = len(world.listener.told), len(world.link.sent)
        for step in steps:
            if not isinstance(step, str):
                world.received(json.dumps(step).encode())
            else:
                move(world, step)
        self.assertEqual((len(world.listener.told), len(world.link.sent)), (told, sent))
        self.assertEqual(world.clock.getDelayedCalls(), [])
        json.dumps([world.voice.usage, world.voice.transcript], allow_nan=False).encode()

    @given(st.binary() | (EVENTS | JSON).map(lambda value: json.dumps(value).encode()))
    def test_reader(self, data: bytes) -> None:
        """The reader gives an event or `Malformed`, and nothing else."""
        with contextlib.suppress(Malformed):
            self.assertIsInstance(events.read(data)["type"], str)

    @given(EVENTS.map(lambda event: json.dumps(event).encode()), st.integers(0, 400), st.binary(max_size=3))
    def test_mutated(self, data: bytes, at: int, instead: bytes) -> None:
        """A damaged message is read as something or not at all; the conversation goes on."""
        world = World().open()
        world.received(data[:at] + instead + data[at + len(instead) :])
        world.voice.finish()
        world.clock.advance(2)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    @given(st.binary())
    def test_append(self, audio: bytes) -> None:
        """The append event that is joined by hand is the one that `json` would write."""
        wanted = {"type": "input_audio_buffer.append", "audio": b64encode(audio).decode()}
        self.assertEqual(json.loads(events.append(audio)), wanted)
