"""Functions of an account: the list, the form, the ways to a new one, the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from extenbot.abilities import KINDS
from extenbot.ai.importing import Operation, from_curl, from_openapi, operations
from extenbot.errors import Invalid
from extenbot.interfaces import Bot, Function, McpServer
from extenbot.web.abilities import EXAMPLE_WORDS, EXAMPLES, form, fresh, sent, typed
from extenbot.web.pages import Pages, app, go, own_page
from extenbot.web.seams import Account
from extenbot.web.visits import Turned, Visit


@app.route("/settings/functions", methods=["GET"])
@own_page
async def all_functions(pages: Pages, visit: Visit, account: Account) -> bytes:
    found = await pages.store.run(pages.store.functions.all, account.id)
    bots = await pages.store.run(pages.store.bots.all, account.id)
    shown = [(function, used_by(function, bots)) for function, *_ in found]
    return pages.show(visit, "functions.html", section="functions", functions=shown, kinds=KINDS)


def used_by(ability: Function | McpServer, bots: Sequence[Bot]) -> list[Bot]:
    """The bots that have it."""
    return [bot for bot in bots if ability.id in [one.id for one in bot.functions] + [one.id for one in bot.servers]]


@app.route("/settings/functions/new", methods=["GET"])
@own_page
async def new_function(pages: Pages, visit: Visit, _account: Account) -> bytes:
    wanted = (visit.request.args or {}).get(b"example", [b""])[0].decode("ascii", "replace")
    return shown_form(pages, visit, None, fresh(Function) | EXAMPLES.get(wanted, {}))


@app.route("/settings/functions/new", methods=["POST"])
@own_page
async def add_function(pages: Pages, visit: Visit, account: Account) -> bytes:
    try:
        function = await pages.store.change(pages.store.functions.add, account.id, sent(visit.form, Function))
    except Invalid as error:
        return shown_form(pages, visit, None, visit.form, error.problems)
    return go(visit.request, f"/settings/functions/{function.id}/run")


@app.route("/settings/functions/import", methods=["GET"])
@own_page
async def function_to_import(pages: Pages, visit: Visit, _account: Account) -> bytes:
    return shown_import(pages, visit)


@app.route("/settings/functions/import", methods=["POST"])
@own_page
async def import_function(pages: Pages, visit: Visit, _account: Account) -> bytes:
    """From a curl command at once; of a document one chooses an operation first."""
    try:
        if "curl" in visit.form:
            values = await pages.store.run(from_curl, visit.form["curl"])
        elif visit.form.get("operation"):
            values = await pages.store.run(from_openapi, visit.form.get("openapi", ""), visit.form["operation"])
        else:
            found = await pages.store.run(operations, visit.form.get("openapi", ""))
            return shown_import(pages, visit, found)
    except Invalid as error:
        return shown_import(pages, visit, (), error.problems)
    return shown_form(pages, visit, None, values, imported=True)


@app.route("/settings/functions/<function_id>", methods=["GET"])
@own_page
async def function_to_edit(pages: Pages, visit: Visit, account: Account, function_id: str) -> bytes:
    function = await pages.own_function(function_id, account)
    return shown_form(pages, visit, function, typed(function))


@app.route("/settings/functions/<function_id>", methods=["POST"])
@own_page
async def edit_function(pages: Pages, visit: Visit, account: Account, function_id: str) -> bytes:
    function = await pages.own_function(function_id, account)
    try:
        edited = await pages.store.change(pages.store.functions.edit, function.id, sent(visit.form, Function))
    except Invalid as error:
        return shown_form(pages, visit, function, visit.form, error.problems)
    if edited is None:
        raise Turned(404, "There is no such function.")
    return go(visit.request, f"/settings/functions/{function.id}/run")


@app.route("/settings/functions/<function_id>/delete", methods=["GET"])
@own_page
async def function_to_delete(pages: Pages, visit: Visit, account: Account, function_id: str) -> bytes:
    function = await pages.own_function(function_id, account)
    bots = used_by(function, await pages.store.run(pages.store.bots.all, account.id))
    return pages.show(
        visit,
        "delete_ability.html",
        section="functions",
        what="function",
        name=function.name,
        bots=bots,
        at=f"/settings/functions/{function.id}",
    )


@app.route("/settings/functions/<function_id>/delete", methods=["POST"])
@own_page
async def delete_function(pages: Pages, visit: Visit, account: Account, function_id: str) -> bytes:
    function = await pages.own_function(function_id, account)
    await pages.store.change(pages.store.functions.remove, function.id)
    return go(visit.request, "/settings/functions")


def shown_form(
    pages: Pages,
    visit: Visit,
    function: Function | None,
    shown: Mapping[str, str],
    problems: Mapping[str, str] | None = None,
    *,
    imported: bool = False,
) -> bytes:
    return pages.show(
        visit,
        "function_form.html",
        422 if problems else 200,
        section="functions",
        function=function,
        form=form(Function, shown, problems or {}),
        token=shown.get("token", "") if imported else "",  # it came with the request that this answers
        imported=imported,
        problems=problems or {},
        kinds=KINDS,
        examples=EXAMPLE_WORDS,
    )


def shown_import(
    pages: Pages,
    visit: Visit,
    found: Sequence[Operation] = (),
    problems: Mapping[str, str] | None = None,
) -> bytes:
    return pages.show(
        visit,
        "import.html",
        422 if problems else 200,
        section="functions",
        typed={name: visit.form.get(name, "") for name in ("curl", "openapi")},
        operations=found,
        problems=problems or {},
    )
