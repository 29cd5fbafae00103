"""Posts to webhooks, bounded in time and size; every failure is a `ToolFailed` that the model can be told."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import treq
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseDone, ResponseFailed
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss

from extenbot.errors import ToolFailed

TIMEOUT = 10.0
LIMIT = 64 * 1024


class _Reply(Protocol):
    """Gathers a reply. Cancelling `done`, or a byte too many, closes the connection."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.done: Deferred[bytes] = Deferred(lambda _done: self._close())
        self._limit = limit

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > self._limit and not self.done.called:
            self._close()
            self.done.errback(ToolFailed(f"the webhook's reply is larger than {self._limit // 1024} KiB"))

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


async def post(
    url: str,
    token: str,
    body: Any,
    timeout: float = TIMEOUT,  # noqa: ASYNC109  Twisted's, not asyncio's
    limit: int = LIMIT,
    *,
    client: Any = treq,
    clock: Any = None,  # IReactorTime
) -> tuple[int, str, bytes]:
    """Post `body` as JSON; status, content type and reply, within `timeout` seconds and `limit` bytes in all.

    Redirects are not followed: the bearer token is meant for this URL and no other.
    """
    if clock is None:
        from twisted.internet import reactor as clock

    def late(_result: object, seconds: float) -> NoReturn:
        raise ToolFailed(f"the webhook has not answered within {seconds:g} seconds")

    try:
        return await Deferred.fromCoroutine(_exchange(client, url, token, body, limit)).addTimeout(timeout, clock, late)
    except DNSLookupError as error:
        raise ToolFailed("the webhook's host name is not known") from error
    except ConnectError as error:
        raise ToolFailed(f"the webhook cannot be reached: {str(error).partition(':')[0].strip('.')}") from error
    except (ResponseFailed, RequestTransmissionFailed, ConnectionClosed) as error:
        raise ToolFailed("the webhook has broken off the connection") from error
    except (SchemeNotSupported, ValueError) as error:
        raise ToolFailed("the webhook's URL is not valid") from error


async def _exchange(client: Any, url: str, token: str, body: Any, limit: int) -> tuple[int, str, bytes]:
    headers = {b"Content-Type": b"application/json", b"Accept": b"application/json, text/plain;q=0.9, */*;q=0.1"}
    if token:
        headers[b"Authorization"] = b"Bearer " + token.encode()
    data = json.dumps(body).encode()
    response = await client.post(url, data=data, headers=headers, allow_redirects=False, unbuffered=True)
    reply = _Reply(limit)
    response.deliverBody(reply)
    kinds = response.headers.getRawHeaders("content-type") or [""]
    return response.code, kinds[-1], await reply.done
