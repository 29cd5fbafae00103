"""WAV files as people make them become what a phone hears."""

from __future__ import annotations

from itertools import pairwise
from math import pi, sin
from struct import pack

from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Invalid
from extenbot.media import g711
from extenbot.web import wav

LEVEL = 0.5


def file(kind: int, channels: int, rate: int, bits: int, sound: bytes, before: bytes = b"", more: bytes = b"") -> bytes:
    """A WAV file; `before` are chunks before the sound, `more` the rest of an extensible format."""
    whole = channels * bits // 8
    head = pack("<HHIIHH", kind, channels, rate, rate * whole, whole, bits) + more
    body = b"WAVE" + pack("<4sI", b"fmt ", len(head)) + head + before + pack("<4sI", b"data", len(sound)) + sound
    return pack("<4sI", b"RIFF", len(body)) + body


def tone(rate: int, seconds: float = 0.5) -> list[float]:
    return [LEVEL * sin(2 * pi * 400 * n / rate) for n in range(round(rate * seconds))]


class Uploads(SynchronousTestCase):
    def check(self, data: bytes, seconds: float = 0.5) -> None:
        """It sounds as long and as loud as it was."""
        audio = wav.read(data)
        self.assertApproximates(len(audio) / g711.RATE, seconds, 0.002)
        samples = [g711.decoding("PCMU")[code] / 32768 for code in audio[800:-800]]
        power = sum(sample * sample for sample in samples) / len(samples)
        self.assertApproximates(power, LEVEL * LEVEL / 2, 0.01)
        turns = sum(a < 0 <= b for a, b in pairwise(samples))
        self.assertApproximates(turns / (len(samples) / g711.RATE), 400, 6)

    def test_kinds(self) -> None:
        """Every width of PCM, float, both laws, any usual rate, mono and stereo."""
        for rate in (8000, 11025, 16000, 44100, 48000):
            sound = b"".join(round(x * 32767).to_bytes(2, "little", signed=True) for x in tone(rate))
            self.check(file(1, 1, rate, 16, sound))
        at_16k = tone(16000)
        for bits in (24, 32):
            scale = 2 ** (bits - 1) - 1
            sound = b"".join(round(x * scale).to_bytes(bits // 8, "little", signed=True) for x in at_16k)
            self.check(file(1, 1, 16000, bits, sound))
        self.check(file(1, 1, 16000, 8, bytes(round(128 + x * 127) for x in at_16k)))
        self.check(file(3, 1, 16000, 32, b"".join(pack("<f", x) for x in at_16k)))
        self.check(file(3, 1, 16000, 64, b"".join(pack("<d", x) for x in at_16k)))
        self.check(file(1, 2, 16000, 16, b"".join(pack("<hh", *[round(x * 32767)] * 2) for x in at_16k)))
        for kind, law in ((6, "PCMA"), (7, "PCMU")):
            self.check(file(kind, 1, 8000, 8, g711.tone(law, 400, 500, LEVEL)))

    def test_around_the_sound(self) -> None:
        """Chunks that say who recorded it, an extensible format, and a file that was cut off."""
        sound = b"".join(pack("<h", round(x * 32767)) for x in tone(16000))
        self.check(file(1, 1, 16000, 16, sound, before=pack("<4sI", b"LIST", 5) + b"abcde\0"))
        more = pack("<HHI", 22, 16, 4) + pack("<H", 1) + bytes(14)
        self.check(file(0xFFFE, 1, 16000, 16, sound, more=more))
        self.check(file(1, 1, 16000, 16, sound)[:-1601], 0.45)

    def test_mu_law_stays(self) -> None:
        """What is in the phone's own form already is not changed, there and back."""
        audio = g711.tone("PCMU", 400, 500, LEVEL)
        self.assertEqual(wav.read(file(7, 1, 8000, 8, audio)), audio)
        self.assertEqual(wav.read(wav.written(audio)), audio)

    def test_bad_files(self) -> None:
        """What cannot be used is told in a sentence."""
        second = bytes(32000)
        loud = b"\x40\x20" * 16000
        for data, words in (
            (b"", "Choose a WAV"),
            (b"ID3 an MP3", "no WAV"),
            (b"RIFF", "no WAV"),
            (b"RIFF\0\0\0\0WAVE", "no sound"),
            (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0", "no WAV"),
            (file(1, 1, 16000, 16, second), "silence"),
            (file(1, 1, 16000, 16, b""), "no sound"),
            (file(1, 1, 16000, 16, loud[:200]), "no sound"),
            (file(1, 1, 16000, 16, loud * 61), "At most 60 seconds, please: this lasts 61"),
            (file(0x55, 1, 16000, 16, loud), "kind of WAV"),
            (file(1, 1, 16000, 0, loud), "kind of WAV"),
            (file(1, 0, 16000, 16, loud), "kind of WAV"),
            (file(1, 1, 0, 16, loud), "kind of WAV"),
            (file(1, 1, 16000, 12, loud), "kind of WAV"),
            (file(3, 1, 16000, 16, loud), "kind of WAV"),
            (file(6, 1, 16000, 16, loud), "kind of WAV"),
        ):
            with self.assertRaises(Invalid) as caught:
                wav.read(data)
            self.assertIn(words, caught.exception.problems["file"])

    def test_not_a_number(self) -> None:
        """Nonsense among float samples harms nobody."""
        sound = b"".join(pack("<f", x) for x in (*tone(8000), float("nan"), float("inf"), 1e30))
        self.assertEqual(len(wav.read(file(3, 1, 8000, 32, sound))), 4003)
