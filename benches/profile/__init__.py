"""Where the time inside one piece of work goes."""
