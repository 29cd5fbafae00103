"""Everything that can happen to a call: by the other side, the voice, and our own timers and faults."""

from __future__ import annotations

from typing import Protocol

from extenbot.errors import BackendLost
from extenbot.interfaces import ToolCall


class Inputs(Protocol):
    """Everything that can happen to a call."""

    def came(self) -> None:
        """Somebody calls us."""

    def ordered(self) -> None:
        """We are to call somebody."""

    def opened(self) -> None:
        """The voice has confirmed our formats."""

    def prepared(self) -> None:
        """The greeting waits to be heard, or has been waited for long enough."""

    def lost(self, why: BackendLost) -> None:
        """The voice is gone, or never came."""

    def finished(self) -> None:
        """The voice has brought what it had."""

    def acked(self, body: bytes) -> None:
        """The ACK of our 200."""

    def connected(self, body: bytes) -> None:
        """Whom we called has answered, with this SDP."""

    def ended(self, reason: str) -> None:
        """The other side ended the call, or never took it."""

    def hang_up(self, reason: str) -> None:
        """We end the call."""

    def asked(self, tool: ToolCall) -> None:
        """The model wants a function run."""

    def approval(self, tool: ToolCall) -> None:
        """The voice service wants to use a tool of its own, if the caller agrees."""

    def transfer(self, tool: ToolCall) -> None:
        """The model has announced a transfer, and the caller has heard it."""

    def returned(self, words: str) -> None:
        """The transfer failed."""

    def apologised(self) -> None:
        """The caller has heard that there is no voice any more."""

    def failed(self) -> None:
        """What we did about the last input went wrong."""
