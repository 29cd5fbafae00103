"""A long real-time run: calls come and go, some stay for all of it, PBXs register again, strangers send what they like.

    python bench/soak.py [--minutes 25] [--calls 20] [--long 5] [--json FILE]

Three processes on loopback: the service, the scripted voice, and this one with the phones. `--calls` calls of 15 s
each come again and again (one round in three hangs up after 5), `--long` calls last as long as the run (a sequence
number wraps after 22 minutes, a session is refreshed every 45 s), one PBX registers every 5 s, and strangers send
garbage, requests of scanners and wrong passwords. It ends with 0 when nothing failed that had to work, every call has
its record, and the service is as it was before: no file or socket more, memory flat, gaps of the audio within bounds.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.caller import Load
from bench.calls import SCRIPT, memory, percentile
from bench.running import running
from extenbot.sip.digest import answer_challenge, strongest
from extenbot.sip.message import Response, read
from tests.real.test_hostile import faults, noise

REST = 45.0  # seconds after the last call: 32 for a lost ACK or BYE, and some for ports that rest
MOST_GROWTH = 25 << 20  # bytes of memory from the first minutes to the end
MOST_GAPS = 1.0  # % of gaps over 60 ms, on a machine that does other things too


class Registering(threading.Thread):
    """A PBX that registers every 5 s, from an address of its own; `wrong` makes it guess."""

    def __init__(self, server: tuple[str, int], user: str, password: str, host: str, wrong: bool = False) -> None:
        super().__init__(daemon=True)
        self.server, self.user, self.password, self.wrong = server, user, password, wrong
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.settimeout(2.0)
        self.here = "{}:{}".format(*self.socket.getsockname())
        self.codes: list[int] = []
        self.over = threading.Event()
        self._cseq = 0

    def run(self) -> None:
        while not self.over.is_set():
            response = self._ask("")
            if response is not None and response.code == 401:
                challenge = strongest(response.all("www-authenticate"))
                password = "wrong" if self.wrong else self.password
                uri = f"sip:{self.server[0]}"
                response = self._ask(answer_challenge(challenge, "REGISTER", uri, self.user, password, "soak"))
            self.codes.append(response.code if response is not None else 0)
            self.over.wait(0.5 if self.wrong else 5.0)
        self.socket.close()

    def _ask(self, credentials: str) -> Response | None:
        self._cseq += 1
        host = self.server[0]
        authorization = f"Authorization: {credentials}\r\n" if credentials else ""
        data = (
            f"REGISTER sip:{host} SIP/2.0\r\nVia: SIP/2.0/UDP {self.here};rport;branch=z9hG4bKsoak{self._cseq}\r\n"
            f"From: <sip:{self.user}@{host}>;tag=soak\r\nTo: <sip:{self.user}@{host}>\r\nCall-ID: soak@{self.here}\r\n"
            f"CSeq: {self._cseq} REGISTER\r\nContact: <sip:{self.user}@{self.here}>\r\nExpires: 60\r\n"
            f"Max-Forwards: 70\r\n{authorization}Content-Length: 0\r\n\r\n"
        ).encode()
        for _ in range(3):
            self.socket.sendto(data, self.server)
            try:
                while True:
                    message = read(self.socket.recv(65535))
                    if isinstance(message, Response) and message.cseq.number == self._cseq:
                        return message
            except TimeoutError:
                continue
        return None


class Stranger(threading.Thread):
    """Garbage and scanners, some 40 datagrams a second; what is answered is not looked at."""

    def __init__(self, server: tuple[str, int], host: str) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.over = threading.Event()
        self.sent = 0

    def run(self) -> None:
        chance = random.Random(4475)
        while not self.over.is_set():
            for data in (*faults(), *noise(chance, 50, 1500)):
                named = b"\r\nUser-Agent: friendly-scanner\r\n" if chance.random() < 0.2 else b"\r\n"
                self.socket.sendto(data.replace(b"\r\n", named, 1)[:65000], self.server)
                self.sent += 1
                if self.over.wait(0.025):
                    break
        self.socket.close()


def footprint(pid: int) -> dict[str, int]:
    """What a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    threads = next(line for line in status.splitlines() if line.startswith("Threads"))
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return {"files": files, "threads": int(threads.split()[1]), "memory": memory(pid)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--calls", type=int, default=20, help="short calls at one time")
    parser.add_argument("--long", type=int, default=5, help="calls that last as long as the run")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures, problems = soak(Path(folder), options)
    width = max(map(len, figures))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in figures.items()))
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if problems:
        raise SystemExit("\n".join(problems))


def soak(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Start the processes, let them run, stop them; the figures, and what is not as it should be."""
    with running(folder, SCRIPT, EXTENBOT_SIP_SESSION_EXPIRES="90") as started:  # refreshed many times in the run
        figures, problems = run(("127.0.0.1", started.sip), started.bot, started.service, options)
        records = started.command("call", "list", "--limit", "100000")
        figures["records"] = len(records)
        figures["ended"] = {
            why: [r["end_reason"] for r in records].count(why) for why in {r["end_reason"] for r in records}
        }
        if len(records) != figures["calls"]:
            problems.append(f"{figures['calls']} calls left {len(records)} records")
    if started.faults:
        problems.append("the log has a traceback:\n" + started.faults)
    return figures, problems


def run(
    server: tuple[str, int], bot: dict[str, Any], service: int, options: argparse.Namespace
) -> tuple[dict[str, Any], list[str]]:
    """The calls and all that is around them."""
    user, password = bot["username"], bot["password"]
    seconds = 60 * options.minutes
    around = [
        Registering(server, user, password, "127.0.0.51"),
        Registering(server, user, password, "127.0.0.52", wrong=True),
    ]
    stranger = Stranger(server, "127.0.0.53")
    warm = Load(server, user, password, 5, 2.0, 5.0, host="127.0.0.54").run(30)  # what is made only once is made
    time.sleep(5)
    before = footprint(service)
    background: tuple[Registering | Stranger, ...] = (*around, stranger)
    for thread in background:
        thread.start()
    lasting = Load(server, user, password, options.long, seconds, 2.0, host="127.0.0.55")
    patient = threading.Thread(target=lasting.run, args=(seconds + 60,), daemon=True)
    if options.long:
        patient.start()
    phones = list(warm)
    middle: dict[str, int] = {}
    began = time.monotonic()
    rounds = 0
    while time.monotonic() - began < seconds - 15:
        length = 5.0 if rounds % 3 == 2 else 15.0
        load = Load(server, user, password, options.calls, length, 10.0, host=f"127.0.0.{56 + rounds % 4}")
        phones += load.run(length + 60)
        rounds += 1
        if not middle and time.monotonic() - began > min(300.0, seconds / 3):
            middle = footprint(service)
    if options.long:
        patient.join(seconds + 120)
        phones += lasting.phones
    for thread in background:
        thread.over.set()
        thread.join(10)
    time.sleep(REST)
    after = footprint(service)
    gaps = [gap / 1e6 for phone in phones for gap in phone.gaps]
    failed = [phone.failed for phone in phones if phone.failed]
    wide = 100 * sum(gap > 60 for gap in gaps) / max(1, len(gaps))
    figures: dict[str, Any] = {
        "minutes": options.minutes,
        "calls": len(phones),
        "failed": failed,
        "registered": around[0].codes.count(200),
        "not registered": len(around[0].codes) - around[0].codes.count(200),
        "guesses answered": sum(code != 0 for code in around[1].codes),
        "hostile datagrams": stranger.sent,
        "gaps ms p50 p99 max": [round(percentile(gaps, p), 1) for p in (50, 99, 100)],
        "gaps over 60 ms, %": round(wide, 3),
        "packets received": sum(phone.received for phone in phones),
        "lost": sum(phone.lost for phone in phones),
        "before": before,
        "middle": middle,
        "after": after,
    }
    problems = [f"{len(failed)} calls failed: {sorted(set(failed))}"] if failed else []
    if around[0].codes.count(200) != len(around[0].codes):
        problems.append(f"the PBX was not always registered: {around[0].codes}")
    if after["files"] > before["files"] + 2:  # the database may have one more connection
        problems.append(f"files are left: {before['files']}, then {after['files']}")
    if after["memory"] - (middle or before)["memory"] > MOST_GROWTH:
        problems.append(f"memory grew from {(middle or before)['memory']} to {after['memory']}")
    if wide > MOST_GAPS:
        problems.append(f"{wide:.2f} % of the gaps are over 60 ms")
    return figures, problems


if __name__ == "__main__":
    main()
