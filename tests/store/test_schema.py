"""schema.sql and the SQLAlchemy tables say the same, on both databases."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from sqlalchemy import Engine, MetaData, Table, UniqueConstraint, create_engine, inspect
from twisted.trial.unittest import SynchronousTestCase

from extenbot.settings import Database as DatabaseSettings
from extenbot.settings import Settings
from extenbot.store.accounts import Accounts
from extenbot.store.bots import Bots
from extenbot.store.calls import Calls
from extenbot.store.database import Database, schema_file, statements
from extenbot.store.sentences import Sentences
from extenbot.store.tables import SCHEMA_VERSION, metadata
from tests.store.examples import record
from tests.store.inline import new_folder
from tests.store.postgres import Postgres

_FAMILIES = (
    ("text", "text"),
    ("bool", "boolean"),
    ("double", "double"),
    ("real", "double"),
    ("bytea", "bytes"),
    ("blob", "bytes"),
    ("numeric", "bytes"),  # what SQLite makes of "bytea"; blobs stay blobs there
    ("bigint", "bigint"),
    ("int", "integer"),
)


def family(kind: Any) -> str:
    name = str(kind).lower()
    return next(settled for part, settled in _FAMILIES if part in name)


def described(table: Table) -> dict[str, Any]:
    """All that matters of a table, in one comparable value."""
    return {
        "columns": {
            column.name: (family(column.type), bool(column.nullable), column.primary_key) for column in table.columns
        },
        "order": [column.name for column in table.columns],
        "foreign": sorted(
            (key.parent.name, key.target_fullname, (key.ondelete or "").upper()) for key in table.foreign_keys
        ),
        "unique": sorted(
            tuple(column.name for column in constraint.columns)
            for constraint in table.constraints
            if isinstance(constraint, UniqueConstraint)
        ),
        "indexes": sorted(
            (str(index.name), bool(index.unique), tuple(column.name for column in index.columns))
            for index in table.indexes
            if not any(  # PostgreSQL tells the index of a unique constraint as well
                isinstance(c, UniqueConstraint) and {*c.columns} == {*index.columns} for c in table.constraints
            )
        ),
    }


def reflected(engine: Engine) -> dict[str, Any]:
    found = MetaData()
    found.reflect(engine)
    tables = {name: described(table) for name, table in found.tables.items()}
    if engine.dialect.name == "sqlite":  # SQLAlchemy does not read "on delete" behind a column there
        with engine.connect() as connection:
            for name, table in tables.items():
                keys = connection.exec_driver_sql(f"pragma foreign_key_list({name})").mappings()
                table["foreign"] = sorted((k["from"], f"{k['table']}.{k['to']}", k["on_delete"]) for k in keys)
    return tables


class Schema(SynchronousTestCase):
    def setUp(self) -> None:
        self.engine = create_engine("sqlite://")
        with self.engine.begin() as connection:
            for statement in statements(schema_file().read_text("utf-8")):
                connection.exec_driver_sql(statement)
        self.addCleanup(self.engine.dispose)

    def test_tables_are_equal(self) -> None:
        """Whoever reads schema.sql reads what the program uses."""
        self.maxDiff = None
        self.assertEqual(reflected(self.engine), {name: described(table) for name, table in metadata.tables.items()})

    def test_conditions_are_equal(self) -> None:
        """Only usernames that we give out are unique, and a kind is one of two."""
        made = create_engine("sqlite://")
        metadata.create_all(made)
        for read in (
            lambda engine: re.sub(r"\s", "", str(inspect(engine).get_check_constraints("bots")[0]["sqltext"])),
            lambda engine: [
                str(index["dialect_options"].get("sqlite_where")) for index in inspect(engine).get_indexes("bots")
            ],
        ):
            self.assertEqual(read(self.engine), read(made))
        made.dispose()

    def test_version(self) -> None:
        """A fresh database has the version that this program wants."""
        with self.engine.connect() as connection:
            found = connection.exec_driver_sql("select schema_version, revision from meta").one()
        self.assertEqual(tuple(found), (SCHEMA_VERSION, 0))


class OnPostgres(SynchronousTestCase):
    """The same on a real PostgreSQL."""

    server: ClassVar[Postgres]

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Postgres()
        cls.addClassCleanup(cls.server.stop)

    def test_everything_works(self) -> None:
        """A bot, a taken username, a call with odd characters: all as on SQLite."""
        settings = Settings(data=new_folder(self), database=DatabaseSettings(url=self.server.url))
        database = Database(settings)
        self.addCleanup(database.close)
        self.maxDiff = None
        self.assertEqual(
            reflected(database.engine), {name: described(table) for name, table in metadata.tables.items()}
        )
        account = Accounts(database).add("you@example.org", "correct horse")
        bots = Bots(database)
        bot = bots.add(account.id, {"name": "Ada", "token": "sk-secret"})
        with self.assertRaises(Exception) as caught:
            bots.add(account.id, {"name": "Bob", "username": bot.username})
        self.assertIn("Another bot", str(caught.exception))
        self.assertEqual(bots.get(bot.id), bot)
        calls = Calls(database)
        self.assertTrue(calls.write(record(account.id, caller="nul\0 and half \udc80")))
        found = calls.get(record(account.id).id)
        assert found is not None
        self.assertEqual(found.caller, "nul and half ?")
        self.assertEqual(found.transcript, record(account.id).transcript)
        self.assertEqual((found.cost, found.recorded), (0.0625, True))
        self.assertEqual(calls.spent_since(found.ended), [(account.id, found.bot_id, 0.0625)])
        sentences = Sentences(database)
        sentences.save(bot.id, "Hello", b"\xff\x00\x7f", "recorded", "Hello")
        sentences.load()
        self.assertEqual(sentences.audio(bot.id, "Hello", "PCMU"), b"\xff\x00\x7f")
        second = Database(settings)  # opened again while the first is in use
        self.assertEqual(second.revision(), 3)
        second.close()
