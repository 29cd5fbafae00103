"""SRTP with keys from the session description (RFC 3711, RFC 7714, RFC 4568 "SDES"); the cipher is libsrtp's.

`read` and `write` know the `a=crypto` line. `Srtp` is both directions of one call: what it cannot authenticate, or has
seen before, is None. Keys are secrets, so nothing here may end in a log; that they come over TLS is seen to in `sdp`.

Our key is derived from one secret of the call and the suite: a re-INVITE finds it unchanged, and two suites never share
one. When theirs changes, what is still on the way under the old key is read until the first packet under the new one.
Whether their rollover counter (the upper half of each packet's index) goes on then (RFC 3711 3.3.1) or begins at zero
(RFC 4568 7.1.4) is done in either way by phones, so both are tried. Nothing is tried without a new key: old packets
could be played to us again.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field
from hashlib import shake_256
from struct import pack

from pylibsrtp import Error, Policy, Session

SUITES = {
    "AEAD_AES_256_GCM": (Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
    "AEAD_AES_128_GCM": (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
    "AES_CM_128_HMAC_SHA1_80": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    "AES_CM_128_HMAC_SHA1_32": (Policy.SRTP_PROFILE_AES128_CM_SHA1_32, 30),
}
"""Each suite's profile, and how many bytes its master key and salt have together."""

WINDOW = 128
"""Packets that may come this much out of order without being taken for a replay."""

ATTEMPTS = 32
"""Packets under a new key for which the rollover counter is searched: it is work, and anybody can send packets."""

_STEP = 0x7000
"""A sequence may jump by less than half its range without doubt about the rollover."""


@dataclass(frozen=True, slots=True)
class Crypto:
    """What one audio stream is encrypted with. `tag` is the number of the line that was chosen."""

    tag: int
    suite: str
    ours: bytes = field(repr=False)  # master key and salt
    theirs: bytes = field(repr=False)


# -- The a=crypto line ------------------------------------------------------------------


def read(value: str, secret: bytes) -> Crypto | None:
    """The value of an `a=crypto` line (RFC 4568 9.1); None when we cannot do what it asks for. `secret` is the call's.

    Taken is one key without an identifier (MKI), of whatever lifetime; of the session parameters only the window size
    hint and those that are marked as ignorable (RFC 4568 6.3).
    """
    words = value.split()
    if len(words) < 3 or not words[0].isascii() or not words[0].isdigit() or len(words[0]) > 9:
        return None
    tag, suite, keys, *parameters = words
    if suite not in SUITES or not all(word.startswith(("-", "WSH=")) for word in parameters):
        return None
    method, _, rest = keys.partition(":")
    key, *more = rest.split("|")
    if method.lower() != "inline" or ";" in keys or len(more) > 1 or any(":" in part for part in more):
        return None
    try:
        theirs = binascii.a2b_base64(key + "=" * (-len(key) % 4), strict_mode=True)
    except ValueError:
        return None
    length = SUITES[suite][1]
    if len(theirs) != length:
        return None
    return Crypto(int(tag), suite, shake_256(secret + suite.encode()).digest(length), theirs)


def write(crypto: Crypto) -> str:
    """Our line: their tag, the suite, our key."""
    key = binascii.b2a_base64(crypto.ours, newline=False).decode()
    return f"a=crypto:{crypto.tag} {crypto.suite} inline:{key}"


# -- The packets ------------------------------------------------------------------------


class Srtp:
    """One call's streams, ours out and theirs in."""

    def __init__(self, crypto: Crypto) -> None:
        self._crypto = crypto
        self._out = _session(crypto.suite, crypto.ours, Policy.SSRC_ANY_OUTBOUND)
        self._in = _session(crypto.suite, crypto.theirs, Policy.SSRC_ANY_INBOUND)
        self._before: Session | None = None  # reads what is still on the way under the last key
        self._rollovers = self._attempts = 0  # of their stream under the last key; left to find where it goes on

    def renew(self, crypto: Crypto, rollovers: int) -> bool:
        """A re-INVITE's keys, which may be the same; whether ours has changed.

        `rollovers` is how often their sequence has passed its end.
        """
        last, self._crypto = self._crypto, crypto
        if (crypto.suite, crypto.theirs) != (last.suite, last.theirs):
            self._before, self._rollovers, self._attempts = self._in, rollovers, ATTEMPTS
            self._in = _session(crypto.suite, crypto.theirs, Policy.SSRC_ANY_INBOUND)
        if (crypto.suite, crypto.ours) == (last.suite, last.ours):
            return False
        self._out = _session(crypto.suite, crypto.ours, Policy.SSRC_ANY_OUTBOUND)
        return True

    def protect(self, data: bytes) -> bytes:
        """An RTP packet, encrypted."""
        encrypted: bytes = self._out.protect(data)
        return encrypted

    def protect_control(self, data: bytes) -> bytes:
        """An RTCP packet, encrypted."""
        encrypted: bytes = self._out.protect_rtcp(data)
        return encrypted

    def unprotect(self, data: bytes) -> bytes | None:
        """An RTP packet in clear; None when it is not authentic, or a replay."""
        try:
            clear: bytes = self._in.unprotect(data)
        except (Error, ValueError):
            return None if self._before is None else self._in_between(data)
        self._before = None
        return clear

    def unprotect_control(self, data: bytes) -> bytes | None:
        """An RTCP packet in clear; None when it is not authentic, or a replay."""
        for session in (self._in, self._before):
            if session is not None:
                try:
                    clear: bytes = session.unprotect_rtcp(data)
                except (Error, ValueError):
                    continue
                return clear
        return None

    def _in_between(self, data: bytes) -> bytes | None:
        """Their key has changed, and this packet is not the first under it with a counter that begins at zero."""
        assert self._before is not None
        try:
            clear: bytes = self._before.unprotect(data)
        except (Error, ValueError):
            pass
        else:
            return clear
        if not self._attempts or len(data) < 12:
            return None
        self._attempts -= 1
        for rollovers in {self._rollovers, self._rollovers + 1} - {0}:
            session = _wound(self._crypto, data, rollovers)
            try:
                clear = session.unprotect(data)
            except (Error, ValueError):
                continue
            self._in, self._before = session, None
            return clear
        return None


def _session(suite: str, key: bytes, kind: int) -> Session:
    policy = Policy(key, kind, srtp_profile=SUITES[suite][0])
    policy.window_size = WINDOW
    return Session(policy)


def _wound(crypto: Crypto, data: bytes, rollovers: int) -> Session:
    """A session for their stream that expects the packet `data` after so many rollovers.

    The library cannot be told, so it is led there by packets of our own making, which nobody else ever sees.
    """
    maker = _session(crypto.suite, crypto.theirs, Policy.SSRC_ANY_OUTBOUND)
    session = _session(crypto.suite, crypto.theirs, Policy.SSRC_ANY_INBOUND)
    last = (rollovers << 16) + int.from_bytes(data[2:4]) - WINDOW
    for index in (*range(0, last, _STEP), last):
        session.unprotect(maker.protect(pack("!BBHI", 0x80, 0, index & 0xFFFF, 0) + data[8:12]))
    return session
