"""Messages of RFC 4475, typed from the RFC, each with what we owe it."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Flow
from extenbot.sip.message import read, write
from tests.sip.wire import FLOW, US, Recorder, stack

WSINV = r"""INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0
TO :
 sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n
from   : "J Rosenberg \\\""       <sip:jdrosen@example.com>
  ;
  tag = 98asjd8
MaX-fOrWaRdS: 0068
Call-ID: wsinv.ndaksdj@192.0.2.1
Content-Length   : 4
cseq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.2;branch=390skdjuw
s :
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
Content-Type: application/sdp
Route:
 <sip:services.example.com;lr;unknownwith=value;unknown-no-value>
v:  SIP  / 2.0  / TCP     spindle.example.com   ;
  branch  =   z9hG4bK9ikj8  ,
 SIP  /    2.0   / UDP  192.168.255.111   ; branch=
 z9hG4bK30239
m:"Quoted string \"\"" <sip:jdrosen@example.com> ; newparam =
      newvalue ;
  secondparam ; q = 0.33

v=0
"""

INTMETH = (
    "!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:"
    "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0\n"
    "Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+`'~\n"
    'To: "BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f" <sip:1_unusual.URI~(to-be!sure)&isn\'t+it$/crazy?,/;;*@example.com>\n'
    "From: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>;fromParam''~+*_!.-%=\"работающий\""
    ";tag=_token~1'+`*%!-.\n"
    "Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{\n"
    "CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~\n"
    "Max-Forwards: 255\n"
    "extensionHeader-!.%*+_`'~:大停電\n"
    "Content-Length: 0\n\n"
)

TEMPLATE = """OPTIONS sip:user@example.com SIP/2.0
Via: SIP/2.0/UDP host.example.com;branch=z9hG4bKtorture
From: "Caller" <sip:caller@example.net>;tag=323
To: "Watson" <sip:watson@example.org>
Call-ID: torture@host.example.com
CSeq: 60 OPTIONS
Max-Forwards: 70
Contact: <sip:caller@host.example.net>
Content-Length: 0

"""


class Torture(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Recorder(Clock())
        self.stack = stack(self.wire.clock, self.wire)

    def owed(self, text: str, flow: Flow = FLOW) -> list[str]:
        """The start lines of what we send for it, without time and version."""
        self.stack.transactions.received(text.replace("\n", "\r\n").encode(), flow)
        return [line.split(" ", 2)[2] for line in self.wire.take()]

    def changed(self, *changes: tuple[str, str]) -> list[str]:
        text = TEMPLATE
        for old, new in changes:
            self.assertIn(old, text)
            text = text.replace(old, new)
        return self.owed(text)

    def test_short_tortuous_invite(self) -> None:
        """3.1.1.1: all its odd spaces mean nothing."""
        message = read(WSINV.replace("\n", "\r\n").encode())
        self.assertEqual((message.to.tag, message.from_.tag), ("1918181833n", "98asjd8"))
        self.assertEqual(message.from_.display, 'J Rosenberg \\"')
        self.assertEqual(message.cseq, (9, "INVITE"))
        self.assertEqual(len(message.all("via")), 3)
        self.assertEqual((message.via.sent_by, message.via.branch), (("192.0.2.2", 5060), "390skdjuw"))
        self.assertEqual(message.first("newfangledheader"), "newfangled value continued newfangled value")
        self.assertEqual((message.first("subject"), message.body), ("", b"v=0\r"))
        self.assertEqual(read(write(message)), message)

    def test_wide_range(self) -> None:
        """3.1.1.2: every character that is allowed is taken; the method is unknown."""
        message = read(INTMETH.replace("\n", "\r\n").encode())
        self.assertEqual(message.to.display, "BEL: NUL: DEL:")
        self.assertEqual(message.from_.tag, "_token~1'+`*%!-.")
        self.assertEqual(message.first("extensionHeader-!.%*+_`'~"), "大停電")
        self.assertEqual(self.owed(INTMETH), ["405 Not here"])

    def test_good(self) -> None:
        """3.1.1: odd but right, so it is answered like any other."""
        for changes in (
            (("sip:user@example.com", "sip:sips%3Auser%40example.com@example.net"),),  # 3.1.1.3 escapes
            (("<sip:caller@host.example.net>", "<sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>"),),
            (("sip:caller@example.net>", "sip:null-%00-null@example.net>"),),  # 3.1.1.4
            (('"Caller" <', "caller<"),),  # 3.1.1.6 no space before <
            (("sip:user@example.com", "sip:user;par=u%40example.net@example.com"),),  # 3.1.1.9 semiuri
            (('"Watson" <', "Bell, Alexander <"),),  # 3.1.2.15: may be taken when it is clear what is meant
            (("SIP/2.0/UDP", "SIP/2.0/UNKNOWN"),),  # 3.1.1.10
            (("Max-Forwards: 70\n", ""),),
            (("Max-Forwards: 70", "Max-Forwards: 0"),),  # 3.3.11: for proxies only
        ):
            self.setUp()
            self.assertEqual(self.changed(*changes), ["200 OK"], changes)

    def test_responses(self) -> None:
        """3.1.1.12, 3.1.1.13: any reason or none; 3.1.2.19: no such code."""
        rest = TEMPLATE.partition("\n")[2]
        for line, code in (
            ("SIP/2.0 200 = 2**3 * 5**2 но сто девяносто девять - простое", 200),
            ("SIP/2.0 100 ", 100),
            ("SIP/2.0 100", 100),
        ):
            self.assertEqual(getattr(read(f"{line}\n{rest}".encode()), "code", 0), code)
        self.assertEqual(self.owed(f"SIP/2.0 4294967301 better not break the receiver\n{rest}"), [])
        self.assertEqual(self.stack.transactions.counters["malformed"], 1)

    def test_double_request(self) -> None:
        """3.1.1.8: what follows the first message is not looked at."""
        self.assertEqual(self.owed(TEMPLATE + TEMPLATE.replace("torture", "other")), ["200 OK"])

    def test_bad(self) -> None:
        """3.1.2: 400, or the code that fits better."""
        for code, *changes in (
            ("400", ("Contact: <sip:caller@host.example.net>", "Contact: <sip:a@b")),  # 3.1.2.1 in spirit
            ("400", ("Content-Length: 0", "Content-Length: 9999")),  # 3.1.2.2
            ("400", ("Content-Length: 0", "Content-Length: -999")),  # 3.1.2.3
            ("400", ("CSeq: 60", "CSeq: 36893488147419103232")),  # 3.1.2.4
            ("400", ("Max-Forwards: 70", "Max-Forwards: 300")),
            ("400", ('"Watson" <sip:watson@example.org>', '"Mr J. User <sip:j.user@example.com>')),  # 3.1.2.6
            ("400", ("OPTIONS sip:user@example.com ", "OPTIONS <sip:user@example.com> ")),  # 3.1.2.7
            ("400", ("sip:user@example.com ", "sip:user@example.com; lr ")),  # 3.1.2.8
            ("400", ("OPTIONS sip:user@example.com SIP", "OPTIONS  sip:user@example.com  SIP")),  # 3.1.2.9
            ("505", ("user@example.com SIP/2.0", "user@example.com SIP/7.0")),  # 3.1.2.16
            ("400", ("CSeq: 60 OPTIONS", "CSeq: 60 INVITE")),  # 3.1.2.17
            ("416", ("sip:user@example.com", "nobodyKnowsThisScheme:totallyopaquecontent")),  # 3.3.2
            ("416", ("sip:user@example.com", "soap.beep://192.0.2.103:3002")),  # 3.3.3
            ("420", ("Max-Forwards", "Require: nothingSupportsThis, nothingSupportsThisEither\nMax-Forwards")),  # 3.3.6
            ("400", ("Call-ID:", "Call-ID: one\nCall-ID:")),  # 3.3.8
            ("400", ("Content-Length: 0", "Content-Length: 0\nContent-Length: 5")),  # 3.3.9
        ):
            self.setUp()
            (line,) = self.changed(*changes)
            self.assertEqual(line.split(" ")[0], code, changes)

    def test_insufficient(self) -> None:
        """3.3.1: without what an answer needs there is none."""
        self.assertEqual(self.changed(("Call-ID: torture@host.example.com\n", ""), ("CSeq: 60 OPTIONS\n", "")), [])

    def test_bad_branch(self) -> None:
        """3.2.1: a branch that is only the cookie works as well as it can."""
        self.assertEqual(self.changed(("z9hG4bKtorture", "z9hG4bK")), ["200 OK"])

    def test_spoofed_answer_address(self) -> None:
        """3.3.10: a response from a broadcast address in Via is never sent there."""
        self.stack.transactions.received(
            TEMPLATE.replace("host.example.com;", "255.255.255.255;").replace("\n", "\r\n").encode(),
            Flow("UDP", US, ("192.0.2.10", 5060)),
        )
        self.assertEqual(self.wire.sent[0][2].remote, ("192.0.2.10", 5060))
