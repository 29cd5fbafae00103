"""Audio to a browser: a whole file or the part that the player asks for (RFC 9110 14), as fast as it takes it.

`twisted.web.static.File` would read the disk where audio of calls is waiting.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.web.http import Request
from zope.interface import implementer

_CHUNK = 256 * 1024
_ASKED = re.compile(r"bytes=([0-9]{1,15})?-([0-9]{1,15})?", re.ASCII | re.IGNORECASE)


def part_asked(request: Request, size: int) -> range:
    """Which bytes of `size` to send; says so in the head of the answer. More than one part is not for us."""
    request.setHeader("Content-Type", "audio/wav")
    request.setHeader("Accept-Ranges", "bytes")
    asked = _ASKED.fullmatch((request.getHeader("range") or "").replace(" ", ""))
    part = range(size)
    if asked and any(asked.groups()):
        first, last = asked.groups()
        if first is None:
            part = range(max(0, size - int(last)), size)
        else:
            part = range(int(first), min(size, int(last) + 1) if last else size)
        if not part and last and first and int(last) < int(first):  # nonsense: as if nothing had been asked
            part = range(size)
        elif not part:
            request.setResponseCode(416)
            request.setHeader("Content-Range", f"bytes */{size}")
        else:
            request.setResponseCode(206)
            request.setHeader("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
    request.setHeader("Content-Length", str(len(part)))
    return part


async def send_file(request: Request, run: Callable[..., Deferred[Any]], path: Path) -> bytes:
    """The file at `path`; `run` is where disks may be waited for."""
    part = part_asked(request, await run(_size, path))
    if request.method == b"HEAD":
        return b""
    browser = _Browser()
    request.registerProducer(browser, True)
    while part:
        await browser.ready()
        chunk = b"" if browser.gone else await run(_read, path, part.start, min(_CHUNK, len(part)))
        if browser.gone or not chunk:
            break
        request.write(chunk)
        part = part[len(chunk) :]
    if not browser.gone:
        request.unregisterProducer()
    return b""


def _size(path: Path) -> int:
    return path.stat().st_size


def _read(path: Path, start: int, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)
    except OSError:  # deleted meanwhile: the browser sees that it is not whole
        return b""


@implementer(IPushProducer)
class _Browser:
    """Whether the other end takes more."""

    def __init__(self) -> None:
        self.gone = False
        self._full = False
        self._waiting: Deferred[None] | None = None

    async def ready(self) -> None:
        if self._full:
            self._waiting = Deferred()
            await self._waiting

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:
        self.gone = True
        self.resumeProducing()
