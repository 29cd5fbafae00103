"""One GPT-Live session over one websocket: started with its settings, read, closed; nothing of the conversation.

    connecting --connected, session.start sent--> starting --session.started, format right--> open
    open --close: session.close sent--> closing --session.closed, or 2 s--> gone
    any: refused, late, lost, a fatal error --> gone, and the owner hears `ended` once

Nothing but session.start may be sent before session.started. Errors name our message as client_event_id. The service
bills by the seconds of the session, which it says now and then; between that they are counted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Protocol

from extenbot.ai import events, refusals
from extenbot.ai.events import section, word
from extenbot.ai.timers import Timers
from extenbot.errors import BackendLost, Malformed
from extenbot.interfaces import Connect, Json, Link

PATIENCE = 2.0
"""Seconds that the service may take to close a session, with its last transcripts and counts."""

AGAIN = frozenset({1001, 1005, 1006, 1011, 1012, 1013, 1015})
"""Close codes after which a new session may well be had."""

_CLOSED = {
    "expired": ("expired", "The voice session reached its longest duration."),
    "content": ("lost", "The voice service ended the session by its content filter."),
    "connection_lost": ("lost", "The voice service lost the session."),
    "remote_hangup": ("lost", "The voice service hung up."),
    "close_requested": ("lost", "The voice service closed the session."),
}


class Stage(Enum):
    """Of one session."""

    CONNECTING = auto()
    STARTING = auto()
    OPEN = auto()
    CLOSING = auto()
    GONE = auto()


class Owner(Protocol):
    """Who a session belongs to."""

    def started(self, session: LiveSession) -> None:
        """It is open, with the format of the call."""

    def happened(self, session: LiveSession, event: Json) -> None:
        """Any event of an open session, and the last ones of one that closes. May raise `Malformed`."""

    def ended(self, session: LiveSession, why: BackendLost | None, again: bool) -> None:
        """It is over: closed as we asked (None), or lost; `again`: another one may be had."""


class LiveSession:
    """A `LinkListener` to its websocket. Seconds and counts stay readable after the end."""

    def __init__(self, owner: Owner, clock: Any, log: Any, settings: Json, secret: str, timeout: float) -> None:
        self.stage = Stage.CONNECTING
        self.expires_at = 0
        self.opening_ms = 0  # how long that took
        self.unread = 0  # messages that could not be read
        self._owner = owner
        self._clock = clock
        self._log = log
        self._settings = settings
        self._secret = secret
        self._timeout = timeout
        self._timers = Timers(clock)
        self._began = clock.seconds()
        self._link: Link | None = None
        self._error: Json = {}
        self._start_id = ""
        self._sent = 0
        self._billed = 0.0  # seconds, as the service said last
        self._billed_at: float | None = None  # on the clock; None: the session does not run

    def open(self, connect: Connect, url: str, headers: Mapping[str, str]) -> None:
        """Dial; it must be open within the time-out from now."""
        self._timers.set("open", self._timeout, self._late)
        try:
            self._link = connect(url, headers, self, self._timeout)
        except BaseException:
            self._timers.clear_all()
            raise

    @property
    def seconds(self) -> float:
        """What the service bills so far."""
        since = 0.0 if self._billed_at is None else float(self._clock.seconds() - self._billed_at)
        return self._billed + since

    # -- Sending

    def append(self, audio: bytes, congested: int) -> bool:
        """Caller audio, on the hot path; False when it was thrown away, for too much is waiting already."""
        link = self._link
        if link is None or self.stage is not Stage.OPEN:
            return False
        if link.waiting() > congested:
            return False
        link.send(events.append(audio, b"session.input_audio.append"))
        return True

    def send(self, kind: str, fields: Json) -> str:
        """Any other message of an open session; its event id."""
        if self.stage is not Stage.OPEN:
            return ""
        return self._send(kind, fields)

    def _send(self, kind: str, fields: Json) -> str:
        self._sent += 1
        name = f"c{self._sent}"
        if self._link is not None:
            self._link.send(events.write(kind, name, fields))
        return name

    def close(self) -> None:
        """End it; `ended` follows when the service has said its last, or at once when it had not begun."""
        if self.stage is Stage.OPEN:
            self._send("session.close", {})
            self.stage = Stage.CLOSING
            self._timers.clear_all()
            self._timers.set("close", PATIENCE, self._end, None)
        elif self.stage in (Stage.CONNECTING, Stage.STARTING):
            self._end(None)

    def _end(self, why: BackendLost | None, again: bool = False) -> None:
        if self.stage is Stage.GONE:
            return
        self._billed, self._billed_at = self.seconds, None
        self.stage = Stage.GONE
        self._timers.clear_all()
        if self._link is not None:
            self._link.close()
        self._owner.ended(self, why, again)

    def _late(self) -> None:
        self._end(refusals.late(self._timeout, self._error), True)

    # -- LinkListener

    def connected(self) -> None:
        """The websocket is open: the client speaks first."""
        if self.stage is Stage.CONNECTING:
            self.stage = Stage.STARTING
            self._start_id = self._send("session.start", {"session": self._settings})

    def received(self, text: bytes) -> None:
        """One message of the service. What cannot be read is counted and forgotten."""
        try:
            event = events.read(text)
            match event["type"]:
                case "session.started":
                    self._started(section(event, "session"))
                case "error":
                    self._erred(section(event, "error"), word(event, "client_event_id"))
                case "session.usage.updated":
                    self._bill(event)
                case "session.closed":
                    self._closed(event)
                case _ if self.stage in (Stage.OPEN, Stage.CLOSING):
                    self._owner.happened(self, event)
        except Malformed:
            self.unread += 1

    def lost(self, clean: bool, code: int | None, reason: str) -> None:  # noqa: ARG002
        """The websocket is closed or never opened. Bad luck within `open` itself is told a moment later."""
        if self._link is None:
            self._timers.set("open", 0, self._gone, code, reason)
        else:
            self._gone(code, reason)

    def _gone(self, code: int | None, reason: str) -> None:
        if self.stage is Stage.CLOSING:
            self._end(None)
            return
        opened = self.stage is Stage.OPEN
        why = refusals.gone(code, self._clean(reason), self._error, opened=opened)
        self._end(why, why.cause == "expired" or (why.cause in ("lost", "busy") and code in AGAIN))

    # -- What the service says

    def _started(self, session: Json) -> None:
        if self.stage is not Stage.STARTING:
            return
        asked = section(self._settings, "audio")["format"]["type"]
        said = word(section(section(session, "audio"), "format"), "type")
        if said not in ("", asked):
            self._end(refusals.wrong_format(asked, said, said))
            return
        self._timers.clear("open")
        self.expires_at = events.number(session, "expires_at")
        self._billed_at = self._clock.seconds()
        self.opening_ms = round((self._billed_at - self._began) * 1000)
        self.stage = Stage.OPEN
        self._owner.started(self)

    def _erred(self, error: Json, ours: str) -> None:
        """`ours`: the event id of our message that it is about, which may stand in the error itself as well."""
        said = self._clean(word(error, "message"))
        self._error = {**error, "message": said, "event_id": word(error, "client_event_id") or ours}
        self._log.happened("error", code=word(error, "code"), message=said[:300])
        why = refusals.fatal(self._error)
        if why is None and self.stage is Stage.STARTING:
            why = refusals.settings(self._error, self._start_id)
        if why is not None and self.stage is not Stage.CLOSING:
            self._end(why, why.cause == "expired")

    def _bill(self, event: Json) -> None:
        said = section(event, "usage").get("seconds")
        if isinstance(said, (int, float)) and not isinstance(said, bool) and 0 <= said < 1_000_000:
            self._billed = float(said)
            if self._billed_at is not None:
                self._billed_at = self._clock.seconds()

    def _closed(self, event: Json) -> None:
        self._bill(event)
        if self.stage is Stage.CLOSING:
            self._end(None)
            return
        reason = word(event, "reason")
        why = refusals.fatal(self._error) or BackendLost(*_CLOSED.get(reason, _CLOSED["close_requested"]))
        self._end(why, reason in ("expired", "connection_lost"))

    def _clean(self, said: str) -> str:
        return said.replace(self._secret, "…") if self._secret else said
