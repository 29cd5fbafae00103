"""The pages about calls, as a browser sees them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

import extenbot
from extenbot.interfaces import Event, LiveCall
from extenbot.web.audio import send_file
from extenbot.web.timeline import known, tokens
from tests.store.examples import record
from tests.store.inline import new_folder
from tests.web.browser import Browser
from tests.web.rig import EVIL, Pages

WAV = b"RIFF" + bytes(range(256)) * 40


class CallPages(Pages):
    def test_call(self) -> None:
        """A finished call: who, when, how it went, what was said, and why it ended."""
        browser = self.sign_up()
        path = self.a_bot(browser)
        [bot] = self.store.bots.all()
        self.store.records.save(record(bot.account_id, bot.id))
        for page in ("/calls", path):
            self.assertIn('href="/calls/c1"', browser.get(page).text)
        text = browser.get("/calls/c1").text
        for value in (
            "+4930123456", "PCMA", "3.2 ms", "1990 received, 2000 sent, 10 lost", "the caller hung up", "Hello.",
            "Grüß Gott &lt;b&gt;!", "interrupted", "0:40", "12 in, 34 out", "invited", "peer=10.8.0.1:5060", "Ada",
        ):  # fmt: skip
            self.assertIn(value, text)
        self.assertLess(text.index("Hello."), text.index("Grüß Gott"))

    def test_refused_call(self) -> None:
        """A call that was never answered says so."""
        browser = self.sign_up()
        account = self.store.accounts.all()[0]
        self.store.records.save(record(account.id, answered=None, transcript=(), events=(), caller=""))
        self.assertIn("not answered", browser.get("/calls").text)
        text = browser.get("/calls/c1").text
        self.assertIn("never", text)
        self.assertIn("Unknown caller", text)
        self.assertEqual(browser.get("/calls/c2").code, 404)

    def test_older(self) -> None:
        """Fifty calls a page, and a way to the older ones."""
        browser = self.sign_up()
        account = self.store.accounts.all()[0]
        for number in range(60):
            self.store.records.save(record(account.id, id=f"call{number:02}", started=1e9 + number))
        page = browser.get("/calls")
        self.assertEqual(page.text.count('href="/calls/call'), 50)
        older = re.search(r'href="(/calls\?before=[^"]+)"', page.text)
        assert older
        page = browser.get(older[1])
        self.assertEqual(page.text.count('href="/calls/call'), 10)
        self.assertNotIn("before=", page.text)
        self.assertEqual(browser.get("/calls?before=nonsense").code, 200)
        self.assertEqual(browser.get("/calls?before=nan").code, 200)

    def test_cost_and_trouble(self) -> None:
        """What a call has cost and what was wrong with its voice stands on top, and as marks in the list."""
        browser = self.sign_up()
        account = self.store.accounts.all()[0]
        self.store.records.save(record(account.id, cost=0.0421, trouble=f"No credit is left {EVIL}.", recorded=True))
        text = browser.get("/calls/c1").text
        self.assertIn("$0.0421", text)
        self.assertLess(text.index('<p class="alert">No credit is left &lt;script&gt;'), text.index("Transcript"))
        self.assertIn("not there any more", text)
        self.assertNotIn("<audio", text)
        text = browser.get("/calls").text
        for part in ("$0.0421", "trouble</span>", "recorded</span>"):
            self.assertIn(part, text)
        self.store.records.save(record(account.id, id="c2", recorded=False, trouble=""))
        text = browser.get("/calls/c2").text
        self.assertNotIn("Recording", text)
        self.assertNotIn("alert", text)

    def test_timeline(self) -> None:
        """Events in words and by kind, to the millisecond, with how fast the bot answered."""
        browser = self.sign_up()
        account = self.store.accounts.all()[0]
        events = (
            Event(0.0, "invited", {"caller": "100", "dialled": "openai", "peer": "10.8.0.1:5060"}),
            Event(61.2345, "barge_in", {"item": "item_1", "ms": 1240}),
            Event(65.0, "tool.asked", {"name": "weather", "arguments": {"city": "Oslo"}}),
            Event(66.0, "tool.failed", {"name": "{weather"}),
            Event(67.0, "error", {"message": "{no} such %s thing"}),
            Event(68.0, "something.new", {"a": 1, "nought": 0, "nothing": ""}),
            Event(69.0, "response.done", {"status": "completed", "usage": {"input_tokens": 1200, "input_audio": 900}}),
            Event(70.0, "response.done", {"status": "failed", "reason": "server_error"}),
            Event(71.0, "response.done", {"status": "cancelled"}),
            Event(72.0, "turn", {"after": "function", "first_audio": 200, "wire": 230}),
        )
        self.store.records.save(record(account.id, events=events))
        text = browser.get("/calls/c1").text
        for part in (
            "Call from 100 to openai", "peer=10.8.0.1:5060", "01:01.234", "interrupts the bot after 1240 ms",
            "The model asks for weather", "arguments={&#34;city&#34;: &#34;Oslo&#34;}", "{no} such %s thing",
            "something.new", ">a=1</span>", "usage=1,200 in (900 audio)", "The model failed to answer: server_error",
            "The answer was broken off", "230 ms after a function has answered",
        ):  # fmt: skip
            self.assertIn(part, text)
        for kind, name in (
            ("speech", "barge_in"),
            ("tool", "tool.asked"),
            ("error", "tool.failed"),
            ("sip", "invited"),
            ("error", "response.done"),
            ("model", "response.done"),
        ):
            self.assertIsNotNone(re.search(rf'<li class="of-{kind}">(?:(?!</li>).)*title="{name}"', text), name)

    def test_every_event(self) -> None:
        """Whatever can happen in a call stands in the timeline in words."""
        package = Path(extenbot.__file__).parent
        told = re.compile(r'(?:happened|_log)\(\s*"([a-z_.]+)"')
        names = {name for path in package.rglob("*.py") for name in told.findall(path.read_text())}
        self.assertLess({"invited", "turn", "session.opened", "tool.asked", "silence"}, names)
        self.assertEqual({name for name in names if not known(name)}, set())

    def test_latency(self) -> None:
        """How fast the bot answered what was said: each time, usually, and at worst."""
        browser = self.sign_up()
        account = self.store.accounts.all()[0]
        waits = ((300, 340), (500, 560), (1300, 1340))
        events = [
            Event(10.0 * number, "turn", {"after": "speech", "first_audio": first, "wire": wire})
            for number, (first, wire) in enumerate(waits, 1)
        ]
        events += [
            Event(40.0, "turn", {"after": "message", "first_audio": 9000, "wire": 9001}),
            Event(41.0, "turn", {"after": "speech", "first_audio": 1, "wire": "soon"}),
        ]
        self.store.records.save(record(account.id, events=tuple(events)))
        text = browser.get("/calls/c1").text
        for part in ("<span>560 ms</span>", "half of 3 answers within 560 ms, the slowest 1340 ms", "Each answer"):
            self.assertIn(part, text)
        row = r'<li><span class="at">([0-9:.]+)</span> <strong>(\d+) ms<.*the model took (\d+) ms'
        self.assertEqual(
            re.findall(row, text),
            [("00:10.000", "340", "300"), ("00:20.000", "560", "500"), ("00:30.000", "1340", "1300")],
        )
        self.store.records.save(record(account.id, id="c3", events=tuple(events[:1])))
        self.assertIn("one answer, after 340 ms", browser.get("/calls/c3").text)
        self.store.records.save(record(account.id, id="c2", events=()))
        self.assertNotIn("How fast", browser.get("/calls/c2").text)

    def test_tokens(self) -> None:
        """What was used stands in words; a count that is none is left out."""
        for usage, words in (
            ({}, "none"),
            ({"input_tokens": 1200, "input_audio": 900, "cached": 300, "output_tokens": 40, "output_audio": 30},
             "1,200 in (900 audio, 300 cached), 40 out (30 audio)"),
            ({"input_tokens": 5, "cached": 0, "transcription_tokens": 7, "transcription_seconds": 1.6},
             "5 in, 7 for the transcript, 2 s for the transcript"),
            ({"input_tokens": "lots", "output_tokens": None}, "none"),
        ):  # fmt: skip
            self.assertEqual(tokens(usage), words)

    def test_recording(self) -> None:
        """The owner plays, downloads and deletes the recording of a call."""
        browser, theirs = self.sign_up(), self.sign_up("b@example.org")
        account = self.store.accounts.find("you@example.org")
        assert account is not None
        (self.recordings / "c1.wav").write_bytes(WAV)
        self.store.records.save(record(account.id, recorded=True))
        self.assertIn('<audio controls preload="metadata" src="/calls/c1/recording.wav"', browser.get("/calls/c1").text)
        page = browser.get("/calls/c1/recording.wav")
        self.assertEqual((page.code, page.body), (200, WAV))
        self.assertEqual(page.headers["content-type"], ["audio/wav"])
        self.assertEqual(page.headers["accept-ranges"], ["bytes"])
        self.assertNotIn("content-disposition", page.headers)
        self.assertIn(
            "attachment", browser.get("/calls/c1/recording.wav?download=yes").headers["content-disposition"][0]
        )
        for path in ("/calls/c1/recording.wav", "/calls/c1/recording/delete"):
            self.assertEqual(theirs.get(path).code, 404)
        self.assertEqual(theirs.send("/calls/c1/recording/delete", at="/calls").code, 404)
        self.assertEqual(Browser(self.resource).get("/calls/c1/recording.wav").location, "/login")
        self.assertEqual(browser.ask("POST", "/calls/c1/recording/delete", data={"a": "b"}).code, 403)
        self.assertIn("cannot be brought back", browser.get("/calls/c1/recording/delete").text)
        self.assertTrue((self.recordings / "c1.wav").exists())
        self.assertEqual(browser.send("/calls/c1/recording/delete").location, "/calls/c1")
        self.assertFalse((self.recordings / "c1.wav").exists())
        for path in ("/calls/c1/recording.wav", "/calls/c1/recording/delete"):
            self.assertEqual(browser.get(path).code, 404)

    def test_parts(self) -> None:
        """A player gets the part that it asks for, as one that jumps ahead does."""
        browser = self.sign_up()
        (self.recordings / "c1.wav").write_bytes(WAV)
        self.store.records.save(record(self.store.accounts.all()[0].id, recorded=True))
        size = len(WAV)
        for asked, code, part in (
            ("bytes=0-", 206, range(size)),
            ("bytes=100-199", 206, range(100, 200)),
            ("Bytes = 100-", 206, range(100, size)),
            ("bytes=-10", 206, range(size - 10, size)),
            ("bytes=-99999", 206, range(size)),
            ("bytes=0-99999", 206, range(size)),
            (f"bytes={size}-", 416, range(0)),
            ("bytes=-0", 416, range(0)),
            ("bytes=9-2", 200, range(size)),
            ("bytes=-", 200, range(size)),
            ("bytes=0-1,4-5", 200, range(size)),
            ("lines=1-2", 200, range(size)),
        ):
            page = browser.get("/calls/c1/recording.wav", headers={"Range": asked})
            self.assertEqual((page.code, page.body), (code, WAV[part.start : part.stop]), asked)
            if code == 206:
                self.assertEqual(page.headers["content-range"], [f"bytes {part.start}-{part.stop - 1}/{size}"])
        page = browser.ask("HEAD", "/calls/c1/recording.wav")
        self.assertEqual((page.body, page.headers["content-length"]), (b"", [str(size)]))


class LivePages(Pages):
    def test_up(self) -> None:
        """Calls that are up are shown with a way to end them, to their owner only."""
        browser, theirs = self.sign_up(), self.sign_up("b@example.org")
        path = self.a_bot(browser)
        [bot] = self.store.bots.all()
        self.assertNotIn("Up now", browser.get("/calls").text)
        self.assertEqual(browser.get("/calls/live").text.strip(), "")
        call = LiveCall("c7", bot.id, bot.account_id, EVIL, "openai", False, "talking", 1_900_000_000.0, 1.0, 0.0123)
        self.up = [call, replace(call, id="c8", outgoing=True, dialled="200", state="ringing", answered=None)]
        for page in ("/calls", "/calls/live"):
            text = browser.get(page).text
            for part in (
                "Up now",
                "talking",
                "&lt;script&gt;",
                "$0.0123",
                "2030-03-17",
                f'href="{path}">Ada',
                "to 200",
            ):
                self.assertIn(part, text)
            self.assertNotIn("<script>alert", text)
            self.assertNotIn("Up now", theirs.get(page).text)
            self.assertEqual(Browser(self.resource).get(page).location, "/login")
        self.assertEqual(theirs.send("/calls/c7/hang-up", at="/calls").code, 404)
        self.assertEqual(browser.ask("POST", "/calls/c7/hang-up", data={"a": "b"}).code, 403)
        self.assertNotIn((bot.account_id, "c7"), self.hung_up)
        self.assertEqual(browser.send("/calls/c7/hang-up", at="/calls").location, "/calls")
        self.assertIn((bot.account_id, "c7"), self.hung_up)
        self.assertEqual(browser.send("/calls/c9/hang-up", at="/calls").code, 404)
        self.assertEqual(browser.get("/calls/c7/hang-up").code, 405)


class SlowRequest:
    """A browser that takes one piece, and then no more until it is told to."""

    method = b"GET"

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.producer: Any = None

    def getHeader(self, _name: str) -> None: ...

    def setHeader(self, _name: str, _value: str) -> None: ...

    def registerProducer(self, producer: Any, _streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.producer.pauseProducing()


class Sending(SynchronousTestCase):
    def begun(self) -> tuple[SlowRequest, Deferred[bytes]]:
        path = new_folder(self) / "long.wav"
        path.write_bytes(bytes(600_000))
        request = SlowRequest()
        sent: Any = send_file(request, maybeDeferred, path)  # type: ignore[arg-type]
        return request, Deferred.fromCoroutine(sent)

    def test_slow(self) -> None:
        """A browser that takes no more for now is waited for."""
        request, sent = self.begun()
        for pieces in (1, 2):
            self.assertEqual(len(request.pieces), pieces)
            self.assertNoResult(sent)
            request.producer.resumeProducing()
        self.successResultOf(sent)
        self.assertEqual(sum(map(len, request.pieces)), 600_000)
        self.assertIsNone(request.producer)

    def test_gone(self) -> None:
        """One that has gone away is not."""
        request, sent = self.begun()
        request.producer.stopProducing()
        self.successResultOf(sent)
        self.assertEqual(len(request.pieces), 1)
