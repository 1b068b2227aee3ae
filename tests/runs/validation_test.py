"""What is wrong in a config is refused by name, before anything is compiled or written.

A row of a config is a dotted field, a bad value (`...` takes the field away) and what
the error says: the field as its flag has it, the value, and what is allowed. Where
several fields together are bad a dict stands for the first two.
"""

import functools
import pathlib
import re
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
from ml_collections import ConfigDict
import pytest

from stein_jax import parallel
from stein_jax.runs import reporting
from stein_jax.runs import training
from tests import smoke

_NAN, _INFINITY = float('nan'), float('inf')
_LABELS, _NO_LABELS = (
  {'data.condition': name, 'evaluation.data.condition': name}
  for name in ('label', 'none')
)
_SCHEDULE = dict(name='linear_schedule', init_value=0.1, end_value=0.0)


def changed(name, changes):
  """Returns a smoke config with dotted fields set, whatever their type."""
  config = ConfigDict(smoke.get_config(name).to_dict(), type_safe=False)
  for key, value in changes.items():
    *path, last = key.split('.')
    section = functools.reduce(
      lambda section, field: section[field], path, config
    )
    if value is ...:
      del section[last]
    else:
      section[last] = value
  return config


ROWS = {
  'amortized_svgd_toy': (
    ('algorithm', 'svdg', "algorithm='svdg'.*amortized_svgd.*svgd"),
    ('algorithm', '', "algorithm=''.*allowed: amortized_svgd"),
    ('algorithm', 3, 'algorithm=3.*allowed: amortized_svgd'),
    ('algorithm', ..., 'config lacks: algorithm'),
    ('step.projection', 'chain', "step.projection='chain'.*'full'"),
    ('step.inner_steps', 0, 'step.inner_steps=0 must be at least 1'),
    ('step.damping', -1.0, 'step.damping=-1.0 must be zero or more'),
    ('generator.widths', (0,), r'generator.widths\[0\]=0 must be at least 1'),
    ('generator.dim', 3, "amortized_svgd on data.name='toy'"),
  ),
  'bicycle_gan_facades': (
    ('step.image_weight', -1.0, 'step.image_weight=-1.0 must be zero or more'),
    ('step.latent_weight', _INFINITY, 'step.latent_weight=inf must be zero'),
    ('energy.outputs', 0, 'energy.outputs=0 must be at least'),
    ('generator', dict(name='DCGAN', shape=(16, 16, 3)), 'bicycle_gan on.*cond'),
  ),
  'classification_cifar10': (
    ('classifier.depth', 6 * 10**6 + 2, 'classifier.depth=6000002 must be at most'),
    ('classifier.depth', 9, 'classifier.depth=9 must be 6 n'),
    ('classifier.width', 0, 'classifier.width=0 must be at least'),
    ('step.shift', -1, 'step.shift=-1 must be at least 0'),
    ('step.flip', 'x', "step.flip='x' must be True or False"),
  ),
  'classification_mnist': (
    ('classifier.name', 'cnn', "classifier.name='cnn'.*CNN"),
    ('classifier.dropout', 1.0, 'classifier.dropout=1.0.*at most'),
    ('classifier.dropout', _NAN, 'classifier.dropout=nan must be'),
    ('classifier.widths', (2, 0), r'classifier.widths\[1\]=0 must'),
    ('classifier.widths', 2.5, 'classifier.widths=2.5.*sequence'),
    ('classifier.num_classes', 9, 'num_classes=9.*0 to 9.*: 10'),
    ('classifier.num_classes', 11, 'num_classes=11.*0 to 9.*: 10'),
    ({'data': dict(name='toy'), 'evaluation.data': dict(name='toy')},
      "classification on data.name='toy', of image"),
    ({'data.shape': (8, 8), 'evaluation.data.shape': (8, 8)},
      r"classification on data.name='synthetic', .*, of image \(8, 8\)"),
  ),
  'contrastive_divergence_mnist': (
    ('step.chain.name', 'hmc', "step.chain.name='hmc'.*Gibbs, MALA"),
    ('step.chain', 'MALA', 'step.chain.step_size is missing'),
    ('step.chain', 3, 'step.chain=3 must be a section'),
    ('step.chain.steps', 3, 'step.chain.steps=3 is no .*takes: step_size, num_steps'),
    ('step.chain.noise_ratio', -1.0, 'step.chain.noise_ratio=-1.0 must be zero'),
    ('step.chain', dict(name='MALA'), 'step.chain.step_size is missing'),
    ('data.condition', 'labels', "data.condition='labels'.*'none', 'label'"),
    (_LABELS, 'contrastive_divergence on data.name.*and no condition'),
    ({'persistent': True, **_LABELS, 'energy': dict(name='Discriminator')},
      'persistent=True needs data without conditions'),
    ('persistent', 'yes', "persistent='yes' must be True"),
  ),
  'contrastive_divergence_toy': (
    ('energy.confinement', -1.0, 'energy.confinement=-1.0 m'),
    ('energy.widths', (-4,), r'energy.widths\[0\]=-4 must'),
    ('evaluation.ais.num_chains', 0, 'evaluation.ais.num_cha'),
    ('evaluation.ais.steps', 9, 'evaluation.ais.steps=9 is no'),
    ('step.chain', dict(name='Gibbs'), 'contrastive_div.*no method gibbs'),
  ),
  'coopnets_cifar10': (
    ('step.chain.clip', (1.0,), r'step.chain.clip=\(1.0,\) must be \(low, high'),
    ('step.chain.clip', (1.0, -1.0), r'step.chain.clip=\(1.0, -1.0\).*low < h'),
    ('step.chain.clip', 'x', "step.chain.clip='x' must be a sequence of num"),
    ('energy.strides', (2, 2), r'energy.widths=.*strides=\(2, 2\) must'),
  ),
  'coopnets_facades': (
    ('step.generator_sigma', 0.0, 'step.generator_sigma=0.0 must be a'),
    ('step.data_weight', 1.5, 'step.data_weight=1.5 must be at most 1'),
    ('energy', dict(name='RBM', num_hidden=3), 'coopnets on.*condition'),
  ),
  'coopnets_mnist': (
    ('step.chain.step_size', 'x', "step.chain.step_size='x' must be a number"),
    ('energy.reference_sigma', -0.1, 'energy.reference_sigma=-0.1 must'),
    ('data.num_examples', 3, 'batch_size=.* is more than the 3 .*examples=3'),
  ),
  'gan_celeba': (
    ('step.loss', 'hinge', "step.loss='hinge'.*'wasserstein'"),
    ('generator.latent_dim', 0, 'generator.latent_dim=0 must be at least'),
  ),
  'gan_cifar10': (
    ('generator.kernel_size', 4, 'generator.kernel_size=4 must be odd'),
    ('energy.norm', 'batchnorm', "energy.norm='batchnorm'.*'layer', 'none'"),
    ('step.penalty', -1.0, 'step.penalty=-1.0 must be zero or more'),
    ('data', dict(name='npz', path='/nowhere.npz'),
      "data.path='/nowhere.npz': there is no such file"),
  ),
  'gan_facades': (
    ('step.l1_weight', _INFINITY, 'step.l1_weight=inf must be zero or more'),
    ('generator.num_blocks', -1, 'generator.num_blocks=-1 must be at least'),
    ('data', dict(name='folder', path='/nowhere', side='left'),
      "data.path='/nowhere' is no folder"),
    ('evaluation.data', dict(name='folder', path='/nowhere', side='left'),
      "evaluation.data.path='/nowhere' is no folder"),
    ('data', dict(name='folder', path='/nowhere', channels=2),
      'data.channels=2 .*1, 3'),
    ('data.mask', 'centre', "data.mask='centre' is no .*takes: shape"),
  ),
  'gan_mnist': (
    ('generator_optimizer', ..., 'config lacks: generator_optimizer'),
    ('generator.name', 'DCGN', "generator.name='DCGN'.*DCGAN"),
    ('generator.layers', 3, 'generator.layers=3 is no .*takes: shape'),
    ('step.loss', 'hinge', "step.loss='hinge'.*'minimax', 'wasserstein'"),
    ('step.generator_every', 1.5, 'step.generator_every=1.5 must be an integ'),
    ('generator.output', 'relu', "generator.output='relu'.*'sigmoid', 'tanh'"),
    ('generator.strides', (2, 0), r'generator.strides\[1\]=0 must be at least'),
    ({**_NO_LABELS, 'energy.num_classes': 4}, 'num_classes=4, but label is missing'),
    ('data.condition', 'none', 'evaluation.data has condition .*, data has none'),
    ('data.shape', (12, 12, 1), r'data \(12, 12, 1\), samples \(8, 8, 1\)'),
    ('evaluation.data.shape', (4, 4, 1), r'evaluation.data.*\(4, 4, 1\).*\(8'),
    ('evaluation.data.pixels', 'symmetric',
      "evaluation.data.pixels='symmetric'.*'unit'"),
    ('evaluation.num_samples', 2**63, 'evaluation.num_samples=9223372036854775808 m'),
    ('evaluation.num_samples', 10**7, 'evaluation.num_samples=10000000 must be at m'),
    ('generator.latent_dim', 10**12, 'generator.latent_dim=1000000000000 must be at'),
    ('generator.latent_dim', 2**31 - 1,
      'generator.latent_dim=2147483647 needs .* GB of memory.*largest part is'),
    ('step.num_generator_steps', 1001, 'step.num_generator_steps=1001 must be at'),
    ('step.loss', ['wasserstein'], r"step.loss=\('wasserstein',\) must be a string"),
    ('generator.name', ['DCGAN'], r"generator.name=\('DCGAN',\) must be a string"),
    ('step.joint', {}, 'step.joint={} must be True or False'),
    ('step.joint', 'False', "step.joint='False' must be True or False"),
    ('step.penalty', {'a': 1}, "step.penalty={'a': 1} must be a number"),
    ('step.penalty', b'1', "step.penalty=b'1' must be a number"),
    ('step.penalty', 1j, 'step.penalty=1j must be a number'),
    ('step.penalty', {1.0}, 'step.penalty={1.0} must be a number'),
    ('step.penalty', None, 'step.penalty=None must be a number'),
    ('step.penalty', len, 'step.penalty=<built-in function len> must be a number'),
    ('step.penalty', 1e300, 'step.penalty=1e.300 must be finite, and at most 3.4'),
    ('generator_optimizer.l2', float('nan'), 'generator_optimizer.l2=nan must be'),
    ('generator_optimizer.momentum', {'a': 1}, "momentum={'a': 1} must be zero"),
    ('step.loss', 'x' * 5000, "^step.loss='x{79}[.]{3}x{14}' is unknown.{0,99}$"),
    ('data.num_examples', 10**9, 'data.num_examples=1000000000 with data.shape='),
    ('data.shape', (10**5, 10**5, 1), r'data.shape=\(100000, .* is more noise'),
    ('generator.strides', (3, 2), r'generator.shape=\(8, 8, 1\) must be divisible.*6'),
    ('generator.widths', (), 'one entry more than generator.widths='),
    ('evaluation.log_likelihood', 'exact', "log_likelihood='exact'.*Allowed"),
    ('step.loss', 'wasserstein', "step.loss='wasserstein'.*norm='layer'"),
  ),
  'langevin_ebm_cifar10': (
    ('step.restart', 1.5, 'step.restart=1.5 must be at most 1'),
    ('num_chains', 10**9, 'num_chains=1000000000 needs .* GB of memory'),
    ('num_chains', 3, 'num_chains=3 must be 0 or at least .*4'),
    ('sample.start_scale', 0.0, 'sample.start_scale=0.0 must be a'),
    ({'num_chains': 10, 'parallel': 'shard_map'}, 'num_chains=10 must'),
  ),
  'langevin_ebm_mnist': (
    ('energy.kernels', 4, 'energy.kernels=4 must be a sequence of int'),
    ('step.chain.temperature', -1.0, 'step.chain.temperature=-1.0 must be z'),
    ({'data': dict(name='breast_cancer'),
      'evaluation.data': dict(name='breast_cancer', split='test')},
      r"langevin_ebm on data.name='breast_cancer', of image \(30,\)"),
  ),
  'maximum_likelihood_mnist': (
    ('energy.num_hidden', 0, 'energy.num_hidden=0 must be at'),
    ('energy.centered', 1, 'energy.centered=1 must be True or'),
    ('energy', dict(name='MLP'), 'log_partition'),
    (_LABELS, "data.condition='label', but maximum_likelihood takes no cond"),
  ),
  'noise_contrastive_toy': (
    ('step.objective', 'nce', "step.objective='nce'.*'conditional'"),
    ('step.num_noise', 0, 'step.num_noise=0 must be at least 1'),
    ({'step.objective': 'fixed', 'covariance': 'wide'}, "covariance='wide'.*'full'"),
    ('step.objective', 'self', 'no method sample'),
  ),
  'pseudo_likelihood_mnist': (
    ('step.objective', 'pl', "step.objective='pl'.*'ratio_matching'"),
    ('step.num_units', -1, 'step.num_units=-1 must be at least 0'),
    ('data.binarize', False, 'x has a unit that is .*allowed: 0 and 1 alone'),
  ),
  'recovery_likelihood_mnist': (
    ('step.noise_scales', (1.0, 0.5), r'step.noise_scales\[0\]=1.0 must be below 1'),
    ('step.noise_scales', 0.5, 'step.noise_scales=0.5 must be a sequence of num'),
    ('step.chain.num_steps', 0, 'step.chain.num_steps=0 must be at least 1'),
    ('energy.norm', 'batch', 'mixes its batch.*no density'),
    (_LABELS, "data.condition='label', but recovery_likelihood takes no cond"),
  ),
  'score_matching_mnist': (
    ('step.objective', 'ksd', "step.objective='ksd'.*'denoising'"),
    ('step.num_projections', 0, 'step.num_projections=0 must be at'),
    ('step.direction.kernel.bandwidth.log', 'n-1',
      "step.direction.kernel.bandwidth.log='n-1'.*'n', 'none'"),
    (_LABELS, "data.condition='label', but score_matching takes no condition"),
    ('step.noise_scale', 0.0, 'step.noise_scale=0.0 must be a posi'),
    ({'energy': dict(name='MLP'), 'step.objective': 'closed_form'},
      'score_matching on.*laplacian'),
  ),
  'stein_cd_mnist': (
    ('batch_size', 1000, 'batch_size=1000 is more than the 64'),
    ('batch_size', 6, 'batch_size=6 must be divisible by 4 devices'),
    ('num_steps', -3, 'num_steps=-3 must be at least 1'),
    ('num_steps', 2.5, 'num_steps=2.5 must be an integer'),
    ('log_every', 0, 'log_every=0 must be at least 1'),
    ('eval_every', -2, 'eval_every=-2 must be at least 0'),
    ('eval_every', 1.5, 'eval_every=1.5 must be an integer'),
    ('checkpoint_every', (), r'checkpoint_every=\(\) must be an int'),
    ('checkpoint_every', _NAN, 'checkpoint_every=nan must be an int'),
    ('steps_per_call', 0, 'steps_per_call=0 must be at least 1'),
    ('steps_per_call', 3, 'num_steps=4 .*multiple of steps_per_call=3'),
    ('steps_per_call', 4, 'log_every=2 .*multiple of steps_per_call=4'),
    ('step.epsilom', 0.1, 'step.epsilom=0.1 is no .*perhaps epsilon; .*takes: state'),
    ('sample.steps', 3, 'sample.steps=3 is no .*takes: .*chain'),
    ('energy', dict(name='tests.learners_test:_Keyless'),
      r'energy: _Keyless takes no rngs; .*rngs=nnx.Rngs'),
    ('energy', dict(name='tests.learners_test:_Streaming', widht=3),
      'energy.widht=3 is no .*takes: nothing'),
    ('energy', dict(name='tests.learners_test:_Streaming'),
      "stein_cd on .*keyword rng.*: No RngStream named 'dropout' found"),
    ('energy.hidden', 3, 'energy.hidden=3 is no .*takes: num_hidden'),
    ('energy.num_hidden', ..., 'energy.num_hidden is missing'),
    ('energy.name', ..., 'energy.name is missing'),
    ('energy', ..., 'config lacks: energy'),
    ('energy', 'RBM', 'energy.num_hidden is missing'),
    ('energy', 3, 'energy=3 must be a section'),
    ('data', ..., 'config lacks: data'),
    ('optimizer.b3', 0.1, 'optimizer.b3=0.1 is no .*takes: learning_rate'),
    ('optimizer.name', 'adan_', "optimizer.name='adan_'.*adam"),
    ('optimizer.name', 'l2_loss', 'optimizer.*l2_loss.*predictions'),
    ('optimizer.learning_rate', ..., 'optimizer.learning_rate is missing'),
    ('data.name', 'mnits', "data.name='mnits'.*allowed: .*mnist"),
    ('data.splits', 'train', "data.splits='train' is no .*takes: .*split"),
    ('data.split', 'valid', "data.split='valid'.*'train', 'test'"),
    ('data.split', '', "data.split=''.*'train', 'test'"),
    ('num_particles', 8, 'num_particles, which stein_cd does not read'),
    ('sample.chain.num_steps', 10**9, 'sample.chain.num_steps=1000000000 must be at'),
    ('step.num_steps', 2**31, 'step.num_steps=2147483648 must be at most'),
    ('step.num_steps', 10**9, 'step.num_steps=1000000000 must be at most'),
    ('step.epsilon', -0.1, 'step.epsilon=-0.1 must be a positive number'),
    ('step.epsilon', _NAN, 'step.epsilon=nan must be a positive number'),
    ('step.direction.name', 'SVG', "step.direction.name='SVG'.*SVGD, Fea"),
    ('step.direction.kernel.name', 'rbff',
      "step.direction.kernel.name='rbff'.*RBF, IMQ, Rat"),
    ('step.direction.kernel', dict(name='IMQ', exponent=1.0),
      'step.direction.kernel.exponent=1.0 must be'),
    ('step.direction.kernel', dict(name='RationalQuadratic', mixture=0.0),
      'step.direction.kernel.mixture=0.0 must be a positive'),
    ('step.direction.kernel.bandwidth', -1.0,
      'step.direction.kernel.bandwidth=-1.0 must be a positive'),
    ('step.direction.normalize', 'rows',
      "step.direction.normalize='rows'.*'row_sum'"),
    ('step.direction.block_size', -1,
      'step.direction.block_size=-1 must be at least 0'),
    ('step.direction.diagonal', 'x',
      "step.direction.diagonal='x' must be True or"),
    ('step.direction.kernel.bandwidth.scale', 0.0,
      'step.direction.kernel.bandwidth.scale=0.0 must be a'),
    ('step.symmetric', 'x', "step.symmetric='x' must be True or False"),
    ('step.direction.kernel.bandwidth.log', 'log',
      "step.direction.kernel.bandwidth.log='log'.*'n', 'none'"),
    (_LABELS, r'stein_cd on data.name.*RBM takes \(x\), and no condition'),
    ('sample.chain.name', 'Gibs', "sample.chain.name='Gibs'.*Gibbs"),
    ('sample.chain', dict(name='MALA', step_size=-1.0),
      'sample.chain.step_size=-1.0 must be a positive'),
    ('sample.chain.num_steps', -1, 'sample.chain.num_steps=-1 must be at least 1'),
    ('optimizer.learning_rate', -0.1, 'optimizer.learning_rate=-0.1 must'),
    ('optimizer.learning_rate', '1e-3', "learning_rate='1e-3' must be a"),
    ('optimizer.momentum', 1.5, 'optimizer.momentum=1.5 must be at most'),
    ('optimizer.l2', -1.0, 'optimizer.l2=-1.0 must be zero or more'),
    ('optimizer.max_norm', 'x', "optimizer.max_norm='x' must be zero or"),
    ('optimizer.learning_rate', dict(_SCHEDULE, transition_steps=0),
      'optimizer.learning_rate.transition_steps=0 must be at least 1'),
    ('optimizer.learning_rate', dict(_SCHEDULE, transition_steps=4, end_value=-1.0),
      'optimizer.learning_rate.end_value=-1.0 must be zero or more'),
    ({'data': dict(name='digits', scale=4.0),
      'evaluation.data': dict(name='digits', scale=1.0)},
      'evaluation.data.scale=1.0, and data.scale=4.0'),
    ('optimizer.learning_rate', dict(name='linear'),
      "optimizer.learning_rate.name='linear' is not in optax"),
    ('evaluation.log_likelihood', 'hais', "likelihood='hais'.*'ais'"),
    ('energy.num_hidden', 31, "log_likelihood='exact'.*num_hidden=31.*30"),
    ('data', dict(name='lsun', category='bedroom'), 'data: .*lsun.*Prepare'),
    ('data', dict(name='digits', scale=0.0), 'data.scale=0.0 must be a'),
  ),
  'steingan_celeba': (
    ('step.diversity', 'ebgan', "step.diversity='ebgan'.*'pulling_away'"),
    ('step.diversity_weight', -1.0, 'step.diversity_weight=-1.0 must be'),
    ('step.direction.kernel.bandwidth', -1.0,
      'step.direction.kernel.bandwidth=-1.0 must be a positive'),
    ('step.first_features', 'x', "step.first_features='x' must be True or"),
  ),
  'steingan_cifar10': (
    ('step.controller', 'pid', "step.controller.name='pid'.*Discount"),
    ('step.controller.name', 'Factors', "controller.name='Factors' is not in"),
    ('step.controller.share', 1.5, 'step.controller.share=1.5 must be at most'),
    ('step.controller.when', 'often', "step.controller.when='often'.*'behind'"),
    ('step.controller', dict(name='Freeze', limit=0.0),
      'step.controller.limit=0.0 must be a positive'),
    ('energy.margin', -1.0, 'energy.margin=-1.0 must be zero or more'),
    ('energy.autoencoder.convs', (), r'energy.autoencoder.convs=\(\) must be one'),
    ('energy.autoencoder.convs', ((2, 3, 1),), r'energy.autoencoder.convs\[0\]=\(2,'),
    ('generator.num_classes', 3, 'generator.num_classes=3.*allowed: 4'),
    ({'batch_size': 8, 'generator.num_classes': 5}, 'num_classes=5.*: 4'),
  ),
  'steingan_mnist': (
    ('step.alpha', 1.5, 'step.alpha=1.5 must be at most 1'),
    ('step.direction.name', 'Latent', "step.direction.name='Latent'.*Score"),
    ('generator.latent_dim', 0, 'generator.latent_dim=0 must be at least'),
    ('generator.width', 'x', "generator.width='x' must be an integer"),
  ),
  'steingan_mnist_joint': (
    ('energy.autoencoder.residual', 'l3', "residual='l3'.*'l1_l2'"),
    ('energy.num_classes', -1, 'energy.num_classes=-1 must be at least 0'),
    (_NO_LABELS, r'steingan on .*JointLabel takes \(x, y\), and is given 1 of'),
    ('energy.num_classes', 3, 'energy.num_classes=3.*0 to 3.*d: 4'),
    ('energy.num_classes', 5, 'energy.num_classes=5.*0 to 3.*d: 4'),
    ('energy.autoencoder.convs', ((2, 9, 1, 0),),
      'kernel of side 9 with padding=0 does not fit into 8 pixels'),
    ('evaluation.log_likelihood', 'ais', "likelihood='ais'.*'none'"),
  ),
  'steingan_toy': (
    ('step.direction', dict(name='FeatureSVGD', form='near'),
      "step.direction.form='near'.*'nearest'"),
    ('step.negative_weight', '1', "step.negative_weight='1' must be a num"),
    ('data.condition', 'label', "data.condition='label', but 'toy' has no lab"),
    ('data.density', 'banan', "data.density.name='banan'.*banana"),
    ('data.density', 'logistic_regression', 'data.density.num_examples is missing'),
  ),
  'svgd_breast_cancer': (
    ('density.num_examples', 0, 'density.num_examples=0 must be at'),
    ('num_particles', 8.5, 'num_particles=8.5 must be an integer'),
    ({'data': dict(name='digits'), 'evaluation.data': dict(name='digits')},
      'label=[2-9] must be 0 or 1'),
  ),
  'svgd_toy': (
    ('batch_size', 0, 'batch_size=0 must be at least 1'),
    ('batch_size', '8', "batch_size='8' must be an integer"),
    ('batch_size', 8.0, 'batch_size=8.0 must be an integer'),
    ('batch_size', True, 'batch_size=True must be an integer'),
    ('density.name', 'dounut', "density.name='dounut'.*banana"),
    ('density.radius', -1.0, 'density.radius=-1.0 must be a positive'),
    ('density.radius', 'x', "density.radius='x' must be a number"),
    ('num_particles', -8, 'num_particles=-8 must be at least 1'),
    ('step.direction', 3, 'step.direction=3 must be a section'),
    ('step.direction.kernel', 3, 'step.direction.kernel=3 must be a'),
    ('density.name', 'two_modes', 'density.radius=.* is no .*takes: nothing'),
    ('density', 'two_modes', r'data \(2,\), samples \(1,\)'),
    ('data.condition', 'label', "data.condition='label', but 'toy' has no lab"),
    ('num_particles', 6, 'num_particles=6 must be divisible by 4 devices'),
    ({'num_particles': 6, 'parallel': 'pmap'}, 'num_particles=6 must be divisible by'),
    ('evaluation.log_likelihood', 'ais', "log_likelihood='ais' needs an energy"),
  ),
  'vae_facades': (
    ('step.kl_weight', -1.0, 'step.kl_weight=-1.0 must be zero or more'),
    ('generator.encoder_widths', (), r'generator.encoder_widths=\(\) must be'),
    ('generator.widths', (2,) * 6, 'shape=.16, 16, 3. must be divisible by 32'),
    ({'data.pairs': False, 'evaluation.data.pairs': False},
      "vae on data.name='synthetic'.*condition"),
    ('evaluation.data.pairs', False, 'evaluation.data has condition none'),
    ('generator', dict(name='DCGAN', shape=(16, 16, 3)), 'vae on.*condition'),
  ),
  'vae_teaching_cifar10': (
    ('generator.kernels', (4,), r'kernels=\(4,\) must have one entry more'),
    ('generator.scale', 0.0, 'generator.scale=0.0 must be a positive'),
  ),
  'vae_teaching_facades': (
    ('step.chain.num_steps', 2.5, 'step.chain.num_steps=2.5 must be an integer'),
    ('step.chain.noise', 'no', "step.chain.noise='no' must be True or False"),
  ),
  'vae_teaching_mnist': (
    ('step.kl', 'both', "step.kl='both'.*'prior', 'posterior'"),
    ('step.num_importance', -1, 'step.num_importance=-1 must be at'),
    ('generator.encoder_widths', (), 'encoder_widths=.. must have one or more'),
  ),
  'vcd_cifar10': (
    ('step.rho', -0.1, 'step.rho=-0.1 must be zero or more'),
    ('generator.keep', 1.5, 'generator.keep=1.5 must be at most 1'),
  ),
  'vcd_mnist': (
    ('step.reconstruction', 'l1', "step.reconstruction='l1'.*'squared'"),
    ('energy.num_experts', 3.0, 'energy.num_experts=3.0 must be an integer'),
    ('energy.widths', (2,) * 4, 'no 2x2 pooling of 1 x 1 pixels'),
    ({'batch_size': 4, 'parallel': 'pmap'}, 'batch has 1 images'),
  ),
  'vcd_svhn': (
    ('step.data_entropy', _INFINITY, 'step.data_entropy=inf must be zero or'),
    ('generator.widths', (), r'generator.widths=\(\) must be one or more'),
    ('generator', dict(name='MLP'), 'vcd on'),
  ),
  'vgan_cifar10': (
    ('step.num_generator_steps', 0, 'step.num_generator_steps=0 must be at'),
    ('energy.dense', -4, 'energy.dense=-4 must be at least 1'),
  ),
  'vgan_mnist': (
    ('seed', -1, 'seed=-1 must be at least 0'),
    ('seed', 0.5, 'seed=0.5 must be an integer'),
    ('seed', 2**40, 'seed=1099511627776 must be at most'),
    ('parallel', 'tpu', "parallel='tpu'.*'jit', 'pmap', 'shard_map'"),
    ('parallel', 0, "parallel=0.*'jit', 'pmap', 'shard_map'"),
    ('prng_impl', 'mt', "prng_impl='mt'.*'threefry2x32'"),
    ('matmul_precision', 'half', "matmul_precision='half'.*'bfloat16'"),
    ('on_nonfinite', 'ignore', "on_nonfinite='ignore'.*'rollback'"),
    ('evaluation', 3, 'evaluation=3 must be a section'),
    ('step', 3, 'step=3 must be a section'),
    ('evaluation.num_samples', 0, 'evaluation.num_samples=0 must be at'),
    ('evaluation.num_samples', 'x', "evaluation.num_samples='x'.*integer"),
    ('evaluation.num_smaples', 4, 'evaluation.num_smaples=4 .*num_samples'),
    ('evaluation.ais', 3, 'evaluation.ais=3 must be a section'),
    ('evaluation.data', 3, 'evaluation.data=3 must be a section'),
    ('evaluation.data', 'mnits', "evaluation.data.name='mnits'.*mnist"),
    ('generator.shape', (8, 8), r'generator.shape=\(8, 8\) must be \(height'),
    ('generator.prior', 'cauchy', "generator.prior='cauchy'.*'uniform'"),
    ('data.pixels', 'bytes', "data.pixels='bytes'.*'unit', 'symmetric'"),
    ('data.num_examples', 0, 'data.num_examples=0 must be at least 1'),
    ('data.shape', (), r'data.shape=\(\) must be one or more'),
    ('data.shape', (0, 8, 1), r'data.shape\[0\]=0 must be at least 1'),
    ('energy', dict(name='ConvNet'), 'vgan on.*expert_logits'),
  ),
  'vera_toy': (
    ('step.entropy', -1.0, 'step.entropy=-1.0 must be zero or more'),
    ('step.latent_scale', 0.0, 'step.latent_scale=0.0 must be a positive'),
    ('step.num_draws', 0, 'step.num_draws=0 must be at least 1'),
    ('generator.prior', 'uniform', "prior='uniform', .*allowed: 'normal'"),
  ),
}  # fmt: skip


def wrong_type(value):
  """Returns a value of another type than a config's."""
  return 3 if isinstance(value, str) else 'x'


class BadConfigsTest(parameterized.TestCase):
  def assert_refused(self, config, message):
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    start = time.process_time()
    with (
      mock.patch.object(parallel, 'compile_step', side_effect=AssertionError),
      self.assertRaises((ValueError, TypeError, FileNotFoundError)) as caught,
    ):
      training.train(config, workdir)
    self.assertLess(time.process_time() - start, 5)
    self.assertRegex(' '.join(str(caught.exception).split()), message)
    self.assertFalse(workdir.exists())

  @parameterized.parameters(
    (name, *row) for name, rows in ROWS.items() for row in rows
  )
  def test_is_refused(self, name, *row):
    changes, message = row if len(row) == 2 else ({row[0]: row[1]}, row[2])
    self.assert_refused(changed(name, changes), message)

  @parameterized.parameters(sorted(smoke.ALGORITHMS.values()))
  def test_every_field_has_a_type(self, name):
    self.check_types(name)

  @parameterized.parameters(
    sorted(set(smoke.NAMES) - set(smoke.ALGORITHMS.values()))
  )
  @pytest.mark.slow
  def test_every_field_of_every_other_config_has_a_type(self, name):
    self.check_types(name)

  def check_types(self, name):
    flat = reporting.flat_config(smoke.get_config(name))
    for key, value in flat.items():
      bad = wrong_type(value)
      with self.subTest(key):
        with self.assertRaises((ValueError, TypeError)) as caught:
          training.check(changed(name, {key: bad}))
        said = str(caught.exception)
        # A text in place of a bandwidth is the name of a rule.
        self.assertRegex(
          said, f'{re.escape(key)}(.name)?={re.escape(repr(bad))}'
        )


if __name__ == '__main__':
  absltest.main()
