"""The pages of functions and MCP servers, as a browser sees them."""

from __future__ import annotations

import html
from typing import Any

from markupsafe import escape

from extenbot.web.abilities import EXAMPLES
from tests.web.browser import Browser, Page
from tests.web.rig import EVIL, Pages

NEW = "/settings/functions/new"
WEBHOOK = {"name": "Weather", "kind": "webhook", "url": "https://example.org/hook"}
MCP = {"label": "calendar", "url": "https://example.org/mcp"}


class FunctionPages(Pages):
    def setUp(self) -> None:
        super().setUp()
        self.mine = self.sign_up()

    def a_function(self, **fields: str) -> str:
        """The path of a new one."""
        page = self.mine.send(NEW, **WEBHOOK | fields)
        self.assertEqual(page.code, 303, page.text)
        return page.location.removesuffix("/run")

    def only(self) -> Any:
        [found] = [one for one, *_ in self.store.functions.all()]
        return found

    def test_main_flow(self) -> None:
        """A function is made, listed, changed and deleted."""
        self.assertIn("No function yet", self.mine.get("/settings/functions").text)
        path = self.a_function(waiting="One moment.", retries="2", speak="no", method="PUT")
        found = self.only()
        self.assertEqual((found.name, found.waiting, found.retries, found.speak), ("Weather", "One moment.", 2, False))
        self.assertIn("Weather", self.mine.get("/settings/functions").text)
        page = self.mine.get(path)
        self.assertEqual(
            (page.value("name"), page.chosen("kind"), page.chosen("method")), ("Weather", "webhook", "PUT")
        )
        self.assertEqual(page.chosen("speak"), "")
        self.mine.send(path, name="Rain", speak="yes", headers="")
        self.assertEqual((self.only().name, self.only().speak, self.only().retries), ("Rain", True, 2))
        self.assertIn("No bot uses it", self.mine.get(f"{path}/delete").text)
        self.assertEqual(self.mine.send(f"{path}/delete").location, "/settings/functions")
        self.assertEqual(self.mine.get(path).code, 404)

    def test_secrets(self) -> None:
        """Secrets and the values of headers are never shown again; they stay, change, or are forgotten."""
        path = self.a_function(token="abc-token", secret="abc-sign", headers="X-Key: abc-key\r\nX-Team: 7")
        page = self.mine.get(path)
        self.assertNotIn("abc-", page.text)
        self.assertEqual(page.value("headers"), "X-Key:\nX-Team:")
        self.mine.send(path, token="", secret="", headers="X-Key:\r\nX-Team: 8")
        found = self.only()
        self.assertEqual((found.token, found.secret), ("abc-token", "abc-sign"))
        self.assertEqual(found.headers, (("X-Key", "abc-key"), ("X-Team", "8")))
        self.mine.send(path, forget_token="on", secret="new", headers="")
        found = self.only()
        self.assertEqual((found.token, found.secret, found.headers), ("", "new", ()))

    def test_mistakes(self) -> None:
        """What is wrong is told at its field, with line and column; what was typed stays, secrets do not."""
        page = self.mine.send(
            NEW, **WEBHOOK, description='{\n  "name": }', template="[1,", timeout="soon", token="hush-hush-hush"
        )
        self.assertEqual(page.code, 422)
        self.assertIn("line 2, column 11", page.problem("description"))
        self.assertTrue(page.problem("template"))
        self.assertTrue(page.problem("timeout"))
        self.assertEqual((page.value("name"), page.value("template")), ("Weather", "[1,"))
        self.assertNotIn("hush-hush-hush", page.text)
        path = self.a_function()
        page = self.mine.send(path, name="", headers="X: 1")
        self.assertEqual((page.code, self.only().name), (422, "Weather"))
        self.assertTrue(page.problem("name"))

    def test_examples(self) -> None:
        """Each example fills the form in and can be saved as it is, exten.bot's own with its trailing comma."""
        for name, values in EXAMPLES.items():
            page = self.mine.get(f"{NEW}?example={name}")
            shown = {field: page.value(field) for field in ("name", "url", "description", "template")}
            self.assertEqual(shown, {field: values.get(field, "") for field in shown})
            self.assertEqual(self.mine.send(NEW, **shown | {"name": name}).code, 303)
        self.assertIn('"{function_name}",\n    },', EXAMPLES["exten"]["template"])
        self.assertEqual(self.mine.get(f"{NEW}?example=%00{EVIL}").value("name"), "")

    def test_injection(self) -> None:
        """Whatever is in names, URLs and headers is text on every page."""
        evil = f"https://example.org/{EVIL}"
        path = self.a_function(name=EVIL, url=evil, waiting=EVIL, headers=f"X-A: {EVIL}")
        server = self.mine.send("/settings/servers/new", **MCP | {"url": evil}, allowed=EVIL).location
        self.a_bot(self.mine, abilities="yes", **{f"function_{path.rsplit('/', 1)[-1]}": "on"})
        bot = f"/settings/bots/{self.store.bots.all()[0].id}"
        pages = ("/settings/functions", path, f"{path}/delete", f"{path}/run", "/settings/servers")
        for page in (*pages, server.removesuffix("/run"), bot, f"{bot}/edit"):
            shown = self.mine.get(page)
            self.assertEqual(shown.code, 200)
            self.assertNotIn("<script>alert", shown.text)
            self.assertIn(str(escape(EVIL)), shown.text)
        for wrong in (self.mine.send("/settings/servers/new", label=EVIL, url=EVIL), self.mine.send(NEW, kind=EVIL)):
            self.assertEqual(wrong.code, 422)
            self.assertNotIn("<script>alert", wrong.text)

    def test_links(self) -> None:
        """In the form of a bot one ticks what it may use; only what is one's own."""
        path = self.a_function(description=EXAMPLES["n8n"]["description"])
        server = self.mine.send("/settings/servers/new", **MCP).location.removesuffix("/run")
        boxes = {f"function_{path.rsplit('/', 1)[-1]}": "on", f"server_{server.rsplit('/', 1)[-1]}": "on"}
        bot = self.a_bot(self.mine, abilities="yes", **boxes)
        for page, words in (
            (bot, "Weather"),
            (bot, "calendar"),
            ("/settings/functions", "Ada"),
            (f"{path}/delete", "Ada"),
        ):
            self.assertIn(words, self.mine.get(page).text)
        edited = self.mine.get(f"{bot}/edit").text
        for name in boxes:
            self.assertIn(f'name="{name}" checked', edited)
        fields = {"name": "Ada", "kind": "registrar", "enabled": "on"}
        self.mine.send(f"{bot}/edit", **fields)
        [found] = self.store.bots.all()
        self.assertEqual((len(found.functions), len(found.servers)), (1, 1))
        twin = self.a_function(name="Twin", description=EXAMPLES["n8n"]["description"]).rsplit("/", 1)[-1]
        refused = self.mine.send(f"{bot}/edit", **fields, abilities="yes", **boxes, **{f"function_{twin}": "on"})
        self.assertIn("both called book_table", refused.problem("functions"))
        self.assertIn(f'name="function_{twin}" checked', refused.text)
        self.mine.send(f"{bot}/edit", **fields, abilities="yes")
        [found] = self.store.bots.all()
        self.assertEqual((found.functions, found.servers), ((), ()))
        other = self.sign_up("me@example.org")
        refused = other.send("/settings/bots/new", **fields, abilities="yes", **boxes)
        self.assertTrue(refused.problem("functions"))
        self.assertNotIn("Weather", other.get("/settings/bots/new").text)

    def test_others(self) -> None:
        """What belongs to somebody else is not there; those without a login are asked for one."""
        path = self.a_function()
        server = self.mine.send("/settings/servers/new", **MCP).location
        other = self.sign_up("me@example.org")
        token = other.get("/settings/functions/new").value("form_token")
        for where in (path, f"{path}/delete", server.removesuffix("/run"), "/settings/servers/nothing"):
            self.assertEqual(other.get(where).code, 404)
            self.assertEqual(other.ask("POST", where, data={"form_token": token, "name": "x"}).code, 404)
            self.assertEqual(Browser(self.resource).get(where).location, "/login")
            self.assertEqual(self.mine.ask("POST", where, data={"name": "x"}).code, 403)
        self.assertNotIn("Weather", other.get("/settings/functions").text)
        self.assertNotIn("example.org/mcp", other.get("/settings/servers").text)
        self.assertEqual(self.only().name, "Weather")

    def imported(self, **fields: str) -> Page:
        return self.mine.send("/settings/functions/import", **fields)

    def test_import(self) -> None:
        """A curl command becomes the form of a new function, which can be saved as it is."""
        page = self.imported(
            curl="curl https://x.org/find -H 'Authorization: Bearer t1' -H 'X-A: b' -d '{\"q\": \"rain\"}'"
        )
        self.assertEqual((page.code, page.value("name"), page.value("token")), (200, "find", "t1"))
        fields = {name: page.value(name) for name in ("name", "url", "description", "template", "token", "headers")}
        self.assertEqual(self.mine.send(NEW, **fields).code, 303)
        self.assertEqual((self.only().token, self.only().headers), ("t1", (("X-A", "b"),)))

    def test_import_mistakes(self) -> None:
        """What cannot be imported is told at its field; what was pasted stays."""
        page = self.imported(curl="wget <b>")
        self.assertEqual((page.code, page.value("curl")), (422, "wget <b>"))
        self.assertIn("curl", page.problem("curl"))
        page = self.imported(openapi="a: [")
        self.assertIn("line", page.problem("openapi"))

    def test_import_openapi(self) -> None:
        """Of a document one chooses an operation, then its form is there."""
        document = "servers: [{url: 'https://x.org'}]\npaths: {'/a/{id}': {get: {summary: '<b>'}}}"
        page = self.imported(openapi=document)
        self.assertIn("GET /a/{id} — &lt;b&gt;", page.text)
        page = self.imported(openapi=html.unescape(page.value("openapi")), operation="GET /a/{id}")
        self.assertEqual((page.value("url"), page.chosen("method")), ("https://x.org/a/{id}", "GET"))


class ServerPages(Pages):
    def only(self) -> Any:
        [found] = [one for one, *_ in self.store.servers.all()]
        return found

    def test_main_flow(self) -> None:
        """An MCP server is made, listed, changed and deleted; its key is never shown again."""
        mine = self.sign_up()
        self.assertIn("No MCP server yet", mine.get("/settings/servers").text)
        at = mine.send(
            "/settings/servers/new",
            **MCP,
            key="abc-key",
            allowed="a\r\nb",
            approval="yes",
            by="provider",
            headers="X-A: abc-value",
        ).location.removesuffix("/run")
        found = self.only()
        self.assertEqual(
            (found.key, found.allowed, found.approval, found.by), ("abc-key", ("a", "b"), True, "provider")
        )
        page = mine.get(at)
        self.assertNotIn("abc-", page.text)
        self.assertEqual(
            (page.value("allowed"), page.chosen("approval"), page.chosen("by")), ("a\nb", "yes", "provider")
        )
        self.assertIn("the voice service", mine.get("/settings/servers").text)
        mine.send(at, label="shop", key="", wait="0.5", headers=page.value("headers"))
        found = self.only()
        self.assertEqual(
            (found.label, found.key, found.wait, found.headers), ("shop", "abc-key", 0.5, (("X-A", "abc-value"),))
        )
        mine.send(at, forget_key="on")
        self.assertEqual(self.only().key, "")
        page = mine.send(at, label="", timeout="x")
        self.assertTrue(page.problem("label") and page.problem("timeout"))
        self.assertEqual(mine.send(f"{at}/delete").location, "/settings/servers")
        self.assertEqual(mine.get(at).code, 404)
