"""The plan of a run and its result: what is assumed of a pair, and how it is pansharpened."""
