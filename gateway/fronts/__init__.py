"""The fronts that agents connect to: Streamable HTTP and stdio.

- `agents_listener` opens the HTTP listener; its connections keep the `connection_limits`.
- A plain request is read by a `plain_connection` (`plain_head`, `known_heads`) and answered by its base class
  (`answering_connection`, `responses`); `plain_front` has the parts that all plain connections share.
- At the first request that is not plain, the whole connection goes to aiohttp (`late_application`,
  `aiohttp_connection`, `aiohttp_front`).
- Both HTTP fronts share `header_checks` and `endpoint`.
- `stdio` is the other front; it is a `client` of a gateway over HTTP.
"""

#: The role that /healthz reports: `okayed run`, or embedded in an `okayed stdio`.
RUN, EMBEDDED = "run", "inside"
