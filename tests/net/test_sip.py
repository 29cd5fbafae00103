"""SIP sockets on loopback: UDP, TCP and TLS, IPv4 and IPv6."""

from __future__ import annotations

import contextlib
import os
import socket
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, DeferredQueue
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from extenbot.errors import CannotStart
from extenbot.interfaces import Address, Dial, Flow
from extenbot.net import stream
from extenbot.net.certificate import Authorities, Certificate
from extenbot.net.sip import SipSockets
from extenbot.settings import Advertised, Endpoint
from tests.clock import Clock
from tests.sip.wire import request

BYE, OPTIONS = request("BYE"), request("OPTIONS", 2)


class Side:
    """One program with its sockets; what it hears waits in `heard`."""

    def __init__(self, test: TestCase, certificate: Certificate | None = None, **options: Any) -> None:
        self.heard: DeferredQueue[tuple[bytes, Flow]] = DeferredQueue()
        self.sockets = SipSockets(
            reactor, lambda data, flow: self.heard.put((data, flow)), certificate=certificate, **options
        )
        test.addCleanup(lambda: DeferredList(self.sockets.close()))

    def listen(self, kind: str, host: str = "127.0.0.1", port: int = 0) -> Address:
        return self.sockets.listen(Endpoint(kind, port, host))

    def dial(self, kind: str, address: Address, data: bytes = BYE, name: str = "") -> Deferred[None]:
        """Send there; fires when that turned out to be impossible."""
        lost: Deferred[None] = Deferred()
        self.sockets.send(data, Flow(kind, ("", 0), address, Dial(address, name)), lambda: lost.callback(None))
        return lost


class Gone:
    """Who watches the connection to a place, and what it was told."""

    def __init__(self, side: Side, kind: str, address: Address, name: str = "") -> None:
        self.why: Deferred[str] = Deferred()
        self.end = side.sockets.watch(Flow(kind, ("", 0), address, Dial(address, name)), self.why.callback)


async def until(met: Any) -> None:
    """Let the reactor turn until something is the case; pytest's time-out is the bound."""
    while not met():
        await deferLater(reactor, 0.001)


async def accepted(test: TestCase, server: socket.socket) -> socket.socket:
    """The next connection to `server`, which must be ours."""
    server.setblocking(False)
    while True:
        try:
            peer, _ = server.accept()
        except BlockingIOError:
            await deferLater(reactor, 0.001)
        else:
            test.addCleanup(peer.close)
            peer.setblocking(False)
            return peer


class Udp(TestCase):
    async def test_there_and_back(self) -> None:
        """A datagram arrives with the path it took, and an answer goes back on that path, also over IPv6."""
        for first, second in (("127.0.0.1", "127.0.0.2"), ("::1", "::1")):
            side = Side(self)
            here, there = side.listen("udp", first), side.listen("udp", second)
            side.sockets.send(b"x" * 60000, Flow("UDP", there, here))
            data, flow = await side.heard.get()
            self.assertEqual((len(data), flow), (60000, Flow("UDP", here, there)))
            self.assertEqual(side.sockets.advertised(flow), here)
            side.sockets.send(b"yes", flow)
            self.assertEqual(await side.heard.get(), (b"yes", Flow("UDP", there, here)))

    async def test_loss_is_counted(self) -> None:
        """What the network does not take is counted, never raised."""
        side = Side(self)
        side.sockets.send(b"x", Flow("UDP", ("127.0.0.1", 1), ("127.0.0.1", 9)))
        here = side.listen("udp")
        side.sockets.send(b"x" * 70000, Flow("UDP", here, ("127.0.0.1", 9)))
        side.sockets.send(b"x", Flow("UDP", here, ("::1", 9)))
        self.assertEqual(side.sockets.unsent, 3)

    async def test_in_use(self) -> None:
        """A port that another program uses is one clear line, for UDP and TCP."""
        for kind in ("udp", "tcp"):
            side = Side(self)
            _, port = side.listen(kind)
            with self.assertRaisesRegex(CannotStart, rf"{kind}:{port}:interface=127.0.0.1: another program uses"):
                side.listen(kind, "127.0.0.1", port)

    async def test_both_versions(self) -> None:
        """The wild cards of IPv4 and IPv6 share a port, and each peer is told an address it can reach."""
        side = Side(self, advertise=Advertised(hosts=("192.0.2.7",)))
        _, port = side.listen("udp", "0.0.0.0")
        side.listen("udp", "::", port)
        side.listen("tcp", "::", port)
        peers = (("127.0.0.1", "192.0.2.7"), ("::1", "::1"))
        for host, told in peers:
            local = "::" if ":" in host else "0.0.0.0"
            self.assertEqual(side.sockets.advertised(Flow("UDP", (local, port), (host, 5060))), (told, port))
        named = Side(self, advertise=Advertised(hosts=("sip.example",)))
        _, port = named.listen("tcp", "::1")
        self.assertEqual(named.sockets.advertised(Flow("TCP", ("", 0), ("::1", 9))), ("sip.example", port))

    async def test_nearest(self) -> None:
        """Of several addresses of ours each peer is written to from, and told, the one that leads to it."""
        us, first, second = Side(self), Side(self), Side(self)
        other, own = us.listen("udp", "127.0.0.3"), us.listen("udp", "127.0.0.1")
        six = us.listen("udp", "::1")
        for side, host, ours in ((first, "127.0.0.1", own), (second, "::1", six)):
            peer = side.listen("udp", host)
            flow = Flow("UDP", ("", 0), peer)
            us.sockets.send(BYE, flow)
            _, back = await side.heard.get()
            self.assertEqual((back.remote, us.sockets.advertised(flow)), (ours, ours))
        self.assertEqual(us.sockets.advertised(Flow("UDP", other, first.listen("udp"))), other)

    async def test_told(self) -> None:
        """Peers in a network are told the address there, the others the public one; each with the port we listen on."""
        rules = Advertised(((ip_network("127.0.0.8/29"), "127.0.0.9"),), ("203.0.113.5",))
        side = Side(self, advertise=rules)
        _, port = side.listen("udp", "0.0.0.0")
        for peer, told in (("127.0.0.10", "127.0.0.9"), ("127.0.0.1", "203.0.113.5"), ("::1", "::1")):
            self.assertEqual(side.sockets.advertised(Flow("UDP", ("", 0), (peer, 5060))), (told, port))

    async def test_where_we_connect_from(self) -> None:
        """Over TCP a peer is told where we listen by TCP; when we do not, the connection's own end is all there is."""
        pbx, us = Side(self), Side(self)
        address = pbx.listen("tcp")
        us.listen("udp")
        flow = Flow("TCP", ("", 0), address)
        us.sockets.send(BYE, flow)
        _, theirs = await pbx.heard.get()
        self.assertEqual(us.sockets.advertised(flow), theirs.remote)
        place = us.listen("tcp")
        self.assertEqual(us.sockets.advertised(flow), place)


class Tcp(TestCase):
    async def test_there_and_back(self) -> None:
        """A request over a new connection; the answer and our own requests use it too; ours is made only once."""
        for host in ("127.0.0.1", "::1"):
            pbx, us = Side(self), Side(self)
            address = us.listen("tcp", host)
            pbx.dial("TCP", address)
            pbx.dial("TCP", address, OPTIONS)
            data, flow = await us.heard.get()
            self.assertEqual((data, flow.transport, flow.local), (BYE, "TCP", address))
            self.assertEqual(await us.heard.get(), (OPTIONS, flow))
            self.assertEqual(us.sockets.advertised(flow), address)
            us.sockets.send(OPTIONS, flow)
            data, back = await pbx.heard.get()
            self.assertEqual((data, back.local, back.remote), (OPTIONS, flow.remote, flow.local))

    async def test_flow_gone(self) -> None:
        """When the connection of a call is gone, its BYE goes where the Contact says; an answer is lost."""
        pbx, us = Side(self), Side(self)
        contact, address = pbx.listen("tcp", "127.0.0.2"), us.listen("tcp")
        pbx.dial("TCP", address)
        _, flow = await us.heard.get()
        for connection in list(pbx.sockets.streams._all):
            connection.drop()
        await until(lambda: not us.sockets.streams._all)
        lost: Deferred[None] = Deferred()
        us.sockets.send(OPTIONS, flow, lambda: lost.callback(None))
        await lost
        us.sockets.send(BYE, flow._replace(dial=Dial(contact)))
        data, back = await pbx.heard.get()
        self.assertEqual((data, back.local, back.remote[0]), (BYE, contact, "127.0.0.1"))

    async def test_nobody_there(self) -> None:
        """Who cannot be reached is told to the sender, and nothing is left."""
        side = Side(self)
        await side.dial("TCP", ("127.0.0.1", 9))
        self.assertEqual((side.sockets.unsent, side.sockets.streams._all, side.sockets.streams._made), (1, set(), {}))

    async def raw(self, us: Side, address: Address, data: bytes = b"") -> socket.socket:
        """A peer that knows no SIP."""
        peer = socket.create_connection(address)
        self.addCleanup(peer.close)
        peer.setblocking(False)
        peer.sendall(data)
        await until(lambda: us.sockets.streams._all or us.sockets.streams.turned_away or us.heard.pending)
        return peer

    async def read(self, peer: socket.socket) -> bytes:
        while True:
            try:
                return peer.recv(1000)
            except BlockingIOError:
                await deferLater(reactor, 0.001)

    async def test_keep_alive(self) -> None:
        """A double line break is answered with one, between messages, at any moment (RFC 5626 4.4.1)."""
        us = Side(self)
        peer = await self.raw(us, us.listen("tcp"), b"\r\n\r\n")
        self.assertEqual(await self.read(peer), b"\r\n")
        peer.sendall(BYE + b"\r\n\r\n" + OPTIONS)
        self.assertEqual([(await us.heard.get())[0], (await us.heard.get())[0]], [BYE, OPTIONS])
        self.assertEqual(await self.read(peer), b"\r\n")

    async def test_spoiled(self) -> None:
        """What cannot be told apart is passed on once, to be refused, and then the line is cut."""
        us = Side(self)
        peer = await self.raw(us, us.listen("tcp"), BYE.replace(b"th: 0", b"th: x") + BYE)
        data, _flow = await us.heard.get()
        self.assertIn(b"th: x", data)
        self.assertEqual(await self.read(peer), b"")
        self.assertEqual(us.heard.pending, [])

    async def test_slow(self) -> None:
        """Who says nothing, or never comes to an end, is cut off; who is quiet after a message is not."""
        with patch.object(stream, "PATIENCE", 0.2):
            us = Side(self, idle=30.0)
            address = us.listen("tcp")
            good = await self.raw(us, address, BYE)
            silent = await self.raw(us, address)
            busy = await self.raw(us, address, b"BYE")
            await until(lambda: len(us.sockets.streams._all) == 3)
            while len(us.sockets.streams._all) > 1:
                with contextlib.suppress(OSError):  # cut off
                    busy.sendall(b"x")
                await deferLater(reactor, 0.01)
            self.assertIn(await self._end(silent), (b"", None))
            good.sendall(OPTIONS)
            await us.heard.get()
            self.assertEqual((await us.heard.get())[0], OPTIONS)

    async def _end(self, peer: socket.socket) -> bytes | None:
        try:
            return await self.read(peer)
        except ConnectionError:
            return None

    async def test_idle(self) -> None:
        """A connection that was silent for too long is closed."""
        us = Side(self, idle=0.1)
        peer = await self.raw(us, us.listen("tcp"), BYE)
        self.assertIn(await self._end(peer), (b"", None))

    async def test_too_many(self) -> None:
        """Beyond so many connections of one peer, or of all, new ones are turned away and old ones stay."""
        with patch.object(stream, "MOST_OF_PEER", 1):
            us = Side(self, most=2)
            address = us.listen("tcp")
            await self.raw(us, address, BYE)
            refused = await self.raw(us, address)
            self.assertIn(await self._end(refused), (b"", None))
            for host in ("127.0.0.3", "127.0.0.4"):
                Side(self).sockets.send(BYE, Flow("TCP", (host, 0), address))
            await until(lambda: us.sockets.streams.turned_away == 2)
            self.assertEqual(len(us.sockets.streams._all), 2)

    async def test_ours_besides(self) -> None:
        """However many strangers have connected, we can still connect to a PBX, and only so many strangers can come."""
        pbx, us = Side(self), Side(self, most=2)
        address, own = us.listen("tcp"), pbx.listen("tcp")
        for host in ("127.0.0.3", "127.0.0.4"):
            Side(self).sockets.send(BYE, Flow("TCP", (host, 0), address))
        await until(lambda: len(us.sockets.streams._all) == 2)
        us.dial("TCP", own, OPTIONS)
        self.assertEqual((await pbx.heard.get())[0], OPTIONS)
        refused = await self.raw(us, address)
        self.assertIn(await self._end(refused), (b"", None))

    async def test_deaf(self) -> None:
        """A peer that does not read is hung up on: what waits for it is bounded."""
        us = Side(self)
        await self.raw(us, us.listen("tcp"), BYE)
        _, flow = await us.heard.get()
        big = BYE + b"x" * 60000
        for _ in range(1000):
            us.sockets.send(big, flow)
            if not us.sockets.streams._all:
                break
            await deferLater(reactor, 0)
        self.assertEqual(us.sockets.streams._all, set())

    async def test_deaf_for_long(self) -> None:
        """It is hung up on as well when little waits, but for too long."""
        with patch.object(stream, "PATIENCE", 0.1), patch.object(stream, "MOST_WAITING", 1 << 40):
            us = Side(self)
            await self.raw(us, us.listen("tcp"), BYE)
            _, flow = await us.heard.get()
            for _ in range(200):
                us.sockets.send(BYE + b"x" * 60000, flow)
            await until(lambda: not us.sockets.streams._all)

    async def test_watched(self) -> None:
        """Who watches a connection is told once that it is gone or cannot be had, and why; who has ended it is not."""
        pbx, us = Side(self), Side(self)
        address = pbx.listen("tcp")
        gone, ended = Gone(us, "TCP", address), Gone(us, "TCP", address)
        ended.end()
        ended.end()
        us.dial("TCP", address)
        await pbx.heard.get()
        for connection in list(pbx.sockets.streams._all):
            connection.drop()
        self.assertEqual(await gone.why, "it has closed the connection")
        self.assertFalse(ended.why.called)
        nobody = Gone(us, "TCP", ("127.0.0.1", 9))
        lost = us.dial("TCP", ("127.0.0.1", 9))
        lost.addCallback(lambda _: self.assertTrue(nobody.why.called))  # who sent knows no reason, so it comes later
        self.assertEqual(await nobody.why, "it refuses the connection")
        await lost
        full = Side(self, most=0)
        turned = Gone(full, "TCP", address)
        full.dial("TCP", address)
        self.assertEqual(await turned.why, "we have too many connections")
        self.assertEqual(us.sockets.streams._watchers, {})

    async def test_pinged(self) -> None:
        """A watched connection is pinged; a PBX that has answered and answers no more is given up."""
        with patch.object(stream, "PONG_TIME", 0.1):
            us = Side(self, keepalive=0.02, idle=0.01)
            with socket.create_server(("127.0.0.1", 0)) as server:
                gone = Gone(us, "TCP", server.getsockname())
                us.dial("TCP", server.getsockname())
                peer = await accepted(self, server)
                self.assertEqual(await self.read(peer), BYE)
                for _ in range(2):
                    self.assertEqual(await self.read(peer), b"\r\n\r\n")
                    self.assertFalse(gone.why.called)
                    peer.sendall(b"\r\n")
                self.assertEqual(await gone.why, "it does not answer any more")

    async def test_never_answers(self) -> None:
        """A PBX that never answers pings is not held to it, as long as its TCP takes them."""
        with patch.object(stream, "PONG_TIME", 0.01):
            us = Side(self, keepalive=0.01)
            with socket.create_server(("127.0.0.1", 0)) as server:
                gone = Gone(us, "TCP", server.getsockname())
                us.dial("TCP", server.getsockname())
                peer = await accepted(self, server)
                heard = b""
                while heard.count(b"\r\n\r\n") < 5:
                    heard += await self.read(peer)
                self.assertFalse(gone.why.called)
                gone.end()
                while (connection := next(iter(us.sockets.streams._all)))._alive is not None:
                    await deferLater(reactor, 0.001)
                self.assertIsNone(connection._alive)  # nobody watches any more
                wire: Any = connection.transport
                limit = wire.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                self.assertEqual(limit, 20000)  # ms

    async def test_pong_of_our_own(self) -> None:
        """Between two of ours pings are answered, so that both know the other is there."""
        with patch.object(stream, "PONG_TIME", 0.2):
            pbx, us = Side(self), Side(self, keepalive=0.01)
            address = pbx.listen("tcp")
            gone = Gone(us, "TCP", address)
            us.dial("TCP", address)
            [connection] = us.sockets.streams._all
            await until(lambda: connection._pongs)
            self.assertFalse(gone.why.called)


class Tls(TestCase):
    def setUp(self) -> None:
        self.authority = trustme.CA()
        self.files = Path(self.mktemp()), Path(self.mktemp())
        self.write(self.authority.issue_cert("127.0.0.1", "::1", "sip.example"))
        self.trust(self.authority)

    def trust(self, authority: trustme.CA) -> None:
        """What this machine trusts."""
        roots = self.mktemp()
        authority.cert_pem.write_to_path(roots)
        patched = patch.dict(os.environ, SSL_CERT_FILE=roots)
        patched.start()
        self.addCleanup(patched.stop)

    def write(self, made: trustme.LeafCert) -> None:
        chain, key = self.files
        chain.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())

    async def test_there_and_back(self) -> None:
        """Requests and answers pass over TLS, by address or by name, over IPv4 and IPv6."""
        for host, name in (("127.0.0.1", ""), ("::1", ""), ("127.0.0.1", "sip.example")):
            pbx, us = Side(self), Side(self, Certificate(*self.files))
            address = us.listen("tls", host)
            pbx.dial("TLS", address, BYE, name)
            data, flow = await us.heard.get()
            self.assertEqual((data, flow.transport, flow.local), (BYE, "TLS", address))
            us.sockets.send(OPTIONS, flow)
            self.assertEqual((await pbx.heard.get())[0], OPTIONS)

    async def test_wrong_certificate(self) -> None:
        """Who cannot prove its name, or whose authority nobody trusts, is sent nothing."""
        pbx, us = Side(self), Side(self, Certificate(*self.files))
        address = us.listen("tls")
        await pbx.dial("TLS", address, BYE, "other.example")
        self.trust(trustme.CA())
        other = Side(self)
        await other.dial("TLS", address)
        self.assertEqual((us.heard.pending, pbx.sockets.unsent, other.sockets.unsent), ([], 1, 1))

    async def why(self, name: str, authorities: Authorities | None = None) -> str:
        """What the owner of a bot is told when a PBX with our certificate shall be `name`; empty: all is well."""
        pbx, us = Side(self, Certificate(*self.files)), Side(self, authorities=authorities)
        address = pbx.listen("tls")
        gone = Gone(us, "TLS", address, name)
        us.dial("TLS", address, BYE, name)
        await until(lambda: pbx.heard.pending or gone.why.called)
        gone.end()
        return "" if pbx.heard.pending else await gone.why

    async def test_words(self) -> None:
        """What is wrong with a certificate is told in words: another name, an unknown authority, expired."""
        self.assertEqual(await self.why("sip.example"), "")
        self.assertEqual(
            await self.why("pbx.example"),
            "its certificate is not for pbx.example but for sip.example, 127.0.0.1, ::1",
        )
        self.assertIn("is not for 127.0.0.2 but for", await self.why("127.0.0.2"))
        self.write(self.authority.issue_cert("sip.example", not_after=datetime(2020, 1, 1, tzinfo=UTC)))
        self.assertEqual(await self.why("sip.example"), "its certificate has expired")
        self.write(trustme.CA().issue_cert("sip.example"))
        self.assertIn("is of an authority that is not trusted here", await self.why("sip.example"))
        with socket.create_server(("127.0.0.1", 0)) as server:
            us = Side(self)
            gone = Gone(us, "TLS", server.getsockname())
            us.dial("TLS", server.getsockname())
            (await accepted(self, server)).sendall(b"SIP/2.0 400 Bad Request\r\n\r\n")
            self.assertIn("it does not agree on TLS: ", await gone.why)

    def self_signed(self, name: str, *alternatives: str) -> None:
        """As PBXs make them for themselves."""
        key = ec.generate_private_key(ec.SECP256R1())
        who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        made = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        if alternatives:
            names = [x509.DNSName(each) for each in alternatives]
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        chain, private = self.files
        chain.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def copy(self, source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes())

    async def test_trusted(self) -> None:
        """A PBX's own certificate is believed when the operator has put it into the file, for its own name only."""
        self.self_signed("pbx.local")
        self.assertIn("signed by itself", await self.why("pbx.local"))
        trusted = Path(self.mktemp())
        self.copy(self.files[0], trusted)
        authorities = Authorities(trusted)
        self.assertEqual(await self.why("PBX.local", authorities), "")
        self.assertEqual(
            await self.why("other.local", authorities), "its certificate is not for other.local but for pbx.local"
        )
        self.assertIn("is not for 127.0.0.1", await self.why("127.0.0.1", authorities))
        self.self_signed("pbx.local", "sip.local")  # with names of its own the common name counts for nothing
        self.copy(self.files[0], trusted)  # and a file that has changed is read again
        self.assertIn("is not for pbx.local but for sip.local", await self.why("pbx.local", authorities))
        self.assertEqual(await self.why("sip.local", authorities), "")
        self.copy(self.files[1], trusted)  # no certificate at all
        self.assertEqual(await self.why("sip.local", authorities), "")
        self.write(self.authority.issue_cert("sip.example"))  # those of the machine count as before
        self.assertEqual(await self.why("sip.example", authorities), "")

    def test_read_seldom(self) -> None:
        """Authorities are read again when their file has changed, and those of the machine after ten minutes."""
        self.write(self.authority.issue_cert("sip.example"))
        clock = Clock()
        authorities = Authorities(self.files[0], now=clock.seconds)
        reads: list[float] = []
        self.patch(authorities, "_load", lambda: reads.append(clock.seconds()))

        def used() -> None:
            authorities.proof("sip.example", lambda _why: None)

        for _ in range(12):
            clock.advance(100)
            used()
        self.assertEqual(reads, [600, 1200])
        self.files[0].write_bytes(self.files[0].read_bytes() + b"\n")
        used()
        self.files[0].unlink()  # gone: the last ones stay
        used()
        self.assertEqual(reads, [600, 1200, 1200])

    def test_no_authorities(self) -> None:
        """A file of authorities that is missing or no PEM is one clear line at the start."""
        with self.assertRaisesRegex(CannotStart, "nowhere.pem cannot be used: No such file"):
            Authorities(Path("nowhere.pem"))
        self.files[0].write_text("x")
        with self.assertRaisesRegex(CannotStart, "cannot be used: "):
            Authorities(self.files[0])

    async def test_renewed(self) -> None:
        """A renewed certificate serves the next connection; half of a renewal changes nothing."""
        us = Side(self, Certificate(*self.files))
        address = us.listen("tls")
        await Side(self).dial("TLS", address, BYE, "new.example")
        self.files[0].write_text("half")
        Side(self).dial("TLS", address, BYE, "sip.example")
        await us.heard.get()
        self.write(self.authority.issue_cert("new.example"))
        Side(self).dial("TLS", address, OPTIONS, "new.example")
        self.assertEqual((await us.heard.get())[0], OPTIONS)

    async def test_no_handshake(self) -> None:
        """Who connects and never speaks TLS is cut off."""
        with patch.object(stream, "PATIENCE", 0.1):
            us = Side(self, Certificate(*self.files))
            with socket.create_connection(us.listen("tls")):
                await until(lambda: us.sockets.streams._all)
                await until(lambda: not us.sockets.streams._all)

    async def test_no_handshake_of_theirs(self) -> None:
        """A server that takes the connection and never speaks TLS counts as not there."""
        with patch.object(stream, "DIALLING", 0.1), socket.create_server(("127.0.0.1", 0)) as deaf:
            await Side(self).dial("TLS", deaf.getsockname())

    async def test_unusable(self) -> None:
        """Files that are missing, no PEM, or of different keys are one clear line at the start."""
        chain, key = self.files
        with self.assertRaisesRegex(CannotStart, "cannot be used: No such file"):
            Certificate(chain, Path("nowhere.pem"))
        key.write_bytes(self.authority.issue_cert("a.example").private_key_pem.bytes())
        with self.assertRaisesRegex(CannotStart, "cannot be used: key values mismatch"):
            Certificate(chain, key)
        chain.write_text("x")
        with self.assertRaisesRegex(CannotStart, "cannot be used"):
            Certificate(chain, key)
        with self.assertRaisesRegex(CannotStart, "tls:0 needs a certificate"):
            Side(self).sockets.listen(Endpoint("tls", 0))
