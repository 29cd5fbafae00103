"""Our TLS certificate, and whose certificates we believe; all from PEM files that may be replaced while we run.

Who we connect to must prove the name that its owner entered, not what DNS made of it (RFC 5922 4, 7).
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from zope.interface import implementer

from extenbot.errors import CannotStart

Stamp = tuple[tuple[int, int, int], ...]

READ_AGAIN = 600.0
"""Seconds after which the authorities of this machine are read again: they may have been updated."""


def _stamp(*paths: Path) -> Stamp:
    """What changes when the files do."""
    return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in (path.stat() for path in paths))


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
        return _stamp(self._chain, self._key)

    def _load(self) -> SSL.Context:
        self._key.read_bytes()  # its error says more than OpenSSL's
        self._chain.read_bytes()
        context: SSL.Context = CertificateOptions().getContext()
        context.use_certificate_chain_file(str(self._chain))
        context.use_privatekey_file(str(self._key))
        context.check_privatekey()
        return context


class Authorities:
    """Whom we believe when we connect: the authorities of this machine, and those in a file of our own.

    To read them takes some milliseconds, in which no audio moves: that is done when the file has changed, and for those
    of the machine every `READ_AGAIN` seconds at most. While the file is of no use the last good state stays.
    """

    log = Logger()

    def __init__(
        self, path: Path | None = None, setting: str = "[sip] trust", now: Callable[[], float] = time.monotonic
    ) -> None:
        """`setting` is where people name the file. `CannotStart` when it is of no use."""
        self._path = path
        self._setting = setting
        self._now = now
        try:
            self._stamp = self._look()
            self._context = self._load()
        except (OSError, SSL.Error) as error:
            raise CannotStart(f"the authorities in {path} cannot be used: {_why(error)}") from None
        self._read_at = now()

    def proof(self, name: str, failed: Callable[[str], None]) -> IOpenSSLClientConnectionCreator:
        """Makes our side of connections to who must prove to be `name`, a domain or an address.

        `failed` is told why it could not, as the end of a sentence about the peer, before the connection is lost.
        """
        self._refresh()
        return _Proof(self._context, name, failed, self._setting)

    def _refresh(self) -> None:
        try:
            stamp, now = self._look(), self._now()
            if stamp == self._stamp and now - self._read_at < READ_AGAIN:
                return
            self._stamp, self._read_at = stamp, now
            self._context = self._load()
        except (OSError, SSL.Error) as error:
            self.log.warn(
                "The authorities in {path} cannot be used, the last ones stay: {why}",
                path=str(self._path),
                why=_why(error),
            )

    def _look(self) -> Stamp:
        return _stamp(self._path) if self._path else ()

    def _load(self) -> SSL.Context:
        if self._path:
            self._path.read_bytes()  # its error says more than OpenSSL's
        context: SSL.Context = CertificateOptions().getContext()
        context.set_default_verify_paths()
        if self._path:
            context.load_verify_locations(str(self._path))
        return context


@implementer(IOpenSSLClientConnectionCreator)
class _Proof:
    """As `optionsForClientTLS`, but it can say what is wrong, and knows certificates without a subjectAltName."""

    log = Logger()

    def __init__(self, context: SSL.Context, name: str, failed: Callable[[str], None], setting: str) -> None:
        self._context = context
        self._setting = setting
        self._name = name
        self._failed = failed
        try:
            self._address = str(ipaddress.ip_address(name))
        except ValueError:
            self._address = ""

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: ARG002
        connection = SSL.Connection(self._context, None)
        if not self._address:
            connection.set_tlsext_host_name(self._name.encode("idna"))
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return connection

    def _verify(self, _connection: SSL.Connection, shown: X509, problem: int, depth: int, good: int) -> bool:
        """OpenSSL's question for each certificate of the chain. Nothing may be raised into it."""
        try:
            words = "" if good else _PROBLEMS.get(problem, f"cannot be verified (OpenSSL's error {problem})")
            words = words.replace("SETTING", self._setting)
            if good and not depth:
                words = self._mismatch(shown.to_cryptography())
        except Exception:  # noqa: BLE001 - whatever a stranger's certificate holds
            self.log.failure("A certificate that {name} shows cannot be read", name=self._name)
            words = "cannot be read"
        if words:
            self._failed(f"its certificate {words}")
        return not words

    def _mismatch(self, shown: x509.Certificate) -> str:
        """Why the certificate is not that of the name; empty when it is."""
        wanted = IPAddress_ID(self._address) if self._address else DNS_ID(self._name)
        patterns = extract_patterns(shown)
        if patterns:
            try:
                verify_service_identity(patterns, [wanted], [])
            except VerificationError:
                names = _names(shown)
            else:
                return ""
        else:  # RFC 5922 7.1: only then does the common name count
            names = [str(each.value) for each in shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            if self._name.lower() in [name.lower() for name in names]:
                return ""
        return f"is not for {self._name}" + (f" but for {', '.join(names[:3])[:200]}" if names else "")


def _names(shown: x509.Certificate) -> list[str]:
    listed = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(each.value) for kind in (x509.DNSName, x509.IPAddress) for each in listed if isinstance(each, kind)]


_UNKNOWN = "is of an authority that is not trusted here (the setting SETTING adds some)"
_PROBLEMS = {  # of openssl-verification-options(1), the ones that people meet
    2: _UNKNOWN,
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself and not among the trusted ones (the setting SETTING)",
    19: _UNKNOWN,
    20: _UNKNOWN,
    21: _UNKNOWN,
}


def _why(error: OSError | SSL.Error) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    reasons = [entry[-1] for entry in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(reasons) or "it is no PEM file of that kind"
