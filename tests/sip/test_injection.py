"""Nothing that is copied into a message can add a line to it: `write` is the one door, and it is shut."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed, Misuse, Refused
from extenbot.sip import grammar
from extenbot.sip.digest import answer_challenge
from extenbot.sip.headers import NameAddr, Via
from extenbot.sip.message import PHRASES, Request, Response, answer, read, write
from extenbot.sip.transaction import Transactions
from extenbot.sip.uri import Uri
from tests.clock import Clock
from tests.fakes import CountingTokens
from tests.sip.wire import FLOW, Recorder, request, stack

EVIL = "Evil: injected"
#: any text, mostly with a line break in it, in all its spellings
PARTS = ["\r", "\n", "\r\n", "\r\n\r\n", "\n\n", EVIL, '"', "\\", "<", ">", ";", "\0", "\x85", "\u2028", "%0d%0a"]
TEXT = st.one_of(
    st.text(max_size=40),
    st.builds("".join, st.lists(st.sampled_from([*PARTS, "a", " ", "\t", "é", "@", ":"]), max_size=12)),
)


def base() -> Request:
    message = read(request("INVITE"))
    assert isinstance(message, Request)
    return message


class Injection(SynchronousTestCase):
    def whole(self, message: Request | Response) -> None:
        """It is refused, or its head has the lines that it should have, each `name: value`, and the body is its own."""
        try:
            data = write(message)
        except Misuse:
            return
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.assertEqual(body, message.body)
        self.assertEqual(len(lines), 2 + sum(map(len, message.headers.values())))
        self.assertNotRegex(head.replace(b"\r\n", b""), rb"[\r\n]")
        for line in lines[1:]:
            self.assertNotRegex(line, rb"^(?i:evil)")

    @given(TEXT, TEXT)
    def test_values(self, text: str, other: str) -> None:
        """Header values of any name, the phrase, and what is set, added or written over."""
        for name in ("warning", "reason", "contact", "subject", "retry-after", "www-authenticate", "x-own"):
            message = base()
            message.set(name, f'399 us "{text}"')
            message.add(name, other)
            self.whole(message)
        self.whole(Response(480, text))
        self.whole(answer(base(), 403, text, [("Warning", other)], b"body\r\n\r\nx", "text/plain", text))
        response = answer(base(), 486)
        response.encoding = "latin-1"
        response.add("reason", text)
        self.whole(response)

    @given(TEXT, TEXT)
    def test_names_and_uris(self, text: str, other: str) -> None:
        """Display names, users in clear text, URIs and their parts as somebody typed them."""
        message = base()
        message.set("from", str(NameAddr(text, Uri.of(other, "example.com"), {"tag": "x"})))
        message.set("contact", f"<{Uri.of(text, 'example.com')}>")
        write(message)  # these two are quoted and escaped: they can always be sent
        self.whole(message)
        for line in (f"sip:{text}@example.com", f"sip:a@example.com;{text}", f"sip:a@b?{text}", f"tel:{text}", text):
            try:
                uri = Uri.read(line)
            except Malformed:
                continue
            message = Request("REFER", uri)
            message.add("refer-to", f"<{uri}>")
            self.whole(message)
        self.whole(Request(f"INFO{text}", Uri.of("a", "example.com")))
        message = base()
        message.set("via", Via("UDP", "192.0.2.1", 5060, {"branch": text, other: None}).toString())
        self.whole(message)

    @given(TEXT, TEXT, TEXT)
    def test_digest(self, username: str, realm: str, password: str) -> None:
        """Credentials: the name and password that an owner entered, the realm that a PBX sent."""
        try:
            challenge = f'Digest realm={grammar.quote(realm)}, nonce="n"'
            value = answer_challenge(challenge, "REGISTER", "sip:x", username, password, "c")
        except Malformed:
            return
        message = base()
        message.set("authorization", value)
        write(message)
        self.whole(message)

    @given(TEXT, st.sampled_from(sorted(PHRASES)))
    def test_answers(self, text: str, code: int) -> None:
        """Reasons and headers of a refusal, through the transaction layer: an answer goes out, and a clean one."""

        class User:
            def requested(self, request: object, transaction: object) -> None:
                raise Refused(max(code, 300), text, [("Reason", text)])

            def acknowledged(self, request: object, flow: object) -> None: ...

        wire = Recorder(Clock())
        layer = Transactions(wire.clock, wire, CountingTokens(), User())
        layer.received(request("OPTIONS"), FLOW)
        [(_, data, _)] = wire.sent
        self.whole(read(data))
        self.assertEqual(len(re.findall(rb"(?i)\r\nevil", data)), 0)
        self.flushLoggedErrors(Misuse)

    @given(TEXT)
    def test_what_comes_back(self, text: str) -> None:
        """What a stranger wrote into the headers that we copy is read by the rules of lines, and so is our answer."""
        made = stack(Clock(), Recorder(Clock()))
        data = request("OPTIONS", headers=f"Timestamp: {text}\r\n").replace(
            b"tag=pbx", b"tag=pbx" + text.encode("utf-8", "replace")
        )
        made.transactions.received(data, FLOW)
        for _, sent, _ in made.transactions._transport.sent:  # type: ignore[attr-defined]
            self.assertNotRegex(sent.replace(b"\r\n", b""), rb"[\r\n]")
            self.assertNotIn(b"\r\nEvil", sent)
