"""The numbers in a spoken sentence, written as digits or as English words."""

from __future__ import annotations

import re

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_VALUES = {word: value for value, word in enumerate(_SMALL.split())} | {
    word: value * 10 for value, word in enumerate(_TENS.split(), 2)
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_WORD = re.compile(r"\d[\d,]*(?:\.\d+)?|[a-z]+", re.IGNORECASE)


def numbers(sentence: str, ignoring: frozenset[str] = frozenset()) -> list[int | float]:
    """The numbers in order; words in `ignoring` are not numbers here. "minus" in front makes them negative."""
    found: list[int | float] = []
    total = current = 0
    last = ""  # what the number being read ended with: "unit", "ten", "scale"
    reading = negative = False

    def done() -> None:
        nonlocal total, current, last, reading, negative
        if reading:
            found.append(-(total + current) if negative else total + current)
        total, current, last, reading, negative = 0, 0, "", False, False

    for match in _WORD.finditer(sentence):
        word = match[0].lower()
        if word[0].isdigit():
            minus = negative and not reading
            done()
            plain = word.replace(",", "")
            value = float(plain) if "." in plain else int(plain[:18])
            minus = minus or sentence[max(match.start() - 1, 0) : match.start()] == "-"
            found.append(-value if minus else value)
        elif word in _VALUES and word not in ignoring:
            value = _VALUES[word]
            if reading and not (last == "scale" or (last == "ten" and 0 < value < 10)):
                done()
            current += value
            reading, last = True, "ten" if value >= 20 else "unit"
        elif word in _SCALES and reading:
            if word == "hundred":
                current *= 100
            else:
                total, current = total + current * _SCALES[word], 0
            last = "scale"
        elif word == "and" and reading and last == "scale":
            continue
        elif word in ("minus", "negative"):
            done()
            negative = True
        else:
            done()
    done()
    return found
