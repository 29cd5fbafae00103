"""How it stands and stood with the registrations of bots at their PBXs. Blocks.

The newest row of a bot is its present state and is rewritten by each refresh; what it was before is history.
That we are asking, or signing off, is no history: such a row makes way for what comes of it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, select

from extenbot.interfaces import Registration, Standing
from extenbot.store import tables
from extenbot.store.database import Database

KEPT = 50  # rows of one bot
_PASSING = frozenset({Standing.REGISTERING, Standing.LEAVING})
_PLAIN = ("at", "words", "until", "next_try", "target")


class Registrations:
    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, registration: Registration) -> None:
        """This is now the state of its bot; nothing happens when there is no such bot."""
        table, bot_id = tables.registrations, registration.bot_id
        row: dict[str, Any] = {name: getattr(registration, name) for name in _PLAIN}
        row |= {"state": registration.state.value, "bot_id": bot_id}
        with self._database.write() as connection:
            if connection.execute(select(tables.bots.c.id).where(tables.bots.c.id == bot_id)).first() is None:
                return
            last = connection.execute(
                select(table).where(table.c.bot_id == bot_id).order_by(table.c.number.desc()).limit(2)
            ).all()
            last = [old for old in last if old.state not in _PASSING]
            number = last[0].number + 1 if last else 1
            if last and (last[0].state, last[0].words) == (row["state"], row["words"]):  # a refresh, or refused again
                number, row["at"] = last[0].number, last[0].at
            connection.execute(
                delete(table).where(
                    table.c.bot_id == bot_id, (table.c.number >= number) | (table.c.number <= number - KEPT)
                )
            )
            connection.execute(insert(table).values(row | {"number": number}))

    def recent(self, bot_id: str, limit: int = KEPT) -> list[Registration]:
        """The last states of a bot, the newest first."""
        table = tables.registrations
        query = select(table).where(table.c.bot_id == bot_id).order_by(table.c.number.desc()).limit(limit)
        with self._database.read() as connection:
            return [
                Registration(
                    bot_id=row.bot_id, state=Standing(row.state), **{name: getattr(row, name) for name in _PLAIN}
                )
                for row in connection.execute(query)
            ]
