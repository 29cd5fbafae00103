"""All SIP sockets of the service as one `SipTransport`: UDP, TCP and TLS, IPv4 and IPv6 (RFC 3261 18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extenbot.interfaces import Address, Flow
from extenbot.net.addresses import ANY, local_toward
from extenbot.net.certificate import Certificate
from extenbot.net.stream import Streams
from extenbot.net.udp import Datagrams
from extenbot.settings import Endpoint


class SipSockets:
    """Every message that comes is given to `received` with its flow, and goes back by `send` on that flow."""

    def __init__(
        self,
        reactor: Any,
        received: Callable[[bytes, Flow], None],
        advertise: str = "",
        certificate: Certificate | None = None,
        idle: float = 3900.0,
        most: int = 1000,
    ) -> None:
        """`idle` is for how many seconds a silent connection is kept, `most` how many there may be."""
        self._advertise = advertise
        self.datagrams = Datagrams(reactor, received)
        self.streams = Streams(reactor, received, certificate, idle, most)
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

    def advertised(self, flow: Flow) -> Address:
        """Our host and port as the other end of `flow` should write them: each destination has its own.

        What the settings say is not for peers of the other IP version, who could not reach it.
        """
        (host, port), six = flow.local, ":" in flow.remote[0]
        ours = [each for each in self.endpoints if each.kind == flow.transport.lower()] or self.endpoints
        if port not in [each.port for each in ours]:  # we connect, or UDP turned into TCP: say where we listen
            for each in sorted(ours, key=lambda each: (":" in each.interface) != six)[:1]:
                host, port = host or each.interface, each.port
        if self._advertise and (not _numeric(self._advertise) or (":" in self._advertise) == six):
            return self._advertise, port
        return (local_toward(flow.remote[0]) if host in ANY or (":" in host) != six else host), port

    def close(self) -> list[Any]:
        """Stop listening and hang up; the Deferreds of what is being closed."""
        self.endpoints = ()
        return [*self.datagrams.close(), *self.streams.close()]


def _numeric(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
