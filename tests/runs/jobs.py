"""A job with next to nothing to do."""

import dagster as dg


@dg.op
def work(context: dg.OpExecutionContext) -> None:
    context.log.info("worked")


@dg.job
def a_job() -> None:
    work()
