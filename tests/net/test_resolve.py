"""Where a SIP domain is served, asked of a name server in memory (RFC 3263)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSNotImplementedError, DNSQueryTimeoutError, DNSServerError
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Unlocated
from extenbot.interfaces import Target
from extenbot.net.resolve import Resolver
from tests.fakes import CountingTokens


class Names:
    """A name server: records by name and kind, or an error."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[Any] | Exception] = {}
        self.asked: list[str] = []

    def put(self, name: str, *records: Any) -> None:
        self.records[name, records[0].TYPE] = list(records)

    def _look(self, name: str, kind: int) -> Deferred[Any]:
        self.asked.append(f"{dns.QUERY_TYPES[kind]} {name}")
        found = self.records.get((name, kind), DNSNameError(name))
        if isinstance(found, Exception):
            return fail(found)
        other = dns.RRHeader(name, dns.CNAME, payload=dns.Record_CNAME("elsewhere"))
        return succeed(([other, *(dns.RRHeader(name, kind, payload=r) for r in found)], [], []))

    def lookupNamingAuthorityPointer(self, name: str, timeout: object) -> Deferred[Any]:
        return self._look(name, dns.NAPTR)

    def lookupService(self, name: str, timeout: object) -> Deferred[Any]:
        return self._look(name, dns.SRV)

    def lookupAddress(self, name: str, timeout: object) -> Deferred[Any]:
        return self._look(name, dns.A)

    def lookupIPV6Address(self, name: str, timeout: object) -> Deferred[Any]:
        return self._look(name, dns.AAAA)


def pointer(order: int, preference: int, service: bytes, to: str) -> dns.Record_NAPTR:
    return dns.Record_NAPTR(order, preference, b"s", service, b"", to.encode())


class Resolving(SynchronousTestCase):
    def setUp(self) -> None:
        self.names = Names()
        for host, address in (("pbx.example", "192.0.2.1"), ("a.example", "192.0.2.10"), ("b.example", "192.0.2.11")):
            self.names.put(host, dns.Record_A(address))

    def locate(
        self, host: str = "pbx.example", port: int = 0, transport: str = "", **options: Any
    ) -> tuple[Target, ...]:
        resolver = Resolver(self.names, CountingTokens(), **options)
        return self.successResultOf(resolver.locate(host, port, transport))

    def words(self, host: str, transport: str = "") -> str:
        failure = self.failureResultOf(Resolver(self.names, CountingTokens()).locate(host, 0, transport), Unlocated)
        return str(failure.value)

    def test_numeric(self) -> None:
        """Numeric hosts need no name server."""
        self.assertEqual(self.locate("192.0.2.5"), (Target("UDP", "192.0.2.5", 5060),))
        six = self.locate("2001:db8:0::5", 5070, families=(4, 6))
        self.assertEqual(six, (Target("UDP", "2001:db8::5", 5070),))
        self.assertIn("uses no IPv6 by UDP", self.words("2001:db8::5"))
        self.assertEqual(
            self.locate("2001:db8::5", 0, "TCP", transports=("TCP",)), (Target("TCP", "2001:db8::5", 5060),)
        )
        self.assertEqual(self.names.asked, [])

    def test_port(self) -> None:
        """With a port the host is only looked up."""
        self.assertEqual(self.locate(port=5070), (Target("UDP", "192.0.2.1", 5070),))
        self.assertEqual(self.names.asked, ["A pbx.example"])

    def test_plain(self) -> None:
        """Without NAPTR and SRV it is the host at 5060."""
        self.assertEqual(self.locate(), (Target("UDP", "192.0.2.1", 5060),))
        self.assertEqual(self.names.asked, ["NAPTR pbx.example", "SRV _sip._udp.pbx.example", "A pbx.example"])

    def test_naptr(self) -> None:
        """NAPTR says which transports in which order; those we do not have are passed over."""
        self.names.put(
            "pbx.example",
            pointer(20, 1, b"SIP+D2U", "udp.example"),
            pointer(10, 2, b"SIP+D2T", "tcp.example"),
            pointer(10, 1, b"SIPS+D2T", "tls.example"),
            pointer(1, 1, b"E2U+sip", "enum.example"),
        )
        self.names.put("udp.example", dns.Record_SRV(1, 1, 5062, "a.example"))
        self.names.put("tcp.example", dns.Record_SRV(1, 1, 5063, "b.example"))
        both = self.locate(transports=("UDP", "TCP"))
        self.assertEqual(both, (Target("TCP", "192.0.2.11", 5063), Target("UDP", "192.0.2.10", 5062)))
        self.assertEqual(self.locate(), (Target("UDP", "192.0.2.10", 5062),))

    def test_transport(self) -> None:
        """With a transport its SRV is asked for, without NAPTR; one we do not have is told."""
        self.names.put("_sip._udp.pbx.example", dns.Record_SRV(1, 1, 5064, "a.example"))
        self.assertEqual(self.locate(transport="UDP"), (Target("UDP", "192.0.2.10", 5064),))
        self.assertEqual(self.names.asked[0], "SRV _sip._udp.pbx.example")
        self.assertIn("TLS", self.words("pbx.example", "TLS"))

    def test_priorities(self) -> None:
        """The lowest priority comes first, all are kept for failover, and a target without an address is left out."""
        self.names.put(
            "_sip._udp.pbx.example",
            dns.Record_SRV(20, 0, 5060, "a.example"),
            dns.Record_SRV(10, 0, 5061, "b.example"),
            dns.Record_SRV(5, 0, 5060, "gone.example"),
        )
        self.assertEqual(self.locate(), (Target("UDP", "192.0.2.11", 5061), Target("UDP", "192.0.2.10", 5060)))

    def test_weights(self) -> None:
        """Within a priority the lot decides, in the proportion of the weights."""
        self.names.put(
            "_sip._udp.pbx.example", dns.Record_SRV(1, 3, 1, "a.example"), dns.Record_SRV(1, 1, 2, "b.example")
        )
        resolver = Resolver(self.names, CountingTokens())
        first = [self.successResultOf(resolver.locate("pbx.example", 0, "UDP"))[0].port for _ in range(100)]
        self.assertTrue(50 <= first.count(1) <= 90, first)

    def test_without_a_word(self) -> None:
        """Of a domain that names several transports the safest is first; without a word of DNS it is UDP."""
        ours = ("TLS", "TCP", "UDP")
        self.assertEqual(self.locate(transports=ours), (Target("UDP", "192.0.2.1", 5060),))
        self.assertEqual(self.locate(port=5070, transports=ours), (Target("UDP", "192.0.2.1", 5070),))
        self.assertEqual(self.locate("192.0.2.5", transports=ours[:2]), (Target("TCP", "192.0.2.5", 5060),))
        for label, port in (("_sip._udp", 1), ("_sip._tcp", 2), ("_sips._tcp", 3)):
            self.names.put(f"{label}.pbx.example", dns.Record_SRV(1, 1, port, "a.example"))
        found = [(place.transport, place.port) for place in self.locate(transports=ours)]
        self.assertEqual(found, [("TLS", 3), ("TCP", 2), ("UDP", 1)])
        self.assertEqual([place.port for place in self.locate(transport="TCP", transports=ours)], [2])

    def test_not_served(self) -> None:
        """A target of "." says that this is not served: then the host itself is asked."""
        self.names.put("_sip._udp.pbx.example", dns.Record_SRV(0, 0, 0, b""))
        self.assertEqual(self.locate(), (Target("UDP", "192.0.2.1", 5060),))

    def test_both_families(self) -> None:
        """With IPv6 sockets the IPv6 addresses come after the others."""
        self.names.put("pbx.example", dns.Record_AAAA("2001:db8::1"))
        found = self.locate(families=(4, 6))
        self.assertEqual([target.host for target in found], ["192.0.2.1", "2001:db8::1"])

    def test_stubborn_name_server(self) -> None:
        """A name server that cannot or will not answer NAPTR and SRV is no obstacle."""
        for error in (DNSNotImplementedError(), DNSServerError(), DNSQueryTimeoutError(1)):
            self.names.records["pbx.example", dns.NAPTR] = error
            self.names.records["_sip._udp.pbx.example", dns.SRV] = error
            self.assertEqual(self.locate(), (Target("UDP", "192.0.2.1", 5060),))

    def test_nothing(self) -> None:
        """No address, and a name server that does not answer, are told apart."""
        self.assertIn("no address", self.words("nobody.example"))
        self.names.records["silent.example", dns.A] = DNSQueryTimeoutError(1)
        self.assertIn("name server does not answer", self.words("silent.example"))
