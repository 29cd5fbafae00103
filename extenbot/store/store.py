"""The store as the service has it: the database, all bots in memory, recordings, and the only thread pool.

`open` blocks and may refuse to start; `start` and `stop` are for the running reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from extenbot.interfaces import Bot, CallRecord, Registration
from extenbot.settings import Settings
from extenbot.sip.registrar import Binding
from extenbot.store.accounts import Accounts
from extenbot.store.bindings import Bindings
from extenbot.store.bots import Bots
from extenbot.store.calls import Calls
from extenbot.store.database import Database
from extenbot.store.directory import Directory
from extenbot.store.fields import new_password
from extenbot.store.functions import Functions
from extenbot.store.ledger import Ledger
from extenbot.store.outbox import Outbox
from extenbot.store.recordings import Recordings
from extenbot.store.registrations import Registrations
from extenbot.store.sentences import Sentences
from extenbot.store.servers import Servers
from extenbot.store.writing import Part, Writing

T = TypeVar("T")

DEMO_EMAIL = "demo@localhost"
_THREADS = 4


class Records:
    """Implements `interfaces.Records`."""

    log = Logger()

    def __init__(self, calls: Calls, writing: Writing) -> None:
        self._calls = calls
        self._writing = writing

    def save(self, record: CallRecord) -> None:
        self._writing.put(("call", record.id), partial(self._write, record))

    def _write(self, record: CallRecord) -> None:
        if not self._calls.write(record):
            self.log.warn("The account of call {id} is gone, and its record with it", id=record.id)


class SavedBindings:
    """The registrar's memory: `load` before the first REGISTER (blocks), `save` after each change."""

    def __init__(self, bindings: Bindings, writing: Writing) -> None:
        self._bindings = bindings
        self._writing = writing

    def load(self) -> dict[str, tuple[Binding, ...]]:
        """What has not expired, by username."""
        return self._bindings.load()

    def save(self, username: str, bindings: Sequence[Binding]) -> None:
        """These are now all contacts of that bot. Does not block."""
        self._writing.put(("bindings", username), Part(self._bindings.replace, tuple(bindings)))


class SavedRegistrations:
    """What the registrants tell: `save` after each change."""

    def __init__(self, registrations: Registrations, writing: Writing) -> None:
        self._registrations = registrations
        self._writing = writing

    def save(self, registration: Registration) -> None:
        """Does not block. Of two states that follow faster than they are written only the later one is kept."""
        self._writing.put(("registration", registration.bot_id), partial(self._registrations.write, registration))


class Store:
    """`accounts`, `bots`, `functions`, `servers`, `outbox`, `calls` and `registrations` block: give their methods to
    `run` or `change`.

    So do `sentences.save` and `.remove` (`change`) and `recordings.path` and `.remove` (`run`).
    """

    accounts: Accounts
    bots: Bots
    functions: Functions
    servers: Servers
    outbox: Outbox
    calls: Calls
    registrations: Registrations
    directory: Directory
    records: Records
    bindings: SavedBindings
    ledger: Ledger
    recordings: Recordings
    sentences: Sentences

    def __init__(self, settings: Settings, reactor: Any, pool: ThreadPool | None = None) -> None:
        self._settings = settings
        self._reactor = reactor
        self._pool = pool or ThreadPool(0, _THREADS, "store")

    def open(self) -> None:
        """Open the database, making it on first start, and read all bots; `CannotStart` when that fails. Blocks."""
        self._database = Database(self._settings)
        self.accounts = Accounts(self._database)
        self.bots = Bots(self._database)
        self.functions = Functions(self._database)
        self.servers = Servers(self._database)
        self.outbox = Outbox(self._database)
        pages = self._settings.web.url.rstrip("/")
        self.calls = Calls(self._database, lambda call_id: f"{pages}/calls/{call_id}" if pages else "")
        self.registrations = Registrations(self._database)
        self.directory = Directory(self._database, self.run, self._reactor)
        self._writing = Writing(self.run, self._reactor)
        self.records = Records(self.calls, self._writing)
        self.bindings = SavedBindings(Bindings(self._database), self._writing)
        self.saved_registrations = SavedRegistrations(self.registrations, self._writing)
        self.recordings = Recordings(
            self._settings.recordings_folder, self._settings.recordings.days, self.run, self._reactor
        )
        self.directory.load()
        self.sentences = self.directory.sentences
        self.ledger = Ledger(self.directory)
        self.ledger.load(self.calls.spent_since(self.ledger.midnight))

    def seed_demo(self) -> tuple[str, str, Bot] | None:
        """On the very first start: an account and a bot on the local voice, as (email, password, bot). Blocks."""
        if self._database.revision() > 0:
            return None
        password = new_password()
        account = self.accounts.add(DEMO_EMAIL, password, admin=True)
        bot = self.bots.add(
            account.id,
            {
                "name": "Demo",
                "model": "sandbox",
                "instruction": "You are the friendly voice of extenbot on the telephone. Answer in one short sentence. "
                "Transfer the caller when they ask for a person, and say goodbye before you hang up.",
                "welcome": "Hello, this is extenbot. How can I help you?",
            },
        )
        self.directory.load()
        return DEMO_EMAIL, password, bot

    async def start(self) -> None:
        self._pool.start()
        self.directory.start()
        self.recordings.start()

    async def stop(self) -> None:
        """Write what still waits, then close."""
        self.directory.stop()
        await self.recordings.stop()
        await self._writing.stop()
        self._pool.stop()
        self.close()

    def close(self) -> None:
        """Let go of the database: enough where `start` was never called."""
        self._database.close()

    def run(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Deferred[T]:
        """Run something that blocks in the thread pool."""
        return deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)

    async def change(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """`run` for what changes what calls go by: they do so as soon as this returns."""
        result = await self.run(function, *args, **kwargs)
        await self.directory.refresh()
        return result
