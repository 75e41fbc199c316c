"""CLIP maps in a run: which map is taken, what is refused before the first photo, and a photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import open_clip
import pytest
import tifffile
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.cli.main import main
from dpbatch.errors import SettingsError
from dpbatch.fingerprints import fingerprint
from dpbatch.settings import OutputSettings, RestoreSettings, Settings, settle_blur
from dpbatch.types import Job, Photo, RunOptions
from ldp.blur import clip_model
from ldp.models.network import LDPNet, NetworkConfig
from ldp.models.weights import save_network
from ldp.types import MapPlane
from tests.helpers import clip_reference as naive
from tests.helpers.scenes import write_test_dpraw


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(entry: dict[str, str]) -> str:
        raise FileNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: None)
    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    clip_model.forget_clips()


def network_file(folder: Path, blur_map: str | None = None, prior: MapPlane = "amount") -> Path:
    """A network of next to nothing that was trained with a map; None: the file does not say."""
    path = folder / f"{blur_map}.safetensors"
    config = NetworkConfig(width=8, encoder=(1,), middle=1, decoder=(1,), shuffle=2, crop_px=64)
    config = replace(config, prior=prior)
    save_network(LDPNet(config), path, {"blur_map": blur_map} if blur_map else None)
    return path


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    (tmp_path / "shoot").mkdir()
    write_test_dpraw(tmp_path / "shoot" / "IMG_1.CR2", 96, 128)
    return tmp_path / "shoot"


def run(shoot: Path, *arguments: object) -> Result:
    out = shoot.parent / "out"
    command = ["run", shoot, "--out", out, "--device", "cpu", *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in command])


@pytest.mark.parametrize("blur", ["clip", "clip-patch"])
@pytest.mark.parametrize("by_network", [False, True])
def test_without_weights_nothing_is_begun(shoot: Path, blur: str, by_network: bool) -> None:
    model = network_file(shoot.parent, blur if by_network else None)
    ran = run(shoot, "--model", model, *([] if by_network else ["--blur", blur]))
    assert ran.exit_code == 3
    assert f"  dpbatch models fetch {blur}\n" in ran.output
    assert "--blur disparity" in ran.output
    assert not (shoot.parent / "out").exists()


def test_a_layer_that_the_map_cannot_give_is_refused_first(shoot: Path) -> None:
    for model, flags in (
        (network_file(shoot.parent, "clip"), []),
        (network_file(shoot.parent), ["--blur", "clip-patch"]),
    ):
        ran = run(shoot, "--model", model, "--layers", "blur,disparity", *flags)
        assert ran.exit_code == 2
        assert "layers disparity" in ran.output
        assert not (shoot.parent / "out").exists()


@pytest.mark.usefixtures("inline")
def test_a_mismatch_of_map_and_network_is_told_and_only_that(shoot: Path) -> None:
    trained_with_clip = network_file(shoot.parent, "clip")
    plain = network_file(shoot.parent)
    ran = run(shoot, "--model", trained_with_clip, "--blur", "disparity")
    assert ran.exit_code == 0, ran.output
    assert "warning: " in ran.output
    assert "trained with the blur map 'clip'" in ran.output
    for flags in (["--blur", "disparity"], ["--blur", "auto"], []):
        assert "warning: " not in run(shoot, "--model", plain, "--dry-run", *flags).output


def test_weights_that_the_fetch_command_does_not_fetch_are_told_by_open_clip_s(shoot: Path) -> None:
    ran = run(shoot, "--blur", "clip", "--clip-weights", "metaclip_400m")
    assert ran.exit_code == 3
    assert "pretrained='metaclip_400m'" in ran.output
    assert "models fetch" not in ran.output


@pytest.mark.parametrize("blur", ["disparity", "clip-patch"])
def test_a_network_of_the_soft_map_with_another_one_is_refused_first(
    shoot: Path, blur: str
) -> None:
    ran = run(shoot, "--model", network_file(shoot.parent, "clip", "soft"), "--blur", blur)
    assert ran.exit_code == 2
    assert "this network reads CLIP's unnormalised map; use --blur clip" in ran.output
    assert not (shoot.parent / "out").exists()


def test_a_network_of_an_unknown_map_is_refused(shoot: Path) -> None:
    ran = run(shoot, "--model", network_file(shoot.parent, "sonar"))
    assert ran.exit_code == 2
    assert "'sonar': expected one of auto, disparity, learned, clip, clip-patch" in ran.output


def test_auto_is_what_the_network_was_trained_with() -> None:
    auto = Settings()
    assert auto.restore.blur == "auto"
    for name in ("disparity", "clip", "clip-patch"):
        assert settle_blur(auto, name).restore.blur == name
    named = Settings(restore=RestoreSettings(blur="clip"))
    assert settle_blur(named, "disparity") == named
    with pytest.raises(SettingsError, match="layer"):
        settle_blur(replace(auto, output=OutputSettings(layers=("disparity",))), "clip")
    # A run by name and one by auto need not be done twice; two maps must.
    by_auto, by_name = settle_blur(auto, "clip"), settle_blur(named, "clip")
    assert fingerprint(by_auto, "x") == fingerprint(by_name, "x")
    assert fingerprint(by_auto, "x") != fingerprint(settle_blur(auto, "disparity"), "x")


def test_other_clip_weights_redo_a_photo_and_the_same_ones_elsewhere_do_not(
    shoot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []

    def fake_run(
        options: RunOptions, settings: Settings, stages: PhotoStages, *_: object, **__: object
    ) -> int:
        keys.append(stages.fingerprint)
        return 0

    monkeypatch.setattr("dpbatch.batch.run.run", fake_run)
    first, second = (shoot.parent / f"{name}.pt" for name in ("first", "second"))

    def key(weights: object, blur: str = "clip") -> str:
        ran = run(shoot, "--dry-run", "--blur", blur, "--clip-weights", weights)
        assert ran.exit_code == 0, ran.output
        return keys[-1]

    first.write_bytes(b"some weights")
    second.write_bytes(b"some weights")
    before = key(first)
    assert key(second) == before
    assert key("openai") != before
    assert key(first, "clip-patch") != before
    of_disparity = key(first, "disparity")
    first.write_bytes(b"other weights")
    assert key(first) != before
    assert key(first, "disparity") == of_disparity


@pytest.mark.parametrize(
    ("blur", "prior"),
    [
        ("clip", "amount"),
        ("clip", "soft"),
        ("clip-patch", "amount"),
        ("clip-patch-stretched", "amount"),
    ],
)
def test_a_photo_is_restored_with_a_clip_map(
    shoot: Path, tmp_path: Path, blur: str, prior: MapPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = naive.tiny_clip()
    clip_file = tmp_path / "clip.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, clip_file)
    monkeypatch.setattr(open_clip, "create_model", lambda name, pretrained: network)
    settings = Settings(
        restore=RestoreSettings(
            model=str(network_file(tmp_path, blur, prior)),
            device="cpu",
            blur=blur,
            clip_weights=str(clip_file),
        ),
        output=OutputSettings(layers=("blur",)),
    )
    stages = PhotoStages(settings, "hash")
    photo = Photo("raw", (shoot / "IMG_1.CR2",), "IMG_1")
    job = Job(
        "a.tif", "a.CR2", photo, tuple(tmp_path / f"IMG_1{ending}" for ending in stages.suffixes)
    )
    restored = stages.restorer()(stages.load(job), lambda done, of: None)
    stages.save(job, restored)
    picture, layer = (tifffile.imread(path) for path in job.outputs)
    assert layer.shape == picture.shape[:2]
    # The layer follows outlines by a median, which narrows the range of a map without structure.
    measured = restored.value.blur_map
    assert measured is not None
    if blur == "clip":
        assert np.ptp(measured.amount) > 0.9
        assert np.ptp(layer) > 0.3 * 65535
