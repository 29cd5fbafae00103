"""The four transaction machines, alone: what they send and when, and that no input surprises them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, get_type_hints

from automat import NoTransition
from twisted.trial.unittest import SynchronousTestCase

from extenbot.sip import invite, noninvite
from extenbot.sip.message import Response
from extenbot.sip.timers import Timers
from tests.clock import Clock
from tests.sip.wire import FLOW

Sent = list[tuple[float, bytes]]


class Bench:
    """A clock, what was sent, and what was told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.sent: Sent = []
        self.told: list[object] = []

    def send(self, data: bytes = b"request") -> None:
        self.sent.append((self.clock.seconds(), data))

    def tell(self, what: object) -> Callable[[], None]:
        return lambda: self.told.append(what)

    def run(self, seconds: float) -> None:
        self.clock.pump([0.125] * round(seconds / 0.125))

    def invite_client(self, reliable: bool = False) -> invite.InviteClient:
        core = invite.InviteClientCore(
            self.send,
            lambda: self.send(b"CANCEL"),
            lambda response: self.send(b"ACK"),
            Timers(self.clock),
            reliable,
            lambda response, flow: self.told.append(response.code),
            self.told.append,
            self.tell("ended"),
        )
        return invite.invite_client(core)

    def invite(self, reliable: bool = False) -> invite.InviteServer:
        core = invite.InviteServerCore(self.send, Timers(self.clock), reliable, self.tell("failed"), self.tell("ended"))
        return invite.invite_server(core)

    def server(self, reliable: bool = False) -> noninvite.Server:
        return noninvite.server(noninvite.ServerCore(self.send, Timers(self.clock), reliable, self.tell("ended")))

    def client(self, reliable: bool = False) -> noninvite.Client:
        return noninvite.client(
            noninvite.ClientCore(
                self.send,
                Timers(self.clock),
                reliable,
                lambda response: self.told.append(response.code),
                self.tell("unanswered"),
                self.tell("ended"),
            )
        )


class InviteServer(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()
        self.machine = self.bench.invite()

    def test_refused_and_acknowledged(self) -> None:
        """A refusal is repeated at T1 doubling to T2 until the ACK; then copies of the ACK are absorbed for T4."""
        self.machine.provisional(b"100")
        self.machine.repeated()
        self.bench.run(1)
        self.machine.refused(b"486")
        self.bench.run(8)
        self.machine.repeated()
        self.machine.acknowledged(self.bench.tell("passed on"))
        self.machine.repeated()
        self.machine.acknowledged(self.bench.tell("passed on"))
        self.bench.run(4.875)
        self.assertEqual(self.bench.told, [])
        self.bench.run(0.125)
        self.assertEqual(
            self.bench.sent,
            [
                (0, b"100"),
                (0, b"100"),
                (1, b"486"),
                (1.5, b"486"),
                (2.5, b"486"),
                (4.5, b"486"),
                (8.5, b"486"),
                (9, b"486"),
            ],
        )
        self.assertEqual(self.bench.told, ["ended"])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_never_acknowledged(self) -> None:
        """Without an ACK a refusal is given up after 32 s."""
        self.machine.refused(b"486")
        self.bench.run(40)
        self.assertEqual([at for at, _ in self.bench.sent], [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5])
        self.assertEqual(self.bench.told, ["ended", "failed"])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_accepted(self) -> None:
        """A 2xx is not repeated by the machine, late INVITEs are absorbed, ACKs go to the user (RFC 6026)."""
        self.machine.provisional(b"180")
        self.machine.accepted(b"200")
        self.machine.repeated()
        self.bench.run(1)
        self.machine.accepted(b"200")
        self.machine.refused(b"500")
        self.machine.acknowledged(self.bench.tell("passed on"))
        self.bench.run(31)
        self.assertEqual(self.bench.sent, [(0, b"180"), (0, b"200"), (1, b"200")])
        self.assertEqual(self.bench.told, ["passed on", "ended"])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_reliable(self) -> None:
        """Over TCP a refusal is sent once and the ACK ends it."""
        machine = self.bench.invite(reliable=True)
        machine.refused(b"486")
        self.bench.run(30)
        machine.acknowledged(self.bench.tell("passed on"))
        self.bench.run(0.125)
        self.assertEqual(self.bench.sent, [(0, b"486")])
        self.assertEqual(self.bench.told, ["ended"])


class InviteClient(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()
        self.machine = self.bench.invite_client()
        self.machine.start()

    def times(self, data: bytes = b"request") -> list[float]:
        return [at for at, sent in self.bench.sent if sent == data]

    def ended(self, *told: object) -> None:
        """What was told, and nothing is left."""
        self.assertEqual(self.bench.told, [*told])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_unanswered(self) -> None:
        """The INVITE is repeated at T1 doubling without a limit, and given up after 32 s."""
        self.bench.run(31.875)
        self.assertEqual(self.bench.told, [])
        self.bench.run(10)
        self.assertEqual(self.times(), [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5])
        self.ended("ended", 408)

    def test_ringing(self) -> None:
        """From the first 1xx on nothing is repeated and nothing is too late; 100 is not told."""
        self.bench.run(1)
        self.machine.provisional(Response(100), FLOW)
        self.bench.run(100)
        self.machine.provisional(Response(180), FLOW)
        self.machine.provisional(Response(180), FLOW)
        self.assertEqual(self.times(), [0, 0.5])
        self.assertEqual((self.bench.told, self.bench.clock.getDelayedCalls()), ([180, 180], []))

    def test_accepted(self) -> None:
        """Every 2xx is told for 32 s, and none is acknowledged here (RFC 6026 7.2)."""
        self.machine.accepted(Response(200), FLOW)
        self.bench.run(31.875)
        self.machine.accepted(Response(202), FLOW)
        self.machine.refused(Response(486), FLOW)
        self.machine.provisional(Response(180), FLOW)
        self.bench.run(0.125)
        self.machine.accepted(Response(200), FLOW)
        self.assertEqual(self.bench.sent, [(0, b"request")])
        self.ended(200, 202, "ended")

    def test_refused(self) -> None:
        """A refusal is told once; each copy of it gets the ACK for 32 s."""
        self.machine.provisional(Response(180), FLOW)
        self.machine.refused(Response(486), FLOW)
        self.bench.run(31.875)
        self.machine.refused(Response(486), FLOW)
        self.bench.run(0.125)
        self.machine.refused(Response(486), FLOW)
        self.assertEqual(self.times(b"ACK"), [0, 31.875])
        self.ended(180, 486, "ended")

    def test_accepted_after_refusal(self) -> None:
        """A 2xx that a proxy lets through after a refusal is told: somebody must end that call (RFC 3261 16.7)."""
        self.machine.refused(Response(486), FLOW)
        self.bench.run(1)
        self.machine.accepted(Response(200), FLOW)
        self.bench.run(31)
        self.ended(486, 200, "ended")

    def test_cancelled(self) -> None:
        """CANCEL goes out at once when it rings, and 487 is the end of it."""
        self.machine.provisional(Response(180), FLOW)
        self.bench.run(1)
        self.machine.cancel()
        self.machine.cancel()
        self.machine.provisional(Response(183), FLOW)
        self.bench.run(1)
        self.machine.refused(Response(487), FLOW)
        self.bench.run(32)
        self.assertEqual(self.bench.sent, [(0, b"request"), (1, b"CANCEL"), (2, b"ACK")])
        self.ended(180, 183, 487, "ended")

    def test_cancelled_too_soon(self) -> None:
        """CANCEL waits for the first 1xx, while the INVITE is still repeated (RFC 3261 9.1)."""
        self.machine.cancel()
        self.bench.run(2)
        self.machine.provisional(Response(100), FLOW)
        self.bench.run(1)
        self.machine.refused(Response(487), FLOW)
        self.assertEqual((self.times(), self.times(b"CANCEL"), self.times(b"ACK")), ([0, 0.5, 1.5], [2], [3]))

    def test_cancelled_and_unanswered(self) -> None:
        """Who never said a word gets no CANCEL."""
        self.machine.cancel()
        self.bench.run(40)
        self.assertEqual((len(self.times()), self.times(b"CANCEL")), (7, []))
        self.ended("ended", 408)

    def test_cancelled_and_unheard(self) -> None:
        """Without a word on the INVITE for 32 s after CANCEL it counts as cancelled; a late 2xx is still told."""
        self.machine.provisional(Response(180), FLOW)
        self.machine.cancel()
        self.bench.run(31.875)
        self.assertEqual(self.bench.told, [180])
        self.bench.run(0.125)
        self.assertEqual(self.bench.told, [180, 487])
        self.machine.refused(Response(487), FLOW)
        self.bench.run(31.875)
        self.machine.accepted(Response(200), FLOW)
        self.bench.run(0.125)
        self.assertEqual(self.times(b"ACK"), [32])
        self.ended(180, 487, 200, "ended")

    def test_cancel_crosses_answer(self) -> None:
        """A 2xx that was quicker than CANCEL is told, after a CANCEL that waits too."""
        for early in (False, True):
            self.setUp()
            if not early:
                self.machine.provisional(Response(180), FLOW)
            self.machine.cancel()
            self.machine.accepted(Response(200), FLOW)
            self.machine.cancel()
            self.bench.run(32)
            self.assertEqual((self.times(b"CANCEL"), self.bench.told[-2:]), ([] if early else [0], [200, "ended"]))

    def test_reliable(self) -> None:
        """Over TCP nothing is repeated, and a refusal ends it at once."""
        bench = Bench()
        machine = bench.invite_client(reliable=True)
        machine.start()
        bench.run(31)
        machine.refused(Response(486), FLOW)
        bench.run(0.125)
        self.assertEqual((bench.sent, bench.told), ([(0, b"request"), (31, b"ACK")], [486, "ended"]))
        self.assertEqual(bench.clock.getDelayedCalls(), [])


class NonInvite(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    def test_server(self) -> None:
        """Copies get the last answer again, for 32 s after the final one."""
        machine = self.bench.server()
        machine.repeated()
        machine.provisional(b"100")
        machine.repeated()
        machine.final(b"200")
        machine.final(b"500")
        self.bench.run(31.875)
        machine.repeated()
        self.assertEqual(self.bench.told, [])
        self.bench.run(0.125)
        machine.repeated()
        self.assertEqual(self.bench.sent, [(0, b"100"), (0, b"100"), (0, b"200"), (31.875, b"200")])
        self.assertEqual(self.bench.told, ["ended"])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_client_unanswered(self) -> None:
        """A request is repeated at T1 doubling to T2, and given up after 32 s."""
        self.bench.client().start()
        self.bench.run(40)
        self.assertEqual([at for at, _ in self.bench.sent], [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5])
        self.assertEqual(self.bench.told, ["ended", "unanswered"])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_client_answered(self) -> None:
        """After a 1xx it is repeated every T2; the final response comes once, copies of it are absorbed for T4."""
        machine = self.bench.client()
        machine.start()
        self.bench.run(1)
        machine.provisional()
        machine.provisional()
        self.bench.run(9)
        machine.final(Response(200))
        machine.final(Response(200))
        self.bench.run(5)
        self.assertEqual([at for at, _ in self.bench.sent], [0, 0.5, 1.5, 5.5, 9.5])
        self.assertEqual(self.bench.told, [200, "ended"])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])


class Complete(SynchronousTestCase):
    """Whatever input comes in whatever state, the machine knows it, or it cannot come there."""

    CANNOT: ClassVar = {
        "InviteServer": {
            ("timer_g", "proceeding"), ("timer_h", "proceeding"), ("over", "proceeding"),
            ("timer_g", "accepted"), ("timer_h", "accepted"),
            ("over", "completed"),
            ("timer_g", "confirmed"), ("timer_h", "confirmed"),
            ("timer_g", "terminated"), ("timer_h", "terminated"), ("over", "terminated"),
        },
        "InviteClient": {
            *((name, "idle") for name in (
                "provisional", "accepted", "refused", "cancel", "timer_a", "timer_b", "unheard", "over"
            )),
            *((name, state) for name in ("start", "unheard", "over") for state in ("calling", "abandoned")),
            *((name, "proceeding") for name in ("start", "timer_a", "timer_b", "unheard", "over")),
            *((name, "cancelling") for name in ("start", "timer_a", "timer_b", "over")),
            *((name, "accepted") for name in ("start", "timer_a", "timer_b", "unheard")),
            *((name, "completed") for name in ("start", "timer_a", "timer_b", "unheard")),
            *((name, "terminated") for name in ("start", "timer_a", "timer_b", "unheard", "over")),
        },
        "Server": {("timer_j", "trying"), ("timer_j", "proceeding"), ("timer_j", "terminated")},
        "Client": {
            ("provisional", "idle"), ("final", "idle"), ("timer_e", "idle"), ("timer_f", "idle"), ("timer_k", "idle"),
            ("start", "trying"), ("timer_k", "trying"),
            ("start", "proceeding"), ("timer_k", "proceeding"),
            ("start", "completed"), ("timer_e", "completed"), ("timer_f", "completed"),
            ("start", "terminated"), ("timer_e", "terminated"), ("timer_f", "terminated"), ("timer_k", "terminated"),
        },
    }  # fmt: skip

    def walk(self, protocol: type, make: Callable[[], Any], paths: dict[str, list[str]]) -> None:
        arguments: dict[str, tuple[object, ...]] = {
            "data": (b"x",), "response": (Response(200),), "pass_on": (lambda: None,), "flow": (FLOW,),
        }  # fmt: skip
        inputs = {
            name: sum((arguments.get(word, ()) for word in get_type_hints(call)), ())
            for name, call in vars(protocol).items()
            if callable(call) and not name.startswith("_")
        }
        surprises = set()
        for state, path in paths.items():
            for name, given in inputs.items():
                machine = make()
                for step in path:
                    getattr(machine, step)(*inputs[step])
                try:
                    getattr(machine, name)(*given)
                except NoTransition:
                    surprises.add((name, state))
        self.assertEqual(surprises, self.CANNOT[protocol.__name__])

    def test_invite_server(self) -> None:
        """The INVITE server machine."""
        self.walk(
            invite.InviteServer,
            lambda: Bench().invite(),
            {
                "proceeding": [],
                "accepted": ["accepted"],
                "completed": ["refused"],
                "confirmed": ["refused", "acknowledged"],
                "terminated": ["stop"],
            },
        )

    def test_invite_client(self) -> None:
        """The INVITE client machine."""
        self.walk(
            invite.InviteClient,
            lambda: Bench().invite_client(),
            {
                "idle": [],
                "calling": ["start"],
                "abandoned": ["start", "cancel"],
                "proceeding": ["start", "provisional"],
                "cancelling": ["start", "provisional", "cancel"],
                "accepted": ["start", "accepted"],
                "completed": ["start", "refused"],
                "terminated": ["stop"],
            },
        )

    def test_server(self) -> None:
        """The server machine of other methods."""
        paths = {"trying": [], "proceeding": ["provisional"], "completed": ["final"], "terminated": ["stop"]}
        self.walk(noninvite.Server, lambda: Bench().server(), paths)

    def test_client(self) -> None:
        """The client machine of other methods."""
        self.walk(
            noninvite.Client,
            lambda: Bench().client(),
            {
                "idle": [],
                "trying": ["start"],
                "proceeding": ["start", "provisional"],
                "completed": ["start", "final"],
                "terminated": ["stop"],
            },
        )
