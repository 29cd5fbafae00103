"""linphone, a phone that knows SHA-256, registers and calls where nothing weaker is offered."""

from __future__ import annotations

import os
import shutil
import socket

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.real.harness import Process, Service, free_port, new_folder, scripts, until


@pytest.mark.real
class Linphone(SynchronousTestCase):
    def setUp(self) -> None:
        need("linphone", "apt-get install linphone-cli", shutil.which("linphonec") is not None)

    def phone(self, *options: str) -> Process:
        """linphone without sound hardware, listening."""
        folder, port = new_folder(self), free_port(socket.SOCK_DGRAM, "::")
        (folder / ".local/share/linphone").mkdir(parents=True)
        (folder / "config").write_text(f"[sip]\nsip_port={port}\n")
        made = Process(
            self, ["linphonec", *options, "-c", str(folder / "config")], cwd=folder, env={**os.environ, "HOME": str(folder)}
        )

        def listens() -> bool | None:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
                try:
                    probe.bind(("::", port))
                except OSError:
                    return True
            return None

        until("linphone's port", listens)
        return made

    def say(self, phone: Process, command: str) -> None:
        assert phone.process.stdin is not None
        print(command, file=phone.process.stdin, flush=True)

    def is_registered(self, phone: Process) -> bool | None:
        """It says so only when it is asked."""
        self.say(phone, "status register")
        return "registered, identity=" in phone.output or None

    def registered(self, phone: Process, service: Service, user: str, password: str) -> None:
        server = f"127.0.0.1:{service.sip}"
        self.say(phone, "soundcard use files")
        self.say(phone, f"register sip:{user}@{server} sip:{server} {password}")
        until("the registration", lambda: self.is_registered(phone))

    def call(self, digest: str) -> None:
        """Register and call where these algorithms are offered."""
        folder = scripts(new_folder(self) / "voices", tone='speed 4\non greet: tone 440 for 5 s "Hello."\n')
        service = Service(self, EXTENBOT_SIP_DIGEST=digest, EXTENBOT_SANDBOX_SCRIPTS=folder)
        user, password = service.bot("--model", "sandbox-tone")
        phone = self.phone()
        self.registered(phone, service, user, password)
        self.say(phone, f"call sip:openai@127.0.0.1:{service.sip}")
        phone.wait_for("Media streams established with sip:openai")
        self.say(phone, "terminate")
        [record] = service.calls()
        self.assertEqual(record["end_reason"], "caller hung up")
        self.assertIsNotNone(record["answered"])

    def test_usual_offer(self) -> None:
        """Offered SHA-256 first and MD5 second, linphone registers and calls the bot."""
        self.call("SHA-256 MD5")

    def test_nothing_weaker(self) -> None:
        """Offered SHA-256 alone, it does so too: it is SHA-256 that it answers with."""
        self.call("SHA-256")
