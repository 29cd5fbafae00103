"""SIP, SIPS and tel URIs (RFC 3261 19.1, RFC 3966); any other scheme is kept as it is.

Replaces `twisted.protocols.sip.parseURL`, which raises on `sips:`, `tel:`, `SIP:` and IPv6 hosts.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from twisted.protocols import sip

from extenbot.errors import Malformed
from extenbot.sip import grammar

_NUMBER = re.compile(r"[+*#0-9A-Za-z][-+*#.()0-9A-Za-z_]*")
_DIALLED = re.compile(r"(?!(?:[0-9]+\.){3}[0-9]+$)[+*#0-9(][*#0-9(). -]*")  # a number as people write it, no IP address
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BARRED = re.compile(r'[\x00-\x20<>"\x7f]')
_USER_SAFE = "-_.!~*'()&=+$,;?/"  # RFC 3261 25.1 unreserved and user-unreserved
_MATTER = ("user", "ttl", "method", "maddr", "transport")  # RFC 3261 19.1.4: there in both or in neither


class Uri(sip.URL):
    """A URI taken apart. `username`, `params` and `header_text` stay escaped, `user` is clear text.

    Treat it as a value. For schemes other than sip and sips `username` holds all that follows the colon
    (a tel number without its parameters) and `host` is empty.
    """

    def __init__(
        self,
        host: str,
        username: str | None = None,
        password: str | None = None,
        port: int | None = None,
        *,
        scheme: str = "sip",
        params: grammar.Params | None = None,
        header_text: str = "",
    ) -> None:
        self.params = params or {}
        super().__init__(host, username, password, port, transport=self.params.get("transport"))
        self.scheme = scheme
        self.header_text = header_text

    @classmethod
    def read(cls, text: str) -> Uri:
        """`Malformed` when it is no URI or not a proper one of its scheme."""
        match = _SCHEME.match(text)
        if not match or _BARRED.search(text):
            raise Malformed("There is no proper URI")
        scheme, rest = match[1].lower(), text[match.end() :]
        if not rest:
            raise Malformed("There is no proper URI")
        if scheme == "tel":
            digits, _, parameters = rest.partition(";")
            return cls("", digits, scheme=scheme, params=grammar.params(parameters))
        if scheme not in ("sip", "sips"):
            return cls("", rest, scheme=scheme)
        # An "@" may not appear unescaped after the host, so the last one ends the user.
        userinfo, at, rest = rest.rpartition("@")
        username, colon, password = userinfo.partition(":")
        if at and not username:
            raise Malformed("A URI has an @ but no user")
        rest, _, header_text = rest.partition("?")
        where, _, parameters = rest.partition(";")
        host, port = grammar.host_port(where)
        return cls(
            host,
            username if at else None,
            password if colon else None,
            port,
            scheme=scheme,
            params=grammar.params(parameters) if parameters else {},
            header_text=header_text,
        )

    @classmethod
    def of(cls, user: str, host: str, port: int | None = None, transport: str = "UDP") -> Uri:
        """A sip URI for a user in clear text; an IPv6 address gets its brackets, UDP goes without saying."""
        where, _ = grammar.host_port(f"[{host}]" if ":" in host and not host.startswith("[") else host)
        params = {} if transport == "UDP" else {"transport": transport.lower()}
        return cls(where, quote(user, safe=_USER_SAFE) if user else None, None, port, params=params)

    @property
    def user(self) -> str:
        """The user part with escapes undone; of a tel URI the number."""
        return unquote(self.username or "")

    @property
    def address(self) -> str:
        """The host without the brackets of IPv6."""
        return str(self.host).strip("[]")

    def toString(self) -> str:
        text = self.scheme + ":" + (self.username or "")
        if self.password is not None:
            text += ":" + self.password
        if self.host:
            text += "@" + self.host if self.username is not None else self.host
        if self.port is not None:
            text += f":{self.port}"
        text += grammar.write_params(self.params)
        return f"{text}?{self.header_text}" if self.header_text else text

    def __repr__(self) -> str:
        return f"<Uri {self.toString()}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Uri) and self.toString() == other.toString()

    def __hash__(self) -> int:
        return hash(self.toString())

    def same(self, other: Uri) -> bool:
        """Whether both name the same resource (RFC 3261 19.1.4): used to match Contacts."""
        if (self.scheme, self.user, self.password, self.host.lower(), self.port) != (
            other.scheme,
            other.user,
            other.password,
            other.host.lower(),
            other.port,
        ):
            return False
        if sorted(self.header_text.lower().split("&")) != sorted(other.header_text.lower().split("&")):
            return False
        mine, theirs = self.params, other.params
        if any((name in mine) != (name in theirs) for name in _MATTER):
            return False
        return all((mine[name] or "").lower() == (theirs[name] or "").lower() for name in mine.keys() & theirs.keys())


def callee(target: str, domain: str) -> Uri:
    """Whom a person means: a sip or sips URI, or a tel URI or bare number at `domain` (host[:port][;parameters]).

    `Malformed` with a sentence for anything else.
    """
    target = target.strip(" ")
    if _NUMBER.fullmatch(target) or _DIALLED.fullmatch(target):
        number = re.sub(r"[(). -]", "", target) if _DIALLED.fullmatch(target) else target
    elif (uri := _proper(target)).scheme in ("sip", "sips"):
        return uri
    elif uri.scheme == "tel":
        number = re.sub(r"[-.()]", "", uri.user)  # RFC 3966 5.1.1
    else:
        raise Malformed("Only a SIP address or a number can be called")
    if not _NUMBER.fullmatch(number):
        raise Malformed("There is no number to call")
    at = Uri.read("sip:" + domain)
    return Uri(at.host, quote(number, safe=_USER_SAFE), None, at.port, params=at.params)


def _proper(target: str) -> Uri:
    try:
        return Uri.read(target)
    except Malformed as error:
        raise Malformed("That is neither a SIP address nor a number to call") from error
