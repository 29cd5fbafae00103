"""What was spent today, and the caps over it."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from extenbot.store.ledger import DAY, Ledger
from tests.store.examples import record
from tests.store.inline import open_store
from tests.store.test_bots import Kept

NOON = 20_000 * DAY + DAY / 2


class LedgerTest(Kept):
    def setUp(self) -> None:
        super().setUp()
        self.time = NOON
        self.bot = self.add(name="Ada", cap_day="1.50")
        self.free = self.add(name="Bob")
        self.store.directory.load()
        self.ledger = Ledger(self.store.directory, lambda: self.time)

    def edit(self, **values: str) -> None:
        self.other.bots.edit(self.bot.id, values)
        self.store.directory.load()

    def cap_account(self, cap: str) -> None:
        self.other.accounts.set_cap(self.account.id, cap)
        self.store.directory.load()

    def test_nothing_spent(self) -> None:
        """Without a cap there is nothing to be left; with one all of it."""
        self.assertIsNone(self.ledger.left(self.free))
        self.assertEqual(self.ledger.left(self.bot), (1.5, 1.5, "bot"))
        self.assertEqual((self.ledger.refusal(self.bot), self.ledger.refusal(self.free)), ("", ""))

    def test_cap_of_a_bot(self) -> None:
        """A bot that has spent its day begins no further call, and its owner reads why; other bots go on."""
        self.ledger.spent(self.bot, 1.0)
        self.assertEqual((self.ledger.left(self.bot), self.ledger.refusal(self.bot)), ((0.5, 1.5, "bot"), ""))
        self.ledger.spent(self.bot, 0.75)
        self.assertEqual(self.ledger.left(self.bot), (-0.25, 1.5, "bot"))
        self.assertEqual(
            self.ledger.refusal(self.bot),
            "The bot Ada may cost 1.50 USD a day, and that is spent; it goes on at midnight (UTC).",
        )
        self.assertEqual(self.ledger.refusal(self.free), "")

    def test_cap_of_an_account(self) -> None:
        """All bots of an account share its cap; of two caps the one with less left counts."""
        self.cap_account("2")
        self.ledger.spent(self.free, 0.25)
        self.assertEqual(self.ledger.left(self.bot), (1.5, 1.5, "bot"))
        self.ledger.spent(self.free, 1.0)
        self.assertEqual(self.ledger.left(self.bot), (0.75, 2.0, "account"))
        self.ledger.spent(self.free, 0.75)
        for bot in (self.bot, self.free):
            self.assertIn("The account may cost 2.00 USD a day", self.ledger.refusal(bot))
        self.assertEqual(self.ledger.today(self.account.id), {self.free.id: 2.0})
        self.assertEqual(self.ledger.today("another"), {})

    def test_edited(self) -> None:
        """A cap that is raised or taken away is in force at once, for calls that are up as well."""
        self.ledger.spent(self.bot, 1.5)
        self.assertTrue(self.ledger.refusal(self.bot))
        self.edit(cap_day="2")
        self.assertEqual(self.ledger.left(self.bot), (0.5, 2.0, "bot"))
        self.edit(cap_day="")
        self.assertIsNone(self.ledger.left(self.bot))
        self.cap_account("1")
        self.assertIn("The account", self.ledger.refusal(self.bot))
        self.cap_account("0")
        self.assertEqual(self.ledger.refusal(self.bot), "")

    def test_midnight(self) -> None:
        """At midnight (UTC) everything begins again."""
        self.time = NOON + DAY / 2 - 1
        self.ledger.spent(self.bot, 1.5)
        self.assertTrue(self.ledger.refusal(self.bot))
        self.time += 1
        self.assertEqual((self.ledger.refusal(self.bot), self.ledger.today(self.account.id)), ("", {}))
        self.ledger.spent(self.bot, 0.5)
        self.assertEqual(self.ledger.left(self.bot), (1.0, 1.5, "bot"))

    def test_nonsense(self) -> None:
        """What is no amount of money changes nothing."""
        for amount in (0.0, -1.0, float("nan")):
            self.ledger.spent(self.bot, amount)
        self.assertEqual(self.ledger.left(self.bot), (1.5, 1.5, "bot"))

    def test_after_a_restart(self) -> None:
        """What today's calls have cost is known again; those of yesterday do not count, but who ended today does."""
        midnight = NOON - DAY / 2
        for name, started, ended, bot in (
            ("c1", midnight - 600, midnight - 1, self.bot.id),
            ("c2", midnight - 600, midnight + 60, self.bot.id),
            ("c3", NOON - 600, NOON - 1, self.bot.id),
            ("c4", NOON - 600, NOON - 1, "removed since"),
        ):
            self.store.records.save(record(self.account.id, bot, id=name, started=started, ended=ended, cost=0.5))
        self.ledger.load(self.store.calls.spent_since(self.ledger.midnight))
        self.assertEqual(self.ledger.today(self.account.id), {self.bot.id: 1.0, "removed since": 0.5})
        self.cap_account("1.6")
        self.assertEqual(self.ledger.left(self.bot), (1.6 - 1.5, 1.6, "account"))

    def test_in_the_store(self) -> None:
        """The service has its ledger filled when it starts."""
        self.time = self.store.ledger.midnight + 1
        self.store.records.save(record(self.account.id, self.bot.id, started=self.time, ended=self.time, cost=0.5))
        again = open_store(self.folder)
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(again.stop())))
        self.assertEqual(again.ledger.today(self.account.id), {self.bot.id: 0.5})
