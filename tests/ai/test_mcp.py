"""What the model is told of MCP servers: tools made fit, names, results, and the tool of the provider itself."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai import mcp
from extenbot.ai.tools import SPOKEN
from extenbot.interfaces import McpServer

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["type", "properties"]), inner),
    max_leaves=20,
)


def listed(name: object, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


class Provider(SynchronousTestCase):
    def test_the_least(self) -> None:
        """The voice service is told never to wait for an approval, unless the owner wants one."""
        server = McpServer("m1", "shop", "https://shop.example/mcp")
        self.assertEqual(
            mcp.provider_tool(server),
            {
                "type": "mcp",
                "server_label": "shop",
                "server_url": "https://shop.example/mcp",
                "require_approval": "never",
            },
        )

    def test_all_of_it(self) -> None:
        """Key, headers, allowed tools and approval reach the voice service."""
        server = McpServer(
            "m1", "shop", "https://shop.example/mcp", "sesame", (("X-Shop", "7"),), approval=True, allowed=("buy",)
        )
        tool = mcp.provider_tool(server)
        self.assertEqual((tool["authorization"], tool["headers"]), ("sesame", {"X-Shop": "7"}))
        self.assertEqual((tool["allowed_tools"], tool["require_approval"]), (["buy"], "always"))


class Tools(SynchronousTestCase):
    def test_one(self) -> None:
        """A tool is offered with its description and parameters, without what only validators need."""
        schema = {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Bern", "Rome"]}},
            "required": ["city", "country"],
            "additionalProperties": False,
        }
        found = mcp.tools([listed("weather", description="Tells it.", inputSchema=schema)])
        parameters = {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Bern", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        }
        self.assertEqual(found, ({"name": "weather", "description": "Tells it.", "parameters": parameters},))

    def test_bad_ones(self) -> None:
        """A server with broken tools loses those only; of two with one name the first counts."""
        bad: list[Any] = [listed(""), listed(" "), listed(7), listed(None), listed("x" * 129), "text", None]
        good = [listed("a", description="first"), listed("a"), listed("b", description=7), {"name": "c"}]
        found = mcp.tools([*bad, *good])
        self.assertEqual(
            [(tool["name"], tool["description"]) for tool in found], [("a", "first"), ("b", ""), ("c", "")]
        )
        self.assertEqual(found[2]["parameters"], {"type": "object", "properties": {}, "additionalProperties": True})

    def test_many(self) -> None:
        """Of thousands of tools the model is told of 128; an allowed one is among them wherever it stands."""
        many = [listed(f"tool{number}") for number in range(5000)]
        self.assertEqual(len(mcp.tools(many)), 128)
        self.assertEqual([tool["name"] for tool in mcp.tools(many, ("tool4999", "gone"))], ["tool4999"])

    def test_alternatives_at_the_top(self) -> None:
        """Services refuse alternatives at the top of parameters: all that may be given is offered, none required."""
        ways = [{"properties": {"id": {"type": "integer"}}, "required": ["id"]}, {"properties": {"name": {}}}, False]
        found = mcp.parameters({"type": "object", "oneOf": ways, "additionalProperties": False})
        self.assertEqual(found, {"type": "object", "properties": {"id": {"type": "integer"}, "name": {}}})

    def test_bounds(self) -> None:
        """Endless descriptions, deep and huge schemas are cut to what a conversation can carry."""
        deep: dict[str, Any] = {"type": "string"}
        for _ in range(300):
            deep = {"type": "object", "properties": {"more": deep}}
        wordy = {"properties": {f"p{n}": {"type": "string", "description": "so " * 99} for n in range(99)}}
        vast = {"properties": {f"p{n}": {"type": "string"} for n in range(9999)}}
        found = mcp.tools(
            [listed("a", description="x" * 9999)]
            + [listed(name, inputSchema=schema) for name, schema in (("b", deep), ("c", wordy), ("d", vast))]
        )
        self.assertLess(len(found[0]["description"]), 2100)
        for tool in found:
            self.assertLess(len(json.dumps(tool["parameters"])), mcp.SCHEMA)
        self.assertEqual(len(found[2]["parameters"]["properties"]), 99)
        self.assertEqual(found[3]["parameters"]["properties"], {})

    def test_a_parameter_called_description(self) -> None:
        """When words are left out of a large schema, parameters that are called like them stay."""
        properties = {"description": {"type": "string", "description": "so " * 9999}, "title": {"type": "string"}}
        found = mcp.parameters({"properties": properties})
        self.assertEqual(found["properties"], {"description": {"type": "string"}, "title": {"type": "string"}})

    @given(ANYTHING)
    def test_any_schema(self, schema: Any) -> None:
        """Whatever a server calls a schema, what becomes of it can be sent."""
        found = mcp.parameters(schema)
        self.assertEqual(found["type"], "object")
        self.assertIsInstance(found["properties"], dict)
        self.assertLessEqual(len(json.dumps(found)), mcp.SCHEMA)


class Names(SynchronousTestCase):
    def test_plain_where_free(self) -> None:
        """Tools keep their names; one that the bot itself has, or two servers have, gets the label before it."""
        found = mcp.named({"shop": ["buy", "search"], "crm": ["search", "end_call"]}, ["end_call"])
        self.assertEqual(
            found,
            {
                "buy": ("shop", "buy"),
                "shop_search": ("shop", "search"),
                "crm_search": ("crm", "search"),
                "crm_end_call": ("crm", "end_call"),
            },
        )

    def test_always_legal(self) -> None:
        """Names that services refuse are made legal, and still mean one tool each."""
        names = ["a b", "a.b", "é", "x" * 70, "x" * 71, "ok"]
        found = mcp.named({"s": names})
        self.assertEqual(sorted(name for _label, name in found.values()), sorted(names))
        for name in found:
            self.assertRegex(name, r"\A[A-Za-z0-9_-]{1,64}\Z")
        self.assertIn("ok", found)

    @given(
        st.dictionaries(
            st.from_regex(r"\A[a-z_]{1,3}\Z"), st.lists(st.from_regex(r"\A[a-c_ ]{1,4}\Z"), max_size=5), max_size=4
        ),
        st.lists(st.from_regex(r"\A[a-c_]{1,4}\Z"), max_size=3),
    )
    def test_any_names(self, servers: dict[str, list[str]], taken: list[str]) -> None:
        """However names clash, each tool has one of its own, the same each time, and none that is taken."""
        found = mcp.named(servers, taken)
        wanted = {(label, name) for label, names in servers.items() for name in names}
        self.assertEqual(set(found.values()), wanted)
        self.assertEqual(len(found), len(wanted))
        self.assertFalse(set(found) & set(taken))
        self.assertEqual(mcp.named(servers, taken), found)


class Results(SynchronousTestCase):
    def test_every_kind(self) -> None:
        """Whatever a tool gives back, the bot has words for it."""
        parts = [
            {"type": "text", "text": "Here."},
            {"type": "image", "data": "", "mimeType": "image/png"},
            {"type": "audio", "data": ""},
            {"type": "resource_link", "name": "menu", "uri": "https://x.example/", "description": "of today"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "Ring twice."}},
            {"type": "resource", "resource": {"uri": "file:///b", "blob": "", "mimeType": "application/pdf"}},
            {"type": "resource"},
            {"type": "hologram"},
            {},
        ]
        self.assertEqual(
            mcp.text({"content": parts}).split("\n"),
            [
                "Here.",
                "[an image, image/png]",
                "[audio, of unknown kind]",
                "menu: https://x.example/ (of today)",
                "Ring twice.",
                "[a file, application/pdf: file:///b]",
                "[a file, of unknown kind: ]",
                "[hologram that cannot be spoken]",
                "[something that cannot be spoken]",
            ],
        )

    def test_structured(self) -> None:
        """Data is told as JSON, unless the words beside it say the same."""
        image = {"type": "image", "mimeType": "image/png"}
        self.assertEqual(mcp.text({"structuredContent": {"sky": "blué"}}), '{"sky": "blué"}')
        self.assertEqual(
            mcp.text({"content": [image], "structuredContent": {"a": 1}}), '[an image, image/png]\n{"a": 1}'
        )
        for words, data, said in (
            ("One table.", {"a": 1}, 'One table.\n{"a": 1}'),
            ('{\n  "a": 1\n}', {"a": 1}, '{\n  "a": 1\n}'),
            ("Ring twice.", {"result": "Ring twice."}, "Ring twice."),
            ("", {"result": ""}, '{"result": ""}'),
            ("[" * 5000, {"a": 1}, "[" * 5000 + '\n{"a": 1}'),
            ("x" * SPOKEN, {"a": 1}, "x" * SPOKEN),
        ):
            content = [{"type": "text", "text": words}]
            self.assertEqual(mcp.text({"content": content, "structuredContent": data}), said)

    def test_nothing_and_too_much(self) -> None:
        """A tool that says nothing has finished; one that says too much is cut off."""
        nothings: list[dict[str, Any]] = [
            {},
            {"content": []},
            {"content": None},
            {"content": [{"type": "text", "text": " "}]},
        ]
        for nothing in nothings:
            self.assertEqual(mcp.text(nothing), "The tool has finished and returned nothing.")
        self.assertEqual(mcp.text({"isError": True}), "the tool has not said why")
        said = mcp.text({"content": [{"type": "text", "text": "x" * 9999}]})
        self.assertEqual(said, "x" * SPOKEN + " … (cut off here)")
