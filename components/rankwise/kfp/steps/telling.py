"""How a step ends: one sentence a mistake, and an exit code, as the command line has them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rankwise.errors import InvalidInput, RankwiseError, SurroundingsError
from rankwise.kfp.cancellation import Cancelled, cancellation
from rankwise.local.interruption import Interrupted
from rankwise.logs import configure_logging

WRONG_INPUT, SURROUNDINGS, FAILED = 2, 3, 4

log = logging.getLogger(__name__)


@contextmanager
def telling(step: str) -> Iterator[None]:
    """Log progress within the block, and turn what the house raises on purpose into a sentence and an exit code.

    Raises:
        SystemExit: 2 wrong input, 3 the surroundings failed, 4 the search or a training failed, 128 + n after
            signal n.
    """
    configure_logging()
    try:
        with cancellation():
            yield
    except InvalidInput as error:
        for problem in error.problems:
            print(f"{step}: {problem}", file=sys.stderr)
        code = WRONG_INPUT
    except SurroundingsError as error:
        print(f"{step}: {error}", file=sys.stderr)
        code = SURROUNDINGS
    except RankwiseError as error:
        print(f"{step}: {error}", file=sys.stderr)
        code = FAILED
    except (Cancelled, Interrupted) as cancelled:
        print(f"{step}: {cancelled}", file=sys.stderr)
        code = 128 + cancelled.signal_number
    else:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
