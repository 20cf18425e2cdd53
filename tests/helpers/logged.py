"""What a block of code says through scvi-tools' logger."""

import contextlib
import logging


@contextlib.contextmanager
def logged(name="scvi"):
    """The messages, in their order."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
