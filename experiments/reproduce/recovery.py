"""X21 Table 2: hidden parts of photographs recovered, seven ways.

Conditional VAE teaching, conditional CoopNets, a GAN with an L1 term (after pix2pix),
cVAE-GAN, cVAE-GAN++, BicycleGAN and a conditional VAE share one generator; beside
them stand the photograph with its hidden part left grey and the printed table. The
table has peak signal-to-noise ratio and structural similarity on the test images, of
what a model makes of the whole image, and of that with the known pixels put back.
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
}
GREY = 'grey'
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
    rows.Row(
      GREY, 'hidden part left grey', ('vae_facades', scale), single=True
    ),
  ]


def run_row(plan: scripts.Plan, row: rows.Row, seed: int):
  """Returns how near the recovered test images are, and a page [3, 10, ...] of them."""
  config = rows.get_config(row, seed)
  if not plan.smoke:  # which is on noise
    # Training and test hide the same parts.
    where = {name: plan.options[name] for name in ('path', 'side', 'mask')}
    for section in (config.data, config.evaluation.data):
      section.update(where)
  batch = datasets.load(**config.evaluation.data)[:]
  # The floor: what a method reaches that recovers nothing.
  if row.id == GREY:
    found = evaluation.recovered(batch['condition'], batch, config.data)
    return found, None
  state, _ = rows.train(config, plan.steps, row.name)
  # Every test image is recovered once.
  config.evaluation.num_samples = len(batch['image'])
  samples = rows.sampled(config, state)
  page = [x[:10] for x in (batch['condition'], samples, batch['image'])]
  found = evaluation.recovered(samples, batch, config.data)
  return found, datasets.to_unit(np.stack(page), config.data)


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
