"""Where random numbers come from: JAX's generators, and one that is cheap on a CPU.

A short Langevin step spends most of its time on noise: on a CPU threefry takes four
times as long as all else that a normal number needs.
"""

import math

import jax
from jax import lax
from jax.extend import random as extended
import jax.numpy as jnp

from stein_jax import checks
from stein_jax.types import Array, PRNGKey

_MOST = 2**32  # words of a key, one for each counter
_GOLDEN = 0x9E3779B1  # odd, near 2^32 over the golden ratio: spreads counters


def convert(rng: PRNGKey, implementation: str) -> PRNGKey:
  """Returns a key of the named implementation, made of a key of any.

  'threefry2x32' leaves threefry's keys as they are. 'rbg' is XLA's own generator, which
  is fast on TPUs; its keys are a threefry key twice, so that a seed gives the same key
  in either way. 'hashed' has threefry's keys, but its bits are a hash of a counter, so
  that a normal number takes a quarter to a third of the time on a CPU. Its numbers have
  passed `tests/randomness_test.py` and TestU01's SmallCrush, but nobody has attacked
  them as threefry's have been.
  """
  checks.key(several=True, rng=rng)
  checks.choice(IMPLEMENTATIONS, prng_impl=implementation)
  words = jax.random.key_data(rng)[..., :2]
  if implementation == 'rbg':
    # XLA's generator has four words of state, and threefry's key has two.
    words = jnp.concatenate([words, words], -1)
  return jax.random.wrap_key_data(words, impl=IMPLEMENTATIONS[implementation])


def _mixed(words: Array) -> Array:
  """Returns a hash of unsigned 32-bit words, a bijection [W18].

  Its two factors were searched for, so that a flipped bit flips every bit of the result
  in about half of all words.
  """
  words = (words ^ (words >> 16)) * jnp.uint32(0x21F0AAAD)
  words = (words ^ (words >> 15)) * jnp.uint32(0x735A2D97)
  return words ^ (words >> 15)


def _expanded(key: Array) -> tuple[Array, Array, Array]:
  """Returns the start, the middle and the odd step of a key's words, [] each.

  Each depends on both words of the key, and no two keys have one start and one middle.
  """
  first, second = key[0], key[1]
  start = first ^ _mixed(second + jnp.uint32(_GOLDEN))
  middle = second ^ _mixed(start)
  return start, middle, _mixed(start + middle) | jnp.uint32(1)


def _hashed(counter: Array, key: Array) -> Array:
  """Returns a word of each counter under a key [2], all unsigned and of 32 bits.

  Counters of two keys may meet at the start or in the middle, but not in both: the step
  is the key's own, so that words of one stream are not those of another in a row. The
  place is added to its hash, so that words repeat as often as random ones do, which
  those of a bijection never would.
  """
  start, middle, step = _expanded(key)
  place = counter * step + start
  return _mixed(_mixed(place) + middle) + place


def _random_bits(key, bit_width, shape):
  """Returns unsigned integers of that width, like `jax.random.bits`."""
  # A word is 32 bits wide: narrower integers are its low bits, wider ones two words.
  if bit_width == 64:
    high, low = _random_bits(key, 32, (2, *shape)).astype(jnp.uint64)
    return (high << 32) | low
  # A number depends on its place and the key alone, so that the array can be
  # made in any order.
  if math.prod(shape) > _MOST:  # the counter would begin again
    raise ValueError(
      f'{bit_width} bits of shape {shape}: prng_impl=hashed has {_MOST} words for a '
      "key; allowed: smaller parts with keys of their own, or 'threefry2x32'."
    )
  counter = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
  return _hashed(counter, key).astype(jnp.dtype(f'uint{bit_width}'))


def _on_threefry(function):
  """Returns a function of key words, from one of threefry keys to such keys."""

  def on_words(words, *args):
    key = jax.random.wrap_key_data(words, impl='threefry2x32')
    return jax.random.key_data(function(key, *args))

  return on_words


IMPLEMENTATIONS = {
  'threefry2x32': 'threefry2x32',
  'rbg': 'rbg',
  'hashed': extended.define_prng_impl(
    key_shape=(2,),
    seed=lambda seed: jax.random.key_data(
      jax.random.key(seed, impl='threefry2x32')
    ),
    split=_on_threefry(jax.random.split),
    random_bits=_random_bits,
    fold_in=_on_threefry(jax.random.fold_in),
    name='hashed',
    tag='hsh',
  ),
}
