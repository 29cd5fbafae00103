"""What bots say word by word, as audio: kept in the database, held in memory.

`save`, `remove` and `load` block. The directory holds the sentences along with the bots and takes them up again when
any process has changed them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from extenbot.errors import Invalid
from extenbot.media import g711
from extenbot.store import tables
from extenbot.store.database import Database

RECORDED = "recorded"
SYNTHESISED = "synthesised"

LONGEST = 60 * g711.RATE
"""Bytes of one sentence."""

LONGEST_TEXT = 2_000
MOST = 10
"""Sentences of one bot."""


class Sentence(NamedTuple):
    """One that a bot says word by word."""

    bot_id: str
    text: str  # as it stands in the bot's settings
    how: str  # RECORDED or SYNTHESISED
    said: str  # what was really said, as far as that is known
    created: float
    audio: Mapping[str, bytes]  # G.711 by codec name

    @property
    def seconds(self) -> float:
        return len(self.audio["PCMU"]) / g711.RATE


Held = Mapping[tuple[str, str], Sentence]
"""Sentences by bot id and text."""


def read(connection: Connection, before: Held) -> Held:
    """All sentences; those that have not changed since `before` are the same objects, and their audio is not read."""
    table = tables.sentences
    found: dict[tuple[str, str], Sentence] = {}
    heads = select(table.c.bot_id, table.c.text_hash, table.c.text, table.c.created).order_by(table.c.created)
    for head in connection.execute(heads).all():
        key = head.bot_id, head.text
        if key in before and before[key].created == head.created:
            found[key] = before[key]
            continue
        row = connection.execute(
            select(table).where(table.c.bot_id == head.bot_id, table.c.text_hash == head.text_hash)
        ).first()
        if row is not None:  # it has not gone meanwhile
            sound = bytes(row.audio)
            audio = {"PCMU": sound, "PCMA": sound.translate(g711.translation("PCMU", "PCMA"))}
            found[key] = Sentence(row.bot_id, row.text, row.how, row.said, row.created, audio)
    return found


class Sentences:
    """Implements `interfaces.Sentences`."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now
        self._held: Held = {}

    def audio(self, bot_id: str, text: str, law: str) -> bytes:
        found = self._held.get((bot_id, text.strip()))
        return found.audio[law] if found else b""

    def of(self, bot_id: str) -> list[Sentence]:
        """All of a bot, the oldest first."""
        return [sentence for sentence in self._held.values() if sentence.bot_id == bot_id]

    def take(self, held: Held) -> None:
        """These are now all."""
        self._held = held

    def load(self) -> None:
        """Read all, for who has no directory."""
        with self._database.read() as connection:
            self._held = read(connection, self._held)

    def save(self, bot_id: str, text: str, audio: bytes, how: str, said: str) -> None:
        """From now on the bot says `text` so: µ-law. In the place of one with the same text; `Invalid` when wrong.

        A bot with more than `MOST` loses the oldest synthesised one: that can be made again.
        """
        text = text.strip()
        problems = {}
        if not 0 < len(text) <= LONGEST_TEXT:
            problems["text"] = f"A text of 1 to {LONGEST_TEXT} characters, please."
        if not 0 < len(audio) <= LONGEST:
            problems["audio"] = f"A sound of at most {LONGEST // g711.RATE} seconds, please."
        if problems:
            raise Invalid(problems)
        table = tables.sentences
        values: dict[str, Any] = {"text": text, "audio": audio, "how": how, "said": said, "created": self._now()}
        try:
            with self._database.change() as connection:
                connection.execute(delete(table).where(_is(bot_id, text)))
                self._make_room(connection, bot_id)
                connection.execute(insert(table).values(values | {"bot_id": bot_id, "text_hash": _hash(text)}))
        except IntegrityError as error:
            raise Invalid({"bot": "There is no such bot any more."}) from error

    def remove(self, bot_id: str, text: str) -> bool:
        """The bot says `text` in its own words again; whether there was such a sentence."""
        with self._database.change() as connection:
            return connection.execute(delete(tables.sentences).where(_is(bot_id, text.strip()))).rowcount > 0

    def _make_room(self, connection: Connection, bot_id: str) -> None:
        table = tables.sentences
        query = select(table.c.text, table.c.how).where(table.c.bot_id == bot_id).order_by(table.c.created)
        kept = connection.execute(query).all()
        if len(kept) < MOST:
            return
        spare = next((row.text for row in kept if row.how == SYNTHESISED), None)
        if spare is None:
            raise Invalid({"text": f"This bot has {MOST} recorded sentences already: remove one of them first."})
        connection.execute(delete(table).where(_is(bot_id, spare)))


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


def _is(bot_id: str, text: str) -> Any:
    return (tables.sentences.c.bot_id == bot_id) & (tables.sentences.c.text_hash == _hash(text))
