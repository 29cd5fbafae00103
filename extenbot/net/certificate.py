"""Our TLS certificate, from PEM files that may be replaced while we run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from zope.interface import implementer

from extenbot.errors import CannotStart

Stamp = tuple[tuple[int, int, int], ...]


@implementer(IOpenSSLServerConnectionCreator)
class Certificate:
    """Makes the server's side of TLS connections; a renewed certificate is used from the next connection on.

    The files are looked at when somebody connects. While they are unreadable, or do not belong together,
    as in the middle of a renewal, the last good ones stay in use.
    """

    log = Logger()

    def __init__(self, chain: Path, key: Path) -> None:
        """`CannotStart` when the files are of no use."""
        self._chain, self._key = chain, key
        try:
            self._stamp = self._look()
            self._context = self._load()
        except (OSError, SSL.Error) as error:
            raise CannotStart(f"the certificate {chain} with the key {key} cannot be used: {_why(error)}") from None

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: ARG002
        self._refresh()
        return SSL.Connection(self._context, None)

    def _refresh(self) -> None:
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._context = self._load()
        except (OSError, SSL.Error) as error:
            self.log.warn(
                "The new certificate {path} cannot be used, the last one stays: {why}",
                path=str(self._chain),
                why=_why(error),
            )
        else:
            self.log.info("The certificate {path} was renewed", path=str(self._chain))

    def _look(self) -> Stamp:
        stats = (path.stat() for path in (self._chain, self._key))
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)

    def _load(self) -> SSL.Context:
        self._key.read_bytes()  # its error says more than OpenSSL's
        self._chain.read_bytes()
        context: SSL.Context = CertificateOptions().getContext()
        context.use_certificate_chain_file(str(self._chain))
        context.use_privatekey_file(str(self._key))
        context.check_privatekey()
        return context


def _why(error: OSError | SSL.Error) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    reasons = [entry[-1] for entry in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(reasons) or "it is no PEM file of that kind"
