"""What a bot has to say word by word, and what audio there is of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from extenbot.interfaces import Bot
from extenbot.manner import greeting_of
from extenbot.web.seams import Sentence


class Exact(NamedTuple):
    """One sentence, and its audio when there is some."""

    title: str
    text: str
    without: str  # what callers get as long as there is no audio; empty: the bot does not say it any more
    kept: Sentence | None = None


def exact(bot: Bot, kept: Iterable[Sentence]) -> Mapping[str, Exact]:
    """By the name that each has in addresses. Audio of texts that have changed since is there too, to be removed."""
    by_text = {sentence.text: sentence for sentence in kept}
    found = {which: wanted._replace(kept=by_text.pop(wanted.text, None)) for which, wanted in _wanted(bot)}
    for text, sentence in by_text.items():
        found[f"unused-{sha256(text.encode()).hexdigest()[:16]}"] = Exact("Not said any more", text, "", sentence)
    return found


def _wanted(bot: Bot) -> Iterator[tuple[str, Exact]]:
    manner = bot.manner
    greeting = greeting_of(bot)
    if manner.greeting_exact and greeting:
        yield "greeting", Exact("Greeting", greeting, "the voice says it in its own way")
    if manner.failure_sentence:
        yield "failure", Exact("When the voice fails", manner.failure_sentence, "callers hear three rising tones")
