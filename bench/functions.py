"""What slow functions do to audio: N calls that speak, of which each asks for a webhook again and again.

    python bench/functions.py [--calls 50] [--seconds 30] [--slow 8] [--json FILE]

The same load twice: without functions, and with a webhook on loopback that answers after `--slow` seconds, asked for
by every call as soon as it has answered. Figures of both: gaps between the packets of a call as the phone's kernel got
them, ms; and how many requests the webhook has had.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.caller import Load
from bench.calls import percentile
from bench.running import running

SPEECH = """speed 4
on greet: tone 440 for 5 s "Hello."
every 5 s: tone 440 for 5 s "And on."
"""
ASKING = """speed 4
on greet:
    tone 440 for 1 s "Hello."
    call look_up {"number": 42}
on output:
    tone 440 for 1 s "It is so."
    call look_up {"number": 43}
"""
REPLY = b'{"status": "shipped"}'


async def _serve(slow: float, asked: Any, port: Any) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                )
                await reader.readexactly(length)
                with asked.get_lock():
                    asked.value += 1
                await asyncio.sleep(slow)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n" % len(REPLY) + REPLY)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000)
    port.value = server.sockets[0].getsockname()[1]
    await server.serve_forever()


def webhook(slow: float, asked: Any, port: Any) -> None:
    """The process of the webhook."""
    asyncio.run(_serve(slow, asked, port))


def measure(options: argparse.Namespace, script: str, url: str) -> dict[str, Any]:
    """One load; with `url` the bot has a function there."""
    most = str(options.calls + 10)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(
            Path(folder), script, EXTENBOT_LIMITS_CALLS=most, EXTENBOT_LIMITS_CALLS_PER_BOT=most,
            EXTENBOT_TOOLS_ALLOW="127.0.0.1", EXTENBOT_TOOLS_IN_FLIGHT=most,
        ) as started,
    ):  # fmt: skip
        bot = started.bot
        if url:
            started.command("function", "add", "--name", "look_up", "--url", url, "--timeout", "30", "--bot", "bench")
        started.command("bot", "edit", "bench", "--silence", "0")
        load = Load(
            ("127.0.0.1", started.sip), bot["username"], bot["password"], options.calls, options.seconds, 20,
        )  # fmt: skip
        phones = load.run(options.seconds + options.calls / 20 + 30)
        faults = started.faults
    gaps = [gap / 1e6 for phone in phones for gap in phone.gaps]
    return {
        "failed": sum(bool(phone.failed) for phone in phones),
        "gaps ms p50 p99 max": [round(percentile(gaps, 50), 1), round(percentile(gaps, 99), 1), round(max(gaps), 1)],
        "gaps over 40 ms, %": round(100 * sum(gap > 40 for gap in gaps) / len(gaps), 3),
        "packets": len(gaps),
        "faults": faults,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--slow", type=float, default=8.0, help="seconds that the webhook takes")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard))
    asked, port = multiprocessing.Value("i", 0), multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=webhook, args=(options.slow, asked, port), daemon=True)
    process.start()
    try:
        without = measure(options, SPEECH, "")
        figures = {"without": without, "with": measure(options, ASKING, f"http://127.0.0.1:{port.value}/")}
    finally:
        process.terminate()
        process.join()
    figures["with"]["requests"] = asked.value
    for name, found in figures.items():
        print(name, found)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
