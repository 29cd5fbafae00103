"""Who gets a request and who is let in, as a PBX sees it by the answers."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import BackendLost, Refused
from extenbot.interfaces import CallLog, Playout, Voice, VoiceListener, VoiceOrder
from extenbot.sandbox.script import read
from extenbot.settings import Limits
from extenbot.sip.answering import Answering
from extenbot.sip.digest import answer_challenge
from extenbot.sip.headers import EXTENSIONS
from extenbot.sip.message import Response
from extenbot.sip.registrants import contact_user
from tests.memory import BOT, PBX, Caller, Fault, World, bot, offer

OTHER = bot(id="b2", username="max", password="other", name="Max")
DISABLED = bot(id="b3", username="off", enabled=False)
REGISTRANT = bot(id="b4", username="trunk", kind="registrant")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = self.build()

    def build(self, script: str = "", *bots: Any, **options: Any) -> World:
        world = World(script, *(bots or (BOT, OTHER, DISABLED, REGISTRANT)), **options)
        self.addCleanup(self.nothing_left, world)
        return world

    def nothing_left(self, world: World) -> None:
        world.switch.close("the end of the test", lambda: None)
        world.registrar.stop()
        world.drain()
        self.assertEqual(world.left(), [])

    def call(self, user: str = "openai", *, world: World | None = None, **options: Any) -> Caller:
        """A call, and its answer."""
        caller = Caller(world or self.world, user, **options)
        caller.invite()
        caller.world.run(0.1)
        return caller

    def asks(self, method: str, *, uri: str = "sip:openai@bots.example", **options: Any) -> Response:
        """A request on its own."""
        caller = Caller(self.world)
        caller.uri = uri
        caller.send(method, **options)
        self.world.run(0.1)
        return caller.last


class Letting(Case):
    def test_every_invite_is_challenged(self) -> None:
        """An INVITE without credentials gets 401, once, and nothing is kept of it."""
        caller = Caller(self.world)
        caller.password = ""
        caller._authorization = "none"  # it does not answer the challenge
        caller.invite(headers="P-Asserted-Identity: <sip:eva@bots.example>\r\n")
        self.world.run(1)
        self.assertEqual([answer.code for answer in caller.answers], [401])
        self.assertEqual(len(caller.last.all("www-authenticate")), 2)
        self.assertEqual(self.world.left(), [])

    def test_each_call_is_challenged(self) -> None:
        """That one call was let in does not let in the next one from there."""
        self.call()
        second = Caller(self.world, number=1)
        second._authorization = "none"
        second.invite()
        self.world.run(0.1)
        self.assertEqual(second.codes, [401])

    def test_names(self) -> None:
        """`openai`, `70000000000` and the username reach the bot that the digest names."""
        for number, user in enumerate(("openai", "70000000000", "max")):
            caller = self.call(user, username="max", password="other", number=number)
            self.assertEqual(caller.codes[-1], 200, user)
        self.assertEqual([call.bot.id for call in self.world.switch.calls], ["b2"] * 3)
        self.assertEqual([call.dialled for call in self.world.switch.calls], ["openai", "70000000000", "max"])

    def test_host(self) -> None:
        """Whatever host the PBX writes: we are no proxy."""
        caller = Caller(self.world)
        caller.uri = "sip:openai@another.example:5070;transport=udp"
        caller.invite()
        self.world.run(0.1)
        self.assertEqual(caller.codes[-1], 200)

    def test_other_names(self) -> None:
        """Any other user is 404, another bot's too, whatever the letters' case."""
        for number, user in enumerate(("anna", "max", "OpenAI", "EVA", "7000000000")):
            self.assertEqual(self.call(user, number=number).codes[-1], 404, user)
        self.assertEqual(self.world.switch.calls, ())

    def test_no_user(self) -> None:
        """A request URI without a user is nobody."""
        caller = Caller(self.world)
        caller.uri = "sip:bots.example"
        caller.invite()
        self.world.run(0.1)
        self.assertEqual(caller.codes[-1], 404)

    def test_unknown_username(self) -> None:
        """A digest user that does not exist: 403, as for a wrong password."""
        self.assertEqual(self.call(username="nobody").codes, [403])

    def test_wrong_password(self) -> None:
        """A wrong password: 403, and no second challenge."""
        self.assertEqual(self.call(password="wrong").codes, [403])

    def test_disabled(self) -> None:
        """A disabled bot: 480 with the reason; but not for a stranger, who does not learn that it exists."""
        caller = self.call(username="off")
        self.assertEqual(caller.codes, [480])
        self.assertIn("disabled", caller.last.first("reason") or "")
        self.assertEqual(self.call(username="off", password="wrong", number=1).codes, [403])

    def test_registrant(self) -> None:
        """A bot that registers at a PBX cannot be reached by credentials of its own."""
        self.assertEqual(self.call(username="trunk").codes, [403])

    def test_strangers_learn_nothing(self) -> None:
        """Without the right password every username gets the same answer, byte for byte, whoever has it."""
        told: set[bytes] = set()
        for method in ("REGISTER", "INVITE"):
            for username in ("eva", "nobody", "off", "trunk"):
                world = self.build()
                caller = Caller(world, username=username, password="wrong")
                (caller.invite if method == "INVITE" else caller.register)()
                world.run(0.1)
                self.assertEqual(caller.last.code, 403)
                [answer] = [data for data in world.messages if data.startswith(b"SIP/2.0 403")]
                told.add(re.sub(rb";tag=[0-9a-f]+", b"", answer).replace(username.encode(), b"NAME"))
            self.assertEqual(len(told), 1, told)
            told.clear()

    def test_edited(self) -> None:
        """A change of the bot counts from the next call on."""
        first = self.call()
        self.assertEqual(first.codes[-1], 200)
        self.world.bots["eva"] = bot(password="new", welcome="Bonjour!")
        self.assertEqual(self.call(number=1).codes, [403])
        self.assertEqual(self.call(number=2, password="new").codes[-1], 200)
        self.assertEqual([call.bot.welcome for call in self.world.switch.calls], [BOT.welcome, "Bonjour!"])

    def test_scheme(self) -> None:
        """A tel: URI is not served."""
        self.assertEqual(self.asks("INVITE", uri="tel:+4930123").code, 416)


class Requests(Case):
    def test_options(self) -> None:
        """OPTIONS is how a PBX looks whether we are there: 200, without credentials, for any user."""
        for uri in ("sip:bots.example", "sip:anything@192.0.2.1"):
            answer = self.asks("OPTIONS", uri=uri)
            self.assertEqual(answer.code, 200)
            self.assertEqual(answer.first("accept"), "application/sdp")
            self.assertIn("INVITE", answer.first("allow") or "")

    def test_methods_that_we_do_not_take(self) -> None:
        """MESSAGE and PUBLISH are known and not taken: 405; what nobody knows is 501; both say what is."""
        for method, code in (("MESSAGE", 405), ("PUBLISH", 405), ("DANCE", 501), ("invite", 501)):
            answer = self.asks(method)
            self.assertEqual(answer.code, code, method)
            self.assertIn("INVITE", answer.first("allow") or "")

    def test_subscribe(self) -> None:
        """There is nothing to subscribe to: 489 with the events that are heard."""
        answer = self.asks("SUBSCRIBE", headers="Event: presence\r\n")
        self.assertEqual((answer.code, answer.first("allow-events")), (489, "refer, message-summary"))

    def test_unsolicited_notify(self) -> None:
        """The count of voice messages is taken from a PBX that is registered, and from nobody else."""
        summary = "Event: message-summary\r\nSubscription-State: active\r\n"
        self.assertEqual(self.asks("NOTIFY", headers=summary).code, 481)
        caller = Caller(self.world, number=1)
        caller.register()
        self.world.run(0.1)
        self.assertEqual(self.asks("NOTIFY", headers=summary).code, 200)
        self.assertEqual(self.asks("NOTIFY", headers="Event: dialog\r\n").code, 489)

    def test_max_forwards(self) -> None:
        """We are where a request ends: 0 hops left are enough, also for an OPTIONS and a call; none stated is fine."""
        self.assertEqual(self.asks("OPTIONS", headers="Max-Forwards: 0\r\n").code, 200)
        for number, header in enumerate(("Max-Forwards: 0\r\n", "")):
            caller = Caller(self.world, number=number)
            caller.password = "wrong"
            caller.invite(headers=header)
            self.world.run(0.1)
            self.assertEqual(caller.codes, [403])
        self.assertEqual(self.asks("OPTIONS", headers="Max-Forwards: ten\r\n").code, 400)

    def test_extensions(self) -> None:
        """Who requires what we do not have is told which: 420; what we have may be required."""
        answer = self.asks("OPTIONS", headers="Require: timer, gruu\r\nRequire: x\r\n")
        self.assertEqual((answer.code, answer.tokens("unsupported")), (420, ["gruu", "x"]))
        for tag in EXTENSIONS:
            self.assertEqual(self.asks("OPTIONS", headers=f"Require: {tag}\r\n").code, 200, tag)
        self.assertEqual(set(self.asks("OPTIONS").tokens("supported")), set(EXTENSIONS))

    def test_bodies(self) -> None:
        """Not SDP: 415 with what is; packed: 415 with what is not; an answer that is not wanted as SDP: 406."""
        for number, (headers, code, name, value) in enumerate(
            (
                ("Content-Type: text/plain\r\n", 415, "accept", "application/sdp"),
                ("Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n", 415, "accept-encoding", "identity"),
                ("Content-Type: application/sdp\r\nAccept: text/plain\r\n", 406, "", ""),
                ("Content-Type: application/sdp\r\nAccept-Language: tlh\r\n", 200, "", ""),
                ("Content-Type: application/sdp\r\nAccept: text/plain, application/*;q=0.1\r\n", 200, "", ""),
            )
        ):
            caller = Caller(self.world, number=number)
            caller._authorization = "none"
            caller.send("INVITE", offer())
            self.world.run(0.1)
            challenge = caller.last.all("www-authenticate")[0]
            caller._authorization = answer_challenge(challenge, "INVITE", caller.uri, "eva", "secret", "c")
            caller.send("INVITE", offer(), headers=headers, retry=True)
            self.world.run(0.1)
            self.assertEqual(caller.codes[-1], code, headers)
            if name:
                self.assertEqual(caller.last.first(name), value)

    def test_too_large(self) -> None:
        """A body that nobody could mean is 513."""
        self.assertEqual(self.asks("OPTIONS", headers="Content-Length: 70000\r\n").code, 513)

    def test_reasons(self) -> None:
        """A 400 says in words what is wrong."""
        self.asks("OPTIONS")
        self.world.phones.clear()
        good = self.world.messages[0]
        for old, new, words in (
            (b"CSeq: 1 OPTIONS", b"CSeq: 1", "CSeq is not a number and a method"),
            (b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE", "The method of CSeq is another one"),
            (b"Call-ID: call-0", b"Y: z", "There is no Call-ID"),
            (b"To: <", b'To: "<', "A quote or bracket is not closed"),
            (b"Content-Length: 0", b"Content-Length: x", "Content-Length is not a number from 0 to 2147483647"),
        ):
            self.assertIn(old, good)
            self.world.deliver(good.replace(old, new), PBX)
            self.assertTrue(self.world.messages[-1].startswith(f"SIP/2.0 400 {words}\r\n".encode()), words)

    def test_outside_a_dialog(self) -> None:
        """What only makes sense within a call gets 481 without one."""
        for method in ("BYE", "NOTIFY", "INFO", "UPDATE", "REFER", "PRACK", "CANCEL"):
            self.assertEqual(self.asks(method).code, 481, method)

    def test_in_an_unknown_dialog(self) -> None:
        """A To tag that is not ours, or no more: 481, for an INVITE too."""
        for method in ("INVITE", "BYE", "OPTIONS", "REGISTER", "DANCE"):
            self.assertEqual(self.asks(method, tag="gone").code, 481, method)

    def test_stray_ack(self) -> None:
        """An ACK for nothing is not answered."""
        caller = Caller(self.world)
        caller.send("ACK")
        caller.send("ACK", tag="gone")
        self.world.run(1)
        self.assertEqual(caller.answers, [])

    def test_other_callers_dialog(self) -> None:
        """Whoever knows Call-ID and tag, but not the caller's tag, cannot hang up."""
        caller = self.call()
        caller.own_tag = "guessed"
        caller.send("BYE")
        self.world.run(0.1)
        self.assertEqual(caller.last.code, 481)
        self.assertEqual(len(self.world.switch.calls), 1)

    def test_info(self) -> None:
        """INFO within the call (keys by SIP, keep-alives) is accepted and changes nothing."""
        caller = self.call()
        caller.send("INFO", b"Signal=5\r\n", headers="Content-Type: application/dtmf-relay\r\n")
        self.world.run(0.1)
        self.assertEqual(caller.last.code, 200)
        self.assertEqual(len(self.world.switch.calls), 1)


class Registering(Case):
    def register(self, user: str = "", number: int = 0, **options: Any) -> Caller:
        caller = Caller(self.world, number=number, **options)
        caller.register(user)
        self.world.run(0.1)
        return caller

    def test_register(self) -> None:
        """After the challenge a PBX is registered, and the answer says for how long."""
        caller = self.register()
        self.assertEqual([answer.code for answer in caller.answers], [401, 200])
        self.assertIn("expires=3600", caller.last.first("contact") or "")
        [binding] = self.world.registrar.all()
        self.assertEqual((binding.username, binding.contact), ("eva", "sip:pbx@192.0.2.10:5060"))

    def test_many_at_once(self) -> None:
        """Eight devices that register at the same moment: five get in, three are told that there is no room."""
        callers = [Caller(self.world, number=number) for number in range(8)]
        for number, caller in enumerate(callers):
            caller.address = (f"192.0.2.{100 + number}", 5060)
            caller.register()
        self.world.run(0.1)
        self.assertEqual(sorted(caller.last.code for caller in callers), [200] * 5 + [403] * 3)
        self.assertEqual(len(self.world.registrar.all()), 5)

    def test_another_address(self) -> None:
        """A bot registers its own address only."""
        self.assertEqual(self.register("max").last.code, 403)
        self.assertEqual(self.world.registrar.all(), ())

    def test_refused(self) -> None:
        """Nobody registers with a wrong password, an unknown, disabled or registrant name."""
        for number, (username, password, code) in enumerate(
            (("eva", "wrong", 403), ("nobody", "x", 403), ("off", "secret", 480), ("trunk", "secret", 403))
        ):
            caller = self.register(number=number, username=username, password=password)
            self.assertEqual(caller.last.code, code, username)
        self.assertEqual(self.world.registrar.all(), ())

    def test_forgotten(self) -> None:
        """A bot that was removed or disabled, or changed its kind, is registered no more; an edited one still is."""
        for change, count in (
            (None, 0),
            (bot(enabled=False), 0),
            (bot(kind="registrant"), 0),
            (bot(welcome="Hi"), 1),
        ):
            self.world = self.build()
            self.register()
            if change is None:
                del self.world.bots["eva"]
            else:
                self.world.bots["eva"] = change
            self.world.switch.changed({"eva", "never-seen"})
            self.assertEqual(len(self.world.registrar.all()), count, change)


class Trusted(Case):
    """A PBX at an address that a bot trusts: a trunk without registration."""

    def setUp(self) -> None:
        super().setUp()
        self.world.bots["max"] = replace(OTHER, trusted="192.0.2.10/32 2001:db8::/64")

    def comes(
        self, user: str = "openai", *, host: str = PBX[0], to: str = "", number: int = 0, caller: str = "100",
        authorization: str = "",
    ) -> list[int]:  # fmt: skip
        """The answers to an INVITE without credentials."""
        made = Caller(self.world, user, number=number)
        made.address = (host, PBX[1] + number)
        made._authorization = "none"
        target = f"<sip:{to}@bots.example>" if to else ""
        made.caller = caller
        headers = f"Authorization: {authorization}\r\n" if authorization else ""
        made.send("INVITE", offer("0 101", address=made.media), headers=headers, to=target)
        self.world.run(0.1)
        self.last = made.last
        return made.codes

    def bots(self) -> list[str]:
        return [call.bot.id for call in self.world.switch.calls]

    def test_named(self) -> None:
        """The request user or the To user names the bot; the caller needs no password."""
        self.assertEqual(self.comes("max")[-1], 200)
        self.assertEqual(self.comes("0301234", to="max", number=1)[-1], 200)
        self.assertEqual(self.bots(), ["b2", "b2"])

    def test_alone(self) -> None:
        """The only bot that trusts the address also takes openai and 70000000000, and nothing else."""
        self.assertEqual(self.comes("openai")[-1], 200)
        self.assertEqual(self.comes("70000000000", number=1)[-1], 200)
        self.assertEqual(self.bots(), ["b2", "b2"])
        self.assertEqual(self.comes("100", number=2), [401])

    def test_two(self) -> None:
        """Two bots that trust the address must be named."""
        self.world.bots["eva"] = replace(BOT, trusted="192.0.2.0/24")
        self.assertEqual(self.comes("openai"), [401])
        self.assertEqual(self.comes("eva", number=1)[-1], 200)
        self.assertEqual(self.comes("openai", to="max", number=2)[-1], 200)
        self.assertEqual(self.bots(), ["b1", "b2"])

    def test_others_are_challenged(self) -> None:
        """From elsewhere, and for a bot that does not trust the address, there is the challenge."""
        self.assertEqual(self.comes("max", host="192.0.2.11"), [401])
        self.assertEqual(self.comes("eva", number=1), [401])
        self.assertEqual(self.comes("nobody", number=2), [401])
        self.assertEqual(self.bots(), [])

    def test_credentials_count_more(self) -> None:
        """Credentials name the bot wherever they come from, and wrong ones are refused."""
        for number, (username, password, code) in enumerate(
            (("eva", "secret", 200), ("eva", "wrong", 403), ("max", "wrong", 403))
        ):
            self.assertEqual(self.comes("eva", number=2 * number), [401])
            challenge = self.last.first("www-authenticate") or ""
            credentials = answer_challenge(challenge, "INVITE", "sip:openai@bots.example", username, password, "c")
            self.assertEqual(self.comes("openai", number=2 * number + 1, authorization=credentials)[-1], code)
        self.assertEqual(self.bots(), ["b1"])

    def test_registered_trunk_beside(self) -> None:
        """A call that may be a registered trunk's is challenged, and goes to it; one that names the bot need not."""
        self.world.bots["eva"] = BOT
        registered = Caller(self.world, number=5)
        registered.register()
        self.world.run(0.1)
        self.assertEqual(self.comes("openai"), [401])
        self.assertEqual(self.call("openai", number=6).codes[-1], 200)
        self.assertEqual(self.comes("max", number=2)[-1], 200)
        self.assertEqual(self.bots(), ["b1", "b2"])

    def test_own_registration_beside(self) -> None:
        """That the bot itself is registered from there, too, changes nothing."""
        Caller(self.world, username="max", password="other", number=5).register()
        self.world.run(0.1)
        self.assertEqual(len(self.world.registrar.all()), 1)
        self.assertEqual(self.comes("openai")[-1], 200)

    def test_speaks_as_another(self) -> None:
        """A caller or a To that is another bot's name means a trunk with a digest."""
        self.assertEqual(self.comes("openai", caller="eva"), [401])
        self.assertEqual(self.comes("openai", to="eva", number=1), [401])
        self.assertEqual(self.comes("openai", caller="max", number=2)[-1], 200)

    def test_other_realm(self) -> None:
        """Credentials for another realm are none."""
        other = 'Digest username="x", realm="asterisk", nonce="n", uri="sip:x", response="r"'
        self.assertEqual(self.comes("openai", authorization=other)[-1], 200)

    def test_disabled(self) -> None:
        """A disabled bot is 480 for its trunk, a registrant trusts nobody, and to register needs the password."""
        self.world.bots["max"] = replace(self.world.bots["max"], enabled=False)
        self.assertEqual(self.comes("max"), [480])
        caller = Caller(self.world, username="max", password="wrong", number=3)
        caller.register()
        self.world.run(0.1)
        self.assertEqual(caller.last.code, 403)


class FromItsPbx(Case):
    """A bot that is registered at the PBX 192.0.2.10, which knows its Contact."""

    def setUp(self) -> None:
        super().setUp()
        self.bot = replace(REGISTRANT, domain="192.0.2.10")
        self.world.bots[self.bot.username] = self.bot
        self.world.registrants.set(self.bot.id, self.bot)
        self.addCleanup(self.world.registrants.stop)
        self.uri = f"sip:{contact_user(self.bot)}@192.0.2.1"

    def comes(self, method: str, *, number: int = 0, host: str = "192.0.2.10", headers: str = "") -> Caller:
        caller = Caller(self.world, number=number)
        caller.address = (host, 5060 + number)
        self.world.phones[caller.address] = caller
        caller.uri = self.uri
        caller._authorization = "none"
        if method == "INVITE":
            caller.invite(headers=headers)
        else:
            caller.send(method, headers=headers)
        self.world.run(0.1)
        return caller

    def test_call(self) -> None:
        """An INVITE to the Contact is answered without a digest, and the call belongs to that registration."""
        caller = self.comes("INVITE")
        self.assertEqual(caller.codes[-1], 200)
        self.assertNotIn(401, caller.codes)
        [call] = self.world.switch.calls
        self.assertEqual(call.bot, self.bot)
        self.assertEqual(call.journal.events[0].fields["registration"], "sip:trunk@192.0.2.10")
        self.assertIn(contact_user(self.bot), caller.last.first("contact") or "")

    def test_from_elsewhere(self) -> None:
        """From any other address it is 403, whatever the method."""
        for number, method in enumerate(("INVITE", "OPTIONS", "NOTIFY")):
            caller = self.comes(method, number=number, host="198.51.100.7")
            self.assertEqual([answer.code for answer in caller.answers][-1], 403, method)
        self.assertEqual(self.world.switch.calls, ())

    def test_allowed(self) -> None:
        """An address that the owner allowed may call as well."""
        allowed = replace(self.bot, allowed="198.51.100.0/24")
        self.world.bots[self.bot.username] = allowed
        self.world.registrants.set(allowed.id, allowed)
        self.world.run(5)
        self.assertEqual(self.comes("INVITE", host="198.51.100.7").codes[-1], 200)

    def test_disabled(self) -> None:
        """A bot that was just switched off is 480 until the PBX has let it go."""
        self.world.bots[self.bot.username] = replace(self.bot, enabled=False)
        self.assertEqual(set(self.comes("INVITE").codes), {480})

    def test_others(self) -> None:
        """OPTIONS and the count of voice messages get 200; what else comes is told what it is."""
        for number, (method, headers, code) in enumerate(
            (
                ("OPTIONS", "", 200),
                ("NOTIFY", "Event: message-summary\r\n", 200),
                ("NOTIFY", "Event: dialog\r\n", 489),
                ("SUBSCRIBE", "Event: presence\r\n", 489),
                ("BYE", "", 481),
                ("PUBLISH", "", 405),
                ("SUBSCRIBE", "Event: presence\r\n", 489),
                ("DANCE", "", 501),
            )
        ):
            self.assertEqual(self.comes(method, number=number, headers=headers).last.code, code, (method, headers))


class Guarded(Case):
    """What the guard is told by the rules of letting in."""

    def guess(self, count: int, host: str = "198.51.100.7", first: int = 0) -> list[int]:
        """Calls with wrong passwords, each challenged first; the last answer to each, 0 for none."""
        found = []
        for number in range(first, first + count):
            caller = Caller(self.world, username="max", password=f"guess{number}", number=number)
            caller.address = (host, 5060)
            self.world.phones[caller.media] = caller
            caller.invite()
            self.world.run(0.02)
            found.append(caller.codes[-1] if caller.codes else 0)
            del self.world.phones[caller.media]
        return found

    def test_guessing(self) -> None:
        """Ten wrong passwords from one address, and it hears nothing more; others do."""
        self.assertEqual(self.guess(12), [403] * 10 + [0] * 2)
        self.assertEqual([ban.source for ban in self.world.guard.bans()], ["198.51.100.7"])
        self.assertEqual(self.call(number=50).codes[-1], 200)

    def test_registered(self) -> None:
        """The address that a PBX is registered from is never banned."""
        caller = Caller(self.world)
        caller.register()
        self.world.run(3000)
        self.assertEqual(self.guess(15, PBX[0], 1), [403] * 15)

    def test_up(self) -> None:
        """Nor is the address that a call is up with."""
        first = self.call()
        first.talking = True
        self.world.guard._vouched.clear()
        self.assertEqual(self.guess(15, PBX[0], 1), [403] * 15)
        first.bye()

    def test_forged(self) -> None:
        """Credentials that answer no challenge of ours prove nothing: who sends them bans nobody."""
        forged = 'Digest username="eva", realm="bots.example", nonce="1-1-1", uri="sip:x", response="0"'
        for number in range(50):
            caller = Caller(self.world, number=number)
            caller.address = PBX
            caller.send("INVITE", headers=f"Authorization: {forged}\r\n")
        self.assertEqual(self.world.guard.bans(), ())
        self.world.run(0.1)
        self.assertEqual(self.call(number=90).codes[-1], 200)

    def test_garbage_before_it_registers(self) -> None:
        """Forged garbage cannot keep a PBX from registering: its own tries get through, if later."""
        caller = Caller(self.world)
        for _ in range(3):
            for _ in range(50):
                self.world.deliver(b"OPTIONS sip:x SIP/2.0\r\n\r\n", PBX)
            self.world.run(6)
            caller.register()
            self.world.run(6)
            self.world.deliver(caller._asking, PBX)  # a retransmission
            self.world.run(0.1)
        self.assertEqual(len(self.world.registrar.all()), 1)
        for _ in range(500):
            self.world.deliver(b"OPTIONS sip:x SIP/2.0\r\n\r\n", PBX)
        self.assertEqual(self.call(number=1).codes[-1], 200)

    def test_flood(self) -> None:
        """A flood of requests from one stranger is answered at most a hundred times and leaves nothing."""
        before = len(self.world.messages)
        for number in range(1000):
            caller = Caller(self.world, number=number)
            caller._authorization = "none"
            caller.address = ("198.51.100.7", 5060 + number)
            caller.send(("INVITE", "REGISTER", "OPTIONS", "BYE", "CANCEL")[number % 5])
        answers = [data for data in self.world.messages[before:] if data.startswith(b"SIP/2.0")]
        self.assertTrue(30 <= len(answers) <= 100)
        self.world.run(0.1)
        self.assertEqual((self.world.left(), self.world.transactions._servers), ([], {}))

    def test_scanner(self) -> None:
        """A scanner gets one answer."""
        for number in range(5):
            caller = Caller(self.world, number=number)
            caller.send("OPTIONS", headers="User-Agent: friendly-scanner\r\n")
            self.world.run(0.02)
            self.assertEqual(len(caller.answers), 1 if number == 0 else 0)

    def test_strangers_get_no_more_than_they_sent(self) -> None:
        """Whatever a stranger is answered is sent once: nothing is repeated to an address that may be forged."""
        for number, method in enumerate(("INVITE", "REGISTER", "BYE", "SUBSCRIBE", "DANCE", "CANCEL", "OPTIONS")):
            before = len(self.world.messages)
            caller = Caller(self.world, number=number)
            caller._authorization = "none"
            caller.acks = False
            caller.send(method)
            self.world.clock.pump([0.5] * 70)
            self.assertEqual(len(self.world.messages) - before, 2 + (method == "INVITE"), method)  # its ACK
            self.assertEqual(self.world.left(), [])


class Limiting(Case):
    def test_one_bot(self) -> None:
        """A bot that has all the calls it may have is busy; another one is not; and it is free again after a BYE."""
        self.world = self.build(limits=Limits(calls=10, calls_per_bot=2))
        first, _second = self.call(number=0), self.call(number=1)
        third = self.call(number=2)
        self.assertEqual(third.codes[-1], 486)
        self.assertEqual(third.last.first("retry-after"), "10")
        self.assertEqual(self.call(number=3, username="max", password="other").codes[-1], 200)
        first.bye()
        self.world.run(0.1)
        self.assertEqual(self.call(number=4).codes[-1], 200)

    def test_all(self) -> None:
        """The service is full: 503 with Retry-After, for any bot."""
        self.world = self.build(limits=Limits(calls=1, calls_per_bot=5))
        self.call()
        second = self.call(number=1, username="max", password="other")
        self.assertEqual(second.codes[-1], 503)
        self.assertEqual(second.last.first("retry-after"), "10")

    def test_strangers_learn_nothing(self) -> None:
        """Who cannot log in does not learn that the service is full."""
        self.world = self.build(limits=Limits(calls=1, calls_per_bot=1))
        self.call()
        self.assertEqual(self.call(number=1, password="wrong").codes, [403])

    def test_refused_calls_do_not_count(self) -> None:
        """A call that was refused for its codec or its voice takes no place."""
        self.world = self.build('on connect 1: refuse 401 "No"', limits=Limits(calls=1, calls_per_bot=1))
        caller = Caller(self.world)
        caller.invite(offer("9"))
        self.world.run(0.1)
        self.assertEqual(caller.codes[-1], 488)
        self.assertEqual(self.call(number=1).codes[-1], 480)
        self.assertEqual(self.call(number=2).codes[-1], 200)


class Failing(Case):
    def check(self, code: int, error: Exception, where: str) -> Caller:
        """A call whose beginning fails so leaves nothing."""

        def fail(*_: object) -> Any:
            raise error

        around = self.world.switch._around
        instead: dict[str, Any] = {where: fail if where == "open_voice" else SimpleNamespace(open=fail)}
        self.world.switch._around = replace(around, **instead)
        caller = self.call()
        self.assertEqual(caller.codes[-1], code)
        self.world.drain()
        self.assertEqual(self.world.left(), [])
        self.assertEqual(self.world.records, [])
        return caller

    def test_no_port(self) -> None:
        """All RTP ports are taken: 503, try again."""
        caller = self.check(503, Refused(503, "No RTP port is free", [("Retry-After", "5")]), "ports")
        self.assertEqual(caller.last.first("retry-after"), "5")

    def test_ports_break(self) -> None:
        """A fault in the pool: 500, and it is logged."""
        self.check(500, Fault("ports"), "ports")
        self.assertEqual(len(self.flushLoggedErrors(Fault)), 1)

    def test_no_back_end(self) -> None:
        """No back end for the bot: 480, and why."""
        caller = self.check(480, BackendLost("no_model", "No voice back end serves this model."), "open_voice")
        self.assertEqual(caller.last.first("reason"), 'SIP;cause=480;text="No voice back end serves this model."')

    def test_back_end_speaks_after_all(self) -> None:
        """A plugin that has begun before it breaks: what it still says is let go."""

        def open_voice(order: VoiceOrder, playout: Playout, listener: VoiceListener, log: CallLog) -> Voice:
            for late in (listener.opened, listener.finished, lambda: listener.lost(BackendLost("lost", "gone"))):
                self.world.clock.callLater(1, late)
            raise Fault("half-way")

        self.world.switch._around = replace(self.world.switch._around, open_voice=open_voice)
        self.assertEqual(self.call().codes[-1], 500)
        self.world.drain()
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertEqual((self.world.left(), self.world.records), ([], []))

    def test_no_ringing(self) -> None:
        """A fault when everything is open already: port and voice are given back."""

        def fail(_: object) -> None:
            raise Fault("ring")

        self.patch(Answering, "ring", fail)
        self.assertEqual(self.call().codes[-1], 500)
        self.assertEqual(len(self.flushLoggedErrors(Fault)), 1)
        self.assertEqual(self.world.dialled, 1)
        self.assertEqual(self.world.left()[1:], [])  # what repeats the 500 until its ACK comes
        self.world.drain()
        self.assertEqual((self.world.left(), self.world.records), ([], []))

    def test_back_end_breaks(self) -> None:
        """A plugin that breaks: 500, the port is given back."""
        self.check(500, Fault("plugin"), "open_voice")
        self.assertEqual(len(self.flushLoggedErrors(Fault)), 1)
        self.assertEqual(self.world.opened, 1)


class Closing(Case):
    def test_down(self) -> None:
        """The service stops: callers get BYE, ringing ones 480, new ones 503; then it is told that all is written."""
        emptied: list[int] = []
        talking = [self.call(number=number) for number in range(2)]
        self.world.script = read("on open: wait 5 s")
        ringing = self.call(number=2)
        self.assertEqual([caller.codes[-1] for caller in (*talking, ringing)], [200, 200, 180])
        self.world.switch.close("service stopped", lambda: emptied.append(len(self.world.records)))
        self.world.run(0.1)
        self.assertEqual([len(caller.asked("BYE")) for caller in talking], [1, 1])
        self.assertEqual(ringing.codes[-1], 480)
        late = self.call(number=3)
        self.assertEqual(late.codes[-1], 503)
        self.assertEqual(late.last.first("retry-after"), "30")
        self.world.run(3)
        self.assertEqual(emptied, [3])
        self.assertEqual({record.end_reason for record in self.world.records}, {"service stopped"})

    def test_waits_for_words(self) -> None:
        """Records that still wait for what the callers said last are waited for, all of them, and told of once."""
        self.world = self.build("on speech:\n    heard nothing\n    nothing")
        emptied: list[int] = []
        callers = [self.call(number=number) for number in range(2)]
        for hz, seconds in ((800, 0.5), (0, 0.8)):
            for caller in callers:
                caller.hz = hz
            self.world.run(seconds)
        self.world.switch.close("service stopped", lambda: emptied.append(len(self.world.records)))
        self.world.run(1)
        self.assertEqual(emptied, [])
        self.world.run(1.2)
        self.assertEqual(emptied, [2])

    def test_nobody(self) -> None:
        """Without calls it is done at once."""
        emptied: list[int] = []
        self.world.switch.close("service stopped", lambda: emptied.append(1))
        self.assertEqual(emptied, [1])

    def test_going_down_is_for_those_who_log_in(self) -> None:
        """OPTIONS is still answered, and a stranger learns no more than before."""
        self.world.switch.close("service stopped", lambda: None)
        self.assertEqual(self.asks("OPTIONS").code, 200)
        self.assertEqual(self.call(password="wrong").codes, [403])


@cache
def recorded() -> list[bytes]:
    """All messages, either way, of a registration and a call with a hold and a transfer."""
    world = World("on speech: call transfer_call")
    caller = Caller(world)
    caller.register()
    world.run(0.1)
    caller = Caller(world)
    caller.dial()
    caller.again(offer(direction="sendonly"))
    world.run(0.1)
    caller.again(offer())
    caller.hz = 800
    world.run(1)
    caller.hz = 0
    world.run_until(lambda: caller.asked("REFER"))
    caller.notify("100 Trying")
    caller.notify("404 Not Found", over=True)
    world.run(1)
    caller.send("OPTIONS")
    caller.send("INFO")
    caller.bye()
    world.drain()
    world.registrar.stop()
    return world.messages


INSERTS = (b"\r\n", b"\r\n\r\n", b'"', b"<", b";", b",", b"\0", b"\xff", b"%", b"@", b"99999999999", b"-1", b" ", b"[")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """One of those messages, mostly damaged."""
    data = draw(st.sampled_from(recorded()))
    match draw(st.sampled_from(("whole", "cut", "insert", "overwrite", "line lost", "line twice", "noise"))):
        case "cut":
            return data[: draw(st.integers(0, len(data)))]
        case "insert":
            place = draw(st.integers(0, len(data)))
            return data[:place] + draw(st.sampled_from(INSERTS)) + data[place:]
        case "overwrite":
            place = draw(st.integers(0, len(data)))
            junk = draw(st.binary(min_size=1, max_size=4))
            return data[:place] + junk + data[place + len(junk) :]
        case "line lost" | "line twice" as what:
            lines = data.split(b"\r\n")
            place = draw(st.integers(0, len(lines) - 1))
            lines[place : place + 1] = [] if what == "line lost" else [lines[place]] * 2
            return b"\r\n".join(lines)
        case "noise":
            return draw(st.binary(max_size=100))
    return data


class Hostile(Case):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(damaged(), max_size=20))
    def test_next_call(self, datagrams: list[bytes]) -> None:
        """Whatever has come in before, no fault of ours shows, and the next good call is answered."""
        world = World("on speech: call transfer_call", rtp_timeout=5)
        for data in datagrams:
            world.deliver(data, PBX)
            world.run(0.02)
        self.assertEqual(world.transactions.counters["fault"], 0)
        caller = Caller(world, number=5)
        caller.dial()
        caller.bye()
        world.run(0.1)
        self.assertEqual(world.records[-1].end_reason, "caller hung up")
        for call in world.switch.calls:
            call.hang_up("the end of the test")
        world.registrar.stop()
        world.drain()
        self.assertEqual(world.left(), [])
        self.assertEqual(self.flushLoggedErrors(), [])
