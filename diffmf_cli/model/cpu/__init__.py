"""The network on a CPU, by numba kernels of its own: what `diffmf_cli.model.network` says, faster."""
