"""Frames of the fleet keep nulls null and numbers whole; which job states are dead."""

import json
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from zlh_dagster.core.fleet import (
    AGENT_COLUMNS,
    CONTAINER_COLUMNS,
    OPEN_OPERATION_COLUMNS,
    OPERATION_COLUMNS,
    JobState,
    agents_frame,
    containers_frame,
    open_operations_frame,
    operations_frame,
    with_reserved,
)
from zlh_dagster.core.times import instant, iso

FRAMES = [
    (containers_frame, CONTAINER_COLUMNS),
    (agents_frame, AGENT_COLUMNS),
    (open_operations_frame, OPEN_OPERATION_COLUMNS),
    (operations_frame, OPERATION_COLUMNS),
]
NULLS = [None, np.nan, pd.NA, pd.NaT]


@pytest.mark.parametrize(("make", "columns"), FRAMES)
@pytest.mark.parametrize("rows", [[], [{}], [{"vmid": 5000}], [{"vmid": 5000, "other": 1}, {}]])
def test_a_frame_has_its_columns_and_types_whatever_the_rows(make, columns, rows):
    frame = make(iter(rows))
    assert dict(frame.dtypes.astype(str)) == columns
    assert len(frame) == len(rows)


@pytest.mark.parametrize("null", NULLS)
def test_every_kind_of_null_becomes_none_in_text_and_na_in_numbers(null):
    row = operations_frame([{"id": "a", "vmid": null, "jobId": null, "deadReads": null}]).iloc[0]
    assert row["jobId"] is None
    assert row["phase"] is None
    assert row["vmid"] is pd.NA
    assert row["deadReads"] is pd.NA


def test_large_numbers_beside_a_null_stay_whole():
    frame = containers_frame([{"vmid": 2**53 + 1}, {"vmid": None}])
    assert frame["vmid"][0] == 2**53 + 1


@pytest.mark.parametrize(("make", "columns"), FRAMES)
def test_a_frame_survives_a_file_and_json(make, columns, tmp_path):
    texts = {name: "x" for name, kind in columns.items() if kind == "object"}
    frame = make([{"vmid": 5000, **texts}, {"vmid": 5001}])
    frame.to_parquet(tmp_path / "f.parquet")
    back = make(pd.read_parquet(tmp_path / "f.parquet").to_dict("records"))
    pd.testing.assert_frame_equal(back, frame)
    assert json.loads(frame.to_json(orient="records"))[1]["vmid"] == 5001


DEAD = {"none", "gone", "stalled", "completed", "failed", "unlisted"}


@pytest.mark.parametrize("state", list(JobState))
def test_a_job_is_dead_when_no_worker_has_it_or_will_get_it(state):
    assert state.dead is (state.value in DEAD)


@pytest.mark.parametrize("microsecond", [0, 1, 123_000, 678_901, 999_999])
def test_a_time_comes_back_exactly_and_always_has_six_digits(microsecond):
    time = datetime(2030, 1, 2, 3, 4, 5, microsecond, tzinfo=timezone.utc)
    assert iso(time) == f"2030-01-02T03:04:05.{microsecond:06}+00:00"
    assert instant(iso(time)) == time
    assert iso(time.astimezone(timezone(timedelta(hours=5)))) == iso(time)


@pytest.mark.parametrize("null", NULLS)
def test_no_time_is_none(null):
    assert instant(null) is None
    assert iso(None) is None


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        iso(datetime(2030, 1, 1))
    with pytest.raises(ValueError, match="no time zone"):
        instant("2030-01-01T00:00:00.000000")
    with pytest.raises(ValueError, match="Invalid isoformat"):
        instant("soon")


def creation(**values):
    return {"vmid": None, "type": "create", "status": "queued", "unreadable": None, **values}


@pytest.mark.parametrize("null", NULLS)
def test_an_operation_has_the_one_vmid_that_it_names_or_that_is_reserved_for_it(null):
    row = creation(vmid=null)
    assert with_reserved(row, [5900])["vmid"] == 5900
    assert with_reserved(row, [])["vmid"] is None
    assert with_reserved(creation(vmid=5900), [5900]) == creation(vmid=5900)
    assert with_reserved(creation(vmid=5900), []) == creation(vmid=5900)


@pytest.mark.parametrize(
    ("named", "reserved", "why"),
    [
        (None, [5900, 5901], "vmid: none in the row, 5900, 5901 reserved for it"),
        (5000, [5900], "vmid: 5000 in the row, 5900 reserved for it"),
        (None, [None], "vmid: none in the row, ? reserved for it"),
        (5900, [5900, None], "vmid: 5900 in the row, 5900, ? reserved for it"),
    ],
)
def test_a_queued_creation_with_several_vmids_is_unreadable(named, reserved, why):
    row = creation(vmid=named)
    assert with_reserved(row, reserved) == {**row, "unreadable": why}
    for other in (creation(vmid=named, status="running"), creation(vmid=named, type="restart")):
        assert with_reserved(other, reserved) == other, "it gives nothing back"


def test_what_cannot_be_read_stays_so_whatever_is_reserved():
    row = creation(unreadable="vmid: 'abc' is not an integer of 32 bits")
    assert with_reserved(row, [5900]) == row
