"""What a caller sounds like to a server of PCM, and the server to the caller."""

from __future__ import annotations

import random
import subprocess
import sys
from array import array
from itertools import pairwise
from math import cos, log10, pi, sin

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.codec import LAWS, Codec, Pcm
from extenbot.media import g711

LEVEL = 8000  # amplitude of what is sent


def level(samples: array[int], hz: float, rate: int) -> float:
    """The amplitude of a tone in a sound, by Goertzel's algorithm."""
    turn = 2 * cos(2 * pi * hz / rate)
    before = now = 0.0
    for sample in samples:
        before, now = now, sample + turn * now - before
    power = before * before + now * now - turn * before * now
    return float(2 * max(power, 0.0) ** 0.5 / len(samples))


def tone(hz: float, rate: int, seconds: float = 1.0) -> array[int]:
    return array("h", (round(LEVEL * sin(2 * pi * hz * n / rate)) for n in range(round(rate * seconds))))


def loss(sent: float, heard: float) -> float:
    """In dB."""
    return 20 * log10(max(heard, 0.01) / sent)


class Sound(SynchronousTestCase):
    def test_tones(self) -> None:
        """What a telephone carries arrives as loud as it was, at the same pitch, by both laws, both ways."""
        for format_, law in LAWS.items():
            for rate in (16000, 24000):
                for hz in (300, 440, 1000, 3000, 3400):
                    codec = Pcm(format_, rate, rate)
                    up = array("h", codec.encode(g711.from_linear(law, tone(hz, 8000).tobytes())))
                    down = array("h", g711.to_linear(law, codec.decode(tone(hz, rate).tobytes())))
                    for samples, at in ((up[at_rest(rate) :], rate), (down[at_rest(8000) :], 8000)):
                        self.assertLess(abs(loss(LEVEL, level(samples, hz, at))), 0.5, (format_, rate, hz))
                        self.assertLess(loss(LEVEL, level(samples, hz * 1.25, at)), -30)

    def test_nothing_comes_back_as_another_tone(self) -> None:
        """What is too high for the telephone vanishes, and the server hears no mirror of the caller's tones."""
        for rate in (16000, 24000):
            for hz in (4600, 5000, 7000):
                codec = Pcm("audio/pcmu", rate, rate)
                heard = array("h", g711.to_linear("PCMU", codec.decode(tone(hz, rate).tobytes())))[at_rest(8000) :]
                self.assertLess(max(map(abs, heard)), 40, (rate, hz))
            codec = Pcm("audio/pcma", rate, rate)
            up = array("h", codec.encode(g711.from_linear("PCMA", tone(3000, 8000).tobytes())))[at_rest(rate) :]
            self.assertLess(loss(LEVEL, level(up, 5000, rate)), -60)

    def test_full_scale(self) -> None:
        """The loudest sound is clipped and does not turn over."""
        square = array("h", ([32767] * 20 + [-32768] * 20) * 200)
        heard = array("h", g711.to_linear("PCMU", Pcm("audio/pcmu", 16000, 16000).decode(square.tobytes())))
        self.assertEqual((max(heard), min(heard)), (32124, -32124))
        runs = sum(1 for one, two in pairwise(heard[100:]) if abs(one - two) > 60000)
        self.assertEqual(runs, 0)


class Length(SynchronousTestCase):
    def test_minutes(self) -> None:
        """After three minutes in pieces of 20 ms nothing is lost and nothing added, to the sample."""
        for into, out in ((16000, 24000), (24000, 24000), (24000, 16000)):
            codec = Pcm("audio/pcma", into, out)
            frame, piece = b"\xd5" * 160, bytes(out // 25)
            up = sum(len(codec.encode(frame)) for _ in range(9000)) / 2
            self.assertLess(abs(9000 * into / 50 - up), into * 0.007)
            down = sum(len(codec.decode(piece)) for _ in range(9000)) + len(codec.finish())
            self.assertEqual(down, 9000 * 160)

    def test_even(self) -> None:
        """Every piece gives its own length at once, after the first, which is shorter by the filter's delay."""
        codec = Pcm("audio/pcmu", 24000, 24000)
        first = 320 - len(codec.decode(bytes(1920)))
        self.assertLess(first / 8, 6.0)
        self.assertEqual({len(codec.decode(bytes(1920))) for _ in range(100)}, {320})
        self.assertLess((960 - len(codec.encode(bytes(320))) / 2) / 24, 6.0)
        self.assertEqual({len(codec.encode(bytes(320))) for _ in range(100)}, {1920})

    def test_utterances(self) -> None:
        """Each utterance ends with its own last sample, and leaves nothing in the next."""
        codec = Pcm("audio/pcmu", 24000, 24000)
        sounds = []
        for hz in (440, 1000):
            audio = tone(hz, 24000, 0.5).tobytes()
            made = codec.decode(audio) + codec.finish()
            self.assertEqual(len(made), 4000)
            sounds.append(array("h", g711.to_linear("PCMU", made)))
        self.assertLess(loss(LEVEL, level(sounds[1], 440, 8000)), -40)
        self.assertGreater(max(map(abs, sounds[0][-60:])), LEVEL * 0.8)
        self.assertEqual(codec.finish(), b"")  # of an utterance without audio

    def test_any_pieces(self) -> None:
        """However the server cuts its audio, also in the middle of a sample, the caller hears the same."""
        chance = random.Random(7)
        audio = array("h", (chance.randint(-20000, 20000) for _ in range(24000))).tobytes()
        whole = Pcm("audio/pcma", 24000, 24000)
        expected = whole.decode(audio) + whole.finish()
        codec, found, place = Pcm("audio/pcma", 24000, 24000), b"", 0
        while place < len(audio):
            size = chance.choice((1, 3, 37, 640, 961, 4801))
            found += codec.decode(audio[place : place + size])
            place += size
        found += codec.finish()
        differing = sum(1 for one, two in zip(found, expected, strict=True) if one != two)
        self.assertLess(differing, 80)  # of 8000: where a sample lies between two codes

    def test_half_a_sample(self) -> None:
        """Half a sample at the end of an utterance is not put in front of the next one."""
        codec = Pcm("audio/pcmu", 16000, 16000)
        codec.decode(b"\x01")
        codec.finish()
        made = codec.decode(tone(1000, 16000).tobytes()) + codec.finish()
        self.assertEqual(len(made), 8000)
        self.assertGreater(level(array("h", g711.to_linear("PCMU", made)), 1000, 8000), LEVEL * 0.95)


class Plain(SynchronousTestCase):
    def test_untouched(self) -> None:
        """Where the server takes the phone's codec the bytes go through as they are, and numpy is not even loaded."""
        codec = Codec()
        self.assertEqual((codec.encode(b"\x12"), codec.decode(b"\x34"), codec.finish()), (b"\x12", b"\x34", b""))
        program = (
            "import sys\n"
            "from extenbot.ai import realtime, dialects\n"
            "print('numpy' in sys.modules, 'jsonschema' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), "False False")


def at_rest(rate: int) -> int:
    """Samples after which the filter has begun."""
    return rate // 50
