"""Configs are completed from signatures, and flags reach every field of them."""

import importlib
import inspect
import json
import pathlib
import re
import types

from absl.testing import absltest
from absl.testing import parameterized
from flax import traverse_util
from ml_collections import ConfigDict
import optax

from stein_jax import datasets
from stein_jax import samplers
from stein_jax.algorithms import contrastive_divergence
from stein_jax.algorithms import langevin_ebm
from stein_jax.runs import config_files
from stein_jax.runs import configs
from tests import renamed

_TESTS = pathlib.Path(__file__).parents[1]
_CONFIGS = _TESTS.parent / 'configs'
_NAMES = sorted(path.stem for path in _CONFIGS.glob('*.py'))
_OF_0_1 = json.loads(
  (_TESTS / 'data' / 'configs_of_0_1.json').read_text('utf-8')
)
_FILE = """
from stein_jax.runs import configs

CONFIG = dict(
  algorithm='contrastive_divergence',
  step=dict(chain=dict(name='Langevin', step_size=0.5, clip=(-1.0, 1.0))),
  energy=dict(name='RBM', num_hidden=3),
  optimizer=dict(
    name='adam', learning_rate=dict(name='linear_schedule', init_value=0.1,
                                    end_value=0.0, transition_steps=10), b1=0.5),
  data='digits',
)
get_config = configs.scales(CONFIG, short=dict(num_steps=5))
"""


def given(**fields):
  return (
    dict(
      algorithm='contrastive_divergence',
      energy=dict(name='RBM', num_hidden=3),
      optimizer=dict(name='adam', learning_rate=0.1),
      data='digits',
    )
    | fields
  )


def module(name):
  return importlib.import_module(f'configs.{name}')


def flat(config):
  return traverse_util.flatten_dict(config.to_dict(), sep='.')


def was(key):
  """Returns the completed config that a file of 0.1 had, in the fields of today."""
  fields = renamed.renamed(_OF_0_1[key])
  config = configs.complete(fields)
  # The test data were written out, and followed nothing.
  test = configs.complete(fields | {'data': fields['evaluation']['data']}).data
  config.evaluation.data = test
  return config


class CompleteTest(parameterized.TestCase):
  def test_every_default_of_a_signature_is_a_field(self):
    config = configs.complete(given())
    for name, parameter in inspect.signature(optax.adam).parameters.items():
      if isinstance(parameter.default, (bool, int, float)):
        self.assertEqual(config.optimizer[name], parameter.default, name)
    self.assertFalse(config.energy.centered)
    chain = inspect.signature(contrastive_divergence.step).parameters['chain']
    self.assertEqual(config.step.chain.name, type(chain.default).__name__)
    self.assertEqual(config.step.chain.step_size, chain.default.step_size)
    self.assertEqual(config.num_steps, configs.LOOP['num_steps'])

  def test_a_whole_config_stays_as_it_is(self):
    config = configs.complete(given())
    self.assertEqual(configs.complete(config).to_dict(), config.to_dict())

  def test_what_is_given_is_not_changed(self):
    fields = ConfigDict(given())
    before = fields.to_dict()
    configs.complete(fields)
    self.assertEqual(fields.to_dict(), before)

  def test_another_name_has_its_own_defaults(self):
    step = dict(chain=dict(name='MALA', step_size=0.3))
    config = configs.complete(given(step=step))
    self.assertEqual(
      config.step.chain.to_dict(),
      dict(name='MALA', step_size=0.3, num_steps=1),
    )

  def test_a_section_without_a_name_is_of_the_default(self):
    config = configs.complete(given(step=dict(chain=dict(num_steps=7))))
    self.assertEqual(config.step.chain.name, 'Langevin')
    self.assertEqual(config.step.chain.num_steps, 7)

  def test_test_data_are_the_training_data_of_another_split(self):
    data = dict(name='digits', split='train', scale=4.0)
    config = configs.complete(given(data=data))
    self.assertEqual(config.evaluation.data.split, 'test')
    self.assertEqual(config.evaluation.data.scale, 4.0)
    evaluation = dict(data=dict(scale=2.0))
    config = configs.complete(given(data=data, evaluation=evaluation))
    self.assertEqual(config.evaluation.data.scale, 2.0)

  def test_test_data_have_no_mirror_images(self):
    data = dict(name='folder', path='facades.zip', mirrored=True)
    config = configs.complete(given(data=data))
    self.assertTrue(config.data.mirrored)
    self.assertFalse(config.evaluation.data.mirrored)
    evaluation = dict(data=dict(mirrored=True))
    config = configs.complete(given(data=data, evaluation=evaluation))
    self.assertTrue(config.evaluation.data.mirrored)

  def test_test_data_of_another_set_take_nothing_over(self):
    data = dict(name='npz', path='samples.npz', pixels='symmetric')
    config = configs.complete(given(data=data, evaluation=dict(data='mnist')))
    self.assertEqual(
      config.evaluation.data.to_dict(),
      dict(
        name='mnist',
        split='test',
        pixels='unit',
        condition='none',
        dequantize=False,
        binarize=False,
      ),
    )

  def test_samples_are_drawn_by_the_chain_that_trains_where_the_defaults_are_one(
    self,
  ):
    chain = dict(num_steps=3, step_size=0.25)
    of = lambda **fields: configs.complete(
      given(algorithm='langevin_ebm', **fields)
    )
    config = of(step=dict(chain=chain))
    self.assertEqual(config.sample.chain, config.step.chain)
    config = of(step=dict(chain=chain), sample=dict(chain=dict(num_steps=9)))
    self.assertEqual(config.sample.chain.num_steps, 9)
    self.assertEqual(config.sample.chain.step_size, 0.25)
    # One step from the data trains by CD, and would draw nothing from noise.
    config = configs.complete(given(step=dict(chain=chain)))
    self.assertEqual(config.sample.chain.name, 'MALA')

  @parameterized.parameters(
    (dict(algorithm='stein'), "algorithm='stein' is unknown"),
    (dict(energy=dict(num_hidden=3)), 'energy.name is missing'),
    (dict(energy='RMB'), "energy.name='RMB' is not in"),
    (dict(data='digit'), "data.name='digit' is"),
    (dict(step=3), 'step.*section'),
    (dict(step=dict(chain=dict(name='Lange'))), "step.chain.name='Lange'"),
    (dict(evaluation=3), 'evaluation=3 must be a section'),
  )
  def test_refuses(self, fields, message):
    with self.assertRaisesRegex((ValueError, TypeError), message):
      configs.complete(given(**fields))

  def test_lists_become_tuples(self):
    step = dict(chain=dict(step_size=0.5, clip=[-1, 1]))
    step = configs.step(configs.complete(given(step=step)))
    self.assertEqual(
      step.keywords['chain'], samplers.Langevin(0.5, clip=(-1, 1))
    )

  def test_a_chain_in_a_chain(self):
    inner = dict(name='MALA', step_size=0.2)
    chain = dict(name='Tempered', chain=inner, inverse_temperatures=[1, 0.3])
    step = configs.step(configs.complete(given(step=dict(chain=chain))))
    self.assertEqual(
      step.keywords['chain'],
      samplers.Tempered(samplers.MALA(0.2), (1, 0.3)),
    )
    inner['step_sise'] = 1.0
    with self.assertRaisesRegex(TypeError, r'step.chain.chain.step_sise=1.0'):
      configs.step(configs.complete(given(step=dict(chain=chain))))


class ScalesTest(absltest.TestCase):
  def test_smoke_is_short_and_without_momentum(self):
    config = configs.scales(given(), smoke={})('smoke')
    self.assertEqual((config.num_steps, config.batch_size), (4, 8))
    self.assertEqual(config.optimizer.name, 'sgd')
    self.assertNotIn('b1', config.optimizer)

  def test_a_variant_changes_what_it_says(self):
    get_config = configs.scales(
      given(),
      long=dict(num_steps=50, optimizer=dict(learning_rate=0.5)),
      other=dict(energy=dict(name='MLP', widths=(4,))),
    )
    config = get_config('long')
    self.assertEqual(config.num_steps, 50)
    self.assertEqual(config.optimizer.learning_rate, 0.5)
    self.assertEqual(config.optimizer.name, 'adam')
    self.assertEqual(config.energy.num_hidden, 3)
    self.assertNotIn('num_hidden', get_config('other').energy)

  def test_what_a_file_says_and_its_scales_can_be_asked_for(self):
    get_config = configs.scales(given(), short=dict(num_steps=5))
    self.assertEqual(get_config.names, ('', 'short'))
    self.assertEqual(get_config.given('short'), given(num_steps=5))

  def test_unknown_scale_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'no scale :huge; allowed: :smoke'):
      configs.scales(given(), smoke={})('huge')

  def test_defaults_are_what_algorithms_say(self):
    # A field of an algorithm's own is a flag too.
    config = configs.complete(given(algorithm='langevin_ebm'))
    self.assertEqual(config.num_chains, langevin_ebm.FIELDS['num_chains'])


class ConfigFileTest(parameterized.TestCase):
  def read(self, *flags, scale='', text=_FILE):
    path = pathlib.Path(self.create_tempdir().full_path) / 'config.py'
    path.write_text(text, 'utf-8')
    return config_files.read(f'{path}{scale}', dict(flags))

  def test_scale(self):
    self.assertEqual(self.read(scale=':short').num_steps, 5)

  @parameterized.parameters(
    ('num_steps', '7', 7),
    ('step.chain.step_size', '0.25', 0.25),
    ('step.chain.noise', 'false', False),
    ('step.chain.noise', 'False', False),
    ('step.chain.clip', '(0, 2)', (0, 2)),
    ('step.chain.clip', '[]', ()),
    ('energy.name', 'BinaryRBM', 'BinaryRBM'),
    ('optimizer.learning_rate', '0.001', 0.001),  # in place of a schedule
    ('optimizer.learning_rate.init_value', '1', 1),
    ('optimizer.eps', '1e-6', 1e-6),  # a default that the file leaves out
    ('optimizer.mu_dtype', 'bfloat16', 'bfloat16'),  # whose default is None
    ('data.split', 'test', 'test'),
  )
  def test_a_field(self, name, text, value):
    found = self.read((name, text))
    for part in name.split('.'):
      found = found[part]
    self.assertEqual(found, value)
    self.assertIs(type(found), type(value))

  def test_a_section_as_a_whole(self):
    chain = self.read(('step.chain', '{"name": "MALA", "step_size": 0.3}'))
    self.assertEqual(
      chain.step.chain.to_dict(), dict(name='MALA', step_size=0.3, num_steps=1)
    )
    rate = '{"name": "exponential_decay", "init_value": 1, "decay_rate": 0.5}'
    config = self.read(('optimizer.learning_rate', rate))
    self.assertEqual(config.optimizer.learning_rate.decay_rate, 0.5)
    self.assertNotIn('end_value', config.optimizer.learning_rate)

  def test_a_name_alone(self):
    config = self.read(('data', 'breast_cancer'), ('energy.num_hidden', '5'))
    self.assertEqual(config.data.name, 'breast_cancer')
    self.assertEqual(config.evaluation.data.name, 'breast_cancer')

  def test_another_name_takes_what_was_set_over_and_refuses_what_it_does_not_take(
    self,
  ):
    config = self.read(
      ('step.chain.name', 'MALA'), ('step.chain.num_steps', '4')
    )
    # The file sets `clip`, and MALA takes none.
    with self.assertRaisesRegex(
      TypeError, 'step.chain.clip=.* is no .*MALA takes'
    ):
      configs.step(config)
    config = self.read(('optimizer.name', 'adamw'))
    self.assertEqual(config.optimizer.b1, 0.5)  # set by the file
    self.assertEqual(config.optimizer.weight_decay, 1e-4)  # adamw's own

  @parameterized.parameters(
    ('num_steps', 'many', "num_steps='many' must be an integer"),
    ('step.chain.step_size', 'x', "step_size='x' must be a number"),
    ('step.chain.noise', 'no', "noise='no' must be True or False"),
    ('step.chain.clip', 'a', "clip='a' must be a sequence"),
    ('energy.name', 'RMB', "energy.name='RMB' is not in stein_jax.energies"),
    ('algorithm', 'steingun', "algorithm='steingun' is unknown"),
  )
  def test_refuses(self, name, text, message):
    with self.assertRaisesRegex(ValueError, message):
      self.read((name, text))

  def test_files_of_another_make(self):
    text = 'def get_config():\n  return dict(algorithm="vgan", data="digits")'
    self.assertEqual(self.read(text=text).algorithm, 'vgan')
    with self.assertRaisesRegex(FileNotFoundError, 'no config file nowhere.py'):
      config_files.read('nowhere.py:smoke', {})


class FittedTest(absltest.TestCase):
  def fitted(self, rate):
    optimizer = dict(name='sgd', learning_rate=rate)
    config = configs.complete(given(optimizer=optimizer, num_steps=70))
    source = datasets.load(**config.data)
    return configs.fitted(config, source).optimizer.learning_rate

  def test_a_schedule_is_as_long_as_the_run(self):
    cosine = dict(name='cosine_decay_schedule', init_value=0.1)
    self.assertEqual(self.fitted(cosine).decay_steps, 70)
    line = dict(name='linear_schedule', init_value=1.0, end_value=0.0)
    self.assertEqual(self.fitted(line).transition_steps, 70)

  def test_a_length_that_is_said_is_kept(self):
    cosine = dict(name='cosine_decay_schedule', init_value=0.1, decay_steps=30)
    self.assertEqual(self.fitted(cosine).decay_steps, 30)

  def test_a_given_config_stays_as_it_is(self):
    # Its networks have as many classes as its data.
    config = module('steingan_mnist_joint').get_config('smoke')
    config = configs.complete(config)
    config.evaluation.data.path = 'here'
    before = config.to_dict()
    source = types.SimpleNamespace(num_classes=7)
    changes = (
      configs.fitted(config, source),
      configs.with_absolute_paths(config),
      configs.with_files(config, npz='other.npz'),
    )
    for changed in changes:
      self.assertNotEqual(changed.to_dict(), before)
      self.assertEqual(config.to_dict(), before)


class FilesTest(parameterized.TestCase):
  """The files in configs/."""

  @parameterized.parameters(*_OF_0_1)
  def test_completed_is_what_it_was_in_0_1(self, key):
    name, _, scale = key.partition(':')
    config = module(name).get_config(scale)
    # Networks said how many classes there are; where labels are the condition the
    # data do now. MNIST and CIFAR-10 have ten.
    source = types.SimpleNamespace(
      num_classes=config.data.get('num_classes', 10)
    )
    found = flat(configs.fitted(config, source))
    expected = flat(was(key))
    self.assertEmpty(
      {
        field: (expected.get(field), found.get(field))
        for field in expected.keys() | found.keys()
        if expected.get(field) != found.get(field)
      }
    )

  @parameterized.parameters(*_NAMES)
  def test_what_a_header_names_is_there(self, name):
    header, get_config = module(name).__doc__, module(name).get_config
    self.assertIn(f'experiments.train --config=configs/{name}.py', header)
    for scale in re.findall(rf'configs/{name}\.py:(\w+)', header):
      self.assertIn(scale, get_config.names)
    # A scale is explained, but for 'smoke', which is alike everywhere.
    for scale in set(get_config.names) - {'', 'smoke'}:
      self.assertIn(f':{scale}', header)

  @parameterized.parameters(*_NAMES)
  def test_flags_in_a_header_change_a_field(self, name):
    get_config = module(name).get_config
    for field, text in re.findall(
      r'--config\.([\w.]+)=(\S+)', module(name).__doc__
    ):
      scales = [
        scale
        for scale in get_config.names
        if any(
          known == field or known.startswith(f'{field}.')
          for known in flat(get_config(scale))
        )
      ]
      self.assertNotEmpty(scales, field)
      before = get_config(scales[0])
      path = f'{_CONFIGS / name}.py:{scales[0]}'
      self.assertNotEqual(config_files.read(path, {field: text}), before)

  def test_files_are_short(self):
    lengths = {
      name: (_CONFIGS / f'{name}.py').read_text('utf-8').count('\n')
      for name in _NAMES
    }
    self.assertLessEqual(max(lengths.values()), 60, lengths)
    self.assertLess(sum(lengths.values()), 45 * len(lengths))


if __name__ == '__main__':
  absltest.main()
