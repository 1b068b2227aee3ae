"""What a test found, as a value that a statistician reads."""

from collections.abc import Iterator

from flax import struct
import numpy as np

from stein_jax.types import Array


@struct.dataclass
class TestResult:
  """What a test found: `statistic, p_value = result` takes it apart.

  It passes through jit and vmap, which give its arrays a leading axis.

  Attributes:
    statistic: what was compared with its draws [].
    p_value: the chance of one as large under the null [].
    rows: what else there is, by name: a number of each bandwidth [k], or of each of
      whatever the test has several of.
    seed: the words of the key of the draws; None of a test without any.
    title: the name of the test.
    facts: names and values of what was fixed: points, kernel, draws.
  """

  statistic: Array
  p_value: Array
  rows: dict[str, Array]
  seed: Array | None
  title: str = struct.field(pytree_node=False)
  facts: tuple[tuple[str, str | int], ...] = struct.field(pytree_node=False)

  def __iter__(self) -> Iterator[Array]:
    return iter((self.statistic, self.p_value))

  def __len__(self) -> int:
    return 2

  def __getitem__(self, index: int) -> Array:
    return (self.statistic, self.p_value)[index]

  def report(self) -> str:
    """Returns lines with all that the test depends on and found.

    Raises:
      ValueError: the result is of several tests at once, by vmap; take one by
        `jax.tree.map(lambda leaf: leaf[i], result)`.
    """
    if np.ndim(self.p_value):
      raise ValueError(
        f'The result is of {np.shape(self.p_value)} tests; take one by '
        'jax.tree.map(lambda leaf: leaf[i], result).'
      )
    lines = [*self.facts]
    if self.seed is not None:
      lines.append(('seed', ' '.join(map(str, np.ravel(self.seed)))))
    lines += [
      ('statistic', f'{float(self.statistic):.6g}'),
      ('p-value', f'{float(self.p_value):.4g}'),
    ]
    width = max(len(name) for name, _ in lines)
    text = [self.title, *(f'  {name:{width}}  {said}' for name, said in lines)]
    if self.rows:
      columns = [np.ravel(column) for column in self.rows.values()]
      text.append('  ' + ''.join(f'{name:>14}' for name in self.rows))
      for row in zip(*columns, strict=True):
        text.append('  ' + ''.join(f'{number:14.6g}' for number in row))
    return '\n'.join(text)
