"""How near images are to those that they are compared with."""

import jax
import numpy as np

from stein_jax import checks
from stein_jax import dtypes
from stein_jax.types import Array

_SLACK = 1e-5  # of a range of pixels, made in single precision


def psnr(x: Array, y: Array, *, span: float = 1.0) -> np.ndarray:
  """Returns each image's peak signal-to-noise ratio in dB [n]; inf for equal images.

  It is 10 log10(span^2 / mean squared error over pixels and channels).

  Args:
    x: images [n, h, w, c].
    y: what they are compared with [n, h, w, c].
    span: width of the range of pixels: 1 for [0, 1], 2 for [-1, 1], 255 for bytes.

  Raises:
    ValueError: the images are not [n, h, w, c], have two shapes, or have pixels in a
      wider range.
  """
  x, y, _, _ = _in_range(x, y, span)
  error = np.mean((x - y) ** 2, (1, 2, 3))
  with np.errstate(divide='ignore'):
    return 10 * np.log10(span**2 / error)


def ssim(
  x: Array, y: Array, *, span: float = 1.0, low: float = 0.0
) -> np.ndarray:
  """Returns each image's structural similarity [n], at most 1 [WBSS04].

  It has the paper's Gaussian window of 11 x 11 pixels and deviation 1.5, K_1 = 0.01
  and K_2 = 0.03, and is the mean over the windows inside the image, and over channels.

  Args:
    x: images [n, h, w, c].
    y: what they are compared with [n, h, w, c].
    span: width of the range of pixels: 1 for [0, 1], 2 for [-1, 1], 255 for bytes.
    low: where the range begins: -1 for [-1, 1]. Luminance is measured from there.

  Raises:
    ValueError: the images are not [n, h, w, c], have two shapes, are smaller than the
      window, or have pixels outside [low, low + span].
  """
  import dm_pix  # pylint: disable=g-import-not-at-top

  x, y, least, most = _in_range(x, y, span)
  if min(x.shape[1:3]) < 11:
    raise ValueError(f'Images must be at least 11 x 11 pixels; got {x.shape}.')
  checks.finite(low=low)
  if least < low - _SLACK * span or most > low + (1 + _SLACK) * span:
    raise ValueError(
      f'Pixels are in [{least}, {most}]; low={low} and span={span} say '
      f'[{low}, {low + span}].'
    )
  x, y = (x - low) / span, (y - low) / span
  similarity = jax.jit(dm_pix.ssim)
  # A variance is a difference of means of squares: in float32 the similarity of
  # flat images is wrong by 5e-5.
  with jax.enable_x64(True), jax.default_device(_host()):
    return np.array([similarity(*pair) for pair in zip(x, y, strict=True)])


def recovery(
  samples: Array, data: Array, mask: Array | None = None
) -> dict[str, float]:
  """Returns how near images are to the true ones that they were to recover.

  The means of 'psnr' in dB and of 'ssim' over images in [0, 1]; with a mask also
  'psnr_pasted' and 'ssim_pasted', where the known pixels are put in their place first.

  Args:
    samples: images [n, h, w, c].
    data: the true ones [n, h, w, c].
    mask: 1 where a pixel was known, 0 elsewhere [n, h, w, 1].

  Raises:
    ValueError: the images have two shapes or other pixels, or the mask has other
      values.
  """
  versions = {'': samples}
  if mask is not None:
    if not np.isin(mask, (0, 1)).all():
      raise ValueError(
        'mask must be 0 where a pixel is unknown, and 1 elsewhere.'
      )
    versions['_pasted'] = np.where(mask, data, samples)
  found = {}
  for name, version in versions.items():
    found[f'psnr{name}'] = float(np.mean(psnr(version, data)))
    found[f'ssim{name}'] = float(np.mean(ssim(version, data)))
  return found


def _in_range(x, y, span):
  """Returns two sets of images [n, h, w, c] in float64, and where pixels are."""
  checks.positive(span=span)
  x, y = dtypes.on_host(x), dtypes.on_host(y)
  checks.same_shape(x=x.shape, y=y.shape)
  if x.ndim != 4 or not x.size:
    raise ValueError(f'Images must be [n, h, w, c], all >= 1; got {x.shape}.')
  least, most = min(x.min(), y.min()), max(x.max(), y.max())
  if most - least > (1 + _SLACK) * span:
    raise ValueError(
      f'Pixels are in [{least}, {most}], wider than span={span}.'
    )
  return x, y, least, most


def _host():
  """Returns the CPU, where it is not left out of `jax_platforms`; else None."""
  try:
    return jax.local_devices(backend='cpu')[0]
  except RuntimeError:
    return None
