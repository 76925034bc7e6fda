"""fastml beside other libraries, on the same machine, in the same run.

A job is one piece of work that several libraries can do. Each peer is tried in every setting listed for it and
the fastest counts; its result is compared with ours before any of its times does. Then all take turns, and a
ratio is the median over the rounds of (peer's time / our time): above 1 we are faster. Losses are printed
like wins. A peer that is missing, fails or stops before the goal is named, and has no time.

A limit is a part of the job, timed alone: a product of matrices, or reading the data. It has no result to compare, so
it is no peer; the ratio is our share of it.

Worker threads that go on spinning after a call take the CPU from whoever comes next: those of OpenBLAS do so for
more than 60 ms, which makes a call on two cores after them up to twice as long. So they are told to sleep (by the
environment, before anything is imported), and there is a short pause between two ways.
"""
