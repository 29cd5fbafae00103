"""Stand-ins shared by the tests of several rooms."""

from __future__ import annotations


class CountingTokens:
    """Identifiers that a test can predict: 0001, 0002, … padded to the asked length."""

    def __init__(self) -> None:
        self.count = 0

    def text(self, length: int) -> str:
        self.count += 1
        return f"{self.count:0{length}x}"[-length:]

    def bits(self, count: int) -> int:
        self.count += 1
        return self.count & ((1 << count) - 1)
