"""Ray-trace a test set of dual-pixel scenes, with nothing of the simulator that networks train on.

    python -m training.evaluation.raytraced --out SCENES
    python -m training.evaluation.scenes SCENES --model tiny --model small

Mitsuba 3 (pip install 'dpbatch[judge]') renders each scene by pinhole cameras at positions over the
aperture, sheared so that the plane of focus stays where it is. Their mean, in linear light and
weighted by a ramp over the aperture, is a photodiode's view: lens blur with true occlusion. The
true picture and the depth are those of the pinhole in the middle. SCENES receives

    NAME_L.png, NAME_R.png   the views, sRGB-encoded, 16 bits, without noise
    NAME_gt.png              the same light through the pinhole
    NAME_depth.tif           distance along the optical axis, metres, float32
    scenes.json              each scene's camera

Scenes that are there already are not made again. The variant llvm_ad_rgb of Mitsuba needs a recent
LLVM: 19 works, 15 aborts on processors with AVX-512 (DRJIT_LIBLLVM_PATH names the library where
several are installed). scalar_rgb needs none and takes ten times as long.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import tifffile

from ldp.srgb import encode_srgb
from ldp.types import to_uint16
from training.errors import TrainingError
from training.evaluation.raytraced_layout import Layout, sample_layouts
from training.evaluation.raytracer import VARIANTS, Rendered, load_mitsuba, render_scene
from training.pictures import write_png

_WHITE_PERCENTILE = 98.0


def write_scene(folder: Path, name: str, scene: Rendered) -> None:
    """Write a scene's pictures and depth, exposed so that all but the brightest 2 % are kept.

    The true picture comes last: a scene is complete when it is there.
    """
    exposure = np.float32(0.9 / np.percentile(scene.sharp.max(2), _WHITE_PERCENTILE))
    tifffile.imwrite(folder / f"{name}_depth.tif", scene.depth_m, compression="adobe_deflate")
    for part, light in (("L", scene.left), ("R", scene.right), ("gt", scene.sharp)):
        write_png(folder / f"{name}_{part}.png", to_uint16(encode_srgb(light * exposure)))


def make_set(mitsuba: ModuleType, folder: Path, layouts: dict[str, Layout], positions: int) -> None:
    """Render the scenes that are not in a folder yet."""
    folder.mkdir(parents=True, exist_ok=True)
    cameras = {
        name: {**asdict(layout.lens), "disparity_per_radius": layout.lens.disparity_per_radius}
        for name, layout in layouts.items()
    }
    (folder / "scenes.json").write_text(json.dumps(cameras, indent=2) + "\n", encoding="utf-8")
    for name, layout in layouts.items():
        if (folder / f"{name}_gt.png").is_file():
            continue
        scene = render_scene(mitsuba, layout.shapes(mitsuba), layout.lens, positions)
        write_scene(folder, name, scene)
        coc_px = layout.lens.coc_px(scene.depth_m)
        print(f"{name}: radius {coc_px.min():.1f} to {coc_px.max():.1f} px", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=20, help="scenes, 20 by default")
    parser.add_argument("--width", type=int, default=768, metavar="PX", help="of the pictures")
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="textures from photos, not made-up ones"
    )
    parser.add_argument(
        "--positions", type=int, default=128, metavar="N", help="over the aperture, an even number"
    )
    parser.add_argument("--variant", default=VARIANTS[0], choices=VARIANTS, help="of Mitsuba")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: one a core")
    args = parser.parse_args()
    if args.count < 1:
        parser.error(f"--count {args.count}: expected 1 or more")
    if args.positions < 2 or args.positions % 2:
        parser.error(f"--positions {args.positions}: expected an even number, 2 or more")
    try:
        mitsuba = load_mitsuba(args.variant, args.threads)
        layouts = sample_layouts(args.count, args.width, args.photos)
        make_set(mitsuba, args.out, layouts, args.positions)
    except (OSError, TrainingError) as error:
        sys.exit(f"raytraced: {error}")


if __name__ == "__main__":
    main()
