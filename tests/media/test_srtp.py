"""SRTP: the a=crypto line, RFC 3711's own figures, and what a line does with packets of others."""

from __future__ import annotations

import hmac
from base64 import b64encode
from dataclasses import replace
from struct import pack

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from pylibsrtp import Policy, Session
from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Address
from extenbot.media import rtcp, rtp, srtp
from extenbot.media.line import Line
from extenbot.media.pacer import Pacer
from extenbot.media.sdp import Agreed
from extenbot.media.srtp import SUITES, Crypto, Srtp
from tests.clock import Clock

SECRET = bytes(range(32))
# RFC 3711 B.3: master key and salt, and what is derived from them
MASTER = bytes.fromhex("E1F97A0D3E018BE0D64FA32C06DE41390EC675AD498AFEEBB6960B3AABE6")
CIPHER_KEY = bytes.fromhex("C61E7A93744F39EE10734AFE3FF7A087")
SALT = bytes.fromhex("30CBBC08863D8C85D49DB34A9AE1")
AUTHENTICATION_KEY = bytes.fromhex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4")

PBX: Address = ("192.0.2.1", 4000)
STRANGER: Address = ("198.51.100.66", 5000)
LOUD = b"\x11" * 160
SILENT = b"\xff" * 160


def crypto(suite: str = "AES_CM_128_HMAC_SHA1_80", theirs: int = 1, secret: bytes = SECRET) -> Crypto:
    """What is agreed with somebody whose key is made of the number `theirs`."""
    made = srtp.read(f"1 {suite} inline:{_base64(bytes([theirs]) * SUITES[suite][1])}", secret)
    assert made is not None
    return made


def _base64(key: bytes) -> str:
    return b64encode(key).decode()


class Lines(SynchronousTestCase):
    def test_rfc_4568(self) -> None:
        """The key lines of RFC 4568's examples: those with a key identifier or FEC are not for us."""
        taken = "AES_CM_128_HMAC_SHA1_80 inline:NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj|2^20|1:32"
        self.assertIsNone(srtp.read(f"1 {taken}", SECRET))
        found = srtp.read(f"1 {taken.removesuffix('|1:32')}", SECRET)
        assert found is not None
        self.assertEqual(found.theirs, b"70xwPH5@/,L:S1wY\"~='EpgT%(i_Vc")
        fec = "inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20 FEC_ORDER=FEC_SRTP"
        self.assertIsNone(srtp.read(f"1 AES_CM_128_HMAC_SHA1_80 {fec}", SECRET))

    def test_each(self) -> None:
        """Each form of the line that phones send, and whether we can do it."""
        key = _base64(b"k" * 30)
        for value, taken in (
            (f"1 AES_CM_128_HMAC_SHA1_80 inline:{key}", True),
            (f"999999999 AES_CM_128_HMAC_SHA1_32 inline:{key}", True),
            (f"1 AES_CM_128_HMAC_SHA1_80 INLINE:{key}|2^31", True),
            (f"1 AES_CM_128_HMAC_SHA1_80 inline:{key}|1048576", True),
            (f"1 AES_CM_128_HMAC_SHA1_80 inline:{key} WSH=64 -VENDOR=1", True),
            (f"1 AEAD_AES_128_GCM inline:{_base64(b'k' * 28)}", True),
            (f"1 AEAD_AES_256_GCM inline:{_base64(b'k' * 44)}", True),
            (f"1 AEAD_AES_256_GCM inline:{_base64(b'k' * 44).rstrip('=')}", True),
            (f"1 AES_CM_128_HMAC_SHA1_80 inline:{key}|1:4", False),
            (f"1 AES_CM_128_HMAC_SHA1_80 inline:{key};inline:{key}", False),
            (f"1 AES_CM_128_HMAC_SHA1_80 inline:{key} UNENCRYPTED_SRTP", False),
            (f"1 AES_CM_128_HMAC_SHA1_80 inline:{key} UNENCRYPTED_SRTCP", False),
            (f"1 AES_CM_128_HMAC_SHA1_80 inline:{key} UNAUTHENTICATED_SRTP", False),
            (f"1 AES_CM_128_HMAC_SHA1_80 inline:{key} KDR=10", False),
            (f"1 AES_CM_128_HMAC_SHA1_80 inline:{_base64(b'k' * 29)}", False),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:not base64!", False),
            (f"1 AES_CM_128_HMAC_SHA1_80 uri:{key}", False),
            (f"1 F8_128_HMAC_SHA1_80 inline:{key}", False),
            (f"x AES_CM_128_HMAC_SHA1_80 inline:{key}", False),
            (f"1234567890 AES_CM_128_HMAC_SHA1_80 inline:{key}", False),
            ("1 AES_CM_128_HMAC_SHA1_80", False),
            ("", False),
        ):
            self.assertEqual(srtp.read(value, SECRET) is not None, taken, value)

    @given(st.text(alphabet="1 AESCM_128HNinline:|;^+/=abc", max_size=120))
    def test_noise(self, text: str) -> None:
        """No value makes the reader raise."""
        srtp.read(text, SECRET)
        srtp.read(f"1 AES_CM_128_HMAC_SHA1_80 inline:{text}", SECRET)

    def test_our_keys(self) -> None:
        """Ours is the same each time in one call, another for each suite and in each call, and not shown."""
        keys = {crypto(suite).ours for suite in SUITES} | {crypto(secret=b"x" * 32).ours}
        self.assertEqual(len(keys), len(SUITES) + 1)
        self.assertEqual(crypto(theirs=1).ours, crypto(theirs=2).ours)
        self.assertNotIn(repr(crypto().ours)[2:-1], repr(crypto()))
        for suite in SUITES:
            again = srtp.read(srtp.write(crypto(suite)).removeprefix("a=crypto:"), SECRET)
            assert again is not None
            self.assertEqual(again.theirs, crypto(suite).ours)


class Figures(SynchronousTestCase):
    def test_rfc_3711(self) -> None:
        """A packet is what RFC 3711 4.1 and 4.2 make of it with the session keys of its appendix B.3."""
        header = bytes.fromhex("800f1234decafbadcafebabe")
        ssrc, index = int.from_bytes(header[8:12]), 0x1234
        start = int.from_bytes(SALT) << 16 ^ ssrc << 64 ^ index << 16
        cipher = Cipher(algorithms.AES(CIPHER_KEY), modes.CTR(start.to_bytes(16))).encryptor()
        encrypted = header + cipher.update(b"\xab" * 16)
        tag = hmac.digest(AUTHENTICATION_KEY, encrypted + bytes(4), "sha1")
        for suite, length in (("AES_CM_128_HMAC_SHA1_80", 10), ("AES_CM_128_HMAC_SHA1_32", 4)):
            ours = Srtp(Crypto(1, suite, MASTER, MASTER))
            self.assertEqual(ours.protect(header + b"\xab" * 16), encrypted + tag[:length])
            self.assertEqual(ours.unprotect(encrypted + tag[:length]), header + b"\xab" * 16)

    def test_each_suite(self) -> None:
        """Under each suite packets and reports survive, no byte can be changed, and nothing can be sent twice."""
        report = rtcp.write(rtcp.Report(7, None, ()), "x")
        for suite in SUITES:
            us, them = pair(crypto(suite))
            packet = rtp.write(rtp.Packet(0, False, 9, 9, 7, LOUD))
            for sent, heard, clear in (
                (us.protect, them.unprotect, packet),
                (them.protect, us.unprotect, packet),
                (us.protect_control, them.unprotect_control, report),
                (them.protect_control, us.unprotect_control, report),
            ):
                data = sent(clear)
                self.assertNotIn(clear[12:], data)
                for at in range(len(data)):
                    self.assertIsNone(heard(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]), (suite, at))
                self.assertEqual(heard(data), clear)
                self.assertIsNone(heard(data))
                for junk in (b"", data[:11], b"\x80" * 2000):
                    self.assertIsNone(heard(junk))


def pair(ours: Crypto) -> tuple[Srtp, Srtp]:
    """Both ends of what was agreed."""
    return Srtp(ours), Srtp(replace(ours, ours=ours.theirs, theirs=ours.ours))


class Given:
    """Identifiers that count."""

    def __init__(self) -> None:
        self.last = 0

    def bits(self, count: int) -> int:
        self.last += 1000
        return self.last

    def text(self, length: int) -> str:
        return "n" * length


class Port:
    """Keeps what is sent."""

    address: Address = ("198.51.100.1", 10000)

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Address]] = []
        self.control: list[bytes] = []

    def send(self, data: bytes, to: Address) -> None:
        self.sent.append((data, to))

    def send_control(self, data: bytes, to: Address) -> None:
        self.control.append(data)

    def drain(self) -> None:
        """Nothing has come."""

    def poll(self) -> float:
        """Nothing waits."""
        return 0.0

    def close(self) -> None:
        """Nothing is open."""


class Encrypted(SynchronousTestCase):
    """A line under SRTP, and the phone at its other end."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.heard: list[bytes] = []
        self.digits: list[str] = []
        self.port = Port()
        self.keys = crypto()
        self.agreed = Agreed("PCMU", 0, "audio/pcmu", 101, 20, PBX, None, "sendrecv", False, self.keys)
        self.line = Line(
            self.clock, Pacer(self.clock), Given(), self.agreed, "PCMU", PBX[0], self.heard.append, self.digits.append
        )  # fmt: skip
        self.line.start(self.port)
        self.addCleanup(self.line.stop)
        _, self.phone = pair(self.keys)
        self.index = 65000

    def say(self, source: Address = PBX, payload: bytes = LOUD, ssrc: int = 7) -> bytes:
        """The phone sends 20 ms."""
        packet = rtp.Packet(0, False, self.index & 0xFFFF, self.index * 160 & 0xFFFFFFFF, ssrc, payload)
        self.index += 1
        data = self.phone.protect(rtp.write(packet))
        self.line.received(data, source, self.clock.seconds())
        return data

    def turns(self, count: int, source: Address = PBX) -> None:
        for _ in range(count):
            self.say(source)
            self.clock.advance(0.02)

    def understood(self) -> list[bytes]:
        """What the phone makes of our packets since it was last asked."""
        sent, self.port.sent = self.port.sent, []
        clear = [self.phone.unprotect(data) for data, _ in sent]
        return [rtp.read(data).payload for data in clear if data is not None]

    def test_both_ways(self) -> None:
        """Both hear each other, reports included, and nothing leaves in clear."""
        self.line.playout.add("a", LOUD * 3)
        self.turns(260)
        self.assertGreaterEqual(self.heard.count(LOUD), 259)
        self.assertFalse(any(LOUD in data or SILENT in data for data, _ in self.port.sent))
        words = self.understood()
        self.assertEqual((len(words), words.count(LOUD)), (260, 3))
        [data] = self.port.control
        clear = self.phone.unprotect_control(data)
        assert clear is not None
        [report] = rtcp.read(clear)
        assert isinstance(report, rtcp.Report)
        assert report.sent is not None
        self.assertEqual(report.sent.packets, 250)
        block = rtcp.Block(report.ssrc, 0, 4, 1, 0, 0, 0)
        self.line.received_control(
            self.phone.protect_control(rtcp.write(rtcp.Report(7, None, (block,)), "x")), (PBX[0], 4001)
        )
        self.assertEqual(self.line.statistics.remote_lost, 4)

    def test_strangers(self) -> None:
        """Plain, forged and repeated packets are counted, and neither heard nor followed, whoever sends them."""
        plain = rtp.write(rtp.Packet(0, False, 1, 1, 7, LOUD))
        for source in (PBX, STRANGER):
            for data in (plain, plain + bytes(10)):
                self.line.received(data, source, 0.0)
        self.assertEqual(self.line.statistics.packets_ignored, 4)
        self.assertIsNone(self.line.last_received)
        data = self.say()
        self.clock.advance(0.02)
        for source in (PBX, STRANGER):
            self.line.received(data, source, 0.0)
        self.line.received_control(rtcp.write(rtcp.Report(7, None, ()), "x"), (PBX[0], 4001))
        self.clock.advance(0.1)
        self.assertEqual(self.heard.count(LOUD), 1)
        self.assertEqual(self.line.statistics.packets_ignored, 7)
        self.assertEqual({to for _, to in self.port.sent}, {PBX})

    def test_keys_of_the_phone(self) -> None:
        """Keys come encrypted as words do: once each, whole, repeated or lost in part; a replay presses nothing."""
        self.turns(2)
        sent = []
        for key, first, last in ((5, 0, 6), (5, 4, 6), (11, 0, 1)):
            start = self.index * 160
            for n in range(first, last):
                payload = bytes([key, 0x8A if n > 2 else 0x0A]) + (160 * min(n + 1, 4)).to_bytes(2)
                packet = rtp.Packet(101, False, self.index & 0xFFFF, start & 0xFFFFFFFF, 7, payload)
                self.index += 1
                sent.append(self.phone.protect(rtp.write(packet)))
                self.line.received(sent[-1], PBX, self.clock.seconds())
                self.clock.advance(0.02)
            self.turns(5)
        self.assertEqual(self.digits, ["5", "5", "#"])
        for data in sent:
            self.line.received(data, PBX, self.clock.seconds())
        plain = rtp.write(
            rtp.Packet(101, False, self.index & 0xFFFF, self.index * 160 & 0xFFFFFFFF, 7, b"\x01\x0a\0\xa0")
        )
        self.line.received(plain, PBX, self.clock.seconds())
        self.assertEqual((self.digits, self.line.statistics.packets_ignored), (["5", "5", "#"], len(sent) + 1))

    def test_key_is_enough(self) -> None:
        """Who has the key is followed wherever it sends from."""
        self.turns(2, STRANGER)
        self.assertEqual(self.port.sent[-1][1], STRANGER)

    def test_other_stream(self) -> None:
        """A phone that begins another stream under the same key is heard (Aastra does after each hold)."""
        self.turns(3)
        for _ in range(3):
            self.say(ssrc=8)
            self.clock.advance(0.02)
        self.clock.advance(0.02)
        self.assertEqual(self.heard.count(LOUD), 6)

    def renewed(self, *, kept: bool, at: int) -> None:
        """After `at` packets a re-INVITE brings another key of theirs; `kept` is what becomes of their counter."""
        self.turns(200)
        self.index = at - 2  # as if the packets between were long gone
        for index in range(65200, at, 20000):
            self.phone.protect(rtp.write(rtp.Packet(0, False, index & 0xFFFF, 0, 7, b"")))
            self.line.received(self.phone.protect(_blank(index + 1)), PBX, 0.0)
        self.turns(2)
        old, keys = self.phone, crypto(theirs=2)
        self.line.move(replace(self.agreed, crypto=keys))
        self.assertEqual(keys.ours, self.keys.ours)
        self.turns(3)  # on the way when our answer was
        _, self.phone = pair(keys)
        self.phone._out = _at(keys.theirs, self.index) if kept else self.phone._out
        self.phone._in = old._in  # our key is the old one
        before = len(self.heard)
        ignored = self.line.statistics.packets_ignored
        self.turns(50)
        self.assertEqual(self.line.statistics.packets_ignored, ignored)
        self.assertGreaterEqual(self.heard[before:].count(LOUD), 48)
        self.assertIn(SILENT, self.understood())
        last, self.phone = self.phone, old
        self.say()
        self.assertEqual(self.line.statistics.packets_ignored, ignored + 1)  # the old key is worth nothing now
        self.phone = last

    def test_new_key(self) -> None:
        """A re-INVITE with a new key is followed without a gap, what was on the way included."""
        self.renewed(kept=False, at=65300)

    def test_new_key_after_hours(self) -> None:
        """The same after rollovers, by phones that begin their counter at zero (RFC 4568 7.1.4)."""
        self.renewed(kept=False, at=5 * 65536 + 700)

    def test_new_key_goes_on(self) -> None:
        """The same by phones whose counter goes on (RFC 3711 3.3.1)."""
        self.renewed(kept=True, at=5 * 65536 + 700)

    def test_new_key_as_it_rolls(self) -> None:
        """The same when it passes its end just then."""
        self.renewed(kept=True, at=3 * 65536 - 2)

    def test_search_is_bounded(self) -> None:
        """Strangers' packets after a new key do not keep us busy, and the phone is still heard."""
        self.turns(3)
        keys = crypto(theirs=2)
        self.line.move(replace(self.agreed, crypto=keys))
        for _ in range(200):
            self.line.received(bytes.fromhex("80000001000000000000000a") + bytes(170), STRANGER, 0.0)
        assert self.line._secure is not None
        self.assertEqual(self.line._secure._attempts, 0)
        _, self.phone = pair(keys)
        self.turns(3)
        self.assertEqual(self.heard[-1], LOUD)

    def test_other_suite(self) -> None:
        """With another suite our key is another, and our stream begins anew, as every phone expects of a new one."""
        self.turns(3)
        first = rtp.HEADER.unpack_from(self.port.sent[-1][0])[4]
        keys = crypto("AEAD_AES_256_GCM", 2)
        self.line.move(replace(self.agreed, crypto=keys))
        _, self.phone = pair(keys)
        self.port.sent.clear()
        self.turns(3)
        self.assertNotEqual(rtp.HEADER.unpack_from(self.port.sent[-1][0])[4], first)
        self.assertEqual(len(self.understood()), 3)
        self.assertEqual(self.heard[-1], LOUD)

    def test_hold(self) -> None:
        """A refresh, a hold without an address and audio switched off keep the counters of both sides."""
        self.turns(5)
        for held in (
            self.agreed,
            replace(self.agreed, direction="inactive"),
            replace(self.agreed, direction="inactive", remote=None, crypto=None),
        ):
            self.line.move(held)
            self.clock.advance(1)
            self.line.move(self.agreed)
            self.turns(5)
            self.assertEqual(self.heard[-1], LOUD)
        sent = len(self.port.sent)
        self.assertEqual(len(self.understood()), sent)
        self.assertEqual(self.line.statistics.packets_ignored, 0)

    def test_reports_while_off(self) -> None:
        """What still leaves while the audio is switched off is encrypted like all before."""
        self.turns(3)
        self.line.move(replace(self.agreed, direction="inactive", remote=None, crypto=None))
        self.line.stop()
        [data] = self.port.control
        self.assertIsNotNone(self.phone.unprotect_control(data))

    def test_encrypted_later(self) -> None:
        """A call that began in clear begins its stream anew when it is encrypted."""
        port, agreed = Port(), replace(self.agreed, crypto=None)
        line = Line(
            self.clock, Pacer(self.clock), Given(), agreed, "PCMU", PBX[0], self.heard.append, self.digits.append
        )
        line.start(port)
        self.addCleanup(line.stop)
        self.clock.advance(0.02)
        line.move(self.agreed)
        self.clock.advance(0.02)
        before, after = (rtp.HEADER.unpack_from(data)[4] for data, _ in (port.sent[0], port.sent[-1]))
        self.assertNotEqual(before, after)
        self.assertIsNotNone(self.phone.unprotect(port.sent[-1][0]))

    def test_plain_and_back(self) -> None:
        """A re-INVITE to plain audio is followed, and the next one back."""
        self.turns(3)
        self.line.move(replace(self.agreed, crypto=None))
        self.port.sent.clear()
        self.line.received(rtp.write(rtp.Packet(0, False, self.index & 0xFFFF, 5, 7, b"\x22" * 160)), PBX, 0.0)
        self.clock.advance(0.02)
        self.clock.advance(0.02)
        self.assertIn(b"\x22" * 160, self.heard)
        self.assertEqual(rtp.read(self.port.sent[-1][0]).payload, SILENT)
        self.line.move(self.agreed)
        self.port.sent.clear()
        self.turns(3)
        self.assertEqual(len(self.understood()), 3)


def _blank(index: int) -> bytes:
    """A packet of the phone that is not audio."""
    return rtp.write(rtp.Packet(rtp.COMFORT_NOISE, False, index & 0xFFFF, index * 160 & 0xFFFFFFFF, 7, b"\x40"))


def _at(key: bytes, index: int) -> Session:
    """A sender whose counter stands where it would after so many packets."""
    session = Session(Policy(key, Policy.SSRC_ANY_OUTBOUND))
    for step in range(0, index, 20000):
        session.protect(pack("!BBHII", 0x80, 0, step & 0xFFFF, 0, 7))
    return session
