"""The site needs no network, its tutorials run, examples of docstrings are right."""

import ast
import doctest
import importlib
import os
import pathlib
import pkgutil
import re
import subprocess
import sys

from absl.testing import absltest
from absl.testing import parameterized
import jax
import pytest

import stein_jax
from stein_jax.runs import config_files
from stein_jax.runs import configs
from tests import smoke

_ROOT = pathlib.Path(__file__).parent.parent
_PAGES = _ROOT / 'docs' / 'pages'
_TUTORIALS = sorted((_ROOT / 'docs' / 'tutorials').glob('*.py'))
_GUIDES = sorted([_PAGES / 'index.md', *(_PAGES / 'guides').glob('*.md')])
_MODULES = [
  module.name
  for module in pkgutil.walk_packages(stein_jax.__path__, 'stein_jax.')
]


class DocstringsTest(parameterized.TestCase):
  @parameterized.parameters(*_MODULES)
  def test_examples(self, name):
    module = importlib.import_module(name)
    with jax.numpy_rank_promotion('allow'):  # as readers have it
      failed, _ = doctest.testmod(
        module,
        extraglobs=dict(jax=jax, jnp=jax.numpy),  # which readers know
        optionflags=doctest.NORMALIZE_WHITESPACE,
      )
    self.assertEqual(failed, 0)

  def test_there_are_examples(self):
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {
      test.name
      for name in _MODULES
      for test in finder.find(importlib.import_module(name))
      if test.examples
    }
    self.assertGreaterEqual(len(found), 10)


class ReachTest(absltest.TestCase):
  def test_every_public_module_is_in_the_reference(self):
    pages = (_PAGES / 'reference').glob('*.md')
    shown = re.findall(
      r'^::: (\S+)', ''.join(path.read_text() for path in pages), re.M
    )
    missing = [name for name in _public() if not name.startswith(tuple(shown))]
    self.assertEmpty(missing)

  def test_every_public_function_has_an_example_or_is_reached_from_one(self):
    names = {full.rpartition('.')[2] for full in _public()}
    self.assertEqual(names - _reached(), set())


class TutorialsTest(parameterized.TestCase):
  @parameterized.parameters(*(path.stem for path in _TUTORIALS))
  def test_page_is_of_this_source(self, name):
    source = (_ROOT / 'docs' / 'tutorials' / f'{name}.py').read_text('utf-8')
    page = (_PAGES / 'tutorials' / f'{name}.md').read_text('utf-8')
    cells = re.split(r'^# %%.*\n', source.split('# ---\n')[-1], flags=re.M)
    for cell in filter(None, map(str.strip, cells)):
      text = re.sub(r'^# ?', '', cell, flags=re.M) if cell[0] == '#' else cell
      self.assertIn(text, page, 'make tutorials writes the pages anew')


@pytest.mark.slow
class RunningTutorialsTest(parameterized.TestCase):
  @parameterized.parameters(*_TUTORIALS)
  def test_tutorial_runs(self, path):
    execute = pytest.importorskip('docs.execute', exc_type=ImportError)
    folder = pathlib.Path(self.create_tempdir().full_path)
    before = os.times()
    execute.page(path, folder)
    after = os.times()
    self.assertNotEmpty(list((folder / path.stem).glob('*.png')))
    # Of the notebook's process, which other work on the machine does not slow.
    seconds = after.children_user - before.children_user
    self.assertGreater(seconds, 0)
    self.assertLess(seconds, 120)


@pytest.mark.slow
class RunningGuidesTest(parameterized.TestCase):
  @parameterized.parameters(*_GUIDES)
  def test_blocks_run(self, path):
    for block in re.findall(r'```python\n(.*?)```', path.read_text(), re.S):
      if 'numpyro' in block:
        pytest.importorskip('numpyro')
      if 'metrics.convergence' in block:
        pytest.importorskip('arviz')
      with jax.numpy_rank_promotion('allow'):
        exec(block, {})  # pylint: disable=exec-used


class CommandsTest(absltest.TestCase):
  def test_every_config_is_listed_with_its_scales(self):
    text = (_PAGES / 'guides' / 'runs.md').read_text()
    listed = re.findall(r'^\| `(\w+)` \| (.*?) ?\|', text, re.M)
    found = {name: re.findall(r':(\w+)', scales) for name, scales in listed}
    names = lambda name: (
      importlib.import_module(f'configs.{name}').get_config.names
    )
    expected = {
      name: [scale for scale in names(name) if scale not in ('', 'smoke')]
      for name in smoke.NAMES
    }
    self.assertEqual(found, expected)

  def test_flags_of_commands_are_fields(self):
    commands = []
    for path in _GUIDES + sorted((_PAGES / 'tutorials').glob('*.md')):
      text = re.sub(r'\\\n\s*', '', path.read_text())
      commands += re.findall(r'experiments\.train .*', text)
    commands = [text for text in commands if '--config' in text]
    self.assertGreater(len(commands), 3)
    for command in commands:
      flags = dict(re.findall(r'--(config[\w.]*)=(\S+)', command))
      config = _ROOT / flags.pop('config').partition('"')[0]
      fields = {name.removeprefix('config.'): v for name, v in flags.items()}
      configs.step(config_files.read(str(config), fields))


@pytest.mark.slow
class SiteTest(absltest.TestCase):
  def test_site(self):
    pytest.importorskip('mkdocstrings')
    site = pathlib.Path(self.create_tempdir().full_path)
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet']
    built = subprocess.run(
      [*command, '-f', 'docs/mkdocs.yml', '-d', str(site)],
      cwd=_ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(built.returncode, 0, built.stderr)
    pages = {path: path.read_text('utf-8') for path in site.rglob('*.html')}
    for path, text in pages.items():
      fetched = re.findall(r'(?:src|<link[^>]*href)="?(https?:[^" >]+)', text)
      self.assertEmpty(fetched, path)
    anchors = set(re.findall(r'id="([\w.]+)"', ''.join(pages.values())))
    self.assertEqual(_public() - anchors, set())


def _reached():
  """Returns the names in examples and commands, and in the code of these, and so on."""
  sources = {
    name: pathlib.Path(importlib.import_module(name).__file__).read_text()
    for name in _MODULES
  }
  pages = [_ROOT / 'README.md', *_PAGES.rglob('*.md')]
  shown = [path.read_text() for path in (_ROOT / 'configs').glob('*.py')]
  shown += [path.read_text() for path in (_ROOT / 'experiments').rglob('*.py')]
  for path in pages:
    shown += re.findall(r'```(?:python|py)\n(.*?)```', path.read_text(), re.S)
  for text in sources.values():
    shown += re.findall(r'>>> (.*)', text)
  code = {}  # of every statement at the top of a module, by the name it gives
  for text in sources.values():
    for node in ast.parse(text).body:
      targets = getattr(node, 'targets', [getattr(node, 'target', node)])
      for target in targets:
        name = getattr(target, 'name', getattr(target, 'id', ''))
        code[name] = f'{code.get(name, "")}\n{ast.unparse(node)}'
  found, new = set(), set(re.findall(r'\w+', ' '.join(shown)))
  while new:
    found |= new
    text = ' '.join(code[name] for name in new if name in code)
    new = set(re.findall(r'\w+', text)) - found
  return found


def _public():
  """Returns the full names of public functions and classes of public modules."""
  names = set()
  for name in _MODULES:
    if any(part.startswith('_') for part in name.split('.')):
      continue
    module = importlib.import_module(name)
    package = importlib.import_module(name.rpartition('.')[0])
    shown = getattr(package, '__all__', None)
    if shown is not None and module.__name__ != 'stein_jax.datasets.sets':
      names |= {
        f'{package.__name__}.{each}'
        for each in shown
        if callable(getattr(package, each))
      }
      continue
    tree = ast.parse(pathlib.Path(module.__file__).read_text('utf-8'))
    names |= {
      f'{name}.{node.name}'
      for node in tree.body
      if isinstance(node, ast.FunctionDef | ast.ClassDef)
      and not node.name.startswith('_')
    }
  return names


if __name__ == '__main__':
  absltest.main()
