"""A question that anybody may ask as often as they like costs its answer once in a while."""

from __future__ import annotations

import asyncio

import pytest

from mlops_assets.serving.fresh import Fresh

pytestmark = pytest.mark.anyio


class Source:
    """Numbers its answers; each takes a moment."""

    def __init__(self) -> None:
        self.made = 0
        self.broken = False

    async def __call__(self) -> int:
        self.made += 1
        number = self.made
        await asyncio.sleep(0.01)
        if self.broken:
            raise RuntimeError(f"answer {number}")
        return number


async def test_all_who_ask_at_about_the_same_time_get_the_same_answer() -> None:
    source = Source()
    ask = Fresh(source, seconds=60)
    assert await asyncio.gather(*(ask() for _ in range(100))) == [1] * 100
    assert await ask() == 1


async def test_an_answer_that_is_too_old_is_made_anew() -> None:
    source = Source()
    ask = Fresh(source, seconds=0.0)
    assert [await ask(), await ask()] == [1, 2]


async def test_one_answer_is_made_at_a_time_however_old_the_last_one_is() -> None:
    source = Source()
    ask = Fresh(source, seconds=0.0)
    assert await asyncio.gather(*(ask() for _ in range(100))) == [1] * 100


async def test_an_error_is_told_to_all_who_wait_and_is_no_reason_to_ask_more_often() -> None:
    source = Source()
    source.broken = True
    ask = Fresh(source, seconds=60)
    told = await asyncio.gather(*(ask() for _ in range(10)), return_exceptions=True)
    assert {str(error) for error in told} == {"answer 1"}
    with pytest.raises(RuntimeError, match="answer 1"):
        await ask()


async def test_who_gives_up_waiting_does_not_take_the_answer_from_the_others() -> None:
    source = Source()
    ask = Fresh(source, seconds=60)
    gone, stays = asyncio.create_task(ask()), asyncio.create_task(ask())
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == 1
    assert source.made == 1
