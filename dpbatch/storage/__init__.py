"""Inputs and outputs on object storage: whatever fsspec reaches by a URL, such as s3:// or gs://.

Everywhere else a remote file is a `Path` like any other, named by `urls.place`; only this package
turns it back into a URL, and only `store.py` imports fsspec.
"""
