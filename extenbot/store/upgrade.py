"""How a database of an older schema becomes one of this: in place, within the transaction that opens it.

What a step adds stands last in its table in schema.sql, so that a database that was moved up and a new one are alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select, update

from extenbot.store.tables import SCHEMA_VERSION, meta

STEPS: Mapping[int, tuple[str, ...]] = {
    1: (
        "alter table bots add column trusted text not null default ''",
        "alter table bots add column transfer_mode text not null default 'blind'",
        "alter table bindings add column path text not null default ''",
        "alter table calls add column outgoing boolean not null default false",
    ),
}
"""What leads from each version to the next, for SQLite and PostgreSQL alike."""


def move_up(connection: Connection) -> None:
    """Take the database to our version when there is a way; otherwise leave it as it is."""
    found = connection.execute(select(meta.c.schema_version)).scalar_one_or_none()
    if found is None or any(version not in STEPS for version in range(found, SCHEMA_VERSION)):
        return
    for version in range(found, SCHEMA_VERSION):
        for statement in STEPS[version]:
            connection.exec_driver_sql(statement)
        connection.execute(update(meta).values(schema_version=version + 1))
