"""Recordings of calls as WAV files: written beside the calls, never in their way.

A call's file is FOLDER/year/month/CALL.wav (UTC), which only the service can read. Whatever happens to the disk, a call
goes on: `Recording` (`interfaces.Recording`) never raises and never blocks. All that has come since the last time goes
to the thread pool in one job, so a disk that hangs holds one thread and not all of them. The header is set right at
each write: what is there can be played also while the call is up, and after the process has died.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from extenbot.interfaces import Recording
from extenbot.media.recording import FRAME, HEADER, header
from extenbot.store.writing import Run

MOST_WAITING = 30 * 8000 * FRAME
"""Bytes of one call that may wait for the disk: half a minute."""

DAY = 86400.0
_NAME = re.compile(r"[0-9A-Za-z]{1,64}")


class File(Protocol):
    """The file as we use it: unbuffered."""

    def write(self, data: bytes, /) -> int | None: ...

    def seek(self, offset: int, /) -> int: ...

    def truncate(self, size: int, /) -> int: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


def open_file(path: Path) -> File:
    """A new file that only we can read, in a folder of the same kind."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b", buffering=0)


class _Take:
    """The recording of one call; implements `interfaces.Recording`. Only `save` runs in the thread pool."""

    log = Logger()

    def __init__(
        self,
        path: Path,
        opened: Callable[[Path], File],
        failed: Callable[[str], None],
        wants: Callable[[_Take], None],
    ) -> None:
        self._path = path
        self._opened = opened
        self._failed = failed
        self._wants = wants
        self._queue: list[bytes | int] = []  # frames, or how many bytes of them were lost
        self._waiting = 0  # bytes
        self._late = False
        self.closed = False
        self._file: File | None = None
        self._size = 0  # of the sound in the file, bytes

    def write(self, frames: bytes) -> None:
        """Keep it for the disk. Where that is too slow silence takes its place, and what follows stays where it was."""
        if self.closed:
            return
        if self._waiting + len(frames) <= MOST_WAITING:
            self._queue.append(frames)
            self._waiting += len(frames)
            self._wants(self)
            return
        if not self._late:
            self._late = True
            self.log.warn("The disk is too slow for the recording {file}: parts of it are lost", file=self._path.name)
        last = self._queue[-1]
        if isinstance(last, int):
            self._queue[-1] = last + len(frames)
        else:
            self._queue.append(len(frames))

    def close(self) -> None:
        """Nothing more will come."""
        if not self.closed:
            self.closed = True
            self._wants(self)

    def fail(self, words: str) -> None:
        """Writing has stopped."""
        self.closed = True
        self._queue = []
        self.log.error("{file}: {words}", file=str(self._path), words=words)
        try:
            self._failed(words)
        except Exception:  # noqa: BLE001 — the other recordings go on
            self.log.failure("That {file} has failed was not taken up", file=str(self._path))

    def waiting(self) -> list[bytes | int]:
        """What is for the disk now; it is out of the queue then."""
        queue, self._queue, self._waiting = self._queue, [], 0
        return queue

    def save(self, queue: list[bytes | int], last: bool) -> str:
        """Write that, and after the `last` close the file; why that could not be, or nothing. Blocks."""
        words = ""
        try:
            if queue:
                self._append(queue)
        except OSError as error:
            words = f"The recording cannot be written: {error.strerror or error}."
        if (words or last) and self._file is not None:
            with suppress(OSError):
                self._file.close()
                if not self._size:
                    self._path.unlink()
            self._file = None
        return words

    def _append(self, queue: list[bytes | int]) -> None:
        if self._file is None:
            self._file = self._opened(self._path)
            self._file.seek(HEADER)
        try:
            for part in queue:
                if isinstance(part, int):
                    self._size += part
                    self._file.truncate(HEADER + self._size)  # what is added is read as silence
                    self._file.seek(HEADER + self._size)
                else:
                    _write(self._file, part)
                    self._size += len(part)
        finally:
            self._file.truncate(HEADER + self._size)  # a full disk may have taken a part of a part
            self._file.seek(0)
            _write(self._file, header(self._size // FRAME))
            self._file.seek(HEADER + self._size)
        if os.fstat(self._file.fileno()).st_nlink == 0:
            raise OSError("the file has been removed")


def _write(file: File, data: bytes) -> None:
    while data:
        written = file.write(data)
        if not written:
            raise OSError("the disk takes nothing more")
        data = data[written:]


def find(folder: Path, call_id: str) -> Path | None:
    """The recording of that call, if there is one in the folder of all."""
    return next(folder.glob(f"*/*/{call_id}.wav"), None) if _NAME.fullmatch(call_id) else None


class Recordings:
    """All recordings. `path`, `remove` and `expire` block."""

    log = Logger()

    def __init__(
        self,
        folder: Path,
        days: int,
        run: Run,
        clock: Any,
        now: Callable[[], float] = time.time,
        opened: Callable[[Path], File] = open_file,
    ) -> None:
        """`days`: recordings are deleted after that; 0: never."""
        self._folder = folder
        self._days = days
        self._run = run
        self._now = now
        self._opened = opened
        self._open: set[_Take] = set()
        self._wanting: dict[_Take, None] = {}  # who has something for the disk, in order
        self._busy = False
        self._idle: Deferred[None] | None = None
        self._expiring = LoopingCall(self._expire)
        self._expiring.clock = clock

    def begin(self, call_id: str, failed: Callable[[str], None]) -> Recording:
        """`interfaces.Record`. Nothing is on the disk before the first frames."""
        path = self._folder / f"{datetime.fromtimestamp(self._now(), UTC):%Y/%m}" / f"{call_id}.wav"
        take = _Take(path, self._opened, failed, self._want)
        self._open.add(take)
        return take

    def start(self) -> None:
        """Delete what is too old, now and once a day."""
        if self._days:
            self._expiring.start(DAY)

    async def stop(self) -> None:
        """Close all that are open, when what waits has been written."""
        if self._expiring.running:
            self._expiring.stop()
        for take in tuple(self._open):
            take.close()
        if self._busy:
            self._idle = Deferred()
            await self._idle

    def path(self, call_id: str) -> Path | None:
        """The file of that call; also while it is being made."""
        return find(self._folder, call_id)

    def remove(self, call_id: str) -> bool:
        """Delete the recording of that call; whether there was one. `OSError` when that cannot be."""
        found = self.path(call_id)
        if found is not None:
            found.unlink(missing_ok=True)
        return found is not None

    def expire(self) -> int:
        """Delete what is too old; how many that were."""
        oldest = self._now() - self._days * DAY
        gone = 0
        for path in self._folder.glob("[0-9][0-9][0-9][0-9]/[0-9][0-9]/*.wav"):
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    gone += 1
            except OSError as error:
                self.log.warn("An old recording cannot be deleted: {error}", error=str(error))
        return gone

    async def _expire(self) -> None:
        try:
            gone = await self._run(self.expire)
        except Exception:  # noqa: BLE001 — tomorrow is another day
            self.log.failure("Old recordings cannot be deleted")
        else:
            if gone:
                self.log.info("{count} recordings were older than {days} days: deleted", count=gone, days=self._days)

    # -- The disk --

    def _want(self, take: _Take) -> None:
        self._wanting[take] = None
        if not self._busy:
            self._go()

    def _go(self) -> None:
        self._busy = True
        takes, self._wanting = list(self._wanting), {}
        jobs = [(take, take.waiting(), take.closed) for take in takes]
        done = self._run(_save, jobs)
        done.addErrback(lambda failure: dict.fromkeys(takes, failure.getErrorMessage()))
        done.addCallback(self._saved, [take for take, _queue, last in jobs if last])
        done.addErrback(lambda failure: self.log.failure("Recordings are no longer written", failure))

    def _saved(self, failed: Mapping[_Take, str], closed: Iterable[_Take]) -> None:
        self._open.difference_update(closed, failed)
        for take, words in failed.items():
            self._wanting.pop(take, None)
            take.fail(words)
        if self._wanting:
            self._go()
            return
        self._busy = False
        if self._idle is not None:
            self._idle.callback(None)


def _save(jobs: Iterable[tuple[_Take, list[bytes | int], bool]]) -> dict[_Take, str]:
    """Do them all; why those failed that did."""
    found = {take: take.save(queue, last) for take, queue, last in jobs}
    return {take: words for take, words in found.items() if words}
