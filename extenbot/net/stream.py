"""SIP over TCP and TLS: connections, taken and made (RFC 3261 18.1.1, 18.2.2; RFC 5626 4.4.1).

Answers go back on the connection that the request came on, and so do requests of ours to whoever registered
or called on it, as long as it lives. Where we connect over TLS the other end must prove its name.

A stranger costs little: at most `most` connections in all and `MOST_OF_PEER` of one address, a message
must be complete `PATIENCE` seconds after its first byte, the first one after the connection came (the TLS
handshake included), and who does not read what we write is hung up on.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory
from twisted.internet.ssl import optionsForClientTLS
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from extenbot.errors import CannotStart
from extenbot.interfaces import Address, Dial, Flow
from extenbot.net.addresses import ANY, bound
from extenbot.net.certificate import Certificate
from extenbot.settings import Endpoint
from extenbot.sip.stream import PING, PONG, Stream

PATIENCE = 10.0  # seconds for a message to become complete, and for a peer to read
DIALLING = 4.0  # seconds for a connection of ours to come up, its handshake included
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
        self.connector: Any = None  # of one that we make

    def connectionMade(self) -> None:
        wire: Any = self.transport
        here, there = wire.getHost(), wire.getPeer()
        self.flow = Flow(self._kind, (here.host, here.port), (there.host, there.port))
        wire.setTcpNoDelay(True)
        wire.setTcpKeepAlive(True)
        wire.registerProducer(self, True)
        self._streams.came(self)
        self._wait(DIALLING if self.way else PATIENCE)
        if self._kind == "TCP":
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """TLS is up, or TCP, which needs none."""
        self._ready = True
        if self.way:
            self._wait(self._streams.idle)
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
                wire.abortConnection()
                return
        wire.write(data)

    def dataReceived(self, data: bytes) -> None:
        assert self.flow is not None
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
            self._timer = self._streams.reactor.callLater(seconds, self.abort)
        else:
            self._timer.reset(seconds)

    def abort(self) -> None:
        """Away with it, whatever still waits."""
        self._timer = None
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
        wire: Any = self.transport
        wire.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        for timer in (self._timer, self._deaf):
            if timer is not None:
                timer.cancel()
        self._timer = self._deaf = None
        self._streams.went(self)
        self.fail("" if reason is None or self._ready else reason.getErrorMessage())

    def fail(self, why: str) -> None:
        """What waited for the connection is lost with it."""
        if self.way and why:
            self._streams.log.info(
                "No {kind} connection to {peer}: {why}", kind=self._kind, peer=self.way[1].address, why=why
            )
        queue, self._queue = self._queue, []
        for _data, lost in queue:
            self._streams.lose(lost)


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
        self._connection.connectionLost()
        self._connection.fail(reason.getErrorMessage())


class Streams:
    """All TCP and TLS connections of SIP."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        received: Callable[[bytes, Flow], None],
        certificate: Certificate | None,
        idle: float,
        most: int,
    ) -> None:
        self.reactor = reactor
        self.received = received
        self.idle = idle
        self.unsent = 0
        self.turned_away = 0
        self._certificate = certificate
        self._most = most
        self._ports: list[Any] = []
        self._open: dict[Path, _Connection] = {}
        self._made: dict[Way, _Connection] = {}
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
            dial = flow.dial or (None if flow.local[1] else Dial(flow.remote))
            connection = self._to(dial, flow) if dial else None
        if connection is None:
            self.lose(lost)
        else:
            connection.send(data, lost)

    def _to(self, dial: Dial, flow: Flow) -> _Connection | None:
        """The connection that we made there, or make now."""
        kind, (host, port) = flow.transport, dial.address
        way = (kind, dial)
        if way in self._made:
            return self._made[way]
        if not self.admit(host):
            return None
        self._made[way] = connection = _Connection(self, kind, host, way)
        self._count(connection)
        here = flow.local[0]
        bind = None if here in ANY or (":" in here) != (":" in host) else (here, 0)
        if kind == "TCP":
            connection.connector = self.reactor.connectTCP(host, port, _Making(connection), DIALLING, bind)
        else:
            options = optionsForClientTLS(dial.name or host)
            connection.connector = self.reactor.connectSSL(host, port, _Making(connection), options, DIALLING, bind)
        return connection

    def admit(self, host: str) -> bool:
        """Whether there may be one more connection with this peer."""
        if not self._closing and len(self._all) < self._most and self._of_peer[host] < MOST_OF_PEER:
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

    def went(self, connection: _Connection) -> None:
        """A connection is gone, or never came."""
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
        if self._closing and not self._all:
            self._emptied.callback(None)

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
