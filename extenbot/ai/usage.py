"""What a conversation has used, as the services count, and what that costs."""

from __future__ import annotations

from collections import Counter

from extenbot.ai.events import number, section, word
from extenbot.interfaces import Json, Prices


def of_response(usage: Json) -> dict[str, int]:
    """The counts of one response, flat. Cached tokens are a part of the input."""
    into, out = section(usage, "input_token_details"), section(usage, "output_token_details")
    cached = section(into, "cached_tokens_details")
    return {
        "input_tokens": number(usage, "input_tokens"),
        "output_tokens": number(usage, "output_tokens"),
        "input_text": number(into, "text_tokens"),
        "input_audio": number(into, "audio_tokens"),
        "cached": number(into, "cached_tokens"),
        "cached_text": number(cached, "text_tokens"),
        "cached_audio": number(cached, "audio_tokens"),
        "output_text": number(out, "text_tokens"),
        "output_audio": number(out, "audio_tokens"),
    }


class Usage:
    """The sums over all sessions of one conversation. Costs are USD; what has no price counts nothing."""

    def __init__(self, prices: Prices, model: str, transcriber: str) -> None:
        """`transcriber`: the model that writes down what the caller says."""
        self.cost = 0.0
        """Without what is paid for by the minute of a session."""
        self._prices = prices
        self._model = model
        self._transcriber = transcriber
        self._sums: Counter[str] = Counter(responses=0, **of_response({}), transcription_tokens=0)
        self._milliseconds = 0

    @property
    def unpriced(self) -> str:
        """The model, where nothing is known of what it takes: then no cap can hold."""
        return "" if self._prices.response(self._model, {}) is not None else self._model

    def add_response(self, counts: dict[str, int]) -> None:
        """One response has ended; `counts` as `of_response` gives them."""
        self._sums.update(counts)
        self._sums["responses"] += 1
        self.cost += self._prices.response(self._model, counts) or 0.0

    def add_transcription(self, usage: Json, lasted: float) -> None:
        """One utterance of `lasted` seconds was transcribed, billed by tokens or by duration."""
        seconds = usage.get("seconds")
        if word(usage, "type") == "duration" and isinstance(seconds, (int, float)) and 0 <= seconds < 86400:
            self._milliseconds += round(seconds * 1000)
        self._sums["transcription_tokens"] += number(usage, "total_tokens") or (
            number(usage, "input_tokens") + number(usage, "output_tokens")
        )
        self.cost += self._prices.transcription(self._transcriber, usage, lasted) or 0.0

    def by_time(self, seconds: float) -> float:
        """What sessions of so many seconds cost where the service bills by time."""
        return (self._prices.minute(self._model) or 0.0) * seconds / 60

    @property
    def sums(self) -> Json:
        """All counts so far, and the seconds of transcription that were billed by duration."""
        return {**self._sums, "transcription_seconds": self._milliseconds / 1000}
