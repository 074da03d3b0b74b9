"""The hottest loops of a supernet on a CPU as C++ code: fewer passes over the memory than torch's operations.

The code is compiled when it is first needed (see `compiler`). `operations.supports` says whether it applies;
otherwise the callers compute the same with torch's operations. Neither autograd nor torch's modes and
profilers see these calls: autograd functions make them.
"""
