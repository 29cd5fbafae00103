"""What strangers send never stops the next good call, and leaves no traceback in the log."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest
from twisted.trial.unittest import SynchronousTestCase

from extenbot.sip.message import write
from tests.real.caller import Caller
from tests.real.harness import Service, new_folder, scripts

HEAD = (
    "{method} {uri} SIP/2.0\r\nVia: {via};branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\nFrom: {from_};tag=h{number}\r\n"
    "To: {to}\r\nCall-ID: hostile{number}\r\nCSeq: 1 {method}\r\nContact: <sip:x@127.0.0.41>\r\n{more}"
)


def message(number: int, **changes: str) -> str:
    """A request with one thing wrong."""
    good = {
        "method": "INVITE",
        "uri": "sip:openai@127.0.0.1",
        "via": "SIP/2.0/UDP 127.0.0.41",
        "from_": "<sip:x@127.0.0.41>",
        "to": "<sip:openai@127.0.0.1>",
        "more": "Content-Length: 0\r\n\r\n",
    }
    return HEAD.format(number=number, **(good | changes))


def faults() -> Iterator[bytes]:
    """Datagrams that `twisted.protocols.sip` stumbles over, and their relatives."""
    texts = [
        "OPTIONS sip:openai@127.0.0.1 SIP/2.0\r\nCall-ID: no-via\r\nCSeq: 1 OPTIONS\r\n\r\n",
        message(1, via="SIP/2.0/UDP [2001:db8::1]:5060"),
        message(2, more="Content-Type: application/sdp\r\nContent-Length: 5000\r\n\r\nv=0"),
        message(3, via="SIP/2.0/UDP 127.0.0.41:5060;rport"),
        message(4, via="SIP/2.0/UDP 127.0.0.41;host=evil;port=1;self=x;received=192.0.2.7;maddr=192.0.2.8"),
        *(
            message(10 + number, uri=uri, to=f"<{uri}>")
            for number, uri in enumerate(("tel:+49301", "sips:a@b", "SIP:openai@127.0.0.1", "sip:a@[::1]", "*", ""))
        ),
        message(20, from_='"<;" <sip:x@127.0.0.41;lr>'),
        message(21, more="Contact: *\r\nExpires: 0\r\nContent-Length: 0\r\n\r\n"),
        message(22, via="SIP/2.0/UDP 127.0.0.41, SIP/2.0/UDP 127.0.0.42,,"),
        message(23, more="Subject: folded\r\n line\r\nRoute: <sip:a;lr>,<sip:b>\r\nContent-Length: 0\r\n\r\n"),
        message(24) + message(25),
        message(26, method="PUBLISH", more="Event: none\r\nContent-Length: 0\r\n\r\n"),
        message(27, more="Content-Length: -1\r\n\r\n"),
        message(28, more="Content-Length: 99999999999999999999\r\n\r\n"),
        message(29, more="Content-Length: 0\r\nContent-Length: 7\r\n\r\nv=0\r\nxx"),
        message(30, more="Content-Length: ten\r\n\r\n"),
        message(31, more='Authorization: Digest username="\r\nContent-Length: 0\r\n\r\n'),
        message(
            32, more='Authorization: Digest username="a", realm="127.0.0.1", nonce="1-1-1", uri="", response=""\r\n\r\n'
        ),
        message(33, more="Content-Type: application/sdp\r\n\r\nv=0\r\nm=audio 70000 RTP/AVP 0\r\n"),
        message(34, method="ACK"),
        message(35, method="CANCEL"),
        message(36, to="<sip:openai@127.0.0.1>;tag=nobody", method="BYE"),
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKx\r\n\r\n",
        "SIP/2.0 999 ?\r\n\r\n",
        "\r\n\r\n",
        "",
    ]
    for text in texts:
        yield text.encode()
    yield message(40).encode().replace(b"Max", b"M\x00x")
    yield message(41, from_="<sip:x\0y@127.0.0.41>").encode()
    yield message(42).encode("utf-8").replace(b"openai", b"\xff\xfe\xe4")
    yield message(43, more="X: " + "a" * 60000 + "\r\n\r\n").encode()
    yield message(44, more="X: y\r\n" * 9000 + "\r\n").encode()
    yield message(45, more="Via: SIP/2.0/UDP 127.0.0.43\r\n" * 1500 + "\r\n").encode()
    yield bytes(65507)


def noise(chance: random.Random, count: int, most: int) -> Iterator[bytes]:
    """Random bytes, of any length up to `most`."""
    for _ in range(count):
        yield chance.randbytes(chance.randrange(most))


def broken(chance: random.Random, data: bytes) -> Iterator[bytes]:
    """A good message, cut at every length, and with bytes changed."""
    for length in range(len(data)):
        yield data[:length]
    for _ in range(500):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        yield bytes(changed)


@pytest.mark.real
class Hostile(SynchronousTestCase):
    def setUp(self) -> None:
        voices = scripts(new_folder(self) / "voices", tone='on greet: tone 440 for 60 s "Hello."')
        # Without the guard, which would keep most of it from being read.
        self.service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=voices, EXTENBOT_GUARD_ENABLED="false")
        self.caller = Caller(self, self.service.sip, *self.service.bot("--model", "sandbox-tone"))
        self.stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.stranger.bind(("127.0.0.41", 0))
        self.addCleanup(self.stranger.close)

    def throw(self, datagrams: Iterator[bytes], place: tuple[str, int], alive: Caller) -> int:
        """Send all of it, in step with the service, so that none is lost to a full socket."""
        count = 0
        for count, data in enumerate(datagrams, 1):
            self.stranger.sendto(data, place)
            if count % 50 == 0:
                self.assertEqual(alive.ask("OPTIONS").code, 200)
        self.assertEqual(alive.ask("OPTIONS").code, 200)
        return count

    def good_call(self) -> None:
        """What must work, whatever came before."""
        self.caller.call()
        self.caller.audio.wait_for_tone(440)
        self.caller.hang_up()

    def test_signalling(self) -> None:
        """Wrong, cut, changed, huge and random datagrams at the SIP port: the next call is as good as ever."""
        seed = 20261
        chance = random.Random(seed)
        place = ("127.0.0.1", self.service.sip)
        alive = Caller(self, self.service.sip, host="127.0.0.42")
        count = self.throw(faults(), place, alive)
        self.good_call()
        invite = write(self.caller.request("INVITE", "sip:openai@127.0.0.1", body=self.caller.offer()))
        # Not the caller's own address: what we are answered must not come in between.
        invite = invite.replace(self.caller.here.encode(), "{}:{}".format(*self.stranger.getsockname()).encode())
        count += self.throw(broken(chance, invite), place, alive)
        count += self.throw(noise(chance, 300, 1500), place, alive)
        self.assertGreater(count, 1000)
        self.good_call()
        self.assertEqual([record["end_reason"] for record in self.service.records(2)], ["caller hung up"] * 2)

    def test_audio(self) -> None:
        """Garbage at the RTP and RTCP ports of a call that is up neither disturbs it nor turns it away."""
        chance = random.Random(20262)
        host, port = self.caller.call()
        alive = Caller(self, self.service.sip, host="127.0.0.42")
        for place in ((host, port), (host, port + 1)):
            self.throw(noise(chance, 300, 400), place, alive)
            self.throw((b"\x80\x00" + data for data in noise(chance, 300, 400)), place, alive)
            self.throw((b"\x81\xc8" + data for data in noise(chance, 300, 400)), place, alive)
            self.stranger.sendto(bytes(65507), place)
            self.stranger.sendto(b"", place)
        self.caller.audio.wait_for(25)
        self.caller.audio.wait_for_tone(440)
        self.caller.hang_up()
        self.good_call()


@pytest.mark.real
class Guarded(SynchronousTestCase):
    """The service as it is set up: strangers are limited, guessers banned."""

    def setUp(self) -> None:
        voices = scripts(new_folder(self) / "voices", tone='on greet: tone 440 for 60 s "Hello."')
        self.service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=voices)
        self.place = ("127.0.0.1", self.service.sip)
        self.caller = Caller(self, self.service.sip, *self.service.bot("--model", "sandbox-tone"))

    def test_flood(self) -> None:
        """A stranger's 5,000 requests are answered some hundred times; a call comes through all the same."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.44", 0))
            for number in range(5000):
                stranger.sendto(
                    message(
                        number, method="OPTIONS", via=f"SIP/2.0/UDP 127.0.0.44:{stranger.getsockname()[1]}"
                    ).encode(),
                    self.place,
                )
            self.caller.call()
            self.caller.audio.wait_for_tone(440)
            self.caller.hang_up()
            stranger.setblocking(False)
            answers = 0
            try:
                while stranger.recv(65535):
                    answers += 1
            except BlockingIOError:
                pass
        self.assertTrue(100 <= answers <= 400, answers)

    def test_guessing(self) -> None:
        """Ten wrong passwords ban the address, with a line in the log; who is registered elsewhere is not touched."""
        user, _ = self.service.credentials()
        self.assertEqual(self.caller.register().code, 200)
        guesser = Caller(self, self.service.sip, user, "wrong", host="127.0.0.43")
        self.assertEqual([guesser.register().code for _ in range(10)], [403] * 10)
        self.service.wait_for(r"127\.0\.0\.43 is banned for 60 s: wrong passwords")
        guesser.socket.settimeout(0.5)
        guesser.send(guesser.request("OPTIONS"))
        self.assertRaises(TimeoutError, guesser.socket.recv, 65535)
        self.assertEqual(self.caller.register().code, 200)
