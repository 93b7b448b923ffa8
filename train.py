"""python train.py [group=kind] [group.field=value] [-m group=a,b]: compose, parse, train; README.md
shows the ways.
"""

import os
import sys

import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(composed):
    from hft.runs.jobs import train_job
    from hft.runs.train import train

    job = train_job(composed)
    return train(job.config, resumed=job.resumed, repeated=job.repeated)


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
        from hft.runs.jobs import read_train_job

        sys.exit(explain(error, "train", read_train_job))
