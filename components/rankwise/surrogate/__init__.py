"""Models of the objective: Gaussian processes, acquisition, observations. Plain arrays in and out."""
