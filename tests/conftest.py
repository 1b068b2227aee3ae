"""Four CPU devices, strict broadcasting, cheap compilation."""

import os

from absl import flags
import jax

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Compiling is nearly all of the suite's time.
jax.config.update('jax_disable_most_optimizations', True)
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
flags.FLAGS.mark_as_parsed()  # absltest's temporary folders ask for flags
