"""What extenbot adds to the way of audio, in each direction, while N calls are up.

    python bench/latency.py [--calls 100] [--seconds 20] [--early] [--json FILE]

Three processes on loopback: the service, a voice, and this one with the phones. Every packet of the phones and every
utterance of the voice carries the time at which it was sent. Figures, in ms:

    to the model    phone's packet sent → the voice has received the message that it completes
    the packet before it, which has waited for that one, as two make a message
    to the phone    voice's message sent → the first packet with its audio, as the phone's kernel got it

By design audio goes on at the ticks of a 20-ms clock: 0 to 20 ms, and to the model another 20 for calls whose packets
come just before it or have once come too late. Bots are as they are by default, with the echo gate. The phones are
silent until the greeting is over, as callers are; with `--early` they are loud from the first packet on, and the gate
holds them back until it is clear that they are no echo of the bot's first words.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.caller import _STAMP, Load, Phone
from bench.calls import percentile
from bench.marks import marked, times
from bench.running import running

SILENT = 100
"""Packets of 20 ms before a caller speaks."""


class Marked(Load):
    """Phones whose packets tell when they were sent, and that read when what they hear was."""

    def __init__(self, *given: Any, silent: int, **more: Any) -> None:
        """`silent`: so many packets of each phone are silence."""
        super().__init__(*given, **more)
        self.silent = silent
        self.took: list[float] = []

    def said(self, phone: Phone) -> bytes:
        """Each packet has its own time."""
        return marked(160) if phone.sequence >= self.silent else self.payload

    def _heard(self, phone: Phone) -> None:
        while True:
            try:
                data, ancillary, _, _ = phone.audio.recvmsg(2048, 64)
            except (BlockingIOError, OSError):
                return
            if 192 <= data[1] <= 223:
                continue
            phone.received += 1
            for sent in times(data[12:]):
                seconds, nanoseconds = _STAMP.unpack(ancillary[0][2])
                self.took.append((seconds * 1_000_000_000 + nanoseconds - sent) / 1e6)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Start the processes, make the calls, stop the processes."""
    most, file = str(options.calls + 10), folder / "took.json"
    voice = [sys.executable, str(Path(__file__).parent / "marking_voice.py"), str(file)]
    with running(folder, voice, EXTENBOT_LIMITS_CALLS=most, EXTENBOT_LIMITS_CALLS_PER_BOT=most) as started:
        started.command("bot", "edit", "bench", "--silence", "0")
        bot = started.bot
        load = Marked(
            ("127.0.0.1", started.sip), bot["username"], bot["password"], options.calls, options.seconds, 20,
            silent=0 if options.early else SILENT,
        )  # fmt: skip
        phones = load.run(options.seconds + options.calls / 20 + 30)
        faults = started.faults
    model = json.loads(file.read_text())
    return {
        "calls": options.calls,
        "failed": sum(bool(phone.failed) for phone in phones),
        "to the model": _figures([completed for _, completed in model]),
        "the packet before": _figures([waited for waited, _ in model]),
        "to the phone": _figures([took for took in load.took if took < 5000]),
        "faults": faults,
    }


def _figures(took: list[float]) -> dict[str, float]:
    best = min(took, default=0.0)
    return {
        "count": len(took),
        "best": round(best, 1),
        "p50": round(percentile(took, 50), 1),
        "p99": round(percentile(took, 99), 1),
        "p99 beyond the best": round(percentile(took, 99) - best, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--early", action="store_true", help="phones that are loud over the bot's first words")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard))
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options)
    print("\n".join(f"{name:<17}  {value}" for name, value in figures.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
