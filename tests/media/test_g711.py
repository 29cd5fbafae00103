"""The two laws, checked against figures of ITU-T G.711 and against themselves."""

from __future__ import annotations

from itertools import pairwise
from struct import pack, unpack

from twisted.trial.unittest import SynchronousTestCase

from extenbot.media import g711


class Laws(SynchronousTestCase):
    def test_known_values(self) -> None:
        """The ends and the middle of both laws are those of G.711's tables."""
        mu, a = g711.decoding("PCMU"), g711.decoding("PCMA")
        self.assertEqual([mu[code] for code in (0xFF, 0x7F, 0x80, 0x00, 0xFE)], [0, 0, 32124, -32124, 8])
        self.assertEqual([a[code] for code in (0xD5, 0x55, 0xAA, 0x2A)], [8, -8, 32256, -32256])

    def test_silence(self) -> None:
        """Silence is the code of zero."""
        for codec, silence in g711.SILENCE.items():
            self.assertEqual(g711.from_linear(codec, bytes(2)), silence)
            self.assertIn(silence, g711.quiet(codec))

    def test_codes_survive(self) -> None:
        """Each code decodes to a sample that encodes to it again (minus zero becomes zero)."""
        for codec in g711.SILENCE:
            codes = bytes(range(256))
            again = g711.from_linear(codec, g711.to_linear(codec, codes))
            self.assertEqual(again, codes.replace(b"\x7f", b"\xff") if codec == "PCMU" else codes)

    def test_nearest(self) -> None:
        """No other code is much nearer to a sample than the one chosen: the steps are logarithmic."""
        for codec in g711.SILENCE:
            table, decoded = g711.encoding(codec), g711.decoding(codec)
            for sample in range(-32768, 32768, 7):
                error = abs(decoded[table[sample & 0xFFFF]] - sample)
                self.assertLessEqual(error, max(16, abs(sample) / 32 + 8) if abs(sample) < 32000 else 700)

    def test_tone(self) -> None:
        """A tone has the asked length, loudness and number of zero crossings."""
        audio = g711.tone("PCMA", 440, 1000, level=0.5)
        linear = g711.to_linear("PCMA", audio)
        samples = unpack(f"<{len(audio)}h", linear)
        self.assertEqual(len(audio), 8000)
        self.assertAlmostEqual(max(samples) / 32767, 0.5, places=1)
        crossings = sum(1 for one, two in pairwise(samples) if one < 0 <= two)
        self.assertIn(crossings, (439, 440))

    def test_little_endian(self) -> None:
        """Linear audio is little-endian whatever the machine."""
        self.assertEqual(g711.to_linear("PCMU", b"\x80"), pack("<h", 32124))

    def test_translation(self) -> None:
        """Each code of one law becomes the code of the other that stands for its sample, louder stays louder."""
        for of, to in (("PCMU", "PCMA"), ("PCMA", "PCMU")):
            table, before, after = g711.translation(of, to), g711.decoding(of), g711.decoding(to)
            assert table is not None
            for code in range(256):
                error = abs(after[table[code]] - before[code])
                self.assertLessEqual(error, max(8, abs(before[code]) / 32 + 8), (of, code))
            louder = [after[table[code]] for code in sorted(range(256), key=before.__getitem__)]
            self.assertEqual(louder, sorted(louder))
            self.assertIn(table[g711.SILENCE[of][0]], g711.quiet(to))

    def test_there_and_back(self) -> None:
        """Translated to the other law and back, a sample is off by no more than a step of its loudness."""
        for of, to in (("PCMU", "PCMA"), ("PCMA", "PCMU")):
            there, back, decoded = g711.translation(of, to), g711.translation(to, of), g711.decoding(of)
            assert there is not None
            assert back is not None
            for code in range(256):
                again = decoded[back[there[code]]]
                self.assertLessEqual(abs(again - decoded[code]), max(16, abs(decoded[code]) / 16), (of, code))
        self.assertIsNone(g711.translation("PCMU", "PCMU"))
