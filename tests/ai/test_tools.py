"""Functions of a bot: what a user may save, what is posted, what the model hears of the reply."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai import pasted, tools
from extenbot.errors import Invalid, ToolFailed
from extenbot.interfaces import Function, ToolContext

# Both as exten.bot publishes them, the trailing comma included.
DESCRIPTION = """{"name": "two_numbers", "type": "function",
 "parameters": {"type": "object", "required": ["number1", "number2"],
   "properties": {"number1": {"type": "number", "description": "First number"}, "number2": {"type": "number", \
"description": "Second number"}}},
 "description": "If the user wants to provide two numbers, ask for and process two numbers."}"""
TEMPLATE = """{
    "user": "{user}",
    "inputs": {
        "function_name": "{function_name}",
    },
    "response_mode": "blocking"
}"""
CONTEXT = ToolContext(bot_id="b1", call_id="c1", caller="+49 30 1234")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def function(template: str = "", description: str = DESCRIPTION) -> Function:
    return Function("f1", "Two numbers", "https://example.com/hook", description=description, template=template)


def filled(template: str, **arguments: Any) -> Any:
    return tools.body(function(template), arguments, CONTEXT)


class Addresses(SynchronousTestCase):
    def addressed(self, url: str, **arguments: Any) -> tuple[str, Any]:
        schema = {"type": "object", "properties": {"id": {}, "since": {}}}
        function = Function("f", "f", url, description=json.dumps({"name": "f", "parameters": schema}))
        return tools.addressed(function, arguments, ToolContext("b", "c", "+4930"))

    def test_named(self) -> None:
        """What the URL names stands there, empty when it was left out; other arguments are left for query or body."""
        url, left = self.addressed(
            "https://x.org/{id}/lines?since={since}&all={all}&by={user}", id=7, all=True, more="x"
        )
        self.assertEqual((url, left), ("https://x.org/7/lines?since=&all=true&by=%2B4930", {"more": "x"}))
        self.assertEqual(self.addressed("https://x.org/{other}", id=1), ("https://x.org/{other}", {"id": 1}))

    def test_evil(self) -> None:
        """No value reaches beyond its place: not the host, another path, nor another part of the query."""
        for evil in ("../admin", "a/b", "?x=1", "#x", "a&b=c", "@evil.org", "%2e%2e", "\r\nX: 1", "\ud800", "{id}"):
            url, _ = self.addressed("https://x.org/o/{id}/p?q={id}", id=evil)
            self.assertRegex(url, r"\Ahttps://x\.org/o/[A-Za-z0-9._~%-]+/p\?q=[A-Za-z0-9._~%-]+\Z")
        for dots in (".", ".."):
            self.assertRaises(ToolFailed, self.addressed, "https://x.org/o/{id}", id=dots)
        self.assertEqual(self.addressed("https://{id}.org/", id="evil")[0], "https://{id}.org/")

    def test_flood(self) -> None:
        """A long value is no part of a URL, let alone many times."""
        with self.assertRaisesRegex(ToolFailed, "id is longer than 8000 characters"):
            self.addressed("https://x.org/" + "{id}" * 900, id="y" * 1_000_000)


class Descriptions(SynchronousTestCase):
    def refusal(self, text: str) -> str:
        problems = self.assertRaises(Invalid, tools.check_description, text).problems
        self.assertEqual(list(problems), ["description"])
        return str(problems["description"])

    def test_published_example(self) -> None:
        """exten.bot's own example is taken as printed and passed on unchanged."""
        tools.check_description(DESCRIPTION)
        self.assertEqual(tools.tool(function()), json.loads(DESCRIPTION))
        self.assertEqual(tools.name_of(function()), "two_numbers")

    def test_lenient(self) -> None:
        """Comments, trailing commas, single quotes and the chat API's wrapper are understood; a type is added."""
        text = "{'function': {name: 'ask', // ours\n parameters: {type: 'object', properties: {},}}, type: 'function',}"
        tools.check_description(text)
        self.assertEqual(
            tools.tool(function(description=text)),
            {"type": "function", "name": "ask", "parameters": {"type": "object", "properties": {}}},
        )

    def test_none(self) -> None:
        """A function without a description is offered by its name, made legal."""
        self.assertEqual(tools.tool(function(description=" "))["name"], "Two_numbers")

    def test_broken_json(self) -> None:
        """Broken JSON is refused with line and column."""
        self.assertEqual(self.refusal('{"name": "a",\n  "x" 1}'), "It is not JSON: unexpected 1 at line 2, column 7.")
        self.assertEqual(self.refusal('{"name": "a",\n'), "It is not JSON: it ends too early, at line 1, column 13.")
        self.assertIn("empty", self.refusal(" \n"))

    def test_not_a_function(self) -> None:
        """Each thing a model would not accept is named."""
        good = {"name": "a", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}
        for change, words in (
            ({"name": "two numbers"}, '"name" may have only'),
            ({"name": "a" * 65}, '"name" may have only'),
            ({"name": 7}, 'needs a "name"'),
            ({"name": "end_call"}, "taken by the bot itself"),
            ({"type": "mcp"}, '"type" must be "function"'),
            ({"description": ["x"]}, '"description" must be text'),
            ({"parameters": []}, '"parameters" must be'),
            ({"parameters": {"type": "string"}}, '"parameters" must be'),
            ({"parameters": {"type": "object", "properties": ["x"]}}, '"properties"'),
            ({"parameters": {"type": "object", "properties": {"x": "number"}}}, '"properties"'),
            ({"parameters": {"type": "object", "properties": {}, "required": ["x"]}}, '"required"'),
        ):
            self.assertIn(words, self.refusal(json.dumps(good | change)))
        tools.check_description(json.dumps(good))
        self.assertIn("one JSON object", self.refusal("[1]"))

    def test_hostile(self) -> None:
        """Too long, too deep, and numbers JSON does not have are refused in words."""
        self.assertIn("longer than", self.refusal('{"name": "a"}' + " " * pasted.LONGEST))
        self.assertIn("levels deep", self.refusal('{"a":' * 60 + "1" + "}" * 60))
        self.assertIn("levels deep", self.refusal("[" * 8000))
        for number in ("NaN", "-Infinity", "1e999"):
            self.assertIn("not a JSON value", self.refusal(f'{{"a": {number}}}'))

    def test_built_in(self) -> None:
        """The names of the bot's own tools are taken."""
        for name in ("end_call", "terminate_call", "transfer_call", "collect_digits", "send_digits"):
            self.assertIn("taken by the bot itself", self.refusal(f'{{"name": "{name}"}}'))

    @given(st.text(alphabet="{}[]\":,name \\1tru/*\n'", max_size=60))
    def test_noise(self, text: str) -> None:
        """No text makes the check raise anything but Invalid."""
        for check in (tools.check_description, tools.check_template):
            try:
                check(text)
            except Invalid as error:
                self.assertEqual(len(error.problems), 1)


class Bodies(SynchronousTestCase):
    def refusal(self, text: str) -> str:
        problems = self.assertRaises(Invalid, tools.check_template, text).problems
        self.assertEqual(list(problems), ["template"])
        return str(problems["template"])

    def test_published_example(self) -> None:
        """exten.bot's own template works as printed."""
        tools.check_template(TEMPLATE)
        self.assertEqual(
            filled(TEMPLATE, number1=1, number2=2),
            {"user": "+49 30 1234", "inputs": {"function_name": "two_numbers"}, "response_mode": "blocking"},
        )

    def test_default(self) -> None:
        """Without a template the documented body is posted."""
        tools.check_template("")
        self.assertEqual(
            filled("", number1=7),
            {
                "function": "two_numbers",
                "arguments": {"number1": 7},
                "caller": "+49 30 1234",
                "bot": "b1",
                "call": "c1",
            },
        )

    def test_quoted_and_unquoted(self) -> None:
        """Quoted placeholders stay strings, unquoted ones become JSON values."""
        template = '{"a": "{number1}", "b": {number1}, "c": { parameters }, "d": ["{bot_id}/{call_id}", {user}]}'
        tools.check_template(template)
        self.assertEqual(
            filled(template, number1=7, more=[True, None]),
            {
                "a": "7",
                "b": 7,
                "c": {"number1": 7, "more": [True, None]},
                "d": ["b1/c1", "+49 30 1234"],
            },
        )
        self.assertEqual(filled('"{more}"', more=[True, "ä"]), '[true, "ä"]')
        self.assertEqual(filled("{parameters}", number1=1), {"number1": 1})

    def test_left_out(self) -> None:
        """An argument left out is empty in a string and null elsewhere; other braces stay."""
        self.assertEqual(
            filled('{"a": "<{number2}>", "b": {number2}, "c": "{other} {x y} {}", "{user}": 1, "d": {other}}'),
            {"a": "<>", "b": None, "c": "{other} {x y} {}", "{user}": 1, "d": None},
        )

    def test_braces_in_strings_and_comments(self) -> None:
        """Only what stands outside strings and comments is an unquoted placeholder."""
        template = """{"a": "\\"{number1}\\" \\\\", 'b': 'it\\'s "{number1}"', /* {number1} " */ // {number1} '
            "c": {number1}}"""
        tools.check_template(template)
        self.assertEqual(filled(template, number1=7), {"a": '"7" \\', "b": 'it\'s "7"', "c": 7})

    def test_injection(self) -> None:
        """Quotes, newlines and braces in an argument change nothing but its own value."""
        for evil in ('x","evil":"1', "x\n}", "{user}", "\\", '"}]', "{call_id}\ue000"):
            self.assertEqual(
                filled('{"a": "{number1}", "b": {number1}, "c": "-{number1}-", "d": "{number2}"}', number1=evil),
                {"a": evil, "b": evil, "c": f"-{evil}-", "d": ""},
            )

    def test_model_cannot_pose_as_another_caller(self) -> None:
        """An argument called `user` does not replace the caller's number."""
        self.assertEqual(filled('["{user}", {user}]', user="evil"), ["+49 30 1234", "+49 30 1234"])

    def test_mark_in_the_text(self) -> None:
        """Private characters in a template, plain or escaped, are not taken for placeholders."""
        self.assertEqual(filled('["\ue000", "\\uE001", {number1}]', number1=7), ["\ue000", "\ue001", 7])

    def test_broken(self) -> None:
        """A broken template is refused with the line and column it has in the form."""
        self.assertEqual(
            self.refusal('{"a": {number1}\n  "b": { parameters } {number2}}'),
            'It is not JSON: unexpected " at line 2, column 3.',
        )
        self.assertEqual(
            self.refusal('{"a": { parameters } {number2}}'), "It is not JSON: unexpected { at line 1, column 22."
        )
        self.assertIn("ends too early", self.refusal('{"a": 1'))
        self.assertIn("where a key must be", self.refusal("{{number1}: 1}"))
        self.assertIn("not a JSON value", self.refusal("[NaN]"))

    def test_floods(self) -> None:
        """Many placeholders for one long value are no flood: what is too much is told."""
        for template in ('["' + "{parameters}" * 900 + '"]', "[" + "{x}," * 900 + "1]"):
            with self.assertRaisesRegex(ToolFailed, "larger than 4 MiB"):
                tools.body(function(template=template), {"x": "y" * 1_000_000}, CONTEXT)
            tools.body(function(template=template), {"x": "y" * 1000}, CONTEXT)

    def test_quick(self) -> None:
        """Text made to be slow is not: each of these would take seconds if searched again and again."""
        for text in ('"' + '\\"' * 8000, "/*" * 8000, "'" + "\\'" * 8000, "{a" * 5000, "{ " * 8000):
            self.refusal(text)

    @given(st.dictionaries(st.sampled_from(["number1", "number2", "user", "x"]), VALUES))
    def test_any_arguments(self, arguments: dict[str, Any]) -> None:
        """Whatever the model sends, the body has the template's shape and the values as they are."""
        body = filled('{"v": {number1}, "s": "{number1}", "p": {parameters}}', **arguments)
        self.assertEqual(list(body), ["v", "s", "p"])
        self.assertEqual((body["v"], body["p"]), (arguments.get("number1"), arguments))
        self.assertIsInstance(body["s"], str)
        json.dumps(body)


class Replies(SynchronousTestCase):
    def spoken(self, reply: object, content_type: str = "application/json") -> str:
        return tools.spoken(reply if isinstance(reply, bytes) else json.dumps(reply).encode(), content_type)

    def test_dify(self) -> None:
        """A dify workflow's outputs and a chat app's answer are what is said."""
        self.assertEqual(self.spoken({"data": {"status": "succeeded", "outputs": {"text": "Seven."}}}), "Seven.")
        self.assertEqual(self.spoken({"data": {"outputs": {"a": 1, "b": "x"}}}), '{"a": 1, "b": "x"}')
        self.assertEqual(self.spoken({"event": "message", "answer": "Eight."}), "Eight.")

    def test_dify_failed(self) -> None:
        """A workflow that failed is a failure, with its reason."""
        reply = {"data": {"status": "failed", "outputs": None, "error": "no such node"}}
        self.assertIn("no such node", str(self.assertRaises(ToolFailed, self.spoken, reply)))

    def test_other_json(self) -> None:
        """Other JSON is told as it is, a JSON string as its text."""
        self.assertEqual(self.spoken({"data": [1], "ä": None}), '{"data": [1], "ä": null}')
        self.assertEqual(self.spoken("Nine."), "Nine.")

    def test_text(self) -> None:
        """Text is told as it is, in its own character set; nothing at all is said to be so."""
        self.assertEqual(self.spoken("Schön\n".encode("latin-1"), "text/plain; charset=ISO-8859-1"), "Schön")
        self.assertEqual(self.spoken(b"\xef\xbb\xbfhello", "text/plain; charset=nonsense"), "hello")
        self.assertIn("nothing", self.spoken(b" \n", ""))

    def test_not_text(self) -> None:
        """A picture is no answer."""
        self.assertRaises(ToolFailed, self.spoken, bytes(range(256)), "image/png")

    def test_long(self) -> None:
        """A long reply is cut, and the model is told so."""
        said = self.spoken(b"x" * 60_000, "text/plain")
        self.assertLess(len(said), tools.SPOKEN + 50)
        self.assertTrue(said.endswith("(cut off here)"))

    @given(st.binary(max_size=200), st.text(max_size=40))
    def test_noise(self, reply: bytes, kind: str) -> None:
        """No reply raises anything but ToolFailed."""
        try:
            self.assertTrue(tools.spoken(reply, kind))
        except ToolFailed:
            return
