"""A Python console over SSH into the running service (Twisted manhole), for the operator only.

Off until a file of authorized keys is named; any user name is good, the key decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.conch.checkers import IAuthorizedKeysDB, SSHPublicKeyChecker, readAuthorizedKeyFile
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.manhole import ColoredManhole
from twisted.conch.manhole_ssh import ConchFactory, TerminalRealm
from twisted.conch.ssh.keys import BadKeyError, Key
from twisted.cred.portal import Portal
from zope.interface import implementer

from extenbot.errors import CannotStart


@implementer(IAuthorizedKeysDB)
class _Keys:
    """The keys in the file, read anew at each log-in."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def getAuthorizedKeys(self, username: bytes) -> Iterator[Key]:  # noqa: ARG002
        with self._path.open("rb") as file:
            yield from readAuthorizedKeyFile(file)


def console(authorized_keys: Path, data: Path, names: dict[str, Any]) -> Any:
    """The factory to listen with; `names` is what the operator can use. `CannotStart` when a key file is unusable."""
    try:
        known = list(_Keys(authorized_keys).getAuthorizedKeys(b""))
    except (OSError, BadKeyError) as error:
        raise CannotStart(f"[console] authorized_keys {authorized_keys} cannot be used: {error}") from None
    if not known:
        raise CannotStart(f"[console] authorized_keys {authorized_keys} holds no key")
    realm: Any = TerminalRealm()
    realm.chainedProtocolFactory = lambda: ServerProtocol(ColoredManhole, dict(names))
    factory: Any = ConchFactory(Portal(realm, [SSHPublicKeyChecker(_Keys(authorized_keys))]))
    host_key = _host_key(data / "console_host_key")
    factory.publicKeys = {host_key.sshType(): host_key.public()}
    factory.privateKeys = {host_key.sshType(): host_key}
    return factory


def _host_key(path: Path) -> Key:
    """Our SSH host key, made on first use, readable for us only."""
    if not path.exists():
        private = ed25519.Ed25519PrivateKey.generate()
        text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
    key: Key = Key.fromFile(str(path))
    return key
