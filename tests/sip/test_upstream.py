"""The faults of `twisted.protocols.sip` that we work around: each is still there, and ours does right.

The day one of the first kind fails, Twisted has mended it and there is code of ours to delete.
"""

from __future__ import annotations

import contextlib

from twisted.protocols import sip
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed
from extenbot.interfaces import Flow
from extenbot.sip.grammar import LONG_NAMES
from extenbot.sip.headers import Via, name_addr
from extenbot.sip.message import Request, Response, answer, read, write
from extenbot.sip.uri import Uri
from tests.clock import Clock
from tests.sip.wire import FLOW, US, Recorder, request, stack

OPTIONS = request("OPTIONS")
SOURCE = ("192.0.2.10", 5060)


class _Base(sip.Base):
    def __init__(self) -> None:
        super().__init__()
        self.got: list[sip.Message] = []
        self.transport = self  # type: ignore[assignment]
        self.wrote: list[tuple[bytes, tuple[str, int]]] = []

    def write(self, data: bytes, address: tuple[str, int]) -> None:
        self.wrote.append((data, address))

    def handle_request(self, message: sip.Message, addr: tuple[str, int]) -> None:
        self.got.append(message)
        self.deliverResponse(self.responseFromRequest(200, message))


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.theirs = _Base()
        self.wire = Recorder(Clock())
        self.ours = stack(self.wire.clock, self.wire)

    def received(self, data: bytes, source: tuple[str, int] = SOURCE) -> list[str]:
        self.ours.transactions.received(data, Flow("UDP", US, source))
        return self.wire.take()


class Poison(Case):
    """Fault 1: one datagram without Via stops every later one."""

    bad = (OPTIONS.replace(b"Via: ", b"X: "), OPTIONS.replace(b"UDP 192.0.2.10:5060", b"UDP [2001:db8::1]:5060"))

    def test_theirs(self) -> None:
        """Twisted's Base raises for it and for every good message after it."""
        for bad in self.bad:
            base = _Base()
            for data in (bad, OPTIONS, OPTIONS):
                self.assertRaises((KeyError, ValueError), base.datagramReceived, data, SOURCE)
            self.assertEqual(base.got, [])

    def test_ours(self) -> None:
        """Without a Via it is dropped and counted, an IPv6 Via is answered; the next call is heard."""
        self.assertEqual(self.received(self.bad[0]), [])
        self.assertEqual(self.ours.transactions.counters["malformed"], 1)
        self.assertEqual(self.received(self.bad[1]), ["0 SIP/2.0 200 OK"])
        self.assertEqual(self.received(OPTIONS), ["0 SIP/2.0 200 OK"])


class Short(Case):
    """Fault 2: after a datagram shorter than its Content-Length, another peer's is read as its rest."""

    short = request("INFO", 5).replace(b"Content-Length: 0", b"Content-Length: 400")

    def test_theirs(self) -> None:
        """Twisted takes the next peer's message for a body."""
        self.assertRaises(RuntimeError, self.theirs.datagramReceived, self.short + b"x", SOURCE)
        with contextlib.suppress(RuntimeError):
            self.theirs.datagramReceived(OPTIONS, ("203.0.113.9", 5060))
        self.assertNotIn("OPTIONS", [getattr(message, "method", "") for message in self.theirs.got])

    def test_ours(self) -> None:
        """It earns 400 and the next is heard."""
        self.assertEqual(
            self.received(self.short + b"x"), ["0 SIP/2.0 400 The message is shorter than its Content-Length"]
        )
        self.assertEqual(self.received(OPTIONS), ["0 SIP/2.0 200 OK"])


class Rport(Case):
    """Fault 3: with rport asked for and an unchanged port the answer goes to port 1."""

    def test_theirs(self) -> None:
        """Twisted sends to port True."""
        data = OPTIONS.replace(b"UDP 192.0.2.10:5060", b"UDP pbx.example:5060")
        self.theirs.datagramReceived(data, SOURCE)
        self.assertEqual(int(self.theirs.wrote[0][1][1]), 1)

    def test_ours(self) -> None:
        """The answer goes to the source."""
        self.ours.transactions.received(OPTIONS.replace(b"UDP 192.0.2.10:5060", b"UDP pbx.example:5060"), FLOW)
        self.assertEqual(self.wire.sent[0][2].remote, SOURCE)


class ViaParameters(Case):
    """Fault 4: Via parameters become keyword arguments."""

    text = "SIP/2.0/UDP 192.0.2.10;host=evil;branch=x"

    def test_theirs(self) -> None:
        """Twisted takes the host from a parameter."""
        self.assertEqual(sip.parseViaHeader(self.text).host, "evil")

    def test_ours(self) -> None:
        """A parameter is a parameter."""
        via = Via.read(self.text)
        self.assertEqual((via.host, via.params["host"]), ("192.0.2.10", "evil"))


class Addresses(Case):
    """Fault 5: many proper addresses raise."""

    uris = ("tel:+1", "sips:a@b", "SIP:a@b", "sip:a@[::1]:5060")
    addresses = ("<sip:a@b>;lr", '"a <b" <sip:a@b>', '"a" <sip:a@b>;x="1;2"')

    def test_theirs(self) -> None:
        """Twisted raises, and never an error that says which answer is owed."""
        for text in self.uris:
            self.assertRaises(ValueError, sip.parseURL, text)
        for text in (*self.addresses, "*"):
            self.assertRaises(ValueError, sip.parseAddress, text)

    def test_ours(self) -> None:
        """They are read, or Malformed."""
        for text in self.uris:
            self.assertEqual(str(Uri.read(text)).lower(), text.lower())
        for text in self.addresses:
            self.assertEqual(str(name_addr(text).uri), "sip:a@b")
        self.assertRaises(Malformed, name_addr, "*")


class Text(Case):
    """Fault 6: lists, folds and anything but UTF-8."""

    via = "SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKx, SIP/2.0/UDP b"
    data = request("OPTIONS", headers="Subject: a\r\n b\r\n", via=via, body=b"\xff\xfe")

    def test_theirs(self) -> None:
        """Twisted keeps a list whole, glues folded lines together, cannot read bytes, and adds a port."""
        got: list[sip.Message] = []
        parser = sip.MessagesParser(got.append)
        parser.dataReceived(self.data.replace(b"\xff\xfe", b"hi"))
        self.assertEqual(got[0].headers["via"], [self.via])
        self.assertEqual(got[0].headers["subject"], ["ab"])
        parser = sip.MessagesParser(got.append)
        parser.dataReceived(self.data)
        self.assertEqual((len(got), parser.state), (1, "invalid"))
        self.flushLoggedErrors(UnicodeDecodeError)
        self.assertEqual(sip.parseViaHeader("SIP/2.0/UDP h").toString(), "SIP/2.0/UDP h:5060")

    def test_ours(self) -> None:
        """All of that goes through unchanged."""
        message = read(self.data)
        self.assertEqual(message.all("via"), self.via.split(", "))
        self.assertEqual((message.first("subject"), message.body), ("a b", b"\xff\xfe"))
        self.assertEqual(Via.read("SIP/2.0/UDP h").toString(), "SIP/2.0/UDP h")


class Two(Case):
    """Fault 7: a second request in one datagram is taken as well."""

    data = request("OPTIONS", 1) + request("OPTIONS", 2)

    def test_theirs(self) -> None:
        """Twisted answers both."""
        self.theirs.datagramReceived(self.data.replace(b";rport", b""), SOURCE)
        self.assertEqual(len(self.theirs.got), 2)

    def test_ours(self) -> None:
        """One datagram is one message (RFC 3261 18.3)."""
        self.assertEqual(self.received(self.data), ["0 SIP/2.0 200 OK"])


class Answers(Case):
    """Fault 8: what it sends lacks what it must have."""

    def test_theirs(self) -> None:
        """Twisted sends no Content-Length and no To tag, and knows no 489 and half of the short forms."""
        self.theirs.datagramReceived(OPTIONS.replace(b";rport", b""), SOURCE)
        sent = self.theirs.wrote[0][0]
        self.assertNotIn(b"Content-Length", sent)
        self.assertNotIn(b"To: <sip:bot@192.0.2.1>;tag", sent)
        self.assertRaises(KeyError, sip.Response, 489)
        self.assertEqual(len(sip.shortHeaders), 9)

    def test_ours(self) -> None:
        """We send both, and know them all."""
        asked = read(OPTIONS)
        assert isinstance(asked, Request)
        sent = write(answer(asked, 489, to_tag="t"))
        self.assertTrue(sent.startswith(b"SIP/2.0 489 Bad Event\r\n"))
        self.assertIn(b"To: <sip:bot@192.0.2.1>;tag=t\r\n", sent)
        self.assertIn(b"Content-Length: 0\r\n", sent)
        self.assertEqual(Response(489).phrase, "Bad Event")
        self.assertEqual(len(LONG_NAMES), 20)
