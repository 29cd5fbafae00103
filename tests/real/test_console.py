"""The console over SSH: an operator looks at the running service and ends a call; nobody else gets in."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.real.caller import Caller
from tests.real.harness import Process, Service, free_port, new_folder, scripts

HOST = "127.0.0.61"


@pytest.mark.real
class Console(SynchronousTestCase):
    def setUp(self) -> None:
        for program in ("ssh", "ssh-keygen"):
            need(program, "apt-get install openssh-client", shutil.which(program) is not None)
        self.folder = new_folder(self)
        self.port = free_port(host=HOST)
        self.voices = scripts(self.folder / "voices", quiet='on greet: say "Hello."')

    def key(self, name: str) -> Path:
        """A new key pair; the path of the private one."""
        path = self.folder / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        return path

    def service(self, **environment: str) -> Service:
        """The service with its console at a port of its own."""
        return Service(
            self,
            None,
            None,
            EXTENBOT_SANDBOX_SCRIPTS=self.voices,
            EXTENBOT_CONSOLE_LISTEN=f"tcp:{self.port}:interface={HOST}",
            **environment,
        )

    def ssh(self, key: Path) -> Process:
        """An SSH client with this key and no other, on a terminal."""
        options = (
            "BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null", "PreferredAuthentications=publickey", "ConnectTimeout=10",
        )  # fmt: skip
        flags = [part for option in options for part in ("-o", option)]
        return Process(self, ["ssh", "-tt", "-F", "none", "-p", str(self.port), "-i", str(key), *flags, f"op@{HOST}"])

    def type(self, ssh: Process, line: str) -> str:
        """Type a line; what is printed for it."""
        self.typed = getattr(self, "typed", 0) + 1
        assert ssh.process.stdin is not None
        before = len(ssh.output)
        # Printed in two parts, so that the echo of what was typed is not taken for the answer.
        ssh.process.stdin.write(f"{line}\rprint('that was' + ' {self.typed}')\r")
        ssh.process.stdin.flush()
        ssh.wait_for(f"that was {self.typed}")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ssh.output[before:])

    def test_operator(self) -> None:
        """With the right key: calls, bots, bindings and settings are shown, without secrets; a call can be ended."""
        key = self.key("operator")
        service = self.service(EXTENBOT_CONSOLE_AUTHORIZED_KEYS=f"{key}.pub")
        user, password = service.bot("--model", "sandbox-quiet", "--token", "sk-secret-token")
        caller = Caller(self, service.sip, user, password)
        self.assertEqual(caller.register().code, 200)
        ssh = self.ssh(key)
        self.assertIn("(none)", self.type(ssh, "calls"))
        self.assertIn(caller.here, self.type(ssh, "bindings"))
        bots = self.type(ssh, "bots") + self.type(ssh, "service.store.directory.all()")
        self.assertIn(user, bots)
        for secret in (password, "sk-secret-token", service.credentials()[1]):
            self.assertNotIn(secret, bots)
        self.assertIn(f"port={service.sip}", self.type(ssh, "settings"))
        self.assertIn("(none)", self.type(ssh, "guard"))
        self.assertIn("unsent", self.type(ssh, "counters"))
        caller.call()
        shown = re.search(rf"([0-9a-f]{{20}})  {user} → test  talking", self.type(ssh, "calls"))
        assert shown
        self.assertIn("0 calls begin with 'x'", self.type(ssh, "hang_up('x')"))
        self.assertIn("ended", self.type(ssh, f"hang_up('{shown[1][:8]}')"))
        caller.wait_for_bye()
        [record] = service.records()
        self.assertEqual((record["id"], record["end_reason"]), (shown[1], "ended from the console"))
        self.assertIn("ZeroDivisionError", self.type(ssh, "1 / 0"))
        self.assertEqual(caller.register().code, 200)

    def test_wrong_key(self) -> None:
        """Another key is refused."""
        service = self.service(EXTENBOT_CONSOLE_AUTHORIZED_KEYS=f"{self.key('operator')}.pub")
        ssh = self.ssh(self.key("stranger"))
        ssh.wait_for("Permission denied")
        self.assertNotEqual(ssh.process.wait(15), 0)
        self.assertNotIn(">>>", ssh.output)
        self.assertEqual(Caller(self, service.sip).ask("OPTIONS").code, 200)

    def test_secrets_in_settings(self) -> None:
        """A database password in the settings is not shown."""
        key = self.key("operator")
        place = f"sqlite:///{self.folder / 'own.sqlite3'}"
        self.service(EXTENBOT_CONSOLE_AUTHORIZED_KEYS=f"{key}.pub", EXTENBOT_DATABASE_URL=place)
        ssh = self.ssh(key)
        shown = self.type(ssh, "settings")
        self.assertIn("calls_per_bot=50", shown)
        self.assertNotIn("own.sqlite3", shown)

    def test_off_by_default(self) -> None:
        """Without a file of keys nothing listens."""
        self.service()
        with self.assertRaises(ConnectionRefusedError), socket.create_connection((HOST, self.port), 5):
            pass
