"""What each task of a schedule does when its turn comes: a function for every operation.

A function gets the context of the run, the parsed name of its task and the task; it returns the bytes that it moved, or
None where nothing was to do.
Which pass a task belongs to, its name says; when it may run, the graph says: so nothing in here waits or locks.
"""
