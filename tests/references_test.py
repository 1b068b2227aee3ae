"""The index of equations in BUILD_NOTES.md and the tags in the code agree."""

import importlib
import inspect
import pathlib
import re

from absl.testing import absltest

_ROOT = pathlib.Path(__file__).parent.parent
_TAG = re.compile(r'\[([A-Z][A-Za-z]*\d\d)((?: [^\]]*)?)\]')
_NOTES = (_ROOT / 'BUILD_NOTES.md').read_text('utf-8')
_BIBLIOGRAPHY = set(
  re.findall(r'^\| \*\*([A-Z][A-Za-z]*\d\d)\*\* \|', _NOTES, re.M)
)


def table():
  """Returns (tag, module, name) of every line of the equation table."""
  rows = re.findall(r'^\| (\[[^|]+\]) \| `([\w.]+)\.(\w+)` \|', _NOTES, re.M)
  return [(tag, module, name) for tag, module, name in rows]


class ReferencesTest(absltest.TestCase):
  def test_every_tag_has_its_paper(self):
    used = {
      match[0]
      for path in (_ROOT / 'stein_jax').rglob('*.py')
      for match in _TAG.findall(path.read_text('utf-8'))
    }
    self.assertNotEmpty(used)
    self.assertEqual(used - _BIBLIOGRAPHY, set())

  def test_every_line_of_the_table_names_a_function_that_carries_its_tag(self):
    rows = table()
    self.assertGreater(len(rows), 12)
    for tag, module, name in rows:
      owner = importlib.import_module(f'stein_jax.{module}')
      self.assertIn(
        tag, inspect.getdoc(getattr(owner, name)) or '', (module, name)
      )

  def test_every_equation_tag_in_the_code_is_in_the_table(self):
    listed = {tag for tag, *_ in table()}
    for path in (_ROOT / 'stein_jax').rglob('*.py'):
      for key, place in _TAG.findall(path.read_text('utf-8')):
        if re.match(r' (eq|alg) ', place):
          self.assertIn(f'[{key}{place}]', listed, path.name)


if __name__ == '__main__':
  absltest.main()
