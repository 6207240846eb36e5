"""From an image file to RGB pixels of 8 bits; images may come from anywhere.

One way for every kind of picture:

- EXIF orientation is applied; a damaged EXIF block counts as none, the picture itself being whole.
- Transparency (RGBA, LA, palette or colour key) is laid over white, as a page shows it: colours hidden under
  transparent pixels never reach the model.
- 16 bits become 8 by dropping the low byte, for gray as Pillow's own decoders do it for colour.
- Gray and 1-bit are repeated into three channels, a palette is looked up, CMYK and YCbCr go through Pillow's
  conversion; ICC profiles are not applied (neither does timm or torchvision).
- Of an animation or a multi-page file the first picture is taken.
- A truncated or damaged file is an error, never a half-gray picture. So are 32-bit integer and floating-point
  pixels, whose range nobody knows.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgecv.errors import UsageError
from edgecv.files import MAX_IMAGE_BYTES, read_file

ImageSource = str | Path | bytes | Image.Image | np.ndarray

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What cameras, data sets and the web give. Pillow knows forty more; each is a parser open to hostile files
(EPS starts Ghostscript, FITS had an unlimited decompression, CVE-2026-40192) for pictures nobody
classifies."""

MAX_IMAGE_PIXELS = 64_000_000
"""Any camera's picture; 256 MB in Pillow's 4 bytes a pixel."""

MAX_WEBP_PIXELS = 32_000_000
"""Pillow's WebP decoder holds four pictures at a time: a file of 2,550 bytes and 64 million pixels took 980 MiB."""

_STRIP_PIXELS = 1 << 20
"""Pixels converted at a time, so that a conversion of several steps holds two whole pictures and not five."""

_ORIENTATION_TAG = 0x0112
# EXIF 2.32, table 6: how the stored rows lie -> what puts them upright.
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_METADATA_WARNINGS = r"(?is).*(exif|metadata|\btag\b|mpo|apng)"


def decode_image(source: ImageSource) -> Image.Image:
    """Return a picture as mode RGB, upright, 8 bits a channel; see the module docstring for each kind.

    Args:
        source: Path of a regular file, the bytes of one, a PIL image, or uint8 pixels (H, W, 3) in RGB order.

    Raises:
        UsageError: Missing, a folder or FIFO, not an image, truncated, of a format not in :data:`FORMATS`,
            without a pixel or over :data:`MAX_IMAGE_PIXELS`, or an array of another shape or dtype.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _decode(source, "the PIL image")
    if isinstance(source, str | Path):
        data, what = read_file(Path(source), "image", MAX_IMAGE_BYTES), f"image '{source}'"
    elif isinstance(source, bytes | bytearray | memoryview):
        data, what = bytes(source), "the image given as bytes"
        if not 0 < len(data) <= MAX_IMAGE_BYTES:
            raise UsageError(f"{what} has {len(data)} bytes, not 1 to {MAX_IMAGE_BYTES}.")
    else:
        raise UsageError(
            f"an image cannot be a {type(source).__name__}; give a path, bytes, a PIL image or uint8 (H, W, 3)."
        )
    del source
    stream = BytesIO(data)
    del data  # the stream alone keeps the file's bytes, and only until the picture is decoded
    return _decode(_opened(stream, what), what)


def _opened(stream: BytesIO, what: str) -> Image.Image:
    with _reported_as(what), _pillow_warnings_as_errors():
        return Image.open(stream, formats=FORMATS)


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UsageError(
            f"an image array must be uint8 of shape (height, width, 3) in RGB order, "
            f"not {pixels.dtype} of shape {pixels.shape}; convert it first."
        )
    if pixels.shape[0] * pixels.shape[1] > MAX_IMAGE_PIXELS:
        raise UsageError(f"an image array of shape {pixels.shape} is over the limit of {MAX_IMAGE_PIXELS} pixels.")
    return Image.fromarray(pixels)


def _decode(image: Image.Image, what: str) -> Image.Image:
    if 0 in image.size:
        raise UsageError(f"{what} has {image.width}x{image.height} pixels: there is nothing to see.")
    limit = MAX_WEBP_PIXELS if image.format == "WEBP" else MAX_IMAGE_PIXELS
    if image.width * image.height > limit:
        raise UsageError(f"{what} has {image.width}x{image.height} pixels, over the limit of {limit}; make it smaller.")
    with _reported_as(what), _pillow_warnings_as_errors():
        image.load()  # TIFF turns itself upright here, so the tag is asked for afterwards
        method = _ORIENTATIONS.get(_orientation(image))
        image = _to_rgb(image)
        return image if method is None else image.transpose(method)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block raises whatever its parser trips over; the pixels are already there
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # their decoders scale to 0..65535
        return _in_strips(image, _high_byte)
    if image.mode.startswith("I;16"):
        return _in_strips(image, _high_byte)
    if image.mode in ("I", "F"):
        raise UsageError(f"pixels of mode {image.mode} have no known range; save the image with 8 or 16 bits")
    if image.has_transparency_data:
        return _in_strips(image, _over_white)
    return image.convert("RGB")


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    rows = max(1, _STRIP_PIXELS // image.width)
    if rows >= image.height:
        return convert(image)
    out = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        out.paste(convert(image.crop((0, top, image.width, min(top + rows, image.height)))), (0, top))
    return out


def _high_byte(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).clip(0, 65535)
    return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


@contextmanager
def _reported_as(what: str) -> Iterator[None]:
    try:
        yield
    except UsageError as e:
        raise UsageError(f"{what} cannot be used: {e}.") from e
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise UsageError(f"{what} has more pixels than the limit of {MAX_IMAGE_PIXELS}; make it smaller.") from e
    except UnidentifiedImageError as e:
        raise UsageError(f"{what} is not an image in one of the formats {', '.join(FORMATS)}.") from e
    except Exception as e:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, ...
        reason = (str(e).strip() or type(e).__name__).splitlines()[0][:120]
        raise UsageError(f"{what} is damaged or truncated ({reason}); fetch or make it again.") from e


# warnings.catch_warnings changes the whole process and is not safe in threads: the first thread in sets the
# filters, the last one out puts them back.
_guard = threading.Lock()
_inside = 0
_saved: "warnings.catch_warnings[None] | None" = None


@contextmanager
def _pillow_warnings_as_errors() -> Iterator[None]:
    """Raise Pillow's warnings, such as that of a decompression bomb, but for those about metadata alone."""
    global _inside, _saved
    with _guard:
        if _inside == 0:
            _saved = warnings.catch_warnings()
            _saved.__enter__()
            warnings.filterwarnings("error", module=r"PIL\b")
            warnings.filterwarnings("ignore", message=_METADATA_WARNINGS, module=r"PIL\b")
        _inside += 1
    try:
        yield
    finally:
        with _guard:
            _inside -= 1
            if _inside == 0 and _saved is not None:
                _saved.__exit__(None, None, None)
                _saved = None
