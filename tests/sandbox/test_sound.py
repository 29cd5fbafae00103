"""Formats, tones and turn detection by loudness."""

from __future__ import annotations

import random
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.sandbox.formats import FORMATS, PCM, PCMA, PCMU, decode, encode
from extenbot.sandbox.frames import Unpacker, pack
from extenbot.sandbox.sounds import Sound, render
from extenbot.sandbox.turns import Gate
from extenbot.sandbox.wire import DETECTION


class Formats(SynchronousTestCase):
    def test_golden(self) -> None:
        """Silence, the smallest steps and full scale are the codes of G.711."""
        self.assertEqual(encode([0, 8, -8, 32767, -32768], PCMU).hex(), "fffe7e8000")
        self.assertEqual(encode([0, 16, -16, 32767, -32768], PCMA).hex(), "d5d455aa2a")
        self.assertEqual(list(decode(b"\x00\x80\xff", PCMU)), [-32124, 32124, 0])
        self.assertEqual(list(decode(b"\x2a\xaa\xd5", PCMA)), [-32256, 32256, 8])

    def test_every_code(self) -> None:
        """Each code is read and written back as itself (minus zero aside)."""
        for wire in (PCMU, PCMA):
            codes = bytes(range(256))
            back = encode(decode(codes, wire), wire)
            self.assertEqual(
                [(a, b) for a, b in zip(codes, back, strict=True) if a != b], [(0x7F, 0xFF)] * (wire is PCMU)
            )

    @given(st.integers(-32768, 32767))
    def test_error(self, sample: int) -> None:
        """A sample comes back within a sixteenth of itself."""
        for wire in (PCMU, PCMA):
            (back,) = decode(encode([sample], wire), wire)
            self.assertLessEqual(abs(back - sample), max(abs(sample) / 16, 16) + 400 * (abs(sample) > 32000))

    def test_lengths(self) -> None:
        """A second of sound is a second in every format."""
        for wire in FORMATS.values():
            self.assertEqual(len(render(Sound(hz=440, seconds=1), wire)), wire.per_ms * 1000)
            self.assertEqual(set(render(Sound(seconds=0.1), wire)), set(wire.silence))


class Gates(SynchronousTestCase):
    def _turns(self, sound: bytes, wire: str = "audio/pcmu", pieces: int = 160, threshold: float = 0.5) -> list[object]:
        found: list[object] = []
        gate = Gate(lambda at: found.append(("on", at)), lambda at: found.append(("off", at)))
        detection = {**DETECTION["server_vad"], "threshold": threshold}
        for start in range(0, len(sound), pieces):
            gate.heard(sound[start : start + pieces], FORMATS[wire], detection)
        return found

    def test_times(self) -> None:
        """A tone of one second after one of silence is a turn at 1000 ms, in every format and any pieces."""
        for wire in FORMATS.values():
            sound = b"".join(render(Sound(hz=hz, seconds=1), wire) for hz in (0, 600, 0))
            for pieces in (wire.per_ms * 20, 997, 100_000):
                self.assertEqual(self._turns(sound, wire.name, pieces), [("on", 1000), ("off", 2500)], (wire, pieces))

    def test_clicks_and_hum(self) -> None:
        """A click of 40 ms and a hum below the threshold are no turns."""
        click = render(Sound(hz=600, seconds=0.04), PCMU)
        quiet = encode([random.Random(1).randint(-400, 400) for _ in range(16000)], PCMU)
        self.assertEqual(self._turns(PCMU.silence * 8000 + click + PCMU.silence * 8000 + quiet), [])
        self.assertNotEqual(self._turns(quiet, threshold=0.1), [])

    def test_pcm_level(self) -> None:
        """The same sound is voice in PCM as in G.711."""
        hum = [400, -400] * 12000
        self.assertEqual(self._turns(encode(hum, PCM), "audio/pcm"), [])
        self.assertNotEqual(self._turns(encode([900, -900] * 12000, PCM), "audio/pcm"), [])


class Frames(SynchronousTestCase):
    @given(st.lists(st.tuples(st.integers(), st.binary(max_size=50)), max_size=5), st.integers(1, 40))
    def test_any_pieces(self, messages: list[tuple[int, bytes]], size: int) -> None:
        """Messages arrive whole, however the pipe cuts them."""
        data = b"".join(pack({"n": n}, body) for n, body in messages)
        unpacker = Unpacker()
        found = [got for at in range(0, len(data), size) for got in unpacker.received(data[at : at + size])]
        self.assertEqual([(head["n"], body) for head, body in found], messages)


class NoHeavyImports(SynchronousTestCase):
    def test_piper_stays_out(self) -> None:
        """The service never loads Piper (GPL) nor Whisper."""
        code = (
            "import sys, extenbot.sandbox.server; print({'piper', 'faster_whisper', 'onnxruntime'} & set(sys.modules))"
        )
        self.assertEqual(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout, "set()\n")
