"""Grids of images, and PNG files of them."""

import base64
from collections.abc import Sequence
import io
import math

import numpy as np


def grid(
  images: np.ndarray, *, columns: int | None = None, pad: int = 2
) -> np.ndarray:
  """Returns one uint8 image [H, W, 3] of images [n, h, w, c] in [0, 1].

  Rows are filled first; values outside [0, 1] are cut.
  """
  images = np.asarray(images, np.float32)
  if images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
    raise ValueError(f'Images must be [n, h, w, 1 or 3]; got {images.shape}.')
  n, h, w, _ = images.shape
  columns = columns or math.ceil(n**0.5)
  rows = math.ceil(n / columns)
  # The lines between images are white, as the page of a report is.
  page = np.ones(
    (rows * (h + pad) + pad, columns * (w + pad) + pad, 3), np.float32
  )
  for i, image in enumerate(images):
    top = pad + (i // columns) * (h + pad)
    left = pad + (i % columns) * (w + pad)
    page[top : top + h, left : left + w] = image
  return np.round(255 * np.clip(page, 0, 1)).astype(np.uint8)


def strips(paths: np.ndarray) -> np.ndarray:
  """Returns one uint8 image [H, W, 3] of paths [k, t, h, w, c], a row each."""
  return grid(paths.reshape(-1, *paths.shape[2:]), columns=paths.shape[1])


def png(
  image: np.ndarray, *, zoom: int = 1, labels: Sequence[str] = ()
) -> bytes:
  """Returns the PNG file of a uint8 image [h, w, 3], pixels repeated `zoom` times.

  `labels` are written beside its rows, which are as many and equally high.

  Raises:
    ValueError: other values, of no known range, or another shape.
  """
  from PIL import Image  # pylint: disable=g-import-not-at-top

  image = np.asarray(image)
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
    raise ValueError(
      f'An image is {image.dtype} {image.shape}; wanted: uint8 [h, w, 3].'
    )
  # Repeated rather than interpolated: a pixel of a sample stays one colour.
  image = np.repeat(np.repeat(image, zoom, 0), zoom, 1)
  if labels:
    image = np.concatenate([_margin(labels, len(image)), image], axis=1)
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'PNG')
  return buffer.getvalue()


def _margin(labels, height):
  """Returns a white uint8 image [height, w, 3] with the labels at its right edge."""
  from PIL import Image  # pylint: disable=g-import-not-at-top
  from PIL import ImageDraw  # pylint: disable=g-import-not-at-top
  from PIL import ImageFont  # pylint: disable=g-import-not-at-top

  font = ImageFont.load_default(size=15)
  width = math.ceil(max(map(font.getlength, labels))) + 16
  margin = Image.new('RGB', (width, height), 'white')
  draw = ImageDraw.Draw(margin)
  for i, label in enumerate(labels):
    middle = (width - 8, (i + 0.5) * height / len(labels))
    draw.text(middle, label, fill='black', font=font, anchor='rm')
  return np.asarray(margin)


def gif(
  paths: np.ndarray, *, zoom: int = 1, frames_per_second: int = 12
) -> bytes:
  """Returns an animated GIF of paths [k, t, h, w, c] in [0, 1], side by side."""
  from PIL import Image  # pylint: disable=g-import-not-at-top

  frames = [
    Image.fromarray(np.repeat(np.repeat(grid(paths[:, t]), zoom, 0), zoom, 1))
    for t in range(paths.shape[1])
  ]
  buffer = io.BytesIO()
  # Pillow writes an animation from its first frame on.
  frames[0].save(
    buffer,
    'GIF',
    save_all=True,
    append_images=frames[1:],
    duration=1000 // frames_per_second,
    loop=0,
  )
  return buffer.getvalue()


def read_png(png_bytes: bytes) -> np.ndarray:
  """Returns the uint8 image [h, w, 3] of a PNG file's bytes."""
  from PIL import Image  # pylint: disable=g-import-not-at-top

  return np.asarray(Image.open(io.BytesIO(png_bytes)).convert('RGB'))


def data_uri(png_bytes: bytes) -> str:
  """Returns the PNG as a string that an HTML page can hold."""
  return 'data:image/png;base64,' + base64.b64encode(png_bytes).decode()
