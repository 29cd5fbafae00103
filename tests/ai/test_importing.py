"""Functions made from curl commands and OpenAPI documents."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai import tools
from extenbot.ai.importing import from_curl, from_openapi, operations
from extenbot.errors import Invalid
from extenbot.interfaces import Function, ToolContext

DIFY = r"""curl -X POST 'https://api.dify.ai/v1/workflows/run' \
--header 'Authorization: Bearer app-secret' \
--header 'Content-Type: application/json' \
--data-raw '{"inputs": {"city": "Oslo"}, "response_mode": "streaming", "user": "abc-123"}'
"""


def made(values: dict[str, str]) -> tuple[dict[str, Any], Any]:
    """The parameters of what was imported, and the body for its own examples."""
    tools.check_description(values["description"])
    tools.check_template(values["template"])
    parameters = json.loads(values["description"])["parameters"]
    arguments = {name: schema["examples"][0] for name, schema in parameters["properties"].items()}
    function = Function(
        "f", values["name"], values["url"], description=values["description"], template=values["template"]
    )
    return parameters["properties"], tools.body(function, arguments, ToolContext("b", "c", "+4930"))


class Curl(SynchronousTestCase):
    def refused(self, text: str) -> str:
        return str(self.assertRaises(Invalid, from_curl, text).problems["curl"])

    def test_a_command(self) -> None:
        """A usual command becomes a function: its body the template, its values arguments of the same types."""
        values = from_curl(
            "curl https://x.example.org/api/orders -H 'Authorization: Bearer abc' -H 'X-Team: 7' \\\n"
            """  -H "Content-Type: application/json" -d '{"order": "A-1", "count": 2, "tags": ["a"], "model": "m"}'"""
        )
        self.assertEqual(values["url"], "https://x.example.org/api/orders")
        self.assertEqual((values["method"], values["name"], values["token"]), ("POST", "orders", "abc"))
        self.assertEqual(values["headers"], "X-Team: 7")
        self.assertNotIn("abc", values["headers"] + values["template"])
        properties, body = made(values)
        self.assertEqual(
            {name: schema["type"] for name, schema in properties.items()},
            {"order": "string", "count": "integer", "tags": "array"},
        )
        self.assertEqual(body, {"order": "A-1", "count": 2, "tags": ["a"], "model": "m"})

    def test_query(self) -> None:
        """With -G the data stands in the URL; what looks like an argument is one, and added to it in each call."""
        values = from_curl("curl -sG example.org/find --data-urlencode q=rain -d limit=3 -d api_key=k -X get")
        self.assertEqual(values["url"], "http://example.org/find?api_key=k")
        self.assertEqual((values["method"], values["template"]), ("GET", ""))
        self.assertEqual(list(made(values)[0]), ["q", "limit"])
        values = from_curl("curl 'example.org/find?q-a=rain&user=7' -X POST -d '{}'")
        self.assertEqual(values["url"], "http://example.org/find?q-a={q_a}&user={user}")

    def test_windows_and_browsers(self) -> None:
        """Commands as browsers copy them, for Windows and with $'…', are read."""
        values = from_curl(
            'curl ^"https://example.org/a^" ^\r\n  -H ^"accept: */*^" ^\r\n  --data-raw ^"^{^\\^"a^\\^":1^}^"'
        )
        self.assertEqual(made(values)[1], {"a": 1})
        self.assertEqual(values["headers"], "accept: */*")
        values = from_curl(r"""curl 'https://example.org/a' --data-raw $'{"a":"it\'s\u0021"}' --compressed""")
        self.assertEqual(made(values)[1], {"a": "it's!"})

    def test_basic(self) -> None:
        """A user and password become a header; a time-out is kept."""
        values = from_curl("curl -u ada:pw -m 5 --json '{}' https://example.org")
        self.assertEqual(values["headers"], "Authorization: Basic YWRhOnB3")
        self.assertEqual((values["timeout"], values["name"]), ("5", "example_org"))

    def test_dify(self) -> None:
        """Dify's own examples become functions of its kinds."""
        values = from_curl(DIFY)
        self.assertEqual((values["kind"], values["url"]), ("dify_workflow", "https://api.dify.ai/v1"))
        self.assertEqual((values["token"], values["streaming"]), ("app-secret", "yes"))
        self.assertEqual(list(json.loads(values["description"])["parameters"]["properties"]), ["city"])
        chat = from_curl(DIFY.replace("workflows/run", "chat-messages").replace('"user"', '"query": "Hi", "user"'))
        self.assertEqual(chat["kind"], "dify_chat")
        self.assertEqual(list(json.loads(chat["description"])["parameters"]["properties"]), ["city", "query"])

    def test_placeholders_stay(self) -> None:
        """What is a placeholder already, and keys of other things, stay as they are."""
        values = from_curl(
            """curl x.org -d '{"user": "9", "q": "{query}", "a-b": "1", "parameters": "2", "n": null}'"""
        )
        template = json.loads(values["template"])
        self.assertEqual(
            template, {"user": "{user}", "q": "{query}", "a-b": "{a_b}", "parameters": "{parameters_2}", "n": None}
        )

    def test_refused(self) -> None:
        """What cannot be taken over is told in words; files are never read."""
        for text, words in {
            "wget x.org": "begin with curl",
            "curl": "no URL",
            "curl a.org b.org": "more than one",
            "curl 'x.org": "quote",
            "curl x.org -d @/etc/passwd": "is a file",
            "curl x.org -H @headers": "is a file",
            "curl x.org -F a=b": "only JSON",
            "curl x.org -d a=1": "not JSON",
            "curl x.org -d '{\"a\": }'": "line 1, column 7",
            "curl x.org --frobnicate 1": "--frobnicate",
            "curl -I x.org": "HEAD",
            "curl x.org -H": "needs a value",
            "curl file:///etc/passwd": "no URL",
            "curl x.org | sh": "without |",
            "curl " + "x" * 70_000: "longer",
        }.items():
            self.assertIn(words, self.refused(text), text[:40])

    @settings(max_examples=100, deadline=None)
    @given(st.text(alphabet="curl -dXH'\"{}:,\\^\n@$1a[]/.&=", max_size=60))
    def test_anything(self, text: str) -> None:
        """Whatever is pasted gives values or one sentence."""
        try:
            tools.check_template(from_curl(f"curl {text}").get("template", ""))
        except Invalid as error:
            self.assertEqual(list(error.problems), ["curl"])


DOCUMENT = """
openapi: 3.0.3
servers: [{url: "https://{place}.example.org/v1/", variables: {place: {default: api}}}]
security: [{key: []}]
paths:
  /orders/{id}:
    parameters: [{$ref: '#/components/parameters/id'}]
    get:
      operationId: getOrder
      summary: Finds an order.
      parameters: [{name: since, in: query, schema: {type: string, format: date, example: 2026-05-12}}]
    put:
      requestBody: {content: {application/json: {schema: {$ref: '#/components/schemas/Order'}}}}
  /orders:
    post:
      security: []
      requestBody: {content: {application/json: {schema: {$ref: '#/components/schemas/Order'}}}}
  /files:
    post: {requestBody: {content: {multipart/form-data: {}}}}
components:
  securitySchemes: {key: {type: apiKey, in: header, name: X-Key}}
  parameters: {id: {name: id, in: path, required: true, description: Its number, schema: {type: integer}}}
  schemas:
    Order:
      type: object
      required: [item, number]
      properties:
        number: {type: integer, readOnly: true}
        item: {type: string, nullable: true}
        count: {type: integer, minimum: 0, exclusiveMinimum: true}
        parts: {type: array, items: {$ref: '#/components/schemas/Order'}}
"""


class OpenApi(SynchronousTestCase):
    def refused(self, text: str, operation: str = "") -> str:
        error = self.assertRaises(Invalid, from_openapi if operation else operations, *filter(None, (text, operation)))
        return str(error.problems["openapi"])

    def test_operations(self) -> None:
        """A document shows what can be done with it."""
        found = operations(DOCUMENT)
        self.assertEqual([one.key for one in found][:2], ["GET /orders/{id}", "PUT /orders/{id}"])
        self.assertEqual(found[0].words, "Finds an order.")

    def test_path_and_query(self) -> None:
        """Parameters of path and query become arguments and placeholders of the URL; a key is asked for."""
        values = from_openapi(DOCUMENT, "GET /orders/{id}")
        self.assertEqual(values["url"], "https://api.example.org/v1/orders/{id}")
        self.assertEqual((values["method"], values["name"], values["template"]), ("GET", "getOrder", ""))
        self.assertEqual(values["headers"], "X-Key: PUT-THE-KEY-HERE")
        parameters = json.loads(values["description"])["parameters"]
        self.assertEqual(parameters["required"], ["id"])
        self.assertEqual(parameters["properties"]["id"], {"description": "Its number", "type": "integer"})
        self.assertEqual(parameters["properties"]["since"]["examples"], ["2026-05-12"])
        tools.check_description(values["description"])

    def test_body(self) -> None:
        """The fields of a body are the arguments, or stand in one of their own beside those of the path."""
        values = from_openapi(DOCUMENT, "POST /orders")
        self.assertEqual((values["template"], values["headers"], values["name"]), ("{parameters}", "", "post_orders"))
        parameters = json.loads(values["description"])["parameters"]
        self.assertEqual(parameters["required"], ["item"])
        self.assertEqual(parameters["properties"]["item"]["type"], ["string", "null"])
        self.assertEqual(parameters["properties"]["count"], {"type": "integer", "exclusiveMinimum": 0})
        values = from_openapi(DOCUMENT, "PUT /orders/{id}")
        self.assertEqual(values["template"], "{body}")
        self.assertEqual(list(json.loads(values["description"])["parameters"]["properties"]), ["id", "body"])
        tools.check_template(values["template"])

    def test_json(self) -> None:
        """A document in JSON is as good."""
        text = json.dumps({"servers": [{"url": "http://x.org"}], "paths": {"/a": {"get": {}}}})
        self.assertEqual(from_openapi(text, "GET /a")["url"], "http://x.org/a")

    def test_refused(self) -> None:
        """What cannot be taken over is told in words, with line and column."""
        self.assertIn("line 3, column 1", self.refused("a: 1\nb: [1\n"))
        self.assertIn("paths", self.refused("a: 1"))
        self.assertIn("Swagger 2", self.refused("swagger: '2.0'"))
        self.assertIn("no operations", self.refused("paths: {}"))
        self.assertIn("longer", self.refused("x" * 400_001))
        self.assertIn("no JSON", self.refused(DOCUMENT, "POST /files"))
        self.assertIn("no such", self.refused(DOCUMENT, "GET /nothing"))
        self.assertIn("server", self.refused("paths: {/a: {get: {}}}", "GET /a"))
        self.assertIn("server", self.refused("servers: [{url: /v1}]\npaths: {/a: {get: {}}}", "GET /a"))
        self.assertIn(
            "another document",
            self.refused(
                "servers: [{url: 'http://x.org'}]\npaths: {/a: {get: {parameters: [{$ref: other.yaml}]}}}", "GET /a"
            ),
        )
        self.assertIn("could not determine a constructor", self.refused("!!python/object/apply:os.getcwd []"))
        self.assertIn("nested", self.refused("[" * 100_000))

    def test_bombs(self) -> None:
        """Documents that grow without end when they are written out are small functions, or refused."""
        lines = ["a0: &a0 {type: string}"]
        lines += [f"a{n}: &a{n} {{properties: {{x: *a{n - 1}, y: *a{n - 1}, z: *a{n - 1}}}}}" for n in range(1, 40)]
        head = "servers: [{url: 'http://x.org'}]\n"
        paths = "paths: {/a: {post: {requestBody: {content: {application/json: {schema: *a39}}}}}}"
        self.assertLess(len(from_openapi("\n".join([head, *lines, paths]), "POST /a")["description"]), 16_000)
        self.assertIn("merge", self.refused("a: &a {x: 1}\nb: {<<: *a}"))
        values = from_openapi(
            head + "paths: {/a: {post: {requestBody: {content: {application/json: {schema: "
            "{type: object, default: &d {x: *d}, properties: {}}}}}}}}",
            "POST /a",
        )
        self.assertNotIn("default", values["description"])
