"""The DIFF-MF network, its checkpoints and the catalogue of those that are shipped."""
