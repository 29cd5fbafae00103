"""What really was on the wire of the loopback, with the kernel's times: RTP caught by tcpdump."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed
from extenbot.media import rtp
from tests.memory import loudness
from tests.need import need
from tests.real.harness import Process, new_folder

_ETHERNET, _IP4, _UDP = 14, 20, 8
_ENTRY = struct.Struct("<IIII")


class Caught(NamedTuple):
    """One RTP packet; the time is unix seconds."""

    at: float
    source: int  # ports
    target: int
    packet: rtp.Packet

    def loud(self, hz: float) -> bool:
        """Whether a tone of this frequency is in it (mu-law)."""
        return loudness(bytes(self.packet.payload), "PCMU", hz) > 1000


class Wire:
    """Catches the UDP of these ports from now on."""

    def __init__(self, test: SynchronousTestCase, ports: str) -> None:
        """`ports` as "10000-20000"."""
        need("tcpdump", "apt-get install tcpdump", shutil.which("tcpdump") is not None)
        need("the right to catch packets", "run as root", os.geteuid() == 0)
        self._file: Path = new_folder(test) / "caught.pcap"
        command = [
            "tcpdump",
            "-i",
            "lo",
            "-n",
            "-U",
            "--immediate-mode",
            "-Z",
            "root",
            "-B",
            "4096",
            "--time-stamp-precision=micro",
        ]
        self._process = Process(test, [*command, "-w", str(self._file), f"udp portrange {ports}"])
        self._process.wait_for("listening on lo")

    def stop(self) -> list[Caught]:
        """All RTP that was caught, in order."""
        self._process.stop()
        data, found, at = self._file.read_bytes(), [], 24
        while at + _ENTRY.size <= len(data):
            seconds, micro, size, _ = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            frame = data[at : at + size]
            at += size
            if frame[12:14] != b"\x08\x00" or frame[_ETHERNET] != 0x45:
                continue
            udp = _ETHERNET + _IP4
            source, target = struct.unpack_from(">HH", frame, udp)
            if source % 2:  # RTCP
                continue
            try:
                packet = rtp.read(frame[udp + _UDP :])
            except Malformed:
                continue
            found.append(Caught(seconds + micro / 1e6, source, target, packet))
        return found
