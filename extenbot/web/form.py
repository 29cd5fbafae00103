"""The form of a bot: what stands in it, and what comes back from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extenbot.interfaces import Bot

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
)
_SECRETS = ("password", "token")

FRESH: Mapping[str, str] = dict.fromkeys((*_TEXTS, "forget_token"), "") | {
    "expires": "600",
    "kind": "registrar",
    "enabled": "on",
    "model": "sandbox",
    "transfer_mode": "blind",
}
"""The form of a bot that is not there yet."""


def typed(bot: Bot) -> dict[str, str]:
    """The form as it was typed to get this bot; secrets never come back."""
    shown = {field: str(getattr(bot, field)) for field in _TEXTS} | ({"enabled": "on"} if bot.enabled else {})
    return shown | {"port": str(bot.port or "")}


def sent(form: Mapping[str, str]) -> dict[str, Any]:
    """The bot as the form wants it. A secret that was left empty stays as it is."""
    found: dict[str, Any] = {field: form[field] for field in _TEXTS if field in form}
    found |= {field: form[field].strip() for field in _SECRETS if form.get(field, "").strip()}
    if "forget_token" in form:
        found["token"] = ""
    return found | {"enabled": "enabled" in form}
