"""Arguments checked against their schema before anything is sent."""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.arguments import mistakes
from extenbot.ai.samples import sample


def of(**schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


class Schemas(SynchronousTestCase):
    def test_no_schema_is_fetched(self) -> None:
        """A schema that refers to one elsewhere makes nobody ask for it: that would block calls, and reach inside."""
        schema = of(**{"$ref": "http://127.0.0.1:9/schema.json"})
        with mock.patch("urllib.request.urlopen", side_effect=AssertionError("it was fetched")) as fetch:
            self.assertEqual(mistakes(schema, {"a": 1}), "")
            sample(schema)
        fetch.assert_not_called()

    def test_patterns(self) -> None:
        """A text that does not match its pattern is told."""
        self.assertIn("does not match", mistakes(of(pattern=r"^\d{5}$"), {"a": "1234"}))
        self.assertEqual(mistakes(of(pattern=r"^\d{5}$"), {"a": "12345"}), "")
        self.assertEqual(mistakes(of(pattern=r"^\p{L}+$"), {"a": "Ünï"}), "")
        self.assertIn("does not match", mistakes(of(pattern="a"), {"a": "\ud800"}))

    def test_unknown_patterns(self) -> None:
        """A pattern that cannot be checked here lets everything through: the server checks it."""
        for pattern in ("(?=a)b", "(", r"(a)\1", "a{1,900}" * 200):
            self.assertEqual(mistakes(of(pattern=pattern), {"a": "x"}), "")
        by_pattern = of(type="object", patternProperties={"^x": {"type": "integer"}}, additionalProperties=False)
        self.assertEqual(mistakes(by_pattern, {"a": {"x1": "7"}}), "")

    def test_endless_patterns(self) -> None:
        """No pattern takes long, whatever the caller says: audio would stand still meanwhile."""
        began = time.process_time()
        for pattern in (r"^(x+x+)+y$", r"^(x|x)*y$", r"(.*)(.*)(.*)(.*)z"):
            self.assertIn("does not match", mistakes(of(pattern=pattern), {"a": "x" * 10_000}))
            sample(of(type="string", pattern=pattern, minLength=200))
            mistakes(of(patternProperties={pattern: {}}, additionalProperties=False), {"a": {"x" * 1000: 1}})
        self.assertLess(time.process_time() - began, 10)

    def test_endless_schemas(self) -> None:
        """Nor does a schema of a few lines that refers to itself twice, and twice again: it lets everything through."""
        chain: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(30)}
        chain["a30"] = {"type": "string"}
        tree = {"anyOf": [{"type": "string"}, {"properties": {"a": {"$ref": "#"}}, "required": ["a"]}] * 10}
        began = time.process_time()
        for schema, value in (
            (of(**{"$ref": "#/$defs/a0"}) | {"$defs": chain}, "x"),
            (of(**{"$ref": "#/$defs/a0"}) | {"$defs": chain, "unevaluatedProperties": False}, "x"),
            (of(**{"$ref": "#/properties/a"}), "x"),
            (of(**tree), {"a": {"a": {"a": {"a": 1}}}}),
            (of(uniqueItems=True), [{"n": n} for n in range(20_000)]),
            (of(items={"type": "integer"}), [1] * 100_000),
        ):
            self.assertEqual(mistakes(schema, {"a": value}), "")
            sample(schema)
        self.assertLess(time.process_time() - began, 10)

    def test_many_mistakes(self) -> None:
        """Of very many mistakes some are told."""
        self.assertIn("a.0: 'x' is not of type 'integer'", mistakes(of(items={"type": "integer"}), {"a": ["x"] * 9999}))

    def test_unique(self) -> None:
        """The same item twice is told where it must not be."""
        self.assertIn("twice", mistakes(of(uniqueItems=True), {"a": [{"b": 1}, {"b": 1}]}))
        self.assertEqual(mistakes(of(uniqueItems=True), {"a": [{"b": 1}, {"b": 2}]}), "")
        self.assertEqual(mistakes(of(uniqueItems=False), {"a": [1, 1]}), "")
