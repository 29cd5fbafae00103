"""Bots and the functions they may call. Blocks. Secrets are in clear on our side of these calls only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from twisted.logger import Logger

from extenbot.ai.tools import name_of
from extenbot.errors import Invalid
from extenbot.interfaces import Bot, Function
from extenbot.manner import restored, restored_destinations, stored, stored_destinations
from extenbot.store import tables
from extenbot.store.database import Database
from extenbot.store.fields import (
    BOT_FIELDS,
    checked_bot,
    checked_function,
    new_id,
    new_password,
    new_username,
    with_values,
)
from extenbot.store.keys import Keys, WrongKey
from extenbot.store.sentences import Held
from extenbot.store.sentences import read as read_sentences

SECRET = frozenset({"password", "token"})
_PLAIN = BOT_FIELDS - SECRET - {"destinations"}


class Snapshot(NamedTuple):
    """All that calls go by, at one revision. `rows` tells which bots have stayed as they were."""

    revision: int = -1
    bots: Mapping[str, Bot] = {}
    rows: Mapping[str, tuple[Any, ...]] = {}
    unreadable: tuple[str, ...] = ()  # names of bots whose secrets no key fits
    admins: frozenset[str] = frozenset()  # ids of accounts
    caps: Mapping[str, float] = {}  # of accounts: what they may spend a day, USD
    sentences: Held = {}  # noqa: RUF012 — a Mapping, as those above


def _function(row: Row[Any], keys: Keys) -> Function:
    return Function(row.id, row.name, row.url, keys.unseal(row.token_sealed), row.description, row.template)


def _bot(row: Row[Any], functions: Iterable[Row[Any]], keys: Keys) -> Bot:
    plain = {name: getattr(row, name) for name in _PLAIN}
    plain["enabled"] = bool(row.enabled)
    return Bot(
        id=row.id,
        account_id=row.account_id,
        password=keys.unseal(row.password_sealed),
        token=keys.unseal(row.token_sealed),
        functions=tuple(_function(function, keys) for function in functions),
        destinations=restored_destinations(row.destinations)[0],
        manner=restored(row.manner)[0],
        **plain,
    )


def _columns(bot: Bot, keys: Keys) -> dict[str, Any]:
    plain: dict[str, Any] = {name: getattr(bot, name) for name in _PLAIN}
    return plain | {
        "password_sealed": keys.seal(bot.password),
        "token_sealed": keys.seal(bot.token),
        "destinations": stored_destinations(bot.destinations),
        "manner": stored(bot.manner),
    }


def _linked(connection: Connection, bot_ids: Select[Any] | None = None) -> dict[str, list[Row[Any]]]:
    """The rows of functions by bot id."""
    link = tables.bot_functions
    query = (
        select(link.c.bot_id, tables.functions)
        .join(link, link.c.function_id == tables.functions.c.id)
        .order_by(tables.functions.c.created, tables.functions.c.id)
    )
    found: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(query if bot_ids is None else query.where(link.c.bot_id.in_(bot_ids))):
        found.setdefault(row.bot_id, []).append(row)
    return found


class Bots:
    log = Logger()

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def all(self, account_id: str | None = None) -> list[Bot]:
        """Of one account, or of all; the oldest first."""
        return self._select(None if account_id is None else tables.bots.c.account_id == account_id)

    def get(self, bot_id: str, account_id: str | None = None) -> Bot | None:
        """The bot when it is there and, with `account_id`, belongs to it."""
        found = self._select(tables.bots.c.id == bot_id)
        return found[0] if found and account_id in (None, found[0].account_id) else None

    def find(self, text: str) -> list[Bot]:
        """Those whose id, username or name is `text`; the id wins over the username, and that over the name."""
        table = tables.bots.c
        for column in (table.id, table.username, table.name):
            found = self._select(column == text)
            if found:
                return found
        return []

    def add(self, account_id: str, values: Mapping[str, Any]) -> Bot:
        """A new bot out of flat values (`fields.EDITABLE`); `Invalid` when wrong.

        Of a registrar, username and password are generated when left out.
        """
        chosen = {"name": "", "kind": "registrar", "username": "", "password": ""} | dict(values)
        generated = chosen["kind"] == "registrar" and not chosen["username"]
        if chosen["kind"] == "registrar":
            chosen["username"] = chosen["username"] or new_username()
            chosen["password"] = chosen["password"] or new_password()
        if not (chosen.get("model") or chosen.get("token") or chosen.get("ai_url")):
            chosen["model"] = "sandbox"  # it needs nothing else
        empty = Bot(id=new_id(), account_id=account_id, name="", kind="registrar", username="", password="")
        bot = checked_bot(with_values(empty, chosen))
        row = _columns(bot, self._database.keys) | {"id": bot.id, "account_id": account_id, "created": self._now()}
        try:
            with self._database.change() as connection:
                connection.execute(insert(tables.bots).values(row))
        except IntegrityError as error:
            if generated and self.find(bot.username):
                return self.add(account_id, values)
            raise _taken() from error
        return bot

    def edit(self, bot_id: str, values: Mapping[str, Any]) -> Bot | None:
        """The bot with these fields (flat, as in `add`) changed, or None when it is gone. `Invalid` when wrong."""
        old = self.get(bot_id)
        if old is None:
            return None
        bot = checked_bot(with_values(old, values))
        try:
            with self._database.change() as connection:
                row = _columns(bot, self._database.keys)
                connection.execute(update(tables.bots).where(tables.bots.c.id == bot_id).values(row))
                if (old.username, old.kind) != (bot.username, bot.kind):  # they were made with another name
                    connection.execute(delete(tables.bindings).where(tables.bindings.c.bot_id == bot_id))
        except IntegrityError as error:
            raise _taken() from error
        return bot

    def remove(self, bot_id: str) -> bool:
        with self._database.change() as connection:
            return connection.execute(delete(tables.bots).where(tables.bots.c.id == bot_id)).rowcount > 0

    def snapshot(self, before: Snapshot) -> Snapshot:
        """All as it is now; bots and sentences that have not changed since `before` are the same objects."""
        keys = self._database.keys
        bots: dict[str, Bot] = {}
        rows: dict[str, tuple[Any, ...]] = {}
        unreadable: list[str] = []
        with self._database.read() as connection:
            revision = int(connection.execute(select(tables.meta.c.revision)).scalar_one())
            owners = tables.accounts.c
            accounts = connection.execute(select(owners.id, owners.admin, owners.cap_day)).all()
            sentences = read_sentences(connection, before.sentences)
            linked = _linked(connection)
            for row in connection.execute(select(tables.bots)):
                functions = linked.get(row.id, [])
                seen = (tuple(row), *(tuple(function) for function in functions))
                if before.rows.get(row.id) == seen:
                    bots[row.id], rows[row.id] = before.bots[row.id], seen
                    continue
                try:
                    bots[row.id] = _bot(row, functions, keys)
                except WrongKey:
                    unreadable.append(row.name)
                    continue
                rows[row.id] = seen
                if wrong := (*restored(row.manner)[1], *restored_destinations(row.destinations)[1]):
                    self.log.warn(
                        "Settings of the bot {name} make no sense and are left out: {wrong}",
                        name=row.name,
                        wrong=", ".join(wrong),
                    )
        return Snapshot(
            revision,
            bots,
            rows,
            tuple(unreadable),
            frozenset(account.id for account in accounts if account.admin),
            {account.id: account.cap_day for account in accounts if account.cap_day},
            sentences,
        )

    def _select(self, condition: Any) -> list[Bot]:
        table = tables.bots
        query = select(table).order_by(table.c.created, table.c.id)
        ids = select(table.c.id)
        if condition is not None:
            query, ids = query.where(condition), ids.where(condition)
        with self._database.read() as connection:
            linked = _linked(connection, ids)
            rows = connection.execute(query).all()
        return [_bot(row, linked.get(row.id, ()), self._database.keys) for row in rows]


class Functions:
    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def all(self, account_id: str | None = None) -> list[tuple[Function, str, tuple[str, ...]]]:
        """Each function with its account's id and the ids of the bots that may call it; the oldest first."""
        table, link = tables.functions, tables.bot_functions
        query = select(table).order_by(table.c.created, table.c.id)
        with self._database.read() as connection:
            bots: dict[str, list[str]] = {}
            for pair in connection.execute(select(link).order_by(link.c.bot_id)):
                bots.setdefault(pair.function_id, []).append(pair.bot_id)
            rows = connection.execute(query if account_id is None else query.where(table.c.account_id == account_id))
            return [(_function(r, self._database.keys), r.account_id, tuple(bots.get(r.id, ()))) for r in rows]

    def add(self, account_id: str, function: Function, bot_ids: Sequence[str] = ()) -> Function:
        """A new function, linked to bots of the same account. `Invalid` when wrong."""
        function = checked_function(replace(function, id=new_id()))
        for bot_id in bot_ids:
            bot = Bots(self._database).get(bot_id, account_id)
            if bot is None:
                raise Invalid({"bot": f"There is no bot {bot_id} in this account."})
            if name_of(function) in map(name_of, bot.functions):
                raise Invalid({"bot": f"The bot {bot.name} has a function called {name_of(function)} already."})
        row = {
            "id": function.id,
            "account_id": account_id,
            "name": function.name,
            "url": function.url,
            "token_sealed": self._database.keys.seal(function.token),
            "description": function.description,
            "template": function.template,
            "created": self._now(),
        }
        try:
            with self._database.change() as connection:
                connection.execute(insert(tables.functions).values(row))
                for bot_id in dict.fromkeys(bot_ids):
                    connection.execute(insert(tables.bot_functions).values(bot_id=bot_id, function_id=function.id))
        except IntegrityError as error:
            raise Invalid({"name": "There is a function with this name already."}) from error
        return function

    def remove(self, function_id: str) -> bool:
        with self._database.change() as connection:
            return connection.execute(delete(tables.functions).where(tables.functions.c.id == function_id)).rowcount > 0


def _taken() -> Invalid:
    return Invalid({"username": "Another bot has this username: choose another one."})
