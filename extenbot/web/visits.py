"""Who asks, and whether a form that comes back was made for them.

A login is a random cookie; the form token is derived from it, so nothing is kept for it.
Before there is a login, a cookie of its own takes that place (login and sign-up forms).
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from twisted.web.http import Request

from extenbot.errors import ExtenbotError
from extenbot.web.seams import Account

LONGEST_BODY = 256 * 1024  # bytes of a form
_MOST_FIELDS = 50


class Turned(ExtenbotError):
    """The request is not served: an HTTP `code` with words for the person."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


@dataclass
class Cookies:
    """Names and flags of our cookies; over https they carry the `__Host-` prefix."""

    secure: bool

    def name(self, kind: str) -> str:
        return f"__Host-extenbot-{kind}" if self.secure else f"extenbot-{kind}"

    def read(self, request: Request, kind: str) -> str:
        raw = request.getCookie(self.name(kind).encode())
        return raw.decode("ascii", "replace") if raw else ""

    def write(self, request: Request, kind: str, value: str, life: int | None = None) -> None:
        request.addCookie(
            self.name(kind),
            value,
            path=b"/",
            max_age=None if life is None else str(life).encode(),
            secure=self.secure,
            httpOnly=True,
            sameSite=b"lax",
        )


@dataclass
class Visit:
    """One request by one person."""

    request: Request
    account: Account | None
    secret: str  # the cookie that form tokens are derived from
    address: str
    form: dict[str, str] = field(default_factory=dict)

    @property
    def form_token(self) -> str:
        return hmac.digest(self.secret.encode(), b"form", "sha256").hex()


def new_secret() -> str:
    return secrets.token_urlsafe(24)


def address(request: Request) -> str:
    """Who asks; behind a proxy on this machine, what the proxy says."""
    peer = getattr(request.getClientAddress(), "host", "") or ""
    try:
        local = ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return peer
    forwarded = (request.getHeader("x-forwarded-for") or "").rsplit(",", 1)[-1].strip()
    try:
        return str(ipaddress.ip_address(forwarded)) if local else peer
    except ValueError:
        return peer


def read_form(visit: Visit) -> None:
    """The fields that were sent into `visit.form`; `Turned` when they did not come from a form we made."""
    request = visit.request
    kind = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Turned(415, "Only forms are taken here.")
    body = request.content.read(LONGEST_BODY + 1) if request.content else b""
    if len(body) > LONGEST_BODY:
        raise Turned(413, "That is more than we take.")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Turned(400, "This form cannot be read.") from None
    visit.form = dict(pairs)
    if not visit.secret or not hmac.compare_digest(
        visit.form.pop("form_token", "").encode("utf-8", "replace"), visit.form_token.encode()
    ):
        raise Turned(
            403, "This form is out of date, or cookies are switched off. Go back, reload the page and try again."
        )
