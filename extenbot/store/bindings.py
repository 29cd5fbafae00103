"""The registered contacts of PBXs, so that they survive a restart. Blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import delete, insert, select

from extenbot.interfaces import Flow
from extenbot.sip.registrar import Binding
from extenbot.store import tables
from extenbot.store.database import Database

_PLAIN = ("contact", "instance", "reg_id", "call_id", "cseq", "expires_at", "q", "user_agent", "registered_at")


def _row(bot_id: str, position: int, binding: Binding) -> dict[str, Any]:
    flow = binding.flow
    return {name: getattr(binding, name) for name in _PLAIN} | {
        "bot_id": bot_id,
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

    def replace(self, username: str, bindings: Sequence[Binding]) -> None:
        """These are now all contacts of that bot; nothing happens when there is no such bot."""
        bots = tables.bots.c
        with self._database.write() as connection:
            bot_id = connection.execute(
                select(bots.id).where(bots.username == username, bots.kind == "registrar")
            ).scalar_one_or_none()
            if bot_id is None:
                return
            connection.execute(delete(tables.bindings).where(tables.bindings.c.bot_id == bot_id))
            if bindings:
                rows = [_row(bot_id, position, binding) for position, binding in enumerate(bindings)]
                connection.execute(insert(tables.bindings), rows)
