"""The websocket of the local voice: sessions of `session`, with the mind their model names.

`?model=sandbox` is the demo mind, `?model=sandbox-NAME` the script NAME.txt in the
scripts folder. A process started with one script serves it for every model name.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from extenbot import settings


class Sandbox:
    """A Realtime-compatible voice server."""

    def __init__(self, reactor: Any, settings: settings.Sandbox) -> None: ...

    def start(self) -> Deferred[str]:
        """Listen; fires with the URL, such as ws://127.0.0.1:41235/v1/realtime."""
        raise NotImplementedError

    def stop(self) -> Deferred[None]:
        """Close every session, the socket and the speech process."""
        raise NotImplementedError
