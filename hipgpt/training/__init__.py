"""A step, a run and its state.

Read step, step_io, optimizer, muon, schedule, validation, loop, interruption, state, trackers, estimate, slurm.
"""
