"""From a deployment to an ONNX model, and back into the check.

`build` makes the model in memory, `file` writes and reads it. Every NIR primitive has one writer
(`writers`), whatever the layout; a layout is one module that arranges what they write.
"""
