"""Bot audio waiting for its turns, and what the ledger says of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Played, Playout
from extenbot.media.playout import MOST, PATIENCE, PlayoutQueue

SILENT = b"\xff"


class Turns(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = PlayoutQueue("PCMU")
        self.drained = 0
        self.queue.on_drained = self.drain

    def drain(self) -> None:
        self.drained += 1

    def test_is_a_playout(self) -> None:
        """The conversation's seam is met."""
        playout: Playout = self.queue
        self.assertTrue(playout.empty)

    def test_without_end(self) -> None:
        """A voice that sends without end does not fill the memory; what there was room for is heard."""
        chunk = b"1" * 1_000_000
        for _ in range(20):
            self.queue.add("a", chunk)
        self.assertEqual(self.queue.waiting, MOST // len(chunk) * len(chunk))
        self.assertEqual(self.queue.played("a"), Played("a", self.queue.waiting, 0))
        self.queue.finish("a")
        self.assertEqual(self.queue.next(160), b"1" * 160)

    def test_order(self) -> None:
        """Items play in the order they were first added, each to its end."""
        self.queue.add("a", b"1" * 160)
        self.queue.add("b", b"2" * 160)
        self.queue.add("a", b"3" * 160)
        self.assertEqual([self.queue.next(160) for _ in range(4)], [b"1" * 160, b"3" * 160, b"2" * 160, None])

    def test_chunks_of_any_size(self) -> None:
        """Frames are cut across chunk borders without a seam."""
        audio = bytes(range(250)) * 2
        for start in range(0, 500, 33):
            self.queue.add("a", audio[start : start + 33])
        self.queue.finish("a")
        got = [self.queue.next(160) for _ in range(4)]
        self.assertEqual(b"".join(frame or b"" for frame in got), audio + SILENT * 140)

    def test_ledger(self) -> None:
        """Only real bytes that left are counted, never padding, also after the item has ended."""
        self.queue.add("a", b"1" * 200)
        self.assertEqual(self.queue.played("a"), Played("a", 200, 0))
        self.queue.next(160)
        self.assertEqual(self.queue.played("a"), Played("a", 200, 160))
        self.queue.finish("a")
        self.assertEqual(self.queue.next(160), b"1" * 40 + SILENT * 120)
        self.assertEqual(self.queue.played("a"), Played("a", 200, 200))
        self.assertEqual(self.queue.played("never"), Played("never", 0, 0))

    def test_partial_frame_waits(self) -> None:
        """Half a frame of an item still open waits a moment for its other half."""
        self.queue.add("a", b"1" * 80)
        self.assertIsNone(self.queue.next(160))
        self.queue.add("a", b"2" * 80)
        self.assertEqual(self.queue.next(160), b"1" * 80 + b"2" * 80)

    def test_partial_frame_does_not_stall(self) -> None:
        """…but not for ever: it is padded and sent when nothing follows."""
        self.queue.add("a", b"1" * 80)
        self.assertEqual([self.queue.next(160) for _ in range(PATIENCE)], [None] * PATIENCE)
        self.assertEqual(self.queue.next(160), b"1" * 80 + SILENT * 80)

    def test_open_item_does_not_block(self) -> None:
        """An item that was never finished does not hold up the next one."""
        self.queue.add("a", b"1" * 160)
        self.queue.next(160)
        self.queue.add("b", b"2" * 160)
        self.assertEqual(self.queue.next(160), b"2" * 160)

    def test_drained(self) -> None:
        """The end is told once, when the last frame has had its time on the wire."""
        self.queue.add("a", b"1" * 320)
        self.queue.finish("a")
        self.queue.next(160)
        self.queue.next(160)
        self.assertTrue(self.queue.empty)
        self.assertEqual(self.drained, 0)
        for _ in range(3):
            self.assertIsNone(self.queue.next(160))
            self.assertEqual(self.drained, 1)
        self.queue.add("b", b"1" * 160)
        self.queue.next(160)
        self.queue.next(160)
        self.assertEqual(self.drained, 2)

    def test_not_drained_between_deltas(self) -> None:
        """More audio that comes in time means that nothing has drained."""
        self.queue.add("a", b"1" * 160)
        self.queue.next(160)
        self.queue.add("a", b"2" * 160)
        self.queue.next(160)
        self.assertEqual(self.drained, 0)

    def test_adding_from_drained(self) -> None:
        """Audio added on hearing of the end leaves in the same turn."""
        self.queue.on_drained = lambda: self.queue.add("b", b"2" * 160)
        self.queue.add("a", b"1" * 160)
        self.queue.next(160)
        self.assertEqual(self.queue.next(160), b"2" * 160)

    def test_cut(self) -> None:
        """A cut drops what waits and names, in order, what lost audio or was still open."""
        self.queue.add("done", b"0" * 160)
        self.queue.finish("done")
        self.queue.add("playing", b"1" * 400)
        self.queue.add("waiting", b"2" * 160)
        self.queue.finish("waiting")
        self.queue.next(160)
        self.queue.next(160)
        self.assertEqual(self.queue.cut(), (Played("playing", 400, 160), Played("waiting", 160, 0)))
        self.assertTrue(self.queue.empty)
        self.assertIsNone(self.queue.next(160))
        self.assertEqual(self.queue.cut(), ())
        self.assertEqual(self.queue.played("playing"), Played("playing", 400, 160))

    def test_cut_of_an_open_item(self) -> None:
        """An item all of whose audio has left but that was not finished is named too."""
        self.queue.add("a", b"1" * 160)
        self.queue.next(160)
        self.assertEqual(self.queue.cut(), (Played("a", 160, 160),))

    def test_cut_in_mid_chunk(self) -> None:
        """After a cut the next item starts at its own first byte."""
        self.queue.add("a", b"1" * 500)
        self.queue.next(160)
        self.queue.cut()
        self.queue.add("b", bytes(range(160)))
        self.assertEqual(self.queue.next(160), bytes(range(160)))

    def test_held(self) -> None:
        """What is asked for while the phone still rings waits, and is whole when it is let out."""
        began: list[str] = []
        self.queue.on_began = began.append
        self.queue.held = True
        self.queue.add("greeting", b"1" * 160)
        self.assertEqual([self.queue.next(160) for _ in range(100)], [None] * 100)
        self.queue.add("greeting", b"2" * 160)
        self.assertEqual(
            (self.queue.empty, self.queue.played("greeting"), began), (False, Played("greeting", 320, 0), [])
        )
        self.queue.held = False
        self.assertEqual([self.queue.next(160) for _ in range(3)], [b"1" * 160, b"2" * 160, None])
        self.assertEqual((began, self.drained), (["greeting"], 1))

    def test_held_in_mid_sentence(self) -> None:
        """A pause goes on at the very byte where it began, and says no second time that the item began."""
        began: list[str] = []
        self.queue.on_began = began.append
        audio = bytes(range(200)) * 4
        self.queue.add("a", audio)
        got = [self.queue.next(160), self.queue.next(160)]
        self.queue.held = True
        self.assertIsNone(self.queue.next(160))
        self.queue.held = False
        got += [self.queue.next(160) for _ in range(3)]
        self.assertEqual((b"".join(frame or b"" for frame in got), began), (audio, ["a"]))

    def test_cut_while_held(self) -> None:
        """What is cut in a pause was heard as far as it had left; what comes next begins with its first byte."""
        self.queue.add("a", b"1" * 500)
        self.queue.next(160)
        self.queue.held = True
        self.assertEqual(self.queue.cut(), (Played("a", 500, 160),))
        self.queue.add("b", bytes(range(160)))
        self.queue.held = False
        self.assertEqual(self.queue.next(160), bytes(range(160)))
        self.assertEqual(self.drained, 0)

    def test_no_end_while_held(self) -> None:
        """That the last word is over is told when the pause is, once."""
        self.queue.add("a", b"1" * 160)
        self.queue.next(160)
        self.queue.held = True
        for _ in range(5):
            self.queue.next(160)
        self.assertEqual(self.drained, 0)
        self.queue.held = False
        for _ in range(3):
            self.queue.next(160)
        self.assertEqual(self.drained, 1)

    def test_held_by_the_end(self) -> None:
        """Whoever hears that all is said may hold the queue at once: what comes then waits."""

        def drained() -> None:
            self.queue.held = True
            self.queue.add("b", b"2" * 160)

        self.queue.on_drained = drained
        self.queue.add("a", b"1" * 160)
        self.queue.next(160)
        self.assertIsNone(self.queue.next(160))
        self.assertFalse(self.queue.empty)

    def test_patience_of_the_held(self) -> None:
        """Half a frame that waits in a pause still gets its other half afterwards."""
        self.queue.add("a", b"1" * 80)
        self.queue.held = True
        for _ in range(10 * PATIENCE):
            self.assertIsNone(self.queue.next(160))
        self.queue.held = False
        self.assertIsNone(self.queue.next(160))
        self.queue.add("a", b"2" * 80)
        self.assertEqual(self.queue.next(160), b"1" * 80 + b"2" * 80)

    def test_began(self) -> None:
        """Each item says once that it is on the wire, at its first frame, and may be cut by whoever hears so."""
        told: list[tuple[str, tuple[Played, ...]]] = []
        self.queue.on_began = lambda item: told.append((item, self.queue.cut()))
        self.queue.add("a", b"1" * 500)
        self.assertEqual([self.queue.next(160) for _ in range(2)], [b"1" * 160, None])
        self.queue.add("b", b"2" * 160)
        self.queue.finish("b")
        self.assertEqual([self.queue.next(160) for _ in range(2)], [b"2" * 160, None])
        self.assertEqual(told, [("a", (Played("a", 500, 160),)), ("b", ())])
        self.assertTrue(self.queue.empty)

    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.binary(min_size=1, max_size=700)), max_size=12),
        st.sampled_from([80, 160, 240, 320]),
    )
    def test_nothing_lost(self, adds: list[tuple[str, bytes]], size: int) -> None:
        """Whatever comes in leaves once, in order, and the ledger agrees to the byte."""
        queue = PlayoutQueue("PCMU")
        for item, audio in adds:
            queue.add(item, audio)
        items = list(dict.fromkeys(item for item, _ in adds))
        for item in items:
            queue.finish(item)
        frames = []
        while (frame := queue.next(size)) is not None:
            self.assertEqual(len(frame), size)
            frames.append(frame)
        wanted = b""
        for item in items:
            audio = b"".join(audio for name, audio in adds if name == item)
            wanted += audio + SILENT * (-len(audio) % size)
            self.assertEqual(queue.played(item), Played(item, len(audio), len(audio)))
        self.assertEqual(b"".join(frames), wanted)
