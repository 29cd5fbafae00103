"""Call records and bindings: written without waiting, and not lost when the database is away."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.store.examples import BINDING, record
from tests.store.inline import InlinePool, InlineReactor, new_folder, open_store

AWAY = OperationalError("insert", None, Exception("disk on fire"))


class RecordsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.reactor, self.pool = InlineReactor(), InlinePool()
        self.store = open_store(self.folder, self.reactor, self.pool)
        self.addCleanup(self.store.close)
        self.account = self.store.accounts.add("you@example.org", "correct horse")

    def test_whole_record(self) -> None:
        """All of a call comes back: times, figures, transcript of both sides, timeline, tokens used."""
        self.store.records.save(record(self.account.id))
        self.assertEqual(self.store.calls.get("c1"), record(self.account.id))
        self.assertIsNone(self.store.calls.get("c2"))

    def test_never_answered(self) -> None:
        """A call that was refused has no answer time and no words."""
        refused = record(self.account.id, answered=None, transcript=(), events=(), usage={}, codec="")
        self.store.records.save(refused)
        self.assertEqual(self.store.calls.get("c1"), refused)

    def test_strangers(self) -> None:
        """A call belongs to one account."""
        self.store.records.save(record(self.account.id))
        other = self.store.accounts.add("b@example.org", "correct horse")
        self.assertIsNone(self.store.calls.get("c1", other.id))
        self.assertEqual(self.store.calls.recent(other.id), [])
        self.assertIsNotNone(self.store.calls.get("c1", self.account.id))

    def test_recent(self) -> None:
        """The latest first, by bot, page by page."""
        for number in range(5):
            self.store.records.save(record(self.account.id, f"bot{number % 2}", id=f"c{number}", started=float(number)))
        found = self.store.calls.recent(self.account.id, limit=3)
        self.assertEqual([call.id for call in found], ["c4", "c3", "c2"])
        self.assertEqual([call.id for call in self.store.calls.recent(before=found[-1].started)], ["c1", "c0"])
        self.assertEqual([call.id for call in self.store.calls.recent(bot_id="bot1")], ["c3", "c1"])

    def test_odd_characters(self) -> None:
        """What a caller sends is kept as far as a database can, never a reason to lose the call."""
        self.store.records.save(record(self.account.id, caller="a\0b\udc80", end_reason="\ud800"))
        found = self.store.calls.get("c1")
        assert found is not None
        self.assertEqual((found.caller, found.end_reason), ("ab?", "?"))

    def test_written_twice(self) -> None:
        """A write that is tried again after it went through does not make a second call."""
        for _ in range(2):
            self.store.records.save(record(self.account.id))
        self.assertEqual(len(self.store.calls.recent()), 1)

    def test_account_gone(self) -> None:
        """The call of an account that was removed meanwhile is dropped, and the next one is written."""
        self.store.records.save(record("gone"))
        self.store.records.save(record(self.account.id, id="c2"))
        self.assertEqual([call.id for call in self.store.calls.recent()], ["c2"])

    def test_database_away(self) -> None:
        """While the database is away calls wait, in order; then all are written."""
        self.pool.broken = AWAY
        for name in ("c1", "c2"):
            self.store.records.save(record(self.account.id, id=name))
        self.reactor.pump([0.5, 1.0, 2.0])
        self.pool.broken = None
        self.assertEqual(self.store.calls.recent(), [])
        self.reactor.advance(4.0)
        self.assertEqual({call.id for call in self.store.calls.recent()}, {"c1", "c2"})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_writes(self) -> None:
        """Stopping writes what still waits."""
        self.pool.broken = AWAY
        self.store.records.save(record(self.account.id))
        self.pool.broken = None
        done = Deferred.fromCoroutine(self.store._writing.stop())
        self.successResultOf(done)
        self.assertEqual(len(self.store.calls.recent()), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_gives_up(self) -> None:
        """Stopping does not hang on a database that stays away, and says what is lost."""
        self.pool.broken = AWAY
        self.store.records.save(record(self.account.id))
        said = []

        def listen(event: dict[str, object]) -> None:
            said.append(event.get("log_level"))

        globalLogPublisher.addObserver(listen)  # type: ignore[arg-type]
        self.addCleanup(lambda: globalLogPublisher.removeObserver(listen))  # type: ignore[arg-type]
        done = Deferred.fromCoroutine(self.store._writing.stop())
        self.reactor.pump([0.5] * 5)
        self.successResultOf(done)
        self.assertIn(LogLevel.critical, said)

    def test_bad_write(self) -> None:
        """One record that cannot be written is told and left; the next one is written."""
        self.store.records.save(record(self.account.id, ended="never"))
        self.store.records.save(record(self.account.id, id="c2", usage={1: object()}))
        self.store.records.save(record(self.account.id, id="c3", started=None))
        self.store.records.save(record(self.account.id, id="c4"))
        self.assertIn("c4", [call.id for call in self.store.calls.recent()])
        self.assertEqual(len(told := self.flushLoggedErrors()), 2)
        self.assertNotIn("+4930123456", str(told))

    def test_bindings(self) -> None:
        """Contacts survive a restart until they expire; saving replaces all of a bot."""
        bot = self.store.bots.add(self.account.id, {"name": "Ada", "username": BINDING.username})
        old = replace(BINDING, contact="sip:old@10.8.0.9", expires_at=1.0)
        self.store.bindings.save(bot.username, [BINDING, BINDING, old])
        again = open_store(self.folder)
        self.addCleanup(again.close)
        self.assertEqual(again.bindings.load(), {bot.username: (BINDING, BINDING)})
        self.store.bindings.save(bot.username, [BINDING])
        self.assertEqual(again.bindings.load(), {bot.username: (BINDING,)})
        self.store.bindings.save(bot.username, [])
        self.store.bindings.save("nobody", [BINDING])
        self.assertEqual(again.bindings.load(), {})
        self.store.bindings.save(bot.username, [BINDING])
        self.store.bots.remove(bot.id)
        self.assertEqual(again.bindings.load(), {})

    def test_many_bindings(self) -> None:
        """A thousand PBXs that register again cost a few statements, and none that reads."""
        usernames = [f"10000{number:05}" for number in range(1000)]
        for username in usernames[:3]:
            self.store.bots.add(self.account.id, {"name": "Ada", "username": username})
        self.pool.broken = AWAY
        for username in usernames:
            self.store.bindings.save(username, [replace(BINDING, username=username)] * 2)
        self.pool.broken = None
        said: list[str] = []

        def listen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            said.append(statement.split()[0].lower())

        event.listen(self.store._database.engine, "before_cursor_execute", listen)
        self.reactor.advance(0.5)
        event.remove(self.store._database.engine, "before_cursor_execute", listen)
        self.assertEqual(said, ["begin", "delete", "insert"] * 2)
        found = self.store.bindings.load()
        self.assertEqual(
            {username: len(bindings) for username, bindings in found.items()}, dict.fromkeys(usernames[:3], 2)
        )

    def test_bad_bindings(self) -> None:
        """Of many that are written together a bad one is told and left, the others are written."""
        names = ["1000000001", "1000000002", "1000000003"]
        for username in names:
            self.store.bots.add(self.account.id, {"name": "Ada", "username": username})
        self.pool.broken = AWAY
        for username in names:
            cseq = None if username == names[1] else 7
            self.store.bindings.save(username, [replace(BINDING, username=username, cseq=cseq)])  # type: ignore[arg-type]
        self.store.records.save(record(self.account.id))
        self.pool.broken = None
        self.reactor.advance(0.5)
        self.assertEqual(self.store.bindings.load().keys(), {names[0], names[2]})
        self.assertEqual(len(self.store.calls.recent()), 1)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertEqual(len(self.store._writing), 0)

    def test_newest_bindings_win(self) -> None:
        """While the database is away only the latest contacts of a bot wait."""
        bot = self.store.bots.add(self.account.id, {"name": "Ada", "username": BINDING.username})
        self.pool.broken = AWAY
        self.store.bindings.save(bot.username, [BINDING])
        self.store.bindings.save(bot.username, [])
        self.assertEqual(len(self.store._writing), 1)
        self.pool.broken = None
        self.reactor.advance(0.5)
        self.assertEqual(self.store.bindings.load(), {})
