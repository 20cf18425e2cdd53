"""Tensors in, tensors out: the scan and its back-ends, fused element-wise layers, row-compressed minibatches."""
