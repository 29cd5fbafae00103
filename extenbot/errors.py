"""Every exception extenbot raises: whose fault it was, and which SIP answer it earns.

Readers of anything that comes from outside raise `Malformed` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


class ExtenbotError(Exception):
    """Base of all our errors; its text is one sentence that a person can act on."""


class Remote(ExtenbotError):
    """The other side broke a rule; `code` is the SIP answer it earns (400 to 699)."""

    code = 400

    def __init__(self, words: str, code: int | None = None) -> None:
        super().__init__(words)
        if code is not None:
            self.code = code


class Malformed(Remote):
    """What came in cannot be read. The only error a reader raises."""


class Refused(ExtenbotError):
    """We say no: `code` with `words` as the reason, and extra SIP `headers` (name, value)."""

    def __init__(self, code: int, words: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(words)
        self.code = code
        self.headers = tuple(headers)


class Misuse(ExtenbotError):
    """Our own bug: a part was used against its contract."""


class BackendLost(ExtenbotError):
    """The voice session could not be opened or is gone; the text says why to the bot's owner.

    `cause` is one word: wrong_key, no_credit, no_model, refused_settings, wrong_format, busy, late, expired, silent or
    lost.
    Before the answer it earns the SIP refusal `code`: 480 where the owner must act, 503 where trying later helps.
    """

    OWNER = frozenset({"wrong_key", "no_credit", "no_model", "refused_settings"})

    def __init__(self, cause: str, words: str) -> None:
        super().__init__(words)
        self.cause = cause

    @property
    def code(self) -> int:
        return 480 if self.cause in self.OWNER else 503


class Unlocated(ExtenbotError):
    """A SIP domain has no address that we can find; the text says why to the bot's owner."""


class ToolFailed(ExtenbotError):
    """A function did not work; the text is told to the model."""


def unanswered(seconds: float) -> str:
    """What is said of a server or function that was given so long."""
    return f"not answered within {seconds:g} second{'' if seconds == 1 else 's'}"


class Invalid(ExtenbotError):
    """Input from a form, a command or the API is wrong: one sentence per field."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {sentence}" for field, sentence in problems.items()))
        self.problems = dict(problems)


class SettingsError(ExtenbotError):
    """The settings are wrong: every mistake at once, as (key, sentence)."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{key}: {sentence}" for key, sentence in self.problems))


class CannotStart(ExtenbotError):
    """The service cannot start (a port in use, an unwritable folder): one line for the operator."""
