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
    2: (
        "alter table accounts add column cap_day double precision not null default 0",
        "alter table bots add column destinations text not null default '[]'",
        "alter table bots add column manner text not null default '{}'",
        "alter table calls add column cost double precision not null default 0",
        "alter table calls add column trouble text not null default ''",
        "alter table calls add column recorded boolean not null default false",
        (
            "create table sentences (bot_id text not null references bots (id) on delete cascade, "
            "text_hash text not null, text text not null, audio bytea not null, "
            "how text not null check (how in ('recorded', 'synthesised')), said text not null, "
            "created double precision not null, primary key (bot_id, text_hash))"
        ),
    ),
    3: (
        "alter table bots add column before_url text not null default ''",
        "alter table bots add column after_url text not null default ''",
        "alter table bots add column hook_token_sealed text not null default ''",
        "alter table bots add column hook_secret_sealed text not null default ''",
        "alter table functions add column kind text not null default 'webhook'",
        "alter table functions add column options text not null default '{}'",
        "alter table functions add column headers_sealed text not null default ''",
        "alter table functions add column secret_sealed text not null default ''",
        (
            "create table mcp_servers (id text not null primary key, "
            "account_id text not null references accounts (id) on delete cascade, label text not null, "
            "url text not null, key_sealed text not null, headers_sealed text not null, allowed text not null, "
            "options text not null, created double precision not null, unique (account_id, label))"
        ),
        (
            "create table bot_servers (bot_id text not null references bots (id) on delete cascade, "
            "server_id text not null references mcp_servers (id) on delete cascade, primary key (bot_id, server_id))"
        ),
        "create index bot_servers_server on bot_servers (server_id)",
        (
            "create table outbox (call_id text not null primary key, "
            "account_id text not null references accounts (id) on delete cascade, "
            "bot_id text not null references bots (id) on delete cascade, url text not null, body text not null, "
            "created double precision not null, tries integer not null, next_try double precision not null, "
            "trouble text not null)"
        ),
        "create index outbox_due on outbox (next_try)",
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
