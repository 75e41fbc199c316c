"""What is found wrong with a node before the first photo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import ldp
from dpbatch.engine.node_check import node_check, with_absolute_weights
from dpbatch.errors import AbortError
from dpbatch.settings import RestoreSettings, Settings
from dpbatch.storage.shared import shared_check


def test_weights_are_named_so_that_every_node_finds_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = Settings(restore=RestoreSettings(model="tiny"))
    assert with_absolute_weights(shipped) == shipped
    own = replace(shipped, restore=replace(shipped.restore, model="own.safetensors"))
    assert with_absolute_weights(own).restore.model == str(tmp_path / "own.safetensors")


def problem(
    inputs: tuple[Path, ...], out: Path, model: str = "", *, meanwhile: Callable[[], object]
) -> str:
    """What a node reports after something has happened since the driver looked."""
    with node_check((model,), partial(shared_check, inputs, out)) as check:
        meanwhile()
        return check()


def test_a_node_that_sees_what_the_driver_sees_is_fit(tmp_path: Path) -> None:
    shoot, out, photo = tmp_path / "shoot", tmp_path / "out", tmp_path / "shoot" / "a.CR2"
    shoot.mkdir()
    photo.write_bytes(b"raw")
    assert problem((shoot, photo), out, "tiny", meanwhile=lambda: None) == ""
    assert list((out / ".dpbatch").iterdir()) == []  # the check has left nothing


def test_what_a_node_lacks_is_named_with_its_path(tmp_path: Path) -> None:
    photo, out = tmp_path / "a.CR2", tmp_path / "out"
    photo.write_bytes(b"raw")
    found = problem((photo,), out, meanwhile=lambda: photo.write_bytes(b"another"))
    assert "sees another file" in found
    assert str(photo) in found
    found = problem((photo,), out, meanwhile=photo.unlink)
    assert f"cannot read the input {photo}" in found
    photo.write_bytes(b"raw")
    found = problem(
        (photo,), out, meanwhile=lambda: (out / ".dpbatch").rename(tmp_path / "elsewhere")
    )
    assert f"does not see the driver's output folder {out}" in found


def test_other_weights_or_none_are_found_out(tmp_path: Path) -> None:
    weights, out = tmp_path / "own.safetensors", tmp_path / "out"
    weights.write_bytes((Path(ldp.__file__).parent / "weights/tiny.safetensors").read_bytes())
    found = problem((), out, str(weights), meanwhile=lambda: weights.write_bytes(b"others"))
    assert f"other weights than the driver for {weights}" in found
    assert str(weights) in problem((), out, str(weights), meanwhile=weights.unlink)


def test_another_version_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = "dpbatch.engine.node_check.__version__"
    monkeypatch.setattr(version, "0.0.1")
    found = problem((), tmp_path, meanwhile=lambda: monkeypatch.setattr(version, "0.0.2"))
    assert "has dpbatch 0.0.2, the driver 0.0.1" in found


def test_a_folder_that_cannot_be_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with shared_check((), tmp_path / "out") as check:
        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
        assert check() == f"cannot write the output folder {tmp_path / 'out'}: Permission denied"
    (tmp_path / "file").touch()
    with pytest.raises(AbortError, match="file"), shared_check((), tmp_path / "file" / "out"):
        pass
