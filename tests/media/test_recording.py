"""What a recording of a call sounds like."""

from __future__ import annotations

import io
import sys
import wave
from array import array
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from extenbot.media import g711
from extenbot.media.recording import HEADER, Recorder, frames_in, header
from tests.media import test_line
from tests.media.test_line import AGREED, LOUD, PBX, SILENT, Phone

SAID = b"\x22" * 160


def sides(sound: bytes) -> tuple[bytes, bytes]:
    """The caller's and the bot's samples of stereo sound, as mu-law again."""
    samples = array("h", sound)
    if sys.byteorder == "big":
        samples.byteswap()
    left, right = (g711.from_linear("PCMU", samples[side::2].tobytes()) for side in (0, 1))
    return left, right


class Sound(SynchronousTestCase):
    def test_header(self) -> None:
        """Any player takes the file: stereo, 16 bits, 8 kHz, and as long as it is."""
        frames = b"\x01\x02\x03\x04" * 800
        with wave.open(io.BytesIO(header(800) + frames)) as file:
            self.assertEqual(file.getparams()[:4], (2, 2, 8000, 800))
            self.assertEqual(file.readframes(1000), frames)
        self.assertEqual(len(header(0)), HEADER)

    def test_mended(self) -> None:
        """The size of a file tells what its header must say, even when the last frame was cut in two."""
        for size, frames in ((0, 0), (10, 0), (44, 0), (47, 0), (48, 1), (44 + 4001, 1000)):
            self.assertEqual(frames_in(size), frames)

    def test_endless(self) -> None:
        """A file beyond what a header can say has one all the same."""
        self.assertEqual(header(1 << 40)[40:], (0xFFFFFFFF - 44 - 3).to_bytes(4, "little"))

    def test_both_laws(self) -> None:
        """Each sample is the one that was heard, to the bit, in either law."""
        for law in ("PCMU", "PCMA"):
            written: list[bytes] = []
            recorder = Recorder(written.append, law)
            codes = bytes(range(256))
            recorder.heard(codes)
            recorder.sent(codes[::-1])
            recorder.close()
            samples = g711.to_linear(law, codes)
            stereo = b"".join(samples[at : at + 2] + samples[510 - at : 512 - at] for at in range(0, len(samples), 2))
            self.assertEqual(written, [stereo])

    def test_a_second_at_a_time(self) -> None:
        """About once a second there is something to write; the end brings the rest, once."""
        written: list[bytes] = []
        recorder = Recorder(written.append, "PCMU")
        for _ in range(125):
            recorder.sent(SAID)
            recorder.heard(LOUD)
        self.assertEqual([len(part) // 32 for part in written], [980, 980])
        recorder.close()
        recorder.close()
        recorder.heard(LOUD)
        for _ in range(60):
            recorder.sent(SAID)
        self.assertEqual(sum(map(len, written)), 2500 * 32)
        self.assertEqual(sides(b"".join(written)), (LOUD * 125, SAID * 125))


class OfALine(test_line.Call):
    def setUp(self) -> None:
        super().setUp()
        self.sound = b""
        self.record()

    def record(self) -> None:
        self.line.recorder = Recorder(self.write, "PCMU")

    def write(self, part: bytes) -> None:
        self.sound += part

    def recorded(self) -> tuple[bytes, bytes]:
        assert self.line.recorder is not None
        self.line.recorder.close()
        return sides(self.sound)

    def test_as_heard_and_sent(self) -> None:
        """Both sides stand beside each other as they were on the wire, in every packet time."""
        for ptime in (10, 20, 30, 40, 60):
            self.sound = b""
            self.record()
            self.line.move(replace(AGREED, ptime=ptime))
            del self.heard[:], self.port.sent[:]
            self.line.playout.add(f"a{ptime}", SAID * 30)
            phone = Phone(self.line, PBX, ssrc=ptime)
            for turn in range(2400):
                if turn % 20 == 0 and 800 <= turn < 1200:
                    phone.say()
                self.clock.advance(0.001)
            left, right = self.recorded()
            wire = b"".join(packet.payload for packet, _ in self.port.sent)
            self.assertEqual(right, wire, ptime)
            self.assertLess(len(left) - 8 * 20 * len(self.heard), 160)
            self.assertTrue(left.startswith(b"".join(self.heard)), ptime)
            self.assertEqual(left.count(LOUD), 20, ptime)

    def test_hold(self) -> None:
        """A hold is silence on both sides, as long as it was; its music is not recorded."""
        phone = Phone(self.line, PBX)
        self.line.playout.add("a", SAID * 20)
        self.turns(10, phone)
        self.line.move(replace(AGREED, direction="inactive"))
        self.turns(50, phone)
        self.line.move(AGREED)
        self.turns(20)
        left, right = self.recorded()
        self.assertEqual(right, SAID * 10 + SILENT * 50 + SAID * 10 + SILENT * 10)
        self.assertEqual(left[10 * 160 : 60 * 160], SILENT * 50)
        self.assertEqual(len(left), len(right))

    def test_other_law_on_the_wire(self) -> None:
        """The wire's law is nobody's business: the recording has what the voice said and heard."""
        self.line.move(replace(AGREED, codec="PCMA", payload_type=8, format="audio/pcma"))
        self.line.playout.add("a", SAID * 5)
        phone = Phone(self.line, PBX)
        for _ in range(10):
            phone.say(b"\x33" * 160, 8)
            self.clock.advance(0.020)
        left, right = self.recorded()
        self.assertEqual(right, SAID * 5 + SILENT * 5)
        self.assertEqual(left, b"".join(self.heard))
        self.assertIn((b"\x33" * 160).translate(g711.translation("PCMA", "PCMU")), left)

    def test_ringing(self) -> None:
        """The ringing that a caller hears during a transfer is in the recording."""
        self.line.ring()
        self.turns(60)
        left, right = self.recorded()
        self.assertEqual(right, (g711.ringing("PCMU") + g711.ringing("PCMU"))[: 60 * 160])
        self.assertEqual(left, SILENT * 60)

    def test_keys_that_we_press(self) -> None:
        """Our keys are silence in the recording when they went out as events, and tones when they did so as tones."""
        self.line.dial("5", lambda: None)
        self.turns(11)
        self.line.move(replace(AGREED, event_type=None))
        self.line.dial("5", lambda: None)
        self.turns(10)
        _, right = self.recorded()
        self.assertEqual(right[: 11 * 160], SILENT * 11)
        self.assertEqual(right[11 * 160 :], b"".join(packet.payload for packet, _ in self.port.sent[11:]))
        self.assertNotIn(SILENT, right[11 * 160 : 16 * 160])
