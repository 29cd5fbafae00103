"""WAV files that people upload, as what a phone hears: G.711 µ-law, mono, 8 kHz; and back for the browser.

Blocks for some hundredths of a second: for the thread pool. numpy and libsamplerate are imported on first use.
"""

from __future__ import annotations

from struct import error as StructError
from struct import pack, unpack_from
from typing import Any

from extenbot.errors import Invalid
from extenbot.media import g711

LAW = "PCMU"
SHORTEST = 0.2  # seconds
LONGEST = 60.0
_MOST_CHANNELS = 8
_PIECE = 8192  # samples, resampled in about a millisecond
_HELD = 64  # samples at 8 kHz, more than the filter holds back
_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_LAWS = {_A_LAW: "PCMA", _MU_LAW: "PCMU"}
_NOT_WAV = "This is no WAV file: save the recording as WAV, please."
_OTHER = "This kind of WAV cannot be read: PCM of 8 to 32 bits, float, A-law or µ-law, please."


def read(data: bytes) -> bytes:
    """The sound as µ-law. `Invalid` (`file`) with a sentence when it is no WAV, too long or too short, or silent."""
    if not data:
        raise _wrong("Choose a WAV file first.")
    try:
        kind, channels, rate, bits, sound = _chunks(data)
    except StructError:
        raise _wrong(_NOT_WAV) from None
    if not 4000 <= rate <= 192_000 or not 1 <= channels <= _MOST_CHANNELS or bits % 8:
        raise _wrong(_OTHER)
    whole = channels * bits // 8
    if not whole:
        raise _wrong(_OTHER)
    seconds = len(sound) // whole / rate
    if seconds > LONGEST:
        raise _wrong(f"At most {LONGEST:g} seconds, please: this lasts {seconds:.0f}.")
    if seconds < SHORTEST:
        raise _wrong("There is no sound in it, or next to none.")
    samples = _samples(kind, bits, sound[: len(sound) // whole * whole])
    audio = _telephone(samples.reshape(-1, channels).mean(axis=1), rate)
    if not audio.translate(None, g711.quiet(LAW)):
        raise _wrong("There is only silence in it.")
    return audio


def written(audio: bytes) -> bytes:
    """µ-law as a WAV file of 16-bit samples, which every browser plays."""
    linear = g711.to_linear(LAW, audio)
    head = pack("<4sIHHIIHH", b"fmt ", 16, _PCM, 1, g711.RATE, 2 * g711.RATE, 2, 16)
    body = b"WAVE" + head + pack("<4sI", b"data", len(linear)) + linear
    return pack("<4sI", b"RIFF", len(body)) + body


def _chunks(data: bytes) -> tuple[int, int, int, int, bytes]:
    """Format, channels, samples a second, bits of one, and the sound."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise _wrong(_NOT_WAV)
    found: tuple[int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(data):
        name, size = unpack_from("<4sI", data, at)
        if name == b"fmt ":
            kind, channels, rate, _, _, bits = unpack_from("<HHIIHH", data, at + 8)
            if kind == _EXTENSIBLE:
                (kind,) = unpack_from("<H", data, at + 8 + 24)
            found = kind, channels, rate, bits
        elif name == b"data" and found:
            return *found, data[at + 8 : at + 8 + size]  # a recorder that crashed says more than there is
        at += 8 + size + (size & 1)
    raise _wrong("There is no sound in this file.")


def _samples(kind: int, bits: int, sound: bytes) -> Any:
    """All samples one after the other, full scale at 1."""
    import numpy as np

    if kind in _LAWS and bits == 8:
        return np.array(g711.decoding(_LAWS[kind]), np.float32)[np.frombuffer(sound, np.uint8)] / 32768
    if kind == _FLOAT and bits in (32, 64):
        return np.clip(np.nan_to_num(np.frombuffer(sound, f"<f{bits // 8}")), -1, 1).astype(np.float32)
    if kind != _PCM:
        raise _wrong(_OTHER)
    if bits == 8:
        return np.frombuffer(sound, np.uint8).astype(np.float32) / 128 - 1
    if bits == 24:
        bytes_ = np.frombuffer(sound, np.uint8).reshape(-1, 3)
        high = np.zeros((len(bytes_), 4), np.uint8)
        high[:, 1:] = bytes_
        return high.view("<i4")[:, 0].astype(np.float32) / 2**31
    if bits in (16, 32):
        return np.frombuffer(sound, f"<i{bits // 8}").astype(np.float32) / 2 ** (bits - 1)
    raise _wrong(_OTHER)


def _telephone(samples: Any, rate: int) -> bytes:
    import numpy as np
    import samplerate

    if rate != g711.RATE:
        # Piece by piece: libsamplerate keeps other threads waiting, and with them the audio of calls.
        ratio = g711.RATE / rate
        stream = samplerate.Resampler("sinc_medium", 1)
        flushed = np.concatenate([samples, np.zeros(round(_HELD / ratio), np.float32)])
        pieces = [stream.process(flushed[at : at + _PIECE], ratio) for at in range(0, len(flushed), _PIECE)]
        samples = np.concatenate(pieces)[: round(len(samples) * ratio)]
    linear = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")
    return bytes(np.frombuffer(g711.encoding(LAW), np.uint8)[linear.view("<u2")].tobytes())


def _wrong(words: str) -> Invalid:
    return Invalid({"file": words})
