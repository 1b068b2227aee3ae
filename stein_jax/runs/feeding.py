"""What feeds the steps of a run: the host, or data that its device holds."""

import jax

from stein_jax import datasets

WAYS = ('auto', 'host', 'device')
# What 'auto' lets data take of a device's memory: MNIST takes 47 MB, CIFAR-10 154.
MAX_BYTES = 2**28


def held(config, source) -> datasets.Held | None:
  """Returns the training data for the run's device to hold, or None for the host.

  With config.feed='auto' an accelerator holds images of bytes that take 256 MiB at
  most, with labels or nothing beside them and not dequantised, where it is the run's
  only device and the run is under 'jit'. With 'device' a CPU does so too, and the size
  is the user's choice; with 'host' nobody does. Numbers are the same in all.

  Raises:
    ValueError: feed='device', and these data or this run are not such.
  """
  if config.feed == 'host':
    return None
  found = None
  # A source of the user's own may make anything of its arrays.
  if type(source) is datasets.Arrays:
    if config.parallel == 'jit' and jax.device_count() == 1:
      found = source.held()
  if config.feed == 'device':
    if found is None:
      raise ValueError(
        "feed='device' needs parallel='jit' on one device, and images of bytes in "
        "memory, not dequantised, with labels or nothing beside them; allowed: 'auto', "
        "'host'."
      )
    return found
  if jax.default_backend() == 'cpu' or found is None:
    return None
  return found if found.image.nbytes <= MAX_BYTES else None
