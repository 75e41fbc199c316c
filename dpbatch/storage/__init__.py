"""Where a run reads its photos and where it writes its results.

base: the two seams, InputSource and OutputFolder, and the log that a journal is written to.
local, remote: their implementations; choose: takes one of them, once, at the start of a run.
store: remote files through fsspec; retry and store_errors: what is tried again, and what is raised.
"""
