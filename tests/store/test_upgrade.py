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
from extenbot.interfaces import Function
from extenbot.settings import Database as DatabaseSettings
from extenbot.settings import Settings
from extenbot.store import keys, upgrade
from extenbot.store.bindings import Bindings
from extenbot.store.bots import Bots
from extenbot.store.calls import Calls
from extenbot.store.database import KEY_CHECK, Database, statements
from extenbot.store.functions import Functions
from extenbot.store.tables import SCHEMA_VERSION, metadata
from tests.store.examples import BINDING
from tests.store.inline import new_folder
from tests.store.postgres import Postgres
from tests.store.test_schema import described, reflected

OLD = (1, 2, 3)


def fill(connection: Connection, sealed: keys.Keys, version: int) -> None:
    """A database as an old version left it: a bot with a password, its PBX registered, and a call."""
    for statement in statements(Path(__file__).with_name(f"schema_{version}.sql").read_text()):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"update meta set revision = 7, key_check = '{sealed.seal(KEY_CHECK)}'")
    since_3 = ", 2.5" if version > 2 else ""
    connection.exec_driver_sql(f"insert into accounts values ('a', 'you@example.org', 'x', true, 1.5{since_3})")
    since_2 = ", '', 'blind'" if version > 1 else ""
    since_3 = """, '[]', '{"silence": 20}'""" if version > 2 else ""
    connection.exec_driver_sql(
        f"insert into bots values ('b', 'a', 'Ada', 'registrar', '{BINDING.username}', '{sealed.seal('secret')}', "
        f"'', 'sandbox', '', '', '', 'Be kind.', '', '', true, '', '', 0, '', 600, '', 2.5{since_2}{since_3})"
    )
    connection.exec_driver_sql(
        f"insert into functions values ('f', 'a', 'order', 'https://example.org/hook', '{sealed.seal('bearer')}', '', "
        "'{\"n\": {n}}', 3.5)"
    )
    connection.exec_driver_sql("insert into bot_functions values ('b', 'f')")
    since_2 = ", ''" if version > 1 else ""
    connection.exec_driver_sql(
        f"insert into bindings values ('b', 0, '{BINDING.contact}', '', '', '{BINDING.call_id}', {BINDING.cseq}, "
        f"'UDP', '127.0.0.1', 5060, '10.8.0.1', 5060, {BINDING.expires_at}, '', '{BINDING.user_agent}', "
        f"{BINDING.registered_at}{since_2})"
    )
    since_2 = ", false" if version > 1 else ""
    since_3 = ", 0.5, 'It was slow.', true" if version > 2 else ""
    connection.exec_driver_sql(
        "insert into calls values ('c', 'a', 'b', 'x@y', '100', '', 'openai', '10.8.0.1:5060', 3.5, null, 4.5, '', "
        f"'busy', 1, 2, 3, 0.5, '{{}}'{since_2}{since_3})"
    )


class Upgrading(SynchronousTestCase):
    """What holds on both databases."""

    def moved_up(self, settings: Settings, version: int) -> None:
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
        [function] = bot.functions
        self.assertEqual(function, Function("f", "order", "https://example.org/hook", "bearer", "", '{"n": {n}}'))
        self.assertEqual((bot.servers, bot.before_url, bot.after_url, bot.hook_token), ((), "", "", ""))
        self.assertEqual(bot.manner.silence, 20 if version > 2 else 15)
        bindings = Bindings(database)
        self.assertEqual(bindings.load(), {bot.username: (BINDING,)})
        routed = replace(BINDING, path=("<sip:edge.example;lr>", '<sip:b,c@core.example;lr;x="a,b">'))
        bindings.replace({bot.username: [routed]})
        self.assertEqual(bindings.load(), {bot.username: (routed,)})
        Bots(database).edit(bot.id, {"name": "Eva", "barge_in": "off"})
        call = Calls(database).get("c")
        assert call is not None
        told = (0.5, "It was slow.", True) if version > 2 else (0.0, "", False)
        self.assertEqual((call.caller, call.cost, call.trouble, call.recorded), ("100", *told))
        Functions(database).edit("f", {"secret": "sign-with-me"})
        Bots(database).edit("b", {"after_url": "https://example.org/after", "hook_token": "hook"})
        database.close()


class OnSqlite(Upgrading):
    def filled(self, version: int) -> Settings:
        settings = Settings(data=new_folder(self))
        engine = create_engine(settings.database_url)
        with engine.begin() as connection:
            fill(connection, keys.make(settings.key_file), version)
        engine.dispose()
        return settings

    def test_moved_up(self) -> None:
        """An older database keeps its bots, registrations and calls, and has all that a new one has."""
        for version in OLD:
            settings = self.filled(version)
            self.moved_up(settings, version)
            Database(settings).close()  # and once more, with nothing left to do

    def test_all_or_nothing(self) -> None:
        """A step that fails leaves the database as it was, and says so in one line."""
        settings = self.filled(1)
        with (
            patch.dict(upgrade.STEPS, {1: (*upgrade.STEPS[1], "alter table nowhere add column x text")}),
            self.assertRaises(CannotStart),
        ):
            Database(settings)
        with sqlite3.connect(settings.data / "extenbot.sqlite3") as raw:
            self.assertEqual(raw.execute("select schema_version from meta").fetchone(), (1,))
            self.assertNotIn("trusted", [row[1] for row in raw.execute("pragma table_info(bots)")])
        raw.close()
        self.moved_up(settings, 1)


class OnPostgres(Upgrading):
    server: ClassVar[Postgres]

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Postgres()
        cls.addClassCleanup(cls.server.stop)

    def test_moved_up(self) -> None:
        """The same on a real PostgreSQL."""
        for version in OLD:
            settings = Settings(data=new_folder(self), database=DatabaseSettings(url=self.server.url))
            engine = create_engine(make_url(self.server.url).set(drivername="postgresql+psycopg"))
            with engine.begin() as connection:
                connection.exec_driver_sql("drop schema public cascade")
                connection.exec_driver_sql("create schema public")
                fill(connection, keys.make(settings.key_file), version)
            engine.dispose()
            self.moved_up(settings, version)
