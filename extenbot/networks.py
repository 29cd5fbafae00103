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
