"""Opens the database, makes it on first start, moves an older one up, and hands out transactions.

The service and the `extenbot` command use the same database at the same time. SQLite
allows one writer: ours wait for each other in line, those of other processes by
`busy_timeout`. Everything here blocks: only the thread pool and commands call it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, inspect, make_url, select, update
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from extenbot.errors import CannotStart
from extenbot.settings import Settings
from extenbot.store import keys, tables
from extenbot.store.tables import SCHEMA_VERSION, meta
from extenbot.store.upgrade import move_up

BUSY_TIMEOUT = 10  # seconds that a writer waits for another process
KEY_CHECK = "extenbot"
_CREATING = 0x657874656E  # names the PostgreSQL lock that two first starts meet at


def schema_file() -> Path:
    """schema.sql: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    packaged = package / "schema.sql"
    return packaged if packaged.exists() else package.parent / "schema.sql"


def statements(schema: str) -> list[str]:
    """The single statements of schema.sql, without comments."""
    bare = re.sub(r"--[^\n]*", "", schema)
    return [statement.strip() for statement in bare.split(";") if statement.strip()]


class Database:
    """A database of our schema, open and checked, with the keys for its secrets."""

    keys: keys.Keys

    def __init__(self, settings: Settings) -> None:
        """Open it, after making the data folder, the schema and the keys where they are missing.

        `CannotStart` with one line when something is in the way.
        """
        self._settings = settings
        self._writing = threading.Lock()
        self._make_folder(settings.data)
        self.engine = self._make_engine(settings.database_url)
        try:
            with self.write() as connection:
                self._make_schema(connection)
                move_up(connection)
                self._check_version(connection)
                self._find_keys(connection)
        except DBAPIError as error:
            self.close()
            raise self._unusable(error) from error
        except CannotStart:
            self.close()
            raise

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write; one at a time on SQLite."""
        if self.engine.dialect.name != "sqlite":
            with self.engine.begin() as connection:
                yield connection
            return
        with self._writing, self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """A transaction that touches accounts, bots, functions or sentences: every directory reads them again."""
        with self.write() as connection:
            connection.execute(update(meta).values(revision=meta.c.revision + 1))
            yield connection

    def revision(self) -> int:
        with self.read() as connection:
            return int(connection.execute(select(meta.c.revision)).scalar_one())

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CannotStart(f"The data folder {folder} cannot be made: {error.strerror}.") from error

    def _make_engine(self, url: str) -> Engine:
        try:
            parsed = make_url(url)
            if parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            engine = create_engine(
                parsed,
                pool_pre_ping=parsed.get_backend_name() != "sqlite",
                hide_parameters=True,  # errors are logged, and what is written is nobody's business
            )
        except (ArgumentError, NoSuchModuleError, ValueError) as error:
            raise CannotStart(f"The database URL cannot be used: {error}.") from error
        except ImportError as error:
            raise CannotStart(
                f"The database needs the Python package {error.name}: pip install 'extenbot[postgresql]'."
            ) from error
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _opened)
            event.listen(engine, "begin", _begun)
        return engine

    def _unusable(self, error: DBAPIError) -> CannotStart:
        shown = self.engine.url.render_as_string(hide_password=True)
        reason = (str(error.orig).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        return CannotStart(f"The database {shown} cannot be used: {reason}.")

    def _make_schema(self, connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))
        if not inspect(connection).has_table("meta"):
            for statement in statements(schema_file().read_text("utf-8")):
                connection.exec_driver_sql(statement)

    def _check_version(self, connection: Connection) -> None:
        found = connection.execute(select(meta.c.schema_version)).scalar_one_or_none()
        if found != SCHEMA_VERSION:
            shown = self.engine.url.render_as_string(hide_password=True)
            advice = "it was made by a newer one" if found is not None and found > SCHEMA_VERSION else "it is too old"
            raise CannotStart(
                f"The database {shown} has schema version {found}, this extenbot needs {SCHEMA_VERSION}: {advice}."
            )

    def _find_keys(self, connection: Connection) -> None:
        path = self._settings.key_file
        found = keys.read(path)
        sealed = connection.execute(select(meta.c.key_check)).scalar_one()
        secrets = _has_secrets(connection)
        if found is None:
            if secrets:
                raise CannotStart(
                    f"The key file {path} is missing, and the database holds secrets sealed with it: put it back."
                )
            found, sealed = keys.make(path), ""
        try:
            fits = found.unseal(sealed) == KEY_CHECK
        except keys.WrongKey:
            fits = False
        if not fits and secrets:
            raise CannotStart(f"The key file {path} does not fit the secrets in the database: put the right one back.")
        if not fits:
            connection.execute(update(meta).values(key_check=found.seal(KEY_CHECK)))
        self.keys = found


def _has_secrets(connection: Connection) -> bool:
    columns = (column for table in tables.metadata.tables.values() for column in table.c)
    sealed = [column for column in columns if column.name.endswith("_sealed")]
    return any(connection.execute(select(column).where(column != "").limit(1)).first() for column in sealed)


def _opened(raw: Any, _record: object) -> None:
    """A new SQLite connection: transactions are begun by `_begun`, not by the driver."""
    raw.isolation_level = None
    cursor = raw.cursor()
    cursor.execute(f"pragma busy_timeout = {BUSY_TIMEOUT * 1000}")
    cursor.execute("pragma foreign_keys = on")
    cursor.execute("pragma synchronous = normal")
    until = time.monotonic() + BUSY_TIMEOUT
    while cursor.execute("pragma journal_mode").fetchone()[0] not in ("wal", "memory"):
        try:
            cursor.execute("pragma journal_mode = wal")
        except Exception:  # "locked": two first starts at once, for which SQLite does not wait by itself
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    cursor.close()


def _begun(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("begin immediate" if writes else "begin")
