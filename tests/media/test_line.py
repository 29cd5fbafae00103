"""The audio of one call both ways, as its phone, its model and its record see it."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Address, RtpPort, RtpReceiver
from extenbot.media import g711, rtcp, rtp
from extenbot.media.line import Line
from extenbot.media.pacer import Pacer
from extenbot.media.sdp import Agreed
from tests.clock import Clock

PBX: Address = ("192.0.2.1", 4000)
NAT: Address = ("203.0.113.5", 61000)
PHONE: Address = ("198.51.100.77", 7078)
AGREED = Agreed("PCMU", 0, "audio/pcmu", 101, 20, PBX, ("192.0.2.1", 4001), "sendrecv", False)
SILENT = b"\xff" * 160
LOUD = b"\x11" * 160


class Given:
    """Identifiers chosen by a test."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)

    def bits(self, count: int) -> int:
        return self.numbers.pop(0)

    def text(self, length: int) -> str:
        return "n" * length


class Port:
    """Keeps what is sent."""

    address: Address = ("198.51.100.1", 10000)

    def __init__(self) -> None:
        self.sent: list[tuple[rtp.Packet, Address]] = []
        self.control: list[tuple[bytes, Address]] = []
        self.closed = False

    def send(self, data: bytes, to: Address) -> None:
        assert not self.closed
        if rtp.is_control(data):
            self.control.append((data, to))
        else:
            self.sent.append((rtp.read(data), to))

    def drain(self) -> None:
        """Nothing has come."""

    def poll(self) -> float:
        """Nothing waits: packets are handed over at once."""
        return 0.0

    def send_control(self, data: bytes, to: Address) -> None:
        self.control.append((data, (to[0], to[1])))

    def close(self) -> None:
        self.closed = True


class Phone:
    """The other end of a line: one RTP stream from one source."""

    def __init__(self, line: Line, source: Address, ssrc: int = 7, sequence: int = 100, timestamp: int = 1000) -> None:
        self.line, self.source, self.ssrc, self.sequence, self.timestamp = line, source, ssrc, sequence, timestamp

    def say(self, payload: bytes = LOUD, kind: int = 0) -> None:
        packet = rtp.Packet(kind, False, self.sequence, self.timestamp, self.ssrc, payload)
        self.line.received(rtp.write(packet), self.source, self.line._clock.seconds())
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp = (self.timestamp + 160) & 0xFFFFFFFF


class Call(SynchronousTestCase):
    agreed = AGREED
    numbers = (0xABCD, 65530, 0xFFFFFF00)
    voice = "PCMU"

    def setUp(self) -> None:
        self.clock = Clock()
        self.heard: list[bytes] = []
        self.keys: list[str] = []
        self.port = Port()
        self.line = Line(
            self.clock,
            Pacer(self.clock),
            Given(*self.numbers),
            self.agreed,
            self.voice,
            NAT[0],
            self.heard.append,
            self.keys.append,
        )
        self.line.start(self.port)
        self.addCleanup(self.line.stop)
        self.clock.advance(0.001)

    def turns(self, count: int, *phones: Phone, step: float = 0.020) -> None:
        for _ in range(count):
            for phone in phones:
                phone.say()
            self.clock.advance(step)

    def goes_to(self) -> Address:
        """Where the next packet goes."""
        self.turns(1)
        return self.port.sent[-1][1]


class Sending(Call):
    def test_meets_the_seams(self) -> None:
        """A line is what an RTP port talks to, and takes any such port."""
        receiver: RtpReceiver = self.line
        port: RtpPort = self.port
        self.assertTrue(receiver)
        self.assertTrue(port)

    def test_at_once(self) -> None:
        """Silence goes to the SDP's address from the first moment, before anything has come."""
        self.turns(3)
        self.assertEqual(
            self.port.sent,
            [
                (rtp.Packet(0, False, 65530 + turn, 0xFFFFFF00 + turn * 160 & 0xFFFFFFFF, 0xABCD, SILENT), PBX)
                for turn in range(3)
            ],
        )

    def test_wraps(self) -> None:
        """Sequence and timestamp pass their ends as if there were none."""
        self.turns(10)
        self.assertEqual([packet.sequence for packet, _ in self.port.sent[4:8]], [65534, 65535, 0, 1])
        stamps = [packet.timestamp for packet, _ in self.port.sent]
        self.assertTrue(all(rtp.later(b, a) == 160 for a, b in itertools.pairwise(stamps)))

    def test_words(self) -> None:
        """The bot's words follow the silence on the same clock; the first packet of each spurt is marked."""
        self.turns(1)
        self.line.playout.add("a", b"1" * 320)
        self.turns(3)
        self.line.playout.add("b", b"2" * 100)
        self.line.playout.finish("b")
        self.turns(2)
        packets = [packet for packet, _ in self.port.sent]
        self.assertEqual([packet.marker for packet in packets], [False, True, False, False, True, False])
        self.assertEqual(packets[4].payload, b"2" * 100 + b"\xff" * 60)
        self.assertEqual([rtp.later(p.timestamp, packets[0].timestamp) for p in packets], [160 * n for n in range(6)])

    def test_end_from_the_last_word(self) -> None:
        """When the call ends because the bot has said its last word, nothing is sent on the closed port."""

        def hang_up() -> None:
            self.line.stop()
            self.port.close()

        self.line.playout.on_drained = hang_up
        self.line.playout.add("bye", LOUD)
        self.turns(3)
        self.assertEqual([packet.payload for packet, _ in self.port.sent], [LOUD])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """The end is an RTCP BYE, and no timer is left; a second stop does nothing."""
        self.turns(2)
        self.line.stop()
        self.line.stop()
        self.turns(5)
        self.assertEqual(len(self.port.sent), 2)
        self.assertEqual(len(self.port.control), 1)
        self.assertEqual(rtcp.read(self.port.control[0][0])[-1], rtcp.Goodbye((0xABCD,)))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PacketTimes(Call):
    def test_each(self) -> None:
        """10, 30 and 40 ms packets are full and on time, and the model still gets 20 ms at a time."""
        for ptime in (10, 30, 40, 60, 20):
            self.line.move(replace(AGREED, ptime=ptime))
            del self.port.sent[:], self.heard[:]
            self.turns(1200, step=0.001)
            self.assertLessEqual(abs(len(self.port.sent) - 1200 / ptime), 1, ptime)
            self.assertLessEqual(abs(len(self.heard) - 60), 2, ptime)
            self.assertEqual({len(packet.payload) for packet, _ in self.port.sent}, {ptime * 8})
            self.assertEqual({len(audio) for audio in self.heard}, {160})


class Hearing(Call):
    def test_words_and_silence(self) -> None:
        """The model gets 20 ms for each 20 ms: the caller's words, and silence when none come."""
        self.turns(3)
        phone = Phone(self.line, PBX)
        self.turns(5, phone)
        self.turns(3)
        self.assertEqual(self.heard, [SILENT] * 4 + [LOUD] * 5 + [SILENT] * 2)
        self.assertAlmostEqual(self.line.last_received or 0.0, 0.001 + 7 * 0.020)

    def test_keys(self) -> None:
        """Keys are told once each and never heard as sound, also at a payload type not agreed on."""
        phone = Phone(self.line, PBX)
        self.turns(3, phone)
        for kind, key in ((101, 5), (121, 11)):
            start = phone.timestamp
            for duration in (160, 320, 480, 480):
                phone.timestamp = start
                phone.say(bytes([key, 0x0A]) + duration.to_bytes(2), kind)
            phone.timestamp = start + 640
            self.turns(4)
        self.assertEqual(self.keys, ["5", "#"])
        self.assertTrue(set(self.heard) <= {SILENT, LOUD})

    def test_keys_not_agreed(self) -> None:
        """Without telephone-event in the SDP, dynamic types are nobody's keys."""
        self.line.move(replace(AGREED, event_type=None))
        Phone(self.line, PBX).say(b"\x05\x0a\0\xa0", 101)
        self.assertEqual((self.keys, self.line.last_received), ([], None))

    def test_comfort_noise(self) -> None:
        """Comfort noise counts as a sign of life and is silence to the model."""
        phone = Phone(self.line, PBX)
        phone.say(b"\x40", 13)
        self.turns(2)
        self.assertEqual(self.heard, [SILENT] * 2)
        self.assertIsNotNone(self.line.last_received)

    def test_garbage(self) -> None:
        """What is not RTP of this call is counted, and changes neither hearing nor the address."""
        for data in (b"", b"\x80", b"hello, this is no RTP at all", rtp.write(rtp.Packet(9, False, 1, 1, 1, LOUD))):
            self.line.received(data, NAT, 0.0)
        self.line.received(rtp.write(rtp.Packet(0, False, 1, 1, 1, LOUD * 100)), NAT, 0.0)
        self.line.received_control(b"\x80\xc9", NAT)
        self.assertEqual(self.goes_to(), PBX)
        self.assertEqual(self.line.statistics.packets_ignored, 6)
        self.assertIsNone(self.line.last_received)

    @given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=20))
    def test_noise(self, datagrams: list[tuple[bool, bytes]]) -> None:
        """No datagram makes the line raise."""
        for real, data in datagrams:
            datagram = rtp.HEADER.pack(0x80, data[0] if data else 0, 1, 1, 1) + data if real else data
            self.line.received(datagram, PBX, 0.0)
            self.line.received_control(datagram, PBX)
            self.line._tick()

    def test_other_stream(self) -> None:
        """A new SSRC from the same place is heard at once, and its sequence is no loss."""
        self.turns(3, Phone(self.line, PBX))
        self.turns(3, Phone(self.line, PBX, ssrc=8, sequence=9000, timestamp=5))
        self.turns(1)
        self.assertEqual(self.heard.count(LOUD), 6)
        self.assertEqual(self.line.statistics.packets_received, 6)
        self.assertEqual(self.line.statistics.packets_lost, 0)


class Latching(Call):
    def test_first_source(self) -> None:
        """Audio goes back where the first RTP came from, whatever the SDP said (symmetric RTP)."""
        self.turns(1)
        Phone(self.line, NAT).say()
        self.assertEqual(self.goes_to(), NAT)

    def test_intruder(self) -> None:
        """A stranger who sends into a living call is neither heard nor sent to."""
        phone, stranger = Phone(self.line, NAT), Phone(self.line, PHONE, ssrc=66)
        self.turns(2, phone)
        self.turns(50, phone, stranger)
        self.assertEqual(self.goes_to(), NAT)
        self.assertEqual(self.line.statistics.packets_received, 52)
        self.assertEqual(self.line.statistics.packets_ignored, 50)

    def test_source_moves(self) -> None:
        """When the latched source has been quiet for half a second, another port of the PBX takes over."""
        self.turns(3, Phone(self.line, NAT))
        other = Phone(self.line, (NAT[0], 62000), ssrc=8)
        self.turns(10, other)
        self.assertEqual(self.goes_to(), NAT)
        self.turns(20, other)
        self.assertEqual(self.goes_to(), other.source)
        self.assertIn(LOUD, self.heard[-5:])

    def test_guessed_port(self) -> None:
        """Who guesses the port gets nothing, though the phone is silent; each of the packets is counted."""
        self.turns(100, Phone(self.line, PHONE, ssrc=66))
        self.assertEqual(self.goes_to(), PBX)
        self.assertEqual(self.line.statistics.packets_ignored, 100)
        self.assertEqual(self.line.statistics.ignored_from, PHONE)
        self.assertEqual((set(self.heard), self.line.last_received), ({SILENT}, None))

    def test_signalled_address_wins(self) -> None:
        """The SDP's own address takes the call back from a stranger who was first."""
        stranger, phone = Phone(self.line, NAT, ssrc=66), Phone(self.line, PBX)
        self.turns(3, stranger)
        self.turns(3, stranger, phone)
        self.assertEqual(self.goes_to(), PBX)

    def test_direct_media(self) -> None:
        """A re-INVITE moves our audio at once; the old source's last packets do not bring it back."""
        pbx = Phone(self.line, PBX)
        self.turns(5, pbx)
        self.line.move(replace(AGREED, remote=PHONE, remote_control=None))
        self.turns(3, pbx)
        self.assertEqual(self.goes_to(), PHONE)
        phone = Phone(self.line, (PHONE[0], 5), ssrc=99)  # behind a NAT
        self.turns(2, phone)
        self.assertEqual(self.goes_to(), PHONE)
        self.turns(1, phone)
        self.assertEqual(self.goes_to(), phone.source)
        self.line.move(AGREED)
        self.assertEqual(self.goes_to(), PBX)
        self.turns(4, pbx)
        self.assertEqual(self.goes_to(), PBX)
        self.assertEqual(self.heard[-1], LOUD)

    def test_direct_media_through_nat(self) -> None:
        """The phone behind a NAT of its own, whose private address the SDP names, is heard after some packets."""
        self.turns(5, Phone(self.line, NAT))
        self.line.move(replace(AGREED, remote=("192.168.1.20", 4000), remote_control=None))
        self.assertEqual(self.goes_to(), (NAT[0], 4000))
        phone = Phone(self.line, PHONE, ssrc=99)
        self.turns(20, phone)
        self.assertEqual(self.goes_to(), PHONE)
        self.assertGreater(self.heard.count(LOUD), 10)

    def test_no_amplification(self) -> None:
        """An address that only the SDP names gets no more than seconds of audio; the words wait until it answers."""
        self.turns(740)
        self.line.playout.add("a", LOUD * 100)
        self.turns(200)
        self.assertEqual(len(self.port.sent), 750)
        self.assertEqual(len(self.port.control), 3)  # a report in five seconds goes on
        self.assertFalse(self.line.playout.empty)
        Phone(self.line, PBX).say()
        self.turns(90)
        words = [packet for packet, _ in self.port.sent if packet.payload == LOUD]
        self.assertEqual(len(words), 100)
        self.assertTrue(self.line.playout.empty)

    def test_silent_phone_reports(self) -> None:
        """A phone that says nothing (VAD) but reports what it gets goes on hearing the bot."""
        self.line.received_control(rtcp.write(rtcp.Report(7, None, ()), "x"), ("192.0.2.1", 4001))
        self.turns(1000)
        self.assertEqual(len(self.port.sent), 1000)

    def test_reports_go_with_the_audio(self) -> None:
        """An a=rtcp line cannot aim our reports at another host."""
        self.line.move(replace(AGREED, remote_control=("198.51.100.66", 53)))
        self.line.stop()
        self.assertEqual(self.port.control[0][1], ("192.0.2.1", 4001))

    def test_moved_in_words_only(self) -> None:
        """When the SDP moves but the same source goes on, audio returns to it after half a second."""
        phone = Phone(self.line, NAT)
        self.turns(5, phone)
        self.line.move(replace(AGREED, remote=PHONE))
        self.turns(10, phone)
        self.assertEqual(self.goes_to(), PHONE)
        self.turns(20, phone)
        self.assertEqual(self.goes_to(), NAT)
        self.assertEqual(self.heard.count(LOUD), 35)

    def test_refresh(self) -> None:
        """A session refresh with the same SDP changes nothing."""
        phone = Phone(self.line, NAT)
        self.turns(5, phone)
        self.line.move(AGREED)
        self.assertEqual(self.goes_to(), NAT)


class Laws(Call):
    def test_wire_changes(self) -> None:
        """A re-INVITE to the other law is heard and spoken in it, the voice notices nothing, nor the way back."""
        phone = Phone(self.line, PBX)
        self.turns(5, phone)
        a_law = replace(AGREED, codec="PCMA", payload_type=8, format="audio/pcma")
        translated = {law: g711.translation(*law) for law in (("PCMA", "PCMU"), ("PCMU", "PCMA"))}
        self.line.move(a_law)
        self.turns(2, phone)  # still on the way when they had our answer
        del self.heard[:], self.port.sent[:]
        self.line.playout.add("a", LOUD + b"\x22" * 80)
        self.line.playout.finish("a")
        for _ in range(3):
            phone.say(b"\x33" * 160, 8)
            self.clock.advance(0.020)
        self.assertIn(LOUD, self.heard)
        self.assertIn((b"\x33" * 160).translate(translated["PCMA", "PCMU"]), self.heard)
        self.assertEqual(
            [(packet.payload_type, packet.payload) for packet, _ in self.port.sent],
            [
                (8, LOUD.translate(translated["PCMU", "PCMA"])),
                (8, (b"\x22" * 80 + b"\xff" * 80).translate(translated["PCMU", "PCMA"])),
                (8, b"\xd5" * 160),
            ],
        )
        self.assertEqual(self.line.statistics.codec, "PCMA")
        self.line.move(AGREED)
        del self.heard[:]
        self.turns(5, phone)
        self.turns(1)
        self.assertEqual((self.heard[-2:], self.port.sent[-1][0].payload_type), ([LOUD, LOUD], 0))
        self.assertEqual(self.line.statistics.packets_ignored, 0)

    def test_from_the_beginning(self) -> None:
        """A voice in A-law on a wire in mu-law: silence, gaps and words each in the law of their side."""
        line = Line(
            self.clock, Pacer(self.clock), Given(1, 2, 3), AGREED, "PCMA", "", self.heard.append, self.keys.append
        )
        port = Port()
        line.start(port)
        self.addCleanup(line.stop)
        self.turns(2)
        self.assertIn(b"\xd5" * 160, self.heard)
        self.assertEqual(port.sent[-1][0].payload, SILENT)

    def test_reused_type(self) -> None:
        """A payload type that was audio and is now the keys' is not heard as sound."""
        odd = replace(AGREED, payload_type=107)
        self.line.move(odd)
        self.line.move(replace(AGREED, event_type=107))
        Phone(self.line, PBX).say(b"\x05\x0a\0\xa0", 107)
        self.assertEqual(self.keys, ["5"])


class Hold(Call):
    def test_hold(self) -> None:
        """On hold nothing is sent or heard (music!), what waits stays, and afterwards all goes on."""
        phone = Phone(self.line, PBX)
        self.turns(5, phone)
        for held in (
            replace(AGREED, direction="recvonly"),
            replace(AGREED, direction="inactive"),
            replace(AGREED, direction="recvonly", remote=None, remote_control=None),
        ):
            self.line.playout.add("a", LOUD * 5)
            self.line.move(held)
            del self.port.sent[:], self.heard[:]
            self.turns(20, phone)
            self.assertEqual((self.port.sent, self.heard), ([], []))
            self.assertFalse(self.line.playout.empty)
            self.line.move(AGREED)
            self.turns(2)
            self.assertEqual([packet.payload for packet, _ in self.port.sent], [LOUD, LOUD])
            self.assertTrue(self.port.sent[0][0].marker)
            self.assertEqual(self.heard, [SILENT, SILENT])
            self.turns(5, phone)
            self.assertIn(LOUD, self.heard)
            self.line.playout.cut()

    def test_music_from_elsewhere(self) -> None:
        """The music of a hold comes from a server of its own: not heard, and the resume finds the phone again."""
        phone, music = Phone(self.line, PBX), Phone(self.line, ("192.0.2.8", 9000), ssrc=8)
        self.turns(5, phone)
        self.line.playout.add("a", LOUD * 10)
        self.turns(2, phone)
        self.line.move(replace(AGREED, direction="recvonly", remote=music.source, remote_control=None))
        del self.heard[:]
        self.turns(100, music)
        self.line.move(replace(AGREED, ptime=40))
        self.turns(20, phone)
        self.assertEqual(self.port.sent[-1][1], PBX)
        words = b"".join(packet.payload for packet, _ in self.port.sent if LOUD in packet.payload)
        self.assertEqual(words, LOUD * 10)
        self.assertEqual(set(self.heard), {SILENT, LOUD})
        self.assertEqual(self.line.playout.played("a"), ("a", 1600, 1600))

    def test_resumed_elsewhere(self) -> None:
        """After each way to hold, the resume may name another address: audio goes there at once, and is heard."""
        for n, held in enumerate(("recvonly", "inactive", "0.0.0.0", "switched off")):
            self.turns(5, Phone(self.line, PBX, ssrc=100 + n))
            nowhere = replace(AGREED, direction="inactive", remote=None, remote_control=None)
            self.line.move(replace(AGREED, direction=held) if n < 2 else nowhere)
            self.turns(50)
            there: Address = ("192.0.2.200", 5000 + n)
            self.line.move(replace(AGREED, remote=there, remote_control=None))
            self.assertEqual(self.goes_to(), there)
            del self.heard[:]
            self.turns(10, Phone(self.line, there, ssrc=200 + n))
            self.assertGreater(self.heard.count(LOUD), 5, held)
            self.line.move(AGREED)

    def test_timestamp_runs_on(self) -> None:
        """The timestamp counts the time on hold, the sequence does not."""
        self.turns(1)
        self.line.move(replace(AGREED, direction="inactive"))
        self.turns(10)
        self.line.move(AGREED)
        self.turns(1)
        (first, _), (second, _) = self.port.sent
        self.assertEqual(rtp.ahead(second.sequence, first.sequence), 1)
        self.assertEqual(rtp.later(second.timestamp, first.timestamp), 11 * 160)

    def test_they_only_listen(self) -> None:
        """A phone that only listens is spoken to; the model hears silence."""
        self.line.move(replace(AGREED, direction="sendonly"))
        self.turns(3, Phone(self.line, PBX))
        self.assertEqual((len(self.port.sent), self.heard), (3, [SILENT] * 3))


class Reports(Call):
    def test_sender_report(self) -> None:
        """Every five seconds a report goes out, saying what was sent, got, and lost."""
        phone = Phone(self.line, PBX)
        for turn in range(250):
            if turn == 100:
                phone.sequence += 5
            self.turns(1, phone)
        ((data, to),) = self.port.control
        self.assertEqual(to, ("192.0.2.1", 4001))
        (report,) = rtcp.read(data)
        assert isinstance(report, rtcp.Report)
        assert report.sent is not None
        self.assertEqual((report.ssrc, report.sent.packets, report.sent.octets), (0xABCD, 250, 40000))
        (block,) = report.blocks
        self.assertEqual((block.ssrc, block.lost, block.fraction, block.highest), (7, 5, 5 * 256 // 255, 100 + 254))
        self.assertEqual(self.line.statistics.packets_lost, 5)

    def test_round_trip(self) -> None:
        """Their report about us gives loss, jitter and round trip for the call's record."""
        self.turns(250)
        sent_at = rtcp.middle(rtcp.ntp(self.clock.seconds()))
        self.clock.advance(0.150)
        block = rtcp.Block(0xABCD, 0, 3, 1, 80, sent_at, 6554)  # they waited 100 ms
        self.line.received_control(rtcp.write(rtcp.Report(7, None, (block,)), "x"), ("192.0.2.1", 9001))
        statistics = self.line.statistics
        self.assertAlmostEqual(statistics.round_trip_ms or 0.0, 50.0, places=0)
        self.assertEqual((statistics.remote_lost, statistics.remote_jitter_ms), (3, 10.0))
        self.line.stop()
        self.assertEqual(self.port.control[-1][1], ("192.0.2.1", 9001))

    def test_foreign_report(self) -> None:
        """Reports from another host than the caller's are ignored."""
        block = rtcp.Block(0xABCD, 0, 3, 1, 80, 0, 0)
        self.line.received_control(rtcp.write(rtcp.Report(7, None, (block,)), "x"), ("203.0.113.200", 4001))
        self.turns(250)
        self.assertIsNone(self.line.statistics.remote_lost)
        self.assertEqual(self.port.control[0][1], ("192.0.2.1", 4001))

    def test_their_report_is_referred_to(self) -> None:
        """Our block names their last sender report and the time since, so they can measure too."""
        phone = Phone(self.line, PBX)
        self.turns(240, phone)
        sent = rtcp.Sent(0x1234567890ABCDEF, 0, 1, 1)
        self.line.received_control(rtcp.write(rtcp.Report(7, sent, ()), "x"), ("192.0.2.1", 4001))
        self.turns(10, phone)
        report = rtcp.read(self.port.control[0][0])[0]
        assert isinstance(report, rtcp.Report)
        self.assertEqual(report.blocks[0].last_report, 0x567890AB)
        self.assertLessEqual(abs(report.blocks[0].delay / 65536 - 0.2), 0.021)

    def test_one_port(self) -> None:
        """With rtcp-mux, reports leave and arrive on the RTP port."""
        self.line.move(replace(AGREED, rtcp_mux=True, remote_control=PBX))
        Phone(self.line, NAT).say()
        block = rtcp.Block(0xABCD, 0, 2, 1, 0, 0, 0)
        self.line.received(rtcp.write(rtcp.Report(7, None, (block,)), "x"), NAT, 0.0)
        self.assertEqual(self.line.statistics.remote_lost, 2)
        self.line.stop()
        self.assertEqual(self.port.control[0][1], NAT)

    def test_behind_nat(self) -> None:
        """Reports follow a latched source to the port above it."""
        Phone(self.line, NAT).say()
        self.line.stop()
        self.assertEqual(self.port.control[0][1], (NAT[0], NAT[1] + 1))

    def test_jitter(self) -> None:
        """Uneven arrival shows as jitter in milliseconds."""
        phone = Phone(self.line, PBX)
        for turn in range(200):
            phone.say()
            self.clock.advance(0.030 if turn % 2 else 0.010)
        self.assertLessEqual(abs(self.line.statistics.jitter_ms - 10), 0.5)
        self.assertEqual(self.line.statistics.codec, "PCMU")
