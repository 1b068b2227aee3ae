"""What the papers claim, as orders of rows of the reproduced tables."""

from typing import NamedTuple


class Claim(NamedTuple):
  """An order that a paper states.

  Attributes:
    source: where it stands.
    says: what it says.
    script: the module of `experiments.reproduce` whose results decide it.
    key: name of the number in a run's result; or one name for each row.
    order: ids of rows, the largest first.
    printed: the paper's numbers in that order; '' stands for one that is missing.
  """

  source: str
  says: str
  script: str
  key: str | tuple[str, ...]
  order: tuple[str, ...]
  printed: tuple[str, ...] = ()


# Names of results, as the scripts write them.
_IS, _FRECHET, _NATS = 'inception_score', 'frechet_distance', 'test'
# The paper's setting, and the one that can match its model.
_SETTINGS = (('paper', ''), ('centred', ', centred'))
_LARGE = 'teaching-large'  # its chain is that of the EBM from noise
# A row, one that it beats, what the claim calls that, its printed score and distance.
_TEACHING = (
  ('teaching', 'coopnets', 'CoopNets', '6.55', '36.4'),
  (_LARGE, 'coopnets-large', 'CoopNets, large steps', '6.55', '36.4'),
  (_LARGE, 'langevin-noise', 'Langevin EBM from noise', '6.02', '40.58'),
  (_LARGE, 'dcgan', 'DCGAN', '6.40', '37.11'),
  (_LARGE, 'wgan-gp', 'WGAN-GP', '6.50', '36.4'),
)
# A row, what the claim calls it, its printed PSNR and SSIM.
_RECOVERY = (
  ('coopnets', 'conditional CoopNets', '20.47', '0.77'),
  ('gan-l1', 'GAN and L1, after pix2pix', '19.34', '0.74'),
  ('cvae-gan', 'cVAE-GAN', '19.43', '0.68'),
  ('cvae-gan-pp', 'cVAE-GAN++', '19.14', '0.64'),
  ('bicycle-gan', 'BicycleGAN', '19.07', '0.64'),
  ('vae', 'conditional VAE', '', ''),
)
# In the order of the papers. A claim of several differences is several claims,
# or one would hide another.
CLAIMS = (
  Claim(
    'LW17 Figure 1(a)',
    'SteinCD is at least CD-10, and CD-10 at least CD-1, in test likelihood',
    'rbm',
    _NATS,
    ('stein-cd', 'cd-10-langevin', 'cd-1-langevin'),
  ),
  Claim(
    'LW17 Figure 1(a)',
    'SteinCD is at least CD-1 in test likelihood, centred',
    'rbm',
    _NATS,
    ('stein-cd-centred', 'cd-1-gibbs-centred'),
  ),
  *(
    Claim(source, f'{says}{suffix}', 'steingan', key, order)
    for setting, suffix in _SETTINGS
    for source, says, key, order in (
      (
        'LW17 Figure 1(b)',
        'SteinGAN has a lower likelihood than SteinCD',
        _NATS,
        (f'{setting}-alpha-1', f'{setting}-alpha-0'),
      ),
      (
        'LW17 Figure 1(c)',
        'SteinGAN has better images than SteinCD',
        _IS,
        (f'{setting}-alpha-0', f'{setting}-alpha-1'),
      ),
      (
        'LW17 Figure 1(b)',
        'a quarter of SteinCD lifts the likelihood to SteinCD or above',
        _NATS,
        (f'{setting}-alpha-0.25', f'{setting}-alpha-1'),
      ),
      (
        'LW17 Figure 1(c)',
        'the inception score falls little until alpha = 1, and then it does',
        _IS,
        (f'{setting}-alpha-0.5', f'{setting}-alpha-1'),
      ),
      (
        'LW17 Figure 1(d)',
        'without the kernel samples are far less diverse',
        'samples/pairwise_distance',
        (f'{setting}-alpha-0', f'{setting}-no-kernel'),
      ),
    )
  ),
  Claim(
    'LW17 section 5.1',
    'a generator on a frozen SteinCD energy fails',
    'steingan',
    _IS,
    (
      'centred-alpha-0',
      'fresh-sampler',
    ),
  ),
  Claim(
    'LW17 Table 1',
    'inception scores barely see 500 duplicates, accuracy does (share kept)',
    'cifar10',
    ('kept/inception_score', 'kept/accuracy'),
    ('duplicates', 'duplicates'),
    ('0.988', '0.486'),
  ),
  Claim(
    'LW17 Table 1',
    "SteinGAN's accuracy beats that without kernel",
    'cifar10',
    'accuracy',
    ('steingan', 'steingan-no-kernel'),
    ('61.09', '60.50'),
  ),
  Claim(
    'LW17 Table 1',
    "SteinGAN's accuracy beats DCGAN's",
    'cifar10',
    'accuracy',
    ('steingan', 'dcgan'),
    ('61.09', '44.78'),
  ),
  *(
    Claim(
      'Z16 Table 1',
      f"GAN's features are worse than VGAN's, k = {k} (test error, %)",
      'vgan',
      'error',
      (f'gan-k-{k}', f'vgan-k-{k}'),
      printed,
    )
    for k, printed in ((1, ('84.7', '36.5')), (3, ('86.6', '32.5')))
  ),
  Claim(
    'Z16 Table 1',
    'VGAN gains from three generator steps (test error, %)',
    'vgan',
    'error',
    ('vgan-k-1', 'vgan-k-3'),
    ('36.5', '32.5'),
  ),
  *(
    Claim(
      'Z16 Table 2',
      f'augmentation {says} (test error, %)',
      'vgan',
      'error',
      order,
      printed,
    )
    for says, order, printed in (
      ('hurts at rho = 0', ('rho-0', 'no-augmentation'), ('2.9', '2.2')),
      (
        'helps at rho = 0.01',
        ('no-augmentation', 'rho-0.01'),
        ('2.2', '1.7'),
      ),
      (
        'hurts most at rho = 1',
        ('rho-1', 'rho-0'),
        ('21', '2.9'),
      ),
    )
  ),
  Claim(
    'Z16 section 4',
    'an unbounded energy explodes, a bounded one does not (difference of energies)',
    'vgan',
    'largest_gap',
    ('unbounded-behind', 'no-entropy'),
  ),
  *(
    claim
    for teaching, other, name, score, distance in _TEACHING
    for claim in (
      Claim(
        'X21 Table 1',
        f'VAE teaching beats {name} in inception score',
        'vae_teaching',
        _IS,
        (teaching, other),
        ('6.65', score),
      ),
      Claim(
        'X21 Table 1',
        f'VAE teaching beats {name} in Frechet distance',
        'vae_teaching',
        _FRECHET,
        (other, teaching),
        (distance, '36.2'),
      ),
    )
  ),
  *(
    claim
    for other, name, psnr, ssim in _RECOVERY
    for claim in (
      Claim(
        'X21 Table 2',
        f'VAE teaching recovers better than {name} (PSNR, dB)',
        'recovery',
        'samples/psnr',
        ('teaching', other),
        ('21.62', psnr),
      ),
      Claim(
        'X21 Table 2',
        f'VAE teaching recovers better than {name} (SSIM)',
        'recovery',
        'samples/ssim',
        ('teaching', other),
        ('0.78', ssim),
      ),
    )
  ),
)
