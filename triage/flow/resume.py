"""At the start: everything that is unfinished is under way again.

The engine takes up by itself what it has recorded as running. This is for what it has not: a database of
its own that was lost or restored, a workflow that ended without its work being done, an instance that was
registered in the moment of the crash.
"""

from triage.flow.alert import alert_workflow_id
from triage.flow.deliver import deliver_workflow_id
from triage.flow.gather import Gatherer, assessment_id, wait_id
from triage.flow.line import Line


def resume(line: Line, gatherer: Gatherer) -> None:
    """Follow every series nobody looked at, and revive what has no workflow and needs one."""
    for series_id, after_instance_id in line.store.not_yet_evaluated():
        gatherer.notice(series_id, after_instance_id)
        # The series is judged once it is silent: either somebody waits for that, or judges it.
        analysis, wait = assessment_id(series_id, after_instance_id), wait_id(series_id, after_instance_id)
        if line.engine.knows(analysis):
            line.engine.revive("analyse", analysis, series_id, after_instance_id, "taken up again")
        else:
            line.engine.revive("wait_for_silence", wait, series_id, after_instance_id)
    for series_id, after_instance_id in line.store.not_concluded():
        workflow_id = assessment_id(series_id, after_instance_id)
        line.engine.revive("analyse", workflow_id, series_id, after_instance_id, "taken up at a start")
    for alert_id in line.store.not_answered():
        line.engine.revive("alert", alert_workflow_id(alert_id), alert_id)
    for report_id in line.store.not_delivered():
        line.engine.revive("deliver", deliver_workflow_id(report_id), report_id)
