"""The trainings that `bench/peers.py` compares: one module for the hand-written loop, and one for each library."""
