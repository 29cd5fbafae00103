"""Messages: read, written, answered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed, Misuse
from extenbot.sip.grammar import LONG_NAMES
from extenbot.sip.message import Request, Response, Unreadable, answer, read, write
from tests.sip.wire import OFFER, request

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30).map(str.strip)
NAMES = st.from_regex(r"X-[A-Za-z0-9]{1,12}", fullmatch=True)


@st.composite
def messages(draw: st.DrawFn) -> Request | Response:
    method = draw(st.from_regex(r"[A-Z]{1,10}", fullmatch=True))
    message: Request | Response
    if draw(st.booleans()):
        message = Request(method, draw(st.sampled_from(["sip:a@b", "sips:h:1;lr", "sip:[::1]", "tel:+1", "x:y"])))
    else:
        message = Response(draw(st.integers(100, 699)), draw(TEXT))
    for branch in draw(st.lists(st.from_regex(r"[a-z0-9]{1,9}", fullmatch=True), min_size=1, max_size=3)):
        message.add("Via", f"SIP/2.0/UDP h;branch=z9hG4bK{branch}")
    message.add("From", "<sip:a@b>;tag=1")
    message.add("To", '"A, <b>; \\"c" <sip:b@c>')
    message.add("Call-ID", draw(st.from_regex(r"[a-z]{1,9}", fullmatch=True)))
    message.add("CSeq", f"{draw(st.integers(0, 2**31 - 1))} {method}")
    for name, value in draw(st.lists(st.tuples(NAMES, TEXT), max_size=5)):
        message.add(name, value)
    message.body = draw(st.binary(max_size=40))
    return message


class Reading(SynchronousTestCase):
    @given(messages())
    def test_round_trip(self, message: Request | Response) -> None:
        """What is written is read as the same message."""
        again = read(write(message))
        self.assertEqual(again, message)
        self.assertEqual(again.body, message.body)
        self.assertEqual(dict(again.headers), dict(message.headers))

    @given(st.data())
    def test_damage(self, data: st.DataObject) -> None:
        """However a message is damaged, it is read or refused as Malformed; nothing else happens."""
        whole = bytearray(request("INVITE", headers="Record-Route: <sip:p;lr>\r\nMax-Forwards: 70\r\n", body=OFFER))
        for at, byte in data.draw(
            st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=6)
        ):
            whole[at] = byte
        try:
            message = read(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
        except Malformed:
            return
        read(write(message))

    @given(st.binary(max_size=300))
    def test_noise(self, data: bytes) -> None:
        """Random bytes are Malformed."""
        self.assertRaises(Malformed, read, data)

    def test_compact(self) -> None:
        """All twenty compact header names are understood."""
        self.assertEqual(len(LONG_NAMES), 20)
        message = read(
            b"INVITE sip:a@b SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z9hG4bK1\r\nf: <sip:a@b>;tag=1\r\nt: <sip:b@c>\r\n"
            b"i: x\r\nCSeq: 1 INVITE\r\nm: <sip:a@h>\r\nk: timer\r\nx: 1800\r\nr: <sip:c@d>\r\nc: application/sdp\r\n"
            b"o: refer\r\nb: <sip:e@f>\r\nl: 2\r\n\r\nhi"
        )
        for name in ("via", "contact", "supported", "session-expires", "refer-to", "content-type", "event"):
            self.assertTrue(message.first(name), name)
        self.assertEqual(message.first("Referred-By"), message.first("b"))

    def test_padded_length(self) -> None:
        """Asterisk pads Content-Length with blanks."""
        self.assertEqual(read(request("INFO").replace(b"Length: 0", b"Length:   2") + b"hi").body, b"hi")

    def test_headers_after_length(self) -> None:
        """FreeSWITCH writes headers behind Content-Length."""
        data = request("INFO").replace(b"Length: 0\r\n", b"Length: 2\r\nX-FS-Support: update_display\r\n") + b"hi"
        message = read(data)
        self.assertEqual(message.first("x-fs-support"), "update_display")
        self.assertEqual(message.body, b"hi")

    def test_folded(self) -> None:
        """A folded line is joined with one blank (RFC 3261 7.3.1)."""
        message = read(request("INFO", headers="Subject: one\r\n\t two\r\n   three\r\n"))
        self.assertEqual(message.first("subject"), "one two three")

    def test_lists(self) -> None:
        """Comma lists of routing headers are split, but not inside quotes and brackets."""
        message = read(
            request(
                "INVITE",
                contact="",
                headers='Contact: "a, b" <sip:a@b;x=1,2>, <sip:c@d>\r\nRecord-Route: <sip:p;lr>, <sip:q;lr>\r\n',
                via="SIP/2.0/UDP a;branch=z9hG4bK1,SIP/2.0/TCP b",
            )
        )
        self.assertEqual(message.all("contact"), ['"a, b" <sip:a@b;x=1,2>', "<sip:c@d>"])
        self.assertEqual(message.all("record-route"), ["<sip:p;lr>", "<sip:q;lr>"])
        self.assertEqual(message.all("via"), ["SIP/2.0/UDP a;branch=z9hG4bK1", "SIP/2.0/TCP b"])

    def test_latin_1(self) -> None:
        """A Latin-1 name and a binary body go back byte for byte."""
        data = request("INFO", headers="Subject: Jos\xe9\r\nContent-Type: x/y\r\n", body=b"\0\xff\xfe")
        data = data.replace("José".encode(), b"Jos\xe9")
        message = read(data)
        self.assertEqual(message.first("subject"), "José")
        self.assertIn(b"Subject: Jos\xe9\r\n", write(message))
        self.assertTrue(write(message).endswith(b"\r\n\r\n\0\xff\xfe"))

    def test_length_counts_bytes(self) -> None:
        """Content-Length counts bytes, not characters."""
        message = read(request("INFO", body="é".encode()))
        self.assertEqual(message.body, b"\xc3\xa9")
        self.assertIn(b"Content-Length: 2", write(message))

    def test_longer_datagram(self) -> None:
        """What follows the stated length is not part of the message (RFC 3261 18.3)."""
        self.assertEqual(read(request("INFO", body=b"hi") + request("BYE")).body, b"hi")

    def test_shorter_datagram(self) -> None:
        """A message cut off in its body earns 400 and can be answered (RFC 3261 18.3)."""
        error = self.assertRaises(Unreadable, read, request("INFO", body=b"hi")[:-1])
        assert error.request is not None
        self.assertEqual((error.code, error.request.method), (400, "INFO"))

    def test_no_length(self) -> None:
        """Without Content-Length the body is the rest of the datagram."""
        self.assertEqual(read(request("INFO").replace(b"Content-Length: 0\r\n", b"") + b"rest").body, b"rest")

    def test_what_is_refused(self) -> None:
        """Each broken rule earns its code, and an answer when it can be given."""
        good = request("OPTIONS")
        for old, new, code, answerable in (
            (b"SIP/2.0\r\nVia", b"SIP/3.0\r\nVia", 505, True),
            (b"OPTIONS sip:bot@192.0.2.1 ", b"OPTIONS sip: ", 400, True),
            (b"OPTIONS sip:bot@192.0.2.1 ", b"OPTIONS  <sip:bot@h> ", 400, True),
            (b"1 OPTIONS", b"1 INVITE", 400, True),
            (b"1 OPTIONS", b"99999999999 OPTIONS", 400, True),
            (b"Call-ID: call-1\r\n", b"", 400, True),
            (b"Call-ID: call-1\r\n", b"Call-ID: a\r\nCall-ID: b\r\n", 400, True),
            (b"Via: SIP/2.0/UDP 192", b"Via: nonsense 192", 400, False),
            (b"Via: ", b"X: ", 400, False),
            (b"Content-Length: 0", b"Content-Length: -1", 400, True),
            (b"Content-Length: 0", b"Content-Length: 0\r\nl: 1", 400, True),
            (b"Content-Length: 0", b"no colon", 400, True),
            (b"Content-Length: 0", b"Subject: a\rb", 400, True),
            (b"Content-Length: 0", b"Max-Forwards: 256", 400, True),
            (b"<sip:100@192.0.2.10>", b"<sip:100@192.0.2.10", 400, True),
        ):
            self.assertIn(old, good)
            error = self.assertRaises(Unreadable, read, good.replace(old, new))
            self.assertEqual((error.code, error.request is not None), (code, answerable), new)

    def test_ack_is_never_answered(self) -> None:
        """A broken ACK gets no 400."""
        error = self.assertRaises(Unreadable, read, request("ACK").replace(b"1 ACK", b"x ACK"))
        self.assertIsNone(error.request)


class Writing(SynchronousTestCase):
    def test_no_injection(self) -> None:
        """A line break in a value, name or phrase can never become a header."""
        for bad in ("a\r\nX: y", "a\nX: y", "a\rb"):
            message = Response(200, "OK")
            message.add("Subject", bad)
            self.assertRaises(Misuse, write, message)
            self.assertRaises(Misuse, write, Response(200, bad))
            named = Response(200)
            named.add("X" + bad, "v")
            self.assertRaises(Misuse, write, named)

    def test_answer(self) -> None:
        """An answer copies what RFC 3261 8.2.6.2 says, adds our tag, and counts its body."""
        asked = read(request("INVITE", via="SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b"))
        assert isinstance(asked, Request)
        self.assertEqual(
            write(answer(asked, 200, headers=[("Contact", "<sip:us>")], body=b"v=0", content_type="a/b", to_tag="t")),
            b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP b\r\n"
            b"From: <sip:100@192.0.2.10>;tag=pbx\r\nTo: <sip:bot@192.0.2.1>;tag=t\r\nCall-ID: call-1\r\n"
            b"CSeq: 1 INVITE\r\nContact: <sip:us>\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nv=0",
        )

    def test_no_type_without_body(self) -> None:
        """Without a body there is no Content-Type, 100 has no tag, and a tag that is there stays."""
        asked = read(request("BYE", to_tag="x"))
        assert isinstance(asked, Request)
        data = write(answer(asked, 200, content_type="application/sdp", to_tag="y"))
        self.assertNotIn(b"Content-Type", data)
        self.assertIn(b";tag=x\r\n", data)
        fresh = read(request("INVITE", headers="Timestamp: 54\r\n"))
        assert isinstance(fresh, Request)
        trying = answer(fresh, 100, to_tag="y")
        self.assertEqual((trying.to.tag, trying.first("timestamp")), ("", "54"))

    def test_every_code_has_words(self) -> None:
        """489 has a phrase, and so has a code nobody knows."""
        self.assertEqual(Response(489).phrase, "Bad Event")
        self.assertEqual(write(Response(699)).split(b"\r\n")[0], b"SIP/2.0 699 Unknown")
