"""The ways in for agents: Streamable HTTP, and stdin/stdout."""

#: The role that a gateway reports in /healthz: a process of its own, or inside an `okayed stdio`.
RUN, INSIDE = "run", "inside"
