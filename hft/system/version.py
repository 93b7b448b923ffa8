"""The version of hft, on its own: imported by what a run records and by the build, never by a stage
of the cache, whose keys it would change.
"""

VERSION = "0.2.0"
FIRST_VERSION = "0.1.0"  # made the runs and studies that record no version
