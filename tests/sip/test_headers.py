"""URIs, addresses and Via."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed
from extenbot.sip.headers import CSeq, Via, name_addr
from extenbot.sip.uri import Uri


class Uris(SynchronousTestCase):
    def test_parts(self) -> None:
        """A URI is taken apart and written back as it was."""
        for text, scheme, user, host, port in (
            ("sip:alice@example.org", "sip", "alice", "example.org", None),
            ("sips:alice:pw@example.org:5061;transport=tcp;lr?a=b", "sips", "alice", "example.org", 5061),
            ("sip:[2001:db8::1]:5070", "sip", "", "[2001:db8::1]", 5070),
            ("sip:bot@[::1];line=abcd", "sip", "bot", "[::1]", None),
            ("tel:+1-212-555;phone-context=x", "tel", "+1-212-555", "", None),
            ("sip:+1;npdi@h", "sip", "+1;npdi", "h", None),
            ("mailto:a@b", "mailto", "a@b", "", None),
            ("sip:%61lice@h", "sip", "alice", "h", None),
        ):
            uri = Uri.read(text)
            self.assertEqual((uri.scheme, uri.user, uri.host, uri.port, str(uri)), (scheme, user, host, port, text))
        self.assertEqual(str(Uri.read("SIP:a@b")), "sip:a@b")

    def test_refused(self) -> None:
        """What is no URI is Malformed."""
        for text in (
            "",
            "alice",
            "sip:",
            "sip:@h",
            "sip:a@",
            "sip:a@h:0",
            "sip:a@h:99999",
            "sip:a b@h",
            "sip:a@h\r\nX: y",
            "sip:a@h:x",
            "sip:<a>@h",
            "sip:a@[::1",
        ):
            self.assertRaises(Malformed, Uri.read, text)

    def test_same(self) -> None:
        """Contacts are compared as RFC 3261 19.1.4 shows."""
        for one, two, same in (
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", True),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", True),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off", False),
            ("sip:ALICE@h", "sip:alice@h", False),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", False),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", False),
            ("sip:a@h?x=1&y=2", "sip:a@h?y=2&x=1", True),
            ("sip:a@h", "sips:a@h", False),
        ):
            self.assertEqual(Uri.read(one).same(Uri.read(two)), same, (one, two))

    def test_made(self) -> None:
        """Users in clear text are escaped, IPv6 gets its brackets."""
        self.assertEqual(str(Uri.of("a b@c", "::1", 5)), "sip:a%20b%40c@[::1]:5")
        self.assertEqual(str(Uri.of("a", "::1", 5, "TLS")), "sip:a@[::1]:5;transport=tls")

    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any text is a URI that can be written or Malformed."""
        for candidate in (text, "sip:" + text, "sip:a@" + text):
            try:
                uri = Uri.read(candidate)
            except Malformed:
                continue
            self.assertEqual(Uri.read(str(uri)), uri)


class Addresses(SynchronousTestCase):
    def test_shapes(self) -> None:
        """Names, quotes, brackets and parameters are told apart."""
        for text, display, uri, tag in (
            ("<sip:a@b>;tag=1", "", "sip:a@b", "1"),
            ("sip:a@b;tag=1", "", "sip:a@b", "1"),
            ('"A, <x>; \\"q\\"" <sip:a@b;lr>;tag=1', 'A, <x>; "q"', "sip:a@b;lr", "1"),
            ("Bob Lee <sip:a@b>", "Bob Lee", "sip:a@b", ""),
            ('"BEL\\\x07"<sip:a@b> ; tag = x', "BEL", "sip:a@b", "x"),
        ):
            address = name_addr(text)
            self.assertEqual((address.display, str(address.uri), address.tag), (display, uri, tag))

    def test_refused(self) -> None:
        """What is no address is Malformed."""
        for text in ("", "*", "<>", '"x', '"x" sip:a@b', "<sip:a@b> x", "<sip:a@b", "<sip:a@b>;=x"):
            self.assertRaises(Malformed, name_addr, text)

    def test_cseq(self) -> None:
        """CSeq is a number below 2**31 and a method."""
        self.assertEqual(CSeq.read(" 0009\t INVITE"), (9, "INVITE"))
        for text in ("", "1", "INVITE", "1 2 3", "-1 BYE", "2147483648 BYE", "1 B@E"):
            self.assertRaises(Malformed, CSeq.read, text)


class Vias(SynchronousTestCase):
    def test_stamped(self) -> None:
        """received and rport say where a request really came from (RFC 3261 18.2.1, RFC 3581 4)."""
        for text, stamped in (
            ("SIP/2.0/UDP 192.0.2.10;branch=x", "SIP/2.0/UDP 192.0.2.10;branch=x"),
            ("SIP/2.0/UDP 10.0.0.1:5;branch=x", "SIP/2.0/UDP 10.0.0.1:5;branch=x;received=192.0.2.10"),
            ("SIP/2.0/UDP 192.0.2.10;rport;branch=x", "SIP/2.0/UDP 192.0.2.10;rport=6;branch=x;received=192.0.2.10"),
            ("SIP/2.0/UDP 192.0.2.10;received=6.6.6.6", "SIP/2.0/UDP 192.0.2.10"),
            ("sip / 2.0 / udp [::1]:9 ; hidden", "SIP/2.0/UDP [::1]:9;hidden;received=192.0.2.10"),
        ):
            self.assertEqual(Via.read(text).stamped(("192.0.2.10", 6)).toString(), stamped)
        self.assertEqual(Via.read("SIP/2.0/UDP [::1]").stamped(("::1", 6)).toString(), "SIP/2.0/UDP [::1]")
