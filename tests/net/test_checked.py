"""Which addresses connections really go to, whatever the names of owners' servers mean."""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from extenbot.errors import ToolFailed
from extenbot.interfaces import Exchange
from extenbot.net.outside import Http
from extenbot.settings import Tools


@implementer(IHostnameResolver)
class Names:
    """What each name means, one answer after the other; addresses mean themselves, as for the system's resolver."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *_: Any, **__: Any) -> Any:
        receiver, name, port = resolutionReceiver, hostName, portNumber
        self.asked.append(name)
        receiver.resolutionBegan(self)
        waiting = self.answers.get(name.partition(".")[0], [[name]])
        for each in waiting.pop(0) if len(waiting) > 1 else waiting[0]:
            kind = IPv6Address if ":" in each else IPv4Address
            receiver.addressResolved(kind("TCP", each, port))
        receiver.resolutionComplete()
        return self

    def cancel(self) -> None: ...


@implementer(IReactorPluggableNameResolver)
class Machine(MemoryReactorClock):
    """Connects to nobody, but says to whom it would."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.nameResolver = names

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError

    @property
    def dialled(self) -> list[str]:
        return [each[0] for each in self.tcpClients]


class Guarded(SynchronousTestCase):
    def go(self, url: str, names: Names, allow: str = "") -> tuple[Machine, Any]:
        machine = Machine(names)
        self.notes: list[Exchange] = []
        networks = tuple(ipaddress.ip_network(each) for each in allow.split())
        http = Http(machine, Tools(allow=networks), machine.seconds)
        deferred = Deferred.fromCoroutine(http.fetch("b1", "POST", url, token="t", noted=self.notes.append))
        return machine, deferred

    def refused(self, url: str, names: Names, address: str, allow: str = "") -> None:
        machine, deferred = self.go(url, names, allow)
        words = str(self.failureResultOf(deferred, ToolFailed).value)
        wanted = f"its address {address} is private: the operator can name it in the setting [tools] allow"
        self.assertTrue(words.endswith(wanted), words)
        self.assertEqual((machine.dialled, machine.getDelayedCalls()), ([], []))
        self.assertEqual([note.trouble for note in self.notes], [wanted])

    def dials(self, url: str, names: Names, wanted: list[str], allow: str = "") -> None:
        machine, deferred = self.go(url, names, allow)
        deferred.addErrback(lambda _failure: None)
        machine.advance(3)  # happy eyeballs (RFC 8305): one address after the other
        self.assertEqual(machine.dialled, wanted)
        machine.advance(10)
        self.successResultOf(deferred)

    def test_private_names(self) -> None:
        """A name of a private address is refused, over http and https, with words for the operator."""
        for address in ("127.0.0.1", "10.0.0.5", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fd00::1"):
            for scheme in ("http", "https"):
                self.refused(f"{scheme}://inner.example.com/", Names(inner=[[address]]), address)

    def test_literals(self) -> None:
        """So are addresses in the URL, in every spelling: what counts is where the system would connect to."""
        for host, address in (
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
            ("[::]", "::"),
            ("0.0.0.0", "0.0.0.0"),
        ):
            self.refused(f"http://{host}:8080/", Names(), address)
        for host in ("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "localhost."):
            first = host.partition(".")[0]
            self.refused(f"http://{host}/", Names(**{first: [["127.0.0.1"]]}), "127.0.0.1")

    def test_rebinding(self) -> None:
        """A name that means a public address first and a private one then is asked once, and only that is dialled."""
        names = Names(twice=[["8.8.8.8"], ["127.0.0.1"]])
        self.dials("http://twice.example.com/", names, ["8.8.8.8"])
        self.assertEqual(names.asked, ["twice.example.com"])
        self.refused("http://twice.example.com/", names, "127.0.0.1")

    def test_mixed(self) -> None:
        """Of several addresses only the good ones are dialled."""
        names = Names(mixed=[["127.0.0.1", "8.8.8.8", "::1", "10.0.0.1", "9.9.9.9"]])
        self.dials("http://mixed.example.com/", names, ["8.8.8.8", "9.9.9.9"])

    def test_allowed(self) -> None:
        """What the operator allows is dialled, and nothing beside it."""
        names = Names(lan=[["10.1.0.5", "10.2.0.5"]])
        self.dials("http://lan.example.com/", names, ["10.1.0.5"], allow="10.1.0.0/16")
        self.refused("http://lan.example.com/", names, "10.1.0.5", allow="10.3.0.0/16")
        self.dials("http://[::1]/", Names(), ["::1"], allow="::1/128")

    def test_unknown(self) -> None:
        """A name without any address is unknown, not private."""
        _, deferred = self.go("http://none.example.com/", Names(none=[[]]))
        words = str(self.failureResultOf(deferred, ToolFailed).value)
        self.assertEqual(words, "the server none.example.com cannot be used: its host name is not known")
