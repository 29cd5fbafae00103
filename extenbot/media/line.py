"""The audio of one call, both ways, on one 20-ms clock (implements `interfaces.RtpReceiver`).

Each tick sends one packet (the bot's words, else silence, the timestamp running through
both) and hands the model 20 ms of the caller. The call builds the line and steps out of it.

Where audio goes and whose is heard is decided in `latch`. The voice speaks one law for the whole call; the wire may
speak the other one after a re-INVITE, and then each packet is translated.

On hold nothing is sent, what waits stays, and nothing is heard: music must not reach the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from extenbot.errors import Malformed
from extenbot.interfaces import Address, RtpPort, Tokens
from extenbot.media import dtmf, g711, rtcp, rtp, srtp
from extenbot.media.dialling import Dialling
from extenbot.media.ear import Ear
from extenbot.media.jitter import JitterBuffer
from extenbot.media.latch import Latch
from extenbot.media.pacer import Pacer
from extenbot.media.playout import PlayoutQueue
from extenbot.media.recording import Recorder
from extenbot.media.sdp import Agreed

REPORT_MS = 5000
"""Between RTCP reports (RFC 3550 6.2)."""

CALLER_MS = 20

TWICE = 0.5
"""Seconds within which a key that has come in one way and then in another is the same one."""

LONGEST = 200 * g711.PER_MS
"""No phone puts more audio into one packet."""

_NO_AUDIO = b""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The packets of one call so far. Lost and jitter are of the caller's audio as it came to us."""

    codec: str
    packets_sent: int = 0
    packets_received: int = 0
    packets_lost: int = 0
    packets_late: int = 0  # came after their turn, or twice
    packets_ignored: int = 0  # not RTP of this call, not authentic, or from somebody who is not (yet) heard
    ignored_from: Address | None = None  # the last of those
    jitter_ms: float = 0.0
    remote_lost: int | None = None  # of our packets, as the other side reported
    remote_jitter_ms: float | None = None
    round_trip_ms: float | None = None


class Line:
    """One call's audio. `heard` gets 160 bytes for each 20 ms, `digit` one key of the phone."""

    def __init__(
        self,
        clock: Any,  # IReactorTime
        pacer: Pacer,
        tokens: Tokens,
        agreed: Agreed,
        voice: str,
        signalled_from: str,
        heard: Callable[[bytes], None],
        digit: Callable[[str], None],
    ) -> None:
        """`voice` is the law that the voice speaks, "PCMU" or "PCMA"; `signalled_from` the host of the signalling."""
        self.playout = PlayoutQueue(voice)
        self.last_received: float | None = None
        """When the last valid packet came, in the clock's seconds."""
        self.inband = False
        """Listen for keys as tones, whatever was agreed on, until the phone signals one as an event.

        Some gateways agree on events and send tones all the same.
        """
        self.recorder: Recorder | None = None
        """Gets what is heard and what is really sent. Whoever sets it closes it."""
        self._clock = clock
        self._pacer = pacer
        self._jitter = JitterBuffer(voice)
        self._ear = Ear(voice, self._jitter.nothing, heard)
        self._digit = digit
        self._voice = voice
        self._quiet = g711.SILENCE[voice] * g711.FRAME
        self._tokens = tokens
        self._begin_ours()
        self._timestamp = tokens.bits(32)
        self._name = tokens.text(16)
        self._keys = dtmf.Keys()
        self._said: bytes | None = None  # what was sent in the turn before, None for silence
        self._tones: dtmf.Tones | None = None
        self._sounded = "", 0.0  # the last key that was heard, and until when
        self._informed = "", 0.0  # the last one that the signalling told, and when
        self._signals = False  # keys come as events
        self._port: RtpPort | None = None
        self._leave: Callable[[], None] | None = None
        self._srtp: srtp.Srtp | None = None  # of this call, in use or not
        self._secure: srtp.Srtp | None = None  # in use
        self._talking = False
        self._dials: deque[Dialling] = deque()
        self._tone: bytes | None = None
        self._tone_at = 0
        self._sent = self._octets = self._ignored = 0
        self._ignored_from: Address | None = None
        self._reception: rtcp.Reception | None = None
        self._before = (0, 0)  # received and lost of earlier streams
        self._latch = Latch(signalled_from, agreed.remote)
        self._type = agreed.payload_type
        self._laws: dict[int, bytes | None] = {}  # payload types that are audio, and what makes it the voice's law
        self._due = 0  # ms of the caller's audio that the model has not been given yet
        # RTCP.
        self._control: Address | None = None  # learned
        self._until_report = REPORT_MS
        self._their_report = (0, 0.0)  # middle of its NTP time, when it came
        self._remote: rtcp.Block | None = None
        self._round_trip: float | None = None
        self._apply(agreed)

    # -- Orders --------------------------------------------------------------------------

    def start(self, port: RtpPort) -> None:
        """Send and hear from now on; the first packet leaves within one packet time.

        What came before is a ringing tone, or music, of whom we called.
        """
        port.drain()
        self._port = port
        self._leave = self._pacer.join(self._tick, self._ptime)

    def signalled(self, host: str) -> None:
        """The signalling is with another host than at first: a call of ours was answered from there."""
        self._latch.signalled(host)

    def ring(self, *, on: bool = True) -> None:
        """What the caller hears while nothing is said: a phone that rings somewhere, or silence again."""
        self._tone = g711.ringing(self._voice) if on else None
        self._tone_at = 0

    def informed(self, key: str) -> None:
        """A key by the signalling (SIP INFO): phones may be set to say each of them there and as an event."""
        if not self._signals:
            now: float = self._clock.seconds()
            self._informed = key, now
            self._tell(key, now)

    def dial(self, digits: str, done: Callable[[], None]) -> None:
        """Press keys, 100 ms each and 100 ms apart; `,` waits a second more, `w` half of one.

        They go out as telephone events where that was agreed, else as tones. The bot's words wait meanwhile. `done` is
        called once, at the end, but not after `stop`. Further keys follow the ones before. `ValueError` when there
        is anything but 0-9, *, #, A-D and the pauses.
        """
        self._dials.append(Dialling(digits, done))

    def use(self, port: RtpPort) -> None:
        """Another port from now on; the one before is no longer ours."""
        if self._port is not None:
            self._port = port

    def move(self, agreed: Agreed) -> None:
        """A re-INVITE: another address, hold, packet time, law, or keys."""
        ptime = self._ptime
        self._apply(agreed)
        if self._latch.move(agreed.remote, self._clock.seconds()):
            self._control = None
        if self._leave is not None and ptime != self._ptime:
            self._leave()
            self._leave = self._pacer.join(self._tick, self._ptime)

    def stop(self) -> None:
        """No more of it: a last report with RTCP BYE. The port stays open; may be called twice."""
        if self._leave is not None:
            self._leave()
            self._leave = None
            self._dials.clear()
            self._report(goodbye=True)

    @property
    def heard(self) -> Callable[[bytes], None]:
        """Gets the caller's audio."""
        return self._ear.give

    @heard.setter
    def heard(self, give: Callable[[bytes], None]) -> None:
        self._ear.give = give

    @property
    def on_loud(self) -> Callable[[bool], None]:
        """Told that the caller has become loud while the bot is heard (or waits, held), and quiet again."""
        return self._ear.tell

    @on_loud.setter
    def on_loud(self, tell: Callable[[bool], None]) -> None:
        self._ear.tell = tell

    @property
    def unheard(self) -> float:
        """Seconds of the bot's words that wait."""
        return self.playout.waiting / g711.RATE

    @property
    def echo_gate(self) -> bool:
        """Give silence to the model in place of the bot's own words that a speaker phone returns."""
        return self._ear.gate

    @echo_gate.setter
    def echo_gate(self, on: bool) -> None:
        self._ear.gate = on

    @property
    def statistics(self) -> Statistics:
        """The counts so far, also after the end."""
        received, lost = self._before
        jitter = 0.0
        if self._reception is not None:
            received += self._reception.received
            lost += max(0, self._reception.lost)
            jitter = self._reception.jitter / g711.PER_MS
        remote = self._remote
        return Statistics(
            codec=self._agreed.codec,
            packets_sent=self._sent,
            packets_received=received,
            packets_lost=lost,
            packets_late=self._jitter.late,
            packets_ignored=self._ignored,
            ignored_from=self._ignored_from,
            jitter_ms=jitter,
            remote_lost=remote.lost if remote else None,
            remote_jitter_ms=remote.jitter / g711.PER_MS if remote else None,
            round_trip_ms=self._round_trip,
        )

    def _apply(self, agreed: Agreed) -> None:
        # What they sent before they had our answer is still on the way.
        self._laws = {kind: law for kind, law in self._laws.items() if kind == self._type != agreed.event_type}
        self._laws[agreed.payload_type] = g711.translation(agreed.codec, self._voice)
        self._agreed = agreed
        self._type = agreed.payload_type
        self._outward = g711.translation(self._voice, agreed.codec)
        self._event_type = agreed.event_type
        self._ptime = agreed.ptime
        self._frame = agreed.ptime * g711.PER_MS
        self._silence = g711.SILENCE[self._voice] * self._frame
        self._silence_there = g711.SILENCE[agreed.codec] * self._frame
        if agreed.crypto is not None:
            self._secure = self._keyed(agreed.crypto)
        elif agreed.remote is not None:
            self._secure = None
        self._live = not agreed.held
        self._taking = agreed.direction == "sendrecv"
        if not self._taking:
            self._jitter.clear()
            self._talking = False

    def _keyed(self, crypto: srtp.Crypto) -> srtp.Srtp:
        """The streams under these keys; ours begins anew with a key of ours, so that its counter is zero for all."""
        if self._srtp is None:
            self._srtp = srtp.Srtp(crypto)
            if self._sent:
                self._begin_ours()
        elif self._srtp.renew(crypto, 0 if self._reception is None else self._reception.highest >> 16):
            self._begin_ours()
        return self._srtp

    def _begin_ours(self) -> None:
        self._ssrc = self._tokens.bits(32)
        self._sequence = self._tokens.bits(15)  # far from its end (RFC 3711 3.3.1)

    # -- The tick: one packet out, 20 ms to the model -------------------------------------

    def _tick(self) -> None:
        port = self._port
        if port is None:
            return
        now = port.poll()
        recorder, playout = self.recorder, self.playout
        # First what the caller says: it may keep this very packet from being sent.
        self._due += self._ptime
        while self._due >= CALLER_MS:
            self._due -= CALLER_MS
            if self._live:
                heard = self._jitter.take(now)
                if recorder is not None:
                    recorder.heard(heard)
                if self.inband:
                    heard = self._without_tones(heard)
                self._ear.heard(heard, self._said, playout.held and not playout.empty)
            elif recorder is not None:
                recorder.heard(self._quiet)
        if self._leave is None:
            return
        latch = self._latch
        target = latch.target
        sent = self._silence
        if self._live and target is not None and (not latch.unproven or latch.spend(self._ptime)):
            if self._dials and self._dials[0].over:
                self._dials.popleft().done()
            audio = None if self._dials else playout.next(self._frame)
            if self._leave is None:  # what the end of the bot's words, or of keys, led to
                return
            second, timestamp, event = self._type, self._timestamp, _NO_AUDIO
            if audio is not None:
                if not self._talking:
                    self._talking = True
                    second |= rtp.MARKER
                sent = audio
            else:
                self._talking = False
                if self._dials:
                    event, sent, second, timestamp = self._dialled()
                elif self._tone is not None:
                    sent = self._ringing()
            if event:
                payload = event
            elif sent is self._silence:
                payload = self._silence_there
            else:
                payload = sent if self._outward is None else sent.translate(self._outward)
            data = rtp.HEADER.pack(rtp.VERSION, second, self._sequence, timestamp, self._ssrc) + payload
            port.send(data if self._secure is None else self._secure.protect(data), target)
            self._sequence = (self._sequence + 1) & 0xFFFF
            self._sent += 1
            self._octets += len(payload)
        if recorder is not None:
            recorder.sent(sent)
        self._said = None if sent is self._silence else sent
        self._timestamp = (self._timestamp + self._frame) & 0xFFFFFFFF
        self._until_report -= self._ptime
        if self._until_report <= 0 and self._leave is not None:
            self._until_report = REPORT_MS
            self._report()

    def _dialled(self) -> tuple[bytes, bytes, int, int]:
        """What keys that we press make of this packet: event, audio, payload type with marker, timestamp."""
        kind, timestamp = self._event_type, self._timestamp
        piece = self._dials[0].next(self._frame, self._voice, events=kind is not None)
        if piece is None or (piece.event and kind is None):
            return _NO_AUDIO, self._silence, self._type, timestamp
        if not piece.event:
            return _NO_AUDIO, piece.payload, self._type, timestamp
        assert kind is not None
        second = kind | rtp.MARKER if piece.first else kind
        return piece.payload, self._silence, second, (timestamp - piece.since) & 0xFFFFFFFF

    def _ringing(self) -> bytes:
        tone, at = self._tone, self._tone_at
        assert tone is not None
        self._tone_at = (at + self._frame) % len(tone)
        piece = tone[at : at + self._frame]
        return piece + tone[: self._frame - len(piece)]

    # -- Datagrams ------------------------------------------------------------------------

    def received(self, data: bytes, source: Address, at: float) -> None:
        """A datagram on the RTP port; `at` is when it came there."""
        if len(data) > 1 and 192 <= data[1] <= 223:  # `rtp.is_control`, without the price of a call
            self._read_control(data, source)
            return
        secure = self._secure
        if secure is not None:
            data = secure.unprotect(data) or b""
        try:
            packet = rtp.read(data)
        except Malformed:
            self._ignore(source)
            return
        kind, _, sequence, timestamp, ssrc, payload = packet
        law = self._laws.get(kind, _NO_AUDIO)
        audio = law is not _NO_AUDIO and len(payload) <= LONGEST
        event = not audio and self._is_event(kind, payload)
        if not (audio or event or kind == rtp.COMFORT_NOISE):
            self._ignore(source)
            return
        now: float = self._clock.seconds()
        latch = self._latch
        if source != latch.source and not latch.admits(
            source, ssrc, sequence, timestamp, now, authentic=secure is not None
        ):
            self._ignore(source)
            return
        self.last_received = latch.heard_at = now
        reception = self._reception
        if reception is None or reception.ssrc != ssrc:
            reception = self._begin(ssrc, sequence)
        reception.count(sequence)
        if not self._taking:
            return
        if audio:
            reception.time(timestamp, at)
            self._jitter.put(sequence, timestamp, payload if law is None else payload.translate(law), at)
            return
        self._jitter.put(sequence, timestamp, b"")
        if event:
            for key in self._keys.put(timestamp, payload):
                self._signalled(key, now)

    def _signalled(self, key: str, now: float) -> None:
        """A key has come as an event: so will the others, and this one may have come in another way as well."""
        self._signals = True
        told, at = self._informed
        self._informed = "", 0.0
        if key != told or now - at > TWICE:
            self._tell(key, now)

    def _tell(self, key: str, now: float) -> None:
        """A key that need not be listened for, and was perhaps heard."""
        self.inband = False
        sounded, at = self._sounded
        self._sounded = "", 0.0
        if key != sounded or now - at > TWICE:
            self._digit(key)

    def _without_tones(self, audio: bytes) -> bytes:
        """What was heard 20 ms before, unless it was the sound of a key."""
        if self._tones is None:
            self._tones = dtmf.Tones(self._voice)
        audio, key = self._tones.put(audio)
        if self._tones.pressed:
            self._sounded = self._tones.pressed, self._clock.seconds()
        if key:
            self._digit(key)
        return audio

    def _ignore(self, source: Address) -> None:
        self._ignored += 1
        self._ignored_from = source

    def received_control(self, data: bytes, source: Address) -> None:
        """A datagram on the RTCP port; a good one from the caller's host says where our reports go."""
        if self._read_control(data, source):
            self._control = source

    def _read_control(self, data: bytes, source: Address) -> bool:
        peer = self._latch.target
        if self._secure is not None:
            data = self._secure.unprotect_control(data) or b""
        try:
            packets = rtcp.read(data) if peer is not None and source[0] == peer[0] else []
        except Malformed:
            packets = []
        if not packets:
            self._ignore(source)
            return False
        self._latch.reported(source[0])
        now: float = self._clock.seconds()
        for packet in packets:
            if isinstance(packet, rtcp.Report):
                if packet.sent is not None:
                    self._their_report = (rtcp.middle(packet.sent.ntp), now)
                for block in packet.blocks:
                    if block.ssrc == self._ssrc:
                        self._remote = block
                        self._measure(block, now)
        return True

    def _is_event(self, kind: int, payload: bytes) -> bool:
        """Behind direct media a phone keeps its own dynamic type for events, whatever our SDP said."""
        if kind == self._event_type:
            return len(payload) <= 4 * dtmf.MOST
        return kind >= 96 and self._event_type is not None and dtmf.is_event(payload)

    def _begin(self, ssrc: int, sequence: int) -> rtcp.Reception:
        """Another stream."""
        if self._reception is not None:
            received, lost = self._before
            self._before = received + self._reception.received, lost + max(0, self._reception.lost)
            self._jitter.reset()
            self._ear.renew()
            self._keys = dtmf.Keys()
            self._signals = False
            self._their_report = (0, 0.0)
        self._reception = rtcp.Reception(ssrc, sequence)
        return self._reception

    # -- RTCP -----------------------------------------------------------------------------

    def _report(self, *, goodbye: bool = False) -> None:
        """SR, or RR when nothing was sent, to the address they report from or asked for."""
        port, to = self._port, self._control_target()
        if port is None or to is None:
            return
        now: float = self._clock.seconds()
        sent = rtcp.Sent(rtcp.ntp(now), self._timestamp, self._sent & 0xFFFFFFFF, self._octets & 0xFFFFFFFF)
        last_report, at = self._their_report
        blocks = () if self._reception is None else (self._reception.block(last_report, now - at),)
        report = rtcp.Report(self._ssrc, sent if self._sent else None, blocks)
        data = rtcp.write(report, self._name, goodbye=goodbye)
        if self._secure is not None:
            data = self._secure.protect_control(data)
        if self._agreed.rtcp_mux:
            port.send(data, to)
        else:
            port.send_control(data, to)

    def _control_target(self) -> Address | None:
        target, told = self._latch.target, self._agreed.remote_control
        if self._agreed.rtcp_mux or target is None:
            return target
        if self._control is not None and self._control[0] == target[0]:
            return self._control
        if target == self._agreed.remote and told is not None and told[0] == target[0]:
            return told
        return target[0], target[1] + 1

    def _measure(self, block: rtcp.Block, now: float) -> None:
        """Round trip by our report, their wait and now (RFC 3550 6.4.1)."""
        if block.last_report:
            trip = (rtcp.middle(rtcp.ntp(now)) - block.last_report - block.delay) & 0xFFFFFFFF
            if trip < 0x80000000:
                self._round_trip = trip * 1000 / 65536
