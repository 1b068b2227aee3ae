"""Laws of chains on Gaussians that are known, for tests."""

import numpy as np
from scipy import special


def mala_acceptance(step_size, dims):
  """Returns the rate at which MALA accepts on N(0, I), in any dimension.

  The log ratio is (delta^2 / 8) (|x|^2 - |y|^2), and its law at rest is such that the
  mean of min(1, exp W) is 2 P(W > 0). In each coordinate (x, y) = (x, r x + delta xi)
  with r = 1 - delta^2 / 2, so that x^2 - y^2 is a form in two normals, of eigenvalues
  a > 0 > -b: P(a A > b B) of two chi-squares A and B is one of a beta law.
  """
  r = 1 - step_size**2 / 2
  form = [[1 - r**2, -r * step_size], [-r * step_size, -(step_size**2)]]
  low, high = np.linalg.eigvalsh(form)
  return 2 * special.betainc(dims / 2, dims / 2, high / (high - low))


def best_mala_step(dims, rate=0.574):
  """Returns the step at which MALA accepts at that rate on N(0, I)."""
  low, high = 1e-3, 2.0
  for _ in range(50):
    middle = (low + high) / 2
    if mala_acceptance(middle, dims) > rate:
      low = middle
    else:
      high = middle
  return low
