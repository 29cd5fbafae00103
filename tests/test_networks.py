"""Ranges of addresses: which one an address lies in, and what their owner is told."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.networks import Networks, cautions, reachable

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


class Reachable(SynchronousTestCase):
    def test_public(self) -> None:
        """Servers on the internet may be called, by either version of IP."""
        for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"):
            self.assertTrue(reachable(address, ()), address)

    def test_private(self) -> None:
        """Nothing that is near us, of a cloud's own, reserved, or no address at all may be called."""
        for address in (
            *("127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
            *("169.254.169.254", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
            *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
            *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:a00:1", "::ffff:169.254.169.254"),
            *("fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "2001::1"),
            *("2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::127.0.0.1", "64:ff9b:1::10.0.0.1"),
            *("3fff::1", "4000::1", "5f00::1", "::5efe:7f00:1"),
            *("", "localhost", "127.1", "0x7f000001", "2130706433", "127.0.0.1 "),
        ):
            self.assertFalse(reachable(address, ()), address)

    def test_allowed(self) -> None:
        """What the operator allows may be called, in whatever way it is written, and nothing beside it."""
        allow = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32"))
        for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00:1::5"):
            self.assertTrue(reachable(address, allow), address)
        for address in ("10.2.0.1", "::ffff:10.2.0.1", "fd00:2::5", "127.0.0.1", "::1"):
            self.assertFalse(reachable(address, allow), address)
        self.assertFalse(reachable("::1", (ipaddress.ip_network("0.0.0.0/0"),)))
        self.assertTrue(reachable("::1", (ipaddress.ip_network("::/0"),)))
