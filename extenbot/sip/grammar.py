"""The words SIP headers are made of: tokens, quoted strings, lists and parameters (RFC 3261 7.3, 25.1).

Knows no header by itself. Everything here reads text; what cannot be read raises `Malformed`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from twisted.protocols.sip import shortHeaders, specialCases

from extenbot.errors import Malformed

Params = Mapping[str, str | None]
"""Parameters in order: lower-case names, values as they were written (quotes included), None for a flag."""

TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
HOST = re.compile(r"\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?\]|[A-Za-z0-9_.-]+")
_PIECE = {
    separator: re.compile(rf"""(?:[^"<{separator}]++|"(?:[^"\\]++|\\.)*+"|<[^>]*+>)*+""", re.DOTALL)
    for separator in ";,"
}

# Twisted knows 9 of the short forms; these are the rest (IANA registry "SIP Header Fields").
LONG_NAMES = {short: name for name, short in shortHeaders.items()} | {
    "a": "accept-contact",
    "b": "referred-by",
    "d": "request-disposition",
    "j": "reject-contact",
    "k": "supported",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "u": "allow-events",
    "x": "session-expires",
    "y": "identity",
}

_SPELLED = specialCases | {
    "mime-version": "MIME-Version",
    "min-se": "Min-SE",
    "rack": "RAck",
    "rseq": "RSeq",
    "sip-etag": "SIP-ETag",
    "sip-if-match": "SIP-If-Match",
}


def header_name(name: str) -> str:
    """The lower-case long name, also of a compact form (`V` and `Via` are `via`)."""
    name = name.lower()
    return LONG_NAMES.get(name, name)


@lru_cache(1024)
def spelled(name: str) -> str:
    """A lower-case header name as people write it: `call-id` is `Call-ID`."""
    return _SPELLED.get(name) or "-".join(part.capitalize() for part in name.split("-"))


def pieces(text: str, separator: str) -> list[str]:
    """Split at `separator` (`;` or `,`) outside quotes and angle brackets; pieces are stripped, empty ones kept."""
    if '"' not in text and "<" not in text:
        return [piece.strip() for piece in text.split(separator)]
    found, start = [], 0
    while match := _PIECE[separator].match(text, start):
        found.append(match[0].strip())
        if match.end() == len(text):
            break
        if text[match.end()] != separator:
            raise Malformed("A quote or bracket is not closed")
        start = match.end() + 1
    return found


def listed(text: str) -> list[str]:
    """The elements of a comma list (RFC 3261 7.3.1); empty elements are left out."""
    return [piece for piece in pieces(text, ",") if piece]


def params(text: str, separator: str = ";") -> dict[str, str | None]:
    """`;lr;tag=a;x="b;c"` as a mapping; the first of a repeated parameter counts."""
    found: dict[str, str | None] = {}
    for piece in pieces(text, separator):
        if not piece:
            continue
        name, equals, value = piece.partition("=")
        name = name.rstrip()
        if not TOKEN.fullmatch(name):
            raise Malformed("A parameter has no proper name")
        found.setdefault(name.lower(), value.lstrip() if equals else None)
    return found


def write_params(values: Params) -> str:
    """The inverse of `params`, led by a semicolon for each."""
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in values.items())


def quote(text: str) -> str:
    """As a quoted string (RFC 3261 25.1), which cannot hold a line break: that becomes a blank."""
    return '"' + re.sub(r"\s*[\r\n]+\s*", " ", text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquote(text: str) -> str:
    """Without its quotes, when it has any."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def number(text: str, most: int) -> int:
    """Decimal digits from 0 to `most`; padding around and before them is allowed."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > most:
        raise Malformed(f"Not a number from 0 to {most}")
    return int(text)


def host_port(text: str) -> tuple[str, int | None]:
    """`host[:port]`; an IPv6 host keeps its brackets."""
    text = text.strip()
    match = HOST.match(text)
    if not match:
        raise Malformed("There is no proper host")
    rest = text[match.end() :].strip()
    if not rest:
        return match[0], None
    if rest[0] != ":":
        raise Malformed("There is no proper host")
    port = number(rest[1:], 65535)
    if not port:
        raise Malformed("Port 0 cannot be reached")
    return match[0], port
