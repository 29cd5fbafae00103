"""The transactions of all methods but INVITE and ACK: server (RFC 3261 17.2.2) and client (RFC 3261 17.1.2).

server: request → Trying ─1xx→ Proceeding ─final→ Completed ─ J → Terminated
client: request → Trying ─1xx→ Proceeding ─final→ Completed ─ K → Terminated
                     └─────────┴── F, no answer ──────────────────→
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from automat import TypeMachineBuilder

from extenbot.sip.message import Response
from extenbot.sip.timers import LONG, T1, T2, T4, Timers


class Server(Protocol):
    """What may happen to a server transaction."""

    def repeated(self) -> None:
        """The request came again."""

    def provisional(self, data: bytes) -> None:
        """The user sends 1xx."""

    def final(self, data: bytes) -> None:
        """The user sends 200 to 699."""

    def timer_j(self) -> None:
        """Timer J."""

    def stop(self) -> None:
        """The service stops."""


@dataclass
class ServerCore:
    """What the machine works with; `ended` is called once, at Terminated."""

    send: Callable[[bytes], None]
    timers: Timers
    reliable: bool
    ended: Callable[[], None]
    last: bytes = field(default=b"", repr=False)

    def say(self, data: bytes) -> None:
        self.last = data
        self.send(data)


def _build_server() -> Callable[[ServerCore], Server]:
    builder = TypeMachineBuilder(Server, ServerCore)
    trying = builder.state("trying")  # RFC 3261 17.2.2: nothing was answered
    proceeding = builder.state("proceeding")  # RFC 3261 17.2.2: a 1xx was
    completed = builder.state("completed")  # RFC 3261 17.2.2: absorbing copies
    terminated = builder.state("terminated")

    @trying.upon(Server.provisional).to(proceeding)
    @proceeding.upon(Server.provisional).loop()
    def tell(_machine: Server, core: ServerCore, data: bytes) -> None:
        core.say(data)

    @trying.upon(Server.final).to(completed)
    @proceeding.upon(Server.final).to(completed)
    def complete(machine: Server, core: ServerCore, data: bytes) -> None:
        core.timers.enter((0.0 if core.reliable else LONG, machine.timer_j))  # timer J
        core.say(data)

    @proceeding.upon(Server.repeated).loop()
    @completed.upon(Server.repeated).loop()
    def repeat(_machine: Server, core: ServerCore) -> None:
        core.send(core.last)

    @completed.upon(Server.timer_j).to(terminated)
    @trying.upon(Server.stop).to(terminated)
    @proceeding.upon(Server.stop).to(terminated)
    @completed.upon(Server.stop).to(terminated)
    def end(_machine: Server, core: ServerCore) -> None:
        core.timers.enter()
        core.ended()

    # What changes nothing: copies, and a user that speaks after its last word (RFC 3261 17.2.2).
    for state in (trying, terminated):
        state.upon(Server.repeated).loop().returns(None)
    for state in (completed, terminated):
        state.upon(Server.provisional).loop().returns(None)
        state.upon(Server.final).loop().returns(None)
    terminated.upon(Server.stop).loop().returns(None)
    return builder.build()


class Client(Protocol):
    """What may happen to a client transaction."""

    def start(self) -> None:
        """Send the request for the first time."""

    def provisional(self) -> None:
        """A 1xx came."""

    def final(self, response: Response) -> None:
        """A 200 to 699 came."""

    def timer_e(self) -> None:
        """Timer E."""

    def timer_f(self) -> None:
        """Timer F."""

    def timer_k(self) -> None:
        """Timer K."""

    def stop(self) -> None:
        """The service stops."""


@dataclass
class ClientCore:
    """What the machine works with; one of `answered` and `unanswered` is called, and `ended` once after it."""

    send: Callable[[], None]
    timers: Timers
    reliable: bool
    answered: Callable[[Response], None]
    unanswered: Callable[[], None]
    ended: Callable[[], None]
    wait: float = T1


def _build_client() -> Callable[[ClientCore], Client]:
    builder = TypeMachineBuilder(Client, ClientCore)
    idle = builder.state("idle")
    trying = builder.state("trying")  # RFC 3261 17.1.2.2: sent
    proceeding = builder.state("proceeding")  # RFC 3261 17.1.2.2: a 1xx came
    completed = builder.state("completed")  # RFC 3261 17.1.2.2: absorbing copies
    terminated = builder.state("terminated")

    @idle.upon(Client.start).to(trying)
    def start(machine: Client, core: ClientCore) -> None:
        core.timers.enter((LONG, machine.timer_f))  # timer F
        if not core.reliable:
            core.timers.again(core.wait, machine.timer_e)  # timer E
        core.send()

    @trying.upon(Client.provisional).to(proceeding)
    def proceed(_machine: Client, _core: ClientCore) -> None:
        """Timers E and F run on; E's next wait is T2."""

    @trying.upon(Client.timer_e).loop()
    def send_again(machine: Client, core: ClientCore) -> None:
        core.wait = min(2 * core.wait, T2)
        core.timers.again(core.wait, machine.timer_e)
        core.send()

    @proceeding.upon(Client.timer_e).loop()
    def send_seldom(machine: Client, core: ClientCore) -> None:
        core.timers.again(T2, machine.timer_e)
        core.send()

    @trying.upon(Client.final).to(completed)
    @proceeding.upon(Client.final).to(completed)
    def complete(machine: Client, core: ClientCore, response: Response) -> None:
        core.timers.enter((0.0 if core.reliable else T4, machine.timer_k))  # timer K
        core.answered(response)

    @trying.upon(Client.timer_f).to(terminated)
    @proceeding.upon(Client.timer_f).to(terminated)
    def fail(machine: Client, core: ClientCore) -> None:
        end(machine, core)
        core.unanswered()

    @completed.upon(Client.timer_k).to(terminated)
    @idle.upon(Client.stop).to(terminated)
    @trying.upon(Client.stop).to(terminated)
    @proceeding.upon(Client.stop).to(terminated)
    @completed.upon(Client.stop).to(terminated)
    def end(_machine: Client, core: ClientCore) -> None:
        core.timers.enter()
        core.ended()

    # Copies of a response change nothing (RFC 3261 17.1.2.2).
    for state in (proceeding, completed, terminated):
        state.upon(Client.provisional).loop().returns(None)
    for state in (completed, terminated):
        state.upon(Client.final).loop().returns(None)
    terminated.upon(Client.stop).loop().returns(None)
    return builder.build()


server = _build_server()
client = _build_client()
