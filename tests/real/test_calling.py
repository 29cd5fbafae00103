"""We call SIPp: digest, early media, redirection, CANCEL, reliable ringing, each as another SIP stack does it."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from extenbot.errors import Refused
from extenbot.interfaces import Flow
from extenbot.net.sip import SipSockets
from extenbot.settings import Endpoint
from extenbot.sip.calling import Calling
from extenbot.sip.message import Request
from extenbot.sip.session import Means, Session, Sessions
from extenbot.sip.transaction import ServerTransaction, Transactions
from extenbot.sip.way import Way
from tests.fakes import CountingTokens
from tests.need import need
from tests.real.harness import Process, free_port, new_folder
from tests.sip.wire import Listener

HOST = "127.0.0.31"  # of SIPp
OURS = "127.0.0.32"
OFFER = b"v=0\r\no=- 1 1 IN IP4 127.0.0.32\r\ns=-\r\nc=IN IP4 127.0.0.32\r\nt=0 0\r\nm=audio 20000 RTP/AVP 0\r\n"
ANSWER = """Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio 30000 RTP/AVP 0
"""
NOTHING = "Content-Length: 0\n"
RESPONSE = """<send{more}><![CDATA[
SIP/2.0 {status}
[last_Via:]
[last_From:]
[last_To:]{tag}
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:[local_ip]:[local_port]>
{extra}
]]></send>
"""


def says(status: str, extra: str = NOTHING, tag: str = ";tag=[call_number]", more: str = "") -> str:
    return RESPONSE.format(status=status, extra=extra, tag=tag, more=more)


def hears(method: str, more: str = "") -> str:
    return f'<recv request="{method}" {more}/>\n'


def prack_for(number: int) -> str:
    """A PRACK with the right RAck."""
    return (
        '<recv request="PRACK"><action><ereg regexp="'
        f'^ *{number} +[0-9]+ +INVITE" search_in="hdr" header="RAck:" check_it="true" assign_to="{number}"/>'
        f'</action></recv>\n<Reference variables="{number}"/>\n'
    )


def hears_bye(tag: str, variable: int) -> str:
    """A BYE in the dialog with this tag of SIPp's."""
    return (
        f'<recv request="BYE"><action><ereg regexp="tag={tag}" search_in="hdr" header="To:" check_it="true" '
        f'assign_to="{variable}"/></action></recv>\n<Reference variables="{variable}"/>\n'
    )


# SIPp answers the last message only: what belongs to the INVITE is kept.
KEEP = (
    '<recv request="INVITE"><action>'
    '<ereg regexp=".*" search_in="hdr" header="Via:" assign_to="7"/>'
    '<ereg regexp=".*" search_in="hdr" header="CSeq:" assign_to="8"/>'
    '<ereg regexp=".*" search_in="hdr" header="To:" assign_to="9"/></action></recv>\n'
)


def of_invite(text: str) -> str:
    """A response to the INVITE that was kept, not to what came last."""
    for name, variable in (("Via", 7), ("CSeq", 8), ("To", 9)):
        text = text.replace(f"[last_{name}:]", f"{name}:[${variable}]")
    return text


IN_DIALOG = says("200 OK", tag="")  # there is a tag already
TALK = hears("ACK") + hears("BYE") + IN_DIALOG


class Told:
    """A `CallingListener`; each thing told can be waited for."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.session: Session | None = None
        self._wanted: tuple[str, Deferred[None]] | None = None

    def _tell(self, *what: Any) -> None:
        self.told.append(what)
        if self._wanted and self._wanted[0] == what[0]:
            wanted, self._wanted = self._wanted[1], None
            wanted.callback(None)

    async def until(self, what: str) -> None:
        if what not in [each[0] for each in self.told]:
            self._wanted = what, Deferred()
            await self._wanted[1].addTimeout(30, reactor)

    def progressed(self, code: int, words: str, sdp: bytes) -> None:
        self._tell("progressed", code, bool(sdp))

    def answered(self, session: Session, sdp: bytes) -> None:
        self.session = session
        session.listener = Listener()
        self._tell("answered", bool(sdp))

    def failed(self, code: int, words: str) -> None:
        self._tell("failed", code, words)


class User:
    """A `TransactionUser` with nothing but sessions."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        session = self.sessions.find(request)
        if session is None:
            raise Refused(481, "No such call")
        session.requested(request, transaction)

    def acknowledged(self, request: Request, flow: Flow) -> None:
        raise AssertionError("we never answer")


@pytest.mark.real
class CallingSipp(TestCase):
    def setUp(self) -> None:
        need("SIPp", "apt-get install sip-tester", shutil.which("sipp") is not None)
        self.folder = new_folder(self)
        sessions = Sessions()
        sockets = SipSockets(reactor, self.received)
        self.transactions = Transactions(reactor, sockets, CountingTokens(), User(sessions))
        _, self.port = sockets.listen(Endpoint("udp", 0, OURS))
        self.means = Means(reactor, CountingTokens(), self.transactions, sessions)

        def close() -> None:
            self.transactions.stop()
            sockets.close()

        self.addCleanup(close)
        self.told = Told()

    def received(self, data: bytes, flow: Flow) -> None:
        self.transactions.received(data, flow)

    def sipp(self, *scenario: str) -> None:
        """Start SIPp as the other side, by its own scenario or one of ours."""
        options = ["-sn", "uas"]
        if scenario:
            (self.folder / "scenario.xml").write_text(
                '<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="test">\n' + "".join(scenario) + "</scenario>\n"
            )
            options = ["-sf", "scenario.xml"]
        self.pbx = free_port(socket.SOCK_DGRAM, HOST)
        self.process = Process(
            self,
            ["sipp", *options, "-i", HOST, "-p", str(self.pbx), "-m", "1", "-nostdin", "-timeout", "30s",
             "-timeout_error", "-trace_err", "-error_file", "errors.log"],
            cwd=self.folder,
        )  # fmt: skip

    def call(self, **more: Any) -> Calling:
        """Call SIPp; until it listens our INVITE is repeated."""
        way = Way(
            flow=Flow("UDP", (OURS, self.port), (HOST, self.pbx)),
            routes=(),
            local=f"sip:bot@{HOST}",
            contact=f"sip:bot@{OURS}:{self.port}",
            domain=f"{HOST}:{self.pbx}",
            username="bot",
            password="secret",
        )
        return Calling(self.means, way, "100", OFFER, self.told, **more)

    async def succeed(self, *told: tuple[Any, ...]) -> None:
        """SIPp has seen all as it was written, and so have we."""
        code = await deferToThread(self.process.process.wait, 40)
        errors = self.folder / "errors.log"
        words = errors.read_text() if errors.exists() else ""
        self.assertEqual(code, 0, f"{words[-3000:]}\n{self.process.output[-3000:]}")
        self.assertEqual(self.told.told, list(told))
        self.assertEqual((self.transactions.counters["fault"], len(self.means.sessions)), (0, 0))

    async def hang_up(self) -> None:
        await self.told.until("answered")
        assert self.told.session
        self.told.session.bye()

    async def test_plain(self) -> None:
        """SIPp's own answering side: ringing, answer, our BYE."""
        self.sipp()
        self.call()
        await self.hang_up()
        await self.succeed(("progressed", 180, False), ("answered", True))

    async def test_challenged(self) -> None:
        """A 407 by a proxy, then a 401 with credentials that SIPp checks (it checks MD5 in Authorization only)."""
        challenge = (
            '{}-Authenticate: Digest realm="{}", nonce="47ebe028cda119c35d4877b383027d28", qop="auth"\n' + NOTHING
        )
        self.sipp(
            hears("INVITE"),
            says("407 Proxy Authentication Required", challenge.format("Proxy", "proxy")),
            hears("ACK"),
            '<recv request="INVITE"><action><ereg regexp="nc=00000001" search_in="hdr" header="Proxy-Authorization:" '
            'check_it="true" assign_to="2"/></action></recv>\n<Reference variables="2"/>\n',
            says("401 Unauthorized", challenge.format("WWW", "pbx")),
            hears("ACK"),
            '<recv request="INVITE"><action><verifyauth assign_to="1" username="bot" password="secret"/></action>'
            '</recv>\n<nop hide="true" test="1" next="2"/>\n',
            says("403 Forbidden"),
            hears("ACK"),
            '<nop next="3"/>\n<label id="2"/>\n',
            says("200 OK", ANSWER),
            TALK,
            '<label id="3"/>\n',
        )
        self.call()
        await self.hang_up()
        await self.succeed(("answered", True))

    async def test_wrong_password(self) -> None:
        """Refused twice is refused."""
        challenge = 'WWW-Authenticate: Digest realm="pbx", nonce="{}", algorithm=SHA-256, qop="auth"\n' + NOTHING
        self.sipp(
            *(
                part
                for nonce in ("a", "b")
                for part in (hears("INVITE"), says("401 Unauthorized", challenge.format(nonce)), hears("ACK"))
            )
        )
        self.call()
        await self.told.until("failed")
        await self.succeed(("failed", 401, "Unauthorized"))

    async def test_early_media(self) -> None:
        """183 with SDP, then 200 with SDP, repeated by SIPp until our ACK has come."""
        self.sipp(
            hears("INVITE"),
            says("183 Session Progress", ANSWER),
            says("200 OK", ANSWER, more=' retrans="500"'),
            TALK,
        )
        self.call()
        await self.hang_up()
        await self.succeed(("progressed", 183, True), ("answered", True))

    async def test_forked(self) -> None:
        """Two take the call: both are acknowledged, the second is hung up by itself, the first when we want to."""
        self.sipp(
            KEEP,
            says("180 Ringing", tag=";tag=a"),
            says("200 OK", ANSWER, tag=";tag=a"),
            hears("ACK"),
            of_invite(says("200 OK", ANSWER, tag=";tag=b")),
            hears("ACK"),
            hears_bye("b", 1),
            IN_DIALOG,
            hears_bye("a", 2),
            IN_DIALOG,
        )
        gone: Deferred[None] = Deferred()

        class Watched(Sessions):
            def remove(self, session: Session) -> None:
                super().remove(session)
                if not gone.called:
                    gone.callback(None)

        self.means = replace(self.means, sessions=Watched())
        self.transactions.user = User(self.means.sessions)
        self.call()
        await gone.addTimeout(30, reactor)
        await self.hang_up()
        await self.succeed(("progressed", 180, False), ("answered", True))

    async def test_redirected(self) -> None:
        """302 to another number: asked for by the same way, with the same Call-ID."""
        self.sipp(
            hears("INVITE"),
            says("302 Moved Temporarily", "Contact: <sip:200@192.0.2.66>;q=0.5\n" + NOTHING).replace(
                "Contact: <sip:[local_ip]:[local_port]>\n", ""
            ),
            hears("ACK"),
            '<recv request="INVITE"><action><ereg regexp="^INVITE sip:200@192.0.2.66 " search_in="msg" check_it="true" '
            'assign_to="1"/></action></recv>\n<Reference variables="1"/>\n',
            says("200 OK", ANSWER),
            TALK,
        )
        self.call()
        await self.hang_up()
        await self.succeed(("answered", True))

    async def test_cancelled(self) -> None:
        """CANCEL while it rings: SIPp answers it, says 487 and gets our ACK."""
        self.sipp(
            hears("INVITE"),
            says("180 Ringing"),
            hears("CANCEL"),
            says("200 OK"),
            says("487 Request Terminated").replace("[last_CSeq:]", "CSeq: [cseq] INVITE"),
            hears("ACK"),
        )
        calling = self.call()
        await self.told.until("progressed")
        calling.cancel()
        await self.told.until("failed")
        await self.succeed(("progressed", 180, False), ("failed", 487, "Cancelled"))

    async def test_reliable(self) -> None:
        """Two reliable provisional responses, each with its PRACK; the SDP of the first is the answer."""
        reliable = "Require: 100rel\nRSeq: {}\n"
        self.sipp(
            KEEP,
            says("183 Session Progress", reliable.format(41) + ANSWER),
            prack_for(41),
            IN_DIALOG,
            of_invite(says("180 Ringing", reliable.format(42) + NOTHING)),
            prack_for(42),
            IN_DIALOG,
            of_invite(says("200 OK")),
            TALK,
        )
        self.call()
        await self.hang_up()
        await self.succeed(("progressed", 183, True), ("progressed", 180, False), ("answered", True))
