// What the sources share. Maps lie in memory as (N, F, T, C), a multiple of 8 channels; loops go through some channels at
// a time, which fill vectors of the processor. Work is parted in the same way whatever the number of threads, each part
// sums for itself, and the caller adds the parts up: so sums do not depend on the threads.

#pragma once
#include <algorithm>
#include <cstdint>

using Int = std::int64_t;

// L numbers as one vector, wherever they lie in memory.
template <class T, int L>
struct Lanes {
  typedef T type __attribute__((vector_size(L * sizeof(T)), aligned(alignof(T)), may_alias));
};

template <class T, int L>
auto& lanes(T* at) {
  return *reinterpret_cast<typename Lanes<T, L>::type*>(at);
}

template <class T, int L>
const auto& lanes(const T* at) {
  return *reinterpret_cast<const typename Lanes<T, L>::type*>(at);
}

// The bytes of a vector of the processor. (Of wider ones compilers make slow code.)
#if defined(__AVX512F__)
constexpr int VECTOR = 64;
#elif defined(__AVX__)
constexpr int VECTOR = 32;
#else
constexpr int VECTOR = 16;
#endif
