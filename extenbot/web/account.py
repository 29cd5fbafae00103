"""The account: what it may spend a day and what it has spent today, and its password."""

from __future__ import annotations

from collections.abc import Mapping

from extenbot.errors import Invalid
from extenbot.web.form import written
from extenbot.web.pages import Pages, app, go, own_page
from extenbot.web.seams import Account
from extenbot.web.trouble import REFUSED
from extenbot.web.visits import Visit


@app.route("/settings/account", methods=["GET"])
@own_page
async def own_account(pages: Pages, visit: Visit, account: Account) -> bytes:
    return await shown_account(pages, visit, account)


@app.route("/settings/account/cap", methods=["POST"])
@own_page
async def set_cap(pages: Pages, visit: Visit, account: Account) -> bytes:
    cap = visit.form.get("cap_day", "")
    try:
        await pages.store.change(pages.store.accounts.set_cap, account.id, cap)
    except Invalid as error:
        return await shown_account(pages, visit, account, cap, error.problems)
    return go(visit.request, "/settings/account")


@app.route("/settings/account/password", methods=["POST"])
@own_page
async def change_password(pages: Pages, visit: Visit, account: Account) -> bytes:
    """Tells a guesser at an open screen no more than the login page would."""
    old, new = visit.form.get("old", "")[:200], visit.form.get("new", "")
    if new != visit.form.get("again", ""):
        return await shown_account(pages, visit, account, problems={"again": "This is not the same."})
    key = ("password", account.id)
    wait = pages.throttle.wait(key, 5)
    if wait > 0:
        visit.request.setHeader("Retry-After", str(int(wait) + 1))
        words = f"Too many failed tries: wait {int(wait) + 1} seconds and try again."
        return await shown_account(pages, visit, account, problems={"old": words}, code=429)
    try:
        pages.throttle.failed(key)  # counted before the answer is known, so that many tries at once count as well
        await pages.hashing.run(
            pages.store.run, pages.store.accounts.change_password, account.id, old, new, visit.secret
        )
    except Invalid as error:
        if "old" not in error.problems:
            pages.throttle.passed(key)
        return await shown_account(pages, visit, account, problems=error.problems)
    pages.throttle.passed(key)
    return await shown_account(pages, visit, account, changed=True)


async def shown_account(
    pages: Pages,
    visit: Visit,
    account: Account,
    cap: str | None = None,
    problems: Mapping[str, str] | None = None,
    code: int = 422,
    changed: bool = False,
) -> bytes:
    spent = pages.live.spent_today(account.id)
    names = {bot.id: bot.name for bot in await pages.store.run(pages.store.bots.all, account.id)}
    rows = [(names.get(bot_id, ""), bot_id, amount) for bot_id, amount in spent.items() if amount]
    return pages.show(
        visit,
        "account.html",
        code if problems else 200,
        section="account",
        cap_day=written("cap_day", account.cap_day) if cap is None else cap,
        rows=sorted(rows, key=lambda row: -row[2]),
        spent=sum(spent.values()),
        changed=changed,
        refused=REFUSED,
        problems=problems or {},
    )
