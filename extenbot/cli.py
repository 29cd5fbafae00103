"""`extenbot`: administration without the browser, on the same database while the service runs.

A running service sees every change within a second. What each command does is in `office`.
Mistakes are told on standard error, one line each, and end the command with 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from extenbot import toolroom
from extenbot.abilities import FUNCTION, SERVER
from extenbot.errors import ExtenbotError, Invalid, SettingsError
from extenbot.manner import GROUPS, MANNER, Field
from extenbot.office import BOT_OPTIONS, HOOK_OPTIONS, REGISTRANT_OPTIONS, Mistake, Office
from extenbot.settings import load

_CALL_VERBS = ("list", "show", "place", "recording")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Mistake(message)


_FLAGS = {
    "kind": "type",
    "trusted": "trust_address",
    "destinations": "destination",
    "functions": "function",
    "servers": "mcp",
    "headers": "header",
}


def _flag(field: str) -> str:
    return "--" + _FLAGS.get(field, field).replace("_", "-")


def _kind(field: Field) -> str:
    """What may be typed there, in a word or two."""
    if field.kind == "choice":
        return "|".join(choice or '""' for choice in field.choices)
    return {"flag": "yes|no", "whole": "N", "number": "N"}.get(field.kind, "TEXT")


def _says(field: Field) -> str:
    usual = {"True": "yes", "False": "no", "": "none"}.get(str(field.default), field.default)
    return f"{field.says}{f', {field.unit}' if field.unit else ''} (default: {usual})".replace("%", "%%")


def _thing(verb: argparse.ArgumentParser, name: str, own: Mapping[str, str], table: Mapping[str, Field]) -> None:
    """The options of a function or an MCP server."""
    if name == "add":
        verb.add_argument("--account", metavar="EMAIL")
    for field, meaning in own.items():
        verb.add_argument(_flag(field), dest=field, help=meaning)
    for field, option in table.items():
        verb.add_argument(_flag(field), dest=field, metavar=_kind(option), help=_says(option))
    verb.add_argument(
        "--header",
        action="append",
        dest="headers",
        metavar="'NAME: VALUE'",
        help="sent besides; give it again for more, none for none, without a value to keep the one that it has",
    )
    _for_bots(verb)


def _for_bots(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--bot", action="append", dest="bots", help="a bot that may use it; give it again for more, none for nobody"
    )


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--config", type=Path, metavar="FILE", help="the settings (default: EXTENBOT_CONFIG)")
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = _Parser(prog="extenbot", description="Administer extenbot.", parents=[common])
    nouns = parser.add_subparsers(required=True, metavar="account|bot|function|mcp|sentence|call|outbox")

    def noun(name: str, about: str) -> Callable[..., argparse.ArgumentParser]:
        verbs = nouns.add_parser(name, help=about, parents=[common]).add_subparsers(required=True, metavar="VERB")

        def verb(verb_name: str, run: Callable[..., None], verb_about: str) -> argparse.ArgumentParser:
            made = verbs.add_parser(verb_name, help=verb_about, parents=[common], argument_default=argparse.SUPPRESS)
            made.set_defaults(run=run)
            return made

        return verb

    account = noun("account", "who may log in")
    add = account("add", Office.account_add, "make an account")
    add.add_argument("email")
    add.add_argument("--admin", action="store_true")
    add.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    account("list", Office.account_list, "all accounts")
    cap = account("cap", Office.account_cap, "what all bots of an account may cost a day together")
    cap.add_argument("email")
    cap.add_argument("usd", help="USD a day (UTC); 0: no cap")
    account("remove", Office.account_remove, "an account and all that belongs to it").add_argument("email")

    run: Callable[..., None]
    bot = noun("bot", "the voices")
    for name, run, about in (
        ("add", Office.bot_add, "make a bot"),
        ("edit", Office.bot_edit, "change what is given, keep the rest"),
    ):
        verb = bot(name, run, about)
        if name == "edit":
            verb.add_argument("bot", help="its id, username or name")
        else:
            verb.add_argument(
                "--account", metavar="EMAIL", help="whose bot (may be left out when there is one account)"
            )
        for field, meaning in BOT_OPTIONS.items():
            verb.add_argument(_flag(field), dest=field, help=meaning)
        at_pbx = verb.add_argument_group("for a registrant")
        for field, meaning in REGISTRANT_OPTIONS.items():
            at_pbx.add_argument(_flag(field), dest=field, help=meaning)
        verb.add_argument(
            "--destination",
            dest="destinations",
            action="append",
            nargs="+",
            metavar="WORD",
            help="NAME URIS [WHEN]: somebody callers can be transferred to, by one or more addresses in quotes, and a "
            "sentence of when; give it again for more, none for nobody",
        )
        around = verb.add_argument_group("functions, MCP servers and webhooks around calls")
        around.add_argument(
            "--function",
            action="append",
            dest="functions",
            help="one that it may call; again for more, none for nothing",
        )
        around.add_argument("--mcp", action="append", dest="servers", help="an MCP server that it may use, likewise")
        for field, meaning in HOOK_OPTIONS.items():
            around.add_argument(_flag(field), dest=field, help=meaning)
        for group, title in GROUPS.items():
            options = verb.add_argument_group(title)
            for field, option in MANNER.items():
                if option.group == group:
                    options.add_argument(_flag(field), dest=field, metavar=_kind(option), help=_says(option))
        verb.add_argument(
            "--trust-address",
            dest="trusted",
            action="append",
            metavar="CIDR",
            help="of a registrar: an address or network that may call without a password; give it again for more, "
            "none for nobody",
        )
        state = verb.add_mutually_exclusive_group()
        state.add_argument("--enabled", action="store_true", dest="enabled")
        state.add_argument("--disabled", action="store_false", dest="enabled")
    listed = bot("list", Office.bot_list, "all bots")
    listed.add_argument("--account", metavar="EMAIL")
    bot("show", Office.bot_show, "a bot with its connection values").add_argument(
        "bot", help="its id, username or name"
    )
    bot("remove", Office.bot_remove, "a bot; its calls are kept").add_argument("bot", help="its id, username or name")

    function = noun("function", "webhooks and apps of dify that bots may call")
    for name, run, about in (
        ("add", toolroom.function_add, "make a function"),
        ("edit", toolroom.function_edit, "change what is given, keep the rest"),
    ):
        verb = function(name, run, about)
        if name == "edit":
            verb.add_argument("function", help="its id or name")
        _thing(verb, name, toolroom.OF_FUNCTION, FUNCTION)
    function("list", toolroom.function_list, "all functions").add_argument("--account", metavar="EMAIL")
    function("show", toolroom.function_show, "a function").add_argument("function", help="its id or name")
    function("remove", toolroom.function_remove, "a function").add_argument("function", help="its id or name")
    imported = function("import", toolroom.function_import, "make a function of a curl command or an OpenAPI document")
    imported.add_argument("--account", metavar="EMAIL")
    imported.add_argument("--curl", help="the command in quotes, or @FILE")
    imported.add_argument("--openapi", help="the document, or @FILE; its operations are listed")
    imported.add_argument("--operation", help="one of them")
    imported.add_argument("--name", help="what people call it")
    _for_bots(imported)
    tried = function(
        "run", toolroom.function_run, "run a function and show the request, the reply and what a model hears"
    )
    tried.add_argument("function", help="its id or name")
    tried.add_argument("--arguments", help="a JSON object, or @FILE (default: a sample made from its schema)")
    again = function("replay", toolroom.function_replay, "run the functions of a past call again")
    again.add_argument("call", help="its id")

    mcp = noun("mcp", "MCP servers whose tools bots may use")
    for name, run, about in (
        ("add", toolroom.mcp_add, "make an MCP server known"),
        ("edit", toolroom.mcp_edit, "change what is given, keep the rest"),
    ):
        verb = mcp(name, run, about)
        if name == "edit":
            verb.add_argument("server", help="its id or label")
        _thing(verb, name, toolroom.OF_SERVER, SERVER)
    mcp("list", toolroom.mcp_list, "all MCP servers").add_argument("--account", metavar="EMAIL")
    for name, run, about in (
        ("show", toolroom.mcp_show, "an MCP server"),
        ("tools", toolroom.mcp_tools, "the tools that it offers now"),
        ("remove", toolroom.mcp_remove, "an MCP server"),
    ):
        mcp(name, run, about).add_argument("server", help="its id or label")
    tried = mcp("run", toolroom.mcp_run, "use one of its tools and show what a model hears")
    tried.add_argument("server", help="its id or label")
    tried.add_argument("tool", help="its name")
    tried.add_argument("--arguments", help="a JSON object, or @FILE (default: a sample made from its schema)")

    outbox = noun("outbox", "what is still to be posted after calls")
    outbox("list", toolroom.outbox_list, "all of it").add_argument("--account", metavar="EMAIL")
    outbox("retry", toolroom.outbox_retry, "try it again now").add_argument("call", help="the call's id")

    sentence = noun("sentence", "what a bot says word by word, as audio")
    sentence("list", Office.sentence_list, "all of a bot").add_argument("bot", help="its id, username or name")
    kept = sentence("add", Office.sentence_add, "a recording of the greeting, or of another sentence")
    kept.add_argument("bot", help="its id, username or name")
    kept.add_argument("file", type=Path, help="a WAV file of at most a minute")
    kept.add_argument("--text", help="what is said in it, word by word (default: the welcome message)")
    gone = sentence("remove", Office.sentence_remove, "the recording of a sentence")
    gone.add_argument("bot", help="its id, username or name")
    gone.add_argument("text", help="the sentence, word by word")

    call = noun("call", "finished calls, and new ones: extenbot call BOT SIP-URI")
    placed = call("place", Office.call_place, "let a bot call somebody at its PBX, and tell what becomes of it")
    placed.add_argument("bot", help="its id, username or name")
    placed.add_argument("target", help="a number, or a SIP or tel URI")
    placed.add_argument("--no-wait", action="store_false", dest="wait", help="do not follow the call to its end")
    listed = call("list", Office.call_list, "the latest calls")
    listed.add_argument("--bot", help="only of this bot")
    listed.add_argument("--limit", type=int, help="how many (default: 20)")
    call("show", Office.call_show, "a call with its transcript").add_argument("call", help="its id")
    played = call("recording", Office.call_recording, "where the recording of a call lies")
    played.add_argument("call", help="its id")
    return parser


def _spelled_out(arguments: Sequence[str]) -> list[str]:
    """`call BOT URI` is short for `call place BOT URI`."""
    words = list(arguments)
    if "call" in words[:4]:
        after = words.index("call") + 1
        if len(words) > after and words[after] not in _CALL_VERBS and not words[after].startswith("-"):
            words.insert(after, "place")
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; the exit code."""
    try:
        given = vars(_parser().parse_args(_spelled_out(sys.argv[1:] if arguments is None else arguments)))
        office = Office(load(given.get("config"), os.environ), given)
        try:
            given["run"](office)
        finally:
            office.database.close()
    except Invalid as error:
        return _complain(f"{_flag(field)}: {sentence}" for field, sentence in error.problems.items())
    except SettingsError as error:
        return _complain(f"{key} {sentence}" for key, sentence in error.problems)
    except ExtenbotError as error:
        return _complain([str(error)])
    return 0


def _complain(lines: Any) -> int:
    for line in lines:
        print(f"extenbot: {line}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
