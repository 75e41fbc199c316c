"""Every command that the pages, the README, the cards and the recipes show can be typed in."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
from click.exceptions import NoArgsIsHelpError

from dpbatch.cli.main import main
from training.settings import read_settings

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "ldp" / "weights").rglob("*.md"),
        *(ROOT / "configs").iterdir(),
    ]
)
_START = r"(?:\.venv/bin/)?(?:python -m (?:dpbatch|training)\b[\w.]*|dpbatch(?= ))"


def commands(page: str) -> tuple[list[list[str]], list[list[str]]]:
    """Return the words of a page's commands: whole ones, and those that a sentence mentions.

    The whole ones are lines of code, and the code with arguments that fills a cell of a table.
    """
    text = re.sub(r"^# ?", "", page, flags=re.MULTILINE)  # the comments of a recipe
    text = re.sub(r"\\\n[ #]*", "", text)
    whole = re.findall(rf"^(?: {{4,}}|\$ )?({_START}.*?)(?:  #.*)?$", _without_prose(text), re.M)
    whole += re.findall(rf"(?<=\| )`({_START} [^`]* [^`]*)`(?= \|)", text)
    spans = re.findall(rf"(?<!`)`({_START}[^`]*)`(?!`)", text)
    mentioned = [re.sub(r"\s+", " ", span) for span in spans if span not in whole]
    return [_words(text) for text in whole], [_words(text) for text in mentioned]


def _words(command: str) -> list[str]:
    return shlex.split(re.sub(r"\[([A-Z]+|--\w+)\]|…", r"\1", command))


def _without_prose(text: str) -> str:
    """Return the lines of the blocks of code, fenced or indented."""
    kept, fenced = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            kept.append(line)
    return "\n".join(kept)


def test_commands_are_found_in_blocks_and_in_sentences() -> None:
    page = (
        "dpbatch is a tool.\n```sh\ndpbatch run A --out B    # tiny\npython -m training.train \\\n"
        "    x.toml\n```\nSee `dpbatch verify B\n[--json]` and `dpbatch:Rescued`.\n\n"
        "    .venv/bin/python -m training.radius 'A B'\n\n| see | `dpbatch status B` | |\n"
    )
    assert commands(page) == (
        [
            ["dpbatch", "run", "A", "--out", "B"],
            ["python", "-m", "training.train", "x.toml"],
            [".venv/bin/python", "-m", "training.radius", "A B"],
            ["dpbatch", "status", "B"],
        ],
        [["dpbatch", "verify", "B", "--json"]],
    )


class Parsed(Exception):  # noqa: N818
    """The command's arguments were understood."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self.arguments = arguments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CHECKOUT").mkdir()  # what is to be there already
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser) -> None:
        raise Parsed(parse(parser))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    whole, mentioned = commands(page.read_text(encoding="utf-8"))
    for words in whole:
        _understand(words, monkeypatch)
    for words in mentioned:
        with contextlib.suppress(
            click.MissingParameter, NoArgsIsHelpError
        ):  # such as "see `dpbatch run --help`"
            _understand(words, monkeypatch)


def _understand(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command, without running it."""
    if words[0].endswith("dpbatch") or words[2] == "dpbatch":
        with contextlib.suppress(click.exceptions.Exit):  # --help
            _parse_dpbatch(words[3 if "-m" in words[:2] else 1 :])
        return
    module = importlib.import_module(words[2])
    monkeypatch.setattr(sys, "argv", words[2:])
    with pytest.raises(Parsed) as caught:
        module.main()
    arguments = caught.value.arguments
    if words[2] == "training.train" and (ROOT / arguments.config).is_file():
        assert read_settings(ROOT / arguments.config, arguments.set)


def _parse_dpbatch(words: list[str]) -> None:
    command: click.Command = main
    context = main.make_context("dpbatch", list(words))
    while isinstance(command, click.Group) and words:
        name, *words = words
        assert name in command.commands, name
        command = command.commands[name]
        if not isinstance(command, click.Group) or words:
            context = command.make_context(name, list(words), parent=context)


def test_the_changes_of_the_page_on_the_paper_are_understood() -> None:
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    changes = [shlex.split(text) for text in re.findall(r"`(--set [^`]*)`", page)]
    assert len(changes) > 10
    for words in changes:
        assert set(words[::2]) == {"--set"}
        assert read_settings(ROOT / "configs" / "ldp-dpdd.toml", words[1::2])


def test_sections_with_tables_of_figures_say_what_printed_them() -> None:
    """A command that the reader can type in, or the commit whose code it was."""
    silent = []
    for page in PAGES:
        if page.suffix != ".md":
            continue
        for section in re.split(r"^#+ ", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            cells = re.findall(r"^\|.*\|$", section, re.MULTILINE)
            figures = re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", "".join(cells))
            named = re.search(rf"`[^`]*{_START}|^{_START}|commit [0-9a-f]{{7}}", section, re.M)
            if len(figures) >= 6 and not named:
                silent.append(f"{page.name}: {section.splitlines()[0]}")
    assert silent == []
