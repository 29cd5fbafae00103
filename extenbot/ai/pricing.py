"""What voice services take: a price table, and the cost of a response, an utterance and a minute by it.

Prices are USD per million tokens, or per minute where a service bills by time. The table here is what the providers'
pages said in November 2026; `prices` of `[ai]` in the settings stands above it.
"""

from __future__ import annotations

from collections.abc import Mapping

from extenbot.ai.events import number, word
from extenbot.interfaces import Json, Price

BUILT_IN: Mapping[str, Price] = {
    "gpt-realtime-2.1": Price((4, 0.40, 24), (32, 0.40, 64)),
    "gpt-realtime-2": Price((4, 0.40, 24), (32, 0.40, 64)),
    "gpt-realtime-2.1-mini": Price((0.60, 0.06, 2.40), (10, 0.30, 20)),
    "gpt-realtime-1.5": Price((4, 0.40, 16), (32, 0.40, 64)),
    "gpt-realtime": Price((4, 0.40, 16), (32, 0.40, 64)),
    "gpt-transcribe": Price(minute=0.0045),
    "gpt-live-transcribe": Price(minute=0.017),
    "gpt-realtime-whisper": Price(minute=0.017),
    "gpt-live-1": Price(minute=0.05),
    "gpt-live-1.1": Price(minute=0.05),
    "grok-voice-latest": Price(minute=0.05),
    "sandbox": Price(),
}

_MILLION = 1_000_000


class PriceTable:
    """Implements `interfaces.Prices`. A model without an entry has that of the longest name that it begins with."""

    def __init__(self, prices: Mapping[str, Price] = {}) -> None:
        self._prices = {**BUILT_IN, **prices}

    def response(self, model: str, counts: Json) -> float | None:
        """One response; cached tokens are a part of the input."""
        price = self._of(model)
        if price is None:
            return None
        cost = 0.0
        for kind, (into, cached, out) in (("text", price.text), ("audio", price.audio)):
            from_cache = number(counts, f"cached_{kind}")
            cost += max(0, number(counts, f"input_{kind}") - from_cache) * into + from_cache * cached
            cost += number(counts, f"output_{kind}") * out
        return cost / _MILLION

    def transcription(self, model: str, usage: Json, seconds: float) -> float | None:
        """One utterance: by the duration that the service says, else by `seconds`, or by tokens if it is billed so."""
        price = self._of(model)
        if price is None:
            return None
        said = usage.get("seconds")
        if word(usage, "type") == "duration" and isinstance(said, (int, float)) and 0 <= said < 86400:
            seconds = float(said)
        if price.minute:
            return price.minute * seconds / 60
        tokens = number(usage, "input_tokens") * price.audio[0] + number(usage, "output_tokens") * price.text[2]
        return tokens / _MILLION

    def minute(self, model: str) -> float | None:
        """One minute of a session; 0 for models that are billed by tokens."""
        price = self._of(model)
        return None if price is None else price.minute

    def _of(self, model: str) -> Price | None:
        found = self._prices.get(model)
        if found is None:
            names = [name for name in self._prices if model.startswith(f"{name}-")]
            found = self._prices[max(names, key=len)] if names else None
        return found
