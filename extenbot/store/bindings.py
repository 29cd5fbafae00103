"""The registered contacts of PBXs, so that they survive a restart. Blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, insert, select

from extenbot.interfaces import Flow
from extenbot.sip.registrar import Binding
from extenbot.store import tables
from extenbot.store.database import Database

_PLAIN = ("contact", "instance", "reg_id", "call_id", "cseq", "expires_at", "q", "user_agent", "registered_at")
_BOT = select(tables.bots.c.id).where(tables.bots.c.username == bindparam("of"), tables.bots.c.kind == "registrar")
_FORGET = delete(tables.bindings).where(tables.bindings.c.bot_id == _BOT.scalar_subquery())
_VALUES = [column for column in tables.bindings.c if column.name != "bot_id"]
_KEEP = insert(tables.bindings).from_select(
    ["bot_id", *_VALUES], _BOT.add_columns(*(bindparam(column.name, type_=column.type) for column in _VALUES))
)


def _row(username: str, position: int, binding: Binding) -> dict[str, Any]:
    flow = binding.flow
    return {name: getattr(binding, name) for name in _PLAIN} | {
        "of": username,
        "position": position,
        "transport": flow.transport,
        "local_host": flow.local[0],
        "local_port": flow.local[1],
        "remote_host": flow.remote[0],
        "remote_port": flow.remote[1],
        "path": "\n".join(binding.path),
    }


class Bindings:
    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def load(self) -> dict[str, tuple[Binding, ...]]:
        """What has not expired, by username, in the order it was saved."""
        table = tables.bindings
        query = (
            select(tables.bots.c.username, table)
            .join(table, table.c.bot_id == tables.bots.c.id)
            .where(table.c.expires_at > self._now(), tables.bots.c.kind == "registrar")
            .order_by(table.c.bot_id, table.c.position)
        )
        found: dict[str, tuple[Binding, ...]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                flow = Flow(row.transport, (row.local_host, row.local_port), (row.remote_host, row.remote_port))
                plain = {name: getattr(row, name) for name in _PLAIN}
                path = tuple(row.path.split("\n")) if row.path else ()
                binding = Binding(username=row.username, flow=flow, path=path, **plain)
                found[row.username] = (*found.get(row.username, ()), binding)
        return found

    def replace(self, found: Mapping[str, Sequence[Binding]]) -> None:
        """By username: these are now all contacts of that bot. Nothing happens where there is no such bot.

        Two statements however many bots; that a PBX registers again costs no look at the database.
        """
        rows = [_row(name, place, each) for name, bindings in found.items() for place, each in enumerate(bindings)]
        with self._database.write() as connection:
            connection.execute(_FORGET, [{"of": username} for username in found])
            if rows:
                connection.execute(_KEEP, rows)
