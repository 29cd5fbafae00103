"""REGISTERs with digest and calls from INVITE to BYE, as many a second as asked for, with SIPp as the PBX.

    python bench/sip.py [--registers 500,1000,1500] [--calls 50,100,150] [--seconds 20] [--json FILE] [--profile FILE]

Three processes on loopback: the service on a core of its own, and SIPp with the scripted voice on the others. Each step
lasts the given seconds. A REGISTER is answered 401, comes again with credentials and gets 200; it belongs to one of 100
bots. A call is an INVITE with its challenge, 200 when the voice is ready, ACK and BYE. Figures of each step:

    reached   REGISTERs or calls a second that were whole
    cpu       CPU seconds of the service for 1,000 of them, and how many a second would fill its core
    answer    from the request with credentials to its 200, ms, as SIPp measures it
    memory    of the service, MiB, before and after
    again     retransmissions of SIPp
    guard     at the end: what `Guard.lets` costs for one packet, ns

--profile writes what py-spy sees during the last step (`pip install py-spy`).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from twisted.internet.task import Clock

from bench.calls import cpu, memory, percentile
from bench.registrar import PASSWORD, fill, name
from bench.running import running
from extenbot import settings
from extenbot.sip.guard import Guard
from tests.real.harness import BIN, free_port

BOTS = 100
HOST = "127.0.0.31"
REGISTER = """<send retrans="500"{start}><![CDATA[
REGISTER sip:[remote_ip] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];rport;branch=[branch]
Max-Forwards: 70
From: <sip:[field0]@[remote_ip]>;tag=[call_number]
To: <sip:[field0]@[remote_ip]>
Call-ID: [call_id]
CSeq: {cseq} REGISTER
Contact: <sip:[field0]@[local_ip]:[local_port];line=abcd>
Expires: 3600
User-Agent: FPBX-16.0.40(18.13.0)
{credentials}Content-Length: 0

]]></send>
"""
REGISTERING = (
    REGISTER.format(cseq=1, start="", credentials="")
    + '<recv response="401" auth="true"/>\n'
    + REGISTER.format(cseq=2, start=' start_rtd="1"', credentials="[field1]\n")
    + '<recv response="200" rtd="1"/>\n'
)
ASK = """<send{options}><![CDATA[
{method} sip:openai@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];rport;branch={branch}
Max-Forwards: 70
From: <sip:[field0]@[remote_ip]>;tag=[call_number]
To: <sip:openai@[remote_ip]>{tag}
Call-ID: [call_id]
CSeq: {cseq} {method}
Contact: <sip:[field0]@[local_ip]:[local_port]>
{rest}
]]></send>
"""
EMPTY = "Content-Length: 0\n"
OFFER = """Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio [media_port] RTP/AVP 0 101
a=rtpmap:101 telephone-event/8000
a=ptime:20
"""


def ask(method: str, cseq: int, rest: str = EMPTY, options: str = "", branch: str = "[branch]") -> str:
    tag = "" if method == "INVITE" or branch != "[branch]" else "[peer_tag_param]"
    return ASK.format(method=method, cseq=cseq, rest=rest, options=options, branch=branch, tag=tag)


CALLING = (
    ask("INVITE", 1, OFFER, ' retrans="500"', "z9hG4bK-[call_id]-1")
    + '<recv response="100" optional="true"/>\n<recv response="401" auth="true"/>\n'
    + ask("ACK", 1, branch="z9hG4bK-[call_id]-1")
    + ask("INVITE", 2, "[field1]\n" + OFFER, ' retrans="500" start_rtd="1"')
    + '<recv response="100" optional="true"/>\n<recv response="180" optional="true"/>\n<recv response="200" rtd="1"/>\n'
    + ask("ACK", 2)
    + ask("BYE", 3, options=' retrans="500"')
    + '<recv response="200"/>\n'
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registers", default="500,1000,1500", help="rates, a second; empty for none")
    parser.add_argument("--calls", default="50,100,150", help="rates, a second; empty for none")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each step")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--profile", type=Path, help="py-spy's flame graph of the last step, or .txt for folded stacks")
    options = parser.parse_args()
    if shutil.which("sipp") is None:
        raise SystemExit("SIPp is needed: apt-get install sip-tester")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options)
    show(figures["steps"])
    print(f"guard: {figures['guard ns']} ns a packet")
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def show(steps: list[dict[str, Any]]) -> None:
    """A table, one line a step."""
    rows = [list(steps[0]), *(list(step.values()) for step in steps)]
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(value).rjust(width) for value, width in zip(row, widths, strict=True)))


def pinned(core: int) -> list[str]:
    """What a command starts with to stay on that core."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core % len(cores)])]


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Start the processes, take the steps, stop the processes."""
    (folder / "var").mkdir()
    fill(folder / "var", BOTS, 0)
    with running(
        folder,
        'on greet: tone 440 for 5 s "Hello."\n',
        before=pinned(0),
        before_voice=pinned(1),
        EXTENBOT_SIP_DIGEST="MD5",  # SIPp before 3.7 knows no other
        EXTENBOT_LIMITS_CALLS="2000",
        EXTENBOT_LIMITS_CALLS_PER_BOT="2000",
    ) as started:
        who = [(name(number), PASSWORD) for number in range(BOTS)]
        plan = [("REGISTER", REGISTERING, who, int(rate)) for rate in options.registers.split(",") if rate]
        caller = [(started.bot["username"], started.bot["password"])]
        plan += [("call", CALLING, caller, int(rate)) for rate in options.calls.split(",") if rate]
        steps = []
        for number, (kind, scenario, users, rate) in enumerate(plan):
            spy = options.profile if number == len(plan) - 1 else None
            steps.append(step(folder, started.sip, started.service, kind, scenario, users, rate, options.seconds, spy))
    if started.faults:
        print(started.faults, file=sys.stderr)
    return {"steps": steps, "guard ns": guard_cost()}


def step(
    folder: Path, sip: int, service: int, kind: str, scenario: str, users: list[tuple[str, str]], rate: int,
    seconds: float, spy: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """One run of SIPp at one rate."""
    place = Path(tempfile.mkdtemp(prefix=f"{kind}-{rate}-", dir=folder))
    (place / "s.xml").write_text(f'<?xml version="1.0"?>\n<scenario name="bench">\n{scenario}</scenario>\n')
    rows = [f"{user};[authentication username={user} password={password}]" for user, password in users]
    (place / "u.csv").write_text("\n".join(["SEQUENTIAL", *rows, ""]))
    count = int(rate * seconds)
    command = [
        *pinned(1), "sipp", f"127.0.0.1:{sip}", "-i", HOST, "-p", str(free_port(socket.SOCK_DGRAM, HOST)),
        "-sf", "s.xml", "-inf", "u.csv", "-m", str(count), "-l", str(10 * rate), "-r", str(rate), "-nostdin",
        "-mp", "40000", "-trace_rtt", "-rtt_freq", "1", "-trace_stat", "-stf", "stat.csv", "-timeout",
        f"{seconds + 30:.0f}s", "-trace_err", "-error_file", "errors.log", "-buff_size", "4000000",
    ]  # fmt: skip
    before, used, began = memory(service), sum(cpu(service)), time.monotonic()
    sipp = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watch = None
    if spy is not None:
        form = "raw" if spy.suffix == ".txt" else "flamegraph"
        limits = ["-f", form, "-r", "200", "-d", str(int(seconds))]
        watch = subprocess.Popen([str(BIN / "py-spy"), "record", "-p", str(service), "-o", str(spy), *limits])
    sipp.wait()
    took = time.monotonic() - began
    used = sum(cpu(service)) - used
    if watch is not None:
        watch.wait()
    with (place / "stat.csv").open() as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    done, failed = int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"])
    answers = []
    for path in place.glob("*_rtt.csv"):
        with path.open() as file:
            answers += [float(row["response_time_ms"]) for row in csv.DictReader(file, delimiter=";")]
    each = used / max(1, done)
    return {
        "what": kind,
        "asked/s": rate,
        "reached/s": round(done / took),
        "failed": failed + count - done - failed,
        "again": int(last["Retransmissions(C)"]),
        "cpu s/1000": round(1000 * each, 3),
        "a core/s": round(1 / each) if each else 0,
        "answer ms p50": percentile(answers, 50),
        "p99": percentile(answers, 99),
        "MiB before": round(before / 2**20, 1),
        "after": round(memory(service) / 2**20, 1),
    }


def guard_cost() -> int:
    """Nanoseconds that the guard takes for a stranger's packet of 500 bytes."""
    guard = Guard(Clock(), settings.Guard(messages=100_000, burst=1_000_000))
    data = b"INVITE sip:x SIP/2.0\r\nUser-Agent: FPBX-16.0.40\r\n".ljust(500, b"x")
    return round(1e9 * timeit.timeit(lambda: guard.lets("192.0.2.1", data), number=100_000) / 100_000)


if __name__ == "__main__":
    main()
