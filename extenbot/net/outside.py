"""HTTP requests to servers of bots' owners: functions, dify, webhooks around calls (`interfaces.Outside`).

Whatever an owner has typed as a URL, a request goes to no address but those that are allowed: a name is resolved once,
each of its addresses is checked, and the connection goes to one that was. Everything is bounded: time, redirects, the
reply, and how many requests of one bot are under way; who must wait, waits in order, and in its own time.

Every failure is a `ToolFailed` with a sentence for the model, and for the owner who reads the timeline.
"""

from __future__ import annotations

import hmac
import re
import zlib
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple, NoReturn
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

import idna
from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, succeed
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    _HTTP11ClientFactory,
)
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface import implementer

from extenbot import __version__
from extenbot.errors import ToolFailed, unanswered
from extenbot.interfaces import Exchange, Reply, unnoted
from extenbot.net.certificate import Authorities
from extenbot.net.checked import Endpoints
from extenbot.networks import reachable
from extenbot.settings import Tools

IDLE = 4
"""Seconds that a connection is kept for the next request: less than the 5 after which Node and uvicorn close theirs, as
a POST that meets their closing is lost, and may not be repeated.
"""

PAUSE = 0.5
"""Seconds before a request is tried again, doubled each time, where the server does not say."""

STREAM = 8
"""So much longer may a reply be that comes as a stream of events: dify tells of each step of a workflow."""

LONGEST = 8000
"""Characters of a URL, which RFC 9110 4.1 wants all servers to take."""

SHOWN = 16_000
"""Characters of a body or reply that the owner is shown."""

REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""Methods that may be repeated (RFC 9110 9.2.2)."""

PASSING = frozenset({429, 502, 503, 504})
"""Answers after which another try may go better."""

_SECRET = re.compile(r"key|token|secret|pass|auth|sig", re.IGNORECASE)
_VALUE = re.compile(r"([^&=]+)=[^&]+")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_FRAMING = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect")
)
_PACKED = "X-Packed"  # a reply's Content-Encoding
_DEFAULT_PORTS = {"http": 80, "https": 443}


class _Body(Protocol):
    """Gathers a reply. Cancelling `done`, or a byte too many, closes the connection."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.done: Deferred[bytes] = Deferred(lambda _done: self._close())
        self._limit = limit

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self.data += data
        if len(self.data) > self._limit:
            self._close()
            self.done.errback(_too_large(self._limit))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self.data))
        else:
            self.done.errback(reason)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


@implementer(IBodyProducer)
class _Bytes:
    """What is sent, in one piece."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


@implementer(IAgent)
class Packed:
    """Keeps from treq that a reply is packed: it would unpack whenever it likes, in one go, without a bound.

    58 KB of gzip held up all audio for 185 ms.
    """

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[Any]:
        headers = headers or Headers()
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        answering: Deferred[Any] = self._agent.request(method, uri, headers, bodyProducer)
        return answering.addCallback(self._renamed)

    def _renamed(self, response: Any) -> Any:
        response.headers.setRawHeaders(_PACKED, response.headers.getRawHeaders("Content-Encoding") or [])
        response.headers.removeHeader("Content-Encoding")
        return response


class _Wish(NamedTuple):
    """One request, as it stands between redirects."""

    method: str
    url: SplitResult
    body: bytes
    private: tuple[tuple[str, str], ...]  # headers for the server that the owner named, and no other
    key: str
    secret: str


class _Times:
    """Until when requests are begun, and until when one that is under way may end: seconds of the clock."""

    def __init__(self, now: float, timeout: float, late: float) -> None:
        self.begin, self.end = now + timeout, now + timeout + late
        self.words = f"it has {unanswered(timeout + late)}"


class _Passing(Exception):
    """It failed, and may not the next time."""

    def __init__(self, words: str, *, sent: bool) -> None:
        super().__init__(words)
        self.sent = sent


class _Connections(_HTTP11ClientFactory):
    noisy = False  # a line in the log for each connection tells nobody anything


class _Pool(HTTPConnectionPool):
    _factory = _Connections


class Http:
    """Implements `interfaces.Outside`."""

    def __init__(self, reactor: Any, settings: Tools, now: Callable[[], float]) -> None:
        """`now` gives unix seconds, for signatures. `CannotStart` when the authorities cannot be read."""
        self._clock = reactor
        self._settings = settings
        self._now = now
        self._limit = settings.reply * 1024
        authorities = Authorities(settings.trust, "[tools] trust")
        most = 2 * STREAM * self._limit + 65536  # with headers, in small chunks
        endpoints = Endpoints(reactor, self.allowed, authorities, most)
        self._pool = _Pool(reactor)
        self._pool.maxPersistentPerHost = 8
        self._pool.cachedConnectionTimeout = IDLE
        self._pool.retryAutomatically = True  # a GET that met the closing of a kept connection
        self._agent = Packed(Agent.usingEndpointFactory(reactor, endpoints, self._pool))
        self._turns: dict[str, tuple[DeferredSemaphore, int]] = {}  # by queue, and how many want one

    def allowed(self, address: str) -> bool:
        """Whether bots may connect to this IP address."""
        return reachable(address, self._settings.allow)

    def stop(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closing: Deferred[None] = self._pool.closeCachedConnections()
        return closing

    async def fetch(
        self,
        queue: str,
        method: str,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        token: str = "",
        secret: str = "",
        key: str = "",
        body: bytes = b"",
        timeout: float = 10.0,  # noqa: ASYNC109  Twisted's, not asyncio's
        late: float = 0.0,
        retries: int = 0,
        noted: Callable[[Exchange], None] = unnoted,
    ) -> Reply:
        """As in `interfaces.Outside`."""
        place = _read(url)
        wish = _Wish(method, place, body, _private(headers, token, place), key, secret)
        times = _Times(self._clock.seconds(), timeout, late)

        def over(_result: object, _seconds: float) -> NoReturn:
            raise ToolFailed(times.words)

        work = self._in_turn(queue, lambda: self._tries(wish, retries, times, noted))
        try:
            return await work.addTimeout(timeout + late, self._clock, over)
        except ToolFailed as error:
            raise ToolFailed(f"the server {place.hostname} cannot be used: {error}") from error

    # -- One after the other

    def _in_turn(self, queue: str, work: Callable[[], Any]) -> Deferred[Reply]:
        """Do it when fewer than the allowed number of this queue are under way."""
        turns, wanted = self._turns.get(queue, (None, 0))
        turns = turns or DeferredSemaphore(self._settings.in_flight)
        self._turns[queue] = turns, wanted + 1

        def over(result: Any) -> Any:
            turns, wanted = self._turns[queue]
            if wanted > 1:
                self._turns[queue] = turns, wanted - 1
            else:
                del self._turns[queue]
            return result

        done: Deferred[Reply] = turns.run(lambda: Deferred.fromCoroutine(work()))
        return done.addBoth(over)

    async def _tries(self, wish: _Wish, retries: int, times: _Times, noted: Callable[[Exchange], None]) -> Reply:
        """Try again as often as that is asked for, does no harm, and fits into the time."""
        pause = PAUSE
        while True:
            reply: Reply | None = None
            wait: float | None = None
            try:
                reply, wait = await self._followed(wish, times, noted)
                again = wish.method in REPEATABLE and reply.status in PASSING
            except _Passing as error:
                again = wish.method in REPEATABLE or (not error.sent and bool(wish.key))
                words = str(error)
            wait = pause if wait is None else wait
            if not (again and retries) or self._clock.seconds() + wait >= times.begin:
                if reply is None:
                    raise ToolFailed(words)
                return reply
            retries -= 1
            pause *= 2
            await _sleep(self._clock, wait)

    async def _followed(
        self, wish: _Wish, times: _Times, noted: Callable[[Exchange], None]
    ) -> tuple[Reply, float | None]:
        """The reply at the end of all redirects, and the seconds after which the server wants to be asked again."""
        for _ in range(self._settings.redirects + 1):
            reply, place, wait = await self._exchange(wish, times, noted)
            if place is None:
                return reply, wait
            wish = _redirected(wish, reply.status, place)
        raise ToolFailed(f"it redirects more than {self._settings.redirects} times")

    async def _exchange(
        self, wish: _Wish, times: _Times, noted: Callable[[Exchange], None]
    ) -> tuple[Reply, str | None, float | None]:
        """One request and its reply, where that sends us, and in how many seconds we may come again."""
        began = self._clock.seconds()
        if began >= times.begin:  # its turn came too late
            raise ToolFailed(times.words)
        ours = [("Idempotency-Key", wish.key)] if wish.key else []
        if wish.secret:
            ours.append(("X-Extenbot-Signature", signature(wish.secret, int(self._now()), wish.body)))
        shown = (*((name, _hidden(name, value)) for name, value in wish.private), *ours)
        note = Exchange(wish.method, shown_url(wish.url), shown, _text(wish.body))
        try:
            response, body = await self._sent(wish, (*wish.private, *ours))
        except BaseException as error:
            at = self._clock.seconds()
            trouble = times.words if at >= times.end else "it was given up, as the call had ended"
            if isinstance(error, ToolFailed | _Passing):
                trouble = str(error)
            noted(note._replace(seconds=at - began, trouble=trouble))
            raise
        found = {name: _header(response, name) for name in ("Content-Type", "Location", "Retry-After")}
        noted(
            note._replace(
                status=response.code,
                reply_headers=tuple((name, value) for name, value in found.items() if value),
                reply=_text(body),
                seconds=self._clock.seconds() - began,
            )
        )
        place = found["Location"] if response.code in (301, 302, 303, 307, 308) else ""
        return Reply(response.code, found["Content-Type"], body), place or None, _seconds(found["Retry-After"])

    async def _sent(self, wish: _Wish, extra: tuple[tuple[str, str], ...]) -> tuple[Any, bytes]:
        headers = Headers(
            {
                "User-Agent": [f"extenbot/{__version__}"],
                "Accept": ["application/json, text/plain;q=0.9, */*;q=0.1"],
            }
        )
        if wish.body:
            headers.setRawHeaders("Content-Type", ["application/json"])
        for name, value in extra:
            headers.setRawHeaders(name, [value])
        try:
            client = HTTPClient(self._agent)  # a new one each time: cookies of one bot are none of another's
            body = _Bytes(wish.body) if wish.body else None
            response = await client.request(
                wish.method, _uri(wish.url), headers=headers, data=body, allow_redirects=False, unbuffered=True
            )
            streamed = _header(response, "Content-Type").lower().startswith("text/event-stream")
            limit = self._limit * (STREAM if streamed else 1)
            gathered = _Body(limit)
            response.deliverBody(gathered)
            return response, _unpacked(await gathered.done, _header(response, _PACKED), limit)
        except DNSLookupError as error:
            raise _Passing("its host name is not known", sent=False) from error
        except ConnectError as error:
            why = str(error).partition(":")[0].strip(".").lower()
            raise _Passing(f"it cannot be reached: {why}", sent=False) from error
        except (ResponseFailed, RequestTransmissionFailed, ConnectionClosed) as error:
            for reason in getattr(error, "reasons", ()):
                if reason.check(CancelledError):
                    raise CancelledError from error
                if reason.check(ToolFailed):
                    raise ToolFailed(str(reason.value)) from error
            raise _Passing("it has broken off the connection", sent=True) from error
        except (SchemeNotSupported, ValueError) as error:
            raise ToolFailed("its URL is not valid") from error


def signature(secret: str, at: int, body: bytes) -> str:
    """What stands in X-Extenbot-Signature: HMAC-SHA256 over the time (unix seconds), a dot and the body."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, sha256)
    return f"t={at},v1={mac.hexdigest()}"


def _read(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        good = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ToolFailed("its URL is not valid: it begins with https:// or http://")
    return parts


def _bare(url: SplitResult) -> str:
    """The URL as it is asked for: without user, password and fragment."""
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path or "/", url.query, ""))


class _Uri(EncodedURL):
    """A URL in ASCII already: what treq would do to make it that breaks the hosts that are IPv6 addresses."""

    def to_uri(self) -> EncodedURL:
        return self


def _uri(url: SplitResult) -> EncodedURL:
    """What goes over the line (RFC 3987 3.1)."""
    host = url.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    elif not host.isascii():
        host = idna.encode(host, uts46=True).decode()
    if "_" in host:
        raise ToolFailed("its host name has a _ in it: give it one of letters, digits and hyphens, or use its address")
    netloc = host if url.port is None else f"{host}:{url.port}"
    path, query = (quote(part, safe="/%:@!$&'()*+,;=~?") for part in (url.path or "/", url.query))
    uri = urlunsplit((url.scheme, netloc, path, query, ""))
    if len(uri) > LONGEST:
        raise ToolFailed(f"its URL would be longer than {LONGEST} characters: that much is sent in the body of a POST")
    return _Uri.from_text(uri)


def _origin(url: SplitResult) -> tuple[str, str, int]:
    return url.scheme, url.hostname or "", url.port or _DEFAULT_PORTS[url.scheme]


def _redirected(wish: _Wish, status: int, place: str) -> _Wish:
    """The request that follows a redirect (RFC 9110 15.4); what is private stays with its server."""
    url = _read(urljoin(_bare(wish.url), place))
    if wish.url.scheme == "https" and url.scheme != "https":
        raise ToolFailed("it redirects from https to http")
    again = wish._replace(url=url)
    if _origin(url) != _origin(wish.url):
        again = again._replace(private=(), key="", secret="")
    if (status in (301, 302) and wish.method == "POST") or (status == 303 and wish.method != "HEAD"):
        again = again._replace(method="GET", body=b"")  # as browsers do; Google's scripts count on it
    return again


def shown_url(url: SplitResult) -> str:
    """For people: without what is secret in it."""
    netloc = url.netloc.rpartition("@")[2]
    return urlunsplit((url.scheme, netloc, url.path, _VALUE.sub(_veiled, url.query), ""))


def _veiled(found: re.Match[str]) -> str:
    return f"{found[1]}=…" if _SECRET.search(unquote(found[1])) else found[0]


def _private(headers: tuple[tuple[str, str], ...], token: str, url: SplitResult) -> tuple[tuple[str, str], ...]:
    """The headers of the owner's own. `ToolFailed` when they would make another request of ours."""
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or name.lower() in _FRAMING or not value.isprintable():
            raise ToolFailed(f"its header {name!r} cannot be sent")
    if not token.isprintable():
        raise ToolFailed("its token cannot be sent")
    if token:
        return (*headers, ("Authorization", f"Bearer {token}"))
    if url.username is None:
        return headers
    given = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
    return (*headers, ("Authorization", f"Basic {b64encode(given).decode()}"))


def _hidden(name: str, value: str) -> str:
    kind, blank, _secret = value.partition(" ")
    return f"{kind} …" if name.lower() == "authorization" and blank else "…"


def _header(response: Any, name: str) -> str:
    values = response.headers.getRawHeaders(name.encode()) or [b""]
    return str(values[-1], "utf-8", "replace")


def _unpacked(data: bytes, coding: str, limit: int) -> bytes:
    """A reply that is compressed although nobody asked for that, at most `limit` bytes of it."""
    if coding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return data
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        data = unpacking.decompress(data, limit + 1)
    except zlib.error:
        raise ToolFailed("its reply cannot be unpacked") from None
    if len(data) > limit:
        raise _too_large(limit)
    return data


def _too_large(limit: int) -> ToolFailed:
    return ToolFailed(f"its reply is larger than {limit // 1024} KiB")


def _text(body: bytes) -> str:
    text = body[: SHOWN * 4].decode("utf-8", "replace")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _seconds(text: str) -> float | None:
    """Retry-After as seconds; a date is not worth the trouble."""
    return float(text) if re.fullmatch(r"[0-9]{1,4}", text.strip()) else None


def _sleep(clock: Any, seconds: float) -> Deferred[None]:
    done: Deferred[None] = Deferred(lambda _done: waiting.cancel())
    waiting = clock.callLater(seconds, done.callback, None)
    return done
