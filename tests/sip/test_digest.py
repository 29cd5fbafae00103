"""Digest: who gets in, who is asked again, who is refused."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from unittest.mock import Mock, patch

from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Malformed, Refused
from extenbot.sip import digest
from extenbot.sip.digest import _HASHES, Challenge, Challenger, Credentials, answer_challenge, is_stale, strongest
from extenbot.sip.message import Request, read
from tests.sip.wire import PBX, request

PASSWORDS: Callable[[str], str | None] = {"bot": "secret", "née": "clé"}.get
URI = "sip:example.org"


class Digest(SynchronousTestCase):
    def setUp(self) -> None:
        self.time = 1000.0
        self.challenger = Challenger("example.org", lambda: self.time, b"key", 300)

    def message(self, *authorizations: str, method: str = "REGISTER", agent: str = "") -> Request:
        message = read(request(method))
        assert isinstance(message, Request)
        for value in authorizations:
            message.add("authorization", value)
        if agent:
            message.set("user-agent", agent)
        return message

    def asked(self, *authorizations: str, agent: str = "", source: str = PBX[0]) -> list[str]:
        """The challenges that a request gets."""
        error = self.assertRaises(Challenge, self.check, *authorizations, agent=agent, source=source)
        self.assertEqual({name for name, _ in error.headers}, {"WWW-Authenticate"})
        return [value for _, value in error.headers]

    def check(self, *authorizations: str, method: str = "REGISTER", agent: str = "", source: str = PBX[0]) -> str:
        return self.challenger.check(self.message(*authorizations, method=method, agent=agent), source, PASSWORDS)

    def answer(self, challenge: str, count: int = 1, user: str = "bot", password: str = "secret") -> str:
        return answer_challenge(challenge, "REGISTER", URI, user, password, "c0ffee", count)

    def test_published(self) -> None:
        """The examples of RFC 7616 3.9.1 give the responses printed there."""
        for algorithm, expected in (
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ):
            given = Credentials(
                "Mufasa",
                "http-auth@example.org",
                "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
                "/dir/index.html",
                "",
                algorithm,
                "auth",
                "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                "00000001",
            )
            self.assertEqual(given.expected("GET", "Circle of Life"), expected)

    def test_published_strongest(self) -> None:
        """The example of RFC 7616 3.9.2 gives what erratum 4897 prints: the RFC itself cut a SHA-512."""
        self.assertEqual(
            _HASHES["SHA-512-256"]("Jäsøn Doe:api@example.org".encode()).hexdigest(),
            "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b",
        )
        given = Credentials(
            "Jäsøn Doe",
            "api@example.org",
            "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
            "/doe.json",
            "",
            "SHA-512-256",
            "auth",
            "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
            "00000001",
        )
        expected = "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"
        self.assertEqual(given.expected("GET", "Secret, or not?"), expected)

    def test_both_algorithms(self) -> None:
        """SHA-256 is offered first, MD5 second; both are good."""
        challenges = self.asked()
        self.assertEqual([value.rpartition("algorithm=")[2] for value in challenges], ["SHA-256", "MD5"])
        for challenge in challenges:
            self.assertIn('Digest realm="example.org", nonce="', challenge)
            self.assertIn('qop="auth"', challenge)
        self.assertEqual(self.check(self.answer(challenges[1])), "bot")
        self.assertEqual(self.check(self.answer(self.asked()[0])), "bot")

    def test_order_is_settable(self) -> None:
        """What is offered, and in which order, is the owner's choice; what is not offered does not let in."""
        for algorithms in (("MD5", "SHA-256"), ("SHA-512-256",), ("SHA-512-256", "SHA-256", "MD5")):
            self.challenger = Challenger("example.org", lambda: self.time, b"key", 300, algorithms)
            told = [value.rpartition("algorithm=")[2] for value in self.asked()]
            self.assertEqual(tuple(told), algorithms)
            for place in range(len(algorithms)):
                self.assertEqual(self.check(self.answer(self.asked()[place])), "bot")
        self.challenger = Challenger("example.org", lambda: self.time, b"key", 300, ("SHA-512-256",))
        weaker = self.answer(self.asked()[0].replace("SHA-512-256", "MD5"))
        self.assertNotIn("stale", self.asked(weaker)[0])
        self.assertIn("SHA-512-256", self.asked(agent="baresip v1.0.0")[0])

    def test_elsewhere(self) -> None:
        """A nonce is of no use at another address; who really moved is asked again, with stale, and gets in."""
        challenge = self.asked()[0]
        self.assertNotIn("stale", self.asked(self.answer(challenge, password="wrong"), source="198.51.100.9")[0])
        again = self.asked(self.answer(challenge), source="198.51.100.9")[0]
        self.assertIn("stale=true", again)
        self.assertEqual(self.check(self.answer(again), source="198.51.100.9"), "bot")
        self.assertIn("stale=true", self.asked(self.answer(again, 2))[0])
        self.assertEqual(self.check(self.answer(challenge)), "bot")

    def test_baresip(self) -> None:
        """baresip 1.0 gives up at the sight of SHA-256, so it sees MD5 only."""
        challenges = self.asked(agent="baresip v1.0.0 (x86_64/linux)")
        self.assertEqual([value.rpartition("algorithm=")[2] for value in challenges], ["MD5"])
        self.assertEqual(len(self.asked(agent="baresip v3.10.0")), 2)

    def test_count_must_grow(self) -> None:
        """FreeSWITCH keeps a nonce and counts up; what was counted already is asked again as stale."""
        challenge = self.asked()[0]
        for count in (1, 2, 9):
            self.assertEqual(self.check(self.answer(challenge, count)), "bot")
        for count in (9, 1, 8):
            self.assertIn("stale=true", self.asked(self.answer(challenge, count))[0])
        self.assertEqual(self.check(self.answer(challenge, 10)), "bot")

    def test_old_nonce(self) -> None:
        """A nonce older than its life is stale, for the right password only."""
        challenge = self.asked()[0]
        self.time += 300
        self.assertEqual(self.check(self.answer(challenge)), "bot")
        self.time += 1
        self.assertIn("stale=true", self.asked(self.answer(challenge, 2))[0])
        self.assertNotIn("stale", self.asked(self.answer(challenge, 3, password="wrong"))[0])

    def test_foreign_nonce(self) -> None:
        """A nonce that we did not make, or made before a restart, is asked again."""
        before = Challenger("example.org", lambda: self.time, b"other key", 300)
        other = self.assertRaises(Challenge, before.check, self.message(), PBX[0], PASSWORDS).headers[0][1]
        self.assertIn("stale=true", self.asked(self.answer(other))[0])
        for nonce in ("x", "1-2-3", "--", "\xff-\xff"):
            forged = f'Digest realm="example.org", nonce="{nonce}", qop="auth"'
            self.assertIn("stale=true", self.asked(self.answer(forged))[0])

    def test_refused(self) -> None:
        """A wrong password and an unknown user are 403 in the same words, after the challenge only."""
        for user, password in (("bot", "wrong"), ("nobody", "x"), ("Bot", "secret"), ("nobody", digest._NOBODYS)):
            given = self.answer(self.asked()[0], user=user, password=password)
            error = self.assertRaises(Refused, self.check, given)
            self.assertEqual((error.code, str(error), error.headers), (403, "Wrong username or password", ()))

    def test_same_work(self) -> None:
        """For an unknown user as much is hashed and compared as for a wrong password, so that time tells nothing."""

        def work(*authorizations: str) -> tuple[int, int]:
            hashed = Mock(side_effect=_HASHES["SHA-256"])
            with (
                patch.dict(digest._HASHES, {"SHA-256": hashed}),
                patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compared,
            ):
                self.assertRaises(Refused, self.check, *authorizations)
            return hashed.call_count, compared.call_count

        first = self.asked()[0]
        other = first.replace('nonce="', 'nonce="0')
        for challenge in (first, other):
            wrong, nobody = (work(self.answer(challenge, user=user, password="x")) for user in ("bot", "boy"))
            self.assertEqual(wrong, nobody)
            self.assertEqual(wrong, (3, 2))

    def test_method_is_signed(self) -> None:
        """What was signed for REGISTER does not let an INVITE in."""
        given = self.answer(self.asked()[0])
        self.assertEqual(self.assertRaises(Refused, self.check, given, method="INVITE").code, 403)

    def test_not_for_us(self) -> None:
        """Other realms, schemes and algorithms are passed over; ours is found among them."""
        challenge = self.asked()[0]
        others = (
            self.answer(challenge.replace('"example.org"', '"asterisk"')),
            "Basic Ym90OnNlY3JldA==",
            self.answer(challenge).replace("algorithm=SHA-256", "algorithm=AKAv1-MD5"),
            self.answer(challenge).replace("algorithm=SHA-256", "algorithm=SHA-256-sess"),
            self.answer(challenge).replace("algorithm=SHA-256", "algorithm=SHA-512-256"),
            self.answer(challenge).replace("qop=auth", "qop=auth-int"),
            self.answer(challenge).replace('"example.org"', '"Example.org"'),
        )
        for other in others:
            self.assertNotIn("stale", self.asked(other)[0])
        self.assertEqual(self.check(*others, self.answer(challenge)), "bot")

    def test_spelling(self) -> None:
        """Upper and lower case, blanks, and quotes where none belong or none where they do: all are the same."""

        def spelled(*pairs: tuple[str, str]) -> str:
            text = self.answer(self.asked()[0])
            for old, new in pairs:
                self.assertIn(old, text)
                text = text.replace(old, new)
            return text

        for pairs in (
            (("algorithm=SHA-256", 'algorithm="sha-256"'),),
            (("qop=auth", 'QOP="AUTH"'), ("nc=00000001", 'NC="00000001"')),
            (("Digest ", "dIGEST  "), ("username=", "UserName = ")),
            (('realm="example.org"', "realm=example.org"), ("response=", "RESPONSE=")),
            (('username="bot"', 'username="b\\o\\t"'),),
            ((", ", ","),),
        ):
            self.assertEqual(self.check(spelled(*pairs)), "bot", pairs)

    def test_several(self) -> None:
        """Of several credentials for our realm the first that we can check counts: one request is one guess."""
        challenge = self.asked()[0]
        wrong, right = self.answer(challenge, password="x"), self.answer(challenge)
        self.assertEqual(self.assertRaises(Refused, self.check, wrong, right).code, 403)
        self.assertEqual(self.check(right, wrong), "bot")

    def test_quotes_in_names(self) -> None:
        """A quote or a backslash in a username stays in it, and opens nothing."""
        for user in ('b"ot', 'bot", realm="x', "bot\\", '"', "\\"):
            asked_for: list[str] = []
            given = self.answer(self.asked()[0], user=user)
            message = self.message(given)
            error = self.assertRaises(Refused, self.challenger.check, message, PBX[0], asked_for.append)
            self.assertEqual((error.code, asked_for), (403, [user]))

    def test_unreadable(self) -> None:
        """Credentials that lack something are 400."""
        good = self.answer(self.asked()[0])
        for old, new in (
            ('username="bot"', 'username=""'),
            ("nonce=", "once="),
            ("nc=00000001", "nc="),
            ("nc=00000001", "nc=zz"),
            ('uri="sip:example.org"', 'uri="example"'),
            ('uri="sip:example.org"', 'uri="sip:example.org'),
        ):
            self.assertIn(old, good)
            self.assertRaises(Malformed, self.check, good.replace(old, new))

    def test_before_qop(self) -> None:
        """Who knows no qop (RFC 2069) gets in, once for each nonce."""
        challenge = self.asked()[0].replace(', qop="auth"', "")
        self.assertNotIn("qop", self.answer(challenge))
        self.assertEqual(self.check(self.answer(challenge)), "bot")
        self.assertIn("stale=true", self.asked(self.answer(challenge))[0])

    def test_any_letters(self) -> None:
        """Names and passwords may have any letters; upper-case hex is the same number."""
        given = self.answer(self.asked()[0], user="née", password="clé")
        head, _, tail = given.partition('response="')
        self.assertEqual(self.check(f'{head}response="{tail[:64].upper()}{tail[64:]}'), "née")

    def test_bounded(self) -> None:
        """Memory of used nonces is bounded, and what was forgotten cannot be used again."""
        with patch.object(digest, "REMEMBERED", 3):
            challenges = [self.asked()[0] for _ in range(6)]
            for challenge in challenges:
                self.check(self.answer(challenge))
            self.assertEqual(len(self.challenger._counts), 3)
            for challenge in challenges:
                self.assertIn("stale=true", self.asked(self.answer(challenge))[0])
            self.assertEqual(self.check(self.answer(challenges[-1], 2)), "bot")

    def test_forgets_with_time(self) -> None:
        """Nonces too old to be used are not remembered."""
        self.check(self.answer(self.asked()[0]))
        self.time += 400
        self.check(self.answer(self.asked()[0]))
        self.assertEqual(len(self.challenger._counts), 1)

    def test_client(self) -> None:
        """Our own answers keep opaque, and challenges we cannot meet are Malformed."""
        self.assertIn('opaque="op"', self.answer('Digest realm="asterisk",nonce="n",opaque="op",qop="auth"'))
        self.assertNotIn("qop", self.answer('digest realm="x", nonce="n"'))
        for challenge in (
            'Basic realm="x"',
            'Digest realm="x"',
            'Digest realm="x", nonce="n", algorithm=SHA-512',
            'Digest realm="x", nonce="n", qop="auth-int"',
        ):
            self.assertRaises(Malformed, self.answer, challenge)


class Strongest(SynchronousTestCase):
    def test_hash(self) -> None:
        """SHA-512-256 is the hash of FIPS 180-4 with its own start, not a cut SHA-512."""
        known = "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"
        self.assertEqual(_HASHES["SHA-512-256"](b"abc").hexdigest(), known)

    def test_order(self) -> None:
        """The strongest is taken wherever it stands; those that cannot be met are passed over; none is an error."""

        def offer(algorithm: str, more: str = "") -> str:
            return f'Digest realm="r", nonce="n", algorithm={algorithm}{more}'

        best = offer("sha-256", ', qop="auth-int,auth"')
        offers = [offer("MD5"), best, offer("SHA-512-256", ', qop="auth-int"'), offer("SHA-512-256-sess"), "Basic x"]
        self.assertEqual(strongest(offers), best)
        for none in ([], ["Basic x"], offers[2:]):
            self.assertRaises(Malformed, strongest, none)

    def test_stale(self) -> None:
        """`stale` is read whatever its case, and only of a Digest challenge."""
        self.assertTrue(is_stale('Digest realm="r", nonce="n", stale=TRUE'))
        self.assertFalse(is_stale('Digest realm="r", nonce="n", stale=false'))
        self.assertFalse(is_stale("Basic stale=true"))
