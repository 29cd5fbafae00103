"""HTTP for sessions with MCP servers: only to addresses that are allowed, with bounded replies, and watched.

Imported with the SDK, in its first use: httpx2 and httpcore2 come with it, and their import takes time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import httpcore2
import httpx2

REPLY = 1 << 20
"""Bytes of one reply; of a stream one event (the SDK sees to that)."""
CONNECTING = 10.0
"""Seconds that resolving and connecting to one address may take."""


#: after two minutes of silence a stream is probed: a server that vanished without a word is noticed
_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
]


class Trouble(httpx2.TransportError):
    """A request has failed; the text is the end of a sentence about the server."""


class TooLarge(httpx2.StreamError):
    """A reply is larger than `REPLY`; the text is the end of a sentence about the server."""


class Guarded(httpcore2.AsyncNetworkBackend):
    """Connects to allowed addresses only: a name is resolved once, and what was checked is connected to."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self._allowed = allowed
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """As httpcore's; the certificate is still that of `host`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECTING):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise Trouble("cannot be found: its host name is not known") from error
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        good = [address for address in addresses if self._allowed(address)]
        if not good:
            raise Trouble(
                f"is at {addresses[0]}, which is private: the operator can name it in the setting [tools] allow"
            )
        for address in good:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.NetworkError, httpcore2.TimeoutException) as error:
                if address == good[-1]:
                    raise Trouble("cannot be reached") from error
        raise AssertionError("a connection or an exception")

    async def sleep(self, seconds: float) -> None:
        """As httpcore's."""
        await self._backend.sleep(seconds)


def trusting(more: Path | None) -> ssl.SSLContext:
    """TLS that trusts what the system does and the authorities in the file (or folder) `more`. Takes its time."""
    context = ssl.create_default_context()
    if more is not None:
        folder = more.is_dir()
        context.load_verify_locations(None if folder else str(more), str(more) if folder else None)
    return context


class Watched(httpx2.AsyncBaseTransport):
    """The requests of one session. `noticed` hears of each that got an error status or no reply at all:
    (method, status or 0, the end of a sentence); `ended` of event streams asked for by GET that are over."""

    def __init__(
        self,
        context: ssl.SSLContext,
        allowed: Callable[[str], bool],
        noticed: Callable[[httpx2.Request, int, str], None],
        ended: Callable[[], None],
    ) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context, network_backend=Guarded(allowed), socket_options=_ALIVE
        )
        self._noticed, self._ended = noticed, ended

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As httpx's own transport, with `Trouble` for whatever goes wrong."""
        url, content = request.url, request.stream
        assert isinstance(content, httpx2.AsyncByteStream)
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        wanted = httpcore2.Request(
            request.method, target, headers=request.headers.raw, content=content, extensions=request.extensions
        )
        try:
            response = await self._pool.handle_async_request(wanted)
        except Exception as error:
            trouble = error if isinstance(error, Trouble) else Trouble(_words(error))
            self._noticed(request, 0, str(trouble))
            raise trouble from error
        if response.status >= 400:
            self._noticed(request, response.status, status_words(response.status))
        elif 300 <= response.status < 400:
            self._noticed(request, response.status, "redirects elsewhere: its URL must be that of the place itself")
        headers = httpx2.Headers(response.headers)
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            await response.aclose()
            packed = Trouble("sends packed replies, which nobody asked for")  # httpx would unpack them without a bound
            self._noticed(request, 0, str(packed))
            raise packed
        events = headers.get("content-type", "").lower().startswith("text/event-stream")
        return httpx2.Response(
            response.status,
            headers=headers,
            stream=_Body(response, 0 if events else REPLY, self._ended if request.method == "GET" else None),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: httpcore2.Response, limit: int, ended: Callable[[], None] | None) -> None:
        self._response, self._limit, self._ended = response, limit, ended

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._response.aiter_stream():
                size += len(chunk)
                if self._limit and size > self._limit:
                    raise TooLarge(f"has sent more than {self._limit >> 20} MiB")
                yield chunk
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
            raise Trouble(_words(error)) from error
        finally:
            if self._ended is not None:
                self._ended()

    async def aclose(self) -> None:
        await self._response.aclose()


def status_words(status: int) -> str:
    """What an HTTP status says of a server, as the end of a sentence."""
    if status in (401, 403):
        return f"refuses our key (HTTP status {status})"
    return f"answers with HTTP status {status}"


def _words(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"has a certificate that is not trusted: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpcore2.LocalProtocolError):
        return "cannot be asked: its key and headers may have only characters that HTTP allows"
    if isinstance(error, httpcore2.TimeoutException):
        return "has not answered in time"
    if isinstance(error, (httpcore2.ProtocolError, httpcore2.UnsupportedProtocol)):
        return "does not speak HTTP there"
    if isinstance(error, httpcore2.ConnectError):
        return "cannot be reached"
    return "has broken off the connection"
