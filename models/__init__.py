"""Networks: ops, cells, mixed ops, the joint network, the supernet and what is derived from it, baselines."""
