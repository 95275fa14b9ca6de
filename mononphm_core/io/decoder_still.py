"""Still images (and animated WebP and AVIF) through Pillow, inside the limited decoder process."""

import io
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import (  # noqa: F401  (every reader that may be needed: nothing can be imported later)
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from mononphm_core.io import pixels
from mononphm_core.io.decoder_protocol import Refusal, Send
from mononphm_core.io.selection import choose
from mononphm_core.io.sniff import check_declared_duration, check_declared_size

FORMATS = {
    "jpeg": ("JPEG", "MPO"),
    "png": ("PNG",),
    "gif": ("GIF",),
    "webp": ("WEBP",),
    "avif": ("AVIF",),
    "heif": ("HEIF",),
}
Image.MAX_IMAGE_PIXELS = None  # our own limit is checked right after the header is read
_ORIENTATION, _EXIF_IFD, _FOCAL_35MM = 0x0112, 0x8769, 0xA405
_SRGB = ImageCms.createProfile("sRGB")


def prepare(container: str) -> bool:
    """Load what the format needs while files can still be opened; False where it is not installed."""
    Image.preinit()
    if container != "heif":
        return True
    try:
        import pillow_heif  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def decode_still(file: BinaryIO, request: dict[str, Any], send: Send) -> None:
    """Ship the picture (of an animation: the selected pictures) in `file`."""
    limits = request["limits"]
    with Image.open(file, formats=FORMATS[request["container"]]) as image:
        check_declared_size(
            *image.size,
            max_pixels=limits["max_pixels"],
            min_side_px=limits["min_side_px"],
            max_aspect=limits["max_aspect"],
        )
        matrix, focal = _exif(image)
        times, end_s = _times(image, limits)
        chosen = choose(times, **request["selection"]) if len(times) > 1 else [0]
        if not chosen:
            raise Refusal("ConfigError", f"No picture lies in the chosen range: the animation lasts {end_s:.2f} s.")
        width, height = image.size if matrix[0] else image.size[::-1]
        send(
            "info",
            media_type=request["media_type"],
            is_video=len(times) > 1,
            width=width,
            height=height,
            frames=len(times),
            selected=len(chosen),
            fps=None,
            duration_s=end_s if len(times) > 1 else None,
            rotation=pixels.turn_of(matrix),
            focal_35mm=focal,
            pixel_aspect=1.0,
        )
        if request["probe"]:
            image.load()  # a header alone is no picture
        else:
            _ship(image, times, chosen, matrix, limits["max_side_px"], send)
    send("end", decoded=len(times))


def _ship(
    image: Image.Image, times: list[float], chosen: list[int], matrix: pixels.Matrix, max_side: int, send: Send
) -> None:
    for index in chosen:
        if len(times) > 1:
            image.seek(index)
        size = pixels.fitted(*image.size, max_side)
        rgb = np.ascontiguousarray(pixels.oriented(_srgb8(image, size), matrix))
        send("frame", raw=rgb.tobytes(), index=index, time=times[index], width=rgb.shape[1], height=rgb.shape[0])


def _times(image: Image.Image, limits: dict[str, Any]) -> tuple[list[float], float]:
    """Seconds of every picture after the first, and the end of the last; one 0 for a still."""
    count = getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) and image.format != "MPO" else 1
    if count > limits["max_frames"]:
        raise Refusal("MediaTooLarge", f"The animation has {count} pictures; the limit is {limits['max_frames']}.")
    if count == 1:
        return [0.0], 0.0
    times, at = [], 0.0
    for index in range(count):
        image.seek(index)
        image.load()
        times.append(at)
        at += float(image.info.get("duration") or 100) / 1000.0
        check_declared_duration(at, limits["max_duration_s"])
    image.seek(0)
    return times, at


def _exif(image: Image.Image) -> tuple[pixels.Matrix, float | None]:
    """Orientation and 35 mm focal length. Any damage here means `upright, unknown`, never a refusal."""
    matrix, focal = pixels.UPRIGHT, None
    with suppress(Exception):
        exif = image.getexif()
        matrix = pixels.EXIF_MATRICES.get(int(exif.get(_ORIENTATION, 1)), pixels.UPRIGHT)
        value = float(exif.get_ifd(_EXIF_IFD).get(_FOCAL_35MM, 0))
        focal = value if 5.0 <= value <= 2000.0 else None
    return matrix, focal


def _srgb8(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """8-bit sRGB of any mode: 16 bit scaled, CMYK and profiles converted, alpha over mid grey, resized by area."""
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        grey = _grey8(np.asarray(image))
        image = Image.fromarray(np.repeat(grey[..., None], 3, axis=2))
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    if transparent:
        rgba = np.asarray(_to_srgb(image.convert("RGBA"), image.info.get("icc_profile")).convert("RGBA"))
        image = Image.fromarray(pixels.over_grey(rgba))
    else:
        image = _to_srgb(image, image.info.get("icc_profile")).convert("RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.BOX)
    return np.asarray(image)


def _grey8(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype != np.uint16 and values.max(initial=0) <= 255:
        return np.clip(values, 0, 255).astype(np.uint8)
    result: NDArray[np.uint8] = (np.clip(values, 0, 65535).astype(np.uint32) / 257 + 0.5).astype(np.uint8)
    return result


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours through the embedded ICC profile; as they are where it is missing or damaged."""
    if not profile:
        return image
    with suppress(ImageCms.PyCMSError, ValueError, OSError, TypeError):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode=mode)
        if converted is not None:
            return converted
    return image
