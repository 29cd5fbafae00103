"""The bench: a function, or a tool of an MCP server, run once with arguments of the owner's to see what comes of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from extenbot.ai import mcp, pasted, tools
from extenbot.ai.samples import sample
from extenbot.errors import ExtenbotError, Invalid
from extenbot.interfaces import Function, Json, McpServer
from extenbot.web.pages import Pages, app, own_page
from extenbot.web.seams import Account, Ran
from extenbot.web.visits import Turned, Visit

SHOWN = 20_000
"""Characters of a body that are shown."""

MOST_TOOLS = 200
_BUSY = "Something is being tried already: wait until it has ended."


class Tool(NamedTuple):
    """One tool of an MCP server, and what would be typed to use it."""

    name: str
    words: str
    arguments: str


@app.route("/settings/functions/<function_id>/run", methods=["GET"])
@own_page
async def function_to_try(pages: Pages, visit: Visit, account: Account, function_id: str) -> bytes:
    function = await pages.own_function(function_id, account)
    call_id, use = (_asked(visit, name) for name in ("call", "use"))
    arguments = await _once(pages, account, call_id, use) if call_id else sample(_parameters(function))
    return shown_function(pages, visit, function, _typed(arguments), again=call_id)


@app.route("/settings/functions/<function_id>/run", methods=["POST"])
@own_page
async def try_function(pages: Pages, visit: Visit, account: Account, function_id: str) -> bytes:
    """Takes as long as the function does: one at a time."""
    function = await pages.own_function(function_id, account)
    typed = visit.form.get("arguments", "")

    async def run() -> Ran:
        return await pages.live.run_function(function, _read(typed))

    try:
        ran = await _alone(pages, account, run)
    except Invalid as error:
        return shown_function(pages, visit, function, typed, problems=error.problems)
    return shown_function(pages, visit, function, typed, ran)


@app.route("/settings/servers/<server_id>/run", methods=["GET"])
@own_page
async def server_to_try(pages: Pages, visit: Visit, account: Account, server_id: str) -> bytes:
    server = await pages.own_server(server_id, account)
    call_id, place = (_asked(visit, name) for name in ("call", "place"))
    if not call_id:
        return shown_server(pages, visit, server)
    record = await pages.own_call(call_id, account)
    event = record.events[int(place)] if place.isdecimal() and int(place) < len(record.events) else None
    used = mcp.used(event, [server]) if event else None
    if used is None:
        raise Turned(404, "This call did not use that.")
    return shown_server(pages, visit, server, [Tool(used[1], "As it was used in the call.", _typed(used[2]))])


@app.route("/settings/servers/<server_id>/run", methods=["POST"])
@own_page
async def try_server(pages: Pages, visit: Visit, account: Account, server_id: str) -> bytes:
    """Lists the tools and, when one was chosen, uses it."""
    server = await pages.own_server(server_id, account)
    name, typed = visit.form.get("tool", ""), visit.form.get("arguments", "")
    listed: list[Tool] = []

    async def run() -> Ran | None:
        listed.extend(_tool(found) for found in (await pages.live.server_tools(server))[:MOST_TOOLS])
        return await pages.live.run_tool(server, name, _read(typed)) if name else None

    try:
        ran = await _alone(pages, account, run)
    except Invalid as error:
        return shown_server(pages, visit, server, listed, name, typed, problems=error.problems)
    return shown_server(pages, visit, server, listed, name, typed, ran)


def _asked(visit: Visit, name: str) -> str:
    """A value of the query."""
    values: list[bytes] = (visit.request.args or {}).get(name.encode(), [b""])
    return values[0].decode("utf-8", "replace")


async def _alone(pages: Pages, account: Account, run: Callable[[], Awaitable[Any]]) -> Any:
    """What comes of it; every trouble as `Invalid`."""
    if account.id in pages.trying:
        raise Invalid({"run": _BUSY})
    pages.trying.add(account.id)
    try:
        return await run()
    except Invalid:
        raise
    except ExtenbotError as error:
        raise Invalid({"run": str(error)}) from None
    finally:
        pages.trying.discard(account.id)


async def _once(pages: Pages, account: Account, call_id: str, use: str) -> Json:
    """The arguments with which a function was asked for in a call."""
    record = await pages.own_call(call_id, account)
    for event in record.events:
        if event.what == "tool.asked" and event.fields.get("call") == use:
            arguments = event.fields.get("arguments")
            return arguments if isinstance(arguments, dict) else {}
    raise Turned(404, "This call did not ask for that.")


def _parameters(function: Function) -> Json:
    found = tools.tool(function).get("parameters")
    return found if isinstance(found, dict) else {}


def _read(typed: str) -> Json:
    found = pasted.read(typed or "{}", "arguments")
    if not isinstance(found, dict):
        raise Invalid({"arguments": "A JSON object, please: { … }."})
    return found


def _typed(arguments: Json) -> str:
    return json.dumps(arguments, indent=2, ensure_ascii=False)


def _tool(found: Json) -> Tool:
    parameters = found.get("parameters")
    words = found.get("description")
    return Tool(
        str(found.get("name", "")),
        words if isinstance(words, str) else "",
        _typed(sample(parameters if isinstance(parameters, dict) else {})),
    )


def shown_function(
    pages: Pages,
    visit: Visit,
    function: Function,
    typed: str,
    ran: Ran | None = None,
    *,
    problems: Json | None = None,
    again: str = "",
) -> bytes:
    return pages.show(
        visit,
        "function_run.html",
        422 if problems else 200,
        section="functions",
        function=function,
        typed=typed,
        ran=ran,
        again=again,
        most=SHOWN,
        problems=problems or {},
    )


def shown_server(
    pages: Pages,
    visit: Visit,
    server: McpServer,
    listed: Sequence[Tool] | None = None,
    name: str = "",
    typed: str = "",
    ran: Ran | None = None,
    *,
    problems: Json | None = None,
) -> bytes:
    return pages.show(
        visit,
        "server_run.html",
        422 if problems else 200,
        section="servers",
        server=server,
        tools=listed,
        chosen=name,
        typed=typed,
        ran=ran,
        most=SHOWN,
        problems=problems or {},
    )
