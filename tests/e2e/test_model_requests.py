"""One request of a model is one hold, one prompt and one run, and the model gets its result, whatever its client's timeouts.

The clients have their own timeouts, so this takes real seconds. OKAYED_SOAK runs every client and delay: three minutes.
"""

import asyncio
import os
from itertools import product

import pytest

from model_requests import CLIENTS, TRANSPORTS, Cell, run_cells, table

#: The client with the shortest timeout; it sends no cancellation.
WORST = "openai-agents-sdk-1"


async def check_cells(cells, folder, seconds):
    async with asyncio.timeout(seconds):
        found = await run_cells(cells, folder)
    shown = table(found)
    assert all(outcome.succeeded for outcome in found.values()), f"\n{shown}"


async def test_one_request_of_a_model_is_one_run_with_a_client_timeout_of_5_s(tmp_path):
    cells = [Cell(WORST, transport, after) for transport, after in product(TRANSPORTS, (2, 5, 7))]
    await check_cells(cells, tmp_path, 120)


@pytest.mark.skipif("OKAYED_SOAK" not in os.environ, reason="takes minutes; make soak runs it")
async def test_one_request_of_a_model_is_one_run_with_every_client_and_delay(tmp_path):
    cells = [Cell(*way) for way in product(CLIENTS, TRANSPORTS, (2, 5, 12, 40, 130))]
    await check_cells(cells, tmp_path, 500)
