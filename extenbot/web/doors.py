"""Who comes in: the start page, files of our own, log in, sign up, log out."""

from __future__ import annotations

from twisted.web.http import Request

from extenbot.errors import Invalid
from extenbot.web.pages import Pages, app, go, own_page, page
from extenbot.web.seams import Account
from extenbot.web.visits import Turned, Visit

SESSION_COOKIE_LIFE = 14 * 86400


@app.route("/", methods=["GET"])
@page
async def start(_pages: Pages, visit: Visit) -> bytes:
    return go(visit.request, "/settings/bots" if visit.account else "/login")


@app.route("/static/<name>", methods=["GET"])
def static(pages: Pages, request: Request, name: str) -> bytes:
    found = pages.views.static.get(name)
    if found is None:
        raise Turned(404, "There is no such file.")
    request.setHeader("Content-Type", found.kind)
    request.setHeader("Cache-Control", "public, max-age=31536000, immutable")
    return found.content


@app.route("/login", methods=["GET"])
@page
async def login(pages: Pages, visit: Visit) -> bytes:
    if visit.account:
        return go(visit.request, "/settings/bots")
    return pages.show(visit, "login.html", email="")


@app.route("/login", methods=["POST"])
@page
async def log_in(pages: Pages, visit: Visit) -> bytes:
    email, password = visit.form.get("email", "").strip(), visit.form.get("password", "")[:200]
    keys = {
        ("both", visit.address, email.lower()[:254]): 5,
        ("from", visit.address): 20,
        ("for", email.lower()): 50,
    }
    wait = max(pages.throttle.wait(key, free) for key, free in keys.items())
    if wait > 0:
        visit.request.setHeader("Retry-After", str(int(wait) + 1))
        words = f"Too many failed tries: wait {int(wait) + 1} seconds and try again."
        return pages.show(visit, "login.html", 429, email=email, problems={"password": words})
    for key in keys:  # counted before the answer is known, so that many tries at once count as well
        pages.throttle.failed(key)
    account = await pages.hashing.run(pages.store.run, pages.store.accounts.check, email, password)
    if account is None:
        words = "This email and password do not belong together."
        return pages.show(visit, "login.html", 422, email=email, problems={"password": words})
    for key in keys:
        pages.throttle.passed(key)
    return await _enter(pages, visit, account)


@app.route("/signup", methods=["GET"])
@page
async def sign_up_form(pages: Pages, visit: Visit) -> bytes:
    _check_sign_up(pages)
    return pages.show(visit, "signup.html", email="")


@app.route("/signup", methods=["POST"])
@page
async def sign_up(pages: Pages, visit: Visit) -> bytes:
    _check_sign_up(pages)
    email, password = visit.form.get("email", ""), visit.form.get("password", "")
    key = ("sign up", visit.address)
    wait = pages.throttle.wait(key, 10)
    if wait > 0:
        words = f"Too many new accounts from your address: wait {int(wait) + 1} seconds and try again."
        return pages.show(visit, "signup.html", 429, email=email, problems={"email": words})
    pages.throttle.failed(key)
    try:
        account = await pages.hashing.run(pages.store.run, pages.store.accounts.add, email, password)
    except Invalid as error:
        return pages.show(visit, "signup.html", 422, email=email, problems=error.problems)
    return await _enter(pages, visit, account)


def _check_sign_up(pages: Pages) -> None:
    if not pages.sign_up:
        raise Turned(404, "New accounts are made by the administrator of this server.")


async def _enter(pages: Pages, visit: Visit, account: Account) -> bytes:
    if visit.account is not None:
        await pages.store.run(pages.store.accounts.close_session, visit.secret)
    token = await pages.store.run(pages.store.accounts.open_session, account.id)
    pages.cookies.write(visit.request, "session", token, SESSION_COOKIE_LIFE)
    pages.cookies.write(visit.request, "form", "", 0)
    return go(visit.request, "/settings/bots")


@app.route("/logout", methods=["POST"])
@own_page
async def log_out(pages: Pages, visit: Visit, _account: Account) -> bytes:
    await pages.store.run(pages.store.accounts.close_session, visit.secret)
    pages.cookies.write(visit.request, "session", "", 0)
    return go(visit.request, "/login")
