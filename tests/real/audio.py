"""RTP ends on sockets of their own, in one thread: each talks back to whoever it hears, and notes when packets came."""

from __future__ import annotations

import heapq
import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Address
from extenbot.media import g711
from tests.memory import loudness

FRAME = 0.02
SILENCE = b"\xff" * 160
#: 800 Hz in mu-law, 20 ms: whole waves, so that it can be repeated
LOUD = g711.tone("PCMU", 800, 20)
SO_TIMESTAMPNS = 35
_STAMP = struct.Struct("@ll")
_RTP = struct.Struct("!BBHII")


@dataclass(slots=True)
class End:
    """One end. Times are the kernel's (SO_TIMESTAMPNS), so that our own being late does not count."""

    number: int
    socket: socket.socket
    says: bytes = SILENCE  # repeated, 20 ms at a time
    target: Address | None = None
    sent: int = 0
    received: int = 0
    lost: int = 0
    heard: bytearray = field(default_factory=bytearray)
    gaps: list[float] = field(default_factory=list)  # ms between packets
    last: float = 0.0
    expected: int | None = None

    @property
    def port(self) -> int:
        port: int = self.socket.getsockname()[1]
        return port


class Audio:
    """`count` ends on ports of `host`."""

    def __init__(self, test: SynchronousTestCase, host: str, count: int = 1) -> None:
        self.ends: list[End] = []
        self._news = threading.Condition()
        self._epoll = select.epoll()
        self._stop = os.eventfd(0)
        self._epoll.register(self._stop, select.EPOLLIN)
        for number in range(count):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sock.bind((host, 0))
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            self.ends.append(End(number, sock))
        self._by_file = {end.socket.fileno(): end for end in self.ends}
        self._due: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        test.addCleanup(self.stop)

    def stop(self) -> None:
        """End the thread and close the sockets."""
        if self._thread.is_alive():
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            self._epoll.close()
            os.close(self._stop)
            for end in self.ends:
                end.socket.close()

    def wait_for(self, packets: int, end: int = 0, timeout: float = 10.0) -> None:
        """Wait until this end has heard so many more packets."""
        with self._news:
            want = self.ends[end].received + packets
            if not self._news.wait_for(lambda: self.ends[end].received >= want, timeout):
                raise AssertionError(f"heard {self.ends[end].received} packets, not {want}")

    def wait_for_tone(self, hertz: float, end: int = 0, timeout: float = 10.0) -> None:
        """Wait until the last 200 ms are mostly this tone."""
        with self._news:
            heard = self.ends[end].heard
            if not self._news.wait_for(lambda: loudness(bytes(heard[-1600:]), "PCMU", hertz) > 1000, timeout):
                raise AssertionError(f"no tone of {hertz:g} Hz")

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                when, number = heapq.heappop(self._due)
                self._speak(self.ends[number])
                heapq.heappush(self._due, (when + FRAME, number))
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1
            for file, _ in self._epoll.poll(wait):
                if file == self._stop:
                    return
                self._listen(self._by_file[file])

    def _speak(self, end: End) -> None:
        assert end.target is not None
        packet = _RTP.pack(128, 0, end.sent & 0xFFFF, end.sent * 160 & 0xFFFFFFFF, end.number) + end.says
        end.sent += 1
        end.socket.sendto(packet, end.target)

    def _listen(self, end: End) -> None:
        while True:
            try:
                data, ancillary, _, source = end.socket.recvmsg(2048, 64)
            except BlockingIOError:
                break
            seconds, nanoseconds = _STAMP.unpack(ancillary[0][2])
            self._heard(end, data, source, seconds + nanoseconds * 1e-9)
        with self._news:
            self._news.notify_all()

    def _heard(self, end: End, data: bytes, source: Address, at: float) -> None:
        if end.target is None:
            # A fraction of a frame more for each end spreads the phases.
            heapq.heappush(self._due, (time.monotonic() + end.number * 0.0013 % FRAME, end.number))
        end.target = source
        sequence = int.from_bytes(data[2:4], "big")
        if end.expected is not None:
            end.lost += (sequence - end.expected) & 0xFFFF
            end.gaps.append(1000 * (at - end.last))
        end.expected = (sequence + 1) & 0xFFFF
        end.received += 1
        end.last = at
        end.heard += data[12:]
