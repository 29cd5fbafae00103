"""The service as an operator sees it: starting, stopping, restarting, and what prevents a start."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.real.caller import Caller
from tests.real.harness import BIN, TWISTD, Process, Service, free_port, new_folder, scripts, surroundings, until

QUIET = 'on greet: say "Hello."'


@pytest.mark.real
class StartAndStop(SynchronousTestCase):
    def test_first_and_second_start(self) -> None:
        """The first start shows pages, SIP address, credentials and, this once, the account's password."""
        service = Service(self)
        first = service.wait_for(r"(?s)extenbot is running.*call openai@\S+")[0]
        self.assertIn(f"http://127.0.0.1:{service.web}/", first)
        self.assertIn(f"127.0.0.1:{service.sip} (UDP)", first)
        password = re.search(r"demo@localhost, password (\S+) \(shown only now\)", first)
        assert password
        credentials = service.credentials()
        second = service.again()
        self.assertEqual(second.credentials(), credentials)
        self.assertNotIn(password[1], second.output)
        self.assertNotIn("demo@localhost", second.output)
        self.assertEqual(Caller(self, second.sip, *credentials).register().code, 200)

    def test_any_port(self) -> None:
        """With port 0 the screen and the log say which ports it became."""
        service = Service(self, ports=(0, 0))
        port = service.wait_for(r"Pages +http://127\.0\.0\.1:([1-9]\d+)/")[1]
        sip = service.wait_for(r"SIP +127\.0\.0\.1:([1-9]\d+) \(UDP\)")[1]
        service.wait_for(rf"extenbot is up: SIP on \['udp:{sip}:.*'\], pages on \['tcp:{port}:interface=127.0.0.1'\]")

    def test_end_of_an_idle_service(self) -> None:
        """SIGTERM and Ctrl-C end it with 0 and without a traceback, also when they come twice."""
        for number in (signal.SIGTERM, signal.SIGINT):
            service = Service(self)
            # The speech process is up as well: Ctrl-C reaches both.
            service.wait_for("hears and speaks|answers with tones only")
            os.killpg(service.process.pid, number)
            os.killpg(service.process.pid, number)
            self.assertEqual(service.process.wait(15), 0)
            service.stop()
            service.check()

    def test_end_during_a_call(self) -> None:
        """SIGTERM while a call is up: the caller gets BYE, the record is written, the exit code is 0."""
        voices = scripts(new_folder(self) / "voices", quiet=QUIET)
        service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=voices)
        caller = Caller(self, service.sip, *service.bot("--model", "sandbox-quiet"))
        caller.call()
        service.process.send_signal(signal.SIGTERM)
        caller.wait_for_bye()
        self.assertEqual(service.stop(), 0)
        [record] = service.records()
        self.assertEqual(record["end_reason"], "service stopped")

    def test_calls_do_not_keep_it_up(self) -> None:
        """A caller who does not answer our BYE and a voice that never opened do not hinder the end."""
        voices = scripts(new_folder(self) / "voices", quiet=QUIET, slow="on connect: wait 60 s")
        service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=voices)
        deaf = Caller(self, service.sip, *service.bot("--model", "sandbox-quiet"))
        deaf.call()
        deaf.socket.close()
        waiting = Caller(self, service.sip, *service.bot("--model", "sandbox-slow"), host="127.0.0.32")
        with self.assertRaises(AssertionError):  # no final answer: it rings
            waiting.invite(timeout=1.5)
        before = time.monotonic()
        self.assertEqual(service.stop(), 0)
        self.assertLess(time.monotonic() - before, 8)
        reasons = [record["end_reason"] for record in service.records(2)]
        self.assertEqual(reasons, ["service stopped"] * 2)

    def test_bindings_survive(self) -> None:
        """A registered phone is still registered after a restart."""
        service = Service(self)
        caller = Caller(self, service.sip, *service.credentials())
        self.assertEqual(caller.register(300).code, 200)
        service = service.again()
        [contact] = caller.register(None).all("contact")
        self.assertIn(caller.here, contact)
        expires = re.search(r"expires=(\d+)", contact)
        assert expires
        self.assertTrue(200 < int(expires[1]) <= 300, contact)

    def test_daemon(self) -> None:
        """A daemon writes its pid and its log, makes no account whose password nobody sees, and ends on SIGTERM."""
        folder = new_folder(self)
        sip = free_port(socket.SOCK_DGRAM)
        command = [TWISTD[0], "--pidfile=twistd.pid", "--logfile=twistd.log", "extenbot"]
        environment = surroundings(folder, sip, free_port())
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=30)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        pid = until("the pid file", lambda: number_in(folder / "twistd.pid"))
        self.addCleanup(kill, pid)
        caller = Caller(self, sip)
        self.assertEqual(until("an answer to OPTIONS", lambda: options(caller)), 200)
        listed = subprocess.run(
            [str(Path(TWISTD[0]).with_name("extenbot")), "account", "list", "--json"],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        self.assertEqual((listed.returncode, listed.stdout.strip()), (0, "[]"))
        os.kill(pid, signal.SIGTERM)
        until("the end", lambda: None if Path(f"/proc/{pid}").exists() else True)
        log = (folder / "twistd.log").read_text()
        self.assertIn("Server Shut Down", log)
        self.assertNotRegex(log, "Traceback|Unhandled|password")
        self.assertFalse((folder / "twistd.pid").exists())

    def test_help(self) -> None:
        """`twistd --help` lists extenbot, and `twistd extenbot --help` its option."""
        general = subprocess.run(
            [TWISTD[0], "--help"], capture_output=True, text=True, timeout=30, cwd=new_folder(self)
        )
        self.assertRegex(general.stdout, r"(?m)^ *extenbot +\w")
        own = subprocess.run(
            [TWISTD[0], "extenbot", "--help"], capture_output=True, text=True, timeout=30, cwd=new_folder(self)
        )
        self.assertRegex(own.stdout, r"-c, --config=")


def number_in(path: Path) -> int | None:
    """The number in a file, once there is one."""
    return int(path.read_text()) if path.exists() and path.read_text().strip() else None


def kill(pid: int) -> None:
    """End a process of ours that a failed test left."""
    if Path(f"/proc/{pid}/cmdline").exists() and b"extenbot" in Path(f"/proc/{pid}/cmdline").read_bytes():
        os.kill(pid, signal.SIGKILL)


def options(caller: Caller) -> int | None:
    """The answer to OPTIONS, if there is one soon."""
    try:
        return caller.ask("OPTIONS", timeout=0.2).code
    except AssertionError:
        return None


@pytest.mark.real
class NoStart(SynchronousTestCase):
    """Every mistake is one clear line; there is no traceback, the exit code is 1."""

    def attempt(self, *options: str, **environment: str) -> list[str]:
        """Try to start; the lines that say why not."""
        folder = new_folder(self)
        surrounding = surroundings(folder, free_port(socket.SOCK_DGRAM), free_port(), **environment)
        done = subprocess.run(
            [*TWISTD, "extenbot", *options], cwd=folder, env=surrounding, capture_output=True, text=True, timeout=30
        )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 1, said)
        self.assertNotRegex(said, "Traceback|Unhandled")
        self.assertNotIn("extenbot is running", said)
        return [line for line in said.splitlines() if line.startswith("extenbot cannot start")]

    def test_sip_port_in_use(self) -> None:
        """The SIP port is taken: the line names it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            place = f"udp:{other.getsockname()[1]}:interface=127.0.0.1"
            [line] = self.attempt(EXTENBOT_SIP_LISTEN=place)
        self.assertEqual(line, f"extenbot cannot start: cannot listen on {place}: another program uses this port")

    def test_daemon(self) -> None:
        """A daemon that cannot start ends the command with 1, says why on the screen and in the log, and is gone."""
        folder = new_folder(self)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            port = other.getsockname()[1]
            done = subprocess.run(
                [TWISTD[0], "--pidfile=twistd.pid", "--logfile=twistd.log", "extenbot"],
                cwd=folder, env=surroundings(folder, port, free_port()), capture_output=True, text=True, timeout=30,
            )  # fmt: skip
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"cannot listen on udp:{port}", done.stdout + done.stderr)
        why = re.compile(f"extenbot cannot start: cannot listen on udp:{port}.*another program uses this port")
        until("the log", lambda: why.search((folder / "twistd.log").read_text()))  # it is told before it is logged
        until("the end", lambda: None if (folder / "twistd.pid").exists() else True)
        self.assertNotIn("Traceback", (folder / "twistd.log").read_text() + done.stdout + done.stderr)

    def test_web_port_in_use(self) -> None:
        """The port of the pages is taken: the line names it."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            place = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            [line] = self.attempt(EXTENBOT_WEB_LISTEN=place)
        self.assertEqual(line, f"extenbot cannot start: cannot listen on {place}: another program uses this port")

    def test_port_of_the_local_voice_in_use(self) -> None:
        """The port of the local voice is taken: the line names it."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            place = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            [line] = self.attempt(EXTENBOT_SANDBOX_LISTEN=place)
        self.assertIn(f"cannot listen on {place}: ", line)

    def test_foreign_address(self) -> None:
        """An address this machine does not have: the line says so."""
        [line] = self.attempt(EXTENBOT_SIP_LISTEN="udp:5060:interface=192.0.2.1")
        self.assertIn("udp:5060:interface=192.0.2.1: this machine has no such address", line)

    def test_wrong_settings(self) -> None:
        """Several mistakes are told at once, each with its key."""
        lines = self.attempt(
            EXTENBOT_RTP_PORTS="20000-10000", EXTENBOT_LIMITS_CALLS="many", EXTENBOT_SIP_LISEN="udp:5060"
        )
        self.assertEqual(len(lines), 3)
        for key in ("[rtp] ports", "[limits] calls", "EXTENBOT_SIP_LISEN"):
            self.assertTrue(any(key in line for line in lines), (key, lines))

    def test_wrong_file(self) -> None:
        """Mistakes in the file are told the same way, and so is a file that is no TOML."""
        path = new_folder(self) / "wrong.toml"
        path.write_text("[web]\nsign_up = 'maybe'\n[sip]\nexpires = 7\nlistn = []\n")
        lines = self.attempt(f"--config={path}", EXTENBOT_DOMAIN="x y")
        self.assertEqual(len(lines), 4, lines)
        for key in ("[web] sign_up", "[sip] expires", "[sip] listn", "domain"):
            self.assertTrue(any(f": {key}: " in line for line in lines), (key, lines))
        path.write_text("[web\n")
        [line] = self.attempt("-c", str(path))
        self.assertIn("is not TOML", line)

    def test_missing_file(self) -> None:
        """A configuration file that cannot be read is named."""
        [line] = self.attempt("--config", "/proc/nowhere.toml")
        self.assertIn("/proc/nowhere.toml: cannot be read", line)

    def test_unwritable_folder(self) -> None:
        """A data folder that cannot be made is named."""
        file = new_folder(self) / "file"
        file.write_text("")
        for path in (str(file / "var"), "/proc/extenbot"):
            [line] = self.attempt(EXTENBOT_DATA=path)
            self.assertIn(path, line)

    def test_broken_database(self) -> None:
        """A file in the place of the database that is none is told, and left as it is."""
        folder = new_folder(self)
        (folder / "extenbot.sqlite3").write_text("not a database, " * 100)
        [line] = self.attempt(EXTENBOT_DATA=str(folder))
        self.assertIn("extenbot.sqlite3", line)
        self.assertEqual((folder / "extenbot.sqlite3").read_text(), "not a database, " * 100)

    def test_console_without_keys(self) -> None:
        """A console whose key file does not exist is no reason to guess."""
        [line] = self.attempt(EXTENBOT_CONSOLE_AUTHORIZED_KEYS="/proc/nowhere")
        self.assertIn("[console] authorized_keys /proc/nowhere", line)


@pytest.mark.real
class Administration(SynchronousTestCase):
    def test_config_file(self) -> None:
        """`--config FILE` says where everything is; `extenbot --config FILE` finds the same database."""
        folder = new_folder(self)
        sip, web = free_port(socket.SOCK_DGRAM), free_port()
        (folder / "my.toml").write_text(
            f'domain = "127.0.0.1"\ndata = "data"\n[sip]\nlisten = ["udp:{sip}:interface=127.0.0.1"]\n'
            f'[web]\nlisten = ["tcp:{web}:interface=127.0.0.1"]\n'
        )
        plain = {name: value for name, value in os.environ.items() if not name.startswith("EXTENBOT_")}
        elsewhere = new_folder(self)
        service = Process(self, [*TWISTD, "extenbot", "--config", str(folder / "my.toml")], cwd=elsewhere, env=plain)
        user, password = service.wait_for(r"username (\S+), password (\S+)").groups()
        self.assertEqual(Caller(self, sip, user, password).register().code, 200)
        self.assertTrue((folder / "data" / "extenbot.sqlite3").exists())
        self.assertEqual(list(elsewhere.iterdir()), [])
        command = [str(BIN / "extenbot"), "bot", "show", user, "--config", str(folder / "my.toml")]
        shown = subprocess.run(command, env=plain, cwd=elsewhere, capture_output=True, text=True)
        self.assertIn(password, shown.stdout)

    def test_changes_reach_the_running_service(self) -> None:
        """A bot made, changed or removed on the command line is so for the running service within a second."""
        service = Service(self)

        def within_a_second(caller: Caller, code: int) -> None:
            until(f"{code} for REGISTER", lambda: caller.register().code == code or None, 1.2)

        stranger = Caller(self, service.sip, "reception", "secret-12345")
        self.assertEqual(stranger.register().code, 403)
        service.command("bot", "add", "--name", "Reception", "--username", "reception", "--password", "secret-12345")
        within_a_second(stranger, 200)
        service.command("bot", "edit", "reception", "--password", "another-12345")
        within_a_second(stranger, 403)
        known = Caller(self, service.sip, "reception", "another-12345")
        self.assertEqual(known.register().code, 200)
        service.command("bot", "edit", "reception", "--disabled")
        within_a_second(known, 480)
        service.command("bot", "edit", "reception", "--enabled")
        within_a_second(known, 200)
        [contact] = known.register(None).all("contact")
        self.assertIn(known.here, contact)
        service.command("bot", "remove", "reception")
        within_a_second(known, 403)

    def test_trusted_address(self) -> None:
        """A bot that trusts an address is called from there without a password, as long as it does."""
        service = Service(self)
        stranger = Caller(self, service.sip, "nobody", "nothing")
        self.assertEqual(stranger.invite().code, 403)
        service.command("bot", "add", "--name", "Trunk", "--username", "trunk", "--trust-address", "127.0.0.0/24")
        until("the call", lambda: stranger.invite().code == 200 or None)
        stranger.hang_up()
        [record] = service.calls()
        self.assertEqual(record["bot_id"], service.command("bot", "show", "Trunk")["id"])
        service.command("bot", "edit", "trunk", "--trust-address", "none")
        until("the refusal", lambda: Caller(self, service.sip, "nobody", "x").invite().code == 403 or None)
