"""The page of claims of the stored results: results/claims.md, made of its neighbours.

The numbers are read from the tables of the pages in `results`: means with their Student
intervals, from which the deviations over seeds follow, or the numbers of single seeds
where a cell has them. So no verdict rests on anything that a page does not show.

Example:
  python -m experiments.reproduce.stored
"""

from collections.abc import Mapping, Sequence
import functools
import pathlib
import re
import textwrap
from typing import Any, NamedTuple

from absl import app

from experiments.reproduce import claims
from experiments.reproduce import page
from experiments.reproduce import verdicts
from stein_jax.runs import launch
from stein_jax.runs import reporting

FOLDER = pathlib.Path(__file__).parent / 'results'


class Table(NamedTuple):
  """A stored table, and the runs that it is of.

  Attributes:
    script: whose runs they are.
    setting: what the page of claims calls them.
    file: the page, without .md.
    place: of the table among those of the page.
    names: id of a row to what the table calls it.
    heads: name of a number to the head of its column.
    seeds: of rows that do not say.
    settings: of the script, by today's flags.
    reduced: what was reduced, in words.
    cost: of one more run, in words.
    failed: id of a row to what went wrong with its model.
  """

  script: str
  setting: str
  file: str
  place: int
  names: Mapping[str, str]
  heads: Mapping[str, str]
  seeds: int
  settings: Mapping[str, Any]
  reduced: str
  cost: str
  failed: Mapping[str, str] = {}


_FIGURE = {
  **{
    f'{setting}-alpha-{alpha}': f'{setting}, alpha {alpha}'
    for setting in ('paper', 'centred')
    for alpha in ('0', '0.25', '0.5', '1')
  },
  'paper-no-kernel': 'paper, no kernel',
  'centred-no-kernel': 'centred, no kernel',
  'fresh-sampler': "fresh sampler on SteinCD's energy",
  'fresh-sampler-centred': 'centred, fresh sampler on a finished SteinCD energy',
}
_AS_DATA = {
  'duplicates': '500 duplicates',
  'steingan': 'SteinGAN',
  'steingan-no-kernel': 'SteinGAN without kernel',
}
_JUDGED = {
  'kept/inception_score': 'score kept',
  'kept/accuracy': 'accuracy kept',
  'recall': 'recall',
}
_SMALL = {
  **_JUDGED,
  'accuracy': 'CNN trained on them (%)',
  'inception_score': 'inception score, CNN',
}
_IN_ONE_BATCH = (
  'data and samples were normalised in one batch, and the samples have recall 0'
)
_RHOS = {
  'no-augmentation': 'no augmentation',
  **{
    f'rho-{rho}': f'VCD, rho = {rho}'
    for rho in ('0', '0.001', '0.01', '0.1', '1')
  },
}
_TEACHING = {
  'teaching': 'VAE teaching',
  'teaching-large': 'VAE teaching, large steps',
  'coopnets': 'CoopNets',
  'coopnets-large': 'CoopNets, large steps',
  'langevin-noise': 'Langevin EBM from noise',
  'langevin-buffer': 'Langevin EBM, replay buffer of 5,000',
  'dcgan': 'DCGAN, 7,000 updates',
  'wgan-gp': 'WGAN-GP, 7,000 updates',
}
_TEACHING_LENGTH = (
  "1,000 of 750,000 updates, networks a quarter of the authors' width; {}"
)
_TEACHING_COST = 'four minutes a run of 1,000 updates, forty one of 10,000'
_SCORES = {
  'inception_score': 'inception score',
  'frechet_distance': 'Frechet distance',
}
TABLES = (
  Table(
    'rbm',
    'MNIST, 20 epochs',
    'rbm',
    1,
    {
      'stein-cd': 'SteinCD, phi / n',
      'cd-10-langevin': 'CD-10 Langevin',
      'cd-1-langevin': 'CD-1 Langevin',
      'stein-cd-centred': 'SteinCD, phi / n, centred',
      'stein-cd-swept': 'SteinCD, bandwidth chosen',
      'cd-10-langevin-centred': 'CD-10 Langevin, centred',
      'cd-1-langevin-centred': 'CD-1 Langevin, centred',
    },
    {'test': 'test (nats)'},
    5,
    {'dataset': 'mnist', 'steps': 10_000},
    "nothing; rates are chosen on validation images, and so is CD's step; SteinCD's "
    'bandwidth is the printed one but where it is said to be chosen',
    'a minute of two cores for five seeds of SteinCD, four for those of CD-10',
  ),
  Table(
    'steingan',
    'MNIST, narrow generator',
    'steingan',
    1,
    _FIGURE,
    {
      'test': 'test (nats)',
      'inception_score': 'inception score',
      'samples/pairwise_distance': 'pairwise distance',
    },
    3,
    {'steps': 6000},
    'an eighth of the width of the generator, 6,000 of 10,000 updates',
    'two minutes a run',
  ),
  Table(
    'cost',
    'MNIST, 6,000 evaluations',
    'cost',
    1,
    {
      'steingan': 'SteinGAN',
      'mcmc-mle': 'MCMC-MLE, 100 steps from noise',
      'pcd': 'PCD',
    },
    {'test': 'test (nats)'},
    3,
    {'steps': 2000},
    'an eighth of the width of the generator; the paper has no such run',
    'half a minute a run',
  ),
  Table(
    'cifar10',
    'MNIST, samples as data',
    'cifar10',
    1,
    _AS_DATA,
    _SMALL,
    3,
    {
      'dataset': 'mnist',
      'steps': 2000,
      'width': 2,
      'classifier_steps': 400,
      'samples': 10_000,
    },
    "MNIST for CIFAR-10, 2,000 of 50,000 updates, an eighth of the authors' width",
    'five minutes a run',
  ),
  Table(
    'cifar10',
    'Fashion-MNIST, samples as data',
    'cifar10',
    2,
    _AS_DATA,
    _SMALL,
    3,
    {
      'dataset': 'fashion_mnist',
      'steps': 2000,
      'width': 2,
      'classifier_steps': 400,
      'samples': 10_000,
    },
    'Fashion-MNIST for CIFAR-10, else as MNIST',
    'five minutes a run',
  ),
  Table(
    'cifar10',
    'CIFAR-10, samples as data',
    'cifar10',
    4,
    _AS_DATA,
    {
      **_JUDGED,
      'accuracy': 'ResNet-8 trained on them (%)',
      'inception_score': 'inception score, ResNet-8',
    },
    2,
    {
      'dataset': 'cifar10',
      'steps': 1000,
      'width': 16,
      'depth': 8,
      'classifier_steps': 800,
      'samples': 10_000,
    },
    "1,000 of 100,000 updates, a sixteenth of the authors' width, 10,000 of 50,000 "
    'samples, ResNet-8 for ResNet-32',
    'twenty minutes a run',
    dict.fromkeys(('steingan', 'steingan-no-kernel'), _IN_ONE_BATCH),
  ),
  Table(
    'cifar10',
    "the authors' networks",
    'sizes',
    1,
    {
      'size-dcgan-cifar10-four': 'DCGAN, CIFAR-10, four layers',
      **{
        f'size-{name.lower()}-{key}': f'{name}, {images}'
        for key, images in (
          ('cifar10', 'CIFAR-10'),
          ('celeba', 'CelebA'),
          ('lsun', 'LSUN'),
        )
        for name in ('DCGAN', 'SteinGAN')
      },
    },
    {'energy_parameters': 'energy or discriminator'},
    1,
    {'dataset': 'cifar10', 'part': 'sizes'},
    'nothing; nothing is trained',
    'seconds',
  ),
  Table(
    'vgan',
    'CIFAR-10, features',
    'vgan_features',
    1,
    {
      **{
        f'{name.lower()}-k-{k}': f'{name}, k = {k}'
        for name in ('GAN', 'VGAN')
        for k in (1, 3)
      },
      'random-features': 'random features',
    },
    {'error': 'test error (%)'},
    3,
    {'part': 'table1', 'dataset': 'cifar10', 'steps': 1000},
    "1,000 of 50,000 updates, an eighth of the authors' width",
    'two to five minutes a run',
  ),
  Table(
    'vgan',
    'MNIST, augmentation',
    'vcd',
    1,
    _RHOS,
    {'error': 'test error, 1,000 labels (%)'},
    3,
    {'part': 'vcd', 'steps': 2000, 'classifier_steps': 1000},
    "2,000 of 50,000 updates, a quarter of the authors' width",
    'eight minutes a run, some forty one of 10,000 updates',
  ),
  Table(
    'vgan',
    'Fashion-MNIST, augmentation',
    'vcd',
    3,
    _RHOS,
    {'error': 'test error, 1,000 labels (%)'},
    3,
    {
      'part': 'vcd',
      'dataset': 'fashion_mnist',
      'steps': 400,
      'classifier_steps': 200,
    },
    "Fashion-MNIST for MNIST, 400 of 50,000 updates, a quarter of the authors' width",
    'four minutes a run',
  ),
  Table(
    'vgan',
    'MNIST, the bound',
    'vgan_choices',
    1,
    {
      'no-entropy': 'without either',
      'unbounded': 'without either, no bound (`BinaryRBM`)',
      'unbounded-behind': 'the same, generator a hundredth as fast',
      'no-entropy-behind': 'without either, generator behind',
    },
    {'largest_gap': 'largest difference'},
    3,
    {'part': 'choices', 'steps': 250},
    "250 of 50,000 updates, a quarter of the authors' width",
    'half a minute a run',
  ),
  *(
    Table(
      'vae_teaching',
      f'{name}, amortised starts',
      'vae_teaching',
      place,
      _TEACHING,
      _SCORES,
      3,
      {'dataset': dataset, 'steps': 1000, 'judge_steps': 1000},
      _TEACHING_LENGTH.format(f'{name} for CIFAR-10'),
      _TEACHING_COST,
    )
    for place, (name, dataset) in enumerate(
      (('MNIST', 'mnist'), ('Fashion-MNIST', 'fashion_mnist')), 1
    )
  ),
  Table(
    'recovery',
    'Facades, 64 pixels',
    'recovery',
    1,
    {
      'teaching': 'conditional VAE teaching',
      'gan-l1': 'GAN and L1, after pix2pix',
      'cvae-gan': 'cVAE-GAN',
      'cvae-gan-pp': 'cVAE-GAN++',
      'bicycle-gan': 'BicycleGAN',
      'vae': 'conditional VAE',
      'grey': 'hidden part left grey',
    },
    {
      'samples/psnr_pasted': 'PSNR, known put back',
      'samples/ssim_pasted': 'SSIM, known put back',
    },
    3,
    {'path': 'facades.zip', 'steps': 500},
    "500 updates at 64 pixels, a quarter of the authors' width; the paper states no "
    'length, mask or resolution',
    'ten minutes a run',
  ),
)

_HEAD = """# Claims of the papers

| | |
|---|---|
| Command | `python -m experiments.reproduce.stored`, which makes this page |
| Runs | the [pages beside it](README.md) have their dates, commits and machines |

A claim is an order of two rows in one number, and each line below is one claim in one
setting.

{counts}

* The interval of a difference is that of Welch's test over seeds, at 95 %, and p is its
  two-sided p-value. No pairing is used, since the runs of two rows share no random
  numbers; the two shares of the duplicates, which are of the same runs, are not stored
  seed by seed. Interval and p follow from the means and Student intervals of the stored
  tables, or from the numbers of single seeds where a table has them, and are as exact
  as those are printed.
* A claim is *reproduced* by itself where the interval lies above zero, *refuted* where
  it lies below, and *open* where zero is in it; "open" says how many seeds would decide
  if means and deviations stayed as they are, and what a run costs on one core. The
  column "under Holm" has the same with all tested lines as one family, whose error is
  5 %. Counts of parameters need no test.
* *Refuted at this scale* is said of runs that are shorter or narrower than the paper's,
  which may find otherwise at full length. *Reproduced*, too, is said of the budget in
  its line and of no other.
* *Not testable* is a comparison whose model failed: its SteinCD is below a model
  without hidden units, its scores are at the floor, its features are worse than random
  ones, or its samples have recall 0 for a reason that the line gives.
* The budget of each side is its updates, times the evaluations of the energy on a batch
  in one update, and then the parameters of energy and generator.

No GPU was at hand. CIFAR-10 at the papers' settings (LW17 and WL16 Figure 2, X21 Table
1) is therefore out of reach here.

## Verdicts

"""
_COLUMNS = (
  'source',
  'claim',
  'setting',
  'here',
  'printed',
  'seeds',
  'difference',
  'p (Welch)',
  'by itself',
  'under Holm',
  'budget',
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  text = written(claim_lines())
  (FOLDER / 'claims.md').write_text(text, 'utf-8')
  print(text)


def claim_lines(tables: Sequence[Table] = TABLES) -> list[dict[str, str]]:
  """Returns the lines of the page of claims."""
  return page.claim_lines(claims.CLAIMS, [runs_of(table) for table in tables])


def runs_of(table: Table) -> page.Runs:
  """Returns the runs of a stored table."""
  return page.Runs(
    table.script,
    table.setting,
    functools.partial(sample, table),
    page.is_reduced(table.script, table.settings),
    command(table),
    table.cost,
    functools.partial(page.budget, table.script, table.settings),
    table.failed,
  )


def command(table: Table) -> str:
  """Returns the command that runs a table today."""
  return page.command(table.script, {**table.settings, 'seeds': table.seeds})


def sample(table: Table, row: str, key: str) -> verdicts.Sample | None:
  """Returns the sample of a row's number, or None where the table has none.

  Raises:
    ValueError: the page has no such row or column.
  """
  if row not in table.names or key not in table.heads:
    return None
  name, head = table.names[row], table.heads[key]
  for cells in stored(table.file, table.place):
    if next(iter(cells.values())) == name and head in cells:
      return read(cells[head], int(cells.get('seeds', table.seeds)))
  raise ValueError(f'{table.file}.md has no row {name!r} with {head!r}.')


@functools.cache
def stored(file: str, place: int) -> list[dict[str, str]]:
  """Returns the lines of a page's table."""
  text = (FOLDER / f'{file}.md').read_text('utf-8')
  return page.tables(text)[place][1]


def read(cell: str, seeds: int) -> verdicts.Sample | None:
  """Returns the sample that a cell of a table is of, or None of an empty one.

  A cell is 'mean (a, b, c)' or 'a, b, c' with the numbers of single seeds, 'mean ±
  half' with the Student interval of that many seeds, or one number, of which no
  deviation is known.
  """
  cell = cell.replace('%', '').strip()
  if not cell:
    return None
  single = re.search(r'\((.*)\)', cell)
  values = (single[1] if single else cell).split(', ')
  if len(values) > 1:
    return verdicts.sample([float(value) for value in values])
  if '±' in cell:
    mean, half = map(float, cell.split('±'))
    return verdicts.from_interval(mean, half, seeds)
  return verdicts.sample([float(cell.replace(',', ''))])


def written(lines: Sequence[Mapping[str, str]]) -> str:
  """Returns the text of the page."""
  shown = [{name: line[name] for name in _COLUMNS} for line in lines]
  settings = [
    {
      'setting': table.setting,
      'table': f'[{table.file}]({table.file}.md)',
      'reduced': table.reduced,
      'command': f'`{command(table)}`',
    }
    for table in TABLES
  ]
  return (
    _HEAD.format(counts=counts(lines))
    + reporting.table(shown)
    + '\n## Settings\n\n'
    + 'The commands have the flags of today; the pages have those of their commits.\n\n'
    + reporting.table(settings)
  )


def counts(lines: Sequence[Mapping[str, str]]) -> str:
  """Returns how many verdicts there are, of each kind, by themselves and under Holm."""
  kinds = (
    'reproduced',
    'refuted',
    'refuted at this scale',
    'open',
    'not testable',
  )
  of = lambda column, kind: sum(
    line[column].partition(':')[0] == kind for line in lines
  )
  tested = sum(bool(line['p (Welch)']) for line in lines)
  said = lambda column: ', '.join(
    f'{of(column, kind)} {kind}' for kind in kinds
  )
  return textwrap.fill(
    f'There are {len(lines)} lines, of which {tested} are tested. By themselves they '
    f'are {said("by itself")}; under Holm {said("under Holm")}.',
    88,
  )


if __name__ == '__main__':
  launch.run(main)
