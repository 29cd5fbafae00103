"""The pages, as a browser sees them."""

from __future__ import annotations

import re
from dataclasses import replace

from twisted.internet.testing import StringTransport

from extenbot.interfaces import Registration, Standing
from extenbot.settings import Web
from extenbot.web.guides import values
from extenbot.web.seams import Connection
from extenbot.web.site import PagesSite
from extenbot.web.visits import LONGEST_BODY
from tests.store.examples import BINDING, record
from tests.web.browser import Browser
from tests.web.rig import EVIL, PASSWORD, Pages


class Doors(Pages):
    def test_sign_up(self) -> None:
        """A new account is logged in at once, and can log out and in again."""
        browser = self.sign_up("You@Example.org")
        self.assertEqual(browser.get("/").location, "/settings/bots")
        self.assertIn("you@example.org", browser.get("/settings/bots").text)
        self.assertEqual(browser.send("/logout", at="/settings/bots").location, "/login")
        self.assertEqual(browser.get("/settings/bots").location, "/login")
        self.assertEqual(browser.send("/login", email=" you@EXAMPLE.org", password=PASSWORD).location, "/settings/bots")
        self.assertEqual(browser.get("/settings/bots").code, 200)

    def test_demo(self) -> None:
        """The account of the first start, demo@localhost, can log in."""
        demo = self.store.seed_demo()
        assert demo is not None
        self.assertEqual(self.browser.send("/login", email=demo[0], password=demo[1]).location, "/settings/bots")
        self.assertIn("Demo", self.browser.get("/settings/bots").text)

    def test_wrong_sign_up(self) -> None:
        """What is wrong is told at its field; the email stays, the password does not."""
        page = self.browser.send("/signup", email="nobody", password="hunter2")
        self.assertEqual(page.code, 422)
        self.assertTrue(page.problem("email"))
        self.assertTrue(page.problem("password"))
        self.assertEqual((page.value("email"), page.value("password")), ("nobody", ""))
        self.assertNotIn("hunter2", page.text)
        self.sign_up()
        self.assertIn(
            "already", self.browser.send("/signup", email="you@example.org", password=PASSWORD).problem("email")
        )

    def test_wrong_password(self) -> None:
        """A wrong password and an unknown email get the same answer."""
        self.sign_up()
        pages = [
            self.browser.send("/login", email=email, password="wrong")
            for email in ("you@example.org", "me@example.org")
        ]
        self.assertEqual([page.code for page in pages], [422, 422])
        self.assertEqual(pages[0].problem("password"), pages[1].problem("password"))
        self.assertEqual(pages[0].value("email"), "you@example.org")

    def test_guessing(self) -> None:
        """After five wrong passwords one has to wait, also with the right one; others do not."""
        self.sign_up()
        for _ in range(5):
            self.browser.send("/login", email="you@example.org", password="wrong")
        page = self.browser.send("/login", email="you@example.org", password=PASSWORD)
        self.assertEqual(page.code, 429)
        self.assertIn("wait", page.problem("password"))
        self.assertEqual(page.headers["retry-after"], ["16"])
        self.reactor.advance(16)
        self.assertEqual(self.browser.send("/login", email="you@example.org", password=PASSWORD).code, 303)

    def test_no_sign_up(self) -> None:
        """An operator can keep strangers out."""
        self.web = Web(sign_up=False)
        self.setUp()
        self.assertEqual(self.browser.get("/signup").code, 404)
        self.assertNotIn("/signup", self.browser.get("/login").text)
        token = self.browser.get("/login").value("form_token")
        page = self.browser.ask("POST", "/signup", data={"form_token": token, "email": "a@b.c", "password": PASSWORD})
        self.assertEqual((page.code, self.store.accounts.all()), (404, []))

    def test_everything_is_closed(self) -> None:
        """Without a login every page leads to the login page, changes included."""
        self.sign_up()
        for path in (
            "/settings",
            "/settings/account",
            "/settings/bots",
            "/settings/bots/new",
            "/settings/bots/x",
            "/calls",
            "/calls/x",
        ):
            self.assertEqual(self.browser.get(path).location, "/login", path)
        for path in ("/settings/bots/new", "/settings/bots/x/edit", "/settings/bots/x/delete", "/logout"):
            self.assertEqual(self.browser.ask("POST", path, data={"name": "x"}).location, "/login", path)

    def test_log_out_is_final(self) -> None:
        """A cookie that was kept is worth nothing after logging out."""
        browser = self.sign_up()
        kept = dict(browser.cookies)
        browser.send("/logout", at="/settings/bots")
        browser.cookies = kept
        self.assertEqual(browser.get("/settings/bots").location, "/login")

    def test_no_fixation(self) -> None:
        """Logging in gives a new cookie, whatever was there before."""
        browser = self.sign_up()
        first = browser.cookies["extenbot-session"]
        browser.send("/login", at="/settings/bots", email="you@example.org", password=PASSWORD)
        self.assertNotEqual(browser.cookies["extenbot-session"], first)
        browser.cookies = {"extenbot-session": first}
        self.assertEqual(browser.get("/settings/bots").location, "/login")


class Guards(Pages):
    def test_headers(self) -> None:
        """Every answer, also an error, keeps scripts, frames and guesses of strangers out."""
        browser = self.sign_up()
        for path in (
            "/login",
            "/settings/bots",
            "/settings/bots/new",
            "/nothing",
            "/static/extenbot.css",
            "/static/x",
            "/",
        ):
            headers = browser.get(path).headers
            policy = headers["content-security-policy"][0]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(headers["x-content-type-options"], ["nosniff"])
            self.assertIn("referrer-policy", headers)
            kept = "public" if path.endswith(".css") else "no-store"
            self.assertIn(kept, headers["cache-control"][0], path)

    def test_nothing_inline(self) -> None:
        """No page has a style or script that the policy would refuse."""
        browser = self.sign_up()
        path = self.a_bot(browser)
        account = self.store.accounts.all()[0]
        self.store.records.save(record(account.id, path.rsplit("/", 1)[-1]))
        for page in ("/settings/bots", path, f"{path}/edit", f"{path}/delete", "/calls", "/calls/c1", "/nothing"):
            text = browser.get(page).text
            self.assertIsNone(re.search(r"<style|\sstyle=|\son\w+=|javascript:", text), page)
            self.assertTrue(all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), page)

    def test_every_form_has_a_token(self) -> None:
        """No form changes anything without the token that we put into it."""
        browser = self.sign_up()
        path = self.a_bot(browser)
        for page in ("/settings/bots", "/settings/bots/new", path, f"{path}/edit", f"{path}/delete"):
            for form in re.findall(r"<form.*?</form>", browser.get(page).text, re.DOTALL):
                self.assertIn('method="post"', form)
                self.assertIn('name="form_token"', form)

    def test_forged_forms(self) -> None:
        """A form from elsewhere is refused: without a token, with another person's, with a made-up one."""
        browser, other = self.sign_up(), self.sign_up("b@example.org")
        path = self.a_bot(browser)
        for token in (None, "", "x", "\udcff", other.get("/settings/bots").value("form_token")):
            data = {"name": "Mallory"} | (
                {} if token is None else {"form_token": token.encode("utf-8", "replace").decode()}
            )
            for target in ("/settings/bots/new", f"{path}/edit", f"{path}/delete", "/logout"):
                self.assertEqual(browser.ask("POST", target, data=data).code, 403, target)
        self.assertEqual([bot.name for bot in self.store.bots.all()], ["Ada"])
        for target in ("/login", "/signup"):
            page = Browser(self.resource).ask("POST", target, data={"email": "you@example.org", "password": PASSWORD})
            self.assertEqual(page.code, 403)
            self.assertNotIn("extenbot-session", str(page.headers.get("set-cookie")))

    def test_only_forms(self) -> None:
        """JSON, uploads and huge bodies are not forms."""
        browser = self.sign_up()
        upload = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nAda\r\n--x--\r\n'
        for kind in ("application/json", "multipart/form-data; boundary=x", "text/plain"):
            page = browser.ask("POST", "/settings/bots/new", data=upload, headers={"Content-Type": kind})
            self.assertEqual(page.code, 415, kind)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for body, code in ((b"a=" + b"x" * LONGEST_BODY, 413), (b"a=1&" * 600, 400), ("a=ü".encode(), 400)):
            self.assertEqual(browser.ask("POST", "/settings/bots/new", data=body, headers=form).code, code)

    def test_changes_by_post_only(self) -> None:
        """A link changes nothing."""
        browser = self.sign_up()
        path = self.a_bot(browser)
        token = browser.get(path).value("form_token")
        self.assertEqual(browser.get(f"/logout?form_token={token}").code, 405)
        self.assertEqual(browser.get(f"{path}/delete?form_token={token}").code, 200)
        self.assertEqual(browser.ask("POST", f"{path}/delete?form_token={token}", data={"a": "b"}).code, 403)
        self.assertEqual(len(self.store.bots.all()), 1)

    def test_cookies(self) -> None:
        """Cookies are for us alone: no script reads them, no other site sends them along with a form."""
        page = self.browser.send("/signup", email="you@example.org", password=PASSWORD)
        [cookie] = [line for line in page.headers["set-cookie"] if "session" in line]
        for word in ("httponly", "samesite=lax", "path=/", "max-age"):
            self.assertIn(word, cookie.lower())
        self.assertNotIn("secure", cookie.lower())

    def test_cookies_over_https(self) -> None:
        """Behind https they never travel in clear."""
        self.web = Web(url="https://pages.example.org")
        self.setUp()
        page = self.browser.send("/signup", email="you@example.org", password=PASSWORD)
        for cookie in page.headers["set-cookie"]:
            self.assertIn("__Host-", cookie)
            self.assertIn("secure", cookie.lower())
            self.assertNotIn("domain", cookie.lower())
        self.assertIn("strict-transport-security", page.headers)
        self.assertEqual(self.browser.get("/settings/bots").code, 200)

    def test_strangers(self) -> None:
        """Another account's bots and calls are not there: not to see, to change, or to guess."""
        mine, theirs = self.sign_up(), self.sign_up("b@example.org")
        path = self.a_bot(mine)
        owner = self.store.accounts.find("you@example.org")
        assert owner is not None
        self.store.records.save(record(owner.id, path.rsplit("/", 1)[-1]))
        for page in (path, f"{path}/edit", f"{path}/delete", "/calls/c1"):
            self.assertEqual(mine.get(page).code, 200, page)
            self.assertEqual(theirs.get(page).code, 404, page)
        for target in (f"{path}/edit", f"{path}/delete"):
            self.assertEqual(theirs.send(target, at="/settings/bots", name="Mallory").code, 404)
        self.assertNotIn("Ada", theirs.get("/settings/bots").text)
        self.assertNotIn("/calls/c1", theirs.get("/calls").text)
        self.assertEqual([bot.name for bot in self.store.bots.all()], ["Ada"])

    def test_escaping(self) -> None:
        """What people, callers and PBXs send is text on every page, never HTML."""
        browser = self.sign_up()
        path = browser.send(
            "/settings/bots/new",
            name=EVIL,
            kind="registrar",
            instruction=f"</textarea>{EVIL}",
            welcome=EVIL,
            model=EVIL,
        ).location
        bot = self.store.bots.all()[0]
        self.assertEqual(bot.name, EVIL)
        self.bindings[bot.username] = [
            type(
                "Evil",
                (),
                {"contact": EVIL, "user_agent": EVIL, "flow": BINDING.flow, "registered_at": 1.0, "expires_at": 2.0},
            )
        ]
        lines = tuple(line._replace(text=EVIL) for line in record("").transcript)
        events = tuple(event._replace(what=EVIL, fields={EVIL: EVIL}) for event in record("").events)
        self.store.records.save(
            record(
                bot.account_id, bot.id, caller=EVIL, caller_name=EVIL, dialled=EVIL, end_reason=EVIL, sip_call_id=EVIL,
                transcript=lines, events=events, usage={EVIL: 1}, peer=EVIL, codec=EVIL,
            )
        )  # fmt: skip
        for page in ("/settings/bots", path, f"{path}/edit", f"{path}/delete", "/calls", "/calls/c1"):
            text = browser.get(page).text
            self.assertNotIn("<script>alert", text, page)
            self.assertNotIn("</textarea>&lt;", text, page)
            self.assertIn("&lt;script&gt;", text, page)
        refused = self.browser.send("/login", email=f'">{EVIL}', password="x")
        self.assertNotIn("<script>alert", refused.text)
        self.assertEqual(refused.value("email"), f'">{EVIL}')

    def test_no_open_redirect(self) -> None:
        """No parameter or header leads away from here."""
        browser = self.sign_up()
        for path in ("//evil.example/", "/login?next=//evil.example", "/?next=https://evil.example"):
            page = browser.get(path, headers={"Host": "evil.example"})
            self.assertNotIn("evil", str(page.headers.get("location", "")), path)

    def test_faults(self) -> None:
        """A fault of ours is a plain page without its details."""
        browser = self.sign_up()
        self.pool.broken = ZeroDivisionError("secret detail")
        page = browser.get("/settings/bots")
        self.assertEqual((page.code, "secret detail" in page.text), (500, False))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class BotPages(Pages):
    def test_trusted(self) -> None:
        """Addresses that need no password are checked, shown with what they mean, and taken back."""
        browser = self.sign_up()
        page = browser.send("/settings/bots/new", name="Ada", kind="registrar", trusted=f"0.0.0.0/0 {EVIL}")
        self.assertTrue(page.problem("trusted"))
        self.assertIn("spend your money", page.text)
        path = browser.send("/settings/bots/new", name="Ada", kind="registrar", trusted="8.8.0.0/16, 10.8.0.1").location
        [bot] = self.store.bots.all()
        self.assertEqual(bot.trusted, "8.8.0.0/16 10.8.0.1/32")
        text = browser.get(path).text
        for part in ("Trusted addresses", "8.8.0.0/16 10.8.0.1/32", "spend your money", "65,536 public addresses"):
            self.assertIn(part, text)
        self.assertEqual(browser.get(f"{path}/edit").value("trusted"), bot.trusted)
        browser.send(f"{path}/edit", name="Ada", kind="registrar", trusted="")
        self.assertNotIn("Trusted addresses", browser.get(path).text)

    def test_registrant(self) -> None:
        """A bot that registers at a PBX: how it stands with it, in the PBX's words, and how it was before."""
        browser = self.sign_up()
        fields = {"username": "100", "password": "secret", "domain": "pbx.example", "port": "5080", "allowed": EVIL}
        page = browser.send("/settings/bots/new", name="Ada", **(fields | {"kind": "registrant"}))
        self.assertTrue(page.problem("allowed"))
        made = fields | {"kind": "registrant", "allowed": "10.8.0.0/24", "enabled": "on"}
        path = browser.send("/settings/bots/new", name="Ada", **made).location
        [bot] = self.store.bots.all()
        self.assertEqual((bot.port, bot.allowed, bot.expires), (5080, "10.8.0.0/24", 600))
        self.assertIn("It has never been registered", browser.get(path).text)
        state = Registration(
            bot.id, Standing.REGISTERED, 1_900_000_000.0, "", 1_900_000_600.0, 0.0, "192.0.2.9:5060 (UDP)"
        )
        self.store.registrations.write(state)
        words = f"The PBX refuses: 403 {EVIL}."
        self.registrations[bot.id] = replace(
            state, state=Standing.REFUSED, words=words, until=0.0, next_try=1_900_000_045.0
        )
        text = browser.get(path).text
        for part in (
            "Refused by the PBX",
            "403 &lt;script&gt;",
            "Registered at the PBX",
            "192.0.2.9:5060",
            "10.8.0.0/24",
            "Next try at",
        ):
            self.assertIn(part, text)
        self.assertNotIn("Registered until", text)
        self.assertNotIn("<script>alert", text)
        self.assertIn("Refused by the PBX", browser.get("/settings/bots").text)
        self.registrations[bot.id] = state
        self.assertIn("Registered until", browser.get(path).text)
        self.assertEqual(browser.get(f"{path}/edit").value("port"), "5080")

    def test_new_bot(self) -> None:
        """From an empty list to a bot with its connection values."""
        browser = self.sign_up()
        self.assertIn("No bot yet", browser.get("/settings/bots").text)
        path = self.a_bot(browser)
        [bot] = self.store.bots.all()
        self.assertEqual((bot.model, bot.enabled, path), ("sandbox", True, f"/settings/bots/{bot.id}"))
        self.assertEqual(self.store.directory.by_username(bot.username), bot)
        text = browser.get(path).text
        for value in (
            bot.username, bot.password, "voice.example.org", "5070", "20000–30000", "openai@voice.example.org",
            "70000000000@voice.example.org", "PCMU", "PCMA", "FreePBX", "FusionPBX", "voice.example.org:5070",
            "from-internal", "No PBX registered", "No calls yet",
        ):  # fmt: skip
            self.assertIn(value, text)

    def test_round_trip(self) -> None:
        """What is typed is what is kept, and what the form shows again; secrets are never shown."""
        browser = self.sign_up()
        typed = {
            "name": "Büro & Co", "kind": "registrant", "username": "100", "domain": "pbx.example.org", "model": "m",
            "voice": "v", "ai_url": "wss://example.org/v1", "instruction": "One\n\n Two", "welcome": "Hallo",
            "transfer_uri": "sip:100@10.8.0.1",
        }  # fmt: skip
        path = browser.send("/settings/bots/new", password="from-pbx", token="sk-secret", **typed).location
        page = browser.get(f"{path}/edit")
        self.assertEqual(
            {name: page.value(name) for name in typed if name != "kind"},
            {k: v for k, v in typed.items() if k != "kind"},
        )
        self.assertIsNotNone(re.search(r'value="registrant" checked', page.text))
        self.assertIsNone(re.search(r'name="enabled" checked', page.text))
        for text in (page.text, browser.get(path).text, browser.get("/settings/bots").text):
            self.assertNotIn("sk-secret", text)
            self.assertNotIn("from-pbx", text)

    def test_edit_keeps_secrets(self) -> None:
        """Secrets that are left empty stay; new ones replace them; a token can be forgotten."""
        browser = self.sign_up()
        path = self.a_bot(browser, token="sk-old")
        [before] = self.store.bots.all()
        fields = {"name": "Ada", "kind": "registrar", "username": before.username, "enabled": "on"}
        browser.send(f"{path}/edit", token="", password=" ", **fields)
        [bot] = self.store.bots.all()
        self.assertEqual((bot.token, bot.password), ("sk-old", before.password))
        browser.send(f"{path}/edit", token="sk-new", password="another one 1", **fields)
        [bot] = self.store.bots.all()
        self.assertEqual((bot.token, bot.password), ("sk-new", "another one 1"))
        del fields["enabled"]
        browser.send(f"{path}/edit", forget_token="on", **fields)
        [bot] = self.store.bots.all()
        self.assertEqual((bot.token, bot.enabled), ("", False))
        self.assertIn("Switched off", browser.get(path).text)

    def test_wrong_bot(self) -> None:
        """Wrong input comes back as it was typed, a sentence at each field, and nothing is saved."""
        browser = self.sign_up()
        typed = {
            "name": "",
            "username": "openai",
            "ai_url": "http://x",
            "transfer_uri": "nowhere",
            "instruction": "Be <kind>",
        }
        page = browser.send("/settings/bots/new", kind="registrar", password="abc", token="sk secret", **typed)
        self.assertEqual(page.code, 422)
        self.assertEqual({name: page.value(name) for name in typed}, typed)
        for name in ("name", "username", "password", "token", "ai_url", "transfer_uri"):
            self.assertTrue(page.problem(name), name)
        self.assertFalse(page.problem("instruction"))
        self.assertEqual((page.value("password"), page.value("token")), ("", ""))
        self.assertNotIn("sk secret", page.text)
        self.assertEqual(self.store.bots.all(), [])
        path = self.a_bot(browser)
        self.assertEqual(browser.send(f"{path}/edit", name="", kind="registrar").code, 422)
        self.assertEqual(self.store.bots.all()[0].name, "Ada")

    def test_labels(self) -> None:
        """Each field has a label, and a wrong one points to its sentence."""
        page = self.sign_up().send("/settings/bots/new", name="", kind="registrar")
        ids = set(re.findall(r'\sid="([^"]+)"', page.text))
        for tag in re.findall(r"<(?:input|textarea)\b[^>]*>", page.text):
            if not re.search(r'type="(hidden|radio|checkbox)"', tag):
                field = re.search(r'\sid="([^"]+)"', tag)
                assert field
                self.assertIn(f'<label for="{field[1]}"', page.text)
            for ids_named in re.findall(r'aria-describedby="([^"]+)"', tag):
                self.assertLessEqual(set(ids_named.split()), ids)
        self.assertIsNotNone(re.search(r'id="name"[^>]*aria-invalid="true"', page.text))

    def test_delete(self) -> None:
        """A bot goes after one more question; its calls stay."""
        browser = self.sign_up()
        path = self.a_bot(browser)
        [bot] = self.store.bots.all()
        self.store.records.save(record(bot.account_id, bot.id))
        self.assertIn("Delete Ada?", browser.get(f"{path}/delete").text)
        self.assertEqual(browser.send(f"{path}/delete").location, "/settings/bots")
        self.assertEqual(browser.get(path).code, 404)
        self.assertIn("deleted", browser.get("/calls").text)
        self.assertEqual(browser.get("/calls/c1").code, 200)

    def test_registered(self) -> None:
        """Whether the PBX is there, from where, and what it calls itself."""
        browser = self.sign_up()
        path = self.a_bot(browser)
        [bot] = self.store.bots.all()
        self.bindings[bot.username] = [BINDING]
        self.assertIn("PBX registered", browser.get("/settings/bots").text)
        text = browser.get(path).text
        for value in ("10.8.0.1:5060", BINDING.user_agent, BINDING.contact):
            self.assertIn(value, text)

    def test_ipv6(self) -> None:
        """An IPv6 domain stands in brackets where a URI needs it."""
        [bot] = [self.store.bots.add(self.store.accounts.add("a@b.c", PASSWORD).id, {"name": "Ada"})]
        shown = {value.label: value.text for value in values(bot, Connection("2001:db8::1"))}
        self.assertEqual(shown["SIP URI of the bot"], "openai@[2001:db8::1]")
        self.assertEqual(shown["Server address"], "2001:db8::1")


class Listening(Pages):
    def talk(self, data: bytes) -> bytes:
        """What a raw connection gets for these bytes."""
        factory = PagesSite(self.resource)
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(data)
        protocol.connectionLost(None)
        return bytes(transport.value())

    def test_long_bodies(self) -> None:
        """A body longer than any form of ours is refused before it is sent."""
        head = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (LONGEST_BODY + 1)
        self.assertTrue(self.talk(head).startswith(b"HTTP/1.1 413 "))

    def test_long_chunks(self) -> None:
        """So is one that does not say how long it will be."""
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        head = b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = self.talk(head + chunk * 12)
        self.assertEqual(answer.count(b"HTTP/1.1 413 "), 1)
        self.assertNotIn(b"HTTP/1.1 413 ", self.talk(head + chunk * 3))
