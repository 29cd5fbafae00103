"""A state machine written as a table: one row for each thing that may happen, all else means nothing.

Automat runs it: what happens while a step is done waits until that is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from automat import TypeMachineBuilder
from twisted.logger import Logger

Row = tuple[str, Any, str, Callable[..., object]]
"""In this state, when this input comes, go to that state, and do this."""


class Stateful(Protocol):
    """Whose machine it is; its class has the inputs."""

    log: Logger
    id: str
    state: str


Owner = TypeVar("Owner", bound=Stateful)


def inputs_of(protocol: type) -> tuple[str, ...]:
    """The names of all inputs of a protocol."""
    return tuple(name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_"))


def states_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """The names of all states, in the order in which they are first named."""
    return tuple(dict.fromkeys(name for source, _, target, _ in rows for name in (source, target)))


def machine(inputs: Any, owner: type[Owner], rows: Iterable[Row]) -> Callable[[Owner], Any]:
    """The machine of these rows; the first state named is the initial one. It makes the `inputs` of an owner.

    An action that raises is logged, and the input `failed` follows: the machine itself goes on.
    """
    rows = tuple(rows)
    names = states_of(rows)
    builder = TypeMachineBuilder(inputs, owner)
    states = {name: builder.state(name) for name in names}
    known = {(source, event.__name__): (target, action) for source, event, target, action in rows}
    for source in names:
        for event in inputs_of(inputs):
            upon = states[source].upon(getattr(inputs, event))
            if (source, event) in known:
                target, action = known[source, event]
                upon.to(states[target])(_output(target, action))
            else:
                upon.loop().returns(None)
    build: Callable[[Owner], Any] = builder.build()
    return build


def _output(target: str, action: Callable[..., object]) -> Callable[..., None]:
    def output(inputs: Any, owner: Stateful, *arguments: object) -> None:
        owner.state = target
        try:
            action(owner, *arguments)
        except Exception:  # noqa: BLE001
            owner.log.failure("Call {id} failed by our own fault", id=owner.id)
            inputs.failed()

    return output
