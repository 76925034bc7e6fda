"""The asv suite: every catalogue entry and every model, from commit to commit.

asv imports these files, those of the working tree, under the fastml of whichever commit it looks at. What they measure
is defined by the working tree too: its catalogue makes the inputs. A commit that does not have what a benchmark calls
is skipped (`NotImplementedError` in `setup`), not failed. Everything is called once in `setup`, in the process that is
timed, so that nothing compiles under the clock.
"""
