"""Messages that several checks share (PURE)."""

HTTP_URL = "this must be an http:// or https:// address."
NOT_EMPTY = "this must not be empty."
