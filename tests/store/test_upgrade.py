"""A database of an older extenbot is moved up: nothing in it is lost, and it is then as a new one."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

from sqlalchemy import Connection, create_engine, make_url
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import CannotStart
from extenbot.settings import Database as DatabaseSettings
from extenbot.settings import Settings
from extenbot.store import keys, upgrade
from extenbot.store.bindings import Bindings
from extenbot.store.bots import Bots
from extenbot.store.database import KEY_CHECK, Database, statements
from extenbot.store.tables import SCHEMA_VERSION, metadata
from tests.store.examples import BINDING
from tests.store.inline import new_folder
from tests.store.postgres import Postgres
from tests.store.test_schema import described, reflected

VERSION_1 = Path(__file__).with_name("schema_1.sql")


def fill(connection: Connection, sealed: keys.Keys) -> None:
    """A database as version 1 left it: a bot with a password, and its PBX registered."""
    for statement in statements(VERSION_1.read_text()):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"update meta set revision = 7, key_check = '{sealed.seal(KEY_CHECK)}'")
    connection.exec_driver_sql("insert into accounts values ('a', 'you@example.org', 'x', true, 1.5)")
    connection.exec_driver_sql(
        f"insert into bots values ('b', 'a', 'Ada', 'registrar', '{BINDING.username}', '{sealed.seal('secret')}', "
        "'', 'sandbox', '', '', '', 'Be kind.', '', '', true, '', '', 0, '', 600, '', 2.5)"
    )
    connection.exec_driver_sql(
        f"insert into bindings values ('b', 0, '{BINDING.contact}', '', '', '{BINDING.call_id}', {BINDING.cseq}, "
        f"'UDP', '127.0.0.1', 5060, '10.8.0.1', 5060, {BINDING.expires_at}, '', '{BINDING.user_agent}', "
        f"{BINDING.registered_at})"
    )


class Upgrading(SynchronousTestCase):
    """What holds on both databases."""

    def moved_up(self, settings: Settings) -> None:
        database = Database(settings)
        self.addCleanup(database.close)
        self.maxDiff = None
        self.assertEqual(
            reflected(database.engine), {name: described(table) for name, table in metadata.tables.items()}
        )
        with database.read() as connection:
            found = connection.exec_driver_sql("select schema_version, revision from meta").one()
        self.assertEqual(tuple(found), (SCHEMA_VERSION, 7))
        [bot] = Bots(database).all()
        self.assertEqual((bot.name, bot.password, bot.instruction, bot.trusted), ("Ada", "secret", "Be kind.", ""))
        bindings = Bindings(database)
        self.assertEqual(bindings.load(), {bot.username: (BINDING,)})
        routed = replace(BINDING, path=("<sip:edge.example;lr>", '<sip:b,c@core.example;lr;x="a,b">'))
        bindings.replace({bot.username: [routed]})
        self.assertEqual(bindings.load(), {bot.username: (routed,)})
        Bots(database).edit(bot.id, {"name": "Eva"})


class OnSqlite(Upgrading):
    def setUp(self) -> None:
        self.settings = Settings(data=new_folder(self))
        engine = create_engine(self.settings.database_url)
        with engine.begin() as connection:
            fill(connection, keys.make(self.settings.key_file))
        engine.dispose()

    def test_moved_up(self) -> None:
        """A version-1 database keeps its bots and registrations, and has all that a new one has."""
        self.moved_up(self.settings)
        Database(self.settings).close()  # and once more, with nothing left to do

    def test_all_or_nothing(self) -> None:
        """A step that fails leaves the database as it was, and says so in one line."""
        with (
            patch.dict(upgrade.STEPS, {1: (*upgrade.STEPS[1], "alter table nowhere add column x text")}),
            self.assertRaises(CannotStart),
        ):
            Database(self.settings)
        with sqlite3.connect(self.settings.data / "extenbot.sqlite3") as raw:
            self.assertEqual(raw.execute("select schema_version from meta").fetchone(), (1,))
            self.assertNotIn("trusted", [row[1] for row in raw.execute("pragma table_info(bots)")])
        raw.close()
        self.moved_up(self.settings)


class OnPostgres(Upgrading):
    server: ClassVar[Postgres]

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Postgres()
        cls.addClassCleanup(cls.server.stop)

    def test_moved_up(self) -> None:
        """The same on a real PostgreSQL."""
        settings = Settings(data=new_folder(self), database=DatabaseSettings(url=self.server.url))
        engine = create_engine(make_url(self.server.url).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            fill(connection, keys.make(settings.key_file))
        engine.dispose()
        self.moved_up(settings)
