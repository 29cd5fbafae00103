"""What the caller's audio is taken for, at the line: speech, noise, or the bot's own words coming back."""

from __future__ import annotations

from collections.abc import Callable


def nobody(on: bool) -> None:
    """Nobody is told."""


class Ear:
    """Hears 20 ms of the caller at each turn and gives it on."""

    def __init__(self, law: str, give: Callable[[bytes], None]) -> None:
        """`law` is the one of all audio here; `give` gets what the model shall hear."""
        self._law = law
        self.give = give
        self.tell: Callable[[bool], None] = nobody
        self.gate = False

    def heard(self, audio: bytes) -> None:
        """The caller's next 20 ms."""
        self.give(audio)
