"""SIP over TCP and TLS: connections, taken and made (RFC 3261 18.1.1, 18.2.2; RFC 5626 4.4.1).

Answers go back on the connection that the request came on, and so do requests of ours to whoever registered
or called on it, as long as it lives. Where we connect over TLS the other end must prove its name.

A stranger costs little: at most `most` connections that came and `MOST_OF_PEER` of one address, a message
must be complete `PATIENCE` seconds after its first byte, the first one after the connection came (the TLS
handshake included), and who does not read what we write is hung up on.

A connection of ours that somebody watches is kept alive by pings (RFC 5626 4.4.1). Who has ever answered one must
answer them all; of others, many PBXs among them, it is enough that their TCP takes the pings.
"""

from __future__ import annotations

import secrets
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    NoRouteError,
    TCPTimedOutError,
)
from twisted.internet.error import ConnectionRefusedError as Unwelcome
from twisted.internet.error import TimeoutError as TooLate
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from extenbot.errors import CannotStart
from extenbot.interfaces import Address, Dial, Flow
from extenbot.net.addresses import ANY, bound
from extenbot.net.certificate import Authorities, Certificate
from extenbot.settings import Endpoint
from extenbot.sip.stream import PING, PONG, Stream

PATIENCE = 10.0  # seconds for a message to become complete, and for a peer to read
DIALLING = 4.0  # seconds for a connection of ours to come up, its handshake included
PONG_TIME = 10.0  # seconds for a ping to be answered (RFC 5626 4.4.1)
UNTAKEN = 20.0  # seconds that the peer's TCP may take to acknowledge what we wrote
FAREWELL = 1.0  # seconds that connections get when the service stops
MOST_OF_PEER = 100
MOST_WAITING = 1 << 18  # bytes of ours that wait in a connection

Path = tuple[str, Address, Address]  # a flow without `dial`
Way = tuple[str, Dial]
Message = tuple[bytes, Callable[[], None] | None]


@implementer(IHandshakeListener, IPushProducer)
class _Connection(Protocol):
    """One connection; `way` is where we connected to, None of one that we took."""

    def __init__(self, streams: Streams, transport: str, peer: str, way: Way | None = None) -> None:
        self.flow: Flow | None = None
        self.way = way
        self.peer = peer
        self._streams = streams
        self._kind = transport
        self._stream = Stream()
        self._ready = False
        self._queue: list[Message] = []  # what was sent before it was ready
        self._waiting: int | None = None  # bytes written since the peer stopped reading
        self._timer: IDelayedCall | None = None
        self._deaf: IDelayedCall | None = None
        self._heard = False  # a whole message
        self._hurried = False
        self._alive: IDelayedCall | None = None  # the next ping, or the end of the wait for its answer
        self._pinged = False  # and not answered yet
        self._pongs = False  # it has answered one
        self.why = ""  # it was lost, as the end of a sentence about the peer
        self.connector: Any = None  # of one that we make

    def connectionMade(self) -> None:
        wire: Any = self.transport
        here, there = wire.getHost(), wire.getPeer()
        self.flow = Flow(self._kind, (here.host, here.port), (there.host, there.port))
        wire.setTcpNoDelay(True)
        wire.setTcpKeepAlive(True)
        wire.registerProducer(self, True)
        if self.way:
            below = wire if self._kind == "TCP" else wire.transport
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
                below.getHandle().setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNTAKEN * 1000))
        self._streams.came(self)
        self._wait(DIALLING if self.way else PATIENCE)
        if self._kind == "TCP":
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """TLS is up, or TCP, which needs none."""
        self._ready = True
        if self.way:
            self._wait(self._streams.idle)
            self.keep_alive()
        queue, self._queue = self._queue, []
        for data, lost in queue:
            self.send(data, lost)

    def send(self, data: bytes, lost: Callable[[], None] | None = None) -> None:
        """Write a message, now or once there is a connection to write it to."""
        if not self._ready:
            if sum(len(waiting) for waiting, _ in self._queue) + len(data) > MOST_WAITING:
                self._streams.lose(lost)
            else:
                self._queue.append((data, lost))
            return
        wire: Any = self.transport
        if self._waiting is not None:
            self._waiting += len(data)
            if self._waiting > MOST_WAITING:
                self._streams.lose(lost)
                self._give_up("it does not read")
                return
        wire.write(data)

    @property
    def _watched(self) -> bool:
        return self.way is not None and self._streams.watched(self.way)

    def keep_alive(self) -> None:
        """Ping from now on, while somebody watches."""
        if self._ready and self._alive is None and self._streams.keepalive and self._watched:
            seconds = self._streams.keepalive * (80 + secrets.randbelow(21)) / 100
            self._alive = self._streams.reactor.callLater(seconds, self._ping)

    def _ping(self) -> None:
        self._alive = None
        if self._watched:
            self._pinged = True
            self._alive = self._streams.reactor.callLater(PONG_TIME, self._unanswered)
            self.send(PING)

    def _unanswered(self) -> None:
        self._alive = None
        if self._pongs:
            self._give_up("it does not answer any more")
        else:
            self.keep_alive()

    def _answered(self, data: bytes) -> None:
        """Whatever comes after a ping shows that the peer is there."""
        self._pongs = self._pongs or not data.strip(b"\r\n")
        self._pinged = False
        if self._alive is not None:
            self._alive.cancel()
            self._alive = None
        self.keep_alive()

    def dataReceived(self, data: bytes) -> None:
        assert self.flow is not None
        if self._pinged:
            self._answered(data)
        for message in self._stream.received(data):
            if message == PING:
                if not self.way:  # a server of RFC 5626 answers pings and sends none
                    self.send(PONG)
            else:
                self._heard = True
                self._streams.received(message, self.flow)
        if self._stream.spoiled:
            self.drop()
        elif self._timer is not None:
            self._listen()

    def _listen(self) -> None:
        """Patience begins with the first byte of a message, so more bytes gain nothing."""
        if self._stream.waiting or not (self._heard or self.way):
            if not self._hurried:
                self._wait(PATIENCE)
        else:
            self._wait(self._streams.idle)

    def _wait(self, seconds: float) -> None:
        self._hurried = seconds == PATIENCE
        if self._timer is None:
            self._timer = self._streams.reactor.callLater(seconds, self._waited)
        else:
            self._timer.reset(seconds)

    def _waited(self) -> None:
        self._timer = None
        if self._ready and self._watched and not self._hurried:
            self._wait(self._streams.idle)
        else:
            self._give_up("it takes too long")

    def _give_up(self, why: str) -> None:
        """Away with it, whatever still waits."""
        self.why = self.why or why
        wire: Any = self.transport
        wire.abortConnection()

    def drop(self, seconds: float = PATIENCE) -> None:
        """Close it when what was written has been sent, but not later than after `seconds`."""
        wire: Any = self.transport
        if wire is None:
            self.connector.disconnect()
            return
        self._wait(seconds)
        wire.unregisterProducer()
        wire.loseConnection()

    def pauseProducing(self) -> None:
        """The peer does not read as fast as we write. Twisted says so at every write until it does."""
        if self._waiting is None:
            self._waiting = 0
            self._deaf = self._streams.reactor.callLater(PATIENCE, self._unheard)

    def resumeProducing(self) -> None:
        self._waiting = None
        if self._deaf is not None:
            self._deaf.cancel()
            self._deaf = None

    def stopProducing(self) -> None:
        """Twisted's word for a lost connection; `connectionLost` is ours."""

    def _unheard(self) -> None:
        self._deaf = None
        self._give_up("it does not read")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        for timer in (self._timer, self._deaf, self._alive):
            if timer is not None:
                timer.cancel()
        self._timer = self._deaf = self._alive = None
        self.why = self.why or _words(reason)
        if self.way and not self._ready:
            self._streams.log.info(
                "No {kind} connection to {peer}: {why}", kind=self._kind, peer=self.way[1].address, why=self.why
            )
        queue, self._queue = self._queue, []
        self._streams.went(self, [lost for _data, lost in queue])


def _words(reason: Failure) -> str:
    """Why there is no connection (any more), as the end of a sentence about the peer."""
    for kind, words in _REASONS:
        if reason.check(kind):
            return words
    if isinstance(reason.value, SSL.Error) and reason.value.args and isinstance(reason.value.args[0], list):
        return "it does not agree on TLS: " + ", ".join(str(entry[-1]) for entry in reason.value.args[0])
    return str(reason.getErrorMessage()).rstrip(".") or "the connection failed"


_REASONS = (
    (ConnectionDone, "it has closed the connection"),
    (Unwelcome, "it refuses the connection"),
    (TCPTimedOutError, "it does not answer"),
    (TooLate, "it does not answer"),
    (NoRouteError, "there is no way to it"),
    (ConnectionLost, "the connection broke off"),
)


class _Taking(ServerFactory):
    noisy = False

    def __init__(self, streams: Streams, transport: str) -> None:
        self._streams = streams
        self._kind = transport

    def buildProtocol(self, addr: Any) -> _Connection | None:
        """None, which closes it, when there are too many."""
        return _Connection(self._streams, self._kind, addr.host) if self._streams.admit(addr.host) else None


class _Making(ClientFactory):
    noisy = False

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: Any) -> _Connection:  # noqa: ARG002
        return self._connection

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:  # noqa: ARG002
        self._connection.connectionLost(reason)


class Streams:
    """All TCP and TLS connections of SIP."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        received: Callable[[bytes, Flow], None],
        certificate: Certificate | None,
        authorities: Authorities,
        idle: float,
        most: int,
        keepalive: float,
    ) -> None:
        self.reactor = reactor
        self.received = received
        self.idle = idle
        self.keepalive = keepalive
        self.unsent = 0
        self.turned_away = 0
        self._certificate = certificate
        self._authorities = authorities
        self._most = most
        self._ports: list[Any] = []
        self._open: dict[Path, _Connection] = {}
        self._made: dict[Way, _Connection] = {}
        self._watchers: dict[Way, list[Callable[[str], None]]] = {}
        self._all: set[_Connection] = set()
        self._of_peer: Counter[str] = Counter()
        self._closing = False
        self._emptied: Deferred[None] = Deferred()

    def listen(self, endpoint: Endpoint) -> Address:
        """Listen; `CannotStart` when that is not possible."""
        factory: Any = _Taking(self, endpoint.kind.upper())
        if endpoint.kind == "tls":
            if self._certificate is None:
                raise CannotStart(f"{endpoint} needs a certificate and its key")
            factory = TLSMemoryBIOFactory(self._certificate, False, factory)
            factory.noisy = False
        with bound(endpoint, socket.SOCK_STREAM) as handle:
            self._ports.append(self.reactor.adoptStreamPort(handle.fileno(), handle.family, factory))
            address: Address = handle.getsockname()[:2]
        return address

    def send(self, data: bytes, flow: Flow, lost: Callable[[], None] | None) -> None:
        """Write one message on the connection of `flow`, or on a new one where the flow says to connect."""
        connection = self._open.get(flow[:3])
        if connection is None:
            dial = _dial(flow)
            connection = self._to(dial, flow) if dial else None
            if dial and connection is None:
                self._tell(self._watchers.pop((flow.transport, dial), []), "we have too many connections", [])
        if connection is None:
            self.lose(lost)
        else:
            connection.send(data, lost)

    def local(self, flow: Flow) -> Address | None:
        """Our end of the connection that we made for `flow`, while there is one."""
        dial = _dial(flow)
        made = self._made.get((flow.transport, dial)) if dial else None
        return made.flow.local if made and made.flow else None

    def watch(self, flow: Flow, gone: Callable[[str], None]) -> Callable[[], None]:
        """Implements `interfaces.Watch`."""
        way = (flow.transport, flow.dial or Dial(flow.remote))
        self._watchers.setdefault(way, []).append(gone)
        if way in self._made:
            self._made[way].keep_alive()

        def end() -> None:
            watchers = self._watchers.get(way, [])
            if gone in watchers:
                watchers.remove(gone)
                if not watchers:
                    del self._watchers[way]

        return end

    def watched(self, way: Way) -> bool:
        return way in self._watchers

    def _to(self, dial: Dial, flow: Flow) -> _Connection | None:
        """The connection that we made there, or make now."""
        kind, (host, port) = flow.transport, dial.address
        way = (kind, dial)
        if way in self._made:
            return self._made[way]
        if self._closing or len(self._made) >= self._most:  # strangers' connections do not keep us from making ours
            self.turned_away += 1
            return None
        self._made[way] = connection = _Connection(self, kind, host, way)
        self._count(connection)
        here = flow.local[0]
        bind = None if here in ANY or (":" in here) != (":" in host) else (here, 0)
        if kind == "TCP":
            connection.connector = self.reactor.connectTCP(host, port, _Making(connection), DIALLING, bind)
        else:

            def failed(why: str) -> None:
                connection.why = why

            options = self._authorities.proof(dial.name or host, failed)
            connection.connector = self.reactor.connectSSL(host, port, _Making(connection), options, DIALLING, bind)
        return connection

    def admit(self, host: str) -> bool:
        """Whether there may be one more connection of this peer."""
        if not self._closing and len(self._all) - len(self._made) < self._most and self._of_peer[host] < MOST_OF_PEER:
            return True
        self.turned_away += 1
        return False

    def came(self, connection: _Connection) -> None:
        """A connection is there."""
        assert connection.flow is not None
        self._open[connection.flow[:3]] = connection
        self._count(connection)

    def _count(self, connection: _Connection) -> None:
        if connection not in self._all:
            self._all.add(connection)
            self._of_peer[connection.peer] += 1

    def went(self, connection: _Connection, unsent: Sequence[Callable[[], None] | None]) -> None:
        """A connection is gone, or never came, and with it what waited for it."""
        if connection not in self._all:
            return
        self._all.remove(connection)
        self._of_peer[connection.peer] -= 1
        if not self._of_peer[connection.peer]:
            del self._of_peer[connection.peer]
        if connection.flow is not None:
            self._open.pop(connection.flow[:3], None)
        if connection.way is not None:
            self._made.pop(connection.way, None)
        watchers = self._watchers.pop(connection.way, []) if connection.way else []
        self.unsent += len(unsent)
        self._tell(watchers, connection.why, unsent)
        if self._closing and not self._all:
            self._emptied.callback(None)

    def _tell(
        self, watchers: Sequence[Callable[[str], None]], why: str, unsent: Sequence[Callable[[], None] | None]
    ) -> None:
        """Later, those who watch first: they know the reason."""

        def tell() -> None:
            for gone in watchers:
                gone(why)
            for lost in unsent:
                if lost is not None:
                    lost()

        if not self._closing and (watchers or any(unsent)):
            self.reactor.callLater(0, tell)

    def lose(self, lost: Callable[[], None] | None) -> None:
        """A message found no connection."""
        self.unsent += 1
        if lost is not None and not self._closing:
            self.reactor.callLater(0, lost)

    def close(self) -> list[Any]:
        """Stop listening and hang up; the Deferreds of the ports being closed."""
        self._closing = True
        ports, self._ports = self._ports, []
        closing = [port.stopListening() for port in ports]
        for connection in list(self._all):
            connection.drop(FAREWELL)
        return [*closing, self._emptied] if self._all else closing


def _dial(flow: Flow) -> Dial | None:
    """Where to connect for `flow` when it has no connection; None: then there is no way."""
    return flow.dial or (None if flow.local[1] else Dial(flow.remote))
