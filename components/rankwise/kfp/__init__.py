"""Steps of a Kubeflow pipeline, and the Katib launcher.

:mod:`rankwise.kfp.components` has the components; it imports the standard library and kfp only, so that pipelines
compile where nothing else is installed. What the components call in their pods lies beside it:
:mod:`rankwise.kfp.steps`, and :mod:`rankwise.kfp.launcher`, which needs no kfp and no pipeline.
"""
