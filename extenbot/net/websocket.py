"""Websocket client connections (autobahn) as `Link`s: text messages out, `LinkListener` calls in.

Which refusal means what is not known here: `lost` hands on autobahn's words, the HTTP
status of a refused handshake among them as `[401]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from twisted.internet.interfaces import IPushProducer
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from extenbot import __version__
from extenbot.interfaces import LinkListener

#: a `response.done` of a long turn can be large, a delta never is
LARGEST = 16 << 20


class _Protocol(WebSocketClientProtocol):
    link: WebSocketLink

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
        )
        # An explicit context: the certificate and the host name are checked (service-identity).
        host = urlsplit(url).hostname or ""
        context = optionsForClientTLS(host) if factory.isSecure else None
        self._connector = connectWS(factory, context, timeout=timeout)

    def send(self, text: bytes) -> None:
        """Send one text message; nothing happens before the connection is open or after its end."""
        if self._protocol is not None:
            self._protocol.sendMessage(text)
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
        protocol.registerProducer(self, True)
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
