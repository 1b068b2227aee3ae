"""Energy-based models and Stein variational methods in JAX.

Import the modules: `from stein_jax import kernels, stein, samplers`.
"""
