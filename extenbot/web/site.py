"""All pages as one resource, and what listens for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Request as SiteRequest
from twisted.web.server import Site

from extenbot.interfaces import Registration
from extenbot.settings import Settings
from extenbot.web import account, bench, bots, calls, doors, functions, sentences, servers
from extenbot.web.pages import Pages
from extenbot.web.seams import NOTHING, Binding, Connection, Live, Store
from extenbot.web.visits import LONGEST_BODY, LONGEST_UPLOAD

AREAS = (doors, bots, sentences, functions, servers, bench, calls, account)
"""The modules whose routes there are: importing them is what makes them known."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


def site(
    store: Store,
    settings: Settings,
    connection: Connection,
    registered: Callable[[str], Sequence[Binding]],
    registration: Callable[[str], Registration | None],
    now: Callable[[], float] = time.time,
    live: Live = NOTHING,
) -> Resource:
    """All pages. `registered` gives the contacts of the bot with that username, now.

    `registration` tells how it stands with that of the registrant with that id.
    """
    return _Guarded(Pages(store, settings, connection, registered, registration, now, live).app.resource(), settings)


class PagesSite(Site):
    """What listens: refuses bodies longer than any form of ours before they are kept."""

    noisy = False

    def __init__(self, resource: Resource) -> None:
        # Twisted's own reading of forms with files holds everybody up for 0.16 s at 6 MB: we read them ourselves.
        super().__init__(resource, requestFactory=_ShortRequest, parsePOSTFormSubmission=False)
        self.displayTracebacks = False


class _ShortRequest(SiteRequest):
    _taken = 0

    def gotLength(self, length: int | None) -> None:
        kind = (self.requestHeaders.getRawHeaders("content-type") or ("",))[0].strip().lower()
        self._longest = LONGEST_UPLOAD if kind.startswith("multipart/form-data") else LONGEST_BODY
        super().gotLength(min(length or 0, self._longest))
        if length is not None and length > self._longest:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._taken += len(data)
        if self._taken <= self._longest:
            super().handleContentChunk(data)
        elif self._taken - len(data) <= self._longest:
            self._refuse()

    def _refuse(self) -> None:
        self._taken = self._longest + 1
        if self.channel is not None and self.channel.transport is not None:
            self.channel.transport.write(
                b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            self.channel.loseConnection()


class _Guarded(Resource):
    """Puts the security headers on every answer, also on those that Klein makes by itself."""

    isLeaf = True

    def __init__(self, inner: Any, settings: Settings) -> None:
        super().__init__()
        self._inner = inner
        self._headers = dict(_HEADERS)
        if settings.web.url.startswith("https:"):
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    def render(self, request: Any) -> Any:
        for name, value in self._headers.items():
            request.setHeader(name, value)
        return self._inner.render(request)
