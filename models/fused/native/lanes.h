// Types and constants that all sources share.
//
// Maps lie in memory as (N, F, T, C), with a multiple of 8 channels; sequences as (T, N, H). Loops process several
// channels at a time, as one vector of the processor. The work is split in the same way for any number of threads: each
// part has its own sum, and the caller adds the sums. So the results do not depend on the number of threads. In
// comments, x' is the transpose of x.

#pragma once
#include <algorithm>
#include <cstdint>

using Int = std::int64_t;

// L numbers as one vector. They need not be aligned.
template <class T, int L>
struct Lanes {
  typedef T type __attribute__((vector_size(L * sizeof(T)), aligned(alignof(T)), may_alias));
};

// The L numbers that start at a pointer.
template <class T, int L>
auto& lanes(T* at) {
  return *reinterpret_cast<typename Lanes<T, L>::type*>(at);
}

template <class T, int L>
const auto& lanes(const T* at) {
  return *reinterpret_cast<const typename Lanes<T, L>::type*>(at);
}

// The size of a vector register in bytes. (Compilers generate slow code for wider vectors.)
#if defined(__AVX512F__)
constexpr int VECTOR = 64;
#elif defined(__AVX__)
constexpr int VECTOR = 32;
#else
constexpr int VECTOR = 16;
#endif
