"""The form of a bot, field by field."""

from __future__ import annotations

import re
from dataclasses import asdict

from extenbot.interfaces import Destination, Manner
from extenbot.manner import MANNER
from extenbot.web.form import FRESH, written
from tests.web.browser import Page
from tests.web.rig import EVIL, Pages

TYPED = {
    "turn_detection": "semantic_vad", "vad_threshold": "0.65", "vad_padding": "200", "vad_silence": "700",
    "vad_eagerness": "low", "barge_in": "confirmed", "greeting_interruptible": "no", "echo_gate": "no",
    "dialect": "azure", "noise_reduction": "far_field", "transcription_model": "gpt-live-transcribe",
    "transcription_language": "de", "speed": "1.15", "reasoning": "low", "parallel_tools": "no",
    "max_output_tokens": "900", "extra": '{"tracing": "auto"}', "response_timeout": "6.5", "dtmf_inband": "yes",
    "silence": "0", "longest": "45", "greeting_exact": "yes", "refusal": "302", "refusal_uri": "sip:9@10.8.0.1",
    "failure_sentence": "I am sorry.", "failure_uri": "tel:+4930123456", "cap_call": "1.25", "cap_day": "20",
    "record": "yes", "record_notice": "This call is recorded.",
}  # fmt: skip
HOOKS = {
    "before_url": "https://example.org/before", "after_url": "https://example.org/after",
    "hook_token": "hush-token", "hook_secret": "hush-secret",
}  # fmt: skip
WRONG = {
    "vad_threshold": "loud", "vad_padding": "-1", "vad_silence": "9 s", "transcription_language": "German",
    "speed": "9", "max_output_tokens": "lots", "extra": "{\n  nonsense", "response_timeout": "0,5", "silence": "1",
    "longest": "99999", "failure_uri": "nowhere", "cap_call": "$5", "cap_day": "-3", "refusal": "404",
    "barge_in": "maybe", "vad_eagerness": "much", "echo_gate": "perhaps",
}  # fmt: skip
CHOSEN = {name for name, field in MANNER.items() if field.kind in ("choice", "flag")} | {"dialect"}


class BotForm(Pages):
    def shown(self, page: Page) -> dict[str, str]:
        """All of the manner, as it stands in the form."""
        found = {}
        for name, field in MANNER.items():
            found[name] = page.chosen(name) if name in CHOSEN else page.value(name)
            if field.kind == "flag":
                found[name] = found[name] or "no"
        return found

    def test_everything(self) -> None:
        """Each field of a bot's manner can be set, is kept, and is shown again."""
        self.assertEqual(TYPED.keys(), set(MANNER))
        browser = self.sign_up()
        path = self.a_bot(browser, **TYPED)
        [bot] = self.store.bots.all()
        kept = {name: written(name, value) for name, value in asdict(bot.manner).items()}
        self.assertEqual(kept, TYPED)
        self.assertEqual(self.shown(browser.get(f"{path}/edit")), TYPED)

    def test_defaults(self) -> None:
        """A new form shows what is in force when nobody touches it, and nothing in it is unfolded."""
        browser = self.sign_up()
        page = browser.get("/settings/bots/new")
        self.assertEqual(self.shown(page), {name: FRESH[name] for name in MANNER})
        self.assertNotRegex(page.text, "<details[^>]* open")
        path = self.a_bot(browser, **self.shown(page))
        self.assertEqual(self.store.bots.all()[0].manner, Manner())
        self.assertNotRegex(browser.get(f"{path}/edit").text, "<details[^>]* open")

    def test_folded(self) -> None:
        """Cards that are folded tell what is in force, and are open where something is wrong."""
        browser = self.sign_up()
        usual = (
            "Callers can interrupt at once", "None",
            "Silent callers are asked after 15 s, calls last 120 minutes at most",
            "Callers hear three tones, then the call ends", "No cap", "Off",
        )  # fmt: skip
        page = browser.get("/settings/bots/new")
        self.assertEqual(self.in_force(page), usual)
        set_ = (
            "Callers can interrupt by 300 ms of speech", "Asked or told: before each call and after it",
            "Callers may be silent, calls last 45 minutes at most",
            "Callers hear your sentence, then are transferred", "At most $1.25 a call and $20.00 a day",
            "Calls are recorded",
        )  # fmt: skip
        page = browser.get(self.a_bot(browser, **TYPED, **HOOKS) + "/edit")
        self.assertEqual(self.in_force(page), set_)
        self.assertEqual(page.text.count('<details class="card fold">'), 6)
        page = browser.send("/settings/bots/new", name="Ada", kind="registrar", cap_day="much", barge_in=EVIL)
        self.assertEqual(page.text.count('<details class="card fold" open>'), 2)

    def test_webhooks(self) -> None:
        """The webhooks around a call are set and changed; their secrets are never shown again, and can be forgotten."""
        browser = self.sign_up()
        path = self.a_bot(browser, **HOOKS)
        for page in (browser.get(path), browser.get(f"{path}/edit")):
            self.assertIn("https://example.org/before", page.text)
            self.assertIn("https://example.org/after", page.text)
            self.assertNotIn("hush-", page.text)
        self.assertIn("token set, signed", browser.get(path).text)
        fields = {"name": "Ada", "kind": "registrar", "enabled": "on", "hook_token": "", "hook_secret": ""}
        browser.send(f"{path}/edit", **fields, forget_hook_token="on", before_url="")
        [bot] = self.store.bots.all()
        self.assertEqual((bot.hook_token, bot.hook_secret), ("", "hush-secret"))
        self.assertEqual((bot.before_url, bot.after_url), ("", "https://example.org/after"))
        page = browser.send(f"{path}/edit", **fields, after_url="nowhere", before_url=EVIL)
        self.assertTrue(page.problem("after_url") and page.problem("before_url"))
        self.assertNotIn("<script>alert", page.text)

    def in_force(self, page: Page) -> tuple[str, ...]:
        return tuple(re.findall(r'<summary><h2>[^<]+</h2> <span class="hint">([^<]*)</span>', page.text))

    def test_cleared(self) -> None:
        """A number that is cleared has its default again."""
        browser = self.sign_up()
        path = self.a_bot(browser, **TYPED)
        cleared = {name: "" for name, field in MANNER.items() if field.kind not in ("choice", "flag")} | {"refusal": ""}
        browser.send(f"{path}/edit", name="Ada", kind="registrar", **(TYPED | cleared))
        manner = self.store.bots.all()[0].manner
        self.assertEqual({name: getattr(manner, name) for name in cleared}, {n: getattr(Manner(), n) for n in cleared})
        self.assertEqual(manner.barge_in, "confirmed")

    def test_wrong(self) -> None:
        """Each wrong value gets a sentence, nothing that was typed is lost, and what is wrong is unfolded."""
        browser = self.sign_up()
        page = browser.send("/settings/bots/new", name="Ada", kind="registrar", **(TYPED | WRONG))
        self.assertEqual(page.code, 422)
        for name in WRONG:
            self.assertTrue(page.problem(name).endswith("."), name)
        for name in TYPED.keys() - WRONG.keys():
            self.assertFalse(page.problem(name), name)
        typed = TYPED | WRONG
        for name, text in typed.items():
            if name not in CHOSEN:
                self.assertEqual(page.value(name), text, name)
        for name in ("refusal", "vad_eagerness", "noise_reduction"):
            self.assertEqual(page.chosen(name), typed[name], name)
        self.assertIn(f"{len(WRONG)} fields need another look", page.text)
        folded = (
            "A PBX that cannot register",
            "The way to the PBX",
            "More rows",
            "Recording",
            "Webhooks",
        )  # nothing wrong in them
        for part in re.findall(r"<details[^>]*>(?:(?!</details>).)*", page.text, re.DOTALL):
            opened = "<details open" in part or 'fold" open' in part
            self.assertEqual(opened, not any(title in part for title in folded), part[:80])
        self.assertEqual(self.store.bots.all(), [])

    def test_destinations(self) -> None:
        """Several named destinations, each with what it is for; a row that is emptied goes away."""
        browser = self.sign_up()
        fields = {
            "destination_1_name": "sales", "destination_1_uris": "201 sip:202@10.8.0.1",
            "destination_1_when": "The caller wants to buy.",
            "destination_2_name": "", "destination_2_uris": "", "destination_2_when": "",
            "destination_3_name": "boss", "destination_3_uris": "tel:+4930123456", "destination_3_when": "",
        }  # fmt: skip
        self.assertEqual(browser.get("/settings/bots/new").text.count("<legend>Destination "), 6)
        path = self.a_bot(browser, **fields)
        sales = Destination("sales", "201 sip:202@10.8.0.1", "The caller wants to buy.")
        self.assertEqual(self.store.bots.all()[0].destinations, (sales, Destination("boss", "tel:+4930123456")))
        page = browser.get(f"{path}/edit")
        self.assertEqual(page.value("destination_1_when"), sales.when)
        self.assertEqual(page.value("destination_2_name"), "boss")
        self.assertIn("sales", browser.get(path).text)
        empty = {name: "" for name in fields if name.startswith("destination_1")}
        boss = {name.replace("3", "2"): text for name, text in fields.items() if "_3_" in name}
        browser.send(f"{path}/edit", name="Ada", kind="registrar", **empty, **boss)
        self.assertEqual([row.name for row in self.store.bots.all()[0].destinations], ["boss"])
        browser.send(f"{path}/edit", name="Ada", kind="registrar")
        self.assertEqual(len(self.store.bots.all()[0].destinations), 1)

    def test_wrong_destination(self) -> None:
        """A wrong row is told by its number and comes back as it was typed."""
        browser = self.sign_up()
        fields = {f"destination_{number}_{part}": "" for number in range(1, 7) for part in ("name", "uris", "when")}
        fields |= {"destination_3_name": EVIL, "destination_3_uris": EVIL}
        page = browser.send("/settings/bots/new", name="Ada", kind="registrar", **fields)
        self.assertIn("Destination 3", page.problem("destinations"))
        self.assertEqual((page.value("destination_3_name"), page.value("destination_3_uris")), (EVIL, EVIL))
        self.assertNotIn("<script>alert", page.text)

    def test_more_destinations_than_rows(self) -> None:
        """Destinations that were made elsewhere are all in the form, and none is lost by it."""
        browser = self.sign_up()
        path = self.a_bot(browser)
        rows = [Destination(f"d{number}", str(200 + number)) for number in range(9)]
        bot_id = path.rsplit("/", 1)[-1]
        self.store.bots.edit(bot_id, {"destinations": rows})
        page = browser.get(f"{path}/edit")
        fields = {
            f"destination_{number}_{part}": page.value(f"destination_{number}_{part}")
            for number in range(1, 11)
            for part in ("name", "uris", "when")
            if number < 10 or f"destination_{number}_name" in page.text
        }
        browser.send(f"{path}/edit", name="Ada", kind="registrar", **fields)
        self.assertEqual(list(self.store.bots.all()[0].destinations), rows)
