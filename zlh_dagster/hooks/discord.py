"""Hooks and a sensor that tell Discord how runs ended: one message for each run.

Hooks miss runs whose process was killed; the sensor sees them, but later. Whoever is first marks
the run with a tag, and the other one keeps quiet.
"""

import json
from collections.abc import Callable

import dagster as dg

from zlh_dagster.core.launch import REPAIR_RUN_FAILED
from zlh_dagster.core.messages import run_failed
from zlh_dagster.core.repair import CONTROLLER, OPERATOR
from zlh_dagster.core.result import BatchResult
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.teller import tell, tell_failing

TOLD_TAG = "zlh/told"
RESULT = "result"
"""Name of the op's output, and of the failure's metadata, that holds the batch's result."""

REQUESTED_BY_TAG = "zlh/requested_by"


def _claim(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether this run was not told yet; marks it as told."""
    run = instance.get_run_by_id(run_id)
    if run is not None and TOLD_TAG in run.tags:
        return False
    if run is not None:
        instance.add_run_tags(run_id, {TOLD_TAG: "yes"})
    return True


def repaired_hook(services_key: str = "services") -> dg.HookDefinition:
    """A hook that tells what a successful repair run did, if it did anything.

    Args:
        services_key: Resource that holds the services.
    """

    @dg.success_hook(name="discord_repaired", required_resource_keys={services_key})
    def discord_repaired(context: dg.HookContext) -> None:
        def told() -> None:
            value = dict(context.op_output_values[RESULT])
            _tell_batch(context, services_key, BatchResult.from_json(value))

        _safely(context, told)

    return discord_repaired


def failed_hook(services_key: str = "services") -> dg.HookDefinition:
    """A hook that tells that an op failed, and what it had done until then.

    Args:
        services_key: Resource that holds the services.
    """

    @dg.failure_hook(name="discord_failed", required_resource_keys={services_key})
    def discord_failed(context: dg.HookContext) -> None:
        def told() -> None:
            error = context.op_exception
            if isinstance(error, dg.Failure) and RESULT in error.metadata:
                value = json.loads(str(error.metadata[RESULT].value))
                _tell_batch(context, services_key, BatchResult.from_json(value))
                return
            tell_failed_run(
                getattr(context.resources, services_key),
                context.instance,
                run_id=context.run_id,
                job=context.job_name,
                error=str(error) if error else "",
            )

        _safely(context, told)

    return discord_failed


def tell_failed_run(
    services: Services, instance: dg.DagsterInstance, *, run_id: str, job: str, error: str
) -> None:
    """Tells that a run ended without doing its work, unless somebody did."""
    if not _claim(instance, run_id):
        return
    message = run_failed(job=job, run_id=run_id, error=error)
    incident = f"run_failed:{job}"
    if incident == REPAIR_RUN_FAILED and _by_hand(instance, run_id):
        services.discord.send(message)
    else:
        tell_failing(services, incident, message)


def _by_hand(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the operator asked for the run: what fails then says nothing of the loop."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.tags.get(REQUESTED_BY_TAG) != CONTROLLER


def _tell_batch(context: dg.HookContext, services_key: str, result: BatchResult) -> None:
    if _claim(context.instance, context.run_id):
        services: Services = getattr(context.resources, services_key)
        requested_by = str((context.op_config or {}).get("requested_by", OPERATOR))
        tell(services, result, run_id=context.run_id, requested_by=requested_by)


def _safely(context: dg.HookContext, told: Callable[[], None]) -> None:
    """A failure to tell stays in the log."""
    try:
        told()
    except Exception as error:  # noqa: BLE001 - a notification never fails a repair
        context.log.error(f"Discord was not told: {type(error).__name__}")
