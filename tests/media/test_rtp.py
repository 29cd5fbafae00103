"""RTP and RTCP packets on the wire."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed
from extenbot.media import rtcp, rtp

WORD = st.integers(0, 0xFFFFFFFF)
PACKETS = st.builds(
    rtp.Packet, st.integers(0, 127), st.booleans(), st.integers(0, 0xFFFF), WORD, WORD, st.binary(max_size=400)
)
BLOCKS = st.builds(rtcp.Block, WORD, st.integers(0, 255), st.integers(-0x800000, 0x7FFFFF), WORD, WORD, WORD, WORD)
SENT = st.builds(rtcp.Sent, st.integers(0, 2**64 - 1), WORD, WORD, WORD)
REPORTS = st.builds(rtcp.Report, WORD, st.none() | SENT, st.lists(BLOCKS, max_size=3).map(tuple))


class Rtp(SynchronousTestCase):
    def test_bytes(self) -> None:
        """A packet has the twelve bytes of RFC 3550 5.1 before its audio."""
        packet = rtp.Packet(8, True, 0x0102, 0x03040506, 0x0708090A, b"\xd5\xd5")
        self.assertEqual(rtp.write(packet), bytes.fromhex("80 88 0102 03040506 0708090a d5d5"))

    def test_everything_optional(self) -> None:
        """Padding, contributing sources and a header extension are left out of the audio."""
        head = bytes.fromhex("b2 00 0001 00000002 00000003")
        sources = bytes(8)
        extension = bytes.fromhex("bede 0002") + bytes(8)
        packet = rtp.read(head + sources + extension + b"audio" + b"\0\0\3")
        self.assertEqual(packet, rtp.Packet(0, False, 1, 2, 3, b"audio"))

    def test_broken(self) -> None:
        """Wrong version, lengths that reach past the end, impossible padding: Malformed."""
        for text in (
            "",
            "80 00 0001 00000002 000000",
            "40 00 0001 00000002 00000003",
            "83 00 0001 00000002 00000003 00000000",
            "90 00 0001 00000002 00000003 bede",
            "90 00 0001 00000002 00000003 bede0001",
            "a0 00 0001 00000002 00000003 00",
            "a0 00 0001 00000002 00000003 05",
        ):
            self.assertRaises(Malformed, rtp.read, bytes.fromhex(text))

    @given(PACKETS)
    def test_there_and_back(self, packet: rtp.Packet) -> None:
        """What is written is read back."""
        self.assertEqual(rtp.read(rtp.write(packet)), packet)

    @given(st.binary(max_size=80), st.integers(0, 255))
    def test_noise(self, data: bytes, first: int) -> None:
        """No bytes make the reader raise anything but Malformed."""
        for noise in (data, bytes([first]) + data):
            with contextlib.suppress(Malformed):
                rtp.read(noise)

    @given(st.integers(0, 0xFFFF), st.integers(-0x8000, 0x7FFF))
    def test_wrap(self, sequence: int, distance: int) -> None:
        """Distances are right across the wrap of sequence numbers and timestamps."""
        self.assertEqual(rtp.ahead((sequence + distance) & 0xFFFF, sequence), distance)
        timestamp = 0xFFFFFFFF - sequence
        self.assertEqual(rtp.later((timestamp + distance) & 0xFFFFFFFF, timestamp), distance)


class Rtcp(SynchronousTestCase):
    def test_bytes(self) -> None:
        """A last report is RR, SDES and BYE, each padded to whole words."""
        data = rtcp.write(rtcp.Report(1, None, ()), "abc", goodbye=True)
        self.assertEqual(
            data, bytes.fromhex("80c90001 00000001  81ca0003 00000001 0103616263000000  81cb0001 00000001")
        )
        self.assertTrue(rtp.is_control(data))
        self.assertFalse(rtp.is_control(rtp.write(rtp.Packet(101, True, 1, 1, 1, b""))))

    @given(REPORTS, st.text("0123456789abcdef", max_size=20), st.booleans())
    def test_there_and_back(self, report: rtcp.Report, name: str, goodbye: bool) -> None:
        """Reports are read as written; the name between them is passed over."""
        wanted: list[object] = [report]
        if goodbye:
            wanted.append(rtcp.Goodbye((report.ssrc,)))
        data = rtcp.write(report, name, goodbye=goodbye)
        self.assertEqual(len(data) % 4, 0)
        self.assertEqual(rtcp.read(data), wanted)

    @given(REPORTS, st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4), st.integers(0, 120))
    def test_mutated(self, report: rtcp.Report, changes: list[tuple[int, int]], end: int) -> None:
        """A damaged or cut report is read or Malformed."""
        data = bytearray(rtcp.write(report, "name", goodbye=True))
        for at, value in changes:
            data[at % len(data)] = value
        for noise in (bytes(data), bytes(data[:end])):
            with contextlib.suppress(Malformed):
                rtcp.read(noise)


class Reception(SynchronousTestCase):
    def test_loss(self) -> None:
        """Two of ten packets missing, across the wrap, are two lost and 51/256 in the next report only."""
        reception = rtcp.Reception(9, 65531)
        for sequence in (65531, 65532, 65534, 65535, 0, 2, 1, 4):
            reception.count(sequence)
        self.assertEqual((reception.expected, reception.received, reception.lost), (10, 8, 2))
        block = reception.block(0, 0.0)
        self.assertEqual((block.fraction, block.lost, block.highest), (51, 2, 0x10004))
        reception.count(5)
        self.assertEqual(reception.block(7, 0.5)[1:], (0, 2, 0x10005, 0, 7, 32768))

    def test_jump(self) -> None:
        """A sender that begins again at another number has lost nothing."""
        reception = rtcp.Reception(9, 100)
        for sequence in (100, 101, 40000, 40001, 7, 8):
            reception.count(sequence)
        self.assertEqual((reception.received, reception.lost), (6, 0))

    def test_jitter(self) -> None:
        """A packet 8 ms late moves the estimate by a sixteenth of 64 units (RFC 3550 A.8)."""
        reception = rtcp.Reception(9, 0)
        reception.time(0, 0.0)
        reception.time(160, 0.020)
        self.assertAlmostEqual(reception.jitter, 0.0)
        reception.time(320, 0.048)
        self.assertAlmostEqual(reception.jitter, 4.0)

    def test_timestamp_wrap(self) -> None:
        """The wrap of the timestamp, or its jump, is no jitter."""
        reception = rtcp.Reception(9, 0)
        reception.time(0xFFFFFFFF - 79, 0.0)
        reception.time(80, 0.020)
        reception.time(900_000, 0.040)
        self.assertAlmostEqual(reception.jitter, 0.0)
