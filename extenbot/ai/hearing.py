"""The caller's audio on its way to the model, and the last of it kept for the next session.

The server takes turns by what it hears, so all of it goes there, silence too, in messages of 40 ms. While there is no
session it is only kept, as is what the caller has said since `mark`: the next session hears that first, faster than it
was spoken, and nothing of a turn is lost with the session that heard it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from extenbot.ai import events
from extenbot.ai.codec import Codec
from extenbot.ai.session import Nowhere
from extenbot.interfaces import Link

FRAME = 320
"""Bytes of caller audio in one message: 40 ms, for the websocket costs by the message."""

CONGESTED = 200_000
"""Bytes that the network has not taken; caller audio is thrown away above that, it would come seconds late."""

KEPT = 375
"""Frames that are kept: 15 s."""

BEFORE = 12
"""Frames before the caller's first word that are heard again with it: 0.5 s."""


class Hearing:
    """Begins with `go_to`, ends with `stop`."""

    def __init__(self) -> None:
        self.deaf = False
        """What the caller says now is for nobody: it is neither sent nor kept."""
        self.dropped = 0
        """Bytes that were thrown away because the network did not take them."""
        self.sent = 0
        """Bytes that the session has been sent: its clock."""
        self._link: Link = Nowhere()
        self._encode = Codec().encode
        self._connected = self._stopped = False
        self._half = b""
        self._recent: deque[bytes] = deque(maxlen=KEPT)
        self._frames = 0
        self._mark: int | None = None  # the first frame that the next session must hear

    def heard(self, audio: bytes) -> None:
        """20 ms of the caller. On the hot path."""
        audio = self._half + audio
        if len(audio) < FRAME:
            self._half = audio
            return
        self._half = b""
        if self.deaf or self._stopped:
            return
        recent = self._recent
        recent.append(audio)
        if self._mark is None and len(recent) > BEFORE:
            recent.popleft()
        self._frames += 1
        if self._connected:
            self._send(audio)

    def mark(self) -> None:
        """The caller begins to speak, or has just begun."""
        if self._mark is None:
            self._mark = self._frames - BEFORE

    def forget(self) -> None:
        """What the caller has said so far has become words, or has been answered."""
        self._mark = None
        while len(self._recent) > BEFORE:
            self._recent.popleft()

    @property
    def marked(self) -> bool:
        """Whether a turn of the caller is nowhere but in the audio."""
        return self._mark is not None

    def leave(self) -> None:
        """The session is gone: from now on audio waits for the next one."""
        self._connected = False
        if self._mark is None:
            self._mark = self._frames

    def go_to(self, link: Link, codec: Codec) -> None:
        """Audio goes there now; first of all what it must hear again."""
        self._link, self._encode = link, codec.encode
        self._connected, self.sent = True, 0
        if self._mark is not None:
            missed = min(self._frames - self._mark, len(self._recent))
            for audio in islice(self._recent, len(self._recent) - missed, None):
                self._send(audio)

    def stop(self) -> None:
        """Nothing more is heard."""
        self._stopped = True
        self._recent.clear()

    def _send(self, audio: bytes) -> None:
        self.sent += len(audio)
        if self._link.waiting() > CONGESTED:
            self.dropped += len(audio)
        else:
            self._link.send(events.append(self._encode(audio)))
