"""The Sweeper behind every -m. Hydra imports this package at each start, so everything heavy waits
in `_impl`.
"""
