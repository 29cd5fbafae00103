"""A real phone (baresip) is transferred by the bot: it arrives, or comes back when the target is busy."""

from __future__ import annotations

import shutil
import socket
import wave
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from extenbot.media.g711 import from_linear
from tests.memory import loudness
from tests.need import need
from tests.real.harness import Baresip, Process, Service, free_port, new_folder, scripts

SCRIPT = """on greet:
    tone 440 for 1 s "I connect you."
    call transfer_call
on output transfer_call:
    tone 880 for 1 s "They are busy."
    call end_call
"""
NAMED = SCRIPT.replace("call transfer_call", 'call transfer_call {"destination": "sales"}')
TARGET = "127.0.0.13"
BUSY = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="busy">
<recv request="INVITE"/>
<send><![CDATA[
SIP/2.0 486 Busy Here
[last_Via:]
[last_From:]
[last_To:];tag=busy
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
<recv request="ACK"/>
</scenario>
"""


@pytest.mark.real
class Transfer(SynchronousTestCase):
    def setUp(self) -> None:
        need("baresip", "apt-get install baresip-core", shutil.which("baresip") is not None)
        need("SIPp", "apt-get install sip-tester", shutil.which("sipp") is not None)

    def target(self, *scenario: str) -> tuple[Process, str]:
        """Somebody who gets one call; the process and its address."""
        port = free_port(socket.SOCK_DGRAM, TARGET)
        command = ["sipp", *scenario, "-i", TARGET, "-p", str(port), "-m", "1", "-nostdin", "-rtp_echo"]
        return Process(self, command, cwd=new_folder(self)), f"sip:100@{TARGET}:{port}"

    def busy(self) -> tuple[Process, str]:
        """Somebody who is on the phone already; the process and its address."""
        folder = new_folder(self)
        (folder / "busy.xml").write_text(BUSY)
        return self.target("-sf", str(folder / "busy.xml"))

    def call(self, *options: str, script: str = SCRIPT) -> tuple[Baresip, Service]:
        """baresip calls a bot that transfers it."""
        service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=scripts(new_folder(self) / "voices", connects=script))
        user, password = service.bot("--model", "sandbox-connects", *options)
        account = f"<sip:{user}@127.0.0.1:{service.sip};transport=udp>;auth_user={user};auth_pass={password};regint=60"
        phone = Baresip(self, account, silence(new_folder(self)))
        phone.process.wait_for("registered successfully")
        phone.do("sndcode")
        phone.do("dial", f"sip:openai@127.0.0.1:{service.sip}")
        phone.wait_for("CALL_ESTABLISHED")
        return phone, service

    def told(self, record: dict[str, Any]) -> list[int]:
        """The codes of what became of the transfer."""
        return [event["fields"]["code"] for event in record["events"] if event["what"] == "transfer"]

    def test_arrives(self) -> None:
        """The caller hears that it is connected, talks to the target, and the bot's call ends as transferred."""
        target, uri = self.target("-sn", "uas")
        phone, service = self.call("--transfer-uri", uri)
        phone.wait_for("CALL_ESTABLISHED")  # with the target
        [record] = service.calls()
        self.assertEqual(record["end_reason"], "transferred")
        self.assertEqual(self.told(record)[-1], 200)
        self.assertEqual([line["text"] for line in record["transcript"]], ["I connect you."])
        phone.do("hangup")
        self.assertEqual(target.process.wait(15), 0)

    def test_comes_back(self) -> None:
        """The target is busy: the bot is told so, and goes on talking with the caller."""
        target, uri = self.busy()
        phone, service = self.call("--transfer-uri", uri)
        phone.wait_for("CALL_CLOSED")
        [record] = service.calls()
        self.assertEqual(target.process.wait(15), 0)
        self.assertEqual(record["end_reason"], "bot hung up")
        self.assertEqual([line["text"] for line in record["transcript"]], ["I connect you.", "They are busy."])
        [answer] = [event for event in record["events"] if event["what"] == "tool.answered"]
        self.assertRegex(answer["fields"]["output"], r"^The line is busy \(486 Busy Here\)\. The caller is still")
        phone.process.stop()
        with wave.open(str(phone.recording())) as file:
            heard = from_linear("PCMU", file.readframes(file.getnframes()))
        pieces = [heard[at : at + 1600] for at in range(0, len(heard), 1600)]
        self.assertGreater(max(loudness(part, "PCMU", 880) for part in pieces), 1000)

    def test_second_address(self) -> None:
        """Of a named destination the first address is busy: the caller gets to the second without another word."""
        busy, first = self.busy()
        target, second = self.target("-sn", "uas")
        phone, service = self.call("--destination", "sales", f"{first} {second}", script=NAMED)
        phone.wait_for("CALL_ESTABLISHED")  # with the second
        [record] = service.calls()
        self.assertEqual(busy.process.wait(15), 0)
        self.assertEqual(record["end_reason"], "transferred to sales")
        self.assertIn(486, self.told(record))
        self.assertEqual(self.told(record)[-1], 200)
        self.assertEqual([line["text"] for line in record["transcript"]], ["I connect you."])
        phone.do("hangup")
        self.assertEqual(target.process.wait(15), 0)


def silence(folder: Path) -> Path:
    """A minute of silence as a WAV."""
    path = folder / "silence.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * 8000 * 60))
    return path
