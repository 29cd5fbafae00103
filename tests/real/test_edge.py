"""A proxy (kamailio) in front of the registrar: phones register and call through it, by Path and Record-Route."""

from __future__ import annotations

import shutil
import socket
import sqlite3

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.need import need
from tests.real.harness import Baresip, Process, Service, free_port, new_folder, scripts, until
from tests.real.speech import spoken

HOST = "127.0.0.1"  # of the proxy: behind one, baresip says another media address than it has, so that must be this
PHONE = "127.0.0.23"
CONFIG = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
auto_aliases=no
listen=udp:{host}:{port}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "path.so"
loadmodule "xlog.so"
request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ xlog("L_WARN", "within a call: $rm from $si to $du$ru\\n"); t_relay(); }}
        else if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); }}
        else {{ sl_send_reply("404", "Not Here"); }}
        exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    if (is_method("REGISTER")) {{ add_path(); }}
    if (is_method("INVITE")) {{ record_route(); }}
    $du = "sip:127.0.0.1:{target}";
    t_relay();
}}
onreply_route {{
    if (is_method("REGISTER")) xlog("L_WARN", "REGISTER: $rs path $hdr(Path)\\n");
}}
"""
VOICES = {
    "tone": 'on greet: tone 440 for 30 s "Hello."\n',
    "brief": 'on greet:\n    tone 440 for 1 s "Bye."\n    call end_call\n',
}


@pytest.mark.real
class Edge(SynchronousTestCase):
    def setUp(self) -> None:
        need("kamailio", "apt-get install kamailio", shutil.which("kamailio") is not None)
        need("baresip", "apt-get install baresip-core", shutil.which("baresip") is not None)
        need("sox", "apt-get install sox", shutil.which("sox") is not None)
        self.folder = new_folder(self)
        self.service = Service(self, EXTENBOT_SANDBOX_SCRIPTS=scripts(self.folder / "voices", **VOICES))
        self.port = free_port(socket.SOCK_DGRAM, HOST)
        (self.folder / "kamailio.cfg").write_text(CONFIG.format(host=HOST, port=self.port, target=self.service.sip))
        run = self.folder / "run"
        run.mkdir()
        self.edge = Process(
            self,
            ["kamailio", "-f", str(self.folder / "kamailio.cfg"), "-DD", "-E", "-m", "32", "-M", "4",
             "-P", str(run / "pid"), "-Y", str(run)],
        )  # fmt: skip

    def phone(self, voice: str) -> Baresip:
        """A phone that is registered through the proxy, and calls through it."""
        user, password = self.service.bot("--model", f"sandbox-{voice}")
        server, edge = f"127.0.0.1:{self.service.sip}", f"{HOST}:{self.port}"
        account = f"<sip:{user}@{server};transport=udp>;auth_user={user};auth_pass={password};regint=60"
        account += f';outbound="sip:{edge};transport=udp"'
        sound = spoken(self, 60.0)
        phone = Baresip(self, account, sound, host=PHONE, codecs="PCMU")
        phone.process.wait_for("registered successfully")
        phone.do("sndcode")
        phone.do("dial", f"sip:openai@{server}")
        phone.wait_for("CALL_ESTABLISHED")
        return phone

    def test_path(self) -> None:
        """The proxy's Path is kept with the registration, and told back through it."""
        self.phone("tone").do("hangup")
        path = f"<sip:{HOST}:{self.port};lr>"
        self.edge.wait_for(rf"REGISTER: 200 path {path}")

        def kept() -> list[str] | None:
            with sqlite3.connect(self.service.folder / "var" / "extenbot.sqlite3") as database:
                found = [row[0] for row in database.execute("select path from bindings where path != ''")]
            database.close()
            return found or None

        self.assertEqual(until("the binding", kept), [path])

    def test_within_a_call(self) -> None:
        """Hold, resume and hang-up of the phone pass the proxy, each as a request within the call."""
        phone = self.phone("tone")
        self.edge.wait_for(rf"within a call: ACK from {PHONE}")
        phone.process.wait_for(r"audio=[1-9]\d*/[1-9]")
        phone.do("hold")
        self.edge.wait_for(rf"within a call: INVITE from {PHONE}")
        phone.do("resume")
        self.edge.wait_for(rf"(?s)(within a call: INVITE from {PHONE}.*){{2}}within a call: ACK")
        phone.do("hangup")
        self.edge.wait_for(rf"within a call: BYE from {PHONE}")
        [record] = self.service.calls()
        self.assertEqual(record["end_reason"], "caller hung up")
        self.assertEqual(record["peer"], f"{HOST}:{self.port}")
        self.assertGreater(record["packets_received"], 20)

    def test_bot_hangs_up(self) -> None:
        """The bot's BYE goes through the proxy to the phone."""
        phone = self.phone("brief")
        phone.wait_for("CALL_CLOSED")
        self.edge.wait_for(rf"within a call: BYE from {HOST} .*@{PHONE}")
        [record] = self.service.calls()
        self.assertEqual(record["end_reason"], "bot hung up")
        self.assertGreater(record["packets_received"], 20)
