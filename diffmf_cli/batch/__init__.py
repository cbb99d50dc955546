"""Many pairs: which, where their results go, and the engines that fuse them."""
