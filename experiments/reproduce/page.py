"""One page of what has been run here: the papers' claims, then every table and figure.

A claim is an order of rows in some number. It is reproduced where every difference in
that order has a 95 % interval above zero, over seeds (Welch); refuted where one of them
is below; open where an interval has zero in it, or a row one seed; not run where a row
has no result. Numbers are those of the finished runs in the folders that the other
scripts of `experiments.reproduce` left, whose settings, on the page, say what was
reduced.

Example:
  python -m experiments.reproduce.page --results=results
"""

from collections.abc import Sequence
import json
import pathlib
from typing import NamedTuple

from absl import app
from absl import flags
import numpy as np

from experiments.reproduce import rows
from stein_jax import reporting

_RESULTS = flags.DEFINE_string(
  'results', 'results', 'Folder with a folder of each script.'
)


class Claim(NamedTuple):
  """An order that a paper states.

  Attributes:
    source: where.
    says: what.
    folder: of the script's results.
    key: of the number in a run's result.
    order: names of rows, the largest first.
    printed: the paper's numbers in that order, '' where it has none.
  """

  source: str
  says: str
  folder: str
  key: str
  order: tuple[str, ...]
  printed: tuple[str, ...] = ()


_IS, _NATS = 'inception_score', 'test'
_PAPER = 'paper'  # its setting, not the centred one
CLAIMS = (
  Claim(
    'LW17 Figure 1(a)',
    'SteinCD is at least CD-10, and CD-10 at least CD-1, in test likelihood',
    'rbm',
    _NATS,
    ('SteinCD, phi / n', 'CD-10 Langevin', 'CD-1 Langevin'),
  ),
  Claim(
    'LW17 Figure 1(b)',
    'SteinGAN has a lower likelihood than SteinCD',
    'steingan',
    _NATS,
    (f'{_PAPER}, alpha 1', f'{_PAPER}, alpha 0'),
  ),
  Claim(
    'LW17 Figure 1(c)',
    'SteinGAN has better images than SteinCD',
    'steingan',
    _IS,
    (f'{_PAPER}, alpha 0', f'{_PAPER}, alpha 1'),
  ),
  Claim(
    'LW17 Figure 1(b)',
    'a quarter of SteinCD lifts the likelihood to SteinCD or above',
    'steingan',
    _NATS,
    (f'{_PAPER}, alpha 0.25', f'{_PAPER}, alpha 1'),
  ),
  Claim(
    'LW17 Figure 1(c)',
    'the inception score falls at alpha = 1',
    'steingan',
    _IS,
    (f'{_PAPER}, alpha 0.75', f'{_PAPER}, alpha 1'),
  ),
  Claim(
    'LW17 Figure 1(d)',
    'without the kernel samples are far less diverse',
    'steingan',
    'samples/pairwise_distance',
    (f'{_PAPER}, alpha 0', f'{_PAPER}, no kernel'),
  ),
  Claim(
    'LW17 section 5.1',
    'a generator on a frozen SteinCD energy fails',
    'steingan',
    _IS,
    (
      f'{_PAPER}, alpha 0',
      'fresh sampler on a finished SteinCD energy',
    ),
  ),
  Claim(
    'LW17 Table 1',
    'accuracy sees 500 duplicates',
    'cifar10',
    'accuracy',
    ('real images', '500 duplicates'),
    ('92.58', '44.96'),
  ),
  Claim(
    'LW17 Table 1',
    "SteinGAN's accuracy beats that without kernel, and DCGAN's",
    'cifar10',
    'accuracy',
    ('SteinGAN', 'SteinGAN without kernel', 'DCGAN'),
    ('61.09', '60.50', '44.78'),
  ),
  *(
    Claim(
      'Z16 Table 1',
      f"GAN's features are worse than VGAN's, k = {k} (test error, %)",
      'vgan',
      'error',
      (f'GAN, k = {k}', f'VGAN, k = {k}'),
      printed,
    )
    for k, printed in ((1, ('84.7', '36.5')), (3, ('86.6', '32.5')))
  ),
  Claim(
    'Z16 Table 1',
    'VGAN gains from three generator steps (test error, %)',
    'vgan',
    'error',
    ('VGAN, k = 1', 'VGAN, k = 3'),
    ('36.5', '32.5'),
  ),
  Claim(
    'Z16 Table 2',
    'augmentation helps at rho = 0.01, and hurts at 0 and more at 1 (test error, %)',
    'vgan',
    'error',
    ('VCD, rho = 1', 'VCD, rho = 0', 'no augmentation', 'VCD, rho = 0.01'),
    ('21', '2.9', '2.2', '1.7'),
  ),
  *(
    Claim(
      'X21 Table 1',
      f'VAE teaching beats {other} in inception score',
      'vae-teaching',
      _IS,
      ('VAE teaching', other),
    )
    for other in ('CoopNets', 'Langevin EBM from noise', 'DCGAN', 'WGAN-GP')
  ),
  *(
    Claim(
      'X21 Table 2',
      f'VAE teaching recovers better than {other} (PSNR, dB)',
      'recovery',
      'samples/psnr',
      ('conditional VAE teaching', other),
      printed,
    )
    for other, printed in (
      ('conditional CoopNets', ('21.62', '20.47')),
      ('GAN and L1, after pix2pix', ('21.62', '19.34')),
      ('conditional VAE', ('21.62', '')),
    )
  ),
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  folder = pathlib.Path(_RESULTS.value)
  if not list(folder.glob('*/settings.json')):
    raise app.UsageError(
      f'{folder} holds no results; `make reproduce-rbm` and the like make them.'
    )
  print(f'{reporting.table(write(folder))}\n{folder}/results.html')


def write(folder: pathlib.Path) -> list[dict[str, str]]:
  """Writes results.md and results.html of all scripts' folders; returns the claims."""
  found = {path.parent.name: path for path in folder.glob('*/settings.json')}
  numbers = {name: results(path.parent) for name, path in found.items()}
  lines = [line(claim, numbers.get(claim.folder, {})) for claim in CLAIMS]
  sections = [('Claims', lines)]
  text = [f'# Results\n\n{reporting.table(lines)}']
  for name, path in sorted(found.items()):
    settings = json.loads(path.read_text('utf-8'))
    sections.append((name, settings))
    text.append(f'## {name}\n\n`{json.dumps(settings)}`\n')
    table = path.with_name('table.md')
    if table.exists():
      text.append(table.read_text('utf-8'))
      sections.append((f'{name}: tables', table.read_text('utf-8')))
    for png in sorted(path.parent.glob('*.png')):
      sections.append((f'{name}: {png.stem}', png.read_bytes()))
      text.append(f'![{png.stem}]({name}/{png.name})\n')
  (folder / 'results.md').write_text('\n'.join(text), 'utf-8')
  reporting.write_page(folder / 'results.html', 'Results', sections)
  return lines


def results(folder: pathlib.Path) -> dict[str, list[dict]]:
  """Returns the results of finished runs by the name of their row."""
  found = {}
  for path in sorted((folder / 'runs').glob('*.json')):
    run = json.loads(path.read_text('utf-8'))
    found.setdefault(run['name'], []).append(run)
  together = folder / 'results.json'  # of all seeds at once, and several rates
  if together.exists():
    best = lambda row: np.mean(row['valid'][-1])
    kept = sorted(json.loads(together.read_text('utf-8'))['main'], key=best)
    found |= {
      row['name']: [{'test': x} for x in row['test'][-1]] for row in kept
    }
  return found


def line(claim: Claim, found) -> dict[str, str]:
  """Returns the page's line of one claim."""
  values = [
    [run[claim.key] for run in found.get(name, []) if claim.key in run]
    for name in claim.order
  ]
  shown = [rows.cell(claim.key, v) if v else 'not run' for v in values]
  join = ' > '.join
  return {
    'source': claim.source,
    'claim': claim.says,
    'order': join(claim.order),
    'here': join(shown),
    'printed': join(value or '?' for value in claim.printed),
    'verdict': verdict(values),
    'command': f'make reproduce-{claim.folder}',
  }


def verdict(values: Sequence[Sequence[float]]) -> str:
  """Returns what the runs of rows, the largest first, say of that order."""
  if not all(values):
    return 'not run'
  if not np.all(np.isfinite(np.concatenate(values))):
    return 'open: a run ended with numbers that are not finite'
  if min(map(len, values)) < 2:
    return 'open: one seed'
  lows, highs = zip(*map(interval, values, values[1:]), strict=True)
  if min(highs) < 0:
    return 'refuted'
  return 'reproduced' if min(lows) > 0 else 'open'


def interval(larger, smaller) -> tuple[float, float]:
  """Returns the 95 % interval of the difference of two means (Welch)."""
  from scipy import stats  # pylint: disable=g-import-not-at-top

  if not np.ptp(larger) and not np.ptp(smaller):  # nothing to estimate it from
    difference = float(larger[0] - smaller[0])
    return difference, difference
  test = stats.ttest_ind(larger, smaller, equal_var=False)
  return tuple(test.confidence_interval(0.95))


if __name__ == '__main__':
  app.run(main)
