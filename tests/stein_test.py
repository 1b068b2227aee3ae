"""Tests of the Stein primitives against literal definitions in float64."""

import functools

from absl.testing import absltest, parameterized
import chex
import jax
from jax.sharding import Mesh, PartitionSpec
import jax.numpy as jnp
import numpy as np

from stein_jax import kernels
from stein_jax import stein

# Sums of products, centred: a few roundings of the largest term.
_ROUNDINGS = 64
_AXIS = 'batch'


def _in_float64(function):
  """Returns the function, compiled, on NumPy arrays and in float64."""
  @functools.wraps(function)
  def wrapped(*arrays, **static):
    with jax.enable_x64(True):
      arrays = [jnp.asarray(np.asarray(a, np.float64)) for a in arrays]
      return np.asarray(jax.jit(functools.partial(function, **static))(*arrays))

  return wrapped


def _pair(kernel):
  """Returns k(x, y) [] of two points [d]."""
  return lambda x, y: kernel(jnp.sum((x - y) ** 2))


@_in_float64
def _direction(x, score, *, kernel, normalize='count'):
  """The mean over j of k(x_j, x_i) s(x_j) + grad_{x_j} k(x_j, x_i)."""
  def term(x_j, score_j, x_i):
    k, gradient = jax.value_and_grad(_pair(kernel))(x_j, x_i)
    return k * score_j + gradient, k

  over_j = jax.vmap(term, (0, 0, None))
  terms, k = jax.vmap(over_j, (None, None, 0))(x, score, x)
  weight = len(x) if normalize == 'count' else jnp.sum(k, 1)[:, None]
  return jnp.sum(terms, 1) / weight


@_in_float64
def _stein_matrix(x, score_x, y, score_y, *, kernel):
  """s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k."""
  k = _pair(kernel)
  k_x, k_y = jax.grad(k, 0), jax.grad(k, 1)

  def at(x, s_x, y, s_y):
    trace = jnp.trace(jax.jacfwd(k_x, 1)(x, y))
    return s_x @ s_y * k(x, y) + s_x @ k_y(x, y) + s_y @ k_x(x, y) + trace

  over_y = jax.vmap(at, (None, None, 0, 0))
  return jax.vmap(over_y, (0, 0, None, None))(x, score_x, y, score_y)


def _ksd(x, score, kernel, unbiased):
  u = _stein_matrix(x, score, x, score, kernel=kernel)
  return np.mean(u[~np.eye(len(x), dtype=bool)] if unbiased else u)


def _points(n, d, *, offset=0.0, spread=1.0, repeats=1, dtype=np.float32):
  """Returns points and scores [n repeats, d]."""
  rng = np.random.default_rng((n, d))
  x, score = rng.normal(size=(2, n, d))
  x = np.repeat(offset + spread * x, repeats, 0)
  return x.astype(dtype), np.repeat(score, repeats, 0).astype(dtype)


def _kernel(name, x, factor=1.0):
  """Returns the profile on the scale of the points, a constant bandwidth."""
  x = np.asarray(x, np.float64)
  bandwidth = factor * np.mean(np.sum((x - x.mean(0)) ** 2, -1)) or 1.0
  return functools.partial(kernels.PROFILES[name], bandwidth=float(bandwidth))


def _assert_close(actual, expected, dtype=np.float32):
  """Agreement to rounding of the largest entry."""
  expected = np.asarray(expected, np.float64)
  np.testing.assert_allclose(
      np.asarray(actual, np.float64), expected, rtol=0,
      atol=_ROUNDINGS * np.finfo(dtype).eps * np.max(np.abs(expected)),
  )


@functools.partial(
    jax.jit, static_argnames=('kernel', 'normalize', 'block_size')
)
def _actual_direction(x, score, kernel, **keywords):
  return stein.svgd_direction(x, score, kernel, **keywords)


@functools.partial(jax.jit, static_argnames=('kernel', 'unbiased', 'block_size'))
def _actual_ksd(x, score, kernel, **keywords):
  return stein.ksd(x, score, kernel, **keywords)


_HARD = (
    ('one', 1, 1, {}),
    ('one_wide', 1, 3072, {}),
    ('two', 2, 3, {}),
    ('three', 3, 1, {}),
    ('offset', 7, 3, {'offset': 1e4}),
    ('spread', 7, 3, {'spread': 1e-6}),
    ('duplicates', 3, 3, {'repeats': 2}),
    ('offset_duplicates', 3, 3, {'repeats': 2, 'offset': 1e4}),
    ('same', 1, 3, {'repeats': 5, 'offset': 1e4}),
)
_WIDE = (('wide', 3, 3072, {}), ('wide_offset', 3, 3072, {'offset': 1e4}))


class OperatorTest(chex.TestCase):

  @chex.all_variants
  def test_by_hand(self):
    # For s(x) = -x and phi(x) = x: s.phi + div phi = d - |x|^2.
    x = jnp.array([[0.0, 0.0], [1.0, 2.0], [3.0, 0.0]])
    operator = self.variant(
        lambda x: stein.stein_operator(jnp.negative, lambda y: y, x)
    )
    np.testing.assert_array_equal(operator(x), [2, -3, -7])

  @parameterized.parameters((0.0, True), (0.5, False))
  def test_has_mean_zero_under_its_own_density(self, shift, is_zero):
    means = np.array([[-1.0, 0.0], [1.0, 0.5], [0.0, -1.5]])
    rng, num = np.random.default_rng(0), 20000
    x = means[rng.integers(3, size=num)] + rng.normal(size=(num, 2)) + shift
    score = jax.vmap(jax.grad(lambda x: jax.nn.logsumexp(
        -0.5 * jnp.sum((x[None] - jnp.array(means)) ** 2, -1))))
    test_fn = lambda x: jnp.sin(x) + x[:, ::-1] ** 2
    values = np.asarray(
        jax.jit(functools.partial(stein.stein_operator, score, test_fn))(
            jnp.array(x, jnp.float32)
        )
    )
    errors = abs(np.mean(values)) / (np.std(values) / num**0.5)
    self.assertEqual(errors < 4, is_zero)


class DirectionTest(chex.TestCase):

  @parameterized.product(
      name=sorted(kernels.PROFILES), normalize=['count', 'row_sum'],
      block_size=[None, 3, 1],
  )
  def test_is_the_definition(self, name, normalize, block_size):
    x, score = _points(7, 3)
    kernel = _kernel(name, x)
    actual = _actual_direction(
        x, score, kernel, normalize=normalize, block_size=block_size
    )
    _assert_close(actual, _direction(x, score, kernel=kernel, normalize=normalize))

  @parameterized.named_parameters(*_HARD, *_WIDE)
  def test_on_hard_points(self, n, d, keywords):
    x, score = _points(n, d, **keywords)
    kernel = _kernel('rbf', x)
    _assert_close(
        _actual_direction(x, score, kernel), _direction(x, score, kernel=kernel)
    )

  @parameterized.parameters('count', 'row_sum')
  def test_of_one_point_is_its_score(self, normalize):
    # k(x, x) = 1 and grad k(x, x) = 0 for every profile.
    x, score = _points(1, 5, offset=1e4)
    actual = _actual_direction(x, score, kernels.imq, normalize=normalize)
    np.testing.assert_array_equal(actual, score)

  @parameterized.parameters(*sorted(kernels.PROFILES))
  def test_repulsion_sums_to_zero(self, name):
    # grad_{x_j} k(x_j, x_i) is odd in (i, j).
    x, _ = _points(7, 3, offset=1e4)
    repulsion = np.asarray(
        _actual_direction(x, np.zeros_like(x), _kernel(name, x)), np.float64
    )
    largest = np.max(np.abs(repulsion))
    self.assertGreater(largest, 0.1)
    eps = np.finfo(np.float32).eps
    self.assertLess(np.max(np.abs(repulsion.sum(0))), _ROUNDINGS * eps * largest)

  def test_does_not_see_translation(self):
    # On multiples of 2^-10, the spacing of floats at 10^4, x + 10^4 is exact.
    x, score = _points(7, 3)
    x = np.round(x * 1024) / 1024
    kernel = _kernel('rbf', x)
    moved = x + np.float32(1e4)
    np.testing.assert_array_equal(moved - np.float32(1e4), x)
    _assert_close(
        _actual_direction(moved, score, kernel),
        _actual_direction(x, score, kernel),
    )

  @parameterized.parameters('bfloat16', 'float16')
  def test_half_precision_is_summed_in_float32(self, dtype):
    x, score = (jnp.array(a, dtype) for a in _points(300, 8))
    kernel = _kernel('rbf', x, factor=2.0)
    actual = _actual_direction(x, score, kernel)
    self.assertEqual(actual.dtype, x.dtype)
    expected = _direction(x, score, kernel=kernel)
    # One rounding of the result to its dtype, above float32's own.
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), expected,
        rtol=float(jnp.finfo(dtype).eps), atol=1e-5 * np.max(np.abs(expected)),
    )

  @parameterized.product(normalize=['count', 'row_sum'], offset=[0.0, 1e4])
  def test_float64_stays(self, normalize, offset):
    x, score = _points(7, 3, dtype=np.float64)
    x = np.round(x * 2**30) / 2**30  # exact at either offset
    kernel = _kernel('rbf', x)
    with jax.enable_x64(True):
      actual = _actual_direction(x + offset, score, kernel, normalize=normalize)
      self.assertEqual(actual.dtype, jnp.float64)
    expected = _direction(x, score, kernel=kernel, normalize=normalize)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)

  @chex.all_variants
  def test_variants(self):
    x, score = _points(5, 2)
    kernel = _kernel('imq', x)
    direction = self.variant(
        lambda x, score: stein.svgd_direction(x, score, kernel)
    )
    _assert_close(
        direction(jnp.array(x), jnp.array(score)),
        _direction(x, score, kernel=kernel),
    )


class DiscrepancyTest(chex.TestCase):

  @parameterized.parameters(*sorted(kernels.PROFILES))
  def test_matrix_is_the_definition(self, name):
    x, score_x = _points(4, 3)
    y, score_y = _points(3, 3)
    kernel = _kernel(name, x)
    actual = jax.jit(functools.partial(stein.stein_matrix, kernel=kernel))(
        x, score_x, y, score_y
    )
    expected = _stein_matrix(x, score_x, y, score_y, kernel=kernel)
    _assert_close(actual, expected)

  @parameterized.named_parameters(*(h for h in _HARD if h[2] < 10))
  def test_matrix_on_hard_points(self, n, d, keywords):
    x, score = _points(n, d, **keywords)
    kernel = _kernel('rbf', x)
    actual = jax.jit(functools.partial(stein.stein_matrix, kernel=kernel))(
        x, score, x, score
    )
    _assert_close(actual, _stein_matrix(x, score, x, score, kernel=kernel))

  def test_matrix_in_float64(self):
    x, score = _points(5, 3, offset=1.0, dtype=np.float64)
    kernel = _kernel('imq', x)
    with jax.enable_x64(True):
      actual = stein.stein_matrix(*map(jnp.array, (x, score, x, score)), kernel)
      self.assertEqual(actual.dtype, jnp.float64)
    expected = _stein_matrix(x, score, x, score, kernel=kernel)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)

  @parameterized.product(
      name=sorted(kernels.PROFILES), unbiased=[False, True],
      block_size=[None, 3],
  )
  def test_ksd_is_the_mean(self, name, unbiased, block_size):
    x, score = _points(7, 3, offset=100.0)
    kernel = _kernel(name, x)
    actual = _actual_ksd(
        x, score, kernel, unbiased=unbiased, block_size=block_size
    )
    self.assertEqual(actual.shape, ())
    u = _stein_matrix(x, score, x, score, kernel=kernel)
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(
        actual, _ksd(x, score, kernel, unbiased), rtol=0,
        atol=_ROUNDINGS * eps * np.max(np.abs(u)),
    )

  @parameterized.parameters(False, True)
  def test_ksd_takes_half_precision(self, unbiased):
    x, score = (jnp.array(a, jnp.bfloat16) for a in _points(64, 3))
    kernel = _kernel('rbf', x)
    actual = _actual_ksd(x, score, kernel, unbiased=unbiased)
    self.assertEqual(actual.dtype, jnp.float32)
    expected = _ksd(x, score, kernel, unbiased)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)

  @chex.all_variants
  def test_variants(self):
    x, score = _points(5, 2)
    kernel = _kernel('rbf', x)
    ksd = self.variant(lambda x, score: stein.ksd(x, score, kernel))
    np.testing.assert_allclose(
        ksd(jnp.array(x), jnp.array(score)), _ksd(x, score, kernel, False),
        rtol=1e-5,
    )

  @parameterized.parameters(*sorted(kernels.PROFILES))
  def test_is_the_operator_on_the_direction(self, name):
    # Mean_i of s(x_i).phi(x_i) + div phi(x_i), with phi the direction itself as
    # a function, is the mean of u(x_i, x_j): every term of u, in turn.
    x, _ = map(jnp.array, _points(7, 3))
    kernel, score_fn = _kernel(name, x), lambda x: jnp.sin(2 * x) - x

    def at(y):
      k, gradient = jax.vmap(
          jax.value_and_grad(_pair(kernel)), (0, None))(x, y)
      return jnp.mean(k[:, None] * score_fn(x) + gradient, 0)

    operator = jax.jit(
        functools.partial(stein.stein_operator, score_fn, jax.vmap(at))
    )
    np.testing.assert_allclose(
        _actual_ksd(x, score_fn(x), kernel), jnp.mean(operator(x)), rtol=1e-5
    )

  @parameterized.parameters((1, 0.5, 2.0), (2, 1.0, 3.0))
  def test_of_a_shifted_gaussian(self, d, shift, bandwidth):
    # For x ~ q = N(m, I) and p = N(0, I), KSD^2 = E k(x, x') (s_p - s_q)(x)
    # .(s_p - s_q)(x') = |m|^2 E k, since s_p - s_q = -m everywhere; and as
    # x - x' ~ N(0, 2 I), E exp(-|x - x'|^2 / h) = (1 + 4 / h)^(-d / 2).
    expected = shift**2 * d * (1 + 4 / bandwidth) ** (-d / 2)
    kernel = functools.partial(kernels.rbf, bandwidth=bandwidth)
    x = shift + jax.random.normal(jax.random.key(0), (400, 50, d))
    draws = jax.jit(jax.vmap(
        lambda x: stein.ksd(x, -x, kernel, unbiased=True)))(x)
    error = np.std(draws) / len(draws) ** 0.5
    self.assertLess(4 * error, expected / 2)
    np.testing.assert_allclose(np.mean(draws), expected, rtol=0, atol=4 * error)


class KsdTestTest(chex.TestCase):

  def _p_values(self, x, **keywords):
    """Returns p-values [m] of x [m, n, 1] against N(0, 1), B = 99."""
    test = lambda rng, x: stein.ksd_test(
        rng, x, -x, kernels.rbf, num_bootstrap=99, **keywords)[1]
    keys = jax.random.split(jax.random.key(1), len(x))
    p_values = np.asarray(jax.jit(jax.vmap(test))(keys, x))
    self.assertGreaterEqual(np.min(p_values), 1 / 100)
    self.assertLessEqual(np.max(p_values), 1)
    return p_values

  @parameterized.parameters(None, 7)
  def test_statistic(self, block_size):
    x, score = map(jnp.array, _points(20, 3))
    statistic, _ = stein.ksd_test(
        jax.random.key(0), x, score, kernels.rbf, num_bootstrap=9,
        block_size=block_size,
    )
    expected = 20 * _ksd(x, score, kernels.rbf, False)
    np.testing.assert_allclose(statistic, expected, rtol=1e-5)

  @parameterized.parameters(0.05, 0.1, 0.5)
  def test_size(self, level):
    # With exact draws under p, p <= level has probability `level`.
    num = 1000
    rejects = self._p_values(
        jax.random.normal(jax.random.key(0), (num, 50, 1))) <= level + 1e-6
    error = (level * (1 - level) / num) ** 0.5
    np.testing.assert_allclose(np.mean(rejects), level, rtol=0, atol=4 * error)

  def test_power(self):
    x = 1 + jax.random.normal(jax.random.key(0), (100, 50, 1))
    self.assertGreater(np.mean(self._p_values(x) <= 0.05), 0.95)

  @parameterized.product(flip_probability=[0.5, 0.2], alternate=[False, True])
  def test_flip_probability_by_hand(self, flip_probability, alternate):
    # With k = 1, u = s_i s_j: a draw (sum w_i s_i)^2 / n reaches n only where w
    # is s or -s, which n - 1 signs that all stay (or all flip) make.
    n, num = 4, 20000
    score = jnp.array([1.0, -1.0 if alternate else 1.0] * 2)[:, None]
    statistic, p_value = stein.ksd_test(
        jax.random.key(0), jnp.zeros((n, 1)), score, jnp.ones_like,
        num_bootstrap=num, flip_probability=flip_probability,
    )
    change = flip_probability if alternate else 1 - flip_probability
    expected = change ** (n - 1)
    self.assertEqual(statistic, n)
    error = (expected * (1 - expected) / num) ** 0.5
    np.testing.assert_allclose(p_value, expected, rtol=0, atol=4 * error + 1 / num)

  def test_flip_probability_on_a_chain(self):
    # x_t = 0.9 x_{t-1} + sqrt(1 - 0.81) noise leaves N(0, 1) invariant. Signs
    # that are independent reject too often; signs that persist do not.
    num, level = 300, 0.05
    start_rng, rng = jax.random.split(jax.random.key(0))
    noise = 0.19**0.5 * jax.random.normal(rng, (200, num, 1))
    start = jax.random.normal(start_rng, (num, 1))
    _, x = jax.lax.scan(lambda x, e: (2 * [0.9 * x + e]), start, noise)
    rate = lambda p: np.mean(
        self._p_values(jnp.swapaxes(x, 0, 1), flip_probability=p) <= level)
    error = (level * (1 - level) / num) ** 0.5
    self.assertGreater(rate(0.5), 2 * level + 4 * error)
    print('rates', rate(0.5), rate(0.1), rate(0.05), rate(0.02))


_SHARDED = {
    'direction': lambda x, score, axis_name: stein.svgd_direction(
        x, score, kernels.imq, axis_name=axis_name),
    'row_sum': lambda x, score, axis_name: stein.svgd_direction(
        x, score, kernels.rbf, normalize='row_sum', block_size=1,
        axis_name=axis_name),
    'at_median': lambda x, score, axis_name: stein.svgd_direction(
        x, score, kernels.at_median('rbf', x, axis_name=axis_name),
        axis_name=axis_name),
    'ksd_v': lambda x, score, axis_name: stein.ksd(
        x, score, kernels.imq, axis_name=axis_name),
    'ksd_u': lambda x, score, axis_name: stein.ksd(
        x, score, kernels.imq, unbiased=True, block_size=1, axis_name=axis_name),
    'median': lambda x, score, axis_name: kernels.median_bandwidth(
        x, axis_name=axis_name),
    'median_blocked': lambda x, score, axis_name: kernels.median_bandwidth(
        x, diagonal=False, block_size=3, axis_name=axis_name),
}


class ShardedTest(chex.TestCase):

  @parameterized.product(
      name=sorted(_SHARDED), mode=['vmap', 'pmap', 'shard_map'], rows=[1, 2]
  )
  def test_equals_unsharded(self, name, mode, rows):
    function = _SHARDED[name]
    x, score = map(jnp.array, _points(4 * rows, 3))
    expected = function(x, score, None)
    # A scalar comes back once per device, so that each is seen.
    local = lambda x, score: jnp.atleast_1d(function(x, score, _AXIS))
    if mode == 'shard_map':
      spec = PartitionSpec(_AXIS)
      mapped = jax.jit(jax.shard_map(
          local, mesh=Mesh(np.array(jax.devices()), (_AXIS,)),
          in_specs=(spec, spec), out_specs=spec, check_vma=True))
    else:
      by_device = lambda a: a.reshape(4, rows, *a.shape[1:])
      map_fn = {'vmap': jax.vmap, 'pmap': jax.pmap}[mode]
      outer = map_fn(local, axis_name=_AXIS)
      mapped = lambda *a: jnp.concatenate(outer(*map(by_device, a)))
    actual = mapped(x, score)
    self.assertEqual(actual.shape, expected.shape or (4,))
    _assert_close(actual, np.broadcast_to(expected, actual.shape))

  @parameterized.parameters(False, True)
  def test_ksd_is_replicated(self, unbiased):
    x, score = map(jnp.array, _points(8, 3))
    ksd = functools.partial(stein.ksd, kernel=kernels.imq, unbiased=unbiased)
    spec = PartitionSpec(_AXIS)
    mapped = jax.jit(jax.shard_map(
        functools.partial(ksd, axis_name=_AXIS),
        mesh=Mesh(np.array(jax.devices()), (_AXIS,)),
        in_specs=(spec, spec), out_specs=PartitionSpec(), check_vma=True))
    _assert_close(mapped(x, score), ksd(x, score))


class MemoryTest(chex.TestCase):

  @parameterized.named_parameters(
      ('direction', stein.svgd_direction), ('ksd', stein.ksd)
  )
  def test_blocks_bound_it(self, function):
    n = 4096
    x = jax.ShapeDtypeStruct((n, 2), jnp.float32)

    def temporary(block_size):
      return jax.jit(
          functools.partial(function, kernel=kernels.rbf, block_size=block_size)
      ).lower(x, x).compile().memory_analysis().temp_size_in_bytes

    matrix = 4 * n * n
    self.assertGreater(temporary(n), matrix)
    self.assertLess(temporary(32), matrix / 8)
    print(function, temporary(n)/matrix, temporary(32)/matrix, temporary(None)/matrix)


class ArgumentsTest(chex.TestCase):

  @parameterized.parameters(
      (stein.svgd_direction, (3, 2), {'normalize': 'sum'}, "normalize='sum'"),
      (stein.svgd_direction, (3, 2), {'block_size': 0}, 'block_size=0'),
      (stein.svgd_direction, (3,), {}, r'got \(3,\)'),
      (stein.svgd_direction, (0, 2), {}, r'got \(0, 2\)'),
      (stein.ksd, (3, 2), {'block_size': -1}, 'block_size=-1'),
      (stein.ksd, (1, 2), {'unbiased': True}, 'got 1'),
      (stein.ksd, (3, 2, 2), {}, r'got \(3, 2, 2\)'),
      (functools.partial(stein.ksd_test, jax.random.key(0)), (3, 2),
       {'num_bootstrap': 0}, 'num_bootstrap=0'),
      (functools.partial(stein.ksd_test, jax.random.key(0)), (3, 2),
       {'flip_probability': 0.7}, 'flip_probability=0.7'),
      (functools.partial(stein.ksd_test, jax.random.key(0)), (3, 2),
       {'flip_probability': 0}, 'flip_probability=0 '),
  )
  def test_refuses(self, function, shape, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      function(jnp.ones(shape), jnp.ones(shape), kernels.rbf, **keywords)

  def test_refuses_unlike_shapes(self):
    x = jnp.ones((3, 2))
    with self.assertRaisesRegex(ValueError, r'\(3, 2\) and \(3, 1\)'):
      stein.ksd(x, x[:, :1], kernels.rbf)


if __name__ == '__main__':
  absltest.main()
