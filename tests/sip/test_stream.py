"""Messages out of a stream, whatever pieces it comes in."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.sip.message import LARGEST, Unreadable, read
from extenbot.sip.stream import HEAD, PING, Stream
from tests.sip.wire import OFFER, request

INVITE, BYE = request("INVITE", body=OFFER), request("BYE", 2)
BODY = request("INVITE", 3, body=b"\r\n\r\nBYE sip:a SIP/2.0\r\n\r\n")
MESSAGES = (INVITE, BYE, BODY, BYE.replace(b"\r\n", b"\n"), INVITE.replace(b"Content-Length:", b"l :\r\n "))


class Framing(SynchronousTestCase):
    @given(st.lists(st.sampled_from((*MESSAGES, PING)), max_size=6), st.lists(st.integers(0, 3000), max_size=40))
    def test_any_chunking(self, sent: list[bytes], cuts: list[int]) -> None:
        """However the network cuts what was sent, the same messages and keep-alives come out."""
        data, stream, got = b"".join(sent), Stream(), list[bytes]()
        edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
        for start, end in pairwise(edges):
            got += stream.received(data[start:end])
        self.assertEqual(got, sent)
        self.assertFalse(stream.spoiled or stream.waiting)

    def test_byte_by_byte(self) -> None:
        """A slow peer is understood like a quick one."""
        stream = Stream()
        got = [message for byte in INVITE + PING + BYE for message in stream.received(bytes([byte]))]
        self.assertEqual(got, [INVITE, PING, BYE])

    def test_stray_line_breaks(self) -> None:
        """Line breaks before a message mean nothing (RFC 3261 7.5)."""
        self.assertEqual(Stream().received(b"\r\n" + BYE + b"\n\n\r\n" + BYE), [BYE, BYE])

    def test_begun(self) -> None:
        """Half a message waits, a pong does not."""
        stream = Stream()
        stream.received(b"\r\n")
        self.assertFalse(stream.waiting)
        stream.received(b"INV")
        self.assertTrue(stream.waiting)

    def test_no_length(self) -> None:
        """Without a Content-Length there is no body."""
        bare = BYE.replace(b"Content-Length: 0\r\n", b"")
        self.assertEqual(Stream().received(bare + BYE), [bare, BYE])

    def test_spoiled(self) -> None:
        """Where the end cannot be known, the head comes out to be refused, and nothing after it."""
        for length, code in (
            (b"x", 400),
            (b"-1", 400),
            (b"%d" % (LARGEST + 1), 513),
            (b"0\r\nContent-Length: 5", 400),
        ):
            bad = BYE.replace(b"Content-Length: 0", b"Content-Length: " + length)
            stream = Stream()
            self.assertEqual(stream.received(INVITE + bad + BYE), [INVITE, bad])
            self.assertTrue(stream.spoiled)
            self.assertEqual(stream.received(BYE), [])
            with self.assertRaises(Unreadable) as caught:
                read(bad)
            self.assertEqual(caught.exception.code, code)
            self.assertIsNotNone(caught.exception.request)

    def test_endless_head(self) -> None:
        """A head that does not end is given up at its bound, in one piece or many."""
        for step in (HEAD * 2, 1000):
            stream, got = Stream(), list[bytes]()
            data = BYE[:-2] + b"X: " + b"y" * HEAD * 2
            for at in range(0, len(data), step):
                got += stream.received(data[at : at + step])
            self.assertEqual((got, stream.spoiled), ([data[:HEAD]], True))
        self.assertTrue(stream.spoiled)

    @given(st.lists(st.binary(max_size=60), max_size=8))
    def test_noise(self, chunks: list[bytes]) -> None:
        """Noise is held within bounds and raises nothing."""
        stream = Stream()
        for chunk in chunks:
            stream.received(chunk)
        self.assertLessEqual(len(stream._buffer), HEAD)
