"""A browser small enough for tests: cookies, forms, and nothing that waits."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

ORIGIN = "http://pages.example.org"


@dataclass
class Page:
    code: int
    text: str
    headers: dict[str, list[str]]
    body: bytes

    @property
    def location(self) -> str:
        return self.headers["location"][0]

    def value(self, name: str) -> str:
        """What stands in the input or text area of that name."""
        found = re.search(rf'<input[^>]* name="{name}"[^>]* value="([^"]*)"', self.text) or re.search(
            rf'<textarea[^>]* name="{name}"[^>]*>\n(.*?)</textarea>', self.text, re.DOTALL
        )
        assert found, f"no field {name}"
        return html.unescape(found[1])

    def chosen(self, name: str) -> str:
        """What is chosen in the list, the radio buttons or the box of that name."""
        found = re.search(rf'<select[^>]* name="{name}".*?</select>', self.text, re.DOTALL)
        marked = (
            re.findall(r'<option value="([^"]*)" selected', found[0])
            if found
            else re.findall(rf'<input type="(?:radio|checkbox)" name="{name}" value="([^"]*)" checked', self.text)
        )
        assert len(marked) < 2, f"{name} has {marked}"
        return html.unescape(marked[0]) if marked else ""

    def problem(self, name: str) -> str:
        """The sentence at a field, or nothing."""
        found = re.search(rf'<p class="problem" id="{name}-problem"[^>]*>([^<]*)</p>', self.text)
        return html.unescape(found[1]) if found else ""


class Browser:
    def __init__(self, resource: Resource, origin: str = ORIGIN) -> None:
        self._client: Any = StubTreq(resource)
        self._origin = origin
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, **more: Any) -> Page:
        """One request, redirects not followed."""
        return self.end(self.start(method, path, **more))

    def start(self, method: str, path: str, **more: Any) -> Deferred[Any]:
        """A request whose answer may take a while: `end` waits for it."""
        headers = more.pop("headers", {})
        if self.cookies:
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **headers}
        asked: Deferred[Any] = self._client.request(
            method, self._origin + path, headers=headers, allow_redirects=False, browser_like_redirects=False, **more
        )
        return asked

    def end(self, asked: Deferred[Any]) -> Page:
        response = self._result(asked)
        body = self._result(response.content())
        found = {
            name.decode().lower(): [value.decode() for value in values]
            for name, values in response.headers.getAllRawHeaders()
        }
        for line in found.get("set-cookie", ()):
            name, _, value = line.split(";")[0].partition("=")
            self.cookies.pop(name, None)
            if value and "max-age=0" not in line.lower():
                self.cookies[name] = value
        return Page(response.code, body.decode("utf-8", "replace"), found, body)

    def get(self, path: str, **more: Any) -> Page:
        return self.ask("GET", path, **more)

    def send(self, path: str, at: str = "", **fields: str) -> Page:
        """Fill in and send the form that the page `at` (or `path` itself) shows."""
        token = self.get(at or path).value("form_token")
        return self.ask("POST", path, data={"form_token": token, **fields})

    def upload(self, path: str, form_token: str, file: bytes) -> Page:
        """Send a form with a file in it, as browsers write it (RFC 7578)."""
        parts = (b'name="form_token"', form_token.encode()), (b'name="file"; filename="said.wav"', file)
        body = b"".join(b"--x-y\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % part for part in parts)
        kind = {"Content-Type": "multipart/form-data; boundary=x-y"}
        return self.ask("POST", path, data=body + b"--x-y--\r\n", headers=kind)

    def _result(self, deferred: Deferred[Any]) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        for _ in range(20):
            if results:
                break
            self._client.flush()
        assert results, "no answer"
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]
