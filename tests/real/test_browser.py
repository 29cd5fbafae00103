"""A person with a browser and a phone: from the first page to what was said in the first call."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.real.audio import LOUD, SILENCE
from tests.real.caller import Caller
from tests.real.harness import Service, new_folder, scripts
from tests.web.chromium import need_chromium, page_of

SCRIPT = """on greet: tone 440 for 1 s "Good morning, the bakery. What can I do for you?"
on speech:
    heard "Do you have rye bread today?"
    tone 880 for 1 s "Yes, fresh from the oven."
    call end_call
"""


@pytest.mark.real
class FirstCall(SynchronousTestCase):
    def test_desk(self) -> None:
        """At a desk: sign up, make a bot, register with the values of its page, call it, read the call."""
        self.walk_at(1280)

    def test_phone(self) -> None:
        """The same at the width of a phone."""
        self.walk_at(360)

    def walk_at(self, width: int) -> None:
        need_chromium()
        service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=scripts(new_folder(self) / "voices", bakery=SCRIPT))
        with page_of(self, width) as (page, look):
            self.walk(page, look, service)

    def walk(self, page: Any, look: Callable[[str], None], service: Service) -> None:
        page.goto(f"http://127.0.0.1:{service.web}/")
        page.click("text=Make an account")
        page.fill("#email", "baker@example.org")
        page.fill("#password", "correct horse battery")
        page.click("main button")
        page.click("text=Make the first bot")
        page.fill("#name", "Bakery")
        page.fill("#model", "sandbox-bakery")
        page.click("button:has-text('Make the bot')")
        shown = page.inner_text("main")
        self.assertIn("Nothing is registered", shown)
        self.assertIn("openai@127.0.0.1", shown)
        user, password = (self.copied(page, label) for label in ("Username", "Password"))
        caller = Caller(self, service.sip, user, password)
        self.assertEqual(caller.register().code, 200)
        page.reload()
        self.assertIn(caller.here, page.inner_text("section:has(#registered)"))
        look("live-registered")
        caller.call()
        [end] = caller.audio.ends
        caller.audio.wait_for_tone(440)
        caller.audio.wait_for(60)
        end.says = LOUD
        caller.audio.wait_for(40)
        end.says = SILENCE
        caller.audio.wait_for_tone(880)
        caller.wait_for_bye()
        [record] = service.records()
        page.reload()
        page.click(f"a[href='/calls/{record['id']}']")
        said = [re.split(" — ", line)[0] for line in page.locator(".said").all_inner_texts()]
        self.assertEqual(
            said,
            [
                "Good morning, the bakery. What can I do for you?",
                "Do you have rye bread today?",
                "Yes, fresh from the oven.",
            ],
        )
        self.assertIn("bot hung up", page.inner_text("main"))
        look("live-call")
        page.click("nav >> text=Bots")
        self.assertIn("Bakery", page.inner_text("main"))
        self.assertNotIn("Demo", page.inner_text("main"))
        look("live-bots")

    def copied(self, page: Any, label: str) -> str:
        """The value that the copy button of this label copies."""
        words: str = page.inner_text(f".copyable:has([aria-label='Copy {label}']) code")
        return words
