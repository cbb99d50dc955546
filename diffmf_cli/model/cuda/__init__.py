"""The network on CUDA, by Triton kernels of its own: what `diffmf_cli.model.network` says, faster."""
