"""Whether `algorithm="auto"` takes the faster way to the nearest rows, on data with structure and without."""
