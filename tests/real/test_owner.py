"""The owner of a bot with a browser: its manner, its sentences, a call that is up, its recording, its account."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from extenbot.media import g711
from extenbot.web import wav
from tests.real.audio import LOUD, SILENCE
from tests.real.caller import Caller
from tests.real.harness import Service, new_folder, scripts
from tests.web.chromium import need_chromium, page_of

WELCOME = "Good morning, the bakery. What can I do for you?"
SORRY = "I am sorry, something went wrong. Please call again."
SCRIPT = f"""on greet: tone 440 for 1 s "{WELCOME}"
on speech: heard "Do you have rye bread today?"
"""


@pytest.mark.real
class Owner(SynchronousTestCase):
    def test_desk(self) -> None:
        """At a desk."""
        self.walk_at(1280)

    def test_phone(self) -> None:
        """The same at the width of a phone."""
        self.walk_at(390)

    def walk_at(self, width: int) -> None:
        need_chromium()
        service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=scripts(new_folder(self) / "voices", bakery=SCRIPT))
        with page_of(self, width) as (page, look):
            self.sign_up(page, service)
            self.manner(page, look)
            self.sentences(page, look)
            self.call(page, look, service)
            self.account(page, look)

    def sign_up(self, page: Any, service: Service) -> None:
        page.goto(f"http://127.0.0.1:{service.web}/signup")
        page.fill("#email", "baker@example.org")
        page.fill("#password", "correct horse battery")
        page.click("main button")
        page.click("text=Make the first bot")
        page.fill("#name", "Bakery")
        page.fill("#model", "sandbox-bakery")
        page.click("button:has-text('Make the bot')")

    def manner(self, page: Any, look: Callable[[str], None]) -> None:
        """Edit nearly everything, with two mistakes at first that cost nothing."""
        page.click("main >> text=Edit")
        look("owner-form")
        page.fill("#welcome", WELCOME)
        page.check("[name=greeting_exact][value=yes]")
        page.click("summary:has-text('When the voice fails')")
        page.fill("#failure_sentence", SORRY)
        page.click("summary:has-text('Turns and interruptions')")
        page.check("[name=barge_in][value=confirmed]")
        page.click("summary:has-text('Money')")
        page.fill("#cap_call", "0,50")
        page.click("summary:has-text('Recording')")
        page.check("[name=record][value=yes]")
        page.click("summary:has-text('Further destinations')")
        page.fill("#destination_1_name", "cakes")
        page.fill("#destination_1_uris", "no number")
        page.fill("#destination_1_when", "The caller wants a cake.")
        page.click("button:has-text('Save')")
        look("owner-wrong")
        self.assertIn("2 fields need another look", page.inner_text("main"))
        for name, typed in (
            ("welcome", WELCOME),
            ("cap_call", "0,50"),
            ("destination_1_uris", "no number"),
            ("destination_1_when", "The caller wants a cake."),
        ):
            self.assertEqual(page.input_value(f"#{name}"), typed)
        self.assertTrue(page.is_checked("[name=barge_in][value=confirmed]"))
        self.assertIn("With a decimal point", page.inner_text("#cap_call-problem"))
        page.fill("#cap_call", "0.50")
        page.fill("#destination_1_uris", "201")
        page.click("button:has-text('Save')")
        page.wait_for_selector("h1:text-is('Bakery')")
        self.assertIn("cakes", page.inner_text("section:has(#voice)"))

    def sentences(self, page: Any, look: Callable[[str], None]) -> None:
        """One is made by the voice, the other uploaded; both can be heard, a wrong file is told."""
        self.assertEqual(page.inner_text("section:has(#sentences)").count("There is no audio yet"), 2)
        look("owner-sentences")
        greeting, failure = "[aria-labelledby=greeting-title]", "[aria-labelledby=failure-title]"
        page.click(f"{greeting} >> text=Let the bot say it")
        page.wait_for_selector(f"{greeting} audio")
        self.assertIn("The voice said exactly this.", page.inner_text(greeting))
        folder = new_folder(self)
        page.set_input_files("#failure-file", self.file(folder, "song.wav", b"ID3 no WAV"))
        page.click(f"{failure} >> text=Upload")
        page.wait_for_selector("#failure-problem")
        self.assertEqual(page.evaluate("document.activeElement.id"), "failure-problem")
        look("owner-wrong-file")
        sound = wav.written(g711.tone("PCMU", 660, 1500))
        page.set_input_files("#failure-file", self.file(folder, "sorry.wav", sound))
        page.click(f"{failure} >> text=Upload")
        page.wait_for_selector(f"{failure} audio")
        for part, seconds in ((greeting, 1.0), (failure, 1.5)):
            self.assertApproximates(self.plays(page, f"{part} audio"), seconds, 0.1)
        look("owner-sentences-there")
        page.set_input_files("#failure-file", self.file(folder, "long.wav", bytes(13_000_000)))
        self.assertIn("larger than 12 MB", page.evaluate("document.getElementById('failure-file').validationMessage"))

    def call(self, page: Any, look: Callable[[str], None], service: Service) -> None:
        """The call is seen while it is up, ended from the page, and its recording can be heard."""
        user, password = (page.inner_text(f".copyable:has([aria-label='Copy {label}']) code") for label in LABELS)
        caller = Caller(self, service.sip, user, password)
        self.assertEqual(caller.register().code, 200)
        caller.call()
        [end] = caller.audio.ends
        caller.audio.wait_for_tone(440)
        caller.audio.wait_for(60)
        end.says = LOUD
        caller.audio.wait_for(40)
        end.says = SILENCE
        caller.audio.wait_for_tone(440)
        page.click("nav >> text=Calls")
        page.wait_for_selector("[data-call]")
        self.assertIn(user, page.inner_text("#live"))
        look("owner-live")
        page.click("[data-call] >> text=Hang up")
        caller.wait_for_bye()
        [record] = service.records()
        page.reload()
        look("owner-calls")
        page.click(f"a[href='/calls/{record['id']}']")
        self.assertIn("ended on the pages", page.inner_text("main"))
        self.assertGreater(self.plays(page, "section:has(#recording) audio"), 2)
        self.assertIn("one answer, after", page.inner_text("section:has(#answers)"))
        look("owner-call")

    def account(self, page: Any, look: Callable[[str], None]) -> None:
        """Money and password."""
        page.click("nav >> text=Account")
        look("owner-account")
        page.fill("#cap_day", "much")
        page.click("text=Save the cap")
        self.assertEqual(page.input_value("#cap_day"), "much")
        look("owner-account-wrong")
        page.fill("#cap_day", "20")
        page.click("text=Save the cap")
        self.assertIn("of $20.00", page.inner_text("main"))
        for name, word in (("old", "correct horse battery"), ("new", "another horse"), ("again", "another horse")):
            page.fill(f"#{name}", word)
        page.click("text=Change the password")
        self.assertIn("The password is changed", page.inner_text("main"))
        look("owner-account-changed")
        page.click("nav >> text=Bots")
        look("owner-bots")

    def file(self, folder: Path, name: str, content: bytes) -> str:
        path = folder / name
        path.write_bytes(content)
        return str(path)

    def plays(self, page: Any, audio: str) -> float:
        """How long the player says it is, seconds, once the browser has taken it as sound."""
        loaded = """audio => new Promise((done, failed) => {
            audio.onerror = () => failed(audio.error.message);
            audio.onloadedmetadata = () => done(audio.duration);
            audio.load();
        })"""
        seconds: float = page.eval_on_selector(audio, loaded)
        return seconds


LABELS = ("Username", "Password")
