"""Settings and presets: defaults live once, presets and flags override, nonsense is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from dpbatch import presets
from dpbatch.errors import SettingsError
from dpbatch.fingerprints import described, earlier_fingerprints, fingerprint
from dpbatch.settings import (
    OutputSettings,
    RawSettings,
    RestoreSettings,
    Settings,
    settle_network,
    settle_scale,
)

REPOSITORY = Path(__file__).parents[2]


def test_the_documented_example_holds_every_key_at_its_default() -> None:
    example = REPOSITORY / "configs" / "run.toml"
    assert presets.load(str(example)) == Settings()
    text = example.read_text()
    for group in fields(Settings):
        for item in fields(getattr(Settings(), group.name)):
            assert f"\n{item.name} = " in text


@pytest.mark.parametrize("name", presets.shipped())
def test_every_shipped_preset_changes_something_and_says_what_it_is_for(name: str) -> None:
    assert presets.load(name) != Settings()
    assert presets.text(name).startswith("# ")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[output]\nformt = 'png'", "unknown key 'formt' in .output.; known are format, bit_depth"),
        (
            "[outputs]\n",
            r"unknown table \[outputs\]; known are \[raw\], \[restore\], \[output\]",
        ),
        ("format = 'png'", r"unknown table \[format\]"),
        ("output = 3", "output must be a table"),
        ("[output]\nbit_depth = '16'", "bit_depth: expected int, found '16'"),
        ("[raw]\nswap = 1", "swap: expected bool, found 1"),
        ("[output]\nbit_depth = 12", "bit_depth 12: expected one of 16, 8"),
        ("[output]\nlayers = 'blur'", "layers: expected a list of names, found 'blur'"),
        ("[output]\nlayers = ['blur', 3]", r"layers: expected str, found \['blur', 3\] .int."),
        ("[focus]\nrefocus = 3", r'refocus: expected str, found 3 .int.; write .* refocus = "3"'),
        ("[restore]\ntile = nan", "tile: expected int, found nan"),
        ("[output]\nexposure = nan", "exposure nan: expected -10 to 10 EV"),
        ("[output]\nexposure = '1'", "exposure: expected float, found '1'"),
        ("[raw]\nwhite_balance = 'sun'", "white_balance 'sun': expected camera, auto, daylight"),
        ("[output]\nlayers = ['sky']", "layers 'sky': expected one of depth, blur"),
        ("[output", "not valid TOML"),
    ],
)
def test_a_wrong_preset_is_refused_with_what_is_known(
    tmp_path: Path, toml: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(toml)
    with pytest.raises(SettingsError, match=message) as caught:
        presets.load(str(path))
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize("name", ["no-such-preset", "no-such-file.toml", "../settings"])
def test_a_missing_preset_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="preset"):
        presets.load(name)


def test_only_what_is_named_is_overridden() -> None:
    base = presets.load("web")
    merged = presets.merge(base, {"output": {"bit_depth": 16}, "raw": {}}, where="here")
    assert merged == replace(base, output=replace(base.output, bit_depth=16))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RestoreSettings(device="gpu"),
        lambda: RestoreSettings(device="cuda:x"),
        lambda: RestoreSettings(tile=-1),
        lambda: RestoreSettings(model=""),
        lambda: RestoreSettings(blur="clop"),
        lambda: RestoreSettings(whole=True, scale="2"),
        lambda: RestoreSettings(whole=True, scale="auto"),
        lambda: RestoreSettings(scale="3"),
        lambda: OutputSettings(format="webp"),
        lambda: OutputSettings(layer_format="jpg"),
        lambda: OutputSettings(jpeg_quality=0),
        lambda: OutputSettings(jpeg_quality=101),
        lambda: OutputSettings(template="{stem:>99999999999}"),
        lambda: OutputSettings(template="{stem:{dir}}"),
        lambda: OutputSettings(layers=("blur", "blur")),
        lambda: RawSettings(white_balance="sunny"),
        lambda: RawSettings(white_balance="1,2"),
        lambda: RawSettings(white_balance="1,0,1"),
        lambda: RawSettings(white_balance="1,nan,1"),
        lambda: RawSettings(white_balance="inf,1,1"),
        lambda: RawSettings(white_balance="1,1,100.1"),
        lambda: RawSettings(white_balance="1,0.009,1"),
        lambda: OutputSettings(look="vivid"),
        lambda: OutputSettings(exposure=float("nan")),
        lambda: OutputSettings(exposure=11.0),
        lambda: OutputSettings(template="{name}"),
        lambda: OutputSettings(template="{stem"),
        lambda: OutputSettings(template="{0}"),
        lambda: OutputSettings(template="{stem.x}"),
        lambda: OutputSettings(template="{dir}/"),
        lambda: OutputSettings(template=""),
    ],
)
def test_values_out_of_range_are_refused(wrong: object) -> None:
    with pytest.raises(SettingsError, match=r"expected|template|layers|empty"):
        wrong()  # type: ignore[operator]


def test_the_fingerprint_covers_what_changes_pixels_and_nothing_else() -> None:
    base = Settings()
    same = [
        replace(base, restore=replace(base.restore, device="cuda:1", tile=512, model="copy.st")),
        replace(base, output=replace(base.output, template="{stem}")),
    ]
    other = [
        replace(base, raw=replace(base.raw, swap=True)),
        replace(base, raw=replace(base.raw, shading=False)),
        replace(base, output=replace(base.output, bit_depth=8)),
        replace(base, output=replace(base.output, layers=("blur",))),
    ]
    key = fingerprint(base, "abc")
    assert {fingerprint(settings, "abc") for settings in same} == {key}
    keys = {fingerprint(settings, "abc") for settings in other} | {fingerprint(base, "abd"), key}
    assert len(keys) == len(other) + 2


AT_FULL_SIZE = Settings(restore=RestoreSettings(scale="1"))
"""What releases before `scale` did, and those before its default was auto."""


def test_the_scale_is_auto_where_it_can_be_and_was_not_chosen() -> None:
    assert RestoreSettings().chosen_scale == "auto"
    assert RestoreSettings(whole=True).chosen_scale == "1"
    assert RestoreSettings(protect=False).chosen_scale == "1"
    assert RestoreSettings(protect=False, scale="auto").chosen_scale == "auto"
    assert RestoreSettings(scale="2").chosen_scale == "2"
    assert settle_scale(RestoreSettings(), is_third_party=True).chosen_scale == "1"
    for restore in (RestoreSettings(), RestoreSettings(scale="auto")):
        assert settle_scale(restore, is_third_party=False) == restore
    assert settle_scale(RestoreSettings(scale="auto"), is_third_party=True).chosen_scale == "auto"
    assert '"scale":"auto"' in described(Settings())


def test_results_at_full_size_by_default_count_as_those_of_an_earlier_release() -> None:
    by_default = Settings()
    chosen = Settings(restore=RestoreSettings(scale="auto"))
    assert fingerprint(by_default, "abc") == fingerprint(chosen, "abc")
    earlier = fingerprint(AT_FULL_SIZE, "abc", pixel_version=3)
    assert earlier in earlier_fingerprints(by_default, "abc")
    assert earlier not in earlier_fingerprints(chosen, "abc")  # it was asked for: do it again
    # What this release restored at full size was asked for, and is not what the default asks for.
    at_full_size = fingerprint(AT_FULL_SIZE, "abc")
    assert at_full_size != fingerprint(by_default, "abc")
    assert at_full_size not in earlier_fingerprints(by_default, "abc")


def test_a_setting_that_came_later_leaves_earlier_results_valid_at_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key is that of the release that had none of these settings."""
    monkeypatch.setattr("dpbatch.fingerprints.PIXEL_VERSION", 1)
    base = AT_FULL_SIZE
    assert fingerprint(base, "abc") == "8ba5b08f079746296cd585b827facac6"
    changed = [
        {"jpeg_quality": 90},
        {"layer_format": "png"},
        {"look": "neutral"},
        {"exposure": 0.5},
    ]
    for change in changed:
        other = replace(base, output=replace(base.output, **change))  # type: ignore[arg-type]
        assert fingerprint(other, "abc") != fingerprint(base, "abc")
    whole = replace(base, restore=replace(base.restore, whole=True))
    assert fingerprint(whole, "abc") != fingerprint(base, "abc")
    daylight = replace(base, raw=RawSettings(white_balance="daylight"))
    assert fingerprint(daylight, "abc") != fingerprint(base, "abc")


@pytest.mark.parametrize(
    ("given", "meant"), [("tiff", "tif"), ("TIFF", "tif"), ("JPEG", "jpg"), ("Png", "png")]
)
def test_other_spellings_of_a_format_mean_the_same(given: str, meant: str) -> None:
    assert OutputSettings(format=given) == OutputSettings(format=meant)
    if meant != "jpg":
        assert OutputSettings(layer_format=given) == OutputSettings(layer_format=meant)


def test_a_quality_may_be_in_capitals() -> None:
    assert RestoreSettings(quality="BEST") == RestoreSettings(quality="best")


def test_a_whole_number_is_an_exposure_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[output]\nexposure = 1\n")
    assert presets.load(str(path)).output.exposure == 1.0


def test_the_settings_are_noted_on_one_line() -> None:
    assert '"shading":true' in described(Settings())
    assert "\n" not in described(Settings())


@pytest.mark.parametrize(
    ("quality", "has_gpu", "network"),
    [
        ("auto", False, "tiny"),
        ("auto", True, "small"),
        ("fast", True, "tiny"),
        ("best", False, "small"),
    ],
)
def test_quality_and_device_choose_the_network(quality: str, has_gpu: bool, network: str) -> None:
    chosen = settle_network(RestoreSettings(quality=quality), has_gpu)
    assert chosen.model == network
    named = RestoreSettings(model="own.safetensors")
    assert settle_network(named, has_gpu) == named
    with pytest.raises(SettingsError, match="give one of the two"):
        settle_network(RestoreSettings(model="tiny", quality="best"), has_gpu)


def test_the_fingerprint_knows_what_each_setting_says_of_pixels() -> None:
    items = list(fields(Settings))
    for group in fields(Settings):
        items += fields(getattr(Settings(), group.name))
    kinds = [item.metadata.get("pixels", True) for item in items]
    assert set(kinds) == {True, False, "if changed"}
