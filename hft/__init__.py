"""Raw Bitcoin trades and quotes in, an honestly scored trading signal out; the rooms stand in data
order (DESIGN).
"""
