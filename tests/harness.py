"""The real loop in one process: real jobs, sensor, HTTP, Redis and database, without daemons."""

import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import dagster as dg
from dagster._core.definitions.partitions.context import partition_loading_context

from zlh_dagster.definitions import build
from zlh_dagster.jobs.agent_shards import PROBE_AGENTS
from zlh_dagster.jobs.level1_repair import LEVEL1_REPAIR
from zlh_dagster.jobs.observe import OBSERVE
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.ticks import take_tick

_log = logging.getLogger(__name__)


@dataclass
class Loop:
    """One controller; ``minute`` is what happens between two full minutes.

    Attributes:
        through_dagster: Whether a minute's tick is a run, or only what such a run does: Dagster's
            part is most of its cost, and the same every time.
    """

    through_dagster: ClassVar[bool] = False
    services: Services
    instance: dg.DagsterInstance
    cursor: str | None = None
    skips: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.definitions = build(self.services)

    def observe(self) -> dg.ExecuteInProcessResult:
        """One tick."""
        job = self.definitions.resolve_job_def(OBSERVE)
        return job.execute_in_process(instance=self.instance, raise_on_error=False)

    def judge(self) -> list[dg.RunRequest]:
        """The drift sensor, once; its skip reasons are kept."""
        sensor = self.definitions.resolve_sensor_def("drift_sensor")
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"services": self.services}
        ) as context:
            result = sensor.evaluate_tick(context)
        if result.skip_message:
            self.skips.append(result.skip_message)
        self.cursor = result.cursor
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return list(result.run_requests or [])

    def repair(self, run_config: dict[str, Any], **options: Any) -> dg.ExecuteInProcessResult:
        """The repair job with a config of the contract."""
        job = self.definitions.resolve_job_def(LEVEL1_REPAIR)
        return job.execute_in_process(
            run_config=run_config, instance=self.instance, raise_on_error=False, **options
        )

    def minute(self) -> list[dg.ExecuteInProcessResult]:
        """A tick, its judgement, and the repair runs that follow."""
        if self.through_dagster:
            assert self.observe().success
        else:
            run = dg.DagsterRun(OBSERVE, str(uuid.uuid4()), status=dg.DagsterRunStatus.SUCCESS)
            list(take_tick(self.services, run.run_id, warn=_log.warning))
            self.instance.add_run(run)
        repaired = [self.repair(asked.run_config, tags=asked.tags) for asked in self.judge()]
        self.shards(self.next_round())
        return repaired

    def next_round(self) -> list[dg.RunRequest]:
        """The sensor of the agents' shards, once."""
        sensor = self.definitions.resolve_sensor_def("agent_rounds_sensor")
        with (
            dg.build_sensor_context(
                instance=self.instance,
                definitions=self.definitions,
                resources={"services": self.services},
            ) as context,
            # The daemon's own context has it already.
            partition_loading_context(dynamic_partitions_store=self.instance),
        ):
            return list(sensor.evaluate_tick(context).run_requests or [])

    def shards(self, requests: Iterable[dg.RunRequest]) -> None:
        """The runs of one round of the agents' shards."""
        job = self.definitions.resolve_job_def(PROBE_AGENTS)
        for request in requests:
            done = job.execute_in_process(
                run_config=request.run_config,
                partition_key=request.partition_key,
                instance=self.instance,
                raise_on_error=False,
            )
            assert done.success

    def by_hand(self, *repairs: tuple[int, str], live: bool = True) -> dg.ExecuteInProcessResult:
        """A repair as the operator asks for it."""
        config = {
            "repairs": [{"vmid": vmid, "action": action} for vmid, action in repairs],
            "requested_by": "operator",
            "live": live,
        }
        return self.repair({"ops": {LEVEL1_REPAIR: {"config": config}}})


def writes(sandbox: Any, *surfaces: str) -> list[Any]:
    """Writes that reached the sandbox's surfaces, all but Discord when none is named."""
    wanted = surfaces or ("cloudflare", "technitium", "velocity")
    return [e for e in sandbox.edge.journal.entries() if e.write and e.surface in wanted]


def statuses(services: Services, vmid: int | None = None) -> list[str]:
    """Statuses of the ledger's rows, oldest first."""
    return [event["status"] for event in reversed(services.ledger.events(vmid=vmid))]


def titles(sandbox: Any) -> list[str]:
    """Titles of the Discord messages so far."""
    return [m.payload["embeds"][0]["title"] for m in sandbox.edge.discord.inbox()]


def edge_state(sandbox: Any) -> list[tuple[str, ...]]:
    """The whole edge as comparable values, record identifiers and times left out."""
    state: Iterable[tuple[str, ...]] = (
        *(
            ("cloudflare", r.name, r.type, str(r.content), str(r.data), str(r.ttl), str(r.proxied))
            for r in sandbox.edge.cloudflare.records()
        ),
        *(
            ("technitium", r.name, r.type, str(r.data), str(r.ttl), str(r.disabled))
            for r in sandbox.edge.technitium.records()
            if r.type != "SOA"
        ),
        *(("velocity", b.name, b.address, str(b.port)) for b in sandbox.edge.velocity.backends()),
    )
    return sorted(state)
