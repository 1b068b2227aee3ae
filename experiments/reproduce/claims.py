"""What the papers claim, as orders of two rows of the reproduced tables."""

from typing import NamedTuple


class Bar(NamedTuple):
  """What a model must pass before its rows decide anything.

  Attributes:
    above: the id of a row whose mean must be above...
    below: ...that of this row, or this number.
    key: name of the number.
    says: what is the matter where it is not.
  """

  above: str
  below: str | float
  key: str
  says: str


class Claim(NamedTuple):
  """An order of two rows that a paper states.

  Attributes:
    source: where it stands.
    says: what it says.
    script: the module of `experiments.reproduce` whose results decide it.
    key: name of the number in a run's result; or one name for each row.
    order: ids of the two rows, the larger first.
    printed: the paper's numbers in that order; '' stands for one that is missing.
    exact: whether the numbers are counts, which need no seeds.
    bar: what must hold before the rows decide anything, if anything.
    settles: what would settle it, and the cost, where a row has not been run.
    full: whether its rows have the paper's size whatever the settings.
  """

  source: str
  says: str
  script: str
  key: str | tuple[str, str]
  order: tuple[str, str]
  printed: tuple[str, str] | tuple[()] = ()
  exact: bool = False
  bar: Bar | None = None
  settles: str = ''
  full: bool = False


# Names of results, as the scripts write them.
_IS, _FRECHET, _NATS = 'inception_score', 'frechet_distance', 'test'
_ACCURACY, _GAP = 'accuracy', 'largest_gap'
# Settings of a script that make its runs as long and wide as the paper's. Of the other
# scripts none does.
FULL = {
  'rbm': {'dataset': 'mnist', 'steps': 10_000},
  'cifar10': {'dataset': 'cifar10', 'steps': None, 'width': 1},
  'vgan': {'full': True, 'steps': 50_000},
}

_LANGEVIN = (
  '`make reproduce-rbm`: a quarter of an hour on two cores for these rows'
)
_SWEPT = (
  "`make reproduce-rbm`, where SteinCD's bandwidth is chosen among as many values as "
  "CD's step: half an hour on two cores for this row"
)
# A model below this has learned less than a mean: N(training mean, I) on the test
# images of MNIST, by `likelihood.gaussian_floors`.
MEAN_ALONE = -746.90
_NARROW = '`make reproduce-steingan FLAGS=--part=figure`: two minutes a run'
# The paper's setting at reduced width, one that can match its model, and the authors'.
_SETTINGS = (
  ('paper', '', _NARROW),
  ('centred', ', centred', _NARROW),
  (
    'authors',
    ", at the authors' width and rates",
    '`make reproduce-steingan FLAGS=--part=authors`: an hour or more a run on two '
    'cores, and three seeds of each row',
  ),
)
_COPIES = (
  'dcgan-matched'  # a discriminator of as many parameters, and chosen like it
)
_CHOSEN = 'steingan-chosen'
_MATCHED = (
  '`make reproduce-cifar10 FLAGS=--part=matched`: six trials and six runs on each data '
  'set, of five minutes on MNIST, of twenty on CIFAR-10 at a sixteenth of the width'
)
_LARGE = 'teaching-large'  # its chain is that of the EBM from noise
# A row, one that it beats, what the claim calls that, its printed score and distance.
_TEACHING = (
  ('teaching', 'coopnets', 'CoopNets', '6.55', '36.4'),
  (_LARGE, 'coopnets-large', 'CoopNets, large steps', '6.55', '36.4'),
  (
    _LARGE,
    'langevin-buffer',
    'a Langevin EBM with a replay buffer, as Du and Mordatch have it,',
    '6.02',
    '40.58',
  ),
  (_LARGE, 'langevin-noise', 'a Langevin EBM with chains from noise', '', ''),
  (_LARGE, 'dcgan', 'DCGAN', '6.40', '37.11'),
  (_LARGE, 'wgan-gp', 'WGAN-GP', '6.50', '36.4'),
)
_FACADES = (
  '`make reproduce-recovery`: three seeds of the row, ten minutes a run'
)
# Two rows, what the claim calls the second, its printed PSNR and SSIM.
_RECOVERY = (
  (
    'teaching-bounded',
    'coopnets-matched',
    'conditional CoopNets, the true image weighed alike',
    '20.47',
    '0.77',
  ),
  ('teaching', 'gan-l1', 'GAN and L1, after pix2pix', '19.34', '0.74'),
  (
    'teaching',
    'gan-l1-seconds',
    'GAN and L1, after pix2pix, in as many seconds',
    '19.34',
    '0.74',
  ),
  ('teaching', 'cvae-gan', 'cVAE-GAN', '19.43', '0.68'),
  ('teaching', 'cvae-gan-pp', 'cVAE-GAN++', '19.14', '0.64'),
  ('teaching', 'bicycle-gan', 'BicycleGAN', '19.07', '0.64'),
  ('teaching', 'vae', 'conditional VAE', '', ''),
)


def _rbm():
  """Returns the claims of LW17 Figure 1(a)."""
  names = {'stein-cd': 'SteinCD', 'cd-10': 'CD-10', 'cd-1': 'CD-1'}
  for suffix, added in (('', ''), ('-centred', ', centred')):
    for larger, smaller in (
      ('stein-cd', 'cd-10'),
      ('stein-cd', 'cd-1'),
      ('cd-10', 'cd-1'),
    ):
      ids = [
        f'{name}{"" if name == "stein-cd" else "-langevin"}{suffix}'
        for name in (larger, smaller)
      ]
      yield Claim(
        'LW17 Figure 1(a)',
        f'{names[larger]} is above {names[smaller]} in test likelihood{added}',
        'rbm',
        _NATS,
        tuple(ids),
        settles=_LANGEVIN,
      )
  for smaller in ('cd-10', 'cd-1'):
    yield Claim(
      'LW17 Figure 1(a)',
      f'SteinCD is above {names[smaller]} in test likelihood, each with as many '
      'trials on validation images',
      'rbm',
      _NATS,
      ('stein-cd-swept', f'{smaller}-langevin'),
      settles=_SWEPT,
    )


def _steingan():
  """Returns the claims of LW17 Figure 1(b) to (d)."""
  for setting, suffix, settles in _SETTINGS:
    steingan, stein_cd = f'{setting}-alpha-0', f'{setting}-alpha-1'
    bar = Bar(
      stein_cd,
      MEAN_ALONE,
      _NATS,
      'its SteinCD is below a model without hidden units',
    )
    for source, says, key, order in (
      (
        'LW17 Figure 1(b)',
        'SteinGAN has a lower likelihood than SteinCD',
        _NATS,
        (stein_cd, steingan),
      ),
      (
        'LW17 Figure 1(b)',
        'a quarter of SteinCD lifts the likelihood to SteinCD or above',
        _NATS,
        (f'{setting}-alpha-0.25', stein_cd),
      ),
      (
        'LW17 Figure 1(b)',
        'the inception score falls little until alpha = 1, and then it does',
        _IS,
        (f'{setting}-alpha-0.5', stein_cd),
      ),
      (
        'LW17 Figure 1(c)',
        'SteinGAN has better images than SteinCD',
        _IS,
        (steingan, stein_cd),
      ),
      (
        'LW17 Figure 1(d)',
        'without the kernel samples are far less diverse',
        'samples/pairwise_distance',
        (steingan, f'{setting}-no-kernel'),
      ),
    ):
      yield Claim(
        source,
        f'{says}{suffix}',
        'steingan',
        key,
        order,
        bar=bar,
        settles=settles,
        full=setting == 'authors',
      )
  yield Claim(
    'LW17 section 5.1',
    'a generator on a frozen SteinCD energy fails, centred',
    'steingan',
    _IS,
    ('centred-alpha-0', 'fresh-sampler-centred'),
    settles='`make reproduce-steingan FLAGS=--part=fresh`: three seeds of two minutes, '
    'and a SteinCD for each',
  )
  yield Claim(
    'LW17 section 5.1',
    'a generator on a frozen SteinCD energy fails',
    'steingan',
    _IS,
    ('paper-alpha-0', 'fresh-sampler'),
    bar=Bar(
      'paper-alpha-0',
      1.2,
      _IS,
      'the scores are at the floor, which is 1',
    ),
  )


def _as_data():
  """Returns the claims of LW17 Figure 2, which is WL16's, and of LW17 Table 1."""
  figure = 'LW17 Figure 2'
  both = 'LW17 and WL16 Figure 2'
  yield Claim(
    both,
    'inception scores barely see 500 duplicates, accuracy does (share kept)',
    'cifar10',
    ('kept/inception_score', 'kept/accuracy'),
    ('duplicates', 'duplicates'),
    ('0.988', '0.486'),
  )
  for source, says, key, smaller, printed in (
    (
      figure,
      "SteinGAN's accuracy beats that without kernel",
      _ACCURACY,
      'steingan-no-kernel',
      ('61.09', '60.50'),
    ),
    (
      figure,
      "SteinGAN's inception score beats that without kernel",
      _IS,
      'steingan-no-kernel',
      ('6.711', '6.243'),
    ),
    (
      figure,
      'the kernel keeps samples varied (recall)',
      'recall',
      'steingan-no-kernel',
      (),
    ),
    (
      both,
      "SteinGAN's accuracy beats DCGAN's, matched",
      _ACCURACY,
      _COPIES,
      ('61.09', '44.78'),
    ),
    (
      figure,
      "SteinGAN's inception score is about DCGAN's or above, matched",
      _IS,
      _COPIES,
      ('6.711', '6.581'),
    ),
  ):
    matched = smaller == _COPIES
    yield Claim(
      source,
      says,
      'cifar10',
      key,
      (_CHOSEN if matched else 'steingan', smaller),
      printed,
      settles=_MATCHED if matched else '',
    )
  for key, name, printed in (
    ('cifar10', 'CIFAR-10', '10'),
    ('cifar10-four', 'CIFAR-10, with the layers of 64 pixels', '10'),
    ('celeba', 'CelebA', '2.5'),
    ('lsun', 'LSUN', '2.5'),
  ):
    yield Claim(
      'LW17 Table 1',
      f"DCGAN's discriminator has more parameters than SteinGAN's energy, {name}",
      'cifar10',
      'energy_parameters',
      (f'size-dcgan-{key}', f'size-steingan-{key.partition("-")[0]}'),
      ('17 M', f'{printed} M'),
      exact=True,
      settles='`make reproduce-cifar10 FLAGS=--part=sizes`: seconds',
      full=True,
    )


def _vgan():
  """Returns the claims of Z16."""
  for k, printed in ((1, ('84.7', '36.5')), (3, ('86.6', '32.5'))):
    yield Claim(
      'Z16 Table 1',
      f"GAN's features are worse than VGAN's, k = {k} (test error, %)",
      'vgan',
      'error',
      (f'gan-k-{k}', f'vgan-k-{k}'),
      printed,
      bar=_alive(k),
    )
  yield Claim(
    'Z16 Table 1',
    'VGAN gains from three generator steps (test error, %)',
    'vgan',
    'error',
    ('vgan-k-1', 'vgan-k-3'),
    ('36.5', '32.5'),
    bar=_alive(3),
  )
  for says, order in (
    ('GAN fails at k = 1 and recovers at k = 3', ('gan-k-3', 'gan-k-1')),
    ('VGAN has better samples than GAN, k = 1', ('vgan-k-1', 'gan-k-1')),
  ):
    yield Claim(
      'Z16 Figure 2',
      f'{says} (inception score)',
      'vgan',
      _IS,
      order,
      settles='`make reproduce-vgan FLAGS=--part=table1`, which judges samples: twelve '
      'runs of two to five minutes',
    )
  for says, order, printed in (
    ('hurts at rho = 0', ('rho-0', 'no-augmentation'), ('2.9', '2.2')),
    ('helps at rho = 0.001', ('no-augmentation', 'rho-0.001'), ('2.2', '2.0')),
    ('helps at rho = 0.01', ('no-augmentation', 'rho-0.01'), ('2.2', '1.7')),
    ('helps at rho = 0.1', ('no-augmentation', 'rho-0.1'), ('2.2', '1.9')),
    ('hurts most at rho = 1', ('rho-1', 'rho-0'), ('21', '2.9')),
  ):
    yield Claim(
      'Z16 Table 2',
      f'augmentation {says} (test error, %)',
      'vgan',
      'error',
      order,
      printed,
    )
  for suffix, says in (
    ('', ''),
    ('-behind', ', both with a generator at a hundredth of the rate'),
  ):
    yield Claim(
      'Z16 section 4',
      'an unbounded energy explodes, a bounded one does not (difference of '
      f'energies){says}',
      'vgan',
      _GAP,
      (f'unbounded{suffix}', f'no-entropy{suffix}'),
      settles='`make reproduce-vgan FLAGS=--part=choices`: three runs of half a minute',
    )


def _alive(k):
  """Returns that the features of VGAN must be worth more than random ones."""
  return Bar(
    'random-features',
    f'vgan-k-{k}',
    'error',
    "VGAN's features are worse than random ones",
  )


def _teaching():
  """Returns the claims of X21."""
  for teaching, other, name, score, distance in _TEACHING:
    for what, key, order, printed in (
      ('inception score', _IS, (teaching, other), ('6.65', score)),
      ('Frechet distance', _FRECHET, (other, teaching), (distance, '36.2')),
    ):
      yield Claim(
        'X21 Table 1',
        f'VAE teaching beats {name} in {what}',
        'vae_teaching',
        key,
        order,
        printed if score else (),
      )
  for teaching, other, name, psnr, ssim in _RECOVERY:
    for what, key, printed in (
      ('PSNR, dB', 'samples/psnr_pasted', ('21.62', psnr)),
      ('SSIM', 'samples/ssim_pasted', ('0.78', ssim)),
    ):
      yield Claim(
        'X21 Table 2',
        f'VAE teaching recovers the hidden part better than {name} ({what}, what is '
        'known put back)',
        'recovery',
        key,
        (teaching, other),
        printed if psnr else (),
        bar=Bar(teaching, 'grey', key, 'a hidden part left grey is no worse'),
        settles=_FACADES,
      )


def _cost():
  """Returns the claims of what amortising saves."""
  for other, name in (
    ('mcmc-mle', 'chains from noise'),
    ('pcd', 'persistent chains'),
  ):
    yield Claim(
      'LW17 section 2.2',
      f'an amortised sampler saves computation against {name} (nats at as many '
      'evaluations)',
      'cost',
      _NATS,
      ('steingan', other),
    )


# In the order of the papers. Each is one difference: of several in one claim one would
# hide another.
CLAIMS = (
  *_rbm(),
  *_steingan(),
  *_cost(),
  *_as_data(),
  *_vgan(),
  *_teaching(),
)
