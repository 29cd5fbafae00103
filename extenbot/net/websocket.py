"""Websocket client connections (autobahn) as `Link`s: text messages out, `LinkListener` calls in.

Which refusal means what is not known here: `lost` hands on autobahn's words, the HTTP
status of a refused handshake among them as `[401]`.

Each call sends 25 messages a second and more, so the way of a message is kept short: where
autobahn formats log lines, validates text that the JSON reader validates anyway, and signals
to nobody, a few overrides step around it; and the frames we send are built in one step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from twisted.internet.interfaces import IPushProducer
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from extenbot import __version__
from extenbot.interfaces import LinkListener

#: a `response.done` of a long turn can be large, a delta never is
LARGEST = 16 << 20


def _masks() -> Iterator[bytes]:
    """Masking keys, unpredictable (RFC 6455 5.3); the system is asked once for a thousand."""
    while True:
        pool = os.urandom(4096)
        for at in range(0, len(pool), 4):
            yield pool[at : at + 4]


_MASKS = _masks()


def write_through(transport: Any) -> None:
    """Let a TCP transport try the network at once when something is written, and wait for it only with the rest.

    Twisted always waits for the next turn of the reactor: two system calls and a turn for each message.
    """
    while isinstance(inner := getattr(transport, "transport", None), Connection):  # below TLS
        transport = inner
    if not isinstance(transport, Connection):
        return
    wait = transport.startWriting

    def start() -> None:
        # What doWrite returns is for the reactor, which asks again and then knows what to do.
        if transport.doWrite() is not None or transport.dataBuffer:
            wait()

    transport.startWriting = start  # type: ignore[method-assign]


def text_frame(payload: bytes) -> bytes:
    """One whole text message as one masked frame (RFC 6455 5.2)."""
    size = len(payload)
    if size < 126:
        head = b"\x81" + bytes((0x80 | size,))
    elif size < 65536:
        head = b"\x81\xfe" + size.to_bytes(2, "big")
    else:
        head = b"\x81\xff" + size.to_bytes(8, "big")
    key = next(_MASKS)
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "little")
    return head + key + (int.from_bytes(payload, "little") ^ mask).to_bytes(size, "little")


class _Protocol(WebSocketClientProtocol):
    link: WebSocketLink

    def dataReceived(self, data: bytes) -> None:
        self._dataReceived(data)

    def onMessageEnd(self) -> None:
        payload = b"".join(self.message_data)
        self.message_data = []
        if not self.failedByMe:
            self.onMessage(payload, self.message_is_binary)

    def onOpen(self) -> None:
        self.link.opened(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if not isBinary:  # the Realtime protocol is text only
            self.link.listener.received(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.link.over(wasClean, code, reason or "")


class _Factory(WebSocketClientFactory):
    protocol = _Protocol
    noisy = False

    def __init__(self, reactor: Any, link: WebSocketLink, url: str, headers: Mapping[str, str]) -> None:
        super().__init__(url, headers=dict(headers), useragent=f"extenbot/{__version__}", reactor=reactor)
        self.link = link

    def buildProtocol(self, addr: Any) -> _Protocol:
        protocol = super().buildProtocol(addr)
        assert isinstance(protocol, _Protocol)
        protocol.link = self.link
        return protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:  # noqa: ARG002
        self.link.over(False, None, reason.getErrorMessage())


@implementer(IPushProducer)
class WebSocketLink:
    """One connection, from dialling to its end; a `Link`.

    It stands as the producer of its transport only to learn when the network is behind:
    it never stops by itself, whoever sends asks `waiting`.
    """

    def __init__(self, reactor: Any, url: str, headers: Mapping[str, str], listener: LinkListener, timeout: float):
        self.listener = listener
        self._protocol: _Protocol | None = None
        self._write: Callable[[bytes], None]
        self._waiting: int | None = None
        self._over = False
        factory = _Factory(reactor, self, url, headers)
        factory.setProtocolOptions(
            openHandshakeTimeout=timeout,
            closeHandshakeTimeout=2,
            autoPingInterval=20,
            autoPingTimeout=20,
            autoPingRestartOnAnyTraffic=True,
            tcpNoDelay=True,
            maxMessagePayloadSize=LARGEST,
            utf8validateIncoming=False,
        )
        # An explicit context: the certificate and the host name are checked (service-identity).
        host = urlsplit(url).hostname or ""
        context = optionsForClientTLS(host) if factory.isSecure else None
        self._connector = connectWS(factory, context, timeout=timeout)

    def send(self, text: bytes) -> None:
        """Send one text message; nothing happens before the connection is open or after its end."""
        if self._protocol is not None:
            self._write(text_frame(text))
            if self._waiting is not None:
                self._waiting += len(text)

    def waiting(self) -> int:
        """Bytes sent since the network fell behind; 0 while it keeps up."""
        return self._waiting or 0

    def pauseProducing(self) -> None:
        """The transport's buffer (64 KiB) is full."""
        self._waiting = self._waiting or 0

    def resumeProducing(self) -> None:
        """All of it has left."""
        self._waiting = None

    def stopProducing(self) -> None:
        """The connection is going away; `over` tells."""

    def close(self) -> None:
        """Close politely when open; give up dialling otherwise."""
        if self._protocol is not None:
            self._protocol.sendClose(1000)
        elif not self._over:
            self._connector.disconnect()

    def opened(self, protocol: _Protocol) -> None:
        """The handshake is done."""
        self._protocol = protocol
        transport: Any = protocol.transport
        self._write = transport.write
        protocol.registerProducer(self, True)
        write_through(transport)
        self.listener.connected()

    def over(self, clean: bool, code: int | None, reason: str) -> None:
        """The connection has ended, or never came to be; told once."""
        self._protocol = self._waiting = None
        if not self._over:
            self._over = True
            self.listener.lost(clean, code, reason)


class WebSockets:
    """The `Connect` of the voice back ends."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __call__(self, url: str, headers: Mapping[str, str], listener: LinkListener, timeout: float) -> WebSocketLink:
        return WebSocketLink(self._reactor, url, headers, listener, timeout)
