"""Opening: made on first start, refused with one line when something is in the way."""

from __future__ import annotations

import sqlite3
import threading

from cryptography.fernet import Fernet
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import CannotStart
from extenbot.settings import Database as DatabaseSettings
from extenbot.settings import Settings
from extenbot.store import keys
from extenbot.store.accounts import Accounts
from extenbot.store.bots import Bots
from extenbot.store.database import Database
from extenbot.store.servers import Servers
from extenbot.store.tables import SCHEMA_VERSION
from tests.store.inline import new_folder


class Opening(SynchronousTestCase):
    def setUp(self) -> None:
        self.settings = Settings(data=new_folder(self) / "var")

    def open(self) -> Database:
        database = Database(self.settings)
        self.addCleanup(database.close)
        return database

    def with_secret(self) -> Database:
        database = self.open()
        account = Accounts(database).add("you@example.org", "correct horse")
        Bots(database).add(account.id, {"name": "Ada", "token": "sk-secret", "password": "sip-secret"})
        return database

    def refusal(self) -> str:
        with self.assertRaises(CannotStart) as caught:
            self.open()
        words = str(caught.exception)
        self.assertNotIn("\n", words)
        return words

    def test_first_start(self) -> None:
        """The folder, the database and the keys appear, the keys for their owner only."""
        database = self.open()
        self.assertEqual(database.revision(), 0)
        self.assertEqual(self.settings.key_file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.settings.data.stat().st_mode & 0o777, 0o700)

    def test_write_ahead(self) -> None:
        """Readers do not wait for the writer, and foreign keys hold."""
        with self.open().read() as connection:
            self.assertEqual(connection.exec_driver_sql("pragma journal_mode").scalar_one(), "wal")
            self.assertEqual(connection.exec_driver_sql("pragma foreign_keys").scalar_one(), 1)
            self.assertGreater(connection.exec_driver_sql("pragma busy_timeout").scalar_one(), 1000)

    def test_secrets_are_sealed(self) -> None:
        """Nobody reads a password or a key out of the database file."""
        self.with_secret().close()
        content = b"".join(path.read_bytes() for path in self.settings.data.glob("extenbot.sqlite3*"))
        self.assertIn(b"you@example.org", content)
        for secret in (b"sk-secret", b"sip-secret", b"correct horse"):
            self.assertNotIn(secret, content)

    def test_other_version(self) -> None:
        """A database of a newer extenbot, or of one too old to know, is left alone."""
        self.open().close()
        for version, word in ((SCHEMA_VERSION + 1, "newer"), (0, "old")):
            with sqlite3.connect(self.settings.data / "extenbot.sqlite3") as raw:
                raw.execute("update meta set schema_version = ?", (version,))
            raw.close()
            self.assertIn(f"schema version {version}", words := self.refusal())
            self.assertIn(word, words)

    def test_no_folder(self) -> None:
        """A data folder that cannot be made is named."""
        (file := new_folder(self) / "file").write_text("")
        self.settings = Settings(data=file / "var")
        self.assertIn(str(file / "var"), self.refusal())

    def test_not_a_database(self) -> None:
        """A file that is something else is not written over."""
        self.settings.data.mkdir(parents=True)
        (path := self.settings.data / "extenbot.sqlite3").write_text("a shopping list, and a long one at that" * 9)
        self.assertIn("cannot be used", self.refusal())
        self.assertIn("shopping", path.read_text())

    def test_no_server(self) -> None:
        """A PostgreSQL that is away is told without the password."""
        self.settings = Settings(
            data=self.settings.data, database=DatabaseSettings("postgresql://me:hidden@127.0.0.1:1/none")
        )
        self.assertNotIn("hidden", words := self.refusal())
        self.assertIn("127.0.0.1", words)

    def test_missing_keys(self) -> None:
        """Without its key file, a database with secrets is refused, and no new key is made."""
        self.with_secret().close()
        self.settings.key_file.unlink()
        self.assertIn("is missing", self.refusal())
        self.assertFalse(self.settings.key_file.exists())

    def test_any_secret(self) -> None:
        """So is one whose only secret is the key of an MCP server."""
        database = Database(self.settings)
        account = Accounts(database).add("you@example.org", "correct horse")
        Servers(database).add(account.id, {"label": "shop", "url": "https://example.org/mcp", "key": "k"})
        database.close()
        self.settings.key_file.unlink()
        self.assertIn("key file", self.refusal())
        self.assertFalse(self.settings.key_file.exists())

    def test_wrong_keys(self) -> None:
        """The key file of another installation is refused."""
        self.with_secret().close()
        self.settings.key_file.write_bytes(Fernet.generate_key())
        self.assertIn("does not fit", self.refusal())

    def test_broken_keys(self) -> None:
        """A key file with something else in it is refused."""
        for content in ("not a key\n", "", "sch\xfcssel"):
            self.settings.data.mkdir(parents=True, exist_ok=True)
            self.settings.key_file.write_text(content, "latin-1")
            self.assertIn("key file", self.refusal())

    def test_new_keys_without_secrets(self) -> None:
        """A database without secrets takes whatever key there is."""
        self.open().close()
        self.settings.key_file.unlink()
        self.open()

    def test_rotation(self) -> None:
        """A new key in front of the old one: old secrets are read, new ones need the new key."""
        self.with_secret().close()
        old = self.settings.key_file.read_text()
        new = Fernet.generate_key().decode()
        self.settings.key_file.write_text(f"{new}\n{old}")
        database = self.open()
        [bot] = Bots(database).all()
        self.assertEqual((bot.token, bot.password), ("sk-secret", "sip-secret"))
        self.assertEqual(keys.Keys([new]).unseal(database.keys.seal("x")), "x")

    def test_two_first_starts(self) -> None:
        """The service and a command may start at the same moment, with nothing there yet."""
        failed: list[Exception] = []

        def start() -> None:
            try:
                Database(self.settings).close()
            except Exception as error:  # noqa: BLE001
                failed.append(error)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])
        self.assertEqual(self.open().revision(), 0)

    def test_two_writers(self) -> None:
        """Many writers at once all get through, from one process and from several."""
        databases = [self.open(), self.open()]

        def write(database: Database) -> None:
            for _ in range(10):
                with database.change():
                    pass

        threads = [threading.Thread(target=write, args=(database,)) for database in databases * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(databases[0].revision(), 40)
