"""SIP messages: read from bytes, written to bytes, answered (RFC 3261 7, 8.2.6, 18.3).

One datagram is one message. Headers are text: UTF-8, or Latin-1 when the sender does not write UTF-8, and
go back the way they came. Bodies are bytes. Content-Length is checked when read and made when written,
so it is not among the headers. Via, Route, Record-Route and Contact are split into their elements.

`read` raises `Unreadable`, which carries as much of a request as is needed to answer it.
Replaces `twisted.protocols.sip.MessagesParser`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from twisted.protocols import sip

from extenbot.errors import Malformed, Misuse
from extenbot.sip import grammar
from extenbot.sip.headers import CSeq, NameAddr, Via, name_addr
from extenbot.sip.uri import Uri

T = TypeVar("T")
PHRASES = sip.statusCodes | {
    199: "Early Dialog Terminated",
    202: "Accepted",
    204: "No Notification",
    412: "Conditional Request Failed",
    417: "Unknown Resource-Priority",
    422: "Session Interval Too Small",
    428: "Use Identity Header",
    429: "Provide Referrer Identity",
    433: "Anonymity Disallowed",
    439: "First Hop Lacks Outbound Support",
    469: "Bad Info Package",
    470: "Consent Needed",
    489: "Bad Event",
    494: "Security Agreement Required",
    580: "Precondition Failure",
    607: "Unwanted",
    608: "Rejected",
}

_LISTS = frozenset({"via", "route", "record-route", "contact"})
_ONCE = ("from", "to", "call-id", "cseq")
END = re.compile(rb"\r?\n\r?\n")
"""The end of the head."""
LARGEST = 65535  # bytes of a body; no datagram can hold more
SHORT = 40  # characters of a header name that is remembered: strangers choose them
_FOLD = re.compile(r"\r?\n[ \t]+")
_STATUS = re.compile(r"([^ ]+) +([1-6]\d\d)(?: (.*))?")


class Unreadable(Malformed):
    """What came is no message; `request` is what could be read when it can be answered."""

    def __init__(self, words: str, code: int | None = None, request: Request | None = None) -> None:
        super().__init__(words, code)
        self.request = request


class Message(sip.Message):
    """What requests and responses share. Header names are any case or compact, values are text."""

    body: bytes  # type: ignore[assignment]
    headers: dict[str, list[str]]  # type: ignore[assignment]

    def _begin(self) -> None:
        self.headers = {}
        self.body = b""
        self.encoding = "utf-8"
        self._taken_apart: dict[str, tuple[str, Any]] = {}

    def first(self, name: str) -> str | None:
        values = self.headers.get(name) or self.headers.get(grammar.header_name(name))
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """Its values in order; Via, Route, Record-Route and Contact one per element."""
        return list(self.headers.get(grammar.header_name(name), ()))

    def tokens(self, name: str) -> list[str]:
        """The elements of a comma list that may stand on several lines, such as Require."""
        return [token for value in self.all(name) for token in grammar.listed(value)]

    def add(self, name: str, value: str) -> None:
        self.headers.setdefault(grammar.header_name(name), []).append(value)

    def set(self, name: str, value: str) -> None:
        self.headers[grammar.header_name(name)] = [value]

    def remove(self, name: str) -> None:
        self.headers.pop(grammar.header_name(name), None)

    def addHeader(self, name: str, value: str) -> None:
        self.add(name, value)

    def _needed(self, name: str) -> str:
        value = self.first(name)
        if value is None:
            raise Malformed(f"There is no {grammar.spelled(name)}")
        return value

    def _read(self, name: str, read: Callable[[str], T]) -> T:
        """A header taken apart; it is done once, as long as the header stays the same."""
        text = self._needed(name)
        known = self._taken_apart.get(name)
        if known is not None and known[0] == text:
            found: T = known[1]
            return found
        value = read(text)
        self._taken_apart[name] = text, value
        return value

    @property
    def call_id(self) -> str:
        return self._needed("call-id")

    @property
    def cseq(self) -> CSeq:
        return self._read("cseq", CSeq.read)

    @property
    def from_(self) -> NameAddr:
        return self._read("from", name_addr)

    @property
    def to(self) -> NameAddr:
        return self._read("to", name_addr)

    @property
    def via(self) -> Via:
        """The topmost."""
        return self._read("via", Via.read)

    def toString(self) -> str:
        """The text of the head; `write` is for the wire."""
        lines = [self._getHeaderLine()]
        for name, values in self.headers.items():
            spelled = grammar.spelled(name)
            lines += [f"{spelled}: {value}" for value in values]
        lines.append(f"Content-Length: {len(self.body)}\r\n\r\n")
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) + 1 or text.count("\r") != len(lines) + 1:
            raise Misuse("A header value with a line break was to be sent")
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and write(self) == write(other)

    __hash__ = None  # type: ignore[assignment]


class Request(Message, sip.Request):
    """A request; `uri` is taken apart."""

    method: str
    uri: Uri

    def __init__(self, method: str, uri: Uri | str) -> None:
        sip.Request.__init__(self, method, uri if isinstance(uri, Uri) else Uri.read(uri))
        self._begin()

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"


class Response(Message, sip.Response):
    """A response; without a phrase it gets the usual one for its code."""

    code: int
    phrase: str

    def __init__(self, code: int, phrase: str | None = None) -> None:
        if phrase is None:
            phrase = PHRASES.get(code) or "Unknown"
        sip.Response.__init__(self, code, phrase)
        self._begin()

    def __repr__(self) -> str:
        return f"<Response {self.code} {self.phrase}>"


def write(message: Message) -> bytes:
    """For the wire. `Misuse` when a value holds a line break, so nothing copied can add a header."""
    return message.toString().encode(message.encoding, "replace") + message.body


def read(data: bytes) -> Request | Response:
    """The one message of a datagram; `Unreadable` and nothing else when it is none."""
    end = END.search(data := data.lstrip(b"\r\n"))
    head = data[: end.start()] if end else data
    try:
        text, encoding = head.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        text, encoding = head.decode("latin-1"), "latin-1"
    start, *lines = re.split(r"\r?\n", _FOLD.sub(" ", text))
    problems: list[Malformed] = []
    if not end:
        problems.append(Malformed("The message has no end of headers"))
    message = _start(start, problems)
    message.encoding = encoding
    length = _headers(message, lines, problems)
    rest = data[end.end() :] if end else b""
    if length is not None and length > len(rest):
        problems.append(Malformed("The message is shorter than its Content-Length"))
    message.body = rest if length is None else rest[:length]
    _check(message, problems)
    if problems:
        request = message if isinstance(message, Request) and _answerable(message) else None
        raise Unreadable(str(problems[0]), problems[0].code, request) from None
    return message


def _start(line: str, problems: list[Malformed]) -> Request | Response:
    """RFC 3261 7.1, 7.2. Without a start there is nothing to answer."""
    if line[:4].upper() == "SIP/":
        status = _STATUS.fullmatch(line)
        if not status or status[1].upper() != "SIP/2.0" or "\r" in line:
            raise Unreadable("The status line cannot be read")
        return Response(int(status[2]), status[3] or "")
    method, _, rest = line.rstrip(" ").partition(" ")
    uri, _, version = rest.rpartition(" ")
    if line.endswith(" "):
        problems.append(Malformed("There are blanks after the request line"))
    if not grammar.TOKEN.fullmatch(method) or not re.fullmatch(r"SIP/\d+\.\d+", version, re.IGNORECASE):
        raise Unreadable("The request line cannot be read")
    if version.upper() != "SIP/2.0":
        problems.append(Malformed("Only SIP/2.0 is spoken here", 505))
    try:
        return Request(method, Uri.read(uri))
    except Malformed as error:
        problems.append(error)
        return Request(method, Uri("invalid.invalid"))


@lru_cache(1024)
def _header(name: str) -> str:
    """The long name of what stands before a colon; empty when that is none."""
    name = name.rstrip(" \t")
    return grammar.header_name(name) if grammar.TOKEN.fullmatch(name) else ""


def _headers(message: Message, lines: Iterable[str], problems: list[Malformed]) -> int | None:
    """Fill in the headers (RFC 3261 7.3); the Content-Length, None when there is none."""
    length: int | None = None
    for line in lines:
        name, colon, value = line.partition(":")
        value = value.strip(" \t")
        name = _header(name) if len(name) < SHORT else _header.__wrapped__(name)
        if not colon or not name or "\r" in value:
            problems.append(Malformed("A header line cannot be read"))
            continue
        try:
            if name == "content-length":
                stated = _whole(name, value, 2**31 - 1)
                if length not in (None, stated):
                    raise Malformed("There are two different Content-Lengths")
                length = stated
                if length > LARGEST:
                    raise Malformed("The body is too large", 513)
            elif name in _LISTS:
                for element in grammar.listed(value):
                    message.add(name, element)
            else:
                message.add(name, value)
        except Malformed as error:
            problems.append(error)
    return length


def _check(message: Message, problems: list[Malformed]) -> None:
    """What every message must have (RFC 3261 8.1.1)."""
    twice = (name for name in _ONCE if len(message.all(name)) > 1)
    problems += [Malformed(f"There is more than one {grammar.spelled(name)}") for name in twice]
    try:
        if message.via.version != "2.0":
            raise Malformed("Only SIP/2.0 is spoken here", 505)
        for hop in message.headers["via"][1:]:  # they go back as they came
            Via.read(hop)
        _ = message.from_, message.to
        if not message.call_id:
            raise Malformed("Call-ID is empty")
        cseq = message.cseq
        if isinstance(message, Request) and cseq.method != message.method:
            raise Malformed("The method of CSeq is another one")
        if (hops := message.first("max-forwards")) is not None:
            _whole("max-forwards", hops, 255)
    except Malformed as error:
        problems.append(error)


def _whole(name: str, value: str, most: int) -> int:
    try:
        return grammar.number(value, most)
    except Malformed:
        raise Malformed(f"{grammar.spelled(name)} is not a number from 0 to {most}") from None


def _answerable(request: Request) -> bool:
    """Whether there is a Via to answer; of the other headers we give back what there is (RFC 4475 3.3.1)."""
    try:
        return bool(request.via) and request.method != "ACK"
    except Malformed:
        return False


def answer(
    request: Request,
    code: int,
    words: str = "",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    content_type: str = "",
    to_tag: str = "",
) -> Response:
    """A response that copies what RFC 3261 8.2.6.2 says; `to_tag` is added when To has none."""
    response = Response(code, words or None)
    response.encoding = request.encoding
    for name in ("via", "from", "to", "call-id", "cseq"):
        if values := request.all(name):
            response.headers[name] = values
    if code == 100 and (stamp := request.first("timestamp")):
        response.set("timestamp", stamp)
    if to_tag and code > 100:
        give_tag(response, to_tag)
    for name, value in headers:
        response.add(name, value)
    if body:
        response.set("content-type", content_type)
        response.body = body
    return response


def renumbered(request: Request, number: int) -> Request:
    """The same request under another CSeq."""
    again = Request(request.method, request.uri)
    again.encoding, again.body = request.encoding, request.body
    again.headers = {name: list(values) for name, values in request.headers.items()}
    again.set("cseq", f"{number} {request.method}")
    return again


def give_tag(response: Response, tag: str) -> None:
    """Add our tag to To, unless it has one (RFC 3261 8.2.6.2)."""
    value = response.first("to") or ""
    if not value:  # nor had the request
        return
    try:
        tagged = bool(name_addr(value).tag)
    except Malformed:  # a 400 for what we could not read: give back what came
        return
    if not tagged:
        response.set("to", f"{value};tag={tag}")
