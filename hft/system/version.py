"""The version of hft, on its own: imported by what a run records and by the build, never by a stage
of the cache, whose keys it would change.
"""

VERSION = "0.2.0"
