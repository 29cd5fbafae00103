"""The INVITE transactions: server (RFC 3261 17.2.1) and client (RFC 3261 17.1.1), with the Accepted state of RFC 6026.

The server's user hands in responses as bytes and says of which class they are; the machine repeats what must be
repeated until the ACK of a refusal comes. The 2xx is different: its user repeats that until the ACK
(RFC 3261 13.3.1.4), while the machine only keeps the transaction alive (Accepted), so that a late
INVITE is not taken for a new one. 100 is sent by who makes the machine.

        INVITE → Proceeding ──2xx──→ Accepted ────────── L ──┐
                     └──300-699──→ Completed ─ACK→ Confirmed ─ I → Terminated
                                       └──────── H, no ACK ───────┘

The client's user gets every provisional response but 100, every 2xx, whoever sent it and however often, because
the ACK of a 2xx is the user's (RFC 3261 13.2.2.4), and one refusal, which the machine acknowledges. CANCEL may not
overtake the first provisional response (RFC 3261 9.1), so who cancels earlier waits in Abandoned.

        INVITE → Calling ──1xx──→ Proceeding ──2xx──→ Accepted ─── M ──┐
                    │ cancel          │ cancel           ↑ 2xx         │
                    ↓                 ↓                  │             ↓
                 Abandoned ──1xx──→ Cancelling ──300-699──→ Completed ─ D → Terminated

Not drawn: 2xx and 300-699 lead to Accepted and Completed from each of the four on the left; Calling and Abandoned
end with B when nobody answers; Cancelling is Completed after 64*T1 (RFC 3261 9.1). That state, and Completed at
large, still lets a 2xx through, although RFC 6026 does not say so: a proxy sends one on even after a refusal
(RFC 3261 16.7 step 5), and somebody must acknowledge it and hang up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from automat import TypeMachineBuilder

from extenbot.interfaces import Flow
from extenbot.sip.message import Response
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


def _build_server() -> Callable[[InviteServerCore], InviteServer]:
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


class InviteClient(Protocol):
    """What may happen to the transaction. The flow is the one that the response came on."""

    def start(self) -> None:
        """Send the INVITE for the first time."""

    def provisional(self, response: Response, flow: Flow) -> None:
        """A 1xx came."""

    def accepted(self, response: Response, flow: Flow) -> None:
        """A 2xx came, or one more."""

    def refused(self, response: Response, flow: Flow, /) -> None:
        """A 300 to 699 came."""

    def cancel(self) -> None:
        """The user no longer wants an answer."""

    def timer_a(self) -> None:
        """Timer A."""

    def timer_b(self) -> None:
        """Timer B."""

    def unheard(self) -> None:
        """Nobody said what became of the INVITE after CANCEL."""

    def over(self) -> None:
        """Timers D and M."""

    def stop(self) -> None:
        """The service stops."""


@dataclass
class InviteClientCore:
    """What the machine works with; `ended` is called once, at Terminated. `unanswered` gets the code: 408 or 487."""

    send: Callable[[], None]
    send_cancel: Callable[[], None]
    acknowledge: Callable[[Response], None]
    timers: Timers
    reliable: bool
    responded: Callable[[Response, Flow], None]
    unanswered: Callable[[int], None]
    ended: Callable[[], None]
    wait: float = T1


def _build_client() -> Callable[[InviteClientCore], InviteClient]:
    builder = TypeMachineBuilder(InviteClient, InviteClientCore)
    idle = builder.state("idle")
    calling = builder.state("calling")  # RFC 3261 17.1.1.2: sent
    abandoned = builder.state("abandoned")  # sent, and to be cancelled as soon as anybody has it
    proceeding = builder.state("proceeding")  # RFC 3261 17.1.1.2: a 1xx came
    cancelling = builder.state("cancelling")  # RFC 3261 9.1: CANCEL was sent
    accepted = builder.state("accepted")  # RFC 6026 7.2: a 2xx came
    completed = builder.state("completed")  # RFC 3261 17.1.1.2: refused, acknowledging copies
    terminated = builder.state("terminated")

    @idle.upon(InviteClient.start).to(calling)
    def start(machine: InviteClient, core: InviteClientCore) -> None:
        core.timers.enter((LONG, machine.timer_b))  # timer B
        if not core.reliable:
            core.timers.again(core.wait, machine.timer_a)  # timer A
        core.send()

    @calling.upon(InviteClient.timer_a).loop()
    @abandoned.upon(InviteClient.timer_a).loop()
    def send_again(machine: InviteClient, core: InviteClientCore) -> None:
        core.wait *= 2
        core.timers.again(core.wait, machine.timer_a)
        core.send()

    @calling.upon(InviteClient.cancel).to(abandoned)
    def abandon(_machine: InviteClient, _core: InviteClientCore) -> None:
        """Timers A and B run on."""

    @calling.upon(InviteClient.provisional).to(proceeding)
    @proceeding.upon(InviteClient.provisional).loop()
    def proceed(_machine: InviteClient, core: InviteClientCore, response: Response, flow: Flow) -> None:
        core.timers.enter()
        tell(core, response, flow)

    @cancelling.upon(InviteClient.provisional).loop()
    def proceed_still(_machine: InviteClient, core: InviteClientCore, response: Response, flow: Flow) -> None:
        tell(core, response, flow)

    @proceeding.upon(InviteClient.cancel).to(cancelling)
    def cancel(machine: InviteClient, core: InviteClientCore) -> None:
        core.timers.enter((LONG, machine.unheard))
        core.send_cancel()

    @abandoned.upon(InviteClient.provisional).to(cancelling)
    def cancel_now(machine: InviteClient, core: InviteClientCore, response: Response, flow: Flow) -> None:
        cancel(machine, core)
        tell(core, response, flow)

    @calling.upon(InviteClient.accepted).to(accepted)
    @abandoned.upon(InviteClient.accepted).to(accepted)
    @proceeding.upon(InviteClient.accepted).to(accepted)
    @cancelling.upon(InviteClient.accepted).to(accepted)
    def accept(machine: InviteClient, core: InviteClientCore, response: Response, flow: Flow) -> None:
        core.timers.enter((LONG, machine.over))  # timer M
        core.responded(response, flow)

    @accepted.upon(InviteClient.accepted).loop()
    @completed.upon(InviteClient.accepted).loop()
    def accept_again(_machine: InviteClient, core: InviteClientCore, response: Response, flow: Flow) -> None:
        core.responded(response, flow)

    @calling.upon(InviteClient.refused).to(completed)
    @abandoned.upon(InviteClient.refused).to(completed)
    @proceeding.upon(InviteClient.refused).to(completed)
    @cancelling.upon(InviteClient.refused).to(completed)
    def complete(machine: InviteClient, core: InviteClientCore, response: Response, flow: Flow) -> None:
        core.timers.enter((0.0 if core.reliable else LONG, machine.over))  # timer D
        core.acknowledge(response)
        core.responded(response, flow)

    @completed.upon(InviteClient.refused).loop()
    def acknowledge_again(_machine: InviteClient, core: InviteClientCore, response: Response, _flow: Flow) -> None:
        core.acknowledge(response)

    @cancelling.upon(InviteClient.unheard).to(completed)
    def give_up(machine: InviteClient, core: InviteClientCore) -> None:
        core.timers.enter((LONG, machine.over))
        core.unanswered(487)

    @calling.upon(InviteClient.timer_b).to(terminated)
    @abandoned.upon(InviteClient.timer_b).to(terminated)
    def fail(machine: InviteClient, core: InviteClientCore) -> None:
        end(machine, core)
        core.unanswered(408)

    @accepted.upon(InviteClient.over).to(terminated)
    @completed.upon(InviteClient.over).to(terminated)
    @idle.upon(InviteClient.stop).to(terminated)
    @calling.upon(InviteClient.stop).to(terminated)
    @abandoned.upon(InviteClient.stop).to(terminated)
    @proceeding.upon(InviteClient.stop).to(terminated)
    @cancelling.upon(InviteClient.stop).to(terminated)
    @accepted.upon(InviteClient.stop).to(terminated)
    @completed.upon(InviteClient.stop).to(terminated)
    def end(_machine: InviteClient, core: InviteClientCore) -> None:
        core.timers.enter()
        core.ended()

    def tell(core: InviteClientCore, response: Response, flow: Flow) -> None:
        """RFC 3261 17.1.1.2: 100 is from the next hop only and says nothing to the user."""
        if response.code > 100:
            core.responded(response, flow)

    # What changes nothing: what comes late, and a user who cancels twice or too late.
    for state in (accepted, completed, terminated):
        state.upon(InviteClient.provisional).loop().returns(None)
    for state in (accepted, terminated):
        state.upon(InviteClient.refused).loop().returns(None)
    for state in (abandoned, cancelling, accepted, completed, terminated):
        state.upon(InviteClient.cancel).loop().returns(None)
    terminated.upon(InviteClient.accepted).loop().returns(None)
    terminated.upon(InviteClient.stop).loop().returns(None)
    return builder.build()


invite_server = _build_server()
invite_client = _build_client()
