"""What is noted of a call for the people it belongs to: who it was, and what happened when."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from extenbot.errors import Malformed
from extenbot.interfaces import Event, Exchange
from extenbot.sip.headers import name_addr
from extenbot.sip.message import Request

#: of a timeline longer than this the middle is left out: a record must stay a record
MOST_EVENTS = 2000

LONGEST = 16_384
"""Characters of one value in a timeline; what is longer is cut, and then it is text."""

SHOWN = 4000
"""Characters of a body or reply in the timeline."""


class Journal:
    """The timeline of one call; the `CallLog` its parts write to."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._began = clock.seconds()
        self._first: list[Event] = []
        self._last: deque[Event] = deque(maxlen=MOST_EVENTS // 2)
        self._left_out = 0

    def happened(self, what: str, /, **fields: object) -> None:
        """Add to the timeline, to a bound."""
        event = Event(self.elapsed(), what, {key: _cut(value) for key, value in fields.items()})
        if len(self._first) < MOST_EVENTS - MOST_EVENTS // 2 - 1:
            self._first.append(event)
        else:
            self._left_out += len(self._last) == self._last.maxlen
            self._last.append(event)

    @property
    def events(self) -> tuple[Event, ...]:
        """The timeline so far: how a call began and how it ends, and how much between them is not there."""
        middle = (Event(self._last[0].at, "timeline.cut", {"events": self._left_out}),) if self._left_out else ()
        return (*self._first, *middle, *self._last)

    def elapsed(self) -> float:
        """Seconds since the call began, to the millisecond."""
        return round(self._clock.seconds() - self._began, 3)


def _cut(value: object) -> object:
    """A value that a record can hold: a server may send what is megabytes long, or nested a thousand times."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, Mapping | list | tuple):
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except (ValueError, RecursionError):
            return "…"
    else:
        return value
    return value if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def fields_of(exchange: Exchange) -> dict[str, object]:
    """An exchange with a server of the owner's, for the timeline: without what is empty, and to a bound."""
    fields = {key: value for key, value in exchange._asdict().items() if value not in ("", (), 0)}
    return fields | {key: str(fields[key])[:SHOWN] for key in ("body", "reply") if key in fields}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is on the line: P-Asserted-Identity, else Remote-Party-ID, else From (product.md 2; RFC 3325 9.1)."""

    number: str = ""
    name: str = ""


def headers_of(request: Request) -> dict[str, str]:
    """What prompts may want to know of an INVITE: who diverted it, and the PBX's own headers."""
    return {name: request.first(name) or "" for name in request.headers if name == "diversion" or name.startswith("x-")}


def caller_of(request: Request) -> Caller:
    """The caller of an INVITE; empty fields where the headers do not say."""
    for header in ("p-asserted-identity", "remote-party-id", "from"):
        for text in request.all(header):
            try:
                who = name_addr(text)
            except Malformed:
                continue
            number = who.uri.user or ""
            if number:
                return Caller(number, who.display)
    return Caller()
