"""Every kind of hard image has one stated outcome."""

import os
import struct
import threading
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgecv.errors import UsageError
from edgecv.runtime import decode
from edgecv.runtime.decode import FORMATS, _pillow_warnings_as_errors, decode_image

QUADRANTS = np.zeros((16, 24, 3), np.uint8)
QUADRANTS[:8, :12] = (250, 10, 10)
QUADRANTS[:8, 12:] = (10, 250, 10)
QUADRANTS[8:, :12] = (10, 10, 250)
QUADRANTS[8:, 12:] = (240, 240, 240)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def close_to(image: Image.Image, expected: np.ndarray, tolerance: int = 0) -> bool:
    return bool(np.abs(np.asarray(image).astype(int) - expected.astype(int)).max() <= tolerance)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
def test_lossless_formats_give_the_pixels_back(file_format: str) -> None:
    data = encoded(Image.fromarray(QUADRANTS), file_format, **({"lossless": True} if file_format == "WEBP" else {}))
    image = decode_image(data)
    assert image.mode == "RGB"
    assert close_to(image, QUADRANTS)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(file_format: str, orientation: int) -> None:
    stored = Image.fromarray(QUADRANTS)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {"quality": 95} if file_format == "JPEG" else {}
    data = encoded(stored, file_format, exif=exif, **options)
    tagged = Image.open(BytesIO(data))
    expected = np.asarray(ImageOps.exif_transpose(tagged).convert("RGB"))
    assert close_to(decode_image(data), expected)
    assert close_to(decode_image(Image.open(BytesIO(data))), expected)  # as a PIL image the same as from a file
    assert expected.shape[:2] == ((24, 16) if orientation >= 5 else (16, 24))


def test_damaged_exif_counts_as_none(recwarn: pytest.WarningsRecorder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description long enough to be stored outside of the directory"
    block = exif.tobytes()
    data = encoded(Image.fromarray(QUADRANTS), "JPEG", exif=block[:-40])
    assert decode_image(data).size in ((24, 16), (16, 24))
    data = encoded(Image.fromarray(QUADRANTS), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert decode_image(data).size == (24, 16)
    assert not recwarn.list


def test_cmyk_becomes_its_rgb_colours() -> None:
    cmyk = Image.fromarray(QUADRANTS).convert("CMYK")
    image = decode_image(encoded(cmyk, "JPEG", quality=100))
    assert image.mode == "RGB"
    assert close_to(image, np.asarray(cmyk.convert("RGB")), tolerance=6)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_scaled_not_clipped(file_format: str) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    image = decode_image(encoded(Image.fromarray(ramp), file_format))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image)[..., 0].ravel(), np.arange(256))


def test_16_bit_gray_and_16_bit_colour_of_one_scene_agree() -> None:
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 65536, (8, 8), dtype=np.uint16)
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in gray)
    colour = png(struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0), rows)
    assert close_to(decode_image(colour), np.asarray(decode_image(encoded(Image.fromarray(gray), "PNG"))))


def png(header: bytes, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_show_white_and_hide_their_colour(mode: str) -> None:
    rgba = np.dstack([QUADRANTS, np.full((16, 24), 255, np.uint8)])
    rgba[:8, :12, 3] = 0
    image = Image.fromarray(rgba).convert(mode)
    pixels = np.asarray(decode_image(image))
    assert (pixels[:8, :12] == 255).all()
    assert close_to(Image.fromarray(pixels[8:, 12:]), QUADRANTS[8:, 12:], 12)


def test_palette_with_transparent_entries_shows_white() -> None:
    palette = Image.fromarray(QUADRANTS).quantize(8)
    clear = palette.getpixel((0, 0))
    table = bytes(0 if i == clear else 255 for i in range(8))
    for transparency in (clear, table):  # one index, or an alpha for each entry
        pixels = np.asarray(decode_image(encoded(palette, "PNG", transparency=transparency)))
        assert (pixels[:8, :12] == 255).all()
        assert close_to(Image.fromarray(pixels[:8, 12:]), QUADRANTS[:8, 12:], 12)


def test_half_transparent_is_mixed_with_white() -> None:
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert close_to(decode_image(encoded(image, "PNG")), np.full((2, 2, 3), 127), 1)


def test_colour_key_of_rgb_shows_white() -> None:
    data = encoded(Image.fromarray(QUADRANTS), "PNG", transparency=(250, 10, 10))
    assert (np.asarray(decode_image(data))[:8, :12] == 255).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(QUADRANTS).convert(mode)
    assert close_to(decode_image(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_are_refused(mode: str) -> None:
    with pytest.raises(UsageError, match=f"mode {mode} have no known range"):
        decode_image(encoded(Image.new(mode, (4, 4)), "TIFF"))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_picture_of_several_is_taken(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert close_to(decode_image(data), np.full((8, 8, 3), (255, 0, 0)), 1)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.95])
def test_truncated_files_are_errors_in_every_format(file_format: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), file_format)
    with pytest.raises(UsageError, match=r"damaged or truncated|not an image"):
        decode_image(data[: int(len(data) * kept)])


def test_text_named_jpg_is_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_text("this is no photograph\n" * 20)
    with pytest.raises(UsageError, match=r"photo\.jpg' is not an image in one of the formats JPEG, PNG"):
        decode_image(path)


def test_format_outside_the_list_is_refused() -> None:
    with pytest.raises(UsageError, match="not an image in one of the formats"):
        decode_image(encoded(Image.fromarray(QUADRANTS), "TGA"))
    with pytest.raises(UsageError, match="not an image in one of the formats"):
        decode_image(encoded(Image.fromarray(QUADRANTS), "EPS"))


def test_fifo_folder_missing_and_empty_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").touch()
    for name, reason in (
        ("pipe.jpg", "not a regular file"),
        ("", "is a folder"),
        ("no.jpg", "does not exist"),
        ("empty.jpg", "is empty"),
    ):
        with pytest.raises(UsageError, match=reason):
            decode_image(tmp_path / name)


@pytest.mark.parametrize(("width", "height"), [(8_001, 8_000), (10_000, 10_000), (60_000, 60_000)])
def test_huge_header_is_refused_before_decoding(width: int, height: int, recwarn: pytest.WarningsRecorder) -> None:
    data = png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"\0" * 100)
    with pytest.raises(UsageError, match="limit of 64000000"):
        decode_image(data)
    assert not recwarn.list


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused_with_what_is_wanted(pixels: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"uint8 of shape \(height, width, 3\)"):
        decode_image(pixels)


def test_other_types_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be a int"):
        decode_image(7)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="0 bytes"):
        decode_image(b"")


def test_strided_array_is_read_rightly() -> None:
    assert close_to(decode_image(QUADRANTS[::-1, ::-1]), QUADRANTS[::-1, ::-1])


def test_pillow_warnings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # 384 pixels: Pillow warns, and only above 600 raises
    with pytest.raises(UsageError, match="more pixels than the limit"):
        decode_image(encoded(Image.fromarray(QUADRANTS), "PNG"))


def test_warning_filters_are_left_as_they_were_by_many_threads() -> None:
    before = list(warnings.filters)
    data = encoded(Image.fromarray(QUADRANTS), "JPEG")

    def work() -> None:
        for _ in range(50):
            decode_image(data)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert list(warnings.filters) == before


def test_filters_stay_until_the_last_of_overlapping_users_is_done() -> None:
    before = list(warnings.filters)
    first, second = _pillow_warnings_as_errors(), _pillow_warnings_as_errors()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(UserWarning, match="odd"):
        warnings.warn_explicit("odd", UserWarning, "Image.py", 1, module="PIL.Image")
    second.__exit__(None, None, None)
    assert list(warnings.filters) == before


def test_random_damage_never_escapes_as_another_error() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    for file_format in FORMATS:
        good = encoded(noise, file_format)
        for _ in range(40):
            data = bytearray(good)
            for _ in range(rng.integers(1, 20)):
                data[rng.integers(len(data))] = rng.integers(256)
            try:
                assert decode_image(bytes(data)).mode == "RGB"
            except UsageError:
                continue


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_picture_without_a_pixel_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="there is nothing to see"):
        decode_image(Image.new("RGB", size))


def test_pixels_at_the_limit_and_above(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(QUADRANTS)
    for limit, file_format in (("MAX_IMAGE_PIXELS", "PNG"), ("MAX_WEBP_PIXELS", "WEBP")):
        data = encoded(picture, file_format)
        monkeypatch.setattr(decode, limit, QUADRANTS.size // 3)
        assert decode_image(data).size == picture.size
        monkeypatch.setattr(decode, limit, QUADRANTS.size // 3 - 1)
        with pytest.raises(UsageError, match="over the limit of 383"):
            decode_image(data)


def test_bytes_of_a_file_at_the_limit_and_above(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(QUADRANTS), "PNG")
    monkeypatch.setattr(decode, "MAX_IMAGE_BYTES", len(data))
    decode_image(data)
    monkeypatch.setattr(decode, "MAX_IMAGE_BYTES", len(data) - 1)
    with pytest.raises(UsageError, match="bytes, not 1 to"):
        decode_image(data)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "colour key", "I;16"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_picture_is_converted_in_strips_to_the_same_pixels(
    kind: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    options: dict[str, object] = {}
    if kind == "RGBA":
        picture = Image.fromarray(rng.integers(0, 256, (37, 23, 4), np.uint8))
    elif kind == "LA":
        picture = Image.fromarray(rng.integers(0, 256, (37, 23, 4), np.uint8)).convert("LA")
    elif kind == "I;16":
        picture = Image.fromarray(rng.integers(0, 65536, (37, 23)).astype(np.uint16))
    else:
        picture = Image.fromarray(rng.integers(0, 4, (37, 23, 3), np.uint8) * 80)
        picture = picture.quantize(16) if kind == "palette" else picture
        options["transparency"] = 3 if kind == "palette" else (80, 80, 80)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, "PNG", exif=exif, **options)
    whole = decode_image(data)
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 100)
    assert np.array_equal(whole, decode_image(data))
