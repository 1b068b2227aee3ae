"""X21 Table 2: hidden parts of photographs recovered, seven ways.

Conditional VAE teaching, conditional CoopNets, a GAN with an L1 term (after pix2pix),
cVAE-GAN, cVAE-GAN++, BicycleGAN and a conditional VAE, with one generator; beside
them the photograph with its hidden part left grey and the printed table. Peak
signal-to-noise ratio and structural similarity on the test images, of what a model
makes of the whole image, and of that with the known pixels put back.
Every finished run is a file: an interrupted call continues.

Example:
  python -m experiments.reproduce.recovery --results=results/recovery --path=facades.zip
"""

import functools
import pathlib
from typing import NamedTuple

from absl import app
from absl import flags
import jax
import numpy as np

from experiments.reproduce import rows
from stein_jax import algorithms
from stein_jax import datasets
from stein_jax import locations
from stein_jax.runs import evaluation
from stein_jax.runs import images
from stein_jax.runs import launch

_RESULTS = flags.DEFINE_string(
  'results', 'results/recovery', 'Folder of the results.'
)
_PATH = flags.DEFINE_string(
  'path', 'facades.zip', 'Folder or zip of train/ and test/; see the configs.'
)
_SIDE = flags.DEFINE_enum(
  'side', 'left', ['left', 'all'], 'Half of a pair, or the whole image.'
)
_MASK = flags.DEFINE_enum(
  'mask', 'centre', ['centre', 'box', 'half'], 'What is hidden.'
)
_SCALE = flags.DEFINE_enum(
  'scale', 'narrow', ['narrow', 'full'], 'Of the configs: 64 or 128 pixels.'
)
_STEPS = flags.DEFINE_integer(
  'steps', 600, 'Updates of every model.', lower_bound=1
)
_SEEDS = flags.DEFINE_integer('seeds', 2, 'Runs of every row.', lower_bound=2)
_SMOKE = flags.DEFINE_bool(
  'smoke', False, 'A few steps of two seeds of every row, on noise: a minute.'
)

METHODS = {
  'conditional VAE teaching': ('vae_teaching_facades', {}),
  'conditional CoopNets': ('coopnets_facades', {}),
  'GAN and L1, after pix2pix': ('gan_facades', {}),
  'cVAE-GAN': (
    'bicycle_gan_facades',
    {'step.prior_weight': 0.0, 'step.latent_weight': 0.0},
  ),
  'cVAE-GAN++': ('bicycle_gan_facades', {'step.latent_weight': 0.0}),
  'BicycleGAN': ('bicycle_gan_facades', {}),
  'conditional VAE': ('vae_facades', {}),
}
GREY = 'hidden part left grey'
# Facades, then Paris StreetView; neither mask nor resolution is stated.
PRINTED = {
  'pix2pix': ('19.34', '0.74', '15.17', '0.75'),
  'cVAE-GAN': ('19.43', '0.68', '16.12', '0.72'),
  'cVAE-GAN++': ('19.14', '0.64', '16.03', '0.69'),
  'BicycleGAN': ('19.07', '0.64', '16.00', '0.68'),
  'conditional CoopNets': ('20.47', '0.77', '21.17', '0.79'),
  'conditional VAE teaching': ('21.62', '0.78', '22.61', '0.79'),
}


class Plan(NamedTuple):
  """What one call is to do."""

  results: pathlib.Path
  path: str
  side: str
  mask: str
  scale: str
  steps: int
  seeds: int


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  launch.set_up()
  smoke = _SMOKE.value
  if smoke:  # compiling is nearly all of its time
    jax.config.update('jax_disable_most_optimizations', True)
  plan = Plan(
    locations.absolute(_RESULTS.value),
    _PATH.value,
    _SIDE.value,
    _MASK.value,
    'smoke' if smoke else _SCALE.value.replace('full', ''),
    steps=4 if smoke else _STEPS.value,
    seeds=2 if smoke else _SEEDS.value,
  )
  settings = rows.claim(plan)
  run = functools.partial(run_row, plan)
  rows.run_all(plan.results, method_rows(plan), plan.seeds, run)
  report(plan, settings)


def method_rows(plan: Plan) -> list[rows.Row]:
  """Returns the rows of the table."""
  return [
    *(
      rows.Row(name, (config, plan.scale), changes)
      for name, (config, changes) in METHODS.items()
    ),
    rows.Row(GREY, ('vae_facades', plan.scale), single=True),
  ]


def run_row(plan: Plan, row: rows.Row, seed: int):
  """Returns how near the recovered test images are, and a page [3, 10, ...] of them."""
  config = rows.get_config(row, seed)
  if plan.scale != 'smoke':
    for section in (config.data, config.evaluation.data):
      section.update(path=plan.path, side=plan.side, mask=plan.mask)
  test = datasets.load(**config.evaluation.data)
  batch = test[:]
  if row.name == GREY:
    samples = batch['condition']
  else:
    state, _ = rows.train(config, plan.steps, row.name)
    config.evaluation.num_samples = len(test)
    draw = evaluation.sampler(algorithms.get(config.algorithm), config, test)
    samples = np.asarray(draw(state))
  page = [x[:10] for x in (batch['condition'], samples, batch['image'])]
  found = evaluation.recovered(samples, batch, config.data)
  return found, datasets.to_unit(np.stack(page), config.data)


def report(plan: Plan, settings) -> None:
  """Writes table.md, pictures and report.html of what is there; prints the table."""
  lines = rows.table(plan.results, method_rows(plan), _COLUMNS, plan.seeds)
  pages = {}
  for row in method_rows(plan):
    path = rows.result_path(plan.results, row, 0).with_suffix('.npy')
    if row.name != GREY and path.exists():
      pages[row.name] = np.load(path, allow_pickle=False)
  sections = []
  if pages:
    known, _, true = next(iter(pages.values()))
    page = np.stack([known, *(page[1] for page in pages.values()), true])
    png = images.png(images.strips(page), zoom=2)
    (plan.results / 'recovered.png').write_bytes(png)
    sections = [(f'Known; {"; ".join(pages)}; true', png)]
  rows.write_report(
    plan.results,
    'Recovery of hidden parts',
    {
      'Test images': lines,
      'Printed': rows.printed(_PRINTED_COLUMNS, PRINTED),
    },
    sections,
    settings,
  )


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


if __name__ == '__main__':
  app.run(main)
