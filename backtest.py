"""python backtest.py ckpt=<run> [group=kind] [group.field=value]: score a run on the test period it
never saw.
"""

import os
import sys

import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="backtest")
def main(composed):
    from hft.runs.jobs import backtest_job
    from hft.runs.train import backtest

    return backtest(*backtest_job(composed))


if __name__ == "__main__":
    os.environ.setdefault(
        "HYDRA_FULL_ERROR", "1"
    )  # our own messages, without Hydra's trimmed traceback
    try:
        main()
    except SystemExit:
        raise
    except BaseException as error:
        from hft.config.compose import explain
        from hft.runs.jobs import backtest_job

        sys.exit(explain(error, "backtest", lambda composed, **given: backtest_job(composed)))
