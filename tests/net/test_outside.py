"""Requests to owners' servers: what they carry, what is followed and tried again, and what the owner reads of them."""

from __future__ import annotations

import gzip
import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError as Refusal
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from extenbot import __version__
from extenbot.errors import ToolFailed
from extenbot.interfaces import Exchange
from extenbot.net.outside import IDLE, Http, Packed, signature
from extenbot.settings import Tools
from tests.clock import Clock

URL = "https://hooks.example.com/run"
NOW = 1_800_000_000


class Hooks(Resource):
    """Servers that keep what they got, and answer what stands next for the path, or 200."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[str, str, dict[str, list[str]], bytes]] = []
        self.replies: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.silent = False
        self.on_request: Callable[[], None] = lambda: None

    def render(self, request: Request) -> Any:
        assert request.content is not None
        headers = {
            name.decode().lower(): [value.decode() for value in values]
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        path = request.uri.decode()
        host = headers["host"][0]
        self.got.append((request.method.decode(), f"{host}{path}", headers, request.content.read()))
        self.on_request()
        waiting = self.replies.get(path.partition("?")[0], [])
        code, more, body = waiting.pop(0) if waiting else (200, {"Content-Type": "application/json"}, b"{}")
        request.setResponseCode(code)
        for name, value in more.items():
            request.setHeader(name, value)
        return NOT_DONE_YET if self.silent else body


class Lines:
    """An agent whose connections fail in these ways, one after the other, before they are those to `Hooks`."""

    def __init__(self, hooks: Resource) -> None:
        self.real = RequestTraversalAgent(hooks)
        self.failures: list[Exception] = []
        self.tried = 0

    def request(self, *given: Any) -> Any:
        self.tried += 1
        return fail(self.failures.pop(0)) if self.failures else self.real.request(*given)


class World(SynchronousTestCase):
    settings = Tools()

    def setUp(self) -> None:
        self.clock = Clock()
        self.hooks = Hooks()
        self.http = Http(self.clock, self.settings, lambda: NOW + self.clock.seconds())
        self.lines = Lines(self.hooks)
        self.http._agent = Packed(self.lines)
        self.notes: list[Exchange] = []

    def start(self, method: str = "POST", url: str = URL, *, bot: str = "b1", **more: Any) -> Any:
        return Deferred.fromCoroutine(self.http.fetch(bot, method, url, noted=self.notes.append, **more))

    def reply(self, *given: Any, **more: Any) -> tuple[int, str, bytes]:
        got: tuple[int, str, bytes] = self.successResultOf(self.start(*given, **more))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return got

    def failure(self, deferred: Any) -> str:
        words = str(self.failureResultOf(deferred, ToolFailed).value)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return words


class Carried(World):
    def test_all(self) -> None:
        """The server gets body, bearer token, key, signature and the owner's own headers, and who asks."""
        body = '{"a": "ä"}'.encode()
        reply = self.reply(body=body, token="s3cret", secret="hush", key="k-1", headers=(("X-Tenant", "7"),))
        self.assertEqual(reply, (200, "application/json", b"{}"))
        ((method, place, headers, data),) = self.hooks.got
        self.assertEqual((method, place, data), ("POST", "hooks.example.com/run", body))
        mac = hmac.new(b"hush", b"%d." % NOW + body, sha256).hexdigest()
        for name, value in {
            "authorization": "Bearer s3cret",
            "idempotency-key": "k-1",
            "x-extenbot-signature": f"t={NOW},v1={mac}",
            "x-tenant": "7",
            "content-type": "application/json",
            "user-agent": f"extenbot/{__version__}",
            "accept-encoding": "identity",
            "content-length": str(len(body)),
        }.items():
            self.assertEqual(headers[name], [value])

    def test_bare(self) -> None:
        """Without token, secret, key and body nothing of them is sent."""
        self.reply("GET")
        headers = self.hooks.got[0][2]
        self.assertEqual(set(headers) - {"connection"}, {"accept", "accept-encoding", "user-agent", "host"})

    def test_own_headers(self) -> None:
        """The owner's headers stand in place of ours; the token field is stronger than a header of theirs."""
        mine = (("content-type", "text/plain"), ("AUTHORIZATION", "Basic x"), ("user-agent", "Mine/1"))
        self.reply(body=b"x", headers=mine, token="t")
        headers = self.hooks.got[0][2]
        self.assertEqual(headers["content-type"], ["text/plain"])
        self.assertEqual(headers["authorization"], ["Bearer t"])
        self.assertEqual(headers["user-agent"], ["Mine/1"])

    def test_smuggling(self) -> None:
        """No header and no token makes another request of ours, or another host."""
        for name, value in (
            ("X-A", "1\r\nX-B: 2"),
            ("X-A", "1\nX-B: 2"),
            ("X-A", "\0"),
            ("X-A: 1\r\nX-B", "2"),
            ("X A", "1"),
            ("", "1"),
            ("Ä", "1"),
            ("Host", "other.example.com"),
            ("content-LENGTH", "0"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
        ):
            words = self.failure(self.start(headers=((name, value),)))
            self.assertIn("header", words)
        self.assertIn("token", self.failure(self.start(token="a\r\nX-B: 2")))
        self.assertEqual(self.hooks.got, [])

    def test_userinfo(self) -> None:
        """A user and password in the URL become basic authentication, and are not shown."""
        self.reply("GET", "https://me:p%40ss@hooks.example.com/run#part")
        _, place, headers, _ = self.hooks.got[0]
        self.assertEqual((place, headers["authorization"]), ("hooks.example.com/run", ["Basic bWU6cEBzcw=="]))
        self.assertEqual(self.notes[0].url, "https://hooks.example.com/run")
        self.assertEqual(self.notes[0].headers, (("Authorization", "Basic …"),))

    def test_urls(self) -> None:
        """What people paste as a URL is asked for as browsers do; what is none is said to be none."""
        for url, wanted in (
            ("https://h.example/a b?q=ä ö", "h.example/a%20b?q=%C3%A4%20%C3%B6"),
            ("HTTPS://H.example", "H.example/"),
            ("http://h.example:8080/%2F?a=%26", "h.example:8080/%2F?a=%26"),
            ('https://h.example/%zz[1]?x[]={1}&y="', "h.example/%zz%5B1%5D?x%5B%5D=%7B1%7D&y=%22"),
            ("http://[2001:DB8::1]:81/a", "[2001:db8::1]:81/a"),
            ("https://bücher.example/", "xn--bcher-kva.example/"),
        ):
            self.hooks.got.clear()
            self.reply("GET", url)
            self.assertEqual(self.hooks.got[0][1].lower(), wanted.lower())
        for url in (
            "ftp://h.example/",
            "https://",
            "h.example",
            "",
            "http://h.example:99999/",
            "http://[::1/",
            "http://:0",
        ):
            self.assertIn("URL is not valid", self.failure(self.start("GET", url)), url)

    def test_underscore(self) -> None:
        """A name as containers may have, which no host may, is told apart from other mistakes."""
        self.assertIn("has a _ in it", self.failure(self.start("GET", "http://n8n_app:5678/webhook")))


class Bounded(World):
    def test_never_answers(self) -> None:
        """A server that does not answer fails in its time, and no later; its connection is closed."""
        self.hooks.silent = True
        deferred = self.start()
        self.clock.advance(9.875)
        self.assertNoResult(deferred)
        self.clock.advance(0.125)
        words = "it has not answered within 10 seconds"
        self.assertEqual(self.failure(deferred), f"the server hooks.example.com cannot be used: {words}")
        (note,) = self.notes
        self.assertEqual((note.status, note.trouble, note.seconds), (0, words, 10.0))

    def test_cancelled(self) -> None:
        """Who hangs up takes the running request along."""
        self.hooks.silent = True
        deferred = self.start()
        deferred.addErrback(lambda _failure: None)
        self.clock.advance(2)
        deferred.cancel()
        self.successResultOf(deferred)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.notes[0].trouble, "it was given up, as the call had ended")
        self.assertEqual(self.http._turns, {})

    def test_too_large(self) -> None:
        """A reply of just the limit is taken, one byte more is not."""
        self.hooks.replies["/run"] = [(200, {}, b"x" * 262144), (200, {}, b"x" * 262145)]
        self.assertEqual(len(self.reply()[2]), 262144)
        self.assertIn("its reply is larger than 256 KiB", self.failure(self.start()))

    def test_streams(self) -> None:
        """A stream of events, as dify's of all its steps, may be eight times that."""
        kind = {"Content-Type": "Text/Event-Stream; charset=utf-8"}
        self.hooks.replies["/run"] = [(200, kind, b"x" * 2097152), (200, kind, b"x" * 2097153)]
        self.assertEqual(len(self.reply()[2]), 2097152)
        self.assertIn("its reply is larger than 2048 KiB", self.failure(self.start()))

    def test_packed(self) -> None:
        """A packed reply that nobody asked for is unpacked, as far as a reply may go."""
        packed = {"Content-Encoding": "gzip"}
        bomb, good = gzip.compress(bytes(50_000_000)), gzip.compress(b"good")
        self.assertLess(len(bomb), 262144)
        self.hooks.replies["/run"] = [(200, packed, good), (200, packed, bomb), (200, packed, b"none")]
        self.assertEqual(self.reply()[2], b"good")
        self.assertIn("larger than 256 KiB", self.failure(self.start()))
        self.assertIn("cannot be unpacked", self.failure(self.start()))

    def test_cookies(self) -> None:
        """What a server wants one bot to remember it is not told by another, nor by that one."""
        self.hooks.replies["/run"] = [(200, {"Set-Cookie": "who=b1; Path=/"}, b"{}")]
        for bot in ("b1", "b2", "b1"):
            self.reply(bot=bot)
        self.assertFalse(any("cookie" in headers for _, _, headers, _ in self.hooks.got))

    def test_in_flight(self) -> None:
        """Of one bot so many are under way; others wait in order and in their own time, other bots do not."""
        self.hooks.silent = True
        first = [self.start(url=f"{URL}?{n}") for n in range(10)]
        self.assertEqual(len(self.hooks.got), 8)
        other = self.start(bot="b2")
        self.assertEqual(len(self.hooks.got), 9)
        first[3].addErrback(lambda _failure: None)
        first[3].cancel()
        self.assertEqual([place for _, place, *_ in self.hooks.got][-1], "hooks.example.com/run?8")
        self.clock.advance(10)
        for deferred in (*first[:3], *first[4:], other):
            self.assertIn("has not answered within 10 seconds", self.failure(deferred))
        self.assertEqual(len(self.hooks.got), 10)  # the tenth had its turn when its time was over
        self.assertEqual(self.http._turns, {})

    def test_waiting_counts(self) -> None:
        """Who waits for a turn all of the time is told the same, and nothing was sent."""
        self.hooks.silent = True
        for _ in range(8):
            self.start(timeout=20).addErrback(lambda _failure: None)
        late = self.start(timeout=1)
        self.clock.advance(1)
        self.assertTrue(
            self.failureResultOf(late, ToolFailed).value.args[0].endswith("has not answered within 1 second")
        )
        self.clock.advance(15)
        self.assertEqual(len(self.hooks.got), 8)

    def test_late(self) -> None:
        """What is under way when its time is over may end a while later; nothing new is begun by then."""
        self.hooks.silent = True
        for _ in range(8):
            self.start(timeout=5, late=30).addErrback(lambda _failure: None)
        behind = self.start(timeout=5, late=30)
        self.clock.advance(20)
        self.assertNoResult(behind)
        self.hooks.silent = False
        self.clock.advance(15)  # the eight are given up
        self.assertIn("has not answered within 35 seconds", str(self.failureResultOf(behind, ToolFailed).value))
        self.assertEqual(len(self.hooks.got), 8)
        self.hooks.replies["/run"] = [(503, {"Retry-After": "6"}, b"busy")]
        reply = self.successResultOf(self.start("GET", timeout=5, late=30, retries=2))
        self.assertEqual((reply.status, reply.body, len(self.hooks.got)), (503, b"busy", 9))

    def test_kept(self) -> None:
        """Connections are closed before Node and uvicorn close them: a POST would be lost with one."""
        self.assertLess(IDLE, 5)


ALL: Any = {"body": b"{}", "token": "t", "secret": "s", "key": "k", "headers": (("X-Api", "x"),)}


class Redirected(World):
    def follow(self, code: int, place: str, method: str = "POST") -> tuple[str, str, dict[str, list[str]], bytes]:
        self.hooks.got.clear()
        self.hooks.replies["/run"] = [(code, {"Location": place}, b"")]
        self.assertEqual(self.reply(method, **ALL)[0], 200)
        self.assertEqual(len(self.hooks.got), 2)
        return self.hooks.got[1]

    def test_methods(self) -> None:
        """307 and 308 repeat the request, after the others a POST becomes a GET without body, as in browsers."""
        for code, method, wanted in (
            *((code, "POST", "POST") for code in (307, 308)),
            *((code, "POST", "GET") for code in (301, 302, 303)),
            *((code, "PUT", "PUT") for code in (301, 302, 307, 308)),
            *((code, "DELETE", "DELETE") for code in (301, 302, 307, 308)),
            *((303, method, "GET") for method in ("PUT", "DELETE", "PATCH")),
        ):
            then, place, headers, body = self.follow(code, "/next", method)
            self.assertEqual((then, place), (wanted, "hooks.example.com/next"), code)
            self.assertEqual(body, b"" if wanted == "GET" else b"{}")
            self.assertEqual("content-type" in headers, wanted != "GET")
            self.assertEqual(headers["x-extenbot-signature"], [signature("s", NOW, body)])

    def test_same_server(self) -> None:
        """On its own server a redirect takes along what is private."""
        for place in ("/next", "next?x=1", "https://hooks.example.com:443/next", "https://HOOKS.example.com/next"):
            headers = self.follow(307, place)[2]
            self.assertEqual(headers["authorization"], ["Bearer t"], place)
            self.assertEqual(headers["x-api"], ["x"])

    def test_other_server(self) -> None:
        """Nothing private goes to any other server, not even to another port."""
        for place in ("https://other.example.com/next", "https://hooks.example.com:8443/next", "//other.example.com/"):
            headers = self.follow(307, place)[2]
            names = {"authorization", "x-api", "idempotency-key", "x-extenbot-signature"}
            self.assertEqual(names & set(headers), set(), place)
        self.assertNotIn("Bearer", str(self.notes[-1]))

    def test_there_and_back(self) -> None:
        """A server that others redirect to gets nothing private back, though it is the first one."""
        self.hooks.replies["/run"] = [(307, {"Location": "https://other.example.com/away"}, b"")]
        self.hooks.replies["/away"] = [(307, {"Location": URL}, b"")]
        self.reply(**ALL)
        self.assertEqual([place for _, place, *_ in self.hooks.got][2], "hooks.example.com/run")
        self.assertNotIn("authorization", self.hooks.got[2][2])

    def test_downgrade(self) -> None:
        """Nothing goes from https to http, nor to what is no web at all."""
        for place, words in (
            ("http://hooks.example.com/next", "it redirects from https to http"),
            ("ftp://hooks.example.com/next", "URL is not valid"),
            ("file:///etc/passwd", "URL is not valid"),
        ):
            self.hooks.replies["/run"] = [(307, {"Location": place}, b"")]
            self.assertIn(words, self.failure(self.start(**ALL)))

    def test_loop(self) -> None:
        """A loop ends."""
        self.hooks.replies["/run"] = [(302, {"Location": URL}, b"")] * 9
        self.assertIn("it redirects more than 3 times", self.failure(self.start()))
        self.assertEqual(len(self.hooks.got), 4)

    def test_nowhere(self) -> None:
        """A redirect to nowhere is a reply like others."""
        self.hooks.replies["/run"] = [(302, {}, b"lost"), (304, {"Location": "/x"}, b"")]
        self.assertEqual(self.reply()[0], 302)
        self.assertEqual(self.reply()[0], 304)


class Again(World):
    def test_answers(self) -> None:
        """Answers that may pass are tried again as often as asked for, after growing pauses, of some methods."""
        for code in (429, 502, 503, 504):
            self.hooks.got.clear()
            self.hooks.replies["/run"] = [(code, {}, b"")] * 2
            deferred = self.start("GET", retries=3)
            self.clock.advance(0.375)
            self.assertEqual(len(self.hooks.got), 1)
            self.clock.advance(0.125)
            self.assertEqual(len(self.hooks.got), 2)
            self.clock.advance(1)
            self.assertEqual(self.successResultOf(deferred)[0], 200)
            self.assertEqual(len(self.hooks.got), 3)

    def test_given_up(self) -> None:
        """After the last try its answer stands."""
        self.hooks.replies["/run"] = [(503, {}, b"busy")] * 9
        deferred = self.start("DELETE", retries=1)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(deferred)[::2], (503, b"busy"))
        self.assertEqual(len(self.hooks.got), 2)
        self.assertEqual([note.status for note in self.notes], [503, 503])

    def test_never(self) -> None:
        """A POST that was sent is not sent again, whatever came of it; other answers are final for all."""
        for method, code in (("POST", 503), ("PATCH", 429), ("GET", 500), ("GET", 404)):
            self.hooks.replies["/run"] = [(code, {}, b"")]
            self.assertEqual(self.reply(method, retries=5, key="k")[0], code)
        self.lines.failures = [ResponseFailed([Failure(ConnectionError())])]
        self.assertIn("broken off", self.failure(self.start(retries=5, key="k")))

    def test_wished(self) -> None:
        """The server says when; what does not fit into the time is not waited for."""
        self.hooks.replies["/run"] = [(429, {"Retry-After": "3"}, b""), (429, {"Retry-After": "7"}, b"full")]
        deferred = self.start("GET", retries=5)
        self.clock.advance(2.875)
        self.assertEqual(len(self.hooks.got), 1)
        self.clock.advance(0.125)
        self.assertEqual(self.successResultOf(deferred)[::2], (429, b"full"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unsent(self) -> None:
        """Where nobody could be reached nothing was done: a POST with a key is tried again, too."""
        for method, key, tried in (("POST", "k", 3), ("POST", "", 1), ("GET", "", 3)):
            self.lines.tried = 0
            self.lines.failures = [Refusal("111: x"), DNSLookupError("x"), Refusal("111: x")]
            deferred = self.start(method, key=key, retries=2)
            self.clock.pump([0.5, 1])
            self.assertIn("it cannot be reached: connection was refused by other side", self.failure(deferred))
            self.assertEqual(self.lines.tried, tried)

    def test_broken_off(self) -> None:
        """A GET whose connection broke is asked again."""
        self.lines.failures = [ResponseFailed([Failure(ConnectionError())])]
        deferred = self.start("GET", retries=1)
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(deferred)[0], 200)
        self.assertEqual([note.trouble for note in self.notes], ["it has broken off the connection", ""])

    def test_unknown(self) -> None:
        """A name that nobody knows is said to be that."""
        self.lines.failures = [DNSLookupError("no results")]
        self.assertIn("its host name is not known", self.failure(self.start()))


class Noted(World):
    def test_secrets(self) -> None:
        """The owner reads all of a request but its secrets."""
        url = "https://u:pw@hooks.example.com/run?city=Rome&api_key=abc&Token=x&signature=z"
        self.hooks.replies["/run"] = [(201, {"Content-Type": "text/plain", "Set-Cookie": "s=1"}, b"done")]
        self.reply(url=url, body=b'{"a": 1}', token="s3cret", secret="hush", key="k", headers=(("X-Api", "val"),))
        (note,) = self.notes
        self.assertEqual(note.url, "https://hooks.example.com/run?city=Rome&api_key=…&Token=…&signature=…")
        self.assertEqual(
            note.headers,
            (
                ("X-Api", "…"),
                ("Authorization", "Bearer …"),
                ("Idempotency-Key", "k"),
                ("X-Extenbot-Signature", signature("hush", NOW, b'{"a": 1}')),
            ),
        )
        self.assertEqual((note.method, note.body, note.status), ("POST", '{"a": 1}', 201))
        self.assertEqual((note.reply, note.reply_headers), ("done", (("Content-Type", "text/plain"),)))
        for secret in ("pw", "abc", "s3cret", "hush", "val"):
            self.assertNotIn(secret, str(note))

    def test_long(self) -> None:
        """Long bodies and replies are cut."""
        self.hooks.replies["/run"] = [(200, {}, b"y" * 20000)]
        self.reply(body=b"x" * 1_000_000)
        self.assertEqual((len(self.notes[0].body), len(self.notes[0].reply)), (16001, 16001))
        self.assertEqual(len(self.hooks.got[0][3]), 1_000_000)

    def test_each(self) -> None:
        """Each redirect and each try is a note of its own."""
        self.hooks.replies["/run"] = [(307, {"Location": "/next"}, b"")]
        self.hooks.replies["/next"] = [(503, {}, b"")]
        deferred = self.start("GET", retries=1)
        self.clock.advance(1)
        self.successResultOf(deferred)
        self.assertEqual([note.status for note in self.notes], [307, 503, 200])
