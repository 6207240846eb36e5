import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from edgecv.config.augmentation import AUGMENTATIONS, parse_augmentations
from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.nn.augment import build_pipeline

CHANCES = [name for name, entry in AUGMENTATIONS.items() if entry.help.startswith("share of images")]


def spec_of(size: int) -> InputSpec:
    return InputSpec("image", (3, size, size), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something with colours, edges and no symmetry."""
    y, x = np.mgrid[:200, :240]
    pixels = np.stack([x % 97 * 2.5, y % 71 * 3.5, (x * y) % 251], -1).astype(np.uint8)
    pixels[40:90, 30:60] = (200, 30, 60)
    path = tmp_path_factory.mktemp("augment") / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


def always(name: str) -> str:
    return f"{name}:1" if name in CHANCES else name


@pytest.mark.parametrize("size", [32, 160])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_changes_the_pixels_and_is_a_function_of_its_key(picture: Path, name: str, size: int) -> None:
    pipeline, plain = build_pipeline([always(name)], spec_of(size)), build_pipeline([], spec_of(size))
    original = plain(picture, 0)
    results = [pipeline(picture, key) for key in range(6)]
    assert all(r.shape == (size, size, 3) and r.dtype == np.uint8 for r in results)
    assert any(not np.array_equal(r, original) for r in results)
    for key, result in enumerate(results):
        assert np.array_equal(pipeline(picture, key), result)
    if name not in ("flip", "vertical-flip", "clahe", "gray", "median-blur"):  # two pictures, or one, are all there are
        assert len({r.tobytes() for r in results}) > 2


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_what_is_given_is_left_as_it_was(picture: Path, name: str) -> None:
    pipeline = build_pipeline([always(name)], spec_of(32))
    framed = pipeline.frame(picture, Random(0)).copy()
    framed.setflags(write=False)
    before = framed.copy()
    pipeline.augment(framed, Random(1))
    assert np.array_equal(framed, before)


@pytest.mark.parametrize("name", ["pad-crop", "rgb-shift", "hue-saturation-value", "contrast", "gamma", "brightness",
                                  "rotation", "blur"])  # fmt: skip
def test_strength_zero_changes_nothing(picture: Path, name: str) -> None:
    pipeline, plain = build_pipeline([f"{name}:0"], spec_of(32)), build_pipeline([], spec_of(32))
    difference = pipeline(picture, 3).astype(int) - plain(picture, 3)
    assert np.abs(difference).max() <= 6  # hue goes through 8-bit HSV


@pytest.mark.parametrize("name", CHANCES)
def test_a_share_of_the_images_is_changed(picture: Path, name: str) -> None:
    pipeline, plain = build_pipeline([f"{name}:0.5"], spec_of(32)), build_pipeline([], spec_of(32))
    framed = plain(picture, 0)
    changed = sum(not np.array_equal(pipeline.augment(framed, Random(key)), framed) for key in range(200))
    assert 70 <= changed <= 130


def test_without_augmentation_the_pixels_are_those_of_evaluation(picture: Path) -> None:
    from edgecv.runtime.preprocess import preprocess

    assert np.array_equal(build_pipeline(["none"], spec_of(32))(picture, 5), preprocess(picture, spec_of(32)))


def test_crop_shifts_small_pictures_and_cuts_large_ones() -> None:
    assert build_pipeline(["crop"], spec_of(32)).resized_crop is None
    assert build_pipeline(["crop"], spec_of(224)).resized_crop == AUGMENTATIONS["resized-crop"].strength


def test_a_shifted_picture_is_mirrored_at_its_edge() -> None:
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {padded[y : y + 8, x : x + 8].tobytes() for y in range(5) for x in range(5)}
    pipeline = build_pipeline(["pad-crop:0.25"], spec_of(8))
    assert {pipeline(pixels, key).tobytes() for key in range(300)} == windows


def test_pytorchs_own_generator_is_left_alone(picture: Path) -> None:
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    build_pipeline(["resized-crop", "rand-augment"], spec_of(32))(picture, 1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["flp"], "Did you mean 'flip'"),
        (["sharpen"], "Known: crop"),
        (["flip", "flip:0.2"], "twice"),
        (["flip:1.5"], "from 0 to 1"),
        (["rotation:nan"], "from 0 to 180"),
        (["rotation:"], "from 0 to 180"),
        (["crop:0.5"], "takes no strength"),
        (["pad-crop", "resized-crop"], "exclude"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_augmentations(texts)


def test_kornia_is_imported_only_for_what_needs_it() -> None:
    code = (
        "import sys; from edgecv.manifest import InputSpec; from edgecv.nn.augment import build_pipeline\n"
        "spec = InputSpec('image', (3, 32, 32), (0.5,) * 3, (0.5,) * 3)\n"
        "build_pipeline(['crop', 'flip', 'rand-augment', 'jpeg'], spec); assert 'kornia' not in sys.modules\n"
        "build_pipeline(['clahe'], spec); assert 'kornia' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
