"""The bodies that we understand: SDP, a pressed key, news of a transfer (RFC 3261 7.4, 8.2.3).

What an SDP says is not our business here.
"""

from __future__ import annotations

import re

from extenbot.errors import Refused
from extenbot.sip.message import Request

SDP = "application/sdp"
RELAY = "application/dtmf-relay"
DTMF = "application/dtmf"
FRAGMENT = "message/sipfrag"
_STATUS = re.compile(rb"\s*SIP/2\.0 +([1-6]\d\d) *([^\r\n]*)", re.IGNORECASE)
_SIGNAL = re.compile(r"^\s*Signal\s*=\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_DIGIT = re.compile(r"[0-9*#A-D]")
_NUMBERED = {"10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D"}  # as RFC 4733 counts them


def offered(request: Request) -> bytes:
    """The SDP in a message, empty when there is none; `Refused` 415 for any other body (RFC 3261 8.2.3)."""
    if not request.body:
        return b""
    _known(request, SDP)
    return request.body


def check_accept(request: Request) -> None:
    """`Refused` 406 when the sender does not take the SDP that our answer will be (RFC 3261 20.1, RFC 4475 3.3.15)."""
    ranges = {kind.partition(";")[0].strip().lower() for kind in request.tokens("accept")}
    if ranges and not ranges & {SDP, "application/*", "*/*"}:
        raise Refused(406, "Only SDP is spoken here")


def pressed(request: Request) -> str:
    """The key that an INFO tells of: 0-9, *, #, A-D; empty when it tells of none.

    `Refused` 415 for any other body, 469 for an Info Package (RFC 6086 4.2.2): we have asked for none.
    """
    if request.first("info-package") is not None:
        raise Refused(469, "Bad Info Package", [("Recv-Info", "")])
    if not request.body:
        return ""
    text = request.body.decode("latin-1")
    if _known(request, RELAY, DTMF) == RELAY:
        signal = _SIGNAL.search(text)
        key = signal[1] if signal else ""
    else:
        key = text.strip()
    key = _NUMBERED.get(key, key).upper()
    return key if _DIGIT.fullmatch(key) else ""


def status(request: Request) -> tuple[int, str] | None:
    """Code and words of the status line in a NOTIFY of a transfer (RFC 3515 2.4.5), None without one."""
    found = _STATUS.match(request.body)
    return (int(found[1]), found[2].decode("utf-8", "replace").strip()) if found else None


def _known(request: Request, *kinds: str) -> str:
    """The type of its body; `Refused` 415 when that is none of `kinds`, or it is packed."""
    kind = (request.first("content-type") or "").partition(";")[0].strip().lower()
    if kind not in kinds:
        words = "Only SDP is understood" if kinds == (SDP,) else "This body is not understood"
        raise Refused(415, words, [("Accept", ", ".join(kinds))])
    if (request.first("content-encoding") or "identity").lower() != "identity":
        raise Refused(415, "No encoding is understood", [("Accept-Encoding", "identity")])
    return kind
