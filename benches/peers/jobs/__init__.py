"""The jobs, by family: what fastml and others do, in every setting that is known to be fast."""
