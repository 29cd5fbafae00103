"""Calls: those that are up, those that have ended, and one of them in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from extenbot.web.pages import Pages, app, own_page
from extenbot.web.seams import Account
from extenbot.web.visits import Visit

CALLS_A_PAGE = 50


@app.route("/calls", methods=["GET"])
@own_page
async def all_calls(pages: Pages, visit: Visit, account: Account) -> bytes:
    arguments: Mapping[bytes, Sequence[bytes]] = visit.request.args or {}
    try:
        before = float(arguments[b"before"][0]) if b"before" in arguments else None
    except ValueError:
        before = None
    found = await pages.store.run(pages.store.calls.recent, account.id, None, CALLS_A_PAGE + 1, before)
    bots = {bot.id: bot.name for bot in await pages.store.run(pages.store.bots.all, account.id)}
    older = found[CALLS_A_PAGE - 1].started if len(found) > CALLS_A_PAGE else None
    return pages.show(visit, "calls.html", section="calls", calls=found[:CALLS_A_PAGE], bots=bots, older=older)


@app.route("/calls/<call_id>", methods=["GET"])
@own_page
async def one_call(pages: Pages, visit: Visit, account: Account, call_id: str) -> bytes:
    record = await pages.own_call(call_id, account)
    bot = await pages.store.run(pages.store.bots.get, record.bot_id, account.id)
    return pages.show(visit, "call.html", section="calls", call=record, bot=bot)
