"""Whether several seeds for each configuration pay: searches with the same number of trainings over a table."""
