"""Files of training appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.files import whole_file


def test_a_file_appears_when_it_is_complete_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text("old")
    with whole_file(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(ZeroDivisionError), whole_file(path) as unfinished:
        unfinished.write_bytes(bytes(1 // 0))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "new")]
