"""Whose audio is heard and where ours goes: every kind of source in every state, and what others try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Address
from extenbot.media.latch import MOST_PROVEN, PERSISTENT, QUIET, TAKE_OVER, UNPROVEN_MS, Latch

PBX = "203.0.113.5"  # where the signalling comes from
SERVER: Address = ("198.51.100.9", 4000)  # its media server, in the SDP
PRIVATE: Address = ("192.168.1.20", 4000)  # a phone's own idea of its address, in the SDP
STRANGER: Address = ("192.0.2.66", 5000)
NEVER = 0


class Sender:
    """One RTP stream."""

    def __init__(self, latch: Latch, source: Address, ssrc: int = 1) -> None:
        self.latch, self.source, self.ssrc = latch, source, ssrc
        self.sequence, self.timestamp = 65530, 0xFFFFFF00

    def say(self, now: float, *, authentic: bool = False) -> bool:
        """Send a packet; whether it is heard. What the line does with a latch."""
        latch = self.latch
        heard = self.source == latch.source or latch.admits(
            self.source, self.ssrc, self.sequence, self.timestamp, now, authentic=authentic
        )
        if heard:
            latch.heard_at = now
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp = (self.timestamp + 160) & 0xFFFFFFFF
        return heard


class Each(SynchronousTestCase):
    """How many packets in a row it takes until our audio goes to their source; NEVER within two seconds."""

    def latched(self, remote: Address, state: str) -> tuple[Latch, Sender | None, float]:
        """A latch in a state, who still sends there, and the time."""
        latch = Latch(PBX, remote)
        now = 10.0
        if state == "fresh":
            return latch, None, now
        by, _, then = state.partition(", ")
        first = Sender(latch, {"pbx": (PBX, 61000), "named": remote, "persistent": ("192.0.2.99", 9)}[by], ssrc=9)
        for _ in range(PERSISTENT):
            first.say(now)
            now += 0.02
        self.assertEqual(latch.source, first.source)
        if then == "moved":
            self.assertTrue(latch.move((remote[0], remote[1] + 100), now))
        return latch, first if then == "alive" else None, now if then in ("alive", "moved") else now + QUIET

    def packets(self, remote: Address, state: str, source: Address) -> int:
        latch, other, now = self.latched(remote, state)
        sender = Sender(latch, source)
        for count in range(1, 101):
            if other is not None:
                other.say(now)
            sender.say(now)
            now += 0.02
            if latch.source == source:
                self.assertEqual(latch.target, source)
                return count
        return NEVER

    def check(self, remote: Address, table: dict[str, tuple[int, int, int, int]]) -> None:
        for state, row in table.items():
            moved = (remote[0], remote[1] + 100) if state.endswith("moved") else remote
            for source, wanted in zip((moved, (remote[0], 7), (PBX, 62000), STRANGER), row, strict=True):
                self.assertEqual(self.packets(remote, state, source), wanted, (state, source))

    def test_beside(self) -> None:
        """A PBX whose packets leave by another of its addresses is heard after a while, and gets nothing there."""
        for remote, beside in ((SERVER, ("198.51.100.77", 9000)), (SERVER, ("203.0.113.99", 9000))):
            latch, now = Latch(PBX, remote), 10.0
            sender = Sender(latch, beside)
            heard = [sender.say(now + 0.02 * count) for count in range(20)]
            self.assertEqual(heard.index(True), PERSISTENT - 1)
            self.assertEqual((latch.source, latch.target), (beside, remote))
            self.assertEqual(latch.unproven, beside[0][:10] != remote[0][:10])
            true = Sender(latch, remote, ssrc=2)
            taken = [true.say(now + 0.5 + 0.02 * count) for count in range(5)]
            self.assertEqual(taken.index(True), TAKE_OVER - 1)
            self.assertEqual((latch.source, latch.target), (remote, remote))
            self.assertFalse(sender.say(now + 1))

    def test_beside_somebody_who_speaks(self) -> None:
        """While the named host speaks nobody beside it is heard."""
        latch = Latch(PBX, SERVER)
        true, other = Sender(latch, SERVER), Sender(latch, ("198.51.100.77", 9000), ssrc=2)
        for count in range(100):
            self.assertTrue(true.say(10 + 0.02 * count))
            self.assertFalse(other.say(10.01 + 0.02 * count))

    def test_public(self) -> None:
        """The SDP names a public media server: it and the PBX are heard, a stranger never."""
        self.check(
            SERVER,
            {  #                  the address, its host, the PBX's host, a stranger
                "fresh": (1, 1, 1, NEVER),
                "pbx, alive": (TAKE_OVER, NEVER, NEVER, NEVER),
                "pbx, quiet": (TAKE_OVER, TAKE_OVER, TAKE_OVER, NEVER),
                "pbx, moved": (TAKE_OVER, TAKE_OVER, TAKE_OVER, NEVER),
                "named, alive": (1, NEVER, NEVER, NEVER),
                "named, quiet": (1, TAKE_OVER, TAKE_OVER, NEVER),
                "named, moved": (TAKE_OVER, TAKE_OVER, TAKE_OVER, NEVER),
            },
        )

    def test_private(self) -> None:
        """The SDP names a private address behind a public PBX: then a persistent stranger is its phone."""
        self.check(
            PRIVATE,
            {
                "fresh": (1, 1, 1, PERSISTENT),
                "pbx, alive": (TAKE_OVER, NEVER, NEVER, NEVER),
                "pbx, quiet": (TAKE_OVER, TAKE_OVER, TAKE_OVER, NEVER),
                "pbx, moved": (TAKE_OVER, TAKE_OVER, TAKE_OVER, PERSISTENT),
                "named, alive": (1, NEVER, NEVER, NEVER),
                "named, quiet": (1, TAKE_OVER, TAKE_OVER, NEVER),
                "named, moved": (TAKE_OVER, TAKE_OVER, TAKE_OVER, PERSISTENT),
                "persistent, alive": (TAKE_OVER, TAKE_OVER, TAKE_OVER, NEVER),
                "persistent, quiet": (TAKE_OVER, TAKE_OVER, TAKE_OVER, PERSISTENT),
                "persistent, moved": (TAKE_OVER, TAKE_OVER, TAKE_OVER, PERSISTENT),
            },
        )

    def test_same_network(self) -> None:
        """PBX and phone in one private network see each other: a stranger's persistence means nothing."""
        for signaller, remote in (("192.168.1.1", PRIVATE), ("10.0.0.1", PRIVATE), (PBX, None), ("", PRIVATE)):
            latch = Latch(signaller, remote)
            stranger = Sender(latch, STRANGER)
            self.assertFalse(any(stranger.say(n * 0.02) for n in range(200)), (signaller, remote))
            self.assertEqual(latch.target, remote)

    def test_authentic(self) -> None:
        """Under SRTP who has the key is heard from anywhere, at the first packet."""
        latch = Latch(PBX, SERVER)
        self.assertTrue(Sender(latch, STRANGER).say(0.0, authentic=True))
        self.assertEqual(latch.target, STRANGER)


class Others(SynchronousTestCase):
    def test_broken_rows(self) -> None:
        """A stranger's persistence is one stream whose sequence and time both grow without a gap."""
        for sequence, timestamp, ssrc in ((2, 160, 0), (1, 0, 0), (1, -160, 0), (0, 160, 0), (1, 160, 1)):
            latch = Latch(PBX, PRIVATE)
            heard = [
                latch.admits(STRANGER, n * ssrc, n * sequence & 0xFFFF, n * timestamp & 0xFFFFFFFF, n * 0.02)
                for n in range(100)
            ]
            self.assertFalse(any(heard), (sequence, timestamp, ssrc))

    def test_strangers_do_not_disturb(self) -> None:
        """Packets thrown in between cannot keep those who have earned it from taking over."""
        latch = Latch(PBX, PRIVATE)
        pbx, phone, stranger = Sender(latch, (PBX, 1)), Sender(latch, (PBX, 2)), Sender(latch, STRANGER)
        pbx.say(0.0)
        latch.move((PRIVATE[0], 7), 0.5)  # direct media: now a stranger could be the phone
        for n in range(TAKE_OVER):
            stranger.say(1 + n * 0.02)
            phone.say(1 + n * 0.02)
        self.assertEqual(latch.target, phone.source)

    def test_old_source(self) -> None:
        """After a move what the old source had on the way is heard, and only going on brings our audio back to it."""
        latch = Latch(PBX, SERVER)
        pbx = Sender(latch, (PBX, 61000))
        pbx.say(0.0)
        latch.move(("198.51.100.77", 4), 1.0)
        self.assertTrue(all(pbx.say(1.0 + n * 0.02) for n in range(30)))
        self.assertEqual(latch.target, pbx.source)
        latch = Latch(PBX, SERVER)
        pbx = Sender(latch, (PBX, 61000))
        pbx.say(0.0)
        latch.move(("198.51.100.77", 4), 1.0)
        self.assertTrue(all(pbx.say(1.0 + n * 0.02) for n in range(25)))
        self.assertEqual(latch.target, ("198.51.100.77", 4))

    def test_persistence_is_not_inherited(self) -> None:
        """A phone that was only persistent has no claim once the signalling has moved the media elsewhere."""
        latch = Latch(PBX, PRIVATE)
        phone = Sender(latch, STRANGER)
        for n in range(PERSISTENT):
            phone.say(n * 0.02)
        self.assertEqual(latch.target, STRANGER)
        latch.move(SERVER, 1.0)
        self.assertTrue(phone.say(1.1))
        self.assertFalse(any(phone.say(1.0 + QUIET + n * 0.02) for n in range(100)))
        self.assertEqual(latch.target, SERVER)

    def test_answered_elsewhere(self) -> None:
        """A call of ours is answered from another host than it was sent to: that one has earned it from then on."""
        latch = Latch(PBX, None)
        other: Address = ("198.51.100.50", 61000)
        self.assertFalse(Sender(latch, other).say(0.0))
        latch.signalled(other[0])
        latch.move(PRIVATE, 0.1)
        self.assertEqual((latch.target, latch.unproven), ((other[0], PRIVATE[1]), False))
        self.assertTrue(Sender(latch, other).say(0.2))
        latch.signalled("198.51.100.51")
        self.assertEqual(latch.target, other)

    def test_same_words(self) -> None:
        """A refresh, or a hold without an address, moves nothing."""
        latch = Latch(PBX, SERVER)
        Sender(latch, (PBX, 1)).say(0.0)
        for remote in (SERVER, None):
            self.assertFalse(latch.move(remote, 1.0))
            self.assertEqual(latch.target, (PBX, 1))

    @given(
        st.lists(
            st.tuples(st.sampled_from([SERVER, PRIVATE, STRANGER, (PBX, 1), (PBX, 2)]), st.integers(1, 40)), max_size=20
        )
    )
    def test_never_a_stranger(self, rows: list[tuple[Address, int]]) -> None:
        """However they send, our audio goes to hosts that the signalling named, or to its own."""
        latch, now = Latch(PBX, SERVER), 0.0
        for source, count in rows:
            sender = Sender(latch, source)
            for _ in range(count):
                sender.say(now)
                now += 0.02
                assert latch.target is not None
                self.assertIn(latch.target[0], (PBX, SERVER[0]))


class Unproven(SynchronousTestCase):
    def test_signalling(self) -> None:
        """The host of the signalling has proven itself by its digest."""
        self.assertFalse(Latch(PBX, (PBX, 4000)).unproven)

    def test_private_is_guessed(self) -> None:
        """Audio for a private address behind a public PBX goes to the PBX's host until somebody is heard."""
        latch = Latch(PBX, PRIVATE)
        self.assertEqual((latch.target, latch.unproven), ((PBX, PRIVATE[1]), False))
        for signaller, remote in ((PBX, ("127.0.0.1", 9)), ("10.0.0.1", ("127.0.0.1", 9)), (PBX, ("169.254.1.1", 9))):
            self.assertEqual(Latch(signaller, remote).target, (signaller, 9))
        self.assertEqual(Latch("2001:db8::1", ("fd00::9", 9)).target, ("2001:db8::1", 9))
        self.assertEqual(Latch("2001:db8::1", PRIVATE).target, PRIVATE)  # an IPv4 port cannot send there

    def test_allowance(self) -> None:
        """A host that only the SDP names gets so many seconds, all such hosts together, and no more."""
        latch = Latch(PBX, SERVER)
        self.assertTrue(latch.unproven)
        spent = sum(20 for _ in range(UNPROVEN_MS // 40) if latch.spend(20))
        latch.move(("198.51.100.10", 4000), 1.0)
        self.assertTrue(latch.unproven)
        while latch.spend(20):
            spent += 20
        self.assertEqual(spent, UNPROVEN_MS)

    def test_proof(self) -> None:
        """A packet or a report from there is proof, and it is remembered when the media comes back."""
        latch = Latch(PBX, SERVER)
        latch.reported(SERVER[0])
        self.assertFalse(latch.unproven)
        other: Address = ("198.51.100.10", 4000)
        latch.move(other, 1.0)
        self.assertTrue(latch.unproven)
        Sender(latch, other).say(1.1)
        self.assertFalse(latch.unproven)
        latch.move(SERVER, 2.0)
        self.assertFalse(latch.unproven)

    def test_memory(self) -> None:
        """However often the media moves, what is remembered stays small."""
        latch = Latch(PBX, SERVER)
        for n in range(1000):
            latch.reported(f"198.51.{n // 250}.{n % 250}")
        self.assertLessEqual(len(latch._proven), MOST_PROVEN + 1)
        latch.move((PBX, 1), 1.0)
        self.assertFalse(latch.unproven)
