"""Sources of examples, and batches of them.

A source has a length, and `source[indices]` is a dict of arrays: 'image' float32
[n, ...] and, where there are any, 'label' int32 [n]; 'condition', which is what a model
is told of each image, float32 [n, ...] or the labels again, int32 [n]; and 'mask'
float32 [n, h, w, 1], which is 1 where the condition shows the image's pixels. The
arrays belong to the caller: writing into them changes no source.

A data set is a public function of `datasets.sets` that returns a source. Each is an
attribute of this package too, and a config's `data` section calls it.
"""

from stein_jax.datasets import sets
from stein_jax.datasets._kept import keep_in
from stein_jax.datasets.batching import batches
from stein_jax.datasets.batching import indices
from stein_jax.datasets.sections import bits_per_dimension
from stein_jax.datasets.sections import from_file
from stein_jax.datasets.sections import from_folder
from stein_jax.datasets.sections import from_unit
from stein_jax.datasets.sections import load
from stein_jax.datasets.sections import to_unit
from stein_jax.datasets.sources import Arrays
from stein_jax.datasets.sources import Held
from stein_jax.datasets.sources import Items
from stein_jax.datasets.sources import Records
from stein_jax.datasets.sources import square

__all__ = [
  'Arrays',
  'Held',
  'Items',
  'Records',
  'batches',
  'bits_per_dimension',
  'from_file',
  'from_folder',
  'from_unit',
  'indices',
  'keep_in',
  'load',
  'sets',
  'square',
  'to_unit',
]


def __getattr__(name: str):
  """Returns the data set of that name, so that a new one needs no line here."""
  return getattr(sets, name)
