"""The caller's audio on our 20-ms clock."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.media import g711
from extenbot.media.jitter import BACKLOG, JitterBuffer

SILENT = b"\xff" * 160


def loud(number: int, size: int = 160) -> bytes:
    """A frame that is not quiet and tells its number."""
    return bytes([number % 100]) * size


class Caller(SynchronousTestCase):
    def setUp(self) -> None:
        self.buffer = JitterBuffer("PCMU")

    def put(self, number: int, size: int = 160, sequence: int = 65500, timestamp: int = 0xFFFFF000) -> None:
        self.buffer.put((sequence + number) & 0xFFFF, (timestamp + number * size) & 0xFFFFFFFF, loud(number, size))

    def takes(self, count: int) -> list[bytes]:
        return [self.buffer.take() for _ in range(count)]

    def numbers(self, frames: list[bytes]) -> list[int | None]:
        """The number of each frame, None for silence."""
        return [None if frame == SILENT else frame[0] for frame in frames]

    def begin(self) -> None:
        """Packet 0 has come and its slack has been taken."""
        self.put(0)
        self.assertEqual(self.buffer.take(), SILENT)

    def test_nothing_arrives(self) -> None:
        """A phone that sends nothing is silence on the clock, from the very beginning."""
        self.assertEqual(self.takes(3), [SILENT] * 3)
        self.assertEqual(JitterBuffer("PCMA").take(), b"\xd5" * 160)

    def test_in_order_across_the_wrap(self) -> None:
        """Steady packets come out one by one, 20 ms behind, across the wrap of both counters."""
        frames = []
        for number in range(90):
            self.put(number)
            frames += self.takes(1)
        self.assertEqual(self.numbers(frames), [None, *range(89)])

    def test_at_once(self) -> None:
        """A stream that arrives well before our turns is handed on with them, without waiting."""
        frames = []
        for number in range(20):
            sequence, timestamp = 100 + number, number * 160
            self.buffer.put(sequence, timestamp, loud(number), number * 0.02 + 0.012)
            frames.append(self.buffer.take(number * 0.02 + 0.02))
        self.assertEqual(self.numbers(frames), [*range(20)])

    def test_close(self) -> None:
        """One that arrives just before them is kept for a turn: its next packet may come just after."""
        frames = []
        for number in range(20):
            arrives = number * 0.02 + 0.017 + (0.005 if number % 3 else 0)
            if arrives > number * 0.02 + 0.02:  # after the turn that it was for
                frames.append(self.buffer.take(number * 0.02 + 0.02))
                self.buffer.put(100 + number, number * 160, loud(number), arrives)
            else:
                self.buffer.put(100 + number, number * 160, loud(number), arrives)
                frames.append(self.buffer.take(number * 0.02 + 0.02))
        self.assertEqual(self.numbers(frames), [None, *range(19)])

    def test_late_once(self) -> None:
        """After a packet that missed its turn one is kept from then on: late and reordered ones do no more harm."""
        put = self.buffer.put
        frames = []
        for number in range(3):
            put(100 + number, number * 160, loud(number), number * 0.02)
            frames.append(self.buffer.take(number * 0.02 + 0.01))
        frames.append(self.buffer.take(0.07))
        put(103, 480, loud(3), 0.071)
        put(104, 640, loud(4), 0.08)
        frames.append(self.buffer.take(0.09))
        put(106, 960, loud(6), 0.1)
        frames.append(self.buffer.take(0.11))
        put(105, 800, loud(5), 0.115)
        put(107, 1120, loud(7), 0.12)
        frames += [self.buffer.take(0.13), self.buffer.take(0.15), self.buffer.take(0.17)]
        self.assertEqual(self.numbers(frames), [0, 1, 2, None, 3, 4, 5, 6, 7])

    def test_reordered(self) -> None:
        """Two packets that changed places are put right."""
        self.begin()
        self.put(2)
        frames = self.takes(1)
        self.put(1)
        frames += self.takes(2)
        self.assertEqual(self.numbers(frames), [0, 1, 2])

    def test_lost(self) -> None:
        """A lost packet becomes silence of its length, and delays nothing."""
        self.begin()
        frames = []
        for number in (1, 3, 4, 5):
            if number == 3:
                frames += self.takes(1)
            self.put(number)
            frames += self.takes(1)
        self.assertEqual(self.numbers([*frames, *self.takes(1)]), [0, 1, None, 3, 4, 5])

    def test_lost_then_quiet(self) -> None:
        """A packet lost before a pause does not hold back the one after it."""
        self.begin()
        self.put(2)
        self.assertEqual(self.numbers(self.takes(4)), [0, None, 2, None])

    def test_silence_already_given(self) -> None:
        """Turns that passed in silence while three packets were lost are not filled a second time."""
        self.begin()
        frames = self.takes(4)
        self.put(4)
        frames += self.takes(1)
        self.put(5)
        self.assertEqual(self.numbers([*frames, *self.takes(2)]), [0, None, None, None, 4, 5, None])

    def test_late_and_twice(self) -> None:
        """A packet that comes after its turn or a second time is left out and counted."""
        self.begin()
        self.put(0)
        self.put(2)
        self.takes(2)
        self.put(1)
        self.assertEqual(self.buffer.late, 2)
        self.assertEqual(self.numbers(self.takes(1)), [2])

    def test_pause(self) -> None:
        """After a second without packets the words come back whole, and no second of silence is added."""
        self.begin()
        self.takes(50)
        self.put(51)
        frames = self.takes(1)
        self.put(52)
        frames += self.takes(2)
        self.assertEqual(self.numbers(frames), [None, 51, 52])

    def test_pause_without_timestamps(self) -> None:
        """The same from a phone whose timestamp stood still meanwhile, or leapt."""
        for leap in (0, 5_000_000):
            self.buffer = JitterBuffer("PCMU")
            self.begin()
            self.takes(50)
            self.buffer.put(65501, (0xFFFFF000 + 160 + leap) & 0xFFFFFFFF, loud(7))
            self.assertEqual(self.numbers(self.takes(3)), [None, 7, None])

    def test_keys_between(self) -> None:
        """FreeSWITCH's keys: 11 event packets in the audio's sequence, a leap of the timestamp, no audio lost."""
        self.begin()
        frames = []
        for number in range(1, 12):
            self.buffer.put((65500 + number) & 0xFFFF, 0xFFFFF000 + 160, b"")
            frames += self.takes(1)
        self.put(12)
        frames += self.takes(1)
        self.put(13)
        frames += self.takes(2)
        self.assertEqual(self.numbers(frames), [0, *[None] * 11, 12, 13])
        self.assertEqual(self.buffer.late, 0)

    def test_burst(self) -> None:
        """A second of audio that comes all at once is cut to the newest 100 ms."""
        self.begin()
        for number in range(1, 51):
            self.put(number)
        self.assertEqual(self.numbers(self.takes(6)), [46, 47, 48, 49, 50, None])

    def test_burst_loses_silence_first(self) -> None:
        """Of a burst with pauses in it, the pauses are left out before any word."""
        self.begin()
        self.takes(1)
        for number in range(1, 11):
            audio = SILENT if number % 2 else loud(number)
            self.buffer.put((65500 + number) & 0xFFFF, (0xFFFFF000 + number * 160) & 0xFFFFFFFF, audio)
        self.assertEqual(self.numbers(self.takes(5)), [2, 4, 6, 8, 10])

    def test_backlog_worked_off(self) -> None:
        """Delay left by a late burst disappears in the next pauses of speech."""
        self.begin()
        self.takes(4)
        for number in range(1, 5):
            self.put(number)
        for number in range(5, 400):
            quiet = number % 20 >= 10
            audio = SILENT if quiet else loud(number)
            self.buffer.put((65500 + number) & 0xFFFF, (0xFFFFF000 + number * 160) & 0xFFFFFFFF, audio)
            self.takes(1)
        waiting = [frame for frame in self.takes(6) if frame != SILENT]
        self.assertLessEqual(len(waiting), 3)

    def test_new_stream(self) -> None:
        """After a reset another sequence and timestamp are simply the beginning."""
        self.begin()
        self.buffer.reset()
        self.buffer.put(7, 99, loud(1))
        self.assertEqual(self.numbers(self.takes(3)), [0, 1, None])

    def test_sequence_begins_again(self) -> None:
        """A sender that starts over without telling is heard again, at once or within 200 ms."""
        for back, patience in ((20_000, 1), (50, 12)):
            self.buffer = JitterBuffer("PCMU")
            for number in range(60):
                self.put(number)
                self.takes(1)
            got: list[int | None] = []
            for number in range(20):
                self.buffer.put((65560 - back + number) & 0xFFFF, number * 160, loud(number))
                got += self.numbers(self.takes(1))
            self.assertEqual(got[-1], 18)
            self.assertLessEqual(sum(1 for number in got if number is None), patience)

    def test_other_packet_times(self) -> None:
        """Packets of 10, 30, 40 and 60 ms come out as 20-ms frames without a seam."""
        for ptime in (10, 30, 40, 60):
            buffer, size = JitterBuffer("PCMU"), ptime * 8
            sent, got = b"", b""
            for turn in range(0, 1200, 10):
                if turn % ptime == 0:
                    number = turn // ptime
                    buffer.put(number, number * size, loud(number, size))
                    sent += loud(number, size)
                if turn % 20 == 10:
                    got += buffer.take()
            got = got.lstrip(b"\xff")
            self.assertGreater(len(got), 8000)
            self.assertTrue(sent.startswith(got), ptime)

    def clocks(self, ratio: float, jitter: float, seconds: float = 600.0) -> tuple[int, int, int]:
        """A phone whose clock runs `ratio` times ours: packets sent, words handed on, silences put in."""
        random, buffer = Random(7), JitterBuffer("PCMU")
        arrivals = sorted(
            (number * 0.020 / ratio + random.uniform(0, jitter), number) for number in range(int(seconds * 50 * ratio))
        )
        handed = silences = at = 0
        for turn in range(int(seconds * 50)):
            while at < len(arrivals) and arrivals[at][0] <= turn * 0.020 + 0.013:
                number = arrivals[at][1]
                audio = SILENT if number % 100 > 60 else loud(number)
                buffer.put(number & 0xFFFF, number * 160 & 0xFFFFFFFF, audio)
                at += 1
            frame = buffer.take()
            handed += frame != SILENT
            silences += frame == SILENT
            self.assertLessEqual(buffer._backlog, BACKLOG)
        return sum(1 for _, number in arrivals if number % 100 <= 60), handed, silences

    def test_phone_clock_fast_or_slow(self) -> None:
        """Ten minutes with a phone clock 500 ppm off: no backlog, and hardly a word lost."""
        for ratio in (0.9995, 1.0, 1.0005):
            words, handed, _ = self.clocks(ratio, jitter=0.005)
            self.assertLessEqual(abs(handed - words), words * 0.002)

    def test_jitter(self) -> None:
        """With 30 ms of jitter hardly a word is lost."""
        words, handed, _ = self.clocks(1.0, jitter=0.030)
        self.assertLessEqual(abs(handed - words), words * 0.005)

    @given(
        st.lists(
            st.one_of(
                st.none(),
                st.tuples(
                    st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.sampled_from([0, 1, 80, 160, 240, 1600])
                ),
                st.tuples(st.integers(0, 12), st.integers(0, 2000), st.sampled_from([0, 80, 160, 240])),
            ),
            max_size=150,
        )
    )
    def test_any_stream(self, steps: list[tuple[int, int, int] | None]) -> None:
        """Whatever arrives, each turn gives 20 ms and little waits."""
        buffer = JitterBuffer("PCMA")
        for step in steps:
            if step is None:
                self.assertEqual(len(buffer.take()), g711.FRAME)
            else:
                buffer.put(step[0], step[1], bytes(step[2]))
            self.assertLessEqual(buffer._backlog, 2 * 1600)
            self.assertEqual(buffer._backlog, sum(map(len, buffer._ready)))
            self.assertLess(len(buffer._early), 16)
