"""Katib's suggestion API over gRPC: the one place where the search meets the wire.

``convert``      messages <-> types of :mod:`rankwise.space`
``outstanding``  the little state that Katib keeps for us between two requests
``notes``        what strategies note of their suggestions, kept likewise
``naming``       names and labels of trials
``service``      the two calls of the API, over any :class:`rankwise.strategies.base.Strategy`
``server``       sockets, threads, health, draining
``wiring``       the strategies with their language models
``command``      ``rankwise serve-suggestions``

Nothing is imported here, so that the command line can read the arguments without loading torch.
"""
