"""The websocket of the local voice: sessions of `session`, with the mind their model names.

`?model=sandbox` is the demo mind, `?model=sandbox-NAME` the script NAME.txt in the
scripts folder (read again when the file changes). A server made with one script serves
it for every model name. Any key is good: it listens on loopback. At /v1/live/sessions the same
minds are had by the GPT-Live protocol (`live`), as sandbox-live and sandbox-live-NAME.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from extenbot import settings
from extenbot.errors import CannotStart, Malformed
from extenbot.interfaces import Tokens
from extenbot.sandbox.demo import Demo
from extenbot.sandbox.live import LiveSession
from extenbot.sandbox.script import Script, load
from extenbot.sandbox.scripted import Scripted
from extenbot.sandbox.session import Mind, Session
from extenbot.sandbox.voice import SpeechProcess

MOST_BYTES = 16 << 20  # one message
MOST_SESSIONS = 2000
MOST_UNSENT = 32 << 20  # bytes a client may leave unread before it is dropped
PATH = "/v1/realtime"
BETA = (
    "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API, without the "
    "OpenAI-Beta header."
)


class SystemTokens:
    """Identifiers nobody can guess."""

    def text(self, length: int) -> str:
        return secrets.token_hex((length + 1) // 2)[:length]

    def bits(self, count: int) -> int:
        return secrets.randbits(count)


class Connection(WebSocketServerProtocol):
    """One websocket: carries text between the wire and its session, and decides nothing but who gets in."""

    session: Session | LiveSession | None = None
    beta = live = False
    answering: Deferred[Any] | None = None

    def onConnect(self, request: Any) -> Any:
        """The handshake: path, model and script decide; a Deferred delays the answer."""
        server: Server = self.factory
        path = request.path.rstrip("/")
        self.live = path.endswith("/live/sessions")
        if not (self.live or path.endswith("/realtime")):
            raise ConnectionDeny(404, "Not Found")
        if len(server.connections) >= MOST_SESSIONS:
            raise ConnectionDeny(503, "Too many sessions")
        server.connections.add(self)
        self.beta = "openai-beta" in request.headers
        self.model = (request.params.get("model") or ["sandbox"])[0]
        if self.live:  # the model is named when the session starts
            return None
        self.script: Script | None = server.script_of(self.model)
        if self.script is None and not server.demo_serves(self.model):
            raise ConnectionDeny(404, f"The model {quote(self.model)} does not exist")
        rule = self.script.rule("connect", 0) if self.script else None
        delay = 0.0
        for action in rule.actions if rule else ():
            if action.verb == "wait":
                delay += action.seconds
                continue
            answer = self._pause(delay)
            if action.verb == "drop":
                return answer.addCallback(lambda _none: self.dropConnection(abort=True))
            return answer.addCallback(self._refused, int(action.code), action.words)
        return self._pause(delay) if delay else None

    def _pause(self, seconds: float) -> Deferred[Any]:
        self.answering = deferLater(self.factory.reactor, seconds, lambda: None)
        return self.answering.addErrback(lambda _cancelled: self._refused(None, 503, "Gone"))

    def _refused(self, _none: None, status: int, words: str) -> None:
        raise ConnectionDeny(status, words)

    def onOpen(self) -> None:
        """The websocket is open: the session begins."""
        server: Server = self.factory
        if self.live:
            self.session = LiveSession(
                server.reactor, server.tokens, server.live_mind, self._carry, self._finish, wall=server.wall
            )
            return
        self.session = Session(
            server.reactor, server.tokens, self._mind, self._carry, self._finish, model=self.model, wall=server.wall
        )
        if self.beta:
            self.session.error("beta_api_shape_disabled", BETA)
            self.session.close(4000, "invalid_request_error.beta_api_shape_disabled")
            return
        self.session.opened()

    def _mind(self, session: Session) -> Mind:
        return Scripted(session, self.script) if self.script else Demo(session, self.factory.speech)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """One message of the client."""
        if self.session is None:
            return
        if isBinary and isinstance(self.session, Session):
            self.session.error("invalid_event", "Binary messages are not supported.")
        else:
            self.session.received(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: ARG002
        """Gone, whoever closed it."""
        self.factory.connections.discard(self)
        if self.answering is not None:
            self.answering.cancel()
        if self.session is not None:
            self.session.lost()
        self.factory.left()

    def _carry(self, text: bytes) -> None:
        if self.state != self.STATE_OPEN:
            return
        self.sendMessage(text)
        unsent = getattr(self.transport, "_tempDataLen", 0) + len(getattr(self.transport, "dataBuffer", b""))
        if unsent > MOST_UNSENT:
            self.dropConnection(abort=True)

    def _finish(self, code: int, reason: str) -> None:
        if code == 1006:
            self.dropConnection(abort=True)
        else:
            # sendClose takes only 1000 and 3000 to 4999; the real service closes with 1001 and 1011 too
            self.sendCloseFrame(code=code, reasonUtf8=reason.encode()[:120], isReply=False)


class Server(WebSocketServerFactory):
    """Makes connections; works without a socket, for tests in memory."""

    protocol = Connection
    noisy = False

    def __init__(
        self,
        reactor: Any,
        tokens: Tokens,
        *,
        scripts: Path | None = None,
        script: Script | None = None,
        speech: SpeechProcess | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(server="extenbot-sandbox", reactor=reactor)
        self.setProtocolOptions(
            maxMessagePayloadSize=MOST_BYTES,
            openHandshakeTimeout=60,
            closeHandshakeTimeout=2,
            webStatus=False,
            tcpNoDelay=True,
        )
        self.reactor = reactor
        self.tokens = tokens
        self.speech = speech
        self.wall = wall
        self.connections: set[Connection] = set()
        self._scripts = scripts
        self._script = script
        self._read: dict[str, tuple[int, Script]] = {}
        self._empty: Deferred[None] | None = None

    def demo_serves(self, model: str) -> bool:
        """Whether the demo mind answers for this model."""
        return self._script is None and model == "sandbox"

    def live_mind(self, model: str) -> Callable[[Session], Mind] | None:
        """What answers for a model of GPT-Live: `sandbox-live-NAME` is the script NAME, any other the demo mind."""
        name = model.removeprefix("sandbox-live").removeprefix("-") if model.startswith("sandbox-live") else ""
        if name or self._script is not None:
            script = self.script_of(f"sandbox-{name}")
            return None if script is None else lambda session: Scripted(session, script)
        speech = self.speech
        if speech is None or not (model == "sandbox-live" or model.startswith("gpt-live")):
            return None
        return lambda session: Demo(session, speech)

    def script_of(self, model: str) -> Script | None:
        """The script of a model, None when there is none; a broken one is refused with its mistake in the log."""
        if self._script is not None:
            return self._script
        match = re.fullmatch(r"sandbox-([A-Za-z0-9_-]{1,64})", model)
        if match is None or self._scripts is None:
            return None
        path = self._scripts / f"{match[1]}.txt"
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return None
        known = self._read.get(model)
        if known is None or known[0] != changed:
            try:
                known = self._read[model] = (changed, load(path))
            except Malformed as error:
                Sandbox.log.error("Voice script: {problem}", problem=str(error))
                raise ConnectionDeny(500, "The script of this model is broken") from None
        return known[1]

    def close_all(self) -> Deferred[None]:
        """Drop every connection; fires when all are gone."""
        if not self.connections:
            return succeed(None)
        self._empty = Deferred()
        for connection in list(self.connections):
            connection.dropConnection(abort=True)
        return self._empty

    def left(self) -> None:
        """A connection is gone."""
        if self._empty is not None and not self.connections:
            empty, self._empty = self._empty, None
            empty.callback(None)


class Sandbox:
    """The local voice as part of a service: a websocket server and the process that hears and speaks."""

    log = Logger()

    def __init__(
        self, reactor: Any, settings: settings.Sandbox, *, script: Script | None = None, tokens: Tokens | None = None
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self.speech = None if script else SpeechProcess(reactor, settings.whisper, settings.piper)
        self.factory = Server(
            reactor, tokens or SystemTokens(), scripts=settings.scripts, script=script, speech=self.speech
        )
        self._ports: list[Any] = []

    async def _listen(self) -> str:
        for endpoint in self._settings.listen:
            try:
                port = await serverFromString(self._reactor, str(endpoint)).listen(self.factory)
            except CannotListenError as error:
                await self.stop()
                raise CannotStart(f"The local voice cannot listen on {endpoint}: {error.socketError}") from None
            self._ports.append(port)
        if self.speech is not None:
            self.speech.start()
        where = self._ports[0].getHost()
        host = "127.0.0.1" if where.host in ("0.0.0.0", "") else where.host
        return f"ws://[{host}]:{where.port}{PATH}" if ":" in host else f"ws://{host}:{where.port}{PATH}"

    def start(self) -> Deferred[str]:
        """Listen; fires with the URL, such as ws://127.0.0.1:41235/v1/realtime, or fails with `CannotStart`."""
        return Deferred.fromCoroutine(self._listen())

    def stop(self) -> Deferred[None]:
        """Close every session, the sockets and the speech process; fires when all are gone."""
        ports, self._ports = self._ports, []
        waiting: list[Deferred[Any]] = [port.stopListening() or succeed(None) for port in ports]
        waiting.append(self.factory.close_all())
        if self.speech is not None:
            waiting.append(self.speech.stop())
        return gatherResults(waiting, consumeErrors=True).addCallback(lambda _results: None)
