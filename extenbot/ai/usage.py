"""What a session has used: plain sums over its responses and transcriptions, as the services count."""

from __future__ import annotations

from collections import Counter

from extenbot.ai.events import number, section, word
from extenbot.interfaces import Json


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
    """The sums of one session."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter(responses=0, **of_response({}), transcription_tokens=0)
        self._milliseconds = 0

    def add_response(self, counts: dict[str, int]) -> None:
        """One response has ended; `counts` as `of_response` gives them."""
        self._sums.update(counts)
        self._sums["responses"] += 1

    def add_transcription(self, usage: Json) -> None:
        """One utterance was transcribed, billed by tokens or by duration."""
        seconds = usage.get("seconds")
        if word(usage, "type") == "duration" and isinstance(seconds, (int, float)) and 0 <= seconds < 86400:
            self._milliseconds += round(seconds * 1000)
        self._sums["transcription_tokens"] += number(usage, "total_tokens") or (
            number(usage, "input_tokens") + number(usage, "output_tokens")
        )

    @property
    def sums(self) -> Json:
        """All counts so far, and the seconds of transcription that were billed by duration."""
        return {**self._sums, "transcription_seconds": self._milliseconds / 1000}
