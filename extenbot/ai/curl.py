"""A pasted curl command as the request that it would send. Nothing is executed, and no file is read."""

from __future__ import annotations

import re
import shlex
from base64 import b64encode
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from extenbot.errors import Invalid

LONGEST = 64 * 1024
"""Characters of a command."""

_SHORT = dict.fromkeys("sSviLkfgN#01246jq", "quiet") | {
    "A": "user-agent",
    "E": "cert",
    "F": "form",
    "G": "get",
    "H": "header",
    "I": "head",
    "K": "config",
    "T": "upload-file",
    "X": "request",
    "b": "cookie",
    "c": "cookie-jar",
    "d": "data",
    "e": "referer",
    "m": "max-time",
    "o": "output",
    "r": "range",
    "u": "user",
    "w": "write-out",
    "x": "proxy",
}
_DATA = frozenset({"data", "data-raw", "data-ascii", "data-binary", "data-urlencode", "json"})
_VALUES = _DATA | {"request", "header", "user", "url", "user-agent", "referer", "cookie", "max-time", "oauth2-bearer"}
_IGNORED_VALUES = frozenset(
    {"output", "write-out", "cookie-jar", "connect-timeout", "retry", "retry-delay", "max-redirs"}
)
_REFUSED = {
    **dict.fromkeys(("form", "form-string"), "Forms with parts are not sent: only JSON is."),
    "upload-file": "Files are not sent: only JSON is.",
    "proxy": "Requests do not go through a proxy of your choice.",
    "config": "Files are not read: paste the whole command.",
    "cert": "Client certificates are not used.",
    "range": "A part of a reply cannot be asked for.",
}
_QUIET = re.compile(
    r"silent|show-error|verbose|include|location|insecure|fail(-with-body)?|globoff|no-buffer|compressed|http[123].*|ipv[46]"
    r"|progress-bar|no-progress-meter|post30[12]|tlsv1.*|ssl"
)
_ANSI = re.compile(r"\$'((?:\\.|[^'\\])*)'", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{1,4})|x([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_METHOD = re.compile(r"[A-Za-z]{1,16}")


class Request(NamedTuple):
    """What the command would send."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    token: str  # of an Authorization: Bearer
    body: str
    timeout: str  # seconds, as it is written


def read(text: str) -> Request:
    """The request of a command; `Invalid` {"curl": …}."""
    given: dict[str, list[str]] = {}
    for option, value in _options(_words(text)):
        given.setdefault(option, []).append(value)
    urls = given.get("url", [])
    if len(urls) != 1:
        raise _wrong("It has no URL." if not urls else "It has more than one URL: paste one request at a time.")
    headers = [_header(line) for line in given.get("header", ()) if line.strip(" ;")]
    headers += [
        (name, given[option][-1])
        for option, name in (("user-agent", "User-Agent"), ("referer", "Referer"), ("cookie", "Cookie"))
        if option in given
    ]
    token = "".join(given.get("oauth2-bearer", ())[-1:])
    for name, value in headers:
        if name.lower() == "authorization" and value.lower().startswith("bearer "):
            token = value[7:].strip()
    headers = [pair for pair in headers if pair[0].lower() != "authorization" or not token]
    if "user" in given:
        headers.append(("Authorization", "Basic " + b64encode(given["user"][-1].encode()).decode()))
    data = [part for option, parts in given.items() if option in _DATA for part in parts]
    for part in data:
        if part.startswith("@"):
            raise _wrong(f"{part[:60]} is a file: paste what stands in it instead.")
    url, body = _url(urls[0]), "&".join(data)
    if "get" in given and body:
        url, body = url + ("&" if urlsplit(url).query else "?") + body, ""
    usual = "HEAD" if "head" in given else "POST" if body else "GET"
    method = "".join(given.get("request", ())[-1:]).upper() or usual
    if not _METHOD.fullmatch(method):
        raise _wrong(f"{method[:20]} is no method.")
    return Request(method, url, tuple(headers), token, body, "".join(given.get("max-time", ())[-1:]))


def _words(text: str) -> list[str]:
    if len(text) > LONGEST:
        raise _wrong(f"It is longer than {LONGEST} characters.")
    text = text.strip().removeprefix("$ ")
    if '^"' in text or re.search(r"\^\r?\n", text):  # made for the command line of Windows
        text = re.sub(r"\^(\r?\n|.)", lambda match: " " if match[1].endswith("\n") else match[1], text)
    text = re.sub(r"\\[ \t]*\r?\n", " ", text)
    text = _ANSI.sub(lambda match: shlex.quote(_ESCAPE.sub(_unescaped, match[1])), text)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _wrong(f"A quote is not closed, or the like: {str(error).lower()}.") from None
    if not words or words[0].rsplit("/", 1)[-1].removesuffix(".exe") != "curl":
        raise _wrong("It must begin with curl.")
    for word in words:
        if word in ("|", "||", "&&", ";", ">", "<", "&"):
            raise _wrong(f"Paste the curl command alone, without {word} and what follows.")
    return words[1:]


def _unescaped(match: re.Match[str]) -> str:
    if match[1] or match[2]:
        return chr(int(match[1] or match[2], 16))
    return {"n": "\n", "t": "\t", "r": "\r"}.get(match[3], match[3])


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Each option by its long name with its value; what is no option is the URL."""
    waiting = iter(words)

    def one(name: str, shown: str, at_hand: str) -> tuple[str, str]:
        if name in _REFUSED:
            raise _wrong(f"{shown}: {_REFUSED[name]}")
        if name not in _VALUES | _IGNORED_VALUES:
            raise _wrong(f"The option {shown[:40]} is not known here: take it away.")
        value = at_hand or next(waiting, None)
        if value is None:
            raise _wrong(f"The option {shown} needs a value.")
        return name, value

    for word in waiting:
        if word.startswith("--") and len(word) > 2:
            name, _, value = word[2:].partition("=")
            if name in ("get", "head"):
                yield name, ""
            elif not _QUIET.fullmatch(name):
                yield one(name, f"--{name}", value)
        elif word.startswith("-") and len(word) > 1:
            for place, letter in enumerate(word[1:], 2):
                name = _SHORT.get(letter, letter)
                if name in ("get", "head"):
                    yield name, ""
                elif name != "quiet":
                    yield one(name, f"-{letter}", word[place:])
                    break
        else:
            yield "url", word


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if line.startswith("@"):
        raise _wrong(f"{line[:60]} is a file: paste what stands in it instead.")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name.strip()):
        raise _wrong(f"{line[:60]} is no header.")
    return name.strip(), value.strip()


def _url(text: str) -> str:
    url = text if "://" in text else f"http://{text}"
    try:
        good = urlsplit(url).scheme.lower() in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        good = False
    if not good:
        raise _wrong(f"{text[:60]} is no URL of a web server.")
    return url


def _wrong(sentence: str) -> Invalid:
    return Invalid({"curl": sentence})
