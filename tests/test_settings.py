"""Settings from TOML and the environment: every key, every mistake."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import SettingsError
from extenbot.settings import _READERS, Endpoint, load, variable


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
