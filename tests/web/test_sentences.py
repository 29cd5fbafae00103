"""What a bot says word by word, on its page, as a browser sees it."""

from __future__ import annotations

import re

from twisted.internet.defer import Deferred, succeed

from extenbot.errors import BackendLost
from extenbot.interfaces import Bot
from extenbot.media import g711
from extenbot.web import wav
from extenbot.web.visits import LARGEST_FILE
from tests.web.browser import Browser, Page
from tests.web.rig import EVIL, Pages

SOUND = g711.tone("PCMU", 440, 1000)
OTHER = g711.tone("PCMU", 880, 500)
WELCOME = "Hello, this is Ada."
SORRY = "I am sorry, something went wrong."


class Sentences(Pages):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[str] = []
        self.speaking: Deferred[str] | None = None

    def speak(self, bot: Bot, text: str) -> Deferred[str]:
        """As the service does it, with a voice that is not word-exact."""
        self.asked.append(text)
        if self.speaking is not None:
            return self.speaking
        self.store.sentences.save(bot.id, text, OTHER, "synthesised", f"{text} Yes!")
        self.store.sentences.load()
        return succeed(f"{text} Yes!")

    def made(self, **fields: str) -> tuple[Browser, str]:
        """Somebody with a bot that says two sentences word by word; the path of the bot."""
        browser = self.sign_up()
        usual = {"welcome": WELCOME, "greeting_exact": "yes", "failure_sentence": SORRY}
        return browser, self.a_bot(browser, **(usual | fields))

    def upload(self, browser: Browser, path: str, which: str, sound: bytes) -> Page:
        token = browser.get(path).value("form_token")
        return browser.upload(f"{path}/sentences/{which}/upload", token, sound)

    def audio(self, text: str) -> bytes:
        return self.store.sentences.audio(self.store.bots.all()[0].id, text, "PCMU")


class Shown(Sentences):
    def test_none(self) -> None:
        """A bot that says nothing word by word has nothing of it on its page."""
        browser, path = self.made(greeting_exact="no", failure_sentence="")
        self.assertNotIn("Word by word", browser.get(path).text)

    def test_without_audio(self) -> None:
        """What there is no audio of is told, and what callers get meanwhile."""
        browser, path = self.made()
        text = browser.get(path).text
        for part in (WELCOME, SORRY, "the voice says it in its own way", "callers hear three rising tones"):
            self.assertIn(part, text)
        self.assertNotIn("<audio", text)
        self.assertNotIn("Remove the audio", text)

    def test_notice(self) -> None:
        """The notice of recorded calls belongs to the greeting, as callers hear it."""
        browser, path = self.made(record="yes", record_notice="This call is recorded.")
        self.upload(browser, path, "greeting", wav.written(SOUND))
        self.assertEqual(self.audio(f"This call is recorded. {WELCOME}"), SOUND)

    def test_hostile(self) -> None:
        """Texts are text, whatever stands in them."""
        browser, path = self.made(welcome=EVIL, failure_sentence=EVIL)
        browser.send(f"{path}/sentences/greeting/make", at=path)
        self.assertNotIn("<script>alert", browser.get(path).text)


class Uploaded(Sentences):
    def test_upload(self) -> None:
        """A recording is what callers hear from then on, and can be heard on the page."""
        browser, path = self.made()
        self.assertEqual(self.upload(browser, path, "failure", wav.written(SOUND)).location, f"{path}#sentences")
        self.assertEqual((self.audio(SORRY), self.audio(WELCOME)), (SOUND, b""))
        page = browser.get(path)
        self.assertIn("1.0 s, uploaded on", page.text)
        [played] = re.findall(r'<audio [^>]*src="([^"]+)"', page.text)
        heard = browser.get(played)
        self.assertEqual((heard.code, heard.headers["content-type"]), (200, ["audio/wav"]))
        self.assertEqual(wav.read(heard.body), SOUND)
        part = browser.get(played, headers={"Range": "bytes=44-99"})
        self.assertEqual((part.code, part.body), (206, heard.body[44:100]))

    def test_replaced(self) -> None:
        """Another recording takes the place of the first."""
        browser, path = self.made()
        for sound in (SOUND, OTHER):
            self.upload(browser, path, "greeting", wav.written(sound))
        self.assertEqual(self.audio(WELCOME), OTHER)

    def test_wrong(self) -> None:
        """A file that is no WAV, silent or missing gets a sentence, and what there was stays."""
        browser, path = self.made()
        self.upload(browser, path, "greeting", wav.written(SOUND))
        silence = wav.written(g711.SILENCE["PCMU"] * 8000)
        for sound, words in ((b"ID3 an MP3", "WAV"), (silence, "silence"), (b"", "Choose a WAV file")):
            page = self.upload(browser, path, "greeting", sound)
            self.assertEqual(page.code, 422)
            self.assertIn(words, page.problem("greeting"))
            self.assertFalse(page.problem("failure"))
        self.assertEqual(self.audio(WELCOME), SOUND)

    def test_long(self) -> None:
        """A minute in stereo as recorders make it is taken; the page refuses larger files before they are sent."""
        browser, path = self.made()
        self.assertGreaterEqual(LARGEST_FILE, 60 * 48_000 * 2 * 2 + 1000)
        self.assertIn(f'data-most="{LARGEST_FILE}"', browser.get(path).text)

    def test_removed(self) -> None:
        """Without its audio a sentence is as it was before."""
        browser, path = self.made()
        self.upload(browser, path, "greeting", wav.written(SOUND))
        self.assertEqual(browser.send(f"{path}/sentences/greeting/remove", at=path).location, f"{path}#sentences")
        self.assertEqual(self.audio(WELCOME), b"")
        self.assertEqual(browser.get(f"{path}/sentences/greeting.wav").code, 404)

    def test_changed_text(self) -> None:
        """Audio of a text that has changed since is not played to callers, and can still be heard and removed."""
        browser, path = self.made()
        self.upload(browser, path, "greeting", wav.written(SOUND))
        browser.send(f"{path}/edit", name="Ada", kind="registrar", welcome="Good day.", greeting_exact="yes")
        text = browser.get(path).text
        self.assertIn("Not said any more", text)
        self.assertIn("There is no audio yet", text)
        [played] = re.findall(r'<audio [^>]*src="([^"?]+)\.wav', text)
        self.assertEqual(wav.read(browser.get(f"{played}.wav").body), SOUND)
        self.assertNotIn(f"{played}/upload", text)
        browser.send(f"{played}/remove", at=path)
        self.assertNotIn("Not said any more", browser.get(path).text)

    def test_too_many(self) -> None:
        """The eleventh recording is refused with words; those that are in the way stand on the page."""
        browser, path = self.made()
        for number in range(10):
            self.store.sentences.save(self.store.bots.all()[0].id, f"Old {number}.", SOUND, "recorded", "")
        self.store.sentences.load()
        page = self.upload(browser, path, "greeting", wav.written(SOUND))
        self.assertIn("remove one of them first", page.problem("greeting"))
        self.assertEqual(page.text.count("Not said any more"), 10)


class Made(Sentences):
    def test_made(self) -> None:
        """The bot's own voice says it once; the page shows what was really said."""
        browser, path = self.made()
        self.assertEqual(browser.send(f"{path}/sentences/greeting/make", at=path).location, f"{path}#sentences")
        self.assertEqual((self.asked, self.audio(WELCOME)), ([WELCOME], OTHER))
        self.assertIn(f"The voice really said: <q>{WELCOME} Yes!</q>", browser.get(path).text)

    def test_exactly(self) -> None:
        """When the voice kept to the text, the page says that."""
        browser, path = self.made()
        bot_id = self.store.bots.all()[0].id
        for said, words in ((WELCOME, "The voice said exactly this."), ("", "is not known: listen to it")):
            self.store.sentences.save(bot_id, WELCOME, OTHER, "synthesised", said)
            self.store.sentences.load()
            self.assertIn(words, browser.get(path).text)

    def test_refused(self) -> None:
        """A voice service that refuses is told in its words, and the button can be pressed again."""
        browser, path = self.made()
        for _ in range(2):
            self.speaking = Deferred()
            self.speaking.errback(BackendLost("wrong_key", "The voice service refuses the key."))
            page = browser.send(f"{path}/sentences/failure/make", at=path)
            self.assertEqual((page.code, page.problem("failure")), (422, "The voice service refuses the key."))
        self.assertEqual(len(self.asked), 2)

    def test_one_at_a_time(self) -> None:
        """While the bot speaks, a second press costs nothing."""
        browser, path = self.made()
        self.speaking = Deferred()
        with self.assertRaises(AssertionError):  # there is no answer yet
            browser.send(f"{path}/sentences/greeting/make", at=path)
        page = browser.send(f"{path}/sentences/failure/make", at=path)
        self.assertIn("speaking already", page.problem("failure"))
        self.speaking.callback(WELCOME)
        self.speaking = None
        browser.send(f"{path}/sentences/failure/make", at=path)
        self.assertEqual(self.asked, [WELCOME, SORRY])


class Closed(Sentences):
    def test_closed(self) -> None:
        """What belongs to others is not there; nothing changes without a form of ours."""
        browser, path = self.made()
        self.upload(browser, path, "greeting", wav.written(SOUND))
        theirs, stranger = self.sign_up("b@example.org"), Browser(self.resource)
        at = f"{path}/sentences/greeting"
        self.assertEqual(theirs.get(f"{at}.wav").code, 404)
        self.assertEqual(stranger.get(f"{at}.wav").location, "/login")
        for order in ("make", "remove"):
            self.assertEqual(theirs.send(f"{at}/{order}", at="/settings/account").code, 404)
            self.assertEqual(stranger.ask("POST", f"{at}/{order}", data={"a": "b"}).location, "/login")
            self.assertEqual(browser.ask("POST", f"{at}/{order}", data={"a": "b"}).code, 403)
            self.assertEqual(browser.send(f"{path}/sentences/nonsense/{order}", at=path).code, 404)
            self.assertEqual(browser.get(f"{at}/{order}").code, 405)
        token = theirs.get("/settings/account").value("form_token")
        self.assertEqual(theirs.upload(f"{at}/upload", token, wav.written(OTHER)).code, 404)
        self.assertEqual(stranger.upload(f"{at}/upload", token, wav.written(OTHER)).location, "/login")
        self.assertEqual(browser.upload(f"{at}/upload", token, wav.written(OTHER)).code, 403)
        self.assertEqual(browser.ask("POST", f"{at}/upload", data={"form_token": "x"}).code, 415)
        self.assertEqual((self.asked, self.audio(WELCOME)), ([], SOUND))
