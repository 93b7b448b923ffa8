"""The sweeper behind every -m (sweeper.py). Hydra imports this package at each start: it must stay
light.
"""
