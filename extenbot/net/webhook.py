"""Posts to webhooks, bounded in time and size; every failure is a `ToolFailed` that the model can be told."""

from __future__ import annotations

import json
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.web.client import RequestTransmissionFailed, ResponseFailed
from twisted.web.error import SchemeNotSupported

from extenbot.errors import ToolFailed

TIMEOUT = 10.0
LIMIT = 64 * 1024


class _TooLarge(Exception):
    """The reply passed its limit."""


async def post(
    url: str,
    token: str,
    body: Any,
    timeout: float = TIMEOUT,  # noqa: ASYNC109  Twisted's, not asyncio's
    limit: int = LIMIT,
    *,
    client: Any = treq,
    clock: Any = None,
) -> tuple[int, str, bytes]:
    """Post `body` as JSON; status, content type and reply, within `timeout` seconds and `limit` bytes in all.

    Redirects are not followed: the bearer token is meant for this URL and no other.
    """
    if clock is None:
        from twisted.internet import reactor as clock
    exchange = Deferred.fromCoroutine(_exchange(client, url, token, body, limit))
    try:
        return await exchange.addTimeout(timeout, clock)
    except TimedOut:
        raise ToolFailed(f"the webhook has not answered within {timeout:g} seconds") from None
    except _TooLarge:
        raise ToolFailed(f"the webhook's reply is larger than {limit // 1024} KiB") from None
    except DNSLookupError:
        raise ToolFailed("the webhook's host name is not known") from None
    except ConnectError as error:
        raise ToolFailed(f"the webhook cannot be reached: {type(error).__doc__ or error}") from error
    except (ResponseFailed, RequestTransmissionFailed, ConnectionClosed) as error:
        raise ToolFailed("the webhook has broken off the connection") from error
    except (SchemeNotSupported, ValueError) as error:
        raise ToolFailed("the webhook's URL is not valid") from error


async def _exchange(client: Any, url: str, token: str, body: Any, limit: int) -> tuple[int, str, bytes]:
    headers = {b"Content-Type": b"application/json", b"Accept": b"application/json, text/plain;q=0.9, */*;q=0.1"}
    if token:
        headers[b"Authorization"] = b"Bearer " + token.encode()
    data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    response = await client.post(url, data=data, headers=headers, allow_redirects=False, unbuffered=True)
    reply = bytearray()

    def collect(part: bytes) -> None:
        reply.extend(part)
        if len(reply) > limit:
            raise _TooLarge

    await treq.collect(response, collect)
    kinds = response.headers.getRawHeaders("content-type") or [""]
    return response.code, kinds[-1], bytes(reply)
