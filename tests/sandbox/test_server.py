"""The websocket: who gets in, how refusals look, and that the official SDK is at home."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from extenbot import settings
from extenbot.sandbox.script import Script, read
from extenbot.sandbox.server import MOST_BYTES, Sandbox, Server
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.need import need
from tests.sandbox.rig import validated
from tests.sandbox.served import Served

GONE = Failure(ConnectionLost())


class Pipe(StringTransport):
    """A transport that knows whether it was dropped."""

    dropped = False

    def loseConnection(self, _reason: Any = None) -> None:
        self.dropped = True

    abortConnection = loseConnection

    def unregisterProducer(self) -> None:
        pass

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


class Phone(WebSocketClientProtocol):
    """An autobahn client in memory."""

    def onOpen(self) -> None:
        self.factory.opened = True

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.events.append(json.loads(payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.factory.closed = (code, reason)


class PhoneFactory(WebSocketClientFactory):
    """What the client saw."""

    protocol = Phone

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.events: list[dict[str, Any]] = []
        self.closed: tuple[int | None, str | None] | None = None
        self.opened = False


class Joined:
    """A client and the server joined by two pipes."""

    def __init__(
        self,
        script: Script | None = None,
        scripts: Path | None = None,
        path: str = "/v1/realtime?model=m",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.clock = Clock()
        self.server = Server(self.clock, CountingTokens(), script=script, scripts=scripts, wall=lambda: 1e9)
        self.factory = PhoneFactory(f"ws://127.0.0.1:1{path}", headers=dict(headers or {}))
        self.factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0)
        self.server.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        self.near = cast(Any, self.factory.buildProtocol(None))
        self.far = cast(Any, self.server.buildProtocol(None))
        self.near_pipe, self.far_pipe = Pipe(), Pipe()
        self.near.makeConnection(self.near_pipe)
        self.far.makeConnection(self.far_pipe)
        self.answer = b""
        self.pump()

    def pump(self) -> None:
        """Carry bytes until nothing moves."""
        while self.near_pipe.value() or self.far_pipe.value():
            there, back = self.near_pipe.value(), self.far_pipe.value()
            self.near_pipe.clear()
            self.far_pipe.clear()
            self.answer = self.answer or back
            if there and not self.far_pipe.dropped:
                self.far.dataReceived(there)
            if back:
                self.near.dataReceived(back)
            self.clock.advance(0)

    def send(self, **event: Any) -> None:
        """One client event."""
        self.near.sendMessage(json.dumps(event).encode())
        self.pump()

    def types(self) -> list[str]:
        """What the client got."""
        return [event["type"] for event in self.factory.events]


class Handshake(SynchronousTestCase):
    def test_open(self) -> None:
        """Any path that ends with realtime and any key is let in, and the session begins."""
        for path in ("/v1/realtime?model=m", "/openai/v1/realtime?model=gpt%20x", "/realtime"):
            joined = Joined(read(""), path=path, headers={"Authorization": "Bearer x"})
            self.assertEqual(joined.types(), ["session.created"], path)
            validated(joined.factory.events[0])
            self.assertEqual(joined.factory.events[0]["session"]["expires_at"], 10**9 + 3600)

    def test_not_found(self) -> None:
        """Another path or an unknown model is 404."""
        for joined in (
            Joined(read(""), path="/v1/chat"),
            Joined(None, path="/v1/realtime?model=gpt-9"),
            Joined(None, Path(self.mktemp()), path="/v1/realtime?model=sandbox-nobody"),
            Joined(None, Path(self.mktemp()), path="/v1/realtime?model=sandbox-..%2Fpasswd"),
        ):
            self.assertIn(b"404", joined.answer.split(b"\r\n")[0])
            self.assertFalse(joined.factory.opened)
            joined.far.connectionLost(GONE)
            self.assertEqual(joined.server.connections, set())

    def test_beta(self) -> None:
        """The beta header: let in, one error, close 4000."""
        joined = Joined(read(""), headers={"OpenAI-Beta": "realtime=v1"})
        self.assertEqual(joined.types(), ["error"])
        self.assertEqual(joined.factory.events[0]["error"]["code"], "beta_api_shape_disabled")
        self.assertEqual(joined.near.remoteCloseCode, 4000)
        self.assertEqual(joined.near.remoteCloseReason, "invalid_request_error.beta_api_shape_disabled")

    def test_refused(self) -> None:
        """A script refuses the handshake with a status of its own."""
        joined = Joined(read('on connect: refuse 429 "Too Many Requests"'))
        joined.pump()
        self.assertTrue(joined.answer.startswith(b"HTTP/1.1 429 Too Many Requests"), joined.answer)

    def test_slow(self) -> None:
        """A script delays the answer to the handshake."""
        joined = Joined(read("on connect: wait 3 s"))
        self.assertEqual(joined.answer, b"")
        joined.clock.advance(3)
        joined.pump()
        self.assertEqual(joined.types(), ["session.created"])

    def test_gone_while_waiting(self) -> None:
        """Who hangs up during a slow handshake leaves nothing behind."""
        joined = Joined(read("on connect: wait 3 s"))
        joined.far.connectionLost(GONE)
        self.assertEqual(joined.clock.getDelayedCalls(), [])
        self.assertEqual(joined.server.connections, set())

    def test_scripts_folder(self) -> None:
        """sandbox-NAME speaks NAME.txt, read again when it changes; a broken script is 500 and in the log."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "shop.txt").write_text("on open: error hello")
        joined = Joined(None, folder, path="/v1/realtime?model=sandbox-shop")
        self.assertEqual(joined.types(), ["error", "session.created"])
        (folder / "shop.txt").write_text("sing!")
        joined = Joined(None, folder, path="/v1/realtime?model=sandbox-shop")
        self.assertIn(b"500", joined.answer.split(b"\r\n")[0])


class Messages(SynchronousTestCase):
    def test_session(self) -> None:
        """Events go both ways; binary and broken ones are errors; closing leaves nothing behind."""
        joined = Joined(read("on greet: tone 440 for 60 s"))
        joined.send(type="response.create")
        self.assertIn("response.output_audio.delta", joined.types())
        joined.near.sendMessage(b"\x00", isBinary=True)
        joined.near.sendMessage(b"{")
        joined.pump()
        self.assertEqual(joined.types().count("error"), 2)
        joined.near.sendClose()
        joined.pump()
        joined.far.connectionLost(GONE)
        self.assertEqual(joined.clock.getDelayedCalls(), [])
        self.assertEqual(joined.server.connections, set())

    def test_drop(self) -> None:
        """A scripted drop ends the TCP connection without a close frame."""
        joined = Joined(read("on greet: drop"))
        joined.send(type="response.create")
        joined.clock.advance(1)
        self.assertTrue(joined.far_pipe.dropped)
        self.assertIsNone(joined.near.remoteCloseCode)

    def test_expired(self) -> None:
        """The time limit closes with 1001."""
        joined = Joined(read("life 5 s"))
        joined.clock.advance(5)
        joined.pump()
        self.assertEqual(joined.types()[-1], "error")
        self.assertEqual(joined.near.remoteCloseCode, 1001)

    def test_too_long(self) -> None:
        """A message above 16 MiB ends the connection, not the server."""
        joined = Joined(read(""))
        joined.near.sendMessage(b" " * (MOST_BYTES + 1))
        joined.pump()
        self.assertTrue(joined.far_pipe.dropped or joined.near.remoteCloseCode)


@pytest.mark.real
class Processes(SynchronousTestCase):
    def setUp(self) -> None:
        need("the OpenAI SDK", "pip install 'openai[realtime]'", bool(find_spec("openai") and find_spec("websockets")))

    def test_official_sdk(self) -> None:
        """The official SDK holds a call with a sandbox process, and every event passes its types."""
        sound = Path(self.mktemp())
        from extenbot.sandbox.formats import PCMU
        from extenbot.sandbox.sounds import Sound, render

        sound.write_bytes(render(Sound(hz=700, seconds=1), PCMU))
        script = Path(self.mktemp())
        script.write_text(
            'speed 20\non speech:\n heard "seven and five"\n tone 440 for 1 s "Let me see."\n'
            ' call two_numbers {"number1": 7, "number2": 5}\non output two_numbers: tone 500 for 1 s "Twelve."'
        )
        served = Served("--script", str(script))
        try:
            greeting, turn, output = served.talk("any-model", sound)
        finally:
            self.assertEqual(served.stop(), 0)
        self.assertEqual(greeting["said"], ["Welcome to the shop."])
        self.assertEqual(turn["said"], ["Let me see."])
        self.assertEqual(turn["called"], [["two_numbers", {"number1": 7, "number2": 5}]])
        self.assertEqual(output["said"], ["Twelve."])
        self.assertEqual(output["audio"], render(Sound(hz=500, seconds=1), PCMU))

    def test_wrong_command(self) -> None:
        """A wrong script or a port in use is one clear line and exit 1."""
        script = Path(self.mktemp())
        script.write_text("sing")
        served = Served()
        busy = served.url.split(":")[2].split("/")[0]
        try:
            for arguments, words in (
                (["--script", str(script)], "line 1: cannot read 'sing'"),
                (["--listen", "udp:1"], "must look like tcp:5060"),
                (["--listen", f"tcp:{busy}:interface=127.0.0.1"], "cannot listen"),
            ):
                command = [sys.executable, "-m", "extenbot.sandbox", *arguments]
                done = subprocess.run(command, capture_output=True, text=True, timeout=20)
                self.assertEqual((done.returncode, len(done.stderr.splitlines())), (1, 1), done.stderr)
                self.assertIn(words, done.stderr)
        finally:
            served.stop()


class Service(SynchronousTestCase):
    def test_url(self) -> None:
        """The service starts on a free port of loopback and stops."""
        from twisted.internet import reactor

        sandbox = Sandbox(reactor, settings.Sandbox(), script=read(""))
        url = self.successResultOf(sandbox.start())
        self.assertRegex(url, r"^ws://127\.0\.0\.1:\d+/v1/realtime$")
        sandbox.stop()
