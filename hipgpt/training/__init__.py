"""A step, a run and its state.

Read step, step_io, optimizer, ownership, reduction, muon, schedule, validation, loop, interruption, state, ranks,
trackers, estimate, measure, slurm.
"""
