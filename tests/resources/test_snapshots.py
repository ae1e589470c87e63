"""Snapshots come back as they were taken, whole or not at all."""

import json
import threading
import uuid
from datetime import datetime, timedelta, timezone

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.core.builders import container, desired, platform
from zlh_dagster.core.compare import compare, empty_drift
from zlh_dagster.core.model import records_frame
from zlh_dagster.core.snapshot import Outcome, Snapshot
from zlh_dagster.resources.snapshots import SnapshotMissing, SnapshotStore

NOW = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
RECORDS = [
    {"surface": "cloudflare", "name": "a", "type": "A", "content": "1", "ttl": 60, "proxied": True},
    {"surface": "technitium", "name": "b", "type": "A", "content": "2", "ttl": None},
    {"surface": "velocity", "name": "ü💥", "type": "BACKEND", "content": None, "disabled": True},
]


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> SnapshotStore:
    if request.param == "local":
        return SnapshotStore(str(tmp_path / "snapshots"))
    return SnapshotStore(f"memory://{uuid.uuid4().hex}")


class Remembers(MemoryFileSystem):
    """Lists a folder once, as object stores do, and knows no file but those of that listing."""

    protocol = "remembers"

    def find(self, path, **options):
        if path not in self.dircache:
            self.dircache[path] = super().find(path, detail=True)
        found = self.dircache[path]
        return found if options.get("detail") else list(found)

    def _open(self, path, mode="rb", **options):
        for listed in self.dircache.values():
            if mode == "rb" and path not in listed:
                raise FileNotFoundError(path)
        return super()._open(path, mode, **options)

    def invalidate_cache(self, path=None):
        self.dircache.clear()


def test_what_another_machine_writes_is_seen_after_a_listing():
    fsspec.register_implementation("remembers", Remembers, clobber=True)
    url = f"remembers://{uuid.uuid4().hex}"
    store, elsewhere = SnapshotStore(url), SnapshotStore(url)
    elsewhere._fs = Remembers(skip_instance_cache=True)
    assert not store.ready()
    elsewhere.write(snap(records_frame(RECORDS), source="first"))
    assert store.sources("t1") == ["first"]
    elsewhere.write(snap(records_frame(RECORDS), source="second"))
    assert store.sources("t1") == ["first", "second"]
    elsewhere.write(snap(records_frame(RECORDS), source="third"))
    assert store.read("third", "t1").observed
    elsewhere.write(snap(records_frame(RECORDS), source="first", tick="t2"))
    assert set(store.ticks()) == {"t1", "t2"}
    assert store.ready()


def snap(rows: pd.DataFrame, outcome=Outcome.OBSERVED, **values) -> Snapshot:
    given = {"source": "cloudflare_records", "tick": "t1", "taken_at": NOW}
    return Snapshot(**{**given, "outcome": outcome, "rows": rows, **values})


def values(frame: pd.DataFrame) -> list[dict]:
    """The rows, every kind of null as ``None``."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


FRAMES = {
    "records": records_frame(RECORDS),
    "one record": records_frame(RECORDS[:1]),
    "no records": records_frame([]),
    "desired": desired(container(5000), container(5001, lifecycle="suspended")).records,
    "nothing desired": desired().records,
    "drift": compare(desired(container()).records, records_frame([])),
    "no drift": empty_drift(),
    "payloads": platform(container(5000), container(5001, ip=None, payload=None)),
    "no payloads": platform(),
}


@pytest.mark.parametrize("rows", FRAMES.values(), ids=FRAMES.keys())
def test_every_kind_of_frame_comes_back_with_its_types_and_nulls(store, rows):
    store.write(snap(rows))
    back = store.read("cloudflare_records", "t1").rows
    assert values(back) == values(rows)
    assert list(back.columns) == list(rows.columns)
    typed = [c for c, kind in rows.dtypes.items() if str(kind) != "object"]
    assert back[typed].dtypes.equals(rows[typed].dtypes), "Int64 and boolean, without rows too"


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome.OBSERVED, ""),
        (Outcome.UNOBSERVED, "cloudflare: HTTP 500"),
        (Outcome.OFF, "cloudflare is not configured"),
    ],
)
def test_every_outcome_comes_back_with_its_facts(store, outcome, reason):
    taken = snap(
        records_frame([]),
        outcome,
        reason=reason,
        requests=3,
        seconds=1.25,
        extra={"invalid": '[{"vmid": 1}]', "ü": "💥"},
    )
    store.write(taken)
    back = store.read("cloudflare_records", "t1")
    for field in ("source", "tick", "taken_at", "outcome", "reason", "requests", "seconds"):
        assert getattr(back, field) == getattr(taken, field)
    assert dict(back.extra) == dict(taken.extra)
    assert back.observed is (outcome is Outcome.OBSERVED)


def test_times_of_another_zone_come_back_as_the_same_moment(store):
    east = timezone(timedelta(hours=9))
    store.write(snap(records_frame([]), taken_at=NOW.astimezone(east)))
    assert store.read("cloudflare_records", "t1").taken_at == NOW


def test_a_comparison_of_what_was_read_back_finds_the_same(store):
    wanted = FRAMES["desired"]
    store.write(snap(wanted, source="desired_edge"))
    store.write(snap(records_frame([]), source="cloudflare_records"))
    back = compare(
        store.read("desired_edge", "t1").rows, store.read("cloudflare_records", "t1").rows
    )
    assert values(back) == values(compare(wanted, records_frame([])))
    assert len(back) == 10


def test_ticks_and_sources_are_kept_apart(store):
    for tick in ("t1", "t2"):
        for source in ("a", "b"):
            store.write(snap(records_frame([]), source=source, tick=tick, reason=tick + source))
    assert store.read("b", "t1").reason == "t1b"
    assert store.read("a", "t2").reason == "t2a"


def test_a_snapshot_written_again_is_the_newer_one(store):
    store.write(snap(records_frame([]), reason="old"))
    store.write(snap(records_frame([]), reason="new"))
    assert store.read("cloudflare_records", "t1").reason == "new"


def test_what_is_not_there_is_missing(store):
    with pytest.raises(SnapshotMissing, match="no snapshot of cloudflare_records at tick t1"):
        store.read("cloudflare_records", "t1")


def test_a_file_that_was_cut_off_is_missing_wherever_it_ends(store):
    path = store.write(snap(records_frame(RECORDS)))
    whole = store._fs.cat_file(path)
    for length in {0, 1, 4, len(whole) // 3, len(whole) // 2, len(whole) - 9, len(whole) - 1}:
        store._fs.pipe_file(path, whole[:length])
        with pytest.raises(SnapshotMissing):
            store.read("cloudflare_records", "t1")
    store._fs.pipe_file(path, whole)
    assert len(store.read("cloudflare_records", "t1").rows) == 3


@pytest.mark.parametrize("facts", [None, "null", "[]", "{}", "{broken", '{"source": 1}'])
def test_a_file_without_its_facts_is_missing(store, tmp_path, facts):
    table = pa.table({"a": [1]})
    if facts is not None:
        table = table.replace_schema_metadata({b"zlh_snapshot": facts.encode()})
    pq.write_table(table, tmp_path / "x.parquet")
    path = store.write(snap(records_frame([])))
    store._fs.pipe_file(path, (tmp_path / "x.parquet").read_bytes())
    with pytest.raises(SnapshotMissing):
        store.read("cloudflare_records", "t1")


def test_a_file_of_rubbish_is_missing(store):
    path = store.write(snap(records_frame([])))
    store._fs.pipe_file(path, b"PAR1" + b"\x00" * 100 + b"PAR1")
    with pytest.raises(SnapshotMissing):
        store.read("cloudflare_records", "t1")


def test_a_write_that_fails_leaves_nothing_that_can_be_read(store, monkeypatch):
    def broken(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(type(store._fs), "mv", broken)
    with pytest.raises(OSError, match="disk full"):
        store.write(snap(records_frame([])))
    with pytest.raises(SnapshotMissing):
        store.read("cloudflare_records", "t1")
    assert store.newest_first() == []


def test_a_reader_never_sees_half_a_file(tmp_path):
    """One writer over and over, one reader beside it: each read is one of the two, whole."""
    store = SnapshotStore(str(tmp_path))
    large = pd.concat([records_frame(RECORDS)] * 2000, ignore_index=True)
    small = records_frame(RECORDS[:1])
    store.write(snap(small))
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            store.write(snap(large))
            store.write(snap(small))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        sizes = {len(store.read("cloudflare_records", "t1").rows) for _ in range(60)}
    finally:
        over.set()
        writer.join()
    assert sizes <= {1, 6000}


def test_the_tick_written_last_is_the_newest(store):
    assert store.newest_first() == []
    for tick in ("b", "c", "a"):
        store.write(snap(records_frame([]), tick=tick))
    assert store.newest_first() == ["a", "c", "b"]


def test_a_customers_text_cannot_reach_another_file(store):
    """Reasons and extras are data inside the file; only source and tick name it."""
    extra = {"../../x": "../y"}
    path = store.write(snap(records_frame([]), reason="../../etc/passwd", extra=extra))
    assert path.endswith("/t1/cloudflare_records.parquet")
    assert json.loads(json.dumps(dict(store.read("cloudflare_records", "t1").extra))) == extra


def test_ticks_are_listed_with_the_time_of_their_last_file(store):
    assert store.ticks() == {}
    before = datetime.now(timezone.utc) - timedelta(seconds=2)
    store.write(snap(records_frame([]), tick="t1"))
    store.write(snap(records_frame([]), tick="t2"))
    store.write(snap(records_frame([]), tick="t2", source="operations"))
    found = store.ticks()
    assert set(found) == {"t1", "t2"}
    assert all(before <= moment <= datetime.now(timezone.utc) for moment in found.values())


def test_a_tick_is_deleted_whole_and_alone(store):
    for tick in ("t1", "t2"):
        for source in ("operations", "agents"):
            store.write(snap(records_frame([]), tick=tick, source=source))
    store.delete("t1")
    assert set(store.ticks()) == {"t2"}
    with pytest.raises(SnapshotMissing):
        store.read("agents", "t1")
    assert store.read("agents", "t2").tick == "t2"
    with pytest.raises(OSError, match="t1"):
        store.delete("t1")


@pytest.mark.parametrize(
    "written",
    [
        1_893_553_445.5,
        "2030-01-02T03:04:05.500000",
        "2030-01-02T03:04:05.500000+00:00",
        datetime(2030, 1, 2, 3, 4, 5, 500_000),
        datetime(2030, 1, 2, 4, 4, 5, 500_000, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_every_file_systems_word_for_a_time_is_understood(store, monkeypatch, written):
    files = {"root/t1/agents.parquet": {"updated": written}}
    monkeypatch.setattr(store, "_files", lambda: files)
    assert store.ticks() == {"t1": datetime(2030, 1, 2, 3, 4, 5, 500_000, tzinfo=timezone.utc)}
