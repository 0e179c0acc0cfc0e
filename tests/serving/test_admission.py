"""Turns between clients, on a real event loop."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from serving.web.admission import Admission
from serving.web.limits import Refusal


def run(scenario, **options):
    """Runs a scenario with an Admission of one turn at a time."""
    options = {"concurrent": 1, "queue_length": 8, "queue_seconds": 30.0} | options
    return asyncio.run(scenario(Admission(**options)))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def nobody_leaves():
    return asyncio.get_running_loop().create_future()


async def song(admission, client, log, gone=None):
    async with admission.turn(client, gone or nobody_leaves()):
        log.append(client)
        await settle()


def test_clients_take_turns():
    """One that sent four before the others came is not served before them."""

    async def scenario(admission):
        log = []
        tasks = [asyncio.create_task(song(admission, "many", log)) for _ in range(4)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(song(admission, name, log)) for name in ("one", "two")]
        await asyncio.gather(*tasks)
        assert admission.num_waiting == 0
        return log

    assert run(scenario) == ["many", "many", "one", "two", "many", "many"]


def test_as_many_at_once_as_may_be():
    async def scenario(admission):
        active = most = 0

        async def work(client):
            nonlocal active, most
            async with admission.turn(client, nobody_leaves()):
                active += 1
                most = max(most, active)
                await settle()
                active -= 1

        await asyncio.gather(*(work(str(place % 5)) for place in range(20)))
        return most

    assert run(scenario, concurrent=3, queue_length=64) == 3


def test_a_full_queue_and_a_client_that_fills_its_half():
    async def scenario(admission):
        refused, log = [], []

        async def ask(client):
            try:
                await song(admission, client, log)
            except Refusal as refusal:
                refused.append((client, refusal.status, refusal.retry_after > 0))

        tasks = [asyncio.create_task(ask("many")) for _ in range(4)]  # one works, two wait
        tasks += [asyncio.create_task(ask(name)) for name in ("one", "two", "three")]
        await asyncio.gather(*tasks)
        assert log == ["many", "many", "one", "two", "many"]
        return refused

    assert run(scenario, queue_length=4) == [("many", 429, True), ("three", 503, True)]


def test_whoever_gives_up_or_waits_too_long_leaves_no_gap():
    async def scenario(admission):
        log = []
        async with admission.turn("first", nobody_leaves()):
            waiting = [asyncio.create_task(song(admission, str(n), log)) for n in range(3)]
            await settle()
            waiting[1].cancel()
            await settle()
            assert admission.num_waiting == 2
        await asyncio.gather(*waiting, return_exceptions=True)
        assert log == ["0", "2"]
        admission._queue_seconds = 0.01
        async with admission.turn("first", nobody_leaves()):
            with pytest.raises(Refusal) as refusal:
                await song(admission, "late", log)
            assert refusal.value.status == 503
        admission._queue_seconds = 30.0
        await song(admission, "last", log)
        return log

    assert run(scenario) == ["0", "2", "last"]


def test_whoever_has_gone_is_passed_over():
    """In the queue at once, and once more when it is its turn."""

    async def scenario(admission):
        log, gone, late = [], nobody_leaves(), nobody_leaves()
        async with admission.turn("first", nobody_leaves()):
            waiting = [
                asyncio.create_task(song(admission, name, log, left))
                for name, left in (("gone", gone), ("late", late), ("stays", None))
            ]
            await settle()
            gone.set_result(None)
            await settle()
            assert waiting[0].done() and admission.num_waiting == 2
        late.set_result(None)  # it has its turn already, and has not noticed yet
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results[:2]] == [ClientDisconnect] * 2
        assert admission.num_waiting == 0
        return log

    assert run(scenario) == ["stays"]
