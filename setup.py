"""Metadata of stein_jax; the reasons for each package are in BUILD_NOTES.md."""

import pathlib
import re

import setuptools

_ROOT = pathlib.Path(__file__).parent
# Read, not imported: a build has none of the packages that the module needs.
_VERSION = re.search(
  r"__version__ = '(.+)'", (_ROOT / 'stein_jax/__init__.py').read_text('utf-8')
)[1]

setuptools.setup(
  name='stein_jax',
  version=_VERSION,
  description=(
    'Energy-based models and Stein variational methods as pure functions in JAX'
  ),
  long_description=(_ROOT / 'README.md').read_text('utf-8'),
  long_description_content_type='text/markdown',
  author='The stein_jax authors',
  license_expression='Apache-2.0',
  license_files=['LICENSE'],
  # The papers, as the project has no home on the web.
  project_urls={
    'Stein variational gradient descent': 'https://arxiv.org/abs/1608.04471',
    'Amortised SVGD and SteinGAN': 'https://arxiv.org/abs/1611.01722',
    'SteinCD': 'https://arxiv.org/abs/1707.00797',
    'VGAN': 'https://arxiv.org/abs/1611.01799',
    'Variational MCMC teaching': 'https://arxiv.org/abs/2012.14936',
  },
  keywords=[
    'JAX',
    'energy-based models',
    'Stein variational gradient descent',
    'kernel Stein discrepancy',
    'contrastive divergence',
    'score matching',
    'MCMC',
  ],
  classifiers=[
    'Development Status :: 4 - Beta',
    'Intended Audience :: Science/Research',
    'Operating System :: POSIX',
    'Programming Language :: Python :: 3',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
    'Topic :: Scientific/Engineering :: Mathematics',
    'Typing :: Typed',
  ],
  python_requires='>=3.11',
  packages=[
    *setuptools.find_packages(include=['stein_jax', 'stein_jax.*']),
    'stein_jax.configs',
    'stein_jax.experiments',
  ],
  package_dir={
    'stein_jax.configs': 'configs',
    'stein_jax.experiments': 'experiments',
  },
  package_data={'stein_jax': ['py.typed']},
  entry_points={
    'console_scripts': [
      f'stein-{name} = stein_jax.experiments.commands:{name}'
      for name in ('train', 'evaluate', 'sweep', 'compare', 'export', 'demo')
    ]
  },
  install_requires=[
    # Floors were tried together (`make environments`).
    'absl-py>=2.3.1',
    'chex>=0.1.92',
    'flax>=0.12.8',
    'jax>=0.10.2',
    'jaxlib>=0.10.2',
    'ml-collections>=1.1.0',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12.8',
    'tensorflow-datasets>=4.9.10',
    # Beyond the core nine:
    'dm-pix>=0.4.4',
    'flatbuffers>=24.3.25',  # by which jax.export writes
    'importlib_resources>=6.4.0',
    'matplotlib>=3.9.0',
    'numpy>=2.0.2',
    'pillow>=10.4.0',
    'prdc>=0.2',
    'scikit-learn>=1.5.2',
    'scipy>=1.14.1',
    'tensorboardX>=2.6.2.2',
    'tqdm>=4.66.1',
  ],
  extras_require={
    'cuda12': ['jax[cuda12]>=0.10.2'],
    'cuda13': ['jax[cuda13]>=0.10.2'],
    'tpu': ['jax[tpu]>=0.10.2'],
    'bench': [
      'blackjax>=1.2',
      'coreax>=1',
      'hyppo>=0.5.2',
      'numpyro>=0.18',
      'stein_thinning>=0.2',
      'torch>=2.9',
    ],
    'docs': [
      'blackjax>=1.2',
      'dm-haiku>=0.0.16',
      'equinox>=0.13',
      'ipykernel>=6.29',
      'jupytext>=1.16',
      'mkdocs>=1.6,<2',
      'mkdocs-material>=9.6',
      'mkdocstrings[python]>=1',
      'nbconvert>=7.16',
      'numpyro>=0.18',
    ],
    # What an own logger, data set or diagnostic may be of; tests try each.
    'others': [
      'arviz>=0.23',
      'datasets>=3',
      'grain>=0.2.18',
      'mlflow-skinny>=3',
      'torch>=2.9',
      'wandb>=0.19',
    ],
    'prepare': ['tensorflow-cpu>=2.18'],
    'test': [
      'blackjax>=1.2',
      'dm-haiku>=0.0.16',
      'equinox>=0.13',
      'hypothesis>=6.100',
      'numpyro>=0.18',
      'pytest>=8.0.0',
      'pytest-xdist>=3.6.1',
      'ruff>=0.17,<0.18',
      'tensorboard>=2.18',
    ],
  },
)
