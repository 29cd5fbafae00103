"""Bots: the list, one bot, its form, its end."""

from __future__ import annotations

from collections.abc import Mapping

from extenbot.ai import dialects
from extenbot.errors import Invalid
from extenbot.interfaces import Bot, Standing
from extenbot.networks import cautions
from extenbot.web.exact import exact
from extenbot.web.form import FRESH, form, sent, typed
from extenbot.web.guides import guides, host, values
from extenbot.web.pages import Pages, app, go, own_page
from extenbot.web.seams import Account
from extenbot.web.trouble import troubled, troubles
from extenbot.web.visits import LARGEST_FILE, Turned, Visit

CALLS_OF_A_BOT = 10
CALLS_OF_ALL = 100
STATES_OF_A_BOT = 10
STANDING = {  # as (colour, words)
    Standing.OFF: ("off", "Not registered"),
    Standing.REGISTERING: ("waiting", "Registering at the PBX"),
    Standing.REGISTERED: ("good", "Registered at the PBX"),
    Standing.REFUSED: ("bad", "Refused by the PBX"),
    Standing.UNREACHABLE: ("bad", "The PBX cannot be reached"),
    Standing.LEAVING: ("waiting", "Signing off"),
}


@app.route("/settings", methods=["GET"])
@own_page
async def all_settings(_pages: Pages, visit: Visit, _account: Account) -> bytes:
    return go(visit.request, "/settings/bots")


@app.route("/settings/bots", methods=["GET"])
@own_page
async def all_bots(pages: Pages, visit: Visit, account: Account) -> bytes:
    found = await pages.store.run(pages.store.bots.all, account.id)
    calls = await pages.store.run(pages.store.calls.recent, account.id, None, CALLS_OF_ALL)
    spent = pages.live.spent_today(account.id)
    shown = [(bot, state_of(pages, bot), troubled(bot, account, spent, calls)) for bot in found]
    return pages.show(visit, "bots.html", section="bots", bots=shown, spent=spent)


def state_of(pages: Pages, bot: Bot) -> tuple[str, str]:
    """How it stands with the bot, as (colour, words)."""
    if not bot.enabled:
        return "off", "Switched off"
    if bot.kind == "registrant":
        registration = pages.registration(bot.id)
        return STANDING[registration.state if registration else Standing.REGISTERING]
    count = len(pages.registered(bot.username))
    if not count:
        return "waiting", "No PBX registered"
    return "good", "PBX registered" if count == 1 else f"{count} contacts registered"


@app.route("/settings/bots/new", methods=["GET"])
@own_page
async def new_bot(pages: Pages, visit: Visit, account: Account) -> bytes:
    return await shown_form(pages, visit, account, None, FRESH)


@app.route("/settings/bots/new", methods=["POST"])
@own_page
async def add_bot(pages: Pages, visit: Visit, account: Account) -> bytes:
    try:
        bot = await pages.store.change(pages.store.bots.add, account.id, sent(visit.form))
    except Invalid as error:
        return await shown_form(pages, visit, account, None, visit.form, error.problems)
    return go(visit.request, f"/settings/bots/{bot.id}")


@app.route("/settings/bots/<bot_id>", methods=["GET"])
@own_page
async def one_bot(pages: Pages, visit: Visit, account: Account, bot_id: str) -> bytes:
    return await shown_bot(pages, visit, account, await pages.own_bot(bot_id, account))


@app.route("/settings/bots/<bot_id>/edit", methods=["GET"])
@own_page
async def bot_to_edit(pages: Pages, visit: Visit, account: Account, bot_id: str) -> bytes:
    bot = await pages.own_bot(bot_id, account)
    return await shown_form(pages, visit, account, bot, typed(bot))


@app.route("/settings/bots/<bot_id>/edit", methods=["POST"])
@own_page
async def edit_bot(pages: Pages, visit: Visit, account: Account, bot_id: str) -> bytes:
    bot = await pages.own_bot(bot_id, account)
    try:
        edited = await pages.store.change(pages.store.bots.edit, bot.id, sent(visit.form))
    except Invalid as error:
        return await shown_form(pages, visit, account, bot, visit.form, error.problems)
    if edited is None:
        raise Turned(404, "There is no such bot.")
    return go(visit.request, f"/settings/bots/{bot.id}")


@app.route("/settings/bots/<bot_id>/delete", methods=["GET"])
@own_page
async def bot_to_delete(pages: Pages, visit: Visit, account: Account, bot_id: str) -> bytes:
    return pages.show(visit, "delete.html", section="bots", bot=await pages.own_bot(bot_id, account))


@app.route("/settings/bots/<bot_id>/delete", methods=["POST"])
@own_page
async def delete_bot(pages: Pages, visit: Visit, account: Account, bot_id: str) -> bytes:
    bot = await pages.own_bot(bot_id, account)
    await pages.store.change(pages.store.bots.remove, bot.id)
    return go(visit.request, "/settings/bots")


async def shown_form(
    pages: Pages,
    visit: Visit,
    account: Account,
    bot: Bot | None,
    shown: Mapping[str, str],
    problems: Mapping[str, str] | None = None,
) -> bytes:
    return pages.show(
        visit,
        "bot_form.html",
        422 if problems else 200,
        section="bots",
        bot=bot,
        form=form(shown, problems or {}),
        problems=problems or {},
        models=dialects.MODELS,
        voices=dialects.VOICES,
        transcribers=dialects.TRANSCRIBERS,
        dialects=dialects.DIALECTS,
        domain=host(pages.connection.domain),
        functions=[one for one, *_ in await pages.store.run(pages.store.functions.all, account.id)],
        servers=[one for one, *_ in await pages.store.run(pages.store.servers.all, account.id)],
    )


async def shown_bot(
    pages: Pages, visit: Visit, account: Account, bot: Bot, problems: Mapping[str, str] | None = None
) -> bytes:
    """The page of a bot; `problems` by the name of a sentence that it says word by word."""
    calls = await pages.store.run(pages.store.calls.recent, account.id, bot.id, CALLS_OF_A_BOT)
    history = await pages.store.run(pages.store.registrations.recent, bot.id, STATES_OF_A_BOT)
    spent = pages.live.spent_today(account.id)
    return pages.show(
        visit,
        "bot.html",
        422 if problems else 200,
        section="bots",
        bot=bot,
        state=state_of(pages, bot),
        most_upload=LARGEST_FILE,
        troubles=list(troubles(bot, account, spent, calls)),
        spent=spent.get(bot.id, 0.0),
        sentences=exact(bot, pages.store.sentences.of(bot.id)),
        problems=problems or {},
        bindings=pages.registered(bot.username) if bot.kind == "registrar" else (),
        registration=pages.registration(bot.id),
        history=history if bot.kind == "registrant" else (),
        standing=STANDING,
        values=values(bot, pages.connection),
        guides=guides(bot, pages.connection),
        domain=host(pages.connection.domain),
        cautions=cautions(bot.trusted),
        calls=calls,
    )
