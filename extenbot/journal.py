"""What is noted of a call for the people it belongs to: who it was, and what happened when."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from extenbot.errors import Malformed
from extenbot.interfaces import Event, Exchange
from extenbot.sip.headers import name_addr
from extenbot.sip.message import Request

#: a timeline longer than this is cut: a record must stay a record
MOST_EVENTS = 2000

SHOWN = 4000
"""Characters of a body or reply in the timeline."""


class Journal:
    """The timeline of one call; the `CallLog` its parts write to."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._began = clock.seconds()
        self.events: list[Event] = []

    def happened(self, what: str, /, **fields: object) -> None:
        """Add to the timeline, to a bound."""
        if len(self.events) < MOST_EVENTS:
            self.events.append(Event(self.elapsed(), what, fields))

    def elapsed(self) -> float:
        """Seconds since the call began, to the millisecond."""
        return round(self._clock.seconds() - self._began, 3)


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
