"""What calls cost: by the table of the providers, and by the owner's own."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.pricing import BUILT_IN, PriceTable
from extenbot.interfaces import Price

#: as the providers' pages said, USD per million tokens: text in, cached, out; audio in, cached, out; or per minute
TOLD = {
    "gpt-realtime-2": (4, 0.40, 24, 32, 0.40, 64, 0),
    "gpt-realtime-2.1": (4, 0.40, 24, 32, 0.40, 64, 0),
    "gpt-realtime-2.1-mini": (0.60, 0.06, 2.40, 10, 0.30, 20, 0),
    "gpt-realtime-1.5": (4, 0.40, 16, 32, 0.40, 64, 0),
    "gpt-transcribe": (0, 0, 0, 0, 0, 0, 0.0045),
    "gpt-realtime-whisper": (0, 0, 0, 0, 0, 0, 0.017),
    "gpt-live-transcribe": (0, 0, 0, 0, 0, 0, 0.017),
    "gpt-live-1": (0, 0, 0, 0, 0, 0, 0.05),
    "gpt-live-1.1": (0, 0, 0, 0, 0, 0, 0.05),
    "grok-voice-latest": (0, 0, 0, 0, 0, 0, 0.05),
}
COUNTS = {"input_text": 1000, "input_audio": 2000, "cached_text": 400, "cached_audio": 500}
SAID = {"output_text": 100, "output_audio": 600}


class Table(SynchronousTestCase):
    def test_as_told(self) -> None:
        """The built-in table is that of the providers, number for number."""
        for model, (*tokens, minute) in TOLD.items():
            price = BUILT_IN[model]
            self.assertEqual((*price.text, *price.audio, price.minute), (*tokens, minute), model)

    def test_response(self) -> None:
        """Cached tokens are a part of the input and cost less."""
        cost = PriceTable().response("gpt-realtime-2.1", COUNTS | SAID)
        million = 600 * 4 + 400 * 0.4 + 100 * 24 + 1500 * 32 + 500 * 0.4 + 600 * 64
        self.assertAlmostEqual(cost or 0, million / 1_000_000)

    def test_transcription(self) -> None:
        """By the minute: as long as the service says, else as long as the utterance was."""
        table = PriceTable()
        self.assertAlmostEqual(table.transcription("gpt-transcribe", {}, 30) or 0, 0.00225)
        said = {"type": "duration", "seconds": 60}
        self.assertAlmostEqual(table.transcription("gpt-transcribe", said, 30) or 0, 0.0045)

    def test_longest_name(self) -> None:
        """A model with a date has the price of its family, and not of a shorter name."""
        table = PriceTable()
        dated = table.response("gpt-realtime-2.1-mini-2026-10-01", COUNTS)
        self.assertEqual(dated, table.response("gpt-realtime-2.1-mini", COUNTS))
        self.assertIsNone(table.response("somebody-elses", COUNTS))

    def test_own(self) -> None:
        """What the owner says stands above the table."""
        table = PriceTable({"gpt-realtime-2.1": Price(minute=1.0), "mine": Price(minute=0.5)})
        self.assertEqual(table.minute("gpt-realtime-2.1"), 1.0)
        self.assertEqual(table.minute("mine-2"), 0.5)
        self.assertEqual(table.response("gpt-realtime-2.1", COUNTS), 0.0)
