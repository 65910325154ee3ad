"""The engine: carries plans out. Its parts are imported one by one; `loopwright.trainer` puts them together."""
