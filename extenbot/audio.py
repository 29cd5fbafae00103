"""The audio of one call: what both sides have agreed on, the port pair and the line it runs on (RFC 3264).

A call asks for descriptions and hands in theirs; what is in them, and what must happen to ports, keys and the line
when they change, is known here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from twisted.internet.interfaces import IReactorTime

from extenbot.interfaces import RtpPorts, Tokens
from extenbot.journal import Journal
from extenbot.media import sdp
from extenbot.media.line import Line, Statistics
from extenbot.media.pacer import Pacer
from extenbot.sip.session import Session

#: what stands before anything is agreed on, when the offer is ours: the voice must know its law before the answer
OURS = sdp.Agreed("PCMU", 0, "audio/pcmu", sdp.EVENT_TYPE, 20, None, None, "sendrecv", False)


class Audio:
    """`open` it and, sooner or later, `close` it. `agreed` is what stands now."""

    def __init__(
        self, clock: IReactorTime, tokens: Tokens, ports: RtpPorts, pacer: Pacer, journal: Journal, session: int
    ) -> None:
        """`session` is the number of our descriptions (RFC 8866 5.2)."""
        self.agreed = OURS
        self._clock = clock
        self._tokens = tokens
        self._ports = ports
        self._pacer = pacer
        self._journal = journal
        self._id = session
        self._version = 1
        self._offer: sdp.Offer | None = None  # theirs; without it ours stands
        self._described = b""  # our last description
        self._secret = b""  # what our SRTP keys are made of

    # -- From the beginning to the end --

    def begin(self, body: bytes, session: Session) -> None:
        """The offer of an INVITE, or none. `Refused` (488) and `Malformed` when it is of no use."""
        self.secure(session)
        if body:
            self._offer = sdp.read_offer(body)
            self.agreed = sdp.agree(self._offer, secret=self._secret)

    def open(self, host: str, digit: Callable[[str], None]) -> None:
        """Take a port pair that suits the peer at `host`, where the signalling is. `Refused` 503 without one."""
        self._host = host
        agreed = self.agreed
        self.line = Line(self._clock, self._pacer, self._tokens, agreed, agreed.codec, host, lambda _audio: None, digit)
        self._port = self._ports.open(self.line, self._toward(agreed))
        self.address = self._port.address

    def start(self) -> None:
        """Send and hear from now on."""
        self.line.start(self._port)

    @property
    def statistics(self) -> Statistics:
        """The counts so far, also before the beginning and after the end."""
        return self.line.statistics if hasattr(self, "line") else Statistics(self.agreed.codec)

    def close(self) -> None:
        """Stop the line and give the ports back, each whatever becomes of the other."""
        with ExitStack() as steps:  # last in, first out
            steps.callback(self._port.close)
            steps.callback(self.line.stop)

    # -- Descriptions --

    @property
    def ours(self) -> bool:
        """Whether the offer was ours, so that they answer."""
        return self._offer is None

    def describe(self) -> bytes:
        """Our offer or answer as things stand."""
        self._described = self._description(self.agreed)
        return self._described

    def answered(self, body: bytes) -> None:
        """Their answer to our offer. `Refused` and `Malformed` when it is of no use."""
        self._move(sdp.read_answer(body, self.agreed.codec, self._secret))

    def reoffered(self, body: bytes) -> bytes:
        """Their new offer, or none when they want ours: our description, the same as before when nothing has changed.

        `Refused` (488) and `Malformed` when it is of no use; then nothing has changed.
        """
        if body:
            self._take(sdp.read_offer(body))
        # Without an offer of theirs this is ours, and who is on hold may be taken off it (RFC 6337 5.3).
        agreed = self.agreed if body else replace(self.agreed, direction="sendrecv")
        if (same := self._description(agreed)) == self._described:  # RFC 4028 7.4
            return same
        self._version += 1
        self._described = self._description(agreed)
        return self._described

    def secure(self, session: Session) -> None:
        """Only where the signalling is encrypted may the audio be: its keys stand there (RFC 4568 7)."""
        self._secret = self._tokens.bits(256).to_bytes(32) if session.flow.transport == "TLS" else b""

    def check(self, body: bytes, session: Session) -> None:
        """Raises what `change` to this session would, and changes nothing."""
        if body:
            sdp.agree(sdp.read_offer(body), self.agreed.codec, b"?" * 32 if session.flow.transport == "TLS" else b"")

    def change(self, body: bytes, session: Session) -> bytes:
        """Another session takes over with its offer, or none: our answer, or our offer."""
        self.secure(session)
        self.line.signalled(session.flow.remote[0])
        if not body:
            self._offer = None
        return self.reoffered(body)

    # -- Our own --

    def _description(self, agreed: sdp.Agreed) -> bytes:
        address = self._port.address
        if self._offer is None:
            return sdp.write_offer(address, self._id, self._version, None if agreed is OURS else agreed)
        return sdp.write_answer(self._offer, agreed, address, self._id, self._version)

    def _toward(self, agreed: sdp.Agreed) -> str:
        """Whom our RTP address must suit: the host of the signalling, or the SDP's when that has another IP version."""
        remote = agreed.remote
        return remote[0] if remote is not None and (":" in remote[0]) != (":" in self._host) else self._host

    def _take(self, offer: sdp.Offer) -> None:
        agreed = sdp.agree(offer, self.agreed.codec, self._secret)
        toward = self._toward(agreed)
        if agreed.remote is not None and (":" in toward) != (":" in self._port.address[0]):
            agreed = self._change_port(offer, toward)
        self._move(agreed)
        self._offer = offer

    def _change_port(self, offer: sdp.Offer, toward: str) -> sdp.Agreed:
        """The media goes over to the other IP version; with our address our SRTP key must change (RFC 4568 7.1.4)."""
        port = self._ports.open(self.line, toward)
        if self._secret:
            self._secret = self._tokens.bits(256).to_bytes(32)
        before, self._port = self._port, port
        self.address = port.address
        self.line.use(port)
        before.close()
        return sdp.agree(offer, self.agreed.codec, self._secret)

    def _move(self, agreed: sdp.Agreed) -> None:
        self.agreed = agreed
        self.line.move(agreed)
        self._journal.happened("media.moved", direction=agreed.direction)
