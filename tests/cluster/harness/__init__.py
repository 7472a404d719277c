"""A real one-node Kubernetes cluster with Katib on this machine, for the tests: ``python -m harness up``.

Everything is the real program: etcd, the Kubernetes binaries and Katib built from their Go modules, containerd and runc
from Debian. Three small things stand in for what a cluster gets from elsewhere, and are named as such: the resolver and
the volume provisioner of :mod:`harness.agent`, and the pause image. Nothing listens outside the node's own network
namespace.
"""
