"""The way of one call's audio to a voice server and back: G.711 on our side, on theirs G.711 or 16-bit PCM.

Rates are converted by libsamplerate. Its medium sinc filter passes all that a telephone does (flat to 3.5 kHz,
aliases below -110 dB) and delays by 5.9 ms, evenly; libsoxr, which is faster over long sounds, gives out its
streams in blocks of up to 60 ms.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from extenbot.media import g711

HELD = 64
"""Samples at 8 kHz, more than the filter holds back."""

LAWS = {"audio/pcmu": "PCMU", "audio/pcma": "PCMA"}
"""The codec name of each G.711 format."""


class Codec:
    """The server takes what the phone speaks: nothing is to be done."""

    def encode(self, audio: bytes) -> bytes:
        """G.711 of the caller, as this server takes it."""
        return audio

    def decode(self, audio: bytes) -> bytes:
        """Audio of the server as G.711."""
        return audio

    def finish(self) -> bytes:
        """The end of an utterance of the server: what is left of it as G.711. The next one begins afresh."""
        return b""


class Pcm(Codec):
    """16-bit little-endian samples at `into` Hz to the server and `out` Hz from it. Keeps its filters' state."""

    def __init__(self, format_: str, into: int, out: int) -> None:
        self._numpy, resampler = _libraries()
        self._linear, self._codes = _tables(LAWS[format_])
        self._up, self._down = into / g711.RATE, g711.RATE / out
        self._to_server, self._from_server = resampler("sinc_medium", 1), resampler("sinc_medium", 1)
        self._half = b""  # a sample that was cut in two
        self._due = 0.0  # bytes of G.711 that the audio of this utterance is worth and that are not made yet

    def encode(self, audio: bytes) -> bytes:
        """G.711 of any length."""
        np = self._numpy
        samples = self._linear[np.frombuffer(audio, np.uint8)]
        return bytes(self._whole(self._to_server.process(samples, self._up)).tobytes())

    def decode(self, audio: bytes) -> bytes:
        """Samples cut anywhere; a half one waits for its other half."""
        np = self._numpy
        audio = self._half + audio
        even = len(audio) & ~1
        self._half = audio[even:]
        samples = np.frombuffer(audio[:even], "<i2").astype(np.float32)
        self._due += len(samples) * self._down
        return self._coded(samples)

    def finish(self) -> bytes:
        """The last 5.9 ms, which the filter still held; half a sample is lost."""
        np = self._numpy
        missing = round(self._due)
        rest = self._coded(np.zeros(round(HELD / self._down), np.float32))[:missing]
        self._from_server.reset()
        self._half, self._due = b"", 0.0
        return rest

    def _whole(self, samples: Any) -> Any:
        np = self._numpy
        return np.clip(np.rint(samples), -32768, 32767).astype("<i2")

    def _coded(self, samples: Any) -> bytes:
        made = self._codes[self._whole(self._from_server.process(samples, self._down)).view("<u2")]
        self._due -= len(made)
        return bytes(made.tobytes())


@cache
def _libraries() -> Any:
    """Imported by the first call that needs them: with a server of G.711 nobody pays for numpy."""
    import numpy
    import samplerate

    return numpy, samplerate.Resampler


@cache
def _tables(law: str) -> Any:
    np, _ = _libraries()
    return np.array(g711.decoding(law), np.float32), np.frombuffer(g711.encoding(law), np.uint8)
