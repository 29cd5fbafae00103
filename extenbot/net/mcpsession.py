"""Sessions with MCP servers by the official SDK, which runs on the reactor's own asyncio loop.

Each session is one task that opens the transport and the session, lists the tools and stays until the end, because
the SDK's scopes must be left where they were entered. Uses of tools are tasks of their own. Streamable HTTP comes
first; a server that answers it with a 4xx is an old one, and gets the SSE transport of 2024-11-05.

The SDK is imported in a thread when the first session is opened: it takes more than half a second, in which calls
go on and services without MCP servers never are.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from extenbot.errors import ToolFailed
from extenbot.interfaces import Json, McpServer
from extenbot.net.mcp import Session, SessionListener, Stale

if TYPE_CHECKING:
    from ssl import SSLContext

T = TypeVar("T")
log = Logger()

CLOSING = 2.0
"""Seconds that the server has to take note of the end of a session."""


class Sessions:
    """Opens sessions (`extenbot.net.mcp.Open`)."""

    def __init__(self, allowed: Callable[[str], bool], trust: Path | None = None) -> None:
        """`allowed` says of an IP address whether bots may connect to it; `trust` has more authorities (PEM)."""
        self.allowed, self._trust = allowed, trust
        self._loaded: asyncio.Future[tuple[ModuleType, SSLContext]] | None = None

    def __call__(self, server: McpServer, listener: SessionListener) -> Session:
        """A session that is being opened."""
        return _Session(self, server, listener)

    async def loaded(self) -> tuple[ModuleType, SSLContext]:
        """`extenbot.net.mcpclient`, and the TLS settings of all sessions."""
        if self._loaded is None or (self._loaded.done() and self._loaded.exception()):
            self._loaded = asyncio.get_running_loop().run_in_executor(None, self._load)
        return await asyncio.shield(self._loaded)

    def _load(self) -> tuple[ModuleType, SSLContext]:
        for name in ("mcp", "client", "httpx2", "httpcore2"):  # they log what was sent, and each thing we tell anyway
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        client = importlib.import_module("extenbot.net.mcpclient")
        return client, client.trusting(self._trust)


def _deferred(order: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Of a coroutine of asyncio; cancelling one cancels the other."""
    return Deferred.fromFuture(asyncio.ensure_future(order))


class _Session:
    def __init__(self, sessions: Sessions, server: McpServer, listener: SessionListener) -> None:
        self._sessions, self._server, self._listener = sessions, server, listener
        self._client: Any = None  # mcpclient.Client
        self._closed = False
        self._checks: asyncio.Task[None] | None = None  # kept, or the loop may forget it
        self._task = asyncio.ensure_future(self._run())

    def call(self, name: str, arguments: Json) -> Deferred[Json]:
        used = _deferred(self._call(name, arguments))

        def failed(failure: Failure) -> NoReturn:
            failure.trap(asyncio.CancelledError)
            self._checks = asyncio.ensure_future(self._client.check())
            raise CancelledError

        return used.addErrback(failed)

    async def _call(self, name: str, arguments: Json) -> Json:
        assert self._client is not None  # nobody has us before we are open
        stale, words, result = await self._client.call(name, dict(arguments))
        if words:
            raise (Stale if stale else ToolFailed)(words)
        found: Json = result
        return found

    def close(self) -> Deferred[None]:
        self._closed = True
        return _deferred(self._close())

    async def _close(self) -> None:
        if self._client is not None and self._client.opened:
            self._client.close()
            await asyncio.wait({self._task}, timeout=CLOSING)
        if self._checks is not None:
            self._checks.cancel()
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=CLOSING)

    async def _run(self) -> None:
        why = "cannot be used: the MCP SDK is not installed"
        try:
            client, tls = await self._sessions.loaded()
            kinds = (self._server.transport,) if self._server.transport else ("http", "sse")
            first = ""
            for kind in kinds:
                self._client = client.Client(kind, self._server, tls, self._sessions.allowed, self._listed, self._lost)
                why = await self._client.run()
                first = first or why
                if self._client.opened or not self._client.old:
                    break
            if self._client.elsewhere and not self._client.opened:
                why = first  # it is not for want of the older transport
        except ImportError:
            pass
        except OSError as error:
            why = f"cannot be used: the authorities of the setting [tools] trust cannot be read: {error}"
        finally:
            self._lost(why)

    def _listed(self, tools: tuple[Json, ...]) -> None:
        if not self._closed:
            try:
                self._listener.listed(tools)
            except Exception:  # noqa: BLE001 — a bug of ours must not end the session
                log.failure("after the tools of an MCP server")

    def _lost(self, why: str) -> None:
        if not self._closed:
            self._closed = True
            self._listener.lost(why)
