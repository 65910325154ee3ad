"""The engine, which carries out a plan. `loopwright.trainer` imports the modules of this package directly."""
