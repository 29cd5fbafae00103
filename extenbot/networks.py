"""Networks as people write them, such as 10.8.0.0/24: what to warn of, and which one an address lies in."""

from __future__ import annotations

import ipaddress
from collections import ChainMap
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

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


def reachable(address: str, allow: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether bots may connect to an IP address: to public ones, and to those that the operator allows.

    An IPv4 address in an IPv6 one (mapped, 6to4, Teredo, NAT64) must be public, too.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = _inner(found)
    if any(each in network for network in allow for each in (found, inner) if each and each.version == network.version):
        return True
    public = found.is_global and not found.is_multicast
    if inner is None:
        return public
    mapped = isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None
    return (public or mapped) and inner.is_global and not inner.is_multicast


def _inner(found: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to."""
    if isinstance(found, ipaddress.IPv4Address):
        return None
    if found.teredo is not None:
        return found.teredo[1]
    if found in _NAT64 or found in _COMPATIBLE:
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found.ipv4_mapped or found.sixtofour


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


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
