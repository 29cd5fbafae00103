"""How commands reach the running service: a socket in the data folder, for the user it runs as alone.

What can be done by writing to the database is done that way; this is for orders to the service itself, such
as a call. The language is AMP (`twisted.protocols.amp`), both ways: an order is answered at once, and news of
what became of it follow on the same connection for as long as it stands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import endpoints, task
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from extenbot.errors import ExtenbotError

LONGEST_TARGET = 1000  # characters


class CannotBeDone(ExtenbotError):
    """The order makes no sense, or not now; its words are for the person who gave it."""


class Place(amp.Command):
    """Let a bot call somebody."""

    arguments: ClassVar[Any] = [(b"bot", amp.Unicode()), (b"target", amp.Unicode())]
    response: ClassVar[Any] = [(b"call", amp.Unicode())]
    errors: ClassVar[Any] = {CannotBeDone: b"CANNOT_BE_DONE"}


class News(amp.Command):
    """What became of a call: "ringing", "answered", and last "ended: " with the reason."""

    arguments: ClassVar[Any] = [(b"call", amp.Unicode()), (b"news", amp.Unicode())]
    requiresAnswer = False


PlaceCall = Callable[[str, str, Callable[[str, str], None]], str]
"""Bot id, target, and what is told the id of the call and each news; gives the id. Raises `ExtenbotError`."""


class _Service(amp.AMP):
    """The service's end of one command's connection."""

    def __init__(self, place: PlaceCall) -> None:
        super().__init__()
        self._place = place
        self._gone = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        super().connectionLost(reason)

    @Place.responder
    def place(self, bot: str, target: str) -> dict[str, str]:
        try:
            return {"call": self._place(bot, target[:LONGEST_TARGET], self._tell)}
        except ExtenbotError as error:
            raise CannotBeDone(str(error)) from error

    def _tell(self, call: str, news: str) -> None:
        if not self._gone:
            self.callRemote(News, call=call, news=news)


class Control(Factory):
    """Listens in the data folder."""

    log = Logger()
    noisy = False

    def __init__(self, place: PlaceCall) -> None:
        self._place = place

    def buildProtocol(self, addr: Any) -> _Service:  # noqa: ARG002
        return _Service(self._place)

    def listen(self, reactor: Any, data: Path) -> Any:
        """The port; None, with a line in the log, where there can be no such socket: the calls matter more."""
        try:
            return reactor.listenUNIX(str(socket_in(data)), self, mode=0o600, wantPID=True)
        except (CannotListenError, OSError) as error:
            self.log.warn("Commands cannot reach this service: {error}", error=str(error))
            return None


def socket_in(data: Path) -> Path:
    """Where the service with this data folder listens."""
    return data.absolute() / "control"


class _Command(amp.AMP):
    """The command's end."""

    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__()
        self.over: Deferred[None] = Deferred()
        self._told = told

    @News.responder
    def news(self, call: str, news: str) -> dict[str, str]:  # noqa: ARG002
        self._told(news)
        if news.startswith("ended") and not self.over.called:
            self.over.callback(None)
        return {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if not self.over.called:
            self.over.errback(CannotBeDone("The service has stopped."))


def place(data: Path, bot: str, target: str, told: Callable[[str], None], *, wait: bool = True) -> str:
    """Order a call of the service with this data folder and, with `wait`, follow it to its end; the call's id.

    Runs the reactor, so it can be used once in a process. `CannotBeDone` with the reason.
    """
    result: list[str] = []
    problem: list[ExtenbotError] = []

    async def run(reactor: Any) -> None:
        try:
            command = _Command(told)
            there = endpoints.UNIXClientEndpoint(reactor, str(socket_in(data)), timeout=10)
            await endpoints.connectProtocol(there, command)
            try:
                result.append((await command.callRemote(Place, bot=bot, target=target))["call"])
                if wait:
                    await command.over
            finally:
                command.over.addErrback(lambda _failure: None)
        except ConnectError:
            problem.append(CannotBeDone(f"No extenbot runs with the data folder {data}."))
        except ExtenbotError as error:
            problem.append(error)

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit:  # its way to say that it is done
        if not result and not problem:
            sys.exit(130)  # stopped from the keyboard
    if problem:
        raise problem[0]
    return result[0]
