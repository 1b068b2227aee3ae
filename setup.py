"""Metadata of stein_jax; the reasons for each package are in BUILD_NOTES.md."""

import pathlib
import re

import setuptools

source = pathlib.Path(__file__).with_name('stein_jax') / '__init__.py'
version = re.search(r"__version__ = '(.+)'", source.read_text('utf-8'))[1]

setuptools.setup(
  name='stein_jax',
  version=version,
  description=(
    'Energy-based models and Stein variational methods as pure functions in JAX'
  ),
  long_description=open('README.md', encoding='utf-8').read(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['stein_jax', 'stein_jax.*']),
  install_requires=[
    # The lowest of each were tried together, and the newest of November 2026:
    # requirements.lock has the versions that the results were made with.
    'absl-py>=2.3.1,<3',
    'chex>=0.1.92,<0.2',
    'flax>=0.12.8,<0.13',
    # Tried: 0.10.2, the newest for Python 3.11, and 0.12.0 on 3.12 and 3.13.
    'jax>=0.10.2,<0.13',
    'jaxlib>=0.10.2,<0.13',
    'ml-collections>=1.1,<2',
    'optax>=0.2.8,<0.3',
    'orbax-checkpoint>=0.12.8,<0.13',
    'tensorflow-datasets>=4.9.10,<5',
    # Beyond the core nine:
    'dm-pix>=0.4.4,<0.5',
    'flatbuffers>=24',  # by which jax.export writes
    'importlib_resources>=6.4,<8',
    'matplotlib>=3.9,<4',
    'pillow>=10,<14',
    'prdc>=0.2,<0.3',
    'scikit-learn>=1.5,<2',
    'tensorboardX>=2.6.5,<3',
    'tqdm>=4.66,<5',
  ],
  extras_require={
    'cuda12': ['jax[cuda12]>=0.10.2,<0.13'],
    'cuda13': ['jax[cuda13]>=0.10.2,<0.13'],
    'tpu': ['jax[tpu]>=0.10.2,<0.13'],
    'bench': ['blackjax>=1.2', 'torch>=2.9'],
    'docs': [
      'blackjax>=1.2',
      'equinox>=0.13',
      'dm-haiku>=0.0.16',
      'ipykernel>=6.29',
      'jupytext>=1.16,<2',
      'mkdocs>=1.6,<2',
      'mkdocs-material>=9.6,<10',
      'mkdocstrings[python]>=1,<2',
      'nbconvert>=7.16,<8',
      'numpyro>=0.18,<1',
    ],
    # What an own logger or data set may be of; the slow tests try each.
    'others': [
      'datasets>=3',
      'mlflow-skinny>=3',
      'torch>=2.9',
      'wandb>=0.19',
    ],
    'prepare': ['tensorflow-cpu>=2.18'],
    'test': [
      'blackjax>=1.2',
      'dm-haiku>=0.0.16,<0.1',
      'equinox>=0.13,<0.14',
      'hypothesis>=6.100,<7',
      'numpyro>=0.18,<1',
      'pytest>=8,<10',
      'pytest-xdist>=3.6.1,<4',
      'ruff>=0.17,<0.18',
      'tensorboard>=2.18,<3',
    ],
  },
)
