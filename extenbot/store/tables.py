"""The tables of schema.sql as SQLAlchemy sees them; a test keeps the two equal."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.types import TypeEngine

SCHEMA_VERSION = 4

metadata = MetaData()


def _column(name: str, kind: type[TypeEngine[Any]], *more: ForeignKey, **options: Any) -> Column[Any]:
    return Column(name, kind, *more, nullable=options.pop("nullable", False), **options)


def _owned(name: str, target: str, **options: Any) -> Column[Any]:
    """A key of another table's row, which takes this row along when it goes."""
    return _column(name, Text, ForeignKey(target, ondelete="CASCADE"), **options)


meta = Table(
    "meta",
    metadata,
    _column("id", Integer, primary_key=True, autoincrement=False),
    _column("schema_version", Integer),
    _column("revision", BigInteger),
    _column("key_check", Text),
    CheckConstraint("id = 1"),
)

accounts = Table(
    "accounts",
    metadata,
    _column("id", Text, primary_key=True),
    _column("email", Text),
    _column("password_hash", Text),
    _column("admin", Boolean),
    _column("created", Double),
    _column("cap_day", Double, server_default="0"),
    UniqueConstraint("email"),
)

sessions = Table(
    "sessions",
    metadata,
    _column("token_hash", Text, primary_key=True),
    _owned("account_id", "accounts.id"),
    _column("created", Double),
    _column("expires", Double),
    Index("sessions_account", "account_id"),
)

bots = Table(
    "bots",
    metadata,
    _column("id", Text, primary_key=True),
    _owned("account_id", "accounts.id"),
    _column("name", Text),
    _column("kind", Text),
    _column("username", Text),
    _column("password_sealed", Text),
    _column("domain", Text),
    _column("model", Text),
    _column("voice", Text),
    _column("token_sealed", Text),
    _column("ai_url", Text),
    _column("instruction", Text),
    _column("welcome", Text),
    _column("transfer_uri", Text),
    _column("enabled", Boolean),
    _column("auth_id", Text),
    _column("outbound_proxy", Text),
    _column("port", Integer),
    _column("transport", Text),
    _column("expires", Integer),
    _column("allowed", Text),
    _column("created", Double),
    _column("trusted", Text, server_default=""),
    _column("transfer_mode", Text, server_default="blind"),
    _column("destinations", Text, server_default="[]"),
    _column("manner", Text, server_default="{}"),
    _column("before_url", Text, server_default=""),
    _column("after_url", Text, server_default=""),
    _column("hook_token_sealed", Text, server_default=""),
    _column("hook_secret_sealed", Text, server_default=""),
    CheckConstraint("kind in ('registrar', 'registrant')"),
    Index("bots_account", "account_id"),
)
_issued = text("kind = 'registrar'")
Index("bots_username", bots.c.username, unique=True, sqlite_where=_issued, postgresql_where=_issued)

functions = Table(
    "functions",
    metadata,
    _column("id", Text, primary_key=True),
    _owned("account_id", "accounts.id"),
    _column("name", Text),
    _column("url", Text),
    _column("token_sealed", Text),
    _column("description", Text),
    _column("template", Text),
    _column("created", Double),
    _column("kind", Text, server_default="webhook"),
    _column("options", Text, server_default="{}"),
    _column("headers_sealed", Text, server_default=""),
    _column("secret_sealed", Text, server_default=""),
    UniqueConstraint("account_id", "name"),
)

bot_functions = Table(
    "bot_functions",
    metadata,
    _owned("bot_id", "bots.id", primary_key=True),
    _owned("function_id", "functions.id", primary_key=True),
    Index("bot_functions_function", "function_id"),
)

mcp_servers = Table(
    "mcp_servers",
    metadata,
    _column("id", Text, primary_key=True),
    _owned("account_id", "accounts.id"),
    _column("label", Text),
    _column("url", Text),
    _column("key_sealed", Text),
    _column("headers_sealed", Text),
    _column("allowed", Text),
    _column("options", Text),
    _column("created", Double),
    UniqueConstraint("account_id", "label"),
)

bot_servers = Table(
    "bot_servers",
    metadata,
    _owned("bot_id", "bots.id", primary_key=True),
    _owned("server_id", "mcp_servers.id", primary_key=True),
    Index("bot_servers_server", "server_id"),
)

sentences = Table(
    "sentences",
    metadata,
    _owned("bot_id", "bots.id", primary_key=True),
    _column("text_hash", Text, primary_key=True),
    _column("text", Text),
    _column("audio", LargeBinary),
    _column("how", Text),
    _column("said", Text),
    _column("created", Double),
    CheckConstraint("how in ('recorded', 'synthesised')"),
)

bindings = Table(
    "bindings",
    metadata,
    _owned("bot_id", "bots.id", primary_key=True),
    _column("position", Integer, primary_key=True, autoincrement=False),
    _column("contact", Text),
    _column("instance", Text),
    _column("reg_id", Text),
    _column("call_id", Text),
    _column("cseq", BigInteger),
    _column("transport", Text),
    _column("local_host", Text),
    _column("local_port", Integer),
    _column("remote_host", Text),
    _column("remote_port", Integer),
    _column("expires_at", Double),
    _column("q", Text),
    _column("user_agent", Text),
    _column("registered_at", Double),
    _column("path", Text, server_default=""),
)

registrations = Table(
    "registrations",
    metadata,
    _owned("bot_id", "bots.id", primary_key=True),
    _column("number", Integer, primary_key=True, autoincrement=False),
    _column("at", Double),
    _column("state", Text),
    _column("words", Text),
    _column("until", Double),
    _column("next_try", Double),
    _column("target", Text),
)

calls = Table(
    "calls",
    metadata,
    _column("id", Text, primary_key=True),
    _owned("account_id", "accounts.id"),
    _column("bot_id", Text),
    _column("sip_call_id", Text),
    _column("caller", Text),
    _column("caller_name", Text),
    _column("dialled", Text),
    _column("peer", Text),
    _column("started", Double),
    _column("answered", Double, nullable=True),
    _column("ended", Double),
    _column("codec", Text),
    _column("end_reason", Text),
    _column("packets_sent", BigInteger),
    _column("packets_received", BigInteger),
    _column("packets_lost", BigInteger),
    _column("jitter_ms", Double),
    _column("usage", Text),
    _column("outgoing", Boolean, server_default=false()),
    _column("cost", Double, server_default="0"),
    _column("trouble", Text, server_default=""),
    _column("recorded", Boolean, server_default=false()),
    Index("calls_account", "account_id", "started"),
    Index("calls_bot", "bot_id", "started"),
)

transcript_lines = Table(
    "transcript_lines",
    metadata,
    _owned("call_id", "calls.id", primary_key=True),
    _column("position", Integer, primary_key=True, autoincrement=False),
    _column("speaker", Text),
    _column("text", Text),
    _column("at", Double),
    _column("interrupted", Boolean),
)

call_events = Table(
    "call_events",
    metadata,
    _owned("call_id", "calls.id", primary_key=True),
    _column("position", Integer, primary_key=True, autoincrement=False),
    _column("at", Double),
    _column("what", Text),
    _column("fields", Text),
)

outbox = Table(
    "outbox",
    metadata,
    _column("call_id", Text, primary_key=True),
    _owned("account_id", "accounts.id"),
    _owned("bot_id", "bots.id"),
    _column("url", Text),
    _column("body", Text),
    _column("created", Double),
    _column("tries", Integer),
    _column("next_try", Double),
    _column("trouble", Text),
    Index("outbox_due", "next_try"),
)
