"""The records of finished calls, written and read back. Blocks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import Row, func, insert, select
from sqlalchemy.exc import IntegrityError

from extenbot.interfaces import CallRecord, Event, Line
from extenbot.store import outbox, tables
from extenbot.store.database import Database

_PLAIN = tuple(field.name for field in fields(CallRecord) if field.name not in ("transcript", "usage", "events"))

LONGEST = 7 * 86400.0  # seconds: no call is longer


def _text(value: Any) -> Any:
    """Text that every database takes: what callers send may hold NUL or half characters."""
    return value.replace("\0", "").encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), default=str)


def _record(row: Row[Any], transcript: tuple[Line, ...] = (), events: tuple[Event, ...] = ()) -> CallRecord:
    plain = {name: getattr(row, name) for name in _PLAIN} | {
        "outgoing": bool(row.outgoing),
        "recorded": bool(row.recorded),
    }
    return CallRecord(**plain, usage=json.loads(row.usage), transcript=transcript, events=events)


class Calls:
    def __init__(
        self,
        database: Database,
        link: Callable[[str], str] = lambda _call_id: "",
        now: Callable[[], float] = time.time,
    ) -> None:
        """`link` gives the page of a call, for those who are told of it."""
        self._database = database
        self._link = link
        self._now = now

    def write(self, record: CallRecord) -> bool:
        """False when its account is gone; writing the same call again changes nothing."""
        row = {name: _text(getattr(record, name)) for name in _PLAIN} | {"usage": _json(record.usage)}
        lines = [
            {
                "call_id": record.id,
                "position": position,
                "speaker": line.speaker,
                "text": _text(line.text),
                "at": line.at,
                "interrupted": line.interrupted,
            }
            for position, line in enumerate(record.transcript)
        ]
        events = [
            {
                "call_id": record.id,
                "position": position,
                "at": event.at,
                "what": _text(event.what),
                "fields": _json(event.fields),
            }
            for position, event in enumerate(record.events)
        ]
        try:
            with self._database.write() as connection:
                connection.execute(insert(tables.calls).values(row))
                if lines:
                    connection.execute(insert(tables.transcript_lines), lines)
                if events:
                    connection.execute(insert(tables.call_events), events)
                outbox.put(connection, record, self._link(record.id), self._now())
        except IntegrityError:
            if self.get(record.id) is not None:
                return True
            with self._database.read() as connection:
                owner = connection.execute(
                    select(tables.accounts.c.id).where(tables.accounts.c.id == record.account_id)
                )
                if owner.first() is None:
                    return False
            raise
        return True

    def recent(
        self, account_id: str | None = None, bot_id: str | None = None, limit: int = 50, before: float | None = None
    ) -> list[CallRecord]:
        """The latest calls first, without transcript and events; `before` (a start time) turns the page."""
        table = tables.calls
        query = select(table).order_by(table.c.started.desc(), table.c.id).limit(limit)
        for column, value in ((table.c.account_id, account_id), (table.c.bot_id, bot_id)):
            if value is not None:
                query = query.where(column == value)
        if before is not None:
            query = query.where(table.c.started < before)
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(query)]

    def spent_since(self, moment: float) -> list[tuple[str, str, float]]:
        """What the calls that have ended since then have cost: account, bot and USD."""
        table, owners = tables.calls, select(tables.accounts.c.id)  # by way of them the index can be used
        query = (
            select(table.c.account_id, table.c.bot_id, func.sum(table.c.cost))
            .where(table.c.account_id.in_(owners), table.c.started >= moment - LONGEST, table.c.ended >= moment)
            .group_by(table.c.account_id, table.c.bot_id)
        )
        with self._database.read() as connection:
            return [(account, bot, float(cost)) for account, bot, cost in connection.execute(query)]

    def get(self, call_id: str, account_id: str | None = None) -> CallRecord | None:
        """The whole record when it is there and, with `account_id`, belongs to it."""
        lines, events = tables.transcript_lines, tables.call_events
        with self._database.read() as connection:
            row = connection.execute(select(tables.calls).where(tables.calls.c.id == call_id)).first()
            if row is None or account_id not in (None, row.account_id):
                return None
            transcript = tuple(
                Line(line.speaker, line.text, line.at, bool(line.interrupted))
                for line in connection.execute(
                    select(lines).where(lines.c.call_id == call_id).order_by(lines.c.position)
                )
            )
            timeline = tuple(
                Event(event.at, event.what, json.loads(event.fields))
                for event in connection.execute(
                    select(events).where(events.c.call_id == call_id).order_by(events.c.position)
                )
            )
        return _record(row, transcript, timeline)
