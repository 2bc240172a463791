"""What is done to a batch of frames: decode, detect, read text, embed, score, fingerprint, decide.

Findings (what was seen in an image) are defined once here, and every layer above speaks them.
"""
