"""The routes: sign up, log in, log out, bots and calls. Every page but the first two asks for a login."""

from __future__ import annotations

import http
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from klein import Klein
from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Request as SiteRequest
from twisted.web.server import Site
from werkzeug.exceptions import HTTPException

from extenbot.errors import Invalid
from extenbot.interfaces import Bot, Registration, Standing
from extenbot.networks import cautions
from extenbot.settings import Settings
from extenbot.web.guides import guides, host, values
from extenbot.web.seams import NOTHING, Account, Binding, Connection, Live, Store
from extenbot.web.throttle import Throttle
from extenbot.web.views import Views
from extenbot.web.visits import LONGEST_BODY, Cookies, Turned, Visit, address, new_secret, read_form

P = ParamSpec("P")

SESSION_COOKIE_LIFE = 14 * 86400
CALLS_A_PAGE = 50
CALLS_OF_A_BOT = 10
STATES_OF_A_BOT = 10
_TEXTS = (
    "name",
    "kind",
    "username",
    "domain",
    "model",
    "voice",
    "ai_url",
    "instruction",
    "welcome",
    "transfer_uri",
    "transfer_mode",
    "auth_id",
    "outbound_proxy",
    "port",
    "transport",
    "expires",
    "allowed",
    "trusted",
)
_STANDING = {  # as (colour, words)
    Standing.OFF: ("off", "Not registered"),
    Standing.REGISTERING: ("waiting", "Registering at the PBX"),
    Standing.REGISTERED: ("good", "Registered at the PBX"),
    Standing.REFUSED: ("bad", "Refused by the PBX"),
    Standing.UNREACHABLE: ("bad", "The PBX cannot be reached"),
    Standing.LEAVING: ("waiting", "Signing off"),
}
_SECRETS = ("password", "token")

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


def site(
    store: Store,
    settings: Settings,
    connection: Connection,
    registered: Callable[[str], Sequence[Binding]],
    registration: Callable[[str], Registration | None],
    now: Callable[[], float] = time.time,
    live: Live = NOTHING,
) -> Resource:
    """All pages. `registered` gives the contacts of the bot with that username, now.

    `registration` tells how it stands with that of the registrant with that id.
    """
    return _Guarded(Pages(store, settings, connection, registered, registration, now, live).app.resource(), settings)


class PagesSite(Site):
    """What listens: refuses bodies longer than any form of ours before they are kept."""

    noisy = False

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource, requestFactory=_ShortRequest)
        self.displayTracebacks = False


class _ShortRequest(SiteRequest):
    _taken = 0

    def gotLength(self, length: int | None) -> None:
        super().gotLength(min(length or 0, LONGEST_BODY))
        if length is not None and length > LONGEST_BODY:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._taken += len(data)
        if self._taken <= LONGEST_BODY:
            super().handleContentChunk(data)
        elif self._taken - len(data) <= LONGEST_BODY:
            self._refuse()

    def _refuse(self) -> None:
        self._taken = LONGEST_BODY + 1
        if self.channel is not None and self.channel.transport is not None:
            self.channel.transport.write(
                b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            self.channel.loseConnection()


class _Guarded(Resource):
    """Puts the security headers on every answer, also on those that Klein makes by itself."""

    isLeaf = True

    def __init__(self, inner: Any, settings: Settings) -> None:
        super().__init__()
        self._inner = inner
        self._headers = dict(_HEADERS)
        if settings.web.url.startswith("https:"):
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    def render(self, request: Any) -> Any:
        for name, value in self._headers.items():
            request.setHeader(name, value)
        return self._inner.render(request)


def page(route: Callable[Concatenate[Pages, Visit, P], Awaitable[bytes]]) -> Callable[..., Awaitable[bytes]]:
    """For everybody: finds out who asks and, when a form was sent, reads and checks it."""

    @wraps(route)
    async def served(self: Pages, request: Request, *args: P.args, **kwargs: P.kwargs) -> bytes:
        visit = await self.visit(request)
        if request.method == b"POST":
            read_form(visit)
        return await route(self, visit, *args, **kwargs)

    return served


def own_page(
    route: Callable[Concatenate[Pages, Visit, Account, P], Awaitable[bytes]],
) -> Callable[..., Awaitable[bytes]]:
    """For those who are logged in; others go to the login page."""

    @wraps(route)
    async def served(self: Pages, request: Request, *args: P.args, **kwargs: P.kwargs) -> bytes:
        visit = await self.visit(request)
        if visit.account is None:
            return go(request, "/login")
        if request.method == b"POST":
            read_form(visit)
        return await route(self, visit, visit.account, *args, **kwargs)

    return served


def go(request: Request, path: str) -> bytes:
    """See another page of ours. `path` never comes from outside."""
    request.setResponseCode(303)
    request.setHeader("Location", path)
    return b""


class Pages:
    app = Klein()
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
        self._store = store
        self._now = now
        self._live = live
        self._sign_up = settings.web.sign_up
        self._connection = connection
        self._registered = registered
        self._registration = registration
        self._cookies = Cookies(settings.web.url.startswith("https:"))
        self._throttle = Throttle(now)
        # Hashing takes its time: a flood of logins must leave threads for calls and bots.
        self._hashing = DeferredSemaphore(2)
        self._views = Views()

    # -- Who asks, and what they get

    async def visit(self, request: Request) -> Visit:
        token = self._cookies.read(request, "session")
        account = await self._store.run(self._store.accounts.session, token) if token else None
        secret = token if account else self._cookies.read(request, "form")
        return Visit(request, account, secret, address(request))

    def show(self, visit: Visit, template: str, code: int = 200, **more: Any) -> bytes:
        request = visit.request
        if not visit.secret:  # the first visit: its forms need something to be derived from
            visit.secret = new_secret()
            self._cookies.write(request, "form", visit.secret)
        _answer(request, code)
        return self._views.render(template, self._common(visit) | more)

    def _common(self, visit: Visit) -> dict[str, Any]:
        return {
            "account": visit.account,
            "form_token": visit.form_token,
            "sign_up": self._sign_up,
            "problems": {},
            "section": "",
        }

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
        return self._views.render("refusal.html", shown | {"code": code, "words": words})

    # -- Everybody

    @app.route("/", methods=["GET"])
    @page
    async def start(self, visit: Visit) -> bytes:
        return go(visit.request, "/settings/bots" if visit.account else "/login")

    @app.route("/static/<name>", methods=["GET"])
    def static(self, request: Request, name: str) -> bytes:
        found = self._views.static.get(name)
        if found is None:
            raise Turned(404, "There is no such file.")
        request.setHeader("Content-Type", found.kind)
        request.setHeader("Cache-Control", "public, max-age=31536000, immutable")
        return found.content

    @app.route("/login", methods=["GET"])
    @page
    async def login(self, visit: Visit) -> bytes:
        if visit.account:
            return go(visit.request, "/settings/bots")
        return self.show(visit, "login.html", email="")

    @app.route("/login", methods=["POST"])
    @page
    async def log_in(self, visit: Visit) -> bytes:
        email, password = visit.form.get("email", "").strip(), visit.form.get("password", "")[:200]
        keys = {
            ("both", visit.address, email.lower()[:254]): 5,
            ("from", visit.address): 20,
            ("for", email.lower()): 50,
        }
        wait = max(self._throttle.wait(key, free) for key, free in keys.items())
        if wait > 0:
            visit.request.setHeader("Retry-After", str(int(wait) + 1))
            words = f"Too many failed tries: wait {int(wait) + 1} seconds and try again."
            return self.show(visit, "login.html", 429, email=email, problems={"password": words})
        for key in keys:  # counted before the answer is known, so that many tries at once count as well
            self._throttle.failed(key)
        account = await self._hashing.run(self._store.run, self._store.accounts.check, email, password)
        if account is None:
            words = "This email and password do not belong together."
            return self.show(visit, "login.html", 422, email=email, problems={"password": words})
        for key in keys:
            self._throttle.passed(key)
        return await self._enter(visit, account)

    @app.route("/signup", methods=["GET"])
    @page
    async def sign_up_form(self, visit: Visit) -> bytes:
        self._check_sign_up()
        return self.show(visit, "signup.html", email="")

    @app.route("/signup", methods=["POST"])
    @page
    async def sign_up(self, visit: Visit) -> bytes:
        self._check_sign_up()
        email, password = visit.form.get("email", ""), visit.form.get("password", "")
        key = ("sign up", visit.address)
        wait = self._throttle.wait(key, 10)
        if wait > 0:
            words = f"Too many new accounts from your address: wait {int(wait) + 1} seconds and try again."
            return self.show(visit, "signup.html", 429, email=email, problems={"email": words})
        self._throttle.failed(key)
        try:
            account = await self._hashing.run(self._store.run, self._store.accounts.add, email, password)
        except Invalid as error:
            return self.show(visit, "signup.html", 422, email=email, problems=error.problems)
        return await self._enter(visit, account)

    def _check_sign_up(self) -> None:
        if not self._sign_up:
            raise Turned(404, "New accounts are made by the administrator of this server.")

    async def _enter(self, visit: Visit, account: Account) -> bytes:
        if visit.account is not None:
            await self._store.run(self._store.accounts.close_session, visit.secret)
        token = await self._store.run(self._store.accounts.open_session, account.id)
        self._cookies.write(visit.request, "session", token, SESSION_COOKIE_LIFE)
        self._cookies.write(visit.request, "form", "", 0)
        return go(visit.request, "/settings/bots")

    @app.route("/logout", methods=["POST"])
    @own_page
    async def log_out(self, visit: Visit, _account: Account) -> bytes:
        await self._store.run(self._store.accounts.close_session, visit.secret)
        self._cookies.write(visit.request, "session", "", 0)
        return go(visit.request, "/login")

    # -- Bots

    @app.route("/settings", methods=["GET"])
    @own_page
    async def settings(self, visit: Visit, _account: Account) -> bytes:
        return go(visit.request, "/settings/bots")

    @app.route("/settings/bots", methods=["GET"])
    @own_page
    async def bots(self, visit: Visit, account: Account) -> bytes:
        found = await self._store.run(self._store.bots.all, account.id)
        shown = [(bot, self._state(bot)) for bot in found]
        return self.show(visit, "bots.html", section="bots", bots=shown)

    def _state(self, bot: Bot) -> tuple[str, str]:
        """How it stands with the bot, as (colour, words)."""
        if not bot.enabled:
            return "off", "Switched off"
        if bot.kind == "registrant":
            registration = self._registration(bot.id)
            return _STANDING[registration.state if registration else Standing.REGISTERING]
        count = len(self._registered(bot.username))
        if not count:
            return "waiting", "No PBX registered"
        return "good", "PBX registered" if count == 1 else f"{count} contacts registered"

    @app.route("/settings/bots/new", methods=["GET"])
    @own_page
    async def new_bot(self, visit: Visit, _account: Account) -> bytes:
        fresh = dict.fromkeys(_TEXTS, "") | {"expires": "600", "kind": "registrar", "enabled": "on", "model": "sandbox"}
        fresh["transfer_mode"] = "blind"
        return self._bot_form(visit, None, fresh)

    @app.route("/settings/bots/new", methods=["POST"])
    @own_page
    async def add_bot(self, visit: Visit, account: Account) -> bytes:
        try:
            bot = await self._store.change(self._store.bots.add, account.id, self._sent(visit))
        except Invalid as error:
            return self._bot_form(visit, None, visit.form, error.problems)
        return go(visit.request, f"/settings/bots/{bot.id}")

    @app.route("/settings/bots/<bot_id>", methods=["GET"])
    @own_page
    async def bot(self, visit: Visit, account: Account, bot_id: str) -> bytes:
        bot = await self._own(bot_id, account)
        calls = await self._store.run(self._store.calls.recent, account.id, bot.id, CALLS_OF_A_BOT)
        history = await self._store.run(self._store.registrations.recent, bot.id, STATES_OF_A_BOT)
        return self.show(
            visit,
            "bot.html",
            section="bots",
            bot=bot,
            state=self._state(bot),
            bindings=self._registered(bot.username) if bot.kind == "registrar" else (),
            registration=self._registration(bot.id),
            history=history if bot.kind == "registrant" else (),
            standing=_STANDING,
            values=values(bot, self._connection),
            guides=guides(bot, self._connection),
            domain=host(self._connection.domain),
            cautions=cautions(bot.trusted),
            calls=calls,
        )

    @app.route("/settings/bots/<bot_id>/edit", methods=["GET"])
    @own_page
    async def bot_to_edit(self, visit: Visit, account: Account, bot_id: str) -> bytes:
        bot = await self._own(bot_id, account)
        shown = {field: str(getattr(bot, field)) for field in _TEXTS} | ({"enabled": "on"} if bot.enabled else {})
        shown["port"] = str(bot.port or "")
        return self._bot_form(visit, bot, shown)

    @app.route("/settings/bots/<bot_id>/edit", methods=["POST"])
    @own_page
    async def edit_bot(self, visit: Visit, account: Account, bot_id: str) -> bytes:
        bot = await self._own(bot_id, account)
        try:
            edited = await self._store.change(self._store.bots.edit, bot.id, self._sent(visit))
        except Invalid as error:
            return self._bot_form(visit, bot, visit.form, error.problems)
        if edited is None:
            raise _no_bot()
        return go(visit.request, f"/settings/bots/{bot.id}")

    @app.route("/settings/bots/<bot_id>/delete", methods=["GET"])
    @own_page
    async def bot_to_delete(self, visit: Visit, account: Account, bot_id: str) -> bytes:
        return self.show(visit, "delete.html", section="bots", bot=await self._own(bot_id, account))

    @app.route("/settings/bots/<bot_id>/delete", methods=["POST"])
    @own_page
    async def delete_bot(self, visit: Visit, account: Account, bot_id: str) -> bytes:
        bot = await self._own(bot_id, account)
        await self._store.change(self._store.bots.remove, bot.id)
        return go(visit.request, "/settings/bots")

    async def _own(self, bot_id: str, account: Account) -> Bot:
        bot = await self._store.run(self._store.bots.get, bot_id, account.id)
        if bot is None:
            raise _no_bot()
        return bot

    def _sent(self, visit: Visit) -> dict[str, Any]:
        """The bot as the form wants it. A secret that was left empty stays as it is."""
        form = visit.form
        sent: dict[str, Any] = {field: form[field] for field in _TEXTS if field in form}
        sent |= {field: form[field].strip() for field in _SECRETS if form.get(field, "").strip()}
        if "forget_token" in form:
            sent["token"] = ""
        return sent | {"enabled": "enabled" in form}

    def _bot_form(
        self, visit: Visit, bot: Bot | None, shown: Mapping[str, str], problems: Mapping[str, str] | None = None
    ) -> bytes:
        typed = {field: shown.get(field, "") for field in (*_TEXTS, "enabled", "forget_token")}
        return self.show(
            visit,
            "bot_form.html",
            422 if problems else 200,
            section="bots",
            bot=bot,
            typed=typed,
            problems=problems or {},
            domain=host(self._connection.domain),
        )

    # -- Calls

    @app.route("/calls", methods=["GET"])
    @own_page
    async def calls(self, visit: Visit, account: Account) -> bytes:
        arguments: Mapping[bytes, Sequence[bytes]] = visit.request.args or {}
        try:
            before = float(arguments[b"before"][0]) if b"before" in arguments else None
        except ValueError:
            before = None
        found = await self._store.run(self._store.calls.recent, account.id, None, CALLS_A_PAGE + 1, before)
        bots = {bot.id: bot.name for bot in await self._store.run(self._store.bots.all, account.id)}
        older = found[CALLS_A_PAGE - 1].started if len(found) > CALLS_A_PAGE else None
        return self.show(visit, "calls.html", section="calls", calls=found[:CALLS_A_PAGE], bots=bots, older=older)

    @app.route("/calls/<call_id>", methods=["GET"])
    @own_page
    async def call(self, visit: Visit, account: Account, call_id: str) -> bytes:
        record = await self._store.run(self._store.calls.get, call_id, account.id)
        if record is None:
            raise Turned(404, "There is no such call.")
        bot = await self._store.run(self._store.bots.get, record.bot_id, account.id)
        return self.show(visit, "call.html", section="calls", call=record, bot=bot)


def _answer(request: Request, code: int) -> None:
    request.setResponseCode(code, http.HTTPStatus(code).phrase.encode())
    request.setHeader("Content-Type", "text/html; charset=utf-8")


def _no_bot() -> Turned:
    return Turned(404, "There is no such bot.")
