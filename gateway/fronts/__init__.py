"""The fronts that agents connect to: Streamable HTTP and stdio."""

#: The role that /healthz reports: `okayed run`, or embedded in an `okayed stdio`.
RUN, EMBEDDED = "run", "inside"
