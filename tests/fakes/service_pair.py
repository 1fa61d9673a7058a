"""Two approval services on one store, used in turn, as by a load balancer between two gateways."""

import asyncio
from collections import Counter
from itertools import cycle

#: Calls that end a run: they come from the service that claimed it.
RUN = {"finish", "record_not_sent", "record_in_doubt", "record_unanswered", "may_send"}


class ServicePair:
    """Stands in for one service: each call goes to the other service of the two."""

    def __init__(self, *services):
        self.__dict__.update(services=services, _turns=cycle(services))

    def __getattr__(self, name):
        member = getattr(next(self._turns), name)
        if name not in RUN:
            return member

        def end(call_id, *rest):
            runner = next((one for one in self.services if call_id in one.running), next(self._turns))
            return getattr(runner, name)(call_id, *rest)

        return end

    def __setattr__(self, name, value):
        for service in self.services:
            setattr(service, name, value)

    @property
    def running(self):
        """The runs at both services."""
        return sum((service.running for service in self.services), Counter())

    async def sweep(self):
        await asyncio.gather(*(service.sweep() for service in self.services))
