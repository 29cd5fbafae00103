"""A small phone for tests: one SIP socket, one RTP end, read and written by our own reader and writer."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from secrets import token_hex

from twisted.trial.unittest import SynchronousTestCase

from extenbot.sip.digest import answer_challenge, strongest
from extenbot.sip.message import Request, Response, answer, read, write
from tests.real.audio import Audio

PLAIN = "0 101"


class Caller:
    """One phone at `host`, with the credentials of one bot; one call at a time."""

    def __init__(
        self,
        test: SynchronousTestCase,
        port: int,
        user: str = "caller",
        password: str = "",
        host: str = "127.0.0.31",
        server: str = "127.0.0.1",
    ) -> None:
        self.server = (server, port)
        self.user, self.password, self.host = user, password, host
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        test.addCleanup(self.socket.close)
        self.here = f"{host}:{self.socket.getsockname()[1]}"
        self.test = test
        self.audio = Audio(test, host)
        self.seen: list[Request | Response] = []
        self._fresh()

    def _fresh(self) -> None:
        """The names of a new dialog."""
        self.call_id, self.tag, self.cseq = f"{token_hex(6)}@{self.host}", token_hex(4), 0
        self.to, self.target = "", ""
        self.routes: list[str] = []

    # -- Requests --

    def request(
        self, method: str, uri: str = "", headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> Request:
        """The next request of the dialog, or of one to be."""
        uri = uri or self.target or f"sip:openai@{self.server[0]}:{self.server[1]}"
        self.cseq += method not in ("ACK", "CANCEL")
        request = Request(method, uri)
        request.add("via", f"SIP/2.0/UDP {self.here};rport;branch=z9hG4bK{token_hex(6)}")
        request.add("max-forwards", "70")
        for route in self.routes:
            request.add("route", route)
        request.add("from", f"<sip:{self.user}@{self.server[0]}>;tag={self.tag}")
        request.add("to", self.to or f"<{uri}>")
        request.add("call-id", self.call_id)
        request.add("cseq", f"{self.cseq} {method}")
        if method == "INVITE":
            request.add("contact", f"<sip:{self.user}@{self.here}>")
        for name, value in headers:
            request.add(name, value)
        if body:
            request.add("content-type", "application/sdp")
            request.body = body
        return request

    def send(self, message: Request | Response | bytes) -> None:
        self.socket.sendto(message if isinstance(message, bytes) else write(message), self.server)

    def ask(
        self,
        method: str,
        uri: str = "",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        timeout: float = 10.0,
    ) -> Response:
        """Ask, and once more with credentials when challenged; the final response."""
        headers = list(headers)
        response = self.final(self.request(method, uri, headers, body), timeout)
        if response.code != 401:
            return response
        challenge = strongest(response.all("www-authenticate"))
        uri = uri or f"sip:openai@{self.server[0]}:{self.server[1]}"
        credentials = answer_challenge(challenge, method, uri, self.user, self.password, token_hex(4))
        return self.final(self.request(method, uri, [*headers, ("authorization", credentials)], body), timeout)

    def final(self, request: Request, timeout: float = 10.0) -> Response:
        """Send a request and wait for its final response; refused INVITEs are acknowledged."""
        self.send(request)

        def mine(message: Request | Response) -> bool:
            return (
                isinstance(message, Response)
                and message.code >= 200
                and message.call_id == request.call_id
                and (message.cseq.number, message.cseq.method) == (request.cseq.number, request.method)
            )

        response = self.wait_for(mine, f"answer to {request.method}", timeout)
        assert isinstance(response, Response)
        if request.method == "INVITE" and response.code >= 300:
            ack = self.request("ACK", str(request.uri))
            ack.set("via", request.first("via") or "")
            ack.set("to", response.first("to") or "")
            self.send(ack)
        return response

    # -- Listening --

    def wait_for(
        self, wanted: Callable[[Request | Response], bool], what: str, timeout: float = 10.0
    ) -> Request | Response:
        """The next message that is wanted; requests of the service are answered with 200 meanwhile."""
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                message = read(self.socket.recv(65535))
            except TimeoutError:
                break
            self.seen.append(message)
            if isinstance(message, Request) and message.method != "ACK":
                self.send(answer(message, 200))
            if wanted(message):
                return message
        raise AssertionError(f"no {what} within {timeout:g} s; seen: {self.seen[-10:]}")

    def wait_for_bye(self, timeout: float = 10.0) -> Request:
        """The service hangs up."""
        found = self.wait_for(lambda message: isinstance(message, Request) and message.method == "BYE", "BYE", timeout)
        assert isinstance(found, Request)
        return found

    # -- What phones do --

    def register(self, expires: int | None = 300) -> Response:
        """REGISTER our contact; with None only ask who is registered."""
        self._fresh()
        uri = f"sip:{self.server[0]}:{self.server[1]}"
        self.to = f"<sip:{self.user}@{self.server[0]}>"
        headers = [] if expires is None else [("contact", f"<sip:{self.user}@{self.here}>"), ("expires", str(expires))]
        return self.ask("REGISTER", uri, headers)

    def offer(self, formats: str = PLAIN, port: int = 0) -> bytes:
        """An SDP offer with these payload types."""
        port = port or self.audio.ends[0].port
        events = "a=rtpmap:101 telephone-event/8000\r\n" if "101" in formats.split() else ""
        return (
            f"v=0\r\no=- 1 1 IN IP4 {self.host}\r\ns=-\r\nc=IN IP4 {self.host}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP {formats}\r\n{events}a=ptime:20\r\n"
        ).encode()

    def invite(self, user: str = "openai", formats: str = PLAIN, timeout: float = 15.0) -> Response:
        """Call; when the answer is 200 the call is up and audio flows both ways."""
        self._fresh()
        self.audio.stop()
        self.audio = Audio(self.test, self.host)
        uri = f"sip:{user}@{self.server[0]}:{self.server[1]}"
        response = self.ask("INVITE", uri, body=self.offer(formats), timeout=timeout)
        if response.code == 200:
            self.to = response.first("to") or ""
            self.target = (response.first("contact") or "").strip("<>")
            self.routes = response.all("record-route")[::-1]
            self.send(self.request("ACK"))
        return response

    def call(self, user: str = "openai") -> tuple[str, int]:
        """A call that must be answered and heard; where the service's RTP is."""
        response = self.invite(user)
        assert response.code == 200, response
        self.audio.wait_for(5)
        return media_of(response)

    def hang_up(self) -> None:
        """BYE, which must be answered."""
        response = self.final(self.request("BYE"))
        assert response.code == 200, response


def media_of(message: Request | Response) -> tuple[str, int]:
    """Host and RTP port in an SDP."""
    lines = message.body.decode().splitlines()
    host = next(line.split()[-1] for line in lines if line.startswith("c="))
    return host, int(next(line.split()[1] for line in lines if line.startswith("m=audio")))
