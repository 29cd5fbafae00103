"""Accounts, and who is logged in."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Invalid
from extenbot.settings import Settings
from extenbot.store.accounts import SESSION_LIFE, Accounts
from extenbot.store.bots import Bots
from extenbot.store.database import Database
from tests.store.inline import new_folder


class AccountsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.database = Database(Settings(data=new_folder(self)))
        self.addCleanup(self.database.close)
        self.time = 1_900_000_000.0
        self.accounts = Accounts(self.database, lambda: self.time)
        self.account = self.accounts.add("You@Example.org", "correct horse", admin=True)

    def test_log_in(self) -> None:
        """The right password lets in, whatever the case of the email; nothing else does."""
        self.assertEqual(self.accounts.check("you@EXAMPLE.org ", "correct horse"), self.account)
        self.assertTrue(self.account.admin)
        for email, password in (("you@example.org", "Correct horse"), ("you@example.org", ""), ("me@example.org", "x")):
            self.assertIsNone(self.accounts.check(email, password))

    def test_hash(self) -> None:
        """The password is kept as argon2 only."""
        with self.database.read() as connection:
            kept = connection.exec_driver_sql("select password_hash from accounts").scalar_one()
        self.assertTrue(kept.startswith("$argon2id$"))

    def test_taken(self) -> None:
        """One account an email."""
        with self.assertRaises(Invalid) as caught:
            self.accounts.add("YOU@example.org", "another horse")
        self.assertEqual(list(caught.exception.problems), ["email"])
        self.assertEqual(self.accounts.all(), [self.account])

    def test_session(self) -> None:
        """A login lasts two weeks or until log-out, and its cookie is not in the database."""
        token = self.accounts.open_session(self.account.id)
        self.assertEqual(self.accounts.session(token), self.account)
        self.assertIsNone(self.accounts.session(token + "x"))
        self.assertIsNone(self.accounts.session(""))
        with self.database.read() as connection:
            self.assertNotEqual(connection.exec_driver_sql("select token_hash from sessions").scalar_one(), token)
        self.time += SESSION_LIFE
        self.assertIsNone(self.accounts.session(token))
        other = self.accounts.open_session(self.account.id)  # which also clears away what has expired
        with self.database.read() as connection:
            self.assertEqual(connection.exec_driver_sql("select count(*) from sessions").scalar_one(), 1)
        self.accounts.close_session(other)
        self.assertIsNone(self.accounts.session(other))

    def test_change_password(self) -> None:
        """A new password takes the old one, and ends every other login, of this account only."""
        mine, other = self.accounts.open_session(self.account.id), self.accounts.open_session(self.account.id)
        stranger = self.accounts.open_session(self.accounts.add("b@example.org", "correct horse").id)
        for old, new, field in (("wrong", "battery staple", "old"), ("correct horse", "short", "new")):
            with self.assertRaises(Invalid) as caught:
                self.accounts.change_password(self.account.id, old, new, mine)
            self.assertEqual(list(caught.exception.problems), [field])
        self.assertEqual(self.accounts.session(other), self.account)
        self.accounts.change_password(self.account.id, "correct horse", "battery staple", mine)
        self.assertIsNone(self.accounts.check("you@example.org", "correct horse"))
        self.assertEqual(self.accounts.check("you@example.org", "battery staple"), self.account)
        self.assertEqual(self.accounts.session(mine), self.account)
        self.assertIsNone(self.accounts.session(other))
        self.assertIsNotNone(self.accounts.session(stranger))

    def test_cap(self) -> None:
        """What the bots of an account may cost a day is set, changed and taken away; nonsense is told."""
        self.assertEqual(self.account.cap_day, 0.0)
        for typed, cap in (("12.50", 12.5), (3, 3.0), ("", 0.0)):
            self.assertEqual(self.accounts.set_cap(self.account.id, typed), cap)
            self.assertEqual([account.cap_day for account in self.accounts.all()], [cap])
        for typed in ("much", "1,5", "-1"):
            with self.assertRaises(Invalid) as caught:
                self.accounts.set_cap(self.account.id, typed)
            self.assertEqual(list(caught.exception.problems), ["cap_day"])

    def test_remove(self) -> None:
        """With an account go its bots and its logins."""
        token = self.accounts.open_session(self.account.id)
        bots = Bots(self.database)
        bots.add(self.account.id, {"name": "Ada"})
        self.assertTrue(self.accounts.remove(self.account.id))
        self.assertFalse(self.accounts.remove(self.account.id))
        self.assertEqual(bots.all(), [])
        self.assertIsNone(self.accounts.session(token))
