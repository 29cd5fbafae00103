"""What owners are told after calls: written with the record, tried again for three days, then given up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError
from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Event, Line
from extenbot.settings import Database as DatabaseSettings
from extenbot.settings import Settings
from extenbot.store import outbox
from extenbot.store.accounts import Accounts
from extenbot.store.bots import Bots
from extenbot.store.calls import Calls
from extenbot.store.database import Database
from extenbot.store.outbox import KEPT, LATER, PATIENCE, PAUSES, Outbox
from tests.store.examples import record
from tests.store.inline import new_folder
from tests.store.postgres import Postgres

BEGAN = 1_900_000_041.0
AFTER = "https://example.org/after"


class Posts(SynchronousTestCase):
    """An account whose bot Ada has a webhook after calls, at a time that the test sets."""

    def next_due(self) -> float | None:
        """When the next one is posted."""
        return min((post.next_try for post in self.outbox.all() if post.next_try), default=None)

    def opened(self, folder: Path) -> Settings:
        return Settings(data=folder)

    def setUp(self) -> None:
        self.time = BEGAN
        self.settings = self.opened(new_folder(self))
        self.reopen()
        self.account = Accounts(self.database).add("you@example.org", "correct horse")
        self.ada = Bots(self.database).add(self.account.id, {"name": "Ada", "after_url": AFTER})

    def reopen(self) -> None:
        self.database = Database(self.settings)
        self.addCleanup(self.database.close)
        self.calls = Calls(self.database, lambda call: f"https://pages.example/calls/{call}", lambda: self.time)
        self.outbox = Outbox(self.database, lambda: self.time)

    def ended(self, **changes: Any) -> None:
        self.assertTrue(self.calls.write(record(self.account.id, self.ada.id, **changes)))


class OutboxTest(Posts):
    def test_told(self) -> None:
        """The owner gets who called, when, why it ended, what it cost, what was said and where it can be heard."""
        self.ended()
        [post] = self.outbox.due(10, 10)
        self.assertEqual((post.call_id, post.url, post.tries), ("c1", AFTER, 0))
        told = json.loads(post.body)
        self.assertEqual(told["bot"], {"id": self.ada.id, "name": "Ada"})
        self.assertEqual((told["call"], told["caller"], told["called"]), ("c1", "+4930123456", "openai"))
        self.assertEqual((told["reason"], told["cost"], told["seconds"]), ("the caller hung up", 0.0625, 39.5))
        self.assertEqual(told["transcript"][1]["text"], "Grüß Gott <b>!")
        self.assertEqual(told["events"][0], {"at": 0.0, "what": "invited", "fields": {"peer": "10.8.0.1:5060"}})
        self.assertEqual(told["recording"], "https://pages.example/calls/c1/recording.wav")
        self.ended(id="c2", recorded=False)
        self.assertEqual(json.loads(self.outbox.due(10, 10)[1].body)["recording"], "")

    def test_odd_words(self) -> None:
        """Whatever was said on the phone or sent by a server, what is posted is JSON that anybody can read."""
        odd = ("nul \0 in it", 'a backslash before \\u0000"', "half \udc80 of a pair", "\\", '{"a": "\\u0000"}')
        events = tuple(Event(1.0, "tool.answered", {"output": words}) for words in odd)
        self.ended(transcript=tuple(Line("caller", words, 1.0) for words in odd), events=events)
        [post] = self.outbox.due(10, 10)
        self.assertNotIn("\\ud", post.body.lower())
        told = json.loads(post.body.encode("utf-8"))
        for found in ([each["text"] for each in told["transcript"]], [e["fields"]["output"] for e in told["events"]]):
            self.assertEqual([found[1], found[3], found[4]], [odd[1], odd[3], odd[4]])

    def test_nobody_asked(self) -> None:
        """A bot without a webhook after calls has nothing posted."""
        Bots(self.database).edit(self.ada.id, {"after_url": ""})
        self.ended()
        self.assertEqual((self.outbox.all(), self.next_due()), ([], None))

    def test_together(self) -> None:
        """A record and its post are there both or neither, and writing the record again posts nothing twice."""
        with patch.object(outbox, "told", side_effect=OperationalError("insert", None, Exception("disk full"))):
            with self.assertRaises(OperationalError):
                self.calls.write(record(self.account.id, self.ada.id))
            self.assertIsNone(self.calls.get("c1"))
        for _ in range(2):
            self.ended()
        self.assertEqual(len(self.outbox.all()), 1)
        self.outbox.accepted("c1")
        self.ended()
        self.assertEqual(self.outbox.all(), [])

    def test_pauses(self) -> None:
        """It is tried again after pauses that grow, for three days; then shown for a month, to be retried."""
        self.ended()
        waited = []
        while self.next_due():
            [post] = self.outbox.due(10, 10)
            began = self.time
            self.outbox.failed(post, "the webhook answered 500")
            self.assertEqual(self.outbox.due(10, 10), [])
            self.time = self.next_due() or self.time
            waited.append(self.time - began)
        self.assertEqual(waited[:7], [*PAUSES, LATER, LATER])
        self.assertEqual((waited[-1], set(waited[5:-1])), (0.0, {LATER}))
        self.assertLess(BEGAN + PATIENCE - LATER, self.time)
        self.assertLessEqual(self.time, BEGAN + PATIENCE)
        [post] = self.outbox.all()
        self.assertEqual((post.next_try, post.trouble, post.tries), (0.0, "the webhook answered 500", len(waited)))
        self.time = BEGAN + KEPT - 1
        self.outbox.forget()
        self.assertEqual((self.outbox.due(10, 10), len(self.outbox.all())), ([], 1))
        self.assertTrue(self.outbox.retry("c1"))
        self.assertEqual([post.call_id for post in self.outbox.due(10, 10)], ["c1"])
        self.time += KEPT + 1
        self.outbox.forget()
        self.assertEqual((self.outbox.due(10, 10), self.outbox.all()), ([], []))
        self.assertFalse(self.outbox.retry("c1"))

    def test_restart(self) -> None:
        """What has not been taken is there after a restart, the oldest first, a few at a time."""
        for number in range(3):
            self.time = BEGAN + number
            self.ended(id=f"c{number}")
        self.database.close()
        self.reopen()
        self.assertEqual([post.call_id for post in self.outbox.due(2, 10)], ["c0", "c1"])
        self.assertEqual([post.call_id for post in self.outbox.due(2, 10, {"c1"})], ["c0", "c2"])
        self.outbox.accepted("c0")
        self.assertEqual([post.call_id for post in self.outbox.due(2, 10)], ["c1", "c2"])

    def test_others(self) -> None:
        """A bot whose server takes nothing does not keep another's posts waiting, however many it has."""
        eva = Bots(self.database).add(self.account.id, {"name": "Eva", "after_url": AFTER})
        for number in range(6):
            self.ended(id=f"c{number}")
        self.assertTrue(self.calls.write(record(self.account.id, eva.id, id="c6")))
        due = [post.call_id for post in self.outbox.due(5, 2)]
        self.assertEqual(due, ["c0", "c1", "c6"])
        self.assertEqual(self.outbox.due(5, 2, due), [])
        self.outbox.accepted("c0")
        self.assertEqual([post.call_id for post in self.outbox.due(5, 2, due)], ["c2"])

    def test_gone(self) -> None:
        """A bot or an account that goes takes along what was to be told of it; another's is not shown."""
        self.ended()
        other = Accounts(self.database).add("zoe@example.org", "correct horse")
        self.assertEqual(self.outbox.all(other.id), [])
        Bots(self.database).remove(self.ada.id)
        self.assertEqual(self.outbox.all(), [])
        self.ada = Bots(self.database).add(self.account.id, {"name": "Eva", "after_url": AFTER})
        self.ended(id="c2")
        Accounts(self.database).remove(self.account.id)
        self.assertEqual(self.outbox.all(), [])


class OnPostgres(OutboxTest):
    """The same on a real PostgreSQL."""

    server: ClassVar[Postgres]

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Postgres()
        cls.addClassCleanup(cls.server.stop)

    def opened(self, folder: Path) -> Settings:
        engine = create_engine(make_url(self.server.url).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            connection.exec_driver_sql("drop schema public cascade")
            connection.exec_driver_sql("create schema public")
        engine.dispose()
        return Settings(data=folder, database=DatabaseSettings(url=self.server.url))
