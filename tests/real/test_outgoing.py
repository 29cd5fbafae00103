"""`extenbot call`: a bot calls a real phone (baresip), whose user hears it, and the command tells what became of it."""

from __future__ import annotations

import shutil
import subprocess
import wave

import pytest
from twisted.trial.unittest import SynchronousTestCase

from extenbot.media.g711 import from_linear
from tests.memory import loudness
from tests.need import need
from tests.real.harness import BIN, Baresip, Process, Service, new_folder, scripts
from tests.real.test_transfer import silence

SCRIPT = """on greet:
    tone 440 for 1 s "Your order is here."
    call end_call
"""


@pytest.mark.real
class Outgoing(SynchronousTestCase):
    def setUp(self) -> None:
        need("baresip", "apt-get install baresip-core", shutil.which("baresip") is not None)
        self.service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=scripts(new_folder(self) / "voices", brings=SCRIPT))
        self.user, self.password = self.service.bot("--model", "sandbox-brings")

    def phone(self, mode: str, codecs: str = "PCMU,PCMA") -> Baresip:
        """A phone that is registered as the bot's PBX would be."""
        account = (
            f"<sip:{self.user}@127.0.0.1:{self.service.sip};transport=udp>;auth_user={self.user};"
            f"auth_pass={self.password};regint=60;answermode={mode}"
        )
        phone = Baresip(self, account, silence(new_folder(self)), codecs=codecs)
        phone.process.wait_for("registered successfully")
        phone.do("sndcode")
        return phone

    def order(self, *words: str) -> Process:
        """`extenbot call …`, which follows the call."""
        command = [str(BIN / "extenbot"), "call", self.user, *words]
        return Process(self, command, cwd=self.service.folder, env=self.service.environment)

    def test_answered(self) -> None:
        """The phone rings, its user hears the bot in the law the phone wants, and the command ends with 0."""
        for codec in ("PCMU", "PCMA"):
            phone = self.phone("auto", codec)
            order = self.order(self.user)
            order.wait_for("answered")
            phone.wait_for("CALL_CLOSED")
            order.wait_for("ended: bot hung up")
            self.assertEqual(order.process.wait(15), 0)
            phone.process.stop()
            with wave.open(str(phone.recording())) as file:
                heard = from_linear("PCMU", file.readframes(file.getnframes()))
            pieces = [heard[at : at + 1600] for at in range(0, len(heard), 1600)]
            self.assertGreater(max(loudness(part, "PCMU", 440) for part in pieces), 1000, codec)
        self.assertEqual([call["outgoing"] for call in self.service.calls(2)], [True, True])

    def test_declined(self) -> None:
        """The phone's user declines: the command says so, and ends with 1."""
        phone = self.phone("manual")
        order = self.order(f"sip:{self.user}@127.0.0.1:{self.service.sip}")
        order.wait_for("ringing")
        phone.do("hangup")
        order.wait_for("ended: not answered: 486")
        self.assertEqual(order.process.wait(15), 1)

    def test_nobody_there(self) -> None:
        """Without a PBX, and without a service, one line says why."""
        order = self.order("100")
        order.wait_for("No PBX is registered")
        self.assertEqual(order.process.wait(15), 1)
        self.service.stop()
        done = subprocess.run(order.process.args, cwd=self.service.folder, env=self.service.environment,
                              capture_output=True, text=True)  # fmt: skip
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "No extenbot runs with the data folder")
        self.assertNotIn("Traceback", done.stderr)
