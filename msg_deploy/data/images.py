"""Image files in folders, read by Pillow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.data import DataOptions, Dataset, Part, Split, dataset
from msg_deploy.data.folders import files_in, read_files, stream_files
from msg_deploy.data.places import located
from msg_deploy.errors import FileError, UsageError, reason
from msg_deploy.samples import Samples

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
MAX_PIXELS = 2**27
MAX_DEEP = 2**16 - 1
"""The largest value of 16 bits."""


@dataset
def images(options: DataOptions, steps: int) -> Dataset:
    """CLASS/FILE, or train/CLASS/FILE and test/CLASS/FILE; values in 0..1.

    All become what the first file of train is: grey (1, H, W) or colour (3, H, W). Files of another
    size are broken, unless a size to scale to is given.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(
            "image files are read by Pillow; install it with pip install 'msg-deploy[images]'."
        ) from error
    root = located("images", options)
    files = files_in(root, SUFFIXES, options)

    def opened(path: Path) -> Any:
        try:
            image = Image.open(path)
            if math.prod(image.size) > MAX_PIXELS:
                raise FileError(path, f"has {image.size} pixels; at most {MAX_PIXELS} are read.")
            image.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise FileError(path, f"cannot be read as an image ({reason(error)}).") from error
        return image

    first = opened(files.parts["train"][0][0])
    mode = "L" if first.mode in ("1", "L") or _deep(first) else "RGB"
    channels = 1 if mode == "L" else 3
    size = options.size or (first.height, first.width)

    def pixels(path: Path) -> npt.NDArray[Any]:
        image = opened(path)
        deep = _deep(image)
        image = image.convert("I" if deep else mode)
        if options.size:
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        elif (image.height, image.width) != size:
            raise FileError(
                path,
                f"has {image.height}x{image.width} pixels, the first file {size[0]}x{size[1]}; "
                "scale them with --size HEIGHTxWIDTH.",
            )
        values = np.asarray(image, np.float32) / (MAX_DEEP if deep else 255)
        if not 0 <= values.min() <= values.max() <= 1:
            raise FileError(path, f"has values outside 0..{MAX_DEEP}; 8 and 16 bits are read.")
        if values.ndim == 2:
            return np.repeat(values[None], channels, axis=0)
        return values.transpose(2, 0, 1)

    def read(part: Part) -> Split:
        return read_files(files, part, options, pixels)

    def stream(part: Part) -> Samples:
        return stream_files(files, part, options, pixels, steps)

    return Dataset("images", files.classes, (channels, *size), "direct", read, (0.0, 1.0), stream)


def _deep(image: Any) -> bool:
    """Whether it is grey of more than 8 bits, which Pillow cuts off at 255 when it converts."""
    return str(image.mode).startswith("I")
