"""What a model wants once is one hold, one prompt and one run, and it reads what came of it, whatever its client's timers do.

The clients keep their own timers, so this takes real seconds. OKAYED_SOAK runs every client and delay: about three minutes.
"""

import asyncio
import os
from itertools import product

import pytest

from intentions import CLIENTS, TRANSPORTS, Cell, intentions, table

#: The client whose timer is the shortest, and tells nobody when it ends.
WORST = "openai-agents-sdk-1"


async def came_well(cells, folder, seconds):
    async with asyncio.timeout(seconds):
        found = await intentions(cells, folder)
    shown = table(found)
    assert all(came.well for came in found.values()), f"\n{shown}"


async def test_one_intention_is_one_run_for_a_client_that_gives_up_after_5_s(tmp_path):
    cells = [Cell(WORST, transport, after) for transport, after in product(TRANSPORTS, (2, 5, 7))]
    await came_well(cells, tmp_path, 120)


@pytest.mark.skipif("OKAYED_SOAK" not in os.environ, reason="takes minutes; make soak runs it")
async def test_one_intention_is_one_run_whatever_the_client_and_the_delay(tmp_path):
    cells = [Cell(*way) for way in product(CLIENTS, TRANSPORTS, (2, 5, 12, 40, 130))]
    await came_well(cells, tmp_path, 500)
