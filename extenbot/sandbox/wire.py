"""What a client may send, checked as strictly as the real service does: one wrong key refuses the whole event.

`check` raises `Wrong` with the code, parameter and sentence of the error event. A schema
is a reader: a function of value and path. `merge` applies a good session.update to the
session in force. Nothing here keeps state.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

Reader = Callable[[Any, str], None]


class Wrong(Exception):
    """The event is refused."""

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def _kind(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "decimal"}
    return "null" if value is None else names.get(type(value), "object")


def _type(kind: type | tuple[type, ...], words: str) -> Reader:
    def read(value: Any, path: str) -> None:
        wrong_bool = isinstance(value, bool) and kind is not bool
        if wrong_bool or not isinstance(value, kind):
            raise Wrong(
                "invalid_type", f"Invalid type for '{path}': expected {words}, but got {_kind(value)} instead.", path
            )

    return read


text = _type(str, "a string")
flag = _type(bool, "a boolean")
a_dict = _type(dict, "an object")
a_list = _type(list, "an array")
a_number = _type((int, float), "a number")


def anything(_value: Any, _path: str) -> None:
    """Taken as it is."""


def number(low: float, high: float, kind: type | tuple[type, ...] = (int, float)) -> Reader:
    """A number from `low` to `high`."""
    of_kind = _type(kind, "an integer" if kind is int else "a number")

    def read(value: Any, path: str) -> None:
        of_kind(value, path)
        if not low <= value <= high:
            raise Wrong(
                "invalid_value",
                f"Invalid '{path}': must be from {low:g} to {high:g}, but got {value:g} instead.",
                path,
            )

    return read


def whole(low: int, high: int) -> Reader:
    """An integer from `low` to `high`."""
    return number(low, high, int)


def one_of(*values: Any) -> Reader:
    """One of a few values."""
    shown = ", ".join(f"'{value}'" for value in values)

    def read(value: Any, path: str) -> None:
        if isinstance(value, bool) or value not in values:
            raise Wrong("invalid_value", f"Invalid value: {value!r}. Supported values are: {shown}.", path)

    return read


def maybe(read: Reader) -> Reader:
    """Null, or what `read` takes."""
    return lambda value, path: None if value is None else read(value, path)


def either(first: type, read: Reader, otherwise: Reader) -> Reader:
    """`read` for values of type `first`, `otherwise` for the rest."""
    return lambda value, path: read(value, path) if isinstance(value, first) else otherwise(value, path)


def each(read: Reader, most: int = 1000) -> Reader:
    """A list of what `read` takes."""

    def check(value: Any, path: str) -> None:
        a_list(value, path)
        if len(value) > most:
            raise Wrong("array_above_max_length", f"Invalid '{path}': array too long, at most {most}.", path)
        for index, entry in enumerate(value):
            read(entry, f"{path}[{index}]")

    return check


def fields(*required: str, **known: Reader) -> Reader:
    """An object with these keys and no other."""

    def read(value: Any, path: str) -> None:
        a_dict(value, path)
        for key in value:
            if key not in known:
                name = f"{path}.{key}" if path else key
                raise Wrong("unknown_parameter", f"Unknown parameter: '{name}'.", name)
        for key in required:
            if key not in value:
                name = f"{path}.{key}" if path else key
                raise Wrong("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
        for key, entry in value.items():
            known[key](entry, f"{path}.{key}" if path else key)

    return read


def by(key: str, kinds: Mapping[str, Reader]) -> Reader:
    """An object whose `key` says which of `kinds` it is."""
    name_of = one_of(*kinds)

    def read(value: Any, path: str) -> None:
        a_dict(value, path)
        if key not in value:
            raise Wrong("missing_required_parameter", f"Missing required parameter: '{path}.{key}'.", f"{path}.{key}")
        name_of(value[key], f"{path}.{key}")
        kinds[value[key]](value, path)

    return read


VOICES = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse")

audio_format = by(
    "type",
    {
        "audio/pcmu": fields(type=text),
        "audio/pcma": fields(type=text),
        "audio/pcm": fields("rate", type=text, rate=one_of(24000)),
    },
)
voice = either(str, one_of(*VOICES), fields("id", id=text))
turn_detection = by(
    "type",
    {
        "server_vad": fields(
            type=text,
            threshold=number(0, 1),
            prefix_padding_ms=whole(0, 5000),
            silence_duration_ms=whole(0, 10000),
            create_response=flag,
            interrupt_response=flag,
            idle_timeout_ms=maybe(whole(5000, 30000)),
        ),
        "semantic_vad": fields(
            type=text, eagerness=one_of("low", "medium", "high", "auto"), create_response=flag, interrupt_response=flag
        ),
    },
)
transcription = fields(
    model=text,
    language=text,
    languages=each(text),
    keywords=each(text),
    prompt=text,
    delay=one_of("minimal", "low", "medium", "high", "xhigh"),
)
tool = by(
    "type",
    {
        "function": fields("name", type=text, name=text, description=text, parameters=a_dict),
        "mcp": fields(
            "server_label",
            type=text,
            server_label=text,
            server_url=text,
            connector_id=text,
            tunnel_id=text,
            authorization=text,
            headers=maybe(a_dict),
            server_description=text,
            allowed_tools=anything,
            require_approval=anything,
            defer_loading=flag,
            allowed_callers=anything,
        ),
    },
)
tool_choice = either(
    str,
    one_of("none", "auto", "required"),
    by(
        "type",
        {
            "function": fields("name", type=text, name=text),
            "mcp": fields("server_label", type=text, server_label=text, name=text),
        },
    ),
)
modalities = one_of(["text"], ["audio"])
max_tokens = either(str, one_of("inf"), whole(1, 4096))
reasoning = fields(effort=one_of("minimal", "low", "medium", "high", "xhigh"))
session = fields(
    "type",
    type=one_of("realtime"),
    model=text,
    output_modalities=modalities,
    instructions=text,
    audio=fields(
        input=fields(
            format=audio_format,
            noise_reduction=maybe(fields("type", type=one_of("near_field", "far_field"), strength=a_number)),
            transcription=maybe(transcription),
            turn_detection=maybe(turn_detection),
        ),
        output=fields(format=audio_format, voice=voice, speed=number(0.25, 1.5)),
    ),
    tools=each(tool, 128),
    tool_choice=tool_choice,
    parallel_tool_calls=flag,
    reasoning=maybe(reasoning),
    max_output_tokens=max_tokens,
    truncation=either(
        str,
        one_of("auto", "disabled"),
        fields(
            "type",
            type=one_of("retention_ratio"),
            retention_ratio=number(0, 1),
            token_limits=fields(post_instructions=whole(0, 1 << 30)),
        ),
    ),
    tracing=maybe(either(str, one_of("auto"), fields(workflow_name=text, group_id=text, metadata=a_dict))),
    prompt=maybe(fields("id", id=text, version=maybe(text), variables=maybe(a_dict))),
    include=maybe(each(one_of("item.input_audio_transcription.logprobs"))),
)
_common: dict[str, Reader] = {
    "type": text,
    "id": text,
    "object": one_of("realtime.item"),
    "status": one_of("completed", "incomplete", "in_progress"),
}
_content: dict[str, Reader] = {
    "system": by("type", {"input_text": fields("text", type=text, text=text)}),
    "user": by(
        "type",
        {
            "input_text": fields("text", type=text, text=text),
            "input_audio": fields("audio", type=text, audio=text, transcript=maybe(text)),
            "input_image": fields("image_url", type=text, image_url=text, detail=text),
        },
    ),
    "assistant": by(
        "type",
        {
            "output_text": fields("text", type=text, text=text),
            "output_audio": fields(type=text, audio=text, transcript=text),
        },
    ),
}
item = by(
    "type",
    {
        "message": by(
            "role",
            {
                role: fields("content", **_common, role=text, content=each(read), phase=text)
                for role, read in _content.items()
            },
        ),
        "function_call": fields("name", "arguments", **_common, name=text, arguments=text, call_id=text),
        "function_call_output": fields("call_id", "output", **_common, call_id=text, output=text),
        "mcp_approval_response": fields(
            "approval_request_id", "approve", **_common, approval_request_id=text, approve=flag, reason=maybe(text)
        ),
    },
)


def _metadata(value: Any, path: str) -> None:
    a_dict(value, path)
    if len(value) > 16 or any(
        not isinstance(entry, str) or len(key) > 64 or len(entry) > 512 for key, entry in value.items()
    ):
        raise Wrong(
            "invalid_value", f"Invalid '{path}': at most 16 pairs of strings, keys to 64 and values to 512.", path
        )


def _item_or_reference(value: Any, path: str) -> None:
    if isinstance(value, dict) and value.get("type") == "item_reference":
        fields("id", type=text, id=text)(value, path)
    else:
        item(value, path)


response = fields(
    instructions=text,
    output_modalities=modalities,
    audio=fields(output=fields(format=audio_format, voice=voice)),
    tools=each(tool, 128),
    tool_choice=tool_choice,
    parallel_tool_calls=flag,
    reasoning=maybe(reasoning),
    max_output_tokens=max_tokens,
    conversation=one_of("auto", "none"),
    input=each(_item_or_reference),
    metadata=maybe(_metadata),
    prompt=maybe(a_dict),
)
_event: dict[str, Reader] = {"type": text, "event_id": text}
EVENTS: Mapping[str, Reader] = {
    "session.update": fields("session", **_event, session=session),
    "input_audio_buffer.append": fields("audio", **_event, audio=text),
    "input_audio_buffer.commit": fields(**_event),
    "input_audio_buffer.clear": fields(**_event),
    "conversation.item.create": fields("item", **_event, item=item, previous_item_id=maybe(text)),
    "conversation.item.delete": fields("item_id", **_event, item_id=text),
    "conversation.item.retrieve": fields("item_id", **_event, item_id=text),
    "conversation.item.truncate": fields(
        "item_id",
        "content_index",
        "audio_end_ms",
        **_event,
        item_id=text,
        content_index=whole(0, 1000),
        audio_end_ms=whole(0, 1 << 40),
    ),
    "response.create": fields(**_event, response=maybe(response)),
    "response.cancel": fields(**_event, response_id=text),
}


def check(event: dict[str, Any]) -> None:
    """Raise `Wrong` unless `event` is one the service takes."""
    kind = event.get("type")
    if kind is None:
        raise Wrong("missing_required_parameter", "Missing required parameter: 'type'.", "type")
    read = EVENTS.get(kind) if isinstance(kind, str) else None
    if read is None:
        shown = ", ".join(f"'{name}'" for name in EVENTS)
        raise Wrong("invalid_value", f"Invalid value: {kind!r}. Supported values are: {shown}.", "type")
    read(event, "")


DETECTION: Mapping[str, Mapping[str, Any]] = {
    "server_vad": {
        "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
        "idle_timeout_ms": None, "create_response": True, "interrupt_response": True,
    },
    "semantic_vad": {
        "type": "semantic_vad", "eagerness": "auto", "create_response": True, "interrupt_response": True,
    },
}  # fmt: skip
_PCM = {"type": "audio/pcm", "rate": 24000}


def fresh(session_id: str, model: str, expires_at: int) -> dict[str, Any]:
    """The session as it is before the first update."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "expires_at": expires_at,
        "output_modalities": ["audio"],
        "instructions": "You are a helpful voice assistant on the telephone.",
        "audio": {
            "input": {
                "format": dict(_PCM),
                "noise_reduction": None,
                "transcription": None,
                "turn_detection": dict(DETECTION["server_vad"]),
            },
            "output": {"format": dict(_PCM), "voice": "marin", "speed": 1.0},
        },
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "tracing": None,
        "prompt": None,
        "include": None,
    }


_OLD = re.compile(r"gpt-realtime(-1\.5|-mini.*|-\d{4}-.*)?|gpt-4o.*")


def merge(current: Mapping[str, Any], update: Mapping[str, Any], *, spoke: bool) -> dict[str, Any]:
    """The session after a checked `update`; only what is present changes. `spoke`: audio has been sent already."""
    if update.get("model", current["model"]) != current["model"]:
        raise Wrong("invalid_value", "Cannot update a conversation's model.", "session.model")
    for key in ("reasoning", "parallel_tool_calls"):
        if update.get(key) is not None and _OLD.fullmatch(current["model"]):
            name = f"session.{key}"
            raise Wrong("unknown_parameter", f"Unknown parameter: '{name}'.", name)
    if current["tracing"] is not None and "tracing" in update and update["tracing"] != current["tracing"]:
        raise Wrong("invalid_value", "Cannot update tracing once it is enabled.", "session.tracing")
    merged = copy.deepcopy(dict(current))
    for key, value in update.items():
        if key != "audio":
            merged[key] = copy.deepcopy(value)
    for side, changes in update.get("audio", {}).items():
        merged["audio"][side] |= copy.deepcopy(changes)
    detection = merged["audio"]["input"]["turn_detection"]
    if detection is not None:
        before = current["audio"]["input"]["turn_detection"]
        base = before if before is not None and before["type"] == detection["type"] else DETECTION[detection["type"]]
        merged["audio"]["input"]["turn_detection"] = dict(base) | detection
    if spoke and merged["audio"]["output"]["voice"] != current["audio"]["output"]["voice"]:
        raise Wrong(
            "cannot_update_voice",
            "Cannot update a conversation's voice if assistant audio is present.",
            "session.audio.output.voice",
        )
    return merged
