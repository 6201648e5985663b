import threading

import pytest

from outcrop.errors import Throttled
from outcrop.serving import Capacity


def test_reserved_places_are_kept_free_from_on_demand_requests() -> None:
    capacity = Capacity(slots=4, wait_s=0.05)
    capacity.reserve("p", 3)
    with capacity.place(None):
        with pytest.raises(Throttled), capacity.place(None):
            pass
        with capacity.place("p"), capacity.place("p"), capacity.place("p"):
            with pytest.raises(Throttled), capacity.place("p"):
                pass
    capacity.reserve("p", 0)
    with capacity.place(None), capacity.place(None), capacity.place(None), capacity.place(None):
        pass


def test_a_request_waits_for_a_place() -> None:
    capacity = Capacity(slots=1, wait_s=5)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with capacity.place(None):
            entered.set()
            leave.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(5)
    threading.Timer(0.1, leave.set).start()
    with capacity.place(None):
        assert leave.is_set()
    holder.join()


def test_too_many_waiting_are_refused_at_once() -> None:
    capacity = Capacity(slots=1, wait_s=1)
    refused = []

    def ask() -> None:
        try:
            with capacity.place(None):
                threading.Event().wait(0.01)
        except Throttled:
            refused.append(1)

    with capacity.place(None):
        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        threading.Event().wait(0.2)
        assert len(refused) == 4
    for thread in threads:
        thread.join()


def test_free_places_go_round_the_models_that_wait() -> None:
    capacity = Capacity(slots=1, wait_s=5)
    order: list[str] = []
    threads = []

    def ask(model: str) -> None:
        with capacity.place(None, model):
            order.append(model)

    with capacity.place(None, "held"):
        for model in ("busy", "busy", "busy", "busy", "quiet"):
            threads.append(threading.Thread(target=ask, args=(model,)))
            threads[-1].start()
            threading.Event().wait(0.05)
    for thread in threads:
        thread.join()
    assert order.index("quiet") <= 1
    assert order.count("busy") == 4
