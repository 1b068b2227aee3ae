"""The hashed generator: keys of threefry, and numbers without a visible pattern.

Thresholds are five standard errors, or p-values of a millionth: with fixed keys a
test passes for ever or fails for ever.
"""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from stein_jax import randomness
from stein_jax import samplers

NUM = 2**20


def _key(seed):
  return randomness.convert(jax.random.key(seed), 'hashed')


def _correlation(a, b):
  """Returns the correlation of standard normal numbers in standard errors."""
  return abs(np.mean(a * b)) * np.size(a) ** 0.5


def _keys(how, num):
  """Returns keys of the hashed generator that have something in common."""
  if how == 'split':
    return jax.random.split(_key(0), num)
  if how == 'fold_in':
    return jax.vmap(lambda i: jax.random.fold_in(_key(0), i))(jnp.arange(num))
  words = np.zeros((num, 2), np.uint32)  # that of a seed is the second word
  words[:, int(how != 'one_second_word')] = np.arange(num)
  if how == 'one_first_word':
    words[:, 1] = np.random.default_rng(0).integers(0, 2**32, num, np.uint32)
  like = randomness.IMPLEMENTATIONS['hashed']
  return jax.random.wrap_key_data(jnp.asarray(words), impl=like)


def _shared(words):
  """Returns pairs of equal words of each two rows of [k, m], and of one row."""
  owner = np.repeat(np.arange(len(words)), words.shape[1])
  order = np.argsort(words, None, kind='stable')
  words_in_order, owner = words.ravel()[order], owner[order]
  counts = np.zeros((len(words),) * 2, int)
  lag, same = 1, np.array([0])
  while same.size:
    same = np.flatnonzero(words_in_order[lag:] == words_in_order[:-lag])
    np.add.at(counts, (owner[same], owner[same + lag]), 1)
    lag += 1
  return counts[np.triu_indices(len(words), 1)], np.trace(counts)


class KeysTest(absltest.TestCase):
  def test_are_those_of_threefry(self):
    for function in (
      jax.random.split,
      lambda key: jax.random.fold_in(key, 5),
      lambda key: jax.random.split(jax.random.fold_in(key, 7), (2, 3)),
    ):
      words = [
        jax.random.key_data(function(key))
        for key in (jax.random.key(3), _key(3))
      ]
      np.testing.assert_array_equal(*words)

  def test_default_is_left_alone(self):
    key = jax.random.key(3)
    same = randomness.convert(key, 'threefry2x32')
    self.assertEqual(jax.random.key_impl(same), jax.random.key_impl(key))
    np.testing.assert_array_equal(*map(jax.random.key_data, (same, key)))

  def test_one_seed_is_one_key_whatever_its_implementation(self):
    # Of each: the key of a seed, those it is split into, and a batch of them.
    made = {
      'seed': lambda key: key,
      'split': lambda key: jax.random.split(key)[1],
      'folded': lambda key: jax.random.fold_in(key, 5),
      'batch': lambda key: jax.random.split(key, (2, 3)),
    }
    for name, make in made.items():
      expected = make(jax.random.key(3, impl='threefry2x32'))
      rbg = make(jax.random.key(3, impl='rbg'))
      for key in (rbg, make(_key(3)), expected):
        for implementation in randomness.IMPLEMENTATIONS:
          other = randomness.convert(key, implementation)
          back = randomness.convert(other, 'threefry2x32')
          np.testing.assert_array_equal(
            jax.random.key_data(back), jax.random.key_data(expected), name
          )

  def test_keys_of_any_default_implementation(self):
    for default in ('rbg', 'unsafe_rbg'):
      with jax.default_prng_impl(default):
        for name in randomness.IMPLEMENTATIONS:
          key = randomness.convert(jax.random.split(jax.random.key(0))[0], name)
          self.assertLess(
            abs(jnp.mean(jax.random.normal(key, (10_000,)))), 0.05
          )

  def test_every_implementation_draws(self):
    for name in randomness.IMPLEMENTATIONS:
      key = randomness.convert(jax.random.key(0), name)
      self.assertLess(abs(jnp.mean(jax.random.normal(key, (10_000,)))), 0.05)

  def test_unknown_is_refused(self):
    with self.assertRaisesRegex(ValueError, "prng_impl='mt'.*'hashed'"):
      randomness.convert(jax.random.key(0), 'mt')


class HashedTest(parameterized.TestCase):
  @parameterized.parameters('counter', 'first', 'second')
  def test_a_flipped_bit_flips_every_bit_in_half_of_all_words(self, what):
    words = np.random.default_rng(0).integers(0, 2**32, (3, 40_000), np.uint32)
    hashed = jax.jit(lambda counter, *key: randomness._hashed(counter, key))
    before = np.asarray(hashed(*words))
    for bit in range(32):
      flipped = words.copy()
      flipped[('counter', 'first', 'second').index(what)] ^= np.uint32(1 << bit)
      change = before ^ np.asarray(hashed(*flipped))
      shares = [np.mean(change >> out & 1) for out in range(32)]
      # Five standard errors of 40,000 words, and a bias of 0.01.
      self.assertLess(np.max(np.abs(np.array(shares) - 0.5)), 0.0225)

  @parameterized.parameters(0, 1, 12345)
  def test_bytes_are_uniform(self, seed):
    words = np.asarray(jax.random.bits(_key(seed), (NUM,)))
    for shift in (0, 8, 16, 24):
      counts = np.bincount(words >> shift & 255, minlength=256)
      self.assertGreater(stats.chisquare(counts).pvalue, 1e-6)

  @parameterized.parameters(0, 1, 12345)
  def test_numbers_are_normal(self, seed):
    x = np.asarray(jax.random.normal(_key(seed), (NUM,)), np.float64)
    self.assertGreater(stats.kstest(x, 'norm').pvalue, 1e-6)
    # Moments of the normal law and the variances of their estimates.
    for power, moment, variance in (
      (1, 0, 1),
      (2, 1, 2),
      (3, 0, 15),
      (4, 3, 96),
    ):
      error = abs(np.mean(x**power) - moment) / (variance / NUM) ** 0.5
      self.assertLess(error, 5)

  @parameterized.parameters(1, 2, 3, 10, 64, 784, 1024, 2**16)
  def test_no_number_tells_of_a_later_one(self, lag):
    x = np.asarray(jax.random.normal(_key(7), (NUM,)), np.float64)
    self.assertLess(_correlation(x[lag:], x[:-lag]), 5)
    square = (x**2 - 1) / 2**0.5
    self.assertLess(_correlation(square[lag:], square[:-lag]), 5)

  @parameterized.parameters(
    'fold_in', 'seeds', 'one_first_word', 'one_second_word'
  )
  def test_two_keys_share_no_more_words_than_chance(self, how):
    self.check_shared(how, 40, 2**16)

  @parameterized.product(
    how=('fold_in', 'split', 'seeds', 'one_first_word', 'one_second_word'),
    sizes=((300, 2**14), (60, 2**17)),
  )
  @pytest.mark.slow
  def test_nor_do_more_keys(self, how, sizes):
    self.check_shared(how, *sizes)

  def check_shared(self, how, num, size):
    """Checks that two keys share words of `size` as random ones, a Poisson law."""
    keys = _keys(how, num)
    hashed = jax.jit(lambda key: jax.random.bits(key, (size,)))
    shared, again = _shared(np.stack([np.asarray(hashed(key)) for key in keys]))
    mean, pairs = size**2 / 2**32, len(shared)
    most = stats.poisson.sf(np.max(shared) - 1, mean) * pairs
    self.assertGreater(most, 1e-6)
    self.assertLess(abs(np.mean(shared) - mean), 5 * (mean / pairs) ** 0.5)
    # The variance of a Poisson law is its mean, with this error of its estimate.
    error = ((mean + 2 * mean**2) / pairs) ** 0.5
    self.assertLess(abs(np.var(shared) - mean), 5 * error)
    # Words of one stream repeat like random ones, which a bijection's never do.
    repeats = len(keys) * mean / 2
    self.assertLess(abs(again - repeats), 5 * repeats**0.5)

  @parameterized.parameters('fold_in', 'seeds', 'one_second_word')
  def test_no_stream_is_another_one_with_all_bits_changed_alike(self, how):
    # Differences and xors of two keys' words, place by place: two of 2^14 random
    # words are equal 2^-5 times a pair.
    keys, size = _keys(how, 50), 2**14
    hashed = jax.jit(lambda key: jax.random.bits(key, (size,)))
    words = np.stack([np.asarray(hashed(key)) for key in keys])
    for change in (words[1:] - words[:-1], words[1:] ^ words[:-1]):
      repeats = sum(size - len(np.unique(row)) for row in change)
      mean = len(change) * size**2 / 2**33
      self.assertLess(abs(repeats - mean), 5 * mean**0.5)

  @parameterized.parameters('split', 'fold_in')
  def test_no_key_tells_of_its_neighbour(self, how):
    if how == 'split':
      keys = jax.random.split(_key(0), 1001)
    else:
      keys = jax.vmap(lambda i: jax.random.fold_in(_key(0), i))(
        jnp.arange(1001)
      )
    x = jax.vmap(lambda key: jax.random.normal(key, (1000,)))(keys)
    x = np.asarray(x, np.float64)
    self.assertLess(_correlation(x[1:], x[:-1]), 5)
    # Sums over keys, number by number: variance 1001 each.
    spread = stats.chi2(1000).sf(np.sum(x.sum(0) ** 2) / 1001)
    self.assertBetween(spread, 1e-6, 1 - 1e-6)

  def test_langevin_dynamics_end_where_they_should(self):
    # Of y' = c y + delta xi, c = 1 - delta^2 / 2: variance delta^2 / (1 - c^2).
    delta, num = 0.5, 20_000
    x = samplers.langevin(
      _key(0),
      jnp.zeros((num, 3)),
      lambda x: -x,
      step_size=delta,
      num_steps=60,
    )
    variance = delta**2 / (1 - (1 - delta**2 / 2) ** 2)
    error = np.abs(np.var(np.asarray(x), 0) / variance - 1) * (num / 2) ** 0.5
    self.assertLess(np.max(error), 5)

  @parameterized.parameters(8, 16, 32)
  def test_narrow_bits(self, width):
    bits = jax.random.bits(_key(0), (4096,), f'uint{width}')
    self.assertEqual(bits.dtype, f'uint{width}')
    ones = np.mean(np.unpackbits(np.asarray(bits).view(np.uint8)))
    self.assertLess(abs(ones - 0.5) * 2 * (4096 * width) ** 0.5, 5)

  @parameterized.parameters(
    ((2**16, 2**16), 'uint8', True), ((2**16, 2**16 + 1), 'uint8', False),
    ((2**33,), 'uint32', False), ((2**31,), 'uint64', True),
    ((2**31 + 1,), 'uint64', False),
  )  # fmt: skip
  def test_counters_do_not_begin_again(self, shape, dtype, allowed):
    draw = lambda key: jax.random.bits(key, shape, dtype)
    with jax.enable_x64(True):
      if allowed:
        jax.jit(draw).lower(_key(0))
      else:
        with self.assertRaisesRegex(ValueError, '4294967296 words for a key'):
          jax.jit(draw).lower(_key(0))

  def test_wide_bits(self):
    with jax.enable_x64(True):
      bits = np.asarray(jax.random.bits(_key(0), (4096,), 'uint64'))
    self.assertLen(np.unique(bits >> np.uint64(32)), 4096)
    ones = np.mean(np.unpackbits(bits.view(np.uint8)))
    self.assertLess(abs(ones - 0.5) * 2 * (4096 * 64) ** 0.5, 5)


if __name__ == '__main__':
  absltest.main()
