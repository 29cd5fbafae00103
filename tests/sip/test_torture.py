"""RFC 4475 and RFC 5118, whole: each message through the service in memory, and what it owes for it.

An INVITE or REGISTER is challenged first, as a stranger's; then it comes again with the credentials of the bot that
its address names, so that what lies behind the challenge is met as well.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from extenbot.sip.digest import answer_challenge
from extenbot.sip.message import Request, Response, Unreadable, read, write
from tests.memory import PBX, World, bot
from tests.sip.torture import MESSAGES

UP = "200 OK"
CHALLENGE = "401 Unauthorized"
#: section, what we owe, and what we owe once the challenge is answered; "" is a drop that is counted as the third says
OWED: dict[str, tuple[str, str, str]] = {
    # RFC 4475 3.1.1, valid
    "wsinv": ("3.1.1.1", "481 Call/Transaction Does Not Exist", ""),  # its To has a tag
    "intmeth": ("3.1.1.2", "501 Not Implemented", ""),
    "esc01": ("3.1.1.3", CHALLENGE, UP),  # the escaped user is "sips:user@example.com"
    "escnull": ("3.1.1.4", CHALLENGE, UP),
    "esc02": ("3.1.1.5", "501 Not Implemented", ""),  # a method is not unescaped
    "lwsdisp": ("3.1.1.6", UP, ""),
    "longreq": ("3.1.1.7", CHALLENGE, UP),
    "dblreq": ("3.1.1.8", CHALLENGE, UP),  # what follows the first message is ignored
    "semiuri": ("3.1.1.9", UP, ""),
    "transports": ("3.1.1.10", UP, ""),
    "mpart01": ("3.1.1.11", "405 Method Not Allowed", ""),
    "unreason": ("3.1.1.12", "", "stray-response"),
    "noreason": ("3.1.1.13", "", "stray-response"),
    # RFC 4475 3.1.2, invalid
    "badinv01": ("3.1.2.1", "400 Via cannot be read", ""),
    "clerr": ("3.1.2.2", "400 The message is shorter than its Content-Length", ""),
    "ncl": ("3.1.2.3", "400 Content-Length is not a number from 0 to 2147483647", ""),
    "scalar02": ("3.1.2.4", "400 The number in CSeq is not below 2**31", ""),
    "scalarlg": ("3.1.2.5", "", "malformed"),
    "quotbal": ("3.1.2.6", "400 A quote or bracket is not closed", ""),
    "ltgtruri": ("3.1.2.7", "400 There is no proper URI", ""),
    "lwsruri": ("3.1.2.8", "400 There is no proper URI", ""),
    "lwsstart": ("3.1.2.9", "400 There is no proper URI", ""),
    "trws": ("3.1.2.10", "400 There are blanks after the request line", ""),
    "escruri": ("3.1.2.11", CHALLENGE, UP),  # it may be liberal: the headers in the URI are ignored
    "baddate": ("3.1.2.12", CHALLENGE, UP),  # it may be liberal: nobody reads Date
    "regbadct": ("3.1.2.13", CHALLENGE, "400 An address with headers needs its brackets"),
    "badaspec": ("3.1.2.14", UP, ""),  # it may be liberal: what is meant is clear
    "baddn": ("3.1.2.15", UP, ""),
    "badvers": ("3.1.2.16", "505 Only SIP/2.0 is spoken here", ""),
    "mismatch01": ("3.1.2.17", "400 The method of CSeq is another one", ""),
    "mismatch02": ("3.1.2.18", "400 The method of CSeq is another one", ""),  # or 501
    "bigcode": ("3.1.2.19", "", "malformed"),
    # RFC 4475 3.2 to 3.4
    "badbranch": ("3.2.1", UP, ""),
    "insuf": ("3.3.1", "400 There is no From", ""),
    "unkscm": ("3.3.2", "416 This URI scheme is not served", ""),
    "novelsc": ("3.3.3", "416 This URI scheme is not served", ""),
    "unksm2": ("3.3.4", CHALLENGE, "400 A Contact is no SIP address"),
    "bext01": ("3.3.5", "420 Bad Extension", ""),
    "invut": ("3.3.6", CHALLENGE, "415 Unsupported Media Type"),
    "regaut01": ("3.3.7", CHALLENGE, UP),
    "multi01": ("3.3.8", "400 The message is shorter than its Content-Length", ""),
    "mcl01": ("3.3.9", "400 There are two different Content-Lengths", ""),
    "bcast": ("3.3.10", "", "stray-response"),
    "zeromf": ("3.3.11", UP, ""),  # we are where it is meant for
    "cparam01": ("3.3.12", CHALLENGE, UP),
    "cparam02": ("3.3.13", CHALLENGE, UP),
    "regescrt": ("3.3.14", CHALLENGE, UP),
    "sdp01": ("3.3.15", CHALLENGE, "406 Only SDP is spoken here"),
    "inv2543": ("3.4.1", CHALLENGE, "400 There is not one SIP Contact"),  # RFC 3261 8.1.1.8
    # RFC 5118 4
    "ipv6-good": ("4.1", CHALLENGE, UP),
    "ipv6-bad": ("4.2", "400 Not a number from 0 to 65535", ""),  # what follows the first colon is taken for a port
    "port-ambiguous": ("4.3", CHALLENGE, UP),
    "port-unambiguous": ("4.4", CHALLENGE, UP),
    "via-received-param-with-delim": ("4.5", "481 Call/Transaction Does Not Exist", ""),
    "via-received-param-no-delim": ("4.5", UP, ""),
    "ipv6-in-sdp": ("4.6", "400 The message is shorter than its Content-Length", ""),  # as printed; see below
    "mult-ip-in-header": ("4.7", "481 Call/Transaction Does Not Exist", ""),
    "mult-ip-in-sdp": ("4.8", CHALLENGE, UP),
    "ipv4-mapped-ipv6": ("4.9", CHALLENGE, "488 Not Acceptable Here"),  # it offers G.726 only
    "ipv6-bug-abnf-3-colons": ("4.10", UP, ""),
    "ipv6-correct-abnf-2-colons": ("4.10", UP, ""),
}


class Torture(SynchronousTestCase):
    def met(self, data: bytes) -> tuple[str, str, World]:
        """The final answers, as status lines: at once, and with credentials when it was challenged."""
        try:
            message: Request | Response | None = read(data)
        except Unreadable:
            message = None
        user = ""
        if isinstance(message, Request):
            user = (message.to if message.method == "REGISTER" else message).uri.user
        world = World("", bot(username=user or "nobody"))
        first, second = self.finals(world, data), ""
        if first == CHALLENGE:
            assert isinstance(message, Request)
            challenge = self.ours(world)[-1].all("www-authenticate")[-1]
            line, _, rest = data.partition(b"\r\n")
            uri = line.decode().partition(" ")[2].rpartition(" ")[0]
            value = answer_challenge(challenge, message.method, uri, user, "secret", "c")
            second = self.finals(world, line + f"\r\nAuthorization: {value}\r\n".encode() + rest)
        self.assertEqual(world.transactions.counters["fault"], 0)
        world.registrar.stop()
        world.drain()
        self.assertEqual(world.left(), [])
        return first, second, world

    def sent(self, world: World) -> list[bytes]:
        """What we have answered, in order."""
        return [
            data
            for step, data in zip(world.ladder, world.messages, strict=True)
            if "<--" in step and data.startswith(b"SIP/2.0 ")
        ]

    def ours(self, world: World) -> list[Response]:
        """The same, read."""
        return [message for data in self.sent(world) if isinstance(message := read(data), Response)]

    def finals(self, world: World, data: bytes) -> str:
        """The status line of the one final answer to a message, empty when there is none."""
        before = len(self.sent(world))
        world.deliver(data, PBX)
        world.run(0.3)
        lines = [answer.partition(b"\r\n")[0].decode()[8:] for answer in self.sent(world)[before:]]
        finals = [line for line in lines if line >= "2"]
        self.assertLessEqual(len(finals), 1)
        return "".join(finals)

    def test_none_left_out(self) -> None:
        """All 49 messages of RFC 4475 and the 12 of RFC 5118 are here, each with its section."""
        self.assertEqual(OWED.keys(), MESSAGES.keys())
        self.assertEqual(len(OWED), 49 + 12)
        sections = [section for section, _, _ in OWED.values()]
        for group, count in (("3.1.1", 13), ("3.1.2", 19), ("3.2", 1), ("3.3", 15), ("3.4", 1), ("4", 10)):
            wanted = {f"{group}.{number}" for number in range(1, count + 1)}
            self.assertEqual({section for section in sections if section.rpartition(".")[0] == group}, wanted)

    def test_each(self) -> None:
        """Each gets the answer that the RFC owes, or is dropped and counted; nothing raises and nothing is left."""
        for name, (section, first, second) in OWED.items():
            at_once, then, world = self.met(MESSAGES[name])
            self.assertEqual(at_once, first, (name, section))
            if first:
                self.assertEqual(then, second, (name, section))
            else:
                self.assertEqual(world.transactions.counters, {second: 1}, (name, section))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_what_is_read(self) -> None:
        """3.1.1.1, 3.1.1.2, 3.1.1.3: odd spaces, characters and escapes mean what they should."""
        message = read(MESSAGES["wsinv"])
        self.assertEqual((message.to.tag, message.from_.tag), ("1918181833n", "98asjd8"))
        self.assertEqual(message.from_.display, 'J Rosenberg \\"')
        self.assertEqual(message.cseq, (9, "INVITE"))
        self.assertEqual(len(message.all("via")), 3)
        self.assertEqual((message.via.sent_by, message.via.branch), (("192.0.2.2", 5060), "390skdjuw"))
        self.assertEqual(message.first("newfangledheader"), "newfangled value continued newfangled value")
        self.assertEqual((message.first("subject"), len(message.body)), ("", 150))
        message = read(MESSAGES["intmeth"])
        self.assertEqual(message.to.display, "BEL: NUL: DEL:")
        self.assertEqual(message.from_.tag, "_token~1'+`*%!-.")
        self.assertEqual(message.first("extensionHeader-!.%*+_`'~"), "\ufeff大停電")
        message = read(MESSAGES["esc01"])
        assert isinstance(message, Request)
        self.assertEqual((message.uri.user, message.to.uri.user), ("sips:user@example.com", "user"))

    def test_written_again(self) -> None:
        """What can be read is the same when it is written and read again."""
        for name, data in MESSAGES.items():
            try:
                message = read(data)
            except Unreadable:
                continue
            self.assertEqual(read(write(message)), message, name)

    def test_answers_hold_what_came(self) -> None:
        """Via, From, To, Call-ID and CSeq of each answer are those of the request, the top Via with its source."""
        for name, data in MESSAGES.items():
            try:
                message = read(data)
            except Unreadable:
                continue
            if not isinstance(message, Request):
                continue
            _, _, world = self.met(data)
            answer = self.ours(world)[0]
            for header in ("from", "call-id", "cseq"):
                self.assertEqual(answer.all(header), message.all(header), name)
            self.assertEqual(answer.all("via")[1:], message.all("via")[1:], name)
            self.assertEqual(answer.via.params.get("received"), PBX[0], name)
            self.assertTrue(answer.to.tag, name)

    def test_unknown_extensions(self) -> None:
        """3.3.5: 420 names what is unsupported, of Require and not of Proxy-Require."""
        _, _, world = self.met(MESSAGES["bext01"])
        [answer] = self.ours(world)
        self.assertEqual(answer.tokens("unsupported"), ["nothingSupportsThis", "nothingSupportsThisEither"])

    def test_bindings(self) -> None:
        """3.3.12 to 3.3.14: a parameter without brackets is the Contact's, one within is the URI's and is kept."""
        for name, contact in (
            ("cparam01", "<sip:+19725552222@gw1.example.net>;expires=3600"),
            ("cparam02", "<sip:+19725552222@gw1.example.net;unknownparam>;expires=3600"),
            ("regescrt", "<sip:user@example.com?Route=%3Csip:sip.example.com%3E>;expires=3600"),
        ):
            _, _, world = self.met(MESSAGES[name])
            self.assertEqual(self.ours(world)[-1].all("contact"), [contact])

    def test_received_with_brackets(self) -> None:
        """RFC 5118 4.5: `received` is read with and without brackets; we write it without."""
        _, _, world = self.met(MESSAGES["via-received-param-with-delim"])
        self.assertEqual(self.ours(world)[0].via.params["received"], PBX[0])

    def test_length_as_it_should_be(self) -> None:
        """RFC 5118 4.6 and 4.9 with the Content-Length that their bodies have: read; both offer G.726 only."""
        for name, printed in (("ipv6-in-sdp", b"268"), ("ipv4-mapped-ipv6", b"236")):
            data = MESSAGES[name]
            body = data.partition(b"\r\n\r\n")[2]
            first, second, _ = self.met(data.replace(printed, str(len(body)).encode()))
            self.assertEqual((first, second), (CHALLENGE, "488 Not Acceptable Here"), name)

    def test_cut(self) -> None:
        """Each of them cut at any byte: an answer or a counted drop, and nothing raises."""
        world = World()
        for data in MESSAGES.values():
            for length in range(0, len(data), 7):
                world.guard.forgive(PBX[0])
                world.deliver(data[:length], PBX)
        self.assertEqual(world.transactions.counters["fault"], 0)
        self.assertEqual(self.flushLoggedErrors(), [])
        world.drain()
        self.assertEqual(world.left(), [])
