"""N calls through the whole path against the scripted voice in its own process.

    python bench/calls.py [--calls 100] [--seconds 20] [--rate 20] [--codec PCMU] [--no-gate] [--json FILE]

Three processes on loopback: the service, the scripted voice, and this one with the phones. The bot speaks
all the time and every phone sends, so each call costs what a busy call costs; `--no-gate` leaves out the
echo gate, which bots have unless they are told not to. Figures:

    cpu       CPU seconds of the service (user and system) for one second of one call, while all calls are up
    gaps      between packets of one call as the phone's kernel got them, ms
    set-up    INVITE to 200, digest round and voice session included, ms
    memory    growth of the service's resident memory, per call
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.caller import Load
from bench.running import running

TICKS = os.sysconf("SC_CLK_TCK")
#: the bot speaks without a pause, each sentence sent four times faster than it plays, as real services do
SCRIPT = """speed 4
on greet: tone 440 for 5 s "Hello."
every 5 s: tone 440 for 5 s "And on."
"""


def cpu(pid: int) -> tuple[float, float]:
    """CPU seconds a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def percentile(values: list[float], percent: float) -> float:
    """The nearest-rank percentile; 0 without values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))] if values else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=20.0, help="calls started a second")
    parser.add_argument("--codec", choices=["PCMU", "PCMA"], default="PCMU")
    parser.add_argument("--no-gate", action="store_true", help="without the echo gate")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--profile", action="store_true", help="profile the service (its CPU figures then mean little)")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard))
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options)
    width = max(map(len, figures))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in figures.items()))
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Start the processes, make the calls, stop the processes."""
    extra = ["--profile", "profile.txt", "--profiler", "cprofile", "--savestats"] if options.profile else []
    most = str(options.calls + 10)
    with running(
        folder, SCRIPT, options=extra, EXTENBOT_LIMITS_CALLS=most, EXTENBOT_LIMITS_CALLS_PER_BOT=most
    ) as started:
        kind, silence = (0, b"\xff" * 160) if options.codec == "PCMU" else (8, b"\xd5" * 160)
        bot = started.bot
        if options.no_gate:
            started.command("bot", "edit", "bench", "--echo-gate", "no")
        load = Load(
            ("127.0.0.1", started.sip), bot["username"], bot["password"], options.calls, options.seconds, options.rate,
            payload=silence, kind=kind,
        )  # fmt: skip
        figures = observe(load, started.service, started.voice, options)
    if options.profile:
        show = "import pstats; pstats.Stats('profile.txt').sort_stats('tottime').print_stats(45)"
        report = subprocess.run([sys.executable, "-c", show], cwd=folder, capture_output=True, text=True, check=True)
        print(report.stdout)
    return figures


def observe(load: Load, service: int, voice: int, options: argparse.Namespace) -> dict[str, Any]:
    """Make the calls; CPU is measured only while all of them are up."""
    before = memory(service)
    marks: dict[str, tuple[float, ...]] = {}
    ramp = options.calls / options.rate + 1.5

    def mark(name: str) -> None:
        marks[name] = (time.monotonic(), *cpu(service), *cpu(voice), float(memory(service)))

    timers = [threading.Timer(ramp, mark, ["from"]), threading.Timer(options.seconds - 0.5, mark, ["to"])]
    for timer in timers:
        timer.start()
    phones = load.run(options.seconds + ramp + 30)
    for timer in timers:
        timer.join()
    good = [phone for phone in phones if not phone.failed]
    steady, user, system, voice_user, voice_system, _ = (
        after - first for first, after in zip(marks["from"], marks["to"], strict=True)
    )
    share = 1000 / steady / len(phones)
    gaps = [gap / 1e6 for phone in good for gap in phone.gaps]
    return {
        "calls": len(phones),
        "failed": len(phones) - len(good),
        "reasons": sorted({phone.failed for phone in phones if phone.failed}),
        "codec": options.codec,
        "cpu ms per call-second": round((user + system) * share, 2),
        "of it user, system": [round(user * share, 2), round(system * share, 2)],
        "cpu of the voice, the same": round((voice_user + voice_system) * share, 2),
        "gaps ms p50 p99 max": [round(percentile(gaps, p), 1) for p in (50, 99, 100)],
        "gaps over 40 ms, %": round(100 * sum(gap > 40 for gap in gaps) / max(1, len(gaps)), 3),
        "set-up ms p50 p99": [round(percentile([1000 * phone.set_up for phone in good], p), 1) for p in (50, 99)],
        "first audio ms p50 p99": [
            round(percentile([1000 * phone.first_audio for phone in good], p), 1) for p in (50, 99)
        ],
        "packets lost": sum(phone.lost for phone in good),
        "packets received": sum(phone.received for phone in good),
        "memory KiB per call": round((marks["to"][5] - before) / 1024 / len(phones), 1),
    }


if __name__ == "__main__":
    main()
