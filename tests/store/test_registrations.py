"""How it stood with a registration: what is kept of it."""

from __future__ import annotations

from dataclasses import replace

from extenbot.interfaces import Registration, Standing
from extenbot.store.registrations import KEPT
from tests.store.test_bots import Kept

NOW = Registration("", Standing.REGISTERED, 1000.0, "", 1600.0, 1500.0, "192.0.2.10:5060 (UDP)")
REFUSED = Registration("", Standing.REFUSED, 2000.0, "The PBX refuses: 403 Forbidden.", 0.0, 2040.0, NOW.target)


class History(Kept):
    def kept(self, *states: Registration) -> list[tuple[str, float, float]]:
        for state in states:
            self.store.registrations.write(replace(state, bot_id=self.bot_id))
        return [(s.state.value, s.at, s.until) for s in self.other.registrations.recent(self.bot_id)]

    def setUp(self) -> None:
        super().setUp()
        self.bot_id = self.add(kind="registrant", username="1", password="x", domain="pbx.example").id

    def test_refresh(self) -> None:
        """A refresh is no news, it only lasts longer; what is different is kept, the newest first."""
        later = replace(NOW, at=1500.0, until=2100.0)
        self.assertEqual(self.kept(NOW, later), [("registered", 1000, 2100)])
        self.assertEqual(self.kept(REFUSED), [("refused", 2000, 0), ("registered", 1000, 2100)])
        self.assertEqual(self.other.registrations.recent(self.bot_id, 1), [replace(REFUSED, bot_id=self.bot_id)])

    def test_passing(self) -> None:
        """That we are asking shows while we ask, and is no history; refused again is one refusal."""
        asking = replace(NOW, state=Standing.REGISTERING, at=2040.0, until=0.0)
        self.assertEqual(self.kept(REFUSED, asking), [("registering", 2040, 0), ("refused", 2000, 0)])
        self.assertEqual(self.kept(replace(REFUSED, at=2041.0)), [("refused", 2000, 0)])

    def test_bound(self) -> None:
        """Only the last states are kept; a bot that is gone has none and takes none."""
        many = [replace(REFUSED, at=float(n), words=str(n)) for n in range(KEPT + 10)]
        kept = self.kept(*many)
        self.assertEqual((len(kept), kept[0][1]), (KEPT, KEPT + 9.0))
        self.bots.remove(self.bot_id)
        self.assertEqual(self.kept(NOW), [])
