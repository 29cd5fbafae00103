"""One session with an MCP server by the SDK. Import it only where one is needed: the SDK takes its time.

What a server sends is taken leniently: a tool or a part of a result that is not what MCP asks for is left out, and
costs nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import httpx2
import mcp_types as types
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost, listen
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import BaseModel, TypeAdapter, ValidationError

from extenbot import __version__
from extenbot.errors import unanswered
from extenbot.interfaces import Json, McpServer
from extenbot.net.mcphttp import CONNECTING, REPLY, Watched, status_words, trusting

__all__ = ["Client", "trusting"]

PAGES = 20
"""Pages of a list of tools that are asked for."""
LISTED = 512
"""Tools that are looked at: the model is told of fewer, and looking at a thousand takes 50 ms."""
PARTS = 256
"""Parts of a result that are looked at."""
RELISTED = 2.0
"""Seconds between two listings at least, however often a server says that its tools have changed."""
ASKED = 10.0
"""Seconds that the handshake and each page of the list may take."""
QUARRELS = 200
"""Characters of a server's own words of an error."""
NOT_MCP = "sends what is not MCP"

_RESULT: Any = TypeAdapter(dict[str, Any])  # as it came: what a tool says becomes text in any case
_PARTS = TypeAdapter(types.ContentBlock)
# What the SDK says of a transport in place of the server's answer:
_FORGOTTEN = "Session terminated"  # a 404 in a session (2025-11-25, "Session Management")
_CLOSED = "Connection closed"  # nothing will come of this session any more
_STATUS = ("Server returned an error response", "Not Found")
_LARGE = ("SSE stream failed", "Failed to parse JSON response: has sent more")  # of more than `REPLY` bytes
_NOT_MCP = ("Failed to parse", "Unexpected content type", "server answered a request with 202")


def _is(kind: type[BaseModel] | TypeAdapter[Any], value: Any) -> bool:
    try:
        if isinstance(kind, TypeAdapter):
            kind.validate_python(value, by_name=False)
        else:
            kind.model_validate(value, by_name=False)
    except ValidationError:
        return False
    return True


class _Lenient(JSONRPCDispatcher[Any]):
    """Leaves out what the SDK would refuse the whole list or result for."""

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None, **more: Any
    ) -> dict[str, Any]:
        raw = await super().send_raw_request(method, params, opts, **more)
        if method == "tools/list" and isinstance(raw.get("tools"), list):
            raw["tools"] = [tool for tool in raw["tools"][:LISTED] if _is(types.Tool, tool)]
        if method == "tools/call" and isinstance(raw.get("content", []), list):
            raw["content"] = [part for part in raw.get("content", [])[:PARTS] if _is(_PARTS, part)]
        return raw


class Client:
    """One attempt at one transport, "http" (streamable) or "sse", and the session that comes of it."""

    def __init__(
        self,
        kind: str,
        server: McpServer,
        tls: SSLContext,
        allowed: Callable[[str], bool],
        listed: Callable[[tuple[Json, ...]], None],
        lost: Callable[[str], None],
    ) -> None:
        """`lost` is told at once, and once, that an open session is gone; `run` ends soon after."""
        self._kind, self._server, self._listed, self._told = kind, server, listed, lost
        self.opened = False
        self.old = False
        """The server has answered with a 4xx, as those do that speak only the older transport."""
        self.elsewhere = False
        """Nothing there speaks this transport: another status, or no MCP at all."""
        self._trouble = ""  # the end of a sentence about the server
        self._ending = asyncio.Event()
        self._changed = asyncio.Event()
        self._checking = False
        self._session: ClientSession | None = None
        self._transport = Watched(tls, allowed, self._noticed, self._stream_ended)

    async def run(self) -> str:
        """The whole session; why it has ended, as the end of a sentence about the server."""
        try:
            async with self._streams() as (read, write), self._speaking(read, write) as session:
                await self._greet(session)
                self._session = session
                await self._stay(session)
        except Exception as error:  # noqa: BLE001 — a session must not fall because of what a server sends
            self.elsewhere = self.elsewhere or (not self._trouble and words(error) == NOT_MCP)
            return self._trouble or words(error)
        finally:
            self._session = None
            await self._transport.aclose()
        return self._trouble or "has ended the session"

    def close(self) -> None:
        """End the session in order."""
        self._ending.set()

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[bool, str, Json]:
        """(whether the server had forgotten us before, the end of a sentence if it failed, else the result)."""
        session = self._session
        if session is None or self._ending.is_set():
            return True, self._trouble or "has ended the session", {}
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=name, arguments=arguments))
        try:
            result: dict[str, Any] = await session.send_request(request, _RESULT)
        except MCPError as error:
            if error.message == _FORGOTTEN:
                self._lost("has ended our session")
                return True, self._trouble, {}
            if error.message == _CLOSED:
                self._lost("has broken off the connection")
            if (self._ending.is_set() or error.message in _STATUS) and self._trouble:
                return False, self._trouble, {}
            return False, words(error), {}
        except Exception as error:  # noqa: BLE001 — the SDK raises much for what a server sends
            return False, words(error), {}
        return False, "", result

    async def check(self) -> None:
        """A tool was given up: see whether the server still hears us, and end the session if it does not."""
        session = self._session
        if session is None or self._checking or session.protocol_version not in HANDSHAKE_PROTOCOL_VERSIONS:
            return  # newer ones have neither sessions nor pings
        self._checking = True
        try:
            async with asyncio.timeout(ASKED):
                await session.send_request(types.PingRequest(), types.EmptyResult)
        except MCPError as error:
            if error.message == _FORGOTTEN:
                self._lost("has ended our session")
        except TimeoutError:
            self._lost("does not answer any more")
        finally:
            self._checking = False

    # -- Opening ------------------------------------------------------------------------

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[tuple[Any, Any]]:
        headers = {**dict(self._server.headers), "Accept-Encoding": "identity"}
        if self._server.key:
            headers["Authorization"] = f"Bearer {self._server.key}"
        # How long a tool may take is not for the connection to say.
        timeout = httpx2.Timeout(CONNECTING, read=None, pool=None)
        client = httpx2.AsyncClient(transport=self._transport, headers=headers, timeout=timeout, trust_env=False)
        if self._kind == "sse":
            # it enters and leaves the client itself
            async with sse_client(self._server.url, httpx_client_factory=lambda *_, **__: client) as streams:
                yield streams
        else:
            async with (
                client,
                streamable_http_client(self._server.url, http_client=client, max_sse_event_size=REPLY) as streams,
            ):
                yield streams

    def _speaking(self, read: Any, write: Any) -> ClientSession:
        return ClientSession(
            dispatcher=_Lenient(read, write),
            message_handler=self._heard,
            client_info=types.Implementation(name="extenbot", version=__version__),
        )

    async def _greet(self, session: ClientSession) -> None:
        """Handshake and first list. What speaks only 2026-07-28 and later refuses `initialize`, and says so."""
        async with asyncio.timeout(ASKED):
            try:
                await session.initialize()
            except MCPError as error:
                newer = error.code == types.UNSUPPORTED_PROTOCOL_VERSION
                if not newer and (self.old or error.code != types.METHOD_NOT_FOUND):
                    raise
                await session.discover()
        tools = await self._tools(session)
        self.opened = True
        self._trouble = ""
        self._listed(tools)

    async def _tools(self, session: ClientSession) -> tuple[Json, ...]:
        capabilities = session.server_capabilities
        if capabilities is not None and capabilities.tools is None:
            return ()
        found: list[Json] = []
        cursor: str | None = None
        for _page in range(PAGES):
            async with asyncio.timeout(ASKED):
                page = await session.list_tools(params=types.PaginatedRequestParams(cursor=cursor) if cursor else None)
            found += (tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in page.tools)
            if not page.next_cursor or page.next_cursor == cursor or len(found) >= LISTED:
                break
            cursor = page.next_cursor
        return tuple(found[:LISTED])

    # -- While it is open -----------------------------------------------------------------

    async def _stay(self, session: ClientSession) -> None:
        """Until the end; list the tools again when they have changed."""
        ending = asyncio.ensure_future(self._ending.wait())
        newer = session.protocol_version not in HANDSHAKE_PROTOCOL_VERSIONS
        listening = asyncio.ensure_future(self._listen(session)) if newer else None
        try:
            while not ending.done():
                changed = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait({ending, changed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                if not ending.done():
                    self._changed.clear()
                    self._listed(await self._tools(session))
                    await asyncio.wait({ending}, timeout=RELISTED)
        finally:
            ending.cancel()
            if listening is not None:
                listening.cancel()

    async def _listen(self, session: ClientSession) -> None:
        """Since 2026-07-28 a server tells of changes only who asks for them; `_heard` is told."""
        try:
            async with listen(session, tools_list_changed=True) as subscription:
                async for _event in subscription:
                    pass
        except (MCPError, SubscriptionLost) as error:
            if isinstance(error, MCPError) and error.code == types.METHOD_NOT_FOUND:
                return  # it has no changes to tell of
        self._lost("has broken off the connection")

    async def _heard(self, message: object) -> None:
        """A notification, or an exception of the transport."""
        if isinstance(message, types.ToolListChangedNotification):
            self._changed.set()

    def _noticed(self, request: httpx2.Request, status: int, why: str) -> None:
        """A request got an error status, or no reply at all."""
        if self._ending.is_set() or request.method == "DELETE":
            return
        if not self.opened:
            # What was wrong first is told: after it the other transport may be tried.
            self._trouble = self._trouble or why
            self.elsewhere = status >= 300 and status not in (401, 403, 407, 429)
            self.old = self.elsewhere and 400 <= status < 500
            return
        if request.method == "POST":
            self._trouble = why
        if status == 0 or (status == 404 and "mcp-session-id" in request.headers):
            self._lost(why if status == 0 else "has ended our session")
        elif status in (401, 403):
            self._lost(status_words(status))

    def _stream_ended(self) -> None:
        """Of the old transport this stream is the session; the new one asks for another by itself."""
        if self._kind == "sse" and self.opened:
            self._lost("has broken off the connection")

    def _lost(self, why: str) -> None:
        if not self._ending.is_set():
            self._trouble = why
            self._ending.set()
            if self.opened:
                self._told(why)


def words(error: BaseException) -> str:
    """What went wrong, as the end of a sentence about the server."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"has {unanswered(ASKED)}"
    if isinstance(error, MCPError):
        if error.message.startswith(_LARGE):
            return f"has sent more than {REPLY >> 20} MiB"
        if error.message.startswith(_NOT_MCP):
            return NOT_MCP
        if error.code == types.CONNECTION_CLOSED:
            return "has broken off the connection"
        said = " ".join(error.message.split())[:QUARRELS]
        return f"says: {said}" if said else f"answers with the error {error.code}"
    if isinstance(error, UnicodeError):
        return "cannot be asked: its key and headers may have only characters that HTTP allows"
    if isinstance(error, (httpx2.InvalidURL, httpx2.UnsupportedProtocol)):
        return "has a URL that cannot be used"
    if isinstance(error, httpx2.SSEError):
        return NOT_MCP
    if isinstance(error, (httpx2.TransportError, httpx2.StreamError)):
        return " ".join(str(error).split())[:QUARRELS] or "has broken off the connection"
    return NOT_MCP
