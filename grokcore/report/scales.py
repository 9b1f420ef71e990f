"""The scales at which a report can be built. (No imports here: the command line needs these names at once.)"""

PLANS = ("cpu", "full")  # runs at the scale of the sources: for some hours of processors, and for a GPU
SCALES = (*PLANS, "smoke")  # `smoke` is the small scale of the notebooks' own defaults
