"""What the commands for functions, MCP servers and the outbox do, on the open database.

`function run`, `function replay` and `mcp run` send real requests, as a call would, by a reactor of their own: no
service need run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from extenbot.abilities import FUNCTION, SERVER, shown_headers
from extenbot.errors import Invalid
from extenbot.interfaces import Exchange, Function, Json, McpServer
from extenbot.office import Mistake, Office, document, named

if TYPE_CHECKING:
    from extenbot.web.seams import Ran

OF_FUNCTION = {
    "name": "what people call it (default: the name in the description)",
    "url": "of the webhook; of dify the base of its API",
    "token": "bearer token, or @FILE",
    "secret": "requests are signed with it (HMAC-SHA256), or @FILE",
    "description": "one Realtime function tool: JSON, or @FILE",
    "template": "the body to post: JSON with placeholders, or @FILE",
}
OF_SERVER = {
    "label": "its name for logs and for the bot: letters, digits, _ and -",
    "url": "of its endpoint",
    "key": "API key, sent as a bearer token, or @FILE",
    "allowed": "names of the tools that may be used, separated by blanks (default: all)",
}
_SECRETS = ("token", "secret", "key", "headers")


# -- functions


def function_add(office: Office) -> None:
    account = office.account(office.given.get("account"))
    values = _values(office, (*OF_FUNCTION, *FUNCTION))
    values["name"] = values.get("name") or named(values.get("description", ""))
    made = office.functions.add(account.id, values, _bots(office) or ())
    office.say(_told(office, made), f"function {made.name} {made.id}")


def function_edit(office: Office) -> None:
    function = _function(office)
    edited = office.functions.edit(function.id, _values(office, (*OF_FUNCTION, *FUNCTION)), _bots(office))
    if edited is None:
        raise Mistake(f"There is no function {function.name} any more.")
    _show(office, edited)


def function_show(office: Office) -> None:
    _show(office, _function(office))


def function_list(office: Office) -> None:
    names = {bot.id: bot.name for bot in office.bots.all()}
    found = office.functions.all(_account_id(office))
    lines = (
        f"{f.id}  {f.kind:<13}  {f.name}  {f.url}  {', '.join(names[b] for b in bots if b in names)}"
        for f, _, bots in found
    )
    office.say([_told(office, function, bots) for function, _, bots in found], *lines)


def function_remove(office: Office) -> None:
    function = _function(office)
    office.functions.remove(function.id)
    office.say({"removed": function.id}, f"removed {function.name}")


def function_import(office: Office) -> None:
    """From a curl command, or an operation of an OpenAPI document; without one the operations are listed."""
    from extenbot.ai import importing

    given = office.given
    if "curl" in given:
        values = importing.from_curl(document(given["curl"]))
    elif "operation" in given:
        values = importing.from_openapi(document(given["openapi"]), given["operation"])
    elif "openapi" in given:
        found = importing.operations(document(given["openapi"]))
        office.say([each._asdict() for each in found], *(f"{each.key:<40}  {each.words}" for each in found))
        return
    else:
        raise Mistake("Give a curl command with --curl, or a document with --openapi.")
    values |= _values(office, ("name",))
    made = office.functions.add(office.account(given.get("account")).id, values, _bots(office) or ())
    _show(office, made)


def function_run(office: Office) -> None:
    from extenbot.ai import samples, tools

    function = _function(office)
    parameters = tools.tool(function).get("parameters")
    arguments = _arguments(office)
    if arguments is None:
        arguments = samples.sample(parameters if isinstance(parameters, dict) else {})
    _report(office, [(function.name, arguments, _tried(office, [(function, "", arguments)])[0])])


def function_replay(office: Office) -> None:
    """What the model asked for in a past call, asked for again: functions, and tools of MCP servers."""
    from extenbot.ai import mcp
    from extenbot.ai.tools import name_of

    record = office.calls.get(office.given["call"])
    if record is None:
        raise Mistake(f"There is no call {office.given['call']}.")
    by_name = {
        name_of(function): function
        for function, account_id, bots in office.functions.all(record.account_id)
        if record.bot_id in bots
    }
    servers = [server for server, _, bots in office.servers.all(record.account_id) if record.bot_id in bots]
    uses: list[tuple[Function | McpServer, str, Json]] = []
    for event in record.events:
        name = str(event.fields.get("name"))
        arguments = event.fields.get("arguments")
        if event.what == "tool.asked" and name in by_name and isinstance(arguments, dict):  # else too long to be kept
            uses.append((by_name[name], by_name[name].name, arguments))
        elif used := mcp.used(event, servers):
            uses.append(used)
    if not uses:
        raise Mistake("The model has used no function or tool in this call that its bot still has.")
    ran = _tried(office, uses)
    _report(office, [(name, arguments, each) for (_, name, arguments), each in zip(uses, ran, strict=True)])


def _function(office: Office) -> Function:
    text = office.given["function"]
    found = [function for function, _, _ in office.functions.all() if text in (function.id, function.name)]
    if len(found) != 1:
        many = "are several functions" if found else "is no function"
        raise Mistake(f"There {many} {text}{': give the id of one' if found else ''}.")
    return found[0]


# -- MCP servers


def mcp_add(office: Office) -> None:
    account = office.account(office.given.get("account"))
    made = office.servers.add(account.id, _values(office, (*OF_SERVER, *SERVER)), _bots(office) or ())
    office.say(_told(office, made), f"MCP server {made.label} {made.id}")


def mcp_edit(office: Office) -> None:
    server = _server(office)
    edited = office.servers.edit(server.id, _values(office, (*OF_SERVER, *SERVER)), _bots(office))
    if edited is None:
        raise Mistake(f"There is no MCP server {server.label} any more.")
    _show(office, edited)


def mcp_show(office: Office) -> None:
    _show(office, _server(office))


def mcp_list(office: Office) -> None:
    names = {bot.id: bot.name for bot in office.bots.all()}
    found = office.servers.all(_account_id(office))
    lines = (f"{s.id}  {s.label}  {s.url}  {', '.join(names[b] for b in bots if b in names)}" for s, _, bots in found)
    office.say([_told(office, server, bots) for server, _, bots in found], *lines)


def mcp_remove(office: Office) -> None:
    server = _server(office)
    office.servers.remove(server.id)
    office.say({"removed": server.id}, f"removed {server.label}")


def mcp_tools(office: Office) -> None:
    """What it offers, allowed or not."""
    from extenbot import trying

    server = _server(office)
    found = trying.alone(office.settings, lambda bench: bench.list_tools(server))
    lines = [f"{tool['name']:<32}  {' '.join(tool['description'].split())[:200]}" for tool in found]
    office.say(list(found), *(lines or ["It has no tools."]))


def mcp_run(office: Office) -> None:
    from extenbot import trying
    from extenbot.ai import samples

    server, name = _server(office), office.given["tool"]

    async def work(bench: Any) -> tuple[Json, Any]:
        listed = {tool["name"]: tool for tool in await bench.list_tools(server)}
        if name not in listed:
            raise Mistake(f"{server.label} has no tool {name}; it has {', '.join(listed) or 'none'}.")
        given = _arguments(office)
        arguments = samples.sample(listed[name]["parameters"]) if given is None else given
        return arguments, await bench.try_tool(server, name, arguments)

    arguments, ran = trying.alone(office.settings, work)
    _report(office, [(f"{server.label}.{name}", arguments, ran)])


def _server(office: Office) -> McpServer:
    text = office.given["server"]
    found = [server for server, _, _ in office.servers.all() if text in (server.id, server.label)]
    if len(found) != 1:
        many = "are several MCP servers" if found else "is no MCP server"
        raise Mistake(f"There {many} {text}{': give the id of one' if found else ''}.")
    return found[0]


# -- outbox


def outbox_list(office: Office) -> None:
    found = office.outbox.all(_account_id(office))

    def line(post: Any) -> str:
        state = f"next try {_date(post.next_try)}" if post.next_try else "given up"
        return (
            f"{post.call_id}  {_date(post.created)}  {post.tries} tries  {state}  {post.url}  {post.trouble}".rstrip()
        )

    office.say([post._asdict() for post in found], *map(line, found))


def outbox_retry(office: Office) -> None:
    call_id = office.given["call"]
    if not office.outbox.retry(call_id):
        raise Mistake(f"Nothing waits to be posted for call {call_id}.")
    office.say({"retried": call_id}, f"{call_id} is tried again")


# -- What they share


def _values(office: Office, names: Sequence[str]) -> dict[str, Any]:
    values = {name: office.given[name] for name in names if name in office.given}
    for name in ("token", "secret", "key"):
        if name in values:
            values[name] = document(values[name]).strip()
    for name in ("description", "template"):
        if name in values:
            values[name] = document(values[name])
    if "headers" in office.given:
        values["headers"] = "\n".join(each for each in office.given["headers"] if each != "none")
    return values


def _bots(office: Office) -> list[str] | None:
    """The ids of those that shall have it; None when nothing was said of them."""
    if "bots" not in office.given:
        return None
    return [office.bot(text).id for text in office.given["bots"] if text != "none"]


def _account_id(office: Office) -> str | None:
    owner = office.given.get("account")
    return office.account(owner).id if owner else None


def _arguments(office: Office) -> Json | None:
    """What was given; None when nothing was."""
    from extenbot.ai import pasted

    if "arguments" not in office.given:
        return None
    found = pasted.read(document(office.given["arguments"]), "arguments")
    if not isinstance(found, dict):
        raise Invalid({"arguments": "It must be a JSON object."})
    return found


def _told(office: Office, thing: Function | McpServer, bots: Sequence[str] | None = None) -> dict[str, Any]:
    """For people and scripts, without secrets."""
    told = asdict(thing)
    for name in _SECRETS:
        if name in told and name != "headers":
            told[name] = "set" if told[name] else "not set"
    told["headers"] = shown_headers(thing.headers).split("\n") if thing.headers else []
    if bots is None:
        room: Any = office.functions if isinstance(thing, Function) else office.servers
        bots = next((linked for each, _, linked in room.all() if each.id == thing.id), ())
    return told | {"bots": list(bots)}


def _show(office: Office, thing: Function | McpServer) -> None:
    told = _told(office, thing)
    lines = [
        f"{name:<12} {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in told.items()
        if value not in ("", [], ())
    ]
    office.say(told, *lines)


def _tried(office: Office, uses: Sequence[tuple[Function | McpServer, str, Json]]) -> list[Ran]:
    from extenbot import trying

    async def work(bench: Any) -> list[Any]:
        return [
            await (
                bench.try_function(thing, arguments)
                if isinstance(thing, Function)
                else bench.try_tool(thing, name, arguments)
            )
            for thing, name, arguments in uses
        ]

    return trying.alone(office.settings, work)


def _report(office: Office, ran: Sequence[tuple[str, Json, Ran]]) -> None:
    shown = [
        {
            "name": name,
            "arguments": dict(arguments),
            "heard": each.heard,
            "failed": each.failed,
            "seconds": round(each.seconds, 3),
            "exchanges": [exchange._asdict() for exchange in each.exchanges],
        }
        for name, arguments, each in ran
    ]
    lines: list[str] = []
    for name, arguments, each in ran:
        lines += [f"{name} {json.dumps(dict(arguments), ensure_ascii=False)}"]
        for exchange in each.exchanges:
            lines += ["", *_exchange(exchange)]
        lines += ["", f"the model hears, after {each.seconds:.3f} s:", each.heard]
    office.say(shown, *lines)
    if any(each.failed for _, _, each in ran):
        sys.stdout.flush()
        raise Mistake("It failed.")


def _exchange(exchange: Exchange) -> list[str]:
    """A request and its reply, as they went over the wire but for secrets."""
    lines = [f"> {exchange.method} {exchange.url}", *(f"> {name}: {value}" for name, value in exchange.headers)]
    lines += [f"> {line}" for line in exchange.body.splitlines()]
    if exchange.status:
        lines.append(f"< {exchange.status} after {exchange.seconds:.3f} s")
    lines += [f"< {name}: {value}" for name, value in exchange.reply_headers]
    lines += [f"< {line}" for line in exchange.reply.splitlines()]
    return [*lines, f"! {exchange.trouble}"] if exchange.trouble else lines


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
