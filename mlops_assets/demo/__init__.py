"""The demo: the closed loop on a replayed clock, driven through the public surface alone."""
