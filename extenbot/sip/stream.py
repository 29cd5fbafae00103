"""SIP messages out of a stream of bytes, as TCP and TLS bring them (RFC 3261 18.3; RFC 5626 4.4.1).

Bytes in, whole messages out; how they were cut on the way changes nothing. What a message is worth is
`message`'s business: here only its end is found. After a head whose end or whose body's length cannot be
known the stream is `spoiled`: that head comes out too, so that it can be refused, and nothing after it.
"""

from __future__ import annotations

import re

from extenbot.errors import Malformed
from extenbot.sip import grammar
from extenbot.sip.message import END, LARGEST

PING = b"\r\n\r\n"
PONG = b"\r\n"
HEAD = 16384  # bytes that a head may have
_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*:([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE)


class Stream:
    """One direction of one connection. It holds less than a head and a body of the largest size."""

    def __init__(self) -> None:
        self.spoiled = False
        self._buffer = bytearray()
        self._seen = 0  # of the buffer: the end of the head is not before
        self._whole = 0  # bytes that the message has whose head has come

    @property
    def waiting(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._buffer.strip(b"\r\n"))

    def received(self, data: bytes) -> list[bytes]:
        """The messages that are complete now, and `PING` for each double line break between them."""
        found: list[bytes] = []
        if self.spoiled:
            return found
        self._buffer += data
        while (message := self._next()) is not None:
            found.append(message)
        return found

    def _next(self) -> bytes | None:
        buffer = self._buffer
        if not self._whole:
            if buffer.startswith(PING):
                del buffer[: len(PING)]
                return PING
            while buffer.startswith((b"\r", b"\n")) and not PING.startswith(buffer):
                del buffer[:1]  # RFC 3261 7.5
            if buffer.startswith(PING):
                return self._next()
            if PING.startswith(buffer):
                return None
            end = END.search(buffer, max(0, self._seen - 3))
            if not end or end.end() > HEAD:
                self._seen = len(buffer)
                return self._spoil(HEAD) if end or len(buffer) > HEAD else None
            try:
                self._whole = end.end() + _length(buffer[: end.end()])
            except Malformed:
                return self._spoil(end.end())
            self._seen = 0
        if len(buffer) < self._whole:
            return None
        return self._cut(self._whole)

    def _spoil(self, size: int) -> bytes:
        self.spoiled = True
        head = self._cut(size)
        self._buffer.clear()
        return head

    def _cut(self, size: int) -> bytes:
        message = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._whole = self._seen = 0
        return message


def _length(head: bytes | bytearray) -> int:
    """The Content-Length; without one there is no body (RFC 3261 20.14 demands one, not all write it)."""
    stated = {grammar.number(text.decode("latin-1"), LARGEST) for text in _LENGTH.findall(head)}
    if len(stated) > 1:
        raise Malformed("There are two different Content-Lengths")
    return stated.pop() if stated else 0
