"""Work over processes and over a Dask cluster of two real workers: same results, and no file can stop the others."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from data_modules.errors import InputError
from data_modules.ingest import ingest_mri
from data_modules.ingest.cluster import open_cluster
from data_modules.ingest.workers import Limits, Lost, open_workers

LIMITS = Limits(seconds=2.0, gib=2.0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        yield cluster


def test_results_come_in_the_order_of_the_items() -> None:
    with open_workers(2, LIMITS) as over:
        assert list(over(abs, range(-40, 0))) == list(range(40, 0, -1))


@pytest.mark.parametrize(
    ("function", "harmless", "harmful", "reason"),
    [
        (time.sleep, 0.0, 60.0, "longer than 2 s, see --time_limit"),
        (bytearray, 1, 5 * 2**30, "more than 2 GiB of memory, see --memory_limit"),
        (os.listdir, "/", None, ""),
    ],
)
def test_an_item_that_breaks_a_limit_is_lost_and_the_others_are_not(
    function: Callable, harmless: object, harmful: object, reason: str
) -> None:
    items = [harmless, harmful, harmless, harmless]
    with open_workers(2, LIMITS) as over:
        results = list(over(function, items))
    lost = [result.reason for result in results if isinstance(result, Lost)]
    assert len(lost) == (1 if reason else 0)
    assert all(reason in found for found in lost)
    assert len(results) == 4


def test_an_item_that_crashes_the_process_is_lost_and_the_others_are_not() -> None:
    with open_workers(1, LIMITS) as over:
        results = list(over(eval, ["1", "__import__('os').abort()", "2"]))
    assert results == [1, Lost("reading it crashes the decoder"), 2]


def test_a_map_that_is_left_early_ends_its_processes() -> None:
    start = time.monotonic()
    with pytest.raises(RuntimeError), open_workers(2, Limits(60.0, 2.0)) as over:
        next(iter(over(time.sleep, [0.0, 50.0, 50.0])))
        raise RuntimeError
    assert time.monotonic() - start < 30


def test_a_dask_cluster_makes_the_same_cohort(
    cluster: LocalCluster, tmp_path: Path, write_series: Callable[..., list[Path]], noise_volume: np.ndarray
) -> None:
    source = tmp_path / "source"
    for number in range(6):
        volume = np.roll(noise_volume, 5 * number, 1)
        write_series(source / str(number), volume, patient=f"P{number}", SeriesDescription="T2")
    (source / "notes.txt").write_text("no image")
    content = []
    for name, options in (("here", {"workers": 2}), ("there", {"scheduler": cluster.scheduler_address})):
        out = tmp_path / name / "cohort"
        out.parent.mkdir()
        out.with_name("cohort.key").write_text("a key for tests, long enough\n")
        assert ingest_mri(source, out, shape=(8, 16, 16), **options).cases == 6
        content.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert content[0] == content[1]


def test_on_a_cluster_what_is_stuck_or_crashes_is_lost_and_the_others_are_not(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    with open_cluster(cluster.scheduler_address, [tmp_path], LIMITS) as over:
        assert list(over(abs, range(-9, 0))) == list(range(9, 0, -1))
        results = list(over(time.sleep, [0.0, 60.0, 0.0, 0.0, 0.0]))
        assert [type(result) for result in results] == [type(None), Lost, *[type(None)] * 3]
        assert "2 s" in results[1].reason
    # It counts as crashed when several workers have died of it; a busy machine takes seconds to replace each.
    with open_cluster(cluster.scheduler_address, [tmp_path], Limits(120.0, 2.0)) as over:
        results = list(over(eval, ["1", "__import__('os')._exit(1)", "2"]))
        assert results == [1, Lost("reading it crashes the decoder"), 2]


def test_a_cluster_that_cannot_be_used_is_told_in_one_line(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(InputError, match=r"does not see .*nowhere; mount it there"),
        open_cluster(cluster.scheduler_address, [tmp_path / "nowhere"], LIMITS),
    ):
        pass
    monkeypatch.setattr("data_modules.ingest.cluster.CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense", "none.json"):
        with (
            pytest.raises(InputError, match=f"--scheduler {address}: no Dask scheduler answers there"),
            open_cluster(address, [tmp_path], LIMITS),
        ):
            pass
