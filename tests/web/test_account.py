"""The account page: money and password, as a browser sees it."""

from __future__ import annotations

from tests.web.browser import Browser, Page
from tests.web.rig import EVIL, PASSWORD, Pages

PATH = "/settings/account"
NEW = "a better password"


class Money(Pages):
    def test_nothing(self) -> None:
        """A fresh account has spent nothing and has no cap."""
        browser = self.sign_up()
        page = browser.get(PATH)
        self.assertIn("<strong>$0.00</strong>", page.text)
        self.assertEqual(page.value("cap_day"), "")
        self.assertIn('<a href="/settings/account" aria-current="true">', page.text)

    def test_cap(self) -> None:
        """A cap of a day is kept, shown beside what was spent, and can be taken away."""
        browser = self.sign_up()
        self.assertEqual(browser.send(f"{PATH}/cap", at=PATH, cap_day="12.50").location, PATH)
        self.assertEqual(self.store.accounts.all()[0].cap_day, 12.5)
        page = browser.get(PATH)
        self.assertEqual(page.value("cap_day"), "12.5")
        self.assertIn("of $12.50", page.text)
        self.assertNotIn("The cap is reached", page.text)
        browser.send(f"{PATH}/cap", at=PATH, cap_day="")
        self.assertEqual(self.store.accounts.all()[0].cap_day, 0)

    def test_wrong_cap(self) -> None:
        """A cap that is no amount is told at its field, stays as it was typed, and changes nothing."""
        browser = self.sign_up()
        browser.send(f"{PATH}/cap", at=PATH, cap_day="3")
        for typed in ("-1", "12,50", "lots", EVIL):
            page = browser.send(f"{PATH}/cap", at=PATH, cap_day=typed)
            self.assertEqual((page.code, page.value("cap_day")), (422, typed))
            self.assertTrue(page.problem("cap_day").endswith("."), typed)
            self.assertNotIn("<script>alert", page.text)
        self.assertEqual(self.store.accounts.all()[0].cap_day, 3)

    def test_spent(self) -> None:
        """What each bot has cost today, the dearest first, those included that are gone."""
        browser = self.sign_up()
        path = self.a_bot(browser)
        self.spent = {"gone": 0.75, path.rsplit("/", 1)[-1]: 1.5, "idle": 0.0}
        text = browser.get(PATH).text
        for part in ("<strong>$2.25</strong>", f'<a href="{path}">Ada</a>', "$1.50", "a deleted bot", "$0.75"):
            self.assertIn(part, text)
        self.assertLess(text.index("Ada"), text.index("a deleted bot"))
        self.assertEqual(text.count("a deleted bot"), 1)

    def test_reached(self) -> None:
        """When the cap is reached the page says what happens to calls, and until when."""
        browser = self.sign_up()
        self.spent = {"b": 5.0}
        browser.send(f"{PATH}/cap", at=PATH, cap_day="5")
        self.assertIn("The cap is reached: calls are refused with 480 until midnight UTC.</p>", browser.get(PATH).text)


class Password(Pages):
    def change(self, browser: Browser, old: str, new: str, again: str) -> Page:
        return browser.send(f"{PATH}/password", at=PATH, old=old, new=new, again=again)

    def logs_in(self, password: str) -> bool:
        return Browser(self.resource).send("/login", email="you@example.org", password=password).code == 303

    def test_changed(self) -> None:
        """The new password is good from now on, the old one is not; other logins end and this one stays."""
        browser, elsewhere = self.sign_up(), Browser(self.resource)
        elsewhere.send("/login", email="you@example.org", password=PASSWORD)
        page = self.change(browser, PASSWORD, NEW, NEW)
        self.assertEqual(page.code, 200)
        self.assertIn("The password is changed", page.text)
        self.assertEqual(browser.get(PATH).code, 200)
        self.assertEqual(elsewhere.get(PATH).location, "/login")
        self.assertEqual((self.logs_in(PASSWORD), self.logs_in(NEW)), (False, True))

    def test_wrong(self) -> None:
        """What is wrong is told at its field; no password ever comes back, and the old one stays good."""
        browser = self.sign_up()
        for old, new, again, field in (
            ("not it", NEW, NEW, "old"),
            (PASSWORD, "short", "short", "new"),
            (PASSWORD, NEW, NEW + "!", "again"),
        ):
            page = self.change(browser, old, new, again)
            self.assertEqual(page.code, 422)
            self.assertEqual([name for name in ("old", "new", "again") if page.problem(name)], [field])
            self.assertEqual([page.value(name) for name in ("old", "new", "again")], [""] * 3)
            self.assertNotIn(NEW, page.text)
        self.assertTrue(self.logs_in(PASSWORD))

    def test_guessing(self) -> None:
        """Who guesses the old password at an open screen has to wait, like at the login page."""
        browser = self.sign_up()
        for _ in range(5):
            self.assertEqual(self.change(browser, "guess", NEW, NEW).code, 422)
        page = self.change(browser, PASSWORD, NEW, NEW)
        self.assertEqual((page.code, page.headers["retry-after"]), (429, ["16"]))
        self.assertIn("wait", page.problem("old"))
        self.reactor.advance(16)
        self.assertEqual(self.change(browser, PASSWORD, NEW, NEW).code, 200)

    def test_poor_choices(self) -> None:
        """Who knows the old password may try poor new ones as often as they like."""
        browser = self.sign_up()
        for _ in range(8):
            self.assertTrue(self.change(browser, PASSWORD, "short", "short").problem("new"))


class Closed(Pages):
    def test_closed(self) -> None:
        """Nothing of it is for strangers, and nothing changes without a form of ours."""
        browser, stranger = self.sign_up(), Browser(self.resource)
        self.assertEqual(stranger.get(PATH).location, "/login")
        fields = {"cap_day": "1", "old": PASSWORD, "new": NEW, "again": NEW}
        for path in (f"{PATH}/cap", f"{PATH}/password"):
            self.assertEqual(stranger.ask("POST", path, data=fields).location, "/login")
            self.assertEqual(browser.ask("POST", path, data=fields).code, 403)
            self.assertEqual(browser.ask("POST", path, data={**fields, "form_token": "0" * 64}).code, 403)
        self.assertEqual(self.store.accounts.all()[0].cap_day, 0)
        self.assertIsNotNone(self.store.accounts.check("you@example.org", PASSWORD))

    def test_own_only(self) -> None:
        """One account sees neither the money nor the bots of another."""
        self.a_bot(self.sign_up())
        self.store.accounts.set_cap(self.store.accounts.all()[0].id, "77")
        page = self.sign_up("b@example.org").get(PATH)
        self.assertEqual(page.value("cap_day"), "")
        self.assertNotIn("Ada", page.text)
