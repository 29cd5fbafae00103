"""The form of a bot: what stands in it, and what comes back from it.

Everything in it is text, as a browser has it. Flags come as yes and no, of which the no is always sent; what does not
come at all stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from extenbot.interfaces import Bot, Destination, Manner

DESTINATIONS = 6
"""Rows for destinations; a bot that got more elsewhere has more."""

_TEXTS = (
    "name",
    "kind",
    "username",
    "domain",
    "model",
    "voice",
    "ai_url",
    "instruction",
    "welcome",
    "transfer_uri",
    "transfer_mode",
    "auth_id",
    "outbound_proxy",
    "port",
    "transport",
    "expires",
    "allowed",
    "trusted",
    "before_url",
    "after_url",
)
_SECRETS = ("password", "token", "hook_token", "hook_secret")
_FORGETS = tuple(f"forget_{name}" for name in _SECRETS if name != "password")
_MANNER = tuple(field.name for field in fields(Manner))
_INTERRUPT = {
    "immediate": "Callers can interrupt at once",
    "confirmed": "Callers can interrupt by 300 ms of speech",
    "off": "Callers cannot interrupt",
}
_HOOKS = {"before_url": "before each call", "after_url": "after it"}
_EMPTY_AT_NOUGHT = frozenset({"port", "max_output_tokens", "cap_call", "cap_day"})


def written(name: str, value: object) -> str:
    """A value of a bot as people type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".") if value or name not in _EMPTY_AT_NOUGHT else ""
    if isinstance(value, int):
        return str(value) if value or name not in _EMPTY_AT_NOUGHT else ""
    return str(value)


def _manner(manner: Manner) -> dict[str, str]:
    return {name: written(name, getattr(manner, name)) for name in _MANNER}


FRESH: Mapping[str, str] = {
    **dict.fromkeys((*_TEXTS, *_FORGETS), ""),
    **_manner(Manner()),
    "expires": "600",
    "kind": "registrar",
    "enabled": "on",
    "model": "sandbox",
    "transfer_mode": "blind",
}
"""The form of a bot that is not there yet."""


def typed(bot: Bot) -> dict[str, str]:
    """The form as it was typed to get this bot; secrets never come back."""
    shown = {name: written(name, getattr(bot, name)) for name in _TEXTS} | _manner(bot.manner)
    for number, destination in enumerate(bot.destinations, 1):
        shown |= {f"destination_{number}_{part}": text for part, text in destination._asdict().items()}
    shown |= {f"function_{function.id}": "on" for function in bot.functions}
    shown |= {f"server_{server.id}": "on" for server in bot.servers}
    return shown | ({"enabled": "on"} if bot.enabled else {})


def sent(form: Mapping[str, str]) -> dict[str, Any]:
    """The bot as the form wants it. A secret that was left empty stays as it is."""
    found: dict[str, Any] = {name: form[name] for name in (*_TEXTS, *_MANNER) if name in form}
    found |= {name: form[name].strip() for name in _SECRETS if form.get(name, "").strip()}
    found |= {name.removeprefix("forget_"): "" for name in _FORGETS if name in form}
    if "abilities" in form:  # boxes that are not ticked are not sent
        for kind in ("function", "server"):
            found[f"{kind}s"] = [name.removeprefix(f"{kind}_") for name in form if name.startswith(f"{kind}_")]
    if "destination_1_name" in form:
        found["destinations"] = [row._asdict() for row in _rows(form)]
    return found | {"enabled": "enabled" in form}


def _rows(form: Mapping[str, str]) -> list[Destination]:
    """As many as the form has, those in which nothing stands included: mistakes are told by number."""
    rows: list[Destination] = []
    while f"destination_{len(rows) + 1}_name" in form:
        number = len(rows) + 1
        rows.append(Destination(*(form.get(f"destination_{number}_{part}", "") for part in Destination._fields)))
    return rows


@dataclass(frozen=True)
class Form:
    """What the template asks."""

    typed: Mapping[str, str]
    problems: Mapping[str, str]
    before: Mapping[str, str]  # what stands in a form that nobody has touched

    def opened(self, *names: str) -> str:
        """The attribute of a <details> around these fields: open when something in it is set, or wrong."""
        opened = any(name in self.problems or self.typed[name] != self.before[name] for name in names)
        return " open" if opened else ""

    def unfolded(self, names: Sequence[str]) -> str:
        """The attribute of a card around these fields: open when something in it is wrong."""
        return " open" if any(name in self.problems for name in names) else ""

    @property
    def in_force(self) -> Mapping[str, str]:
        """What stands in each card that is folded, in a few words."""
        typed = {name: text.strip() or self.before.get(name, "") for name, text in self.typed.items()}
        silence, longest = typed["silence"], typed["longest"]
        asked = "Callers may be silent" if silence == "0" else f"Silent callers are asked after {silence} s"
        lasts = "may last for ever" if longest == "0" else f"last {longest} minutes at most"
        sorry = "your sentence" if typed["failure_sentence"] else "three tones"
        after = "are transferred" if typed["failure_uri"] else "the call ends"
        caps = [_amount(typed["cap_call"], "a call"), _amount(typed["cap_day"], "a day")]
        hooks = [words for name, words in _HOOKS.items() if typed[name]]
        return {
            "hooks": f"Asked or told: {' and '.join(hooks)}" if hooks else "None",
            "turns": _INTERRUPT.get(typed["barge_in"], ""),
            "length": f"{asked}, calls {lasts}",
            "failure": f"Callers hear {sorry}, then {after}",
            "money": f"At most {' and '.join(filter(None, caps))}" if any(caps) else "No cap",
            "recording": "Calls are recorded" if typed["record"] == "yes" else "Off",
        }

    @property
    def destinations(self) -> Sequence[Destination]:
        """The rows to show: those in which something stands, then empty ones."""
        rows = _rows(self.typed)
        return rows + [Destination("", "")] * max(0, DESTINATIONS - len(rows))

    @property
    def used(self) -> int:
        """How many rows are shown before the reader asks for more."""
        used = [number for number, row in enumerate(self.destinations, 1) if any(row)]
        return max(used, default=0)


def _amount(typed: str, what: str) -> str:
    """A cap as it is typed, in words; nothing when there is none."""
    try:
        amount = float(typed or 0)
    except ValueError:
        return ""
    return f"${amount:,.2f} {what}" if amount else ""


def form(shown: Mapping[str, str], problems: Mapping[str, str]) -> Form:
    """With every field in it, also those that were not sent."""
    return Form({**FRESH, "enabled": "", **shown}, problems, FRESH)
