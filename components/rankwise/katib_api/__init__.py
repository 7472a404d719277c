"""Stubs of Katib's gRPC API, generated from ``katib/proto/rankwise/katib_api/api.proto``; never edited by hand.

How to generate them anew stands in ``katib/proto/README.md``.
"""
