"""Session descriptions as PBXs and phones send them, and what we answer."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed, Refused
from extenbot.media import sdp

ASTERISK = """v=0
o=- 1475532861 1475532861 IN IP4 192.0.2.10
s=Asterisk
c=IN IP4 192.0.2.10
t=0 0
m=audio 14824 RTP/AVP 0 8 3 111 9 101
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:3 GSM/8000
a=rtpmap:111 G726-32/8000
a=rtpmap:9 G722/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:150
a=sendrecv
"""
FREESWITCH = """v=0
o=FreeSWITCH 1763801234 1763801235 IN IP4 192.0.2.20
s=FreeSWITCH
c=IN IP4 192.0.2.20
t=0 0
m=audio 25368 RTP/AVP 0 8 101 13
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=rtpmap:13 CN/8000
a=rtcp-mux
a=rtcp:25368 IN IP4 192.0.2.20
a=ptime:20
"""
THREE_CX = """v=0
o=3cxPS 39476789248 39476789249 IN IP4 192.0.2.30
s=3cxPS Audio call
c=IN IP4 192.0.2.30
t=0 0
m=audio 7042 RTP/AVP 8 0 18 96
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:18 G729/8000
a=fmtp:18 annexb=no
a=rtpmap:96 telephone-event/8000
a=fmtp:96 0-15
a=sendrecv
"""
BARESIP = """v=0
o=- 3902164127 2097041422 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
a=tool:baresip 1.0.0
m=audio 34540 RTP/AVP 8 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=rtcp:34541
a=sendrecv
a=label:1
a=rtcp-rsize
a=ssrc:2716431522 cname:sip:demo@127.0.0.1
a=ptime:20
m=video 0 RTP/AVP 96
"""
US = ("198.51.100.1", 10000)
SHA1_80 = "AES_CM_128_HMAC_SHA1_80 inline:NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj"
SECRET = bytes(range(32))


def offer(*media: str, session: str = "c=IN IP4 192.0.2.1") -> sdp.Offer:
    lines = ["v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", *session.split("\n"), "t=0 0", *media]
    return sdp.read_offer("".join(f"{line}\r\n" for line in lines).encode())


def golden(text: str) -> sdp.Offer:
    return sdp.read_offer(text.replace("\n", "\r\n").encode())


def lines(data: bytes) -> list[str]:
    assert data.endswith(b"\r\n")
    return data.decode().split("\r\n")[:-1]


class Phones(SynchronousTestCase):
    def test_asterisk(self) -> None:
        """Asterisk's six codecs are answered with its first G.711 and its telephone-event, nothing else."""
        them = golden(ASTERISK)
        agreed = sdp.agree(them)
        self.assertEqual(
            agreed,
            sdp.Agreed(
                codec="PCMU",
                payload_type=0,
                format="audio/pcmu",
                event_type=101,
                ptime=20,
                remote=("192.0.2.10", 14824),
                remote_control=("192.0.2.10", 14825),
                direction="sendrecv",
                rtcp_mux=False,
            ),
        )
        self.assertEqual(
            lines(sdp.write_answer(them, agreed, US, 77, 3)),
            [
                "v=0",
                "o=- 77 3 IN IP4 198.51.100.1",
                "s=-",
                "c=IN IP4 198.51.100.1",
                "t=0 0",
                "m=audio 10000 RTP/AVP 0 101",
                "a=rtpmap:0 PCMU/8000",
                "a=rtpmap:101 telephone-event/8000",
                "a=fmtp:101 0-15",
                "a=ptime:20",
                "a=sendrecv",
            ],
        )

    def test_freeswitch(self) -> None:
        """FreeSWITCH's shared RTP and RTCP port is taken up, its comfort noise is not."""
        them = golden(FREESWITCH)
        agreed = sdp.agree(them)
        self.assertTrue(agreed.rtcp_mux)
        self.assertEqual(agreed.remote_control, agreed.remote)
        answer = lines(sdp.write_answer(them, agreed, US, 1, 1))
        self.assertIn("a=rtcp-mux", answer)
        self.assertIn("m=audio 10000 RTP/AVP 0 101", answer)

    def test_3cx(self) -> None:
        """3CX puts A-law first and its keys at type 96: both as it wants."""
        agreed = sdp.agree(golden(THREE_CX))
        self.assertEqual((agreed.codec, agreed.format, agreed.payload_type), ("PCMA", "audio/pcma", 8))
        self.assertEqual((agreed.event_type, agreed.ptime), (96, 20))

    def test_baresip(self) -> None:
        """baresip names its RTCP port, and its video line is answered with port 0."""
        them = golden(BARESIP)
        agreed = sdp.agree(them)
        self.assertEqual(agreed.remote_control, ("127.0.0.1", 34541))
        self.assertEqual(lines(sdp.write_answer(them, agreed, US, 1, 1))[-1], "m=video 0 RTP/AVP 96")


class Agreement(SynchronousTestCase):
    def refusal(self, them: sdp.Offer, only: str = "") -> str:
        refused = self.assertRaises(Refused, sdp.agree, them, only)
        self.assertEqual(refused.code, 488)
        ((name, value),) = refused.headers
        assert isinstance(value, str)
        self.assertEqual(name, "Warning")
        return value

    def test_no_common_codec(self) -> None:
        """Without G.711 in the offer the call is refused, and the Warning says why."""
        them = offer("m=audio 4000 RTP/AVP 9 18", "a=rtpmap:9 G722/8000")
        self.assertEqual(self.refusal(them), '305 extenbot "Incompatible media format"')

    def test_wide_band_namesake(self) -> None:
        """PCMU at another rate or with two channels is not G.711."""
        them = offer("m=audio 4000 RTP/AVP 0 97", "a=rtpmap:0 PCMU/16000", "a=rtpmap:97 PCMA/8000/2")
        self.assertIn("305", self.refusal(them))

    def test_encrypted_only(self) -> None:
        """SAVP alone is refused by its transport when its keys came over an open one."""
        them = offer("m=audio 4000 RTP/SAVP 0", f"a=crypto:1 {SHA1_80}")
        self.assertEqual(self.refusal(them), '302 extenbot "TLS is needed for SRTP"')
        dtls = offer("m=audio 4000 UDP/TLS/RTP/SAVP 0")
        self.assertEqual(self.refusal(dtls), '302 extenbot "Incompatible transport protocol"')

    def test_encrypted(self) -> None:
        """Over TLS, SAVP and SAVPF are taken with the first a=crypto line that we know, and answered with our key."""
        for protocol in ("RTP/SAVP", "RTP/SAVPF"):
            them = offer(
                f"m=audio 4000 {protocol} 0", "a=crypto:1 F8_128_HMAC_SHA1_80 inline:x", f"a=crypto:7 {SHA1_80}"
            )
            agreed = sdp.agree(them, "", SECRET)
            assert agreed.crypto is not None
            self.assertEqual((agreed.crypto.tag, agreed.crypto.suite), (7, "AES_CM_128_HMAC_SHA1_80"))
            answer = sdp.write_answer(them, agreed, US, 1, 1)
            self.assertIn(f"m=audio 10000 {protocol} 0", lines(answer))
            [line] = [line for line in lines(answer) if "crypto" in line]
            self.assertRegex(line, r"^a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:[A-Za-z0-9+/]{40}$")
            read = sdp.read_answer(answer, "", b"other secret" * 3).crypto
            assert read is not None
            self.assertEqual(read.theirs, agreed.crypto.ours)
            self.assertNotEqual(read.theirs, agreed.crypto.theirs)
            self.assertNotIn("ours", repr(agreed))

    def test_encrypted_without_a_key(self) -> None:
        """SAVP without a key that we can use is refused by its transport."""
        for crypto in ((), ("a=crypto:1 F8_128_HMAC_SHA1_80 inline:x",), (f"a=crypto:1 {SHA1_80}|2^20|1:4",)):
            them = offer("m=audio 4000 RTP/SAVP 0", *crypto)
            refused = self.assertRaises(Refused, sdp.agree, them, "", SECRET)
            self.assertIn("No a=crypto line that we can use", str(refused.headers))

    def test_optionally_encrypted(self) -> None:
        """A phone that adds a key to a plain line is answered in plain, also over TLS."""
        them = offer("m=audio 4000 RTP/AVP 0", f"a=crypto:1 {SHA1_80}")
        for secret in (b"", SECRET):
            agreed = sdp.agree(them, "", secret)
            self.assertIsNone(agreed.crypto)
            self.assertNotIn(b"crypto", sdp.write_answer(them, agreed, US, 1, 1))

    def test_both(self) -> None:
        """Of an encrypted and a plain line the one that stands first is taken (RFC 3264 6)."""
        pair = ["m=audio 4000 RTP/SAVP 0\r\na=crypto:1 " + SHA1_80, "m=audio 4002 RTP/AVP 0"]
        for order, wanted in ((pair, 4000), (pair[::-1], 4002)):
            agreed = sdp.agree(offer(*order), "", SECRET)
            assert agreed.remote is not None
            self.assertEqual((agreed.remote[1], agreed.crypto is not None), (wanted, wanted == 4000))
            ports = [
                line.split()[1] for line in lines(sdp.write_answer(offer(*order), agreed, US, 1, 1)) if line[0] == "m"
            ]
            self.assertEqual(ports, ["10000", "0"])

    def test_no_audio(self) -> None:
        """A call of video only, or with its audio switched off, is refused by its media."""
        for them in (offer("m=video 4000 RTP/AVP 96"), offer("m=audio 0 RTP/AVP 0"), offer()):
            self.assertEqual(self.refusal(them), '304 extenbot "Media type not available"')

    def test_encrypted_first(self) -> None:
        """A phone that offers SAVP and plain RTP gets the plain line, the other with port 0 in its place."""
        them = offer("m=audio 4000 RTP/SAVP 0", "m=audio 4002 RTP/AVP 8", "m=application 9 UDP/BFCP *")
        agreed = sdp.agree(them)
        self.assertEqual(agreed.remote, ("192.0.2.1", 4002))
        answer = [line for line in lines(sdp.write_answer(them, agreed, US, 1, 1)) if line.startswith("m=")]
        self.assertEqual(answer, ["m=audio 0 RTP/SAVP 0", "m=audio 10000 RTP/AVP 8", "m=application 0 UDP/BFCP *"])

    def test_order_and_law_kept(self) -> None:
        """The offer's order decides, except in a re-INVITE, where the law in use stays when it is offered at all."""
        both = offer("m=audio 4000 RTP/AVP 8 0")
        self.assertEqual(sdp.agree(both).codec, "PCMA")
        self.assertEqual(sdp.agree(both, "PCMU").codec, "PCMU")
        self.assertEqual(sdp.agree(offer("m=audio 4000 RTP/AVP 8"), "PCMU").codec, "PCMA")

    def test_dynamic_type(self) -> None:
        """G.711 at a dynamic payload type is answered at that type; a remapped 0 is not G.711."""
        them = offer("m=audio 4000 RTP/AVP 0 107", "a=rtpmap:0 opus/48000/2", "a=rtpmap:107 pcma/8000")
        agreed = sdp.agree(them)
        self.assertEqual((agreed.codec, agreed.payload_type), ("PCMA", 107))
        self.assertIn("a=rtpmap:107 PCMA/8000", lines(sdp.write_answer(them, agreed, US, 1, 1)))

    def test_keys(self) -> None:
        """telephone-event is answered only when offered, and only at 8 kHz."""
        rates = ("a=rtpmap:99 telephone-event/48000", "a=rtpmap:121 telephone-event/8000")
        self.assertEqual(sdp.agree(offer("m=audio 4000 RTP/AVP 0 99 121", *rates)).event_type, 121)
        them = offer("m=audio 4000 RTP/AVP 0")
        answer = sdp.write_answer(them, sdp.agree(them), US, 1, 1)
        self.assertNotIn(b"telephone-event", answer)

    def test_packet_time(self) -> None:
        """ptime is honoured, maxptime is never passed, and nonsense means 20 ms."""
        for attributes, wanted in (
            ([], 20),
            (["a=ptime:10"], 10),
            (["a=ptime:30"], 30),
            (["a=ptime:40", "a=maxptime:150"], 40),
            (["a=maxptime:10"], 10),
            (["a=ptime:40", "a=maxptime:30"], 30),
            (["a=ptime:25"], 20),
            (["a=ptime:5"], 10),
            (["a=ptime:200"], 60),
            (["a=ptime:0"], 20),
            (["a=ptime:soon"], 20),
        ):
            them = offer("m=audio 4000 RTP/AVP 0", *attributes)
            agreed = sdp.agree(them)
            self.assertEqual(agreed.ptime, wanted, attributes)
            self.assertIn(f"a=ptime:{wanted}", lines(sdp.write_answer(them, agreed, US, 1, 1)))

    def test_hold(self) -> None:
        """Each way to hold is answered in kind (RFC 3264 6.1), at session or media level."""
        for theirs, ours, held in (
            ("sendrecv", "sendrecv", False),
            ("sendonly", "recvonly", True),
            ("recvonly", "sendonly", False),
            ("inactive", "inactive", True),
        ):
            for them in (
                offer("m=audio 4000 RTP/AVP 0", f"a={theirs}"),
                offer("m=audio 4000 RTP/AVP 0", session=f"c=IN IP4 192.0.2.1\na={theirs}"),
            ):
                agreed = sdp.agree(them)
                self.assertEqual((agreed.direction, agreed.held), (ours, held))
                self.assertIn(f"a={ours}", lines(sdp.write_answer(them, agreed, US, 1, 1)))

    def test_old_hold(self) -> None:
        """c=0.0.0.0 is a hold: nowhere to send, and we do not claim to."""
        agreed = sdp.agree(offer("m=audio 4000 RTP/AVP 0", session="c=IN IP4 0.0.0.0"))
        self.assertEqual((agreed.remote, agreed.direction, agreed.held), (None, "recvonly", True))
        agreed = sdp.agree(offer("m=audio 4000 RTP/AVP 0", "a=inactive", session="c=IN IP4 0.0.0.0"))
        self.assertEqual(agreed.direction, "inactive")

    def test_switched_off(self) -> None:
        """Audio switched off by port 0 in the middle of a call is a hold, not a refusal; our offer switches it on."""
        them = offer("m=audio 0 RTP/AVP 8", "m=video 0 RTP/AVP 96")
        agreed = sdp.agree(them, "PCMA")
        self.assertEqual((agreed.codec, agreed.remote, agreed.direction), ("PCMA", None, "inactive"))
        self.assertTrue(agreed.held)
        answer = lines(sdp.write_answer(them, agreed, US, 1, 1))
        self.assertEqual(answer[-2:], ["m=audio 0 RTP/AVP 8", "m=video 0 RTP/AVP 96"])
        ours = lines(sdp.write_answer(them, replace(agreed, direction="sendrecv"), US, 1, 1))
        self.assertIn("m=audio 10000 RTP/AVP 8", ours)
        self.assertEqual(ours[-1], "m=video 0 RTP/AVP 96")
        self.refusal(offer("m=audio 0 UDP/TLS/RTP/SAVP 0"), "PCMU")
        self.refusal(offer("m=video 0 RTP/AVP 96"), "PCMU")

    def test_addresses(self) -> None:
        """The media's own c= line wins; a host name is left to the RTP that arrives; IPv6 works."""
        own = offer("m=audio 4000 RTP/AVP 0", "c=IN IP4 192.0.2.9")
        self.assertEqual(sdp.agree(own).remote, ("192.0.2.9", 4000))
        named = sdp.agree(offer("m=audio 4000 RTP/AVP 0", "c=IN IP4 pbx.example.com"))
        self.assertEqual((named.remote, named.direction), (None, "sendrecv"))
        six = offer("m=audio 4000 RTP/AVP 0", "a=rtcp:5001 IN IP6 2001:db8::2", session="c=IN IP6 2001:db8::1")
        agreed = sdp.agree(six)
        self.assertEqual(agreed.remote, ("2001:db8::1", 4000))
        self.assertEqual(agreed.remote_control, ("2001:db8::2", 5001))
        self.assertIn("c=IN IP6 2001:db8::9", lines(sdp.write_answer(six, agreed, ("2001:db8::9", 10), 1, 1)))

    def test_late_offer(self) -> None:
        """An INVITE without SDP gets our offer of both laws, and the answer in the ACK is read."""
        ours = sdp.write_offer(US, 5, 1)
        self.assertIn("m=audio 10000 RTP/AVP 0 8 101", lines(ours))
        self.assertIn("a=sendrecv", lines(ours))
        answer = b"v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
        agreed = sdp.read_answer(answer)
        self.assertEqual((agreed.codec, agreed.remote, agreed.event_type), ("PCMA", ("192.0.2.1", 4000), 101))
        again = lines(sdp.write_offer(US, 5, 2, agreed))
        self.assertIn("m=audio 10000 RTP/AVP 8 0 101", again)


class Reading(SynchronousTestCase):
    def test_broken(self) -> None:
        """What is no session description is Malformed."""
        for data in (
            b"",
            b"v=1\r\n",
            b"hello",
            b"v=0\r\nm=audio\r\n",
            b"v=0\r\nm=audio 4000 RTP/AVP 0\r\n",
            b"v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 70000 RTP/AVP 0\r\n",
            "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio \u0664 RTP/AVP 0\r\n".encode(),
            b"v=0\r\nc=IN IP4\r\n m=audio 4000 RTP/AVP 0\r\n",
            b"v=0\r\nnonsense\r\n",
            b"v=0\r\n" + b"a=x\r\n" * 20000,
        ):
            self.assertRaises(Malformed, sdp.read_offer, data)

    def test_bare_newlines(self) -> None:
        """Lines that end in LF alone, or trailing empty lines, are read."""
        data = b"v=0\nc=IN IP4 192.0.2.1\nm=audio 4000/2 RTP/AVP 0\n\n"
        self.assertEqual(sdp.agree(sdp.read_offer(data)).remote, ("192.0.2.1", 4000))

    @given(
        st.sampled_from([ASTERISK, FREESWITCH, THREE_CX, BARESIP]),
        st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=6)), max_size=6),
    )
    def test_mutated(self, text: str, changes: list[tuple[int, bytes]]) -> None:
        """However an offer is damaged, it is agreed on and answered, refused, or Malformed."""
        data = text.encode()
        for at, new in changes:
            data = data[:at] + new + data[at + len(new) :]
        try:
            them = sdp.read_offer(data)
            agreed = sdp.agree(them)
        except (Malformed, Refused):
            return
        again = sdp.read_offer(sdp.write_answer(them, agreed, US, 1, 1))
        self.assertEqual(len(again.media), len(them.media))
        self.assertEqual(sdp.agree(again).codec, agreed.codec)

    @given(st.text(alphabet="vmcabt=0123 :/.\r\nINIP4audioRTP/AVP", max_size=200))
    def test_noise(self, text: str) -> None:
        """Lines made of the right letters raise nothing but Malformed."""
        with contextlib.suppress(Malformed):
            sdp.read_offer(b"v=0\r\n" + text.encode())
