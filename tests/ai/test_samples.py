"""Sample arguments made from schemas."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.samples import MOST, sample


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


class Samples(SynchronousTestCase):
    def one(self, schema: Any, **root: Any) -> Any:
        """A sample of one property; it must be as its schema asks."""
        parameters = an_object(it=schema) | root
        made = sample(parameters)
        Draft202012Validator(parameters).validate(made)
        return made["it"]

    def test_what_the_schema_shows(self) -> None:
        """What a schema gives as constant, example, default or choice is used as it is."""
        self.assertEqual(self.one({"const": "a"}), "a")
        self.assertEqual(self.one({"type": "string", "examples": ["Oslo"], "enum": ["Bergen", "Oslo"]}), "Oslo")
        self.assertEqual(self.one({"type": "integer", "default": 4, "minimum": 2}), 4)
        self.assertEqual(self.one({"type": "integer", "default": 1, "minimum": 2}), 7)
        self.assertEqual(self.one({"enum": ["red", "green"]}), "red")

    def test_the_published_example(self) -> None:
        """The two numbers of exten.bot's own example are numbers."""
        number = {"type": "number", "description": "First number"}
        made = sample(an_object(number1=number, number2=number))
        self.assertEqual([type(value) for value in made.values()], [int, int])

    def test_texts(self) -> None:
        """Texts look like what is asked for, by format, name, length and the usual patterns."""
        self.assertEqual(self.one({"type": "string", "format": "date"}), "2026-05-12")
        self.assertEqual(sample(an_object(email={"type": "string"})), {"email": "ada@example.org"})
        self.assertEqual(len(self.one({"type": "string", "maxLength": 3})), 3)
        self.assertEqual(len(self.one({"type": "string", "minLength": 90})), 90)
        for pattern in (r"^\d{5}$", r"^[A-Z]{3}-\d+$", r"^\+\d+$", r"^[a-z]{3}$", r"^\d{4}-\d\d-\d\d$", r"^[0-9]{9}$"):
            self.one({"type": "string", "pattern": pattern, "minLength": 9 if "9" in pattern[-4:] else 0})

    def test_numbers(self) -> None:
        """Numbers lie within their bounds and are whole where they must be."""
        self.one({"type": "integer", "minimum": 10, "maximum": 10})
        self.one({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})
        self.one({"type": "integer", "multipleOf": 15, "minimum": 20})
        self.one({"type": "integer", "exclusiveMaximum": -3})
        self.assertIs(self.one({"type": "boolean"}), True)
        self.assertIsNone(self.one({"type": "null"}))

    def test_lists_and_objects(self) -> None:
        """Lists have as many items as they need, objects what they must have."""
        self.assertEqual(self.one({"type": "array", "items": {"type": "string"}}), ["example"])
        self.one({"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True})
        self.one({"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True})
        self.one({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False})
        self.one({"type": "array", "contains": {"const": 5}})
        self.one(an_object(inner=an_object(deep={"type": "integer"})))
        self.one({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2})

    def test_choices_and_references(self) -> None:
        """References, alternatives and combinations are followed."""
        defs = {"$defs": {"city": {"type": "string", "enum": ["Oslo"]}}}
        self.assertEqual(self.one({"$ref": "#/$defs/city"}, **defs), "Oslo")
        self.assertEqual(self.one({"anyOf": [{"$ref": "#/$defs/city"}, {"type": "null"}]}, **defs), "Oslo")
        self.assertEqual(self.one({"oneOf": [{"const": "a"}, {"const": "b"}]}), "a")
        self.one({"type": "object", "allOf": [an_object(a={"type": "integer"}), an_object(b={"type": "string"})]})
        self.one({"allOf": [{"minimum": 5}, {"minimum": 9, "type": "integer"}]})

    def test_endless(self) -> None:
        """A schema that holds itself, or is far too large, ends."""
        tree = an_object(children={"type": "array", "items": {"$ref": "#"}}, name={"type": "string"})
        Draft202012Validator(tree).validate(sample(tree))
        sample({"type": "object", "properties": {"me": {"$ref": "#/properties/me"}}, "required": ["me"]})
        wide = an_object(**{f"number_{index}": {"anyOf": [{"type": "integer"}] * 50} for index in range(500)})
        self.assertLess(len(str(sample(wide))), 50 * MOST)
        nested: Any = {"type": "string"}
        for _ in range(60):
            nested = an_object(a=nested, b=nested)
        self.assertLess(len(str(sample(nested))), 50 * MOST)

    def test_nonsense(self) -> None:
        """What is no schema at all gives some sample and no error; nothing is fetched from elsewhere."""
        schemas: list[Any] = [{}, {"type": 5}, {"type": "array"}, {"properties": 1, "required": "x"}, {"enum": {}}]
        for schema in schemas:
            self.assertIsInstance(sample(schema), dict)
        sample(an_object(a={"$ref": "https://example.invalid/schema.json"}, b={"minimum": "x"}, c={"pattern": "("}))


_LEAVES = st.one_of(
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-99, 99),
        st.integers(0, 9),
    ),
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 30),
        st.integers(0, 9),
    ),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"enum": [1, "a", None]}, {"type": ["string", "null"]}, True]
    ),
    st.builds(lambda step: {"type": "number", "multipleOf": step, "minimum": step / 3}, st.sampled_from([0.5, 2, 7])),
)
_SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)),
        st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda named: an_object(**named), st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)),
    ),
    max_leaves=6,
)


class Whatever(SynchronousTestCase):
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(_SCHEMAS)
    def test_always_valid(self, schema: Any) -> None:
        """Whatever a schema of usual parts asks for, its sample is as it asks."""
        parameters = an_object(it=schema)
        Draft202012Validator(parameters).validate(sample(parameters))
