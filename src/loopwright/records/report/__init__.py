"""Reports as HTML pages that fetch nothing. This package imports no torch, Hydra or matplotlib."""
