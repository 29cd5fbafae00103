"""What is wrong with a bot and what it has cost today: on its page and in the list."""

from __future__ import annotations

from typing import Any

from extenbot.web.trouble import REFUSED
from tests.store.examples import record
from tests.web.browser import Browser
from tests.web.rig import EVIL, Pages

KEY = "The voice service does not know this key."


class Trouble(Pages):
    def setUp(self) -> None:
        super().setUp()
        self.owner = self.sign_up()

    def called(self, path: str, at: float, trouble: str = "", **more: Any) -> None:
        account = self.store.accounts.find("you@example.org")
        assert account is not None
        bot_id = path.rsplit("/", 1)[-1]
        self.store.records.save(record(account.id, bot_id, id=f"c{at:g}", started=1e9 + at, trouble=trouble, **more))

    def in_list(self, browser: Browser) -> str:
        return browser.get("/settings/bots").text

    def test_well(self) -> None:
        """A bot without trouble shows none, and that it has cost nothing today."""
        path = self.a_bot(self.owner)
        self.called(path, 1)
        for text in (self.owner.get(path).text, self.in_list(self.owner)):
            self.assertIn("$0.00", text)
            for part in ('class="alert"', 'class="notice"', 'class="problem"'):
                self.assertNotIn(part, text)

    def test_now(self) -> None:
        """Trouble of the last call stands on top, with its time and a way to the call, and in the list."""
        path = self.a_bot(self.owner)
        self.called(path, 1, "older trouble")
        self.called(path, 2, f"{KEY} {EVIL}")
        text = self.owner.get(path).text
        self.assertIn(f'<p class="alert">{KEY} &lt;script&gt;', text)
        self.assertIn('<a href="/calls/c2"><time datetime="2001-09-09T01:46:42Z">', text)
        self.assertNotIn("older trouble</p>", text)
        self.assertIn(f'<p class="problem">{KEY}', self.in_list(self.owner))

    def test_over(self) -> None:
        """Trouble that a later call has not had is remembered, quietly."""
        path = self.a_bot(self.owner)
        self.called(path, 1, KEY)
        self.called(path, 2)
        text = self.owner.get(path).text
        self.assertIn(f'<p class="notice"><strong>The last trouble:</strong> {KEY} <a href="/calls/c1">', text)
        self.assertNotIn(KEY, self.in_list(self.owner))

    def test_spent(self) -> None:
        """What the bot has cost today stands beside its cap."""
        path = self.a_bot(self.owner, cap_day="10")
        self.spent = {path.rsplit("/", 1)[-1]: 1.25, "another": 40.0}
        text = self.owner.get(path).text
        self.assertIn("$1.25 today of $10.00", text)
        self.assertNotIn(REFUSED, text)
        self.assertIn("$1.25", self.in_list(self.owner))

    def test_caps(self) -> None:
        """A cap that is reached is told, the bot's own or that of the account."""
        path = self.a_bot(self.owner, cap_day="1")
        self.spent = {path.rsplit("/", 1)[-1]: 1.0}
        words = f"The cap of this bot, $1.00 a day, is reached: {REFUSED}"
        for text in (self.owner.get(path).text, self.in_list(self.owner)):
            self.assertIn(words, text)
        self.spent = {"another": 5.0}
        self.owner.send("/settings/account/cap", at="/settings/account", cap_day="5")
        words = f"The cap of the account, $5.00 a day, is reached: {REFUSED}"
        for text in (self.owner.get(path).text, self.in_list(self.owner)):
            self.assertIn(words, text)

    def test_of_its_own(self) -> None:
        """Trouble of one bot is not shown at another."""
        broken, well = self.a_bot(self.owner), self.a_bot(self.owner)
        self.called(broken, 1, KEY)
        self.assertNotIn(KEY, self.owner.get(well).text)
        self.assertEqual(self.in_list(self.owner).count(KEY), 1)
