"""What all pages share: who asks and whether a form is theirs, how a page is shown, and what a mistake looks like.

`app` has the routes; the modules by area (`doors`, `bots`, `calls`, `account`) put theirs in, as functions of `Pages`.
The names of these functions must differ: Klein knows a route by its name.
"""

from __future__ import annotations

import http
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from klein import Klein
from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from werkzeug.exceptions import HTTPException

from extenbot.interfaces import Bot, CallRecord, Function, McpServer, Registration
from extenbot.settings import Settings
from extenbot.web.seams import Account, Binding, Connection, Live, Store
from extenbot.web.throttle import Throttle
from extenbot.web.views import views
from extenbot.web.visits import Cookies, Turned, Visit, address, new_secret, read_form, read_upload

P = ParamSpec("P")

app = Klein()


def page(route: Callable[Concatenate[Pages, Visit, P], Awaitable[bytes]]) -> Callable[..., Awaitable[bytes]]:
    """For everybody: finds out who asks and, when a form was sent, reads and checks it."""

    @wraps(route)
    async def served(pages: Pages, request: Request, *args: P.args, **kwargs: P.kwargs) -> bytes:
        visit = await pages.visit(request)
        if request.method == b"POST":
            read_form(visit)
        return await route(pages, visit, *args, **kwargs)

    return served


def own_page(
    route: Callable[Concatenate[Pages, Visit, Account, P], Awaitable[bytes]],
) -> Callable[..., Awaitable[bytes]]:
    """For those who are logged in; others go to the login page."""

    @wraps(route)
    async def served(pages: Pages, request: Request, *args: P.args, **kwargs: P.kwargs) -> bytes:
        visit = await pages.visit(request)
        if visit.account is None:
            return go(request, "/login")
        if request.method == b"POST":
            read_form(visit)
        return await route(pages, visit, visit.account, *args, **kwargs)

    return served


def own_upload(
    route: Callable[Concatenate[Pages, Visit, Account, P], Awaitable[bytes]],
) -> Callable[..., Awaitable[bytes]]:
    """`own_page` for a form with a file in it."""

    @wraps(route)
    async def served(pages: Pages, request: Request, *args: P.args, **kwargs: P.kwargs) -> bytes:
        visit = await pages.visit(request)
        if visit.account is None:
            return go(request, "/login")
        await pages.store.run(read_upload, visit)  # some megabytes: not where audio is waiting
        return await route(pages, visit, visit.account, *args, **kwargs)

    return served


def go(request: Request, path: str) -> bytes:
    """See another page of ours. `path` never comes from outside."""
    request.setResponseCode(303)
    request.setHeader("Location", path)
    return b""


class Pages:
    app = app
    log = Logger()

    def __init__(
        self,
        store: Store,
        settings: Settings,
        connection: Connection,
        registered: Callable[[str], Sequence[Binding]],
        registration: Callable[[str], Registration | None],
        now: Callable[[], float],
        live: Live,
    ) -> None:
        self.store = store
        self.now = now
        self.live = live
        self.sign_up = settings.web.sign_up
        self.connection = connection
        self.registered = registered
        self.registration = registration
        self.cookies = Cookies(settings.web.url.startswith("https:"))
        self.throttle = Throttle(now)
        # Hashing takes its time: a flood of logins must leave threads for calls and bots.
        self.hashing = DeferredSemaphore(2)
        self.speaking: set[str] = set()  # ids of bots that speak a sentence just now
        self.trying: set[str] = set()  # ids of accounts that try a function just now
        self.views = views()

    # -- Who asks, and what they get

    async def visit(self, request: Request) -> Visit:
        token = self.cookies.read(request, "session")
        account = await self.store.run(self.store.accounts.session, token) if token else None
        secret = token if account else self.cookies.read(request, "form")
        return Visit(request, account, secret, address(request))

    def show(self, visit: Visit, template: str, code: int = 200, **more: Any) -> bytes:
        request = visit.request
        if not visit.secret:  # the first visit: its forms need something to be derived from
            visit.secret = new_secret()
            self.cookies.write(request, "form", visit.secret)
        _answer(request, code)
        return self.views.render(template, self._common(visit) | more)

    def _common(self, visit: Visit) -> dict[str, Any]:
        return {
            "account": visit.account,
            "form_token": visit.form_token,
            "sign_up": self.sign_up,
            "problems": {},
            "section": "",
        }

    # -- What belongs to whom

    async def own_bot(self, bot_id: str, account: Account) -> Bot:
        """The bot of this account; for anybody else there is none."""
        bot = await self.store.run(self.store.bots.get, bot_id, account.id)
        if bot is None:
            raise Turned(404, "There is no such bot.")
        return bot

    async def own_function(self, function_id: str, account: Account) -> Function:
        """The function of this account; for anybody else there is none."""
        function = await self.store.run(self.store.functions.get, function_id, account.id)
        if function is None:
            raise Turned(404, "There is no such function.")
        return function

    async def own_server(self, server_id: str, account: Account) -> McpServer:
        """The MCP server of this account; for anybody else there is none."""
        server = await self.store.run(self.store.servers.get, server_id, account.id)
        if server is None:
            raise Turned(404, "There is no such MCP server.")
        return server

    async def own_call(self, call_id: str, account: Account) -> CallRecord:
        """The call of this account; for anybody else there is none."""
        record = await self.store.run(self.store.calls.get, call_id, account.id)
        if record is None:
            raise Turned(404, "There is no such call.")
        return record

    @app.handle_errors(Turned)
    def turned(self, request: Any, failure: Any) -> bytes:
        return self._refusal(request, failure.value.code, str(failure.value))

    @app.handle_errors(HTTPException)
    def unknown(self, request: Any, failure: Any) -> bytes:
        code = failure.value.code or 404
        if code == 405:
            return self._refusal(request, code, "This page does not take that.")
        if code in (301, 308):  # werkzeug would like another spelling of the path
            code = 404
        return self._refusal(request, code, "There is no such page.")

    @app.handle_errors(Exception)
    def broken(self, request: Any, failure: Failure) -> bytes:
        self.log.failure("The page {path} failed", failure=failure, path=request.path.decode("ascii", "replace"))
        return self._refusal(request, 500, "Something went wrong on our side. Try again in a moment.")

    def _refusal(self, request: Request, code: int, words: str) -> bytes:
        _answer(request, code)
        shown: dict[str, Any] = {"account": None, "form_token": "", "sign_up": False, "problems": {}, "section": ""}
        return self.views.render("refusal.html", shown | {"code": code, "words": words})


def _answer(request: Request, code: int) -> None:
    request.setResponseCode(code, http.HTTPStatus(code).phrase.encode())
    request.setHeader("Content-Type", "text/html; charset=utf-8")
