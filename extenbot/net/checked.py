"""Connections for HTTP to servers that bots' owners have named, and to no address that is none of theirs.

A name is resolved once, each of its addresses is checked, and the connection goes to one that was: a name that means
another address a moment later gains nothing. What the other end may send in one go is bounded, headers included.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from extenbot.errors import ToolFailed
from extenbot.net.certificate import Authorities

CONNECTING = 5.0
"""Seconds that connecting to one address may take."""

AT_ONCE = 8192
"""Bytes that are read at one time: 64 KiB of the smallest chunks take the parser 35 ms, in which audio must go on."""

HEAD = 65536
"""Bytes of status and headers that a reply may have, early notes (1xx) before it included."""

_BLANK = re.compile(rb"\r?\n\r?\n")

Allowed = Callable[[str], bool]


@implementer(IResolutionReceiver)
class _Sieve:
    """Lets allowed addresses through."""

    def __init__(self, receiver: IResolutionReceiver, allowed: Allowed, refused: list[str]) -> None:
        self._receiver, self._allowed, self._refused = receiver, allowed, refused

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        host = getattr(address, "host", "")
        if self._allowed(host):
            self._receiver.addressResolved(address)
        else:
            self._refused.append(host)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()


@implementer(IHostnameResolver)
class _Resolver:
    """The reactor's own, but for addresses that are not allowed."""

    def __init__(self, resolver: IHostnameResolver, allowed: Allowed, refused: list[str]) -> None:
        self._resolver, self._allowed, self._refused = resolver, allowed, refused

    def resolveHostName(self, resolutionReceiver: IResolutionReceiver, *given: Any, **more: Any) -> IHostResolution:
        sieve = _Sieve(resolutionReceiver, self._allowed, self._refused)
        return self._resolver.resolveHostName(sieve, *given, **more)


@implementer(IReactorPluggableNameResolver, IReactorTCP, IReactorTime)
class _Reactor:
    """The reactor for one connection: with a resolver that leaves out what is not allowed."""

    def __init__(self, reactor: Any, allowed: Allowed, refused: list[str]) -> None:
        self._reactor = reactor
        self.nameResolver = _Resolver(reactor.nameResolver, allowed, refused)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class _Line(ProtocolWrapper):
    """One connection: too much at once, or a certificate that proves nothing, ends it with words that say so."""

    def __init__(self, factory: Any, wrapped: Any, limit: int, words: list[str]) -> None:
        super().__init__(factory, wrapped)
        self._limit, self._words = limit, words
        self._came = 0  # since we sent something
        self._head: bytes | None = b""  # what has come of the headers; None: all of them have

    def makeConnection(self, transport: Any) -> None:
        socket = transport
        while isinstance(socket, ProtocolWrapper):  # of TLS
            socket = socket.transport
        socket.bufferSize = AT_ONCE
        super().makeConnection(transport)

    def write(self, data: bytes) -> None:
        self._came, self._head = 0, b""
        super().write(data)

    def writeSequence(self, data: Any) -> None:
        self._came, self._head = 0, b""
        super().writeSequence(data)

    def dataReceived(self, data: bytes) -> None:
        self._came += len(data)
        if self._head is not None:
            self._head = _unfinished(self._head + data)
        if self._came <= (self._limit if self._head is None else HEAD):
            super().dataReceived(data)
        elif not self._words:
            self._words.append("it sends more than any reply may have")
            self.loseConnection()

    def loseConnection(self) -> None:
        """At once: with TLS the other end could draw out a polite goodbye, and send on."""
        self.disconnecting = True
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(Failure(ToolFailed(self._words[0])) if self._words else reason)


def _unfinished(head: bytes) -> bytes | None:
    """What there is of headers without their end, after early notes; None when the headers of a reply are whole."""
    while end := _BLANK.search(head):
        if not head.startswith(b"HTTP/1.1 1"):
            return None
        head = head[end.end() :]
    return head


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects to allowed addresses, and says why there was none."""

    def __init__(self, inner: Any, limit: int, refused: list[str], words: list[str]) -> None:
        self._inner, self._limit, self._refused, self._words = inner, limit, refused, words

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        wrapping = WrappingFactory(protocolFactory)
        wrapping.noisy = False
        wrapping.protocol = lambda factory, wrapped: _Line(factory, wrapped, self._limit, self._words)
        connecting: Deferred[Any] = self._inner.connect(wrapping)
        return connecting.addCallbacks(lambda line: line.wrappedProtocol, self._failed)

    def _failed(self, failure: Failure) -> Failure:
        if self._refused and failure.check(DNSLookupError):
            raise ToolFailed(
                f"its address {self._refused[0]} is private: the operator can name it in the setting [tools] allow"
            )
        return failure


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Makes connections, with TLS where the URL says so."""

    def __init__(self, reactor: Any, allowed: Allowed, authorities: Authorities, limit: int) -> None:
        """`limit`: bytes that the other end may send from one of our requests to the next."""
        self._reactor, self._allowed, self._authorities, self._limit = reactor, allowed, authorities, limit

    def endpointForURI(self, uri: URI) -> _Endpoint:
        refused: list[str] = []
        words: list[str] = []
        host = uri.host.decode("ascii").strip("[]")
        reactor = _Reactor(self._reactor, self._allowed, refused)
        endpoint: Any = HostnameEndpoint(reactor, host, uri.port, CONNECTING)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._authorities.proof(host, words.append), endpoint)
        return _Endpoint(endpoint, self._limit, refused, words)
