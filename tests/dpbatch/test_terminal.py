"""What comes from files reaches the terminal harmless, and nothing about it stops a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from dpbatch.batch.journal import read_past
from dpbatch.batch.status import read_status
from dpbatch.batch.status_text import to_text
from dpbatch.output.metadata import read_tags
from dpbatch.settings import Settings
from dpbatch.storage.local import LocalFolder
from dpbatch.terminal import named, printable
from dpbatch.tools.split import SplitStages
from dpbatch.types import Job, Photo
from tests.helpers.scenes import write_test_dpraw
from tests.helpers.toy_runs import REPOSITORY, go, visible, write_pair

NOT_UTF8 = os.fsdecode(b"odd \xff\xfe")
ESCAPES = "red \x1b[31m\nbell \a\r\x9b2J"

needs_odd_names = pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="the file system takes no such names"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("IMG_1 é 写真 👩‍👧.CR2", "IMG_1 é 写真 👩‍👧.CR2"),
        (NOT_UTF8, r"odd \xff\xfe"),
        (ESCAPES, r"red \x1b[31m\nbell \x07\r\x9b2J"),
        ("gpj.\u202efdp\u2028", r"gpj.\u202efdp\u2028"),
        ("\ud83d", r"\ud83d"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()


def test_lines_stay_lines_where_that_is_asked_for() -> None:
    assert printable("a\nb\x1b", lines=True) == "a\nb\\x1b"


def is_harmless(text: str) -> bool:
    return not any(
        unicodedata.category(letter) in ("Cc", "Cs") for letter in text if letter != "\n"
    )


@pytest.mark.parametrize(
    ("name", "message", "shown"),
    [
        ("shoot/a.CR2", "a.CR2: cut short", "shoot/a.CR2: cut short"),
        ("shoot/a.CR2", "shoot/a.CR2: gone", "shoot/a.CR2: gone"),
        ("s3://bucket/a.CR2", "a.CR2: cut short", "s3://bucket/a.CR2: cut short"),
        ("shoot/a: b.CR2", "a: b.CR2: cut short", "shoot/a: b.CR2: cut short"),
        ("shoot/a.CR2", "too dark: 0 DN", "shoot/a.CR2: too dark: 0 DN"),
        ("shoot/a.CR2", "CR2: too dark", "shoot/a.CR2: CR2: too dark"),
        (
            "s/a_L.tif",
            "a_L.tif is 3 px, a_R.tif 4: no",
            "s/a_L.tif: a_L.tif is 3 px, a_R.tif 4: no",
        ),
        ("s/a_L.tif + s/a_R.tif", "a_R.tif: cut", "s/a_L.tif + s/a_R.tif: a_R.tif: cut"),
        ("s/a_L.tif + s/a_R.tif", "s/a_L.tif + s/a_R.tif: cut", "s/a_L.tif + s/a_R.tif: cut"),
        ("s/a_L.tif + s/a_R.tif", "a_L.tif + a_R.tif: cut", "s/a_L.tif + s/a_R.tif: cut"),
        ("shoot/a + b.CR2", "a + b.CR2: cut", "shoot/a + b.CR2: cut"),
    ],
)
def test_a_message_names_its_input_once_and_keeps_the_rest(
    name: str, message: str, shown: str
) -> None:
    assert named(name, message) == shown


@needs_odd_names
def test_odd_names_are_done_resumed_and_shown(tmp_path: Path) -> None:
    shoot, out = tmp_path / "shoot", tmp_path / "out"
    for name in (NOT_UTF8, ESCAPES, "plain"):
        write_pair(shoot / NOT_UTF8, name, content="pixels")
    write_pair(shoot, ESCAPES + "broken", "load:damaged")
    ran = go(shoot, out)
    assert sorted(ran.codes.values()) == ["damaged", "done", "done", "done"]
    assert is_harmless(ran.text)
    names = {f"{NOT_UTF8}/{name}.tif" for name in (NOT_UTF8, ESCAPES, "plain")}
    assert set(visible(out)) == names
    assert {k for k, past in read_past(LocalFolder(out).log()).items() if past.done} == names
    again = go(shoot, out)
    assert sorted(again.codes.values()) == ["already-done"] * 3 + ["damaged"]
    status = to_text(read_status(out))
    assert "3 done, 1 failed" in status
    assert is_harmless(status)


# In one process: each would load its libraries anew. The codes and NULs divide what was printed.
_ALL_COMMANDS = """
import json, os, sys
from dpbatch.cli.main import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(1, b"%d\\0" % ended.code)
        os.write(2, b"\\0")
"""


def run_all(
    commands: list[tuple[str | Path, ...]], env: dict[str, str]
) -> list[tuple[int, str, str]]:
    """Run commands one after the other; return of each its exit code, output and error output."""
    arguments = json.dumps([list(map(str, command)) for command in commands])
    ran = subprocess.run(
        [sys.executable, "-c", _ALL_COMMANDS, arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **env},
    )
    outputs, errors = (text.split("\0") for text in (ran.stdout, ran.stderr))
    assert (outputs[-1], errors[-1]) == ("", "")
    assert len(outputs) == len(errors) == len(commands) + 1
    return [
        (int(output[-1]), output[:-1], error)
        for output, error in zip(outputs[:-1], errors[:-1], strict=True)
    ]


@needs_odd_names
@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict"])
def test_commands_show_odd_names_on_any_terminal(tmp_path: Path, encoding: str) -> None:
    shoot, out = tmp_path / "shoot é", tmp_path / "out"
    shoot.mkdir()
    write_test_dpraw(shoot / "a.CR2", 64, 64)
    for name in (NOT_UTF8, ESCAPES):
        shutil.copy(shoot / "a.CR2", shoot / f"{name}.CR2")
    shown = (r"odd \xff\xfe.CR2", r"red \x1b[31m\nbell \x07\r\x9b2J.CR2")
    *described, (logged, lines, _), (missing, _, complaint) = run_all(
        [
            ("split", shoot, "--out", out, "--dry-run"),
            ("inspect", shoot),
            ("inspect", shoot / f"{NOT_UTF8}.CR2", shoot / f"{ESCAPES}.CR2"),
            ("split", shoot, "--out", out, "--dry-run", "--json-log"),
            ("inspect", tmp_path / NOT_UTF8),
        ],
        {"PYTHONIOENCODING": encoding},
    )
    for code, output, errors in described:
        assert (code, errors) == (0, "")
        assert is_harmless(output)
        for name in shown:
            assert name in output
    assert logged == 0
    said = [json.loads(line) for line in lines.splitlines()]
    assert str(shoot / f"{NOT_UTF8}.CR2") in [line.get("input") for line in said]
    assert (missing, "no such file" in complaint) == (2, True)
    assert "Traceback" not in complaint


def test_a_run_whose_output_nobody_reads_any_more_is_finished(tmp_path: Path) -> None:
    shoot, out = tmp_path / "shoot", tmp_path / "out"
    for number in range(5):
        write_pair(shoot, f"{number}")
    command = [sys.executable, "-m", "tests.helpers.toy_run", str(shoot), str(out), "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        assert (run.wait(120), run.stderr.read()) == (0, "")
    assert len(visible(out)) == 5
    latest = read_status(out).latest_run
    assert latest is not None
    assert (latest.state, latest.done) == ("ended", 5)


def test_a_command_whose_output_is_cut_off_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "dpbatch", "presets"]
    ran = subprocess.run(
        command, cwd=REPOSITORY, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted there")
def test_in_a_deleted_folder_absolute_paths_work_and_relative_ones_are_refused(
    tmp_path: Path,
) -> None:
    shoot, here = tmp_path / "shoot", tmp_path / "here"
    shoot.mkdir()
    write_test_dpraw(shoot / "a.CR2", 64, 64)
    script = 'rmdir "$PWD" && exec "$0" -m dpbatch split "$@"'

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        here.mkdir(exist_ok=True)
        command = ["sh", "-c", script, sys.executable, *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(
            command, cwd=here, env=env, capture_output=True, text=True, check=False
        )

    ran = run(shoot, "--out", tmp_path / "out")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "done           1" in ran.stdout
    assert (tmp_path / "out" / "a_L.tif").is_file()
    for arguments in ((shoot, "--out", "out"), ("shoot", "--out", tmp_path / "out")):
        ran = run(*arguments)
        assert ran.returncode == 2
        assert "the working folder does not exist any more" in ran.stderr


@needs_odd_names
def test_a_photo_with_an_odd_name_is_read_and_named_in_its_result(tmp_path: Path) -> None:
    source = tmp_path / f"{NOT_UTF8}.CR2"
    target = tmp_path / f"{NOT_UTF8}_L.tif"
    write_test_dpraw(source, 64, 64)
    job = Job("a", "a", Photo("raw", (source,), "a"), (tmp_path / "r.tif", target))
    stages = SplitStages(Settings())
    stages.save(job, stages.restorer()(stages.load(job), lambda done, of: None))
    assert read_tags(target)["Xmp.dpbatch.Source"] == "odd \ufffd\ufffd.CR2"
