"""Fused CNN cells for the supernet, and BatchNorm with statistics over several processes."""
