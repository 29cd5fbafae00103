"""What is to be posted after calls: written with the record, kept until the owner's server has taken it. Blocks.

After a failure it is tried again after pauses that grow, for three days; what could not be delivered by then stays to
be seen for a month.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from extenbot.interfaces import CallRecord
from extenbot.store import tables
from extenbot.store.database import Database

PAUSES = (10.0, 60.0, 300.0, 1800.0, 7200.0)
"""Seconds after the first failure, the second, …"""

LATER = 21_600.0
"""Seconds after every further one."""

PATIENCE, KEPT = 3 * 86_400.0, 30 * 86_400.0
"""Seconds in which it is tried, and after which it is forgotten."""

VERSION = 1
"""Of the body's form."""

#: the escape itself, and not a backslash that such letters follow
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


class Post(NamedTuple):
    """One that waits, or has been given up (`next_try` 0). Times are unix seconds."""

    call_id: str
    account_id: str
    bot_id: str
    url: str
    body: str
    created: float
    tries: int
    next_try: float
    trouble: str


def told(record: CallRecord, bot: str, link: str) -> str:
    """The body for one call: `record` as JSON, without what only we know of it.

    Callers and servers may send NUL and half characters, which are JSON in Python and refused by others.
    """
    text = json.dumps(
        {
            "version": VERSION,
            "event": "call.ended",
            "call": record.id,
            "bot": {"id": record.bot_id, "name": bot},
            "direction": "out" if record.outgoing else "in",
            "caller": record.caller,
            "caller_name": record.caller_name,
            "called": record.dialled,
            "started": record.started,
            "answered": record.answered,
            "ended": record.ended,
            "seconds": round(record.ended - record.answered, 3) if record.answered else 0,
            "reason": record.end_reason,
            "trouble": record.trouble,
            "cost": record.cost,
            "usage": dict(record.usage),
            "transcript": [line._asdict() for line in record.transcript],
            "events": [event._asdict() for event in record.events],
            "link": link,
            "recording": f"{link}/recording.wav" if link and record.recorded else "",
        },
        default=str,
        ensure_ascii=False,
    )
    return _NUL.sub(r"\1", text).encode("utf-8", "replace").decode()


def put(connection: Connection, record: CallRecord, link: str, now: float) -> None:
    """In the transaction that writes the record, if its bot's owner wants to be told."""
    bots = tables.bots.c
    bot = connection.execute(select(bots.name, bots.after_url).where(bots.id == record.bot_id)).first()
    if bot is None or not bot.after_url:
        return
    connection.execute(
        insert(tables.outbox).values(
            call_id=record.id,
            account_id=record.account_id,
            bot_id=record.bot_id,
            url=bot.after_url,
            body=told(record, bot.name, link),
            created=now,
            tries=0,
            next_try=now,
            trouble="",
        )
    )


class Outbox:
    """All of it."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def due(self, most: int, of_one_bot: int, besides: Collection[str] = ()) -> list[Post]:
        """What is to be posted now, the oldest first, but for the calls that are being told already.

        Of one bot the oldest `of_one_bot`, those that are being told included.
        """
        table, now = tables.outbox, self._now()
        order = table.c.created, table.c.call_id
        place = func.row_number().over(partition_by=table.c.bot_id, order_by=order).label("place")
        due = select(table.c.call_id, place).where(table.c.next_try > 0, table.c.next_try <= now).subquery()
        query = select(table).join(due, due.c.call_id == table.c.call_id)
        query = query.where(due.c.place <= of_one_bot, table.c.call_id.not_in(besides))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(*order).limit(most))
            return [_post(row) for row in rows]

    def forget(self) -> None:
        """What could not be delivered for a month is not worth keeping."""
        with self._database.write() as connection:
            connection.execute(delete(tables.outbox).where(tables.outbox.c.created < self._now() - KEPT))

    def accepted(self, call_id: str) -> None:
        """The owner's server has it."""
        with self._database.write() as connection:
            connection.execute(delete(tables.outbox).where(tables.outbox.c.call_id == call_id))

    def failed(self, post: Post, why: str) -> None:
        """It has not been taken: later again, or no more."""
        now, tries = self._now(), post.tries + 1
        pause = PAUSES[tries - 1] if tries <= len(PAUSES) else LATER
        again = 0.0 if now + pause > post.created + PATIENCE else now + pause
        with self._database.write() as connection:
            row = {"tries": tries, "next_try": again, "trouble": why[:500]}
            connection.execute(update(tables.outbox).where(tables.outbox.c.call_id == post.call_id).values(row))

    def all(self, account_id: str | None = None) -> list[Post]:
        """What waits or has been given up, the latest first, with the URL that its bot has now."""
        table, bots = tables.outbox, tables.bots.c
        query = select(table, bots.after_url).join(tables.bots, bots.id == table.c.bot_id)
        query = query.order_by(table.c.created.desc(), table.c.call_id)
        with self._database.read() as connection:
            rows = connection.execute(query if account_id is None else query.where(table.c.account_id == account_id))
            return [_post(row)._replace(url=row.after_url) for row in rows]

    def retry(self, call_id: str) -> bool:
        """Try it once more, now; whether it is there."""
        table, now = tables.outbox, self._now()
        with self._database.write() as connection:
            mine = update(table).where(table.c.call_id == call_id)
            return connection.execute(mine.values(next_try=now, created=now, tries=0)).rowcount > 0


def _post(row: Any) -> Post:
    return Post(*(getattr(row, name) for name in Post._fields))
