"""Bots, and which functions and MCP servers they use. Blocks. Secrets are in clear on our side of these calls only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from twisted.logger import Logger

from extenbot.errors import Invalid
from extenbot.interfaces import Bot
from extenbot.manner import restored, restored_destinations, stored, stored_destinations
from extenbot.store import tables
from extenbot.store.database import Database
from extenbot.store.fields import (
    BOT_FIELDS,
    checked_bot,
    new_id,
    new_password,
    new_username,
    with_values,
)
from extenbot.store.functions import check_names, read_function
from extenbot.store.keys import Keys, WrongKey
from extenbot.store.sentences import Held
from extenbot.store.sentences import read as read_sentences
from extenbot.store.servers import read_server

SECRET = frozenset({"password", "token", "hook_token", "hook_secret"})
_LINKS = {
    "functions": (tables.functions, tables.bot_functions, "function_id"),
    "servers": (tables.mcp_servers, tables.bot_servers, "server_id"),
}
_Rows = dict[str, list[Row[Any]]]
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


def _bot(row: Row[Any], functions: Iterable[Row[Any]], servers: Iterable[Row[Any]], keys: Keys) -> Bot:
    plain: dict[str, Any] = {name: getattr(row, name) for name in _PLAIN}
    plain["enabled"] = bool(row.enabled)
    plain |= {name: keys.unseal(getattr(row, f"{name}_sealed")) for name in SECRET}
    return Bot(
        id=row.id,
        account_id=row.account_id,
        functions=tuple(read_function(function, keys) for function in functions),
        servers=tuple(read_server(server, keys) for server in servers),
        destinations=restored_destinations(row.destinations)[0],
        manner=restored(row.manner)[0],
        **plain,
    )


def _columns(bot: Bot, keys: Keys) -> dict[str, Any]:
    plain: dict[str, Any] = {name: getattr(bot, name) for name in _PLAIN}
    return plain | {
        **{f"{name}_sealed": keys.seal(getattr(bot, name)) for name in SECRET},
        "destinations": stored_destinations(bot.destinations),
        "manner": stored(bot.manner),
    }


def _linked(connection: Connection, link: Table, table: Table, bot_ids: Select[Any] | None = None) -> _Rows:
    """The rows of functions or MCP servers by bot id, the oldest first."""
    other = next(column for column in link.c if column.name != "bot_id")
    query = select(link.c.bot_id, table).join(link, other == table.c.id).order_by(table.c.created, table.c.id)
    found: _Rows = {}
    for row in connection.execute(query if bot_ids is None else query.where(link.c.bot_id.in_(bot_ids))):
        found.setdefault(row.bot_id, []).append(row)
    return found


def _functions(connection: Connection, bot_ids: Select[Any] | None = None) -> _Rows:
    return _linked(connection, tables.bot_functions, tables.functions, bot_ids)


def _servers(connection: Connection, bot_ids: Select[Any] | None = None) -> _Rows:
    return _linked(connection, tables.bot_servers, tables.mcp_servers, bot_ids)


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
        links = _links(chosen)
        bot = checked_bot(with_values(empty, chosen))
        row = _columns(bot, self._database.keys) | {"id": bot.id, "account_id": account_id, "created": self._now()}
        try:
            with self._database.change() as connection:
                connection.execute(insert(tables.bots).values(row))
                self._link(connection, bot, links)
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
        values = dict(values)
        links = _links(values)
        bot = checked_bot(with_values(old, values))
        try:
            with self._database.change() as connection:
                row = _columns(bot, self._database.keys)
                connection.execute(update(tables.bots).where(tables.bots.c.id == bot_id).values(row))
                self._link(connection, bot, links)
                if (old.username, old.kind) != (bot.username, bot.kind):  # they were made with another name
                    connection.execute(delete(tables.bindings).where(tables.bindings.c.bot_id == bot_id))
        except IntegrityError as error:
            raise _taken() from error
        return self.get(bot_id)

    def _link(self, connection: Connection, bot: Bot, links: Mapping[str, Sequence[str]]) -> None:
        """These are now its functions and MCP servers, where they are said; `Invalid` when one is not the account's."""
        for field, ids in links.items():
            table, link, column = _LINKS[field]
            mine = select(table).where(table.c.account_id == bot.account_id, table.c.id.in_(ids))
            found = connection.execute(mine).all()
            if len(found) != len(set(ids)):
                raise Invalid({field: "There is no such thing in this account."})
            if field == "functions":
                check_names([read_function(row, self._database.keys) for row in found], field)
            connection.execute(delete(link).where(link.c.bot_id == bot.id))
            for each in dict.fromkeys(ids):
                connection.execute(insert(link).values({"bot_id": bot.id, column: each}))

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
            all_functions, all_servers = _functions(connection), _servers(connection)
            for row in connection.execute(select(tables.bots)):
                functions, servers = all_functions.get(row.id, []), all_servers.get(row.id, [])
                seen = (tuple(row), *map(tuple, functions), None, *map(tuple, servers))
                if before.rows.get(row.id) == seen:
                    bots[row.id], rows[row.id] = before.bots[row.id], seen
                    continue
                try:
                    bots[row.id] = _bot(row, functions, servers, keys)
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
            functions, servers = _functions(connection, ids), _servers(connection, ids)
            rows = connection.execute(query).all()
        return [_bot(row, functions.get(row.id, ()), servers.get(row.id, ()), self._database.keys) for row in rows]


def _links(values: dict[str, Any]) -> dict[str, list[str]]:
    """Take out the ids of what is to be linked; what is not there, or None, stays as it was."""
    found = {}
    for field in _LINKS:
        ids = values.pop(field, None)
        if ids is not None:
            found[field] = list(ids)
    return found


def _taken() -> Invalid:
    return Invalid({"username": "Another bot has this username: choose another one."})
