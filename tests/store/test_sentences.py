"""Sentences that bots say word by word."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from extenbot.errors import Invalid
from extenbot.media import g711
from extenbot.store.directory import POLL
from extenbot.store.sentences import LONGEST, MOST, RECORDED, SYNTHESISED, Sentences
from tests.store.inline import open_store
from tests.store.test_bots import Kept

HELLO = "Grüß Gott, this is Ada."
SOUND = g711.tone("PCMU", 440, 500)


class SentencesTest(Kept):
    def setUp(self) -> None:
        super().setUp()
        self.bot = self.add()
        self.theirs = self.other.sentences
        self.ours = self.store.sentences
        self.successResultOf(Deferred.fromCoroutine(self.store.start()))
        self.addCleanup(self.store.directory.stop)

    def save(self, text: str = HELLO, sound: bytes = SOUND, how: str = RECORDED) -> None:
        self.theirs.save(self.bot.id, text, sound, how, text)
        self.reactor.advance(POLL)

    def test_said(self) -> None:
        """What a command has recorded is heard in the next call, in both laws, where the words are the same."""
        self.assertEqual(self.ours.audio(self.bot.id, HELLO, "PCMU"), b"")
        self.save()
        self.assertEqual(self.ours.audio(self.bot.id, f" {HELLO}\n", "PCMU"), SOUND)
        self.assertEqual(self.ours.audio(self.bot.id, HELLO, "PCMA"), SOUND.translate(g711.translation("PCMU", "PCMA")))
        self.assertEqual(self.ours.audio(self.bot.id, "Hello.", "PCMU"), b"")
        self.assertEqual(self.ours.audio("another", HELLO, "PCMU"), b"")
        [sentence] = self.ours.of(self.bot.id)
        self.assertEqual((sentence.text, sentence.how, sentence.said, sentence.seconds), (HELLO, RECORDED, HELLO, 0.5))

    def test_again(self) -> None:
        """A new recording of the same words takes the place of the old one."""
        self.save()
        louder = g711.tone("PCMU", 440, 500, 0.5)
        self.save(sound=louder)
        self.assertEqual(self.ours.audio(self.bot.id, HELLO, "PCMU"), louder)
        self.assertEqual(len(self.ours.of(self.bot.id)), 1)

    def test_unchanged(self) -> None:
        """A change elsewhere does not read all sound again; a restart does."""
        self.save()
        before = self.ours.of(self.bot.id)
        self.add(name="Bea")
        self.reactor.advance(POLL)
        self.assertIs(self.ours.of(self.bot.id)[0], before[0])
        again = open_store(self.folder)
        self.addCleanup(again.close)
        self.assertEqual(again.sentences.audio(self.bot.id, HELLO, "PCMU"), SOUND)
        loaded = Sentences(again._database)
        loaded.load()
        self.assertEqual(loaded.of(self.bot.id), before)

    def test_removed(self) -> None:
        """A sentence that is removed, or whose bot is, is said no more."""
        self.save()
        self.save("Good bye.")
        self.assertTrue(self.theirs.remove(self.bot.id, HELLO))
        self.assertFalse(self.theirs.remove(self.bot.id, HELLO))
        self.reactor.advance(POLL)
        self.assertEqual([sentence.text for sentence in self.ours.of(self.bot.id)], ["Good bye."])
        self.other.bots.remove(self.bot.id)
        self.reactor.advance(POLL)
        self.assertEqual(self.ours.of(self.bot.id), [])

    def test_own_changes(self) -> None:
        """What a page saves is in force when the page comes back."""
        change = self.store.change(self.ours.save, self.bot.id, HELLO, SOUND, SYNTHESISED, "Grüß Gott!")
        self.successResultOf(Deferred.fromCoroutine(change))
        self.assertEqual(self.ours.audio(self.bot.id, HELLO, "PCMU"), SOUND)

    def test_bounds(self) -> None:
        """At most a minute, at most ten a bot: a synthesised one makes room, a recorded one never does."""
        for text, sound, field in (("", SOUND, "text"), ("x" * 2001, SOUND, "text"), (HELLO, b"", "audio")):
            with self.assertRaises(Invalid) as caught:
                self.save(text, sound)
            self.assertEqual(list(caught.exception.problems), [field])
        self.save("long", b"\xff" * LONGEST)
        with self.assertRaises(Invalid):
            self.save("longer", b"\xff" * (LONGEST + 1))
        with self.assertRaises(Invalid) as caught:
            self.theirs.save("gone", HELLO, SOUND, RECORDED, HELLO)
        self.assertEqual(list(caught.exception.problems), ["bot"])
        self.save("synthesised", how=SYNTHESISED)
        for number in range(MOST - 1):
            self.save(f"sentence {number}")
        texts = [sentence.text for sentence in self.ours.of(self.bot.id)]
        self.assertEqual(texts, ["long", *(f"sentence {number}" for number in range(MOST - 1))])
        with self.assertRaises(Invalid) as caught:
            self.save("one more")
        self.assertIn("remove one", caught.exception.problems["text"])
        self.assertEqual(len(self.ours.of(self.bot.id)), MOST)
