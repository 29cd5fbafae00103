"""Transfers, as PBXs and phones answer them."""

from __future__ import annotations

from extenbot.errors import Malformed, Misuse
from extenbot.sip.message import Request
from tests.sip.called import Called


class Transfer(Called):
    def notify(self, number: int, status: str, state: str = "active", event: str = "refer") -> list[str]:
        headers = f"Event: {event}\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag;version=2.0\r\n"
        return self.ours("NOTIFY", number, headers=headers, body=f"SIP/2.0 {status}\r\n".encode())

    def test_asterisk_transfer(self) -> None:
        """Asterisk: 202, NOTIFY 100, 180, 200, and then it waits for our BYE."""
        session = self.talking()
        session.refer("sip:200@192.0.2.10", "sip:bot@example.org")
        sent = self.wire.messages()[0]
        assert isinstance(sent, Request)
        self.assertEqual((sent.first("refer-to"), sent.first("r")), ("<sip:200@192.0.2.10>",) * 2)
        self.assertEqual(sent.first("referred-by"), "<sip:bot@example.org>")
        self.assertEqual(sent.all("contact"), ["<sip:bot@192.0.2.1:5060>"])
        for number, (status, state) in enumerate(
            (("100 Trying", "active"), ("180 Ringing", "active"), ("200 OK", "terminated;reason=noresource")), 2
        ):
            self.assertEqual(self.notify(number, status, state), ["0 SIP/2.0 200 OK"])
        self.assertEqual(
            self.told,
            [
                ("transferred", 100, "Trying", False),
                ("transferred", 180, "Ringing", False),
                ("transferred", 200, "OK", True),
            ],
        )
        session.bye()
        self.nothing_left()

    def test_failed_transfer(self) -> None:
        """A missing extension: NOTIFY 404, and the call goes on and may try another target."""
        session = self.talking()
        session.refer("999")
        self.reply(202, "Accepted")
        self.notify(2, "404 Not Found", "terminated;reason=noresource", f"refer;id={session.dialog.local_cseq}")
        self.assertEqual(self.told, [("transferred", 202, "Accepted", False), ("transferred", 404, "Not Found", True)])
        self.assertFalse(session.over)
        self.assertEqual(self.run_for(70), [])
        session.refer("100")
        self.assertEqual(self.wire.sent[0][1].count(b"Refer-To: <sip:100@192.0.2.10>\r\n"), 1)
        self.told.clear()
        self.notify(3, "200 OK", "terminated", f"refer;id={session.dialog.local_cseq - 1}")
        self.assertEqual(self.told, [])
        session.bye()
        self.nothing_left()

    def test_freeswitch_transfer(self) -> None:
        """FreeSWITCH: one NOTIFY with the CSeq as id, terminated, and then it sends BYE."""
        session = self.talking()
        session.refer("200")
        self.reply(202, "Accepted")
        self.notify(2, "200 OK", "terminated;reason=noresource", f"refer;id={session.dialog.local_cseq}")
        self.ours("BYE", 3)
        self.assertEqual(self.told[1:], [("transferred", 200, "OK", True), ("ended", "caller")])
        self.nothing_left()

    def test_early_notify(self) -> None:
        """A NOTIFY may overtake the 202; the late 202 then says nothing new."""
        session = self.talking()
        session.refer("200")
        refer = list(self.wire.sent)
        self.notify(2, "200 OK", "terminated")
        self.wire.sent = refer
        self.reply(202)
        self.assertEqual(self.told, [("transferred", 200, "OK", True)])

    def test_refused_transfer(self) -> None:
        """A PBX that refuses REFER says why."""
        self.talking().refer("200")
        self.reply(603, "Decline")
        self.assertEqual(self.told, [("transferred", 603, "Decline", True)])

    def test_silent_transfer(self) -> None:
        """No news for 60 s is the end of waiting; any news starts it anew."""
        session = self.talking()
        session.refer("200")
        self.reply(202, "Accepted")
        self.run_for(50)
        self.notify(2, "180 Ringing")
        self.run_for(59)
        self.assertEqual(len(self.told), 2)
        self.run_for(1)
        self.assertEqual(self.told[2:], [("transferred", 408, "No word of the transfer", True)])
        session.bye()
        self.nothing_left()

    def test_terminated_without_result(self) -> None:
        """A subscription that ends without a final state is an end without a result, not a success."""
        self.talking().refer("200")
        self.notify(2, "100 Trying", "terminated;reason=timeout")
        self.assertEqual(self.told, [("transferred", 480, "The transfer ended without a result", True)])

    def test_lost_dialog(self) -> None:
        """If the other side no longer knows the call, it is over (RFC 3261 12.2.1.2)."""
        self.talking().refer("200")
        self.reply(481, "Gone")
        self.assertEqual(self.told, [("transferred", 481, "Gone", True), ("ended", "lost")])
        self.assertEqual(self.wire.take(), ["0 BYE sip:pbx@192.0.2.10:5060 SIP/2.0"])
        self.nothing_left()

    def test_foreign_notify(self) -> None:
        """A NOTIFY for no REFER of ours is 481."""
        session = self.talking()
        self.assertEqual(self.notify(2, "200 OK"), ["0 SIP/2.0 481 There is no such subscription"])
        session.refer("200")
        self.wire.take()
        self.assertEqual(self.notify(3, "200 OK", event="refer;id=77"), ["0 SIP/2.0 481 There is no such subscription"])
        self.assertEqual(self.told, [])

    def test_targets(self) -> None:
        """Numbers and tel URIs become SIP addresses at the caller's PBX; what is no target is refused."""
        for target, uri in (
            ("100", "sip:100@192.0.2.10"),
            ("tel:+1-212-555", "sip:+1212555@192.0.2.10"),
            ("sip:a@h;user=phone", "sip:a@h;user=phone"),
            (" *98# ", "sip:*98%23@192.0.2.10"),
        ):
            self.setUp()
            self.talking().refer(target)
            self.assertEqual(self.wire.messages()[0].first("refer-to"), f"<{uri}>")
        self.setUp()
        session = self.talking()
        for target in ("", "sip:a@h\r\nX: y", "100\r\n", "sip:a@h>;evil", "https://h", "two words"):
            self.assertRaises(Malformed, session.refer, target)
        self.assertRaises(Malformed, session.refer, "100", "sip:a@h\r\nX: y")
        self.assertEqual(self.wire.sent, [])
        session.refer("100")
        self.assertRaises(Misuse, session.refer, "100")
