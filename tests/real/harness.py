"""The service and real phones as processes on loopback, for tests that wait for events and never sleep."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from tests.real.caller import Caller

BIN = Path(sys.executable).parent
TWISTD = (str(BIN / "twistd"), "-n", "--pidfile=", "--logfile=-")
T = TypeVar("T")
_HEADER, _PIECE = 44, 320  # bytes of a WAV before its sound, and of 20 ms


_PORTS = range(20_100, 32_000)  # below those that systems give to who asks for any (32768 on), above our RTP
_given: set[int] = set()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM, host: str = "127.0.0.1") -> int:
    """A port that nobody uses now, and that nobody is given by chance before the test uses it."""
    for _ in range(1000):
        port = secrets.choice(_PORTS)  # by lot: tests of other processes choose too
        if port in _given:
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise AssertionError("no free port")


def until(what: str, look: Callable[[], T | None], timeout: float = 30.0) -> T:
    """Look again and again until there is something; for what can only be polled, such as another process's records."""
    end = time.monotonic() + timeout
    while (found := look()) is None:
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(0.05)
    return found


def new_folder(test: SynchronousTestCase) -> Path:
    """An empty folder that goes with the test."""
    made = tempfile.TemporaryDirectory(prefix="extenbot-", ignore_cleanup_errors=True)
    test.addCleanup(made.cleanup)
    return Path(made.name)


def surroundings(folder: Path, sip: int, web: int, **changes: str) -> dict[str, str]:
    """The environment of a service on loopback with its data below `folder`."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("EXTENBOT_")},
        "EXTENBOT_DATA": str(folder / "var"),
        "EXTENBOT_DOMAIN": "127.0.0.1",
        "EXTENBOT_SIP_LISTEN": f"udp:{sip}:interface=127.0.0.1",
        "EXTENBOT_RTP_INTERFACE": "127.0.0.1",
        "EXTENBOT_WEB_LISTEN": f"tcp:{web}:interface=127.0.0.1",
        **changes,
    }


class Process:
    """A program whose output is read as it comes. It is ended with the test, and its children with it."""

    ours = False
    """What is ours must end when it is told to."""

    def __init__(self, test: SynchronousTestCase, command: list[str], **options: Any) -> None:
        self.output = ""
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", bufsize=1, start_new_session=True, **options,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        test.addCleanup(self.stop)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.output += line
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """Wait until the output matches."""
        end = time.monotonic() + timeout
        with self._news:
            while not (match := re.search(pattern, self.output)):
                left = end - time.monotonic()
                if left <= 0 or not (self._reader.is_alive() or self.process.poll() is None):
                    raise AssertionError(f"no {pattern!r} in the output:\n{self.output[-4000:]}")
                self._news.wait(min(left, 1.0))
        return match

    def _kill_all(self) -> None:
        """It leads a group of its own: what is left of that goes too."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self, timeout: float = 15.0) -> int:
        """End it and wait for its last words; returns its exit code."""
        late = False
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                late = True
        self._kill_all()
        self.process.wait()
        self._reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        if late and self.ours:  # others may hang as they like: a busy kamailio does, now and then
            raise AssertionError(f"did not end on SIGTERM:\n{self.output[-4000:]}")
        return self.process.returncode


class Service(Process):
    """`twistd -n extenbot` in a folder of its own, on ports of its own, on the screen of the test."""

    ours = True

    def __init__(
        self, test: SynchronousTestCase, folder: Path | None = None, ports: tuple[int, int] | None = None,
        **environment: str,
    ) -> None:  # fmt: skip
        self.test = test
        self.folder = folder or new_folder(test)
        self.sip, self.web = ports or (free_port(socket.SOCK_DGRAM), free_port())
        self.environment = surroundings(self.folder, self.sip, self.web, **environment)
        test.addCleanup(self.check)
        super().__init__(test, [*TWISTD, "extenbot"], cwd=self.folder, env=self.environment)
        self.wait_for("extenbot is running")

    def again(self) -> Service:
        """End it, and start it once more on the same data and ports."""
        self.stop()
        own = {name: value for name, value in self.environment.items() if name.startswith("EXTENBOT_")}
        return Service(self.test, self.folder, (self.sip, self.web), **own)

    def check(self) -> None:
        """Nothing may have gone wrong unseen, to the end."""
        self.test.assertNotRegex(getattr(self, "output", ""), r"Traceback|Unhandled")

    def credentials(self) -> tuple[str, str]:
        """Username and password of the demo bot, from the screen."""
        user, password = self.wait_for(r"username (\S+), password (\S+)").groups()
        return user, password

    def command(self, *words: str) -> Any:
        """Run `extenbot WORDS --json` on the same database."""
        done = subprocess.run(
            [str(BIN / "extenbot"), *words, "--json"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise AssertionError(f"extenbot {' '.join(words)}: {done.stderr}")
        return json.loads(done.stdout)

    def bot(self, *words: str) -> tuple[str, str]:
        """Make a bot by the command line; its username and password, once the running service knows it."""
        made = self.command("bot", "add", "--name", "test", *words)
        caller = Caller(self.test, self.sip, made["username"], made["password"])
        until("the new bot", lambda: caller.register(None).code == 200 or None)
        return made["username"], made["password"]

    def records(self, count: int = 1, timeout: float = 30.0) -> list[dict[str, Any]]:
        """The last calls without what was said, once there are `count`."""

        def look() -> list[Any] | None:
            found = self.command("call", "list", "--limit", "100")
            return found if len(found) >= count else None

        return until(f"{count} call records", look, timeout)

    def calls(self, count: int = 1, timeout: float = 30.0) -> list[dict[str, Any]]:
        """The last calls with all that is known of them, once there are `count`."""
        return [self.command("call", "show", call["id"]) for call in self.records(count, timeout)]


def scripts(folder: Path, **texts: str) -> str:
    """Write voice scripts, NAME.txt each; the folder, for EXTENBOT_SANDBOX_SCRIPTS."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return str(folder)


class Baresip:
    """baresip without sound hardware: plays a WAV into its calls and records what it hears."""

    def __init__(
        self, test: SynchronousTestCase, account: str, source: Path, host: str = "127.0.0.1", codecs: str = "PCMU,PCMA"
    ) -> None:
        """Its RTP comes from 127.0.0.1 whatever `host`, its signalling's, is; its SDP names the machine's own address:
        with another `host` what it sends does not prove that it is there, and it is sent 15 s of audio, no more."""
        self.folder = new_folder(test)
        (self.folder / "rec").mkdir()
        six = ":" in host
        control, listen = free_port(host=host), f"[{host}]" if six else host
        modules = "\n".join(
            f"module {name}.so" for name in ("stdio", "g711", "aufile", "ausine", "uuid", "sndfile", "aubridge", "srtp")
        )
        (self.folder / "config").write_text(
            f"""sip_listen {listen}:{free_port(socket.SOCK_DGRAM, host)}
audio_player aubridge,nil
audio_source aufile,{source}
audio_alert aubridge,nil2
ausrc_srate 8000
auplay_srate 8000
ausrc_channels 1
auplay_channels 1
rtp_ports 34000-34900
module_path /usr/lib/baresip/modules
{modules}
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen {listen}:{control}
snd_path {self.folder}/rec
ring_aufile none
ringback_aufile none
"""
        )
        (self.folder / "accounts").write_text(f"{account};audio_codecs={codecs}\n")
        (self.folder / "contacts").write_text("")
        (self.folder / "uuid").write_text("00000000-0000-0000-0000-000000000001")
        self.process = Process(test, ["baresip", "-6" if six else "-4", "-f", str(self.folder)])
        self._socket: socket.socket = until("baresip's control port", lambda: self._connect(host, control))
        test.addCleanup(self._socket.close)
        self._buffer = b""
        self._heard = 0  # bytes of its recording
        self.events: list[dict[str, Any]] = []

    def _connect(self, host: str, port: int) -> socket.socket | None:
        try:
            return socket.create_connection((host, port), timeout=1)
        except OSError:
            return None

    def do(self, command: str, parameters: str = "") -> None:
        """Send one command (a netstring of JSON)."""
        text = json.dumps({"command": command, "params": parameters, "token": command})
        self._socket.sendall(f"{len(text)}:{text},".encode())

    def wait_for(self, kind: str, timeout: float = 30.0) -> dict[str, Any]:
        """Wait for the next event of this type, such as CALL_ESTABLISHED."""
        end = time.monotonic() + timeout
        while True:
            message = self._next(end, kind)
            if message.get("event"):
                self.events.append(message)
                if message.get("type") == kind:
                    return message

    def _next(self, end: float, kind: str) -> dict[str, Any]:
        while True:
            head, colon, rest = self._buffer.partition(b":")
            if colon and len(rest) > int(head):
                body, self._buffer = rest[: int(head)], rest[int(head) + 1 :]
                message: dict[str, Any] = json.loads(body)
                return message
            left = end - time.monotonic()
            if left <= 0:
                seen = [event.get("type") for event in self.events]
                raise AssertionError(f"baresip: no {kind}, only {seen}\n{self.process.output[-3000:]}")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise AssertionError(f"baresip is gone:\n{self.process.output[-3000:]}")
            self._buffer += data

    def play(self, source: Path) -> None:
        """Play this WAV into the call from now on, in place of what it played."""
        self.do("ausrc", f"aufile,{source}")

    def listen(self, timeout: float = 40.0) -> None:
        """Wait until it has heard something since the last time, and then a second of silence: its turn to speak."""
        until("a word and then silence", self._has_heard, timeout)

    def _has_heard(self) -> bool | None:
        """Whether a second of what it heard is silent after something that was not, behind what is known already."""
        sound = self.recording().read_bytes()
        pieces = [sound[at : at + _PIECE] for at in range(_HEADER + self._heard, len(sound) - _PIECE, _PIECE)]
        spoke = False
        for number, piece in enumerate(pieces):
            if max(memoryview(piece).cast("h")) > 500:
                spoke, last = True, number
            elif spoke and number - last >= 50:
                self._heard += (number + 1) * _PIECE
                return True
        return None

    def recording(self, side: str = "dec") -> Path:
        """What it heard (dec) or said (enc), after the call."""
        return until(f"baresip's {side} recording", lambda: next(iter((self.folder / "rec").glob(f"*{side}*")), None))


class Linphone(Process):
    """linphone without sound hardware, told what to do on its standard input."""

    def __init__(self, test: SynchronousTestCase, *options: str) -> None:
        folder, port = new_folder(test), free_port(socket.SOCK_DGRAM, "::")
        (folder / ".local/share/linphone").mkdir(parents=True)
        (folder / "config").write_text(f"[sip]\nsip_port={port}\n")
        command = ["linphonec", *options, "-c", str(folder / "config")]
        super().__init__(test, command, cwd=folder, env={**os.environ, "HOME": str(folder)})
        until("linphone's port", lambda: self._listens(port))
        self.say("soundcard use files")

    def _listens(self, port: int) -> bool | None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("::", port))
            except OSError:
                return True
        return None

    def say(self, command: str) -> None:
        """Give a command."""
        assert self.process.stdin is not None
        print(command, file=self.process.stdin, flush=True)

    def register(self, user: str, server: str, password: str) -> None:
        """Register there, `server` is HOST:PORT, and wait until that is done."""
        self.say(f"register sip:{user}@{server} sip:{server} {password}")
        until("the registration", self._is_registered)

    def _is_registered(self) -> bool | None:
        """It says so only when it is asked."""
        self.say("status register")
        return "registered, identity=" in self.output or None
