"""The INVITE server transaction (RFC 3261 17.2.1 with the Accepted state of RFC 6026 7.1).

Its user hands in responses as bytes and says of which class they are; the machine repeats what must be
repeated until the ACK of a refusal comes. The 2xx is different: its user repeats that until the ACK
(RFC 3261 13.3.1.4), while the machine only keeps the transaction alive (Accepted), so that a late
INVITE is not taken for a new one. 100 is sent by who makes the machine.

        INVITE → Proceeding ──2xx──→ Accepted ────────── L ──┐
                     └──300-699──→ Completed ─ACK→ Confirmed ─ I → Terminated
                                       └──────── H, no ACK ───────┘
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from automat import TypeMachineBuilder

from extenbot.sip.timers import LONG, T1, T2, T4, Timers


class InviteServer(Protocol):
    """What may happen to the transaction."""

    def repeated(self) -> None:
        """The INVITE came again."""

    def provisional(self, data: bytes) -> None:
        """The user sends 1xx."""

    def accepted(self, data: bytes) -> None:
        """The user sends a 2xx, or the same once more."""

    def refused(self, data: bytes) -> None:
        """The user sends 300 to 699."""

    def acknowledged(self, pass_on: Callable[[], None], /) -> None:
        """An ACK with the INVITE's branch came; `pass_on` gives it to the user."""

    def timer_g(self) -> None:
        """Timer G."""

    def timer_h(self) -> None:
        """Timer H."""

    def over(self) -> None:
        """Timers I and L."""

    def stop(self) -> None:
        """The service stops."""


@dataclass
class InviteServerCore:
    """What the machine works with; `ended` is called once, at Terminated."""

    send: Callable[[bytes], None]
    timers: Timers
    reliable: bool
    failed: Callable[[], None]
    ended: Callable[[], None]
    last: bytes = field(default=b"", repr=False)
    wait: float = T1

    def say(self, data: bytes) -> None:
        self.last = data
        self.send(data)


def _build() -> Callable[[InviteServerCore], InviteServer]:
    builder = TypeMachineBuilder(InviteServer, InviteServerCore)
    proceeding = builder.state("proceeding")  # RFC 3261 17.2.1: the user has not decided
    accepted = builder.state("accepted")  # RFC 6026 7.1: a 2xx was sent
    completed = builder.state("completed")  # RFC 3261 17.2.1: refused, waiting for ACK
    confirmed = builder.state("confirmed")  # RFC 3261 17.2.1: absorbing further ACKs
    terminated = builder.state("terminated")

    @proceeding.upon(InviteServer.repeated).loop()
    @completed.upon(InviteServer.repeated).loop()
    def repeat(_machine: InviteServer, core: InviteServerCore) -> None:
        if core.last:
            core.send(core.last)

    @proceeding.upon(InviteServer.provisional).loop()
    def tell(_machine: InviteServer, core: InviteServerCore, data: bytes) -> None:
        core.say(data)

    @proceeding.upon(InviteServer.accepted).to(accepted)
    def accept(machine: InviteServer, core: InviteServerCore, data: bytes) -> None:
        core.timers.enter((LONG, machine.over))  # timer L
        core.say(data)

    @accepted.upon(InviteServer.accepted).loop()
    def accept_again(_machine: InviteServer, core: InviteServerCore, data: bytes) -> None:
        core.send(data)

    @accepted.upon(InviteServer.acknowledged).loop()
    def pass_ack(_machine: InviteServer, _core: InviteServerCore, pass_on: Callable[[], None]) -> None:
        pass_on()

    @proceeding.upon(InviteServer.refused).to(completed)
    def refuse(machine: InviteServer, core: InviteServerCore, data: bytes) -> None:
        core.timers.enter((LONG, machine.timer_h))  # timer H
        if not core.reliable:
            core.timers.again(core.wait, machine.timer_g)  # timer G
        core.say(data)

    @completed.upon(InviteServer.timer_g).loop()
    def refuse_again(machine: InviteServer, core: InviteServerCore) -> None:
        core.wait = min(2 * core.wait, T2)
        core.timers.again(core.wait, machine.timer_g)
        core.send(core.last)

    @completed.upon(InviteServer.acknowledged).to(confirmed)
    def confirm(machine: InviteServer, core: InviteServerCore, _pass_on: Callable[[], None]) -> None:
        core.timers.enter((0.0 if core.reliable else T4, machine.over))  # timer I

    @completed.upon(InviteServer.timer_h).to(terminated)
    def fail(machine: InviteServer, core: InviteServerCore) -> None:
        end(machine, core)
        core.failed()

    @accepted.upon(InviteServer.over).to(terminated)
    @confirmed.upon(InviteServer.over).to(terminated)
    @proceeding.upon(InviteServer.stop).to(terminated)
    @accepted.upon(InviteServer.stop).to(terminated)
    @completed.upon(InviteServer.stop).to(terminated)
    @confirmed.upon(InviteServer.stop).to(terminated)
    def end(_machine: InviteServer, core: InviteServerCore) -> None:
        core.timers.enter()
        core.ended()

    # What changes nothing: copies that come late, and a user that speaks after its last word.
    proceeding.upon(InviteServer.acknowledged).loop().returns(None)
    for state in (accepted, confirmed, terminated):
        state.upon(InviteServer.repeated).loop().returns(None)
    for state in (accepted, completed, confirmed, terminated):
        state.upon(InviteServer.provisional).loop().returns(None)
        state.upon(InviteServer.refused).loop().returns(None)
    for state in (completed, confirmed, terminated):
        state.upon(InviteServer.accepted).loop().returns(None)
    for state in (confirmed, terminated):
        state.upon(InviteServer.acknowledged).loop().returns(None)
    terminated.upon(InviteServer.stop).loop().returns(None)
    return builder.build()


invite_server = _build()
