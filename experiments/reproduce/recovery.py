"""X21 Table 2: hidden parts of photographs recovered, in many ways.

Conditional VAE teaching, conditional CoopNets, a GAN with an L1 term (after pix2pix),
cVAE-GAN, cVAE-GAN++, BicycleGAN and a conditional VAE have decoders alike. Teaching and
CoopNets stand also with the gradient of the energy bounded and the true image weighed
alike, and the GAN also with as many seconds. Beside them stand the photograph with its
hidden part left grey, with that of the mean training image and with a smooth
continuation of what is known, and the printed table. The table has peak signal-to-noise
ratio and structural similarity on the test images, of what a model makes of the whole
image, and of that with the known pixels put back, which tells the hidden part alone.
Every finished run is a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.recovery --results=results/recovery --path=facades.zip
"""

import numpy as np

from experiments.reproduce import rows
from experiments.reproduce import scripts
from stein_jax import datasets
from stein_jax.runs import evaluation
from stein_jax.runs import images
from stein_jax.runs import launch

BOUNDED = {'energy_optimizer.max_norm': 1.0}
NO_LATENT = {'step.latent_weight': 0.0}
# A row's id, to its name, its config and what it changes.
METHODS = {
  'teaching': ('conditional VAE teaching', 'vae_teaching_facades', {}),
  'coopnets': ('conditional CoopNets', 'coopnets_facades', {}),
  'gan-l1': ('GAN and L1, after pix2pix', 'gan_facades', {}),
  'cvae-gan': (
    'cVAE-GAN',
    'bicycle_gan_facades',
    {**NO_LATENT, 'step.prior_weight': 0.0},
  ),
  'cvae-gan-pp': ('cVAE-GAN++', 'bicycle_gan_facades', NO_LATENT),
  'bicycle-gan': ('BicycleGAN', 'bicycle_gan_facades', {}),
  'vae': ('conditional VAE', 'vae_facades', {}),
  'teaching-bounded': (
    'conditional VAE teaching, bounded',
    'vae_teaching_facades',
    BOUNDED,
  ),
  'coopnets-matched': (
    'conditional CoopNets, bounded, matched',
    'coopnets_facades',
    # The squared error then has the weight 1, as in teaching, and the true image
    # the same weight beside it.
    {**BOUNDED, 'step.generator_sigma': 0.5**0.5},
  ),
  'gan-l1-seconds': ('GAN and L1, as many seconds', 'gan_facades', {}),
}
# Updates in the seconds that teaching takes, over teaching's: 654 s for 319 s.
MORE = {'gan-l1-seconds': 654 / 319}
GREY, MEAN, SMOOTH = 'grey', 'mean-image', 'inpainted'
FLOORS = {
  GREY: 'hidden part left grey',
  MEAN: 'hidden part of the mean training image',
  SMOOTH: 'hidden part continued smoothly',
}
# Facades, then Paris StreetView; neither mask nor resolution is stated.
PRINTED = {
  'pix2pix': ('19.34', '0.74', '15.17', '0.75'),
  'cVAE-GAN': ('19.43', '0.68', '16.12', '0.72'),
  'cVAE-GAN++': ('19.14', '0.64', '16.03', '0.69'),
  'BicycleGAN': ('19.07', '0.64', '16.00', '0.68'),
  'conditional CoopNets': ('20.47', '0.77', '21.17', '0.79'),
  'conditional VAE teaching': ('21.62', '0.78', '22.61', '0.79'),
}


def method_rows(plan: scripts.Plan) -> list[rows.Row]:
  """Returns the rows of the table."""
  # The full scale has no name in the configs.
  scale = 'smoke' if plan.smoke else plan.options.scale.replace('full', '')
  return [
    *(
      rows.Row(key, name, (config, scale), changes)
      for key, (name, config, changes) in METHODS.items()
    ),
    *(
      rows.Row(key, name, ('vae_facades', scale), single=True)
      for key, name in FLOORS.items()
    ),
  ]


def trained(plan: scripts.Plan, row: rows.Row):
  """Returns the row's config, with the length of its runs, if it is trained."""
  if row.id in FLOORS:
    return None
  config = rows.get_config(row, 0)
  config.num_steps = round(plan.steps * MORE.get(row.id, 1))
  return config


def run_row(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns how near the recovered test images are, and a page [3, 10, ...] of them."""
  config = rows.get_config(row, seed)
  if not plan.smoke:  # which is on noise
    # Training and test hide the same parts.
    where = {name: plan.options[name] for name in ('path', 'side', 'mask')}
    for section in (config.data, config.evaluation.data):
      section.update(where)
  batch = datasets.load(**config.evaluation.data)[:]
  # The floors: what is reached without learning what is hidden.
  if row.id in FLOORS:
    samples = batch['condition']
    if row.id == MEAN:
      mean = datasets.load(**config.data)[:]['image'].mean(0)
      samples = np.broadcast_to(mean, samples.shape)
    elif row.id == SMOOTH and 'mask' in batch:
      samples = np.stack(
        [
          continued(image, mask[..., 0])
          for image, mask in zip(samples, batch['mask'], strict=True)
        ]
      )
    return evaluation.recovered(samples, batch, config.data), None
  state, _ = rows.train(config, trained(plan, row).num_steps, row.name)
  # Every test image is recovered once.
  config.evaluation.num_samples = len(batch['image'])
  samples = rows.sampled(config, state)
  page = [x[:10] for x in (batch['condition'], samples, batch['image'])]
  found = evaluation.recovered(samples, batch, config.data)
  return found, datasets.to_unit(np.stack(page), config.data)


def continued(image: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Returns the image whose every hidden pixel is the mean of its neighbours.

  Args:
    image: [h, w, c].
    known: 1 where a pixel is known, 0 where it is hidden [h, w].
  """
  from scipy import sparse  # pylint: disable=g-import-not-at-top
  from scipy.sparse import linalg  # pylint: disable=g-import-not-at-top

  line = lambda n: sparse.diags([np.ones(n - 1)] * 2, [-1, 1])
  beside = sparse.kronsum(line(known.shape[1]), line(known.shape[0])).tocsr()
  laplacian = (sparse.diags(np.asarray(beside.sum(1)).ravel()) - beside).tocsr()
  hidden = known.ravel() == 0
  pixels = image.reshape(hidden.size, -1).astype(np.float64)
  equations = laplacian[hidden]
  pixels[hidden] = linalg.spsolve(
    equations[:, hidden].tocsc(), -equations[:, ~hidden] @ pixels[~hidden]
  ).reshape(-1, pixels.shape[1])
  return pixels.reshape(image.shape).astype(image.dtype)


def report(plan: scripts.Plan) -> scripts.Report:
  """Returns the tables, and a page of images, of what is there."""
  methods = method_rows(plan)
  pages = {row.name: rows.images_of(plan.results, row) for row in methods}
  pages = {name: page for name, page in pages.items() if page is not None}
  figures = {}
  if pages:
    # All methods have the same test images.
    known, _, true = next(iter(pages.values()))
    page = np.stack([known, *(page[1] for page in pages.values()), true])
    labels = ('known', *pages, 'true')
    png = images.png(images.strips(page), zoom=2, labels=labels)
    figures = {'recovered': ('Hidden parts, recovered', png)}
  tables = {
    'Test images': rows.table(plan.results, methods, _COLUMNS, plan.seeds),
    'Printed': rows.printed(_PRINTED_COLUMNS, PRINTED),
  }
  return scripts.Report('Recovery of hidden parts', tables, figures)


_COLUMNS = {
  'PSNR (dB)': 'samples/psnr',
  'SSIM': 'samples/ssim',
  'PSNR, known pixels put back': 'samples/psnr_pasted',
  'SSIM, known pixels put back': 'samples/ssim_pasted',
  'seconds': 'seconds',
}
_PRINTED_COLUMNS = (
  'Facades, PSNR (dB)',
  'Facades, SSIM',
  'Paris, PSNR (dB)',
  'Paris, SSIM',
)


SCRIPT = scripts.Script(
  'recovery',
  steps=scripts.Option(600, 'Updates of every model.', smoke=4, minimum=1),
  seeds=2,
  parts={'rows': scripts.Part(method_rows, run_row)},
  report=report,
  trained=trained,
  options={
    'path': scripts.Option(
      'facades.zip', 'Folder or zip of train/ and test/; see the configs.'
    ),
    'side': scripts.Option(
      'left', 'Half of a pair, or the whole image.', choices=('left', 'all')
    ),
    'mask': scripts.Option(
      'centre', 'What is hidden.', choices=('centre', 'box', 'half')
    ),
    'scale': scripts.Option(
      'narrow', '64 or 128 pixels.', choices=('narrow', 'full')
    ),
  },
)


if __name__ == '__main__':
  launch.run(scripts.main(SCRIPT))
