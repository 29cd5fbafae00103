"""Calls of two hours, in clear and encrypted: 360,000 packets each way on a fake clock."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Address
from extenbot.media import rtp, srtp
from extenbot.media.line import Line
from extenbot.media.pacer import Pacer
from extenbot.media.sdp import Agreed
from extenbot.media.srtp import Crypto, Srtp
from tests.clock import Clock

PBX: Address = ("192.0.2.1", 4000)
TURNS = 2 * 3600 * 50
SEQUENCE, TIMESTAMP = 65000, 0xFFFF0000
LOUD, SAID = b"\x11" * 160, b"\x22" * 160


class Given:
    """The identifiers of our stream: both counters near their ends."""

    def bits(self, count: int) -> int:
        return {32: TIMESTAMP, 15: SEQUENCE}[count]

    def text(self, length: int) -> str:
        return "n" * length


class Phone:
    """The port of the line and what is behind it: checks each packet as it comes, and keeps none."""

    address: Address = ("198.51.100.1", 10000)

    def __init__(self, unprotect: Callable[[bytes], bytes | None]) -> None:
        self._unprotect = unprotect
        self._expected = (SEQUENCE, TIMESTAMP)
        self.packets = self.said = self.broken = self.reports = self.sequences = self.timestamps = 0

    def send(self, data: bytes, to: Address) -> None:
        clear = self._unprotect(data)
        if clear is None:
            self.broken += 1
            return
        _, _, sequence, timestamp, _ = rtp.HEADER.unpack_from(clear)
        self.broken += (sequence, timestamp) != self._expected
        following = (sequence + 1) & 0xFFFF, (timestamp + 160) & 0xFFFFFFFF
        self.sequences += following[0] < sequence
        self.timestamps += following[1] < timestamp
        self._expected = following
        self.packets += 1
        self.said += clear.endswith(SAID)

    def send_control(self, data: bytes, to: Address) -> None:
        self.reports += 1

    def drain(self) -> None:
        """Nothing has come."""

    def poll(self) -> float:
        """Nothing waits: packets are handed over at once."""
        return 0.0

    def close(self) -> None:
        """Nothing is open."""


class TwoHours(SynchronousTestCase):
    def call(self, crypto: Crypto | None) -> None:
        clock = Clock()
        heard = 0

        def hears(audio: bytes) -> None:
            nonlocal heard
            heard += audio == LOUD

        def as_it_is(data: bytes) -> bytes:
            return data

        theirs = Srtp(Crypto(crypto.tag, crypto.suite, crypto.theirs, crypto.ours)) if crypto else None
        phone = Phone(theirs.unprotect if theirs else as_it_is)
        protect = theirs.protect if theirs else as_it_is
        agreed = Agreed("PCMU", 0, "audio/pcmu", 101, 20, PBX, None, "sendrecv", False, crypto)
        line = Line(clock, Pacer(clock), Given(), agreed, "PCMU", PBX[0], hears, lambda digit: None)
        line.start(phone)
        clock.advance(0.001)
        sequence, timestamp = SEQUENCE, TIMESTAMP
        blocks = []
        for turn in range(TURNS):
            line.received(protect(rtp.HEADER.pack(0x80, 0, sequence, timestamp, 7) + LOUD), PBX, clock.seconds())
            sequence, timestamp = (sequence + 1) & 0xFFFF, (timestamp + 160) & 0xFFFFFFFF
            if turn % 100 == 0:  # the bot speaks a second of every two
                line.playout.add("answer", SAID * 50)
            clock.advance(0.02)
            if turn % (TURNS // 8) == TURNS // 8 - 1:
                gc.collect()
                blocks.append(sys.getallocatedblocks())
        line.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
        statistics = line.statistics
        self.assertEqual((phone.packets, phone.broken, statistics.packets_sent), (TURNS, 0, TURNS))
        self.assertEqual((phone.sequences, phone.timestamps), (6, 1))
        self.assertEqual(phone.said, TURNS // 2)
        self.assertEqual((statistics.packets_received, statistics.packets_lost), (TURNS, 0))
        self.assertEqual((statistics.packets_late, statistics.packets_ignored), (0, 0))
        self.assertLessEqual(statistics.jitter_ms, 0.01)
        self.assertGreaterEqual(heard, TURNS - 2)
        self.assertEqual(phone.reports, 7200 // 5 + 1)
        self.assertLess(max(after - before for before, after in pairwise(blocks[1:])), 100, blocks)

    def test_plain(self) -> None:
        """Through six wraps of the sequence and one of the clock nothing is missing either way; memory stays flat."""
        self.call(None)

    def test_encrypted(self) -> None:
        """The same under SRTP, whose counters must roll over on both sides at each wrap."""
        crypto = srtp.read("1 AES_CM_128_HMAC_SHA1_80 inline:NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj", bytes(32))
        assert crypto is not None
        self.call(crypto)
