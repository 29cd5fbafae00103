"""MCP servers whose tools bots may use. Blocks. Secrets are in clear on our side of these calls only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from extenbot import abilities
from extenbot.errors import Invalid
from extenbot.interfaces import McpServer
from extenbot.store import tables
from extenbot.store.database import Database
from extenbot.store.fields import new_id
from extenbot.store.functions import sealed_headers, unsealed_headers
from extenbot.store.keys import Keys
from extenbot.store.outsiders import checked_server


def read_server(row: Row[Any], keys: Keys) -> McpServer:
    """A row of `mcp_servers`, and the secrets in it."""
    return McpServer(
        id=row.id,
        label=row.label,
        url=row.url,
        key=keys.unseal(row.key_sealed),
        headers=unsealed_headers(row.headers_sealed, keys),
        allowed=tuple(row.allowed.split()),
        **abilities.restored(row.options, abilities.SERVER),
    )


class Servers:
    """`all`, `get`, `add`, `edit`, `remove`; values are flat, as forms and commands have them."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def all(self, account_id: str | None = None) -> list[tuple[McpServer, str, tuple[str, ...]]]:
        """Each server with its account's id and the ids of the bots that may use it; the oldest first."""
        table, link = tables.mcp_servers, tables.bot_servers
        query = select(table).order_by(table.c.created, table.c.id)
        with self._database.read() as connection:
            bots: dict[str, list[str]] = {}
            for pair in connection.execute(select(link).order_by(link.c.bot_id)):
                bots.setdefault(pair.server_id, []).append(pair.bot_id)
            rows = connection.execute(query if account_id is None else query.where(table.c.account_id == account_id))
            return [(read_server(r, self._database.keys), r.account_id, tuple(bots.get(r.id, ()))) for r in rows]

    def get(self, server_id: str, account_id: str | None = None) -> McpServer | None:
        """The server when it is there and, with `account_id`, belongs to it."""
        with self._database.read() as connection:
            row = connection.execute(select(tables.mcp_servers).where(tables.mcp_servers.c.id == server_id)).first()
        return (
            None if row is None or account_id not in (None, row.account_id) else read_server(row, self._database.keys)
        )

    def add(self, account_id: str, values: Mapping[str, Any], bot_ids: Sequence[str] = ()) -> McpServer:
        """A new server, linked to bots of the same account. `Invalid` when wrong."""
        server = checked_server(values, McpServer(id=new_id(), label="", url=""))
        row = self._columns(server) | {"id": server.id, "account_id": account_id, "created": self._now()}
        try:
            with self._database.change() as connection:
                connection.execute(insert(tables.mcp_servers).values(row))
                _link(connection, account_id, server, bot_ids)
        except IntegrityError as error:
            raise _taken() from error
        return server

    def edit(self, server_id: str, values: Mapping[str, Any], bot_ids: Sequence[str] | None = None) -> McpServer | None:
        """The server with these values changed, or None when it is gone; `bot_ids` None: its bots stay."""
        with self._database.read() as connection:
            row = connection.execute(select(tables.mcp_servers).where(tables.mcp_servers.c.id == server_id)).first()
        if row is None:
            return None
        server = checked_server(values, read_server(row, self._database.keys))
        try:
            with self._database.change() as connection:
                mine = tables.mcp_servers.c.id == server_id
                connection.execute(update(tables.mcp_servers).where(mine).values(self._columns(server)))
                if bot_ids is not None:
                    _link(connection, row.account_id, server, bot_ids)
        except IntegrityError as error:
            raise _taken() from error
        return server

    def remove(self, server_id: str) -> bool:
        with self._database.change() as connection:
            mine = tables.mcp_servers.c.id == server_id
            return connection.execute(delete(tables.mcp_servers).where(mine)).rowcount > 0

    def _columns(self, server: McpServer) -> dict[str, Any]:
        keys = self._database.keys
        return {
            "label": server.label,
            "url": server.url,
            "key_sealed": keys.seal(server.key),
            "headers_sealed": sealed_headers(server.headers, keys),
            "allowed": " ".join(server.allowed),
            "options": abilities.stored(server, abilities.SERVER),
        }


def _link(connection: Connection, account_id: str, server: McpServer, bot_ids: Sequence[str]) -> None:
    """These bots may use it, and no others."""
    link, bots = tables.bot_servers, tables.bots
    connection.execute(delete(link).where(link.c.server_id == server.id))
    for bot_id in dict.fromkeys(bot_ids):
        mine = select(bots.c.id).where(bots.c.id == bot_id, bots.c.account_id == account_id)
        if connection.execute(mine).first() is None:
            raise Invalid({"bot": f"There is no bot {bot_id} in this account."})
        connection.execute(insert(link).values(bot_id=bot_id, server_id=server.id))


def _taken() -> Invalid:
    return Invalid({"label": "There is an MCP server with this label already."})
