"""The documentation says what is there: its links, commands, options, settings and variables exist."""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from extenbot import cli
from extenbot.settings import SECTIONS, Settings

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
TOP_KEYS = {each.name for each in fields(Settings)} - SECTIONS.keys()
VARIABLES = {f"EXTENBOT_{key.upper()}" for key in TOP_KEYS} | {
    f"EXTENBOT_{section}_{each.name}".upper() for section, kind in SECTIONS.items() for each in fields(kind)
}
NOUNS = "account|bot|function|mcp|sentence|call|outbox"
#: of the service's start and of the tests, not settings
BESIDES = {"EXTENBOT_CONFIG", "EXTENBOT_SCREENSHOTS"}


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of each page."""
    return ((str(page.relative_to(ROOT)), page.read_text("utf-8")) for page in PAGES)


def below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The sub-commands of a parser."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def verbs() -> dict[str, argparse.ArgumentParser]:
    """`bot add` and the like."""
    return {
        f"{noun} {verb}": parser
        for noun, middle in below(cli._parser()).items()
        for verb, parser in below(middle).items()
    }


def commands(text: str) -> Iterator[str]:
    """What follows `extenbot` wherever a command is written, with its continued lines."""
    text = text.replace("\\\n", " ")
    pieces = re.findall(r"`([^`\n]+)`", text) + text.splitlines()
    for piece in pieces:
        for match in re.finditer(
            r"(?:^\s*(?:\$ )?|\s\| |/bin/|^)extenbot ((?:account|bot|function|mcp|sentence|call|outbox) .*)", piece
        ):
            yield match[1].partition("`")[0]


class Documentation(SynchronousTestCase):
    def test_links(self) -> None:
        """Every relative link and picture leads to a file."""
        for name, text in texts():
            for target in re.findall(r"\]\(([^)\s]+)\)", text):
                if "://" not in target and not target.startswith("#"):
                    self.assertTrue((ROOT / name).parent.joinpath(target.partition("#")[0]).exists(), (name, target))

    def test_pages_are_linked(self) -> None:
        """Every page of docs can be reached from the README."""
        seen, waiting = set(), [ROOT / "README.md"]
        while waiting:
            page = waiting.pop()
            if page not in seen:
                seen.add(page)
                found = re.findall(r"\]\(([^)\s#:]+\.md)[^)]*\)", page.read_text("utf-8"))
                waiting += [(page.parent / target).resolve() for target in found]
        self.assertEqual(set((ROOT / "docs").resolve().glob("*.md")) - seen, set())

    def test_commands(self) -> None:
        """Every command and each of its options that the pages name is there."""
        known, named = verbs(), set()
        for name, text in texts():
            for command in commands(text):
                words = " ".join(cli._spelled_out(command.split())[:2])
                self.assertIn(words, known, name)
                named.add(words)
                options = known[words]._option_string_actions
                for option in re.findall(r"(?<=[\s\[|])(--[a-z][a-z-]*)", command):
                    self.assertIn(option, options, (name, command))
        self.assertEqual(named, known.keys())

    def test_options(self) -> None:
        """The tables of the options of bots, functions and MCP servers are whole, and have nothing else."""
        text = (ROOT / "docs/commands.md").read_text("utf-8").partition("### Examples")[0]
        shared = {"--header", "--bot"}  # told once
        besides = {"-h", "--help", "--config", "--json", "--account"}
        for verb, more in (("bot", set[str]()), ("function", set[str]()), ("mcp", shared)):
            table = re.split(
                r"^Options of ", text.partition(f"Options of `{verb} add`")[2], maxsplit=1, flags=re.MULTILINE
            )[0]
            told = {
                option
                for row in re.findall(r"^\| (`--.*?) \|", table, re.MULTILINE)
                for option in re.findall(r"--[\w-]+", row)
            }
            for name in (f"{verb} add", f"{verb} edit"):
                self.assertEqual(told | more, verbs()[name]._option_string_actions.keys() - besides, name)

    def test_options_of_the_service(self) -> None:
        """`twistd extenbot` takes what the pages give it."""
        source = (ROOT / "extenbot/tap.py").read_text("utf-8")  # to import it would install its reactor for all tests
        long = {f"--{word}" for word in re.findall(r'\["(\w+)", "\w", ', source)}
        self.assertIn("--config", long)
        for name, text in texts():
            for line in re.findall(r"twistd (?:[^`\n]*? )?extenbot ([^`\n]*)", text):
                self.assertEqual(set(re.findall(r"--[a-z]+", line)) - long, set(), name)

    def test_variables(self) -> None:
        """Every EXTENBOT_… is a setting or known to the tests."""
        for name, text in texts():
            for variable in re.findall(r"EXTENBOT_[A-Z_]*[A-Z]\b", text):
                self.assertIn(variable, VARIABLES | BESIDES, name)

    def test_settings(self) -> None:
        """Every `[section] key` in the text, and every key in a piece of TOML, is a setting."""
        sections = "|".join(SECTIONS)
        for name, text in texts():
            for section, key in re.findall(rf"`\[({sections})\] (\w+)", text):
                self.assertIn(key, {each.name for each in fields(SECTIONS[section])}, name)
            for piece in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
                for key, value in tomllib.loads(piece).items():
                    if key in SECTIONS:
                        self.assertLessEqual(value.keys(), {each.name for each in fields(SECTIONS[key])}, name)
                    else:
                        self.assertIn(key, TOP_KEYS, name)

    def test_make(self) -> None:
        """Every `make …` is a target."""
        targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
        for name, text in texts():
            for target in re.findall(r"(?:`|^    )make (\w+)", text, re.MULTILINE):
                self.assertIn(target, targets, name)

    def test_files(self) -> None:
        """Files of the source that are named by their path are there."""
        for name, text in texts():
            for path in re.findall(r"\b((?:extenbot|tests|bench|docs|templates)/[\w/]+\.\w+)", text):
                self.assertTrue((ROOT / path).exists(), (name, path))

    def test_no_machine(self) -> None:
        """No page names a folder of the machine it was written on."""
        for name, text in texts():
            self.assertNotRegex(text, r"/(home|root|work|tmp|Users)/", name)
            self.assertNotIn(str(ROOT), text, name)
