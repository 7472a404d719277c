"""Population-based training against random search with the same number of training steps, on real trainings."""
