"""What talks to a Kubernetes API server: registering the algorithm in Katib, reading an Experiment back.

Modules here import the Kubernetes client and nothing heavy at module level: the verbs run in hooks of a Helm chart,
where seconds and memory count.
"""
