"""Messages between the service and its speech process: a JSON head and bytes, both with their length in front."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from extenbot.errors import Malformed
from extenbot.interfaces import Json

_LENGTHS = struct.Struct("!II")
MOST = 64 << 20  # bytes of one message


def pack(head: Json, body: bytes = b"") -> bytes:
    """One message."""
    text = json.dumps(head).encode()
    return _LENGTHS.pack(len(text), len(body)) + text + body


class Unpacker:
    """Bytes in, in any pieces, messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def received(self, data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The messages complete by now; `Malformed` when the other end has lost its mind."""
        self._buffer += data
        while len(self._buffer) >= _LENGTHS.size:
            text, body = _LENGTHS.unpack_from(self._buffer)
            if text + body > MOST:
                raise Malformed("a message of the speech process is too long")
            end = _LENGTHS.size + text + body
            if len(self._buffer) < end:
                return
            head = json.loads(self._buffer[_LENGTHS.size : _LENGTHS.size + text])
            payload = bytes(self._buffer[_LENGTHS.size + text : end])
            del self._buffer[:end]
            yield head, payload
