"""Our resize and crop against timm's, byte for byte; what follows against torchvision's."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecv.errors import UsageError
from edgecv.manifest import CROP_MODES, INTERPOLATIONS, InputSpec
from edgecv.runtime.preprocess import decode_image, preprocess, resize_and_crop, to_model_input

SPEC = InputSpec("image", (3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def photographs() -> dict[str, Path]:
    """Real photographs that come inside installed packages."""
    import skimage
    import sklearn

    packages = Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images"
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "china.jpg", "flower.jpg")
    return {n: folder / n for n in names for folder in packages if (folder / n).exists()}


@cache
def photograph(name: str) -> Image.Image:
    return decode_image(photographs()[name])


def timm_pixels(image: Image.Image, spec: InputSpec, size: tuple[int, int]) -> np.ndarray:
    from timm.data.transforms_factory import transforms_imagenet_eval

    transform = transforms_imagenet_eval(
        img_size=size,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        normalize=False,
    )
    return transform(image).numpy().transpose(1, 2, 0)


def assert_same_as_timm(image: Image.Image, spec: InputSpec, size: tuple[int, int]) -> None:
    ours = resize_and_crop(image, spec, size)
    assert ours.dtype == np.uint8
    assert ours.flags.c_contiguous
    np.testing.assert_array_equal(ours, timm_pixels(image, spec, size))


def test_all_six_photographs_are_at_hand() -> None:
    assert len(photographs()) == 6


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0, 1.15])
@pytest.mark.parametrize("size", [(224, 224), (160, 256)])
def test_bytes_equal_timm_for_every_setting(
    interpolation: str, crop_mode: str, crop_pct: float, size: tuple[int, int]
) -> None:
    spec = replace(SPEC, interpolation=interpolation, crop_mode=crop_mode, crop_pct=crop_pct)
    for name in ("chelsea.png", "rocket.jpg"):
        assert_same_as_timm(photograph(name), spec, size)


@pytest.mark.parametrize("name", sorted(photographs()))
@pytest.mark.parametrize("size", [(1, 1), (97, 97), (240, 240), (299, 299), (380, 130)])
def test_bytes_equal_timm_on_every_photograph(name: str, size: tuple[int, int]) -> None:
    for crop_mode in CROP_MODES:
        assert_same_as_timm(photograph(name), replace(SPEC, crop_mode=crop_mode), size)


@settings(max_examples=150, deadline=None)
@given(
    image=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    size=st.one_of(st.integers(1, 128).map(lambda s: (s, s)), st.tuples(st.integers(1, 128), st.integers(1, 128))),
    crop_pct=st.floats(0.3, 1.6),
    crop_mode=st.sampled_from(CROP_MODES),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
def test_bytes_equal_timm_for_any_size(
    image: tuple[int, int], size: tuple[int, int], crop_pct: float, crop_mode: str, interpolation: str
) -> None:
    spec = replace(SPEC, crop_pct=crop_pct, crop_mode=crop_mode, interpolation=interpolation)
    picture = photograph("coffee.png").crop((100, 50, 100 + image[1], 50 + image[0]))
    try:
        expected = timm_pixels(picture, spec, size)
    except (ValueError, ZeroDivisionError):  # where a side comes out as no pixels, timm fails; we keep one
        assert resize_and_crop(picture, spec, size).shape == (*size, 3)
        return
    np.testing.assert_array_equal(resize_and_crop(picture, spec, size), expected)


def test_default_timm_transform_of_a_pretrained_network_is_met() -> None:
    """Through timm's front door, with the settings of a published network."""
    import timm
    from timm.data import create_transform, resolve_data_config

    config = resolve_data_config(timm.get_pretrained_cfg("tf_efficientnet_lite0").to_dict())
    transform = create_transform(**config, normalize=False)
    spec = InputSpec(
        "image",
        config["input_size"],
        config["mean"],
        config["std"],
        config["interpolation"],
        config["crop_pct"],
        config["crop_mode"],
    )
    for name in photographs():
        expected = transform(photograph(name)).numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(preprocess(photographs()[name], spec), expected)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_long_thin_picture_is_refused_or_small(crop_mode: str) -> None:
    thin = Image.new("RGB", (1, 20_000))
    spec = replace(SPEC, crop_mode=crop_mode)
    if crop_mode == "center":
        with pytest.raises(UsageError, match=r"1x20000 pixels is too long and thin.*256x5120000"):
            resize_and_crop(thin, spec)
    else:
        assert resize_and_crop(thin, spec).shape == (224, 224, 3)


def test_one_pixel_picture_fills_the_input() -> None:
    pixels = resize_and_crop(Image.new("RGB", (1, 1), (10, 20, 30)), SPEC)
    assert (pixels == (10, 20, 30)).all()


def test_array_of_the_input_size_passes_untouched() -> None:
    pixels = np.zeros((224, 224, 3), np.uint8)
    assert preprocess(pixels, SPEC) is pixels


def test_array_of_another_size_is_treated_like_a_photograph() -> None:
    image = photograph("chelsea.png")
    np.testing.assert_array_equal(preprocess(np.asarray(image), SPEC), preprocess(image, SPEC))


def test_other_size_than_the_specs_can_be_asked_for() -> None:
    assert preprocess(photograph("chelsea.png"), SPEC, (96, 128)).shape == (96, 128, 3)


def test_uint8_nhwc_is_handed_on_without_a_copy() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    assert np.shares_memory(to_model_input(images, SPEC), images)


def test_float_input_equals_torchvisions_bit_for_bit() -> None:
    from torchvision import transforms

    spec = replace(SPEC, dtype="float32", layout="NCHW")
    image = photograph("astronaut.png")
    pixels = preprocess(image, spec)
    expected = transforms.Compose([transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])(
        Image.fromarray(pixels)
    ).numpy()
    ours = to_model_input(pixels[None], spec)
    assert ours.shape == (1, 3, 224, 224)
    assert ours.flags.c_contiguous
    np.testing.assert_array_equal(ours[0], expected)


def test_uint8_nchw_is_transposed() -> None:
    images = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    np.testing.assert_array_equal(to_model_input(images, replace(SPEC, layout="NCHW")), images.transpose(0, 3, 1, 2))


def test_resized_pixels_at_the_limit_and_above(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv.runtime import preprocess as module

    spec = InputSpec("x", (3, 8, 8), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)
    picture = Image.new("RGB", (20, 4))  # resized to 40x8
    monkeypatch.setattr(module, "MAX_RESIZED_PIXELS", 320)
    assert resize_and_crop(picture, spec).shape == (8, 8, 3)
    monkeypatch.setattr(module, "MAX_RESIZED_PIXELS", 319)
    with pytest.raises(UsageError, match="too long and thin"):
        resize_and_crop(picture, spec)
