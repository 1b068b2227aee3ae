"""Four CPU devices, or JAX_NUM_CPU_DEVICES; strict broadcasting, cheap compilation."""

import gc
import os
import tempfile

from absl import flags
import jax

jax.config.update('jax_platforms', 'cpu')
jax.config.update(
  'jax_num_cpu_devices', int(os.environ.get('JAX_NUM_CPU_DEVICES', 4))
)
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Compiling is nearly all of the suite's time. Without fusion emitters it takes a
# half to a quarter; jaxlib 0.11 and later have no other way, and no such flags.
jax.config.update('jax_disable_most_optimizations', True)
if jax.__version_info__ < (0, 11):
  os.environ['XLA_FLAGS'] = (
    f'{os.environ.get("XLA_FLAGS", "")} --xla_cpu_use_fusion_emitters=false'
    # One part of a program is compiled in less time than several.
    ' --xla_cpu_parallel_codegen_split_count=1'
  )
# Runs that are stopped and continued compile each program three times over.
_CACHE = tempfile.TemporaryDirectory()
jax.config.update('jax_compilation_cache_dir', _CACHE.name)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
flags.FLAGS.mark_as_parsed()  # absltest's temporary folders ask for flags


def pytest_collection_finish():
  # A traced program is many objects: by Python's defaults a twentieth of the
  # suite's time goes into looking for cycles among them.
  gc.freeze()
  gc.set_threshold(50_000, 20, 20)
