"""Runs a Katib Experiment file on this machine, without a cluster."""
