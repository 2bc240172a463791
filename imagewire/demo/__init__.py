"""The demonstration: real pictures to send through the pipeline, and reports of what came out."""
