"""Where a SIP domain is served (RFC 3263 4): NAPTR, SRV, A and AAAA, asked of Twisted's DNS client.

Numeric hosts need no DNS. A name server that does not know NAPTR or SRV, or does not answer such questions, is
no obstacle: the next rule is tried, and only when there is no address in the end it is an error.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError as TwistedTimeout
from twisted.names import cache, client, dns, hosts, resolve
from twisted.names.error import DNSQueryTimeoutError, DNSServerError, DomainError, ResolverError

from extenbot.errors import Unlocated
from extenbot.interfaces import Target, Tokens

PORTS = {"UDP": 5060, "TCP": 5060, "TLS": 5061}
TIMEOUT = (1, 3, 6)  # seconds for each try of one question
_SERVICES = {"SIP+D2U": "UDP", "SIP+D2T": "TCP", "SIPS+D2T": "TLS"}
_LABELS = {"UDP": "_sip._udp", "TCP": "_sip._tcp", "TLS": "_sips._tcp"}
_SILENT = (DNSQueryTimeoutError, TwistedTimeout, DNSServerError)
_NOTHING = (DomainError, ResolverError)


class _Place(NamedTuple):
    transport: str
    name: str
    port: int


class Resolver:
    """`names` is Twisted's resolver; `transports` are those we can use, the best first.

    `families` are the IP versions, 4 and 6, that we send datagrams by and ask DNS for.

    That order is for domains whose DNS names several; without a word of DNS it is UDP, as RFC 3263 4.1 has it,
    or what comes nearest, the last.
    """

    def __init__(
        self, names: Any, tokens: Tokens, transports: Sequence[str] = ("UDP",), families: Sequence[int] = (4,)
    ) -> None:
        self._names = names
        self._tokens = tokens
        self._transports = tuple(transports)
        self._usual = "UDP" if "UDP" in transports else self._transports[-1]
        self._families = tuple(families)

    def locate(self, host: str, port: int, transport: str) -> Deferred[tuple[Target, ...]]:
        """Implements `interfaces.Locate`."""
        return Deferred.fromCoroutine(self._locate(host, port, transport))

    async def _locate(self, host: str, port: int, transport: str) -> tuple[Target, ...]:
        if transport and transport not in self._transports:
            raise Unlocated(f"{transport} is not a transport we can use.")
        usual = transport or self._usual
        try:
            numeric = str(ipaddress.ip_address(host))
        except ValueError:
            pass
        else:
            if usual == "UDP" and (6 if ":" in numeric else 4) not in self._families:
                version = "IPv6" if ":" in numeric else "IPv4"
                raise Unlocated(f"The PBX {host} cannot be reached: this service uses no {version} by UDP.")
            return (Target(usual, numeric, port or PORTS[usual]),)
        places = [_Place(usual, host, port)] if port else await self._services(host, transport)
        if not places:
            places = [_Place(usual, host, PORTS[usual])]
        found: dict[Target, None] = {}
        silent = False
        for place in places:
            addresses, unheard = await self._addresses(place.name)
            silent = silent or unheard
            found |= dict.fromkeys(Target(place.transport, address, place.port) for address in addresses)
        if not found:
            why = "the name server does not answer" if silent else "it has no address"
            raise Unlocated(f"The PBX {host} cannot be found: {why}.")
        return tuple(found)

    async def _services(self, host: str, transport: str) -> list[_Place]:
        """The servers that the domain names for a transport, or for all of ours in its own order."""
        if transport:
            return await self._servers(f"{_LABELS[transport]}.{host}", transport)
        pointers = [
            record
            for record in await self._records(self._names.lookupNamingAuthorityPointer, host, dns.NAPTR)
            if record.flags.string.lower() == b"s" and self._served(record)
        ]
        pointers.sort(key=lambda record: (record.order, record.preference))
        asked = [(str(record.replacement), self._served(record)) for record in pointers]
        asked = asked or [(f"{_LABELS[name]}.{host}", name) for name in self._transports]
        return [place for name, served in asked for place in await self._servers(name, served)]

    def _served(self, record: Any) -> str:
        """The transport of a NAPTR record, when it is one of ours."""
        name = _SERVICES.get(record.service.string.decode("ascii", "replace").upper(), "")
        return name if name in self._transports else ""

    async def _servers(self, name: str, transport: str) -> list[_Place]:
        records = await self._records(self._names.lookupService, name, dns.SRV)
        return [
            _Place(transport, target, record.port)
            for record in self._in_turn(records)
            if (target := str(record.target).rstrip("."))  # "." says: not served (RFC 2782)
        ]

    def _in_turn(self, records: Iterable[Any]) -> list[Any]:
        """By priority, and within one by lot with their weights (RFC 2782)."""
        left = sorted(records, key=lambda record: (record.priority, record.weight))
        turn: list[Any] = []
        while left:
            same = [record for record in left if record.priority == left[0].priority]
            lot = self._tokens.bits(32) % (sum(record.weight for record in same) + 1)
            for record in same:
                lot -= record.weight
                if lot <= 0:
                    break
            turn.append(record)
            left.remove(record)
        return turn

    async def _addresses(self, name: str) -> tuple[list[str], bool]:
        """Of a host, and whether some question was not answered."""
        found: list[str] = []
        silent = False
        for family in self._families:
            ask, kind = (self._names.lookupAddress, dns.A) if family == 4 else (self._names.lookupIPV6Address, dns.AAAA)
            try:
                found += [str(ipaddress.ip_address(record.address)) for record in await _ask(ask, name, kind)]
            except _SILENT:
                silent = True
            except _NOTHING:
                continue
        return found, silent

    async def _records(self, ask: Callable[..., Any], name: str, kind: int) -> list[Any]:
        """Those of one kind; none when they cannot be had for whatever reason."""
        try:
            return await _ask(ask, name, kind)
        except (*_SILENT, *_NOTHING):
            return []


async def _ask(ask: Callable[..., Awaitable[Any]], name: str, kind: int) -> list[Any]:
    answers, _authority, _additional = await ask(name, timeout=TIMEOUT)
    return [header.payload for header in answers if header.type == kind]


def system_names(reactor: Any) -> Any:
    """Twisted's resolver as this machine is set up: its hosts file, a cache, its name servers."""
    return resolve.ResolverChain(
        [hosts.Resolver(), cache.CacheResolver(reactor=reactor), client.Resolver("/etc/resolv.conf", reactor=reactor)]
    )
