"""REGISTER and INVITE as real PBXs and phones send them, through the whole of this room."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Flow
from extenbot.sip.answering import Answering
from extenbot.sip.bodies import offered
from extenbot.sip.digest import Challenger, answer_challenge
from extenbot.sip.message import Request, Response, read, write
from extenbot.sip.registrar import Registrar
from extenbot.sip.session import Means, Sessions
from extenbot.sip.transaction import ServerTransaction, Transactions
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.sip.wire import ANSWER, FLOW, Recorder

SDP = """v=0
o=- 1742035 1742035 IN IP4 192.0.2.10
s=Asterisk
c=IN IP4 192.0.2.10
t=0 0
m=audio 12036 RTP/AVP 0 8 3 111 9 101
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:150
a=sendrecv
"""

FREEPBX_REGISTER = """REGISTER sip:example.org SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;rport;branch=z9hG4bKPj1f0d3b54
From: <sip:bot@example.org>;tag=7ab1
To: <sip:bot@example.org>
Call-ID: 5c0b1f7a-reg
CSeq: 37301 REGISTER
Supported: 100rel, replaces, norefersub, outbound, path
Contact: <sip:bot@192.0.2.10:5060;line=qwertyu>
Expires: 3600
Allow: OPTIONS, REGISTER, SUBSCRIBE, NOTIFY, PUBLISH, INVITE, ACK, BYE, CANCEL, UPDATE, PRACK, INFO, MESSAGE, REFER
Max-Forwards: 70
User-Agent: FPBX-17.0.19(22.1.0)
Content-Length:  0

"""

FREEPBX_INVITE = f"""INVITE sip:openai@example.org SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;rport;branch=z9hG4bKPj9c2a
From: <sip:bot@example.org>;tag=c51e
To: <sip:openai@example.org>
Contact: <sip:bot@192.0.2.10:5060;line=qwertyu>
Call-ID: 8f0e-call
CSeq: 12043 INVITE
Allow: OPTIONS, REGISTER, SUBSCRIBE, NOTIFY, PUBLISH, INVITE, ACK, BYE, CANCEL, UPDATE, PRACK, INFO, MESSAGE, REFER
Supported: 100rel, timer, replaces, norefersub, histinfo
Session-Expires: 1800
Min-SE: 90
P-Asserted-Identity: "Alice Brown" <sip:101@192.0.2.10>
Max-Forwards: 70
User-Agent: FPBX-17.0.19(22.1.0)
Content-Type: application/sdp
Content-Length:   LENGTH

{SDP}"""

FUSIONPBX_REGISTER = """REGISTER sip:example.org:5060;transport=udp SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5280;rport;branch=z9hG4bKBpS2y4Q9FcX0c
Max-Forwards: 70
From: <sip:bot@example.org>;tag=X1Hgjr7ZytNHa
To: <sip:bot@example.org>
Call-ID: 1d1b5a3e-reg
CSeq: 128530112 REGISTER
Contact: <sip:gw+3f2c8a10@192.0.2.10:5280;transport=udp;gw=3f2c8a10>
Expires: 800
User-Agent: FreeSWITCH
Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, UPDATE, REGISTER, REFER, NOTIFY, PUBLISH, SUBSCRIBE
Supported: timer, path, replaces
Content-Length: 0

"""

FUSIONPBX_INVITE = f"""INVITE sip:openai@example.org SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5280;rport;branch=z9hG4bKtrD04yFUc3KjN
Max-Forwards: 69
From: "Alice" <sip:101@example.org>;tag=tQ8y7ZcHpvNpB
To: <sip:openai@example.org>
Call-ID: e2b95a66-call
CSeq: 128530118 INVITE
Contact: <sip:gw+3f2c8a10@192.0.2.10:5280;transport=udp;gw=3f2c8a10>
User-Agent: FreeSWITCH
Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, UPDATE, REGISTER, REFER, NOTIFY, PUBLISH, SUBSCRIBE
Supported: timer, path, replaces
Allow-Events: talk, hold, conference, presence, as-feature-event, dialog, line-seize, call-info, sla, refer
Content-Type: application/sdp
Content-Disposition: session
Content-Length: LENGTH
X-FS-Support: update_display,send_info
Remote-Party-ID: "Alice" <sip:101@example.org>;party=calling;screen=yes;privacy=off

{SDP}"""

THREECX_REGISTER = """REGISTER sip:example.org:5060 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-524287-1---abc;rport
Max-Forwards: 70
Contact: <sip:10003@192.0.2.10:5060;rinstance=3a1b2c>;expires=120
To: <sip:bot@example.org:5060>
From: <sip:bot@example.org:5060>;tag=d5ca0b73
Call-ID: 87Z0oX-reg
CSeq: 1 REGISTER
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REGISTER, SUBSCRIBE, NOTIFY, REFER, INFO, MESSAGE, UPDATE
User-Agent: 3CXPhoneSystem 20.0.3.884 (884)
Content-Length: 0

"""

THREECX_INVITE = f"""INVITE sip:70000000000@example.org:5060 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-524287-1---def;rport
Max-Forwards: 70
Contact: <sip:10003@192.0.2.10:5060>
To: <sip:70000000000@example.org:5060>
From: "Bob"<sip:10003@example.org:5060>;tag=b06d3b1f
Call-ID: Yb3k-call
CSeq: 1 INVITE
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REGISTER, SUBSCRIBE, NOTIFY, REFER, INFO, MESSAGE, UPDATE
Content-Type: application/sdp
Supported: replaces, timer
User-Agent: 3CXPhoneSystem 20.0.3.884 (884)
Content-Length: LENGTH

{SDP}"""

BARESIP_REGISTER = """REGISTER sip:example.org SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:15992;branch=z9hG4bK6de61a1dbf3b2f5d;rport
Contact: <sip:bot-0x55d363eff160@192.0.2.10:15992>;expires=60
Max-Forwards: 70
To: <sip:bot@example.org>
From: <sip:bot@example.org>;tag=4a1c5b0b6b3d2d2e
Call-ID: 3b3b5b6c4b8a-reg
CSeq: 50561 REGISTER
User-Agent: baresip v1.0.0 (x86_64/linux)
Supported: gruu
Allow: INVITE,ACK,BYE,CANCEL,OPTIONS,NOTIFY,SUBSCRIBE,INFO,MESSAGE,UPDATE,REFER
Content-Length: 0

"""

BARESIP_INVITE = f"""INVITE sip:openai@example.org SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:15992;branch=z9hG4bKf2e3fd3ab2cc3bfa;rport
Contact: <sip:bot-0x55d363eff160@192.0.2.10:15992>
Max-Forwards: 70
To: <sip:openai@example.org>
From: <sip:bot@example.org>;tag=b5bfc6ea16c4a6b4
Call-ID: 6c7f4cc1d5d8-call
CSeq: 24087 INVITE
User-Agent: baresip v1.0.0 (x86_64/linux)
Allow: INVITE,ACK,BYE,CANCEL,OPTIONS,NOTIFY,SUBSCRIBE,INFO,MESSAGE,UPDATE,REFER
Supported: gruu
Content-Type: application/sdp
Content-Length: LENGTH

{SDP}"""

BODY = SDP.replace("\n", "\r\n").encode()


def wired(text: str) -> bytes:
    """As it goes over the wire."""
    return text.replace("LENGTH", str(len(BODY))).replace("\n", "\r\n").encode()


class Server:
    """As much of a switch as a registrar bot needs."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wire = Recorder(self.clock)
        self.tokens = CountingTokens()
        self.transactions = Transactions(self.clock, self.wire, self.tokens, self)
        self.challenger = Challenger("example.org", self.clock.seconds, b"key", 300)
        self.registrar = Registrar(self.clock, self.clock.seconds, 3600, 60)
        self.sessions = Sessions()

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        username = self.challenger.check(request, transaction.flow.remote[0], {"bot": "secret"}.get)
        if request.method == "REGISTER":
            transaction.respond(self.registrar.register(request, username, transaction.flow))
        else:
            means = Means(self.clock, self.tokens, self.transactions, self.sessions)
            self.session = Answering(means, transaction, "sip:bot@192.0.2.1:5060")

    def acknowledged(self, request: Request, flow: Flow) -> None:
        self.sessions.find(request)

    def ask(self, data: bytes) -> Response:
        """The last answer to it."""
        self.transactions.received(data, FLOW)
        last = self.wire.messages()[-1]
        assert isinstance(last, Response)
        return last

    def retry(self, data: bytes, challenge: Response) -> Response:
        """Once more with credentials, CSeq one up, signed for the domain as PBXs do."""
        again = read(data)
        assert isinstance(again, Request)
        again.set("cseq", f"{again.cseq.number + 1} {again.method}")
        again.set("via", again.via.toString().replace("z9hG4bK", "z9hG4bK2"))
        asked = challenge.all("www-authenticate")[0]
        again.set("authorization", answer_challenge(asked, again.method, "sip:example.org", "bot", "secret", "c0"))
        return self.ask(write(again))


class Golden(SynchronousTestCase):
    def test_register(self) -> None:
        """Each is challenged, let in, and finds its own Contact in the 200."""
        for text, expires in (
            (FREEPBX_REGISTER, 3600),
            (FUSIONPBX_REGISTER, 800),
            (THREECX_REGISTER, 120),
            (BARESIP_REGISTER, 60),
        ):
            server = Server()
            data = wired(text)
            challenge = server.ask(data)
            self.assertEqual(challenge.code, 401)
            response = server.retry(data, challenge)
            contact = re.search(r"Contact: (<.*?>)", text)
            assert contact
            self.assertEqual((response.code, response.all("contact")), (200, [f"{contact[1]};expires={expires}"]))
            self.assertTrue(response.to.tag)

    def test_invite(self) -> None:
        """Each is challenged, let in, and answered."""
        for text in (FREEPBX_INVITE, FUSIONPBX_INVITE, THREECX_INVITE, BARESIP_INVITE):
            server = Server()
            data = wired(text)
            challenge = server.ask(data)
            self.assertEqual((challenge.code, server.retry(data, challenge).code), (401, 100))
            self.assertEqual(offered(server.session.request), BODY)
            server.session.answer(ANSWER)
            (response,) = server.wire.messages()
            self.assertEqual((response.body, response.first("content-type")), (ANSWER, "application/sdp"))

    def test_round_trip(self) -> None:
        """Read and written again they are the same."""
        for name, text in list(globals().items()):
            if name.endswith(("_REGISTER", "_INVITE")):
                message = read(wired(text))
                self.assertEqual(read(write(message)), message, name)

    def test_headers_after_length(self) -> None:
        """FreeSWITCH's caller ID stands behind Content-Length."""
        message = read(wired(FUSIONPBX_INVITE))
        self.assertIn("<sip:101@example.org>", message.first("remote-party-id") or "")
        self.assertEqual(message.body, BODY)
