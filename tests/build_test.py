"""Tests that bad configs and bad arguments are refused by name."""

from collections.abc import Callable, Sequence
import contextlib
import functools
import inspect
import subprocess
import sys
from typing import Any
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from stein_jax import algorithms
from stein_jax import build
from stein_jax import checks
from stein_jax import densities
from stein_jax import energies


class BuildTest(parameterized.TestCase):
  @parameterized.parameters(dict, ml_collections.ConfigDict)
  def test_a_section_is_a_call(self, section):
    energy = build.build(energies, **section(dict(name='RBM', num_hidden=3)))
    self.assertEqual(energy, energies.RBM(num_hidden=3))

  @parameterized.parameters(dict, ml_collections.ConfigDict)
  def test_sections_nest(self, section):
    rate = dict(
      name='linear_schedule', init_value=2.0, end_value=1.0, transition_steps=1
    )
    optimizer = build.build(
      optax,
      **section(
        dict(
          name='apply_if_finite',
          max_consecutive_errors=1,
          inner=dict(name='sgd', learning_rate=rate),
        )
      ),
    )
    state, updates = optimizer.init(jnp.ones(())), []
    for gradient in (1.0, jnp.nan, 1.0):
      update, state = optimizer.update(jnp.asarray(gradient), state)
      updates.append(float(update))
    self.assertEqual(updates, [-2, 0, -1])  # the nan is skipped, the rate falls

  @parameterized.parameters(
    (energies, 'Rbm', 'stein_jax.energies', ('RBM', 'MLP')),
    (densities, 'two_mode', 'stein_jax.densities', ('two_modes', 'banana')),
    (optax, 'adamm', 'optax', ('adam', 'sgd')),
    (energies, '_uniform', 'stein_jax.energies', ('RBM', 'MLP')),
    (energies, '__doc__', 'stein_jax.energies', ('RBM', 'MLP')),
  )
  def test_unknown_name(self, namespace, name, where, allowed):
    with self.assertRaises(ValueError) as caught:
      build.build(namespace, name)
    message = str(caught.exception)
    self.assertStartsWith(
      message, f'name={name!r} is not in {where}; allowed: '
    )
    listed = message.removesuffix('.').split(': ')[1].split(', ')
    self.assertContainsSubset(allowed, listed)
    self.assertNotIn(name, listed)

  def test_the_nearest_names_come_first(self):
    with self.assertRaisesRegex(
      ValueError, 'allowed: r?adamw?, r?adamw?, r?adamw?, '
    ):
      build.build(optax, 'adamm')

  def test_a_name_with_a_colon_is_imported(self):
    found = build.build(energies, name='optax.contrib:muon', learning_rate=0.1)
    self.assertIsInstance(found, optax.GradientTransformation)
    self.assertIs(build.named(energies, 'stein_jax.build:named'), build.named)

  def test_a_module_of_the_current_folder_is_found(self):
    folder = self.create_tempdir()
    folder.create_file(
      'of_mine.py', 'def square(factor=1.0):\n  return factor**2\n'
    )
    self.enter_context(contextlib.chdir(folder.full_path))
    self.enter_context(mock.patch.object(sys, 'path', list(sys.path)))
    self.assertEqual(build.build(energies, 'of_mine:square', factor=3.0), 9)
    with self.assertRaisesRegex(
      TypeError, 'power=3.0 is no .*of_mine:square takes: factor'
    ):
      build.build(energies, 'of_mine:square', power=3.0)

  @parameterized.parameters(
    ('nowhere.at.all:Name', "no module 'nowhere.at.all'"),
    ('stein_jax.nothing:Name', "no module 'stein_jax.nothing'"),
    ('stein_jax.build:Nothing', 'stein_jax.build has no callable Nothing'),
    ('stein_jax.build:FIELD', 'no callable FIELD'),
    (':Name', "must be 'package.module:Name'"),
    ('stein_jax:', "must be 'package.module:Name'"),
  )
  def test_refuses_a_name_that_nothing_has(self, name, message):
    with self.assertRaisesRegex(ValueError, message):
      build.build(energies, name)

  @parameterized.parameters(
    (
      energies,
      dict(name='RBM', num_hiden=3),
      'num_hiden=3 .*perhaps num_hidden; .*energies.RBM takes: num_hidden, c',
    ),
    (
      energies,
      dict(name='RBM'),
      '^num_hidden is missing; .*takes: num_hidden, c',
    ),
    (
      optax,
      dict(name='sgd', lr=1.0),
      '^lr=1.0 is no.*optax.sgd takes: learning_rate, momentum',
    ),
    (
      optax,
      dict(name='sgd', learning_rate=dict(name='constant_schedule', v=1)),
      '^learning_rate.v=1 .*constant_schedule takes: value',
    ),
  )
  def test_unknown_keyword(self, namespace, section, message):
    with self.assertRaisesRegex(TypeError, message):
      build.build(namespace, **section)

  def test_check_call(self):
    step = lambda state, batch, rng, *, epsilon=0.1, axis_name=None: None
    build.check_call(step, dict(epsilon=1.0), 'step', 1, 2, 3)
    with self.assertRaisesRegex(
      TypeError, '^eps=1.0 is no .*step takes: .*rng, epsilon[.]'
    ):
      build.check_call(step, dict(eps=1.0), 'step', 1, 2, 3)

  @parameterized.parameters(
    (int, (1,), (1.0, True, '1', None, (1,))),
    (float, (1, 0.5, float('nan')), (True, '1', None, ())),
    (bool, (True,), (1, 'True', None)),
    (str, ('', 'a'), (1, None, ('a',))),
    (float | None, (None, 0.5), ('a', ())),
    (str | Callable[..., int], ('a', len), (1,)),
    (Sequence[int], ((), [1], (1, 2)), (1, '12', (1.5,), ('a',), ((1,),))),
    (tuple[int, ...], ((1, 2), [1]), (1, (0.5,))),
    (Sequence[Sequence[int]], (((1, 2),), ()), ((1,), ('12',))),
    (nn.Module, (energies.RBM(3),), (3, 'RBM')),
    (jax.typing.ArrayLike, (0.5, 1), ('a', (1,))),
    (Any, (1, 'a', None, ()), ()),
  )
  def test_values_are_what_annotations_ask_for(self, wanted, good, bad):
    function = lambda first=None, second=None: None
    function.__signature__ = inspect.Signature(
      [
        inspect.Parameter(
          name, inspect.Parameter.KEYWORD_ONLY, annotation=wanted
        )
        for name in ('first', 'second')
      ]
    )
    arrays = (np.float32(1), jnp.ones(3))  # their own checks judge them
    for value in (*good, *arrays):
      build.check_call(function, dict(first=value, second=value), 'f')
    for value in bad:
      with self.subTest(value), self.assertRaises(TypeError) as caught:
        build.check_call(function, dict(first=arrays[0], second=value), 'f')
      self.assertStartsWith(str(caught.exception), f'second={value!r} must be')

  def test_sections_are_named_as_flags_name_them(self):
    section = dict(name='JointLabel')
    for key, value, message in (
      ('dropout', 2.0, 'energy.autoencoder.dropout=2.0 must be at most 0.99.'),
      ('dropout', 'x', "energy.autoencoder.dropout='x' must be a number."),
      (
        'convs',
        3,
        'energy.autoencoder.convs=3 must be a sequence of sequences',
      ),
    ):
      section['autoencoder'] = {'name': 'Autoencoder', key: value}
      with self.assertRaises((ValueError, TypeError)) as caught:
        with build.section('energy'):
          build.build(energies, **section)
      self.assertStartsWith(str(caught.exception), message)
    for place in ('data', 'data.files'):
      with self.assertRaisesRegex(FileNotFoundError, f'^{place}: gone$'):
        with contextlib.ExitStack() as stack:
          for name in place.split('.'):
            stack.enter_context(build.section(name))
          raise FileNotFoundError('gone')

  def test_unknown_algorithm(self):
    with self.assertRaisesRegex(
      ValueError, "'stein'.*contrastive_divergence.*stein_cd, steingan, svgd"
    ):
      algorithms.get('stein')
    self.assertTrue(callable(algorithms.get('svgd').step))


def _arrays(*values):
  """Returns values as arrays of NumPy and of JAX."""
  return [make(value) for make in (np.array, jnp.array) for value in values]


class ChecksTest(parameterized.TestCase):
  @parameterized.parameters(
    (
      checks.positive,
      (1, 1e-30, np.float32(2), np.int64(1), *_arrays(0.1, np.uint8(3))),
      (
        *(0, -1, float('nan'), float('inf'), True, 'one', None, 1j, len),
        *_arrays(-0.1, 0, np.nan, np.inf, True, 1j, [0.1], [[1]]),
      ),
    ),
    (
      checks.non_negative,
      (0, 0.0, 3.5, np.float32(0), *_arrays(0, 2.5)),
      (
        *(-1e-30, float('nan'), float('inf'), False, '0', None),
        *_arrays(-0.1, np.nan, False, [0.0]),
      ),
    ),
    (
      checks.count,
      (1, 7, np.int32(2), *_arrays(1, np.uint8(7))),
      (
        *(0, -1, 1.0, True, '1', None, float('nan')),
        *_arrays(0, -1, 1.0, True, np.nan, [1]),
      ),
    ),
    (functools.partial(checks.choice, ('a', 'b')), ('a', 'b'), ('c', None, 1)),
    (
      checks.finite,
      (0, -2.5, *_arrays(-2.5)),
      (float('nan'), float('inf'), True, '1', *_arrays(np.nan, True, [1.0])),
    ),
    (
      functools.partial(checks.at_most, 0.9),
      (0.9, -1, *_arrays(np.float32(0.9), -1)),
      (1, True, '0', *_arrays(1, np.nan, True, [0.1])),
    ),
    (checks.counts, ((1, 7), [2]), ((), 3, '12', None)),
    (functools.partial(checks.counts, empty=True), ((), (1,)), (0, '', None)),
    (checks.image_shape, ((1, 2, 3), [8, 8, 1]), ((8, 8), (8, 8, 1, 1), 8)),
    (checks.flag, (True, False), (0, 1, 'True', None)),
    (checks.section, ({}, {'name': 'RBM'}), (3, 'RBM', None)),
  )
  def test_bounds(self, check, good, bad):
    for value in good:
      check(first=value)
    for value in bad:
      with (
        self.subTest(value),
        self.assertRaisesRegex(ValueError, 'second(=| has shape)'),
      ):
        check(first=good[0], second=value)

  def test_counts_names_the_entry(self):
    with self.assertRaisesRegex(
      ValueError, r'widths\[1\]=0 must be at least 1'
    ):
      checks.counts(widths=(2, 0))

  def test_choice_names_the_allowed(self):
    with self.assertRaisesRegex(
      ValueError, "kernel='c' is unknown; allowed: 'a', 'b'"
    ):
      checks.choice({'a': 1, 'b': 2}, kernel='c')

  def test_traced_values_pass(self):
    def double(x):
      checks.positive(x=x)
      checks.non_negative(x=x)
      return 2 * x

    np.testing.assert_array_equal(
      jax.vmap(double)(jnp.array([-1.0, 2.0])), [-2, 4]
    )

  def test_of_traced_values_shape_and_dtype_are_known(self):
    def of(shape, dtype):
      x = jax.ShapeDtypeStruct(shape, dtype)
      jax.eval_shape(lambda x: checks.positive(x=x), x)

    of((), jnp.bfloat16)
    for shape, dtype in [((1,), jnp.float32), ((), bool), ((), jnp.complex64)]:
      with self.assertRaisesRegex(ValueError, 'x(=| has shape)'):
        of(shape, dtype)

  def test_constants_are_checked_while_others_are_traced(self):
    scale = jnp.array(-0.1)

    def double(x):
      checks.positive(scale=scale)
      return 2 * x

    with self.assertRaisesRegex(ValueError, 'scale=-0.1.* must be a positive'):
      jax.eval_shape(double, 1.0)


class ImportTest(absltest.TestCase):
  def test_nnx_is_not_imported_for_who_has_none_of_its_classes(self):
    code = (
      'import sys, stein_jax.runs.training; sys.exit("flax.nnx" in sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


if __name__ == '__main__':
  absltest.main()
