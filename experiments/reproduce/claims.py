"""What the papers claim, as orders of rows of the reproduced tables."""

from typing import NamedTuple


class Claim(NamedTuple):
  """An order that a paper states.

  Attributes:
    source: where.
    says: what.
    folder: of the script's results; others of it begin with that and a dash.
    key: of the number in a run's result; or one for each row.
    order: names of rows, the largest first.
    printed: the paper's numbers in that order, '' where it has none.
  """

  source: str
  says: str
  folder: str
  key: str | tuple[str, ...]
  order: tuple[str, ...]
  printed: tuple[str, ...] = ()


_IS, _FRECHET, _NATS = 'inception_score', 'frechet_distance', 'test'
# The paper's setting, and the one that can match its model.
_SETTINGS = (('paper', ''), ('centred', ', centred'))
# (row, row that it beats, whose printed inception score and distance); the chain of
# 'large steps' is that of the EBM from noise.
_LARGE = 'VAE teaching, large steps'
_TEACHING = (
  ('VAE teaching', 'CoopNets', '6.55', '36.4'),
  (_LARGE, 'CoopNets, large steps', '6.55', '36.4'),
  (_LARGE, 'Langevin EBM from noise', '6.02', '40.58'),
  (_LARGE, 'DCGAN', '6.40', '37.11'),
  (_LARGE, 'WGAN-GP', '6.50', '36.4'),
)
# (row, printed PSNR and SSIM).
_RECOVERY = (
  ('conditional CoopNets', '20.47', '0.77'),
  ('GAN and L1, after pix2pix', '19.34', '0.74'),
  ('cVAE-GAN', '19.43', '0.68'),
  ('cVAE-GAN++', '19.14', '0.64'),
  ('BicycleGAN', '19.07', '0.64'),
  ('conditional VAE', '', ''),
)
CLAIMS = (
  Claim(
    'LW17 Figure 1(a)',
    'SteinCD is at least CD-10, and CD-10 at least CD-1, in test likelihood',
    'rbm',
    _NATS,
    ('SteinCD, phi / n', 'CD-10 Langevin', 'CD-1 Langevin'),
  ),
  Claim(
    'LW17 Figure 1(a)',
    'SteinCD is at least CD-1 in test likelihood, centred',
    'rbm',
    _NATS,
    ('SteinCD, phi / n, centred', 'CD-1 Gibbs, centred'),
  ),
  *(
    Claim(source, f'{says}{suffix}', 'steingan', key, order)
    for setting, suffix in _SETTINGS
    for source, says, key, order in (
      (
        'LW17 Figure 1(b)',
        'SteinGAN has a lower likelihood than SteinCD',
        _NATS,
        (f'{setting}, alpha 1', f'{setting}, alpha 0'),
      ),
      (
        'LW17 Figure 1(c)',
        'SteinGAN has better images than SteinCD',
        _IS,
        (f'{setting}, alpha 0', f'{setting}, alpha 1'),
      ),
      (
        'LW17 Figure 1(b)',
        'a quarter of SteinCD lifts the likelihood to SteinCD or above',
        _NATS,
        (f'{setting}, alpha 0.25', f'{setting}, alpha 1'),
      ),
      (
        'LW17 Figure 1(c)',
        'the inception score falls little until alpha = 1, and then it does',
        _IS,
        (f'{setting}, alpha 0.5', f'{setting}, alpha 1'),
      ),
      (
        'LW17 Figure 1(d)',
        'without the kernel samples are far less diverse',
        'samples/pairwise_distance',
        (f'{setting}, alpha 0', f'{setting}, no kernel'),
      ),
    )
  ),
  Claim(
    'LW17 section 5.1',
    'a generator on a frozen SteinCD energy fails',
    'steingan',
    _IS,
    (
      'centred, alpha 0',
      'fresh sampler on a finished SteinCD energy',
    ),
  ),
  Claim(
    'LW17 Table 1',
    'inception scores barely see 500 duplicates, accuracy does (share kept)',
    'cifar10',
    ('kept/inception_score', 'kept/accuracy'),
    ('500 duplicates', '500 duplicates'),
    ('0.988', '0.486'),
  ),
  Claim(
    'LW17 Table 1',
    "SteinGAN's accuracy beats that without kernel",
    'cifar10',
    'accuracy',
    ('SteinGAN', 'SteinGAN without kernel'),
    ('61.09', '60.50'),
  ),
  Claim(
    'LW17 Table 1',
    "SteinGAN's accuracy beats DCGAN's",
    'cifar10',
    'accuracy',
    ('SteinGAN', 'DCGAN'),
    ('61.09', '44.78'),
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
      ('hurts at rho = 0', ('VCD, rho = 0', 'no augmentation'), ('2.9', '2.2')),
      (
        'helps at rho = 0.01',
        ('no augmentation', 'VCD, rho = 0.01'),
        ('2.2', '1.7'),
      ),
      (
        'hurts most at rho = 1',
        ('VCD, rho = 1', 'VCD, rho = 0'),
        ('21', '2.9'),
      ),
    )
  ),
  Claim(
    'Z16 section 4',
    'an unbounded energy explodes, a bounded one does not (difference of energies)',
    'vgan',
    'largest_gap',
    ('without either, no bound, generator behind', 'without either'),
  ),
  *(
    claim
    for teaching, other, score, distance in _TEACHING
    for claim in (
      Claim(
        'X21 Table 1',
        f'VAE teaching beats {other} in inception score',
        'vae-teaching',
        _IS,
        (teaching, other),
        ('6.65', score),
      ),
      Claim(
        'X21 Table 1',
        f'VAE teaching beats {other} in Frechet distance',
        'vae-teaching',
        _FRECHET,
        (other, teaching),
        (distance, '36.2'),
      ),
    )
  ),
  *(
    claim
    for other, psnr, ssim in _RECOVERY
    for claim in (
      Claim(
        'X21 Table 2',
        f'VAE teaching recovers better than {other} (PSNR, dB)',
        'recovery',
        'samples/psnr',
        ('conditional VAE teaching', other),
        ('21.62', psnr),
      ),
      Claim(
        'X21 Table 2',
        f'VAE teaching recovers better than {other} (SSIM)',
        'recovery',
        'samples/ssim',
        ('conditional VAE teaching', other),
        ('0.78', ssim),
      ),
    )
  ),
)
