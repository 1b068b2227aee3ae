# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     name: python3
#     display_name: Python 3
#     language: python
# ---

# %% [markdown]
# # SteinGAN on your images
#
# SteinGAN trains two networks on images alone: an energy that is low at images, and
# a generator that draws from it. The generator moves its samples along the
# direction of SVGD, whose kernel keeps them apart. This page makes a file of
# images, as you would of your own, trains on it, and looks at what comes out and at
# what could have gone wrong.
#
# ## Images in a file
#
# An `.npz` file with bytes [n, h, w, c] is the shortest way in. Yours would hold
# your images; here they are scikit-learn's handwritten digits, enlarged to 16x16.
# `label` is optional. Where there are classes, both networks can be given them, and
# the images get better.

# %%
import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from PIL import Image
from sklearn import datasets as sklearn_datasets

from stein_jax import controllers
from stein_jax import datasets
from stein_jax import energies
from stein_jax import generators
from stein_jax import kernels
from stein_jax import metrics as sample_metrics
from stein_jax import stein
from stein_jax.algorithms import steingan

bunch = sklearn_datasets.load_digits()
enlarged = [
  np.asarray(Image.fromarray(np.uint8(image * 255 / 16)).resize((16, 16)))
  for image in bunch.images
]
path = pathlib.Path(tempfile.mkdtemp()) / 'images.npz'
np.savez(path, image=np.stack(enlarged)[..., None], label=bunch.target)

source = datasets.load('npz', path=str(path), condition='label')
print(len(source), 'images', source[:1]['image'].shape, source.num_classes)

# %% [markdown]
# ## Two networks
#
# The energy is the error of an autoencoder, plus the cross entropy of the label.
# The generator is a DCGAN. For images of another size change `convs`, whose lines
# are (width, kernel size, stride, padding) and must end at 1x1, and `shape` and
# `strides` of the generator. These widths are enough for digits; photographs want
# four times as many.

# %%
batches = datasets.batches(source, 100, seed=0)
first = next(batches)
num_steps = 600
halved = lambda rate: optax.linear_schedule(
  rate, 0.0, num_steps // 2, num_steps // 2
)
energy, generator = generators.create_pair(
  jax.random.key(0),
  energies.JointLabel(
    energies.Autoencoder(convs=((16, 5, 2, 2), (32, 5, 2, 2), (64, 4, 4, 0))),
    num_classes=10,
    margin=0.2,
    dropout=0.3,
  ),
  optax.adam(halved(5e-4), b1=0.5),
  generators.DCGAN(
    shape=(16, 16, 1),
    dense=(128,),
    base=32,
    widths=(16,),
    strides=(2, 2),
    num_classes=10,
    output='sigmoid',
  ),
  optax.adam(halved(1e-3), b1=0.5),
  first['image'],
  label=first['label'],
)

# %% [markdown]
# ## Training
#
# The kernel acts on the features of the energy. `Discount` lets the energy see less
# of the samples while it is ahead of the generator. `negative_weight` is 1 - γ, the
# weight that samples have in its loss at all times.

# %%
controller = controllers.Discount()
state = steingan.State(
  jnp.zeros((), jnp.int32),
  energy,
  generator,
  jnp.zeros(()),
  controller.init(),
)
step = jax.jit(
  functools.partial(
    steingan.step,
    direction=stein.FeatureSVGD(
      kernels.RBF(kernels.Median(scale=0.25)),
      form='swapped',
      normalize='row_sum',
    ),
    controller=controller,
    negative_weight=0.3,
    joint=False,
  )
)
labels = jnp.arange(100) % 10
pictures, history = {}, []
for i in range(num_steps):
  state, metrics = step(state, next(batches), jax.random.key(i))
  if i % 10 == 0:
    history.append({name: float(value) for name, value in metrics.items()})
  if i + 1 in (100, 300, num_steps):
    pictures[i + 1] = steingan.sample(
      state, jax.random.key(0), 100, condition=labels
    )


# %%
def tiled(images):
  rows = images.reshape(10, 10, 16, 16).transpose(0, 2, 1, 3)
  return rows.reshape(160, 160)


fig, axes = plt.subplots(1, 4, figsize=(12, 3.4))
by_class = (
  jnp.concatenate(
    [source[np.flatnonzero(bunch.target == k)[:10]]['image'] for k in range(10)]
  )
  .reshape(10, 10, 16, 16, 1)
  .swapaxes(0, 1)
)
shown = {'data': by_class} | {
  f'{count} steps': images for count, images in pictures.items()
}
for ax, (title, images) in zip(axes, shown.items(), strict=True):
  ax.imshow(tiled(images), cmap='gray_r')
  ax.set(title=title, xticks=[], yticks=[])
fig.tight_layout()
plt.show()

# %% [markdown]
# ## Did it go well?
#
# Three curves say more than a loss. `energy/gap`, the mean energy of data less that
# of samples, should stay near a constant. `samples/variance` falls towards 0 when
# the generator collapses. `generator/move` is the size of the direction.

# %%
names = ('energy/gap', 'samples/variance', 'generator/move')
fig, axes = plt.subplots(1, 3, figsize=(10, 2.6))
for ax, name in zip(axes, names, strict=True):
  ax.plot(np.arange(len(history)) * 10, [line[name] for line in history])
  ax.set(title=name, xlabel='step')
fig.tight_layout()
plt.show()

# %% [markdown]
# Two numbers say how varied the samples are beside the data: the mean distance of
# two of them, and that of one to its nearest other. A third says whether they are
# copies: the distance to the nearest image of the data, beside that of an image to
# its nearest other.

# %%
num = 500
condition = jnp.arange(num) % 10
samples = steingan.sample(state, jax.random.key(1), num, condition=condition)
flat = lambda x: np.asarray(x).reshape(len(x), -1)
real, drawn = flat(source[:]['image']), flat(samples)
for name, x in {'data': real[:num], 'samples': drawn}.items():
  print(
    f'{name:8} two of them {sample_metrics.pairwise_distance(x):.2f} apart, '
    f'nearest {sample_metrics.nearest_neighbour_distance(x):.2f}'
  )
copies = np.linalg.norm(drawn[:, None] - real[None], axis=-1).min(1)
print(
  f'nearest image of the data: {copies.mean():.2f}, smallest {copies.min():.2f}'
)

# %% [markdown]
# The command line trains such a model with checkpoints and a report page. Its file
# holds `train_image`, `train_label`, `test_image` and `test_label`, and this config's
# networks are for images of 28x28:
#
# ```sh
# python -m experiments.train --config=configs/steingan_mnist_joint.py:narrow \
#   --npz=images.npz --workdir=runs/own
# ```
