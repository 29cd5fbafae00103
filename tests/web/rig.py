"""The pages on a store in a folder, with a service that only pretends to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import BackendLost, ToolFailed
from extenbot.interfaces import Bot, Function, Json, LiveCall, McpServer, Registration
from extenbot.settings import Settings, Web
from extenbot.web.seams import Connection, Live, Ran
from extenbot.web.site import site
from tests.store.inline import InlinePool, InlineReactor, new_folder, open_store
from tests.web.browser import Browser

EVIL = "<script>alert('x')</script>&\"'"
PASSWORD = "correct horse"


class Pages(SynchronousTestCase):
    web = Web()

    def setUp(self) -> None:
        self.reactor, self.pool = InlineReactor(), InlinePool()
        self.reactor.advance(1_900_000_000)
        self.store = open_store(new_folder(self), self.reactor, self.pool)
        self.addCleanup(self.store.close)
        self.bindings: dict[str, list[Any]] = {}
        self.registrations: dict[str, Registration] = {}
        self.up: list[LiveCall] = []
        self.hung_up: list[tuple[str, str]] = []
        self.spent: dict[str, float] = {}
        self.run_with: list[tuple[str, Json]] = []
        self.ran = Ran((), "Rain.")
        self.running: Deferred[Ran] | None = None
        self.tools: tuple[Json, ...] = ()
        self.recordings = new_folder(self)
        self.resource = site(
            self.store,
            Settings(web=self.web),
            Connection("voice.example.org", 5070, range(20000, 30001)),
            lambda username: self.bindings.get(username, []),
            self.registrations.get,
            self.reactor.seconds,
            Live(
                calls=lambda account_id: [call for call in self.up if call.account_id == account_id],
                hang_up=self.hang_up,
                spent_today=lambda _account_id: self.spent,
                speak=self.speak,
                recording=self.recording,
                erase=lambda call_id: (self.recordings / f"{call_id}.wav").unlink(missing_ok=True),
                run_function=self.run_function,
                server_tools=self.server_tools,
                run_tool=self.run_tool,
            ),
        )
        self.browser = Browser(self.resource)

    def hang_up(self, account_id: str, call_id: str) -> bool:
        """As the service does it."""
        self.hung_up.append((account_id, call_id))
        return any((call.account_id, call.id) == (account_id, call_id) for call in self.up)

    def speak(self, _bot: Bot, _text: str) -> Deferred[str]:
        return fail(BackendLost("wrong_key", "The voice service refuses the key."))

    def run_function(self, function: Function, arguments: Json) -> Deferred[Ran]:
        self.run_with.append((function.name, arguments))
        return self.running or succeed(self.ran)

    def server_tools(self, _server: McpServer) -> Deferred[tuple[Json, ...]]:
        return succeed(self.tools) if self.tools else fail(ToolFailed("The server cannot be reached."))

    def run_tool(self, _server: McpServer, name: str, arguments: Json) -> Deferred[Ran]:
        self.run_with.append((name, arguments))
        return succeed(self.ran)

    def recording(self, call_id: str) -> Path | None:
        path = self.recordings / f"{call_id}.wav"
        return path if path.exists() else None

    def sign_up(self, email: str = "you@example.org") -> Browser:
        browser = Browser(self.resource)
        self.assertEqual(browser.send("/signup", email=email, password=PASSWORD).location, "/settings/bots")
        return browser

    def a_bot(self, browser: Browser, **fields: str) -> str:
        """The path of a bot made in the pages."""
        return browser.send("/settings/bots/new", name="Ada", kind="registrar", enabled="on", **fields).location
