"""The house keeps its order: who may import whom, and what the pure rooms must not touch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent / "extenbot"
#: switch, call, and the rooms that a call is made of
CALLS = {
    "switch", "call", "audio", "consultation", "journal", "watch", "failure", "speaking", "keypad", "transferring",
    "toolbox", "table", "inputs", "surroundings", "consent", "screening", "prompt",
}  # fmt: skip
#: lowest first; a module imports only from lower rows, or from its own room
ROWS = (
    {"errors", "interfaces", "settings", "manner", "abilities", "tasks", "networks"},
    {"sip", "media", "ai"},
    CALLS,
    {"net", "store", "web", "sandbox"},
    {"plugins"},
    {"service", "console", "control", "cli", "office", "hooks", "trying", "toolroom"},
    {"tap"},
)
ROW = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
#: the tables of telephone audio, which its neighbours may look into as well
COMMON = "extenbot.media.g711"
PURE = {"sip", "media", "ai"} | CALLS
IMPURE = {"socket", "ssl", "threading", "time", "random", "secrets", "os", "pathlib", "subprocess", "select"}


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room != "__init__":
            yield room, path, ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


class Layout(SynchronousTestCase):
    def test_imports_only_downwards(self) -> None:
        """A module imports from rooms below its own only; rooms of one row are strangers."""
        wrong = []
        for room, path, tree in modules():
            for name in imported(tree):
                parts = name.split(".")
                if parts[0] != "extenbot" or len(parts) < 2 or parts[1] == "__version__" or parts[1] == room:
                    continue
                self.assertIn(parts[1], ROW, f"{path} imports {name}: give the room a row in this test")
                same_allowed = ROW[room] in (0, 2, 5) and ROW[parts[1]] == ROW[room]
                if not (ROW[parts[1]] < ROW[room] or same_allowed or name == COMMON):
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
        self.assertEqual(wrong, [])

    def test_pure_rooms_touch_nothing(self) -> None:
        """sip, media, ai, switch and call use no socket, reactor, thread, file, time or random."""
        wrong = []
        for room, path, tree in modules():
            if room in PURE:
                for name in imported(tree):
                    top = name.split(".")[0]
                    if top in IMPURE or name.startswith(("twisted.internet.reactor", "twisted.internet.threads")):
                        wrong.append(f"{path.relative_to(ROOT)} imports {name}")
        self.assertEqual(wrong, [])
