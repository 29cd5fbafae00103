"""Session descriptions: read an offer, agree on one G.711 stream, write the answer (RFC 8866, RFC 3264).

Agreed is one audio stream, PCMU or PCMA in the offer's order, with telephone-event at the offer's payload type. Every
other media line is answered with port 0. It is plain RTP (a phone for which SRTP is optional may add `a=crypto` to such
a line: it is passed over), or SRTP with keys by `a=crypto` (RFC 4568), which is only taken when the signalling is
encrypted too, as the keys would be readable otherwise (RFC 4568 7.1.1, 10.1).
Hold is a direction here (RFC 3264 8.4); what a held line does is decided in `line`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from extenbot.errors import Malformed, Refused
from extenbot.interfaces import Address
from extenbot.media import srtp

LARGEST = 65535
STATIC = {"0": "PCMU", "8": "PCMA"}
_STATIC_TYPES = {name: int(kind) for kind, name in STATIC.items()}
FORMATS = {"PCMU": "audio/pcmu", "PCMA": "audio/pcma"}
PLAIN = frozenset({"RTP/AVP", "RTP/AVPF"})
ENCRYPTED = frozenset({"RTP/SAVP", "RTP/SAVPF"})
PACKET_TIMES = (10, 20, 30, 40, 50, 60)
EVENT_TYPE = 101
"""The payload type we offer for telephone-event; PBXs expect this one."""

_ANSWERING = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


@dataclass(frozen=True, slots=True)
class Media:
    """One m= line with what belongs to it; `host` and `direction` fall back to the session's."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    host: str
    direction: str
    attributes: tuple[tuple[str, str], ...]

    def values(self, name: str) -> Iterator[str]:
        """The values of each `a=NAME:value`."""
        return (value for key, value in self.attributes if key == name)

    def value(self, name: str) -> str | None:
        """The first value of `a=NAME:value`, "" for a bare `a=NAME`."""
        return next(self.values(name), None)


@dataclass(frozen=True, slots=True)
class Offer:
    """A session description of the other side, an answer of theirs likewise."""

    media: tuple[Media, ...]
    time: str = "0 0"


@dataclass(frozen=True, slots=True)
class Agreed:
    """The one audio stream both sides want. `direction` is ours."""

    codec: str  # "PCMU" or "PCMA"
    payload_type: int
    format: str  # "audio/pcmu" or "audio/pcma"
    event_type: int | None  # of telephone-event
    ptime: int  # ms of audio in a packet we send
    remote: Address | None  # where to send; None while held by c=0.0.0.0, or when it is not an IP address
    remote_control: Address | None  # the same for RTCP
    direction: str  # "sendrecv", "recvonly", "sendonly" or "inactive"
    rtcp_mux: bool
    crypto: srtp.Crypto | None = None  # of SRTP
    place: int = 0  # of its m= line in the offer

    @property
    def held(self) -> bool:
        """The other side does not listen to us: what it sends, if anything, is music."""
        return self.direction in ("recvonly", "inactive")


# -- Reading --------------------------------------------------------------------------


def read_offer(sdp: bytes) -> Offer:
    """A session description; `Malformed` when it cannot be one."""
    if len(sdp) > LARGEST:
        raise Malformed("session description too long")
    lines = sdp.decode("utf-8", "replace").replace("\r\n", "\n").strip("\n\0 ").split("\n")
    if lines[0].strip() != "v=0":
        raise Malformed("session description does not begin with v=0")
    session: list[tuple[str, str]] = []
    sections: list[list[tuple[str, str]]] = []
    for line in lines[1:]:
        key, equals, value = line.strip().partition("=")
        if not equals or len(key) != 1:
            raise Malformed(f"not a line of a session description: {line[:40]!r}")
        if key == "m":
            sections.append([])
        (sections[-1] if sections else session).append((key, value.strip()))
    host, direction = _host(session), _direction(session)
    time = next((value for key, value in session if key == "t"), "0 0")
    return Offer(tuple(_media(section, host, direction) for section in sections), time)


def _media(section: list[tuple[str, str]], session_host: str | None, session_direction: str | None) -> Media:
    words = section[0][1].split()
    if len(words) < 4:
        raise Malformed("m= line with less than four words")
    kind, port_text, protocol, *formats = words
    port = _number(port_text.partition("/")[0], 65535)
    host = _host(section) or session_host
    if host is None:
        if port and kind == "audio":
            raise Malformed("audio without a c= line")
        host = ""
    direction = _direction(section) or session_direction or "sendrecv"
    return Media(kind, port, protocol, tuple(formats), host, direction, tuple(_attributes(section)))


def _attributes(lines: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for key, value in lines:
        if key == "a":
            name, _, rest = value.partition(":")
            yield name.strip(), rest.strip()


def _direction(lines: list[tuple[str, str]]) -> str | None:
    return next((name for name, _ in _attributes(lines) if name in _ANSWERING), None)


def _host(lines: list[tuple[str, str]]) -> str | None:
    for key, value in lines:
        if key == "c":
            words = value.split()
            if len(words) != 3 or words[0] != "IN" or words[1] not in ("IP4", "IP6"):
                raise Malformed("c= line that is not IN IP4 or IN IP6")
            return words[2].partition("/")[0]
    return None


def _number(text: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) > most:
        raise Malformed(f"not a number up to {most}: {text[:20]!r}")
    return int(text)


# -- Agreeing ---------------------------------------------------------------------------


def agree(offer: Offer, only: str = "", secret: bytes = b"") -> Agreed:
    """What we make of an offer; `only` names the codec in use, which is kept when it is offered at all.

    `secret` is 32 random bytes, the same for the whole call, from which our keys for SRTP are made; empty when the
    signalling is not encrypted. `Refused` 488 with a Warning (RFC 3261 20.43) when there is no audio line, none over a
    transport of ours, or no G.711 in it.
    Audio that is switched off (port 0) in the middle of a call is a hold: it may be switched on again.
    """
    place, crypto = _chosen(offer, secret)
    if place is None and only and (off := _off(offer)) is not None:
        return Agreed(only, _STATIC_TYPES[only], FORMATS[only], None, 20, None, None, "inactive", False, place=off)
    if place is None:
        protocols = [media.protocol for media in offer.media if media.kind == "audio" and media.port]
        if not protocols:
            raise _not_acceptable(304, "Media type not available")
        if ENCRYPTED.isdisjoint(protocols):
            raise _not_acceptable(302, "Incompatible transport protocol")
        raise _not_acceptable(302, "No a=crypto line that we can use" if secret else "TLS is needed for SRTP")
    media = offer.media[place]
    types = _types(media)
    laws = [(name, kind) for kind, (name, rate) in types.items() if name in FORMATS and rate == 8000]
    codec, payload_type = next((law for law in laws if law[0] == only), laws[0] if laws else ("", 0))
    if not codec:
        raise _not_acceptable(305, "Incompatible media format")
    event = next((kind for kind, (name, rate) in types.items() if name == "TELEPHONE-EVENT" and rate == 8000), None)
    direction = _ANSWERING[media.direction]
    if _unspecified(media.host):  # the old way to hold (RFC 3264 8.4): they may send, they will not listen
        direction = "inactive" if direction in ("inactive", "sendonly") else "recvonly"
    mux = media.value("rtcp-mux") is not None
    remote = _address(media.host, media.port)
    return Agreed(
        codec=codec,
        payload_type=payload_type,
        format=FORMATS[codec],
        event_type=event,
        ptime=_packet_time(media),
        remote=remote,
        remote_control=remote if mux else _control(media),
        direction=direction,
        rtcp_mux=mux,
        crypto=crypto,
        place=place,
    )


def _not_acceptable(code: int, words: str) -> Refused:
    return Refused(488, "Not Acceptable Here", [("Warning", f'{code} extenbot "{words}"')])


def _chosen(offer: Offer, secret: bytes) -> tuple[int | None, srtp.Crypto | None]:
    """The place of the first audio line over plain RTP, or over SRTP with a key that we can use."""
    for place, media in enumerate(offer.media):
        if media.kind != "audio" or not media.port:
            continue
        if media.protocol in PLAIN:
            return place, None
        if media.protocol in ENCRYPTED and secret:
            for value in media.values("crypto"):  # in the order of their preference (RFC 4568 5.1.2)
                if (crypto := srtp.read(value, secret)) is not None:
                    return place, crypto
    return None, None


def _off(offer: Offer) -> int | None:
    """The place of the first audio line when every audio line is switched off."""
    audio = [(place, media) for place, media in enumerate(offer.media) if media.kind == "audio"]
    if any(media.port for _, media in audio):
        return None
    return next((place for place, media in audio if media.protocol in PLAIN | ENCRYPTED), None)


def _types(media: Media) -> dict[int, tuple[str, int]]:
    """Codec name (upper case) and clock rate of each payload type, in the order of the m= line."""
    mapped: dict[str, tuple[str, int]] = {kind: (name, 8000) for kind, name in STATIC.items()}
    for value in media.values("rtpmap"):
        kind, _, encoding = value.partition(" ")
        name, _, rest = encoding.strip().partition("/")
        rate, _, channels = rest.partition("/")
        if rate.isascii() and rate.isdigit() and len(rate) < 7 and channels in ("", "1"):
            mapped[kind.strip()] = (name.upper(), int(rate))
        else:
            mapped.pop(kind.strip(), None)
    return {
        int(kind): mapped[kind]
        for kind in media.formats
        if kind in mapped and kind.isascii() and kind.isdigit() and len(kind) < 4 and int(kind) < 128
    }


def _packet_time(media: Media) -> int:
    """The packet time to send: theirs, or 20 ms (RFC 3551 4.2), never above their maxptime (RFC 8866 6.4)."""
    wanted = _milliseconds(media.value("ptime"), 20)
    most = _milliseconds(media.value("maxptime"), PACKET_TIMES[-1])
    fitting = [time for time in PACKET_TIMES if time <= min(wanted, most)]
    return fitting[-1] if fitting else PACKET_TIMES[0]


def _milliseconds(text: str | None, default: int) -> int:
    whole = (text or "").partition(".")[0]
    return int(whole) if whole.isascii() and whole.isdigit() and 0 < len(whole) < 5 and int(whole) else default


def _control(media: Media) -> Address | None:
    """Where RTCP goes: `a=rtcp` (RFC 3605), else the port above."""
    port, _, connection = (media.value("rtcp") or "").partition(" ")
    words = connection.split()
    host = words[2] if len(words) == 3 else media.host
    if port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536:
        return _address(host, int(port))
    return _address(media.host, media.port + 1) if media.port < 65535 else None


def _unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _address(host: str, port: int) -> Address | None:
    """None for what nothing can be sent to; a host name is not looked up, the source of their RTP will tell."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if address.is_unspecified or address.is_multicast else (str(address), port)


# -- Writing ----------------------------------------------------------------------------


def write_answer(offer: Offer, agreed: Agreed, address: Address, session_id: int, version: int) -> bytes:
    """The answer that makes `agreed` true: each m= line of the offer in its place (RFC 3264 6)."""
    lines = _head(address, session_id, version, offer.time)
    for place, media in enumerate(offer.media):
        # Both ways of a line that is off: then this is no answer but our offer, on the lines there are.
        if place == agreed.place and (media.port or agreed.direction == "sendrecv"):
            lines += _audio(
                address, media.protocol, {agreed.payload_type: agreed.codec}, agreed.event_type, agreed.ptime,
                agreed.direction, agreed.rtcp_mux, agreed.crypto,
            )  # fmt: skip
        else:
            lines.append(f"m={media.kind} 0 {media.protocol} {' '.join(media.formats)}")
    return _text(lines)


def write_offer(
    address: Address, session_id: int, version: int, agreed: Agreed | None = None, direction: str = "sendrecv"
) -> bytes:
    """Our offer: both laws, the one that was `agreed` before first."""
    codecs, event, ptime = {0: "PCMU", 8: "PCMA"}, EVENT_TYPE, 20
    if agreed is not None:
        codecs = {agreed.payload_type: agreed.codec} | {
            kind: law for kind, law in codecs.items() if law != agreed.codec and kind != agreed.event_type
        }
        event, ptime = agreed.event_type or EVENT_TYPE, agreed.ptime
    return _text(
        _head(address, session_id, version, "0 0") + _audio(address, "RTP/AVP", codecs, event, ptime, direction, False)
    )


def read_answer(sdp: bytes, only: str = "", secret: bytes = b"") -> Agreed:
    """What the other side made of our offer; `Malformed`, or `Refused` 488 when it took none of it."""
    return agree(read_offer(sdp), only, secret)


def _head(address: Address, session_id: int, version: int, time: str) -> list[str]:
    where = f"IN {'IP6' if ':' in address[0] else 'IP4'} {address[0]}"
    return ["v=0", f"o=- {session_id} {version} {where}", "s=-", f"c={where}", f"t={time}"]


def _audio(
    address: Address, protocol: str, codecs: dict[int, str], event: int | None, ptime: int, direction: str, mux: bool,
    crypto: srtp.Crypto | None = None,
) -> list[str]:  # fmt: skip
    kinds = [*codecs, *([] if event is None else [event])]
    lines = [f"m=audio {address[1]} {protocol} {' '.join(map(str, kinds))}"]
    lines += [f"a=rtpmap:{kind} {codec}/8000" for kind, codec in codecs.items()]
    if event is not None:
        lines += [f"a=rtpmap:{event} telephone-event/8000", f"a=fmtp:{event} 0-15"]
    if crypto is not None:
        lines.append(srtp.write(crypto))
    lines += [f"a=ptime:{ptime}", f"a={direction}"]
    return [*lines, "a=rtcp-mux"] if mux else lines


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()
