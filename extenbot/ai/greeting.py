"""The first words of the bot: asked for while the phone still rings, held until the caller hears us.

They are the model's, or a stored sentence that is played as it is; the model is told then that they have been said.
An owner may want them heard to their end: until then the caller's audio goes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from extenbot.ai.utterances import Utterances
from extenbot.interfaces import CallLog, Json, VoiceOrder

STORED = "stored greeting"
"""The name of a stored greeting in the playout."""


class Ear(Protocol):
    """Where the caller's audio goes."""

    deaf: bool
    """The model must not hear the caller."""


class Greeting:
    """Of one conversation. `prepared` is called once, when there is something to hear."""

    def __init__(
        self,
        order: VoiceOrder,
        hearing: Ear,
        utterances: Utterances,
        log: CallLog,
        clock: Callable[[], float],
        prepared: Callable[[], None],
    ) -> None:
        self.tell: Callable[[str], object] = _nobody
        """Gives the model a message of ours."""
        self.want: Callable[[Json], object] = _nobody
        """Asks the model for a response with these options."""
        self.asked = self._over = self._heard = False
        self._order = order
        self._hearing = hearing
        self._utterances = utterances
        self._log = log
        self._clock = clock
        self._prepared = prepared
        self._told = False
        self._greeted_at: float | None = None

    def prepare(self) -> None:
        """Have it made, and held."""
        if not self.asked:
            self._utterances.wait(on=True)
            self._ask()

    def greet(self) -> None:
        """The caller hears us."""
        self._greeted_at = self._clock()
        self._hearing.deaf = not self._order.bot.manner.greeting_interruptible
        if not self.asked:
            self._ask()
        self._utterances.wait(on=False)

    def made(self) -> None:
        """There is something to hear, or will not be."""
        if self.asked and not self._told and self._greeted_at is None:
            self._told = True
            self._prepared()

    def began(self) -> bool:
        """An utterance is heard now; whether it is the first one."""
        if self._greeted_at is None or self._heard:
            return False
        self._heard = True
        self._log.happened("greeting.heard", ms=round((self._clock() - self._greeted_at) * 1000))
        return True

    def end(self) -> None:
        """It has been heard to its end, or has come to nothing: from now on the caller is heard in any case."""
        if self._greeted_at is not None and not self._over:
            self._over = True
            self._hearing.deaf = False

    def _ask(self) -> None:
        self.asked = True
        order = self._order
        if not order.greeting:
            self.want(options(order))
            return
        stored = self._utterances.new(0, "", STORED, 0, self._log.elapsed())
        self._utterances.say(stored, order.welcome)
        self._utterances.add(stored, order.greeting)
        self._utterances.finish(stored)
        self.tell(f'[The caller has been greeted already, word by word: "{order.welcome}" Do not greet again.]')
        self.made()


def options(order: VoiceOrder) -> Json:
    """The request for a greeting."""
    say = (
        f'Say exactly: "{order.welcome}" and then wait.'
        if order.welcome
        else "Greet the caller in one short sentence, then wait."
    )
    # Instructions of a response replace those of the session, so they are said again.
    instructions = "\n\n".join(part for part in (order.bot.instruction, say) if part)
    return {"instructions": instructions, "tool_choice": "none", "metadata": {"purpose": "greeting"}}


def _nobody(_what: object) -> None:
    """There is no session yet."""
