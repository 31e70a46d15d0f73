"""A model as an ONNX graph: written operator by operator from its modules, and read again as what it is, data of strangers."""
