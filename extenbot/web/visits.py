"""Who asks, and whether a form that comes back was made for them.

A login is a random cookie; the form token is derived from it, so nothing is kept for it.
Before there is a login, a cookie of its own takes that place (login and sign-up forms).
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field
from io import BytesIO
from urllib.parse import parse_qsl

from multipart import MultipartError, MultipartParser, parse_options_header
from twisted.web.http import Request

from extenbot.errors import ExtenbotError
from extenbot.web.seams import Account

LONGEST_BODY = 512 * 1024  # bytes of a form
LARGEST_FILE = 12_000_000  # bytes: a minute of what recorders make by themselves, 48 kHz of 16 bits in stereo
LONGEST_UPLOAD = LARGEST_FILE + 100_000  # bytes of a form with a file
_MOST_FIELDS = 500  # of a bot with all functions of its account
_MOST_PARTS = 10


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
    file: bytes = b""

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
    if _kind(visit) != "application/x-www-form-urlencoded":
        raise Turned(415, "Only forms are taken here.")
    body = _body(visit, LONGEST_BODY)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise _unreadable() from None
    visit.form = dict(pairs)
    _check_token(visit)


def read_upload(visit: Visit) -> None:
    """The fields of a form with one file in it: the text into `visit.form`, the file into `visit.file`. Blocks."""
    if _kind(visit) != "multipart/form-data":
        raise Turned(415, "Only forms with a file are taken here.")
    body = _body(visit, LONGEST_UPLOAD)
    options = parse_options_header(visit.request.getHeader("content-type") or "")[1]
    try:
        for part in MultipartParser(
            BytesIO(body),
            options.get("boundary", ""),
            part_limit=_MOST_PARTS,
            memory_limit=LONGEST_UPLOAD,
            spool_limit=LONGEST_UPLOAD,
        ):
            if part.filename is None:
                visit.form[part.name] = part.value
            else:
                visit.file = part.raw
    except (MultipartError, ValueError, LookupError):
        raise _unreadable() from None
    _check_token(visit)


def _kind(visit: Visit) -> str:
    return (visit.request.getHeader("content-type") or "").partition(";")[0].strip().lower()


def _body(visit: Visit, longest: int) -> bytes:
    body: bytes = visit.request.content.read(longest + 1) if visit.request.content else b""
    if len(body) > longest:
        raise Turned(413, "That is more than we take.")
    return body


def _unreadable() -> Turned:
    return Turned(400, "This form cannot be read.")


def _check_token(visit: Visit) -> None:
    sent = visit.form.pop("form_token", "").encode("utf-8", "replace")
    if not visit.secret or not hmac.compare_digest(sent, visit.form_token.encode()):
        raise Turned(
            403, "This form is out of date, or cookies are switched off. Go back, reload the page and try again."
        )
