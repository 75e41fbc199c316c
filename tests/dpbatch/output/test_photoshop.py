import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import tifffile

from dpbatch.output.images import encode_tiff
from dpbatch.output.late_tag import PLACEHOLDER, Buffer, LateTag
from dpbatch.output.metadata import (
    PhotoMetadata,
    ProcessingNote,
    read_note,
    write_with_metadata,
)
from dpbatch.output.photoshop import (
    IMAGE_RESOURCES,
    IMAGE_SOURCE_DATA,
    Layer,
    channel_names,
    layer_data,
)
from dpbatch.output.whole import opens

psdtags = pytest.importorskip("psdtags")


def _picture(seed: int, height: int = 150, width: int = 37) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, (height, width, 3)).astype(np.uint16)


def test_an_independent_reader_finds_the_layers_and_their_pixels() -> None:
    original, sharp = _picture(0), _picture(1)
    mask = _picture(2)[..., 0]
    layers = [Layer("Original", original), Layer("Schärfe", sharp, mask)]
    content = layer_data(layers)
    tags = ((IMAGE_SOURCE_DATA, 7, b"".join(content)),)
    encoded = encode_tiff(sharp, None, extra_tags=tags, byteorder=">")
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        np.testing.assert_array_equal(file.asarray(), sharp)
        tag = file.pages.first.tags[IMAGE_SOURCE_DATA]
        found = psdtags.TiffImageSourceData.frombytes(tag.value)
    lower, upper = found.layers
    names = [str(layer.info[0].value) for layer in (lower, upper)]
    assert names == ["Original", "Schärfe"]
    np.testing.assert_array_equal(lower.asarray(), original)
    channels = {int(channel.channelid): channel.data for channel in upper.channels}
    np.testing.assert_array_equal(np.dstack([channels[i] for i in range(3)]), sharp)
    np.testing.assert_array_equal(channels[-2], mask)


def test_channels_have_names() -> None:
    planes = [_picture(seed)[..., 0] for seed in (3, 4)]
    pixels = np.dstack([_picture(5), *planes])
    names = channel_names(["depth", "blur"])
    encoded = encode_tiff(pixels, None, extra_tags=((IMAGE_RESOURCES, 1, names),))
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        page = file.pages.first
        np.testing.assert_array_equal(file.asarray(), pixels)
        assert page.extrasamples == (0, 0)  # unspecified: not the picture's transparency
        resources = psdtags.TiffImageResources.frombytes(page.tags[IMAGE_RESOURCES].value)
    found = {int(block.resourceid): block for block in resources.blocks}
    assert list(map(str, found[1006].values)) == ["depth", "blur"]
    assert [str(name).rstrip("\0") for name in found[1045].values] == ["depth", "blur"]


def test_a_tag_that_is_put_in_at_the_end_is_read_and_its_file_is_whole_only_with_it(
    tmp_path: Path,
) -> None:
    shown = _picture(6)
    content: list[Buffer] = [b"layers", memoryview(bytes(range(256)))]
    encoded = encode_tiff(
        shown, None, extra_tags=((IMAGE_SOURCE_DATA, 7, PLACEHOLDER),), byteorder=">"
    )
    path = tmp_path / "a.tif"
    note = ProcessingNote("1.0", source="A.CR2")
    written = write_with_metadata(
        path,
        encoded,
        PhotoMetadata(),
        note,
        width=37,
        height=150,
        late_tag=LateTag(IMAGE_SOURCE_DATA, content),
    )
    assert written.blake2b == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.asarray(), shown)
        assert file.pages.first.tags[IMAGE_SOURCE_DATA].value == b"".join(content)
    assert read_note(path) == note
    assert opens(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert not opens(path)
