"""The fields of a `Manner`: what each may be, and the way from what people type and what is stored to a value.

One table, `MANNER`, serves the pages, the commands and the store, so that none of them repeats it. What is an address,
a dialect or session settings is checked in the store, which knows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from extenbot.interfaces import Bot, Destination, Manner

GROUPS: Final = {
    "turns": "Turns",
    "service": "Voice service",
    "length": "Keys, silence and length",
    "failure": "When the voice fails",
    "money": "Money",
    "recording": "Recording",
}
"""How the fields are grouped where people see them: a short name, and a title."""

DEFAULTS: Final = Manner()
LONGEST_SENTENCE = 500  # characters
LONGEST_EXTRA = 10_000
MOST_MONEY = 100_000.0  # USD

_YES = frozenset({"yes", "true", "on", "1"})
_NO = frozenset({"no", "false", "off", "0"})


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a `Manner`."""

    group: str  # of `GROUPS`
    says: str  # what it means, for people
    default: Any
    kind: str  # "flag", "choice", "whole", "number", "line" or "text" (which may have several lines)
    choices: tuple[str, ...] = ()  # of a choice
    low: float = 0  # of a whole number and a number: the least, besides 0 where `none` is set
    high: float = 0
    none: bool = False  # whether 0 is good although it is less than `low`
    unit: str = ""
    longest: int = 100  # of a line and a text: characters

    def read(self, raw: object) -> Any:
        """The value that somebody typed, chose or stored; ValueError with a sentence. Nothing is the default."""
        if raw is None or (isinstance(raw, str) and not raw.strip()):
            return self.default
        return _READERS[self.kind](self, raw)


def _flag(_field: Field, raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = raw.strip().lower() if isinstance(raw, str) else ""
    if word not in _YES | _NO:
        raise ValueError("Yes or no, please.")
    return word in _YES


def _choice(field: Field, raw: object) -> str:
    word = raw.strip().lower() if isinstance(raw, str) else ""
    if word not in field.choices:
        words = [each for each in field.choices if each]
        nothing = ", or nothing" if "" in field.choices else ""
        raise ValueError(f"Choose {', '.join(words[:-1])} or {words[-1]}{nothing}.")
    return word


def _number(field: Field, raw: object) -> float:
    if isinstance(raw, str) and re.fullmatch(r"\s*[0-9]+,[0-9]+\s*", raw, re.ASCII):
        raise ValueError(f"With a decimal point, please: {raw.strip().replace(',', '.')}.")
    return float(_within(field, raw, r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}", "A number"))


def _whole(field: Field, raw: object) -> int:
    found = _within(field, raw, r"[0-9]{1,9}", "A whole number")
    if found != int(found):
        raise ValueError(_range(field, "A whole number"))
    return int(found)


def _within(field: Field, raw: object, pattern: str, what: str) -> float:
    number: float | None = None
    if isinstance(raw, str) and re.fullmatch(pattern, raw.strip()):
        number = float(raw)
    elif isinstance(raw, (int, float)) and not isinstance(raw, bool):
        number = raw
    if number is None or not (field.low <= number <= field.high or (field.none and number == 0)):
        raise ValueError(_range(field, what))
    return number


def _range(field: Field, what: str) -> str:
    unit = f" ({field.unit})" if field.unit else ""
    return f"{what} from {field.low:g} to {field.high:g}{unit}{', or 0' if field.none else ''}, please."


def _line(field: Field, raw: object) -> str:
    text = _text(field, raw)
    if not text.isprintable():
        raise ValueError("One line without control characters, please.")
    return text


def _text(field: Field, raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("Text, please.")
    text = raw.replace("\r\n", "\n").replace("\r", "\n").strip()
    if len(text) > field.longest:
        raise ValueError(f"At most {field.longest} characters, please; these are {len(text)}.")
    if not all(character.isprintable() or character in "\n\t" for character in text):
        raise ValueError("No control characters other than new lines and tabs, please.")
    return text


_READERS: Mapping[str, Callable[[Field, object], Any]] = {
    "flag": _flag,
    "choice": _choice,
    "whole": _whole,
    "number": _number,
    "line": _line,
    "text": _text,
}


def _fields() -> dict[str, Field]:
    found: dict[str, Field] = {}

    def add(group: str, name: str, says: str, kind: str, **more: Any) -> None:
        found[name] = Field(group, says, getattr(DEFAULTS, name), kind, **more)

    def choice(group: str, name: str, says: str, *choices: str) -> None:
        add(group, name, says, "choice", choices=choices)

    def whole(group: str, name: str, says: str, low: int, high: int, unit: str = "", *, none: bool = False) -> None:
        add(group, name, says, "whole", low=low, high=high, unit=unit, none=none)

    def number(group: str, name: str, says: str, low: float, high: float, unit: str = "") -> None:
        add(group, name, says, "number", low=low, high=high, unit=unit)

    choice("turns", "turn_detection", "how the service knows that a caller has finished: by silence or by meaning",
           "server_vad", "semantic_vad")  # fmt: skip
    number("turns", "vad_threshold", "of server_vad: how loud speech must be, higher on noisy lines", 0, 1)
    whole("turns", "vad_padding", "of server_vad: audio before the speech that belongs to it", 0, 2000, "ms")
    whole("turns", "vad_silence", "of server_vad: silence after which a turn is over", 100, 5000, "ms")
    choice(
        "turns", "vad_eagerness", "of semantic_vad: how soon it takes a turn as over", "auto", "low", "medium", "high"
    )
    choice("turns", "barge_in", "whether callers can interrupt: at once, after 300 ms of speech or a word, or never",
           "immediate", "confirmed", "off")  # fmt: skip
    add("turns", "greeting_interruptible", "whether callers can interrupt the greeting", "flag")
    add("turns", "echo_gate", "the bot does not hear its own words again from a speaker phone", "flag")

    add("service", "dialect", "what kind of server it is; empty: known by its address and the model", "line")
    choice("service", "noise_reduction", "of the service: for a handset, or for a speaker phone",
           "", "near_field", "far_field")  # fmt: skip
    add("service", "transcription_model", "what writes down the callers' words; empty: the usual one", "line")
    add("service", "transcription_language", "of the callers, two letters such as en; empty: any", "line")
    number("service", "speed", "how fast the voice speaks", 0.25, 1.5)
    choice("service", "reasoning", "how long the model thinks, where it can; empty: as it does by itself",
           "", "minimal", "low", "medium", "high", "xhigh")  # fmt: skip
    choice("service", "parallel_tools", "whether several functions may run at once; empty: as the service does",
           "", "yes", "no")  # fmt: skip
    whole("service", "max_output_tokens", "of one response; 0: no bound", 1, 4096, none=True)
    add("service", "extra", "more session settings, a JSON object", "text", longest=LONGEST_EXTRA)
    number("service", "response_timeout", "how long the model may say nothing where something is due", 2, 60, "seconds")

    add("length", "dtmf_inband", "listen for the tones of keys, for phones that do not signal them otherwise", "flag")
    whole("length", "silence", "after which a silent caller is asked, twice, then left; 0: never", 5, 600, "seconds",
          none=True)  # fmt: skip
    whole("length", "longest", "a call may last; 0: no bound", 0, 1440, "minutes")
    add("length", "greeting_exact", "the welcome message is played as it was recorded, or once synthesised", "flag")

    choice("failure", "refusal", "the answer to callers when the voice cannot be had; empty: by the cause",
           "", "503", "480", "302")  # fmt: skip
    add("failure", "refusal_uri", "where a 302 sends callers", "line", longest=255)
    add("failure", "failure_sentence", "what callers are told when the voice is lost", "line", longest=LONGEST_SENTENCE)
    add("failure", "failure_uri", "where they are then transferred; empty: the call ends", "line", longest=255)

    number("money", "cap_call", "what one call may cost; 0: no cap", 0, MOST_MONEY, "USD")
    number("money", "cap_day", "what all calls of the bot may cost a day (UTC); 0: no cap", 0, MOST_MONEY, "USD")

    add("recording", "record", "calls are recorded", "flag")
    add("recording", "record_notice", "what callers are told before the greeting", "line", longest=LONGEST_SENTENCE)
    return {field.name: found[field.name] for field in fields(Manner)}


MANNER: Final[Mapping[str, Field]] = _fields()
"""Every field of a `Manner`, by its name."""


def greeting_of(bot: Bot) -> str:
    """What callers hear first, word by word: the notice of a recording belongs to it."""
    notice = bot.manner.record_notice if bot.manner.record else ""
    return " ".join(part for part in (notice, bot.welcome) if part)


def stored(manner: Manner) -> str:
    """JSON of what is not the default."""
    values = {name: getattr(manner, name) for name in MANNER}
    return json.dumps({name: value for name, value in values.items() if value != MANNER[name].default})


def restored(text: str) -> tuple[Manner, tuple[str, ...]]:
    """The manner out of `stored`, and the names of the fields that make no sense and have their default again.

    What a newer version has added is passed over.
    """
    document = _read(text)
    if not isinstance(document, dict):
        return DEFAULTS, ("manner",)
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for name, raw in document.items():
        if name in MANNER:
            try:
                values[name] = MANNER[name].read(raw)
            except ValueError:
                wrong.append(name)
    return Manner(**values), tuple(wrong)


def stored_destinations(destinations: Iterable[Destination]) -> str:
    """JSON of a bot's destinations."""
    return json.dumps([destination._asdict() for destination in destinations])


def restored_destinations(text: str) -> tuple[tuple[Destination, ...], tuple[str, ...]]:
    """The destinations out of `stored_destinations`, and ("destinations",) when some make no sense and are left out."""
    document = _read(text)
    rows: list[Any] = document if isinstance(document, list) else [None]
    found: list[Destination] = []
    for row in rows:
        values: list[Any] = [row.get(name, "") for name in Destination._fields] if isinstance(row, dict) else [None]
        if all(isinstance(value, str) for value in values):
            found.append(Destination(*values))
    return tuple(found), () if len(found) == len(rows) else ("destinations",)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
