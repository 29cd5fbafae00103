"""Accounts and their login sessions. Blocks, and hashing takes a good part of a tenth of a second."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from extenbot.errors import Invalid
from extenbot.store import tables
from extenbot.store.database import Database
from extenbot.store.fields import checked_account, checked_cap, new_id

SESSION_LIFE = 14 * 86400.0
"""Seconds after which one has to log in again."""


@dataclass(frozen=True, slots=True)
class Account:
    id: str
    email: str
    admin: bool
    created: float
    cap_day: float = 0.0  # what its bots may cost a day together, USD; 0: no cap


@cache
def _hasher() -> Any:
    from passlib.hash import argon2  # slow to import, and most commands hash nothing

    return argon2


@cache
def _nobody() -> str:
    """A hash to check against when there is no such account, so that both answers take equally long."""
    return str(_hasher().hash(secrets.token_hex(16)))


def _account(row: Row[Any]) -> Account:
    return Account(row.id, row.email, bool(row.admin), row.created, row.cap_day)


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Accounts:
    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def add(self, email: str, password: str, *, admin: bool = False) -> Account:
        """`Invalid` for a poor or taken email or password."""
        email, password = checked_account(email, password)
        account = Account(new_id(), email, admin, self._now())
        password_hash = _hasher().hash(password)
        try:
            with self._database.change() as connection:
                connection.execute(
                    insert(tables.accounts).values(
                        id=account.id, email=email, password_hash=password_hash, admin=admin, created=account.created
                    )
                )
        except IntegrityError:
            raise Invalid({"email": "There is an account with this email already."}) from None
        return account

    def all(self) -> list[Account]:
        with self._database.read() as connection:
            rows = connection.execute(select(tables.accounts).order_by(tables.accounts.c.created))
            return [_account(row) for row in rows]

    def find(self, text: str) -> Account | None:
        """By email or id."""
        table = tables.accounts
        with self._database.read() as connection:
            row = connection.execute(
                select(table).where((table.c.email == text.strip().lower()) | (table.c.id == text))
            ).first()
            return _account(row) if row else None

    def remove(self, account_id: str) -> bool:
        """With all that belongs to it."""
        with self._database.change() as connection:
            return connection.execute(delete(tables.accounts).where(tables.accounts.c.id == account_id)).rowcount > 0

    def set_cap(self, account_id: str, cap_day: object) -> float:
        """What the bots of the account may cost a day together, USD, as typed; 0: no cap. `Invalid` when wrong."""
        cap = checked_cap(cap_day)
        with self._database.change() as connection:
            table = tables.accounts
            connection.execute(update(table).where(table.c.id == account_id).values(cap_day=cap))
        return cap

    def check(self, email: str, password: str) -> Account | None:
        """The account when both are right; the answer takes equally long when not."""
        with self._database.read() as connection:
            row = connection.execute(
                select(tables.accounts).where(tables.accounts.c.email == email.strip().lower())
            ).first()
        good = _hasher().verify(password, row.password_hash if row else _nobody())
        return _account(row) if row and good else None

    def change_password(self, account_id: str, old: str, new: str, token: str = "") -> None:
        """`Invalid` (`old`, `new`) when the old one is wrong or the new one poor. Ends all logins but `token`."""
        table, sessions = tables.accounts, tables.sessions
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.id == account_id)).first()
        if row is None or not _hasher().verify(old, row.password_hash):
            raise Invalid({"old": "This is not the password of the account."})
        try:
            checked_account(row.email, new)
        except Invalid as error:
            raise Invalid({"new": error.problems["password"]}) from None
        password_hash = _hasher().hash(new)
        with self._database.write() as connection:
            connection.execute(update(table).where(table.c.id == account_id).values(password_hash=password_hash))
            connection.execute(
                delete(sessions).where(sessions.c.account_id == account_id, sessions.c.token_hash != _token_hash(token))
            )

    def open_session(self, account_id: str) -> str:
        """A new login; the token goes into the cookie and is not kept."""
        token = secrets.token_urlsafe(32)
        now = self._now()
        with self._database.write() as connection:
            connection.execute(delete(tables.sessions).where(tables.sessions.c.expires <= now))
            connection.execute(
                insert(tables.sessions).values(
                    token_hash=_token_hash(token), account_id=account_id, created=now, expires=now + SESSION_LIFE
                )
            )
        return token

    def session(self, token: str) -> Account | None:
        """Who is logged in with this token."""
        table = tables.sessions
        with self._database.read() as connection:
            row = connection.execute(
                select(tables.accounts)
                .join(table, table.c.account_id == tables.accounts.c.id)
                .where(table.c.token_hash == _token_hash(token), table.c.expires > self._now())
            ).first()
            return _account(row) if row else None

    def close_session(self, token: str) -> None:
        with self._database.write() as connection:
            connection.execute(delete(tables.sessions).where(tables.sessions.c.token_hash == _token_hash(token)))
