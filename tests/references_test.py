"""What the documents point at is there: papers, functions, pages, headings."""

import ast
import functools
import importlib
import inspect
import pathlib
import re

from absl.testing import absltest

_ROOT = pathlib.Path(__file__).parent.parent
_TAG = re.compile(r'\[([A-Z][A-Za-z]*\d\d)(?: [^\]]*)?\]')
_NOTES = (_ROOT / 'BUILD_NOTES.md').read_text('utf-8')
_BIBLIOGRAPHY = (_ROOT / 'docs/pages/reference/bibliography.md').read_text(
  'utf-8'
)
_MODULES = sorted((_ROOT / 'stein_jax').rglob('*.py'))


def spelled_out(docstring):
  """Returns the keys that lines like 'LW17: Liu, Wang. ... 2017.' spell out."""
  return set(re.findall(r'^\s*([A-Z][A-Za-z]*\d\d): \S', docstring, re.M))


def table():
  """Returns (tag, module, name) of every function in the tables of equations."""
  text = _NOTES + _BIBLIOGRAPHY
  rows = re.findall(r'^\| (\[[^|]+\]) \| ([^|]+) \|', text, re.M)
  return [
    (tag, *function)
    for tag, functions in rows
    for function in re.findall(r'`([\w.]+)\.(\w+)`', functions)
  ]


def pages():
  """Returns the paths of all Markdown files that are no output of a run."""
  ours = lambda path: not path.parts[0].startswith(('.', 'results', 'runs'))
  found = (path.relative_to(_ROOT) for path in _ROOT.rglob('*.md'))
  return [_ROOT / path for path in sorted(found) if ours(path)]


@functools.cache
def prose(path):
  """Returns a page without its code, which may look like links and headings."""
  text = re.sub(r'^```.*?^```', '', path.read_text('utf-8'), flags=re.M | re.S)
  return re.sub(
    r'`[^`\n]*`', lambda code: re.sub(r'[`\[\]()]', '', code[0]), text
  )


@functools.cache
def anchors(path):
  """Returns the names by which a link reaches the headings of a page."""
  titles = re.findall(r'^#+ (.+)$', prose(path), re.M)
  plain = [re.sub(r'[^\w\- ]', '', title.lower()) for title in titles]
  return {title.strip().replace(' ', '-') for title in plain}


def broken(path, text):
  """Returns the targets in a page's text that are no file or no heading of one."""
  found = []
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    if re.match(r'[a-z]+:', target):  # elsewhere
      continue
    name, _, anchor = target.partition('#')
    page = (path.parent / name).resolve() if name else path
    if not page.exists() or (anchor and anchor not in anchors(page)):
      found.append(target)
  return found


class ReferencesTest(absltest.TestCase):
  def test_every_tag_has_its_paper(self):
    papers = set(re.findall(r'^\| \*\*(\w+)\*\* \|', _BIBLIOGRAPHY, re.M))
    used = set()
    for path in _MODULES:
      text = path.read_text('utf-8')
      keys = set(_TAG.findall(text))
      own = spelled_out(ast.get_docstring(ast.parse(text)) or '')
      self.assertEqual(keys - papers - own, set(), path.name)
      used |= keys
    self.assertContainsSubset({'LW17', 'WL16', 'Z16', 'X21'}, used)

  def test_a_docstring_can_spell_out_a_paper(self):
    docstring = 'A method [AB21].\n\nAB21: Author. Title. 2021.'
    self.assertEqual(spelled_out(docstring), {'AB21'})
    self.assertEqual(spelled_out('As in AB21: a method [AB21 eq 1].'), set())

  def test_every_row_of_the_table_names_functions_that_carry_its_tag(self):
    rows = table()
    self.assertGreater(len(rows), 40)
    for tag, module, name in rows:
      owner = importlib.import_module(f'stein_jax.{module}')
      self.assertIn(
        tag, inspect.getdoc(getattr(owner, name)) or '', (module, name)
      )

  def test_every_paper_of_the_stein_room_is_in_a_table(self):
    keys = {_TAG.match(tag)[1] for tag, module, _ in table()}
    for path in sorted((_ROOT / 'stein_jax/stein').glob('*.py')):
      used = set(_TAG.findall(path.read_text('utf-8')))
      self.assertEqual(used - keys, set(), path.name)

  def test_links_of_all_pages_resolve(self):
    found = pages()
    self.assertContainsSubset(
      {'README.md', 'BUILD_NOTES.md', 'CHANGELOG.md', 'claims.md'},
      {path.name for path in found},
    )
    for path in found:
      self.assertEqual(broken(path, prose(path)), [], path)

  def test_a_broken_link_is_found(self):
    notes = _ROOT / 'BUILD_NOTES.md'
    good = '[a](README.md) [b](#10-decisions) ![c](https://x.org/y#z)'
    self.assertEqual(broken(notes, good), [])
    bad = '[a](READ.md) ![b](figures/none.png) [c](README.md#none) [d](#none)'
    self.assertLen(broken(notes, bad), 4)

  def test_every_page_of_results_is_listed(self):
    for folder in ('reproduce', 'benchmarks'):
      index = _ROOT / 'experiments' / folder / 'results' / 'README.md'
      listed = set(re.findall(r'\]\((\w+\.md)\)', index.read_text('utf-8')))
      there = {path.name for path in index.parent.glob('*.md')}
      self.assertEqual(there - {index.name}, listed)

  def test_every_file_of_the_map_is_there(self):
    tree = re.search(r'^## 4\. Map$.*?^```$(.*?)^```$', _NOTES, re.M | re.S)[1]
    there = {path.name for path in _ROOT.rglob('*.py')}
    self.assertContainsSubset(re.findall(r'[\w]+\.py', tree), there)

  def test_the_notes_stay_short(self):
    self.assertLess(len(_NOTES.splitlines()), 500)


if __name__ == '__main__':
  absltest.main()
