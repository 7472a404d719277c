"""Kubeflow pipelines: assembly only. The steps are in rankwise.kfp.components."""
