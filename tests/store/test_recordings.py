"""Recordings of calls: what is on the disk, and that no disk harms a call."""

from __future__ import annotations

import errno
import os
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from extenbot.media.recording import FRAME
from extenbot.store.recordings import DAY, MOST_WAITING, File, Recordings, open_file
from tests.store.inline import InlineReactor, new_folder

NOW = 1_795_377_923.0  # in November 2026
SECOND = bytes(range(200)) * (8000 * FRAME // 200)


class Disk:
    """Runs what is to be written when it is told to; as `stuck` it waits."""

    def __init__(self) -> None:
        self.stuck = False
        self.waiting: list[Callable[[], None]] = []

    def run(self, function: Callable[..., Any], /, *args: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append(lambda: done.callback(function(*args)))
        self.go()
        return done

    def go(self) -> None:
        while self.waiting and not self.stuck:
            self.waiting.pop(0)()


class Full:
    """A file on a disk that has room for so many bytes."""

    room = 0

    def __init__(self, path: Path) -> None:
        self._file = open_file(path)
        self._left = Full.room

    def write(self, data: bytes, /) -> int:
        if self._left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._file.write(data[: min(self._left, 1000)]) or 0  # never all at once
        self._left -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class RecordingsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self) / "recordings"
        self.reactor, self.disk = InlineReactor(), Disk()
        self.failed: list[str] = []
        self.made = self.recordings()

    def recordings(self, opened: Callable[[Path], File] = open_file, days: int = 0) -> Recordings:
        made = Recordings(self.folder, days, self.disk.run, self.reactor, lambda: NOW, opened)
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(made.stop())))
        return made

    def begin(self, call_id: str = "c1") -> Any:
        return self.made.begin(call_id, self.failed.append)

    def sound(self, call_id: str = "c1") -> bytes:
        """What any program hears that opens the file now."""
        path = self.made.path(call_id)
        assert path is not None
        with wave.open(str(path)) as file:
            self.assertEqual(file.getparams()[:3], (2, 2, 8000))
            self.assertEqual(file.getnframes(), (path.stat().st_size - 44) // FRAME)
            return bytes(file.readframes(file.getnframes()))

    def test_written(self) -> None:
        """A WAV file a call, which can be played while the call goes on and for ever after, by its owner only."""
        take = self.begin()
        self.assertIsNone(self.made.path("c1"))
        take.write(SECOND)
        self.assertEqual(self.sound(), SECOND)
        take.write(SECOND[:FRAME])
        self.assertEqual(self.sound(), SECOND + SECOND[:FRAME])
        take.close()
        take.write(SECOND)
        take.close()
        self.assertEqual(self.sound(), SECOND + SECOND[:FRAME])
        path = self.made.path("c1")
        assert path is not None
        self.assertEqual(path, self.folder / "2026" / "11" / "c1.wav")
        self.assertEqual((path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777), (0o600, 0o700))
        self.assertEqual(self.failed, [])

    def test_nothing_said(self) -> None:
        """A call without any sound leaves no file."""
        self.begin().close()
        self.assertFalse(self.folder.exists())

    def test_names(self) -> None:
        """Only calls have recordings: no other file is found or deleted, whatever is asked for."""
        take = self.begin()
        take.write(SECOND)
        (outside := self.folder / "2026" / "secret.wav").write_text("")
        for name in ("../secret", "*", "", "c", "/etc/passwd", "c1.wav", "c1\0"):
            self.assertIsNone(self.made.path(name), name)
            self.assertFalse(self.made.remove(name))
        self.assertTrue(outside.exists())
        take.close()
        self.assertTrue(self.made.remove("c1"))
        self.assertFalse(self.made.remove("c1"))

    def test_in_order(self) -> None:
        """While the disk is slow the frames wait, and then stand in the file in their order, of each call its own."""
        self.disk.stuck = True
        takes = [self.begin("a"), self.begin("b")]
        parts = [bytes([number]) * FRAME for number in range(20)]
        for part in parts:
            for take in takes:
                take.write(part)
        for take in takes:
            take.close()
        self.assertEqual(len(self.disk.waiting), 1)  # and no more threads than that
        self.disk.stuck = False
        self.disk.go()
        self.assertEqual((self.sound("a"), self.sound("b")), (b"".join(parts),) * 2)

    def test_too_slow(self) -> None:
        """What a slow disk cannot take is silence in the recording; the rest stays in its place, memory is bounded."""
        take = self.begin()
        take.write(SECOND)
        self.disk.stuck = True
        for _ in range(36):  # one is on its way to the disk, thirty wait, five are too many
            take.write(SECOND)
        self.disk.stuck = False
        self.disk.go()
        take.write(SECOND)
        take.close()
        self.assertEqual(MOST_WAITING, 30 * len(SECOND))
        self.assertEqual(self.sound(), SECOND * 32 + bytes(5 * len(SECOND)) + SECOND)
        self.assertEqual(self.failed, [])

    def test_disk_full(self) -> None:
        """On a full disk the recording ends, which is told once in words; what is there can be played."""
        Full.room = 50_000
        self.made = self.recordings(Full)
        take = self.begin()
        for _ in range(3):
            take.write(SECOND)
        take.close()
        self.assertEqual(self.failed, ["The recording cannot be written: No space left on device."])
        path = self.made.path("c1")
        assert path is not None
        with wave.open(str(path)) as file:
            self.assertEqual(file.readframes(file.getnframes()), SECOND)

    def test_disk_full_from_the_start(self) -> None:
        """A disk that is full already holds no empty file afterwards; other calls are still recorded."""
        Full.room = 0
        self.made = self.recordings(lambda path: Full(path) if path.stem == "c1" else open_file(path))
        self.disk.stuck = True
        takes = [self.begin("c1"), self.begin("c2")]
        for take in takes:
            take.write(SECOND)
        self.disk.stuck = False
        self.disk.go()
        takes[1].write(SECOND)
        self.assertEqual(len(self.failed), 1)
        self.assertIsNone(self.made.path("c1"))
        self.assertEqual(self.sound("c2"), SECOND * 2)

    def test_unwritable_folder(self) -> None:
        """A folder that cannot be made is told in words."""
        self.folder.write_text("this is a file")
        take = self.begin()
        take.write(SECOND)
        self.assertEqual(self.failed, ["The recording cannot be written: Not a directory."])
        take.write(SECOND)
        take.close()
        self.assertEqual(len(self.failed), 1)

    def test_vanished(self) -> None:
        """A recording that somebody deletes during the call is not gone on with unseen."""
        take = self.begin()
        take.write(SECOND)
        self.made.remove("c1")
        take.write(SECOND)
        take.write(SECOND)
        self.assertEqual(self.failed, ["The recording cannot be written: the file has been removed."])
        self.assertIsNone(self.made.path("c1"))

    def test_never_over_another(self) -> None:
        """No recording is written over."""
        self.begin().write(SECOND)
        self.begin().write(SECOND[:FRAME])
        self.assertEqual(self.failed, ["The recording cannot be written: File exists."])
        self.assertEqual(self.sound(), SECOND)

    def test_listener_that_fails(self) -> None:
        """A fault in who is told of a failure does not stop the other recordings."""
        self.folder.write_text("this is a file")

        def fail(_words: str) -> None:
            raise ZeroDivisionError

        self.made.begin("c1", fail).write(SECOND)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.folder.unlink()
        self.begin("c2").write(SECOND)
        self.assertEqual(self.sound("c2"), SECOND)

    def test_stop(self) -> None:
        """When the service stops, what waits is written first."""
        self.disk.stuck = True
        take = self.begin()
        take.write(SECOND)
        stopped = Deferred.fromCoroutine(self.made.stop())
        self.assertNoResult(stopped)
        self.disk.stuck = False
        self.disk.go()
        self.successResultOf(stopped)
        self.assertEqual(self.sound(), SECOND)
        self.successResultOf(Deferred.fromCoroutine(self.made.stop()))

    def test_old_ones(self) -> None:
        """Recordings are deleted after so many days, at the start and then once a day; nothing else is."""
        self.made = self.recordings(days=30)
        for name in ("c1", "c2", "c3"):
            self.begin(name).write(SECOND)
        for name, age in (("c1", 31.0), ("c2", 29.5)):
            path = self.made.path(name)
            assert path is not None
            os.utime(path, (NOW - age * DAY,) * 2)
        (other := self.folder / "2026" / "11" / "note.txt").write_text("x")
        os.utime(other, (0, 0))
        self.made.start()
        self.assertEqual([bool(self.made.path(name)) for name in ("c1", "c2", "c3")], [False, True, True])
        path = self.made.path("c2")
        assert path is not None
        os.utime(path, (NOW - 31 * DAY,) * 2)
        self.reactor.advance(DAY)
        self.assertIsNone(self.made.path("c2"))
        self.assertTrue(other.exists())
        self.successResultOf(Deferred.fromCoroutine(self.made.stop()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_kept(self) -> None:
        """Without a number of days nothing is deleted."""
        self.begin().write(SECOND)
        path = self.made.path("c1")
        assert path is not None
        os.utime(path, (0, 0))
        self.made.start()
        self.assertTrue(path.exists())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
