"""MCP servers of an account: the list, the form, the end."""

from __future__ import annotations

from collections.abc import Mapping

from extenbot.errors import Invalid
from extenbot.interfaces import McpServer
from extenbot.web.abilities import form, fresh, sent, typed
from extenbot.web.functions import used_by
from extenbot.web.pages import Pages, app, go, own_page
from extenbot.web.seams import Account
from extenbot.web.visits import Turned, Visit


@app.route("/settings/servers", methods=["GET"])
@own_page
async def all_servers(pages: Pages, visit: Visit, account: Account) -> bytes:
    found = await pages.store.run(pages.store.servers.all, account.id)
    bots = await pages.store.run(pages.store.bots.all, account.id)
    shown = [(server, used_by(server, bots)) for server, *_ in found]
    return pages.show(visit, "servers.html", section="servers", servers=shown)


@app.route("/settings/servers/new", methods=["GET"])
@own_page
async def new_server(pages: Pages, visit: Visit, _account: Account) -> bytes:
    return shown_form(pages, visit, None, fresh(McpServer))


@app.route("/settings/servers/new", methods=["POST"])
@own_page
async def add_server(pages: Pages, visit: Visit, account: Account) -> bytes:
    try:
        server = await pages.store.change(pages.store.servers.add, account.id, sent(visit.form, McpServer))
    except Invalid as error:
        return shown_form(pages, visit, None, visit.form, error.problems)
    return go(visit.request, f"/settings/servers/{server.id}/run")


@app.route("/settings/servers/<server_id>", methods=["GET"])
@own_page
async def server_to_edit(pages: Pages, visit: Visit, account: Account, server_id: str) -> bytes:
    server = await pages.own_server(server_id, account)
    return shown_form(pages, visit, server, typed(server))


@app.route("/settings/servers/<server_id>", methods=["POST"])
@own_page
async def edit_server(pages: Pages, visit: Visit, account: Account, server_id: str) -> bytes:
    server = await pages.own_server(server_id, account)
    try:
        edited = await pages.store.change(pages.store.servers.edit, server.id, sent(visit.form, McpServer))
    except Invalid as error:
        return shown_form(pages, visit, server, visit.form, error.problems)
    if edited is None:
        raise Turned(404, "There is no such MCP server.")
    return go(visit.request, f"/settings/servers/{server.id}/run")


@app.route("/settings/servers/<server_id>/delete", methods=["GET"])
@own_page
async def server_to_delete(pages: Pages, visit: Visit, account: Account, server_id: str) -> bytes:
    server = await pages.own_server(server_id, account)
    bots = used_by(server, await pages.store.run(pages.store.bots.all, account.id))
    return pages.show(
        visit,
        "delete_ability.html",
        section="servers",
        what="MCP server",
        name=server.label,
        bots=bots,
        at=f"/settings/servers/{server.id}",
    )


@app.route("/settings/servers/<server_id>/delete", methods=["POST"])
@own_page
async def delete_server(pages: Pages, visit: Visit, account: Account, server_id: str) -> bytes:
    server = await pages.own_server(server_id, account)
    await pages.store.change(pages.store.servers.remove, server.id)
    return go(visit.request, "/settings/servers")


def shown_form(
    pages: Pages,
    visit: Visit,
    server: McpServer | None,
    shown: Mapping[str, str],
    problems: Mapping[str, str] | None = None,
) -> bytes:
    return pages.show(
        visit,
        "server_form.html",
        422 if problems else 200,
        section="servers",
        server=server,
        form=form(McpServer, shown, problems or {}),
        problems=problems or {},
    )
