"""Sample arguments for a function, made from the JSON schema of its parameters (draft 2020-12).

What the schema shows comes first (`const`, `examples`, `default`, `enum`); the rest is made up by type, format, bounds
and name. Of several candidates the first that the schema allows is taken, so that a sample is valid where that is
possible at this price; what a schema asks by `not`, `if` or a pattern that fits no usual text may stay unmet.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor, isfinite
from typing import Any

from extenbot.ai.schemas import bounded, validator
from extenbot.interfaces import Json

DEEPEST = 8
"""Levels of objects and lists in a sample; from half of that on, only what is needed is in them."""

MOST = 300
"""Values of one sample, all candidates counted."""

STEPS = 20_000
"""Of all checks of one sample's candidates; after that they count as good."""

LONGEST = 200
"""Characters of a made-up text, and how many items a list gets at most."""

_BY_FORMAT = {
    "date": "2026-05-12",
    "time": "14:30:00Z",
    "date-time": "2026-05-12T14:30:00Z",
    "duration": "PT30M",
    "email": "ada@example.org",
    "idn-email": "ada@example.org",
    "hostname": "example.org",
    "idn-hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uri-reference": "/example",
    "iri": "https://example.org/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
    "regex": "[a-z]+",
    "json-pointer": "/example",
}
_BY_NAME = {  # the first word that is in the name
    "mail": "ada@example.org",
    "phone": "+4930123456",
    "caller": "+4930123456",
    "mobile": "+4930123456",
    "date": "2026-05-12",
    "time": "14:30",
    "day": "Tuesday",
    "name": "Ada Lovelace",
    "city": "Oslo",
    "country": "Norway",
    "street": "Market Street 7",
    "address": "Market Street 7, Oslo",
    "url": "https://example.org/",
    "number": "1234",
    "id": "A-1234",
    "language": "en",
    "currency": "EUR",
}
_BY_PATTERN = (  # tried where a pattern is asked for
    *("a", "A", "1", "ab", "AB", "12", "abc", "ABC", "123", "1234", "12345", "123456", "1234567", "12345678"),
    *("A1", "A12", "A123", "A1234", "A12345", "AB12", "AB123", "AB1234", "A-1", "A-123", "A-1234", "AB-12", "AB-123"),
    *("ABC-1", "ABC-123", "ABC-1234", "ABC-12345", "abc-123", "#123", "#1234", "1-2", "1.5", "1.50", "12.50", "1,5"),
    *("14:30", "14:30:00", "2026-05", "2026-05-12", "12.05.2026", "05/12/2026", "20260512", "2026"),
    *(
        "+4930123456",
        "+49 30 123456",
        "0301234567",
        "555-0123",
        "555-123-4567",
        "(555) 123-4567",
        "10115",
        "12345-6789",
    ),
    *("SW1A 1AA", "ada@example.org", "https://example.org/", "/example", "example.org", "en", "en-US", "EUR", "NO"),
    *("#ff8800", "deadbeef", "yes", "Ada", "Ada Lovelace", "ada_lovelace", "192.0.2.1"),
)
_KEYS_OF_TYPES = (  # what a schema without a type shows of it
    ("object", ("properties", "required", "additionalProperties", "minProperties", "patternProperties")),
    ("array", ("items", "prefixItems", "minItems", "contains", "uniqueItems")),
    ("string", ("minLength", "maxLength", "pattern", "format")),
    ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
)
_STRICTER: Json = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems"), min),
}


def sample(parameters: Json) -> Json:
    """Arguments as a model might choose them; {} when the schema is of nothing else than an object."""
    with bounded(STEPS):
        found = _Sampler(parameters).value(dict(parameters), "", 0)
    return found if isinstance(found, dict) else {}


class _Sampler:
    """Makes the values of one schema."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._check = validator(root)
        self._left = MOST

    def value(self, schema: Any, name: str, depth: int) -> Any:
        """The first candidate that the schema allows, else the first of all."""
        if not isinstance(schema, dict):
            return _text(name)
        self._left -= 1
        whole = self._whole(schema)
        first: list[Any] = []
        for candidate in self._candidates(whole, name, depth):
            if self._allows(schema, candidate):
                return candidate
            first = first or [candidate]
            if self._left <= 0:
                break
        return first[0] if first else None

    def _allows(self, schema: Json, value: Any) -> bool:
        try:
            return bool(self._check.evolve(schema=schema).is_valid(value))
        except Exception:  # noqa: BLE001  a schema that is broken itself, or one that is not here
            return True

    # -- The schema

    def _whole(self, schema: Json) -> dict[str, Any]:
        """With what it refers to and `allOf` in it."""
        whole: dict[str, Any] = {}
        waiting, seen = [schema], 0
        while waiting and seen < DEEPEST * 4:
            part, seen = waiting.pop(0), seen + 1
            whole = _merged(whole, part)
            more = (self._referred(part.get("$ref")), *_list(part.get("allOf")))
            waiting.extend(schema for schema in more if isinstance(schema, dict))
        return whole

    def _referred(self, pointer: Any) -> Any:
        """What a `$ref` inside this schema points to."""
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            return None
        node: Any = self._root
        for raw in filter(None, pointer[1:].split("/")):
            step = raw.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and step.isdecimal() and int(step) < len(node):
                node = node[int(step)]
            elif isinstance(node, dict) and step in node:
                node = node[step]
            else:
                return None
        return node

    # -- Candidates, the best first

    def _candidates(self, schema: Json, name: str, depth: int) -> Iterator[Any]:
        if "const" in schema:
            yield schema["const"]
        yield from _list(schema.get("examples"))
        if "default" in schema:
            yield schema["default"]
        yield from _list(schema.get("enum"))
        if depth < DEEPEST and self._left > 0:
            for choice in ("anyOf", "oneOf"):
                for branch in _list(schema.get(choice)):
                    if isinstance(branch, dict):
                        base = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf", "allOf")}
                        yield self.value(_merged(base, self._whole(branch)), name, depth + 1)
        for kind in _kinds(schema):
            yield from self._of(kind, schema, name, depth)

    def _of(self, kind: str, schema: Json, name: str, depth: int) -> Iterator[Any]:
        if kind == "object":
            yield from self._objects(schema, depth)
        elif kind == "array":
            yield from self._lists(schema, name, depth)
        elif kind == "string":
            yield from _texts(schema, name)
        elif kind in ("integer", "number"):
            yield from _numbers(schema, kind == "integer")
        elif kind == "boolean":
            yield from (True, False)
        else:
            yield None

    def _objects(self, schema: Json, depth: int) -> Iterator[dict[str, Any]]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        needed = [key for key in _list(schema.get("required")) if isinstance(key, str)]
        if depth >= DEEPEST or self._left <= 0:
            yield {}
            return
        wanted = [*properties, *(key for key in needed if key not in properties)]
        fewer = [key for key in wanted if key in needed]
        if depth >= DEEPEST // 2:
            wanted = fewer
        more = schema.get("additionalProperties", True)
        made = {key: self.value(properties.get(key, more), key, depth + 1) for key in wanted}
        yield made
        for number in range(len(made), _number(schema.get("minProperties"), 0, LONGEST)):
            made = made | {f"more_{number + 1}": self.value(more, "", depth + 1)}
        yield made
        yield {key: made[key] for key in fewer}

    def _lists(self, schema: Json, name: str, depth: int) -> Iterator[list[Any]]:
        least = _number(schema.get("minItems"), 0, LONGEST)
        if depth >= DEEPEST or self._left <= 0:
            yield []
            return
        before, items = _list(schema.get("prefixItems")), schema.get("items", True)
        made = [self.value(part, name, depth + 1) for part in before]
        if "contains" in schema:
            made.append(self.value(schema["contains"], name, depth + 1))
        if items is not False and (depth < DEEPEST // 2 or least):
            wanted = max(least, len(made) or 1)
            one = self.value(items, name, depth + 1) if len(made) < wanted else None
            made += [one] * (wanted - len(made))
        yield made
        made = made[: max(least, 1)]
        yield [_changed(value, made[:index].count(value)) for index, value in enumerate(made)]
        yield _list(items.get("enum"))[:least] if isinstance(items, dict) else []
        yield []


def _changed(value: Any, number: int) -> Any:
    """Another one like it, for lists of unique values."""
    if isinstance(value, str):
        return f"{value}{number + 1}" if number else value
    if isinstance(value, bool):
        return value is (number == 0)
    return value + number if isinstance(value, (int, float)) else value


def _texts(schema: Json, name: str) -> Iterator[str]:
    least = _number(schema.get("minLength"), 0, LONGEST)
    most = _number(schema.get("maxLength"), LONGEST, LONGEST)
    made = _BY_FORMAT.get(str(schema.get("format")), "") or _text(name)
    yield made if len(made) >= least else (made + " " + "example " * LONGEST)[:least].rstrip().ljust(least, "x")
    yield made[:most]
    if "pattern" in schema:
        yield from _BY_PATTERN
        yield from (character * max(least, 1) for character in "1aA")
    yield "x" * least


def _text(name: str) -> str:
    low = name.lower()
    return next((text for word, text in _BY_NAME.items() if word in low), "example")


def _numbers(schema: Json, whole: bool) -> Iterator[int | float]:
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if _is_number(schema.get(key))]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if _is_number(schema.get(key))]
    step: Any = schema.get("multipleOf")
    step = step if _is_number(step) and step > 0 else 1
    found: list[int | float] = [1, 7, step, 0]
    for low in lows:
        found += [ceil(low / step) * step, (floor(low / step) + 1) * step, low + 1]
    for high in highs:
        found += [floor(high / step) * step, (ceil(high / step) - 1) * step, high - 1]
    found += [(low + high) / 2 for low in lows for high in highs]
    for number in found:
        if number == int(number):
            yield int(number)
        elif not whole:
            yield number


# -- Reading schemas that may be anything


def _kinds(schema: Json) -> list[str]:
    kind = schema.get("type")
    kinds = [kind] if isinstance(kind, str) else [word for word in _list(kind) if isinstance(word, str)]
    guessed = [kind for kind, keys in _KEYS_OF_TYPES if any(key in schema for key in keys)]
    return kinds or guessed or ["string"]


def _merged(whole: Json, part: Json) -> dict[str, Any]:
    """Both at once, as far as they can be written as one."""
    merged = {**whole, **{key: value for key, value in part.items() if key not in ("$ref", "allOf")}}
    for key in ("properties", "$defs"):
        if isinstance(whole.get(key), dict) and isinstance(part.get(key), dict):
            merged[key] = {**whole[key], **part[key]}
    if "required" in whole and "required" in part:
        merged["required"] = [*_list(whole["required"]), *_list(part["required"])]
    for key, stricter in _STRICTER.items():
        if _is_number(whole.get(key)) and _is_number(part.get(key)):
            merged[key] = stricter(whole[key], part[key])
    return merged


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _number(value: Any, usual: int, most: int) -> int:
    return max(0, min(int(value), most)) if _is_number(value) else usual
