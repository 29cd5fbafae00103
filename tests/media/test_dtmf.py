"""Keys pressed on the phone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.media.dtmf import KEYS, Keys


def event(key: str, duration: int, *, end: bool = False) -> bytes:
    return bytes([KEYS.index(key), 0x8A if end else 0x0A]) + duration.to_bytes(2)


def pressed(key: str, timestamp: int) -> list[tuple[int, bytes]]:
    """A key of 100 ms as phones send it: updates, then the end three times."""
    updates = [(timestamp, event(key, 160 * n)) for n in range(1, 5)]
    return updates + [(timestamp, event(key, 800, end=True))] * 3


class Pressed(SynchronousTestCase):
    def read(self, packets: list[tuple[int, bytes]], keys: Keys | None = None) -> str:
        keys = keys or Keys()
        return "".join(keys.put(timestamp, payload) or "" for timestamp, payload in packets)

    def test_each_key_once(self) -> None:
        """Every key counts once, however often its event is repeated, the same key twice twice."""
        packets = [packet for at, key in enumerate("0123456789*#ABCD55") for packet in pressed(key, 2000 * at)]
        self.assertEqual(self.read(packets), "0123456789*#ABCD55")

    def test_told_at_once(self) -> None:
        """A key is known at its first packet, not when it is let go."""
        self.assertEqual(Keys().put(0, event("7", 160)), "7")

    def test_lost_ends_and_beginnings(self) -> None:
        """One packet of a key is enough, be it the first or the last."""
        self.assertEqual(
            self.read([(0, event("1", 160)), (2000, event("1", 160)), (4000, pressed("3", 0)[-1][1])]), "113"
        )

    def test_overtaken(self) -> None:
        """A repetition that arrives after the next key's first packet is not a third key."""
        first, second = pressed("1", 0), pressed("2", 2000)
        self.assertEqual(self.read([*first[:5], second[0], *first[5:], *second[1:]]), "12")

    def test_wrap(self) -> None:
        """The timestamp's wrap between two keys changes nothing."""
        self.assertEqual(self.read(pressed("1", 0xFFFFFC00) + pressed("1", 0x400)), "11")

    def test_held_long(self) -> None:
        """A key held beyond the longest duration is one key, in several segments (RFC 4733 2.5.1.3)."""
        packets = [(0, event("5", 160)), (0, event("5", 0xFFFF)), (0xFFFF, event("5", 160)), (0xFFFF, event("5", 320))]
        self.assertEqual(self.read(packets), "5")

    def test_other_events(self) -> None:
        """Hook flash, fax tones and payloads of other shapes are no keys."""
        for payload in (b"\x10\x0a\0\xa0", b"\x24\x0a\0\xa0", b"", b"\x01", b"\x01\x4a\0\xa0", b"\x01\x0a\0\xa0\0"):
            self.assertIsNone(Keys().put(0, payload))

    @given(st.lists(st.tuples(st.integers(0, 0xFFFFFFFF), st.binary(max_size=6))))
    def test_noise(self, packets: list[tuple[int, bytes]]) -> None:
        """Nothing that comes raises."""
        self.assertTrue(set(self.read(packets)) <= set(KEYS))
