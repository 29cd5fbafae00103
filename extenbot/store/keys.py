"""The key file, and secrets sealed with it.

One Fernet key a line: the first seals, all of them unseal, so a new key is put in front of
the old ones. The file is made on first start, readable by its owner only.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from extenbot.errors import CannotStart, ExtenbotError


class WrongKey(ExtenbotError):
    """A secret was sealed with a key that is not in the key file."""


class Keys:
    """Seals and unseals; nothing at all (an empty text) stays as it is."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, clear: str) -> str:
        return self._fernet.encrypt(clear.encode()).decode() if clear else ""

    def unseal(self, sealed: str) -> str:
        """The secret; `WrongKey` when no key fits."""
        try:
            return self._fernet.decrypt(sealed).decode() if sealed else ""
        except InvalidToken:
            raise WrongKey("The key file does not hold the key that this secret was sealed with.") from None


def read(path: Path) -> Keys | None:
    """The keys in the file, or None when there is no such file."""
    try:
        lines = path.read_text("ascii").split()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"The key file {path} cannot be read: {error}.") from error
    try:
        return Keys(lines)
    except ValueError:
        raise CannotStart(f"The key file {path} does not hold Fernet keys, one a line.") from None


def make(path: Path) -> Keys:
    """A new key file, or the one that another process made in the same moment."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(Fernet.generate_key().decode() + "\n")
        try:
            os.link(draft, path)  # whole or not at all, and never over another one
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        raise CannotStart(f"The key file {path} cannot be written: {error.strerror}.") from error
    found = read(path)
    if found is None:
        raise CannotStart(f"The key file {path} vanished while it was made.")
    return found
