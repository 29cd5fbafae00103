"""The registrar: who is registered where, and for how long."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed, Refused
from extenbot.interfaces import Flow
from extenbot.sip.message import Request, Response, read, write
from extenbot.sip.registrar import Binding, Registrar
from tests.sip.wire import FLOW, PBX, request

EPOCH = 1_800_000_000.0


class Registering(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.registrar = self.new()
        self.changes: list[tuple[str, list[str]]] = []
        self.registrar.on_changed = self.changed
        self.number = 0

    def new(self, limit: int = 5) -> Registrar:
        return Registrar(self.clock, lambda: EPOCH + self.clock.seconds(), 3600, 60, limit)

    def changed(self, username: str, bindings: tuple[Binding, ...]) -> None:
        self.changes.append((username, [binding.contact for binding in bindings]))

    def register(
        self, *contacts: str, headers: str = "", number: int = 0, call_id: str = "reg-1", flow: Flow = FLOW
    ) -> Response:
        self.number = number or self.number + 1
        headers += "".join(f"Contact: {contact}\r\n" for contact in contacts)
        message = read(request("REGISTER", self.number, contact="", headers=headers, call_id=call_id))
        assert isinstance(message, Request)
        return self.registrar.register(message, "bot", flow)

    def refused(self, code: int, *contacts: str, headers: str = "", number: int = 0, call_id: str = "reg-1") -> Refused:
        error: Refused = self.assertRaises(
            Refused, self.register, *contacts, headers=headers, number=number, call_id=call_id
        )
        self.assertEqual(error.code, code)
        return error

    def test_asterisk(self) -> None:
        """Asterisk finds its own Contact, line parameter and all, in the 200."""
        response = self.register("<sip:bot@192.0.2.10:5060;line=abcdefg>", headers="Expires: 3600\r\n")
        self.assertEqual(response.all("contact"), ["<sip:bot@192.0.2.10:5060;line=abcdefg>;expires=3600"])
        self.assertEqual(response.code, 200)
        self.assertEqual(self.changes, [("bot", ["sip:bot@192.0.2.10:5060;line=abcdefg"])])

    def test_freeswitch(self) -> None:
        """A Contact whose user is not the username is kept as it is."""
        contact = "<sip:gw+1234-abcd@192.0.2.10:5280;transport=udp;gw=1234-abcd>"
        self.assertEqual(self.register(contact + ";expires=600").all("contact"), [contact + ";expires=600"])

    def test_what_is_kept(self) -> None:
        """A binding holds what the pages show and what a call needs."""
        self.register('<sip:a@h>;q=0.5;reg-id=1;+sip.instance="<urn:uuid:1>"', headers="User-Agent: Phone 1\r\n")
        self.assertEqual(
            self.registrar.bindings("bot"),
            (Binding("bot", "sip:a@h", "<urn:uuid:1>", "1", "reg-1", 1, FLOW, EPOCH + 3600, "0.5", "Phone 1", EPOCH),),
        )
        self.assertEqual(
            self.register().all("contact"),
            ['<sip:a@h>;expires=3600;q=0.5;+sip.instance="<urn:uuid:1>";reg-id=1'],
        )

    def test_expires(self) -> None:
        """The Contact's own expires counts before the header; long ones are cut, unreadable ones are the default."""
        for contact, headers, expires in (
            ("<sip:a@h>;expires=100", "Expires: 200\r\n", 100),
            ("<sip:a@h>", "Expires: 200\r\n", 200),
            ("<sip:a@h>", "", 3600),
            ("<sip:a@h>;expires=999999", "", 3600),
            ("<sip:a@h>;expires=soon", "", 3600),
        ):
            self.assertEqual(self.register(contact, headers=headers).all("contact"), [f"<sip:a@h>;expires={expires}"])

    def test_too_brief(self) -> None:
        """Less than the shortest time is 423 with Min-Expires, and nothing changes."""
        self.assertEqual(self.refused(423, "<sip:a@h>;expires=59").headers, (("Min-Expires", "60"),))
        self.refused(423, "<sip:a@h>", "<sip:b@h>;expires=1")
        self.assertEqual((self.registrar.all(), self.changes), ((), []))
        self.register("<sip:a@h>;expires=60")

    def test_refresh_and_expire(self) -> None:
        """A refresh moves the end; at the end the binding is gone and everybody is told, once."""
        self.register("<sip:a@h>;expires=100")
        self.clock.advance(60)
        self.assertEqual(self.register().all("contact"), ["<sip:a@h>;expires=40"])
        self.register("<sip:a@h>;expires=100")
        self.clock.pump([0.5] * 199)
        self.assertEqual(len(self.registrar.all()), 1)
        self.clock.advance(0.5)
        self.assertEqual(self.registrar.all(), ())
        self.assertEqual(self.changes, [("bot", ["sip:a@h"])] * 2 + [("bot", [])])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_query(self) -> None:
        """Without Contact all bindings come back and nothing changes."""
        self.register("<sip:a@h>", "<sip:b@i>")
        self.changes.clear()
        self.assertEqual(self.register().all("contact"), ["<sip:a@h>;expires=3600", "<sip:b@i>;expires=3600"])
        self.assertEqual(self.changes, [])

    def test_unregister(self) -> None:
        """Expires 0 removes one contact, the star removes all."""
        self.register("<sip:a@h>", "<sip:b@i>", "<sip:c@j>")
        self.assertEqual(
            self.register("<sip:b@i>;expires=0").all("contact"), ["<sip:a@h>;expires=3600", "<sip:c@j>;expires=3600"]
        )
        self.register("<sip:never@there>", headers="Expires: 0\r\n")
        self.assertEqual(self.register("*", headers="Expires: 0\r\n").all("contact"), [])
        self.assertEqual(self.changes[-1], ("bot", []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_star_rules(self) -> None:
        """The star stands alone and with Expires 0 (RFC 3261 10.2.2)."""
        self.assertRaises(Malformed, self.register, "*")
        self.assertRaises(Malformed, self.register, "*", headers="Expires: 60\r\n")
        self.assertRaises(Malformed, self.register, "*", "<sip:a@h>", headers="Expires: 0\r\n")

    def test_order(self) -> None:
        """Within a Call-ID an older request changes nothing; another Call-ID may (RFC 3261 10.3)."""
        self.register("<sip:a@h>", number=5)
        self.refused(500, "<sip:a@h>;expires=0", number=5)
        self.refused(500, "*", headers="Expires: 0\r\n", number=4)
        self.assertEqual(len(self.registrar.all()), 1)
        self.register("<sip:a@h>;expires=0", number=1, call_id="reg-2")
        self.assertEqual(self.registrar.all(), ())

    def test_foreign_address(self) -> None:
        """Who is authenticated as one bot cannot register another."""
        message = read(request("REGISTER"))
        assert isinstance(message, Request)
        error = self.assertRaises(Refused, self.registrar.register, message, "other", FLOW)
        self.assertEqual(error.code, 403)

    def test_sixth(self) -> None:
        """A sixth contact replaces the oldest of the same device; from a new device it gets 403."""
        for number in range(5):
            self.register(f"<sip:bot@host{number}>", call_id=f"c{number}")
        self.refused(403, "<sip:bot@host9>", call_id="c9")
        self.register("<sip:bot@host2;line=2>", call_id="c9")
        contacts = [binding.contact for binding in self.registrar.bindings("bot")]
        self.assertEqual(contacts, [f"sip:bot@host{n}" for n in (0, 1, 3, 4)] + ["sip:bot@host2;line=2"])

    def test_sixth_by_line(self) -> None:
        """An Asterisk that is restarted again and again never locks itself out."""
        for number in range(9):
            self.register(f"<sip:bot@pbx;line={number}>", call_id=f"c{number}")
        contacts = [binding.contact for binding in self.registrar.bindings("bot")]
        self.assertEqual(contacts, [f"sip:bot@pbx;line={n}" for n in range(4, 9)])

    def test_sixth_by_instance(self) -> None:
        """With an instance the host does not matter."""
        for number in range(5):
            self.register(f'<sip:bot@pbx;line={number}>;+sip.instance="<urn:{number}>"', call_id=f"c{number}")
        self.refused(403, '<sip:bot@pbx;line=9>;+sip.instance="<urn:9>"', call_id="c9")
        self.register('<sip:bot@pbx;line=9>;+sip.instance="<urn:3>"', call_id="c9")
        self.assertEqual([b.instance for b in self.registrar.bindings("bot")][-2:], ["<urn:4>", "<urn:3>"])

    def test_outbound(self) -> None:
        """The same instance and reg-id is the same binding, wherever it is now (RFC 5626 6)."""
        self.register('<sip:a@h>;reg-id=1;+sip.instance="<urn:1>"')
        self.register('<sip:a@i>;reg-id=1;+sip.instance="<urn:1>"', call_id="c2")
        self.assertEqual([b.contact for b in self.registrar.all()], ["sip:a@i"])

    def test_unusable(self) -> None:
        """A Contact that cannot be called is 400."""
        for contact in ("<mailto:a@b>", "<sip:>", "nonsense", "<sip:a@h"):
            self.assertRaises(Malformed, self.register, contact)
        self.assertEqual(self.registrar.all(), ())

    def test_restart(self) -> None:
        """Bindings taken back after a restart go on as before; what ran out meanwhile is gone."""
        self.register("<sip:a@h>;expires=100", "<sip:b@i>;expires=3600")
        kept = self.registrar.all()
        self.registrar.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(200)
        self.registrar = self.new()
        self.registrar.on_changed = self.changed
        self.changes.clear()
        self.registrar.restore(kept)
        self.assertEqual(self.register().all("contact"), ["<sip:b@i>;expires=3400"])
        self.assertEqual(self.changes, [])
        self.clock.advance(3400)
        self.assertEqual(self.changes, [("bot", [])])

    def test_forget(self) -> None:
        """A removed bot has no bindings and no timer."""
        self.register("<sip:a@h>")
        self.registrar.forget("bot")
        self.registrar.forget("bot")
        self.assertEqual(self.changes, [("bot", ["sip:a@h"]), ("bot", [])])
        self.assertEqual((self.registrar.all(), self.clock.getDelayedCalls()), ((), []))

    def test_clock_set_back(self) -> None:
        """If the time of day jumps back, the binding ends when it should, not before."""
        shift = 0.0
        self.registrar = Registrar(self.clock, lambda: EPOCH + shift + self.clock.seconds(), 3600, 60)
        self.register("<sip:a@h>;expires=100")
        shift = -50.0
        self.clock.advance(100)
        self.assertEqual(len(self.registrar.all()), 1)
        self.clock.pump([1.0] * 50)
        self.assertEqual((self.registrar.all(), self.clock.getDelayedCalls()), ((), []))

    def test_flow(self) -> None:
        """The flow of the last REGISTER is kept: a PBX behind NAT is found there."""
        moved = FLOW._replace(remote=(PBX[0], 40000))
        self.register("<sip:a@h>")
        self.register("<sip:a@h>", flow=moved)
        self.assertEqual([b.flow for b in self.registrar.all()], [moved])

    def test_no_injection(self) -> None:
        """Whatever a Contact says, the 200 has its own headers only."""
        response = self.register('"a\\\r\n X: y" <sip:a@h>;q=1;x=" , "')
        self.assertIsNone(response.first("x"))
        write(response)
