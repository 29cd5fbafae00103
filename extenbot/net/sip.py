"""All SIP sockets of the service as one `SipTransport`: UDP, TCP and TLS, IPv4 and IPv6 (RFC 3261 18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extenbot.interfaces import Address, Flow
from extenbot.net.addresses import advertised, nearest
from extenbot.net.certificate import Authorities, Certificate
from extenbot.net.stream import Streams
from extenbot.net.udp import Datagrams
from extenbot.settings import Advertised, Endpoint


class SipSockets:
    """Every message that comes is given to `received` with its flow, and goes back by `send` on that flow."""

    def __init__(
        self,
        reactor: Any,
        received: Callable[[bytes, Flow], None],
        advertise: Advertised | None = None,
        certificate: Certificate | None = None,
        authorities: Authorities | None = None,
        idle: float = 3900.0,
        most: int = 1000,
        keepalive: float = 30.0,
    ) -> None:
        """`idle` is for how many seconds a silent connection is kept, `most` how many may come, and
        how many we make.

        A connection that is watched is never idle: it is pinged every `keepalive` seconds (0: never).
        """
        self._advertise = advertise or Advertised()
        self.datagrams = Datagrams(reactor, received)
        self.streams = Streams(reactor, received, certificate, authorities or Authorities(), idle, most, keepalive)
        self.endpoints: tuple[Endpoint, ...] = ()
        """Where we listen, with the ports we got."""

    @property
    def unsent(self) -> int:
        """Messages that no network took."""
        return self.datagrams.unsent + self.streams.unsent

    def listen(self, endpoint: Endpoint) -> Address:
        """Listen; `CannotStart` when that is not possible."""
        kind = self.datagrams if endpoint.kind == "udp" else self.streams
        address = kind.listen(endpoint)
        self.endpoints += (Endpoint(endpoint.kind, address[1], address[0]),)
        return address

    def send(self, data: bytes, flow: Flow, lost: Callable[[], None] | None = None) -> None:
        """Send one message on its flow."""
        if flow.transport == "UDP":
            self.datagrams.send(data, flow)
        else:
            self.streams.send(data, flow, lost)

    def watch(self, flow: Flow, gone: Callable[[str], None]) -> Callable[[], None]:
        """Implements `interfaces.Watch`."""
        return (lambda: None) if flow.transport == "UDP" else self.streams.watch(flow, gone)

    def advertised(self, flow: Flow) -> Address:
        """Our host and port as the other end of `flow` should write them: each destination has its own.

        On a connection that we made that is where we listen by its transport, else its own end of ours.
        """
        kind, peer = flow.transport.lower(), flow.remote[0]
        ours = [(each.interface, each.port) for each in self.endpoints if each.kind == kind]
        host, port = flow.local
        if flow.local not in ours:
            made = None if ours or kind == "udp" else self.streams.local(flow)
            place = nearest(ours, peer) or made or nearest(self._places, peer)
            host, port = place or (ours or [*self._places, flow.local])[0]
        return advertised(self._advertise, host, peer), port

    @property
    def _places(self) -> list[Address]:
        return [(each.interface, each.port) for each in self.endpoints]

    def close(self) -> list[Any]:
        """Stop listening and hang up; the Deferreds of what is being closed."""
        self.endpoints = ()
        return [*self.datagrams.close(), *self.streams.close()]
