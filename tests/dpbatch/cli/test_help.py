"""The help of the command line, and what answering a question imports."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields

import pytest
from click.testing import CliRunner, Result

from dpbatch import __version__
from dpbatch.cli.main import main
from dpbatch.settings import Settings

HEAVY = {"torch", "numpy", "cv2", "rawpy", "exiv2", "tifffile", "imagecodecs", "ray", "tqdm"}


def dpbatch(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["presets"], ["status", "--help"]]
)
def test_answering_a_question_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from dpbatch.cli.main import main\n"
        f"main({arguments}, standalone_mode=False)\n"
        f"assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_it_runs_as_a_module_and_says_its_version() -> None:
    command = [sys.executable, "-m", "dpbatch", "--version"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.strip().endswith(__version__)


def test_the_help_of_run_lists_every_option_in_a_section_with_its_default() -> None:
    text = dpbatch("run", "--help").output
    titles = ["read", "write", "restore", "looks", "machines", "wrong", "Messages", "Other"]
    sections = dict(zip(titles, re.split(r"\n\n[A-Z][a-z ]+:\n", text)[1:], strict=True))
    for title, option in (
        ("write", "--out"),
        ("restore", "--model"),
        ("looks", "--exposure"),
        ("machines", "--device"),
        ("wrong", "--dry-run"),
        ("Messages", "--json-log"),
        ("Other", "--help"),
    ):
        assert option in sections[title]
    flowing = " ".join(text.split())
    assert "[-10<=x<=10]" in flowing.split("--exposure ")[1].split(" --")[0]
    assert "None]" not in flowing
    for group in fields(Settings):
        for item in fields(getattr(Settings(), group.name)):
            option = f"--{item.name.replace('_', '-')} "
            default = str(getattr(getattr(Settings(), group.name), item.name))
            if option in flowing and default not in ("True", "False", "()"):
                assert f"[default: {default}" in flowing.split(option)[1].split(" --")[0]
