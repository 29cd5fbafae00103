"""`extenbot`: administration without the browser, on the same database while the service runs.

A running service sees every change within a second. Nothing but `call place` imports a reactor.
Mistakes are told on standard error, one line each, and end the command with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any, NoReturn

from extenbot.errors import ExtenbotError, Invalid, SettingsError
from extenbot.interfaces import Bot, CallRecord, Function, Standing
from extenbot.networks import cautions
from extenbot.settings import Settings, load

_BOT_OPTIONS = {
    "name": "what people call it",
    "kind": "registrar: the PBX registers here; registrant: extenbot registers to the PBX",
    "username": "of the SIP account (a registrar's is generated when left out)",
    "password": "of the SIP account (a registrar's is generated when left out)",
    "domain": "of the PBX, for a registrant",
    "model": "of the voice service; sandbox is the local voice (which serves when nothing else is said)",
    "voice": "of the model",
    "token": "the key for the voice service",
    "ai_url": "the whole URL of the Realtime service (default: [ai] url)",
    "instruction": "what the bot shall know and do",
    "welcome": "what it says first",
    "transfer_uri": "where callers are transferred to, such as sip:100@10.8.0.1",
    "transfer_mode": "blind, or attended: the bot calls there first and joins the two when somebody answers",
}
_REGISTRANT_OPTIONS = {
    "auth_id": "the digest username, when the PBX wants another one than the username",
    "outbound_proxy": "HOST or HOST:PORT that everything for the PBX is sent to",
    "port": "of the PBX (default: as DNS says, or 5060)",
    "transport": "udp, tcp or tls (default: as DNS says, else udp)",
    "expires": "seconds that a registration is asked for (default: 600)",
    "allowed": "more addresses or networks that may call, such as '10.8.0.0/24 192.0.2.7'",
}

_CALL_VERBS = ("list", "show", "place")
_EDITED = (*_BOT_OPTIONS, *_REGISTRANT_OPTIONS, "trusted", "enabled")


class Mistake(ExtenbotError):
    """The command cannot be done as it was given; one line for each mistake."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Mistake(message)


def _flag(field: str) -> str:
    return "--" + {"kind": "type", "trusted": "trust_address"}.get(field, field).replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--config", type=Path, metavar="FILE", help="the settings (default: EXTENBOT_CONFIG)")
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = _Parser(prog="extenbot", description="Administer extenbot.", parents=[common])
    nouns = parser.add_subparsers(required=True, metavar="account|bot|function|call")

    def noun(name: str, about: str) -> Callable[..., argparse.ArgumentParser]:
        verbs = nouns.add_parser(name, help=about, parents=[common]).add_subparsers(required=True, metavar="VERB")

        def verb(verb_name: str, run: Callable[..., None], verb_about: str) -> argparse.ArgumentParser:
            made = verbs.add_parser(verb_name, help=verb_about, parents=[common], argument_default=argparse.SUPPRESS)
            made.set_defaults(run=run)
            return made

        return verb

    account = noun("account", "who may log in")
    add = account("add", _Office.account_add, "make an account")
    add.add_argument("email")
    add.add_argument("--admin", action="store_true")
    add.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    account("list", _Office.account_list, "all accounts")
    account("remove", _Office.account_remove, "an account and all that belongs to it").add_argument("email")

    bot = noun("bot", "the voices")
    for name, run, about in (
        ("add", _Office.bot_add, "make a bot"),
        ("edit", _Office.bot_edit, "change what is given, keep the rest"),
    ):
        verb = bot(name, run, about)
        if name == "edit":
            verb.add_argument("bot", help="its id, username or name")
        else:
            verb.add_argument(
                "--account", metavar="EMAIL", help="whose bot (may be left out when there is one account)"
            )
        for field, meaning in _BOT_OPTIONS.items():
            verb.add_argument(_flag(field), dest=field, help=meaning)
        at_pbx = verb.add_argument_group("for a registrant")
        for field, meaning in _REGISTRANT_OPTIONS.items():
            at_pbx.add_argument(_flag(field), dest=field, help=meaning)
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
    listed = bot("list", _Office.bot_list, "all bots")
    listed.add_argument("--account", metavar="EMAIL")
    bot("show", _Office.bot_show, "a bot with its connection values").add_argument(
        "bot", help="its id, username or name"
    )
    bot("remove", _Office.bot_remove, "a bot; its calls are kept").add_argument("bot", help="its id, username or name")

    function = noun("function", "webhooks that bots may call")
    add = function("add", _Office.function_add, "make a function")
    add.add_argument("--account", metavar="EMAIL")
    add.add_argument("--name", help="default: the name in the description")
    add.add_argument("--url", help="of the webhook")
    add.add_argument("--token", help="bearer token of the webhook")
    add.add_argument("--description", help="one Realtime function tool: JSON, or @FILE")
    add.add_argument("--template", help="the body to post: JSON with placeholders, or @FILE")
    add.add_argument("--bot", action="append", dest="bots", help="a bot that may call it; give it again for more")
    function("list", _Office.function_list, "all functions").add_argument("--account", metavar="EMAIL")
    function("remove", _Office.function_remove, "a function").add_argument("function", help="its id or name")

    call = noun("call", "finished calls, and new ones: extenbot call BOT SIP-URI")
    placed = call("place", _Office.call_place, "let a bot call somebody at its PBX, and tell what becomes of it")
    placed.add_argument("bot", help="its id, username or name")
    placed.add_argument("target", help="a number, or a SIP or tel URI")
    placed.add_argument("--no-wait", action="store_false", dest="wait", help="do not follow the call to its end")
    listed = call("list", _Office.call_list, "the latest calls")
    listed.add_argument("--bot", help="only of this bot")
    listed.add_argument("--limit", type=int, help="how many (default: 20)")
    call("show", _Office.call_show, "a call with its transcript").add_argument("call", help="its id")
    return parser


class _Office:
    """Runs one command on the open database."""

    def __init__(self, settings: Settings, given: Mapping[str, Any]) -> None:
        # The database library is slow to import: not for --help and mistakes.
        from extenbot.store.accounts import Accounts
        from extenbot.store.bots import Bots, Functions
        from extenbot.store.calls import Calls
        from extenbot.store.database import Database
        from extenbot.store.registrations import Registrations

        self.settings = settings
        self.given = given
        self.database = Database(settings)
        self.accounts = Accounts(self.database)
        self.bots = Bots(self.database)
        self.functions = Functions(self.database)
        self.calls = Calls(self.database)
        self.registrations = Registrations(self.database)

    def say(self, value: Any, *lines: str) -> None:
        for line in [json.dumps(value, indent=2, default=str)] if self.given.get("json") else lines:
            print(line)  # noqa: T201

    # -- accounts

    def account_add(self) -> None:
        from extenbot.store.fields import new_password

        piped = self.given.get("password_stdin")
        password = sys.stdin.readline().rstrip("\r\n") if piped else new_password()
        account = self.accounts.add(self.given["email"], password, admin=self.given.get("admin", False))
        shown = asdict(account) | ({} if piped else {"password": password})
        self.say(shown, f"account {account.email}", *([] if piped else [f"password {password}"]))

    def account_list(self) -> None:
        found = self.accounts.all()
        self.say([asdict(a) for a in found], *(f"{a.email}{'  admin' if a.admin else ''}" for a in found))

    def account_remove(self) -> None:
        account = self._account(self.given["email"])
        self.accounts.remove(account.id)
        self.say({"removed": account.id}, f"removed {account.email}")

    def _account(self, text: str | None = None) -> Any:
        if text:
            found = self.accounts.find(text)
            if found is None:
                raise Mistake(f"There is no account {text}.")
            return found
        accounts = self.accounts.all()
        if len(accounts) == 1:
            return accounts[0]
        if accounts:
            raise Mistake("There are several accounts: say which one with --account EMAIL.")
        raise Mistake("There is no account yet: extenbot account add EMAIL.")

    # -- bots

    def bot_add(self) -> None:
        account = self._account(self.given.get("account"))
        self._changed(self.bots.add(account.id, self._values()))

    def bot_edit(self) -> None:
        bot = self.bots.edit(self._bot(self.given["bot"]).id, self._values())
        if bot is None:
            raise Mistake(f"There is no bot {self.given['bot']} any more.")
        self._changed(bot)

    def _values(self) -> dict[str, Any]:
        values = {field: self.given[field] for field in _EDITED if field in self.given}
        if "trusted" in values:
            values["trusted"] = " ".join(values["trusted"])
        return values

    def _changed(self, bot: Bot) -> None:
        self._show(bot)
        if "trusted" in self.given and bot.kind == "registrar":
            for caution in cautions(bot.trusted):
                print(f"extenbot: Careful: {caution}", file=sys.stderr)  # noqa: T201

    def bot_list(self) -> None:
        owner = self.given.get("account")
        found = self.bots.all(self._account(owner).id if owner else None)
        shown = [{key: value for key, value in self._told(bot).items() if key != "password"} for bot in found]
        lines = (
            f"{bot.username:<16} {bot.kind:<10} {'on ' if bot.enabled else 'off'} {bot.model:<16} {bot.name}"
            for bot in found
        )
        self.say(shown, *lines)

    def bot_show(self) -> None:
        self._show(self._bot(self.given["bot"]))

    def bot_remove(self) -> None:
        bot = self._bot(self.given["bot"])
        self.bots.remove(bot.id)
        self.say({"removed": bot.id}, f"removed {bot.name}")

    def _bot(self, text: str) -> Bot:
        found = self.bots.find(text)
        if not found:
            raise Mistake(f"There is no bot {text}.")
        if len(found) > 1:
            ids = ", ".join(bot.id for bot in found)
            raise Mistake(f"There are several bots called {text}: give the id of one ({ids}).")
        return found[0]

    def _told(self, bot: Bot) -> dict[str, Any]:
        """A bot for people and scripts: the SIP password must be copied, the key for the voice service never."""
        shown = {field: getattr(bot, field) for field in ("id", "account_id", *_BOT_OPTIONS, "enabled")}
        shown["type"] = shown.pop("kind")
        shown["token"] = "set" if bot.token else "not set"
        shown["functions"] = [function.name for function in bot.functions]
        if bot.kind == "registrar":
            domain, port = self._domain(), self.settings.sip.listen[0].port
            shown |= {
                "trusted": bot.trusted.split(),
                "server": domain,
                "port": port,
                "sip_uris": [f"sip:{u}@{domain}" for u in ("openai", "70000000000")],
            }
        else:
            shown |= {field: getattr(bot, field) for field in _REGISTRANT_OPTIONS}
            shown["registration"] = [asdict(state) for state in self.registrations.recent(bot.id)]
        return shown

    def _show(self, bot: Bot) -> None:
        told = self._told(bot)
        history = told.get("registration", ())
        lines = [(key, value) for key, value in told.items() if key != "registration"]
        shown = [f"{key:<14} {', '.join(value) if isinstance(value, list) else value}" for key, value in lines]
        shown += [f"{'registration':<14} {_registration_told(**state)}" for state in history[:5]]
        self.say(told, *shown)

    def _domain(self) -> str:
        from extenbot.net.addresses import outward

        return self.settings.domain or outward()

    # -- functions

    def function_add(self) -> None:
        account = self._account(self.given.get("account"))
        description = _document(self.given.get("description", ""))
        function = Function(
            id="",
            name=self.given.get("name", "") or _named(description),
            url=self.given.get("url", ""),
            token=self.given.get("token", ""),
            description=description,
            template=_document(self.given.get("template", "")),
        )
        bots = [self._bot(text) for text in self.given.get("bots", ())]
        made = self.functions.add(account.id, function, [bot.id for bot in bots])
        self.say(_function_told(made, [bot.id for bot in bots]), f"function {made.name} {made.id}")

    def function_list(self) -> None:
        owner = self.given.get("account")
        found = self.functions.all(self._account(owner).id if owner else None)
        names = {bot.id: bot.name for bot in self.bots.all()}
        lines = (
            f"{f.id}  {f.name}  {f.url}  {', '.join(names[b] for b in bots if b in names)}" for f, _, bots in found
        )
        self.say([_function_told(function, bots) for function, _, bots in found], *lines)

    def function_remove(self) -> None:
        text = self.given["function"]
        found = [function for function, _, _ in self.functions.all() if text in (function.id, function.name)]
        if len(found) != 1:
            many = "are several functions" if found else "is no function"
            raise Mistake(f"There {many} {text}{': give the id of one' if found else ''}.")
        self.functions.remove(found[0].id)
        self.say({"removed": found[0].id}, f"removed {found[0].name}")

    # -- calls

    def call_place(self) -> None:
        from extenbot import control  # with a reactor, unlike all else here

        news: list[str] = []

        def told(words: str) -> None:
            news.append(words)
            if not self.given.get("json"):
                print(words, flush=True)  # noqa: T201

        bot = self._bot(self.given["bot"])
        self.database.close()
        call = control.place(self.settings.data, bot.id, self.given["target"], told, wait=self.given.get("wait", True))
        self.say({"call": call, "news": news}, f"call {call}")
        if self.given.get("wait", True) and "answered" not in news:
            raise Mistake("The call was not answered.")

    def call_list(self) -> None:
        bot = self.given.get("bot")
        found = self.calls.recent(bot_id=self._bot(bot).id if bot else None, limit=self.given.get("limit", 20))
        lines = (
            f"{c.id}  {_date(c.started)}  {c.ended - c.started:6.1f} s  {_other(c)}  {c.end_reason}" for c in found
        )
        self.say([_call_told(record) for record in found], *lines)

    def call_show(self) -> None:
        record = self.calls.get(self.given["call"])
        if record is None:
            raise Mistake(f"There is no call {self.given['call']}.")
        told = _call_told(record)
        lines = [f"{key:<16} {value}" for key, value in told.items() if key not in ("transcript", "events", "usage")]
        lines += [f"{line.at:8.2f} s  {line.speaker}: {line.text}" for line in record.transcript]
        self.say(told, *lines)


def _function_told(function: Function, bots: Sequence[str]) -> dict[str, Any]:
    return asdict(function) | {"token": "set" if function.token else "not set", "bots": list(bots)}


def _call_told(record: CallRecord) -> dict[str, Any]:
    return asdict(record) | {
        "transcript": [line._asdict() for line in record.transcript],
        "events": [event._asdict() for event in record.events],
    }


def _other(record: CallRecord) -> str:
    return f"to {record.dialled}" if record.outgoing else record.caller


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def _registration_told(
    *, at: float, state: str, words: str, until: float, next_try: float, target: str, **_: object
) -> str:
    parts = [_date(at), state, target, words, f"until {_date(until)}" if until else ""]
    if state != Standing.REGISTERED and next_try > time():
        parts.append(f"next try {_date(next_try)}")
    return "  ".join(part for part in parts if part)


def _document(text: str) -> str:
    """JSON text as given, or out of a file when it begins with @."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"The file {text[1:]} cannot be read: {error}.") from error


def _named(description: str) -> str:
    """The name in a description; none while that cannot be read, which is told when it is checked."""
    from extenbot.ai.tools import name_of

    try:
        return name_of(Function("", "", "", description=description)) if description.strip() else ""
    except (Invalid, KeyError):
        return ""


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
        office = _Office(load(given.get("config"), os.environ), given)
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
