"""What a user would write instead of Imagewire: one program for each way of doing it.

Each is what somebody who knows the library would have after an afternoon, and all of them are given
what is not the point: Imagewire's own operators (so the same models in the same precision), its
policy and its sinks. What is compared is how a program gets images to the operators and findings to
the stores. `python -m bench.peers.aiokafka_loop` and the others read the settings that a worker
would read.
"""
