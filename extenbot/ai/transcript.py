"""What was said, in the order of the conversation and not in the order in which the words arrived.

The caller's words come from a second model, often after the bot has begun to answer, some
never. The order is the chain of items: each names the one before it. The bot's words are
kept whole and cut when read, to the share of their audio that was really heard.
"""

from __future__ import annotations

from collections.abc import Callable

from extenbot.interfaces import Line, Played

SHORTEST = 2
"""Characters; less than that from the transcriber is noise taken for words."""

MOST = 500_000
"""Characters of all that is kept: a day of talking, and a bound for servers that send without end."""

Heard = Callable[[str], tuple[Played, bool]]
"""For an item of the bot: how much of it was heard, and whether it was interrupted."""


class _Item:
    __slots__ = ("at", "final", "frozen", "parts", "speaker")

    def __init__(self, speaker: str, at: float) -> None:
        self.speaker = speaker
        self.at = at
        self.parts: dict[int, str] = {}
        self.final = False
        self.frozen = False

    @property
    def text(self) -> str:
        joined = " ".join(self.parts[index] for index in sorted(self.parts))
        return joined.encode("utf-8", "replace").decode().replace("\0", "").strip()


class Transcript:
    """The lines of one conversation."""

    def __init__(self) -> None:
        self._items: dict[str, _Item] = {}
        self._room = MOST
        self._before: dict[str, str] = {}  # every item in order of arrival: the one that it stands behind, or ""

    def began(self, item: str, speaker: str, at: float) -> None:
        """Someone began to speak, `at` seconds into the call; what is known already stays."""
        if item not in self._items:
            self._items[item] = _Item(speaker, at)
            self._before.setdefault(item, "")

    def noted(self, item: str, speaker: str, words: str, at: float) -> None:
        """What was not spoken, such as keys, and has no item that the server would place: it is behind all so far."""
        previous = next(reversed(self._before), "")
        self.began(item, speaker, at)
        self.all(item, 0, words)
        self.placed(item, previous)

    def placed(self, item: str, previous: str) -> None:
        """`item` stands right behind `previous` in the conversation (empty: not said)."""
        if previous or item not in self._before:
            self._before[item] = previous

    def more(self, item: str, part: int, words: str) -> None:
        """Further words of an item that has begun."""
        entry = self._items[item]
        if not (entry.final or entry.frozen):
            entry.parts[part] = entry.parts.get(part, "") + self._kept(words)

    def all(self, item: str, part: int, words: str) -> None:
        """The final words of an item that has begun."""
        entry = self._items[item]
        if not entry.frozen or not entry.parts:
            self._room += len(entry.parts.pop(part, ""))
            entry.parts[part] = self._kept(words)
            entry.final = entry.speaker == "caller"

    def _kept(self, words: str) -> str:
        """As much of these words as there is room for."""
        words = words[: self._room]
        self._room -= len(words)
        return words

    def is_final(self, item: str) -> bool:
        """Whether the words of a caller's item are all there."""
        return item in self._items and self._items[item].final

    def failed(self, item: str) -> None:
        """The transcriber gave up: what there is of it stays, marked."""
        entry = self._items.get(item)
        if entry is not None and not entry.final:
            entry.final = True
            if entry.parts:
                entry.parts[max(entry.parts)] += " […]"

    def cut(self, item: str) -> None:
        """The item was interrupted: words that come from now on belong to audio that nobody has heard of."""
        entry = self._items.get(item)
        if entry is not None:
            entry.frozen = True

    def lines(self, heard: Heard) -> tuple[Line, ...]:
        """Everything said so far. `heard` is asked for each item of the bot."""
        found = []
        for name in self._order():
            entry = self._items.get(name)
            if entry is None:
                continue
            text, interrupted = entry.text, False
            if entry.speaker == "bot":
                played, interrupted = heard(name)
                text = heard_part(text, played.sent, played.received)
            elif len(text) < SHORTEST:
                continue
            if text:
                found.append(Line(entry.speaker, text, entry.at, interrupted))
        return tuple(found)

    def _order(self) -> list[str]:
        """Every item, each behind the one that it names; those that name none in order of arrival."""
        behind: dict[str, list[str]] = {}
        for name, previous in self._before.items():
            behind.setdefault(previous if previous in self._before else "", []).append(name)
        found: dict[str, None] = {}
        for start in (*behind.pop("", ()), *self._before):  # the rest: those who name each other in a circle
            stack = [start]
            while stack:
                name = stack.pop()
                if name not in found:
                    found[name] = None
                    stack.extend(reversed(behind.get(name, ())))
        return list(found)


def heard_part(text: str, sent: int, received: int) -> str:
    """The share of `text` whose audio was heard, without the word that was cut in two."""
    if sent >= received:
        return text if received else ""
    end = len(text) * sent // received
    head = text[:end]
    if " " in text and not text[end : end + 1].isspace():
        head = head.rpartition(" ")[0]
    return head.strip()
