"""The response gate: only one response may write to a conversation at a time.

It is idle, requested (our response.create has no answer yet) or active. What is wanted
meanwhile waits here; several wishes that only mean "go on" become one. The server makes
responses by itself when the caller stops speaking: a waiting "go on" is dropped then,
because that response has seen all that ours was to react to. A greeting is never dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from extenbot.ai.events import section, word
from extenbot.interfaces import Json

GO_ON: Json = {}
"""A response without wishes of its own."""

TAG = "client_event_id"
"""Metadata by which we know our own responses again."""

OVERTAKEN = "conversation_already_has_active_response"


class Gate:
    """Lets one response.create through at a time. `create` sends one and returns its event id."""

    def __init__(self, create: Callable[[Json], str]) -> None:
        self._create = create
        self._waiting: Json | None = None
        self._aside: Json | None = None
        self._requested = ""
        self._sent = ""  # the event id of the latest request, also when it has been answered
        self._options: Json = GO_ON  # of the latest request
        self._refused = False
        self._echoes = False  # whether this server gives our metadata back
        self._held = False
        self.active = ""

    def want(self, options: Json = GO_ON) -> None:
        """Ask for a response, now or when it is possible."""
        self.wait(options)
        self.push()

    def wait(self, options: Json) -> None:
        """Ask for one at the next `push` or the end of another response, not now."""
        self._aside = None
        if self._waiting is None or options:
            self._waiting = options

    def aside(self, options: Json) -> None:
        """Ask for one that is worth having only now: not when the caller speaks or another one is wanted or made."""
        if self._waiting is None and not self._held:
            self._aside = options
            self.push()

    def push(self) -> None:
        """Send what waits if nothing stands in the way."""
        wish = self._aside if self._waiting is None else self._waiting
        if wish is None or self.active or self._requested or self._held:
            return
        self._options, self._waiting, self._aside = wish, None, None
        self._requested = self._sent = self._create(self._options)

    @property
    def busy(self) -> bool:
        """Whether a response runs, has been asked for or will be."""
        return bool(self.active or self._requested) or self._waiting is not None or self._aside is not None

    @property
    def asked(self) -> bool:
        """Whether a response has been asked for that has not begun."""
        return bool(self._requested)

    @property
    def wish(self) -> Json | None:
        """What waits, or has been asked for and not begun."""
        return self._waiting if self._waiting is not None else self._options if self._requested else None

    def give_up(self) -> Json:
        """Whatever runs or was asked for is not waited for any more; the wish that comes of it now."""
        wish = self.wish or GO_ON
        self._waiting, self._aside, self._requested, self.active = None, None, "", ""
        return wish

    def hold(self) -> None:
        """The caller is speaking: what waits would be said into their words."""
        self._held, self._aside = True, None

    def release(self) -> None:
        """The caller is silent, and no response has come of it."""
        self._held = False
        self.push()

    def created(self, response: Json) -> Json:
        """A response has begun; its options, when it is the one that we asked for."""
        self.active = word(response, "id")
        self._held = False
        ours = self._answers(response)
        if ours:
            self._requested, self._refused = "", False
        else:
            self._aside = None
            if self._waiting == GO_ON:
                self._waiting = None
        return self._options if ours else GO_ON

    def done(self, response: Json) -> None:
        """A response has ended; some were never seen to begin."""
        if self.active in ("", word(response, "id")):
            self.active = ""
            if self._answers(response):
                self._requested, self._refused = "", False
        self.push()

    def refused(self, error: Json) -> Json | None:
        """The options of our latest request, when `error` refuses it.

        One that was overtaken waits for another try, once; whoever asks sees to the others.
        """
        named, overtaken = word(error, "event_id"), word(error, "code") == OVERTAKEN
        # A server that names no request can only mean the one that is open.
        ours = named == self._sent if named else overtaken and bool(self._requested)
        if not ours:
            return None
        self._requested = self._sent = ""
        if overtaken and not self._refused:
            self.wait(self._options)
        self._refused = overtaken and not self._refused
        return self._options

    def _answers(self, response: Json) -> bool:
        tag = word(section(response, "metadata"), TAG)
        if tag:
            self._echoes = True
            return tag == self._requested
        return bool(self._requested) and not self._echoes
