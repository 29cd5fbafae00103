"""Functions: what bots may have done elsewhere. Blocks. Secrets are in clear on our side of these calls only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from extenbot import abilities
from extenbot.ai.tools import name_of
from extenbot.errors import Invalid
from extenbot.interfaces import Function
from extenbot.store import tables
from extenbot.store.database import Database
from extenbot.store.fields import new_id
from extenbot.store.keys import Keys
from extenbot.store.outsiders import checked_function


def read_function(row: Row[Any], keys: Keys) -> Function:
    """A row of `functions`, and the secrets in it."""
    options = abilities.restored(row.options, abilities.FUNCTION)
    return Function(
        id=row.id,
        name=row.name,
        url=row.url,
        token=keys.unseal(row.token_sealed),
        description=row.description,
        template=row.template,
        headers=unsealed_headers(row.headers_sealed, keys),
        secret=keys.unseal(row.secret_sealed),
        **{**options, "kind": row.kind},
    )


def sealed_headers(headers: Iterable[tuple[str, str]], keys: Keys) -> str:
    """Headers as one secret."""
    found = [list(header) for header in headers]
    return keys.seal(json.dumps(found) if found else "")


def unsealed_headers(sealed: str, keys: Keys) -> tuple[tuple[str, str], ...]:
    """Headers out of `sealed_headers`."""
    text = keys.unseal(sealed)
    return tuple((str(name), str(value)) for name, value in json.loads(text)) if text else ()


def check_names(functions: Sequence[Function], field: str) -> None:
    """`Invalid` when the model could not tell two functions of one bot apart."""
    seen: dict[str, str] = {}
    for function in functions:
        name = name_of(function)
        if name in seen:
            raise Invalid({field: f"{seen[name]} and {function.name} are both called {name} by the model."})
        seen[name] = function.name


class Functions:
    """`all`, `get`, `add`, `edit`, `remove`; values are flat, as forms and commands have them."""

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
            return [(read_function(r, self._database.keys), r.account_id, tuple(bots.get(r.id, ()))) for r in rows]

    def get(self, function_id: str, account_id: str | None = None) -> Function | None:
        """The function when it is there and, with `account_id`, belongs to it."""
        with self._database.read() as connection:
            row = connection.execute(select(tables.functions).where(tables.functions.c.id == function_id)).first()
        if row is None or account_id not in (None, row.account_id):
            return None
        return read_function(row, self._database.keys)

    def add(self, account_id: str, values: Mapping[str, Any], bot_ids: Sequence[str] = ()) -> Function:
        """A new function, linked to bots of the same account. `Invalid` when wrong."""
        function = checked_function(values, Function(id=new_id(), name="", url=""))
        row = self._columns(function) | {"id": function.id, "account_id": account_id, "created": self._now()}
        try:
            with self._database.change() as connection:
                connection.execute(insert(tables.functions).values(row))
                self._link(connection, account_id, function, bot_ids)
        except IntegrityError as error:
            raise _taken() from error
        return function

    def edit(
        self, function_id: str, values: Mapping[str, Any], bot_ids: Sequence[str] | None = None
    ) -> Function | None:
        """The function with these values changed, or None when it is gone; `bot_ids` None: its bots stay."""
        with self._database.read() as connection:
            row = connection.execute(select(tables.functions).where(tables.functions.c.id == function_id)).first()
            link = tables.bot_functions
            linked = connection.execute(select(link.c.bot_id).where(link.c.function_id == function_id)).scalars().all()
        if row is None:
            return None
        function = checked_function(values, read_function(row, self._database.keys))
        try:
            with self._database.change() as connection:
                mine = tables.functions.c.id == function_id
                connection.execute(update(tables.functions).where(mine).values(self._columns(function)))
                self._link(connection, row.account_id, function, linked if bot_ids is None else bot_ids)
        except IntegrityError as error:
            raise _taken() from error
        return function

    def remove(self, function_id: str) -> bool:
        with self._database.change() as connection:
            return connection.execute(delete(tables.functions).where(tables.functions.c.id == function_id)).rowcount > 0

    def _columns(self, function: Function) -> dict[str, Any]:
        keys = self._database.keys
        options = {name: field for name, field in abilities.FUNCTION.items() if name != "kind"}
        return {
            "name": function.name,
            "url": function.url,
            "token_sealed": keys.seal(function.token),
            "description": function.description,
            "template": function.template,
            "kind": function.kind,
            "options": abilities.stored(function, options),
            "headers_sealed": sealed_headers(function.headers, keys),
            "secret_sealed": keys.seal(function.secret),
        }

    def _link(self, connection: Connection, account_id: str, function: Function, bot_ids: Sequence[str]) -> None:
        """These bots may call it, and no others."""
        link, bots = tables.bot_functions, tables.bots
        connection.execute(delete(link).where(link.c.function_id == function.id))
        for bot_id in dict.fromkeys(bot_ids):
            mine = bots.c.id == bot_id, bots.c.account_id == account_id
            bot = connection.execute(select(bots.c.name).where(*mine)).scalar_one_or_none()
            if bot is None:
                raise Invalid({"bot": f"There is no bot {bot_id} in this account."})
            others = select(tables.functions).join(link, link.c.function_id == tables.functions.c.id)
            rows = connection.execute(others.where(link.c.bot_id == bot_id)).all()
            name = name_of(function)
            if any(name_of(read_function(row, self._database.keys)) == name for row in rows):
                raise Invalid({"bot": f"The bot {bot} has a function called {name} already."})
            connection.execute(insert(link).values(bot_id=bot_id, function_id=function.id))


def _taken() -> Invalid:
    return Invalid({"name": "There is a function with this name already."})
