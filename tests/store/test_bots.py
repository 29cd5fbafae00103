"""Bots and functions, and the directory that calls go by."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import CannotStart, Invalid
from extenbot.interfaces import Destination, Manner
from extenbot.store import tables
from extenbot.store.directory import POLL, Change
from extenbot.store.fields import EDITABLE
from tests.store.examples import BINDING
from tests.store.inline import InlinePool, InlineReactor, new_folder, open_store


class Kept(SynchronousTestCase):
    """A store with one account; `self.other` is the same database as another process has it."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.reactor, self.pool = InlineReactor(), InlinePool()
        self.store = open_store(self.folder, self.reactor, self.pool)
        self.other = open_store(self.folder)
        self.addCleanup(self.store.close)
        self.addCleanup(self.other.close)
        self.account = self.store.accounts.add("you@example.org", "correct horse")
        self.bots = self.store.bots

    def add(self, **values: Any) -> Any:
        return self.other.bots.add(self.account.id, {"name": "Ada"} | values)


class TrustingTest(Kept):
    """Which bots let callers of an address in without a digest."""

    def usernames(self, host: str) -> set[str]:
        self.store.directory.load()
        return set(self.store.directory.trusting(host))

    def meant(self, host: str) -> str:
        self.store.directory.load()
        bot = self.store.directory.meant_by(host)
        return bot.username if bot else ""

    def test_found(self) -> None:
        """By any of its networks, as soon as it is changed; a registrant trusts nobody."""
        ada = self.add(username="ada1", trusted="10.8.0.0/24 2001:db8::1")
        self.add(username="bob1", trusted="10.8.0.7")
        self.add(username="cay1", kind="registrant", password="x", domain="pbx.example", trusted="10.8.0.0/24")
        self.assertEqual(self.usernames("10.8.0.7"), {"ada1", "bob1"})
        self.assertEqual(self.usernames("10.8.0.8"), {"ada1"})
        self.assertEqual(self.usernames("2001:db8::1"), {"ada1"})
        self.assertEqual(self.usernames("10.8.1.7"), set())
        self.other.bots.edit(ada.id, {"trusted": "none"})
        self.assertEqual(self.usernames("10.8.0.8"), set())

    def test_meant(self) -> None:
        """Who names no bot means the only one that trusts them."""
        self.add(username="ada1", trusted="10.8.0.0/24")
        self.add(username="bob1", trusted="10.8.0.7")
        self.assertEqual((self.meant("10.8.0.8"), self.meant("10.8.0.7"), self.meant("10.9.0.1")), ("ada1", "", ""))

    def test_other_accounts(self) -> None:
        """Nobody with an account draws calls of other people's PBXs to a bot of their own; an admin is trusted."""
        self.add(username="ada1", trusted="10.8.0.0/24")
        self.assertEqual(self.meant("10.8.0.8"), "ada1")
        boss = self.other.accounts.add("boss@example.org", "correct horse", admin=True)
        self.other.bots.add(boss.id, {"name": "Bob", "username": "bob1", "trusted": "10.9.0.0/24"})
        self.assertEqual((self.meant("10.8.0.8"), self.meant("10.9.0.8")), ("", "bob1"))
        self.assertEqual(self.usernames("10.8.0.8"), {"ada1"})


class BotsTest(Kept):
    def test_generated(self) -> None:
        """Username and password are made up; the local voice serves until something else is said."""
        bot = self.add()
        self.assertEqual((len(bot.username), len(bot.password), bot.model), (10, 24, "sandbox"))
        self.assertEqual(self.bots.get(bot.id), bot)
        self.assertEqual(self.add(token="sk-x").model, "")  # the usual one of the voice service
        self.assertEqual(self.add(ai_url="ws://127.0.0.1/").model, "")

    def test_all_fields(self) -> None:
        """What is given comes back, secrets too."""
        given = {
            "kind": "registrant",
            "username": "100",
            "password": "from-the-pbx",
            "domain": "pbx.example.org",
            "model": "m",
            "voice": "v",
            "token": "sk-x",
            "ai_url": "wss://example.org/",
            "instruction": "Be short.\nBe kind.",
            "welcome": "Hello",
            "transfer_uri": "tel:100",
            "enabled": False,
        }
        bot = self.bots.get(self.add(**given).id)
        self.assertEqual({field: getattr(bot, field) for field in given}, given)

    def test_manner(self) -> None:
        """How a bot converses is given beside its other fields, as forms have it, and what is not given stays."""
        bot = self.add(speed="1.25", silence="0", greeting_interruptible="off", record=True)
        manner = Manner(speed=1.25, silence=0, greeting_interruptible=False, record=True)
        self.assertEqual((bot.manner, self.bots.get(bot.id)), (manner, bot))
        self.assertEqual(self.add().manner, Manner())
        edited = self.bots.edit(bot.id, {"name": "Eva", "cap_call": "2.50", "silence": ""})
        self.assertEqual(edited.manner, replace(manner, cap_call=2.5, silence=15))  # type: ignore[union-attr]
        with self.store._database.read() as connection:
            kept = connection.exec_driver_sql(f"select manner from bots where id = '{bot.id}'").scalar_one()
        self.assertEqual(
            json.loads(kept), {"speed": 1.25, "greeting_interruptible": False, "record": True, "cap_call": 2.5}
        )
        for name in EDITABLE:
            self.assertTrue(hasattr(bot, name) != hasattr(bot.manner, name), name)

    def test_destinations(self) -> None:
        """Named transfer targets come back in their order; an edit replaces all of them."""
        sales = Destination("sales", "sip:200@10.8.0.1 +4930123456", "about orders")
        bot = self.add(destinations=[sales, {"name": "boss", "uris": "100"}, {"name": "", "uris": " "}])
        self.assertEqual(self.bots.get(bot.id).destinations, (sales, Destination("boss", "100")))  # type: ignore[union-attr]
        self.assertEqual(self.bots.edit(bot.id, {"name": "Eva"}).destinations, bot.destinations)  # type: ignore[union-attr]
        self.assertEqual(self.bots.edit(bot.id, {"destinations": ()}).destinations, ())  # type: ignore[union-attr]

    def test_unreadable_manner(self) -> None:
        """What another version has left is read as far as it makes sense, and the rest is told once."""
        bot = self.add(destinations=[Destination("sales", "100")])
        told: list[str] = []

        def listen(event: Any) -> None:
            told.append(event.get("wrong", ""))

        globalLogPublisher.addObserver(listen)  # type: ignore[arg-type]
        self.addCleanup(lambda: globalLogPublisher.removeObserver(listen))  # type: ignore[arg-type]
        for kept, targets, manner, named in (
            ('{"speed": 0.5, "telepathy": true, "silence": "long"}', "[]", Manner(speed=0.5), "silence"),
            ('{"vad_threshold": 7, "record": 1, "speed": 1e999}', "[]", Manner(), "vad_threshold, record, speed"),
            ("[1]", "{}", Manner(), "manner, destinations"),
            ("nonsense", '[3, {"name": "a", "uris": "1", "hours": 9}]', Manner(), "manner, destinations"),
        ):
            with self.store._database.change() as connection:
                connection.execute(update(tables.bots).values(manner=kept, destinations=targets))
            told.clear()
            for _ in range(2):
                self.store.directory.load()
            found = self.store.directory.by_id(bot.id)
            assert found is not None
            self.assertEqual((found.manner, [word for word in told if word]), (manner, [named]))
            left = (Destination("a", "1"),) if "hours" in targets else ()
            self.assertEqual(found.destinations, left)

    def test_unique_usernames(self) -> None:
        """A username that we give out names one bot; two PBXs may both have given out 100."""
        first = self.add(username="bob")
        with self.assertRaises(Invalid) as caught:
            self.add(username="bob")
        self.assertEqual(list(caught.exception.problems), ["username"])
        second = self.add(username="rob")
        with self.assertRaises(Invalid):
            self.bots.edit(second.id, {"username": "bob"})
        self.assertEqual(self.bots.edit(first.id, {"username": "bob", "name": "Bob"}).name, "Bob")  # type: ignore[union-attr]
        for _ in range(2):
            self.add(kind="registrant", username="bob", password="x", domain="pbx.example.org")

    def test_edit(self) -> None:
        """What is not given stays, and a wrong edit changes nothing."""
        bot = self.add(token="sk-x", welcome="Hello")
        self.bots.edit(bot.id, {"welcome": "Good day"})
        with self.assertRaises(Invalid):
            self.bots.edit(bot.id, {"welcome": "Lost", "transfer_uri": "nowhere"})
        found = self.bots.get(bot.id)
        assert found is not None
        self.assertEqual((found.welcome, found.token, found.password), ("Good day", "sk-x", bot.password))
        self.assertIsNone(self.bots.edit("gone", {"welcome": "x"}))

    def test_strangers(self) -> None:
        """A bot is found by its own account only, when an account is given."""
        bot, other = self.add(), self.store.accounts.add("b@example.org", "correct horse")
        self.assertEqual(self.bots.get(bot.id, self.account.id), bot)
        self.assertIsNone(self.bots.get(bot.id, other.id))
        self.assertEqual(self.bots.all(other.id), [])

    def test_find(self) -> None:
        """By id, username or name; several of one name are all found."""
        first, second = self.add(username="bob"), self.add()
        for text, found in ((first.id, [first]), ("bob", [first]), ("Ada", [first, second]), ("nobody", [])):
            self.assertEqual(self.bots.find(text), found)

    def test_functions(self) -> None:
        """A function comes with the bots it is linked to, its token in clear."""
        bot = self.add()
        made = self.other.functions.add(
            self.account.id,
            {
                "name": "order",
                "url": "http://127.0.0.1/",
                "token": "bearer",
                "description": '{"name": "o"}',
                "template": "{}",
            },
            [bot.id, bot.id],
        )
        found = self.bots.get(bot.id)
        assert found is not None
        self.assertEqual(found.functions, (made,))
        self.assertEqual(self.store.functions.all(), [(made, self.account.id, (bot.id,))])
        with self.assertRaises(Invalid):
            self.other.functions.add(self.account.id, {"name": "order", "url": "http://127.0.0.1/"})
        with self.assertRaises(Invalid) as caught:  # the model could not tell them apart
            self.other.functions.add(self.account.id, {"name": "o", "url": "http://127.0.0.1/"}, [bot.id])
        self.assertEqual(list(caught.exception.problems), ["bot"])
        with self.assertRaises(Invalid):
            self.other.functions.add(self.account.id, {"name": "x", "url": "http://127.0.0.1/"}, ["another's"])
        self.assertTrue(self.store.functions.remove(made.id))
        self.assertEqual(self.bots.get(bot.id), bot)

    def test_renamed_bindings(self) -> None:
        """Contacts that were registered with the old username are forgotten with it."""
        bot = self.add(username=BINDING.username)
        self.store.bindings.save(bot.username, [BINDING])
        self.bots.edit(bot.id, {"name": "Bea"})
        self.assertEqual(self.store.bindings.load(), {bot.username: (BINDING,)})
        self.bots.edit(bot.id, {"username": "1000000002"})
        self.assertEqual(self.store.bindings.load(), {})


class DirectoryTest(Kept):
    def setUp(self) -> None:
        super().setUp()
        self.changes: list[Change] = []
        self.store.directory.on_changed = self.changes.extend
        self.successResultOf(self._start())

    def _start(self) -> Any:
        return Deferred.fromCoroutine(self.store.start())

    def tearDown(self) -> None:
        self.store.directory.stop()

    def test_another_process(self) -> None:
        """A bot made, changed and removed by a command is known within a second."""
        bot = self.add()
        self.assertIsNone(self.store.directory.by_id(bot.id))
        self.reactor.advance(POLL)
        self.assertEqual(self.store.directory.by_id(bot.id), bot)
        self.assertEqual(self.store.directory.by_username(bot.username), bot)
        edited = self.other.bots.edit(bot.id, {"username": "bob", "enabled": False})
        self.reactor.advance(POLL)
        self.assertIsNone(self.store.directory.by_username(bot.username))
        self.assertEqual(self.store.directory.by_username("bob"), edited)  # found although it is switched off
        self.other.bots.remove(bot.id)
        self.reactor.advance(POLL)
        self.assertIsNone(self.store.directory.by_id(bot.id))
        self.assertEqual(self.changes, [(None, bot), (bot, edited), (edited, None)])

    def test_functions_and_accounts(self) -> None:
        """A new function of a bot is known, and an account that goes takes its bots along."""
        bot = self.add()
        self.other.functions.add(self.account.id, {"name": "order", "url": "http://127.0.0.1/"}, [bot.id])
        self.reactor.advance(POLL)
        self.assertEqual([f.name for f in self.store.directory.by_id(bot.id).functions], ["order"])  # type: ignore[union-attr]
        self.other.accounts.remove(self.account.id)
        self.reactor.advance(POLL)
        self.assertEqual(self.store.directory.all(), [])

    def test_unchanged(self) -> None:
        """Bots that nobody touched are the same objects, and nothing is said about them."""
        bot = self.add()
        self.reactor.advance(POLL)
        before = self.store.directory.by_id(bot.id)
        self.add(name="Bea")
        self.changes.clear()
        self.reactor.advance(POLL)
        self.assertIs(self.store.directory.by_id(bot.id), before)
        self.assertEqual([change.after.name for change in self.changes if change.after], ["Bea"])

    def test_registrants(self) -> None:
        """The username of a registrant is another PBX's: nobody gets in with it here."""
        bot = self.add(kind="registrant", username="100", password="secret", domain="pbx.example.org")
        self.reactor.advance(POLL)
        self.assertIsNone(self.store.directory.by_username("100"))
        self.assertEqual(self.store.directory.by_id(bot.id), bot)

    def test_own_changes(self) -> None:
        """What a page changes is in force when the page comes back."""
        bot = self.successResultOf(
            Deferred.fromCoroutine(self.store.change(self.bots.add, self.account.id, {"name": "Ada"}))
        )
        self.assertEqual(self.store.directory.by_id(bot.id), bot)

    def test_database_away(self) -> None:
        """While the database is away calls go on, and the log says so once."""
        bot = self.add()
        self.reactor.advance(POLL)
        self.pool.broken = OperationalError("select", None, Exception("disk on fire"))
        for _ in range(3):
            self.reactor.advance(POLL)
        self.assertEqual(self.store.directory.by_id(bot.id), bot)
        self.pool.broken = None
        self.other.bots.remove(bot.id)
        self.reactor.advance(POLL)
        self.assertEqual(self.store.directory.all(), [])

    def test_listener_that_fails(self) -> None:
        """A fault in who listens does not keep the directory from going on."""

        def fail(_changes: object) -> None:
            raise ZeroDivisionError

        self.store.directory.on_changed = fail
        bot = self.add()
        self.reactor.advance(POLL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.other.bots.remove(bot.id)
        self.reactor.advance(POLL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.store.directory.all(), [])


class Demo(SynchronousTestCase):
    def test_first_start_only(self) -> None:
        """The first start makes an account and a bot on the local voice, later ones nothing."""
        folder = new_folder(self)
        store = open_store(folder)
        first = store.seed_demo()
        assert first is not None
        email, password, bot = first
        self.assertEqual((email, bot.model, bot.kind, bot.name), ("demo@localhost", "sandbox", "registrar", "Demo"))
        self.assertIsNotNone(store.accounts.check(email, password))
        self.assertEqual(store.directory.by_username(bot.username), bot)
        self.assertIsNone(store.seed_demo())
        store.close()
        again = open_store(folder)
        self.assertIsNone(again.seed_demo())
        self.assertEqual(again.directory.all(), [bot])
        again.bots.remove(bot.id)
        self.assertIsNone(again.seed_demo())
        again.close()

    def test_a_key_too_few(self) -> None:
        """A bot whose secrets no key fits stops the start, by name."""
        folder = new_folder(self)
        store = open_store(folder)
        demo = store.seed_demo()
        assert demo is not None
        with store._database.write() as connection:
            connection.exec_driver_sql("update bots set token_sealed = 'gAAAAAB'")
        store.close()
        with self.assertRaises(CannotStart) as caught:
            open_store(folder)
        self.assertIn("Demo", str(caught.exception))
