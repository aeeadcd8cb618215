"""Folders of images as calibration inputs: decoded, resized and normalised by Pillow and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halpc.errors import BackendError, CalibrationError
from passes.inputs import IMAGE_SUFFIXES, Arrays, InputSpec

SIXTEEN_BITS = ("PNG", "PPM")  # formats whose integers have no more
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def load_pictures(
    folder: Path,
    specs: Sequence[InputSpec],
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    limit: int | None = None,
) -> Arrays:
    """Reads every image under `folder` for a model with one image input (NCHW or NHWC).

    An image is scaled until it just covers the input's height and width (bilinear, antialiased) and cropped at
    its centre. An integer input gets pixels 0..255; a floating-point one gets (pixel / 255 − mean) / std.

    Raises:
        CalibrationError: the input is no image, a file does not decode, `mean` or `std` are missing or misfit.
        BackendError: Pillow is not installed.
    """
    if len(specs) != 1:
        raise CalibrationError(f"{folder}: images need a model with one input, this one has {len(specs)}; give a .npz.")
    spec = specs[0]
    channels_last, channels, height, width = _layout(folder, spec)
    normal = _normalisation(folder, spec, channels, mean, std)
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if limit is not None and len(files) > limit:
        files = [files[index] for index in np.linspace(0, len(files) - 1, limit).astype(int)]
    sizes = (height, width, channels) if channels_last else (channels, height, width)
    result = np.empty((len(files), *sizes), dtype=spec.dtype)
    for row, file in enumerate(files):
        pixels = _decode(file, MODES[channels], height, width)
        values = pixels if normal is None else (pixels / 255.0 - normal[0]) / normal[1]
        result[row] = values if channels_last else values.transpose(2, 0, 1)
    return {spec.name: result}


def _layout(folder: Path, spec: InputSpec) -> tuple[bool, int, int, int]:
    """Whether channels come last; channels, height and width."""
    if len(spec.shape) == 4:
        for last, (channels, height, width) in (
            (False, (spec.shape[1], spec.shape[2], spec.shape[3])),
            (True, (spec.shape[3], spec.shape[1], spec.shape[2])),
        ):
            if channels in MODES and channels is not None:
                if height is None or width is None:
                    raise CalibrationError(
                        f"{folder}: input {spec.name!r} is {spec.spell()}; say the size with --shape {spec.name}:1x…"
                    )
                return last, channels, height, width
    raise CalibrationError(f"{folder}: input {spec.name!r} is {spec.spell()}, which is no image; give a .npz.")


def _normalisation(
    folder: Path, spec: InputSpec, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Mean and standard deviation per channel of pixels in 0..1; None where pixels are fed as they are."""
    if not np.issubdtype(spec.dtype, np.floating):
        if mean is not None or std is not None:
            raise CalibrationError(
                f"{folder}: input {spec.name!r} is {spec.dtype} and takes pixels as they are; drop --mean and --std."
            )
        return None
    if mean is None or std is None:
        raise CalibrationError(
            f"{folder}: say how pixels become {spec.dtype}: --mean and --std of pixels in 0..1, as in training "
            "(ImageNet: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225; pixels unchanged in 0..255: "
            "--mean 0 --std 0.00392156862745098)."
        )
    shift, scale = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
    for name, values in (("--mean", shift), ("--std", scale)):
        if values.size not in (1, channels) or not np.isfinite(values).all():
            raise CalibrationError(
                f"{folder}: {name} has {values.size} value(s), expected 1 or {channels} finite ones."
            )
    if (scale <= 0).any():
        raise CalibrationError(f"{folder}: --std must be positive.")
    return shift, scale


def _decode(file: Path, mode: str, height: int, width: int) -> NDArray[Any]:
    """Pixels uint8[height, width, channels]; of several frames the first."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise BackendError("reading images needs Pillow: pip install pillow, or give a .npz.") from error
    try:
        with Image.open(file) as image:
            if image.mode == "F" or image.mode.startswith("I"):
                image = Image.fromarray(_eight_bits(file, np.asarray(image), known=image.format in SIXTEEN_BITS))
            elif image.mode == "P":  # Pillow warns of transparent palettes that become RGB at once
                image = image.convert("RGBA")
            fitted = ImageOps.fit(image.convert(mode), (width, height), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise CalibrationError(f"{file}: not a readable image ({error}).") from error
    except ValueError as error:  # from one kind of colours to another
        raise CalibrationError(f"{file}: {image.mode} does not become {mode} ({error}); save it as RGB.") from error
    return np.asarray(fitted, dtype=np.uint8).reshape(height, width, -1)


def _eight_bits(file: Path, values: NDArray[Any], *, known: bool) -> NDArray[np.uint8]:
    """Grey values of 16 bits or floats in 0..1, as pixels 0..255, where Pillow would cut them off at 255.

    Args:
        known: that the file's integers are of 16 bits, also where they take 32 in memory.

    Raises:
        CalibrationError: floats that span anything else, or integers of 32 bits.
    """
    floats = np.issubdtype(values.dtype, np.floating)
    most = 1.0 if floats else 65535.0
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= most or (values.dtype.itemsize > 2 and not floats and not known):
        raise CalibrationError(
            f"{file}: {values.dtype} pixels that span {low:g} to {high:g}; expected 8 or 16 bits per channel, or floats"
            " in 0 to 1. Save it so, or give a .npz."
        )
    return np.asarray(np.rint(values * (255.0 / most)), dtype=np.uint8)
