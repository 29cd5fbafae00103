"""Arguments checked against their schema before anything is sent."""

from __future__ import annotations

from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.arguments import mistakes
from extenbot.ai.samples import sample


class Arguments(SynchronousTestCase):
    def test_no_schema_is_fetched(self) -> None:
        """A schema that refers to one elsewhere makes nobody ask for it: that would block calls, and reach inside."""
        schema = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}}
        with mock.patch("urllib.request.urlopen", side_effect=AssertionError("it was fetched")) as fetch:
            self.assertEqual(mistakes(schema, {"a": 1}), "")
            sample(schema)
        fetch.assert_not_called()
