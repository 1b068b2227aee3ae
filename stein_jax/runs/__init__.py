"""What runs an experiment: the loop, its folder, its reports.

Nothing that research code calls imports from here; only this room, `init` and the
commands see a config, and it alone writes files. `runs.load(workdir)` returns a run
that was trained, to work with in a notebook.
"""


def __getattr__(name: str):
  """Returns `load`, which is imported when asked for: it brings the whole room."""
  if name == 'load':
    from stein_jax.runs import loading  # pylint: disable=g-import-not-at-top

    return loading.load
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
