"""Keys that the bot presses, as a menu on the other side gets them."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, pairwise
from math import cos, log10, pi, sin

from extenbot.media import g711, rtp, srtp
from extenbot.media.dtmf import COLUMNS, KEYS, ROWS, Keys
from extenbot.media.line import Line
from extenbot.media.pacer import Pacer
from extenbot.media.srtp import Crypto, Srtp
from tests.media import test_line
from tests.media.test_line import AGREED, LOUD, NAT, PBX, SILENT, Given, Phone, Port

NO_EVENTS = replace(AGREED, event_type=None)


def level(audio: bytes, hertz: float, law: str = "PCMU") -> float:
    """dBm0 of one frequency."""
    decoding = g711.decoding(law)
    step = 2 * pi * hertz / 8000
    real = sum(decoding[code] * cos(step * n) for n, code in enumerate(audio))
    other = sum(decoding[code] * sin(step * n) for n, code in enumerate(audio))
    return 20 * log10(max(1.0, 2 * (real * real + other * other) ** 0.5 / len(audio)) / 32767) + 3.17


class Dialled(test_line.Call):
    def setUp(self) -> None:
        super().setUp()
        self.done = 0

    def finished(self) -> None:
        self.done += 1

    def events(self) -> list[rtp.Packet]:
        return [packet for packet, _ in self.port.sent if packet.payload_type == 101]

    def read(self) -> str:
        """What a phone understands."""
        keys = Keys()
        return "".join(keys.put(packet.timestamp, packet.payload) or "" for packet in self.events())

    def test_an_event(self) -> None:
        """One key is one event: marked first, growing, its end three times, and silence until the next may come."""
        self.turns(2)
        start = self.port.sent[-1][0]
        self.line.dial("5", self.finished)
        self.turns(10)
        self.assertEqual(self.done, 0)
        self.turns(1)
        self.assertEqual(self.done, 1)
        packets = [packet for packet, _ in self.port.sent[2:]]
        begin = (start.timestamp + 160) & 0xFFFFFFFF
        self.assertEqual(
            [(packet.marker, packet.timestamp, packet.payload) for packet in packets[:7]],
            [(n == 0, begin, bytes((5, 10)) + (160 * (n + 1)).to_bytes(2)) for n in range(4)]
            + [(False, begin, bytes((5, 0x8A)) + (800).to_bytes(2))] * 3,
        )
        self.assertEqual({packet.payload_type for packet in packets[:7]}, {101})
        self.assertEqual([(p.payload_type, p.payload) for p in packets[7:]], [(0, SILENT)] * 4)
        self.assertEqual(rtp.later(packets[7].timestamp, begin), 7 * 160)
        sequence = [packet.sequence for packet, _ in self.port.sent]
        self.assertTrue(all(rtp.ahead(b, a) == 1 for a, b in pairwise(sequence)))

    def test_every_key(self) -> None:
        """All sixteen keys, and the same one twice, arrive in order, at the payload type that was agreed on."""
        self.line.move(replace(AGREED, event_type=97))
        self.line.dial(KEYS + "55a", self.finished)
        self.turns(19 * 10 + 1)
        keys = Keys()
        packets = [packet for packet, _ in self.port.sent if packet.payload_type == 97]
        got = "".join(keys.put(packet.timestamp, packet.payload) or "" for packet in packets)
        self.assertEqual((got, self.done, len(packets)), (KEYS + "55A", 1, 19 * 7))

    def test_packet_times(self) -> None:
        """In packets of any length a key sounds 100 ms or a little more, its end comes three times, and all arrive."""
        for ptime in (10, 30, 40, 60):
            self.line.move(replace(AGREED, ptime=ptime))
            del self.port.sent[:]
            self.done = 0
            self.line.dial("123", self.finished)
            for _ in range(1200):
                self.clock.advance(0.001)
            self.assertEqual((self.read(), self.done), ("123", 1), ptime)
            for _, group in groupby(self.events(), key=lambda packet: packet.payload[0]):
                ends = [packet.payload for packet in group if packet.payload[1] & 0x80]
                self.assertEqual((len(ends), len(set(ends))), (3, 1))
                self.assertLess(abs(int.from_bytes(ends[0][2:]) / 8 - 110), 20)

    def test_pauses(self) -> None:
        """A comma is a second, a w half of one."""
        self.line.dial("1,2w3", self.finished)
        self.turns(200)
        at = [n for n, (packet, _) in enumerate(self.port.sent) if packet.payload_type == 101 and packet.marker]
        self.assertEqual([(b - a) * 20 for a, b in pairwise(at)], [1200, 700])
        self.assertEqual((self.read(), self.done), ("123", 1))

    def test_the_bot_waits(self) -> None:
        """What the bot was saying stops for the keys and goes on where it was, at a marked packet."""
        self.line.playout.add("a", bytes(range(160)) * 6)
        self.turns(3)
        self.line.dial("9", self.finished)
        self.turns(13)
        audio = [packet for packet, _ in self.port.sent if packet.payload == bytes(range(160))]
        self.assertEqual(len(audio), 6)
        self.assertEqual([packet.marker for packet in audio], [True, False, False, True, False, False])
        self.assertEqual(rtp.later(audio[3].timestamp, audio[2].timestamp), 11 * 160)
        self.assertEqual(self.line.playout.played("a").sent, 960)

    def test_hearing_goes_on(self) -> None:
        """While keys go out the model hears the menu."""
        self.line.dial("1", self.finished)
        self.turns(8, Phone(self.line, PBX))
        self.assertEqual(self.heard.count(LOUD), 7)

    def test_one_after_the_other(self) -> None:
        """Keys asked for meanwhile follow; each string says once that it is done."""
        done: list[str] = []
        self.line.dial("1", lambda: done.append("first"))

        def second() -> None:
            done.append("second")
            self.line.dial("3", lambda: done.append("third"))

        self.line.dial("2", second)
        self.turns(10)
        self.assertEqual(done, [])
        self.turns(1)
        self.assertEqual(done, ["first"])
        self.turns(30)
        self.assertEqual((done, self.read()), (["first", "second", "third"], "123"))

    def test_hold(self) -> None:
        """On hold nothing is pressed; afterwards the keys go on."""
        self.line.dial("12", self.finished)
        self.turns(10)
        self.line.move(replace(AGREED, direction="inactive"))
        self.turns(100)
        self.assertEqual((self.read(), self.done), ("1", 0))
        self.line.move(AGREED)
        self.turns(11)
        self.assertEqual((self.read(), self.done), ("12", 1))

    def test_stopped(self) -> None:
        """At the end of the call the rest is forgotten, and nobody is told that it was done."""
        self.line.dial("123", self.finished)
        self.turns(15)
        self.line.stop()
        self.turns(50)
        self.assertEqual((len(self.port.sent), self.done), (15, 0))

    def test_stopped_by_the_end(self) -> None:
        """Whoever hears that the keys are out may end the call there and then."""

        def hang_up() -> None:
            self.line.stop()
            self.port.close()

        self.line.dial("1", hang_up)
        self.turns(20)
        self.assertEqual(len(self.port.sent), 10)

    def test_no_keys(self) -> None:
        """What is no key is refused with a word, and nothing of it is sent."""
        for digits in ("", "12E", "5;", "1 2", "é", "1\n"):
            self.assertRaises(ValueError, self.line.dial, digits, self.finished)
        self.turns(3)
        self.assertEqual((self.events(), self.done), ([], 0))

    def test_reported(self) -> None:
        """Our report counts events as they are: four octets each."""
        self.line.dial("1", self.finished)
        self.turns(250)
        (data, _), *_ = self.port.control
        self.assertEqual(int.from_bytes(data[24:28]), 243 * 160 + 7 * 4)

    def test_tones(self) -> None:
        """Who takes no events gets 100 ms of two tones, the upper 2 dB above the lower, in the wire's law."""
        for law, kind in (("PCMU", 0), ("PCMA", 8)):
            self.line.move(replace(NO_EVENTS, codec=law, payload_type=kind))
            for n, key in enumerate("123A456B789C*0#D"):
                del self.port.sent[:]
                self.line.dial(key, self.finished)
                self.turns(11)
                audio = b"".join(packet.payload for packet, _ in self.port.sent)
                self.assertEqual({packet.payload_type for packet, _ in self.port.sent}, {kind})
                self.assertEqual(audio[800:], g711.SILENCE[law] * 960)
                sound = audio[:800]
                self.assertLess(abs(level(sound, ROWS[n // 4], law) + 10), 0.5)
                self.assertLess(abs(level(sound, COLUMNS[n % 4], law) + 8), 0.5)
                others = [hertz for hertz in ROWS + COLUMNS if hertz not in (ROWS[n // 4], COLUMNS[n % 4])]
                self.assertLess(max(level(sound, hertz, law) for hertz in others), -30)
        self.assertEqual(self.done, 32)

    def test_tones_in_long_packets(self) -> None:
        """In packets of 30 ms a tone is still 100 ms, filled up with silence."""
        self.line.move(replace(NO_EVENTS, ptime=30))
        self.line.dial("1", self.finished)
        for _ in range(300):
            self.clock.advance(0.001)
        audio = b"".join(packet.payload for packet, _ in self.port.sent)
        self.assertEqual(audio[800 : 800 + 1000], b"\xff" * 1000)
        self.assertNotIn(b"\xff" * 20, audio[:800])

    def test_events_vanish(self) -> None:
        """A re-INVITE that takes events away in the middle of a key ends it in silence; the next is a tone."""
        self.line.dial("12", self.finished)
        self.turns(3)
        self.line.move(NO_EVENTS)
        self.turns(18)
        self.assertEqual([packet.payload for packet, _ in self.port.sent[3:10]], [SILENT] * 7)
        self.assertGreater(level(b"".join(p.payload for p, _ in self.port.sent[10:15]), 697), -11)
        self.assertEqual(self.done, 1)

    def test_encrypted(self) -> None:
        """Under SRTP the keys are as safe as the words, and arrive alike."""
        crypto = srtp.read("1 AES_CM_128_HMAC_SHA1_80 inline:NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj", bytes(32))
        assert crypto is not None
        theirs = Srtp(Crypto(crypto.tag, crypto.suite, crypto.theirs, crypto.ours))
        line = Line(
            self.clock,
            Pacer(self.clock),
            Given(1, 2, 3),
            replace(AGREED, crypto=crypto),
            "PCMU",
            NAT[0],
            self.heard.append,
            self.keys.append,
        )
        port = Port()
        line.start(port)
        self.addCleanup(line.stop)
        line.dial("42", self.finished)
        self.turns(21)
        keys = Keys()
        got = ""
        for packet, _ in port.sent:
            clear = rtp.read(theirs.unprotect(rtp.write(packet)) or b"")
            if clear.payload_type == 101:
                self.assertNotEqual(clear.payload, packet.payload[:4])
                got += keys.put(clear.timestamp, clear.payload) or ""
        self.assertEqual((got, self.done), ("42", 1))
