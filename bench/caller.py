"""Many phones in one process, for load: SIP calls with G.711 both ways, their phases spread over 20 ms.

Arrival times are the kernel's (SO_TIMESTAMPNS), so that this process being late does not count
as a gap of the service. One thread, one epoll; as little Python per packet as can be.
"""

from __future__ import annotations

import heapq
import select
import socket
import struct
import time
from dataclasses import dataclass, field

from extenbot.sip.bodies import SDP
from extenbot.sip.digest import answer_challenge
from extenbot.sip.message import Request, Response, answer, read, write

FRAME = 0.02
SO_TIMESTAMPNS = 35
_STAMP = struct.Struct("@qq")
_RTP = struct.Struct("!BBHII")


@dataclass(slots=True)
class Phone:
    """One call."""

    number: int
    audio: socket.socket
    began: float = 0.0
    ringing_after: float = 0.0
    set_up: float = 0.0  # seconds from the first INVITE to the 200
    first_audio: float = 0.0  # seconds from the 200 to the first packet
    failed: str = ""
    target: tuple[str, int] | None = None
    to: str = ""
    contact: str = ""
    cseq: int = 1
    sequence: int = 0
    last: int = 0  # kernel time of the last packet, ns
    gaps: list[int] = field(default_factory=list)  # ns
    received: int = 0
    lost: int = 0
    expected: int | None = None
    over: bool = False
    answered_at: float = 0.0
    byed: bool = False


class Load:
    """`count` calls of `seconds` each, started `rate` a second."""

    def __init__(
        self, server: tuple[str, int], user: str, password: str, count: int, seconds: float, rate: float,
        host: str = "127.0.0.21", payload: bytes = b"\xff" * 160, kind: int = 0,
    ) -> None:  # fmt: skip
        self.server, self.user, self.password = server, user, password
        self.count, self.seconds, self.rate, self.host = count, seconds, rate, host
        self.payload, self.kind = payload, kind
        self.sip = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sip.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sip.bind((host, 0))
        self.sip.setblocking(False)
        self.here = "{}:{}".format(*self.sip.getsockname())
        self.phones: list[Phone] = []
        self.epoll = select.epoll()
        self.epoll.register(self.sip.fileno(), select.EPOLLIN)
        self.by_file: dict[int, Phone] = {}
        self.due: list[tuple[float, int, int]] = []  # when, phone, what: 0 start, 1 packet, 2 bye

    def run(self, timeout: float) -> list[Phone]:
        """Make all calls; returns when all are over, or at the time-out."""
        start = time.monotonic()
        for number in range(self.count):
            audio = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            audio.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            audio.bind((self.host, 0))
            audio.setblocking(False)
            phone = Phone(number, audio)
            self.phones.append(phone)
            self.by_file[audio.fileno()] = phone
            self.epoll.register(audio.fileno(), select.EPOLLIN)
            # A fraction of a frame more for each phone spreads the phases.
            heapq.heappush(self.due, (start + number / self.rate + number * 0.0013 % FRAME, number, 0))
        end = start + timeout
        while not all(phone.over for phone in self.phones):
            now = time.monotonic()
            if now > end:
                break
            while self.due and self.due[0][0] <= now:
                self._do(*heapq.heappop(self.due))
            wait = max(0.0, self.due[0][0] - time.monotonic()) if self.due else 0.1
            for file, _ in self.epoll.poll(wait):
                if file == self.sip.fileno():
                    self._signalled()
                else:
                    self._heard(self.by_file[file])
        for phone in self.phones:
            if not phone.over:
                phone.failed = phone.failed or "timeout"
            phone.audio.close()
        self.sip.close()
        self.epoll.close()
        return self.phones

    # -- Out --

    def said(self, phone: Phone) -> bytes:  # noqa: ARG002
        """What this phone's next packet carries."""
        return self.payload

    def _do(self, when: float, number: int, what: int) -> None:
        phone = self.phones[number]
        if phone.over:
            return
        if what == 0:
            phone.began = time.monotonic()
            self._invite(phone, "")
        elif what == 1 and not phone.byed:
            assert phone.target is not None
            sequence = phone.sequence
            phone.sequence = sequence + 1
            packet = _RTP.pack(128, self.kind, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, number)
            try:
                phone.audio.sendto(packet + self.said(phone), phone.target)
            except OSError:
                phone.lost += 1
            heapq.heappush(self.due, (when + FRAME, number, 1))
        elif what == 2:
            phone.byed = True
            self._request(phone, "BYE", phone.cseq + 1)

    def _request(self, phone: Phone, method: str, cseq: int, extra: str = "", body: bytes = b"") -> None:
        uri = phone.contact or f"sip:openai@{self.server[0]}:{self.server[1]}"
        request = Request(method, uri)
        request.add("via", f"SIP/2.0/UDP {self.here};rport;branch=z9hG4bK{phone.number}x{method}{cseq}")
        request.add("max-forwards", "70")
        request.add("from", f"<sip:{self.user}@{self.server[0]}>;tag=t{phone.number}")
        request.add("to", phone.to or f"<sip:openai@{self.server[0]}>")
        request.add("call-id", f"load{phone.number}@{self.here}")
        request.add("cseq", f"{cseq} {method}")
        request.add("contact", f"<sip:{self.user}@{self.here}>")
        if extra:
            request.add("authorization", extra)
        if body:
            request.add("content-type", "application/sdp")
            request.body = body
        self.sip.sendto(write(request), self.server)

    def _invite(self, phone: Phone, authorization: str) -> None:
        self._request(phone, "INVITE", phone.cseq, authorization, self._sdp(phone))

    def _sdp(self, phone: Phone) -> bytes:
        port = phone.audio.getsockname()[1]
        name = {0: "PCMU", 8: "PCMA"}[self.kind]
        return (
            f"v=0\r\no=- 1 1 IN IP4 {self.host}\r\ns=-\r\nc=IN IP4 {self.host}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP {self.kind} 101\r\na=rtpmap:{self.kind} {name}/8000\r\n"
            "a=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n"
        ).encode()

    # -- In --

    def _signalled(self) -> None:
        while True:
            try:
                data = self.sip.recv(65535)
            except BlockingIOError:
                return
            message = read(data)
            if isinstance(message, Response):
                self._answered(self.phones[int(message.call_id.partition("@")[0][4:])], message)
            elif message.method != "ACK":
                self._asked(self.phones[int(message.call_id.partition("@")[0][4:])], message)

    def _asked(self, phone: Phone, request: Request) -> None:
        """A refresh of the session is agreed to (RFC 4028); a BYE of the service is no success."""
        if request.method == "INVITE":
            response = answer(request, 200, "", [("Contact", f"<sip:{self.user}@{self.here}>")], self._sdp(phone), SDP)
        else:
            response = answer(request, 200)
        self.sip.sendto(write(response), self.server)
        if request.method == "BYE":
            phone.failed = phone.failed or ("" if phone.byed else "BYE from the service")
            phone.over = True

    def _answered(self, phone: Phone, response: Response) -> None:
        code, method = response.code, response.cseq.method
        if method == "BYE":
            phone.over = True
        elif code == 180:
            phone.ringing_after = phone.ringing_after or time.monotonic() - phone.began
        elif code == 401 and response.cseq.number == phone.cseq == 1:
            self._acknowledge(phone, response)
            challenge = next(c for c in response.all("www-authenticate") if "MD5" in c)
            phone.cseq = 2
            uri = f"sip:openai@{self.server[0]}:{self.server[1]}"
            self._invite(phone, answer_challenge(challenge, "INVITE", uri, self.user, self.password, "c0ffee"))
        elif 200 <= code < 300:
            if phone.target is None:
                now = phone.answered_at = time.monotonic()
                phone.set_up = now - phone.began
                lines = response.body.decode().splitlines()
                port = next(line.split()[1] for line in lines if line.startswith("m=audio"))
                phone.target = (next(line.split()[-1] for line in lines if line.startswith("c=")), int(port))
                phone.to = response.first("to") or ""
                phone.contact = (response.first("contact") or "").strip("<>")
                heapq.heappush(self.due, (now, phone.number, 1))
                heapq.heappush(self.due, (now + self.seconds, phone.number, 2))
            self._acknowledge(phone, response)
        elif code >= 300 and response.cseq.number == phone.cseq:
            phone.failed = f"{code} {response.phrase}"
            self._acknowledge(phone, response)
            phone.over = True

    def _acknowledge(self, phone: Phone, response: Response) -> None:
        to, phone.to = phone.to, response.first("to") or ""
        self._request(phone, "ACK", response.cseq.number)
        if response.code >= 300:
            phone.to = to

    def _heard(self, phone: Phone) -> None:
        while True:
            try:
                data, ancillary, _, _ = phone.audio.recvmsg(2048, 64)
            except (BlockingIOError, OSError):
                return
            if 192 <= data[1] <= 223:  # RTCP for the phone on the port below
                continue
            seconds, nanoseconds = _STAMP.unpack(ancillary[0][2])
            at = seconds * 1_000_000_000 + nanoseconds
            sequence = (data[2] << 8) | data[3]
            if phone.expected is not None and sequence != phone.expected:
                phone.lost += (sequence - phone.expected) & 0xFFFF
            phone.expected = (sequence + 1) & 0xFFFF
            phone.received += 1
            if phone.last:
                phone.gaps.append(at - phone.last)
            else:
                phone.first_audio = time.monotonic() - phone.answered_at
            phone.last = at
