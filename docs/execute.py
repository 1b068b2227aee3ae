"""Runs tutorials and writes their pages, with what they print and draw.

python -m docs.execute docs/tutorials/*.py

A tutorial is a notebook in Jupytext's percent format, which Jupyter opens as it is. Its
page is Markdown under docs/pages/tutorials, and its pictures lie in a folder beside.
"""

import pathlib
import sys

import jupytext
import nbclient
import nbconvert

_PAGES = pathlib.Path(__file__).parent / 'pages' / 'tutorials'
_TIMEOUT = 300  # seconds for one cell


def page(path: pathlib.Path, folder: pathlib.Path = _PAGES) -> pathlib.Path:
  """Returns the page of an executed tutorial, written with its pictures.

  Args:
    path: the tutorial.
    folder: where the page goes.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell that raised.
  """
  notebook = jupytext.read(path)
  nbclient.NotebookClient(
    notebook, timeout=_TIMEOUT, kernel_name='python3', coalesce_streams=True
  ).execute()
  exporter = nbconvert.MarkdownExporter()
  resources = {'output_files_dir': path.stem}
  text, resources = exporter.from_notebook_node(notebook, resources)
  footer = (
    f'\n*This page is `docs/tutorials/{path.name}`, a notebook kept in text, as it '
    'ran.*\n'
  )
  pictures = folder / path.stem
  pictures.mkdir(parents=True, exist_ok=True)
  for old in pictures.glob('*.png'):
    old.unlink()
  for name, picture in resources['outputs'].items():
    (folder / name).write_bytes(picture)
  result = folder / f'{path.stem}.md'
  result.write_text(text.strip() + '\n' + footer, 'utf-8')
  return result


if __name__ == '__main__':
  for name in sys.argv[1:]:
    print(page(pathlib.Path(name)), flush=True)
