"""What people need who hear the pages or use no mouse: every control has a name, every reference leads somewhere."""

from __future__ import annotations

from html.parser import HTMLParser

from extenbot.interfaces import Event, Exchange, LiveCall
from extenbot.media import g711
from extenbot.web.seams import Ran
from tests.store.examples import record
from tests.web.rig import Pages

EMPTY = frozenset({"input", "img", "meta", "link", "br", "hr"})
CONTROLS = frozenset({"input", "select", "textarea"})
REFERENCES = ("for", "aria-describedby", "aria-labelledby", "list", "data-copies")


class Outline(HTMLParser):
    """The elements of a page, each with its attributes, its text and what it stands in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(self._open))
        self.elements.append(element)
        if tag not in EMPTY:
            self._open.append(element)

    def handle_endtag(self, _tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data


class Element:
    def __init__(self, tag: str, attributes: dict[str, str], inside: tuple[Element, ...]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.inside = inside
        self.text = ""

    def __repr__(self) -> str:
        return f"<{self.tag} {self.attributes}>"


class Labels(Pages):
    def pages(self) -> dict[str, str]:
        """Every page that has something to fill in, press or play, with mistakes and without."""
        browser = self.sign_up()
        path = self.a_bot(
            browser,
            welcome="Hello.",
            greeting_exact="yes",
            failure_sentence="Sorry.",
            cap_day="1",
            trusted="10.0.0.0/8",
        )
        function = browser.send("/settings/functions/new", name="Weather", url="https://example.org", token="t")
        function_path = function.location.removesuffix("/run")
        server = browser.send("/settings/servers/new", label="calendar", url="https://example.org/mcp", key="k")
        server_path = server.location.removesuffix("/run")
        browser.send(f"{path}/edit", name="Ada", kind="registrar", abilities="yes", hook_token="t", hook_secret="s")
        [bot] = self.store.bots.all()
        sound = g711.tone("PCMU", 440, 300)
        for text in ("Hello.", "Not said any more."):
            self.store.sentences.save(bot.id, text, sound, "synthesised", "Hello!")
        self.store.sentences.load()
        turns = tuple(Event(float(at), "turn", {"after": "speech", "first_audio": 300, "wire": 330}) for at in (1, 2))
        (self.recordings / "c1.wav").write_bytes(b"RIFF")
        self.store.records.save(record(bot.account_id, bot.id, events=turns))
        self.up = [LiveCall("c7", bot.id, bot.account_id, "100", "openai", False, "talking", 1.0, 1.0, 0.1)]
        shown: tuple[str, ...] = (
            "/settings/bots",
            "/settings/bots/new",
            path,
            f"{path}/edit",
            f"{path}/delete",
            "/calls",
            "/calls/c1",
        )
        shown += ("/settings/functions", "/settings/functions/new", "/settings/functions/import", function_path)
        shown += (f"{function_path}/run", f"{function_path}/delete", "/settings/servers", "/settings/servers/new")
        shown += (server_path, f"{server_path}/run", f"{server_path}/delete")
        found = {page: browser.get(page).text for page in (*shown, "/settings/account")}
        cap = browser.send("/settings/account/cap", at="/settings/account", cap_day="x")
        wrong = dict.fromkeys(("kind", "cap_day", "refusal_uri", "destination_1_name", "vad_silence", "barge_in"), "?")
        rows = {"destination_1_uris": "", "destination_1_when": ""}
        form = browser.send(f"{path}/edit", **(wrong | rows))
        make = browser.send(f"{path}/sentences/failure/make", at=path)
        function = browser.send("/settings/functions/new", **dict.fromkeys(("description", "timeout", "headers"), "?"))
        curl = browser.send("/settings/functions/import", curl="?")
        self.assertEqual([page.code for page in (cap, form, make, function, curl)], [422] * 5)
        self.tools = ({"name": "add", "parameters": {}}, {"name": "echo", "parameters": {}})
        self.ran = Ran((Exchange("POST", "https://x.org", (("A", "1"),), "{}", 200, (("B", "2"),), "{}"),), "Two.")
        ran = browser.send(f"{function_path}/run", arguments="{}")
        tried = browser.send(f"{server_path}/run", tool="echo", arguments="{}")
        found |= {"wrong function": function.text, "wrong curl": curl.text, "ran": ran.text, "tried": tried.text}
        return found | {"wrong cap": cap.text, "wrong form": form.text, "wrong sentence": make.text}

    def test_labels(self) -> None:
        """Each control has a name, each group a title, and each reference and id is unique and leads somewhere."""
        for name, text in self.pages().items():
            elements = Outline(text).elements
            ids = [element.attributes["id"] for element in elements if "id" in element.attributes]
            self.assertEqual(sorted(ids), sorted(set(ids)), name)
            labelled = {element.attributes.get("for") for element in elements if element.tag == "label"}
            for element in elements:
                attributes = element.attributes
                for reference in REFERENCES:
                    self.assertEqual(set(attributes.get(reference, "").split()) - set(ids), set(), (name, element))
                hidden = attributes.get("type") == "hidden" or "hidden" in attributes
                if element.tag in CONTROLS and not hidden:
                    within = any(outer.tag == "label" for outer in element.inside)
                    self.assertTrue(within or attributes.get("id") in labelled, (name, element))
                if element.tag in ("button", "a", "summary"):
                    self.assertTrue(element.text.strip() or attributes.get("aria-label"), (name, element))
                if element.tag == "audio":
                    self.assertTrue({"aria-label", "aria-labelledby"} & attributes.keys(), (name, element))
                if element.tag == "fieldset":
                    inner = [each.tag for each in elements if each.inside and each.inside[-1] is element]
                    self.assertEqual(inner[0], "legend", (name, element))

    def test_keyboard(self) -> None:
        """Nothing takes the order of the tab key away, and nothing that can be pressed is left out of it."""
        for name, text in self.pages().items():
            for element in Outline(text).elements:
                index = element.attributes.get("tabindex", "0")
                allowed = ("0", "-1") if element.tag == "p" else ("0",)
                self.assertIn(index, allowed, (name, element))

    def test_tokens(self) -> None:
        """Each form that changes something carries the token of whoever sees it."""
        for name, text in self.pages().items():
            elements = Outline(text).elements
            forms = [element for element in elements if element.tag == "form"]
            self.assertTrue(forms, name)
            for form in forms:
                own = [each.attributes.get("name") for each in elements if form in each.inside]
                self.assertEqual((form.attributes["method"], own.count("form_token")), ("post", 1), (name, form))
