"""One task for each step of `plantml retrain`. Copy it to Airflow's folder of DAGs.

A task that is retried, or runs on another worker, resumes where the last one stopped: results of steps are in the work
folder. If nothing is new, every task ends at once.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

CONFIG = "/etc/plantml/retrain.yaml"
STEPS = ("add", "clean", "split", "production", "train", "predict", "compare", "choose", "register", "report")

with DAG(
    dag_id="plantml_retrain",
    description="Train a challenger on new photos, and put it into service if it is better",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10)},
) as dag:
    before = None
    for step in STEPS:
        task = BashOperator(task_id=step, bash_command=f"plantml retrain {CONFIG} --step {step}")
        if before is not None:
            before >> task
        before = task
