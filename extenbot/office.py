"""What each `extenbot` command does, on the open database; nothing but `call place` imports a reactor."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any

from extenbot.errors import ExtenbotError, Invalid
from extenbot.interfaces import Bot, CallRecord, Destination, Function, Standing
from extenbot.manner import MANNER, greeting_of
from extenbot.networks import cautions
from extenbot.settings import Settings

BOT_OPTIONS = {
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
HOOK_OPTIONS = {
    "before_url": "a webhook that is asked before a call is taken",
    "after_url": "a webhook that is told of a call afterwards",
    "hook_token": "bearer token of these two, or @FILE",
    "hook_secret": "what they are signed with (HMAC-SHA256), or @FILE",
}
REGISTRANT_OPTIONS = {
    "auth_id": "the digest username, when the PBX wants another one than the username",
    "outbound_proxy": "HOST or HOST:PORT that everything for the PBX is sent to",
    "port": "of the PBX (default: as DNS says, or 5060)",
    "transport": "udp, tcp or tls (default: as DNS says, else udp)",
    "expires": "seconds that a registration is asked for (default: 600)",
    "allowed": "more addresses or networks that may call, such as '10.8.0.0/24 192.0.2.7'",
}

_EDITED = (*BOT_OPTIONS, *HOOK_OPTIONS, *REGISTRANT_OPTIONS, "trusted", "enabled", "destinations", *MANNER)


class Mistake(ExtenbotError):
    """The command cannot be done as it was given; one line for each mistake."""


class Office:
    """Runs one command on the open database."""

    def __init__(self, settings: Settings, given: Mapping[str, Any]) -> None:
        # The database library is slow to import: not for --help and mistakes.
        from extenbot.store.accounts import Accounts
        from extenbot.store.bots import Bots
        from extenbot.store.calls import Calls
        from extenbot.store.database import Database
        from extenbot.store.functions import Functions
        from extenbot.store.outbox import Outbox
        from extenbot.store.registrations import Registrations
        from extenbot.store.servers import Servers

        self.settings = settings
        self.given = given
        self.database = Database(settings)
        self.accounts = Accounts(self.database)
        self.bots = Bots(self.database)
        self.functions = Functions(self.database)
        self.servers = Servers(self.database)
        self.outbox = Outbox(self.database)
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
        account = self.account(self.given["email"])
        self.accounts.remove(account.id)
        self.say({"removed": account.id}, f"removed {account.email}")

    def account_cap(self) -> None:
        account = self.account(self.given["email"])
        cap = self.accounts.set_cap(account.id, self.given["usd"])
        told = f"{account.email} may cost {cap:.2f} USD a day" if cap else f"{account.email} has no cap"
        self.say({"id": account.id, "cap_day": cap}, told)

    def account(self, text: str | None = None) -> Any:
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
        account = self.account(self.given.get("account"))
        self._changed(self.bots.add(account.id, self._values(account.id)))

    def bot_edit(self) -> None:
        before = self.bot(self.given["bot"])
        bot = self.bots.edit(before.id, self._values(before.account_id))
        if bot is None:
            raise Mistake(f"There is no bot {self.given['bot']} any more.")
        self._changed(bot)

    def _values(self, account_id: str) -> dict[str, Any]:
        values = {field: self.given[field] for field in _EDITED if field in self.given}
        if "trusted" in values:
            values["trusted"] = " ".join(values["trusted"])
        if "destinations" in values:
            values["destinations"] = [_destination(words) for words in values["destinations"] if words != ["none"]]
        for name in ("hook_token", "hook_secret"):
            if name in values:
                values[name] = document(values[name]).strip()
        for field, room, what in (("functions", self.functions, "function"), ("servers", self.servers, "MCP server")):
            if field in self.given:
                rows = room.all(account_id)
                values[field] = [_found(rows, text, what) for text in self.given[field] if text != "none"]
        if "extra" in values:
            values["extra"] = document(values["extra"])
        return values

    def _changed(self, bot: Bot) -> None:
        self._show(bot)
        if "trusted" in self.given and bot.kind == "registrar":
            for caution in cautions(bot.trusted):
                print(f"extenbot: Careful: {caution}", file=sys.stderr)  # noqa: T201

    def bot_list(self) -> None:
        owner = self.given.get("account")
        found = self.bots.all(self.account(owner).id if owner else None)
        shown = [{key: value for key, value in self._told(bot).items() if key != "password"} for bot in found]
        lines = (
            f"{bot.username:<16} {bot.kind:<10} {'on ' if bot.enabled else 'off'} {bot.model:<16} {bot.name}"
            for bot in found
        )
        self.say(shown, *lines)

    def bot_show(self) -> None:
        self._show(self.bot(self.given["bot"]))

    def bot_remove(self) -> None:
        bot = self.bot(self.given["bot"])
        self.bots.remove(bot.id)
        self.say({"removed": bot.id}, f"removed {bot.name}")

    def bot(self, text: str) -> Bot:
        found = self.bots.find(text)
        if not found:
            raise Mistake(f"There is no bot {text}.")
        if len(found) > 1:
            ids = ", ".join(bot.id for bot in found)
            raise Mistake(f"There are several bots called {text}: give the id of one ({ids}).")
        return found[0]

    def _told(self, bot: Bot) -> dict[str, Any]:
        """A bot for people and scripts: the SIP password must be copied, the key for the voice service never."""
        shown = {field: getattr(bot, field) for field in ("id", "account_id", *BOT_OPTIONS, "enabled")}
        shown["type"] = shown.pop("kind")
        shown["token"] = "set" if bot.token else "not set"
        shown["functions"] = [function.name for function in bot.functions]
        shown["mcp_servers"] = [server.label for server in bot.servers]
        shown |= {name: getattr(bot, name) for name in ("before_url", "after_url")}
        shown |= {name: "set" if getattr(bot, name) else "not set" for name in ("hook_token", "hook_secret")}
        shown["destinations"] = [destination._asdict() for destination in bot.destinations]
        shown |= {name: getattr(bot.manner, name) for name in MANNER}
        if bot.kind == "registrar":
            domain, port = self._domain(), self.settings.sip.listen[0].port
            shown |= {
                "trusted": bot.trusted.split(),
                "server": domain,
                "port": port,
                "sip_uris": [f"sip:{u}@{domain}" for u in ("openai", "70000000000")],
            }
        else:
            shown |= {field: getattr(bot, field) for field in REGISTRANT_OPTIONS}
            shown["registration"] = [asdict(state) for state in self.registrations.recent(bot.id)]
        return shown

    def _show(self, bot: Bot) -> None:
        told = self._told(bot)
        history = told.get("registration", ())
        usual = {name for name, field in MANNER.items() if told[name] == field.default}
        people = {"registration", "destinations", *usual}
        lines = [(key, value) for key, value in told.items() if key not in people]
        shown = [f"{key:<14} {', '.join(value) if isinstance(value, list) else value}" for key, value in lines]
        shown += [f"{'destination':<14} {' · '.join(filter(None, to))}" for to in bot.destinations]
        shown += [f"{'registration':<14} {_registration_told(**state)}" for state in history[:5]]
        self.say(told, *shown)

    def _domain(self) -> str:
        from extenbot.net.addresses import outward

        return self.settings.domain or outward()

    # -- sentences

    def sentence_list(self) -> None:
        found = self._sentences().of(self.bot(self.given["bot"]).id)
        shown = [
            {
                "text": each.text,
                "how": each.how,
                "said": each.said,
                "created": each.created,
                "seconds": len(each.audio["PCMU"]) / 8000,
            }
            for each in found
        ]
        self.say(shown, *(f"{each['how']:<12} {each['seconds']:5.1f} s  {each['text']}" for each in shown))

    def sentence_add(self) -> None:
        from extenbot.store.sentences import RECORDED
        from extenbot.web import wav

        bot = self.bot(self.given["bot"])
        text = self.given.get("text", "") or greeting_of(bot)
        if not text:
            raise Mistake(f"{bot.name} has no welcome message: say with --text what the recording says.")
        path: Path = self.given["file"]
        try:
            audio = wav.read(path.read_bytes())
        except OSError as error:
            raise Mistake(f"The file {path} cannot be read: {error}.") from error
        self._sentences().save(bot.id, text, audio, RECORDED, "")
        self.say({"text": text, "seconds": len(audio) / 8000}, f"recorded ({len(audio) / 8000:.1f} s): {text}")
        if text == greeting_of(bot) and not bot.manner.greeting_exact:
            print("extenbot: It is played when the bot has --greeting-exact yes.", file=sys.stderr)  # noqa: T201

    def sentence_remove(self) -> None:
        bot = self.bot(self.given["bot"])
        if not self._sentences().remove(bot.id, self.given["text"]):
            raise Mistake("The bot has no such recording: see extenbot sentence list.")
        self.say({"removed": self.given["text"]}, "removed")

    def _sentences(self) -> Any:
        from extenbot.store.sentences import Sentences

        found = Sentences(self.database)
        found.load()
        return found

    # -- calls

    def call_place(self) -> None:
        from extenbot import control  # with a reactor, unlike all else here

        news: list[str] = []

        def told(words: str) -> None:
            news.append(words)
            if not self.given.get("json"):
                print(words, flush=True)  # noqa: T201

        bot = self.bot(self.given["bot"])
        self.database.close()
        call = control.place(self.settings.data, bot.id, self.given["target"], told, wait=self.given.get("wait", True))
        self.say({"call": call, "news": news}, f"call {call}")
        if self.given.get("wait", True) and "answered" not in news:
            raise Mistake("The call was not answered.")

    def call_recording(self) -> None:
        from extenbot.store.recordings import find

        record = self.calls.get(self.given["call"])
        if record is None:
            raise Mistake(f"There is no call {self.given['call']}.")
        path = find(self.settings.recordings_folder, record.id)
        if path is None:
            raise Mistake("The recording is gone." if record.recorded else "This call was not recorded.")
        self.say({"call": record.id, "recording": str(path)}, str(path))

    def call_list(self) -> None:
        bot = self.given.get("bot")
        found = self.calls.recent(bot_id=self.bot(bot).id if bot else None, limit=self.given.get("limit", 20))
        lines = (
            f"{c.id}  {_date(c.started)}  {c.ended - c.started:6.1f} s  {c.cost:8.4f} USD  {_other(c)}  {c.end_reason}"
            for c in found
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


def _destination(words: Sequence[str]) -> Destination:
    """NAME URIS [WHEN]; the last may be in quotes or not."""
    name, uris, *when = (*words, "", "")
    return Destination(name, uris, " ".join(when).strip())


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


def _found(rows: Sequence[tuple[Any, str, Any]], text: str, what: str) -> str:
    """The id of a function or an MCP server of one account, where a name is there once, by id or name."""
    for name in ("id", "name", "label"):
        for each, _, _ in rows:
            if getattr(each, name, "") == text:
                return str(each.id)
    raise Mistake(f"There is no {what} {text} in this account.")


def document(text: str) -> str:
    """JSON text as given, or out of a file when it begins with @."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"The file {text[1:]} cannot be read: {error}.") from error


def named(description: str) -> str:
    """The name in a description; none while that cannot be read, which is told when it is checked."""
    from extenbot.ai.tools import name_of

    try:
        return name_of(Function("", "", "", description=description)) if description.strip() else ""
    except (Invalid, KeyError):
        return ""
