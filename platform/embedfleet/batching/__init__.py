"""From waiting sequences to packed batches: admission, planning, and the thread that runs them.

Deciding is done by pure functions of values and a passed-in `now`; one shell holds the lock, the
thread and the futures. Nothing here knows text, protobuf, torch or what a row means.
"""
