"""The language of scripted voices: a text becomes a `Script`. docs/scripts.md explains it to users.

    speed 20
    on greet: tone 440 for 2 s "Hello"
    on speech:
        heard "two plus three" after 1 s
        call add {"a": 2, "b": 3}
    on output: tone 523 for 1 s "Five."
    after 30 s: expire

A line is a setting, or `WHEN:` with one action behind it or several on indented lines
below. `read` raises `Malformed` with the line's number, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from extenbot.errors import Malformed
from extenbot.sandbox.sounds import LONGEST, Sound, read_wav, speech_like


class Action(NamedTuple):
    """One thing to do; which fields count depends on the verb."""

    verb: str
    words: str = ""
    code: str = ""  # error or close code, function name, reason
    param: str = ""
    seconds: float = 0.0
    number: float = 0.0
    sound: Sound | None = None
    data: Any = None


class Rule(NamedTuple):
    """When something happens, do this. `number`: only the n-th time; `name`: only of this function."""

    when: str
    number: int
    name: str
    seconds: float
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A scripted voice."""

    rules: tuple[Rule, ...] = ()
    speed: float = 4.0  # audio leaves so many times faster than it plays; 0: all at once
    chunk: int = 250  # ms of audio in one delta
    late: int = 0  # audio deltas that still come after the response was cancelled
    life: float = 3600.0  # seconds until session_expired

    def rule(self, when: str, number: int = 0, name: str = "") -> Rule | None:
        """The rule for the `number`-th `when`: the one of this number, else of this name, else the plain one."""
        found = [rule for rule in self.rules if rule.when == when]
        for test in (
            lambda rule: number and rule.number == number,
            lambda rule: name and rule.name == name,
            lambda rule: not rule.number and not rule.name,
        ):
            for rule in found:
                if test(rule):
                    return rule
        return None

    def timed(self) -> Iterator[Rule]:
        """The rules that a clock starts."""
        return (rule for rule in self.rules if rule.when in ("after", "every"))


PLAIN = Script()  # no rules: tones for everything

_TIME = r"(\d+(?:\.\d+)?) ?(ms|s|min)"
_WORDS = r'"((?:[^"\\]|\\.)*)"'
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0}


def _seconds(number: str, unit: str) -> float:
    seconds = float(number) * _UNITS[unit]
    if seconds > LONGEST * 6:
        raise Malformed(f"{number} {unit} is too long")
    return seconds


def _said(quoted: str | None) -> str:
    return re.sub(r"\\(.)", r"\1", quoted or "")


def _object(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{text} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Malformed(f"{text} must be a JSON object")
    return value


def _sound_seconds(number: str, unit: str) -> float:
    seconds = _seconds(number, unit)
    if seconds > LONGEST:
        raise Malformed(f"a sound lasts at most {LONGEST:g} s")
    return seconds


def _tone(match: re.Match[str], _folder: Path | None) -> Action:
    sound = Sound(hz=float(match[1]), seconds=_sound_seconds(match[2], match[3]))
    return Action("sound", words=_said(match[4]), sound=sound)


def _play(match: re.Match[str], folder: Path | None) -> Action:
    if folder is None or Path(match[1]).name != match[1]:
        raise Malformed(f"{match[1]} must be a file beside the script")
    return Action("sound", words=_said(match[2]), sound=read_wav(folder / match[1]))


def _send(match: re.Match[str], _folder: Path | None) -> Action:
    event = _object(match[1])
    if not isinstance(event.get("type"), str):
        raise Malformed("an event needs a type")
    return Action("send", data=event)


_ACTIONS: dict[str, tuple[str, Callable[[re.Match[str], Path | None], Action]]] = {
    "tone": (rf"(\d+(?:\.\d+)?)(?: ?Hz)? for {_TIME}(?: {_WORDS})?", _tone),
    "play": (rf"(\S+)(?: {_WORDS})?", _play),
    "silence": (
        rf"(?:for )?{_TIME}",
        lambda m, _: Action("sound", sound=Sound(seconds=_sound_seconds(m[1], m[2]))),
    ),
    "say": (_WORDS, lambda m, _: Action("sound", words=_said(m[1]), sound=speech_like(_said(m[1])))),
    "text": (_WORDS, lambda m, _: Action("text", words=_said(m[1]))),
    "call": (
        r"([A-Za-z0-9_-]+)(?: (\{.*\}))?",
        lambda m, _: Action("call", code=m[1], words=json.dumps(_object(m[2] or "{}"))),
    ),
    "next message": (r"", lambda _m, _: Action("next message")),
    "wait": (_TIME, lambda m, _: Action("wait", seconds=_seconds(m[1], m[2]))),
    "speed": (r"(\d+(?:\.\d+)?)", lambda m, _: Action("speed", number=float(m[1]))),
    "heard": (
        rf"(?:(nothing|failed)|{_WORDS})(?: after {_TIME})?",
        lambda m, _: Action(
            "heard", code=m[1] or "", words=_said(m[2]), seconds=_seconds(m[3], m[4]) if m[3] else 0.25
        ),
    ),
    "refuse": (
        rf"(\w+)(?: {_WORDS})?(?: param (\S+))?",
        lambda m, _: Action("refuse", code=m[1], words=_said(m[2]) or m[1], param=m[3] or ""),
    ),
    "error": (rf"(\w+)(?: {_WORDS})?", lambda m, _: Action("error", code=m[1], words=_said(m[2]) or m[1])),
    "close": (rf"(\d{{4}})(?: {_WORDS})?", lambda m, _: Action("close", code=m[1], words=_said(m[2]))),
    "fail": (rf"(\w+)(?: {_WORDS})?", lambda m, _: Action("fail", code=m[1], words=_said(m[2]) or m[1])),
    "incomplete": (r"(max_output_tokens|content_filter)", lambda m, _: Action("incomplete", code=m[1])),
    "send": (r"(\{.*\})", _send),
    "effective": (r"(\{.*\})", lambda m, _: Action("effective", data=_object(m[1]))),
    "drop": (r"", lambda _m, _: Action("drop")),
    "expire": (r"", lambda _m, _: Action("expire")),
    "hang": (r"", lambda _m, _: Action("hang")),
    "ignore": (r"", lambda _m, _: Action("ignore")),
    "nothing": (r"", lambda _m, _: Action("nothing")),
}
LINK_ONLY = frozenset({"wait", "error", "close", "drop", "expire", "send"})
_SPOKEN = LINK_ONLY | {"sound", "text", "call", "next message", "speed", "fail", "incomplete", "hang", "nothing"}
_ALLOWED: dict[str, frozenset[str]] = {
    "connect": frozenset({"wait", "refuse", "drop"}),
    "open": LINK_ONLY | {"hang"},
    "update": LINK_ONLY | {"refuse", "effective"},
    "greet": _SPOKEN | {"refuse", "ignore"},
    "speech": _SPOKEN | {"heard", "ignore", "refuse"},
    "output": _SPOKEN | {"refuse", "ignore"},
    "text": _SPOKEN | {"refuse", "ignore"},
    "response": _SPOKEN | {"refuse", "ignore"},
    "after": _SPOKEN,
    "every": _SPOKEN,
}
_WHEN = re.compile(
    rf"(?:on (connect|open|update|greet|speech|output|text|response)(?: (\d+))?(?: ([A-Za-z0-9_-]+))?"
    rf"|(after|every) {_TIME})\s*:\s*(.*)"
)
_SETTING = re.compile(rf"(speed) (\d+(?:\.\d+)?)|(late deltas) (\d+)|(chunk|life) {_TIME}")


def _action(text: str, when: str, folder: Path | None) -> Action:
    for verb, (rest, make) in _ACTIONS.items():
        if text == verb or text.startswith(verb + " "):
            match = re.fullmatch(rest, text[len(verb) :].strip())
            if match is None:
                raise Malformed(f"cannot read {text!r}")
            action = make(match, folder)
            if action.verb not in _ALLOWED[when]:
                raise Malformed(f"{verb!r} has no place under {when!r}")
            if action.verb == "refuse" and when == "connect" and not re.fullmatch(r"[45]\d\d", action.code):
                raise Malformed("a connection is refused with an HTTP status from 400 to 599")
            return action
    raise Malformed(f"does not know {text.split(' ')[0]!r}")


def _uncommented(line: str) -> str:
    quoted = False
    for place, character in enumerate(line):
        if character == '"' and line[place - 1 : place] != "\\":
            quoted = not quoted
        elif character == "#" and not quoted:
            return line[:place].rstrip()
    return line.rstrip()


def read(text: str, folder: Path | None = None) -> Script:
    """A script from its text; `folder` is where `play` finds WAV files."""
    rules: list[Rule] = []
    settings: dict[str, float] = {}
    open_rule: Rule | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = _uncommented(raw)
        if not line.strip():
            continue
        try:
            if line[0] in " \t":
                if open_rule is None:
                    raise Malformed("an indented line belongs under a line that ends with a colon")
                action = _action(line.strip(), open_rule.when, folder)
                rules[-1] = open_rule = open_rule._replace(actions=(*open_rule.actions, action))
                continue
            open_rule = None
            if setting := _SETTING.fullmatch(line):
                settings |= _setting(setting)
            elif when := _WHEN.fullmatch(line):
                open_rule = _rule(when, folder)
                rules.append(open_rule)
            else:
                raise Malformed(f"cannot read {line!r}")
        except Malformed as error:
            raise Malformed(f"line {number}: {error}") from None
    return Script(
        tuple(rules),
        speed=settings.get("speed", PLAIN.speed),
        chunk=int(settings.get("chunk", PLAIN.chunk)),
        late=int(settings.get("late deltas", PLAIN.late)),
        life=settings.get("life", PLAIN.life),
    )


def _setting(match: re.Match[str]) -> dict[str, float]:
    if match[1]:
        return {"speed": float(match[2])}
    if match[3]:
        return {"late deltas": int(match[4])}
    seconds = _seconds(match[6], match[7])
    if match[5] == "life":
        return {"life": seconds}
    if not 0.02 <= seconds <= 5:
        raise Malformed("a chunk lasts from 20 ms to 5 s")
    return {"chunk": seconds * 1000}


def _rule(match: re.Match[str], folder: Path | None) -> Rule:
    when = match[1] or match[4]
    seconds = _seconds(match[5], match[6]) if match[4] else 0.0
    if match[3] and when != "output":
        raise Malformed(f"only 'on output' takes the name of a function, not {when!r}")
    if when == "every" and seconds < 0.02:
        raise Malformed("every 20 ms at most")
    actions = (_action(match[7].strip(), when, folder),) if match[7].strip() else ()
    return Rule(when, int(match[2] or 0), match[3] or "", seconds, actions)


def load(path: Path) -> Script:
    """A script file; `Malformed` names the file and the line."""
    try:
        return read(path.read_text("utf-8"), path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed(f"{path.name} cannot be read: {error}") from None
    except Malformed as error:
        raise Malformed(f"{path.name}, {error}") from None
