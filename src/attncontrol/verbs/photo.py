"""Pictures that exist, as a model can take them: RGB, 8 bits, upright, of a size that it divides.

A transformer cuts latents of ``vae_scale_factor`` pixels into patches of two, so both sides are
multiples of twice that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from attncontrol.checks.arguments import Count
from attncontrol.errors import SettingError
from attncontrol.families.autoencoder import cell_side
from attncontrol.running.modular import require_plain

Photo = Image.Image | np.ndarray
"""A PIL image of any mode but "F", or an array [height width] or [height width channel] (gray, RGB
or RGBA) of uint8, uint16 or floats in 0 .. 1."""

Size = tuple[Count, Count]
"""(height, width) in pixels."""

_LONGEST = 1024  # of models that do not name their own size


def fitted(pipe: Any, photo: Photo, size: Size | None = None) -> np.ndarray:
    """The picture [height width 3] uint8 that ``pipe`` is shown.

    By default it keeps its shape: it is made smaller, never larger, so that its longest side is at
    most that of the pictures the model makes, and what is over a multiple (less than two patches)
    is cropped evenly from both sides. With ``size`` it is scaled and cropped evenly to exactly
    that. Raises SettingError for a size that is no multiple, and as ``read``.
    """
    image, multiple = read(photo), 2 * cell_side(pipe)
    if (chosen := _of_pipeline(pipe, image, size)) is not None:
        size = chosen
    if size is None:
        return np.asarray(reduced(image, longest_side(pipe), multiple))
    height, width = size
    if min(size) < 1 or height % multiple or width % multiple:
        raise SettingError(
            f"size={size} is (height, width) in pixels; this model takes multiples of {multiple}, "
            f"such as {tuple(max(multiple, round(s / multiple) * multiple) for s in size)}"
        )
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))


def batch(
    pipe: Any, photos: Sequence[Photo], size: Size | None, call: Mapping[str, Any]
) -> list[np.ndarray]:
    """Each ``fitted``; ``height`` and ``width`` in the pipeline's ``call`` are a size, too. Raises
    SettingError for pictures of several shapes, and sizes that contradict each other; ModelError
    for modular pipelines."""
    require_plain(pipe, "what begins with a picture that exists")
    sides = {side: call[side] for side in ("height", "width") if call.get(side) is not None}
    if len(sides) == 1 or (sides and size not in (None, tuple(sides.values()))):
        given = ", ".join(f"{side}={pixels}" for side, pixels in sides.items())
        raise SettingError(
            f"{given} {f'is not {size=}' if size else 'is one side of a picture'}; give "
            "size=(height, width) alone"
        )
    if sides:
        size = (sides["height"], sides["width"])
    pictures = [fitted(pipe, photo, size) for photo in photos]
    shapes = {picture.shape[:2] for picture in pictures}
    if len(shapes) > 1:
        raise SettingError(
            f"the pictures of one batch have one shape, not {sorted(shapes)}; "
            "choose one with size=(height, width)"
        )
    return pictures


def read(photo: Photo) -> Image.Image:
    """Upright by its EXIF entry and RGB of 8 bits; 16 bits are divided by 257, what is transparent
    lies on white. Raises SettingError for arrays and modes whose range is not known."""
    if isinstance(photo, np.ndarray):
        return _from_array(photo)
    upright = ImageOps.exif_transpose(photo)
    if upright.mode.startswith("I"):  # 16 bits per pixel, "I" in files of older versions
        return _from_array(np.asarray(upright, np.int64).clip(0, 65535).astype(np.uint16))
    if upright.mode == "F":
        raise SettingError(
            'the range of a picture of mode "F" is not known; give an array of floats in 0 .. 1'
        )
    return _on_white(upright) if upright.has_transparency_data else upright.convert("RGB")


def reduced(image: Image.Image, longest: int, multiple: int) -> Image.Image:
    """At most ``longest`` pixels long, cropped around its middle to multiples; what is narrower
    than one multiple is enlarged to it first."""
    scale = min(1.0, longest / max(image.size))
    scale = max(scale, multiple / min(image.size)) if min(image.size) * scale < multiple else scale
    whole = [max(multiple, round(side * scale)) for side in image.size]
    scaled = image if scale == 1 else image.resize(whole, Image.Resampling.LANCZOS)
    most = max(longest, multiple)
    width, height = (min(side, most) // multiple * multiple for side in scaled.size)
    left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
    return scaled.crop((left, top, left + width, top + height))


def longest_side(pipe: Any) -> int:
    """Pixels of the longest side of the pictures that the model makes unless told otherwise; 1,024
    if it does not say."""
    own = getattr(pipe, "default_sample_size", None)
    if own is None:
        denoiser: Any = getattr(pipe, "transformer", None) or pipe.unet
        own = denoiser.config.get("sample_size")
    return _LONGEST if own is None else int(np.max(own)) * cell_side(pipe)


def _of_pipeline(pipe: Any, image: Image.Image, size: Size | None) -> Size | None:
    """Of pipelines that make pictures of some sizes alone, that of the next shape; None of others.
    Raises SettingError for another one."""
    known = [(height, width) for width, height in getattr(pipe, "resolutions", ())]
    if not known:
        return None
    if size is None:
        return min(known, key=lambda sides: abs(sides[1] / sides[0] - image.width / image.height))
    if size not in known:
        raise SettingError(
            f"size={size} is (height, width) in pixels; {type(pipe).__name__} makes pictures of "
            f"{', '.join(map(str, known))} alone"
        )
    return size


def _from_array(pixels: np.ndarray) -> Image.Image:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or not pixels.size:
        raise SettingError(
            f"a picture is an array [height width] or [height width 1, 3 or 4], not {pixels.shape}"
        )
    image = Image.fromarray(
        _eight_bits(pixels.reshape(pixels.shape[:2]) if channels == 1 else pixels)
    )
    return _on_white(image) if channels == 4 else image.convert("RGB")


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if np.issubdtype(pixels.dtype, np.uint16):  # in any order of bytes
        return np.rint(pixels / 257).astype(np.uint8)
    if np.issubdtype(pixels.dtype, np.floating) and pixels.min() >= 0 and pixels.max() <= 1:
        return np.rint(pixels * 255).astype(np.uint8)
    raise SettingError(
        f"a picture is an array of uint8, uint16 or floats in 0 .. 1, not {pixels.dtype} in "
        f"{pixels.min()} .. {pixels.max()}"
    )


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")
