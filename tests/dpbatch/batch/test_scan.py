"""Scanning and naming: every file counts once, nothing of ours is an input, no output is lost."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpbatch.batch.scan import Inputs, jobs_of, root_names
from dpbatch.batch.scan import scan as scan_source
from dpbatch.errors import SettingsError
from dpbatch.location import Location, parse_location, path_below
from dpbatch.settings import RestoreSettings, Settings
from dpbatch.storage.local import LocalInputs
from dpbatch.types import Job


def scan(given: list[Path], **options: Any) -> Inputs[Path]:
    return scan_source(given, LocalInputs(), **options)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(inputs: Inputs[Path]) -> list[str]:
    return [f"{photo.folder}|{photo.stem}" for photo in inputs.photos]


def jobs(
    inputs: Inputs[Path], out: Path, template: str = "{dir}/{stem}", *more: str
) -> tuple[Job[Location], ...]:
    restore = RestoreSettings(model="tiny")
    settings = Settings(restore=restore, output=replace(Settings().output, template=template))
    return jobs_of(inputs.photos, out, settings, (".tif", *more))


def targets(inputs: Inputs[Path], out: Path, template: str = "{dir}/{stem}") -> list[str]:
    return [path_below(job.target, out) or "" for job in jobs(inputs, out, template)]


def test_raw_files_and_pairs_below_a_folder_are_found_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.CR2", "a.cr3", "day 1/c.Cr2", "day 1/x/d.cr2", "old.crw")
    touch(tmp_path, "p_L.tif", "p_R.tif", "day 1/q_l.PNG", "day 1/q_r.PNG")
    touch(tmp_path, "notes.txt", "jpeg.jpg", ".hidden.CR2", "._b.CR2", ".trash/e.CR2")
    inputs = scan([tmp_path])
    assert found(inputs) == ["|a", "|b", "|old", "|p", "day 1|c", "day 1|q", "day 1/x|d"]
    assert inputs.others == ()
    assert {photo.root for photo in inputs.photos} == {tmp_path.name}
    kinds = {photo.stem: (photo.kind, len(photo.paths)) for photo in inputs.photos}
    assert kinds["p"] == kinds["q"] == ("pair", 2)
    assert kinds["a"] == ("raw", 1)
    assert found(scan([tmp_path], recursive=False)) == ["|a", "|b", "|old", "|p"]
    assert found(scan([tmp_path], pairs=False)) == ["|a", "|b", "|old", "day 1|c", "day 1/x|d"]


def test_pairs_kept_in_two_folders_belong_to_the_folder_that_holds_both(tmp_path: Path) -> None:
    touch(tmp_path, "set/inputL/1.png", "set/inputR/1.png", "t_l/source/2_L.png")
    touch(tmp_path, "t_r/source/2_R.png")
    assert found(scan([tmp_path])) == ["set|1", "t|2"]
    given_apart = scan([tmp_path / "set" / "inputL", tmp_path / "set" / "inputR"])
    assert found(given_apart) == ["|1"]


@pytest.mark.parametrize(
    ("filters", "stems"),
    [
        ({"include": ["*.cr2"]}, ["A1", "B1", "A2"]),
        ({"include": ["a*", "c?.CR3"]}, ["A1", "C1", "A2"]),
        ({"exclude": ["day1/*"]}, ["A1", "B1", "C1"]),
        ({"include": ["a*"], "exclude": ["*2.*"]}, ["A1"]),
    ],
)
def test_include_and_exclude(tmp_path: Path, filters: dict[str, Any], stems: list[str]) -> None:
    touch(tmp_path, "A1.CR2", "B1.CR2", "C1.cr3", "day1/A2.CR2")
    inputs = scan([tmp_path], **filters)
    assert [photo.stem for photo in inputs.photos] == stems


def test_half_a_pair_and_files_that_are_no_photos_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a_L.tif", "b_R.jpg", "c.jpg", "d.xmp", "sub/e.jpg")
    lone = scan([tmp_path])
    assert [(other.path.name, other.code) for other in lone.others] == [
        ("a_L.tif", "lone-half"),
        ("b_R.jpg", "lone-half"),
    ]
    named = scan([tmp_path / "c.jpg", tmp_path / "d.xmp", tmp_path / "sub"])
    assert [(other.path.name, other.code) for other in named.others] == [
        ("c.jpg", "not-an-input"),
        ("d.xmp", "not-an-input"),
    ]


def test_a_file_reached_twice_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "day1/a.CR2", "b.CR2")
    inputs = scan([tmp_path, tmp_path / "day1", tmp_path / "b.CR2", tmp_path])
    assert found(inputs) == ["|b", "day1|a"]
    assert found(scan([tmp_path / "day1" / "a.CR2"])) == ["|a"]


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    shoot, elsewhere = tmp_path / "shoot", tmp_path / "elsewhere"
    touch(shoot, "z/a.CR2")
    touch(elsewhere, "b.CR2")
    (shoot / "a-link-to-z").symlink_to(shoot / "z")
    (shoot / "z" / "up").symlink_to(shoot)
    (shoot / "linked").symlink_to(elsewhere)
    (shoot / "self").symlink_to(shoot / "self")
    assert found(scan([shoot])) == ["linked|b", "z|a"]


def test_the_output_folder_is_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.CR2", "out/p_L.tif", "out/p_R.tif", "out/sub/b.CR2")
    assert found(scan([tmp_path], out=tmp_path / "out")) == ["|a"]
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert found(scan([tmp_path], out=tmp_path / "link")) == ["|a"]
    # Results beside the originals: the folder is input and output.
    assert found(scan([tmp_path / "out"], out=tmp_path / "out")) == ["|p", "sub|b"]


def test_a_missing_input_is_refused_before_any_work(tmp_path: Path) -> None:
    touch(tmp_path, "a.CR2")
    with pytest.raises(SettingsError, match="shot: no such file or folder"):
        scan([tmp_path, tmp_path / "shot"])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_has_failed(tmp_path: Path) -> None:
    touch(tmp_path, "a.CR2", "closed/b.CR2")
    (tmp_path / "closed").chmod(0)
    try:
        inputs = scan([tmp_path])
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert found(inputs) == ["|a"]
    assert [(other.path.name, other.failed) for other in inputs.others] == [("closed", True)]


def test_a_folder_that_vanishes_while_scanning_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.CR2", "gone/b.CR2")
    listing = os.scandir

    def scandir(folder: Path) -> Any:
        if folder.name == "gone":
            raise FileNotFoundError(2, "No such file or directory")
        return listing(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    inputs = scan([tmp_path])
    assert [(other.path.name, other.failed) for other in inputs.others] == [("gone", True)]


def test_names_follow_the_template(tmp_path: Path) -> None:
    touch(tmp_path / "shoot", "a.v1.CR2", "day1/b.CR3", "day1/p_L.tif", "day1/p_R.tif")
    inputs, out = scan([tmp_path / "shoot"]), tmp_path / "out"
    assert targets(inputs, out) == ["a.v1.tif", "day1/b.tif", "day1/p.tif"]
    by_root = targets(inputs, out, "{root}/{stem}_{ext}_{model}")
    assert by_root == ["shoot/a.v1_cr2_tiny.tif", "shoot/b_cr3_tiny.tif", "shoot/p_tif_tiny.tif"]


@pytest.mark.parametrize("template", ["/{stem}", "../{stem}", "{dir}/../../{stem}"])
def test_a_template_may_not_lead_out(tmp_path: Path, template: str) -> None:
    touch(tmp_path, "a.CR2")
    with pytest.raises(SettingsError, match="leads out"):
        targets(scan([tmp_path]), tmp_path / "out", template)


@pytest.mark.parametrize(
    "names",
    [
        ("IMG_1.CR2", "IMG_1.CR3"),
        ("IMG_1.CR2", "img_1.CR2"),  # one file where case does not count
        ("Day/a.CR2", "day/a.CR2"),
        ("caf\u00e9.CR2", "cafe\u0301.CR2"),  # one file on macOS
        ("p.CR2", "p_L.tif", "p_R.tif"),
    ],
)
def test_two_photos_for_one_name_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(tmp_path, *names)
    inputs = scan([tmp_path])
    if len(inputs.photos) < 2:
        pytest.skip("this file system does not tell these names apart")
    with pytest.raises(SettingsError, match="taken twice") as caught:
        jobs(inputs, tmp_path / "out")
    for photo in inputs.photos:
        assert photo.paths[0].name in str(caught.value)
    jobs(scan([tmp_path / names[0]]), tmp_path / "out")  # each alone is fine


def test_a_layer_may_not_take_another_photos_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.CR2", "a.blur.CR2")
    inputs = scan([tmp_path])
    jobs(inputs, tmp_path / "out")
    with pytest.raises(SettingsError, match="taken twice"):
        jobs(inputs, tmp_path / "out", "{dir}/{stem}", ".blur.tif")


def test_no_output_may_replace_an_input(tmp_path: Path) -> None:
    touch(tmp_path, "a_L.tif", "a_R.tif")
    inputs = scan([tmp_path])
    jobs(inputs, tmp_path)
    with pytest.raises(SettingsError, match=r"a_L\.tif"):
        jobs(inputs, tmp_path, "{dir}/{stem}_L")


def test_many_collisions_are_not_all_listed(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.{suffix}" for n in range(15) for suffix in ("CR2", "CR3")))
    with pytest.raises(SettingsError, match="and 5 more"):
        jobs(scan([tmp_path]), tmp_path / "out")


def two_cards(folder: Path) -> list[Path]:
    for card in ("EOS_A", "EOS_B"):
        touch(folder / card / "DCIM" / "100CANON", "IMG_0001.CR2", "IMG_0002.CR2")
    return [folder / card / "DCIM" / "100CANON" for card in ("EOS_A", "EOS_B")]


def test_two_cards_with_the_same_folder_names_are_kept_apart_by_what_is_suggested(
    tmp_path: Path,
) -> None:
    inputs, out = scan(two_cards(tmp_path)), tmp_path / "out"
    with pytest.raises(SettingsError, match="taken twice") as caught:
        targets(inputs, out)
    suggested = re.search(r"add --template '(.*)', which keeps them apart", str(caught.value))
    assert suggested is not None
    assert targets(inputs, out, suggested[1]) == [
        "EOS_A/100CANON/IMG_0001.tif",
        "EOS_A/100CANON/IMG_0002.tif",
        "EOS_B/100CANON/IMG_0001.tif",
        "EOS_B/100CANON/IMG_0002.tif",
    ]


@pytest.mark.parametrize(
    ("names", "template"),
    [
        (("a.CR2", "a.CR3"), "{dir}/{stem}_{ext}"),
        (("a/100/1.CR2", "b/100/1.CR2", "a/100/1.CR3"), "{root}/{dir}/{stem}_{ext}"),
    ],
)
def test_what_is_suggested_for_colliding_names_keeps_them_apart(
    tmp_path: Path, names: tuple[str, ...], template: str
) -> None:
    touch(tmp_path, *names)
    inputs = scan(sorted({tmp_path / name for name in names}))
    with pytest.raises(SettingsError, match=re.escape(f"add --template '{template}'")):
        targets(inputs, tmp_path / "out")
    assert len(set(targets(inputs, tmp_path / "out", template))) == len(names)


def test_names_that_no_template_keeps_apart_are_to_be_excluded(tmp_path: Path) -> None:
    touch(tmp_path, "a.CR2", "A.CR2")
    inputs = scan([tmp_path])
    if len(inputs.photos) < 2:
        pytest.skip("this file system does not tell these names apart")
    with pytest.raises(SettingsError, match="exclude the one or the other"):
        targets(inputs, tmp_path / "out")


@pytest.mark.parametrize(
    ("roots", "names"),
    [
        (["/x/a", "/x/b"], ["a", "b"]),
        (["/m/A/100", "/m/B/100"], ["A/100", "B/100"]),
        (["/m/A/DCIM/100", "/m/B/DCIM/100", "/m/B/DCIM/101"], ["A/100", "B/100", "101"]),
        (["/m/A/DCIM/Day", "/m/a/x/day"], ["DCIM/Day", "x/day"]),
        (["/m/A/100", "/n/a/100"], ["m/100", "n/100"]),
        (["/1/p/100", "/1/q/100", "/2/p/100"], ["1/p/100", "1/q/100", "2/p/100"]),
        (["/100", "/a/100"], ["100", "a/100"]),
        (["s3://A/DCIM/100", "s3://B/DCIM/100"], ["A/100", "B/100"]),
        (["s3://shoot/100", "/disk/100"], ["shoot/100", "disk/100"]),
    ],
)
def test_folders_of_one_name_are_named_with_the_parent_that_differs(
    roots: list[str], names: list[str]
) -> None:
    locations = [parse_location(root) for root in roots]
    named = root_names(locations)
    assert [named[location] for location in locations] == names
