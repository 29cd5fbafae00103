"""What the model is told of a reply, and by which paths."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.results import check_path, told
from extenbot.ai.tools import SPOKEN
from extenbot.errors import Invalid, ToolFailed
from extenbot.interfaces import Reply

ORDERS = {"orders": [{"id": 7, "status": "sent"}, {"id": 8, "status": "open"}], "next": None, "note": "ä"}


def reply(document: object) -> Reply:
    return Reply(200, "application/json", json.dumps(document).encode())


class Told(SynchronousTestCase):
    def test_paths(self) -> None:
        """A path finds a text as it is, anything else as JSON; without one it is all of the reply."""
        for path, words in (
            ("orders[0].status", "sent"),
            ("orders[?id == `8`].status | [0]", "open"),
            ("orders[].status", '["sent", "open"]'),
            ("{first: orders[0].id}", '{"first": 7}'),
            ("length(orders)", "2"),
            ("note", "ä"),
            ("orders[0].id > `5`", "true"),
            ("join(', ', orders[].status)", "sent, open"),
            ("  ", json.dumps(ORDERS, ensure_ascii=False)),
        ):
            self.assertEqual(told(reply(ORDERS), path), words)

    def test_nothing(self) -> None:
        """Nothing at that place is what the model is told: perhaps there is no such order."""
        for path in ("orders[5].status", "next", "a.b.c"):
            self.assertEqual(told(reply(ORDERS), path), f"The reply has nothing at {path}.")

    def fails(self, given: Reply, path: str, words: str) -> None:
        with self.assertRaises(ToolFailed) as caught:
            told(given, path)
        self.assertIn(words, str(caught.exception))

    def test_not_json(self) -> None:
        """A path through what is no JSON is a failure."""
        for body in (b"", b"<html>", b"{", b"\xff\xfe", b"[" * 100_000):
            self.fails(Reply(200, "text/html", body), "a", "the reply is not JSON")

    def test_misfit(self) -> None:
        """A function of the path that cannot work on the reply says so."""
        self.fails(reply({"a": "x"}), "length(b)", "the result cannot be found in the reply")

    def test_long(self) -> None:
        """Long results are cut, deep ones do no harm, and what is built of a reply is not written out whole."""
        self.assertEqual(len(told(reply({"a": "x" * 200_000}), "a")), SPOKEN)
        self.assertEqual(len(told(reply(["x" * 20] * 10_000), "@")), SPOKEN)
        self.assertEqual(told(Reply(200, "", b"[" * 500 + b"1" + b"]" * 500), "@[0][0]")[-2:], "]]")
        began = time.process_time()
        self.assertEqual(len(told(reply(["x"] * 1000), " | ".join(["[@, @]"] * 18))), SPOKEN)
        self.assertLess(time.process_time() - began, 5)

    @given(st.text(max_size=40), st.recursive(st.none() | st.integers() | st.text(), st.lists))
    def test_noise(self, path: str, document: Any) -> None:
        """Whatever is accepted as a path finds something, or fails in words."""
        try:
            check_path(path)
        except Invalid:
            return
        try:
            told(reply(document), path)
        except ToolFailed:
            return


class Checked(SynchronousTestCase):
    def test_wrong(self) -> None:
        """What is no path is said to be none, with its column, as far as there is one."""
        for path, words in (
            ("orders[", "column 8"),
            ("a b", "column 3"),
            ("orders[?]", "column"),
            ("$.orders", "JMESPath"),
            ("(" * 5000, "."),
        ):
            with self.assertRaises(Invalid) as caught:
                check_path(path)
            self.assertIn(words, caught.exception.problems["result"])

    def test_expressions(self) -> None:
        """An expression is no result: it is refused wherever it would be left over."""
        for path in ("&@", "[&a]", "{a: &b}", "to_array(&a)", "not_null(&a)", "a || &b", "map(&(&a), @)"):
            with self.assertRaises(Invalid) as caught:
                check_path(path)
            self.assertIn("&", caught.exception.problems["result"])

    def test_bombs(self) -> None:
        """No path makes a flood of a few bytes."""
        for path in (
            "|".join(["[@, @]"] * 7),
            "[@,@,@,@,@,@,@,@,@][] | [@,@,@,@,@,@,@,@,@][]",
            "map(&{a: @, b: @, c: @, d: @, e: @}, @) | [@,@,@,@] | [@,@,@,@]",
            "to_string(" * 7 + "@" + ")" * 7,
            "join(to_string(@), @)",
        ):
            with self.assertRaises(Invalid) as caught:
                check_path(path)
            self.assertIn("builds too much", caught.exception.problems["result"])

    def test_good(self) -> None:
        """Paths as people need them are fine."""
        for path in (
            "",
            "data.items[*].{name: name, price: price, stock: stock, where: place.name}",
            "sort_by(slots, &start)[:3].[start, doctor]",
            "join(', ', slots[].start)",
            "to_string(total)",
        ):
            check_path(path)
