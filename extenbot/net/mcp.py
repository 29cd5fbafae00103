"""The MCP servers of bots: to each one warm session, shared by all calls, opened again when it is lost.

A session is opened when somebody asks for a server's tools, and closed ten minutes after the last use. While it is
wanted and not to be had, it is tried again after pauses that grow. What a server listed is remembered when its session
is gone: a caller need not wait for it, and changes are told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore, succeed
from twisted.logger import Logger

from extenbot.ai import mcp
from extenbot.errors import ToolFailed, unanswered
from extenbot.interfaces import Exchange, Json, McpServer, unnoted

IDLE = 600.0
"""Seconds without use after which a session is closed."""
OPENING = 20.0
"""Seconds that connecting and listing the tools may take, both transports together."""
PAUSES = (1.0, 60.0)
"""Seconds before the first new attempt, doubled each time, and at most."""
KEPT = 256
"""Servers whose tools are remembered without a session."""

log = Logger()


class Stale(ToolFailed):
    """The server had forgotten our session before the request came: it has done nothing, we may ask again."""


class Session(Protocol):
    """An open or opening session with one server."""

    def call(self, name: str, arguments: Json) -> Deferred[Json]:
        """The result of `tools/call` as JSON of MCP. Fails with `ToolFailed`; cancelling it tells the server."""

    def close(self) -> Deferred[None]:
        """End it. The Deferred fires, soon and never with a failure, when nothing of it is left."""


class SessionListener(Protocol):
    """What a session tells. Nothing before it was returned; `lost` comes last and once, unless it was closed."""

    def listed(self, tools: tuple[Json, ...]) -> None:
        """It is open and these are the server's tools, as JSON of MCP; again whenever they have changed."""

    def lost(self, why: str) -> None:
        """It could not be opened, or is gone; `why` is a sentence without the server's name."""


class Open(Protocol):
    """Opens sessions; `extenbot.net.mcpsession` by the MCP SDK."""

    def __call__(self, server: McpServer, listener: SessionListener) -> Session: ...


class Servers:
    """The servers that we speak with ourselves (`interfaces.McpServers`)."""

    def __init__(self, clock: Any, open_session: Open, most: int = 8) -> None:
        """`clock` is an IReactorTime; of one server at most `most` uses of tools are under way at a time."""
        self._clock = clock
        self._open = open_session
        self._most = most
        self._warm: dict[tuple[object, ...], _Warm] = {}  # the latest used last
        self._latest: dict[str, tuple[object, ...]] = {}  # by the server's id: with what settings it was last used
        self._stopped = False

    def tools(self, server: McpServer) -> tuple[Json, ...]:
        """As in `interfaces.McpServers`."""
        return self._of(server).tools(server.allowed)

    def ready(self, server: McpServer) -> Deferred[None]:
        """As in `interfaces.McpServers`."""
        warm = self._of(server)
        if warm.settled:
            return succeed(None)
        done: Deferred[None] = Deferred(lambda _done: enough())

        def enough() -> None:
            warm.waiting.discard(enough)
            if late.active():
                late.cancel()
            if not done.called:
                done.callback(None)

        late = self._clock.callLater(server.wait, enough)
        warm.waiting.add(enough)
        return done

    async def all_tools(self, server: McpServer, patience: float) -> tuple[Json, ...]:
        """As in `interfaces.McpBench`."""

        def late(_result: object, seconds: float) -> NoReturn:
            raise ToolFailed(f"has {unanswered(seconds)}")

        warm = self._of(server)
        try:
            await warm.session().addTimeout(patience, self._clock, late)
        except ToolFailed as error:
            raise ToolFailed(f'The MCP server "{server.label}" {error}.') from error
        return warm.tools(())

    def watch(self, server: McpServer, changed: Callable[[], None]) -> Callable[[], None]:
        """As in `interfaces.McpServers`."""
        warm = self._of(server)
        mark = object()
        warm.watchers[mark] = (server.allowed, changed)

        def end() -> None:
            if warm.watchers.pop(mark, None):
                warm.used()

        return end

    async def call(
        self, server: McpServer, name: str, arguments: Json, noted: Callable[[Exchange], None] = unnoted
    ) -> str:
        """As in `interfaces.McpServers`."""
        began, said, trouble = self._clock.seconds(), "", ""

        def late(_result: object, seconds: float) -> NoReturn:
            raise ToolFailed(f'the MCP server "{server.label}" has {unanswered(seconds)}')

        try:
            used = Deferred.fromCoroutine(self._used(server, name, arguments))
            said = await used.addTimeout(server.timeout, self._clock, late)
            return said
        except ToolFailed as error:
            trouble = str(error)
            raise
        except CancelledError:
            trouble = "the call of the tool was cancelled"
            raise
        finally:
            body = json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False)
            seconds = self._clock.seconds() - began
            noted(Exchange("MCP", mcp.shown_url(server.url), body=body, reply=said, seconds=seconds, trouble=trouble))

    async def _used(self, server: McpServer, name: str, arguments: Json) -> str:
        if server.allowed and name not in server.allowed:
            raise ToolFailed(f'the tool "{name}" is not among those that are allowed')
        if self._stopped:
            raise ToolFailed("the service is ending")
        warm = self._of(server)
        warm.calls += 1
        try:
            await warm.turns.acquire()
            try:
                result = await (await warm.session()).call(name, arguments)
            except Stale:
                result = await (await warm.session()).call(name, arguments)
            finally:
                warm.turns.release()
        except ToolFailed as error:
            raise ToolFailed(f'the MCP server "{server.label}" {error}') from error
        finally:
            warm.calls -= 1
            warm.used()
        said = mcp.text(result)
        if result.get("isError"):
            raise ToolFailed(said)
        return said

    def stop(self) -> Deferred[None]:
        """Close all sessions, and open none any more."""
        self._stopped = True
        warm, self._warm = list(self._warm.values()), {}
        ended: Deferred[None] = Deferred()
        DeferredList([one.close() for one in warm]).addCallback(lambda _results: ended.callback(None))
        return ended

    def _of(self, server: McpServer) -> _Warm:
        key = (server.id, server.url, server.key, server.headers, server.transport)
        warm = self._warm.pop(key, None)
        if warm is None or (warm.superseded and warm.asleep):
            warm = _Warm(self._clock, self._open, server, self._most)
            before = self._warm.get(self._latest.pop(server.id, key))
            if before is not None:
                before.superseded = True
                before.used()
            self._latest[server.id] = key
        if not self._stopped:
            self._warm[key] = warm
            warm.want()
            self._forget()
        return warm

    def _forget(self) -> None:
        """Drop the superseded ones that are closed, and what was not used for the longest time."""
        asleep = [key for key, one in self._warm.items() if one.asleep]
        surplus = len(asleep) - KEPT
        for number, key in enumerate(asleep):
            if number < surplus or self._warm[key].superseded:
                del self._warm[key]
                if self._latest.get(str(key[0])) == key:
                    del self._latest[str(key[0])]


class _Warm:
    """One server with one set of settings: its session, if any, and what is known of its tools."""

    def __init__(self, clock: Any, open_session: Open, server: McpServer, most: int) -> None:
        self.watchers: dict[object, tuple[tuple[str, ...], Callable[[], None]]] = {}
        self.waiting: set[Callable[[], None]] = set()  # until its tools are known or it has failed
        self.calls = 0
        self.turns = DeferredSemaphore(most)
        self.superseded = False  # by other settings of the same server
        self._clock, self._open, self._server = clock, open_session, server
        self._session: Session | None = None
        self._listener: _Listener | None = None
        self._opened = False
        self._since = 0.0  # when it was opened
        self._asking: list[Deferred[Session]] = []
        self._found: tuple[Json, ...] = ()
        self._fit: dict[tuple[str, ...], tuple[Json, ...]] = {}  # what of `_found` is told the model, by allowed names
        self._known = False
        self._why = ""  # it has failed
        self._pause = 0.0
        self._again: Any = None  # IDelayedCall of the next attempt
        self._slow: Any = None  # of the end of an attempt
        self._idle: Any = None

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for: its tools are known, or it cannot be had at present."""
        return self._known or self._why != "" or self.asleep

    @property
    def asleep(self) -> bool:
        """There is no session, and no attempt at one will be made until somebody asks."""
        return self._session is None and self._again is None

    def tools(self, allowed: tuple[str, ...]) -> tuple[Json, ...]:
        """Those of the tools that are allowed, for the model."""
        if allowed not in self._fit:
            self._fit[allowed] = mcp.tools(self._found, allowed)
        return self._fit[allowed]

    def session(self) -> Deferred[Session]:
        """The session, opened now if there is none; fails with `ToolFailed`."""
        if self._session is None:
            self._stop_waiting()
            self._attempt()
        if self._opened and self._session is not None:
            return succeed(self._session)
        asked: Deferred[Session] = Deferred(self._asking.remove)
        self._asking.append(asked)
        return asked

    def want(self) -> None:
        """Somebody asks: open a session, unless there is one or an attempt is due."""
        if self.asleep:
            self._pause, self._why = 0.0, ""
            self._attempt()
        self.used()

    def used(self) -> None:
        """It is closed some time from now, unless it is used again; at once when nobody needs these settings."""
        if self.superseded and not self.watchers and not self.calls:
            self.close()
        elif self._idle is not None and self._idle.active():
            self._idle.reset(IDLE)
        elif not self.asleep:
            self._idle = self._clock.callLater(IDLE, self._rest)

    def close(self) -> Deferred[None]:
        """End the session, and forget the next attempt."""
        self._stop_waiting()
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        return self._drop("was closed")

    def _rest(self) -> None:
        self.used() if self.watchers or self.calls else self.close()

    def _attempt(self) -> None:
        self._opened = False
        self._listener = _Listener(self)
        self._slow = self._clock.callLater(OPENING, self._give_up)
        self._session = self._open(self._server, self._listener)

    def _give_up(self) -> None:
        session = self._session
        self.lost(f"has {unanswered(OPENING)}")
        if session is not None:
            session.close()

    def _try_later(self) -> None:
        least, most = PAUSES
        self._pause = min(max(2 * self._pause, least), most)
        if self.watchers or self.calls or (self._idle is not None and self._idle.active()):
            self._again = self._clock.callLater(self._pause, self._retry)

    def _retry(self) -> None:
        self._again = None
        self._attempt()

    def _stop_waiting(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _drop(self, why: str) -> Deferred[None]:
        """There is no session any more."""
        session, self._session, self._opened = self._session, None, False
        if self._listener is not None:
            self._listener.warm = None
        if self._slow is not None and self._slow.active():
            self._slow.cancel()
        asking, self._asking = self._asking, []
        for asked in asking:
            asked.errback(ToolFailed(why))
        self._settle()
        return session.close() if session is not None else succeed(None)

    def _settle(self) -> None:
        for enough in tuple(self.waiting):
            enough()

    def listed(self, found: tuple[Json, ...]) -> None:
        """The session is open, or its tools have changed."""
        assert self._session is not None
        watching = tuple(self.watchers.values())  # who comes meanwhile knows the new ones
        before = {allowed: self._fit.get(allowed, ()) for allowed, _changed in watching}
        if not self._opened:
            self._opened, self._since = True, self._clock.seconds()
            self._slow.cancel()
            log.info("MCP server {label}: {count} tools", label=self._server.label, count=len(found))
        self._why, self._known = "", True
        self._found, self._fit = found, {}
        asking, self._asking = self._asking, []
        for asked in asking:
            asked.callback(self._session)
        self._settle()
        for allowed, changed in watching:
            if self.tools(allowed) != before[allowed]:
                changed()

    def lost(self, why: str) -> None:
        """The session could not be had, or is gone."""
        if why != self._why:  # told once, not at each attempt
            self._why = why
            log.warn("MCP server {label} {why}", label=self._server.label, why=why)
        if self._opened and self._clock.seconds() - self._since >= PAUSES[1]:
            self._pause = 0.0
        self._session = None
        self._try_later()  # first: who hears of the failure may ask again at once
        self._drop(why)


class _Listener:
    """Hears one session; after another one took its place nobody listens."""

    def __init__(self, warm: _Warm) -> None:
        self.warm: _Warm | None = warm

    def listed(self, tools: tuple[Json, ...]) -> None:
        if self.warm is not None:
            self.warm.listed(tools)

    def lost(self, why: str) -> None:
        if self.warm is not None:
            self.warm.lost(why)
