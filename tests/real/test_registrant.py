"""A bot that is an extension of a real PBX (kamailio): it registers there, and callers of the PBX talk to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme
from twisted.trial.unittest import SynchronousTestCase

from extenbot.sip.headers import Via, name_addr
from extenbot.sip.message import Request
from tests.need import need
from tests.real.caller import Caller
from tests.real.harness import BIN, Baresip, Linphone, Process, Service, free_port, new_folder, scripts, until
from tests.real.test_transfer import silence

HOST = "127.0.0.21"  # of the PBX
CONFIG = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
auto_aliases=no
enable_tls=yes
{listen}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "auth.so"
loadmodule "xlog.so"
loadmodule "tls.so"
modparam("tls", "private_key", "{folder}/key.pem")
modparam("tls", "certificate", "{folder}/chain.pem")
modparam("tls", "tls_method", "TLSv1.2+")
modparam("registrar", "max_expires", {longest})
modparam("registrar", "gruu_enabled", 0)
request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (has_totag()) {{
        xlog("L_WARN", "within a call: $rm from $si\\n");
        if (loose_route()) {{ t_relay(); }}
        else if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); }}
        else {{ sl_send_reply("404", "Not Here"); }}
        exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    if (is_method("REGISTER")) {{
        if (!pv_www_authenticate("pbx.test", "secret", "0")) {{ www_challenge("pbx.test", "1"); exit; }}
        save("location");
        xlog("L_WARN", "REGISTER from $fU contact $ct expires $hdr(Expires)\\n");
        exit;
    }}
    if (is_method("INVITE")) {{ record_route(); }}
    if (!lookup("location")) {{ sl_send_reply("404", "Not Found"); exit; }}
    t_relay();
}}
"""


MODULES = "*/kamailio/modules/tls.so"


@pytest.mark.real
class Registrant(SynchronousTestCase):
    longest = 10  # seconds that the PBX grants

    def setUp(self) -> None:
        need("kamailio", "apt-get install kamailio", shutil.which("kamailio") is not None)
        need("kamailio's TLS", "apt-get install kamailio-tls-modules", any(Path("/usr/lib").glob(MODULES)))
        self.folder = new_folder(self)
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(self.folder / "authority.pem"))
        self.prove(HOST)
        self.port = free_port(socket.SOCK_DGRAM, HOST)  # for phones, and for UDP and TCP of the bot
        self.tls = free_port(socket.SOCK_STREAM, HOST)
        self.host = HOST
        (self.folder / "run").mkdir()
        sip = free_port(socket.SOCK_DGRAM)
        self.service = Service(
            self,
            ports=(sip, free_port()),
            EXTENBOT_SIP_LISTEN=f"udp:{sip}:interface=127.0.0.1,udp:{sip}:interface=\\:\\:1",
            EXTENBOT_SIP_KEEPALIVE="1",
            EXTENBOT_SIP_TRUST=str(self.folder / "authority.pem"),
            EXTENBOT_SANDBOX_SCRIPTS=scripts(
                self.folder / "scripts",
                tone='speed 4\non greet: tone 440 for 5 s "Hello."\n',
                joins='speed 4\non greet:\n    tone 440 for 1 s "I connect you."\n    call transfer_call\n',
            ),
        )

    def prove(self, name: str) -> None:
        """The certificate of the PBX."""
        made = self.authority.issue_cert(name)
        made.private_key_pem.write_to_path(str(self.folder / "key.pem"))
        made.cert_chain_pems[0].write_to_path(str(self.folder / "chain.pem"))

    def pbx(self) -> Process:
        run = self.folder / "run"
        listen = [f"{kind}:{host}:{self.port}" for kind in ("udp", "tcp") for host in (HOST, "[::1]")]
        listen.append(f"tls:{HOST}:{self.tls}")
        (self.folder / "kamailio.cfg").write_text(
            CONFIG.format(
                listen="\n".join(f"listen={each}" for each in listen), folder=self.folder, longest=self.longest
            )
        )
        pbx = Process(
            self,
            ["kamailio", "-f", str(self.folder / "kamailio.cfg"), "-DD", "-E", "-m", "32", "-M", "8",
             "-P", str(run / "pid"), "-Y", str(run)],
        )  # fmt: skip
        until("the PBX", lambda: self.answers() or None)
        return pbx

    def answers(self) -> bool:
        """Whether the PBX answers at all."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((HOST, 0))
            probe.settimeout(0.2)
            here = f"{HOST}:{probe.getsockname()[1]}"
            probe.sendto(
                f"OPTIONS sip:nobody@{HOST} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bKprobe\r\n"
                f"From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n"
                "Content-Length: 0\r\n\r\n".encode(),
                (HOST, self.port),
            )
            try:
                return bool(probe.recv(4000))
            except OSError:
                return False

    def bot(self, password: str = "secret", transport: str = "udp", host: str = HOST, *more: str) -> str:
        """A bot with the extension 100 of the PBX; its id."""
        port = self.tls if transport == "tls" else self.port
        made = self.service.command(
            "bot", "add", "--name", "test", "--type", "registrant", "--username", "100", "--password", password,
            "--domain", host, "--port", str(port), "--transport", transport, "--model", "sandbox-tone", *more,
        )  # fmt: skip
        bot_id: str = made["id"]
        return bot_id

    def reaches(self, bot_id: str, state: str, since: float = 0.0) -> dict[str, Any]:
        """Wait until the command line shows that state of the registration."""

        def look() -> dict[str, Any] | None:
            found = self.service.command("bot", "show", bot_id)["registration"]
            return found[0] if found and found[0]["state"] == state and found[0]["at"] > since else None

        return until(state, look)

    def phone(self) -> Caller:
        return Caller(self, self.port, server=HOST)

    def call(self, transport: str, where: str, host: str = HOST) -> None:
        """A caller of the PBX dials 100 and hears the bot; after a sign-off nobody is there any more."""
        pbx = self.pbx()
        bot_id = self.bot(transport=transport, host=host)
        state = self.reaches(bot_id, "registered")
        self.assertEqual(state["target"], where)
        pbx.wait_for("REGISTER from 100")
        phone = self.phone()
        phone.call("100")
        phone.audio.wait_for_tone(440)
        phone.hang_up()
        [record] = self.service.calls()
        self.assertEqual((record["bot_id"], record["dialled"]), (bot_id, "100"))
        self.assertEqual(record["end_reason"], "caller hung up")
        written = f"[{host}]" if ":" in host else host
        self.assertEqual(record["events"][0]["fields"]["registration"], f"sip:100@{written}")
        self.service.command("bot", "edit", bot_id, "--disabled")
        self.reaches(bot_id, "off")
        self.assertEqual(phone.invite("100").code, 404)

    def test_call(self) -> None:
        """Over UDP."""
        self.call("udp", f"{HOST}:{self.port} (UDP)")

    def test_call_over_tcp(self) -> None:
        """Over TCP the call comes on the connection that the bot has registered by: the service listens nowhere."""
        self.call("tcp", f"{HOST}:{self.port} (TCP)")

    def test_call_over_tls(self) -> None:
        """Over TLS as well, to a PBX that has proved its name by an authority of [sip] trust."""
        self.call("tls", f"{HOST}:{self.tls} (TLS)")

    def test_call_over_ipv6(self) -> None:
        """To a PBX at an IPv6 address."""
        self.call("udp", f"[::1]:{self.port} (UDP)", "::1")

    def test_call_over_ipv6_and_tcp(self) -> None:
        """To a PBX at an IPv6 address, by TCP."""
        self.call("tcp", f"[::1]:{self.port} (TCP)", "::1")

    def test_calls_over_tls(self) -> None:
        """The bot calls an extension of its PBX: the INVITE goes over the connection that it has registered by."""
        pbx = self.pbx()
        bot_id = self.bot(transport="tls")
        self.reaches(bot_id, "registered")
        phone = Caller(self, self.port, "200", "secret", server=HOST)
        self.assertEqual(phone.register().code, 200)
        contact = pbx.wait_for(r"REGISTER from 100 contact <sip:(\S+?);")[1]
        Process(
            self, [str(BIN / "extenbot"), "call", bot_id, "200"],
            cwd=self.service.folder, env=self.service.environment,
        )  # fmt: skip
        invite = phone.wait_for(lambda message: isinstance(message, Request) and message.method == "INVITE", "INVITE")
        self.assertEqual(str(name_addr(invite.first("from") or "").uri), f"sip:100@{HOST}")
        self.assertIn(contact, invite.first("contact") or "")
        via = Via.read(invite.all("via")[1])  # as the PBX saw us
        self.assertEqual(
            (via.transport, f"{via.params['received']}:{via.params['rport']}"), ("TLS", contact.split("@")[1])
        )

    def test_phone_of_the_pbx(self) -> None:
        """A real phone (baresip) of the PBX calls the bot, holds, resumes and hangs up, through the PBX."""
        need("baresip", "apt-get install baresip-core", shutil.which("baresip") is not None)
        self.longest = 600
        pbx = self.pbx()
        self.reaches(self.bot(), "registered")
        account = f"<sip:200@{HOST}:{self.port};transport=udp>;auth_user=200;auth_pass=secret;regint=60"
        phone = Baresip(self, account, silence(self.folder), host="127.0.0.22")
        phone.process.wait_for("registered successfully")
        phone.do("dial", f"sip:100@{HOST}:{self.port}")
        phone.wait_for("CALL_ESTABLISHED")
        phone.process.wait_for(r"audio=[1-9]\d*/[1-9]")  # both ways
        for count, command in enumerate(("hold", "resume"), 1):
            phone.do(command)
            pbx.wait_for(rf"(?s)(INVITE from 127.0.0.22.*?within a call: ACK from 127.0.0.22.*?){{{count}}}")
        phone.do("hangup")
        [record] = self.service.calls()
        self.assertEqual((record["end_reason"], record["caller"]), ("caller hung up", "200"))
        moves = [event["fields"]["direction"] for event in record["events"] if event["what"] == "media.moved"]
        self.assertEqual(moves[-1], "sendrecv")
        self.assertIn("recvonly", moves)

    def test_attended_transfer(self) -> None:
        """A caller is joined with a colleague who has taken the bot's own call, and the bot is in neither call."""
        need("linphone", "apt-get install linphone-cli", shutil.which("linphonec") is not None)
        self.longest = 600
        self.pbx()
        more = ("--transfer-mode", "attended", "--transfer-uri", f"sip:201@{HOST}")
        bot_id = self.bot("secret", "udp", HOST, *more)
        self.service.command("bot", "edit", bot_id, "--model", "sandbox-joins")
        self.reaches(bot_id, "registered")
        caller, colleague = Linphone(self), Linphone(self, "-a")
        for phone, number in ((caller, "200"), (colleague, "201")):
            phone.register(number, f"{HOST}:{self.port}", "secret")
        caller.say(f"call sip:100@{HOST}:{self.port}")
        colleague.wait_for("Media streams established with .*100@")  # the bot asks whether somebody is there
        [record] = self.service.calls()
        self.assertEqual(record["end_reason"], "transferred")
        colleague.wait_for("Media streams established with .*200@")
        colleague.wait_for("Call 1 with .* ended")
        caller.say("terminate")
        colleague.wait_for("Call 2 with .* ended")

    def test_wrong_certificate(self) -> None:
        """A PBX that cannot prove to be who the owner named is sent no login, and the owner reads why."""
        self.prove("pbx.example")
        pbx = self.pbx()
        words = self.reaches(self.bot(transport="tls"), "unreachable")["words"]
        self.assertEqual(
            words,
            f"The PBX cannot be reached at {HOST}:{self.tls} (TLS): "
            f"its certificate is not for {HOST} but for pbx.example.",
        )
        self.assertNotIn("REGISTER from 100", pbx.output)

    def restarted(self, transport: str) -> None:
        pbx = self.pbx()
        bot_id = self.bot(transport=transport)
        state = self.reaches(bot_id, "registered")
        pbx.stop()
        again = self.pbx()
        again.wait_for("REGISTER from 100", 60.0)
        self.assertEqual(self.phone().invite("100").code, 200)
        history = self.reaches(bot_id, "registered", state["at"])
        self.assertEqual(history["state"], "registered")
        past = [each["words"] for each in self.service.command("bot", "show", bot_id)["registration"]]
        self.assertTrue(any("was lost: " in words for words in past), past)

    def test_connection_lost(self) -> None:
        """A PBX that was restarted gets us back as soon as it takes connections, and the history says what was."""
        self.restarted("tcp")

    def test_tls_connection_lost(self) -> None:
        """Over TLS as well."""
        self.restarted("tls")

    def test_frozen(self) -> None:
        """A PBX that takes bytes and does nothing with them is noticed by its unanswered pings."""
        self.longest = 600
        pbx = self.pbx()
        bot_id = self.bot(transport="tcp")
        self.reaches(bot_id, "registered")
        phone = self.phone()
        phone.call("100")
        phone.audio.wait_for(150)  # three seconds: meanwhile it has answered some
        phone.hang_up()
        os.killpg(pbx.process.pid, signal.SIGSTOP)
        self.addCleanup(os.killpg, pbx.process.pid, signal.SIGCONT)

        def lost() -> bool | None:
            history = self.service.command("bot", "show", bot_id)["registration"]
            return any("was lost: it does not answer any more" in each["words"] for each in history) or None

        until("the loss", lost)

    def test_stopped_over_tls(self) -> None:
        """When the service stops, the PBX is told over its connection."""
        pbx = self.pbx()
        self.reaches(self.bot(transport="tls"), "registered")
        self.service.stop()
        pbx.wait_for(r"REGISTER from 100 .* expires 0")

    def test_stranger(self) -> None:
        """Whoever learns the Contact but is not the PBX gets 403."""
        pbx = self.pbx()
        self.bot()
        user = pbx.wait_for(r"contact <sip:([0-9a-f]{24})@")[1]
        self.assertEqual(Caller(self, self.service.sip).invite(user).code, 403)

    def test_wrong_password(self) -> None:
        """A wrong password is shown as refused, with words; the right one is tried at once."""
        self.pbx()
        bot_id = self.bot("wrong")
        self.assertIn("does not accept the username or password", self.reaches(bot_id, "refused")["words"])
        self.service.command("bot", "edit", bot_id, "--password", "secret")
        self.reaches(bot_id, "registered")

    def test_restarted(self) -> None:
        """A PBX that was restarted and has forgotten us gets us back with the next refresh."""
        pbx = self.pbx()
        bot_id = self.bot()
        self.reaches(bot_id, "registered")
        pbx.stop()
        again = self.pbx()
        again.wait_for("REGISTER from 100")
        self.assertEqual(self.phone().invite("100").code, 200)

    def test_service_stopped(self) -> None:
        """When the service stops, the PBX is told."""
        pbx = self.pbx()
        self.reaches(self.bot(), "registered")
        self.service.stop()
        pbx.wait_for(r"REGISTER from 100 .* expires 0")
