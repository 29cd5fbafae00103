"""SIPp calls the service: many calls with audio both ways, and what phones seldom do."""

from __future__ import annotations

import shutil
import socket

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import loudness
from tests.need import need
from tests.real.audio import Audio
from tests.real.harness import Process, Service, free_port, new_folder, scripts

HOST = "127.0.0.11"  # of SIPp's SIP; its audio is the test's own
#: the bot speaks without a pause, each sentence sent four times faster than it plays, as real services do
TALKATIVE = """speed 4
on greet: tone 440 for 5 s "Hello."
every 5 s: tone 440 for 5 s "And on."
"""
REQUEST = """<send><![CDATA[
{method} sip:{to}@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];{branch}
Max-Forwards: 70
From: <sip:[field0]@[remote_ip]>;tag=[call_number]
To: <sip:{to}@[remote_ip]>{tag}
Call-ID: [call_id]
CSeq: {cseq} {method}
Contact: <sip:[field0]@[local_ip]:[local_port]>
{extra}
]]></send>
"""
SDP = """Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [field2]
t=0 0
m=audio [field3] RTP/AVP {formats}
a=ptime:20
"""
NO_BODY = "Content-Length: 0\n"


def request(method: str, cseq: int, extra: str = NO_BODY, branch: str = "branch=[branch]", to: str = "openai") -> str:
    """A `send` of a scenario."""
    tag = "" if method in ("INVITE", "CANCEL") else "[peer_tag_param]"
    return REQUEST.format(method=method, cseq=cseq, extra=extra, branch=branch, to=to, tag=tag)


def receive(code: int, more: str = "") -> str:
    """A `recv` of a scenario."""
    return f'<recv response="{code}" {more}/>\n'


def invite(formats: str = "0 101", to: str = "openai") -> str:
    """INVITE, the challenge, and the INVITE with credentials; its branch is named because CANCEL must repeat it."""
    sdp = SDP.format(formats=formats)
    return (
        request("INVITE", 1, sdp, to=to)
        + receive(100, 'optional="true"')
        + receive(401, 'auth="true"')
        + request("ACK", 1, to=to)
        + request("INVITE", 2, f"[field1]\n{sdp}", "branch=z9hG4bK-[call_id]-2", to=to)
        + receive(100, 'optional="true"')
    )


def says(code: int, *headers: tuple[str, str]) -> str:
    """A `recv` of a response with these headers, each with an expression that its value matches.

    What matched is kept as a variable: of `RSeq` in a 180 as `rseq180`.
    """
    search = '<ereg regexp="{}" search_in="hdr" header="{}:" check_it="true" assign_to="{}"/>'
    parts = [search.format(expression, name, f"{name.lower()}{code}") for name, expression in headers]
    names = ",".join(f"{name.lower()}{code}" for name, _ in headers)
    return f'<recv response="{code}"><action>{"".join(parts)}</action></recv>\n<Reference variables="{names}"/>\n'


RINGING = receive(180, 'optional="true"')
ACK_OF_REFUSAL = request("ACK", 2, branch="branch=z9hG4bK-[call_id]-2")
SPEAK = (
    invite()
    + RINGING
    + receive(200)
    + request("ACK", 2)
    + '<pause milliseconds="{ms}"/>\n'
    + request("BYE", 3)
    + receive(200)
)


@pytest.mark.real
class Sipp(SynchronousTestCase):
    def setUp(self) -> None:
        need("SIPp", "apt-get install sip-tester", shutil.which("sipp") is not None)
        self.folder = new_folder(self)
        self.scripts = scripts(
            self.folder / "scripts",
            talkative=TALKATIVE,
            slow="on connect: wait 20 s",
            key='on open:\n    error invalid_api_key "Incorrect API key provided."\n'
            '    close 3000 "invalid_request_error.invalid_api_key"\n',
        )
        self.service = Service(
            self,
            EXTENBOT_SANDBOX_SCRIPTS=self.scripts,
            EXTENBOT_AI_OPEN_TIMEOUT="30",
            EXTENBOT_SIP_DIGEST="MD5 SHA-256",  # SIPp 3.6 takes the first challenge, and knows only MD5
        )

    def sipp(self, scenario: str, user: str, password: str, audio: list[int], rate: float = 20) -> Process:
        """SIPp with one call for each audio port, all at one time; it ends with 0 when every call went as written."""
        (self.folder / "scenario.xml").write_text(
            f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="test">\n{scenario}</scenario>\n'
        )
        credentials = f"[authentication username={user} password={password}]"
        rows = [f"{user};{credentials};127.0.0.12;{port}" for port in audio]
        (self.folder / "calls.csv").write_text("\n".join(["SEQUENTIAL", *rows, ""]))
        count = str(len(audio))
        command = [
            "sipp", f"127.0.0.1:{self.service.sip}", "-i", HOST, "-p", str(free_port(socket.SOCK_DGRAM, HOST)),
            "-sf", "scenario.xml", "-inf", "calls.csv", "-m", count, "-l", count, "-r", str(rate),
            "-nostdin", "-timeout", "60s", "-timeout_error", "-trace_err", "-error_file", "errors.log",
        ]  # fmt: skip
        return Process(self, command, cwd=self.folder)

    def succeed(self, sipp: Process) -> None:
        """Wait for SIPp to end, with 0."""
        code = sipp.process.wait(70)
        errors = self.folder / "errors.log"
        words = errors.read_text() if errors.exists() else ""
        self.assertEqual(code, 0, f"{words[-3000:]}\n{sipp.output[-3000:]}")

    def bot(self, script: str) -> tuple[str, str]:
        """A bot with this script as its voice."""
        return self.service.bot("--model", f"sandbox-{script}")

    @pytest.mark.timed
    def test_twenty_calls(self) -> None:
        """Twenty calls of ten seconds at one time, none fails, and both sides hear each other without gaps.

        SIPp does the signalling, digest included. It shares one RTP port among its calls and keeps no times,
        so that each of its offers names a port of the test instead: these answer where they hear from, each
        in its own phase of the 20 ms, and the kernel says when each packet came.
        """
        user, password = self.bot("talkative")
        audio = Audio(self, "127.0.0.12", 20)
        sipp = self.sipp(SPEAK.format(ms=10_000), user, password, [end.port for end in audio.ends])
        self.succeed(sipp)
        audio.stop()
        for end in audio.ends:
            self.assertGreater(end.received, 480)
            self.assertEqual(end.lost, 0)
            self.assertGreater(loudness(bytes(end.heard[8000:16000]), "PCMU", 440), 1000)
        gaps = sorted(gap for end in audio.ends for gap in end.gaps)
        self.assertLess(gaps[len(gaps) * 99 // 100], 40.0)
        records = self.service.records(20)
        self.assertEqual({record["end_reason"] for record in records}, {"caller hung up"})
        for record in records:
            self.assertGreater(record["packets_received"], 480)
            self.assertEqual(record["packets_lost"], 0)
            self.assertGreater(record["packets_sent"], 480)

    def test_cancel_while_ringing(self) -> None:
        """A caller who gives up while it rings gets 200 for CANCEL and 487 for the call, which is recorded."""
        scenario = (
            invite()
            + receive(180)
            + request("CANCEL", 2, branch="branch=z9hG4bK-[call_id]-2")
            + receive(200)
            + receive(487)
            + ACK_OF_REFUSAL
        )
        self.succeed(self.sipp(scenario, *self.bot("slow"), [20000]))
        [record] = self.service.records()
        self.assertEqual((record["end_reason"], record["answered"]), ("caller gave up", None))

    def test_wrong_password(self) -> None:
        """A wrong password gets 403 after the challenge."""
        user, _ = self.service.credentials()
        self.succeed(self.sipp(invite() + receive(403) + ACK_OF_REFUSAL, user, "wrong", [20000]))
        self.assertEqual(self.service.command("call", "list"), [])

    def test_unknown_user_and_number(self) -> None:
        """An unknown username gets 403, as a wrong password does; a number nobody has gets 404."""
        user, password = self.service.credentials()
        self.succeed(self.sipp(invite() + receive(403) + ACK_OF_REFUSAL, "nobody", "wrong", [20000]))
        refused = receive(404) + ACK_OF_REFUSAL.replace("openai", "12345")
        self.succeed(self.sipp(invite(to="12345") + refused, user, password, [20000]))

    def test_no_common_codec(self) -> None:
        """An offer without G.711 gets 488 with a Warning that says so."""
        says = '<recv response="488"><action><ereg regexp="^ *305 .*" search_in="hdr" header="Warning:" check_it="true"'
        warned = says + ' assign_to="1"/></action></recv>\n<Reference variables="1"/>\n'
        user, password = self.service.credentials()
        self.succeed(self.sipp(invite("9 18") + warned + ACK_OF_REFUSAL, user, password, [20000]))

    def test_refused_key(self) -> None:
        """A bot whose voice service refuses the key gets the caller 480, with a Reason that says why."""
        says = '<recv response="480"><action><ereg regexp="cause=480.*key" search_in="hdr" header="Reason:"'
        told = says + ' check_it="true" assign_to="1"/></action></recv>\n<Reference variables="1"/>\n'
        self.succeed(self.sipp(invite() + RINGING + told + ACK_OF_REFUSAL, *self.bot("key"), [20000]))
        [record] = self.service.records()
        self.assertRegex(record["end_reason"], "key")

    def test_extensions(self) -> None:
        """A call that requires 100rel and timer: PRACK, refreshes of both kinds, a key by INFO; then BYE."""
        demands = "Require: 100rel, timer\nSession-Expires: 90;refresher=uac\nMin-SE: 90\n"
        timer = ("Session-Expires", "90;refresher=uac")
        asked = "Supported: timer\nSession-Expires: 90;refresher=uac\n"
        sdp = SDP.format(formats="0 101")
        key = "Content-Type: application/dtmf-relay\nContent-Length: [len]\n\nSignal=5\nDuration=160\n"
        again = request("INVITE", 6, f"{asked}{sdp}").replace(
            "To: <sip:openai@[remote_ip]>", "To: <sip:openai@[remote_ip]>[peer_tag_param]"
        )
        scenario = (
            invite().replace("[field1]\n", f"[field1]\n{demands}")
            + says(180, ("RSeq", "[0-9]+"), ("Require", "100rel"))
            + request("PRACK", 3, f"RAck: [$rseq180] 2 INVITE\n{NO_BODY}")
            + receive(200)
            + says(200, timer, ("Require", "timer"))
            + request("ACK", 2)
            + request("INFO", 4, key)
            + receive(200)
            + request("UPDATE", 5, f"{asked}{NO_BODY}")
            + says(200, timer)
            + again
            + receive(100, 'optional="true"')
            + says(200, timer)
            + request("ACK", 6)
            + request("BYE", 7)
            + receive(200)
        )
        self.succeed(self.sipp(scenario, *self.service.credentials(), [20000]))
        [record] = self.service.records()
        self.assertEqual(record["end_reason"], "caller hung up")
        [call] = self.service.calls()
        self.assertEqual([e["fields"]["digit"] for e in call["events"] if e["what"] == "dtmf"], ["5"])

    def test_session_too_short(self) -> None:
        """Who wants to be asked more often than every 90 s gets 422, which says so."""
        small = "[field1]\nSupported: timer\nSession-Expires: 60\n"
        scenario = invite().replace("[field1]\n", small) + says(422, ("Min-SE", "90")) + ACK_OF_REFUSAL
        self.succeed(self.sipp(scenario, *self.service.credentials(), [20000]))
        self.assertEqual(self.service.command("call", "list"), [])
