"""Search strategies: which configurations to try next. Pure functions of an experiment and its trials."""
