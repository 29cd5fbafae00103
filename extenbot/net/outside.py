"""HTTP requests to servers of bots' owners: functions, dify, webhooks around calls (`interfaces.Outside`).

Whatever an owner has typed as a URL, a request goes to no address but those that are allowed: a name is resolved once,
each of its addresses is checked, and the connection goes to one that was. Everything is bounded: time, redirects, the
reply, and how many requests of one bot are under way; who must wait, waits in order, and in its own time.

Every failure is a `ToolFailed` with a sentence for the model, and for the owner who reads the timeline.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, NamedTuple, NoReturn
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urljoin, urlsplit, urlunsplit

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from extenbot import __version__
from extenbot.errors import ToolFailed
from extenbot.interfaces import Exchange, Reply, unnoted
from extenbot.net.certificate import Authorities
from extenbot.networks import reachable
from extenbot.settings import Tools

IDLE = 30.0
"""Seconds that a connection is kept for the next request."""

PAUSE = 0.5
"""Seconds before a request is tried again, doubled each time, where the server does not say."""

SHOWN = 16_000
"""Characters of a body or reply that the owner is shown."""

CONNECTING = 5.0
"""Seconds that connecting to one address may take."""

REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""Methods that may be repeated (RFC 9110 9.2.2)."""

PASSING = frozenset({429, 502, 503, 504})
"""Answers after which another try may go better."""

_SECRET = re.compile(r"key|token|secret|pass|auth|sig", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


# -- Where connections may go -----------------------------------------------------------


@implementer(IResolutionReceiver)
class _Sieve:
    """Lets allowed addresses through."""

    def __init__(self, receiver: IResolutionReceiver, allowed: Callable[[str], bool], refused: list[str]) -> None:
        self._receiver, self._allowed, self._refused = receiver, allowed, refused

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        host = getattr(address, "host", "")
        if self._allowed(host):
            self._receiver.addressResolved(address)
        else:
            self._refused.append(host)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()


@implementer(IHostnameResolver)
class _Resolver:
    """The reactor's own, but for addresses that are not allowed."""

    def __init__(self, resolver: IHostnameResolver, allowed: Callable[[str], bool], refused: list[str]) -> None:
        self._resolver, self._allowed, self._refused = resolver, allowed, refused

    def resolveHostName(self, resolutionReceiver: IResolutionReceiver, *given: Any, **more: Any) -> IHostResolution:
        sieve = _Sieve(resolutionReceiver, self._allowed, self._refused)
        return self._resolver.resolveHostName(sieve, *given, **more)


@implementer(IReactorPluggableNameResolver, IReactorTCP, IReactorTime)
class _Reactor:
    """The reactor for one connection: with a resolver that leaves out what is not allowed."""

    def __init__(self, reactor: Any, allowed: Callable[[str], bool]) -> None:
        self.refused: list[str] = []
        self._reactor = reactor
        self.nameResolver = _Resolver(reactor.nameResolver, allowed, self.refused)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Says why there was no address to connect to."""

    def __init__(self, inner: Any, refused: list[str]) -> None:
        self._inner, self._refused = inner, refused

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        connecting: Deferred[Any] = self._inner.connect(protocolFactory)
        return connecting.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        if self._refused and failure.check(DNSLookupError):
            raise ToolFailed(
                f"its address {self._refused[0]} is private: the operator can name it in the setting [tools] allow"
            )
        return failure


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Makes connections, with TLS where the URL says so."""

    def __init__(self, reactor: Any, allowed: Callable[[str], bool], authorities: Authorities) -> None:
        self._reactor, self._allowed, self._authorities = reactor, allowed, authorities
        self.untrusted: dict[str, str] = {}  # by host: why its certificate was refused last

    def endpointForURI(self, uri: URI) -> Any:
        reactor = _Reactor(self._reactor, self._allowed)
        host = uri.host.decode("ascii")
        endpoint: Any = HostnameEndpoint(reactor, host.strip("[]"), uri.port, CONNECTING)
        if uri.scheme == b"https":
            proof = self._authorities.proof(host.strip("[]"), lambda words: self.untrusted.update({host: words}))
            endpoint = wrapClientTLS(proof, endpoint)
        return _Endpoint(endpoint, reactor.refused)


# -- Requests ---------------------------------------------------------------------------


class _Body(Protocol):
    """Gathers a reply. Cancelling `done`, or a byte too many, closes the connection."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.done: Deferred[bytes] = Deferred(lambda _done: self._close())
        self._limit = limit

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > self._limit and not self.done.called:
            self._close()
            self.done.errback(ToolFailed(f"its reply is larger than {self._limit // 1024} KiB"))

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


class _Wish(NamedTuple):
    """One request, as it stands between redirects."""

    method: str
    url: SplitResult
    body: bytes
    private: tuple[tuple[str, str], ...]  # headers for the server that the owner named, and no other
    shown: tuple[tuple[str, str], ...]


class Http:
    """Implements `interfaces.Outside`."""

    def __init__(self, reactor: Any, settings: Tools, now: Callable[[], float]) -> None:
        """`now` gives unix seconds, for signatures. `CannotStart` when the authorities cannot be read."""
        self._clock = reactor
        self._settings = settings
        self._now = now
        self._endpoints = _Endpoints(reactor, self.allowed, Authorities(settings.trust, "[tools] trust"))
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 8
        self._pool.cachedConnectionTimeout = int(IDLE)
        self._pool.retryAutomatically = False
        self._agent: Any = Agent.usingEndpointFactory(reactor, self._endpoints, self._pool)
        self._turns: dict[str, tuple[DeferredSemaphore, int]] = {}  # by bot, and how many want one

    def allowed(self, address: str) -> bool:
        """Whether bots may connect to this IP address."""
        return reachable(address, self._settings.allow)

    def stop(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closing: Deferred[None] = self._pool.closeCachedConnections()
        return closing

    async def fetch(
        self,
        bot_id: str,
        method: str,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        token: str = "",
        secret: str = "",
        key: str = "",
        body: bytes = b"",
        timeout: float = 10.0,  # noqa: ASYNC109  Twisted's, not asyncio's
        retries: int = 0,
        noted: Callable[[Exchange], None] = unnoted,
    ) -> Reply:
        """As in `interfaces.Outside`."""
        wish = self._wish(method, _read(url), headers, token, secret, key, body)
        tries = 1 + (retries if method in REPEATABLE else 0)

        def late(_result: object, seconds: float) -> NoReturn:
            raise ToolFailed(f"it has not answered within {seconds:g} seconds")

        work = self._in_turn(bot_id, lambda: self._tries(wish, tries, noted))
        try:
            return await work.addTimeout(timeout, self._clock, late)
        except ToolFailed as error:
            raise ToolFailed(f"{_named(wish.url)} cannot be used: {error}") from error

    def _wish(
        self, method: str, url: SplitResult, headers: Iterable[tuple[str, str]], token: str, secret: str, key: str,
        body: bytes,
    ) -> _Wish:  # fmt: skip
        private: list[tuple[str, str]] = [*headers]
        shown = [(name, "…") for name, _ in private]
        if token or url.username is not None:
            given = f"{unquote(url.username or '')}:{unquote(url.password or '')}".encode()
            private.append(("Authorization", f"Bearer {token}" if token else f"Basic {b64encode(given).decode()}"))
            shown.append(("Authorization", "Bearer …" if token else "Basic …"))
        ours = [("Idempotency-Key", key)] if key else []
        if secret:
            ours.append(("X-Extenbot-Signature", signature(secret, int(self._now()), body)))
        return _Wish(method, url, body, (*private, *ours), (*shown, *ours))

    # -- One after the other

    def _in_turn(self, bot_id: str, work: Callable[[], Any]) -> Deferred[Reply]:
        """Do it when fewer than the allowed number of this bot's are under way."""
        turns, wanted = self._turns.get(bot_id, (None, 0))
        turns = turns or DeferredSemaphore(self._settings.in_flight)
        self._turns[bot_id] = turns, wanted + 1

        def over(result: Any) -> Any:
            turns, wanted = self._turns[bot_id]
            if wanted > 1:
                self._turns[bot_id] = turns, wanted - 1
            else:
                del self._turns[bot_id]
            return result

        done: Deferred[Reply] = turns.run(lambda: Deferred.fromCoroutine(work()))
        return done.addBoth(over)

    async def _tries(self, wish: _Wish, tries: int, noted: Callable[[Exchange], None]) -> Reply:
        pause = PAUSE
        while True:
            tries -= 1
            try:
                reply, wait = await self._followed(wish, noted)
            except _Passing as error:
                if not tries:
                    raise ToolFailed(str(error)) from error
                wait = None
            else:
                if not tries or reply.status not in PASSING:
                    return reply
            await _sleep(self._clock, pause if wait is None else wait)
            pause *= 2

    async def _followed(self, wish: _Wish, noted: Callable[[Exchange], None]) -> tuple[Reply, float | None]:
        """The reply at the end of all redirects, and the seconds after which the server wants to be asked again."""
        for _ in range(self._settings.redirects + 1):
            reply, place, wait = await self._exchange(wish, noted)
            if place is None:
                return reply, wait
            wish = _redirected(wish, reply.status, place)
        raise ToolFailed(f"it redirects more than {self._settings.redirects} times")

    async def _exchange(
        self, wish: _Wish, noted: Callable[[Exchange], None]
    ) -> tuple[Reply, str | None, float | None]:  # fmt: skip
        """One request and its reply."""
        began = self._clock.seconds()
        note = Exchange(wish.method, shown_url(wish.url), wish.shown, _text(wish.body))
        try:
            response, body = await self._sent(wish)
        except BaseException as error:
            trouble = str(error) if isinstance(error, ToolFailed | _Passing) else "it was given up"
            noted(note._replace(seconds=self._clock.seconds() - began, trouble=trouble))
            raise
        kept = response.headers.getAllRawHeaders()
        found = {name.decode("latin-1").lower(): values[-1].decode("latin-1") for name, values in kept if values}
        noted(
            note._replace(
                status=response.code,
                reply_headers=tuple(
                    (name, value) for name, value in found.items() if name in ("content-type", "location")
                ),
                reply=_text(body),
                seconds=self._clock.seconds() - began,
            )
        )
        place = found.get("location") if response.code in (301, 302, 303, 307, 308) else None
        return Reply(response.code, found.get("content-type", ""), body), place, _seconds(found.get("retry-after", ""))

    async def _sent(self, wish: _Wish) -> tuple[Any, bytes]:
        headers: dict[bytes | str, list[bytes | str]] = {
            b"User-Agent": [f"extenbot/{__version__}".encode()],
            b"Accept": [b"application/json, text/plain;q=0.9, */*;q=0.1"],
        }
        if wish.body:
            headers[b"Content-Type"] = [b"application/json"]
        for name, value in wish.private:
            headers[name.encode("ascii")] = [value.encode("latin-1", "replace")]
        client = HTTPClient(self._agent)  # a new one: cookies of one bot are none of another's
        host = wish.url.hostname or ""
        self._endpoints.untrusted.pop(host, None)
        try:
            response = await client.request(
                wish.method, _address(wish.url), headers=headers, data=wish.body or None, allow_redirects=False,
                unbuffered=True,
            )  # fmt: skip
            body = _Body(self._settings.reply * 1024)
            response.deliverBody(body)
            return response, await body.done
        except (DNSLookupError, ConnectError) as error:
            known = not isinstance(error, DNSLookupError)
            why = str(error).partition(":")[0].strip(".").lower()
            raise _Passing(f"it cannot be reached: {why}" if known else "its host name is not known") from error
        except (ResponseFailed, RequestTransmissionFailed, ConnectionClosed) as error:
            words = self._endpoints.untrusted.pop(host, "")
            if words:
                raise ToolFailed(words) from error
            for reason in getattr(error, "reasons", ()):
                if reason.check(ToolFailed):
                    raise ToolFailed(str(reason.value)) from error
            raise _Passing("it has broken off the connection") from error
        except (SchemeNotSupported, ValueError) as error:
            raise ToolFailed("its URL is not valid") from error


class _Passing(Exception):
    """It failed, and may not the next time."""


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


def _address(url: SplitResult) -> str:
    """The URL as it is asked for: without user, password and fragment."""
    netloc = url.netloc.rpartition("@")[2]
    return urlunsplit((url.scheme, netloc, quote(url.path or "/", safe="/%:@!$&'()*+,;=~-._"), url.query, ""))


def _origin(url: SplitResult) -> tuple[str, str, int]:
    return url.scheme, url.hostname or "", url.port or _DEFAULT_PORTS[url.scheme]


def _redirected(wish: _Wish, status: int, place: str) -> _Wish:
    """The request that follows a redirect (RFC 9110 15.4); what is private stays with its server."""
    url = _read(urljoin(_address(wish.url), place))
    if wish.url.scheme == "https" and url.scheme != "https":
        raise ToolFailed("it redirects from https to http")
    again = wish._replace(url=url)
    if _origin(url) != _origin(wish.url):
        again = again._replace(private=(), shown=())
    if status in (301, 302, 303) and wish.method != "HEAD":  # as browsers do; Google's scripts count on it
        again = again._replace(method="GET", body=b"")
    return again


def shown_url(url: SplitResult) -> str:
    """For people: without what is secret in it."""
    netloc = url.netloc.rpartition("@")[2]
    query = [
        (name, "…" if _SECRET.search(name) else value) for name, value in parse_qsl(url.query, keep_blank_values=True)
    ]
    return urlunsplit((url.scheme, netloc, url.path, urlencode(query, safe="…"), ""))


def _named(url: SplitResult) -> str:
    return f"the server {url.hostname}"


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
