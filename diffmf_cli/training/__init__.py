"""Training of DIFF-MF: data, losses and the loop behind `diffmf train`."""
