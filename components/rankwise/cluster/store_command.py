"""``rankwise check-store``: whether the store can be written, before an hour of training finds out that it cannot."""

from __future__ import annotations

import argparse
import os
import uuid
from collections.abc import Sequence

from rankwise.artifacts.store import open_store
from rankwise.errors import InvalidInput, Problem, SurroundingsError


def main(argv: Sequence[str]) -> int:
    """Check the store; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="rankwise check-store",
        description="Write an object into the store, read it back and delete it. A bucket that is missing is made, "
        "where the credentials allow it.",
        epilog="exit codes: 0 the store works, 2 wrong input, 3 the store failed or refused",
    )
    parser.add_argument("store", nargs="?", help="a folder or s3://bucket/prefix (default: $RANKWISE_STORE)")
    arguments = parser.parse_args(list(argv))
    uri = arguments.store or os.environ.get("RANKWISE_STORE", "")
    if not uri:
        raise InvalidInput([Problem("RANKWISE_STORE", "", "a folder or s3://bucket/prefix")])
    store = open_store(uri)
    key, written = f"check/{uuid.uuid4()}", uuid.uuid4().bytes
    store.put_bytes(key, written)
    try:
        if store.get_bytes(key) != written:
            raise SurroundingsError(f"the store {store.uri} gave back other bytes than were written")
    finally:
        store.delete(key)
    print(f"{store.uri}: written, read and deleted")
    return 0
