"""What is good input, field by field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Invalid
from extenbot.interfaces import Bot, Function, Manner
from extenbot.manner import GROUPS, MANNER, restored, stored
from extenbot.store import fields
from extenbot.store.outsiders import checked_function

GOOD = Bot(id="1", account_id="a", name="Ada", kind="registrar", username="1000000001", password="long-enough")
OUT = replace(GOOD, kind="registrant", domain="pbx.example.org", username="100", password="x", port=5080)


class Fields(SynchronousTestCase):
    def problems(self, bot: Bot) -> dict[str, str]:
        with self.assertRaises(Invalid) as caught:
            fields.checked_bot(bot)
        return dict(caught.exception.problems)

    def test_good(self) -> None:
        """A plain bot of each kind is taken as it is."""
        self.assertEqual(fields.checked_bot(GOOD), GOOD)
        self.assertEqual(fields.checked_bot(OUT), OUT)

    def test_registrant(self) -> None:
        """What a registrant has beside a login: a port behind the domain, networks, an empty expiry and port."""
        form: dict[str, Any] = {"port": "", "expires": "", "domain": "PBX.example.org:5081", "transport": "UDP"}
        bot = fields.checked_bot(replace(OUT, **form, allowed="10.8.0.1, 10.9.0.5/16 2001:db8::1"))
        self.assertEqual((bot.domain, bot.port, bot.expires, bot.transport), ("pbx.example.org", 5081, 600, "udp"))
        for domain, port in (("2001:DB8::1", 0), ("[2001:db8::1]", 0), ("[2001:db8::1]:5081", 5081)):
            bot6 = fields.checked_bot(replace(OUT, domain=domain, port=0))
            self.assertEqual((bot6.domain, bot6.port), ("2001:db8::1", port))
        for transport in ("udp", "tcp", "TLS", ""):
            self.assertEqual(fields.checked_bot(replace(OUT, transport=transport)).transport, transport.lower())
        self.assertEqual(bot.allowed, "10.8.0.1/32 10.9.0.0/16 2001:db8::1/128")
        self.assertEqual(fields.checked_bot(bot), bot)
        wrong: dict[str, Any] = {
            "auth_id": "a b",
            "outbound_proxy": "two hosts",
            "port": "70000",
            "transport": "carrier pigeon",
            "expires": "5",
            "allowed": "0.0.0.0/0",
        }
        self.assertEqual(self.problems(replace(OUT, **wrong)).keys(), wrong.keys())
        self.assertIn("everybody", self.problems(replace(OUT, allowed="::/0"))["allowed"])
        self.assertIn("port", self.problems(replace(OUT, outbound_proxy="edge.example:99999"))["outbound_proxy"])

    def test_trusted(self) -> None:
        """Who needs no digest: networks, none for nobody; never everybody, and nothing wider than one owner has."""
        for text, settled in (
            ("10.8.0.1, 2001:db8::5", "10.8.0.1/32 2001:db8::5/128"),
            ("8.0.0.0/8 2001::/19", "8.0.0.0/8 2001::/19"),
            ("10.8.0.9/24 10.8.0.0/24", "10.8.0.0/24"),
            ("None", ""),
            ("", ""),
        ):
            self.assertEqual(fields.checked_bot(replace(GOOD, trusted=text)).trusted, settled)
        for text, word in (
            ("0.0.0.0/0", "everybody"),
            ("::/0", "everybody"),
            ("0.0.0.0/1 128.0.0.0/1", "too wide"),
            ("10.0.0.0/7", "too wide"),
            ("2000::/18", "too wide"),
            ("none 10.8.0.1", "'none'"),
            ("pbx.example", "pbx.example"),
            (" ".join(f"10.8.0.{n}" for n in range(51)), "50"),
        ):
            self.assertIn(word, self.problems(replace(GOOD, trusted=text))["trusted"], text)

    def test_settled_form(self) -> None:
        """Spaces around, Windows line ends and capitals in a domain do not matter."""
        bot = fields.checked_bot(replace(OUT, name="  Ada ", domain=" PBX.example.ORG ", instruction="a\r\nb\rc"))
        self.assertEqual((bot.name, bot.domain, bot.instruction), ("Ada", "pbx.example.org", "a\nb\nc"))

    def test_wrong_fields(self) -> None:
        """Every wrong value is told at its field, and at no other."""
        wrong: list[tuple[Bot, str, object]] = [
            (GOOD, "name", ""),
            (GOOD, "name", "x" * 101),
            (GOOD, "name", "two\nlines"),
            (GOOD, "kind", "peer"),
            (GOOD, "username", ""),
            (GOOD, "username", "with space"),
            (GOOD, "username", "a@b"),
            (GOOD, "username", "openai"),
            (GOOD, "username", "70000000000"),
            (GOOD, "username", "x" * 65),
            (GOOD, "password", ""),
            (GOOD, "password", "short"),
            (GOOD, "password", GOOD.username),
            (GOOD, "password", "with\x00nul"),
            (GOOD, "token", "with space"),
            (GOOD, "token", "line\r\nX-Injected: 1"),
            (GOOD, "ai_url", "https://example.org"),
            (GOOD, "ai_url", "wss://"),
            (GOOD, "ai_url", "wss://exa mple.org"),
            (GOOD, "model", "m" * 101),
            (GOOD, "voice", "v\nx"),
            (GOOD, "instruction", "x" * 30_001),
            (GOOD, "instruction", "bell\x07"),
            (GOOD, "welcome", "x" * 2_001),
            (GOOD, "transfer_uri", "100"),
            (GOOD, "transfer_uri", "http://example.org"),
            (GOOD, "transfer_uri", "sip:100@10.8.0.1\r\nX: 1"),
            (GOOD, "transfer_uri", "sip:100@10.8.0.1>"),
            (GOOD, "transfer_uri", "sip:"),
            (GOOD, "domain", "no spaces"),
            (OUT, "domain", ""),
            (OUT, "domain", "sip:pbx"),
            (OUT, "username", ""),
            (OUT, "username", 'x"y'),
            (OUT, "password", ""),
            (GOOD, "name", "half \udc80"),
        ]
        for bot, field, value in wrong:
            with self.subTest(field=field, value=value):
                found = self.problems(replace(bot, **{field: value}))  # type: ignore[arg-type]
                self.assertEqual(list(found), [field])
                self.assertTrue(found[field].endswith("."), found)

    def test_good_values(self) -> None:
        """What people really use is taken."""
        right = [
            ("transfer_uri", "sip:100@10.8.0.1"),
            ("transfer_uri", "sips:reception@pbx.example.org:5061;transport=tls"),
            ("transfer_uri", "sip:10.8.0.1"),
            ("transfer_uri", "sip:100@[2001:db8::1]:5060"),
            ("transfer_uri", "tel:+49-30-123456"),
            ("transfer_uri", "TEL:100;phone-context=example.org"),
            ("ai_url", "ws://127.0.0.1:8000/v1/realtime"),
            ("ai_url", "wss://[::1]/v1?x=y"),
            ("username", "Bob.smith-1_x+2"),
            ("domain", "[2001:db8::1]:5080"),
            ("instruction", "Sprich Deutsch.\n\n\t* kurz 😀"),
        ]
        for field, value in right:
            self.assertEqual(getattr(fields.checked_bot(replace(GOOD, **{field: value})), field), value)  # type: ignore[arg-type]

    def test_manner(self) -> None:
        """Every setting of how a bot converses is checked at its field, as text from a form and as it is stored."""
        wrong: list[tuple[str, object, str]] = [
            ("vad_threshold", "1.5", "from 0 to 1"),
            ("vad_threshold", "0,5", "0.5"),
            ("vad_threshold", float("nan"), "from 0 to 1"),
            ("vad_threshold", 10**400, "from 0 to 1"),
            ("vad_padding", "2001", "from 0 to 2000 (ms)"),
            ("vad_padding", "-1", "whole number"),
            ("vad_silence", "99", "from 100 to 5000"),
            ("vad_silence", "300.5", "whole number"),
            ("vad_silence", True, "whole number"),
            ("speed", "0.2", "from 0.25 to 1.5"),
            ("speed", "fast", "number"),
            ("max_output_tokens", "4097", "from 1 to 4096, or 0"),
            ("response_timeout", 1.9, "from 2 to 60 (seconds)"),
            ("silence", "4", "or 0"),
            ("silence", "601", "from 5 to 600"),
            ("longest", "1441", "from 0 to 1440"),
            ("cap_call", "-0.01", "number"),
            ("cap_day", "1e9", "number"),
            ("turn_detection", "none", "server_vad or semantic_vad."),
            ("vad_eagerness", "keen", "auto, low"),
            ("barge_in", "maybe", "immediate, confirmed or off."),
            ("noise_reduction", "all", "or nothing"),
            ("reasoning", "deep", "xhigh, or nothing"),
            ("parallel_tools", "true", "yes or no"),
            ("record", "perhaps", "Yes or no"),
            ("record", 1, "Yes or no"),
            ("transcription_language", "german", "Two letters"),
            ("transcription_model", "x" * 101, "At most 100"),
            ("dialect", "klingon", "openai, azure"),
            ("extra", "[1]", "object"),
            ("extra", '{"a":', "line 1"),
            ("extra", '{"type": "realtime"}', "type"),
            ("refusal", "404", "503, 480 or 302, or nothing"),
            ("refusal", "302", ""),
            ("refusal_uri", "nowhere", "telephone URI"),
            ("failure_uri", "100", "telephone URI"),
            ("failure_sentence", "two\nlines", "One line"),
            ("record_notice", "x" * 501, "At most 500"),
            ("record_notice", "half \udc80", "readable"),
            ("record_notice", 5, "Text"),
        ]
        for field, value, words in wrong:
            with self.subTest(field=field, value=value):
                found = self.problems(fields.with_values(GOOD, {field: value}))
                self.assertEqual(list(found), ["refusal_uri" if value == "302" else field])
                [sentence] = found.values()
                self.assertIn(words, sentence)
                self.assertTrue(sentence.endswith("."), sentence)

    def test_good_manner(self) -> None:
        """What people type is taken, and nothing at all means the default."""
        right: list[tuple[str, object, object]] = [
            ("vad_threshold", " .5 ", 0.5),
            ("vad_threshold", 1, 1.0),
            ("vad_silence", 300.0, 300),
            ("silence", "0", 0),
            ("cap_day", "0.05", 0.05),
            ("max_output_tokens", "4096", 4096),
            ("greeting_interruptible", "off", False),
            ("record", "on", True),
            ("record", "Yes", True),
            ("barge_in", "Confirmed", "confirmed"),
            ("transcription_language", "DE", "de"),
            ("dialect", "Azure", "azure"),
            ("extra", ' {"max_output_tokens": 9}', '{"max_output_tokens": 9}'),
            ("refusal_uri", "+4930123456", "+4930123456"),
            ("failure_uri", "sip:100@10.8.0.1", "sip:100@10.8.0.1"),
        ]
        for field, value, settled in right:
            found = getattr(fields.checked_bot(fields.with_values(GOOD, {field: value})).manner, field)
            self.assertEqual((found, type(found)), (settled, type(settled)), field)
        nothing = fields.checked_bot(fields.with_values(GOOD, dict.fromkeys(MANNER, "")))
        self.assertEqual(nothing, GOOD)
        other = {"ai_url": "ws://127.0.0.1:8000/v1/realtime", "dialect": "localai", "extra": '{"anything": 1}'}
        self.assertEqual(fields.checked_bot(fields.with_values(GOOD, other)).manner.extra, '{"anything": 1}')
        every = fields.checked_bot(fields.with_values(GOOD, {"refusal": "302", "refusal_uri": "100"}))
        self.assertEqual(every.manner.refusal, "302")

    def test_manner_is_whole(self) -> None:
        """Each setting is described for people, in a group, with a default that is itself good."""
        for name, field in MANNER.items():
            self.assertIn(field.group, GROUPS)
            self.assertTrue(field.says)
            self.assertEqual(field.read(field.default), getattr(Manner(), name))
            self.assertEqual(bool(field.choices), field.kind == "choice")
        self.assertEqual(fields.CHOICES["barge_in"], ("immediate", "confirmed", "off"))

    def test_stored_manner(self) -> None:
        """What is stored comes back, and only what is not the default is stored."""
        manner = Manner(speed=1.25, silence=0, record=True, extra='{"a": "ä"}')
        self.assertEqual(restored(stored(manner)), (manner, ()))
        self.assertEqual(stored(Manner()), "{}")

    def test_destinations(self) -> None:
        """Named targets are told apart by the model; each goes to numbers and URIs that can be called."""
        for rows, words in (
            ([{"name": "sales", "uris": "100"}, {"name": "sales", "uris": "101"}], "called sales"),
            ([{"name": "front desk", "uris": "100"}], "Destination 1: a name"),
            ([{"name": "x" * 33, "uris": "100"}], "Destination 1: a name"),
            ([{"name": "sales", "uris": ""}], "Destination sales: One to 5"),
            ([{"name": "sales", "uris": "sip:1@h nowhere"}], "Destination sales: A SIP"),
            ([{"name": "sales", "uris": "1 2 3 4 5 6"}], "One to 5"),
            ([{"name": "sales", "uris": "1", "when": "two\nlines"}], "One line"),
            ([{"name": "sales", "uris": 100}], "each a text"),
            ([5], "each a text"),
            ("sales", "A list"),
            (None, "A list"),
            ([{"name": f"n{n}", "uris": "1"} for n in range(21)], "At most 20"),
            ([{"name": "sales", "uris": "1", "when": "half \udc80"}], "control characters"),
        ):
            found = self.problems(fields.with_values(GOOD, {"destinations": rows}))
            self.assertEqual(list(found), ["destinations"])
            self.assertIn(words, found["destinations"])
            self.assertTrue(found["destinations"].endswith("."), found)

    def test_accounts(self) -> None:
        """Emails as people write them, also on this machine; passwords of a useful length."""
        for email in ("demo@localhost", "You+x@Example.ORG", "a.b@mail.example.co.uk"):
            self.assertEqual(fields.checked_account(email, "12345678")[0], email.lower())
        for email in (
            "",
            "you",
            "@x.org",
            "a b@x.org",
            "a@b@c.org",
            "a@x..org",
            "<a@x.org>",
            "a@x.org\r\nBcc: b@x.org",
        ):
            with self.assertRaises(Invalid) as caught:
                fields.checked_account(email, "1234567")
            self.assertEqual(set(caught.exception.problems), {"email", "password"})

    def test_functions(self) -> None:
        """A webhook needs a name and a whole http URL."""
        good = Function("", "order", "https://example.org/hook")
        self.assertEqual(checked_function({}, good), good)
        with self.assertRaises(Invalid) as caught:
            checked_function({"name": "", "url": "ftp://example.org", "token": "a\nb"}, good)
        self.assertEqual(set(caught.exception.problems), {"name", "url", "token"})

    def test_documents(self) -> None:
        """A description and a template are kept as they were written; a broken one is told with its line."""
        good = Function(
            "", "order", "https://example.org/hook", description='{"name": "order",}', template='\n{"a": {x},}\n'
        )
        self.assertEqual(checked_function({}, good), good)
        with self.assertRaises(Invalid) as caught:
            checked_function({"description": '{"name": "or der"}', "template": '\n\n{"a": }'}, good)
        self.assertEqual(set(caught.exception.problems), {"description", "template"})
        self.assertIn("line 3", caught.exception.problems["template"])

    def test_generated(self) -> None:
        """What we make up passes our own rules and is never the same."""
        made = {(fields.new_username(), fields.new_password()) for _ in range(20)}
        self.assertEqual(len(made), 20)
        for username, password in made:
            fields.checked_bot(replace(GOOD, username=username, password=password))
            self.assertTrue(username.isdigit())
            self.assertTrue(password.isalnum())
            self.assertGreaterEqual(len(password), 20)

    @settings(deadline=None)
    @given(
        st.builds(
            Bot,
            id=st.just("1"),
            account_id=st.just("a"),
            **{
                name: st.text()
                for name in (
                    "name",
                    "username",
                    "password",
                    "domain",
                    "model",
                    "voice",
                    "token",
                    "ai_url",
                    "welcome",
                    "transfer_uri",
                )
            },
            kind=st.sampled_from(["registrar", "registrant", "x"]),
        )
    )
    def test_any_text(self, bot: Bot) -> None:
        """Whatever is typed is either told to be wrong or settled for good."""
        try:
            settled = fields.checked_bot(bot)
        except Invalid as error:
            self.assertTrue(error.problems)
        else:
            self.assertEqual(fields.checked_bot(settled), settled)
            self.assertNotIn("\r", settled.transfer_uri + settled.token + settled.username + settled.domain)
