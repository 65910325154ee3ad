"""Parts of the commands that only read what runs have left, such as ``loopwright runs``. They import no Hydra."""
