"""Where runs are watched: csv, W&B, and the W&B workspace as code."""
