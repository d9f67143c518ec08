"""What `tracelens capture -- python train.py` puts into the user's own program.

This folder leads PYTHONPATH there. Its `sitecustomize` is what Python imports first of all; once
the program has imported torch, `program` watches its steps and drives the recorder's session, and
`hooks` marks its phases and layers.
"""
