"""Who runs the trials of a study: launchers, the driver, the worker."""
