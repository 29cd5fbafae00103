"""Session settings of the owner's own: a JSON object that is merged into those that this program makes.

`SESSION` says what OpenAI's service accepts there, less what the call itself stands on: the formats and modalities,
whose change would be noise or silence, the type and the model, the tools, which the program must be able to run, and
whether the service answers and interrupts by itself. One key that a service does not know and it refuses all settings,
so mistakes are found when they are typed in. Of other services less is known: there only what would break a call is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from extenbot.ai import pasted
from extenbot.errors import BackendLost, Invalid
from extenbot.interfaces import Json


def _object(**properties: Json) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _or_null(schema: Json) -> Json:
    return {**schema, "type": [schema["type"], "null"]}


def _whole(low: int, high: int) -> Json:
    return {"type": "integer", "minimum": low, "maximum": high}


def _number(low: float, high: float) -> Json:
    return {"type": "number", "minimum": low, "maximum": high}


def _one_of(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


_TEXT: Json = {"type": "string"}
_TEXTS: Json = {"type": "array", "items": _TEXT}
_EFFORTS = ("minimal", "low", "medium", "high", "xhigh")

#: JSON Schema (draft 2020-12) of what may be added to a GA session
SESSION: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(
        audio=_object(
            input=_object(
                noise_reduction=_or_null(
                    {
                        **_object(type=_one_of("near_field", "far_field"), strength={"type": "number", "minimum": 0}),
                        "required": ["type"],
                    }
                ),
                transcription=_or_null(
                    _object(
                        model=_TEXT,
                        language=_TEXT,
                        languages=_TEXTS,
                        keywords=_TEXTS,
                        prompt=_TEXT,
                        delay=_one_of(*_EFFORTS),
                    )
                ),
                turn_detection=_object(
                    type=_one_of("server_vad", "semantic_vad"),
                    threshold=_number(0, 1),
                    prefix_padding_ms=_whole(0, 5000),
                    silence_duration_ms=_whole(0, 10000),
                    idle_timeout_ms=_or_null(_whole(5000, 30000)),
                    eagerness=_one_of("low", "medium", "high", "auto"),
                ),
            ),
            output=_object(
                voice={
                    "type": ["string", "object"],
                    "properties": {"id": _TEXT},
                    "required": ["id"],
                    "additionalProperties": False,
                },
                speed=_number(0.25, 1.5),
            ),
        ),
        tool_choice=_one_of("auto", "none", "required"),
        parallel_tool_calls={"type": "boolean"},
        reasoning=_object(effort=_one_of(*_EFFORTS)),
        max_output_tokens={"anyOf": [_whole(1, 4096), {"const": "inf"}]},
        truncation={
            "anyOf": [
                _one_of("auto", "disabled"),
                {
                    **_object(
                        type={"const": "retention_ratio"},
                        retention_ratio=_number(0, 1),
                        token_limits=_object(post_instructions={"type": "integer", "minimum": 0}),
                    ),
                    "required": ["type", "retention_ratio"],
                },
            ]
        },
        tracing={
            "anyOf": [
                {"type": "null"},
                {"const": "auto"},
                _object(workflow_name=_TEXT, group_id=_TEXT, metadata={"type": "object"}),
            ]
        },
        include={"type": "array", "items": _one_of("item.input_audio_transcription.logprobs")},
    ),
}

#: what no service may be told here
_OURS = frozenset({"type", "model", "modalities", "output_modalities", "instructions"})
_NOWHERE = frozenset({"format", "input_audio_format", "output_audio_format", "tools"})


@lru_cache(maxsize=256)
def read(text: str, strict: bool) -> Json:
    """What the owner wants added, {} for an empty text. `Invalid` {"extra": …} when it cannot be; `strict`: of OpenAI.

    The object is shared between calls: it is not to be changed.
    """
    if not text.strip():
        return {}
    found = pasted.read(text, "extra")
    if not isinstance(found, dict):
        raise Invalid({"extra": 'It must be one JSON object, such as {"truncation": "auto"}.'})
    for problem in _problems(found) if strict else _breaking(found):
        raise Invalid({"extra": problem})
    return found


def refused(problem: Invalid) -> BackendLost:
    """Why there is no session for this bot."""
    words = f"The added session settings of this bot cannot be used: {problem.problems['extra']}"
    return BackendLost("refused_settings", words)


def merged(base: Json, addition: Json) -> dict[str, Any]:
    """`base` with `addition` laid over it, objects merged; neither is changed."""
    result = dict(base)
    for key, value in addition.items():
        inner = result.get(key)
        both = isinstance(value, dict) and isinstance(inner, Mapping)
        result[key] = merged(inner, value) if both and isinstance(inner, Mapping) else value
    return result


def _breaking(found: Json, path: str = "") -> Iterator[str]:
    """Sentences about what would break the call."""
    for key, value in found.items():
        name = f"{path}{key}"
        if key in _NOWHERE or (not path and key in _OURS):
            yield _not_here(name)
        elif isinstance(value, dict):
            yield from _breaking(value, f"{name}.")


def _problems(found: Json) -> Iterator[str]:
    """Sentences about what the session does not accept, in the order of the document."""
    for error in _validator().iter_errors(found):
        name, wanted = ".".join(map(str, error.absolute_path)), error.validator_value
        match error.validator:
            case "additionalProperties":
                known = error.schema["properties"]
                key = next(key for key in error.instance if key not in known)
                yield _not_here(f"{name}.{key}" if name else key)
            case "required":
                missing = next(key for key in wanted if key not in error.instance)
                yield f'"{name}" needs "{missing}".'
            case "type":
                kinds = [wanted] if isinstance(wanted, str) else wanted
                yield f'"{name}" must be {" or ".join(_KINDS[kind] for kind in kinds)}.'
            case "enum":
                yield f'"{name}" must be one of {", ".join(wanted)}.'
            case "minimum" | "maximum":
                words = "at least" if error.validator == "minimum" else "at most"
                yield f'"{name}" must be {words} {wanted}.'
            case _:
                yield f'"{name}" is none of the values that the voice service takes there.'


_KINDS = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def _not_here(name: str) -> str:
    return f'"{name}" cannot be set here: the voice service has no such setting, or the bot sets it itself.'


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator  # only who adds settings pays for its import

    return Draft202012Validator(SESSION)
