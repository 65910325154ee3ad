"""The engine: the loops that carry out a plan. `loopwright.trainer` imports its modules one by one."""
