"""The words of both sides: their order, what was heard of them, and the sums of tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.transcript import MOST, Transcript, heard_part
from extenbot.interfaces import Line, Played
from tests.ai.world import World


class Lines(SynchronousTestCase):
    def texts(self, world: World) -> list[tuple[str, str]]:
        return [(line.speaker, line.text) for line in world.voice.transcript]

    def test_late_transcripts(self) -> None:
        """The caller's words arrive after the bot's answer to them, and stand before it all the same."""
        world = World().talk()
        world.clock.advance(2)
        world.speaks("u1", "hello")
        world.clock.advance(0.5)
        world.created("r1")
        world.server("conversation.item.added", item={"id": "i1"}, previous_item_id="u1")
        world.say("r1", "i1", 800, "At nine.")
        world.said("r1", "i1")
        world.done("r1")
        world.playout.play()
        world.clock.advance(1)
        world.speaks("u2", "i1")
        world.transcribed("u2", "Thanks.")
        world.transcribed("u1", "When do you open?")
        self.assertEqual(
            world.voice.transcript,
            (
                Line("bot", "Hello!", 0),
                Line("caller", "When do you open?", 2),
                Line("bot", "At nine.", 2.5),
                Line("caller", "Thanks.", 3.5),
            ),
        )

    def test_answer_announced_before_the_turn(self) -> None:
        """Items are put in order also when they are announced out of order."""
        world = World().talk()
        world.created("r1")
        world.server("conversation.item.added", item={"id": "i1"}, previous_item_id="u1")
        world.say("r1", "i1", 800, "At nine.")
        world.playout.play()
        world.transcribed("u1", "When?")
        world.server("input_audio_buffer.committed", item_id="u1", previous_item_id="hello")
        self.assertEqual(self.texts(world), [("bot", "Hello!"), ("caller", "When?"), ("bot", "At nine.")])

    def test_keys(self) -> None:
        """Keys stand where they were pressed, although the server knows them by a name of its own."""
        world = World().talk()
        world.voice.told("[The caller pressed 1#]", by_caller=True)
        world.server("conversation.item.added", item={"id": "m1"}, previous_item_id="hello")
        world.created("r1")
        world.server("conversation.item.added", item={"id": "i1"}, previous_item_id="m1")
        world.say("r1", "i1", 800, "One.")
        world.said("r1", "i1")
        world.done("r1")
        world.playout.play()
        world.voice.told("[The caller pressed 2#]", by_caller=True)
        said = ["Hello!", "[The caller pressed 1#]", "One.", "[The caller pressed 2#]"]
        self.assertEqual([text for _, text in self.texts(world)], said)

    def test_interrupted(self) -> None:
        """The bot's words end with the last whole word that was heard, marked as interrupted."""
        world = World().talk()
        world.created("r1")
        world.say("r1", "i1", 8000, "We open at nine and we close at five.")
        world.playout.play(4000)
        world.server("input_audio_buffer.speech_started", item_id="u1")
        world.server("response.output_audio_transcript.delta", response_id="r1", item_id="i1", delta=" And so on.")
        self.assertEqual(world.voice.transcript[-1], Line("bot", "We open at nine", 0, interrupted=True))

    def test_interrupted_before_a_word(self) -> None:
        """What nobody heard is no line."""
        world = World().talk()
        world.created("r1")
        world.say("r1", "i1", 8000, "We open at nine.")
        world.server("input_audio_buffer.speech_started", item_id="u1")
        self.assertEqual(self.texts(world), [("bot", "Hello!")])

    def test_hung_up_on(self) -> None:
        """The caller who hangs up, or the connection that breaks, ends the bot's words where they were heard to."""
        for broken in (False, True):
            world = World().talk()
            world.created("r1")
            world.say("r1", "i1", 8000, "We open at nine.")
            world.playout.play(6000)
            if broken:
                world.error("insufficient_quota")
            else:
                world.voice.finish()
            self.assertEqual(world.voice.transcript[-1], Line("bot", "We open at", 0, interrupted=True))

    def test_final_words_of_the_bot(self) -> None:
        """The final transcript replaces the pieces; several parts are joined."""
        world = World().talk()
        world.created("r1")
        world.say("r1", "i1", 800, "We opn")
        world.server("response.output_audio_transcript.done", item_id="i1", content_index=0, transcript="We open.")
        world.server("response.output_audio_transcript.done", item_id="i1", content_index=1, transcript="At nine.")
        world.playout.play()
        self.assertEqual(self.texts(world)[-1], ("bot", "We open. At nine."))

    def test_noise(self) -> None:
        """A transcript of fewer than two characters is noise."""
        world = World().talk()
        for item, words in (("u1", ""), ("u2", " ."), ("u3", "OK")):
            world.speaks(item)
            world.transcribed(item, words)
        self.assertEqual(self.texts(world), [("bot", "Hello!"), ("caller", "OK")])

    def test_transcriber_fails(self) -> None:
        """What there was of it stays, marked; without a word there is no line, and nothing is waited for."""
        world = World().talk()
        name = "conversation.item.input_audio_transcription"
        world.speaks("u1")
        world.server(f"{name}.delta", item_id="u1", content_index=0, delta="I want")
        world.server(f"{name}.failed", item_id="u1", content_index=0, error={"code": "audio_unintelligible"})
        world.speaks("u2")
        world.server(f"{name}.failed", item_id="u2", content_index=0, error={})
        self.assertEqual(self.texts(world)[1:], [("caller", "I want […]")])
        world.voice.finish()
        self.assertEqual(world.listener.names, ["opened", "finished"])

    def test_pieces_then_all(self) -> None:
        """Pieces of the caller's words show until the whole is there."""
        world = World().talk()
        world.speaks("u1")
        for piece in ("I ", "wan"):
            world.server("conversation.item.input_audio_transcription.delta", item_id="u1", delta=piece)
        self.assertEqual(self.texts(world)[-1], ("caller", "I wan"))
        world.transcribed("u1", "I want a table.")
        self.assertEqual(self.texts(world)[-1], ("caller", "I want a table."))

    def test_odd_characters(self) -> None:
        """Half a surrogate and NUL, which no database takes, do not reach the record."""
        world = World().talk()
        world.speaks("u1")
        world.received(
            b'{"type":"conversation.item.input_audio_transcription.completed","item_id":"u1",'
            b'"transcript":"a\\u0000b\\ud800c"}'
        )
        self.assertEqual(self.texts(world)[-1], ("caller", "ab?c"))

    def test_usage(self) -> None:
        """Tokens are summed over responses and transcriptions, cached ones apart, nonsense left out."""
        world = World().talk()
        before = dict(world.voice.usage)
        usage = {
            "input_tokens": 100,
            "output_tokens": 50,
            "input_token_details": {
                "text_tokens": 40,
                "audio_tokens": 60,
                "cached_tokens": 30,
                "cached_tokens_details": {"text_tokens": 20, "audio_tokens": 10},
            },
            "output_token_details": {"text_tokens": 10, "audio_tokens": 40},
        }
        for response in ("r1", "r2"):
            world.created(response)
            world.say(response, f"i{response}", 80)
            world.done(response, usage=usage)
        world.created("r3")
        world.say("r3", "i3", 80)
        world.done("r3", usage={"input_tokens": "many", "output_tokens": -1, "input_token_details": []})
        world.transcribed("u1", "Words.")
        world.server(
            "conversation.item.input_audio_transcription.completed",
            item_id="u2",
            transcript="More.",
            usage={"type": "duration", "seconds": 2.5},
        )
        self.assertEqual(before["responses"], 1)
        self.assertEqual(
            world.voice.usage,
            {
                "responses": 4,
                "input_tokens": 200,
                "output_tokens": 100,
                "input_text": 80,
                "input_audio": 120,
                "cached": 60,
                "cached_text": 40,
                "cached_audio": 20,
                "output_text": 20,
                "output_audio": 80,
                "transcription_tokens": 7,
                "transcription_seconds": 2.5,
            },
        )


class Pieces(SynchronousTestCase):
    def test_heard_part(self) -> None:
        """The cut falls at a word; a language without blanks is cut between characters."""
        for sent, received, found in (
            (0, 100, ""),
            (100, 100, "one two three"),
            (120, 100, "one two three"),
            (54, 100, "one two"),
            (53, 100, "one"),
            (50, 100, "one"),
            (10, 100, ""),
            (0, 0, ""),
        ):
            self.assertEqual(heard_part("one two three", sent, received), found)
        self.assertEqual(heard_part("一二三四", 50, 100), "一二")

    def test_without_end(self) -> None:
        """Words without end do not fill the memory; final words take the place of pieces."""
        transcript = Transcript()
        transcript.began("a", "caller", 0)
        for _ in range(3):
            transcript.more("a", 0, "x" * (MOST // 2))
        transcript.all("a", 0, "Yes.")
        transcript.began("b", "caller", 1)
        transcript.all("b", 0, "y" * MOST)
        transcript.began("c", "caller", 2)
        transcript.more("c", 0, "zzz")
        lines = transcript.lines(lambda item: (Played(item, 0, 0), False))
        self.assertEqual([(line.text[:4], len(line.text)) for line in lines], [("Yes.", 4), ("yyyy", MOST - 4)])

    @given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from(["", *"abcdefg"]))))
    def test_any_order(self, placed: list[tuple[str, str]]) -> None:
        """However the items are chained, even in circles, each of them is there once."""
        transcript = Transcript()
        for item, previous in placed:
            transcript.began(item, "caller", 0)
            transcript.placed(item, previous)
            transcript.all(item, 0, item * 2)
        lines = transcript.lines(lambda item: (Played(item, 0, 0), False))
        self.assertEqual(sorted(line.text for line in lines), sorted({item * 2 for item, _ in placed}))

    @given(st.permutations("abcdefg"))
    def test_chain_in_any_order(self, order: list[str]) -> None:
        """A chain is the same in whatever order its links arrive."""
        transcript = Transcript()
        for item in order:
            transcript.began(item, "caller", 0)
            transcript.placed(item, chr(ord(item) - 1) if item != "a" else "")
            transcript.all(item, 0, item * 2)
        lines = transcript.lines(lambda item: (Played(item, 0, 0), False))
        self.assertEqual([line.text[0] for line in lines], list("abcdefg"))
