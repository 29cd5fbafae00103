"""A real browser on the real pages: sign up, make a bot, see its values, see a finished call.

With EXTENBOT_SCREENSHOTS=FOLDER each step also leaves a picture there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from extenbot.interfaces import Event, Line
from extenbot.settings import Settings
from extenbot.store.store import Store
from extenbot.web.seams import NOTHING, Connection
from extenbot.web.site import PagesSite, site
from tests.store.examples import BINDING, record
from tests.web.chromium import need_chromium, page_of

TALK = (
    Line("bot", "Hello, this is Ada of Example Ltd. How can I help you?", 0.9),
    Line("caller", "Is the shop on Market Street open on Saturday?", 5.2),
    Line("bot", "Yes, it is open from nine to six, and on Sundays we", 8.9, True),
    Line("caller", "Great, thanks. <b>Bye!</b>", 12.4),
    Line("bot", "Goodbye!", 13.8),
)
EVENTS = (
    Event(0.0, "invited", {"caller": "+4930123456", "dialled": "openai", "peer": "10.8.0.1:5060"}),
    Event(0.4, "answered", {"codec": "PCMA"}),
    Event(8.9, "turn", {"after": "speech", "first_audio": 420, "wire": 446}),
    Event(10.2, "barge_in", {"item": "item_1", "ms": 1240}),
    Event(11.0, "tool.asked", {"name": "weather", "call": "call_1", "arguments": {"city": "Oslo", "days": 3}}),
    Event(11.3, "tool.answered", {"name": "weather", "call": "call_1", "output": "Rain. " * 40}),
    Event(13.8, "turn", {"after": "speech", "first_audio": 1290, "wire": 1310}),
    Event(20.0, "response.done", {"status": "failed", "reason": "server_error", "usage": {"input_tokens": 120}}),
    Event(21.5, "session.lost", {"cause": "lost", "words": "The connection to the voice service was lost (1006)."}),
    Event(21.9, "session.moved", {"number": 2}),
    Event(30.1, "turn", {"after": "speech", "first_audio": 610, "wire": 633}),
    Event(41.0, "ended", {"reason": "the caller hung up"}),
)


class Served(TestCase):
    """Pages on a port, and a visit to them."""

    timeout = 90
    live = NOTHING

    def setUp(self) -> None:
        need_chromium()
        self.folder = tempfile.TemporaryDirectory(prefix="extenbot-")
        self.store = Store(Settings(data=Path(self.folder.name)), reactor)
        self.store.open()
        pages = site(
            self.store,
            Settings(),
            Connection("voice.example.org"),
            lambda _username: [BINDING],
            lambda _id: None,
            live=self.live,
        )
        listen: Any = reactor.listenTCP
        self.port = listen(0, PagesSite(pages), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"
        return Deferred.fromCoroutine(self.store.start())  # type: ignore[return-value]

    async def tearDown(self) -> None:  # type: ignore[override]
        await self.port.stopListening()
        await self.store.stop()
        self.folder.cleanup()

    def visit(self, width: int) -> None:
        with page_of(self, width) as (page, look):
            self.walk(page, width, look)

    def walk(self, page: Any, width: int, look: Callable[[str], None]) -> None:
        raise NotImplementedError


@pytest.mark.real
class InABrowser(Served):
    async def test_main_flow(self) -> None:
        """At desk and phone width: from nothing to a bot, its values, and what was said in a call."""
        for width in (1280, 360):
            await deferToThread(self.visit, width)

    def walk(self, page: Any, width: int, look: Callable[[str], None]) -> None:
        page.goto(self.url)
        look("log-in")
        page.click("text=Make an account")
        page.fill("#email", f"you{width}@example.org")
        page.fill("#password", "correct horse battery")
        look("sign-up")
        page.click("main button")
        page.click("text=Make the first bot")
        page.fill("#name", "Reception")
        page.fill("#welcome", TALK[0].text)
        look("new-bot")
        page.fill("#transfer_uri", "nowhere")
        self.assertFalse(page.is_visible("#vad_silence"))
        page.click("summary:has-text('Turns and interruptions')")
        page.click("summary:has-text('When a caller has finished')")
        page.fill("#vad_silence", "soon")
        self.assertFalse(page.is_visible("#vad_eagerness"))
        page.click("summary:has-text('Further destinations')")
        page.fill("#destination_1_name", "sales")
        page.fill("#destination_1_uris", "201 202")
        page.click("button:has-text('Make the bot')")
        self.assertEqual(page.input_value("#name"), "Reception")
        self.assertEqual(page.evaluate("document.activeElement.id"), "vad_silence")
        self.assertEqual(page.input_value("#destination_1_uris"), "201 202")
        look("wrong-bot")
        page.check("[name=turn_detection][value=semantic_vad]")
        page.fill("#vad_silence", "700")
        page.select_option("#vad_eagerness", "low")
        page.fill("#transfer_uri", "sip:100@10.8.0.1")
        page.check("[name=barge_in][value=confirmed]")
        page.uncheck("[name=echo_gate][value=yes]")
        page.click("summary:has-text('When the voice fails')")
        page.select_option("#refusal", "302")
        page.fill("#refusal_uri", "sip:9@10.8.0.1")
        page.click("summary:has-text('Money')")
        page.fill("#cap_day", "12.50")
        page.click("summary:has-text('Recording')")
        page.check("[name=record][value=yes]")
        page.click("button:has-text('Make the bot')")
        page.click("main >> text=Edit")
        self.assertEqual(page.input_value("#cap_day"), "12.5")
        self.assertFalse(page.is_visible("#cap_day"))
        self.assertEqual(page.input_value("#vad_eagerness"), "low")
        page.click("summary:has-text('Turns and interruptions')")
        self.assertTrue(page.is_visible("#vad_eagerness"))
        self.assertFalse(page.is_visible("#vad_silence"))
        self.assertTrue(page.is_checked("[name=barge_in][value=confirmed]"))
        self.assertFalse(page.is_checked("[name=echo_gate][value=yes]"))
        self.assertEqual(page.input_value("#destination_1_uris"), "201 202")
        look("edit-bot")
        page.click("main >> text=Cancel")
        [bot] = [bot for bot in self.store.bots.all() if bot.id == page.url.rsplit("/", 1)[-1]]
        page.click("summary:has-text('FreePBX')")
        look("bot")
        for value in (bot.username, bot.password, "openai@voice.example.org", "70000000000@voice.example.org"):
            self.assertTrue(page.is_visible(f"code:text-is('{value}')"), value)
        page.click("[aria-label='Copy Password']")
        page.wait_for_selector("[aria-label='Copy Password']:has-text('Copied')")
        self.store.calls.write(record(bot.account_id, bot.id, id=f"call{width}", transcript=TALK, events=EVENTS))
        page.reload()
        page.click(f"a[href='/calls/call{width}']")
        page.click("summary:has-text('Each answer')")
        self.assertEqual(page.locator(".answers li").count(), 3)
        look("call")
        page.uncheck("#shows-speech")
        self.assertFalse(page.is_visible("text=The caller interrupts"))
        self.assertTrue(page.is_visible("text=weather has answered"))
        self.assertEqual(
            [said.split(" — ")[0] for said in page.locator(".said").all_inner_texts()], [line.text for line in TALK]
        )
        page.click("nav >> text=Calls")
        look("calls")
        page.click("nav >> text=Bots")
        look("bots")
        page.click("main >> text=Reception")
        self.assertIn("The voice service was lost twice.", page.inner_text(".alert"))
        look("bot-in-trouble")
        page.click("text=Log out")
        page.wait_for_url("**/login")
