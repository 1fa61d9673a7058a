"""Configures logging so that text from servers and agents cannot forge an entry."""

import logging
from typing import TextIO

from approvals import safetext

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _LogFormatter(logging.Formatter):
    """Escapes hidden characters and indents further lines, so that text cannot forge an entry or control a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        if _is_slack_outage(record):
            record.exc_info = record.exc_text = None  # the message names the error
        return safetext.escape_hidden(super().format(record)).replace("\n", "\n    ")


def _is_slack_outage(record: logging.LogRecord) -> bool:
    """Return whether Slack's SDK reports that it cannot connect and will retry."""
    error = record.exc_info[1] if record.exc_info else None
    return record.name.startswith("slack_sdk.") and isinstance(error, OSError)


def configure_logging(stream: TextIO, level: int) -> None:
    """Write the log to *stream*."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_LogFormatter(FORMAT))
    logging.basicConfig(level=level, handlers=[handler])
