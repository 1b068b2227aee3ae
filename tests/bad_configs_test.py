"""What is wrong in a config is refused by name, before anything is compiled or written.

A row is a config, dotted fields changed to bad values (`...` removes a field), and
what the error says: the field as its flag has it, the value, and what is allowed.
"""

import functools
import pathlib
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
from ml_collections import ConfigDict
import numpy as np

from stein_jax import parallel
from stein_jax import reporting
from stein_jax import training
from tests import conformance_test

_NAN, _INFINITY = float('nan'), float('inf')
_SCHEDULE = dict(name='linear_schedule', init_value=0.1, end_value=0.0)


def changed(name, changes):
  """Returns a smoke config with dotted fields set, whatever their type."""
  config = ConfigDict(
    conformance_test.get_config(name).to_dict(), type_safe=False
  )
  for key, value in changes.items():
    *path, last = key.split('.')
    section = functools.reduce(lambda section, field: section[field], path, config)
    if value is ...:
      del section[last]
    else:
      section[last] = value
  return config


LOOP = (
  # The same of every config: one each.
  ('amortized_svgd_toy', {'algorithm': 'svdg'}, "algorithm='svdg'.*amortized_svgd.*svgd"),
  ('amortized_svgd_toy', {'algorithm': ''}, "algorithm=''.*allowed: amortized_svgd"),
  ('amortized_svgd_toy', {'algorithm': 3}, 'algorithm=3.*allowed: amortized_svgd'),
  ('svgd_toy', {'batch_size': 0}, 'batch_size=0 must be at least 1'),
  ('svgd_toy', {'batch_size': '8'}, "batch_size='8' must be an integer"),
  ('svgd_toy', {'batch_size': 8.0}, 'batch_size=8.0 must be an integer'),
  ('svgd_toy', {'batch_size': True}, 'batch_size=True must be an integer'),
  ('stein_cd_mnist', {'batch_size': 1000}, 'batch_size=1000 is more than the 64'),
  ('stein_cd_mnist', {'batch_size': 6}, 'batch_size=6 must divide over 4 devices'),
  ('stein_cd_mnist', {'num_steps': -3}, 'num_steps=-3 must be at least 1'),
  ('stein_cd_mnist', {'num_steps': 2.5}, 'num_steps=2.5 must be an integer'),
  ('stein_cd_mnist', {'log_every': 0}, 'log_every=0 must be at least 1'),
  ('stein_cd_mnist', {'eval_every': -2}, 'eval_every=-2 must be at least 0'),
  ('stein_cd_mnist', {'eval_every': 1.5}, 'eval_every=1.5 must be an integer'),
  ('stein_cd_mnist', {'checkpoint_every': ()}, r'checkpoint_every=\(\) must be an int'),
  ('stein_cd_mnist', {'checkpoint_every': _NAN}, 'checkpoint_every=nan must be an int'),
  ('stein_cd_mnist', {'steps_per_call': 0}, 'steps_per_call=0 must be at least 1'),
  ('stein_cd_mnist', {'steps_per_call': 3}, 'num_steps=4 .*multiple of steps_per_call=3'),
  ('stein_cd_mnist', {'steps_per_call': 4}, 'log_every=2 .*multiple of steps_per_call=4'),
  ('vgan_mnist', {'seed': -1}, 'seed=-1 must be at least 0'),
  ('vgan_mnist', {'seed': 0.5}, 'seed=0.5 must be an integer'),
  ('vgan_mnist', {'seed': 2**40}, 'seed=1099511627776 must be at most'),
  ('vgan_mnist', {'parallel': 'tpu'}, "parallel='tpu'.*'jit', 'pmap', 'shard_map'"),
  ('vgan_mnist', {'parallel': 0}, "parallel=0.*'jit', 'pmap', 'shard_map'"),
  ('vgan_mnist', {'prng_impl': 'mt'}, "prng_impl='mt'.*'threefry2x32'"),
  ('vgan_mnist', {'log_every': ...}, 'config lacks: log_every'),
  ('vgan_mnist', {'evaluation': ...}, 'config lacks: evaluation'),
  ('vgan_mnist', {'step': 3}, 'step=3 must be a section'),
  ('vgan_mnist', {'evaluation.num_samples': 0}, 'evaluation.num_samples=0 must be at'),
  ('vgan_mnist', {'evaluation.num_samples': 'x'}, "evaluation.num_samples='x'.*integer"),
  ('vgan_mnist', {'evaluation.num_smaples': 4}, "evaluation: .*'num_smaples'.*num_samples"),
  ('vgan_mnist', {'evaluation.log_likelihood': ...}, "missing.*'log_likelihood'"),
  ('vgan_mnist', {'evaluation.data': ...}, "evaluation: .*missing.*'data'"),
  ('vgan_mnist', {'evaluation.data': 'mnist'}, "evaluation.data='mnist' must be a section"),
)  # fmt: skip

SECTIONS = (
  # A section, or a field of one, that is not there, or should not be.
  ('stein_cd_mnist', {'step.epsilom': 0.1}, "step: .*'epsilom'.*takes: .*epsilon"),
  ('stein_cd_mnist', {'sample.steps': 3}, "sample: .*'steps'.*takes: .*num_steps"),
  ('stein_cd_mnist', {'energy.hidden': 3}, "energy: .*'hidden'.*takes: num_hidden"),
  ('stein_cd_mnist', {'energy.num_hidden': ...}, "energy: .*missing.*'num_hidden'"),
  ('stein_cd_mnist', {'energy.name': ...}, "energy: .*missing.*'name'"),
  ('stein_cd_mnist', {'energy': ...}, 'config lacks: energy'),
  ('stein_cd_mnist', {'energy': 'RBM'}, "energy='RBM' must be a section"),
  ('stein_cd_mnist', {'optimizer.b3': 0.1}, "optimizer: .*'b3'.*takes: learning_rate"),
  ('stein_cd_mnist', {'optimizer.name': 'adan_'}, "optimizer: .*'adan_'.*adam"),
  ('stein_cd_mnist', {'optimizer.name': 'l2_loss'}, 'optimizer: .*l2_loss.*predictions'),
  ('stein_cd_mnist', {'optimizer.learning_rate': ...}, "optimizer: .*'learning_rate'"),
  ('stein_cd_mnist', {'data.name': 'mnits'}, "data.name='mnits'.*'mnist'"),
  ('stein_cd_mnist', {'data.splits': 'train'}, "data: .*'splits'.*takes: .*split"),
  ('stein_cd_mnist', {'data.split': 'valid'}, "data.split='valid'.*'train', 'test'"),
  ('stein_cd_mnist', {'data.split': ''}, "data.split=''.*'train', 'test'"),
  ('stein_cd_mnist', {'num_particles': 8}, 'num_particles, which stein_cd does not read'),
  ('svgd_toy', {'num_particles': ...}, 'config lacks: num_particles'),
  ('svgd_toy', {'density.name': 'dounut'}, "density: .*'dounut'.*banana"),
  ('svgd_toy', {'density.radius': -1.0}, 'density.radius=-1.0 must be a positive'),
  ('svgd_toy', {'density.radius': 'x'}, "density.radius='x' must be a number"),
  ('steingan_mnist', {'step.conditional': ...}, 'config lacks: step.conditional'),
  ('gan_mnist', {'generator_optimizer': ...}, 'config lacks: generator_optimizer'),
  ('gan_mnist', {'generator.name': 'DCGN'}, "generator: .*'DCGN'.*DCGAN"),
  ('gan_mnist', {'generator.layers': 3}, "generator: .*'layers'.*takes: shape"),
  ('classification_mnist', {'classifier.name': 'cnn'}, "classifier: .*'cnn'.*CNN"),
)  # fmt: skip

VALUES = (
  ('amortized_svgd_toy', {'step.projection': 'chain'}, "step.projection='chain'.*'full'"),
  ('amortized_svgd_toy', {'step.inner_steps': 0}, 'step.inner_steps=0 must be at least 1'),
  ('amortized_svgd_toy', {'step.damping': -1.0}, 'step.damping=-1.0 must be zero or more'),
  ('amortized_svgd_toy', {'generator.widths': ()}, r'generator.widths=\(\) must be one or'),
  ('classification_cifar10', {'classifier.depth': 9}, 'classifier.depth=9 must be 6 n'),
  ('classification_cifar10', {'classifier.width': 0}, 'classifier.width=0 must be at least'),
  ('classification_cifar10', {'step.shift': -1}, 'step.shift=-1 must be at least 0'),
  ('classification_cifar10', {'step.flip': 'x'}, "step.flip='x' must be True or False"),
  ('classification_mnist', {'classifier.dropout': 1.0}, 'classifier.dropout=1.0.*at most'),
  ('classification_mnist', {'classifier.dropout': _NAN}, 'classifier.dropout=nan must be'),
  ('classification_mnist', {'classifier.widths': (2, 0)}, r'classifier.widths\[1\]=0 must'),
  ('classification_mnist', {'classifier.widths': 2.5}, 'classifier.widths=2.5.*sequence'),
  ('contrastive_divergence_mnist', {'step.sampler': 'hmc'}, "step.sampler='hmc'.*'gibbs'"),
  ('contrastive_divergence_mnist', {'persistent': 'yes'}, "persistent='yes' must be True"),
  ('contrastive_divergence_toy', {'energy.confinement': -1.0}, 'energy.confinement=-1.0 m'),
  ('contrastive_divergence_toy', {'energy.widths': (-4,)}, r'energy.widths\[0\]=-4 must'),
  ('contrastive_divergence_toy', {'evaluation.ais.num_chains': 0}, 'evaluation.ais.num_cha'),
  ('contrastive_divergence_toy', {'evaluation.ais.steps': 9}, "evaluation.ais: .*'steps'"),
  ('coopnets_cifar10', {'step.clip': (1.0,)}, r'step.clip=\(1.0,\) must be \(low, high\)'),
  ('coopnets_cifar10', {'step.clip': (1.0, -1.0)}, r'step.clip=\(1.0, -1.0\).*low < high'),
  ('coopnets_cifar10', {'step.clip': 'x'}, "step.clip='x' must be a sequence of numbers"),
  ('coopnets_cifar10', {'energy.strides': (2, 2)}, r'energy.widths=.*strides=\(2, 2\) must'),
  ('coopnets_facades', {'step.generator_sigma': 0.0}, 'step.generator_sigma=0.0 must be a'),
  ('coopnets_facades', {'step.data_weight': 1.5}, 'step.data_weight=1.5 must be at most 1'),
  ('coopnets_mnist', {'step.step_size': 'x'}, "step.step_size='x' must be a number"),
  ('coopnets_mnist', {'energy.reference_sigma': -0.1}, 'energy.reference_sigma=-0.1 must'),
  ('gan_cifar10', {'generator.kernel_size': 4}, 'generator.kernel_size=4 must be odd'),
  ('gan_cifar10', {'energy.norm': 'batchnorm'}, "energy.norm='batchnorm'.*'layer', 'none'"),
  ('gan_cifar10', {'step.penalty': -1.0}, 'step.penalty=-1.0 must be zero or more'),
  ('gan_facades', {'step.l1_weight': _INFINITY}, 'step.l1_weight=inf must be zero or more'),
  ('gan_facades', {'generator.num_blocks': -1}, 'generator.num_blocks=-1 must be at least'),
  ('gan_mnist', {'step.loss': 'hinge'}, "step.loss='hinge'.*'minimax', 'wasserstein'"),
  ('gan_mnist', {'step.generator_every': 1.5}, 'step.generator_every=1.5 must be an integ'),
  ('gan_mnist', {'generator.output': 'relu'}, "generator.output='relu'.*'sigmoid', 'tanh'"),
  ('gan_mnist', {'generator.strides': (2, 0)}, r'generator.strides\[1\]=0 must be at least'),
  ('langevin_ebm_cifar10', {'step.restart': 1.5}, 'step.restart=1.5 must be at most 1'),
  ('langevin_ebm_cifar10', {'num_chains': 4}, 'num_chains=4 must be 0 or at least .*8'),
  ('langevin_ebm_cifar10', {'sample.start_scale': 0.0}, 'sample.start_scale=0.0 must be a'),
  ('langevin_ebm_mnist', {'energy.kernels': 4}, 'energy.kernels=4 must be a sequence of int'),
  ('langevin_ebm_mnist', {'step.temperature': -1.0}, 'temperature=-1.0 must be zero or more'),
  ('maximum_likelihood_mnist', {'energy.num_hidden': 0}, 'energy.num_hidden=0 must be at'),
  ('maximum_likelihood_mnist', {'energy.centered': 1}, 'energy.centered=1 must be True or'),
  ('score_matching_mnist', {'step.objective': 'ksd'}, "step.objective='ksd'.*'denoising'"),
  ('score_matching_mnist', {'step.num_projections': 0}, 'step.num_projections=0 must be at'),
  ('score_matching_mnist', {'step.noise_scale': 0.0}, 'step.noise_scale=0.0 must be a posi'),
  ('stein_cd_mnist', {'step.epsilon': -0.1}, 'step.epsilon=-0.1 must be a positive number'),
  ('stein_cd_mnist', {'step.epsilon': _NAN}, 'step.epsilon=nan must be a positive number'),
  ('stein_cd_mnist', {'step.kernel': 'rbff'}, "step.kernel='rbff'.*'rbf', 'imq'"),
  ('stein_cd_mnist', {'step.normalize': 'rows'}, "step.normalize='rows'.*'row_sum'"),
  ('stein_cd_mnist', {'step.bandwidth_scale': 0.0}, 'step.bandwidth_scale=0.0 must be a'),
  ('stein_cd_mnist', {'step.symmetric': 'x'}, "step.symmetric='x' must be True or False"),
  ('stein_cd_mnist', {'sample.sampler': 'gibs'}, "sample.sampler='gibs'.*'gibbs'"),
  ('stein_cd_mnist', {'sample.step_size': -1.0}, 'sample.step_size=-1.0 must be a positive'),
  ('stein_cd_mnist', {'sample.num_steps': -1}, 'sample.num_steps=-1 must be at least 1'),
  ('stein_cd_mnist', {'optimizer.learning_rate': -0.1}, 'optimizer.learning_rate=-0.1 must'),
  ('stein_cd_mnist', {'optimizer.learning_rate': '1e-3'}, "learning_rate='1e-3' must be a"),
  ('stein_cd_mnist', {'optimizer.momentum': 1.5}, 'optimizer.momentum=1.5 must be at most'),
  ('stein_cd_mnist', {'optimizer.l2': -1.0}, 'optimizer.l2=-1.0 must be zero or more'),
  ('stein_cd_mnist', {'optimizer.max_norm': 'x'}, "optimizer.max_norm='x' must be zero or"),
  ('stein_cd_mnist', {'optimizer.learning_rate': dict(_SCHEDULE, transition_steps=0)},
   'optimizer.learning_rate.transition_steps=0 must be at least 1'),
  ('stein_cd_mnist',
   {'optimizer.learning_rate': dict(_SCHEDULE, transition_steps=4, end_value=-1.0)},
   'optimizer.learning_rate.end_value=-1.0 must be zero or more'),
  ('stein_cd_mnist', {'optimizer.learning_rate': dict(name='linear')},
   "optimizer: .*optax has no 'linear'"),
  ('steingan_cifar10', {'step.controller': 'pid'}, "step.controller='pid'.*'discount'"),
  ('steingan_cifar10', {'energy.margin': -1.0}, 'energy.margin=-1.0 must be zero or more'),
  ('steingan_cifar10', {'energy.autoencoder.convs': ()}, r'energy.convs=\(\) must be one'),
  ('steingan_cifar10', {'energy.autoencoder.convs': ((2, 3, 1),)}, r'energy.convs\[0\]=\(2,'),
  ('steingan_mnist', {'step.alpha': 1.5}, 'step.alpha=1.5 must be at most 1'),
  ('steingan_mnist', {'step.kernel_space': 'latent'}, "step.kernel_space='latent'.*'pixels'"),
  ('steingan_mnist', {'generator.latent_dim': 0}, 'generator.latent_dim=0 must be at least'),
  ('steingan_mnist', {'generator.width': 'x'}, "generator.width='x' must be an integer"),
  ('steingan_mnist_joint', {'energy.autoencoder.residual': 'l3'}, "residual='l3'.*'l1_l2'"),
  ('steingan_mnist_joint', {'energy.num_classes': 0}, 'energy.num_classes=0 must be at'),
  ('steingan_toy', {'step.repulsion': 'near'}, "step.repulsion='near'.*'nearest'"),
  ('steingan_toy', {'step.negative_weight': '1'}, "step.negative_weight='1' must be a num"),
  ('svgd_breast_cancer', {'density.num_examples': 0}, 'density.num_examples=0 must be at'),
  ('svgd_breast_cancer', {'num_particles': 8.5}, 'num_particles=8.5 must be an integer'),
  ('svgd_toy', {'num_particles': -8}, 'num_particles=-8 must be at least 1'),
  ('svgd_toy', {'step.kernel': 3}, 'step.kernel=3 must be a string'),
  ('vae_facades', {'step.kl_weight': -1.0}, 'step.kl_weight=-1.0 must be zero or more'),
  ('vae_facades', {'generator.encoder_widths': ()}, r'generator.encoder_widths=\(\) must be'),
  ('vae_teaching_cifar10', {'generator.kernels': (4,)}, r'kernels=\(4,\) must be one more'),
  ('vae_teaching_cifar10', {'generator.scale': 0.0}, 'generator.scale=0.0 must be a positive'),
  ('vae_teaching_facades', {'step.num_steps': 2.5}, 'step.num_steps=2.5 must be an integer'),
  ('vae_teaching_facades', {'step.noise': 'no'}, "step.noise='no' must be True or False"),
  ('vae_teaching_mnist', {'step.kl': 'both'}, "step.kl='both'.*'prior', 'posterior'"),
  ('vae_teaching_mnist', {'step.num_importance': -1}, 'step.num_importance=-1 must be at'),
  ('vcd_cifar10', {'step.rho': -0.1}, 'step.rho=-0.1 must be zero or more'),
  ('vcd_cifar10', {'generator.keep': 1.5}, 'generator.keep=1.5 must be at most 1'),
  ('vcd_mnist', {'step.reconstruction': 'l1'}, "step.reconstruction='l1'.*'squared'"),
  ('vcd_mnist', {'energy.num_experts': 3.0}, 'energy.num_experts=3.0 must be an integer'),
  ('vcd_svhn', {'step.data_entropy': _INFINITY}, 'step.data_entropy=inf must be zero or'),
  ('vcd_svhn', {'generator.widths': ()}, r'generator.widths=\(\) must be one or more'),
  ('vgan_cifar10', {'step.num_generator_steps': 0}, 'step.num_generator_steps=0 must be at'),
  ('vgan_cifar10', {'energy.dense': -4}, 'energy.dense=-4 must be at least 1'),
  ('vgan_mnist', {'generator.shape': (8, 8)}, r'generator.shape=\(8, 8\) must be \(height'),
  ('vgan_mnist', {'generator.prior': 'cauchy'}, "generator.prior='cauchy'.*'uniform'"),
  ('vgan_mnist', {'data.pixels': 'bytes'}, "data.pixels='bytes'.*'unit', 'symmetric'"),
  ('vgan_mnist', {'data.num_examples': 0}, 'data.num_examples=0 must be at least 1'),
  ('vgan_mnist', {'data.shape': ()}, r'data.shape=\(\) must be one or more'),
  ('vgan_mnist', {'data.shape': (0, 8, 1)}, r'data.shape\[0\]=0 must be at least 1'),
)  # fmt: skip

COMBINATIONS = (
  # Labels that the data do not have, and classes that they do not have or more of.
  ('gan_mnist', {'step.conditional': True}, 'num_classes=0, but label is given'),
  ('steingan_toy', {'step.conditional': True}, "steingan on data.name='toy'.*no 'label'"),
  ('steingan_mnist_joint', {'step.conditional': False}, "energy.*missing|label is missing"),
  ('steingan_mnist_joint', {'energy.num_classes': 3}, 'energy.num_classes=3.*0 to 3.*d: 4'),
  ('steingan_mnist_joint', {'energy.num_classes': 5}, 'energy.num_classes=5.*0 to 3.*d: 4'),
  ('steingan_cifar10', {'generator.num_classes': 3}, 'generator.num_classes=3.*allowed: 4'),
  ('steingan_cifar10', {'batch_size': 8, 'generator.num_classes': 5}, 'num_classes=5.*: 4'),
  ('classification_mnist', {'classifier.num_classes': 9}, 'num_classes=9.*0 to 9.*: 10'),
  ('classification_mnist', {'classifier.num_classes': 11}, 'num_classes=11.*0 to 9.*: 10'),
  ('classification_mnist', {'data': dict(name='toy'), 'evaluation.data': dict(name='toy')},
   "classification on data.name='toy', of image"),
  ('svgd_breast_cancer', {'data': dict(name='digits'), 'evaluation.data': dict(name='digits')},
   'label=9 must be 0 or 1'),
  # Images that do not fit each other, or the network.
  ('gan_mnist', {'data.shape': (12, 12, 1)}, r'data \(12, 12, 1\), samples \(8, 8, 1\)'),
  ('gan_mnist', {'evaluation.data.shape': (4, 4, 1)}, r'evaluation.data.*\(4, 4, 1\).*\(8'),
  ('gan_mnist', {'evaluation.data.pixels': 'symmetric'}, "pixels='symmetric'.*'unit'"),
  ('gan_mnist', {'generator.strides': (3, 2)}, r'generator.shape=\(8, 8, 1\) must divide.*6'),
  ('gan_mnist', {'generator.widths': ()}, r'strides=\(2, 2\) must be one more than widths'),
  ('vae_facades', {'generator.widths': (2,) * 6}, 'shape=.16, 16, 3. must divide by 32'),
  ('vae_facades', {'data.condition': False, 'evaluation.data.condition': False},
   "vae on data.name='synthetic'.*condition"),
  ('vae_facades', {'evaluation.data.condition': False}, 'evaluation.data has condition none'),
  ('vcd_mnist', {'energy.widths': (2,) * 4}, 'no 2x2 pooling of 1 x 1 pixels'),
  ('steingan_mnist_joint', {'energy.autoencoder.convs': ((2, 9, 1, 0),)},
   'kernel of side 9 with padding=0 does not fit into 8 pixels'),
  ('classification_mnist', {'data.shape': (8, 8), 'evaluation.data.shape': (8, 8)},
   r"classification on data.name='synthetic', of image \(8, 8\)"),
  ('langevin_ebm_mnist', {'data': dict(name='breast_cancer'),
                          'evaluation.data': dict(name='breast_cancer', split='test')},
   r"langevin_ebm on data.name='breast_cancer', of image \(30,\)"),
  ('svgd_toy', {'density.name': 'two_modes'}, r'data \(2,\), samples \(1,\)'),
  ('amortized_svgd_toy', {'generator.dim': 3}, "amortized_svgd on data.name='toy'"),
  # What is to be divided and does not.
  ('svgd_toy', {'num_particles': 6}, 'num_particles=6 must divide over 4 devices'),
  ('svgd_toy', {'num_particles': 6, 'parallel': 'pmap'}, 'num_particles=6 must divide over'),
  ('langevin_ebm_cifar10', {'num_chains': 10, 'parallel': 'shard_map'}, 'num_chains=10 must'),
  ('vcd_mnist', {'batch_size': 4, 'parallel': 'pmap'}, 'batch of 1 has no halves'),
  ('coopnets_mnist', {'data.num_examples': 3}, 'batch_size=.* is more than the 3 examples'),
  # What the other part cannot do.
  ('svgd_toy', {'evaluation.log_likelihood': 'ais'}, "log_likelihood='ais' needs an energy"),
  ('gan_mnist', {'evaluation.log_likelihood': 'exact'}, "log_likelihood='exact'.*Allowed"),
  ('stein_cd_mnist', {'evaluation.log_likelihood': 'hais'}, "likelihood='hais'.*'ais'"),
  ('stein_cd_mnist', {'energy.num_hidden': 21}, "log_likelihood='exact'.*num_hidden=21.*20"),
  ('steingan_mnist_joint', {'evaluation.log_likelihood': 'ais'}, "likelihood='ais'.*'none'"),
  ('maximum_likelihood_mnist', {'energy': dict(name='MLP')}, 'log_partition'),
  ('contrastive_divergence_toy', {'step.sampler': 'gibbs'}, 'contrastive_div.*gibbs'),
  ('score_matching_mnist', {'energy': dict(name='MLP'), 'step.objective': 'closed_form'},
   'score_matching on.*laplacian'),
  ('vgan_mnist', {'energy': dict(name='ConvNet')}, 'vgan on.*expert_logits'),
  ('vae_facades', {'generator': dict(name='DCGAN', shape=(16, 16, 3))}, 'vae on.*condition'),
  ('vae_teaching_mnist', {'generator.encoder_widths': ()}, 'encoder_widths=.. leaves no'),
  ('gan_mnist', {'step.loss': 'wasserstein'}, "step.loss='wasserstein'.*norm='layer'"),
  ('steingan_mnist_joint', {'step.alpha': 0.5}, 'step.alpha=0.5 needs an energy without'),
  ('coopnets_facades', {'energy': dict(name='RBM', num_hidden=3)}, 'coopnets on.*condition'),
  ('vcd_svhn', {'generator': dict(name='MLP')}, 'vcd on'),
  # Data that are not here.
  ('gan_cifar10', {'data': dict(name='npz', path='/nowhere.npz')},
   "data.path='/nowhere.npz': there is no such file"),
  ('gan_facades', {'data': dict(name='folder', path='/nowhere', side='left')},
   "data.path='/nowhere' is no folder"),
  ('gan_facades', {'evaluation.data': dict(name='folder', path='/nowhere', side='left')},
   "evaluation.data.path='/nowhere' is no folder"),
  ('gan_facades', {'data': dict(name='folder', path='/nowhere')}, "data: mask='none'|data.mask"),
  ('gan_facades', {'data.mask': 'centre'}, "data: .*'mask'.*takes: shape"),
  ('stein_cd_mnist', {'data': dict(name='lsun', category='bedroom')}, 'data: .*lsun.*Prepare'),
  ('stein_cd_mnist', {'data': dict(name='digits', scale=0.0)}, 'data.scale=0.0 must be a'),
  ('steingan_toy', {'data.density': 'banan'}, "data: .*'banan'.*banana"),
  ('steingan_toy', {'data.density': 'logistic_regression'}, 'data: .*num_examples'),
)  # fmt: skip


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

  @parameterized.parameters(*LOOP, *SECTIONS, *VALUES, *COMBINATIONS)
  def test_is_refused(self, name, changes, message):
    self.assert_refused(changed(name, changes), message)

  def test_every_config_has_a_row(self):
    rows = (*LOOP, *SECTIONS, *VALUES, *COMBINATIONS)
    self.assertEqual({row[0] for row in rows}, set(conformance_test.NAMES))
    self.assertGreaterEqual(len(rows), 100)

  @parameterized.parameters(conformance_test.NAMES)
  def test_every_field_has_a_type(self, name):
    flat = reporting.flat_config(conformance_test.get_config(name))
    for key, value in flat.items():
      bad = wrong_type(value)
      with self.subTest(key):
        with self.assertRaises((ValueError, TypeError)) as caught:
          training.check(changed(name, {key: bad}))
        said = str(caught.exception)
        if key.split('.')[-1] == 'name':
          self.assertIn(key.split('.')[0], said)
        else:
          self.assertIn(f'{key.split(".")[-1]}={bad!r}', said)


if __name__ == '__main__':
  absltest.main()
