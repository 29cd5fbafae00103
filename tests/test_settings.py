"""Settings from TOML and the environment: every key, every mistake."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import SettingsError
from extenbot.interfaces import Price
from extenbot.settings import _READERS, Endpoint, _advertised, _domain, load, variable


class Settings(SynchronousTestCase):
    def file(self, text: str) -> Path:
        path = Path(self.mktemp())
        path.write_text(text)
        return path

    def problems(self, text: str = "", **environment: str) -> dict[str, str]:
        with self.assertRaises(SettingsError) as caught:
            load(self.file(text), environment)
        return dict(caught.exception.problems)

    def test_defaults(self) -> None:
        """Without a file everything has a value that works on any machine."""
        settings = load(self.file(""), {})
        self.assertEqual([str(e) for e in settings.sip.listen], ["udp:5060:interface=0.0.0.0"])
        self.assertEqual((settings.rtp.ports[0], settings.rtp.ports[-1]), (10000, 20000))
        self.assertEqual(settings.ai.url, "wss://api.openai.com/v1/realtime")
        self.assertIsNone(settings.console.authorized_keys)

    def test_file(self) -> None:
        """Every kind of value can be set in the file, and a path there is meant from where the file is."""
        path = self.file(
            'domain = "PBX.example.com"\ndata = "here"\n'
            '[sip]\nlisten = ["udp:5070:interface=\\\\:\\\\:1"]\nexpires = 120\n'
            '[rtp]\nports = "30000-30010"\ntimeout = 2.5\n[web]\nlisten = []\nsign_up = false\n'
        )
        settings = load(path, {})
        self.assertEqual(settings.domain, "pbx.example.com")
        self.assertEqual(settings.data, path.parent / "here")
        self.assertEqual(settings.sip.listen, (Endpoint("udp", 5070, "::1"),))
        self.assertEqual(str(settings.sip.listen[0]), r"udp:5070:interface=\:\:1")
        self.assertEqual((settings.rtp.timeout, settings.web.listen, settings.web.sign_up), (2.5, (), False))

    def test_environment_wins(self) -> None:
        """EXTENBOT_SECTION_KEY stands above the file; lists are separated by blanks or commas."""
        settings = load(
            self.file("[sip]\nexpires = 120\n"),
            {"EXTENBOT_SIP_EXPIRES": "240", "EXTENBOT_SIP_LISTEN": "udp:1:interface=127.0.0.1, udp:2", "HOME": "/"},
        )
        self.assertEqual(settings.sip.expires, 240)
        self.assertEqual([e.port for e in settings.sip.listen], [1, 2])

    def test_digest(self) -> None:
        """The digest algorithms are a list in the owner's order, in any case; none and unknown ones are mistakes."""
        self.assertEqual(load(self.file(""), {}).sip.digest, ("SHA-256", "MD5"))
        settings = load(self.file('[sip]\ndigest = ["md5", "SHA-512-256", "MD5"]\n'), {})
        self.assertEqual(settings.sip.digest, ("MD5", "SHA-512-256"))
        self.assertEqual(load(None, {"EXTENBOT_SIP_DIGEST": "MD5, SHA-256"}).sip.digest, ("MD5", "SHA-256"))
        for value in ("[]", '["SHA-1"]', "5", "[1]", '""'):
            self.assertIn("[sip] digest", self.problems(f"[sip]\ndigest = {value}\n"), value)

    def test_named_by_the_environment(self) -> None:
        """EXTENBOT_CONFIG names the file when no option does."""
        settings = load(None, {"EXTENBOT_CONFIG": str(self.file('domain = "a.b"\n'))})
        self.assertEqual(settings.domain, "a.b")

    def test_all_mistakes_at_once(self) -> None:
        """Each mistake is told with its key, whatever else is wrong."""
        problems = self.problems(
            'domian = "x"\nweb = 1\n'
            '[sip]\nlisten = "sctp:5060"\nexpires = 5\n[rtp]\nports = "20-10"\ninterface = "eth0"\n'
            '[database]\nurl = "mysql://u:secret@h/d"\n[ai]\nurl = "https://x"\nopen_timeout = true\n[sip2]\na = 1\n',
            EXTENBOT_SIP_LISTENS="udp:1",
            EXTENBOT_LIMITS_CALLS="many",
        )
        self.assertEqual(
            set(problems),
            {
                "domian",
                "web",
                "[sip] listen",
                "[sip] expires",
                "[rtp] ports",
                "[rtp] interface",
                "[database] url",
                "[ai] url",
                "[ai] open_timeout",
                "sip2",
                "EXTENBOT_SIP_LISTENS",
                "[limits] calls",
            },
        )
        self.assertNotIn("secret", problems["[database] url"])

    def test_session_expires(self) -> None:
        """No session timer at all, or one that RFC 4028 allows."""
        for text, taken in (("0", 0), ("90", 90), ("86400", 86400)):
            self.assertEqual(load(self.file(f"[sip]\nsession_expires = {text}\n"), {}).sip.session_expires, taken)
        for text in ("1", "89", "-1", "86401", '"long"', "true"):
            self.assertEqual(set(self.problems(f"[sip]\nsession_expires = {text}\n")), {"[sip] session_expires"})

    def test_prices(self) -> None:
        """What a model costs stands in tables of the file, or as JSON in the environment; nonsense is told."""
        text = '[ai.prices."m-1"]\ntext = [1, 2, 3]\naudio = [4, 5.5, 6]\n[ai.prices.n]\nminute = 0.5\n'
        prices = dict(load(self.file(text), {}).ai.prices)
        self.assertEqual(prices, {"m-1": Price((1, 2, 3), (4, 5.5, 6)), "n": Price(minute=0.5)})
        told = load(None, {"EXTENBOT_AI_PRICES": '{"n": {"minute": 1}}'}).ai.prices
        self.assertEqual(told, (("n", Price(minute=1)),))
        self.assertEqual(load(None, {"EXTENBOT_AI_PRICES": ""}).ai.prices, ())
        for wrong in ("[1, 2]", "[1, 2, -3]", '["a", 1, 2]', "[true, 1, 2]", "5", "[nan, 1, 2]", "[inf, 1, 2]"):
            self.assertIn("of n must be like", self.problems(f"[ai.prices.n]\ntext = {wrong}\n")["[ai] prices"], wrong)
        for wrong in ('n = "dear"', "n = {}", "n = {txt = [1, 2, 3]}", "n = {minute = [1]}"):
            self.assertIn("[ai] prices", self.problems(f"[ai.prices]\n{wrong}\n"), wrong)
        self.assertIn("[ai] prices", self.problems("[ai]\nprices = 3\n"))
        self.assertIn("[ai] prices", self.problems(EXTENBOT_AI_PRICES="{"))

    def test_advertised(self) -> None:
        """Each peer is told our address in its own network, else the plain one of its IP version."""
        rtp = load(
            self.file(
                '[rtp]\nadvertise = ["203.0.113.5", "10.0.0.0/8=10.0.0.2", "2001:db8::5", "10.1.0.0/16=10.1.0.2"]\n'
            ),
            {},
        ).rtp
        for peer, told in (
            ("10.0.0.7", "10.0.0.2"),
            ("10.1.0.7", "10.0.0.2"),  # the first network that fits
            ("192.0.2.1", "203.0.113.5"),
            ("2001:db8::1", "2001:db8::5"),
            ("fe80::1%eth0", "2001:db8::5"),
            ("pbx.example", "203.0.113.5"),
        ):
            self.assertEqual(rtp.advertise.toward(peer), told, peer)
        one = load(self.file('[rtp]\nadvertise = "203.0.113.5"\n'), {}).rtp.advertise
        self.assertEqual((one.toward("10.0.0.7"), one.toward("::1")), ("203.0.113.5", ""))
        environment = {"EXTENBOT_RTP_ADVERTISE": "203.0.113.5, fd00::/8=[fd00::2]"}
        several = load(self.file(""), environment).rtp.advertise
        self.assertEqual((several.toward("fd00::9"), several.toward("::1")), ("fd00::2", ""))
        self.assertEqual(load(self.file('[rtp]\nadvertise = ""\n'), {}).rtp.advertise.toward("::1"), "")
        self.assertEqual(_advertised(_domain)("sip.example").toward("::1"), "sip.example")

    def test_advertised_mistakes(self) -> None:
        """A network that is none, an address of the other IP version or a missing one is told in words."""
        for text, words in (
            ("10.0.0.1/8=10.0.0.2", "a network such as"),
            ("lan=10.0.0.2", "a network such as"),
            ("10.0.0.0/8=fd00::2", "its own IP version"),
            ("10.0.0.0/8=", "after the equals sign"),
            ("pbx.example", "an IP address"),
        ):
            self.assertIn(words, self.problems(EXTENBOT_RTP_ADVERTISE=text)["[rtp] advertise"])
        self.assertIn("a list of them", self.problems("[rtp]\nadvertise = 5\n")["[rtp] advertise"])

    def test_tls_needs_a_certificate(self) -> None:
        """TLS without a certificate or without its key is told before anything starts."""
        self.assertEqual(set(self.problems('[sip]\nlisten = ["tls:5061"]\n')), {"[sip] certificate", "[sip] key"})
        self.assertEqual(set(self.problems('[sip]\ncertificate = "a.pem"\n')), {"[sip] key"})

    def test_unreadable_file(self) -> None:
        """A file that is not there or is not TOML is named."""
        self.assertIn("is not TOML", next(iter(self.problems("a = = b").values())))
        with self.assertRaises(SettingsError) as caught:
            load(Path("/nonexistent/extenbot.toml"), {})
        self.assertIn("cannot be read", caught.exception.problems[0][1])

    def test_documented(self) -> None:
        """Every key stands in docs/settings.md, with its variable."""
        text = (Path(__file__).parent.parent / "docs" / "settings.md").read_text()
        for key in _READERS:
            self.assertIn(f"`{variable(key)}`", text)

    @given(st.sampled_from(sorted(_READERS)), st.one_of(st.text(), st.integers(), st.booleans(), st.lists(st.text())))
    def test_any_value(self, key: tuple[str, str], value: object) -> None:
        """No value of any key raises anything but a sentence."""
        try:
            _READERS[key](value)
        except ValueError as error:
            self.assertTrue(str(error))

    def test_private_networks(self) -> None:
        """Networks that bots may reach come as a list or as text, an address alone is one of its own."""
        for text in ('["10.1.2.3/8", "fd00::/8", "192.168.1.5"]', '"10.1.2.3/8, fd00::/8\\n 192.168.1.5"'):
            allow = load(self.file(f"[tools]\nallow = {text}"), {}).tools.allow
            self.assertEqual([str(network) for network in allow], ["10.0.0.0/8", "fd00::/8", "192.168.1.5/32"])
        self.assertEqual(load(self.file(""), {}).tools.allow, ())
        self.assertEqual(load(self.file(""), {"EXTENBOT_TOOLS_ALLOW": ""}).tools.allow, ())
        for text in ('"10.0.0.0/33"', '["n8n.local"]', "5", '"10.0.0.1-10.0.0.9"'):
            self.assertIn("[tools] allow", self.problems(f"[tools]\nallow = {text}"))
