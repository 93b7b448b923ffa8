"""Raw Bitcoin trades and quotes in, an honestly scored trading signal out; the rooms stand in data
order (DESIGN).
"""

__version__ = "0.2.0"
