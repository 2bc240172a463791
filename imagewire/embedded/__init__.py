"""The stack that `imagewire up` and `imagewire demo` run by themselves: a broker, the engines of
ClickHouse and Qdrant, and workers, each a child process of its own with its data in one directory.
"""
