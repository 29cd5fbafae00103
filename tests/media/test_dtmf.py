"""Keys pressed on the phone."""

from __future__ import annotations

from dataclasses import replace
from math import pi, sin
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.media import sdp
from extenbot.media.dtmf import COLUMNS, KEYS, PAD, ROWS, Keys, Tones, is_event
from tests.media import test_line
from tests.media.test_line import AGREED, PBX, Phone
from tests.media.voices import FULL, coded, loudness, noise, voice

SILENT = {"PCMU": b"\xff" * 160, "PCMA": b"\xd5" * 160}


def event(key: str, duration: int, *, end: bool = False) -> bytes:
    return bytes([KEYS.index(key), 0x8A if end else 0x0A]) + duration.to_bytes(2)


def pressed(key: str, timestamp: int) -> list[tuple[int, bytes]]:
    """A key of 100 ms as phones send it: updates, then the end three times."""
    updates = [(timestamp, event(key, 160 * n)) for n in range(1, 5)]
    return updates + [(timestamp, event(key, 800, end=True))] * 3


class Pressed(SynchronousTestCase):
    def read(self, packets: list[tuple[int, bytes]], keys: Keys | None = None) -> str:
        keys = keys or Keys()
        return "".join(keys.put(timestamp, payload) for timestamp, payload in packets)

    def test_each_key_once(self) -> None:
        """Every key counts once, however often its event is repeated, the same key twice twice."""
        packets = [packet for at, key in enumerate("0123456789*#ABCD55") for packet in pressed(key, 2000 * at)]
        self.assertEqual(self.read(packets), "0123456789*#ABCD55")

    def test_told_at_once(self) -> None:
        """A key is known at its first packet, not when it is let go."""
        self.assertEqual(Keys().put(0, event("7", 160)), "7")

    def test_lost_ends_and_beginnings(self) -> None:
        """One packet of a key is enough, be it the first or the last."""
        self.assertEqual(
            self.read([(0, event("1", 160)), (2000, event("1", 160)), (4000, pressed("3", 0)[-1][1])]), "113"
        )

    def test_overtaken(self) -> None:
        """A repetition that arrives after the next key's first packet is not a third key."""
        first, second = pressed("1", 0), pressed("2", 2000)
        self.assertEqual(self.read([*first[:5], second[0], *first[5:], *second[1:]]), "12")

    def test_wrap(self) -> None:
        """The timestamp's wrap between two keys changes nothing."""
        self.assertEqual(self.read(pressed("1", 0xFFFFFC00) + pressed("1", 0x400)), "11")

    def test_held_long(self) -> None:
        """A key held beyond the longest duration is one key, in several segments (RFC 4733 2.5.1.3)."""
        packets = [(0, event("5", 160)), (0, event("5", 0xFFFF)), (0xFFFF, event("5", 160)), (0xFFFF, event("5", 320))]
        self.assertEqual(self.read(packets), "5")

    def test_held_long_with_loss(self) -> None:
        """…also when the packet that should have ended a segment is lost."""
        packets = [(0, event("5", 160)), (0xFFFF, event("5", 320)), (0x1FFFE, event("5", 320, end=True))]
        self.assertEqual(self.read(packets), "5")

    def test_pressed_again(self) -> None:
        """A key pressed again is a second one, however long after the first it is."""
        packets = [*pressed("5", 0), *pressed("5", 0xFFFF), (0x30000, event("5", 160)), (0x50000, event("5", 160))]
        self.assertEqual(self.read(packets), "5555")

    def test_several_in_a_packet(self) -> None:
        """Events that stand in one packet count once each, also when the packet comes again with one more."""
        one, two, flash = event("1", 800, end=True), event("2", 480), b"\x10\x0a\x03\x20"
        packets = [(0, one), (0, one + flash + two), (0, one + flash + two), (1600, event("2", 800, end=True))]
        self.assertEqual(self.read(packets), "12")
        self.assertEqual(self.read([(0, one + one + two + b"\x01\x02")]), "112")

    def test_same_timestamp(self) -> None:
        """Another key with the timestamp of the one before is another key."""
        self.assertEqual(self.read([*pressed("1", 0), *pressed("2", 0)]), "12")

    def test_counting_on(self) -> None:
        """A gateway that counts the timestamp on within a key presses it once, and again when it is pressed again."""
        packets = [(160 * n, event("3", 160 * n + 160, end=n > 4)) for n in range(8)]
        again = [(2400 + timestamp, payload) for timestamp, payload in packets]
        self.assertEqual(self.read([*packets, *again]), "33")

    def test_lost_end_and_pressed_again(self) -> None:
        """A key whose ends are lost may follow itself as soon as anybody can press it, 40 ms after 40 ms."""
        self.assertEqual(self.read([(0, event("6", 160)), (640, event("6", 160)), (1280, event("6", 160))]), "666")

    def test_begun_again(self) -> None:
        """A stream that begins again with an earlier timestamp is understood, from the first key on."""
        self.assertEqual(self.read([*pressed("1", 900_000), *pressed("2", 1000), *pressed("2", 3000)]), "122")

    def test_reserved(self) -> None:
        """The reserved bit means nothing (RFC 4733 2.3.2)."""
        self.assertEqual(Keys().put(0, b"\x01\x4a\0\xa0"), "1")
        self.assertFalse(is_event(b"\x01\x4a\0\xa0"))  # but it is no sign of an event either

    def test_other_events(self) -> None:
        """Hook flash, fax tones and payloads of other shapes are no keys."""
        for payload in (b"\x10\x0a\0\xa0", b"\x24\x0a\0\xa0", b"", b"\x01", b"\x01\x0a\0"):
            self.assertEqual(Keys().put(0, payload), "")

    @given(st.lists(st.tuples(st.integers(0, 0xFFFFFFFF), st.binary(max_size=6))))
    def test_noise(self, packets: list[tuple[int, bytes]]) -> None:
        """Nothing that comes raises."""
        self.assertTrue(set(self.read(packets)) <= set(KEYS))


def sound(
    key: str, ms: int = 100, level: float = -10.0, twist: float = 2.0, off: float = 0.0, column_off: float = 0.0
) -> list[int]:
    """The tones of a key: dB of full scale for the row, `twist` dB more for the column; frequencies off by shares."""
    row, column = divmod(PAD.index(key), 4)
    tones = (
        (ROWS[row] * (1 + off), 10 ** (level / 20)),
        (COLUMNS[column] * (1 + column_off), 10 ** ((level + twist) / 20)),
    )
    return [round(FULL * sum(share * sin(2 * pi * hertz * n / 8000) for hertz, share in tones)) for n in range(ms * 8)]


class Sounding(SynchronousTestCase):
    def read(self, samples: list[int], law: str = "PCMU", tones: Tones | None = None) -> str:
        """The keys heard; `out` is what is given on."""
        tones = tones or Tones(law)
        self.out = []
        keys = ""
        audio = coded(law, samples + [0] * (-len(samples) % 160 + 320))
        for at in range(0, len(audio), 160):
            frame, key = tones.put(audio[at : at + 160])
            self.out.append(frame)
            keys += key
        return keys

    def test_each_key(self) -> None:
        """All sixteen keys are heard in either law, wherever in a packet they begin, and nothing of them goes on."""
        for law in SILENT:
            for shift in range(0, 160, 13):
                samples = [0] * shift
                for key in PAD:
                    samples += sound(key) + [0] * 800
                self.assertEqual(self.read(samples, law), PAD, shift)
                self.assertEqual(set(self.out), {SILENT[law]})

    def test_short(self) -> None:
        """40 ms of a key, and 40 ms between two, are enough; 10 ms are none."""
        for shift in range(0, 160, 7):
            samples = [0] * shift
            for key in "5509#":
                samples += sound(key, 40) + [0] * 320
            self.assertEqual(self.read(samples), "5509#", shift)
            self.assertEqual(self.read([0] * shift + sound("5", 10)), "")

    def test_tolerance(self) -> None:
        """Levels, twists and frequencies that phones may have (ITU-T Q.24), and noise 15 dB below."""
        hiss = noise(1, 1, -30)
        for key in PAD:
            for level, twist, off in (
                (-3, 0, 0), (-28, 0, 0), (-10, 4, 0), (-10, -8, 0), (-10, 0, 0.015), (-10, 0, -0.015), (-12, 4, 0.015)
            ):  # fmt: skip
                for column_off in (off, -off):
                    samples = sound(key, 60, level - max(0, twist), twist, off, column_off)
                    if level > -20:
                        samples = [sample + more for sample, more in zip(samples, hiss, strict=False)]
                    self.assertEqual(self.read(samples), key, (key, level, twist, off, column_off))

    def test_levels(self) -> None:
        """50 ms of a key and 50 ms between two at -6 to -30 dBm0, either tone up to 6 dB below the other."""
        for law in SILENT:
            for level in (-6, -18, -30):
                for twist in (0, 6, -6):
                    samples = [0] * 61
                    for key in PAD:
                        # A sine of full scale has 3.17 dBm0 (ITU-T G.711).
                        samples += sound(key, 50, level - 3.17 - max(0, twist), twist) + [0] * 400
                    self.assertEqual(self.read(samples, law), PAD, (law, level, twist))

    def test_noisy_line(self) -> None:
        """Noise 15 dB below the tones hides none of them."""
        hiss = noise(4, 3, -25)
        samples: list[int] = []
        for at, key in enumerate(PAD):
            samples += sound(key, 60, -10, 0, 0.01 - at % 3 * 0.01) + [0] * 560
        self.assertEqual(self.read([a + b for a, b in zip(samples, hiss, strict=False)]), PAD)

    def test_held(self) -> None:
        """A key held for seconds counts once, also when packets of it are lost."""
        samples = sound("7", 3000)
        self.assertEqual(self.read(samples), "7")
        for lost in (8000, 12000, 16080):
            samples[lost : lost + 160] = [0] * 160
        self.assertEqual(self.read(samples), "7")

    def test_no_key(self) -> None:
        """Single tones, a dialling tone, a busy tone and noise are no keys, and go on as they are."""
        for samples in (
            [round(8000 * sin(2 * pi * 440 * n / 8000)) for n in range(4000)],
            [round(8000 * sin(2 * pi * 770 * n / 8000)) for n in range(4000)],
            [round(8000 * sin(2 * pi * 1336 * n / 8000)) for n in range(4000)],
            [round(5000 * (sin(2 * pi * 350 * n / 8000) + sin(2 * pi * 440 * n / 8000))) for n in range(4000)],
            list(noise(2, 0.5, -20)),
        ):
            self.assertEqual(self.read(samples), "")
            self.assertEqual(b"".join(self.out)[160 : 160 + 4000], coded("PCMU", samples))

    def test_talk_off(self) -> None:
        """In minutes of speech no key is heard, and hardly anything of it is lost."""
        lost = frames = 0
        for seed in range(14):
            samples = voice(100 + seed, 10, 90 + 20 * seed, -16)
            self.assertEqual(self.read(list(samples)), "", seed)
            given = b"".join(self.out)[160:]
            spoken = coded("PCMU", list(samples))
            for at in range(0, len(spoken), 160):
                if loudness("PCMU", spoken[at : at + 160]) > 0.01:
                    frames += 1
                    lost += given[at : at + 160] != spoken[at : at + 160]
        self.assertLess(lost / frames, 0.001)

    def test_over_speech(self) -> None:
        """A key pressed while somebody speaks softly is heard."""
        samples = [round(sample * 0.1) for sample in voice(7, 3, 140)]
        for n, sample in enumerate(sound("3", 100)):
            samples[9000 + n] += sample
        self.assertEqual(self.read(samples), "3")

    def test_random(self) -> None:
        """Any number is read as it was dialled."""
        chance = Random(5)
        number = "".join(chance.choice(PAD) for _ in range(60))
        samples: list[int] = []
        for key in number:
            samples += sound(key, chance.randint(45, 130), chance.uniform(-22, -8)) + [0] * chance.randint(340, 900)
        self.assertEqual(self.read(samples), number)


class OnTheLine(test_line.Call):
    def plays(self, samples: list[int]) -> None:
        audio = coded("PCMU", samples + [0] * (-len(samples) % 160))
        phone = self.phone
        for at in range(0, len(audio), 160):
            phone.say(audio[at : at + 160])
            self.clock.advance(0.020)

    def setUp(self) -> None:
        super().setUp()
        self.phone = Phone(self.line, PBX)

    def test_last_resort(self) -> None:
        """Without telephone events in the SDP, keys are heard as tones, and the model hears silence for them."""
        self.line.move(replace(AGREED, event_type=None))
        self.line.inband = True
        self.plays([0] * 1600 + sound("4") + [0] * 800 + sound("2") + [0] * 1600)
        self.assertEqual(self.keys, ["4", "2"])
        self.assertTrue(all(loudness("PCMU", frame) < 0.001 for frame in self.heard))

    def test_not_asked(self) -> None:
        """Unless the bot wants that, tones are sounds like others."""
        self.plays(sound("4") + [0] * 1600)
        self.assertEqual(self.keys, [])
        self.assertTrue(any(loudness("PCMU", frame) > 0.1 for frame in self.heard))

    def test_agreed_but_not_used(self) -> None:
        """A gateway that agreed on events and sends tones is understood."""
        self.line.inband = True
        self.plays(sound("9") + [0] * 1600)
        self.assertEqual(self.keys, ["9"])

    def test_both(self) -> None:
        """A phone that signals its keys and lets them be heard as well presses each of them once."""
        self.line.inband = True
        for event_first in (False, True):
            self.line.inband = True
            del self.keys[:]
            for key in "11":
                began = self.phone.timestamp
                if event_first:
                    self.phone.say(event(key, 160), 101)
                self.plays(sound(key))
                self.phone.timestamp, now = began, self.phone.timestamp
                self.phone.say(event(key, 800, end=True), 101)
                self.phone.timestamp = now
                self.plays([0] * 6400)
                self.assertFalse(self.line.inband)
            self.assertEqual(self.keys, ["1", "1"], event_first)

    def test_told_by_the_signalling_too(self) -> None:
        """A phone that says its keys as events and by INFO, in whatever order, presses each of them once."""
        for info_first in (True, False):
            del self.keys[:]
            for key in "11223":
                if info_first:
                    self.line.informed(key)
                self.plays([0] * 800)
                began = self.phone.timestamp
                self.phone.say(event(key, 160), 101)
                self.phone.timestamp = began
                self.phone.say(event(key, 800, end=True), 101)
                self.plays([0] * 3200)
                if not info_first:
                    self.line.informed(key)
                self.plays([0] * 3200)
            self.assertEqual(self.keys, list("11223"), info_first)

    def test_told_by_the_signalling_alone(self) -> None:
        """By INFO each key counts, however quickly it is repeated; its sound is then no key of its own."""
        self.line.inband = True
        self.plays(sound("7"))
        self.line.informed("7")
        for key in "779":
            self.line.informed(key)
            self.plays(sound(key))
        self.assertEqual(self.keys, list("7779"))

    def test_signalled_at_its_end(self) -> None:
        """A key held for a second that is heard, and signalled when it is let go, is one; the next is another."""
        self.line.inband = True
        began = self.phone.timestamp
        self.plays(sound("8", 1000))
        self.phone.timestamp, now = began, self.phone.timestamp
        self.phone.say(event("8", 8000, end=True), 101)
        self.phone.timestamp = now
        self.assertEqual(self.keys, ["8"])
        self.plays([0] * 800)
        self.phone.say(event("8", 800, end=True), 101)
        self.assertEqual(self.keys, ["8", "8"])

    def test_events_in_one_packet(self) -> None:
        """Two keys in one packet are two keys."""
        self.phone.say(event("1", 800, end=True) + event("2", 800, end=True), 101)
        self.assertEqual(self.keys, ["1", "2"])

    def test_other_type(self) -> None:
        """A re-INVITE in the middle of a key gives keys another payload type: each of them counts once."""
        began = self.phone.timestamp
        self.phone.say(event("4", 160), 101)
        self.line.move(replace(AGREED, event_type=96))
        for kind, end in ((101, False), (96, True), (101, True)):
            self.phone.timestamp = began
            self.phone.say(event("4", 800, end=end), kind)
        self.phone.timestamp = began + 2400
        self.phone.say(event("5", 160), 96)
        self.phone.timestamp = began + 4800
        self.phone.say(event("6", 160), 101)  # sent before the phone had our answer
        self.assertEqual(self.keys, ["4", "5", "6"])

    def test_other_clock(self) -> None:
        """Keys at 48 kHz alone were not agreed on: no key, no fault, and the words around them are heard whole."""
        them = sdp.read_offer(
            b"v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0 99\r\na=rtpmap:99 telephone-event/48000\r\n"
        )
        self.line.move(sdp.agree(them))
        for n in range(20):
            if n in (8, 9, 10):
                words = self.phone.timestamp
                self.phone.timestamp = 6 * words
                self.phone.say(event("4", 960 * n), 99)
                self.phone.timestamp = words
            self.phone.say()
            self.clock.advance(0.020)
        self.clock.advance(0.060)
        self.assertEqual((self.keys, self.line.statistics.packets_ignored), ([], 3))
        self.assertEqual(self.heard.count(test_line.LOUD), 20)

    def test_no_events(self) -> None:
        """What is too long for keys, or cut short, presses none at the keys' own payload type."""
        self.phone.say(bytes(160), 101)
        self.phone.say(b"\x01\x0a", 101)
        self.assertEqual((self.keys, self.line.statistics.packets_ignored), ([], 1))
