"""The headers that have a shape of their own: addresses, Via, CSeq (RFC 3261 20), and what we say we can do.

Replaces `parseAddress` and `parseViaHeader` of `twisted.protocols.sip`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from twisted.protocols import sip

from extenbot.errors import Malformed
from extenbot.interfaces import Address
from extenbot.sip import grammar
from extenbot.sip.grammar import Params
from extenbot.sip.uri import Uri

METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "INFO", "NOTIFY", "UPDATE", "PRACK", "REGISTER")
ALLOW = ("Allow", ", ".join(METHODS))
EXTENSIONS = ("100rel", "norefersub", "replaces", "timer")
"""The option tags that may be required of us: RFC 3262, RFC 4488, RFC 3891, RFC 4028."""
REGISTERING = ("outbound", "path")
"""Those that a REGISTER may require: RFC 5626, RFC 3327."""
SUPPORTED = ("Supported", ", ".join(EXTENSIONS))
UNSERVED = frozenset({"MESSAGE", "PUBLISH"})
"""Methods that we know and do not take (405); what else there may be is 501."""
EVENTS = ("Allow-Events", "refer, message-summary")
CAPABILITIES = (ALLOW, ("Accept", "application/sdp"), SUPPORTED)
"""What a 200 for OPTIONS says (RFC 3261 11.2)."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SENT = re.compile(r"SIP\s*/\s*(\d+\.\d+)\s*/\s*([A-Za-z0-9.-]+)\s+(\S.*)", re.IGNORECASE | re.DOTALL)


class CSeq(NamedTuple):
    """RFC 3261 20.16."""

    number: int
    method: str

    @classmethod
    def read(cls, text: str) -> CSeq:
        parts = text.split()
        if len(parts) != 2 or not grammar.TOKEN.fullmatch(parts[1]):
            raise Malformed("CSeq is not a number and a method")
        try:
            return cls(grammar.number(parts[0], 2**31 - 1), parts[1])  # RFC 3261 8.1.1.5
        except Malformed:
            raise Malformed("The number in CSeq is not below 2**31") from None


@dataclass(frozen=True, slots=True)
class NameAddr:
    """A From, To, Contact, Route, Refer-To and the like (RFC 3261 20.10)."""

    display: str  # clear text, without control characters
    uri: Uri
    params: Params = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return self.params.get("tag") or ""

    def __str__(self) -> str:
        display = grammar.quote(self.display) + " " if self.display else ""
        return f"{display}<{self.uri}>{grammar.write_params(self.params)}"


def name_addr(text: str) -> NameAddr:
    """Read one address; without brackets all parameters belong to the header (RFC 3261 20)."""
    parts = grammar.pieces(text, ";")
    head = parts[0]
    display, opened, rest = _split_display(head)
    if not opened:
        display, uri = "", head
        if "?" in head:
            raise Malformed("An address with headers needs its brackets")
    else:
        uri, _, after = rest.partition(">")
        if after.strip():
            raise Malformed("There is text after an address")
    clear = grammar.unquote(display)
    return NameAddr(
        _CONTROL.sub("", clear).strip() if clear else "",
        Uri.read(uri.strip()),
        grammar.params(";".join(parts[1:])) if len(parts) > 1 else {},
    )


def _split_display(head: str) -> tuple[str, str, str]:
    if not head.startswith('"'):
        display, opened, rest = head.partition("<")
        return display.strip(), opened, rest
    quoted = re.match(r'"(?:[^"\\]|\\.)*"', head, re.DOTALL)
    rest = head[quoted.end() :].lstrip() if quoted else ""
    if not quoted or not rest.startswith("<"):
        raise Malformed("There is no address after a display name")
    return quoted[0], "<", rest[1:]


class Via(sip.Via):
    """One hop (RFC 3261 20.42). Treat it as a value; `port` is None when it was not written."""

    version = "2.0"  # another one is read, to be refused by 505

    def __init__(self, transport: str, host: str, port: int | None = None, params: Params | None = None) -> None:
        self.params = params or {}
        super().__init__(
            host,
            port,
            transport,
            branch=self.params.get("branch"),
            received=self.params.get("received"),
            maddr=self.params.get("maddr"),
        )
        if "rport" in self.params:
            self.rportRequested = self.params["rport"] is None
            self.rportValue = self.params["rport"]

    @classmethod
    def read(cls, text: str) -> Via:
        sent, *parameters = grammar.pieces(text, ";")
        match = _SENT.fullmatch(sent)
        if not match:
            raise Malformed("Via cannot be read")
        host, port = grammar.host_port(match[3])
        via = cls(match[2].upper(), host, port, grammar.params(";".join(parameters)))
        via.version = match[1]
        return via

    @property
    def sent_by(self) -> tuple[str, int]:
        """Host and port as the sender gave them, the port filled in (RFC 3261 18.1.1)."""
        return str(self.host).lower(), self.port or sip.PORT

    def stamped(self, source: Address) -> Via:
        """With where it really came from (RFC 3261 18.2.1, RFC 3581 4)."""
        values = dict(self.params)
        asked = "rport" in values
        if asked:
            values["rport"] = str(source[1])
        if asked or str(self.host).strip("[]").lower() != source[0].lower():
            values["received"] = source[0]
        else:
            values.pop("received", None)
        via = Via(self.transport, self.host, self.port, values)
        via.version = self.version
        return via

    def toString(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"SIP/{self.version}/{self.transport} {self.host}{port}{grammar.write_params(self.params)}"
