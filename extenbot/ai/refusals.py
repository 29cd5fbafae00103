"""Why a voice session could not be had or went away, in one word for us and one sentence for the bot's owner.

A refusal shows in three ways: as the HTTP status of the handshake, as an `error` event
before the close, or only as a close code. They are believed in that order; a failed
response may carry the same codes.
"""

from __future__ import annotations

import re

from extenbot.ai.events import section, word
from extenbot.errors import BackendLost
from extenbot.interfaces import Json

_HTTP = re.compile(r"\[(\d{3})\]")

#: error codes that end a session (and would end the next one too)
_FATAL = {
    "invalid_api_key": ("wrong_key", "The voice service does not know this key."),
    "account_deactivated": ("wrong_key", "The voice service has deactivated the account of this key."),
    "insufficient_quota": ("no_credit", "The account of this key has no credit left at the voice service."),
    "billing_hard_limit_reached": ("no_credit", "The account of this key has reached its spending limit."),
    "model_not_found": ("no_model", "The voice service has no such model, or this key may not use it."),
    "invalid_model": ("no_model", "The voice service does not accept this model."),
    "beta_api_shape_disabled": ("refused_settings", "The voice service refused an outdated form of its protocol."),
    "session_expired": ("expired", "The voice session reached its longest duration."),
}

#: codes that mean "not now"; before the session is open they are all that is known
_BUSY = frozenset({"rate_limit_exceeded", "inference_rate_limit_exceeded", "session_limit_reached"})

#: codes by which a server says that it has refused our settings whole
_SETTINGS = frozenset(
    {"unknown_parameter", "missing_required_parameter", "invalid_value", "invalid_type", "invalid_parameter"}
)

_STATUS = {
    400: ("refused_settings", "The voice service refused the request"),
    401: ("wrong_key", "The voice service does not accept this key"),
    402: ("no_credit", "The account of this key has no credit left at the voice service"),
    403: ("no_model", "This key may not use this model or service"),
    404: ("no_model", "The voice service has no such model, or the address is wrong"),
    429: ("busy", "The voice service has too many requests from this account"),
}

_CLOSED = {
    1008: ("wrong_key", "The voice service refused the session by its policy; mostly the key is wrong"),
    1011: ("busy", "The voice service had an internal error"),
    1012: ("busy", "The voice service is restarting"),
    1013: ("busy", "The voice service is overloaded"),
    3000: ("wrong_key", "The voice service does not accept this key"),
    4000: ("refused_settings", "The voice service refused the session"),
}


def fatal(error: Json) -> BackendLost | None:
    """The loss that an error's code means, None when the conversation can go on."""
    known = _FATAL.get(word(error, "code"))
    return BackendLost(*known) if known else None


def transient(error: Json) -> bool:
    """Whether the server had a fault of its own, and the same may work when asked again."""
    return word(error, "code") == "server_error" or word(error, "type").strip() == "server_error"


def settings(error: Json, update_id: str) -> BackendLost | None:
    """The loss when an error says that our session settings (sent as `update_id`) were refused."""
    ours = bool(update_id) and word(error, "event_id") == update_id and not transient(error)
    if not ours and word(error, "code") not in _SETTINGS:
        return None
    return BackendLost("refused_settings", f"The voice service refused the settings of this bot{_says(error)}")


def gone(code: int | None, reason: str, error: Json, *, opened: bool) -> BackendLost:
    """Why the link was lost, from its close code and reason and the last error event (empty when there was none)."""
    status = _HTTP.search(reason)
    if status and not opened:
        number = int(status[1])
        if number >= 500:
            words = "The voice service answered with an internal error; if that goes on, check the kind of key"
            return BackendLost("busy", f"{words} (HTTP {number}).")
        cause, words = _STATUS.get(number, ("lost", "The voice service refused the connection"))
        return BackendLost(cause, f"{words} (HTTP {number}).")
    # OpenAI names the code again in the close reason: invalid_request_error.invalid_api_key
    known = fatal(error) or fatal({"code": reason.rpartition(".")[2]})
    if known:
        return known
    if "maximum duration" in reason:
        return BackendLost(*_FATAL["session_expired"])
    if opened:
        return BackendLost("lost", f"The connection to the voice service was lost{_closed(code, reason)}")
    if "bearer" in word(error, "message").lower() or "authentication" in word(error, "type"):
        return BackendLost("wrong_key", "The voice service asks for a key.")
    if word(error, "code") in _BUSY or transient(error):
        return BackendLost("busy", f"The voice service is busy or has a fault{_says(error)}")
    if error and code in (4000, None, 1000):
        return settings(error, "") or BackendLost("lost", f"The voice service closed the session{_says(error)}")
    if code in _CLOSED:
        cause, words = _CLOSED[code]
        return BackendLost(cause, f"{words}{_says(error) if error else _closed(code, reason)}")
    return BackendLost("lost", f"The voice service cannot be reached{_closed(code, reason)}")


def late(timeout: float, error: Json) -> BackendLost:
    """The session was not ready in time."""
    return BackendLost("late", f"The voice service was not ready within {timeout:g} s{_says(error)}")


def wrong_format(asked: str, heard: str, spoken: str) -> BackendLost:
    """The service would hear or speak another codec than the call."""
    words = f"asked for {asked}, got {heard or 'nothing'} to hear and {spoken or 'nothing'} to speak"
    return BackendLost("wrong_format", f"The voice service does not use the codec of the call: {words}.")


def _says(error: Json) -> str:
    said = (word(error, "message") or word(error, "code"))[:300]
    return f": {said}" if said else "."


def _closed(code: int | None, reason: str) -> str:
    said = " ".join(part for part in (str(code or ""), reason[:300]) if part)
    return f" ({said})." if said else "."


def error_of(response: Json) -> Json:
    """The error of a failed response, empty when it has none."""
    return section(section(response, "status_details"), "error")
