"""Digest authentication, both ends (RFC 7616, RFC 8760; RFC 3261 22): SHA-512-256, SHA-256 and MD5,
qop auth and none.

Nonces hold their time and number, signed together with the address they were made for, so nothing is kept for a
challenge; only a nonce that was used is remembered, with its highest count, until it is too old to be used again.
Give each process a fresh `key`: counts do not survive a restart, so neither may nonces. Who asks with a username
that does not exist learns nothing: the work, the time and the answer are those of a wrong password.
`twisted.cred` has no SHA-256 and checks no counts.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from extenbot.errors import Malformed, Refused
from extenbot.sip import grammar
from extenbot.sip.message import Request
from extenbot.sip.uri import Uri

REMEMBERED = 100_000  # used nonces

_HASHES: Mapping[str, Callable[[bytes], hashlib._Hash]] = {
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False),
    "SHA-256": hashlib.sha256,
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data),
}
_WEAKEST_FIRST = tuple(_HASHES)
_NOBODYS = "a password of nobody, 24"  # hashed for usernames that do not exist; as long as those we make

# baresip 1.0 (Debian 12) gives up with ENOSYS when any challenge, in any place, is not MD5; 2.x is not measured.
_MD5_ONLY = re.compile(r"baresip v[0-2]\.", re.IGNORECASE)


class Challenge(Refused):
    """401: come back with credentials."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a Digest header of either direction holds."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str  # one of _HASHES
    qop: str = ""  # "auth", or empty as before RFC 2617
    cnonce: str = ""
    count: str = ""  # nc, eight hex digits
    opaque: str = ""

    def expected(self, method: str, password: str) -> str:
        """The response that the right password gives (RFC 7616 3.4.1)."""

        def hashed(*parts: str) -> str:
            return _HASHES[self.algorithm](":".join(parts).encode()).hexdigest()

        secret = hashed(self.username, self.realm, password)
        asked = hashed(method, self.uri)
        if not self.qop:
            return hashed(secret, self.nonce, asked)
        return hashed(secret, self.nonce, self.count, self.cnonce, self.qop, asked)

    def __str__(self) -> str:
        pairs = [("username", self.username), ("realm", self.realm), ("nonce", self.nonce), ("uri", self.uri)]
        pairs += [("response", self.response)]
        text = ", ".join(f"{name}={grammar.quote(value)}" for name, value in pairs)
        text += f", algorithm={self.algorithm}"
        if self.opaque:
            text += f", opaque={grammar.quote(self.opaque)}"
        if self.qop:
            text += f", qop={self.qop}, nc={self.count}, cnonce={grammar.quote(self.cnonce)}"
        return "Digest " + text


def _fields(value: str) -> dict[str, str] | None:
    """The parameters of a Digest header value, unquoted; None when it is of another scheme."""
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() != "digest":
        return None
    return {name: grammar.unquote(text or "") for name, text in grammar.params(rest, ",").items()}


def _readable(challenge: str) -> tuple[dict[str, str], str, bool]:
    """The fields, the algorithm and whether qop is auth; `Malformed` when the challenge cannot be met."""
    fields = _fields(challenge)
    if fields is None or not fields.get("nonce") or "realm" not in fields:
        raise Malformed("There is no Digest challenge")
    algorithm = (fields.get("algorithm") or "MD5").upper()
    if algorithm not in _HASHES:
        raise Malformed("This Digest algorithm is not known here")
    offered = [word.strip().lower() for word in fields.get("qop", "").split(",") if word.strip()]
    if offered and "auth" not in offered:
        raise Malformed("This Digest qop is not known here")
    return fields, algorithm, bool(offered)


def strongest(challenges: Iterable[str]) -> str:
    """The one to answer of those in a 401 or 407 (RFC 8760 2.4); `Malformed` when none can be met."""
    met: dict[int, str] = {}
    problem = Malformed("There is no Digest challenge")
    for challenge in challenges:
        try:
            met.setdefault(_WEAKEST_FIRST.index(_readable(challenge)[1]), challenge)
        except Malformed as error:
            problem = error
    if not met:
        raise problem
    return met[max(met)]


def scope(value: str) -> tuple[str, str]:
    """Realm and nonce of a challenge or of credentials; empty ones when it is no Digest."""
    fields = _fields(value) or {}
    return fields.get("realm", ""), fields.get("nonce", "")


def is_stale(challenge: str) -> bool:
    """Whether only the nonce was too old, not the password wrong (RFC 7616 3.3)."""
    return ((_fields(challenge) or {}).get("stale") or "").lower() == "true"


def answer_challenge(
    challenge: str, method: str, uri: str, username: str, password: str, cnonce: str, count: int = 1
) -> str:
    """The Authorization value for a WWW-Authenticate (or Proxy-Authenticate) value.

    `count` is 1 for a new nonce and grows with each use. `Malformed` when the challenge cannot be met.
    """
    fields, algorithm, auth = _readable(challenge)
    given = Credentials(
        username,
        fields["realm"],
        fields["nonce"],
        uri,
        "",
        algorithm,
        "auth" if auth else "",
        cnonce if auth else "",
        f"{count:08x}" if auth else "",
        fields.get("opaque", ""),
    )
    return str(replace(given, response=given.expected(method, password)))


class _Nonce(NamedTuple):
    made: int  # unix seconds
    serial: int


class Challenger:
    """Asks for credentials and checks them. `now` is in seconds, `life` is how long a nonce is good.

    `algorithms` are those we offer, in their order, and the only ones we take.
    """

    def __init__(
        self,
        realm: str,
        now: Callable[[], float],
        key: bytes,
        life: float,
        algorithms: tuple[str, ...] = ("SHA-256", "MD5"),
    ) -> None:
        self.realm = realm
        self._algorithms = algorithms
        self._now = now
        self._key = key
        self._life = life
        self._serial = 0
        self._counts: OrderedDict[_Nonce, int] = OrderedDict()  # used nonces and their highest nc, oldest first
        self._forgotten = 0  # no nonce up to this serial is known any more

    def challenge(self, request: Request, source: str, stale: bool = False) -> Challenge:
        """The 401 for who asks from the address `source`; one WWW-Authenticate for each algorithm (RFC 8760 2.3).

        Who is known to give up at the sight of anything but MD5 sees MD5 only.
        """
        nonce = self._nonce(source)
        head = f'Digest realm={grammar.quote(self.realm)}, nonce="{nonce}", qop="auth"'
        tail = ", stale=true" if stale else ""
        offered = self._algorithms
        if "MD5" in offered and _MD5_ONLY.match(request.first("user-agent") or ""):
            offered = ("MD5",)
        values = [f"{head}, algorithm={name}{tail}" for name in offered]
        return Challenge(401, "Unauthorized", [("WWW-Authenticate", value) for value in values])

    def check(self, request: Request, source: str, password_of: Callable[[str], str | None]) -> str:
        """The authenticated username; `password_of` gives None for a user that does not exist.

        `Challenge` without credentials, or when their nonce was made for another address than `source`, is too
        old or was used; `Refused` 403 for an unknown user and a wrong password alike; `Malformed` for
        credentials that cannot be read.
        """
        given = self._credentials(request)
        if given is None:
            raise self.challenge(request, source)
        password = password_of(given.username)
        expected = given.expected(request.method, _NOBODYS if password is None else password)
        same = hmac.compare_digest(expected.encode(), given.response.lower().encode())
        right = same and password is not None
        nonce = self._fresh(given.nonce, source)
        if nonce is None:
            raise self.challenge(request, source, stale=right)
        if not right:
            raise Refused(403, "Wrong username or password")
        if not self._counted(given, nonce):
            raise self.challenge(request, source, stale=True)
        return given.username

    def has_credentials(self, request: Request) -> bool:
        """Whether there are any that `check` would look at; `Malformed` when they cannot be read."""
        return self._credentials(request) is not None

    def _credentials(self, request: Request) -> Credentials | None:
        for value in request.all("authorization"):
            fields = _fields(value)
            if fields is None or fields.get("realm") != self.realm:
                continue
            algorithm = (fields.get("algorithm") or "MD5").upper()
            qop = fields.get("qop", "").lower()
            if algorithm not in self._algorithms or qop not in ("", "auth"):
                continue
            missing = [name for name in ("username", "nonce", "uri", "response") if not fields.get(name)]
            missing += [name for name in ("nc", "cnonce") if qop and not fields.get(name)]
            if missing:
                raise Malformed(f"Authorization lacks {missing[0]}")
            if qop and not re.fullmatch(r"[0-9A-Fa-f]{1,8}", fields["nc"]):
                raise Malformed("The nonce count is not hexadecimal")
            Uri.read(fields["uri"])  # which URI it is does not matter: PBXs sign another than they send to
            return Credentials(
                fields["username"],
                fields["realm"],
                fields["nonce"],
                fields["uri"],
                fields["response"],
                algorithm,
                qop,
                fields.get("cnonce", ""),
                fields.get("nc", ""),
            )
        return None

    def _sign(self, text: str, source: str) -> str:
        return hmac.new(self._key, f"{text} {source} {self.realm}".encode(), hashlib.sha256).hexdigest()[:32]

    def _nonce(self, source: str) -> str:
        self._serial += 1
        text = f"{int(self._now()):x}-{self._serial:x}"
        return f"{text}-{self._sign(text, source)}"

    def _fresh(self, text: str, source: str) -> _Nonce | None:
        """None when it is not ours, was made for somebody else, or is too old.

        The address is that of a NAT's outer side, its port may change; who comes from another address is asked again.
        """
        head, _, signature = text.rpartition("-")
        if not hmac.compare_digest(self._sign(head, source).encode(), signature.encode()):
            return None
        nonce = _Nonce(*(int(part, 16) for part in head.split("-")))
        return None if self._too_old(nonce) else nonce

    def _too_old(self, nonce: _Nonce) -> bool:
        return self._now() - nonce.made > self._life

    def _counted(self, given: Credentials, nonce: _Nonce) -> bool:
        """Whether this use is new: counts must grow. Without qop a nonce is good once."""
        count = int(given.count, 16) if given.qop else 1
        last = self._counts.get(nonce)
        if last is None and nonce.serial <= self._forgotten:
            return False
        if count <= (last or 0):
            return False
        self._counts[nonce] = count
        while len(self._counts) > REMEMBERED or self._too_old(next(iter(self._counts))):
            oldest, _ = self._counts.popitem(last=False)
            self._forgotten = max(self._forgotten, oldest.serial)
        return True
