"""Ranges of addresses: which one an address lies in, and what their owner is told."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.networks import Networks, cautions

ADDRESSES = st.ip_addresses(v=4, network="192.0.2.0/28") | st.ip_addresses(v=6, network="2001:db8::/124")
NETWORKS = st.builds(
    lambda address, cut: ipaddress.ip_network(f"{address}/{address.max_prefixlen - cut}", strict=False),
    ADDRESSES,
    st.integers(0, 20),
)


class Ranges(SynchronousTestCase):
    @given(st.lists(st.lists(NETWORKS, max_size=4), max_size=6), ADDRESSES)
    def test_found(self, sets: list[list[ipaddress.IPv4Network]], address: ipaddress.IPv4Address) -> None:
        """An address finds the names of all networks that it lies in, and of no others."""
        values = [(" ".join(map(str, networks)), str(number), number) for number, networks in enumerate(sets)]
        expected = {str(n): n for n, networks in enumerate(sets) if any(address in network for network in networks)}
        self.assertEqual(dict(Networks(values).at(str(address))), expected)

    def test_many(self) -> None:
        """Ten thousand trunks of different sizes are one look for each size."""
        values = [(f"10.{n >> 8}.{n & 255}.0/{24 + n % 3}", str(n), n) for n in range(10_000)]
        found = Networks(values)
        self.assertEqual(len(found._found), 3)
        self.assertEqual(dict(found.at("10.1.1.1")), {"257": 257})
        self.assertEqual(dict(found.at("10.200.1.1")), {})

    def test_cautions(self) -> None:
        """Nobody trusted, no warning; wide public ranges are named, private ones and small ones are not."""
        self.assertEqual(cautions(""), ())
        for quiet in ("10.0.0.0/8", "8.8.8.0/24", "192.168.0.0/16", "2a00:1450::/56", "fd00::/19", "100.64.0.0/10"):
            [told] = cautions(quiet)
            self.assertIn("spend your money", told)
            self.assertIn("forged", told)
        _, four, six = cautions("8.8.8.0/23 10.8.0.1/32 2a00:1450::/55")
        self.assertEqual(four, "8.8.8.0/23 is 512 public addresses: are all of them yours?")
        self.assertIn("2a00:1450::/55 is very many", six)
