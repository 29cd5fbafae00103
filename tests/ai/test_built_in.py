"""The tools that a bot has of itself: what the model is told of them, and what its arguments mean."""

from __future__ import annotations

import json
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai import built_in
from extenbot.ai.built_in import Collection
from extenbot.ai.tools import check_description
from extenbot.errors import ToolFailed
from extenbot.interfaces import Bot, Destination, Json

ALONE = Bot(id="b", account_id="a", name="Eva", kind="registrar", username="eva", password="secret")
USUAL = replace(ALONE, transfer_uri="200")
SALES = Destination("sales", "300 301", "Who wants to buy something.")
REPAIRS = Destination("repairs", "400")


def found(bot: Bot, *taken: str) -> dict[str, Json]:
    return {tool["name"]: tool for tool in built_in.tools(bot, taken)}


class Tools(SynchronousTestCase):
    def test_all(self) -> None:
        """Each bot can hang up and knows keys; each tool is such as a user could have saved under another name."""
        self.assertEqual(list(found(ALONE)), ["end_call", "collect_digits", "send_digits"])
        self.assertEqual(list(found(USUAL)), ["end_call", "transfer_call", "collect_digits", "send_digits"])
        for name, tool in found(replace(USUAL, destinations=(SALES, REPAIRS))).items():
            self.assertIn(name, built_in.BUILT_IN)
            check_description(json.dumps({**tool, "name": "other"}))

    def test_taken(self) -> None:
        """A function that is older than the tool keeps its name."""
        self.assertNotIn("collect_digits", found(ALONE, "collect_digits"))

    def test_one_target(self) -> None:
        """With only one target there is nothing to choose; when it is to be used stands in the description."""
        for bot in (USUAL, replace(ALONE, destinations=(SALES,))):
            self.assertEqual(found(bot)["transfer_call"]["parameters"], {"type": "object", "properties": {}})
        self.assertIn("Who wants to buy", found(replace(ALONE, destinations=(SALES,)))["transfer_call"]["description"])

    def test_named_targets(self) -> None:
        """Of more targets the model chooses one by its name, and is told when; it may leave out the usual one only."""
        parameters = found(replace(ALONE, destinations=(SALES, REPAIRS)))["transfer_call"]["parameters"]
        choice = parameters["properties"]["destination"]
        self.assertEqual(choice["enum"], ["sales", "repairs"])
        self.assertIn("sales: Who wants to buy something.", choice["description"])
        self.assertEqual(parameters["required"], ["destination"])
        parameters = found(replace(USUAL, destinations=(SALES,)))["transfer_call"]["parameters"]
        self.assertEqual(parameters["properties"]["destination"]["enum"], ["sales"])
        self.assertNotIn("required", parameters)


class Destinations(SynchronousTestCase):
    def test_chosen(self) -> None:
        """By its name, however it is written; without one the usual target, or the only one."""
        both = replace(USUAL, destinations=(SALES, REPAIRS))
        self.assertEqual(built_in.destination(both, {"destination": " Sales"}), SALES)
        self.assertEqual(built_in.destination(both, {}), Destination("", "200"))
        self.assertEqual(built_in.destination(both, {"destination": ""}), Destination("", "200"))
        self.assertEqual(built_in.destination(replace(ALONE, destinations=(SALES,)), {}), SALES)
        self.assertEqual(built_in.destination(USUAL, {"destination": "operator"}), Destination("", "200"))

    def test_unclear(self) -> None:
        """A name that there is not, or none where there are several: the model is told the names."""
        for bot, arguments in (
            (replace(USUAL, destinations=(SALES, REPAIRS)), {"destination": "accounting"}),
            (replace(ALONE, destinations=(SALES, REPAIRS)), {}),
            (replace(ALONE, destinations=(SALES, REPAIRS)), {"destination": 7}),
        ):
            failure = self.assertRaises(ToolFailed, built_in.destination, bot, arguments)
            self.assertIn("There are: sales, repairs.", str(failure))
        failure = self.assertRaises(ToolFailed, built_in.destination, ALONE, {})
        self.assertIn("nobody", str(failure))


class Keys(SynchronousTestCase):
    def test_collection(self) -> None:
        """What the model leaves out has a usual value; a wild patience is brought to its bounds."""
        self.assertEqual(built_in.collection({}), Collection(64, "#", 8.0))
        asked = {"length": 4, "terminator": "*", "timeout": 3, "purpose": "PIN"}
        self.assertEqual(built_in.collection(asked), Collection(4, "*", 3.0))
        self.assertEqual(built_in.collection({"terminator": "", "timeout": 1e9}), Collection(64, "", 60.0))
        self.assertEqual(built_in.collection({"terminator": 0}).terminator, "0")

    def test_collection_of_nothing(self) -> None:
        """What means nothing is told to the model."""
        for arguments in ({"length": 0}, {"length": "four"}, {"length": True}, {"terminator": "##"}, {"timeout": "5"},
                          {"terminator": "x"}, {"length": float("inf")}, {"length": 65}):  # fmt: skip
            self.assertRaises(ToolFailed, built_in.collection, arguments)

    def test_digits(self) -> None:
        """Digits as people write them; none, and too many, are told to the model."""
        self.assertEqual(built_in.digits({"digits": "1-2 3,#"}), "123,#")
        self.assertEqual(built_in.digits({"digits": 42}), "42")
        for arguments in ({}, {"digits": ""}, {"digits": [1]}, {"digits": True}, {"digits": "1" * 65}):
            self.assertRaises(ToolFailed, built_in.digits, arguments)
