"""The registrar: who is registered where, and for how long."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed, Refused
from extenbot.interfaces import Flow
from extenbot.sip.message import Request, Response, read, write
from extenbot.sip.registrar import Binding, Registrar
from tests.clock import Clock
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

    def test_outbound_only_with_both(self) -> None:
        """An instance without reg-id, or the other way round, is a contact like any other (RFC 5626 6)."""
        self.register('<sip:a@h>;+sip.instance="<urn:1>"', "<sip:c@h>;reg-id=1", call_id="c1")
        self.register('<sip:b@h>;reg-id=1;+sip.instance="<urn:1>"', "<sip:d@h>;reg-id=1", call_id="c2")
        self.register('<sip:b@h>;reg-id=2;+sip.instance="<urn:1>"', call_id="c3")
        self.assertEqual(
            [b.contact for b in self.registrar.all()], ["sip:a@h", "sip:c@h", "sip:b@h", "sip:d@h", "sip:b@h"]
        )

    def test_outbound_in_force(self) -> None:
        """Outbound is said to be in force where we answer pings and see the flow, or the first proxy keeps it."""
        tcp = FLOW._replace(transport="TCP")
        contact = '<sip:a@h>;reg-id=1;+sip.instance="<urn:1>"'
        supported, hop = "Supported: path, Outbound\r\n", "Via: SIP/2.0/TCP phone;branch=z9hG4bKx\r\n"
        core, edge = "Path: <sip:core;lr>\r\n", "Path: <sip:edge;lr;ob>\r\n"
        for flow, given, headers, told in (
            (tcp, contact, supported, "outbound"),
            (FLOW, contact, supported, None),
            (tcp, contact, "", None),
            (tcp, "<sip:a@h>", supported, None),
            (tcp, contact, supported + hop, None),
            (tcp, contact, supported + hop + edge + core, None),
            (tcp, contact, supported + hop + core + edge, "outbound"),
        ):
            response = self.register(given, headers=headers, flow=flow)
            self.assertEqual(response.first("require"), told, (flow, given, headers))

    def test_path(self) -> None:
        """The proxies between are kept in their order, told back, and go with the next REGISTER that has none."""
        path = ["<sip:core.example;lr>", '"a, b" <sip:u,v@edge.example;lr;x=1>']
        headers = f"Path: {path[0]},\r\n {path[1]}\r\nSupported: path\r\n"
        response = self.register("<sip:a@h>", headers=headers)
        self.assertEqual((response.all("path"), response.first("supported")), (path, "path"))
        self.assertEqual([b.path for b in self.registrar.all()], [tuple(path)])
        self.assertEqual(self.register("<sip:a@h>", headers=f"Path: {path[0]}\r\n").all("path"), path[:1])
        self.assertEqual(self.register("<sip:b@h>", headers=f"Path: {path[1]}\r\n").all("path"), path[1:])
        self.assertEqual([b.path for b in self.registrar.all()], [(path[0],), (path[1],)])
        self.assertEqual(self.register("<sip:a@h>").all("path"), [])
        self.assertEqual([b.path for b in self.registrar.all()], [(path[1],), ()])

    def test_bad_path(self) -> None:
        """A Path that cannot be gone is 400, and nothing changes."""
        for path in ("<tel:1>", "<sip:>", "edge", "<sip:edge"):
            self.assertRaises(Malformed, self.register, "<sip:a@h>", headers=f"Path: {path}\r\n")
        self.assertEqual(self.registrar.all(), ())

    def test_best(self) -> None:
        """Calls go to the highest q, of equal ones to the newest; no q is 1."""
        self.assertIsNone(self.registrar.best("bot"))
        for contact, best in (
            ("<sip:a@h>;q=0.3", "a"),
            ("<sip:b@h>;q=0.5", "b"),
            ("<sip:c@h>;q=0.05", "b"),
            ("<sip:d@h>", "d"),
            ("<sip:e@h>;q=1.000", "e"),
            ("<sip:d@h>", "d"),
            ("<sip:d@h>;expires=0", "e"),
            ("<sip:e@h>;expires=0", "b"),
            ("<sip:a@h>;q=.5", "a"),
        ):
            self.clock.advance(1)
            self.register(contact)
            found = self.registrar.best("bot")
            assert found is not None
            self.assertEqual(found.contact, f"sip:{best}@h", contact)

    def test_q(self) -> None:
        """A q that is no number from 0 to 1 is 400."""
        for q in ("2", "1.1", "-0.1", "0,5", "x", ".", "1e-1", '"0.5"'):
            self.assertRaises(Malformed, self.register, "<sip:ok@h>", f"<sip:a@h>;q={q}")
        self.assertEqual(self.registrar.all(), ())

    def test_all_or_nothing(self) -> None:
        """One bad contact of several, wherever it stands, and nothing of the REGISTER comes true."""
        self.register("<sip:a@h>;expires=100", "<sip:b@i>", number=5)
        before = self.registrar.all()
        self.changes.clear()
        for code, bad in ((400, "<sip:c@h"), (423, "<sip:c@h>;expires=5"), (400, "<sip:c@h>;q=7"), (400, "*")):
            for contacts in ((bad, "<sip:a@h>;expires=0", "<sip:n@h>"), ("<sip:a@h>;expires=0", "<sip:n@h>", bad)):
                error = self.assertRaises((Malformed, Refused), self.register, *contacts)
                self.assertEqual(error.code, code, contacts)
        self.refused(403, *(f"<sip:n@h{n}>" for n in range(6)), call_id="other")
        self.refused(500, "<sip:n@h>", "<sip:b@i>", number=5)
        self.assertEqual((self.registrar.all(), self.changes), (before, []))

    def test_several(self) -> None:
        """Several contacts of one REGISTER, each with its own end; the last word about one counts."""
        response = self.register(
            "<sip:a@h>;expires=100", "<sip:b@h>", "<sip:c@h>", "<sip:c@h>;expires=0", "<sip:a@h>;q=0.5;expires=90",
            headers="Expires: 300\r\n",
        )  # fmt: skip
        self.assertEqual(response.all("contact"), ["<sip:b@h>;expires=300", "<sip:a@h>;expires=90;q=0.5"])
        self.clock.advance(90)
        self.assertEqual([b.contact for b in self.registrar.all()], ["sip:b@h"])

    def test_no_room_for_each_other(self) -> None:
        """Contacts of one REGISTER do not make way for each other; removing in it makes room, wherever it stands."""
        self.refused(403, *(f"<sip:bot@pbx;line={n}>" for n in range(6)))
        self.register(*(f"<sip:bot@host{n}>" for n in range(5)))
        self.register("<sip:bot@new>", "<sip:bot@host3>;expires=0", call_id="c2")
        contacts = [binding.contact for binding in self.registrar.bindings("bot")]
        self.assertEqual(contacts, [f"sip:bot@host{n}" for n in (0, 1, 2, 4)] + ["sip:bot@new"])

    def test_one_timer(self) -> None:
        """However many are registered there is one timer, and each binding still ends when it should."""
        for number in range(5):
            self.register(f"<sip:a@host{number}>;expires={60 + 10 * number}")
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.register("<sip:a@host0>;expires=600")
        for seconds, left in ((69.5, 5), (0.5, 4), (10, 3), (10, 2), (10, 1), (499.5, 1), (0.5, 0)):
            self.clock.advance(seconds)
            self.assertEqual(len(self.changes[-1][1]), left)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1 if left else 0)

    def test_refreshed_for_days(self) -> None:
        """Refreshes leave nothing behind."""
        for _ in range(2000):
            self.register("<sip:a@h>;expires=60", "<sip:b@h>;expires=600")
            self.clock.advance(50)
        self.assertLess(len(self.registrar._looks), 5)
        self.assertEqual(len(self.changes), 2000)

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

    def test_registered_from(self) -> None:
        """Who is registered from an address is known while it is, also after a restart."""
        nat, other = FLOW._replace(remote=("198.51.100.7", 1)), FLOW._replace(remote=("198.51.100.7", 2))
        self.register("<sip:a@h>;expires=100")
        self.register("<sip:b@h>", flow=nat)
        self.register("<sip:c@h>", flow=other)
        found = self.registrar.registered_from
        self.assertEqual((found(PBX[0]), found("198.51.100.7"), found("h")), ({"bot"}, {"bot"}, set()))
        kept = self.registrar.all()
        self.registrar.stop()
        self.registrar = self.new()
        self.registrar.restore(kept)
        found = self.registrar.registered_from
        self.register("<sip:b@h>;expires=0")
        self.assertEqual((found(PBX[0]), found("198.51.100.7")), ({"bot"}, {"bot"}))
        self.clock.advance(100)
        self.assertEqual((found(PBX[0]), found("198.51.100.7")), (set(), {"bot"}))
        self.registrar.forget("bot")
        self.assertEqual(self.registrar._hosts, {})

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
