"""Networks as people write them, such as 10.8.0.0/24: what to warn of, and which one an address lies in."""

from __future__ import annotations

import ipaddress
from collections import ChainMap
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_USUAL = {4: 24, 6: 56}
"""The shortest usual prefix of what one site has, by IP version."""


def cautions(trusted: str) -> tuple[str, ...]:
    """What the owner of a bot must know who lets these networks (separated by blanks) in without a password."""
    networks = trusted.split()
    if not networks:
        return ()
    who = f"Anybody who can send from {', '.join(networks)}"
    money = "can call this bot without a password, and spend your money"
    found = [f"{who} {money}. The address of a UDP packet can be forged."]
    for text in networks:
        network = ipaddress.ip_network(text)
        if network.is_global and network.prefixlen < _USUAL[network.version]:
            count = f"{network.num_addresses:,}" if network.version == 4 else "very many"
            found.append(f"{text} is {count} public addresses: are all of them yours?")
    return tuple(found)


def reachable(address: str, allow: Iterable[Network]) -> bool:
    """Whether bots may connect to an IP address: to public ones, and to those that the operator allows.

    What an IPv6 address does to reach an IPv4 one (mapped, 6to4, NAT64) does not make that any more public.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = _inner(found)
    if any(each in network for network in allow for each in (found, inner) if each is not None):
        return True
    return _public(inner) if inner is not None else _public(found)


def _public(found: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(found, ipaddress.IPv6Address) and found not in _UNICAST:
        return False  # whatever is not handed out yet, or not any more
    return found.is_global and not found.is_multicast and not any(found in network for network in _SPECIAL)


def _inner(found: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to."""
    if isinstance(found, ipaddress.IPv4Address):
        return None
    if any(found in network for network in _NAT64):
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found.ipv4_mapped or found.sixtofour


_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))  # RFC 6052, 8215
_SPECIAL: tuple[Network, ...] = (  # of the IANA registries, what `is_global` of all Pythons does not know
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("192.88.99.0/24"),
    ipaddress.IPv6Network("3fff::/20"),
)


class Networks(Generic[T]):
    """Named values by network, found in as many steps as there are different lengths of prefixes."""

    def __init__(self, values: Iterable[tuple[str, str, T]]) -> None:
        """Each is (networks separated by blanks, name, value)."""
        self._found: dict[tuple[int, int], dict[int, dict[str, T]]] = {}
        for networks, name, value in values:
            for text in networks.split():
                network = ipaddress.ip_network(text)
                shift = network.max_prefixlen - network.prefixlen
                same = self._found.setdefault((network.version, shift), {})
                same.setdefault(int(network.network_address) >> shift, {})[name] = value

    def at(self, host: str) -> Mapping[str, T]:
        """The values of all networks that this IP address lies in, by name."""
        if not self._found:
            return {}
        address = ipaddress.ip_address(host)
        number = int(address)
        hits = [
            same[number >> shift]
            for (version, shift), same in self._found.items()
            if version == address.version and number >> shift in same
        ]
        return hits[0] if len(hits) == 1 else ChainMap(*hits)
