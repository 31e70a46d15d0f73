import asyncio
import threading

import numpy as np
import pytest

from vitlab.errors import BusyError
from vitlab.serve.batching import Served
from vitlab.serve.engine import Outputs
from vitlab.serve.predict import Predictor
from vitlab.serve.settings import ServeSettings

CLASSES = ("ant", "bee", "cat")


class Gated(Predictor):
    """A predictor that waits for leave, notes how many images each batch has, and answers the first number in an image."""

    def __init__(self, model):
        super().__init__(model, batch_size=4)
        self.engine, self.sizes = self, []
        self.leave, self.began = threading.Semaphore(0), threading.Semaphore(0)

    def stack(self, prepared):
        self.sizes.append(len(prepared))
        return super().stack(prepared)

    def run(self, images):
        self.began.release()
        assert self.leave.acquire(timeout=20)
        return Outputs(np.zeros((4, 3), np.float32), images[:, :, 0, 0].numpy().astype(np.float32))


@pytest.fixture
def gated(make_model):
    return Gated(make_model(classes=CLASSES))


@pytest.fixture
def served(gated):
    one = Served("one", gated, ServeSettings(max_waiting=10, batch_seconds=0.001))
    yield one
    gated.leave.release(100)
    one.end()


def image(value):
    return np.full((8, 8, 3), value, np.uint8)


async def numbers(served, *values):
    return [int(one.features[0]) for one in await served.answer([image(value) for value in values])]


async def begun(gated):
    await asyncio.to_thread(gated.began.acquire)


def test_what_comes_while_a_batch_runs_is_the_next_batch_and_all_get_their_own(served, gated):
    async def work():
        first = asyncio.create_task(numbers(served, 1))
        await begun(gated)
        others = [asyncio.create_task(numbers(served, 2 * n, 2 * n + 1)) for n in range(1, 4)]
        await asyncio.sleep(0)
        gated.leave.release(3)
        return await first, [await other for other in others]

    assert asyncio.run(work()) == ([1], [[2, 3], [4, 5], [6, 7]])
    assert gated.sizes == [1, 4, 2]
    assert (served.images, served.batches, served.waiting) == (7, 3, 0)


def test_an_image_waits_for_others_to_fill_its_batch_but_not_for_ever(make_model):
    gated = Gated(make_model(classes=CLASSES))
    gated.leave.release(9)
    served = Served("one", gated, ServeSettings(batch_seconds=0.2))

    async def work():
        first = asyncio.create_task(numbers(served, 1))
        await asyncio.sleep(0.01)
        return await asyncio.gather(first, numbers(served, 2))

    assert asyncio.run(work()) == [[1], [2]] and gated.sizes == [2]
    assert asyncio.run(numbers(served, 3)) == [3] and gated.sizes == [2, 1]
    served.end()


def test_a_request_that_is_given_up_is_not_run(served, gated):
    async def work():
        first = asyncio.create_task(numbers(served, 1))
        await begun(gated)
        left, stayed = (asyncio.create_task(numbers(served, n)) for n in (2, 3))
        await asyncio.sleep(0)
        left.cancel()
        gated.leave.release(2)
        return await asyncio.gather(first, stayed)

    assert asyncio.run(work()) == [[1], [3]] and gated.sizes == [1, 1]


def test_what_is_given_up_is_not_kept_until_its_turn(served, gated):
    async def work():
        first = asyncio.create_task(numbers(served, 1))
        await begun(gated)
        left = asyncio.create_task(numbers(served, 2, 3, 4))
        await asyncio.sleep(0)
        assert served.waiting == 3
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert served.waiting == 0
        gated.leave.release(2)
        return await asyncio.gather(first, numbers(served, 5))

    assert asyncio.run(work()) == [[1], [5]] and gated.sizes == [1, 1]


def test_a_batch_that_waits_for_others_may_be_given_up(make_model):
    gated = Gated(make_model(classes=CLASSES))
    gated.leave.release(9)
    served = Served("one", gated, ServeSettings(batch_seconds=0.05))

    async def work():
        left = asyncio.create_task(numbers(served, 1))
        await asyncio.sleep(0.01)
        left.cancel()
        await asyncio.sleep(0.06)
        return await numbers(served, 2)

    assert asyncio.run(work()) == [2] and gated.sizes == [1]
    served.end()


def test_there_is_room_for_so_many_images_and_again_when_they_are_answered(served):
    with served.room(8):
        with pytest.raises(BusyError, match="one: has 8 images"), served.room(3):
            pass
        with served.room(2):
            assert served.accepted == 10
    assert served.accepted == 0


def test_a_function_runs_in_its_turn_while_the_model_runs_nothing_else(served, gated):
    async def work():
        first = asyncio.create_task(numbers(served, 1))
        await begun(gated)
        called = asyncio.create_task(served.run(lambda predictor: (predictor, served._turn.locked())))
        after = asyncio.create_task(numbers(served, 2))
        await asyncio.sleep(0)
        gated.leave.release(2)
        return await asyncio.gather(first, called, after)

    assert asyncio.run(work()) == [[1], (gated, True), [2]]


def test_a_function_takes_a_place_too(served):
    with served.room(10), pytest.raises(BusyError):
        asyncio.run(served.run(lambda _: None))


def test_a_batch_that_fails_fails_alone(served, gated):
    gated.leave.release(9)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(served.run(lambda _: 1 / 0))
    assert asyncio.run(numbers(served, 5)) == [5]


def test_at_the_end_what_waits_is_finished(make_model):
    gated = Gated(make_model(classes=CLASSES))
    served = Served("one", gated, ServeSettings(batch_seconds=20))

    async def work():
        asked = asyncio.create_task(numbers(served, 7))
        await asyncio.sleep(0.01)
        gated.leave.release(1)
        await asyncio.to_thread(served.end)
        return await asked

    assert asyncio.run(work()) == [7]
