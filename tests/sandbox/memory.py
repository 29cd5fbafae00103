"""A scripted voice joined to a client in memory: a `Connect` without sockets, on a fake clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extenbot.interfaces import LinkListener, Tokens
from extenbot.sandbox.script import Script
from extenbot.sandbox.scripted import ScriptSession


class MemoryLink:
    """Both ends of one websocket; each message takes one turn of the clock."""

    def __init__(self, clock: Any, tokens: Tokens, script: Script, listener: LinkListener) -> None:
        self._clock = clock
        self._listener = listener
        self._lost = False
        self.sent: list[bytes] = []  # by the client
        self.session = ScriptSession(clock, tokens, script, self._to_client, self._closed_by_server)
        self._later(self._open)

    def send(self, text: bytes) -> None:
        if not self._lost:
            self.sent.append(text)
            self._later(self.session.received, text)

    def waiting(self) -> int:
        return 0

    def close(self) -> None:
        self._later(self._over, True, 1000, "")

    def _open(self) -> None:
        self._listener.connected()
        self.session.opened()

    def _to_client(self, text: bytes) -> None:
        self._later(self._deliver, text)

    def _deliver(self, text: bytes) -> None:
        if not self._lost:
            self._listener.received(text)

    def _closed_by_server(self, code: int, reason: str) -> None:
        self._later(self._over, code != 1006, code, reason)

    def _over(self, clean: bool, code: int, reason: str) -> None:
        if not self._lost:
            self._lost = True
            self.session.lost()
            self._listener.lost(clean, code, reason)

    def _later(self, action: Any, *arguments: Any) -> None:
        self._clock.callLater(0, action, *arguments)


class MemoryConnect:
    """Opens such links; `links` are all of them, oldest first."""

    def __init__(self, clock: Any, tokens: Tokens, script: Script) -> None:
        self._clock, self._tokens, self._script = clock, tokens, script
        self.links: list[MemoryLink] = []

    def __call__(self, url: str, headers: Mapping[str, str], listener: LinkListener, timeout: float) -> MemoryLink:
        link = MemoryLink(self._clock, self._tokens, self._script, listener)
        self.links.append(link)
        return link
